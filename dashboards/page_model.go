package dashboards

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/dashboards/plots"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// figure is one named number.
type figure struct {
	Name  string
	Value float64
}

type modelPage struct {
	frame
	Name, Version, Digest, Format string
	Task                          engine.Task
	Details                       []engine.Detail
	Versions                      []string
	Closed                        string
	Private                       map[string]collector.Privacy
	Form                          spanForm
	Total                         api.TrafficPoint
	Drift                         stats.Report
	DriftState                    stats.State
	DriftText, DriftBasis         string
	Heat                          heat
	Bins                          *api.Bins
	BinsPlot                      figureView
	Performance                   api.Performance
	PerformanceState              string
	PerformanceChart              *chart
	Metrics                       []figure
	Charts                        []chart
}

// heat is the table of PSI by feature and time.
type heat struct {
	Columns []string
	Rows    []heatRow
}

type heatRow struct {
	Name, URL string
	Cells     []heatCell
	Window    heatCell
}

type heatCell struct{ Class, Text, Title, Raw string }

func (s *server) model(c echo.Context) error {
	ctx := c.Request().Context()
	name, err := api.Param(c, "model")
	if err != nil {
		return s.problem(c, err)
	}
	v, versions, err := s.version(ctx, name, c.QueryParam("version"))
	if err != nil {
		return s.problem(c, err)
	}
	w, form, err := s.window(c, v)
	if err != nil {
		return s.problem(c, err)
	}
	p := modelPage{
		frame: s.frame(c, v.Name, "model"), Name: v.Name, Version: v.Version, Digest: v.Digest,
		Format: v.Info.Format, Task: v.Info.Task, Details: v.Info.Details, Versions: versions, Form: form,
	}
	for _, st := range s.Sources.States(ctx) {
		if st.Name == v.Name && st.Version == v.Version {
			p.Private = st.Private
			if p.Closed = st.Reason; p.Closed == "" && st.State != "READY" {
				p.Closed = st.State
			}
		}
	}
	points, err := s.Sources.Traffic(ctx, w)
	if err != nil {
		return s.problem(c, err)
	}
	p.Charts = trafficCharts(points)
	if p.Total, err = s.total(c, w); err != nil {
		return s.problem(c, err)
	}
	if p.Drift, err = s.Sources.Drift(ctx, w); err != nil {
		return s.problem(c, err)
	}
	p.DriftState, p.DriftText = driftWords(p.Drift)
	p.DriftBasis, p.Heat = basis(p.Drift), heatOf(p.Drift, c.Request().URL)
	if err := s.bins(c, w, &p); err != nil {
		return s.problem(c, err)
	}
	if p.Performance, err = s.Sources.Performance(ctx, w); err != nil {
		return s.problem(c, err)
	}
	p.PerformanceState, p.PerformanceChart = measured(p.Performance.State), performanceChart(p.Performance)
	for _, name := range slices.Sorted(maps.Keys(p.Performance.Metrics)) {
		p.Metrics = append(p.Metrics, figure{name, p.Performance.Metrics[name]})
	}
	return s.render(c, http.StatusOK, "model", p)
}

// measured is the state of a performance in words: that it could be computed says nothing
// of whether it is good.
func measured(s stats.State) string {
	if s == stats.StateOK {
		return "measured"
	}
	return string(s)
}

// total asks for the whole window at once: quantiles of steps do not add up.
func (s *server) total(c echo.Context, w api.Window) (api.TrafficPoint, error) {
	w.Step = 0
	points, err := s.Sources.Traffic(c.Request().Context(), w)
	if err != nil || len(points) == 0 {
		return api.TrafficPoint{}, err
	}
	return points[0], nil
}

func (s *server) bins(c echo.Context, w api.Window, p *modelPage) error {
	feature := c.QueryParam("feature")
	if feature == "" || p.Drift.State == stats.StateNoReference {
		return nil
	}
	b, err := s.Sources.Bins(c.Request().Context(), w, feature)
	if err != nil {
		return err
	}
	p.BinsPlot, err = draw(760, func(o plots.Options) ([]byte, error) { return plots.ReferenceVsCurrent(b.Feature, shares(b), o) })
	p.Bins = &b
	return err
}

// shares turns a feature's counts into parts of their sums.
func shares(b api.Bins) []plots.Share {
	sum := func(counts []float64) float64 {
		t := 0.0
		for _, c := range counts {
			t += c
		}
		return max(t, 1e-300)
	}
	ref, cur := sum(b.Reference), sum(b.Current)
	out := make([]plots.Share, len(b.Labels))
	for i, l := range b.Labels {
		out[i] = plots.Share{Label: l, Reference: b.Reference[i] / ref, Current: b.Current[i] / cur}
	}
	return out
}

// basis says what a drift report rests on.
func basis(r stats.Report) string {
	s := fmt.Sprintf("%s rows in the window, %s in the reference", number(r.Rows.Current), number(r.Rows.Reference))
	if r.Provisional {
		s += " (provisional: made of the version's own first rows)"
	}
	return s
}

func heatOf(r stats.Report, here *url.URL) heat {
	var h heat
	layout := columnLayout(r.Chunks)
	for _, c := range r.Chunks {
		text := "–"
		if c.Start != nil {
			text = c.Start.UTC().Format(layout)
		}
		h.Columns = append(h.Columns, text)
	}
	for i := range r.Features {
		f := &r.Features[i]
		row := heatRow{Name: f.Name, URL: featureURL(here, f.Name), Window: cellOf(f, "window")}
		for k, c := range r.Chunks {
			row.Cells = append(row.Cells, cellOf(find(c.Features, f.Name), h.Columns[k]))
		}
		h.Rows = append(h.Rows, row)
	}
	slices.SortStableFunc(h.Rows, func(a, b heatRow) int { return cmp.Compare(number64(b.Window.Raw), number64(a.Window.Raw)) })
	return h
}

