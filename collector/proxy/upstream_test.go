package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

func upstreamTo(t testing.TB, base string, change func(*UpstreamConfig)) *Upstream {
	t.Helper()
	cfg := UpstreamConfig{Name: "front", Model: "lin", URL: base, Missing: true, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	u, err := NewUpstream(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

func front(t testing.TB, u *Upstream) *rig {
	return newRig(t, func(c *Config) { c.Upstreams = []*Upstream{u} })
}

// TestUpstreamsAlikeAreTwoModels: a champion and a challenger are described alike. They
// share no digest, by which references and what is stored are found.
func TestUpstreamsAlikeAreTwoModels(t *testing.T) {
	base := listen(t, newRig(t, nil).e)
	one := upstreamTo(t, base, func(c *UpstreamConfig) { c.Name = "champion" })
	two := upstreamTo(t, base, func(c *UpstreamConfig) { c.Name = "challenger" })
	again := upstreamTo(t, base, func(c *UpstreamConfig) { c.Name = "champion" })
	var digests []string
	for _, u := range []*Upstream{one, two, again} {
		sv, err := u.describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, sv.version.Digest)
	}
	if digests[0] == digests[1] || digests[0] != digests[2] {
		t.Errorf("champion, challenger and champion again: %v", digests)
	}
}

// TestUpstreamIsThisServer puts one server before another, over the wire.
func TestUpstreamIsThisServer(t *testing.T) {
	back := newRig(t, nil)
	base := listen(t, back.e)
	r := front(t, upstreamTo(t, base, nil))
	body := `{"id":"q7","parameters":{"event_time":"2013-01-01T00:00:00Z","mine":"yes"},"inputs":[` + tensor("input", "FP32", "[2,3]", "[1,2,3,4,null,6]") + `]}`
	a := parse(t, r.do("POST", "/v2/models/front/infer", body))
	if a.Model != "front" || *a.ID != "q7" || a.Outputs[0].Parameters["nonfinite"] != "1:nan" || fmt.Sprint(a.Outputs[0].Data[0]) != "14" {
		t.Errorf("answer %+v", a)
	}
	p, q := r.tape.last(t), back.tape.last(t)
	if p.TraceID != q.TraceID || p.ID == q.ID || q.ExternalIDs[0] != "q7" {
		t.Errorf("trace %s became %s, ids %s %s, external %v", p.TraceID, q.TraceID, p.ID, q.ID, q.ExternalIDs)
	}
	if p.Times[0].Year() != 2013 || !q.Times[0].Equal(q.ReceivedAt) {
		t.Error("the event time went to the upstream")
	}
	if p.Model != "front" || p.Version != "1" || len(p.Digest) != 64 || len(r.tape.out[0]) != 1 {
		t.Errorf("captured %+v", p)
	}
	if w := r.do("POST", "/v1/models/front:predict", `{"instances":[[1,2,3]]}`); w.Body.String() != `{"predictions":[14]}` {
		t.Errorf("v1: %s", w.Body)
	}
	// What does not fit never reaches the upstream.
	n := back.tape.len()
	if w := r.do("POST", "/v2/models/front/infer", inputs(tensor("input", "FP32", "[1,2]", "[1,2]"))); w.Code != 400 || back.tape.len() != n {
		t.Errorf("bad request: %d, %d rows behind", w.Code, back.tape.len()-n)
	}
	if w := r.do("POST", "/v2/models/front/infer", inputs(tensor("input", "FP32", "[1,3]", "[777,1,1]"))); w.Code != 502 || r.tape.last(t).Status != 502 {
		t.Errorf("failing upstream: %d", w.Code)
	}
	if w := r.do("GET", "/v2/models/front", ""); !strings.Contains(w.Body.String(), `"platform":"upstream"`) {
		t.Errorf("metadata %s", w.Body)
	}
	if w := r.do("POST", "/v2/repository/models/front/unload", ""); w.Code != 400 {
		t.Errorf("unload: %d", w.Code)
	}
	if w := r.do("POST", "/v2/repository/index", ""); !strings.Contains(w.Body.String(), `"front","version":"1","state":"READY"`) {
		t.Errorf("index: %s", w.Body)
	}
}

// scripted is an upstream that speaks JSON only and answers what it is told to.
type scripted struct {
	status atomic.Int64
	answer atomic.Value
	header atomic.Value
	delay  atomic.Int64
	asked  atomic.Value
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/v2":
		_, _ = io.WriteString(w, `{"name":"s","version":"1","extensions":[]}`)
	case strings.HasSuffix(r.URL.Path, "/infer"):
		body, _ := io.ReadAll(r.Body)
		s.asked.Store(string(body))
		time.Sleep(time.Duration(s.delay.Load()))
		if h, _ := s.header.Load().(string); h != "" {
			w.Header().Set("Inference-Header-Content-Length", h)
		}
		w.WriteHeader(int(s.status.Load()))
		_, _ = io.WriteString(w, s.answer.Load().(string))
	default:
		_, _ = io.WriteString(w, `{"name":"lin","versions":null,"platform":"p","inputs":[{"name":"input","datatype":"FP32","shape":[-1,3]}],`+
			`"outputs":[{"name":"prediction","datatype":"FP32","shape":[-1]}],"properties":null}`)
	}
}

func TestUpstreamThatMisbehaves(t *testing.T) {
	s := &scripted{}
	srv := httptest.NewServer(s)
	defer srv.Close()
	r := front(t, upstreamTo(t, srv.URL, func(c *UpstreamConfig) { c.Timeout = 300 * time.Millisecond; c.MaxResponse = 4096 }))
	good := `{"model_name":"lin","model_version":null,"id":null,"parameters":{"cost":2},"outputs":[{"name":"prediction","datatype":"FP32","shape":[1],"parameters":{"unit":"min"},"data":[7]}]}`
	out := func(o string) string { return `{"model_name":"lin","outputs":[` + o + `]}` }
	f := func(name string, status int, answer string, want int, says string) {
		t.Helper()
		s.status.Store(int64(status))
		s.answer.Store(answer)
		w := r.do("POST", "/v2/models/front/infer", goodBody)
		if w.Code != want || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %.300s", name, w.Code, w.Body)
		}
		p := r.tape.last(t)
		if p.Status != want || strings.Contains(p.Error, "4711") {
			t.Errorf("%s: captured %d %q", name, p.Status, p.Error)
		}
	}
	f("good", 200, good, 200, `"parameters":{"cost":2},"outputs":[{"name":"prediction","datatype":"FP32","shape":[1],"parameters":{"unit":"min"},"data":[7]}]`)
	if asked := s.asked.Load().(string); strings.Contains(asked, "binary") || !strings.Contains(asked, `"data":[1,2,3]`) {
		t.Errorf("asked %s", asked)
	}
	f("refusal", 422, `{"detail":"bad value 4711"}`, 400, "bad value 4711")
	f("gone", 404, `{"error":"no model"}`, 502, "no model")
	f("busy", 429, ``, 503, "429")
	f("broken", 500, `{"error":"`+strings.Repeat("x", 3000)+`"}`, 502, "...")
	f("redirect", 302, ``, 502, "302")
	f("not JSON", 200, `<html>`, 502, "not valid")
	f("no outputs", 200, `{}`, 502, "outputs")
	f("too few outputs", 200, out(""), 502, "0 outputs")
	f("unknown output", 200, out(`{"name":"z","datatype":"FP32","shape":[1],"data":[7]}`), 502, "no output")
	f("other type", 200, out(`{"name":"prediction","datatype":"FP64","shape":[1],"data":[7]}`), 502, "FP64")
	f("other rank", 200, out(`{"name":"prediction","datatype":"FP32","shape":[1,1],"data":[7]}`), 502, "[1 1]")
	f("shape and data differ", 200, out(`{"name":"prediction","datatype":"FP32","shape":[2],"data":[7]}`), 502, "fewer")
	f("more rows than asked", 200, out(`{"name":"prediction","datatype":"FP32","shape":[5],"data":[7,7,7,7,7]}`), 502, "one row")
	f("no rows", 200, out(`{"name":"prediction","datatype":"FP32","shape":[0],"data":[]}`), 502, "one row")
	f("not valid, with a canary", 200, out(`{"name":"4711","datatype":"4711","shape":[1],"data":[7]}`), 502, "not valid")
	f("too large", 200, strings.Repeat(" ", 5000)+good, 502, "4096")
	s.header.Store("999999")
	f("header beyond its answer", 200, good, 502, "Inference-Header")
	s.header.Store("")
	s.delay.Store(int64(time.Second))
	f("slow", 200, good, 504, "in time")
	s.delay.Store(0)
	srv.CloseClientConnections()
	srv.Close()
	f("gone away", 200, good, 503, "reached")
}

