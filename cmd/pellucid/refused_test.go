package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/pellucid/pellucid/dashboards/api"
)

// TestFloodOfNonsense: requests that cannot be read fill no table, and all of them are
// counted.
func TestFloodOfNonsense(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "m", xgboostData, "base_binary_logistic")
	r := startRig(t, testConfig(t, models))
	r.infer(t, "m", c)
	const clients, each = 8, 400
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				resp, err := http.Post(r.url+"/v2/models/m/infer", "application/json", strings.NewReader(`{"inputs":[`))
				if err != nil || resp.StatusCode != 400 {
					t.Errorf("nonsense: %v %v", resp, err)
					return
				}
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	r.stored(t)
	db := r.database(t)
	var rows, stood, counted int
	if _, err := fmt.Sscan(sql(t, db, "SELECT count(), toUInt64(sum(weight)) FROM predictions WHERE status = 400"), &rows, &stood); err != nil {
		t.Fatal(err)
	}
	_, metrics, _ := r.call(t, "GET", "/metrics", "")
	for line := range strings.Lines(string(metrics)) {
		if rest, ok := strings.CutPrefix(line, "ml_capture_refused_total "); ok {
			_, _ = fmt.Sscan(rest, &counted)
		}
	}
	if rows < 10 || rows > clients*each/4 || rows+counted != clients*each {
		t.Errorf("%d rows and %d counted of %d", rows, counted, clients*each)
	}
	if stood < rows || stood > clients*each {
		t.Errorf("the rows stand for %d of %d", stood, clients*each)
	}
	var traffic struct{ Chunks []api.TrafficPoint }
	r.get(t, "/api/v1/models/m/traffic", &traffic)
	errors := 0
	for _, p := range traffic.Chunks {
		errors += int(p.Errors)
	}
	if errors != stood {
		t.Errorf("%d errors are told, the rows stand for %d", errors, stood)
	}
	if n := sql(t, db, "SELECT sum(rows) = (SELECT count() FROM predictions) FROM traffic_1m"); n != "1" {
		t.Error("the rollup does not count the rows")
	}
}
