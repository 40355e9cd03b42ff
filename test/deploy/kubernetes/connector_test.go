package kubernetes

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"golang.org/x/sync/errgroup"
	"helm.sh/helm/v3/pkg/chartutil"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
	podsecurity "k8s.io/pod-security-admission/api"
	podpolicy "k8s.io/pod-security-admission/policy"

	"adconnector/internal/config"
)

// TestConnectors checks the objects of each connector, for one and for many.
func TestConnectors(t *testing.T) {
	for _, count := range []int{1, 200} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			m := mustRender(t, connectorsYAML(count))
			sets := 0
			for key, o := range m.objects {
				checkNames(t, key, o)
				if set, ok := o.(*apps.StatefulSet); ok {
					sets++
					checkConnector(t, m, set)
				}
			}
			if sets != count {
				t.Errorf("%d connectors, want %d", sets, count)
			}
			// All connectors share a service and a network policy, and several share a disruption budget.
			want := count + 2
			if count > 1 {
				want++
			}
			if len(m.objects) != want {
				t.Errorf("%d objects, want %d: %q", len(m.objects), want, slices.Sorted(maps.Keys(m.objects)))
			}
			if !strings.Contains(m.notes, "exec ad-domain-000-0 -- adconnector status") {
				t.Errorf("notes %q", m.notes)
			}
		})
	}
}

// confusableNames are names that YAML reads as other values unless they are quoted.
var confusableNames = []string{"no", "on", "off", "y", "n", "yes", "true", "false", "null", "101", "007", "1e3", "0x1f", "0b1", "1-2", "2024-01-01", "12e45"}

// TestConfusableNames checks that each name that the schema and helm allow gives valid objects
// with that name, for connectors, releases, and everything that the values name.
func TestConfusableNames(t *testing.T) {
	type names struct{ release, connector string }
	cases := []names{{"7ad", "no"}, {"7ad.prod", "101"}, {"a." + strings.Repeat("b", 30), "on"}, {"2024-01", "01"}}
	for _, name := range confusableNames {
		cases = append(cases, names{name, "1e3"}, names{"ad.prod", name})
	}
	for _, c := range cases {
		t.Run(c.release+" "+c.connector, func(t *testing.T) {
			release, name := c.release, c.connector
			if err := chartutil.ValidateReleaseName(release); err != nil {
				t.Fatal(err)
			}
			v := values(t, fmt.Sprintf(`
serviceMonitor: {enabled: true, labels: {team: %[1]q}}
prometheusRule: {enabled: true}
image: {repository: registry.example.com/x, tag: %[1]q, pullSecrets: [%[1]q]}
podDisruptionBudget: {maxUnavailable: 1}
defaults:
  terminationGracePeriodSeconds: 1000000
  priorityClassName: %[1]q
  serviceAccountName: %[1]q
  podLabels: {team: %[1]q}
  podAnnotations: {note: %[1]q}
  nodeSelector: {zone: %[1]q}
  storage: {className: %[1]q}
connectors:
  %[1]q:
    settings: {ldap.host: %[1]q, qualys.user.username: %[1]q, connector.api.url: "https://a.example.com"}
    once: [%[1]q]
    secret: {values: {ldap.password: %[1]q}}
    files: {ldap.certificate: {configMap: %[1]q, key: %[1]q}, gateway.ca-file: {secret: %[1]q, key: %[1]q}}
  other: {secret: {name: %[1]q, keys: [ldap.password]}}
`, name))
			m, err := renderAs(t, release, v)
			if err != nil {
				t.Fatal(err)
			}
			checkConfusable(t, m, release, name)
		})
	}
}

