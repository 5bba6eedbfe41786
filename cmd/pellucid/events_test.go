package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// loggedEvent is a half as KServe's payload logger sends it, in binary or structured
// mode.
func (r *rig) loggedEvent(t *testing.T, kind, id, body string, structured bool) (int, string) {
	t.Helper()
	typ := "org.kubeflow.serving.inference." + kind
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/api/v1/cloudevents", strings.NewReader(body))
	if structured {
		req, err = http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/api/v1/cloudevents", strings.NewReader(fmt.Sprintf(
			`{"specversion":"1.0","id":%q,"type":%q,"source":"http://localhost:9081/","time":"2024-05-01T12:00:00Z","inferenceservicename":"iris","namespace":"prod","component":"predictor","endpoint":"default","data":%s}`, id, typ, body)))
	}
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/cloudevents+json")
	if !structured {
		for name, value := range map[string]string{
			"Content-Type": "application/json", "Ce-Specversion": "1.0", "Ce-Id": id, "Ce-Type": typ, "Ce-Source": "http://localhost:9081/", "Ce-Time": "2024-05-01T12:00:00Z",
			"Ce-Inferenceservicename": "iris", "Ce-Namespace": "prod", "Ce-Component": "predictor", "Ce-Endpoint": "default",
		} {
			req.Header.Set(name, value)
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// TestLoggedPayloadsBecomePredictions: the events of a payload logger, each sent
// several times and in any order, are one prediction a row; halves outlive the
// server that acknowledged them; and nothing private is kept.
func TestLoggedPayloadsBecomePredictions(t *testing.T) {
	models := t.TempDir()
	place(t, models, "prod.iris/1/model.yaml", "task: binary\nfeatures: [{name: owner, private: drop}]\n")
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	const n = 60
	type sent struct {
		kind       string
		i          int
		structured bool
	}
	body := func(s sent) string {
		if s.kind == "request" {
			return fmt.Sprintf(`{"instances":[{"width":%d,"color":"red","owner":%q},{"width":%d.5,"color":"blue","owner":"b"}]}`, s.i, canaryText, s.i)
		}
		return fmt.Sprintf(`{"predictions":[%g,1]}`, float64(s.i)/100)
	}
	send := func(r *rig, list []sent) {
		t.Helper()
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		var wg sync.WaitGroup
		for part := range 4 {
			wg.Go(func() {
				for i := part; i < len(list); i += 4 {
					s := list[i]
					if status, answer := r.loggedEvent(t, s.kind, fmt.Sprint("call-", s.i), body(s), s.structured); status != http.StatusOK {
						t.Errorf("%+v: %d %s", s, status, answer)
					}
				}
			})
		}
		wg.Wait()
	}
	var first, rest []sent
	for i := range n {
		for _, kind := range []string{"request", "response"} {
			part := &first
			if i >= n/2 && kind == "response" {
				part = &rest
			}
			for k := range 3 {
				*part = append(*part, sent{kind, i, k == 1})
			}
		}
	}
	send(r, first)
	halves, _ := r.events.Waiting()
	if halves < n/2 {
		t.Fatalf("%d halves wait", halves)
	}
	if _, metrics, _ := r.call(t, "GET", "/metrics", ""); !strings.Contains(string(metrics), fmt.Sprintf("ml_events_waiting %d\n", halves)) {
		t.Error("no metric says how many halves wait")
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
	r = startRig(t, cfg)
	if again, _ := r.events.Waiting(); again != halves {
		t.Fatalf("%d halves wait after a restart, %d before", again, halves)
	}
	send(r, rest)
	r.stored(t)
	db := r.database(t)
	if got := sql(t, db, "SELECT count(), uniqExact(id), countIf(status = 200) FROM predictions WHERE model = 'prod.iris'"); strings.Join(strings.Fields(got), " ") != "120 120 120" {
		t.Errorf("rows, ids, answered: %s", got)
	}
	for i, want := range map[string]string{"call-7.0": `{"color":"red","width":7} {"prediction":0.07}`, "call-41.1": `{"color":"blue","width":41.5} {"prediction":1}`} {
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+i, &p)
		f, _ := json.Marshal(p.Features)
		o, _ := json.Marshal(p.Outputs)
		if string(f)+" "+string(o) != want || p.Version != "1" || p.Time.Hour() != 12 || p.Route != collector.RouteImported {
			t.Errorf("%s is %+v", i, p)
		}
	}
	for what, c := range map[string][2]string{"request": {"request", `{"text":"x"}`}, "type": {"nothing", `{"instances":[1]}`}} {
		if status, answer := r.loggedEvent(t, c[0], "x", c[1], false); status != http.StatusBadRequest || !strings.Contains(answer, `"error"`) {
			t.Errorf("a bad %s: %d %s", what, status, answer)
		}
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
}

// TestHalfAloneIsAFailedPrediction: KServe sends no response event of a request that
// failed.
func TestHalfAloneIsAFailedPrediction(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.Capture.PairTimeout = duration(300 * time.Millisecond)
	r := startRig(t, cfg)
	for _, kind := range []string{"request", "response"} {
		if status, answer := r.loggedEvent(t, kind, "good", map[string]string{"request": `{"instances":[[1,2]]}`, "response": `{"predictions":[1]}`}[kind], false); status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
	}
	if status, answer := r.loggedEvent(t, "request", "bad", `{"instances":[[3,4]]}`, false); status != http.StatusOK || !strings.Contains(answer, "waiting") {
		t.Fatalf("%d %s", status, answer)
	}
	until(t, "the request is recorded alone", func() bool { n, _ := r.events.Waiting(); return n == 0 })
	var p collector.StoredPrediction
	r.get(t, "/api/v1/predictions/bad", &p)
	if p.Status != http.StatusGatewayTimeout || p.Features["f1"] != 4.0 || len(p.Outputs) != 0 || !strings.Contains(p.Error, "no response event") {
		t.Errorf("stored %+v", p)
	}
}

// TestAHalfKeepsItsRules: a field that was private when the request came is not recorded
// because the model.yaml hides less when the response does.
func TestAHalfKeepsItsRules(t *testing.T) {
	models := t.TempDir()
	place(t, models, "prod.iris/1/model.yaml", "features: [{name: owner, private: drop}]\n")
	r := startRig(t, testConfig(t, models))
	half := func(kind, id, body string) {
		t.Helper()
		if status, answer := r.loggedEvent(t, kind, id, body, false); status != http.StatusOK {
			t.Fatalf("%s of %s: %d %s", kind, id, status, answer)
		}
	}
	owned := func(by string) string { return `{"instances":[{"width":1,"owner":"` + by + `"}]}` }
	half("request", "first", owned("a"))
	half("response", "first", `{"predictions":[1]}`)
	half("request", "between", owned(canaryText))
	place(t, models, "prod.iris/1/model.yaml", "{}\n")
	r.post(t, "/v2/repository/models/prod.iris/load", "", nil)
	half("response", "between", `{"predictions":[1]}`)
	half("request", "after", owned("b"))
	half("response", "after", `{"predictions":[1]}`)
	r.stored(t)
	for id, want := range map[string]any{"first": nil, "between": nil, "after": "b"} {
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+id, &p)
		if got := p.Features["owner"]; got != want {
			t.Errorf("%s: the owner is %v, want %v", id, got, want)
		}
	}
}
