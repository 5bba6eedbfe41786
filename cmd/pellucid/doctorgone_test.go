package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDoctorMissesWhatSaysWhatThereMustBe: each file or folder that says what others there
// must be is missed itself, emptied or gone, also by the start where that would make it anew.
func TestDoctorMissesWhatSaysWhatThereMustBe(t *testing.T) {
	cfg := sealedFlights(t)
	r := startRig(t, cfg)
	r.post(t, "/v2/models/flights/infer", flightBody(canaryText, canaryNumber), nil)
	r.stored(t)
	r.halt(t)
	doctor := func() map[string]result {
		t.Helper()
		_, checks := doctorOn(t, cfg)
		return checks
	}
	away := filepath.Join(t.TempDir(), "away")
	gone := func(path string) error { return os.Rename(path, away) }
	emptied := func(text string) func(string) error {
		return func(path string) error {
			if err := os.Rename(path, away); err != nil {
				return err
			}
			return os.WriteFile(path, []byte(text), 0o600)
		}
	}
	for _, c := range []struct {
		name, check, want string
		take              func(path string) error
		told              string // by a start; "" where it tells nothing
	}{
		{"audit", "folders", "the folder audit of the data folder was gone", gone, "the folder audit of the data folder was gone"},
		{marksFile, "folders", marksFile + " was emptied or taken out", gone, "it is not known whether one of them has gone"},
		{marksFile, "folders", marksFile + " was emptied or taken out", emptied("{}"), "it is not known whether one of them has gone"},
		{marksFile, "folders", "read the marks of folders", emptied(""), "it is not known whether one of them has gone"},
		{keptFile, "kept", keptFile + " does not name 1 versions", gone, keptFile + ") was gone or emptied"},
		{keptFile, "kept", keptFile + " does not name 1 versions", emptied(""), keptFile + ") was gone or emptied"},
		{privateFile, "kept", "the copy of what was private last is gone", gone, ""},
		{privateFile, "kept", "the copy of what was private last cannot be read", emptied(""), "the copy of what was private last could not be read"},
		{"keys.id", "keys", "keys.id is gone or empty", gone, ""},
		{"keys.id", "keys", "keys.id is gone or empty", emptied(""), ""},
	} {
		path := filepath.Join(cfg.Data, c.name)
		if got := doctor()[c.check]; !got.OK {
			t.Errorf("%s, before: %+v", c.name, got)
		}
		if err := c.take(path); err != nil {
			t.Fatal(err)
		}
		if got := doctor()[c.check]; got.OK || !strings.Contains(got.Detail, c.want) {
			t.Errorf("%s: %+v, want %q", c.name, got, c.want)
		}
		r = startRig(t, cfg)
		r.halt(t)
		lines, err := readLosses(cfg.Data)
		if told := strings.Join(lines, "\n"); err != nil || (c.told == "") != (told == "") || !strings.Contains(told, c.told) {
			t.Errorf("%s: the start tells %q (%v), want %q", c.name, told, err, c.told)
		}
		if err := os.RemoveAll(filepath.Join(cfg.Data, lossesFile)); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(away); err != nil {
			t.Fatal(err)
		}
	}
}

// TestALossOfTheSpoolStaysTold: of a segment that was damaged the rest is stored and its file
// put aside; that something was lost is told until the operator has seen it.
func TestALossOfTheSpoolStaysTold(t *testing.T) {
	models := notedModels(t)
	cfg := testConfig(t, models)
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	r.post(t, "/api/v1/predictions", notedList(0, 1), nil)
	r.stored(t)
	f.cut()
	for i := range 20 {
		r.post(t, "/api/v1/predictions", notedList(i, i+1), nil)
	}
	r.halt(t)
	names, err := filepath.Glob(filepath.Join(cfg.Data, "spool", "*.seg"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%q, %v", names, err)
	}
	if err := flipped(names[len(names)-1]); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	r = startRig(t, cfg)
	r.stored(t)
	until(t, "no segment with records", func() bool {
		_, checks := doctorOn(t, cfg)
		return checks["spool"].OK
	})
	r.told(t, cfg, "records of the spool are lost")
	r.halt(t)
	r = startRig(t, cfg)
	r.told(t, cfg)
}
