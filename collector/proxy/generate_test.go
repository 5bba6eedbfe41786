package proxy

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// talker is an upstream that generates text, a word an event.
type talker struct {
	mu     sync.Mutex
	asked  []string
	script func(w http.ResponseWriter, flush func())
}

func (s *talker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/v2":
		_, _ = io.WriteString(w, `{"name":"s","version":"1","extensions":[]}`)
	case strings.HasSuffix(r.URL.Path, "/generate_stream"), strings.HasSuffix(r.URL.Path, "/generate"):
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.Path+" "+string(body))
		script := s.script
		s.mu.Unlock()
		script(w, func() { _ = http.NewResponseController(w).Flush() })
	default:
		_, _ = io.WriteString(w, `{"name":"lin","versions":null,"platform":"p","inputs":[{"name":"text_input","datatype":"BYTES","shape":[-1,1]},{"name":"max_tokens","datatype":"INT32","shape":[1]}],`+
			`"outputs":[{"name":"text_output","datatype":"BYTES","shape":[-1]},{"name":"tokens","datatype":"INT32","shape":[1]}],"properties":null}`)
	}
}

func (s *talker) says(script func(w http.ResponseWriter, flush func())) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = script
}

func startTalker(t *testing.T) (*talker, *rig, string) {
	s := &talker{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	r := front(t, upstreamTo(t, server.URL, func(c *UpstreamConfig) { c.MaxResponse, c.Retries = 1<<16, 1 }))
	return s, r, listen(t, r.e)
}

const question = `{"id":"q1","text_input":"how high?","max_tokens":5,"temperature":0.5,"parameters":{"event_time":"2024-05-01T00:00:00Z","mine":true}}`

func words(w http.ResponseWriter, flush func()) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i, word := range []string{"ten", " metres", " \u00e4"} {
		fmt.Fprintf(w, "data: {\"text_output\":%q,\"tokens\":%d}\n\n", word, i+1)
		flush()
	}
}

// lastOf waits for the record of a call, which may be made after its answer has ended.
func lastOf(t *testing.T, r *rig, n int) collector.Prediction {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); r.tape.len() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d records, want %d", r.tape.len(), n)
		}
	}
	return r.tape.last(t)
}

// TestStreamsAreRecordedWhenTheyEnd: events are passed on as they come, and the record has
// what they came to.
func TestStreamsAreRecordedWhenTheyEnd(t *testing.T) {
	s, r, base := startTalker(t)
	first := make(chan struct{})
	s.says(func(w http.ResponseWriter, flush func()) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, ": hello\ndata: {\"text_output\":\"ten\",\"tokens\":1}\n\n")
		flush()
		<-first // the client has it before there is another
		_, _ = io.WriteString(w, "data: {\"text_output\":[\" me\",\"tres\"],\ndata: \"tokens\":2}\r\n\r\ndata: [DONE]\n\n")
	})
	res, err := http.Post(base+"/v2/models/front/generate_stream", "application/json", strings.NewReader(question))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for want := range strings.SplitSeq(": hello\ndata: {\"text_output\":\"ten\",\"tokens\":1}\n\n", "\n") {
		if want == "" {
			break
		}
		if line, err := lines.ReadString('\n'); err != nil || line != want+"\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	if n := r.tape.len(); n != 0 {
		t.Errorf("%d records before the end", n)
	}
	close(first)
	rest, err := io.ReadAll(lines)
	if err != nil || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%q %v %v", rest, err, res.Header)
	}
	if got := res.Trailer.Get("Pellucid-Capture"); got != "full" {
		t.Errorf("captured %q: %v", got, res.Trailer)
	}
	p, out := r.tape.last(t), r.tape.out[0]
	if p.ID != res.Header.Get("Pellucid-Prediction-Id") || p.Status != 200 || p.ExternalIDs[0] != "q1" || p.Times[0].Year() != 2024 || len(p.Attempts) != 1 || p.Latency.Model <= 0 || !p.Answered {
		t.Errorf("recorded %+v", p)
	}
	if got := engine.Data[string](out.Get("text_output")); len(got) != 1 || got[0] != "ten metres" {
		t.Errorf("text %q", got)
	}
	if got := engine.Data[int32](out.Get("tokens")); len(got) != 1 || got[0] != 2 {
		t.Errorf("tokens %v", got)
	}
	if in := r.tape.in[0]; engine.Data[string](in.Get("text_input"))[0] != "how high?" || engine.Data[int32](in.Get("max_tokens"))[0] != 5 {
		t.Errorf("features %v", in)
	}
	if got := s.asked[0]; strings.Contains(got, "event_time") || !strings.Contains(got, `"mine":true`) || !strings.Contains(got, `"temperature":0.5`) {
		t.Errorf("the upstream was asked %s", got)
	}
}

