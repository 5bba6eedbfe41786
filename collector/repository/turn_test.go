package repository

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// TestAVersionThatWaitsIsWaitedFor: one served whose model.yaml a start is to find twice is what
// requests without a version are for, not an imported one beside it.
func TestAVersionThatWaitsIsWaitedFor(t *testing.T) {
	s := newSaid(t, time.Hour)
	if _, err := s.r.External("m", "7", s.served); err != nil {
		t.Fatal(err)
	}
	s.r.Close()
	s.write(t, "m/1/model.yaml", "{}\n")
	s.r = s.open(t, time.Hour)
	for range 2 {
		if v, err := s.r.Find("m", ""); !errors.Is(err, collector.ErrNotReady) || !strings.Contains(err.Error(), "next look") {
			t.Errorf("found once: %v, %v", v, err)
		}
		if v, err := s.r.External("m", "", s.served); !errors.Is(err, collector.ErrNotReady) {
			t.Errorf("found once, imported: %v, %v", v, err)
		}
	}
	if v, err := s.r.Find("m", "7"); err != nil || v.Model != nil {
		t.Errorf("the imported one: %v, %v", v, err)
	}
	s.look(t)
	if v, err := s.r.Find("m", ""); err != nil || v.Version != "2" {
		t.Errorf("found twice: %v, %v", v, err)
	}
}
