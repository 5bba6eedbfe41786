package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// TestStreamsThatBreakOffTellNoHalfCards: of an upstream whose fields are all open patterns
// take out what is private by its form, also where an answer ends in the midst of it.
func TestStreamsThatBreakOffTellNoHalfCards(t *testing.T) {
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Text string `json:"text_input"`
		}
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/v2":
			_, _ = io.WriteString(w, `{"name":"s","version":"1","extensions":[]}`)
			return
		case !strings.HasSuffix(r.URL.Path, "/generate_stream"):
			_, _ = io.WriteString(w, `{"name":"echo","versions":["1"],"platform":"p","inputs":[{"name":"text_input","datatype":"BYTES","shape":[-1,1]}],"outputs":[{"name":"text_output","datatype":"BYTES","shape":[-1,1]}]}`)
			return
		}
		if err := json.Unmarshal(body, &asked); err != nil {
			t.Error(err)
		}
		text, how, _ := strings.Cut(asked.Text, "|")
		w.Header().Set("Content-Type", "text/event-stream")
		for from := 0; from < len(text); from += 4 {
			_, _ = fmt.Fprintf(w, "data: {\"text_output\":%q}\n\n", text[from:min(len(text), from+4)])
		}
		_ = http.NewResponseController(w).Flush()
		switch how {
		case "breaks off":
			panic(http.ErrAbortHandler)
		case "hangs":
			<-r.Context().Done()
		}
	}))
	defer back.Close()
	cfg := testConfig(t, t.TempDir())
	cfg.Upstreams = []upstreamConfig{{Name: "echo", URL: back.URL, Timeout: duration(300 * time.Millisecond)}}
	for _, name := range []string{"card", "email", "iban", "phone", "token"} {
		cfg.Capture.Patterns = append(cfg.Capture.Patterns, patternConfig{Name: name})
	}
	r := startRig(t, cfg)
	type asked struct{ id, want string }
	var all []asked
	ask := func(text, want string) {
		t.Helper()
		_, _, h := r.call(t, "POST", "/v2/models/echo/generate_stream", fmt.Sprintf(`{"text_input":%q}`, text))
		all = append(all, asked{h.Get("Pellucid-Prediction-Id"), want})
	}
	ask("my card is 453957876362148|breaks off", "my card is ")
	ask("my card is 4539 5787 6362 148|hangs", "my card is ")
	ask("to GB33BUKB2020155555555|breaks off", "to ")
	ask("I am zqrosamund.feld@zqexample|hangs", "I am ")
	ask("it is 4539 and ends|whole", "it is 4539 and ends")
	r.stored(t)
	for _, one := range all {
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+one.id+".0", &p)
		if got := p.Outputs["text_output"]; got != one.want || (p.Status == 200) != strings.HasSuffix(one.want, "ends") {
			t.Errorf("stored %v, want %q: %+v", got, one.want, p)
		}
	}
	r.halt(t)
}
