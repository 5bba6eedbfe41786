package repository

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// TestContentIsAFeatureWhereItIsNamed: of what was said to a generative model, what the
// version's own model.yaml names, or those beside it, or a rule; also when that comes later,
// and no longer when it goes.
func TestContentIsAFeatureWhereItIsNamed(t *testing.T) {
	const prompt, said = "gen_ai.prompt", "gen_ai.input.messages"
	f := newFixture(t)
	info := &engine.Info{Format: collector.GenerativeFormat, Task: engine.TaskOther, Missing: true, Outputs: saidInfo.Outputs}
	for _, name := range []string{"provider", "top_p"} {
		info.Features = append(info.Features, engine.Feature{Name: name})
		info.Inputs = append(info.Inputs, engine.Spec{Name: name, DType: engine.String, Shape: []int{-1}})
	}
	open := func() *Repository {
		t.Helper()
		r, err := Open(t.Context(), Config{
			Dir: f.dir, Store: f.store, Poll: time.Hour, Log: slog.New(slog.DiscardHandler), Rules: []collector.PrivateRule{{Pattern: "ruled.gen_ai.*", Private: collector.PrivacyMask}},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		return r
	}
	r := open()
	holds := func(when, name, version, want string) {
		t.Helper()
		v, err := r.External(name, version, func() (*engine.Info, error) { return info, nil })
		if err != nil {
			t.Fatalf("%s: version %s of %s: %v", when, version, name, err)
		}
		var got []string
		for _, field := range v.Schema.Features[2:] {
			got = append(got, field.Name+" "+string(field.Private))
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s: version %s of %s has %v, want %s", when, version, name, got, want)
		}
	}
	look := func() {
		t.Helper()
		for range 2 { // what hides less is found twice
			later(r)
			if err := r.refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	holds("nothing says so", "chat", "2", "[]")
	f.write(t, "chat/1/model.yaml", "features: [{name: "+prompt+", private: mask}, {name: "+said+"}]\n")
	look()
	for _, when := range []string{"said later", "after a restart"} {
		holds(when, "chat", "1", "["+prompt+" mask "+said+" ]")
		holds(when, "chat", "2", "["+prompt+" mask]")
		holds(when, "chat", "3", "["+prompt+" mask]")
		holds(when, "ruled", "1", "[gen_ai.system_instructions mask "+said+" mask gen_ai.output.messages mask "+prompt+" mask gen_ai.completion mask]")
		holds(when, "free", "1", "[]")
		r.Close()
		r = open()
	}
	f.write(t, "chat/1/model.yaml", "features: [{name: provider, private: mask}]\n")
	look()
	holds("no longer named", "chat", "1", "[]")
	f.write(t, "chat/1/model.yaml", "features: [{name: "+said+", private: drop}]\n")
	look()
	holds("named again", "chat", "1", "["+said+" drop]")
	holds("named again", "chat", "4", "["+said+" drop]")
	if err := os.RemoveAll(filepath.Join(f.dir, "chat")); err != nil {
		t.Fatal(err)
	}
	look()
	holds("its folder is gone", "chat", "1", "["+said+" drop]")
	holds("its folder is gone", "chat", "5", "["+said+" drop]")
}
