package main

import (
	"encoding/csv"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"

	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/engine/modelfile"
)

const fitted = "../../engine/train/testdata/rows.csv"

// TestFit makes a version of each kind that can be served at once, and predicts with it.
func TestFit(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		say  string
	}{
		{"linear", []string{"--label", "label", "--features", "age,gaps,city,plan", "--weight", "weight", "--class-weight", "balanced"}, "logistic"},
		{"mlp", []string{"--kind", "mlp", "--hidden", "16", "--label", "group", "--loss", "cross_entropy", "--features", "age,visits", "--categorical", "visits", "--epochs", "5", "--threads", "2"}, "macro_f1"},
		{"regression", []string{"--label", "value", "--features", "age,income,score", "--time", "age", "--holdout", "0.1"}, "the last 16 by age held out"},
		{"trees", []string{"--kind", "trees", "--label", "label", "--features", "age,gaps,city,plan", "--monotone", "age=-1", "--rounds", "20", "--min-child-rows", "4", "--level-share", "0.5", "--class-weight", "yes=2"}, "rounds of trees"},
		{"calibrated", []string{"--kind", "trees", "--label", "label", "--features", "age,gaps,city,plan", "--rounds", "20", "--holdout", "0.5", "--calibrate", "isotonic"}, "isotonic, fitted to 41 of the rows held out; over the other 40: log loss"},
		{"temperature", []string{"--label", "label", "--features", "age,gaps,city", "--holdout", "0.5", "--calibrate", "temperature"}, "temperature, fitted to 41"},
		{"all", []string{"--label", "count", "--loss", "poisson", "--holdout", "0"}, "none held out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			version := filepath.Join(t.TempDir(), "models", c.name, "1")
			status, out, stderr := command(t, append([]string{"model", "fit", "--input", fitted, "--output", version}, c.args...)...)
			if status != 0 || !strings.Contains(out, c.say) {
				t.Fatalf("status %d: %s%s", status, out, stderr)
			}
			text, err := os.ReadFile(filepath.Join(version, "model.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := repository.ParseConfig(text, "model.yaml")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(version, "model.onnx")
			if c.name == "trees" {
				path = filepath.Join(version, "model.json")
			}
			m, err := modelfile.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			v, err := repository.Offline(path, "", 1)
			if err != nil {
				t.Fatal(err)
			}
			ref, err := repository.ReferenceOf(t.Context(), v, filepath.Join(version, cfg.Reference))
			if err != nil || ref.Rows < 70 || ref.Rows > 160 {
				t.Errorf("the reference: %+v, %v", ref, err)
			}
			if info := m.Info(); cfg.Task != info.Task || len(info.Classes) > 0 && !slices.Equal(cfg.Classes, info.Classes) || len(cfg.Features) != len(info.Features) || len(info.Features) < 2 {
				t.Errorf("%s\n%+v", text, info)
			}
			if status, out, stderr = command(t, "predict", "--model", path, "--input", fitted); status != 0 || strings.Count(out, "\n") != 161 {
				t.Errorf("status %d: %s", status, stderr)
			}
			if status, _, stderr = command(t, append([]string{"model", "fit", "--input", fitted, "--output", version}, c.args...)...); status != 2 || !strings.Contains(stderr, "not empty") {
				t.Errorf("a version was written over: status %d: %s", status, stderr)
			}
			if left, err := os.ReadDir(filepath.Dir(version)); err != nil || len(left) != 1 {
				t.Errorf("the model's folder holds %v (%v)", left, err)
			}
		})
	}
}