// TestUpstreamMustAnswerAsTheVersionAsked: what is recorded is what answered.
func TestUpstreamMustAnswerAsTheVersionAsked(t *testing.T) {
	answers := "3"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2":
			_, _ = io.WriteString(w, `{"name":"s","version":"1","extensions":[]}`)
		case strings.HasSuffix(r.URL.Path, "/versions/3/infer"):
			_, _ = io.WriteString(w, `{"model_name":"lin","model_version":"`+answers+`","outputs":[{"name":"prediction","datatype":"FP32","shape":[1],"data":[7]}]}`)
		default:
			_, _ = io.WriteString(w, `{"name":"lin","versions":["3"],"platform":"p","inputs":[{"name":"input","datatype":"FP32","shape":[-1,3]}],`+
				`"outputs":[{"name":"prediction","datatype":"FP32","shape":[-1]}]}`)
		}
	}))
	defer srv.Close()
	r := front(t, upstreamTo(t, srv.URL, nil))
	for _, c := range []struct {
		version string
		status  int
	}{{"3", 200}, {"2 of 4711", 502}, {"", 200}} {
		answers = c.version
		if w := r.do("POST", "/v2/models/front/infer", goodBody); w.Code != c.status {
			t.Errorf("version %q: %d %s", c.version, w.Code, w.Body)
		}
		if p := r.tape.last(t); c.status != 200 && (p.Error == "" || strings.Contains(p.Error, c.version)) {
			t.Errorf("recorded is what the upstream said: %q", p.Error)
		}
	}
}

