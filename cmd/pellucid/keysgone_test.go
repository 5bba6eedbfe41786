package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
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

// personBody is a request about one of many persons.
func personBody(i int) string {
	return strings.Replace(flightBody(canaryText, canaryNumber), strings.TrimSuffix(column("distance", 500), ","), strings.TrimSuffix(column("distance", float64(1000+i)), ","), 1)
}

// personsAsked asks about persons, and gives the predictions' ids.
func personsAsked(t *testing.T, r *rig, from, to int) (ids []string) {
	t.Helper()
	for i := from; i < to; i++ {
		ids = append(ids, r.post(t, "/v2/models/flights/infer", personBody(i), nil).Get("Pellucid-Prediction-Id")+".0")
	}
	return ids
}

// unsealedTemp is what is shown of a sealed feature to who may see it.
func unsealedTemp(t *testing.T, r *rig, id string) string {
	t.Helper()
	var p collector.StoredPrediction
	r.get(t, "/api/v1/predictions/"+id+"?unseal=true", &p)
	return fmt.Sprint(p.Features["temp"])
}

// copyOf copies a folder to another place.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// putInPlace has a copy of a folder take its place.
func putInPlace(t *testing.T, from, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// TestAnOlderFolderOfKeys: a copy of the folder of keys that is older than the one that was
// there is refused, with what to do, and left as it is, but where the mark is of its time.
func TestAnOlderFolderOfKeys(t *testing.T) {
	cfg := sealedFlights(t)
	dir, mark := cfg.keysDir(), cfg.keysMark()
	r := startRig(t, cfg)
	ids := personsAsked(t, r, 0, 7)
	older := copyOf(t, dir) // as an operator copies it, while it is in use
	r.halt(t)
	backup, backupMark := copyOf(t, dir), readFile(t, mark)
	r = startRig(t, cfg)
	ids = append(ids, personsAsked(t, r, 7, 21)...)
	r.post(t, "/api/v1/keys/rotate", `{}`, nil)
	r.stored(t)
	r.halt(t)
	file := filepath.Join(t.TempDir(), "pellucid.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "data: %s\nmodels: %s\ncapture: {key: {file: %s}}\n", cfg.Data, cfg.Models, cfg.Capture.Key.File), 0o600); err != nil {
		t.Fatal(err)
	}
	command := func(name string) (int, string) {
		t.Helper()
		var out, errs bytes.Buffer
		return run(t.Context(), []string{"keys", name, "--config", file}, &out, &errs), out.String() + errs.String()
	}
	if status, s := command("rotate"); status != 0 {
		t.Fatal(s)
	}
	newer, newerMark := copyOf(t, dir), readFile(t, mark)

	for _, from := range []string{older, backup} {
		putInPlace(t, from, dir)
		r = startRig(t, cfg)
		for i := range 21 {
			if status, b, _ := r.call(t, "POST", "/v2/models/flights/infer", personBody(i)); status != 503 || leaks(b) != "" {
				t.Fatalf("person %d: %d %s", i, status, b)
			}
		}
		if _, b, _ := r.call(t, "POST", "/v2/repository/index", `{}`); !strings.Contains(string(b), "older copy") || !strings.Contains(string(b), "put the newer one back") || !strings.Contains(string(b), "keys.id") {
			t.Errorf("the index does not say what to do: %s", b)
		}
		if status, b, _ := r.call(t, "POST", "/api/v1/keys/forget", `{"subject":"1000"}`); status != 503 {
			t.Errorf("forgot in an older copy: %d %s", status, b)
		}
		if s := checked(t, cfg); !strings.Contains(s, "FAIL keys") || !strings.Contains(s, "older copy") {
			t.Errorf("while it runs: %s", s)
		}
		r.halt(t)
		if s := checked(t, cfg); !strings.Contains(s, "FAIL keys") || !strings.Contains(s, "older copy") {
			t.Errorf("stopped: %s", s)
		}
		if status, s := command("list"); status == 0 || !strings.Contains(s, "older copy") {
			t.Errorf("listed: %d %s", status, s)
		}
		if err := sameFiles(from, dir); err != nil {
			t.Error(err)
		}
	}

	putInPlace(t, newer, dir)
	if s := checked(t, cfg); strings.Contains(s, "FAIL") || !strings.Contains(s, "21 subjects") {
		t.Errorf("the newer one back: %s", s)
	}
	r = startRig(t, cfg)
	for _, id := range ids {
		if got := unsealedTemp(t, r, id); got != fmt.Sprint(float32(canaryNumber)) {
			t.Errorf("%s with the newer one back: %s", id, got)
		}
	}
	personsAsked(t, r, 0, 21)
	r.halt(t)

	// All of a backup: the folder and what lies beside it.
	putInPlace(t, backup, dir)
	if err := os.WriteFile(mark, []byte(backupMark), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := checked(t, cfg); strings.Contains(s, "FAIL") || !strings.Contains(s, "7 subjects") {
		t.Errorf("a backup: %s", s)
	}
	r = startRig(t, cfg)
	personsAsked(t, r, 0, 7)
	if got := unsealedTemp(t, r, ids[3]); got != fmt.Sprint(float32(canaryNumber)) {
		t.Errorf("from a backup: %s", got)
	}
	r.halt(t)

	// To go on with an older one.
	putInPlace(t, backup, dir)
	if err := os.WriteFile(mark, []byte(newerMark), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := checked(t, cfg); !strings.Contains(s, "remove "+mark) {
		t.Errorf("the doctor does not say what to do: %s", s)
	}
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	r = startRig(t, cfg)
	personsAsked(t, r, 0, 7)
	r.halt(t)
	if s := checked(t, cfg); strings.Contains(s, "FAIL") {
		t.Errorf("gone on with: %s", s)
	}
}

// sameFiles fails where two folders differ.
func sameFiles(a, b string) error {
	for _, dirs := range [][2]string{{a, b}, {b, a}} {
		err := fs.WalkDir(os.DirFS(dirs[0]), ".", func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			one, err := os.ReadFile(filepath.Join(dirs[0], path))
			if err != nil {
				return err
			}
			other, err := os.ReadFile(filepath.Join(dirs[1], path))
			if err == nil && !bytes.Equal(one, other) {
				err = fmt.Errorf("%s is another in %s", path, dirs[1])
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
