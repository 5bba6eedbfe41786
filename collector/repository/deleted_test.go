package repository

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// TestADeletedModelYAMLOpensNothing: deleting a file is no decision to publish, whatever the
// other versions say, and whether it is found by looks, a load or a start. Writing one is.
func TestADeletedModelYAMLOpensNothing(t *testing.T) {
	const more = "features: [{name: %[2]s, private: drop}]\n"
	for _, beside := range []string{"", "{}\n", "task: other\n", "features: [{name: %[1]s, private: false}]\n", more} {
		for _, how := range []string{"look", "load", "start"} {
			what := fmt.Sprintf("beside %q, by a %s", beside, how)
			s := newSaid(t, time.Hour)
			first, second := "m/1 "+s.a, "m/2 "+s.a
			if beside != "" {
				s.write(t, "m/2/model.yaml", fmt.Sprintf(beside+"# %[1]s %[2]s\n", s.a, s.b))
				second = "m/2"
			}
			if beside == more {
				first, second = "m/1 "+s.a+" "+s.b, "m/2 "+s.b
			}
			s.look(t)
			s.look(t)
			if how == "start" {
				s.r.Close()
			}
			if err := os.Remove(filepath.Join(s.dir, "m/1/model.yaml")); err != nil {
				t.Fatal(err)
			}
			switch how {
			case "load":
				if err := s.r.Load(t.Context(), "m"); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			case "start":
				s.r = s.open(t, time.Hour)
			}
			for range 3 {
				s.look(t)
				s.private(t, what, first, second)
			}
			if v, err := s.r.External("m", "7", s.served); err != nil || !slices.Contains(privateOf(v), s.a+" drop") {
				t.Errorf("%s: imported beside: %v, %v", what, privateOf(v), err)
			}
			// What others said beside it is theirs to take back, what it said is not.
			if beside != "" {
				s.write(t, "m/2/model.yaml", "{}\n")
				s.look(t)
				s.look(t)
				s.private(t, what+", the other opened", "m/1 "+s.a, "m/2")
			}
			s.write(t, "m/1/model.yaml", "{}\n")
			s.look(t)
			s.look(t)
			s.private(t, what+", opened", "m/1", "m/2", "m/7")
		}
	}
}

// TestADeletedModelYAMLThatNamedColumns: what it hid is found by its place when the columns are
// only numbered again.
func TestADeletedModelYAMLThatNamedColumns(t *testing.T) {
	s := newSaid(t, time.Hour)
	plain, err := s.r.Find("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	n := len(plain.Info.Features)
	names := "feature_names: ["
	for i := range n {
		names += fmt.Sprintf("col%c,", 'a'+i)
	}
	s.write(t, "m/1/model.yaml", names+"]\nfeatures: [{name: colb, private: mask}]\n")
	if err := s.r.Load(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	s.private(t, "named", "m/1 colb", "m/2 "+plain.Info.Features[1].Name)
	if err := os.Remove(filepath.Join(s.dir, "m/1/model.yaml")); err != nil {
		t.Fatal(err)
	}
	s.look(t)
	if v, err := s.r.Find("m", "1"); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("its names are others, found once: %v, %v", privateOf(v), err)
	}
	for range 3 {
		s.look(t)
		s.private(t, "deleted", "m/1 "+plain.Info.Features[1].Name, "m/2 "+plain.Info.Features[1].Name)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "m/1")); err != nil {
		t.Fatal(err)
	}
	s.look(t)
	s.private(t, "its folder too", "m/2 "+plain.Info.Features[1].Name)
	if v, err := s.r.Find("m", "1"); !errors.Is(err, collector.ErrNotFound) {
		t.Errorf("%v, %v", privateOf(v), err)
	}
}
