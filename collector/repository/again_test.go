package repository

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// TestLooksThatFollowEachOtherAtOnce find half a file twice: what hides less is taken up when it
// is the same a look's interval after it was found, and was not written meanwhile.
func TestLooksThatFollowEachOtherAtOnce(t *testing.T) {
	s := newSaid(t, time.Hour)
	s.look(t)
	at := func() {
		t.Helper()
		if err := s.r.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	all := func(when string, m, made string) {
		t.Helper()
		s.private(t, when, "m/1 "+m, "m/2 "+m, "made/1 "+made, "made/2 "+made)
	}
	if _, err := s.imports("made", "2"); err != nil {
		t.Fatal(err)
	}
	yaml := []string{"m/1/model.yaml", "made/1/model.yaml"}
	for _, file := range yaml {
		s.write(t, file, "{}\n")
	}
	for range 3 {
		at()
		all("at once", s.a, "town")
	}
	later(s.r)
	for _, file := range yaml { // again, with the same text
		s.write(t, file, "{}\n")
		when := time.Now().Add(time.Second)
		if err := os.Chtimes(filepath.Join(s.dir, file), when, when); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		at()
		all("written again", s.a, "town")
	}
	later(s.r)
	at()
	at() // what follows another is after it
	all("an interval later", "", "")

	// One that hides more of one and less of another is closed for as long.
	s.hide(t, s.a, "town")
	at()
	s.hide(t, s.b, "name")
	for range 3 {
		at()
		for _, of := range [][2]string{{"m", "1"}, {"m", "2"}, {"made", "1"}, {"made", "2"}} {
			if v, err := s.r.Find(of[0], of[1]); !errors.Is(err, collector.ErrNotReady) {
				t.Errorf("other fields: %v answers: %v, %v", of, privateOf(v), err)
			}
		}
	}
	s.look(t)
	at()
	all("other fields an interval later", s.b, "name")
}
