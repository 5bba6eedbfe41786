package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/strictyaml"
)

// TestStreamOfAnUpstream follows a stream through the whole server: events as they come, a
// row when it ends, and of what is private nothing, whatever the upstream says of it.
func TestStreamOfAnUpstream(t *testing.T) {
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/v2":
			_, _ = io.WriteString(w, `{"name":"s","version":"1","extensions":[]}`)
		case !strings.HasSuffix(r.URL.Path, "/generate_stream"):
			_, _ = io.WriteString(w, `{"name":"poet","versions":["1"],"platform":"p","inputs":[{"name":"text_input","datatype":"BYTES","shape":[-1,1]}],"outputs":[{"name":"text_output","datatype":"BYTES","shape":[-1,1]}]}`)
		case strings.Contains(string(body), "refuse"):
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"error":%q}`, body)
		default:
			w.Header().Set("Content-Type", "text/event-stream")
			for _, word := range []string{"roses", " are", " red"} {
				_, _ = fmt.Fprintf(w, "data: {\"text_output\":%q}\n\n", word)
			}
			if strings.Contains(string(body), "fail") {
				_, _ = fmt.Fprintf(w, "data: {\"error\":%q}\n\n", body)
			}
		}
	}))
	defer back.Close()
	cfg := testConfig(t, t.TempDir())
	up := upstreamConfig{Name: "poet", URL: back.URL}
	if err := strictyaml.Decode([]byte("features: [{name: text_input, private: hash}]"), "upstream", &up.ModelYAML); err != nil {
		t.Fatal(err)
	}
	cfg.Upstreams = []upstreamConfig{up}
	r := startRig(t, cfg)
	ask := func(text string) (status int, body string, id string) {
		t.Helper()
		s, b, h := r.call(t, "POST", "/v2/models/poet/generate_stream", fmt.Sprintf(`{"id":"mine","text_input":%q}`, text+canaryText))
		return s, string(b), h.Get("Pellucid-Prediction-Id")
	}
	_, whole, id := ask("write ")
	_, broken, failed := ask("fail ")
	status, refused, no := ask("refuse ")
	if strings.Count(whole, "data: ") != 3 || !strings.Contains(broken, "error of its own") || status != 400 || !strings.Contains(refused, "refused the request") {
		t.Errorf("answers %q, %q, %d %s", whole, broken, status, refused)
	}
	r.stored(t)
	for id, want := range map[string]int{id: 200, failed: 502, no: 400} {
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+id+".0", &p)
		text := fmt.Sprint(p.Outputs["text_output"])
		if p.Status != want || p.ExternalID != "mine" || len(p.Attempts) != 1 || (want == 200) != (text == "roses are red") || want != 400 && (p.Capture != "full" || p.Features["text_input"] == nil) {
			t.Errorf("stored %+v", p)
		}
		// What broke off is kept without its last word, which may be half of what is private.
		if want == 502 && text != "roses are " {
			t.Errorf("stored of a stream that broke off: %q", text)
		}
	}
	if n := sql(t, r.database(t), "SELECT count() FROM predictions WHERE length(attempt_status) = 1 AND attempt_ms[1] > 0"); n != "3" {
		t.Errorf("%s rows with an attempt", n)
	}
	if _, b, _ := r.call(t, "GET", "/api/v1/predictions?model=poet&where=attempts%3D1", ""); strings.Count(string(b), `"attempts"`) != 3 {
		t.Errorf("rows by their attempts: %s", b)
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
	if found := leaks([]byte(r.log.String())); found != "" {
		t.Errorf("the log holds %s", found)
	}
}
