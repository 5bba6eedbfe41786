package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector/strictyaml"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// command runs one command line and returns its status and what it printed.
func command(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	status = run(t.Context(), args, &out, &errOut)
	return status, out.String(), errOut.String()
}

const (
	gbm = "demo/data/models/flights_gbm/1/"
	mlp = "demo/data/models/flights_mlp/1/"
)

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		say    string
	}{
		{[]string{"version"}, 0, ""},
		{[]string{"--help"}, 0, ""},
		{[]string{"nonsense"}, 2, "unknown command"},
		{[]string{"predict"}, 2, "needs --model"},
		{[]string{"predict", "--modell", "x"}, 2, "unknown flag"},
		{[]string{"predict", "--model", "nowhere.ubj", "--input", "x.csv"}, 1, "nowhere.ubj"},
		{[]string{"serve", "--http", "0.0.0.0:1"}, 2, "no authentication"},
		{[]string{"serve", "extra"}, 2, "takes no argument"},
		{[]string{"explain", "--model", gbm + "model.ubj", "--input", gbm + "reference.parquet", "--format", "xml"}, 2, "not json, csv"},
		{[]string{"drift", "--reference", "a.csv", "--current", "b.csv", "--profile", "other"}, 2, "profile"},
		{[]string{"model", "test", "demo"}, 2, "no case"},
	} {
		status, _, stderr := command(t, c.args...)
		if status != c.status || !strings.Contains(stderr, c.say) {
			t.Errorf("%v: status %d, %q; want %d, %q", c.args, status, stderr, c.status, c.say)
		}
		if status != 0 && !strings.HasPrefix(stderr, "pellucid: ") {
			t.Errorf("%v: error %q does not begin with the program's name", c.args, stderr)
		}
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	var visit func(c *cobra.Command)
	seen := 0
	visit = func(c *cobra.Command) {
		seen++
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s has no example or no description", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(rootCommand())
	if seen < 15 {
		t.Errorf("only %d commands", seen)
	}
}

func TestExampleConfigIsTheDefaults(t *testing.T) {
	got := defaults()
	if err := strictyaml.Decode([]byte(exampleConfig), "example", &got); err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Alerts.Webhooks, want.Upstreams, want.Capture.Sample = got.Alerts.Webhooks, got.Upstreams, got.Capture.Sample
	want.Capture.Key.Command, want.Capture.Private, want.Capture.Patterns = got.Capture.Key.Command, got.Capture.Private, got.Capture.Patterns
	lists := len(got.Alerts.Webhooks) + len(got.Upstreams) + len(got.Capture.Sample) + len(got.Capture.Key.Command) + len(got.Capture.Private) + len(got.Capture.Patterns)
	if lists != 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("the printed example is not the defaults:\n%+v\n%+v", got, want)
	}
}

func TestUnknownKeyIsRefusedWithItsLine(t *testing.T) {
	var c config
	err := strictyaml.Decode([]byte("http: 127.0.0.1:1\ncapture:\n  durabilty: none\n"), "p.yaml", &c)
	if err == nil || !strings.Contains(err.Error(), "p.yaml: line 3: unknown key durabilty") {
		t.Errorf("got %v", err)
	}
}

func TestPredictAndExplainAddUp(t *testing.T) {
	dir := t.TempDir()
	for _, model := range []string{gbm + "model.ubj", mlp + "model.onnx"} {
		input := filepath.Join(filepath.Dir(model), "reference.parquet")
		if strings.HasPrefix(model, mlp) {
			input = mlp + "background.parquet"
		}
		scores, why := filepath.Join(dir, "scores.csv"), filepath.Join(dir, "why.csv")
		if status, _, stderr := command(t, "predict", "--model", model, "--input", input, "--output", scores); status != 0 {
			t.Fatal(stderr)
		}
		if status, _, stderr := command(t, "explain", "--model", model, "--input", input, "--format", "csv", "--output", why); status != 0 {
			t.Fatal(stderr)
		}
		rows := readCSV(t, why)
		if got, want := len(rows), len(readCSV(t, scores)); got < want {
			t.Errorf("%s: %d lines of explanation for %d of scores", model, got, want)
		}
		for _, r := range rows[1:] {
			sum := number(t, r[2])
			for _, phi := range r[4:] {
				sum += number(t, phi)
			}
			if p := number(t, r[3]); math.Abs(sum-p) > 1e-3*max(1, math.Abs(p)) {
				t.Fatalf("%s row %s: base and effects make %g, the prediction is %g", model, r[0], sum, p)
			}
		}
	}
}

