package telemetry

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
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
	Spans   []registeredSpan   `yaml:"spans"`
	Events  []registeredSpan   `yaml:"events"`
	Metrics []registeredMetric `yaml:"metrics"`
}

type registeredSpan struct {
	Name  string `yaml:"name"`
	Kind  string `yaml:"kind"`
	Brief string `yaml:"brief"`
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

// sources calls visit for every node of the product's code; file is where it is.
func sources(t *testing.T, visit func(file string, n ast.Node)) {
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
				visit(filepath.Base(path), n)
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

// ofPackage returns the name of the function called, if it is one of that package.
func ofPackage(c *ast.CallExpr, name string) string {
	if f, ok := c.Fun.(*ast.SelectorExpr); ok && types.ExprString(f.X) == name {
		return f.Sel.Name
	}
	return ""
}

// sets are the functions of the attribute package that take attributes, not a key.
var sets = []string{"NewSet"}

// detectors are what describes a process, with the attributes that each finds; nil are
// those that take what is found elsewhere, or what the operator says.
var detectors = map[string][]string{
	"WithTelemetrySDK": {"telemetry.sdk.name", "telemetry.sdk.language", "telemetry.sdk.version"}, "WithAttributes": nil, "WithFromEnv": nil,
}

// keysOf returns the attributes whose keys a node names, and false where it names one
// that cannot be read here.
func keysOf(n ast.Node) (keys []string, ok bool) {
	var key ast.Expr
	switch n := n.(type) {
	case *ast.ImportSpec:
		path, _ := literal(n.Path)
		return nil, !strings.Contains(path, "/semconv") && (n.Name == nil || path != "go.opentelemetry.io/otel/attribute" && path != "go.opentelemetry.io/otel/sdk/resource")
	case *ast.CompositeLit:
		return nil, types.ExprString(n.Type) != "attribute.KeyValue" || len(n.Elts) == 0
	case *ast.CallExpr:
		if detector := ofPackage(n, "resource"); strings.HasPrefix(detector, "With") {
			keys, ok = detectors[detector]
			return keys, ok
		}
		if f := ofPackage(n, "attribute"); f == "" || slices.Contains(sets, f) || len(n.Args) == 0 {
			return nil, true
		}
		key = n.Args[0]
	default:
		return nil, true
	}
	s, ok := literal(key)
	return []string{s}, ok
}

// TestAttributesAreRegistered: every key of an attribute in the code, whatever makes it,
// and no other, is in the registry.
func TestAttributesAreRegistered(t *testing.T) {
	want := map[string]bool{}
	sources(t, func(file string, n ast.Node) {
		keys, ok := keysOf(n)
		if !ok {
			t.Errorf("%s: an attribute whose key is no literal here: this test cannot see it", file)
			return
		}
		for _, s := range keys {
			want[s] = true
		}
	})
	if !want["ml.model.name"] || !want["service.name"] || len(want) < 10 {
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

// TestValuesAreRegistered: of attributes that have few values the examples are all of them.
func TestValuesAreRegistered(t *testing.T) {
	found := map[string][]string{}
	sources(t, func(file string, n ast.Node) {
		switch n := n.(type) {
		case *ast.ValueSpec: // how much of a prediction was kept
			for i, name := range n.Names {
				if strings.HasPrefix(name.Name, "Capture") && i < len(n.Values) {
					if v, ok := literal(n.Values[i]); ok {
						found["ml.capture.result"] = append(found["ml.capture.result"], v)
					}
				}
			}
		case *ast.KeyValueExpr: // the kinds of records
			if v, ok := literal(n.Value); ok && file == "metrics.go" && strings.HasPrefix(types.ExprString(n.Key), "collector.Kind") {
				found["ml.capture.kind"] = append(found["ml.capture.kind"], v)
			}
		}
	})
	for _, a := range readRegistry(t).Attributes {
		want, ok := found[a.Name]
		if !ok {
			continue
		}
		delete(found, a.Name)
		got := strings.Split(a.Examples, ", ")
		slices.Sort(got)
		if slices.Sort(want); len(want) < 5 || !slices.Equal(got, want) {
			t.Errorf("%s has the values %v, in the code %v", a.Name, got, want)
		}
	}
	if len(found) > 0 {
		t.Errorf("not in the registry: %v", found)
	}
}

// composed are the names of spans that are no literal where the span is made, by file and
// expression; nil are those that are only handed on. TestEveryRoadOut of cmd/pellucid
// holds what is really sent to the registry.
var composed = map[string][]string{
	"call.go k.name()":   {"predict <model>", "predict", "explain <model>", "explain"},
	"late.go k.name()":   {"predict <model>", "predict", "explain <model>", "explain"},
	"late.go stage.name": {"model.run", "capture"},
	"late.go name":       {"<method> <route>", "<method>", "<service>/<rpc>"},
	"late.go l.Name":     nil,
	"wire.go l.Name":     nil,
	"heads.go name":      nil,
	"call.go name":       nil,
}

// spanName returns what names the span that a node makes, or the event of a span.
func spanName(n ast.Node) (name ast.Expr, event bool) {
	switch n := n.(type) {
	case *ast.CallExpr:
		switch f := callee(n); {
		case f == "Start" && len(n.Args) > 1 && ofPackage(n, "embedded") == "":
			return n.Args[1], false
		case f == "child" && len(n.Args) == 1:
			return n.Args[0], false
		case f == "AddEvent" && len(n.Args) > 0:
			return n.Args[0], true
		}
	case *ast.CompositeLit:
		if n.Type == nil || !slices.Contains([]string{"LateSpan", "proxy.LateSpan", "telemetry.Late", "Late"}, types.ExprString(n.Type)) {
			return nil, false
		}
		for _, e := range n.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok && types.ExprString(kv.Key) == "Name" {
				return kv.Value, false
			}
		}
	}
	return nil, false
}

// TestSpansAreRegistered: every name that a span or an event has in the code, and no
// other, is in the registry.
func TestSpansAreRegistered(t *testing.T) {
	want := map[bool]map[string]bool{false: {}, true: {}}
	used := map[string]bool{}
	sources(t, func(file string, n ast.Node) {
		e, event := spanName(n)
		if e == nil {
			return
		}
		name, ok := literal(e)
		if ok {
			want[event][name] = true
			return
		}
		place := file + " " + types.ExprString(e)
		names, ok := composed[place]
		if !ok {
			t.Errorf("%s names a span, and this test does not know how", place)
		}
		used[place] = true
		for _, name := range names {
			want[event][name] = true
		}
	})
	for place := range composed {
		if !used[place] {
			t.Errorf("%s names no span any more", place)
		}
	}
	r := readRegistry(t)
	for event, list := range map[bool][]registeredSpan{false: r.Spans, true: r.Events} {
		for _, x := range list {
			if !want[event][x.Name] {
				t.Errorf("%q is in the registry and nowhere in the code", x.Name)
			}
			delete(want[event], x.Name)
			if x.Brief == "" || (x.Kind == "") != event {
				t.Errorf("%q needs a brief, and a kind if it is a span", x.Name)
			}
		}
		for name := range want[event] {
			t.Errorf("%q is made by the code and not in the registry", name)
		}
	}
}

// TestMetricsAreRegistered: every instrument of the code, and no other, is in the
// registry, with its kind and unit.
func TestMetricsAreRegistered(t *testing.T) {
	found := map[string]registeredMetric{}
	sources(t, func(_ string, n ast.Node) {
		c, ok := n.(*ast.CallExpr)
		if !ok {
			return
		}
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
