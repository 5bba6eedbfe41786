package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDroppedEventsAreTold: a half that was taken and whose file somebody has deleted is in the
// metrics, on the page and in an alert.
func TestDroppedEventsAreTold(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.Capture.PairTimeout = duration(100 * time.Millisecond)
	r := startRig(t, cfg)
	metrics := func(when, want string) {
		t.Helper()
		if _, b, _ := r.call(t, "GET", "/metrics", ""); !strings.Contains(string(b), "\n"+want+"\n") {
			t.Errorf("%s: no line %q among the metrics", when, want)
		}
	}
	metrics("at first", `ml_events_dropped_total{error_type="gone"} 0`)
	metrics("at first", `ml_events_dropped_rows_total 0`)
	if status, b, _ := r.half(t, "request", "a", "nobody", "1", `{"instances":[1]}`); status != http.StatusOK || !strings.Contains(b, `"waiting"`) {
		t.Fatalf("%d %s", status, b)
	}
	files, err := filepath.Glob(filepath.Join(cfg.Data, "events", "*.half"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	until(t, "the alert fires", func() bool { return r.selfFires(t) == "PellucidEventsDropped" })
	if _, b, _ := r.call(t, "GET", "/ui/health", ""); !strings.Contains(string(b), "1 CloudEvent dropped") || !strings.Contains(string(b), "of 1 gone") {
		t.Errorf("the page does not say so:\n%s", b)
	}
	metrics("when its file is gone", `ml_events_dropped_total{error_type="gone"} 1`)
	r.halt(t)
	r = startRig(t, cfg)
	until(t, "the alert fires after a start", func() bool { return r.selfFires(t) == "PellucidEventsDropped" })
	metrics("after a start", `ml_events_dropped_total{error_type="gone"} 1`)
}

// TestDoctorLooksAtHalves: those that wait, are damaged or have gone, while no server runs.
func TestDoctorLooksAtHalves(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	doctor := func(ok bool, want string) {
		t.Helper()
		if _, checks := doctorOn(t, cfg); checks["events"].OK != ok || !strings.Contains(checks["events"].Detail, want) {
			t.Errorf("%+v, want %t and %q", checks["events"], ok, want)
		}
	}
	doctor(true, "none yet")
	r := startRig(t, cfg)
	doctor(true, "no half waits")
	for _, id := range []string{"a", "b", "c"} {
		if status, b, _ := r.half(t, "request", id, "nobody", "1", `{"instances":[1]}`); status != http.StatusOK {
			t.Fatalf("%d %s", status, b)
		}
	}
	doctor(true, "3 halves wait, the oldest since ")
	r.halt(t)
	doctor(true, "3 halves wait, the oldest since ")
	files, err := filepath.Glob(filepath.Join(cfg.Data, "events", "*.half"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[0], 5); err != nil {
		t.Fatal(err)
	}
	doctor(false, "1 of 3 halves that wait are damaged")
	if err := os.Rename(files[1], filepath.Join(t.TempDir(), "away")); err != nil {
		t.Fatal(err)
	}
	doctor(false, "the files of 1 half that waited are gone")
	cfg.Capture.PairTimeout = duration(100 * time.Millisecond)
	r = startRig(t, cfg)
	until(t, "the alert fires", func() bool { return r.selfFires(t) == "PellucidEventsDropped" })
	until(t, "it is set aside", func() bool {
		_, checks := doctorOn(t, cfg)
		return strings.Contains(checks["events"].Detail, "1 damaged half was set aside")
	})
	r.halt(t)
	if err := os.Remove(files[0] + ".damaged"); err != nil {
		t.Fatal(err)
	}
	doctor(true, "1 half waits, the oldest since ")
	doctor(true, "0 fit no version, 1 damaged, 1 gone")
	if err := os.Remove(filepath.Join(cfg.Data, "events", "waiting.list")); err != nil {
		t.Fatal(err)
	}
	doctor(false, "waiting.list is gone or damaged: others may have gone")
	r = startRig(t, cfg)
	r.told(t, cfg, "waiting.list")
	r.halt(t)
}
