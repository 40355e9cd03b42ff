package kubernetes

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	helmrelease "helm.sh/helm/v3/pkg/release"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"

	"adconnector/internal/schedule"
)

// spreadYAML returns the values of connectors that share a cron expression.
func spreadYAML(count int, cron string) string {
	return strings.ReplaceAll(connectorsYAML(count), `"*/10 * * * *"`, fmt.Sprintf("%q", cron))
}

// cronOf returns the cron expression of the daemon of a connector.
func cronOf(t *testing.T, m *manifest, name string) string {
	t.Helper()
	return environmentOf(get[*apps.StatefulSet](t, m, "StatefulSet "+name).Spec.Template.Spec.Containers[0])["service.cron-expression"]
}

// TestSpreadSchedules checks that the fields H of a cron expression become numbers of their ranges.
func TestSpreadSchedules(t *testing.T) {
	for cron, want := range map[string]string{
		"H H/10 * * * *":                    `^([0-9]|[1-5][0-9]) [0-9]/10 \* \* \* \*$`,
		"H * * * *":                         `^([0-9]|[1-5][0-9]) \* \* \* \*$`,
		"H H * * *":                         `^([0-9]|[1-5][0-9]) ([0-9]|1[0-9]|2[0-3]) \* \* \*$`,
		"CRON_TZ=Europe/Berlin H H/4 * * *": `^CRON_TZ=Europe/Berlin ([0-9]|[1-5][0-9]) [0-3]/4 \* \* \*$`,
		"H H/90 * * * *":                    `^([0-9]|[1-5][0-9]) ([0-9]|[1-5][0-9])/90 \* \* \* \*$`,
		"0 0 6 * * THU":                     `^0 0 6 \* \* THU$`,
		"@hourly":                           `^@hourly$`,
	} {
		got := cronOf(t, mustRender(t, spreadYAML(1, cron)), "ad-domain-000")
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s: %s, want %s", cron, got, want)
		}
		if _, err := schedule.Parse(got); err != nil {
			t.Errorf("%s: %s: %v", cron, got, err)
		}
	}
	for _, cron := range []string{"H", "H H", "* * H * *", "0 0 0 * * H", "CRON_TZ=UTC H * * *"} {
		if _, err := render(t, values(t, spreadYAML(1, cron))); err == nil || !strings.Contains(err.Error(), "connectors.domain-000: H in service.cron-expression") {
			t.Errorf("%s: error %v, want one that names the connector", cron, err)
		}
	}
}

// TestSpread checks that 200 connectors with one expression run at different times, which stay the
// same when connectors are added.
func TestSpread(t *testing.T) {
	const cron = "H H/10 * * * *"
	minutes, times := map[string]int{}, map[string]int{}
	m := mustRender(t, spreadYAML(200, cron))
	for n := range 200 {
		got := cronOf(t, m, fmt.Sprintf("ad-domain-%03d", n))
		times[got]++
		minutes[strings.Fields(got)[1]]++
	}
	if len(times) < 150 || len(minutes) != 10 {
		t.Errorf("%d times, %d minutes: %v", len(times), len(minutes), minutes)
	}
	for minute, n := range minutes {
		if n > 40 {
			t.Errorf("%d connectors in minute %s", n, minute)
		}
	}
	const first = "ad-domain-000"
	if few, many := cronOf(t, mustRender(t, spreadYAML(1, cron)), first), cronOf(t, m, first); few != many {
		t.Errorf("%s changes from %s to %s with more connectors", first, few, many)
	}
}