// checkConfusable checks the objects of TestConfusableNames.
func checkConfusable(t *testing.T, m *manifest, release, name string) {
	t.Helper()
	sets := 0
	for key, o := range m.objects {
		checkNames(t, key, o)
		if o.GetLabels()["app.kubernetes.io/instance"] != release {
			t.Errorf("%s: labels %v", key, o.GetLabels())
		}
		set, ok := o.(*apps.StatefulSet)
		if !ok {
			continue
		}
		sets++
		service := get[*core.Service](t, m, "Service "+set.Spec.ServiceName)
		pod := set.Spec.Template
		if !labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(pod.Labels)) || pod.Labels["team"] != name || pod.Annotations["note"] != name {
			t.Errorf("%s: labels %v, selector %v", key, pod.Labels, service.Spec.Selector)
		}
		hosts := strings.Split(environmentOf(pod.Spec.Containers[0])["service.admin.allowed-hosts"], ",")
		if !slices.Contains(hosts, service.Name+".identity.svc") || !slices.Contains(hosts, set.Name+"-0."+service.Name+".identity.svc.cluster.local") {
			t.Errorf("%s: allowed hosts %q, service %s", key, hosts, service.Name)
		}
		if s := pod.Spec; s.PriorityClassName != name || s.ServiceAccountName != name || s.NodeSelector["zone"] != name || s.ImagePullSecrets[0].Name != name ||
			s.Containers[0].Image != "registry.example.com/x:"+name || *s.TerminationGracePeriodSeconds != 1_000_000 || *set.Spec.VolumeClaimTemplates[0].Spec.StorageClassName != name {
			t.Errorf("%s: %+v", key, s)
		}
		if c := set.Labels["connector"]; c != name && c != "other" || pod.Labels["connector"] != c || set.Spec.Selector.MatchLabels["connector"] != c || !strings.HasSuffix(set.Name, "-"+c) {
			t.Errorf("%s: connector %q", key, c)
		}
	}
	if sets != 2 {
		t.Errorf("%d connectors, want 2", sets)
	}
}

// TestServiceNames checks that releases keep the name of their Service if it is valid, and that
// other releases have different names.
func TestServiceNames(t *testing.T) {
	seen := map[string]string{}
	for _, release := range []string{"ad", "ad-prod", "ad.prod", "7ad", "7ad.prod", "7ad-prod", "ad-7ad", strings.Repeat("7", 50)} {
		v := map[string]any{"connectors": map[string]any{"a": map[string]any{}}}
		m, err := renderAs(t, release, v)
		if err != nil {
			t.Fatal(err)
		}
		for key, o := range m.objects {
			checkNames(t, key, o)
			service, ok := o.(*core.Service)
			if !ok {
				continue
			}
			if len(validation.IsDNS1035Label(release)) == 0 && service.Name != release {
				t.Errorf("%s: service %s", release, service.Name)
			}
			if other := seen[service.Name]; other != "" {
				t.Errorf("%s and %s have the service %s", release, other, service.Name)
			}
			seen[service.Name] = release
		}
	}
}

// checkNames validates the name and the labels of an object as the API server does.
func checkNames(t *testing.T, key string, o object) {
	t.Helper()
	errs := validation.IsDNS1123Subdomain(o.GetName())
	switch o := o.(type) {
	case *core.Service:
		errs = append(errs, validation.IsDNS1035Label(o.Name)...)
	case *apps.StatefulSet: // the name of the pod is its host name
		errs = append(errs, validation.IsDNS1123Label(o.Name+"-0")...)
		errs = append(errs, validation.IsValidLabelValue(o.Name+"-0123456789")...)
	case *batch.Job: // the name is a label of the pod
		errs = append(errs, validation.IsDNS1123Label(o.Name)...)
	}
	for name, value := range o.GetLabels() {
		errs = append(errs, validation.IsQualifiedName(name)...)
		errs = append(errs, validation.IsValidLabelValue(value)...)
	}
	if len(errs) > 0 {
		t.Errorf("%s: %q", key, errs)
	}
}

