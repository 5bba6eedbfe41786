package repository

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// TestWhatWasReadOnAFullDiskOutlivesTheProcess: a model.yaml that was read while nothing could be
// written, and was deleted then, is in force after a start, be there room again or not.
func TestWhatWasReadOnAFullDiskOutlivesTheProcess(t *testing.T) {
	f := newFixture(t)
	private := filepath.Join(t.TempDir(), "models.private")
	var full atomic.Bool
	open := func() *Repository {
		t.Helper()
		r, err := Open(t.Context(), Config{
			Dir: f.dir, Store: f.store, Private: private, Poll: 10 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
			Ours: func() error {
				if full.Load() {
					return syscall.ENOSPC
				}
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		return r
	}
	info := &engine.Info{
		Features: []engine.Feature{{Name: "age"}, {Name: "income"}}, Inputs: []engine.Spec{{Name: "age", DType: engine.Float32, Shape: []int{-1}}, {Name: "income", DType: engine.Float32, Shape: []int{-1}}},
		Outputs: []engine.Spec{{Name: "score", DType: engine.Float64, Shape: []int{-1}}},
	}
	imports := func(r *Repository) (*collector.ModelVersion, error) {
		return r.External("made", "1", func() (*engine.Info, error) { return info, nil })
	}
	f.model(t, "m/1")
	r := open()
	served, err := r.Find("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := imports(r); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	f.write(t, "m/1/model.yaml", "features: [{name: "+served.Info.Features[0].Name+", private: drop}]\n")
	f.write(t, "made/1/model.yaml", "features: [{name: income, private: drop}]\n")
	within(t, "both are looked at", func() bool { return state(r, "m", "1").Reason != "" && state(r, "made", "1").Reason != "" })
	if err := errors.Join(os.Remove(filepath.Join(f.dir, "m/1/model.yaml")), os.RemoveAll(filepath.Join(f.dir, "made"))); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if data, err := os.ReadFile(private); err == nil && strings.Contains(string(data), "income") {
		t.Fatalf("it was kept, so this shows nothing: %s", data)
	}
	hides := func(when string, r *Repository) {
		t.Helper()
		within(t, when, func() bool {
			m, e1 := r.Find("m", "1")
			made, e2 := imports(r)
			if e1 == nil && len(privateOf(m)) == 0 || e2 == nil && len(privateOf(made)) == 0 {
				t.Fatalf("%s: it is open: %v, %v", when, privateOf(m), privateOf(made))
			}
			return errors.Join(e1, e2) == nil
		})
		if !r.Private() {
			t.Errorf("%s: nothing is private", when)
		}
	}
	r = open() // still full, and ended so
	if v, err := r.Find("m", "1"); err == nil && len(privateOf(v)) == 0 {
		t.Error("the start on the full disk opens it")
	}
	r.Close()
	r = open() // once more, and then there is room
	full.Store(false)
	hides("after room came", r)
	within(t, "it is kept", func() bool {
		kept, err := readSaid(private)
		spare, err2 := readSpare(private + ".spare")
		return errors.Join(err, err2) == nil && len(kept["m"]["1"].Features) == 1 && len(kept["made"]["1"].Features) == 1 && spare == nil
	})
	r.Close()
	r = open()
	hides("after one more start", r)
}

// TestSpare: of a file that is written by turns a write that is cut anywhere leaves what was there
// before, and what is damaged is told.
func TestSpare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spare")
	said := func(n int) allSaid {
		s := allSaid{}
		for i := range n {
			s.add("m"+strconv.Itoa(i), "1", keptSaid{Features: []collector.FeatureConfig{{Name: "f", Private: collector.PrivacyDrop}}})
		}
		return s
	}
	if s, err := readSpare(path); s != nil || err != nil {
		t.Fatalf("where there is none: %v, %v", s, err)
	}
	if err := writeSpare(path, said(1)); err == nil {
		t.Error("it is made by a write, which a full disk would refuse")
	}
	if err := makeSpare(path); err != nil {
		t.Fatal(err)
	}
	if s, err := readSpare(path); s != nil || err != nil {
		t.Fatalf("an empty one: %v, %v", s, err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var was allSaid
	for turn := range 40 {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		now := said(1 + random.IntN(300))
		if err := writeSpare(path, now); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := readSpare(path); err != nil || !s.equal(now) {
			t.Fatalf("turn %d: %d models, %v, want %d", turn, len(s), err, len(now))
		}
		first := 0
		for ; before[first] == after[first]; first++ {
		}
		last := len(after) - 1
		for ; before[last] == after[last]; last-- {
		}
		for range 5 {
			cut := first + 1 + random.IntN(last-first)
			if err := os.WriteFile(path, slices.Concat(after[:cut], before[cut:]), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := readSpare(path)
			if turn == 0 && errors.Is(err, errSpareCut) {
				continue
			}
			if err != nil || !s.equal(was) {
				t.Errorf("turn %d cut at byte %d: %d models, %v, want the %d before", turn, cut, len(s), err, len(was))
			}
		}
		if err := os.WriteFile(path, after, 0o600); err != nil {
			t.Fatal(err)
		}
		was = now
	}
	if err := writeSpare(path, said(10_000)); err == nil || !strings.Contains(err.Error(), "room for") {
		t.Errorf("more than there is room for: %v", err)
	}
	if s, err := readSpare(path); err != nil || !s.equal(was) {
		t.Errorf("after that: %v", err)
	}
	if err := clearSpare(path); err != nil {
		t.Fatal(err)
	}
	if s, err := readSpare(path); s != nil || err != nil {
		t.Errorf("emptied: %v, %v", s, err)
	}
	if err := writeSpare(path, was); err != nil {
		t.Error(err)
	}
	if s, err := readSpare(path); err != nil || !s.equal(was) {
		t.Errorf("written again: %v", err)
	}
	for _, damaged := range [][]byte{nil, {1}, bytes.Repeat([]byte{0xff}, 2*spareSlot)} {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := readSpare(path); err == nil {
			text, _ := json.Marshal(s)
			t.Errorf("%d bytes of nonsense are read as %s", len(damaged), text)
		}
		if err := errors.Join(makeSpare(path), clearSpare(path)); err != nil {
			t.Error(err)
		}
		if s, err := readSpare(path); s != nil || err != nil {
			t.Errorf("made anew: %v, %v", s, err)
		}
	}
}
