package proxy

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
)

// TestB3 takes a trace from B3's headers where W3C's is not there, and passes it on
// in the form it came in.
func TestB3(t *testing.T) {
	const (
		id     = "0af7651916cd43dd8448eb211c80319c"
		parent = "b7ad6b7169203331"
		other  = "11111111111111111111111111111111"
	)
	w3cHeader := map[string]string{"traceparent": "00-" + other + "-" + parent + "-01"}
	multi := map[string]string{"X-B3-TraceId": id, "X-B3-SpanId": parent, "X-B3-Sampled": "1"}
	both := maps.Clone(multi)
	maps.Copy(both, w3cHeader)
	for name, c := range map[string]struct {
		headers map[string]string
		trace   string
		b3      bool
	}{
		"single":      {map[string]string{"b3": id + "-" + parent + "-1"}, id, true},
		"multi":       {multi, id, true},
		"64 bits":     {map[string]string{"b3": parent + "-" + parent + "-1"}, strings.Repeat("0", 16) + parent, true},
		"both":        {both, other, false},
		"W3C":         {w3cHeader, other, false},
		"only a flag": {map[string]string{"b3": "0"}, "", false},
		"garbage":     {map[string]string{"b3": "x", "X-B3-TraceId": "y"}, "", false},
	} {
		rec := &recorder{}
		r := newRig(t, func(c *Config) { c.TracerProvider = rec })
		var pairs []string
		in := http.Header{}
		for k, v := range c.headers {
			pairs = append(pairs, k, v)
			in.Set(k, v)
		}
		w := r.do("POST", "/v2/models/lin/infer", goodBody, pairs...)
		if got := w.Header().Get("Traceparent"); w.Code != 200 || c.trace != "" && !strings.HasPrefix(got, "00-"+c.trace+"-") {
			t.Errorf("%s: %d, traceparent %s", name, w.Code, got)
		}
		out := http.Header{}
		inject(extract(context.Background(), propagation.HeaderCarrier(in)), propagation.HeaderCarrier(out))
		if got := out.Get("B3") != "" && out.Get("X-B3-TraceId") == c.trace; got != c.b3 || (out.Get("Traceparent") != "") != (c.trace != "") {
			t.Errorf("%s: passed on %v", name, out)
		}
	}
}