// checkConnector checks the StatefulSet of a connector, and that the shared objects select its
// pods.
func checkConnector(t *testing.T, m *manifest, set *apps.StatefulSet) {
	t.Helper()
	spec := set.Spec
	if spec.Replicas == nil || *spec.Replicas != 1 || spec.PodManagementPolicy != apps.ParallelPodManagement || spec.UpdateStrategy.Type != apps.RollingUpdateStatefulSetStrategyType {
		t.Errorf("%s: replicas %v, %v, %v", set.Name, spec.Replicas, spec.PodManagementPolicy, spec.UpdateStrategy)
	}
	if retention := spec.PersistentVolumeClaimRetentionPolicy; retention == nil || retention.WhenDeleted != apps.RetainPersistentVolumeClaimRetentionPolicyType || retention.WhenScaled != apps.RetainPersistentVolumeClaimRetentionPolicyType {
		t.Errorf("%s: volumes not retained: %+v", set.Name, retention)
	}
	// The pod's label controller-revision-hash is the name, a hyphen and a hash of ten characters.
	if errs := validation.IsValidLabelValue(set.Name + "-0123456789"); len(errs) > 0 {
		t.Errorf("%s: %q", set.Name, errs)
	}
	pod := spec.Template
	checkSelected(t, set.Name, spec.Selector, pod.Labels)
	for key, o := range m.objects {
		if other, ok := o.(*apps.StatefulSet); ok && other.Name != set.Name && selects(t, other.Spec.Selector, pod.Labels) {
			t.Errorf("%s selects the pods of %s", key, set.Name)
		}
	}
	service := get[*core.Service](t, m, "Service "+spec.ServiceName)
	if service.Spec.ClusterIP != core.ClusterIPNone || !labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(pod.Labels)) {
		t.Errorf("%s: service %+v", set.Name, service.Spec)
	}
	network := get[*networking.NetworkPolicy](t, m, "NetworkPolicy ad")
	checkSelected(t, "network policy", &network.Spec.PodSelector, pod.Labels)
	if len(network.Spec.PolicyTypes) != 2 || len(network.Spec.Ingress) != 0 {
		t.Errorf("network policy %+v", network.Spec)
	}

	if claims := spec.VolumeClaimTemplates; len(claims) != 1 || claims[0].Name != "state" ||
		!slices.Equal(claims[0].Spec.AccessModes, []core.PersistentVolumeAccessMode{core.ReadWriteOncePod}) ||
		claims[0].Spec.Resources.Requests.Storage().Cmp(resource.MustParse("1Gi")) != 0 {
		t.Errorf("%s: claims %+v", set.Name, claims)
	}
	container := checkPod(t, set.Name, pod)
	if !slices.Equal(container.Args, []string{"run"}) {
		t.Errorf("%s: args %q", set.Name, container.Args)
	}
	for kind, probe := range map[string]*core.Probe{"startup": container.StartupProbe, "liveness": container.LivenessProbe, "readiness": container.ReadinessProbe} {
		path := map[bool]string{true: "/readyz", false: "/healthz"}[kind == "readiness"]
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "admin" {
			t.Errorf("%s: %s probe %+v", set.Name, kind, probe)
		}
	}
	if len(container.Ports) != 1 || container.Ports[0].Name != "admin" || container.Ports[0].ContainerPort != 8080 {
		t.Errorf("%s: ports %+v", set.Name, container.Ports)
	}
}

// selects reports whether a selector matches labels.
func selects(t *testing.T, labelSelector *meta.LabelSelector, podLabels map[string]string) bool {
	t.Helper()
	selector, err := meta.LabelSelectorAsSelector(labelSelector)
	if err != nil {
		t.Fatal(err)
	}
	return selector.Matches(labels.Set(podLabels))
}

func checkSelected(t *testing.T, name string, labelSelector *meta.LabelSelector, podLabels map[string]string) {
	t.Helper()
	if !selects(t, labelSelector, podLabels) {
		t.Errorf("%s does not select %v", name, podLabels)
	}
}

// restricted evaluates the Pod Security Standards.
var restricted = func() podpolicy.Evaluator {
	evaluator, err := podpolicy.NewEvaluator(podpolicy.DefaultChecks(), nil)
	if err != nil {
		panic(err)
	}
	return evaluator
}()

// checkPod checks the security and the resources of a pod, and returns its container.
func checkPod(t *testing.T, name string, pod core.PodTemplateSpec) core.Container {
	t.Helper()
	result := podpolicy.AggregateCheckResults(restricted.EvaluatePod(
		podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}, &pod.ObjectMeta, &pod.Spec))
	if !result.Allowed {
		t.Errorf("%s: %s", name, result.ForbiddenDetail())
	}
	spec := pod.Spec
	switch {
	case len(spec.Containers) != 1 || len(spec.InitContainers) > 0:
		t.Fatalf("%s: containers %+v", name, spec.Containers)
	case spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken:
		t.Errorf("%s: service account token mounted", name)
	case spec.EnableServiceLinks == nil || *spec.EnableServiceLinks:
		t.Errorf("%s: service links enabled, which add environment variables", name)
	case spec.TerminationGracePeriodSeconds == nil || *spec.TerminationGracePeriodSeconds <= 30:
		t.Errorf("%s: terminationGracePeriodSeconds is not above service.shutdown-grace", name)
	case spec.SecurityContext.FSGroup == nil || *spec.SecurityContext.FSGroup != *spec.SecurityContext.RunAsGroup:
		t.Errorf("%s: fsGroup is not the group of the process: %+v", name, spec.SecurityContext)
	}
	c := spec.Containers[0]
	if s := c.SecurityContext; s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		t.Errorf("%s: root file system is writable", name)
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() || !c.Resources.Limits.Cpu().IsZero() {
		t.Errorf("%s: resources %+v", name, c.Resources)
	}
	if c.Image != "adconnector:1.1.0" {
		t.Errorf("%s: image %s", name, c.Image)
	}
	checkMounts(t, name, spec)
	seen := map[string]bool{}
	for _, e := range c.Env {
		if errs := validation.IsEnvVarName(e.Name); len(errs) > 0 || seen[e.Name] {
			t.Errorf("%s: %s: %q, duplicate %t", name, e.Name, errs, seen[e.Name])
		}
		seen[e.Name] = true
	}
	return c
}

