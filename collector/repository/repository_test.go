package repository

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
)

func TestParseConfig(t *testing.T) {
	cfg, err := ParseConfig([]byte(`task: binary
classes: [on_time, late]
features:
  - {name: age, kind: numeric}
  - {name: ssn, private: true}
  - {name: city, kind: categorical, private: drop}
segments:
  - city
  - {name: old, where: "age > 60"}
reference: {from: 2013-03-01, to: 2013-04-01}
background: background.csv
keep_rows: true
gate: {golden: true}
`), "model.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := collector.ModelConfig{
		Task: engine.TaskBinary, Classes: []string{"on_time", "late"},
		Features: []collector.FeatureConfig{
			{Name: "age", Kind: "numeric"},
			{Name: "ssn", Private: collector.PrivacyDrop},
			{Name: "city", Kind: "categorical", Private: collector.PrivacyDrop},
		},
		Segments:      []collector.Segment{{Name: "city", By: "city"}, {Name: "old", Where: "age > 60"}},
		ReferenceFrom: "2013-03-01", ReferenceTo: "2013-04-01", Background: "background.csv", KeepRows: true,
	}
	if !slices.Equal(cfg.Features, want.Features) || !slices.Equal(cfg.Segments, want.Segments) || !slices.Equal(cfg.Classes, want.Classes) {
		t.Errorf("got %+v, want %+v", cfg, want)
	}
	if cfg.Task != want.Task || cfg.Reference != "" || cfg.ReferenceFrom != want.ReferenceFrom || cfg.ReferenceTo != want.ReferenceTo ||
		cfg.Background != want.Background || cfg.KeepRows != want.KeepRows {
		t.Errorf("got %+v, want %+v", cfg, want)
	}
	if cfg, err = ParseConfig([]byte("reference: reference.parquet\n"), "model.yaml"); err != nil || cfg.Reference != "reference.parquet" {
		t.Errorf("a reference by file: %+v, %v", cfg, err)
	}
	if cfg, err = ParseConfig([]byte("features: [{name: a, private: false}]\n"), "model.yaml"); err != nil || cfg.Features[0].Private != "" {
		t.Errorf("private: false: %+v, %v", cfg, err)
	}
}

func TestParseConfigRefuses(t *testing.T) {
	for _, c := range []struct{ text, say string }{
		{"task: binary\ntsak: binary\n", "line 2: unknown key tsak"},
		{"features:\n  - name: a\n    privat: drop\n", "line 3: unknown key"},
		{"segments:\n  - {name: a, whre: x}\n", "line 2"},
		{"reference: {from: 2013-01-01, too: 2013-02-01}\n", "line 1"},
		{"task: classification\n", `task "classification"`},
		{"features: [{name: a, kind: text}]\n", `kind "text"`},
		{"features: [{kind: numeric}]\n", "no name"},
		{"features: [{name: ssn, private: dorp}]\n", `feature "ssn": private: "dorp" is not a policy`},
		{"features: [{name: ssn, private: 1}]\n", `feature "ssn": private: "1" is not a policy`},
		{"features: [{name: ssn, private: [drop]}]\n", "line 1"},
		{"features: [{name: ssn, private: }]\n", "names no policy"},
		{"features:\n  - name: ssn\n    private:\n", "names no policy"},
		{"features: [{name: ssn, private: \"\"}]\n", "names no policy"},
		{"gate: {max_infidelity: 0.1}\n", "max_infidelity is not built yet"},
		{"gate: {golden: false}\n", "gate.golden: false is not allowed"},
		{"task: binary\ntask: other\n", "line 2"},
		{"keep_rows: perhaps\n", "line 1"},
	} {
		if _, err := ParseConfig([]byte(c.text), "model.yaml"); err == nil || !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), "model.yaml") {
			t.Errorf("%q: %v, want it to say %q", c.text, err, c.say)
		}
	}
}

// fixture is a models folder, a store, and a case that a library computed.
type fixture struct {
	dir, store string
	oracle     *enginetest.Oracle
}

const xgboostData = "../../engine/xgboost/testdata"

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir(), store: t.TempDir()}
	for _, o := range enginetest.Oracles(t, xgboostData) {
		if o.Name == "base_binary_logistic" {
			f.oracle = o
		}
	}
	if f.oracle == nil {
		t.Fatal("no such case")
	}
	return f
}

// put copies a file of another package's test data to a place in the folder.
func (f *fixture) put(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, to, string(data))
}

