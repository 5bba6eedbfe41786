package proxy

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/propagation"

	"github.com/pellucid/pellucid/collector"
)

// guard refuses requests that reach a server without authentication by another
// name than the machine's own. The Host check stops a page that rebinds its name
// to 127.0.0.1, the Origin check a page that posts here from elsewhere. It also
// turns a panic of any handler of the shared server into a 500.
func (s *Server) guard(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		start := time.Now()
		defer func() { s.ended(c, start, err) }()
		defer func() {
			if p := recover(); p != nil {
				err = s.Panicked(c.Request().Context(), p)
			}
		}()
		r := c.Request()
		if !ours(r.URL.Path) {
			s.bound(c)
		}
		if _, err := url.ParseQuery(r.URL.RawQuery); err != nil && ours(r.URL.Path) {
			// The rest would be read without what is wrong, as another question.
			return s.turnAway(c, start, fail(http.StatusBadRequest, "read the query: %s", err))
		}
		if s.cfg.AllowNonLoopback || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
			return next(c)
		}
		if !Loopback(r.Host) {
			return s.turnAway(c, start, Forbid("Host header"))
		}
		if origin := r.Header.Get("Origin"); origin != "" && !loopbackOrigin(origin) {
			return s.turnAway(c, start, Forbid("Origin header"))
		}
		return next(c)
	}
}

// turnAway answers a request of which nothing is read but where it goes. If that is a model
// that is served, it is a failed request of the model's, like one that cannot be read.
func (s *Server) turnAway(c echo.Context, start time.Time, why error) error {
	route, model, version := addressed(c)
	if route == "" {
		writeFailure(c, asFailure(why))
		return nil
	}
	k := &call{s: s, c: c, start: start, route: route, rows: 1, captured: "none", turnedAway: true}
	if err := k.identify(); err != nil {
		return err
	}
	k.v = s.known(model, version)
	r := c.Request()
	k.trace(r.Context(), propagation.HeaderCarrier(r.Header))
	k.end(why)
	return nil
}

// addressed is the model that a request is for, and what is asked of it; the route is ""
// where it is for none.
func addressed(c echo.Context) (route collector.Route, model, version string) {
	model, version, err := names(c)
	if err != nil || c.Request().Method != http.MethodPost {
		return "", "", ""
	}
	switch at := strings.TrimPrefix(c.Path(), "/v2/models/:model"); strings.TrimPrefix(at, "/versions/:version") {
	case "/infer", "/generate", "/generate_stream":
		return collector.RouteInfer, model, version
	case "/explain":
		return collector.RouteExplain, model, version
	case "/v1/models/:model":
		model, verb, _ := cutVerb(model)
		return verbs[verb], model, ""
	}
	return "", "", ""
}

// Loopback reports whether host (with or without a port) is this machine's own
// address.
func Loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func loopbackOrigin(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && Loopback(u.Host)
}

// Panicked logs and counts a panic and returns the answer to it. The value of
// the panic may hold anything, so it is not sent, not stored and not logged.
func (s *Server) Panicked(ctx context.Context, r any) error {
	if r == http.ErrAbortHandler { //nolint:errorlint // the sentinel is compared as net/http compares it
		panic(r)
	}
	s.metrics.panics.Add(ctx, 1)
	kind, stack := collector.Panicked(r)
	s.log.ErrorContext(ctx, "panic while serving a request", "panic", kind, "stack", strings.Join(stack, "\n"))
	return fail(http.StatusInternalServerError, "internal error")
}
