package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestTurnedAwayRequestsOfAModel: a request that is refused by where it comes from, or for its
// query, is a failed one of the model that it is for: counted, sampled, and with nothing in
// its row that came with it. Its body is not read.
func TestTurnedAwayRequestsOfAModel(t *testing.T) {
	const secret = "QXSECRETQX"
	var kept []LateSpan
	spans := &recorder{}
	r := newRig(t, func(c *Config) {
		c.Keep, c.TracerProvider = func(l LateSpan) { kept = append(kept, l) }, spans
	})
	evil := []string{"Host", secret + ".example"}
	for _, c := range []struct {
		method, path string
		headers      []string
		status       int
		want         string // the row
	}{
		{"POST", "/v2/models/lin/infer", evil, 403, "infer lin 1 the Host header is not a loopback address, and no authentication is configured"},
		{"POST", "/v2/models/lin/versions/1/infer", []string{"Origin", "https://" + secret}, 403, "infer lin 1 the Origin header is not a loopback address, and no authentication is configured"},
		{"POST", "/v2/models/lin/generate_stream", evil, 403, "infer lin 1 the Host header is not a loopback address, and no authentication is configured"},
		{"POST", "/v2/models/lin/explain", evil, 403, "explain lin 1 the Host header is not a loopback address, and no authentication is configured"},
		{"POST", "/v1/models/lin:predict", evil, 403, "predict lin 1 the Host header is not a loopback address, and no authentication is configured"},
		{"POST", "/v1/models/lin:explain", evil, 403, "explain lin 1 the Host header is not a loopback address, and no authentication is configured"},
		{"POST", "/v2/models/lin/infer?" + secret + ";", nil, 400, "infer lin 1 read the query: ..."},
		{"POST", "/v1/models/lin:" + secret, evil, 403, ""},
		{"POST", "/v2/models/" + secret + "/infer", evil, 403, ""},
		{"GET", "/v2/models/lin/infer", evil, 403, ""},
		{"GET", "/v2/models/lin", evil, 403, ""},
		{"POST", "/v2/repository/models/lin/load", evil, 403, ""},
		{"POST", "/api/v1/predictions/lin/explain", evil, 403, ""},
		{"POST", "/" + secret, evil, 403, ""},
	} {
		before := r.tape.len()
		w := r.do(c.method, c.path, goodBody, c.headers...)
		got := ""
		if r.tape.len() > before {
			p := r.tape.last(t)
			got = fmt.Sprintf("%s %s %s %s", p.Route, p.Model, p.Version, p.Error)
			if p.Status != c.status || p.Latency.Decode != 0 || len(p.ExternalIDs) != 0 || strings.Contains(fmt.Sprintf("%+v", p), secret) {
				t.Errorf("%s %s: recorded %+v", c.method, c.path, p)
			}
		}
		if w.Code != c.status || got != c.want {
			t.Errorf("%s %s: %d, row %q", c.method, c.path, w.Code, got)
		}
	}
	if s := fmt.Sprintf("%+v", kept); len(kept) == 0 || strings.Contains(s, secret) {
		t.Errorf("spans %s", s)
	}
	kept = nil
	start := time.Now()
	for range 100 {
		r.do("POST", "/v2/models/lin/explain", goodBody, "Host", "evil.example")
	}
	if most := 10 + int(10*time.Since(start).Seconds()) + 1; len(kept) > most || len(spans.spans) != 0 {
		t.Errorf("of a flood of %d spans %d are kept and %d sampled", http.StatusForbidden, len(kept), len(spans.spans))
	}
}

// TestPanicIsLoggedWithoutItsValue: the log says of what kind a panic was and where, and has
// neither its text nor the words that the functions on the stack were called with.
func TestPanicIsLoggedWithoutItsValue(t *testing.T) {
	r := newRig(t, nil)
	if w := r.do("POST", "/v2/models/lin/infer", inputs(tensor("input", "FP32", "[1,3]", "[666,2,3]"))); w.Code != 500 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	log := r.log.String()
	for _, want := range []string{"panic while serving a request", "a value of type string", "proxy.linear.Run (server_test.go:", "proxy.(*call).guarded ("} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q: %s", want, log)
		}
	}
	for _, value := range []string{"value: 666", "(0x", "{0x", "goroutine"} {
		if strings.Contains(log, value) {
			t.Errorf("the log holds %q: %s", value, log)
		}
	}
}