// TestMissingValueHasNoGradient holds that a value which is missing stays missing
// along the path: its effect is 0, a number, and the rest still adds up.
func TestMissingValueHasNoGradient(t *testing.T) {
	rows := filepath.Join(t.TempDir(), "rows.csv")
	text := "day_of_week,hour,minute,distance,temp,dewp,humid,wind_speed,precip,visib\n1,8,30,500,,40,50,10,0,10\n2,18,30,900,60,40,50,10,0,10\n"
	if err := os.WriteFile(rows, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"integrated_gradients", "input_x_gradient", "saliency"} {
		status, out, stderr := command(t, "explain", "--model", mlp+"model.onnx", "--input", rows, "--method", method)
		if status != 0 {
			t.Fatal(stderr)
		}
		var e struct {
			Attributions []struct {
				Feature string
				Value   *float64
				Phi     *float64
			}
		}
		if err := json.NewDecoder(strings.NewReader(out)).Decode(&e); err != nil {
			t.Fatal(err)
		}
		temp := e.Attributions[4]
		if temp.Feature != "temp" || temp.Value != nil || temp.Phi == nil || *temp.Phi != 0 {
			t.Errorf("%s: %+v", method, temp)
		}
	}
}

// TestJumpIsWarnedOf on standard error whatever the format, which may have no certificate.
func TestJumpIsWarnedOf(t *testing.T) {
	dir := t.TempDir()
	floor := &graph.Node{Op: "Floor", Version: 20, Inputs: []string{"x"}, Outputs: []string{"y"}, Attrs: graph.Attrs{}}
	spec := func(name string) engine.Spec {
		return engine.Spec{Name: name, DType: engine.Float32, Shape: []int{-1, 1}}
	}
	file, err := onnx.Encode(&onnx.Made{Graph: &graph.Graph{Nodes: []*graph.Node{floor}, Inputs: []engine.Spec{spec("x")}, Outputs: []string{"y"}}, Outputs: []engine.Spec{spec("y")}})
	if err != nil {
		t.Fatal(err)
	}
	place(t, dir, "floor.onnx", string(file))
	place(t, dir, "rows.csv", "x\n0.5\n1.5\n2.5\n")
	status, out, stderr := command(t, "explain", "--model", filepath.Join(dir, "floor.onnx"), "--input", filepath.Join(dir, "rows.csv"), "--format", "csv")
	if status != 0 || !strings.Contains(stderr, "warning: 2 of 3 explanations do not add up; row 1: ") || !strings.Contains(stderr, "1 jump,") || strings.Contains(out, "warning") {
		t.Errorf("status %d: %s%s", status, out, stderr)
	}
}

func number(t *testing.T, s string) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func readCSV(t *testing.T, path string) [][]string {
	t.Helper()
	status := readFile(t, path)
	rows, err := csv.NewReader(strings.NewReader(status)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestDriftOfTheReferenceAgainstItselfIsNone(t *testing.T) {
	ref := gbm + "reference.parquet"
	status, out, stderr := command(t, "drift", "--reference", ref, "--current", ref, "--format", "json")
	if status != 0 {
		t.Fatal(stderr)
	}
	var report struct {
		Features []struct {
			Name  string
			Tests map[string]struct{ Value float64 }
			State string
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Features) != 15 {
		t.Fatalf("%d features", len(report.Features))
	}
	for _, f := range report.Features {
		if f.State != "ok" || f.Tests["psi"].Value != 0 {
			t.Errorf("%s: %s, PSI %g", f.Name, f.State, f.Tests["psi"].Value)
		}
	}
}

func TestDemoRulesNameRealModels(t *testing.T) {
	rules, err := readRules("demo/data/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[alerts.Kind]bool{}
	for _, r := range rules {
		kinds[r.Kind] = true
		if r.Model != "flights_gbm" && r.Model != "flights_mlp" {
			t.Errorf("rule %s watches %q", r.Name, r.Model)
		}
	}
	if !kinds[alerts.KindDrift] || !kinds[alerts.KindPerformance] {
		t.Errorf("the demo's rules watch %v only", kinds)
	}
}