// checkMounts checks that each mount has a volume, and that only state and tmp are writable.
func checkMounts(t *testing.T, name string, spec core.PodSpec) {
	t.Helper()
	volumes := map[string]bool{"state": true} // from the volume claim template
	for _, v := range spec.Volumes {
		volumes[v.Name] = true
		if s := v.Secret; s != nil && (s.DefaultMode == nil || *s.DefaultMode != 0o440 || len(s.Items) == 0) {
			t.Errorf("%s: secret %+v", name, s)
		}
	}
	writable := map[string]string{}
	for _, mount := range spec.Containers[0].VolumeMounts {
		if !volumes[mount.Name] {
			t.Errorf("%s: no volume %s", name, mount.Name)
		}
		if !mount.ReadOnly {
			writable[mount.Name] = mount.MountPath
		}
	}
	if !maps.Equal(writable, map[string]string{"state": "/var/lib/adconnector", "tmp": "/tmp"}) {
		t.Errorf("%s: writable mounts %v", name, writable)
	}
}

// allValues sets every value of the chart: a Secret of the chart, files, and a directory from
// the settings.
const allValues = `
networkPolicy:
  ingressFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
serviceMonitor: {enabled: true, labels: {release: prometheus}}
image: {repository: registry.example.com/adconnector, digest: "sha256:` + digest + `", pullSecrets: [pull]}
defaults:
  settings: {thread-pool.size: 4, proxy.enabled: true, proxy.host: proxy.example.com, proxy.port: 3128}
connectors:
  corp:
    settings:
      connector.api.url: https://gateway.example.com:8443
      qualys.customerUuid: 35664649-0000-4000-8000-000000000000
      qualys.connectionUuid: 6ec6ac85-0000-4000-8000-000000000000
      qualys.profileUuid: a4ab0242-0000-4000-8000-000000000000
      oauth.client.id: client
      service.cron-expression: CRON_TZ=Europe/Berlin 0 4 * * *
      ldap.host: dc1.corp.example.com
      ldap.port: 3269
      ldap.protocol: LDAPS
      ldap.bindDn: CN=svc,DC=corp,DC=example,DC=com
      profile.baseContext: DC=corp,DC=example,DC=com
      upload.batch-bytes: 2000000
      thread-pool.size: 8
      service.admin.allowed-hosts: metrics.example.com
    secret:
      values:
        oauth.client.secret: ` + clientSecret + `
        ldap.password: "` + ldapPassword + `"
    files:
      ldap.certificate: {configMap: corp-dc, key: dc.cer}
      gateway.ca-file: {secret: roots, key: ca.pem}
    resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 1Gi}}
    storage: {size: 5Gi, className: fast, accessModes: [ReadWriteOnce]}
    nodeSelector: {zone: a}
    tolerations: [{key: dedicated, operator: Exists}]
    podAnnotations: {note: "yes"}
    priorityClassName: high
`

const (
	digest       = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	clientSecret = "Inv3nted-client-secret"
	ldapPassword = `Inv3nted $\"# password`
)

