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
}

// TestLately: what is dropped fires an alert for as long as there was some within the time.
func TestLately(t *testing.T) {
	var l lately
	at := time.Unix(1_700_000_000, 0)
	for i, c := range []struct {
		after     time.Duration
		now, want int64
	}{
		{0, 0, 0}, {time.Second, 3, 3}, {droppedFor - 1, 3, 3}, {0, 5, 5}, {droppedFor - 1, 5, 5}, {1, 5, 0}, {time.Hour, 5, 0}, {1, 6, 1}, {droppedFor, 7, 2}, {droppedFor, 7, 0},
	} {
		at = at.Add(c.after)
		if got := l.grown(c.now, at); got != c.want {
			t.Errorf("%d: %d, want %d", i, got, c.want)
		}
	}
}
