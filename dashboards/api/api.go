package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// maxLimit bounds one page of a listing, which has defaultLimit where nothing is
// asked; maxChunks one series; maxStep the width
// of its chunks.
const (
	defaultLimit = 100
	maxLimit     = 1000
	maxChunks    = 5000
	maxStep      = 10_000 * 24 * time.Hour
)

// MaxExternalID is how many bytes a caller's own id of a row may have: none is recorded
// with more.
const MaxExternalID = 1024

// Register puts the routes on e. Errors are answered as {"error": "..."}.
func Register(e *echo.Echo, s *Sources) {
	h := handlers{s}
	e.GET("/api/v1/models", h.models)
	e.GET("/api/v1/models/:model/drift", h.drift)
	e.GET("/api/v1/models/:model/performance", h.performance)
	e.GET("/api/v1/models/:model/traffic", h.traffic)
	e.GET("/api/v1/predictions", h.predictions)
	e.GET("/api/v1/alerts", h.pastAlerts)
	e.GET("/api/v1/rules", h.rules)
	e.GET("/api/v2/alerts", h.alerts)
	registerDead(e, h)
}

type handlers struct{ *Sources }

// answer sends v, or err with the status that fits it.
func answer(c echo.Context, v any, err error) error {
	if err == nil {
		return c.JSON(http.StatusOK, v)
	}
	return c.JSON(StatusOf(err), map[string]string{"error": err.Error()})
}

// badRequest marks an error as the caller's.
type badRequest struct{ error }

// BadRequest marks err as the caller's mistake, so that it is answered as 400.
func BadRequest(err error) error { return badRequest{err} }

// conflict marks an error as one of the server's state, which waiting does not mend.
type conflict struct{ error }

func (c conflict) Unwrap() error { return c.error }

// Conflict marks err as one that the server's state has to be changed for, so that it is
// answered as 409.
func Conflict(err error) error { return conflict{err} }

