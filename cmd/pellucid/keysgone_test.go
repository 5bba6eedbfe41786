package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// checked runs the doctor over a data folder and gives its lines on keys.
func checked(t *testing.T, cfg config) (lines string) {
	t.Helper()
	var out, errs bytes.Buffer
	run(t.Context(), []string{"doctor", "--data", cfg.Data, "--models", cfg.Models, "--clickhouse", cfg.ClickHouse}, &out, &errs)
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, " keys ") || strings.Contains(line, " private key ") {
			lines += line
		}
	}
	if strings.Count(lines, "\n") != 2 {
		t.Errorf("the doctor said %s %s", out.String(), errs.String())
	}
	return lines
}

// TestKeysTakenOutOfTheDataFolder: a folder of keys that somebody takes away from a running
// server is there again, and one that has gone before a start is missed.
func TestKeysTakenOutOfTheDataFolder(t *testing.T) {
	cfg := sealedFlights(t)
	if s := checked(t, cfg); strings.Count(s, "none yet") != 2 {
		t.Errorf("before anything: %s", s)
	}
	dir, elsewhere := cfg.keysDir(), filepath.Join(t.TempDir(), "elsewhere")
	r := startRig(t, cfg)
	ask := func(r *rig) string {
		t.Helper()
		return r.post(t, "/v2/models/flights/infer", flightBody(canaryText, canaryNumber), nil).Get("Pellucid-Prediction-Id") + ".0"
	}
	first := ask(r)
	for what, take := range map[string]func() error{
		"removed": func() error { return os.RemoveAll(dir) },
		"renamed": func() error { return os.Rename(dir, elsewhere) },
	} {
		before := strings.Count(r.log.String(), "had been taken away")
		if err := take(); err != nil {
			t.Fatal(err)
		}
		ask(r)
		until(t, "the folder that was "+what+" is back", func() bool { return exists(filepath.Join(dir, "tenants.keys")) })
		until(t, "it was told", func() bool { return strings.Count(r.log.String(), "had been taken away") == before+1 })
		if s := checked(t, cfg); strings.Contains(s, "FAIL") {
			t.Errorf("%s, while it runs: %s", what, s)
		}
	}
	second := ask(r)
	r.stored(t)
	want := explained(t, r, first)
	r.halt(t)
	r = startRig(t, cfg)
	for _, id := range []string{first, second} {
		if got := explained(t, r, id); !reflect.DeepEqual(got, want) {
			t.Errorf("%s after a restart: %v", id, got)
		}
	}
	r.halt(t)

	kept := filepath.Join(t.TempDir(), "kept")
	if err := os.Rename(dir, kept); err != nil {
		t.Fatal(err)
	}
	r = startRig(t, cfg)
	if status, b, _ := r.call(t, "POST", "/v2/models/flights/infer", flightBody(canaryText, canaryNumber)); status < 400 || leaks(b) != "" {
		t.Errorf("served without the keys: %d %s", status, b)
	}
	if _, b, _ := r.call(t, "POST", "/v2/repository/index", `{}`); !strings.Contains(string(b), "put the file back from a backup") {
		t.Errorf("the index does not say what to do: %s", b)
	}
	if status, b, _ := r.call(t, "POST", "/api/v1/keys/forget", `{"subject":"500"}`); status != 503 {
		t.Errorf("forgot what is not there: %d %s", status, b)
	}
	r.halt(t)
	if exists(dir) {
		t.Error("a folder was made in its place")
	}
	if s := checked(t, cfg); !strings.Contains(s, "FAIL keys") || !strings.Contains(s, "keys.id") {
		t.Errorf("gone: %s", s)
	}
	if err := os.Rename(kept, dir); err != nil {
		t.Fatal(err)
	}
	// A file of persons' keys that is gone.
	files, err := filepath.Glob(filepath.Join(dir, "subjects-*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	whole := readFile(t, files[0])
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if s := checked(t, cfg); !strings.Contains(s, "FAIL keys") || !strings.Contains(s, filepath.Base(files[0])) {
		t.Errorf("a person's key is gone: %s", s)
	}
	if err := os.WriteFile(files[0], []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	r = startRig(t, cfg)
	if got := explained(t, r, first); !reflect.DeepEqual(got, want) {
		t.Errorf("put back: %v", got)
	}
	r.halt(t)
}