// TestImageOfOneConnector checks that one connector can have another version than the others.
func TestImageOfOneConnector(t *testing.T) {
	const hash = "sha256:" + digest
	for name, c := range map[string]struct{ all, own, want, others string }{
		"tag":                   {"tag: 1.1.0", "tag: 1.2.0", "adconnector:1.2.0", "adconnector:1.1.0"},
		"digest":                {"tag: 1.1.0", `digest: "` + hash + `"`, "adconnector@" + hash, "adconnector:1.1.0"},
		"tag instead of digest": {`digest: "` + hash + `"`, "tag: 1.2.0", "adconnector:1.2.0", "adconnector@" + hash},
	} {
		t.Run(name, func(t *testing.T) {
			text := "image: {" + c.all + "}\nconnectors:\n  a:" + connectorYAML(1) + "    image: {" + c.own + "}\n  b:" + connectorYAML(2)
			m := mustRender(t, text)
			for set, want := range map[string]string{"ad-a": c.want, "ad-b": c.others} {
				if got := get[*apps.StatefulSet](t, m, "StatefulSet "+set).Spec.Template.Spec.Containers[0].Image; got != want {
					t.Errorf("%s: image %s, want %s", set, got, want)
				}
			}
		})
	}
}

// TestJobDuringDrain checks that the budget does not select the pods of Jobs: the eviction API then
// refuses all evictions, because a Job has no scale. An evicted Job starts another pod.
func TestJobDuringDrain(t *testing.T) {
	m := mustRender(t, connectorsYAML(2)+"    once: [sync, --allow-deletes]\n")
	job := get[*batch.Job](t, m, "Job ad-domain-001-3")
	podLabels := maps.Clone(job.Spec.Template.Labels)
	podLabels[batch.JobNameLabel] = job.Name // the Job controller adds it
	selector := get[*policy.PodDisruptionBudget](t, m, "PodDisruptionBudget ad").Spec.Selector
	if selects(t, selector, podLabels) {
		t.Errorf("the budget selects the Job's pod: %+v", selector)
	}
	checkSelected(t, "budget", selector, get[*apps.StatefulSet](t, m, "StatefulSet ad-domain-000").Spec.Template.Labels)
	p := job.Spec.PodFailurePolicy
	if p == nil || len(p.Rules) != 1 || p.Rules[0].Action != batch.PodFailurePolicyActionIgnore || len(p.Rules[0].OnPodConditions) != 1 || p.Rules[0].OnPodConditions[0].Type != core.DisruptionTarget {
		t.Errorf("pod failure policy %+v", p)
	}
}

// maxReleaseSecret is the limit of the API server on the content of a Secret.
const maxReleaseSecret = 1 << 20

// TestReleaseSize checks that the Secret in which Helm stores the release of 200 connectors, with
// Secrets of the chart, has a quarter of the allowed size at most. Helm stores the values, the
// manifest, and the chart as compressed JSON in base64 (pkg/storage/driver).
func TestReleaseSize(t *testing.T) {
	var text strings.Builder
	text.WriteString("serviceMonitor: {enabled: true}\nprometheusRule: {enabled: true}\nconnectors:\n")
	for n := range 200 {
		shared := connectorYAML(n)
		fmt.Fprintf(&text, "  domain-%03d:%s    secret: {values: {qualys.user.password: %q, ldap.password: %q}}\n",
			n, shared[:strings.Index(shared, "    secret:")], rand.Text(), rand.Text())
	}
	v := values(t, text.String())
	m, err := render(t, v)
	if err != nil {
		t.Fatal(err)
	}
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	stored := helmrelease.Release{Name: release, Namespace: "identity", Chart: chart, Config: v,
		Info: &helmrelease.Info{Notes: m.notes}, Manifest: strings.Join(slices.Collect(maps.Values(m.text)), "\n---")}
	document, err := json.Marshal(stored)
	if err != nil {
		t.Fatal(err)
	}
	var compressed bytes.Buffer
	writer, _ := gzip.NewWriterLevel(&compressed, gzip.BestCompression) // the level is valid
	if _, err := writer.Write(document); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	size := base64.StdEncoding.EncodedLen(compressed.Len())
	t.Logf("%d bytes", size)
	if size > maxReleaseSecret/4 {
		t.Errorf("%d bytes, %d are allowed", size, maxReleaseSecret)
	}
}