func TestUpstreamComesUpLater(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	u := upstreamTo(t, "http://"+address, nil)
	r := front(t, u)
	if w := r.do("POST", "/v2/models/front/infer", goodBody); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Fatalf("before: %d %s", w.Code, w.Body)
	}
	if w := r.do("POST", "/v2/repository/index", ""); !strings.Contains(w.Body.String(), `"state":"UNAVAILABLE"`) {
		t.Errorf("index: %s", w.Body)
	}
	if _, err := u.Version(context.Background()); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("version: %v", err)
	}
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	back := newRig(t, nil)
	srv := &http.Server{Handler: back.e}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		w := r.do("POST", "/v2/models/front/infer", goodBody)
		if w.Code == 200 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after: %d %s", w.Code, w.Body)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestUpstreamNamesColumns(t *testing.T) {
	u := upstreamTo(t, "http://127.0.0.1:1", nil)
	got, err := u.features([]engine.Spec{{Name: "a", DType: engine.Float32, Shape: []int{-1, 1}}, {Name: "b", DType: engine.String, Shape: []int{-1}}})
	if err != nil || len(got) != 2 || got[1].Name != "b" || !got[1].Categorical {
		t.Errorf("%v %v", got, err)
	}
	if v := newest([]string{"a", "9", "10", "2"}); v != "10" {
		t.Errorf("newest is %s", v)
	}
	for _, bad := range []UpstreamConfig{{}, {Name: "a", URL: "ftp://x"}, {Name: "a", URL: "http://"}, {Name: "a", URL: "http://x", Timeout: -1}} {
		if _, err := NewUpstream(bad); err == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

// TestUpstreamIsAskedAgain where that may help and is wanted; the record has every attempt.
func TestUpstreamIsAskedAgain(t *testing.T) {
	var script []int
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &scripted{}
		s.status.Store(200)
		s.answer.Store(`{"model_name":"lin","model_version":"1","outputs":[{"name":"prediction","datatype":"FP32","shape":[1],"data":[14]}]}`)
		if strings.HasSuffix(r.URL.Path, "/infer") {
			status := script[min(int(asked.Add(1))-1, len(script)-1)]
			if status == 0 {
				panic(http.ErrAbortHandler) // the connection is cut
			}
			s.status.Store(int64(status))
			if status == 429 {
				w.Header().Set("Retry-After", "1")
			}
		}
		s.ServeHTTP(w, r)
	}))
	defer server.Close()
	for name, c := range map[string]struct {
		retries, status int
		script, want    []int
	}{
		"not wanted":      {0, 503, []int{503, 200}, []int{503}},
		"busy, cut, well": {3, 200, []int{503, 0, 200}, []int{503, 0, 200}},
		"asks to wait":    {1, 200, []int{429, 200}, []int{429, 200}},
		"never well":      {2, 502, []int{502}, []int{502, 502, 502}},
		"ours to mend":    {2, 400, []int{422, 200}, []int{422}},
		"broken":          {2, 502, []int{500, 200}, []int{500}},
	} {
		script = c.script
		asked.Store(0)
		r := front(t, upstreamTo(t, server.URL, func(cfg *UpstreamConfig) { cfg.Retries = c.retries }))
		w := r.do("POST", "/v2/models/front/infer", inputs(tensor("input", "FP32", "[1,3]", "[1,2,3]")))
		p := r.tape.last(t)
		var got []int
		for _, a := range p.Attempts {
			if got = append(got, a.Status); a.MS <= 0 {
				t.Errorf("%s: an attempt took %g ms", name, a.MS)
			}
		}
		if w.Code != c.status || p.Status != c.status || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %d, recorded %d with attempts %v, want %v: %s", name, w.Code, p.Status, got, c.want, w.Body)
		}
	}
	r := front(t, upstreamTo(t, server.URL, func(cfg *UpstreamConfig) { cfg.Retries, cfg.Timeout = 5, 300*time.Millisecond }))
	script = []int{429, 200}
	asked.Store(0)
	if w := r.do("POST", "/v2/models/front/infer", inputs(tensor("input", "FP32", "[1,3]", "[1,2,3]"))); w.Code != 503 || len(r.tape.last(t).Attempts) != 1 {
		t.Errorf("no time to wait: %d %v", w.Code, r.tape.last(t).Attempts)
	}
	if _, err := NewUpstream(UpstreamConfig{Name: "a", URL: server.URL, Retries: 11}); err == nil {
		t.Error("eleven retries are taken")
	}
}
