package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
)

// TestSeldonsFeedbackIsALabel: what its logger sends of a prediction and, later, of what was
// true of it.
func TestSeldonsFeedbackIsALabel(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.Capture.Key.File = writeKEK(t, "1")
	cfg.Capture.Patterns = []patternConfig{{Name: "email"}}
	r := startRig(t, cfg)
	send := func(kind, id, body string, want int) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/api/v1/cloudevents", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range map[string]string{
			"Content-Type": "application/json", "Ce-Specversion": "1.0", "Ce-Id": "ce-" + kind + id, "Ce-Type": "io.seldon.serving." + kind,
			"Ce-Requestid": id, "Ce-Inferenceservicename": "iris", "Ce-Endpoint": "default", "Ce-Time": "2026-05-01T12:00:00Z",
		} {
			req.Header.Set(key, value)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != want {
			t.Fatalf("%s: %s, %v", kind, res.Status, err)
		}
	}
	send("inference.request", "s1", `{"data":{"names":["a"],"ndarray":[[1],[2]]}}`, http.StatusOK)
	send("inference.response", "s1", `{"data":{"names":["score"],"ndarray":[[0.25],[0.75]]}}`, http.StatusOK)
	send("feedback", "s2", `{"request":{"data":{"ndarray":[[1],[2]]}},"response":{"meta":{"puid":"s1"},"data":{"ndarray":[[0.25],[0.75]]}},"reward":1,"truth":{"data":{"ndarray":["yes","ask ann@example.org"]}}}`, http.StatusOK)
	send("feedback", "s1", `{"reward":1}`, http.StatusBadRequest)
	r.stored(t)
	for id, want := range map[string]string{"s1.0": "yes", "s1.1": "ask [email]"} {
		var p collector.StoredPrediction
		if r.get(t, "/api/v1/predictions/"+id, &p); len(p.Labels) != 1 || p.Labels[0].Label != want {
			t.Errorf("%s: %+v", id, p.Labels)
		}
	}
}
