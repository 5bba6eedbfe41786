package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDamagedKeysOfPersons: where files of persons' keys are damaged the doctor says which,
// and their rows are refused for a time with the reason.
func TestDamagedKeysOfPersons(t *testing.T) {
	cfg := sealedFlights(t)
	r := startRig(t, cfg)
	ids := personsAsked(t, r, 0, 7)
	r.stored(t)
	r.halt(t)
	dir := cfg.keysDir()
	whole := copyOf(t, dir)
	names, err := filepath.Glob(filepath.Join(dir, "subjects-*.keys"))
	if err != nil || len(names) < 2 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		b := []byte(readFile(t, name))
		b[len(b)/2] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damaged := copyOf(t, dir)
	if s := checked(t, cfg); !strings.Contains(s, "FAIL keys") || !strings.Contains(s, filepath.Base(names[0])) || !strings.Contains(s, "damaged") {
		t.Errorf("stopped: %s", s)
	}
	r = startRig(t, cfg)
	for i := range 7 {
		status, b, h := r.call(t, "POST", "/v2/models/flights/infer", personBody(i))
		var said struct{ Error string }
		if err := json.Unmarshal(b, &said); err != nil {
			t.Fatal(err)
		}
		if status != 503 || h.Get("Retry-After") == "" || leaks(b) != "" || !strings.Contains(said.Error, "keys of sealed fields") || !strings.Contains(said.Error, "damaged") {
			t.Errorf("person %d: %d %q", i, status, said.Error)
		}
	}
	if s := checked(t, cfg); !strings.Contains(s, "FAIL keys") || !strings.Contains(s, "damaged") {
		t.Errorf("while it runs: %s", s)
	}
	r.halt(t)
	for _, name := range names { // nothing was made anew
		if readFile(t, name) != readFile(t, filepath.Join(damaged, filepath.Base(name))) {
			t.Errorf("%s was changed", filepath.Base(name))
		}
		if err := os.WriteFile(name, []byte(readFile(t, filepath.Join(whole, filepath.Base(name)))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s := checked(t, cfg); strings.Contains(s, "FAIL") {
		t.Errorf("put back: %s", s)
	}
	r = startRig(t, cfg)
	personsAsked(t, r, 0, 7)
	for _, id := range ids {
		if got := unsealedTemp(t, r, id); got != fmt.Sprint(float32(canaryNumber)) {
			t.Errorf("%s put back: %s", id, got)
		}
	}
}