// StatusOf returns the HTTP status that an error deserves.
func StatusOf(err error) int {
	var bad badRequest
	var state conflict
	var gone *collector.GoneError
	switch {
	case errors.As(err, &state):
		return http.StatusConflict
	case errors.As(err, &bad):
		return http.StatusBadRequest
	case errors.As(err, &gone):
		return http.StatusServiceUnavailable
	case errors.Is(err, collector.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, collector.ErrRefused):
		return http.StatusUnprocessableEntity
	case errors.Is(err, collector.ErrUnavailable), errors.Is(err, collector.ErrNotReady), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return http.StatusServiceUnavailable
	case errors.Is(err, collector.ErrBadQuery):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

func (h handlers) models(c echo.Context) error {
	if err := Known(c); err != nil {
		return answer(c, nil, err)
	}
	return answer(c, map[string]any{"models": h.States(c.Request().Context())}, nil)
}

func (h handlers) drift(c echo.Context) error {
	w, err := ParseWindow(c)
	if err != nil {
		return answer(c, nil, err)
	}
	r, err := h.Drift(c.Request().Context(), w)
	return answer(c, r, err)
}

func (h handlers) performance(c echo.Context) error {
	w, err := ParseWindow(c)
	if err != nil {
		return answer(c, nil, err)
	}
	p, err := h.Performance(c.Request().Context(), w)
	return answer(c, p, err)
}

func (h handlers) traffic(c echo.Context) error {
	w, err := ParseWindow(c)
	if err != nil {
		return answer(c, nil, err)
	}
	t, err := h.Traffic(c.Request().Context(), w)
	return answer(c, map[string]any{"chunks": t}, err)
}

func (h handlers) predictions(c echo.Context) error {
	q, err := ParseQuery(c)
	if err != nil {
		return answer(c, nil, err)
	}
	count := false
	switch s := c.QueryParam("count"); s {
	case "", "false":
	case "true":
		count = true
	default:
		return answer(c, nil, badRequest{fmt.Errorf("count %q is not true or false", s)})
	}
	if count {
		n, err := h.Count(c.Request().Context(), q)
		return answer(c, map[string]int64{"count": n}, err)
	}
	p, err := h.List(c.Request().Context(), q)
	return answer(c, p, err)
}

func (h handlers) pastAlerts(c echo.Context) error {
	q, err := ParseAlertQuery(c)
	if err != nil {
		return answer(c, nil, err)
	}
	p, err := h.PastAlerts(c.Request().Context(), q)
	return answer(c, p, err)
}

func (h handlers) rules(c echo.Context) error {
	if err := Known(c); err != nil {
		return answer(c, nil, err)
	}
	return answer(c, map[string]any{"rules": h.Rules()}, nil)
}

func (h handlers) alerts(c echo.Context) error {
	// Alertmanager's clients ask for unprocessed alerts too, of which there are none.
	if err := Known(c, "filter...", "receiver", "active", "silenced", "inhibited", "unprocessed"); err != nil {
		return c.JSON(http.StatusBadRequest, err.Error())
	}
	f := alerts.Filter{Matchers: c.QueryParams()["filter"], Receiver: c.QueryParam("receiver")}
	for name, to := range map[string]**bool{"active": &f.Active, "silenced": &f.Silenced, "inhibited": &f.Inhibited} {
		if s := c.QueryParam(name); s != "" {
			on, err := strconv.ParseBool(s)
			if err != nil {
				return c.JSON(http.StatusBadRequest, fmt.Sprintf("%s %q is not true or false", name, s))
			}
			*to = &on
		}
	}
	list, err := alerts.Gettable(h.Alerts(), h.Receivers, f)
	if err != nil {
		return c.JSON(http.StatusBadRequest, err.Error()) // Alertmanager's errors are bare strings
	}
	return c.JSON(http.StatusOK, list)
}

// ParseWindow reads model, version, from, to, step, tests and segment. Unknown
// parameters are refused, so that a misspelt bound is not a wrong answer.
func ParseWindow(c echo.Context) (Window, error) {
	w := Window{Tenant: collector.DefaultTenant, Version: c.QueryParam("version"), Segment: c.QueryParam("segment")}
	if err := Known(c, "version", "from", "to", "step", "tests", "segment"); err != nil {
		return w, err
	}
	var err error
	if w.Model, err = Param(c, "model"); err != nil {
		return w, err
	}
	if w.From, w.To, err = ParseSpan(c); err != nil {
		return w, err
	}
	if s := c.QueryParam("step"); s != "" {
		if w.Step, err = ParseStep(s); err != nil {
			return w, badRequest{err}
		}
	}
	if s := c.QueryParam("tests"); s != "" {
		if w.Tests, err = stats.ParseTests(s); err != nil {
			return w, badRequest{err}
		}
	}
	return w, w.Bounded()
}

// Bounded refuses a window, wrapping collector.ErrBadQuery, whose step cuts it in
// more chunks than one answer may have. A window with an open end is not judged:
// whoever closes it asks again.
func (w *Window) Bounded() error {
	if w.Step <= 0 || w.From.IsZero() || w.To.IsZero() || w.To.Sub(w.From)/w.Step <= maxChunks {
		return nil
	}
	return fmt.Errorf("%w: a step of %s cuts %s to %s in more than %d chunks: give from and to, or a longer step",
		collector.ErrBadQuery, w.Step, w.From.Format(time.RFC3339), w.To.Format(time.RFC3339), maxChunks)
}

// Param returns a part of the path in clear: the router matches, and hands out,
// the escaped path where the two differ.
func Param(c echo.Context, name string) (string, error) {
	s := c.Param(name)
	if c.Request().URL.RawPath == "" {
		return s, nil
	}
	clear, err := url.PathUnescape(s)
	if err != nil {
		return "", badRequest{err}
	}
	return clear, nil
}

// ParseStep reads the width of a chunk: 1h, 1d, 2w; whole minutes.
func ParseStep(s string) (time.Duration, error) {
	d, err := stats.ParseDuration(s)
	if err != nil || d < time.Minute || d > maxStep || d%time.Minute != 0 {
		return 0, fmt.Errorf("step %q is not a duration of whole minutes, such as 1h, 1d, 2w", s)
	}
	return d, nil
}

// ParseQuery reads model, version, from, to, external_id, where, limit and cursor.
func ParseQuery(c echo.Context) (collector.Query, error) {
	q := collector.Query{
		Tenant: collector.DefaultTenant, Model: c.QueryParam("model"), Version: c.QueryParam("version"),
		ExternalID: c.QueryParam("external_id"), Where: c.QueryParam("where"), Cursor: c.QueryParam("cursor"), Limit: defaultLimit,
	}
	if err := Known(c, "model", "version", "from", "to", "external_id", "where", "limit", "cursor", "count"); err != nil {
		return q, err
	}
	if len(q.ExternalID) > MaxExternalID {
		return q, badRequest{fmt.Errorf("external_id is longer than %d bytes, which none is", MaxExternalID)}
	}
	var err error
	if q.From, q.To, err = ParseSpan(c); err != nil {
		return q, err
	}
	q.Limit, err = parseLimit(c)
	return q, err
}

// ParseAlertQuery reads model, rule, state, from, to, limit and cursor.
func ParseAlertQuery(c echo.Context) (AlertQuery, error) {
	q := AlertQuery{
		Tenant: collector.DefaultTenant, Model: c.QueryParam("model"), Rule: c.QueryParam("rule"), State: c.QueryParam("state"),
		Cursor: c.QueryParam("cursor"), Limit: defaultLimit,
	}
	if err := Known(c, "model", "rule", "state", "from", "to", "limit", "cursor"); err != nil {
		return q, err
	}
	switch alerts.State(q.State) {
	case "", alerts.Firing, alerts.Resolved:
	default:
		return q, badRequest{fmt.Errorf("state %q is neither firing nor resolved", q.State)}
	}
	var err error
	if q.From, q.To, err = ParseSpan(c); err != nil {
		return q, err
	}
	q.Limit, err = parseLimit(c)
	return q, err
}

// parseLimit reads how long one page of a listing may be.
func parseLimit(c echo.Context) (int, error) {
	s := c.QueryParam("limit")
	if s == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxLimit {
		return defaultLimit, badRequest{fmt.Errorf("limit %q is not between 1 and %d", s, maxLimit)}
	}
	return n, nil
}

// Known refuses a query that is malformed, as the router itself drops what it
// cannot read and the rest would be another question, one with a parameter that is
// not among names, and one that has a parameter twice. A name that ends in "..."
// may be there any number of times.
func Known(c echo.Context, names ...string) error {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return badRequest{fmt.Errorf("read the query: %w", err)}
	}
	for name, values := range query {
		switch {
		case slices.Contains(names, name+"..."):
		case !slices.Contains(names, name):
			return badRequest{fmt.Errorf("unknown parameter %q", name)}
		case len(values) > 1:
			return badRequest{fmt.Errorf("parameter %q is there %d times", name, len(values))}
		}
	}
	return nil
}

// ParseSpan reads from and to, which bound event time.
func ParseSpan(c echo.Context) (from, to time.Time, err error) {
	if from, err = parseTime(c, "from"); err != nil {
		return from, to, err
	}
	if to, err = parseTime(c, "to"); err != nil {
		return from, to, err
	}
	if !from.IsZero() && !to.IsZero() && !from.Before(to) {
		return from, to, badRequest{errors.New("from is not before to")}
	}
	return from, to, nil
}

// parseTime reads a parameter's time; an absent one is zero.
func parseTime(c echo.Context, name string) (time.Time, error) {
	s := c.QueryParam(name)
	if s == "" {
		return time.Time{}, nil
	}
	t, err := ParseTime(s)
	if err != nil {
		return t, badRequest{fmt.Errorf("%s %w", name, err)}
	}
	return t, nil
}

// The span of event time that can be recorded.
var (
	earliest = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// ParseTime takes RFC 3339, or a date, which is its midnight in UTC, from 1970 to
// 2100: no prediction has another, and a bound of another would read as none.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		t, err = time.Parse(time.RFC3339Nano, s)
	}
	// time.Parse takes more than RFC 3339: a comma, an hour of one digit.
	if err != nil || strings.Contains(s, ",") || len(s) > len(time.DateOnly) && s[13] != ':' {
		return time.Time{}, fmt.Errorf("%q is not an RFC 3339 time or a date", s)
	}
	if t = t.UTC(); t.Before(earliest) || t.After(latest) {
		return time.Time{}, fmt.Errorf("%q lies outside 1970 to 2100", s)
	}
	return t, nil
}
