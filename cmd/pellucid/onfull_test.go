package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// TestOnFullOfTheServer fills a small spool while ClickHouse is away, by either choice of
// the operator: the answer says whether it is recorded, and what was said to be is there
// once when ClickHouse is back.
func TestOnFullOfTheServer(t *testing.T) {
	for choice, full := range map[string]struct {
		status   int
		captured string
	}{"reject": {http.StatusServiceUnavailable, "none"}, "serve": {http.StatusOK, "none"}} {
		t.Run(choice, func(t *testing.T) {
			models, cases := threeModels(t)
			cfg := testConfig(t, models)
			f, dsn := newForwarder(t, cfg.ClickHouse)
			cfg.ClickHouse, cfg.Capture.SpoolBytes, cfg.Capture.OnFull = dsn, leastSpool, choice
			r := startRig(t, cfg)
			batch := cases["xgb"].whole()
			body := batch.body("")
			ask := func() (int, http.Header) {
				status, _, h := r.call(t, "POST", "/v2/models/xgb/infer", body)
				return status, h
			}
			f.cut()
			var recorded []string
			for i := 0; ; i++ {
				status, h := ask()
				if status == http.StatusOK && h.Get("Pellucid-Capture") == "full" {
					recorded = append(recorded, h.Get("Pellucid-Prediction-Id"))
					if i > 10_000 {
						t.Fatal("the spool takes whatever comes")
					}
					continue
				}
				if status != full.status || h.Get("Pellucid-Capture") != full.captured || (h.Get("Retry-After") != "") != (status != http.StatusOK) {
					t.Fatalf("full: %d, %v", status, h)
				}
				break
			}
			for range 4 {
				ask()
			}
			// What was answered without a record is lost, what was not answered is not.
			lost, withheld := r.counted(t, "ml_capture_lost_total"), r.counted(t, "ml_server_capture_failures_total")
			if want := map[string][2]float64{"reject": {0, 5}, "serve": {5, 0}}[choice]; lost != want[0] || withheld != want[1] {
				t.Errorf("%v lost, %v answers withheld, want %v", lost, withheld, want)
			}
			if rows, want := r.counted(t, "ml_capture_lost_rows_total"), lost*float64(len(batch.rows)); rows != want {
				t.Errorf("%v rows lost, want %v", rows, want)
			}
			if status, _, _ := r.call(t, "POST", "/v2/models/xgb/infer", "{"); status != http.StatusBadRequest || r.counted(t, "ml_capture_lost_total") != lost+1 {
				t.Errorf("a refused request is answered with %d, and not counted as one without a record", status)
			}
			if ready, _, _ := r.call(t, "GET", "/v2/health/ready", ""); (ready == http.StatusOK) != (choice == "serve") {
				t.Errorf("ready: %d", ready)
			}
			f.open(t)
			until(t, "room again", func() bool {
				status, h := ask()
				if status == http.StatusOK && h.Get("Pellucid-Capture") == "full" {
					recorded = append(recorded, h.Get("Pellucid-Prediction-Id"))
					return true
				}
				return false
			})
			r.stored(t)
			ids := ""
			for i, id := range recorded {
				if i > 0 {
					ids += ","
				}
				ids += "'" + id + "'"
			}
			got := sql(t, r.database(t), "SELECT uniqExact(id), countIf(status = 200) = uniqExact(id, row) FROM predictions WHERE toString(id) IN ("+ids+")")
			if want := fmt.Sprintf("%d\t1", len(recorded)); got != want {
				t.Errorf("stored %q, want %q", got, want)
			}
		})
	}
}

// counted sums a metric's series.
func (r *rig) counted(t *testing.T, metric string) (sum float64) {
	t.Helper()
	_, text, _ := r.call(t, "GET", "/metrics", "")
	for line := range strings.Lines(string(text)) {
		if name, rest, _ := strings.Cut(strings.TrimSpace(line), "{"); name == metric || strings.HasPrefix(name, metric+" ") {
			v, err := strconv.ParseFloat((name + rest)[strings.LastIndex(name+rest, " ")+1:], 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			sum += v
		}
	}
	return sum
}