// TestAllValues checks where each value of allValues is rendered.
func TestAllValues(t *testing.T) {
	m := mustRender(t, allValues)
	set := get[*apps.StatefulSet](t, m, "StatefulSet ad-corp")
	pod := set.Spec.Template
	c := pod.Spec.Containers[0]
	env := environmentOf(c)
	for key, want := range map[string]string{
		"service.admin.address": ":8080", "service.admin.allowed-hosts": "ad,ad.identity,ad.identity.svc,ad.identity.svc.cluster.local," +
			"ad-corp-0.ad,ad-corp-0.ad.identity,ad-corp-0.ad.identity.svc,ad-corp-0.ad.identity.svc.cluster.local,metrics.example.com",
		"thread-pool.size": "8", "proxy.port": "3128", "proxy.enabled": "true", "upload.batch-bytes": "2000000",
		"service.cron-expression":  "CRON_TZ=Europe/Berlin 0 4 * * *",
		"oauth.client.secret.file": "/etc/adconnector/secret/oauth.client.secret", "ldap.password.file": "/etc/adconnector/secret/ldap.password",
		"ldap.certificate": "/etc/adconnector/ldap.certificate/file", "gateway.ca-file": "/etc/adconnector/gateway.ca-file/file",
	} {
		if env[key] != want {
			t.Errorf("%s: %q, want %q", key, env[key], want)
		}
	}
	secret := get[*core.Secret](t, m, "Secret ad-corp")
	if secret.StringData["ldap.password"] != `Inv3nted $"# password` || secret.StringData["oauth.client.secret"] != clientSecret {
		t.Errorf("secret %v", slices.Sorted(maps.Keys(secret.StringData)))
	}
	if pod.Annotations["checksum/secret"] == "" || pod.Annotations["note"] != "yes" {
		t.Errorf("annotations %v", pod.Annotations)
	}
	if c.Image != "registry.example.com/adconnector@sha256:"+digest || pod.Spec.ImagePullSecrets[0].Name != "pull" || c.Resources.Limits.Memory().String() != "1Gi" ||
		pod.Spec.NodeSelector["zone"] != "a" || len(pod.Spec.Tolerations) != 1 || pod.Spec.PriorityClassName != "high" {
		t.Errorf("pod %+v", pod.Spec)
	}
	claim := set.Spec.VolumeClaimTemplates[0].Spec
	if *claim.StorageClassName != "fast" || claim.Resources.Requests.Storage().String() != "5Gi" || claim.AccessModes[0] != core.ReadWriteOnce {
		t.Errorf("claim %+v", claim)
	}
	checkMounts(t, "corp", pod.Spec)

	network := get[*networking.NetworkPolicy](t, m, "NetworkPolicy ad").Spec
	var ports []int
	for _, p := range network.Egress[0].Ports {
		ports = append(ports, p.Port.IntValue())
	}
	if want := []int{53, 53, 389, 636, 443, 3269, 3128, 8443}; !slices.Equal(ports, want) || len(network.Egress) != 1 {
		t.Errorf("egress to %v, want %v", ports, want)
	}
	if len(network.Ingress) != 1 || network.Ingress[0].Ports[0].Port.IntValue() != 8080 || network.Ingress[0].From[0].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] != "monitoring" {
		t.Errorf("ingress %+v", network.Ingress)
	}

	monitor := get[*monitoring.ServiceMonitor](t, m, "ServiceMonitor ad")
	service := get[*core.Service](t, m, "Service ad")
	checkSelected(t, "service monitor", &monitor.Spec.Selector, service.Labels)
	if e := monitor.Spec.Endpoints; len(e) != 1 || e[0].Port != service.Spec.Ports[0].Name || e[0].RelabelConfigs[0].TargetLabel != "instance" || monitor.Labels["release"] != "prometheus" {
		t.Errorf("service monitor %+v", monitor.Spec)
	}
	if _, exists := m.objects["PodDisruptionBudget ad"]; exists {
		t.Error("disruption budget for a single connector")
	}
}

// cluster is a Kubernetes API with some Secrets.
type cluster struct{ client *fake.FakeDynamicClient }

func newCluster(secrets ...*core.Secret) cluster {
	scheme := runtime.NewScheme()
	_ = core.AddToScheme(scheme)
	var objects []runtime.Object
	for _, secret := range secrets {
		objects = append(objects, secret)
	}
	return cluster{fake.NewSimpleDynamicClient(scheme, objects...)}
}

// GetClientFor returns the client of a kind.
func (c cluster) GetClientFor(_, kind string) (dynamic.NamespaceableResourceInterface, bool, error) {
	return c.client.Resource(core.SchemeGroupVersion.WithResource(strings.ToLower(kind) + "s")), true, nil
}