// TestFitFrom fits the demo's network anew to an export, and keeps what its model.yaml says.
func TestFitFrom(t *testing.T) {
	dir := t.TempDir()
	rows := exportOf(t, filepath.Join(dir, "export.csv"))
	version := filepath.Join(dir, "models", "flights_mlp", "2")
	status, out, stderr := command(t, "model", "fit", "--from", mlp+"model.onnx", "--input", rows, "--label", "label", "--time", "time", "--output", version, "--l2", "0.001")
	for _, say := range []string{"17 weights of coefficient2, intercepts2", "by lbfgs", "before)", "auc", "10 rows without a label", "5 rows whose values were not kept", "classes    0, 1", "made anew of 148 rows learnt from"} {
		if status != 0 || !strings.Contains(out, say) {
			t.Fatalf("status %d, no %q in %s%s", status, say, out, stderr)
		}
	}
	for _, name := range []string{"model.yaml", "background.parquet"} {
		a, err := os.ReadFile(mlp + name)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(version, name)); err != nil || !slices.Equal(a, b) {
			t.Errorf("%s is not what stood beside the network (%v)", name, err)
		}
	}
	v, err := repository.Offline(filepath.Join(version, "model.onnx"), "", 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := repository.ReferenceOf(t.Context(), v, filepath.Join(version, "reference.parquet"))
	if err != nil || ref.Rows != 148 {
		t.Errorf("the reference is of %+v rows, %v", ref, err)
	}
	all := filepath.Join(dir, "all.onnx")
	if status, out, stderr = command(t, "model", "fit", "--from", mlp+"model.onnx", "--layers", "all", "--input", rows, "--label", "label", "--output", all, "--epochs", "2"); status != 0 || !strings.Contains(out, "by adam") {
		t.Fatalf("status %d: %s%s", status, out, stderr)
	}
	hidden := filepath.Join(dir, "hidden")
	if err := os.MkdirAll(hidden, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"model.onnx": readFile(t, mlp+"model.onnx"), "model.yaml": "features: [{name: temp, private: hash}]\n"} {
		if err := os.WriteFile(filepath.Join(hidden, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	status, _, stderr = command(t, "model", "fit", "--from", filepath.Join(hidden, "model.onnx"), "--input", rows, "--label", "label", "--output", filepath.Join(dir, "never"))
	if status != 2 || !strings.Contains(stderr, `feature "temp", private`) {
		t.Errorf("hashes were learnt from: status %d: %s", status, stderr)
	}
	masked := filepath.Join(dir, "masked.csv")
	if err := os.WriteFile(masked, []byte(strings.ReplaceAll(readFile(t, rows), ",500,", ",***,")), 0o600); err != nil {
		t.Fatal(err)
	}
	for features, want := range map[string]int{"hour,distance": 2, "hour,temp": 0} {
		status, out, stderr = command(t, "model", "fit", "--input", masked, "--label", "label", "--features", features, "--output", filepath.Join(dir, features, "1"))
		if status != want || want == 2 && !strings.Contains(stderr, `"distance" are masked`) || want == 0 && !strings.Contains(out, "the export's own, column weight") {
			t.Errorf("features %s: status %d: %s%s", features, status, out, stderr)
		}
	}
	status, _, stderr = command(t, "model", "fit", "--input", rows, "--label", "label", "--output", all)
	if status != 2 || !strings.Contains(stderr, "--features") {
		t.Errorf("an export was learnt from whole: status %d: %s", status, stderr)
	}
}

// exportOf writes rows of the demo as `pellucid export` does, some without a label and
// some that were not kept whole.
func exportOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"day_of_week", "hour", "minute", "distance", "temp", "dewp", "humid", "wind_speed", "precip", "visib"}
	w := csv.NewWriter(f)
	line := func(cells ...string) {
		if err := w.Write(cells); err != nil {
			t.Fatal(err)
		}
	}
	line(slices.Concat(exported, names, []string{"probabilities[0]", "probabilities[1]"})...)
	for i := range 200 {
		day, hour := string(rune('1'+i%7)), string(rune('0'+i%10))
		label, capture := "0", "full"
		if i*7%10 > 5 {
			label = "1"
		}
		if i < 10 {
			label = ""
		}
		if i >= 195 {
			capture = "sampled"
		}
		values := map[string]string{"id": "id", "time": "2013-07-0" + day + "T0" + hour + ":00:00Z", "status": "200", "capture": capture, "label": label, "weight": "1"}
		var cells []string
		for _, name := range exported {
			cells = append(cells, values[name])
		}
		line(append(cells, day, hour, "30", "500", "60", "50", hour, "9", "0", "10", "0.5", "0.5")...)
	}
	w.Flush()
	if err := w.Error(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFitKeepsPrivate: a version that is fitted beside others brings nothing into the open that
// is private in them, in its model.yaml or in a reference of the rows.
func TestFitKeepsPrivate(t *testing.T) {
	dir := t.TempDir()
	input := filepath.Join(dir, "rows.csv")
	rows := "Income,age,who,label\n"
	for i := range 60 {
		rows += fmt.Sprintf("%d,%d,%d,%d\n", 7318490+i, 20+i%40, i%9, i*7%3%2)
	}
	if err := os.WriteFile(input, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	models := filepath.Join(dir, "models")
	place(t, models, "risk/1/model.yaml", "features: [{name: income, private: mask}, {name: other, private: drop}]\n")
	place(t, models, "risk/2/model.yaml", "features: [{name: income, private: bucket}, {name: age, private: seal}]\nsubject: who\n")
	fit := func(version string) (int, string, string) {
		return command(t, "model", "fit", "--kind", "trees", "--input", input, "--label", "label", "--loss", "logistic", "--features", "Income,age,who", "--output", filepath.Join(models, "risk", version))
	}
	status, out, stderr := fit("3")
	if status != 0 || !strings.Contains(out, "Income, age") || !strings.Contains(out, `none: feature "Income" is private`) {
		t.Fatalf("%d %s %s", status, out, stderr)
	}
	b, err := os.ReadFile(filepath.Join(models, "risk", "3", modelYAML))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := repository.ParseConfig(b, modelYAML)
	want := map[string]collector.Privacy{"Income": collector.PrivacyMask, "age": collector.PrivacySeal}
	if err != nil || !maps.Equal(cfg.Policies(), want) || cfg.Subject != "who" || cfg.Reference != "" {
		t.Errorf("%v: %s", err, b)
	}
	entries, err := os.ReadDir(filepath.Join(models, "risk", "3"))
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v: more than the model and what is said of it", entries, err)
	}
	// What cannot be read may say anything.
	place(t, models, "risk/2/model.yaml", "features: [}\n")
	if status, _, stderr := fit("4"); status == 0 || !strings.Contains(stderr, "not known") || exists(filepath.Join(models, "risk", "4")) {
		t.Errorf("beside one that cannot be read: %d %s", status, stderr)
	}
}

// TestFitUsage names the flag that is wrong.
func TestFitUsage(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "x.onnx")
	text := filepath.Join(dir, "text.csv")
	if err := os.WriteFile(text, []byte("x,y\n1,a\n2,a\n3,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		say    string
	}{
		{nil, 2, "needs --input"},
		{[]string{"--input", fitted, "--label", "nope", "--output", out}, 2, "no column"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--kind", "forest"}, 2, "linear, mlp, trees"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--hidden", "3"}, 2, "no effect"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--layers", "2"}, 2, "no effect"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--rounds", "2"}, 2, "no effect"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--kind", "trees", "--epochs", "2"}, 2, "no effect"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--kind", "trees", "--monotone", "city=+1"}, 2, "no order"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--kind", "trees", "--monotone", "age=2"}, 2, "COLUMN=+1"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--kind", "trees", "--loss", "huber"}, 2, "huber"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--calibrate", "platt"}, 2, "not classes"},
		{[]string{"--input", fitted, "--label", "label", "--output", out, "--calibrate", "platt", "--holdout", "0"}, 2, "--holdout is 0"},
		{[]string{"--input", fitted, "--label", "label", "--kind", "trees", "--output", filepath.Join(dir, "x.json"), "--calibrate", "platt"}, 2, "no place"},
		{[]string{"--input", fitted, "--label", "label", "--output", out, "--class-weight", "maybe=2"}, 2, "none of the classes"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--loss", "hinge"}, 2, "hinge"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--features", "value"}, 2, "is the label"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--features", "height"}, 2, "no column"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--class-weight", "balanced"}, 2, "not classes"},
		{[]string{"--input", fitted, "--label", "value", "--output", filepath.Join(dir, "x.ubj")}, 2, "neither an .onnx file"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--from", gbm + "model.ubj"}, 2, "no .onnx"},
		{[]string{"--input", fitted, "--label", "city", "--output", out, "--loss", "squared"}, 1, "holds text"},
		{[]string{"--input", text, "--label", "y", "--output", out}, 1, "all of one class"},
		{[]string{"--input", fitted, "--label", "value", "--output", out, "--optimizer", "sgd", "--learning-rate", "1e9", "--holdout", "0"}, 1, "the loss is not finite"},
		{[]string{"--input", fitted, "--label", "city", "--output", mlp + "model.onnx", "--from", mlp + "model.onnx"}, 2, "never written over"},
		{[]string{"--input", fitted, "--label", "city", "--output", out, "--from", mlp + "model.onnx"}, 1, "none of the 2 classes"},
	} {
		status, _, stderr := command(t, append([]string{"model", "fit"}, c.args...)...)
		if status != c.status || !strings.Contains(stderr, c.say) {
			t.Errorf("%v: status %d: %s", c.args, status, stderr)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a model was written by a fit that failed")
	}
}
