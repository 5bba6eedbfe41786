package main

import (
	"fmt"
	"net/http"
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
			body := cases["xgb"].whole().body("")
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