func (f *fixture) write(t *testing.T, to, text string) {
	t.Helper()
	path := filepath.Join(f.dir, filepath.FromSlash(to))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) model(t *testing.T, version string) {
	t.Helper()
	f.put(t, f.oracle.Model, version+"/model.json")
}

func (f *fixture) open(t *testing.T, poll time.Duration) *Repository {
	t.Helper()
	r, err := Open(t.Context(), Config{Dir: f.dir, Store: f.store, Poll: poll, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// answers checks that a version predicts what the library did.
func (f *fixture) answers(t *testing.T, v *collector.ModelVersion) {
	t.Helper()
	in, _, err := engine.Bind(v.Info, f.oracle.Input(t, v.Info))
	if err != nil {
		t.Fatal(err)
	}
	out, err := v.Predict(t.Context(), in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := enginetest.Worst(out[0].Tensor, f.oracle.Prediction); d > 1e-5 {
		t.Errorf("%s %s is off by %g", v.Name, v.Version, d)
	}
}

func state(r *Repository, name, version string) collector.ModelState {
	for _, s := range r.Index(context.Background()) {
		if s.Name == name && s.Version == version {
			return s
		}
	}
	return collector.ModelState{}
}

func TestVersionsInOrder(t *testing.T) {
	f := newFixture(t)
	for _, v := range []string{"m/2", "m/10", "m/9", "other/beta", "other/3"} {
		f.model(t, v)
	}
	f.put(t, f.oracle.Model, "bare.json")
	f.write(t, "README.md", "not a model")
	f.write(t, ".hidden/1/model.json", "{")
	f.write(t, "two/1/model.json", "{}")
	f.write(t, "two/1/model.txt", "tree")
	f.write(t, "none/1/readme.txt", "no model here")
	f.write(t, "bad name/1/model.json", "{}")
	f.write(t, "broken/1/model.ubj", "\x00not a model")
	f.write(t, "flat/model.ubj", "in no version's folder")
	f.write(t, "named/net.onnx", "in no version's folder")
	f.write(t, "my model.onnx", "of no name")
	f.write(t, "data/notes.txt", "of nothing")
	r := f.open(t, time.Hour)
	var got []string
	for _, v := range r.Live() {
		got = append(got, v.Name+"/"+v.Version)
	}
	if want := []string{"bare/1", "m/2", "m/9", "m/10", "other/3", "other/beta"}; !slices.Equal(got, want) {
		t.Errorf("live %v, want %v", got, want)
	}
	for _, c := range []struct{ name, version, want string }{{"m", "", "10"}, {"m", "2", "2"}, {"bare", "", "1"}, {"other", "", "beta"}} {
		v, err := r.Find(c.name, c.version)
		if err != nil || v.Version != c.want {
			t.Errorf("find %s %q: %v, %v", c.name, c.version, v, err)
			continue
		}
		f.answers(t, v)
	}
	for _, c := range []struct{ name, version, say string }{
		{"two", "1", "more than one model file: model.json, model.txt"},
		{"none", "1", "no model.onnx"},
		{"bad name", "", "letters, digits"},
		{"broken", "1", ""},
		{"flat", "model.ubj", "put the file into flat/1/model.ubj"},
		{"named", "net.onnx", "put the file into named/1/model.onnx"},
		{"my model.onnx", "", "letters, digits"},
	} {
		s := state(r, c.name, c.version)
		if s.State != "UNAVAILABLE" || s.Reason == "" || !strings.Contains(s.Reason, c.say) {
			t.Errorf("%s/%s: %+v, want %q", c.name, c.version, s, c.say)
		}
	}
	if s := state(r, "data", "notes.txt"); s.State != "" {
		t.Errorf("a text is taken for a model: %+v", s)
	}
	for _, c := range []struct {
		name, version string
		want          error
	}{{"absent", "", collector.ErrNotFound}, {"m", "3", collector.ErrNotFound}, {"two", "1", collector.ErrNotReady}, {"broken", "", collector.ErrNotReady}} {
		if _, err := r.Find(c.name, c.version); !errors.Is(err, c.want) {
			t.Errorf("find %s %q: %v, want %v", c.name, c.version, err, c.want)
		}
	}
}

// tensorProto writes an ONNX tensor of float32.
func tensorProto(name string, shape []int, data []float32) string {
	var b []byte
	for _, d := range shape {
		b = binary.AppendUvarint(append(b, 1<<3), uint64(d))
	}
	b = append(b, 2<<3, 1) // data_type FLOAT
	b = binary.AppendUvarint(append(b, 8<<3|2), uint64(len(name)))
	b = append(b, name...)
	b = binary.AppendUvarint(append(b, 9<<3|2), uint64(4*len(data)))
	for _, v := range data {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return string(b)
}

// golden writes a test_data_set; off is added to the last expected prediction.
func (f *fixture) golden(t *testing.T, version string, off float32) {
	t.Helper()
	var x, y []float32
	for i, row := range f.oracle.Rows {
		for _, v := range row {
			x = append(x, float32(v))
		}
		y = append(y, float32(f.oracle.Prediction[i][0]))
	}
	y[len(y)-1] += off
	n := len(f.oracle.Rows)
	f.write(t, version+"/test_data_set_0/input_0.pb", tensorProto("input", []int{n, len(x) / n}, x))
	f.write(t, version+"/test_data_set_0/output_0.pb", tensorProto("prediction", []int{n}, y))
}

func TestGoldenDataGates(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	f.golden(t, "m/1", 0)
	f.model(t, "m/2")
	f.golden(t, "m/2", 0.1)
	f.model(t, "m/3")
	f.golden(t, "m/3", 0)
	f.write(t, "m/3/test_data_set_0/output_0.pb", "\x08\x80garbage")
	r := f.open(t, time.Hour)
	if s := state(r, "m", "1"); s.State != "READY" {
		t.Errorf("the good version: %+v", s)
	}
	for _, v := range []string{"2", "3"} {
		if s := state(r, "m", v); s.State != "UNAVAILABLE" || !strings.Contains(s.Reason, "golden data does not reproduce") || !strings.Contains(s.Reason, "test_data_set_0") {
			t.Errorf("version %s: %+v", v, s)
		}
	}
	v, err := r.Find("m", "")
	if err != nil || v.Version != "1" {
		t.Fatalf("the model answers with %v, %v", v, err)
	}
	f.answers(t, v)
	// An output may repeat a private input: where the value is, not what it is.
	f.model(t, "m/4")
	f.golden(t, "m/4", 0.1)
	f.write(t, "m/4/model.yaml", "features: [{name: "+v.Info.Features[0].Name+", private: drop}]\n")
	if err := r.Load(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if s := state(r, "m", "4"); s.State != "UNAVAILABLE" || !strings.Contains(s.Reason, "is not what is expected") {
		t.Errorf("with a private feature: %+v", s)
	}
}

func TestPathsOutsideAreRefused(t *testing.T) {
	f := newFixture(t)
	for i, text := range []string{"reference: ../secret.csv\n", "background: /etc/passwd\n", "reference: sub/../../x.csv\n"} {
		version := "m/" + string(rune('1'+i))
		f.model(t, version)
		f.write(t, version+"/model.yaml", text)
	}
	r := f.open(t, time.Hour)
	for _, v := range []string{"1", "2", "3"} {
		if s := state(r, "m", v); s.State != "UNAVAILABLE" || !strings.Contains(s.Reason, "outside the version's folder") {
			t.Errorf("version %s: %+v", v, s)
		}
	}
}

// TestDigest holds what a digest depends on: every file that decides what a
// version answers or how it is explained, and nothing else.
func TestDigest(t *testing.T) {
	digest := func(change func(f *fixture)) string {
		f := newFixture(t)
		f.model(t, "m/1")
		f.write(t, "m/1/model.yaml", "task: binary\nreference: rows.csv\n")
		f.put(t, filepath.Join(xgboostData, "base_binary_logistic.rows.csv"), "m/1/rows.csv")
		f.rows(t, "m/1/rows.csv", 0)
		if change != nil {
			change(f)
		}
		v, err := f.open(t, time.Hour).Find("m", "1")
		if err != nil {
			t.Fatal(err)
		}
		return v.Digest
	}
	base := digest(nil)
	if !digestRule.MatchString(base) || digest(nil) != base {
		t.Errorf("digest %q is not the same in another folder", base)
	}
	for what, change := range map[string]func(f *fixture){
		"the reference":   func(f *fixture) { f.rows(t, "m/1/rows.csv", 1) },
		"golden data":     func(f *fixture) { f.golden(t, "m/1", 0) },
		"a hidden file":   func(f *fixture) { f.write(t, "m/1/.DS_Store", "x") },
		"another version": func(f *fixture) { f.model(t, "m/2") },
	} {
		if got := digest(change); got != base {
			t.Errorf("%s changes the digest", what)
		}
	}
	for what, change := range map[string]func(f *fixture){
		"model.yaml":   func(f *fixture) { f.write(t, "m/1/model.yaml", "task: binary\nreference: rows.csv\nkeep_rows: true\n") },
		"another file": func(f *fixture) { f.write(t, "m/1/weights.bin", "x") },
		"the model": func(f *fixture) {
			f.put(t, filepath.Join(xgboostData, "objective_reg_squarederror.json"), "m/1/model.json")
			f.write(t, "m/1/model.yaml", "reference: rows.csv\n")
		},
	} {
		if got := digest(change); got == base {
			t.Errorf("%s does not change the digest", what)
		}
	}
}

// rows writes the case's rows as a CSV file with a header, the first value moved
// by off.
func (f *fixture) rows(t *testing.T, to string, off float64) {
	t.Helper()
	data, err := os.ReadFile(strings.TrimSuffix(f.oracle.Model, ".json") + ".rows.csv")
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(f.oracle.Rows[0]))
	for i := range names {
		names[i] = "f" + string(rune('0'+i))
	}
	first := ""
	if off != 0 {
		first = strings.Repeat("0.5,", len(names)-1) + "0.5\n"
	}
	f.write(t, to, strings.Join(names, ",")+"\n"+first+string(data))
}

func TestReferenceIsKeptByTheRowsItWasMadeOf(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	f.write(t, "m/1/model.yaml", "reference: rows.csv\n")
	f.rows(t, "m/1/rows.csv", 0)
	find := func() *collector.ModelVersion {
		v, err := f.open(t, time.Hour).Find("m", "")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	first := find()
	ref := first.Reference()
	if ref == nil || ref.Rows != len(f.oracle.Rows) || ref.Provisional || len(ref.Fields) != len(f.oracle.Rows[0])+1 {
		t.Fatalf("reference %+v", ref)
	}
	if again := find().Reference(); again == nil || again.ID != ref.ID || again.Rows != ref.Rows {
		t.Errorf("after a restart: %+v", again)
	}
	f.rows(t, "m/1/rows.csv", 1)
	other := find()
	if other.Digest != first.Digest || other.Reference().Rows != ref.Rows+1 {
		t.Errorf("other rows: digest %s, %d rows", other.Digest, other.Reference().Rows)
	}
}

// TestStoreSurvivesTheFolder: what has answered once can be explained for ever.
func TestStoreSurvivesTheFolder(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	f.rows(t, "m/1/rows.csv", 0)
	f.write(t, "m/1/model.yaml", "task: binary\nclasses: [no, yes]\nbackground: rows.csv\n")
	f.write(t, "m/1/version.json", "a file of its own\n")
	f.write(t, "m/1/.hidden", "left out of the digest\n")
	f.write(t, "m/1/a file of notes.md", "with spaces in its name\n")
	f.put(t, f.oracle.Model, "bare.json")
	first := f.open(t, time.Hour)
	v, err := first.Find("m", "")
	if err != nil {
		t.Fatal(err)
	}
	bare, err := first.Find("bare", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"m", "bare.json"} {
		if err := os.RemoveAll(filepath.Join(f.dir, gone)); err != nil {
			t.Fatal(err)
		}
	}
	r := f.open(t, time.Hour)
	if len(r.Live()) != 0 {
		t.Fatalf("live after removal: %d", len(r.Live()))
	}
	for _, want := range []*collector.ModelVersion{v, bare} {
		got, err := r.ByDigest(want.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != want.Name || got.Version != want.Version || got.Digest != want.Digest || got.Schema.ID != want.Schema.ID || got.Info.Task != want.Info.Task {
			t.Errorf("got %s %s %s, want %s %s %s", got.Name, got.Version, got.Digest, want.Name, want.Version, want.Digest)
		}
		f.answers(t, got)
		_, wantRows, wantOK := want.Background()
		if _, rows, ok := got.Background(); ok != wantOK || rows != wantRows {
			t.Errorf("%s: background %q %t, want %q %t", got.Name, rows, ok, wantRows, wantOK)
		}
	}
	for _, digest := range []string{strings.Repeat("0", 64), "../../etc", ""} {
		if _, err := r.ByDigest(digest); !errors.Is(err, collector.ErrNotFound) {
			t.Errorf("digest %q: %v", digest, err)
		}
	}
}

func TestTamperedStoreIsRefused(t *testing.T) {
	for name, tamper := range map[string]func(dir string) error{
		"a changed model": func(dir string) error {
			path := filepath.Join(dir, "model.json")
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data[len(data)/2] ^= 1
			return os.WriteFile(path, data, 0o600)
		},
		"a missing model": func(dir string) error { return os.Remove(filepath.Join(dir, "model.json")) },
		"a changed manifest": func(dir string) error {
			model := filepath.Join(dir, "model.json")
			other, err := os.ReadFile(filepath.Join(xgboostData, "objective_binary_logistic.json"))
			if err != nil {
				return err
			}
			if err := os.WriteFile(model, other, 0o600); err != nil {
				return err
			}
			old, err := os.ReadFile(filepath.Join(dir, versionFile))
			if err != nil {
				return err
			}
			sum, err := fileDigest(model)
			if err != nil {
				return err
			}
			i := strings.Index(string(old), "model.json ") + len("model.json ")
			return os.WriteFile(filepath.Join(dir, versionFile), []byte(string(old[:i])+sum+string(old[i+64:])), 0o600)
		},
		"a file put beside": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "model.yaml"), []byte("classes: [late, on_time]\n"), 0o600)
		},
		"a path outside": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, versionFile), []byte(`{"name":"m","version":"1","file":"../../model.json","manifest":["../x y"]}`), 0o600)
		},
	} {
		f := newFixture(t)
		f.model(t, "m/1")
		v, err := f.open(t, time.Hour).Find("m", "")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(f.dir, "m")); err != nil {
			t.Fatal(err)
		}
		if err := tamper(filepath.Join(f.store, v.Digest)); err != nil {
			t.Fatal(err)
		}
		if got, err := f.open(t, time.Hour).ByDigest(v.Digest); err == nil {
			t.Errorf("%s: %s %s was read all the same", name, got.Name, got.Version)
		}
	}
}

