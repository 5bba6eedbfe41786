package dashboards

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
)

const week = 7 * 24 * time.Hour

// steps are the widths people may cut a window in.
var steps = []string{"1m", "5m", "1h", "6h", "1d", "7d"}

// spanForm is the form that chooses a window, and short ways to usual ones.
type spanForm struct {
	Path, From, To, Step, Version string
	Steps                         []string
	Presets                       []preset
}

type preset struct{ Name, URL string }

// window reads the page's window. Where nothing was asked for it is the newest
// week that has predictions: event time may lie far in the past.
func (s *server) window(c echo.Context, v *collector.ModelVersion) (api.Window, spanForm, error) {
	w := api.Window{Tenant: collector.DefaultTenant, Model: v.Name, Version: v.Version}
	first, last, err := s.Sources.Extent(c.Request().Context(), w.Tenant, v.Name, v.Version)
	if err != nil {
		return w, spanForm{}, err
	}
	if last.IsZero() {
		last = s.Sources.Now()
		first = last.Add(-time.Hour)
	}
	end := last.Truncate(time.Minute).Add(time.Minute)
	if w.From, w.To, err = api.ParseSpan(c); err != nil {
		return w, spanForm{}, err
	}
	if w.To.IsZero() {
		w.To = end
	}
	if w.From.IsZero() {
		w.From = w.To.Add(-week)
		if first.After(w.From) {
			w.From = first.Truncate(time.Minute)
		}
	}
	if !w.From.Before(w.To) {
		w.From = w.To.Add(-time.Minute)
	}
	step := c.QueryParam("step")
	if step == "" {
		step = fit(w.To.Sub(w.From))
	}
	if w.Step, err = api.ParseStep(step); err != nil {
		return w, spanForm{}, api.BadRequest(err)
	}
	if w.To.Sub(w.From)/w.Step > 2000 {
		return w, spanForm{}, api.BadRequest(fmt.Errorf("a step of %s cuts this window in more than 2000 pieces", step))
	}
	f := spanForm{
		Path: c.Request().URL.Path, From: stamp(w.From), To: stamp(w.To), Step: step,
		Version: c.QueryParam("version"), Steps: steps,
	}
	f.Presets = presets(f, first, end)
	return w, f, nil
}

// fit chooses a step that gives a page some dozens of points.
func fit(d time.Duration) string {
	switch {
	case d <= 2*time.Hour:
		return "1m"
	case d <= 12*time.Hour:
		return "5m"
	case d <= 4*24*time.Hour:
		return "1h"
	case d <= 14*24*time.Hour:
		return "6h"
	case d <= 70*24*time.Hour:
		return "1d"
	}
	return "7d"
}

func presets(f spanForm, first, end time.Time) []preset {
	var out []preset
	add := func(name string, from time.Time) {
		q := url.Values{"from": {stamp(from)}, "to": {stamp(end)}, "step": {fit(end.Sub(from))}}
		if f.Version != "" {
			q.Set("version", f.Version)
		}
		out = append(out, preset{name, f.Path + "?" + q.Encode()})
	}
	for _, p := range []struct {
		name string
		d    time.Duration
	}{{"last day", 24 * time.Hour}, {"last week", week}, {"last 4 weeks", 4 * week}} {
		if end.Sub(first) > p.d {
			add(p.name, end.Add(-p.d))
		}
	}
	add("everything", first.Truncate(time.Minute))
	return out
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// version finds the version a page is about.
func (s *server) version(ctx context.Context, name, version string) (*collector.ModelVersion, []string, error) {
	var versions []string
	var found *collector.ModelVersion
	for _, v := range s.Sources.Models() {
		if v.Name != name {
			continue
		}
		versions = append(versions, v.Version)
		if version == "" || v.Version == version {
			found = v
		}
	}
	if found == nil {
		for _, st := range s.Sources.States(ctx) {
			if st.Name == name && (version == "" || st.Version == version) && st.Reason != "" {
				return nil, nil, api.Conflict(fmt.Errorf("model %q version %q does not answer: %s", name, st.Version, st.Reason))
			}
		}
		return nil, nil, fmt.Errorf("model %q version %q: %w", name, version, collector.ErrNotFound)
	}
	return found, versions, nil
}