// TestSecretChangeMarker checks that the annotation that restarts pods changes with the secrets
// only, and that it requires a key that is in the Secret only.
func TestSecretChangeMarker(t *testing.T) {
	const key = "0123456789abcdefghijklmnopqrstuv"
	secretYAML := func(changeKey, password string) string {
		if changeKey != "" {
			changeKey = "changeKey: " + changeKey + ", "
		}
		return "connectors: {corp: {secret: {" + changeKey + "values: {ldap.password: " + password + "}}}}"
	}
	marker := func(m *manifest) (marker, stored string) {
		return get[*apps.StatefulSet](t, m, "StatefulSet ad-corp").Spec.Template.Annotations["checksum/secret"], get[*core.Secret](t, m, "Secret ad-corp").StringData["change-key"]
	}
	installed := func(existing, password string) *manifest {
		t.Helper()
		c := newCluster()
		if existing != "" {
			c = newCluster(&core.Secret{
				TypeMeta:   meta.TypeMeta{APIVersion: "v1", Kind: "Secret"},
				ObjectMeta: meta.ObjectMeta{Namespace: "identity", Name: "ad-corp"}, Data: map[string][]byte{"change-key": []byte(existing)},
			})
		}
		m, err := renderIn(t, c, release, values(t, secretYAML("", password)))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	template := func(changeKey, password string) *manifest { return mustRender(t, secretYAML(changeKey, password)) }

	first, firstKey := marker(installed("", "first"))
	second, secondKey := marker(installed("", "first"))
	if first == second || firstKey == secondKey || len(firstKey) < 32 || len(first) != 64 {
		t.Errorf("new installations: markers %s, %s, keys %q, %q", first, second, firstKey, secondKey)
	}
	if again, stored := marker(installed(firstKey, "first")); again != first || stored != firstKey {
		t.Errorf("upgrade without change: marker %s, want %s, key %q", again, first, stored)
	}
	if changed, stored := marker(installed(firstKey, "second")); changed == first || stored != firstKey {
		t.Errorf("upgrade with another password: marker %s, key %q", changed, stored)
	}
	fixed, stored := marker(template(key, "first"))
	if again, _ := marker(template(key, "first")); again != fixed || stored != "" {
		t.Errorf("changeKey: markers %s, %s, stored key %q", fixed, again, stored)
	}
	if changed, _ := marker(template(key, "second")); changed == fixed {
		t.Error("changeKey: the marker does not change with the password")
	}
	if other, _ := marker(template(strings.ToUpper(key), "first")); other == fixed {
		t.Error("changeKey: the marker does not change with the key")
	}
	for name, m := range map[string]*manifest{"random": template("", "first"), "changeKey": template(key, "first")} {
		_, stored := marker(m)
		for object, text := range m.text {
			if strings.Contains(text, key) || stored != "" && strings.Contains(text, stored) && object != "Secret ad-corp" {
				t.Errorf("%s: %s contains the key", name, object)
			}
		}
	}
}

// TestSecrets checks that only a Secret contains secret values, and that the chart renders no
// Secret if the values name an existing one.
func TestSecrets(t *testing.T) {
	m := mustRender(t, allValues)
	for key, text := range m.text {
		for _, secret := range []string{clientSecret, "Inv3nted $"} {
			if strings.Contains(text, secret) != strings.HasPrefix(key, "Secret ") {
				t.Errorf("%s: contains a secret %t", key, strings.Contains(text, secret))
			}
		}
	}
	for _, o := range m.objects {
		if _, ok := o.(*core.ConfigMap); ok {
			t.Errorf("%s is a ConfigMap", o.GetName())
		}
	}
	for key := range mustRender(t, connectorsYAML(3)).objects {
		if strings.HasPrefix(key, "Secret ") {
			t.Errorf("unexpected object %s", key)
		}
	}
}

// environmentOf returns the environment variables of a container.
func environmentOf(c core.Container) map[string]string {
	env := map[string]string{}
	for _, e := range c.Env {
		env[e.Name] = e.Value
	}
	return env
}

// TestConfigurations checks that the connector accepts the environment of each container.
func TestConfigurations(t *testing.T) {
	dir := t.TempDir()
	certificate := selfSignedCertificate(t)
	for name, content := range map[string]string{
		"secret/qualys.user.password": "p", "secret/oauth.client.secret": "s", "secret/ldap.password": "p",
		"ldap.certificate/file": certificate, "gateway.ca-file/file": certificate,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var loads errgroup.Group
	for _, text := range []string{connectorsYAML(200), allValues} {
		for _, o := range mustRender(t, text).objects {
			set, ok := o.(*apps.StatefulSet)
			if !ok {
				continue
			}
			loads.Go(func() error {
				var environ []string
				for _, e := range set.Spec.Template.Spec.Containers[0].Env {
					environ = append(environ, e.Name+"="+strings.Replace(e.Value, "/etc/adconnector/", dir+"/", 1))
				}
				c, err := config.Load(config.Source{Environ: environ, Scheduled: true})
				switch {
				case err != nil:
					return fmt.Errorf("%s: %w", set.Name, err)
				case c.Service.StateDir != "/var/lib/adconnector" || c.Service.AdminAddress != ":8080" || !c.Service.RunOnStart:
					return fmt.Errorf("%s: %+v", set.Name, c.Service)
				}
				return nil
			})
		}
	}
	if err := loads.Wait(); err != nil {
		t.Error(err)
	}
}

func selfSignedCertificate(t *testing.T) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestOneTimeTask checks that a task replaces the daemon, with its volume and its settings.
func TestOneTimeTask(t *testing.T) {
	text := connectorsYAML(1) + "    once: [sync, --allow-deletes]\n"
	m := mustRender(t, text)
	set := get[*apps.StatefulSet](t, m, "StatefulSet ad-domain-000")
	job := get[*batch.Job](t, m, "Job ad-domain-000-3")
	if *set.Spec.Replicas != 0 || *job.Spec.BackoffLimit != 0 {
		t.Errorf("%d replicas during the task, backoff limit %d, want 0 and 0", *set.Spec.Replicas, *job.Spec.BackoffLimit)
	}
	c := checkPod(t, "task", job.Spec.Template)
	claim := set.Spec.VolumeClaimTemplates[0].Name + "-" + set.Name + "-0"
	volume := slices.IndexFunc(job.Spec.Template.Spec.Volumes, func(v core.Volume) bool {
		return v.Name == "state" && v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
	})
	if volume < 0 || !slices.Equal(c.Args, []string{"sync", "--allow-deletes"}) || c.LivenessProbe != nil || job.Spec.Template.Spec.RestartPolicy != core.RestartPolicyNever {
		t.Errorf("task %+v", job.Spec.Template.Spec)
	}
	if !maps.Equal(environmentOf(c), environmentOf(set.Spec.Template.Spec.Containers[0])) {
		t.Errorf("task settings %v differ from those of the daemon", c.Env)
	}

	suspended := mustRender(t, connectorsYAML(1)+"    suspended: true\n")
	if set := get[*apps.StatefulSet](t, suspended, "StatefulSet ad-domain-000"); *set.Spec.Replicas != 0 || len(suspended.objects) != 3 {
		t.Errorf("suspended: objects %q, %d replicas", slices.Sorted(maps.Keys(suspended.objects)), *set.Spec.Replicas)
	}
}

// TestDisruptionBudget checks that a drain stops at most a quarter of the connectors at a time.
func TestDisruptionBudget(t *testing.T) {
	budget := get[*policy.PodDisruptionBudget](t, mustRender(t, connectorsYAML(200)), "PodDisruptionBudget ad").Spec
	if budget.MaxUnavailable.String() != "25%" || budget.MinAvailable != nil || *budget.UnhealthyPodEvictionPolicy != policy.AlwaysAllow {
		t.Errorf("%+v", budget)
	}
}

// TestNoConnectors checks that the chart renders no objects without connectors.
func TestNoConnectors(t *testing.T) {
	if m := mustRender(t, "{}"); len(m.objects) != 0 {
		t.Errorf("%q", slices.Sorted(maps.Keys(m.objects)))
	}
}

// TestInvalidValues checks that rendering fails for invalid values, with an error that names them.
func TestInvalidValues(t *testing.T) {
	long := strings.Repeat("x", 41)
	for name, c := range map[string]struct{ text, want string }{
		"name too long":                      {"connectors:\n  " + long + ":" + connectorYAML(1), long},
		"invalid name":                       {"connectors:\n  Corp_1:" + connectorYAML(1), "Corp_1"},
		"duplicate connector":                {"connectors:\n  a:" + connectorYAML(1) + "  b:" + connectorYAML(1), "connectors.a and connectors.b are the same connection and profile"},
		"secret in the settings":             {"connectors: {a: {settings: {qualys.user.password: x}}}", "qualys.user.password"},
		"secret in the settings, shell form": {"connectors: {a: {settings: {LDAP_PASSWORD: x}}}", "LDAP_PASSWORD"},
		"unknown key":                        {"connectors: {a: {settings: {ldap.hots: x}}}", "ldap.hots"},
		"key that the chart sets":            {"connectors: {a: {settings: {service.state-dir: /x}}}", "service.state-dir"},
		"list as a value":                    {"connectors: {a: {settings: {ldap.host: [x]}}}", "ldap.host"},
		"key that is not a secret":           {"connectors: {a: {secret: {name: s, keys: [ldap.host]}}}", "secret"},
		"secret with name and values":        {"connectors: {a: {secret: {name: s, keys: [ldap.password], values: {ldap.password: x}}}}", "secret"},
		"shared volume":                      {"connectors: {a: {storage: {accessModes: [ReadWriteMany]}}}", "accessModes"},
		"unknown field":                      {"connectors: {a: {replica: 2}}", "replica"},
		"budget that prevents drains":        {"podDisruptionBudget: {maxUnavailable: 0}", "maxUnavailable"},
		"number as a text":                   {"connectors: {a: {settings: {qualys.user.username: 007}}}", "qualys.user.username"},
		"boolean as a text":                  {"connectors: {a: {settings: {gateway.source: no}}}", "gateway.source"},
		"text as a port":                     {"connectors: {a: {settings: {ldap.port: ldaps}}}", "ldap.port"},
		"port too high":                      {"connectors: {a: {settings: {ldap.port: 65536}}}", "ldap.port"},
		"Secret name":                        {"connectors: {a: {secret: {name: My_Secret, keys: [ldap.password]}}}", "secret/name"},
		"ConfigMap name":                     {"connectors: {a: {files: {ldap.certificate: {configMap: A, key: k}}}}", "files"},
		"ConfigMap key":                      {"connectors: {a: {files: {ldap.certificate: {configMap: a, key: a/b}}}}", "files"},
		"ConfigMap key of dots":              {"connectors: {a: {files: {ldap.certificate: {configMap: a, key: ..}}}}", "files"},
		"label too long":                     {"connectors: {a: {podLabels: {x: " + strings.Repeat("x", 64) + "}}}", "podLabels"},
		"label key":                          {"connectors: {a: {podLabels: {a b: x}}}", "podLabels"},
		"label of the chart":                 {"defaults: {podLabels: {connector: x}}", "podLabels"},
		"annotation of the chart":            {"defaults: {podAnnotations: {checksum/secret: x}}", "checksum/secret"},
		"service account":                    {"defaults: {serviceAccountName: A}", "serviceAccountName"},
		"priority class":                     {"defaults: {priorityClassName: A_b}", "priorityClassName"},
		"storage class":                      {"defaults: {storage: {className: A_b}}", "className"},
		"pull secret":                        {"image: {pullSecrets: [A]}", "pullSecrets"},
		"scrape interval":                    {"serviceMonitor: {interval: 1e3}", "interval"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := render(t, values(t, c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that contains %q", err, c.want)
			}
		})
	}
	t.Run("release name too long", func(t *testing.T) {
		v := values(t, "connectors:\n  "+long[:40]+":"+connectorYAML(1))
		if _, err := renderAs(t, strings.Repeat("r", 12), v); err == nil || !strings.Contains(err.Error(), "has 53 characters, 52 are allowed") {
			t.Errorf("error %v, want one on the length", err)
		}
		if _, err := renderAs(t, strings.Repeat("r", 11), v); err != nil {
			t.Error(err)
		}
	})
}

// TestKeys checks that the schema accepts the keys of docs/configuration.md in every spelling but the
// shell-safe form, except secrets and the keys that the chart sets.
func TestKeys(t *testing.T) {
	page, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	setByChart := []string{"ldap.certificate", "gateway.ca-file", "service.state-dir", "service.admin.address"}
	keys := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`[a-z]+\\.\\S+`) \\| .* \\| (.*) \\| .* \\|$").FindAllStringSubmatch(string(page), -1) {
		secret := row[2] == "secret"
		spellings := strings.Split(strings.Trim(row[1], "`"), "`<br>`")
		for _, key := range spellings {
			value := "x"
			if strings.HasSuffix(key, ".port") {
				value = "8443"
			}
			_, err := render(t, map[string]any{"connectors": map[string]any{"a": map[string]any{"settings": map[string]any{key: value}}}})
			isShellSafe := key == strings.ToUpper(key)
			if rejected, want := err != nil, secret || isShellSafe || slices.Contains(setByChart, key); rejected != want {
				t.Errorf("%s: rejected %t, want %t: %v", key, rejected, want, err)
			}
			keys++
		}
		if !secret {
			continue
		}
		if _, err := render(t, map[string]any{"connectors": map[string]any{"a": map[string]any{"secret": map[string]any{"values": map[string]any{spellings[0]: "x"}}}}}); err != nil {
			t.Errorf("%s: %v", spellings[0], err)
		}
	}
	if keys < 100 {
		t.Errorf("%d keys found in the table, want at least 100", keys)
	}
}