// until waits for what a poll brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

func TestWatch(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	r := f.open(t, 10*time.Millisecond)
	version := func() string {
		v, err := r.Find("m", "")
		if err != nil {
			return ""
		}
		return v.Version
	}
	if version() != "1" {
		t.Fatal("version 1 does not answer")
	}
	f.model(t, "m/2")
	until(t, "a new version answers", func() bool { return version() == "2" })
	f.write(t, "m/3/model.json", "{ not JSON")
	until(t, "a bad version is listed", func() bool { return state(r, "m", "3").State == "UNAVAILABLE" })
	if version() != "2" {
		t.Errorf("after a bad version, %s answers", version())
	}
	// A version that goes bad in place leaves what it was answering.
	old, err := r.Find("m", "2")
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "m/2/model.json", "{ not JSON either")
	until(t, "the reason is told", func() bool { return state(r, "m", "2").Reason != "" })
	now, err := r.Find("m", "2")
	if err != nil || now != old {
		t.Errorf("a version that went bad: %v, %v", now, err)
	}
	f.answers(t, now)
	f.model(t, "m/3")
	until(t, "a repaired version answers", func() bool { return version() == "3" })
	if err := os.RemoveAll(filepath.Join(f.dir, "m")); err != nil {
		t.Fatal(err)
	}
	until(t, "a removed model is gone", func() bool { _, err := r.Find("m", ""); return errors.Is(err, collector.ErrNotFound) })
	if _, err := r.ByDigest(old.Digest); err != nil {
		t.Errorf("a removed version cannot be explained: %v", err)
	}
}

