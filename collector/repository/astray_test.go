package repository

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// TestAFileThatIsReadForNoVersion: a model.yaml beside the folders of versions, or beside that
// of the model, is told of, and closes the model where it may hide something.
func TestAFileThatIsReadForNoVersion(t *testing.T) {
	for _, file := range []string{"m/model.yaml", "m/Model.yml", "m.yaml", "m.yml"} {
		f := newFixture(t)
		f.model(t, "m/1")
		f.write(t, "other.yaml", "features: [{name: x, private: drop}]\n") // of no model
		f.write(t, file, "features: [{name: x, description: y}]\n")
		r := f.open(t, time.Hour)
		note := ""
		for _, st := range r.Index(t.Context()) {
			if st.Name == "m" && st.State == "READY" {
				note = st.Reason
			}
		}
		if _, err := r.Find("m", ""); err != nil || !strings.Contains(note, filepath.FromSlash(file)+" is read for no version") || !strings.Contains(note, filepath.Join("m", "VERSION", "model.yaml")) || r.Private() {
			t.Errorf("%s: %v, note %q, private %t", file, err, note, r.Private())
		}
		f.write(t, file, "features: [{name: x, private: drop}]\n")
		later(r)
		if err := r.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Find("m", ""); !errors.Is(err, collector.ErrNotReady) || !strings.Contains(err.Error(), "move it to") {
			t.Errorf("%s hides something: %v", file, err)
		}
		_, err := r.External("m", "2", func() (*engine.Info, error) { return nil, errors.New("asked") })
		if !errors.Is(err, collector.ErrNotReady) {
			t.Errorf("%s hides something: imports: %v", file, err)
		}
		if err := os.Rename(filepath.Join(f.dir, file), filepath.Join(f.dir, "m", "1", "model.yaml")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			later(r)
			if err := r.refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		v, err := r.Find("m", "")
		if err == nil || !strings.Contains(err.Error(), "x") { // the fixture's model has no such feature
			t.Errorf("%s moved: %v, %v", file, v, err)
		}
	}
}
