package repository

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// placed is a served model whose columns have names, and imports of it.
type placed struct {
	*fixture
	r     *Repository
	names []string
	cfg   Config
}

func newPlaced(t *testing.T) *placed {
	t.Helper()
	p := &placed{fixture: newFixture(t)}
	p.put(t, "../../engine/xgboost/testdata/categorical.json", "plain/1/model.json")
	p.cfg = Config{Dir: p.dir, Store: p.store, Poll: time.Hour, Log: slog.New(slog.DiscardHandler)}
	p.start(t)
	v, err := p.r.Find("plain", "1")
	if err != nil {
		t.Fatal(err)
	}
	p.names = collector.FieldNames(v.Info)
	if len(p.names) < 4 || slices.IsSorted(p.names) {
		t.Fatalf("features %v: too few for this test, or in order", p.names)
	}
	return p
}

func (p *placed) start(t *testing.T) {
	t.Helper()
	if p.r != nil {
		p.r.Close()
	}
	var err error
	if p.r, err = Open(t.Context(), p.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.r.Close)
}

func (p *placed) look(t *testing.T, times int) {
	t.Helper()
	for range times {
		later(p.r)
		if err := p.r.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *placed) hides(t *testing.T, when, at string, features []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	describe := func() (*engine.Info, error) { return rowsOf(features...), nil }
	if v, err := p.r.External(filepath.Dir(at), filepath.Base(at), describe); err != nil || !slices.Equal(privateOf(v), want) {
		t.Errorf("%s: %s: %v, %v, want %v", when, at, privateOf(v), err, want)
	}
}

// all are features that are private in one way.
func all(names []string, policy string) (out []string) {
	for _, name := range names {
		out = append(out, name+" "+policy)
	}
	slices.Sort(out)
	return out
}

// TestTheStricterCountsByPlaceToo: what a version said itself, and what the server's rules hide, is
// held against what others say of the same column under another name.
func TestTheStricterCountsByPlaceToo(t *testing.T) {
	p := newPlaced(t)
	numbers := numbered("f%d", len(p.names))
	hide := func(i int, how string) string {
		return fmt.Sprintf("features: [{name: %s, private: %s}]\n", p.names[i], how)
	}
	for _, at := range []string{"own/1", "own/2", "ruled/1"} {
		p.put(t, "../../engine/xgboost/testdata/categorical.json", at+"/model.json")
	}
	p.write(t, "own/1/model.yaml", hide(1, "drop"))
	p.write(t, "own/2/model.yaml", hide(1, "mask"))
	p.write(t, "ruled/1/model.yaml", hide(1, "mask"))
	p.cfg.Rules = []collector.PrivateRule{{Pattern: "ruled." + p.names[1], Private: collector.PrivacyDrop}}
	p.start(t)
	p.hides(t, "a rule", "ruled/2", numbers, "f1 drop")
	if err := os.RemoveAll(filepath.Join(p.dir, "own/1")); err != nil {
		t.Fatal(err)
	}
	p.look(t, 2)
	p.hides(t, "what it said itself", "own/1", numbers, "f1 drop")
	// An upstream's configuration, of columns that it names.
	p.cfg.Remote = map[string]collector.ModelConfig{"far": {FeatureNames: p.names, Features: []collector.FeatureConfig{{Name: p.names[1], Private: collector.PrivacyMask}}}}
	p.start(t)
	p.hides(t, "an upstream", "far/1", numbers, "f1 mask")
	p.cfg.Remote["far"].Features[0].Private = collector.PrivacyDrop
	p.start(t)
	p.hides(t, "an upstream that hides more", "far/1", numbers, "f1 drop")
}

// TestWhatOnlyNumbersHidesByPlace: a feature that is private in rows by place is so in versions whose
// columns have names, where their order is known; where it is not any of them may be it.
func TestWhatOnlyNumbersHidesByPlace(t *testing.T) {
	p := newPlaced(t)
	numbers := numbered("f%d", len(p.names))
	mixed := slices.Clone(p.names)
	slices.Sort(mixed)
	other := append([]string{"another"}, p.names[1:]...)
	yaml := "features: [{name: f1, private: mask}]\n"
	for _, at := range []string{"told/2", "said/2"} {
		p.put(t, "../../engine/xgboost/testdata/categorical.json", at+"/model.json")
	}
	served := func(when, at string, want ...string) {
		t.Helper()
		slices.Sort(want)
		if v, err := p.r.Find(filepath.Dir(at), filepath.Base(at)); err != nil || !slices.Equal(privateOf(v), want) {
			t.Errorf("%s: %s: %v, %v, want %v", when, at, privateOf(v), err, want)
		}
	}
	p.write(t, "told/1/model.yaml", yaml)
	p.look(t, 2)
	served("how many columns those rows have is not known", "told/2", all(p.names, "drop")...)
	p.hides(t, "its own", "told/1", numbers, "f1 mask")
	p.look(t, 3)
	for again := range 2 {
		when := fmt.Sprintf("by place (%d)", again)
		served(when, "told/2", p.names[1]+" mask")
		p.hides(t, when, "told/3", mixed, p.names[1]+" mask")
		p.hides(t, when, "told/4", numbered("Column_%d", len(p.names)), "Column_1 mask")
		p.start(t)
	}
	if err := os.RemoveAll(filepath.Join(p.dir, "told/1")); err != nil {
		t.Fatal(err)
	}
	p.look(t, 2)
	served("gone", "told/2", p.names[1]+" mask")
	p.hides(t, "gone", "told/7", mixed, p.names[1]+" mask")
	p.write(t, "told/1/model.yaml", yaml)
	p.look(t, 1)
	p.hides(t, "no such columns", "told/8", other, all(other, "drop")...)
	p.hides(t, "fewer columns", "told/9", mixed[1:], all(mixed[1:], "drop")...)
	// A number among names is a name.
	p.put(t, "../../engine/xgboost/testdata/categorical.json", "named/1/model.json")
	p.write(t, "named/1/model.yaml", "feature_names: [age, f1, town, trade, shoe]\n"+yaml)
	p.look(t, 1)
	p.hides(t, "a name of a number", "named/2", []string{"age", "town", "street"})
	p.hides(t, "a name of a number", "named/3", []string{"f1", "town"}, "f1 mask")
}

// TestColumns: the order of the columns of rows that came by name is that of a served version whose
// columns have the same names, if all such agree.
func TestColumns(t *testing.T) {
	p := newPlaced(t)
	mixed := slices.Clone(p.names)
	slices.Sort(mixed)
	p.hides(t, "rows", "plain/2", mixed)
	p.hides(t, "rows", "plain/3", mixed[1:])
	p.hides(t, "rows", "plain/4", numbered("x[%d]", 12))
	p.hides(t, "rows", "alone/1", mixed)
	columns := func(at string, want []string) {
		t.Helper()
		if got := p.r.Columns(filepath.Dir(at), filepath.Base(at)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", at, got, want)
		}
	}
	for range 2 {
		columns("plain/1", p.names)
		columns("plain/2", p.names)
		columns("plain/3", nil)
		columns("plain/4", numbered("x[%d]", 12))
		columns("alone/1", nil)
		columns("nothing/1", nil)
		p.start(t)
	}
	// Another order of the same names.
	p.put(t, "../../engine/xgboost/testdata/categorical.json", "plain/5/model.json")
	turned := slices.Clone(p.names)
	slices.Reverse(turned)
	p.write(t, "plain/5/model.yaml", "feature_names: ["+strings.Join(turned, ", ")+"]\n")
	p.look(t, 1)
	columns("plain/5", turned)
	columns("plain/2", nil)
}

// TestWhatTakesOverIsLoadedOnce: the order of columns that it was loaded by is not news afterwards.
func TestWhatTakesOverIsLoadedOnce(t *testing.T) {
	p := newPlaced(t)
	for _, version := range []string{"1", "2", "3", "4"} {
		p.put(t, "../../engine/xgboost/testdata/categorical.json", "m/"+version+"/model.json")
	}
	p.write(t, "m/1/model.yaml", "features: [{name: colour, private: drop}]\n")
	times := map[string]int{}
	p.cfg.Live = func(v *collector.ModelVersion) { times[v.Name+"/"+v.Version]++ }
	p.start(t)
	p.look(t, 3)
	for at, n := range times {
		if n != 1 {
			t.Errorf("%s was loaded %d times", at, n)
		}
	}
	if len(times) != 5 {
		t.Errorf("loaded %v", times)
	}
}
