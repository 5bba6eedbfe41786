package proxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// whenRead does something as a body begins to be read.
type whenRead struct {
	io.Reader
	do func()
}

func (w *whenRead) Read(p []byte) (int, error) {
	if w.do != nil {
		w.do()
		w.do = nil
	}
	return w.Reader.Read(p)
}

// TestRulesAreThoseOfTheWholeRequest: who sends the head of a request and the body later
// gets the version, and with it what is private, of when all of it was there.
func TestRulesAreThoseOfTheWholeRequest(t *testing.T) {
	r := newRig(t, nil)
	older := r.shelf.models["lin"]
	newer := *older
	newer.Digest = strings.Repeat("ab", 32)
	send := func(do func()) *httptest.ResponseRecorder {
		t.Helper()
		req := httptest.NewRequest(http.MethodPost, "/v2/models/lin/infer", &whenRead{strings.NewReader(goodBody), do})
		req.RemoteAddr = "127.0.0.1:1"
		req.Host = "127.0.0.1"
		w := httptest.NewRecorder()
		r.e.ServeHTTP(w, req)
		return w
	}
	swap := func() {
		r.shelf.mu.Lock()
		defer r.shelf.mu.Unlock()
		r.shelf.models["lin"] = &newer
	}
	if w := send(swap); w.Code != http.StatusOK || r.tape.last(t).Digest != newer.Digest {
		t.Errorf("%d %s, recorded as %s", w.Code, w.Body, r.tape.last(t).Digest)
	}
	before := r.tape.len()
	closed := func() {
		if err := r.shelf.set("lin", false); err != nil {
			t.Error(err)
		}
	}
	if w := send(closed); w.Code != http.StatusServiceUnavailable {
		t.Errorf("closed meanwhile: %d %s", w.Code, w.Body)
	}
	for ; before < r.tape.len(); before++ {
		if p := r.tape.last(t); p.Status == http.StatusOK || !p.Features.Empty() {
			t.Errorf("recorded: %+v", p)
		}
	}
}
