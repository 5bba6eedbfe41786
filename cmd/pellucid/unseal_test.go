package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
)

// TestNoAnswerIsKept: browsers and proxies keep on disk what does not say otherwise, and who
// reads it there later is not asked. Static files have nothing of anybody in them.
func TestNoAnswerIsKept(t *testing.T) {
	r := startRig(t, testConfig(t, t.TempDir()))
	for path, want := range map[string]string{
		"/ui/": "no-store", "/ui": "no-store", "/ui/predictions": "no-store", "/ui/predictions/x?unseal=true": "no-store", "/ui/none": "no-store", "/ui/health": "no-store",
		"/api/v1/models": "no-store", "/api/v1/predictions": "no-store", "/api/v1/predictions/x?unseal=true": "no-store", "/api/v1/predictions/x?unseal=maybe": "no-store",
		"/api/v1/predictions/x/explanations": "no-store", "/api/v1/subjects/export": "no-store", "/api/none": "no-store", "/api/v2/alerts": "no-store",
		"/ui/static/none.css": "no-store", "/ui/static/icon.svg": "public, max-age=31536000, immutable", "/favicon.ico": "public, max-age=86400", "/metrics": "",
	} {
		if status, _, h := r.call(t, "GET", path, ""); h.Get("Cache-Control") != want {
			t.Errorf("%s: %d, %q, want %q", path, status, h.Get("Cache-Control"), want)
		}
	}
	r.halt(t)
}

// TestWhoMayUnseal: callers on this machine, and nobody else.
func TestWhoMayUnseal(t *testing.T) {
	type request struct{ remote, host, header, value string }
	for _, c := range []struct {
		request
		want bool
	}{
		{request{"127.0.0.1:5000", "127.0.0.1:8080", "", ""}, true},
		{request{"[::1]:5000", "localhost:8080", "", ""}, true},
		{request{"127.0.0.1:1", "[::1]", "", ""}, true},
		{request{"127.0.0.1:1", "localhost:8080", "Origin", "http://localhost:8080"}, true},
		{request{"192.0.2.1:5000", "127.0.0.1:8080", "", ""}, false},
		{request{"127.0.0.1:5000", "evil.example:8080", "", ""}, false},
		{request{"", "127.0.0.1", "", ""}, false},
		{request{"127.0.0.1:1", "127.0.0.1", "Origin", "https://evil.example"}, false},
		{request{"127.0.0.1:1", "127.0.0.1", "Origin", "null"}, false},
		{request{"127.0.0.1:1", "127.0.0.1", "X-Forwarded-For", "127.0.0.1"}, false},
		{request{"127.0.0.1:1", "127.0.0.1", "Forwarded", "for=127.0.0.1"}, false},
		{request{"127.0.0.1:1", "127.0.0.1", "X-Real-IP", "127.0.0.1"}, false},
		{request{"127.0.0.1:1", "127.0.0.1", "Via", "1.1 proxy"}, false},
		{request{"127.0.0.1:1", "127.0.0.1", "X-Forwarded-Proto", "https"}, false},
		{request{"127.0.0.1:1", "127.0.0.1", "CF-Connecting-IP", "127.0.0.1"}, false},
		{request{"127.0.0.1:1", "127.0.0.1", "True-Client-IP", "127.0.0.1"}, false},
		{request{"127.0.0.1:1", "127.0.0.1", "X-Envoy-External-Address", "127.0.0.1"}, false},
		{request{"127.0.0.1:1", "127.0.0.1", "X-Request-ID", "1"}, true},
	} {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/predictions/x?unseal=true&limit=2", nil)
		r.RemoteAddr, r.Host = c.remote, c.host
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		may, asks, query := false, false, ""
		err := identify(func(c echo.Context) error {
			ctx := c.Request().Context()
			may, asks, query = mayUnseal(ctx), asksUnseal(ctx), c.QueryString()
			return nil
		})(echo.New().NewContext(r, httptest.NewRecorder()))
		if err != nil || may != c.want || !asks || query != "limit=2" {
			t.Errorf("%+v: may %t, asks %t, %q, %v", c.request, may, asks, query, err)
		}
	}
	if mayUnseal(context.Background()) || asksUnseal(context.Background()) {
		t.Error("nobody may unseal")
	}
}
