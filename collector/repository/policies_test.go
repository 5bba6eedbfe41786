package repository

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// TestPolicies are those by which External would record a row, and fail where it would.
func TestPolicies(t *testing.T) {
	f := newFixture(t)
	f.write(t, "made/1/model.yaml", "features: [{name: town, private: drop}]\n")
	f.write(t, "up/7/model.yaml", "{}\n") // what lies under an upstream's name does not count
	var lost error
	r, err := Open(t.Context(), Config{
		Dir: f.dir, Store: f.store, Poll: time.Hour, Log: slog.New(slog.DiscardHandler),
		Remote:  map[string]collector.ModelConfig{"up": {Features: []collector.FeatureConfig{{Name: "town", Private: collector.PrivacyDrop}}}},
		Rules:   []collector.PrivateRule{{Pattern: "ruled.*", Private: collector.PrivacyHash}},
		HashKey: func() ([]byte, error) { return []byte("a key of sixteen or more bytes"), lost },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	check := func(when string, want map[string]string) {
		t.Helper()
		for _, at := range slices.Sorted(maps.Keys(want)) {
			name, version := filepath.Split(at)
			name = filepath.Clean(name)
			got, err := r.Policies(name, version, []string{"town", "name"})
			said := fmt.Sprint(got)
			if errors.Is(err, collector.ErrNotReady) {
				said = "closed"
			} else if err != nil {
				said = err.Error()
			}
			if said != want[at] {
				t.Errorf("%s: %s: %s, want %s", when, at, said, want[at])
			}
			v, err := r.External(name, version, func() (*engine.Info, error) { return saidInfo, nil })
			if (err == nil) == (want[at] == "closed") || err == nil && fmt.Sprint(v.Config.Policies()) != want[at] {
				t.Errorf("%s: %s is recorded by %+v, %v, want %s", when, at, v, err, want[at])
			}
		}
	}
	// A version of each is known after it was asked for once.
	check("at first", map[string]string{"made/1": "map[town:drop]", "made/2": "map[town:drop]", "free/1": "map[]", "up/7": "map[town:drop]", "up/8": "map[town:drop]", "ruled/1": "map[name:hash town:hash]"})
	f.write(t, "made/1/model.yaml", "features: [{name: tow")
	f.write(t, "fresh/1/model.yaml", "features: [{name: tow")
	later(r)
	if err := r.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("half a file", map[string]string{"made/1": "closed", "made/2": "closed", "made/3": "closed", "fresh/1": "closed", "fresh/2": "closed", "free/2": "map[]"})
	lost = errors.New("no key today")
	check("without a key", map[string]string{"ruled/2": "closed", "free/3": "map[]"})
	if _, err := r.Policies("../m", "1", nil); !errors.Is(err, collector.ErrRefused) {
		t.Errorf("a name that is none: %v", err)
	}
}
