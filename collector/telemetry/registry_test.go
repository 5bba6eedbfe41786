package telemetry

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/metric"

	"github.com/pellucid/pellucid/collector/strictyaml"
)

type registry struct {
	Attributes []struct {
		Name     string `yaml:"name"`
		Type     string `yaml:"type"`
		Brief    string `yaml:"brief"`
		Examples string `yaml:"examples"`
	} `yaml:"attributes"`
	Taken []struct {
		Name    string `yaml:"name"`
		Type    string `yaml:"type"`
		Becomes string `yaml:"becomes"`
	} `yaml:"taken"`
	Metrics []registeredMetric `yaml:"metrics"`
}

type registeredMetric struct {
	Name       string `yaml:"name"`
	Instrument string `yaml:"instrument"`
	Unit       string `yaml:"unit"`
	Prometheus string `yaml:"prometheus"`
}

func readRegistry(t *testing.T) registry {
	t.Helper()
	data, err := os.ReadFile("registry.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var r registry
	if err := strictyaml.Decode(data, "registry.yaml", &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Attributes) == 0 || len(r.Metrics) == 0 {
		t.Fatal("the registry is empty")
	}
	return r
}

// sources calls visit for every call expression of the product's code.
func sources(t *testing.T, visit func(call *ast.CallExpr)) {
	t.Helper()
	root := filepath.Join("..", "..")
	set := token.NewFileSet()
	files := 0
	for _, top := range []string{"engine", "collector", "explain", "alerts", "dashboards", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			files++
			ast.Inspect(f, func(n ast.Node) bool {
				if c, ok := n.(*ast.CallExpr); ok {
					visit(c)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 20 {
		t.Fatalf("parsed %d files: the walk is broken", files)
	}
}

// callee returns the name of the function called.
func callee(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.SelectorExpr:
		return f.Sel.Name
	case *ast.Ident:
		return f.Name
	}
	return ""
}

// literal returns the text of a string literal.
func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// instruments maps the constructors of a metric.Meter to the registry's words.
var instruments = map[string]string{
	"Int64Counter": "counter", "Float64Counter": "counter",
	"Int64ObservableCounter": "counter", "Float64ObservableCounter": "counter",
	"Int64UpDownCounter": "updowncounter", "Float64UpDownCounter": "updowncounter",
	"Int64ObservableUpDownCounter": "updowncounter", "Float64ObservableUpDownCounter": "updowncounter",
	"Int64Gauge": "gauge", "Float64Gauge": "gauge",
	"Int64ObservableGauge": "gauge", "Float64ObservableGauge": "gauge",
	"Int64Histogram": "histogram", "Float64Histogram": "histogram",
}

// unitOf finds metric.WithUnit("...") among a constructor's options.
func unitOf(args []ast.Expr) string {
	for _, a := range args {
		if c, ok := a.(*ast.CallExpr); ok && callee(c) == "WithUnit" && len(c.Args) == 1 {
			u, _ := literal(c.Args[0])
			return u
		}
	}
	return ""
}

// TestAttributesAreRegistered: every attribute.Key of the code, and no other, is
// in the registry.
func TestAttributesAreRegistered(t *testing.T) {
	want := map[string]bool{}
	sources(t, func(c *ast.CallExpr) {
		if callee(c) != "Key" || len(c.Args) != 1 {
			return
		}
		if s, ok := literal(c.Args[0]); ok {
			want[s] = true
		}
	})
	if !want["ml.model.name"] || len(want) < 10 {
		t.Fatalf("found only %v: attributes are no longer set where this test looks", slices.Sorted(maps.Keys(want)))
	}
	for _, a := range readRegistry(t).Attributes {
		if !want[a.Name] {
			t.Errorf("%s is in the registry and nowhere in the code", a.Name)
		}
		delete(want, a.Name)
		if a.Type == "" || a.Brief == "" || a.Examples == "" {
			t.Errorf("%s needs a type, a brief and examples", a.Name)
		}
	}
	for name := range want {
		t.Errorf("%s is set by the code and not in the registry", name)
	}
}

// TestMetricsAreRegistered: every instrument of the code, and no other, is in the
// registry, with its kind and unit.
func TestMetricsAreRegistered(t *testing.T) {
	found := map[string]registeredMetric{}
	sources(t, func(c *ast.CallExpr) {
		kind, ok := instruments[callee(c)]
		if !ok || len(c.Args) == 0 {
			return
		}
		if name, ok := literal(c.Args[0]); ok {
			found[name] = registeredMetric{Name: name, Instrument: kind, Unit: unitOf(c.Args[1:])}
		}
	})
	if len(found) < 5 {
		t.Fatalf("found only %v: instruments are no longer made where this test looks", found)
	}
	for _, m := range readRegistry(t).Metrics {
		got, ok := found[m.Name]
		delete(found, m.Name)
		m.Prometheus = ""
		switch {
		case !ok:
			t.Errorf("%s is in the registry and nowhere in the code", m.Name)
		case got != m:
			t.Errorf("%s: the code has %+v, the registry %+v", m.Name, got, m)
		}
	}
	for name := range found {
		t.Errorf("%s is made by the code and not in the registry", name)
	}
}

// TestPrometheusNames records each metric once and looks for its name at the
// endpoint.
func TestPrometheusNames(t *testing.T) {
	tel := start(t, Config{})
	m := tel.MeterProvider().Meter("test")
	r := readRegistry(t)
	for _, x := range r.Metrics {
		if err := touch(t, m, x); err != nil {
			t.Fatalf("%s: %v", x.Name, err)
		}
	}
	rec := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	body := rec.Body.String()
	for _, x := range r.Metrics {
		kind := map[string]string{"updowncounter": "gauge"}[x.Instrument]
		if kind == "" {
			kind = x.Instrument
		}
		if want := "# TYPE " + x.Prometheus + " " + kind + "\n"; !strings.Contains(body, want) {
			t.Errorf("%s: no line %q", x.Name, want)
		}
	}
}

func touch(t *testing.T, m metric.Meter, x registeredMetric) error {
	ctx := t.Context()
	if strings.HasPrefix(x.Name, "pellucid.telemetry.") {
		return nil // made by New itself
	}
	switch x.Instrument {
	case "histogram":
		h, err := m.Float64Histogram(x.Name, metric.WithUnit(x.Unit))
		h.Record(ctx, 1)
		return err
	case "updowncounter":
		c, err := m.Int64UpDownCounter(x.Name, metric.WithUnit(x.Unit))
		c.Add(ctx, 1)
		return err
	case "gauge":
		g, err := m.Float64Gauge(x.Name, metric.WithUnit(x.Unit))
		g.Record(ctx, 1)
		return err
	}
	c, err := m.Int64Counter(x.Name, metric.WithUnit(x.Unit))
	c.Add(ctx, 1)
	return err
}

// TestTakenAttributesAreRegistered holds the attributes that make a span a
// prediction to the registry: all of them, and no other; what is content is
// nothing else, and what is a value is never kept with spans.
func TestTakenAttributesAreRegistered(t *testing.T) {
	want := map[string]string{}
	for _, name := range []string{
		mlModelName, mlModelVersion, mlID, mlExternalID, mlScore, mlLabel, mlFeatures, mlFeatures + ".<name>", mlOutputs, mlOutputs + ".<name>",
		errorType, httpStatus, genOperation, genModel, genResponseModel, genResponseID,
	} {
		want[name] = ""
	}
	for what, columns := range map[string][]genColumn{"the feature ": genFeatures, "the output ": genOutputs} {
		for _, c := range columns {
			for _, name := range c.from {
				want[name] = what + c.name
			}
		}
	}
	for _, name := range genContent {
		want[name] = "a feature where declared"
	}
	for _, a := range readRegistry(t).Taken {
		becomes, ok := want[a.Name]
		if !ok {
			t.Errorf("%s is in the registry and nowhere in the code", a.Name)
		}
		delete(want, a.Name)
		if a.Type == "" || !strings.HasPrefix(a.Becomes, becomes) || a.Becomes == "" {
			t.Errorf("%s (%s) becomes %q, in the code %q", a.Name, a.Type, a.Becomes, becomes)
		}
		if content := slices.Contains(genContent, a.Name); content != (a.Type == "content") || content && !value(a.Name) {
			t.Errorf("%s is of type %s", a.Name, a.Type)
		}
		if strings.HasPrefix(a.Name, "ml.features") && !value(a.Name) || strings.HasPrefix(a.Name, "ml.outputs") && !value(a.Name) {
			t.Errorf("%s is kept with spans", a.Name)
		}
	}
	for name := range want {
		t.Errorf("%s is taken by the code and not in the registry", name)
	}
}