// columnLayout writes as much of a column's time as tells it from the others.
func columnLayout(chunks []stats.Chunk) string {
	if len(chunks) == 0 {
		return time.DateOnly
	}
	first, last := chunks[0].Start, chunks[len(chunks)-1].Start
	switch {
	case len(chunks) > 1 && span(chunks) < 24*time.Hour:
		return "01-02 15:04"
	case len(chunks) > 1 && first != nil && last != nil && first.Year() == last.Year():
		return "01-02"
	}
	return time.DateOnly
}

func span(chunks []stats.Chunk) time.Duration {
	a, b := chunks[0].Start, chunks[1].Start
	if a == nil || b == nil {
		return 0
	}
	return b.Sub(*a)
}

func number64(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return -1
	}
	return f
}

func featureURL(here *url.URL, name string) string {
	q := here.Query()
	q.Set("feature", name)
	return here.Path + "?" + q.Encode() + "#bins"
}

func find(list []stats.FieldDrift, name string) *stats.FieldDrift {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

func cellOf(f *stats.FieldDrift, where string) heatCell {
	if f == nil {
		return heatCell{Class: "hn", Text: "–", Title: where + ": no rows"}
	}
	t, ok := f.Tests[stats.PSI]
	if !ok || known(t.Value) == nil {
		return heatCell{Class: "hn", Text: "–", Title: where + ": " + cmp.Or(f.Reason, "no value")}
	}
	c := heatCell{
		Text: strconv.FormatFloat(t.Value, 'f', 2, 64), Raw: strconv.FormatFloat(t.Value, 'g', -1, 64), Class: "h0",
		Title: fmt.Sprintf("%s, %s: PSI %.4f, threshold %.4f", f.Name, where, t.Value, t.Threshold),
	}
	switch {
	case f.State == stats.StateNoData:
		c.Class, c.Title = "hn", c.Title+" ("+f.Reason+")"
	case t.Drifted:
		c.Class = "h2"
	case t.Value > t.Threshold/2:
		c.Class = "h1"
	}
	return c
}

// card is one model on the overview.
type card struct {
	Name, Version, Format, DriftText, Performance, Span string
	Task                                                engine.Task
	Rows, Errors, P50, P99                              float64
	Drift                                               stats.State
	Firing                                              int
}

func (s *server) overview(c echo.Context) error {
	page := struct {
		frame
		Cards  []card
		Broken []collector.ModelState
		Lag    string
		Late   bool
	}{frame: s.frame(c, "Overview", "overview")}
	page.Lag, page.Late = age(page.Status.Lag), page.Status.LagLimit > 0 && page.Status.Lag > page.Status.LagLimit
	newest := map[string]*collector.ModelVersion{}
	for _, v := range s.Sources.Models() {
		newest[v.Name] = v
	}
	for _, name := range slices.Sorted(maps.Keys(newest)) {
		one, err := s.card(c, newest[name])
		if err != nil {
			return s.problem(c, err)
		}
		page.Cards = append(page.Cards, one)
	}
	for _, st := range s.Sources.States(c.Request().Context()) {
		if st.State != "READY" || st.Reason != "" {
			page.Broken = append(page.Broken, st)
		}
	}
	return s.render(c, http.StatusOK, "overview", page)
}

// card sums up the newest week of a model.
func (s *server) card(c echo.Context, v *collector.ModelVersion) (card, error) {
	ctx := c.Request().Context()
	k := card{Name: v.Name, Version: v.Version, Format: v.Info.Format, Task: v.Info.Task}
	w := api.Window{Tenant: collector.DefaultTenant, Model: v.Name, Version: v.Version}
	_, last, err := s.Sources.Extent(ctx, w.Tenant, v.Name, v.Version)
	if err != nil {
		return k, err
	}
	if last.IsZero() {
		k.Drift, k.Span = stats.StateNoData, "no prediction yet"
		return k, nil
	}
	w.To = last.Truncate(time.Minute).Add(time.Minute)
	w.From = w.To.Add(-week)
	k.Span = "the week to " + when(w.To)
	t, err := s.total(c, w)
	if err != nil {
		return k, err
	}
	k.Rows, k.Errors, k.P50, k.P99 = t.Rows, t.Errors, orNaN(t.P50MS), orNaN(t.P99MS)
	r, err := s.Sources.Drift(ctx, w)
	if err != nil {
		return k, err
	}
	k.Drift, k.DriftText = driftWords(r)
	p, err := s.Sources.Performance(ctx, w)
	if err != nil {
		return k, err
	}
	for _, name := range []string{"auc", "accuracy", "rmse"} {
		if m, ok := p.Metrics[name]; ok {
			k.Performance = fmt.Sprintf("%s %s over %s labelled rows", name, metric(m), number(p.Rows.Labelled))
			break
		}
	}
	for _, a := range s.Sources.Alerts() {
		if a.Model == v.Name && a.State == alerts.Firing {
			k.Firing++
		}
	}
	return k, nil
}

func driftWords(r stats.Report) (stats.State, string) {
	drifted := 0
	for i := range r.Features {
		if r.Features[i].State == stats.StateDrifted {
			drifted++
		}
	}
	switch {
	case len(r.Features) == 0 || r.State == stats.StateNoData || r.State == stats.StateNoReference:
		return r.State, r.Reason
	case drifted > 0:
		return stats.StateDrifted, fmt.Sprintf("%d of %d signals drifted", drifted, len(r.Features))
	}
	return r.State, fmt.Sprintf("none of %d signals drifted", len(r.Features))
}