func TestUnloadAndLoad(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	r := f.open(t, 10*time.Millisecond)
	v, err := r.Find("m", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Unload(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Find("m", ""); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("after unload: %v", err)
	}
	if s := state(r, "m", "1"); s.State != "UNAVAILABLE" || s.Reason != "unloaded" || len(r.Live()) != 0 {
		t.Errorf("after unload: %+v, %d live", s, len(r.Live()))
	}
	f.answers(t, v) // a request under way finishes
	if _, err := r.ByDigest(v.Digest); err != nil {
		t.Error(err)
	}
	f.model(t, "m/2")
	time.Sleep(50 * time.Millisecond) // some polls, which must leave it alone
	if len(r.Live()) != 0 {
		t.Error("a poll loaded what was unloaded")
	}
	if err := r.Load(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if v, err = r.Find("m", ""); err != nil || v.Version != "2" {
		t.Errorf("after load: %v, %v", v, err)
	}
	for _, err := range []error{r.Unload(t.Context(), "absent"), r.Load(t.Context(), "absent")} {
		if !errors.Is(err, collector.ErrNotFound) {
			t.Errorf("an absent model: %v", err)
		}
	}
}

func TestStoreHoldsNothingHalfWritten(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	f.open(t, time.Hour)
	err := filepath.WalkDir(f.store, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), ".new-") {
			t.Errorf("%s was left", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