func TestGenerateAtOnce(t *testing.T) {
	s, r, _ := startTalker(t)
	s.says(func(w http.ResponseWriter, _ func()) {
		_, _ = io.WriteString(w, `{"model_name":"lin","text_output":"ten metres","tokens":3}`)
	})
	w := r.do("POST", "/v2/models/front/generate", question)
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"ten metres"`) || w.Header().Get("Pellucid-Capture") != "full" || r.tape.last(t).Status != 200 || r.tape.last(t).Answered {
		t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
	}
	for body, want := range map[string]int{
		`[]`: 400, `{`: 400, `{"text_input":"a"}`: 400, `{"text_input":"a","max_tokens":"x"}`: 400, `{"text_input":"a","max_tokens":1,"id":7}`: 400,
		`{"text_input":"a","text_input":"b","max_tokens":1}`: 400, `{"text_input":"a","max_tokens":1,"parameters":{"event_time":"no"}}`: 400,
	} {
		if w := r.do("POST", "/v2/models/front/generate", body); w.Code != want || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	s.says(func(w http.ResponseWriter, _ func()) { _, _ = io.WriteString(w, `{"text_output":"x"}`) })
	if w := r.do("POST", "/v2/models/front/generate", question); w.Code != 502 || r.tape.last(t).Status != 502 {
		t.Errorf("an output is missing: %d %s", w.Code, w.Body)
	}
	if w := r.do("POST", "/v2/models/lin/generate", question); w.Code != 501 {
		t.Errorf("a model of ours: %d %s", w.Code, w.Body)
	}
}

// TestStreamsThatBreakOff are recorded with what was asked, and say so in a last event.
func TestStreamsThatBreakOff(t *testing.T) {
	s, r, base := startTalker(t)
	n := 0
	for name, c := range map[string]struct {
		script func(w http.ResponseWriter, flush func())
		status int
		said   string
		text   string // what is recorded of the answer begins with, "" for nothing
	}{
		"cut": {func(w http.ResponseWriter, flush func()) { words(w, flush); panic(http.ErrAbortHandler) }, 502, "broke off", "ten metres \u00e4"},
		"its own error": {func(w http.ResponseWriter, flush func()) {
			words(w, flush)
			_, _ = io.WriteString(w, "data: {\"error\":\"out of memory at how high?\"}\n\n")
		}, 502, "error of its own", "ten metres \u00e4"},
		"too much": {func(w http.ResponseWriter, flush func()) {
			for range 3000 {
				words(w, flush)
			}
		}, 502, "larger than the limit", "ten metres \u00e4ten"},
		"no newline": {func(w http.ResponseWriter, _ func()) {
			for range 1 << 10 {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<12)); err != nil {
					return
				}
			}
		}, 502, "larger than the limit", ""},
		"not JSON": {func(w http.ResponseWriter, _ func()) { _, _ = io.WriteString(w, "data: {\"text_output\":\n\n") }, 502, "not valid", ""},
		"no output": {func(w http.ResponseWriter, _ func()) {
			_, _ = io.WriteString(w, "data: {\"text_output\":\"a\"}\n\n")
		}, 502, "no output", "a"},
	} {
		s.says(c.script)
		res, err := http.Post(base+"/v2/models/front/generate_stream", "application/json", strings.NewReader(question))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 || !strings.Contains(string(body[max(0, len(body)-300):]), c.said) {
			t.Errorf("%s: %d %v ...%s", name, res.StatusCode, err, body[max(0, len(body)-300):])
		}
		n++
		p := lastOf(t, r, n)
		if p.Status != c.status || !strings.Contains(p.Error, c.said) || strings.Contains(p.Error, "how high") || r.tape.in[n-1] == nil || (r.tape.out[n-1] == nil) != (c.text == "") {
			t.Errorf("%s: recorded %+v", name, p)
		}
		if out := r.tape.out[n-1]; out != nil && !strings.HasPrefix(engine.Data[string](out.Get("text_output"))[0], c.text) {
			t.Errorf("%s: recorded %q", name, engine.Data[string](out.Get("text_output")))
		}
	}
	// A busy upstream is asked again before anything is answered.
	tries := 0
	s.says(func(w http.ResponseWriter, flush func()) {
		if tries++; tries == 1 {
			w.WriteHeader(503)
			return
		}
		words(w, flush)
	})
	w := r.do("POST", "/v2/models/front/generate_stream", question)
	if p := r.tape.last(t); w.Code != 200 || p.Status != 200 || len(p.Attempts) != 2 || p.Attempts[0].Status != 503 {
		t.Errorf("%d, attempts %v", w.Code, p.Attempts)
	}
	s.says(func(w http.ResponseWriter, _ func()) { w.WriteHeader(422) })
	if w := r.do("POST", "/v2/models/front/generate_stream", question); w.Code != 400 || r.tape.last(t).Status != 400 {
		t.Errorf("refused: %d", w.Code)
	}
	// A client that leaves is recorded too.
	n = r.tape.len()
	gone := make(chan struct{})
	s.says(func(w http.ResponseWriter, flush func()) {
		words(w, flush)
		<-gone
	})
	res, err := http.Post(base+"/v2/models/front/generate_stream", "application/json", strings.NewReader(question))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = res.Body.Read(make([]byte, 10))
	res.Body.Close()
	if p := lastOf(t, r, n+1); p.Status != statusClientGone || r.tape.in[n] == nil || engine.Data[string](r.tape.out[n].Get("text_output"))[0] == "" {
		t.Errorf("the client left: recorded %+v", p)
	}
	close(gone)
}

// TestGenerateTakesNoFieldCalledLikeAPrivateOne: what is no input goes to the upstream, whose answer
// may repeat it.
func TestGenerateTakesNoFieldCalledLikeAPrivateOne(t *testing.T) {
	s := &talker{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	r := front(t, upstreamTo(t, server.URL, func(c *UpstreamConfig) {
		c.Config.Features = []collector.FeatureConfig{{Name: "text_input", Private: collector.PrivacyDrop}}
	}))
	s.says(func(w http.ResponseWriter, _ func()) { _, _ = io.WriteString(w, `{"text_output":"x","tokens":3}`) })
	for field, want := range map[string]int{
		`"Text_Input ":"V"`: 400, `"a.text-input":"V"`: 400, `"parameters":{"text input":"V"}`: 400, `"textual":"V"`: 200, `"parameters":{"mine":"V"}`: 200,
	} {
		w := r.do("POST", "/v2/models/front/generate", `{"text_input":"a","max_tokens":1,`+field+`}`)
		if w.Code != want {
			t.Errorf("%s: %d %s", field, w.Code, w.Body)
		}
	}
}
