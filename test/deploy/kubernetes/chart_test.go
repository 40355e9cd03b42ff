package kubernetes

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"sigs.k8s.io/yaml"
)

const chartDir = "../../../deploy/helm/adconnector"

const release = "ad"

// values parses a values file.
func values(t *testing.T, text string) map[string]any {
	t.Helper()
	v := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// render returns the output of `helm template` and its error.
func render(t *testing.T, v map[string]any) (*manifest, error) {
	t.Helper()
	return renderAs(t, release, v)
}

func renderAs(t *testing.T, release string, v map[string]any) (*manifest, error) {
	t.Helper()
	return renderIn(t, nil, release, v)
}

// renderIn is like renderAs, for an installation in a cluster; nil: `helm template`.
func renderIn(t *testing.T, cluster engine.ClientProvider, release string, v map[string]any) (*manifest, error) {
	t.Helper()
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: "identity", Revision: 3, IsInstall: true}
	renderValues, err := chartutil.ToRenderValues(chart, v, options, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	var files map[string]string
	if cluster != nil {
		files, err = engine.RenderWithClientProvider(chart, renderValues, cluster)
	} else {
		files, err = engine.Engine{Strict: true}.Render(chart, renderValues)
	}
	if err != nil {
		return nil, err
	}
	m := &manifest{objects: map[string]object{}, text: map[string]string{}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, "NOTES.txt") {
			m.notes = files[name]
			continue
		}
		for _, document := range strings.Split("\n"+files[name], "\n---") {
			if strings.TrimSpace(document) != "" {
				m.add(t, name, document)
			}
		}
	}
	return m, nil
}

func mustRender(t *testing.T, text string) *manifest {
	t.Helper()
	m, err := render(t, values(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// object is a Kubernetes object with metadata.
type object interface {
	runtime.Object
	meta.Object
}

// manifest is the rendered chart.
type manifest struct {
	objects map[string]object // by kind and name
	text    map[string]string // YAML by kind and name
	notes   string
}

// decoder decodes the kinds that the chart may contain. It rejects unknown fields.
var decoder = func() *json.Serializer {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{apps.AddToScheme, batch.AddToScheme, core.AddToScheme, networking.AddToScheme, policy.AddToScheme, monitoring.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
}()

func (m *manifest) add(t *testing.T, file, document string) {
	t.Helper()
	decoded, kind, err := decoder.Decode([]byte(document), nil, nil)
	if err != nil {
		t.Fatalf("%s: %v\n%s", file, err, document)
	}
	o, ok := decoded.(object)
	if !ok {
		t.Fatalf("%s: %v has no metadata", file, kind)
	}
	key := kind.Kind + " " + o.GetName()
	if _, duplicate := m.objects[key]; duplicate {
		t.Errorf("duplicate object %s", key)
	}
	m.objects[key], m.text[key] = o, document
}

// get returns the object with a key of kind and name.
func get[T object](t *testing.T, m *manifest, key string) T {
	t.Helper()
	o, ok := m.objects[key].(T)
	if !ok {
		t.Fatalf("no %s among %q", key, slices.Sorted(maps.Keys(m.objects)))
	}
	return o
}

// connectorYAML returns the values of a connector. n makes its connection unique.
func connectorYAML(n int) string {
	return fmt.Sprintf(`
    settings:
      connector.api.url: https://gateway.example.com
      qualys.customerUuid: 35664649-0000-4000-8000-000000000000
      qualys.connectionUuid: 6ec6ac85-0000-4000-8000-%012x
      qualys.profileUuid: a4ab0242-0000-4000-8000-000000000000
      qualys.user.username: qualys_ad1
      service.cron-expression: "*/10 * * * *"
      upload.batch-bytes: 1048576
      service.run-on-start: true
    secret:
      name: adconnector-secrets
      keys: [qualys.user.password]
`, n)
}

func connectorsYAML(count int) string {
	var text strings.Builder
	text.WriteString("connectors:\n")
	for n := range count {
		fmt.Fprintf(&text, "  domain-%03d:%s", n, connectorYAML(n))
	}
	return text.String()
}

// TestLint checks that helm lint has no findings for none, one and many connectors.
func TestLint(t *testing.T) {
	for _, count := range []int{0, 1, 200} {
		v := map[string]any{}
		if count > 0 {
			v = values(t, connectorsYAML(count))
		}
		for _, message := range lint.All(chartDir, v, "identity", true).Messages {
			// The chart has no icon, because it would need a download.
			if message.Severity > support.InfoSev || !strings.Contains(message.Err.Error(), "icon is recommended") {
				t.Errorf("%d connectors: %v", count, message)
			}
		}
	}
}

// TestAlerts checks that the chart contains the alert rules that promtool tests.
func TestAlerts(t *testing.T) {
	chartRules, err := os.ReadFile(filepath.Join(chartDir, "files/alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile("../../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if string(chartRules) != string(rules) {
		t.Error("deploy/helm/adconnector/files/alerts.yaml differs from deploy/prometheus/alerts.yaml: copy the latter")
	}
	m := mustRender(t, connectorsYAML(1)+"prometheusRule: {enabled: true, labels: {team: identity}}\n")
	rule := get[*monitoring.PrometheusRule](t, m, "PrometheusRule ad")
	var spec monitoring.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(rules, &spec); err != nil {
		t.Fatal(err)
	}
	if rule.Labels["team"] != "identity" || !reflect.DeepEqual(rule.Spec, spec) || len(spec.Groups) == 0 || len(spec.Groups[0].Rules) < 4 {
		t.Errorf("PrometheusRule %+v", rule)
	}
}
