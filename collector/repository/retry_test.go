package repository

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// withoutStore does something while the store takes nothing, as on a full disk.
func (f *fixture) withoutStore(t *testing.T, do func()) {
	t.Helper()
	away := f.store + ".away"
	if err := errors.Join(os.Rename(f.store, away), os.WriteFile(f.store, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	do()
	if err := errors.Join(os.Remove(f.store), os.Rename(away, f.store)); err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// TestWhatTheDiskRefusedIsTriedAgain: new and changed versions that came while there was
// no room are taken up when there is, without a change of their files; meanwhile nothing
// is recorded of what a changed model.yaml hides.
func TestWhatTheDiskRefusedIsTriedAgain(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	f.model(t, "plain/1")
	r := f.open(t, 10*time.Millisecond)
	served, err := r.Find("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	feature := served.Info.Features[0].Name
	info := &engine.Info{
		Features: []engine.Feature{{Name: "age"}, {Name: "income"}}, Inputs: []engine.Spec{{Name: "age", DType: engine.Float32, Shape: []int{-1}}, {Name: "income", DType: engine.Float32, Shape: []int{-1}}},
		Outputs: []engine.Spec{{Name: "score", DType: engine.Float64, Shape: []int{-1}}},
	}
	imports := func(name string) (*collector.ModelVersion, error) {
		return r.External(name, "1", func() (*engine.Info, error) { return info, nil })
	}
	if _, err := imports("made"); err != nil {
		t.Fatal(err)
	}
	f.withoutStore(t, func() {
		f.write(t, "m/1/model.yaml", "features: [{name: "+feature+", private: drop}]\n")
		f.write(t, "plain/1/model.yaml", "task: regression\n")
		f.write(t, "made/1/model.yaml", "features: [{name: income, private: drop}]\n")
		f.model(t, "new/1")
		within(t, "all is looked at", func() bool {
			return state(r, "m", "1").Reason != "" && state(r, "plain", "1").Reason != "" && state(r, "made", "1").Reason != "" && state(r, "new", "1").Reason != ""
		})
		for _, name := range []string{"m", "made", "new"} {
			if v, err := r.Find(name, ""); !errors.Is(err, collector.ErrNotReady) {
				t.Errorf("%s answers meanwhile: %v %v", name, privateOf(v), err)
			}
			if s := state(r, name, "1"); s.State == "READY" {
				t.Errorf("%s: %+v", name, s)
			}
		}
		if _, err := imports("made"); !errors.Is(err, collector.ErrNotReady) || !strings.Contains(err.Error(), "model.yaml is not in force") {
			t.Errorf("an import meanwhile: %v", err)
		}
		if _, err := r.Find("plain", "1"); err != nil {
			t.Errorf("a version whose change hides nothing answers no more: %v", err)
		}
	})
	within(t, "all is taken up", func() bool {
		m, e1 := r.Find("m", "1")
		made, e2 := imports("made")
		plain, e3 := r.Find("plain", "1")
		_, e4 := r.Find("new", "1")
		return errors.Join(e1, e2, e3, e4) == nil && len(privateOf(m)) == 1 && len(privateOf(made)) == 1 && plain.Config.Task == engine.TaskRegression
	})
	if !r.Private() {
		t.Error("nothing is private")
	}
}

// TestAnImportKnowsAFolderThatJustCame, before the next look at the models.
func TestAnImportKnowsAFolderThatJustCame(t *testing.T) {
	f := newFixture(t)
	r := f.open(t, time.Hour)
	f.write(t, "made/1/model.yaml", "features: [{name: age, private: mask}]\n")
	f.model(t, "soon/1")
	info := &engine.Info{
		Features: []engine.Feature{{Name: "age"}}, Inputs: []engine.Spec{{Name: "age", DType: engine.Float32, Shape: []int{-1}}},
		Outputs: []engine.Spec{{Name: "score", DType: engine.Float64, Shape: []int{-1}}},
	}
	for _, version := range []string{"1", "2"} { // its own model.yaml, and its neighbour's
		v, err := r.External("made", version, func() (*engine.Info, error) { return info, nil })
		if err != nil || strings.Join(privateOf(v), "") != "age mask" {
			t.Errorf("version %s: %v, %v", version, privateOf(v), err)
		}
	}
	if _, err := r.External("soon", "1", func() (*engine.Info, error) { return info, nil }); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("an import of what is about to be served: %v", err)
	}
}

// TestAnEmptyModelYAML is none that says that nothing is private: a full disk leaves one.
func TestAnEmptyModelYAML(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	plain, err := f.open(t, time.Hour).Find("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	private := "features: [{name: " + plain.Info.Features[0].Name + ", private: drop}]\n"
	f.write(t, "m/1/model.yaml", private)
	f.write(t, "made/1/model.yaml", "features: [{name: age, private: mask}]\n")
	r := f.open(t, 10*time.Millisecond)
	info := &engine.Info{
		Features: []engine.Feature{{Name: "age"}}, Inputs: []engine.Spec{{Name: "age", DType: engine.Float32, Shape: []int{-1}}},
		Outputs: []engine.Spec{{Name: "score", DType: engine.Float64, Shape: []int{-1}}},
	}
	imports := func() (*collector.ModelVersion, error) {
		return r.External("made", "1", func() (*engine.Info, error) { return info, nil })
	}
	if _, err := imports(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"m": " \n", "made": "# what is private\n---\n#"} {
		f.write(t, name+"/1/model.yaml", text)
		within(t, "it is looked at", func() bool { return strings.Contains(state(r, name, "1").Reason, "it is empty") })
	}
	if v, err := r.Find("m", "1"); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("the version that answered: %v, %v", privateOf(v), err)
	}
	if _, err := imports(); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("an import meanwhile: %v", err)
	}
	if _, err := f.open(t, time.Hour).Find("m", "1"); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("after a start: %v", err)
	}
}

// TestAModelYAMLThatMayHideMore and cannot be put in force closes its version, whatever is
// wrong with it.
func TestAModelYAMLThatMayHideMore(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	plain, err := f.open(t, time.Hour).Find("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	name := plain.Info.Features[0].Name
	r, err := Open(t.Context(), Config{Dir: f.dir, Store: f.store, Poll: 10 * time.Millisecond, Log: slog.New(slog.DiscardHandler), HashKey: func() ([]byte, error) { return nil, os.ErrNotExist }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	for i, c := range []struct {
		yaml   string
		closed bool
	}{
		{"task: no such task\n", true},
		{"features: [{name: " + name + ", private: hsh}]\n", true},
		{"task: regression # once more\n", false},
		{"features: [{name: " + name + ", private: drop\n", true},
		{"features: [{name: " + name + ", private: hash}]\n", true}, // no key
	} {
		f.write(t, "m/1/model.yaml", c.yaml)
		within(t, "it is looked at", func() bool {
			s := state(r, "m", "1")
			return c.closed == (s.State != "READY") && (s.Reason != "" || i == 2)
		})
		if v, err := r.Find("m", ""); c.closed != errors.Is(err, collector.ErrNotReady) {
			t.Errorf("%s: %v, %v", c.yaml, v, err)
		}
		if err := r.Load(t.Context(), "m"); c.closed != (err != nil) {
			t.Errorf("loaded again, %s: %v", c.yaml, err)
		}
	}
}

// TestWhatTheDiskRefusedIsNotForgotten: a model.yaml that hides more is read while there is no room,
// and goes before there is: what it said stays in force, and is kept once there is room.
func TestWhatTheDiskRefusedIsNotForgotten(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	r := f.open(t, 10*time.Millisecond)
	served, err := r.Find("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	info := &engine.Info{
		Features: []engine.Feature{{Name: "age"}, {Name: "income"}}, Inputs: []engine.Spec{{Name: "age", DType: engine.Float32, Shape: []int{-1}}, {Name: "income", DType: engine.Float32, Shape: []int{-1}}},
		Outputs: []engine.Spec{{Name: "score", DType: engine.Float64, Shape: []int{-1}}},
	}
	imports := func(r *Repository) (*collector.ModelVersion, error) {
		return r.External("made", "1", func() (*engine.Info, error) { return info, nil })
	}
	f.write(t, "made/1/model.yaml", "features: [{name: age, private: drop}]\n")
	within(t, "the first model.yaml is in force", func() bool { v, err := imports(r); return err == nil && len(privateOf(v)) == 1 })
	hidden := func(r *Repository) func() bool {
		return func() bool {
			m, e1 := r.Find("m", "1")
			made, e2 := imports(r)
			if e1 == nil && len(privateOf(m)) == 0 || e2 == nil && len(privateOf(made)) < 2 {
				t.Fatalf("in the open: %v, %v", privateOf(m), privateOf(made))
			}
			return errors.Join(e1, e2) == nil
		}
	}
	f.withoutStore(t, func() {
		f.write(t, "m/1/model.yaml", "features: [{name: "+served.Info.Features[0].Name+", private: drop}]\n")
		f.write(t, "made/1/model.yaml", "features: [{name: age, private: drop}, {name: income, private: drop}]\n")
		within(t, "all is looked at", func() bool { return state(r, "m", "1").Reason != "" && state(r, "made", "1").Reason != "" })
		if err := errors.Join(os.Remove(filepath.Join(f.dir, "m/1/model.yaml")), os.RemoveAll(filepath.Join(f.dir, "made"))); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			hidden(r)()
			time.Sleep(5 * time.Millisecond)
		}
	})
	within(t, "both answer", hidden(r))
	r.Close()
	r = f.open(t, 10*time.Millisecond)
	within(t, "both answer after a start", hidden(r))
}
