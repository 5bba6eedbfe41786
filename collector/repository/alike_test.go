package repository

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// TestAlikeNamesAreHiddenAlike: what another version calls the same but for capitals, white space or
// what a dot or a slash parts from it is taken for the private feature, where that other does not
// know it as one of its own.
func TestAlikeNamesAreHiddenAlike(t *testing.T) {
	s := newSaid(t, time.Hour)
	hides := func(at string, features, want []string) {
		t.Helper()
		name, version, _ := strings.Cut(at, "/")
		told, err := s.r.Policies(name, version, features)
		if err != nil {
			t.Fatal(err)
		}
		var policies []string
		for feature, how := range told {
			if how != collector.PrivacyNone && slices.Contains(features, feature) {
				policies = append(policies, feature+" "+string(how))
			}
		}
		slices.Sort(policies)
		v, err := s.r.External(name, version, func() (*engine.Info, error) { return rowsOf(features...), nil })
		if err != nil || !slices.Equal(privateOf(v), want) || !slices.Equal(policies, want) {
			t.Errorf("%s: %q, policies %q, %v, want %q", at, privateOf(v), policies, err, want)
		}
	}
	// loans/1 has both income and Rate, and says so of what is like a private one.
	s.write(t, "loans/1/model.yaml", "features: [{name: income, private: mask}, {name: rate, private: drop}, {name: Rate, private: false}]\n")
	s.look(t)
	hides("loans/2", []string{"INCOME", "age"}, []string{"INCOME mask"})
	hides("loans/3", []string{" income\t", "age"}, []string{" income\t mask"})
	hides("loans/4", []string{"in.income", "in/Income", "age", "a.b/ INCOME "}, []string{"a.b/ INCOME  mask", "in.income mask", "in/Income mask"})
	hides("loans/5", []string{"income", "Income", "age"}, []string{"Income mask", "income mask"})
	hides("loans/6", []string{"Rate", "RATE", "age"}, []string{"RATE drop"})
	hides("loans/7", []string{"income2", "incomes", "net_income", "in-income", "gross income", "income.tax", "in.come"}, nil)
	// A model.yaml of its own is what that says, whatever others call theirs.
	s.write(t, "loans/8/model.yaml", "features: [{name: age, private: drop}]\n")
	s.look(t)
	hides("loans/8", []string{"INCOME", "age"}, []string{"age drop"})
	hides("free/1", []string{"INCOME", "age"}, nil)

	// Of a served one all columns are known.
	s.put(t, "../../engine/xgboost/testdata/categorical.json", "shop/1/model.json")
	s.write(t, "shop/1/model.yaml", "feature_names: [size, Colour, colour, shop, few]\nfeatures: [{name: colour, private: drop}]\n")
	s.look(t)
	hides("shop/2", []string{"Colour", "the.colour"}, []string{"the.colour drop"})
	s.put(t, "../../engine/xgboost/testdata/categorical.json", "shop/3/model.json")
	s.write(t, "shop/1/model.yaml", "feature_names: [size, COLOUR, form, shop, few]\nfeatures: [{name: COLOUR, private: drop}]\n")
	s.look(t)
	s.look(t)
	if v, err := s.r.Find("shop", "3"); err != nil || !slices.Equal(privateOf(v), []string{"colour drop"}) {
		t.Errorf("served: %v, %v", privateOf(v), err)
	}
}

// TestAHalfIsHiddenAlike: a request that waits for its answer has what is like a private feature of
// its version, which does not know it, under the same policy.
func TestAHalfIsHiddenAlike(t *testing.T) {
	s := newSaid(t, time.Hour)
	s.write(t, "new/1/model.yaml", "features: [{name: town, private: drop}, {name: Name, private: false}, {name: name, private: mask}]\n")
	s.look(t)
	for _, at := range []string{"made", "new"} {
		got, err := s.r.Policies(at, "1", []string{"TOWN", "Name", "x.town"})
		if err != nil || got["TOWN"] != collector.PrivacyDrop || got["x.town"] != collector.PrivacyDrop || got["town"] != collector.PrivacyDrop || got["Name"] != collector.PrivacyNone {
			t.Errorf("%s: %v, %v", at, got, err)
		}
	}
}

// TestWhatIsAlikeAndKnownIsNotAffected: versions that have both are what their model.yaml says, by
// itself, taken over, deleted, and after a start.
func TestWhatIsAlikeAndKnownIsNotAffected(t *testing.T) {
	p := newPlaced(t)
	both := []string{"name", "product.name", "Name"}
	p.write(t, "shop/1/model.yaml", "features: [{name: name, private: drop}]\n")
	p.look(t, 1)
	told, err := p.r.Policies("shop", "1", both)
	if err != nil || len(told) != 1 || told["name"] != collector.PrivacyDrop {
		t.Errorf("declared: %v, %v", told, err)
	}
	p.hides(t, "its own", "shop/1", both, "name drop")
	p.hides(t, "taken over", "shop/2", both, "name drop")
	p.hides(t, "taken over", "shop/3", append([]string{"x/name"}, both...), "name drop", "x/name drop")
	for _, gone := range []string{"shop/1/model.yaml", "shop"} {
		if err := os.RemoveAll(filepath.Join(p.dir, gone)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			p.look(t, 2)
			p.hides(t, gone, "shop/1", both, "name drop")
			p.hides(t, gone, "shop/2", both, "name drop")
			p.hides(t, gone, "shop/4"+gone[:1], both, "name drop")
			p.start(t)
		}
	}
	info := rowsOf(both...)
	v := &collector.ModelVersion{Info: info, Config: collector.ModelConfig{Features: []collector.FeatureConfig{{Name: "name", Private: collector.PrivacyDrop}}}}
	if f := hiddenBeyond(collector.ModelConfig{Features: v.Config.Features}, v); f != "" {
		t.Errorf("an upstream is shut for %q", f)
	}
	// What a folder said before anything was imported hides what is like it, for good.
	p.write(t, "early/1/model.yaml", "features: [{name: name, private: drop}]\n")
	p.look(t, 1)
	if err := os.RemoveAll(filepath.Join(p.dir, "early")); err != nil {
		t.Fatal(err)
	}
	p.look(t, 1)
	for range 2 {
		p.hides(t, "said early", "early/1", []string{"NAME", "age"}, "NAME drop")
		p.look(t, 2)
		p.start(t)
	}
}
