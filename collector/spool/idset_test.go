package spool

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
)

func TestIDSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s idSet
	if s.has(1) || s.add(0) {
		t.Fatal("an empty set has something")
	}
	hashes := map[uint64]bool{}
	for range 100_000 {
		h := rng.Uint64() | 1
		hashes[h] = true
		s.add(h)
	}
	for h := range hashes {
		if !s.has(h) {
			t.Fatalf("%x is not in the set", h)
		}
	}
	wrong := 0
	for range 100_000 {
		if h := rng.Uint64() | 1; s.has(h) && !hashes[h] {
			wrong++
		}
	}
	if wrong > 30 || s.n < 99_990 {
		t.Fatalf("%d of 100,000 others are in it, %d counted", wrong, s.n)
	}
}

// TestSegmentsOfAnEarlierProcessAreReadOnce: whoever looks for an id after a restart need not
// read all that waits each time.
func TestSegmentsOfAnEarlierProcessAreReadOnce(t *testing.T) {
	disk, cfg := newDisk(1), smallConfig(LevelProcess)
	s, err := open(cfg, disk)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 400 {
		if err := s.Append(t.Context(), prediction(fmt.Sprintf("p%d", i), 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	disk = disk.After(false)
	if s, err = open(cfg, disk); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats().Segments; n < 4 {
		t.Fatalf("only %d segments", n)
	}
	var reads atomic.Int64
	disk.Fail = func(op, name string) error {
		if op == "read" && strings.HasSuffix(name, segmentSuffix) {
			reads.Add(1)
		}
		return nil
	}
	look := func(id string, want int) {
		t.Helper()
		if got, err := s.Find(id); err != nil || len(got) != want {
			t.Fatalf("%s: %d records, %v", id, len(got), err)
		}
	}
	look("absent", 0)
	first := reads.Load()
	for i := range 100 {
		look(fmt.Sprintf("absent-%d", i), 0)
	}
	if n := reads.Load(); first == 0 || n != first {
		t.Fatalf("%d reads for the first id, %d for 100 more", first, n-first)
	}
	for i := range 400 {
		look(fmt.Sprintf("p%d", i), 1)
	}
	if n := reads.Load() - first; n > 3*400 {
		t.Fatalf("%d reads for 400 ids", n)
	}
	if err := newWorld(t).drain(s); err != nil {
		t.Fatal(err)
	}
	if s.known != 0 && len(s.segments) == 0 || s.known < 0 {
		t.Fatalf("%d ids known of %d segments", s.known, len(s.segments))
	}
}
