package dashboards

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/dashboards/plots"
	"github.com/pellucid/pellucid/dashboards/report"
)

func (s *server) predictions(c echo.Context) error {
	page := struct {
		frame
		Models            []string
		Query             collector.Query
		From, To, Problem string
		Rows              []collector.StoredPrediction
		CountF            int64
		OlderURL          string
		NewestURL         string
	}{frame: s.frame(c, "Predictions", "predictions"), From: c.QueryParam("from"), To: c.QueryParam("to")}
	for _, v := range s.Sources.Models() {
		if !slices.Contains(page.Models, v.Name) {
			page.Models = append(page.Models, v.Name)
		}
	}
	q, err := api.ParseQuery(c)
	q.Limit = min(q.Limit, 50)
	page.Query = q
	if err == nil {
		var found collector.Page
		if found, err = s.Sources.List(c.Request().Context(), q); err == nil {
			page.Rows, page.OlderURL, page.NewestURL = found.Predictions, older(c.Request().URL, found.Next), newest(c.Request().URL)
			page.CountF, err = s.Sources.Count(c.Request().Context(), q)
		}
	}
	status := http.StatusOK
	if err != nil {
		status, page.Problem = api.StatusOf(err), err.Error()
	}
	return s.render(c, status, "predictions", page)
}

// find sends a typed id to its page.
func (s *server) find(c echo.Context) error {
	return c.Redirect(http.StatusSeeOther, "/ui/predictions/"+url.PathEscape(strings.TrimSpace(c.QueryParam("id"))))
}

// pair is a name with a value written out.
type pair struct{ Name, Value string }

// spanRow is one line of the waterfall; X and W are in thousandths of the whole.
type spanRow struct {
	Name, Service string
	MS            float64
	Depth         int
	X, W          int
}

type predictionPage struct {
	frame
	// Rows are those of a request of several that stand on this page, from the row
	// First on; Of is how many it has.
	Rows                 []collector.StoredPrediction
	First, Last, Of      int
	EarlierURL, LaterURL string
	// Shared says that several models have a prediction of this id.
	Shared bool
	// P is the one prediction. Its pages are shown with sealed values where this one is.
	P          *collector.StoredPrediction
	ExplainURL string
	// ReportURL is empty where the report would show what the caller may not see, and
	// ReportShows says what it shows that the page may not.
	ReportURL, ReportShows string
	SealedURL, UnsealedURL string
	Outputs, Features      []fieldRow
	// NoFeatures says why none are stored, Unexplained why it cannot be explained.
	NoFeatures, Unexplained string
	Privacy                 api.Privacy
	Stages                  []pair
	Methods                 []string
	Spans                   []spanRow
	Explanation             template.HTML
}

// fieldRow is a feature or an output; Mark and Means say what is done to a private one.
type fieldRow struct{ Name, Value, Mark, Means string }

// means explains the marks of private fields.
var means = map[string]string{
	"drop":    "private: never stored",
	"mask":    "private: only that there was a value is stored",
	"hash":    "private: stored as a keyed hash; a filter takes the clear value",
	"bucket":  "private: stored rounded to its first digit",
	"seal":    "private: stored encrypted",
	"pattern": "a pattern took something private out of the text",
}

// link leads to a prediction's page. An id that was made elsewhere may be one in other
// models too.
func link(p collector.StoredPrediction) string { return linkIn(p, p.Route == collector.RouteImported) }

func linkIn(p collector.StoredPrediction, model bool) string {
	u := "/ui/predictions/" + url.PathEscape(p.ID)
	if model {
		u += "?" + url.Values{"model": {p.Model}}.Encode()
	}
	return u
}

func (s *server) prediction(c echo.Context) error {
	p, err := s.loadPrediction(c)
	if errors.Is(err, collector.ErrNotFound) {
		var list string
		if list, err = s.ofExternalID(c, err); list != "" {
			return c.Redirect(http.StatusSeeOther, list)
		}
	}
	if err != nil {
		return s.problem(c, err)
	}
	return s.render(c, http.StatusOK, "prediction", p)
}

func (s *server) loadPrediction(c echo.Context) (*predictionPage, error) {
	ctx := c.Request().Context()
	ref, err := refOf(c)
	if err != nil {
		return nil, err
	}
	rows, err := s.Sources.Prediction(ctx, ref)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("prediction %q: %w", ref.ID, collector.ErrNotFound)
	}
	page := &predictionPage{frame: s.frame(c, "Prediction", "predictions"), Rows: rows, Of: len(rows)}
	page.Shared = slices.ContainsFunc(rows, func(p collector.StoredPrediction) bool { return p.Model != rows[0].Model })
	if len(rows) > 1 {
		return page, page.turn(c)
	}
	page.P = &rows[0]
	if page.Privacy, err = s.Sources.Privacy(ctx, page.P); err != nil {
		return nil, err
	}
	page.Outputs, page.Features = fieldRows(page.P.Outputs, page.Privacy.Outputs), fieldRows(page.P.Features, page.Privacy.Features)
	if len(page.P.Features) == 0 && (len(page.Features) == 0 || page.P.Capture != collector.CaptureFull && page.P.Capture != collector.CaptureInputs) {
		page.Features, page.NoFeatures = nil, noFeatures(page.P)
	}
	page.Unexplained = unexplained(page.P, page.Privacy)
	page.setURLs(ref)
	page.Stages = stagesOf(page.P.LatencyMS)
	for _, v := range s.Sources.Models() {
		if v.Digest == page.P.Digest {
			page.Methods = s.Methods(v)
		}
	}
	spans, err := s.Sources.Spans(ctx, page.P.TraceID)
	if err != nil {
		return nil, err
	}
	page.Spans = waterfall(spans)
	return page, nil
}

// refOf reads which prediction a page is about.
func refOf(c echo.Context) (collector.Ref, error) {
	id, err := api.Param(c, "id")
	return collector.Ref{Tenant: collector.DefaultTenant, Model: c.QueryParam("model"), ID: id}, err
}

// ofExternalID leads from an id that no prediction has to those of which it is the
// caller's own; without any it returns the error it was given.
func (s *server) ofExternalID(c echo.Context, missing error) (string, error) {
	ref, err := refOf(c)
	if err != nil {
		return "", err
	}
	if len(ref.ID) > api.MaxExternalID {
		return "", missing
	}
	n, err := s.Sources.Count(c.Request().Context(), collector.Query{Tenant: ref.Tenant, Model: ref.Model, ExternalID: ref.ID})
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", missing
	}
	q := url.Values{"external_id": {ref.ID}}
	if ref.Model != "" {
		q.Set("model", ref.Model)
	}
	return "/ui/predictions?" + q.Encode(), nil
}

// setURLs leads from a prediction's page to what is of the same prediction, shown in the
// same way.
func (p *predictionPage) setURLs(ref collector.Ref) {
	at := func(below string, unseal bool) string {
		q := url.Values{}
		if ref.Model != "" || p.P.Route == collector.RouteImported {
			q.Set("model", p.P.Model)
		}
		if unseal {
			q.Set("unseal", "true")
		}
		u := "/ui/predictions/" + url.PathEscape(p.P.ID) + below
		if len(q) > 0 {
			u += "?" + q.Encode()
		}
		return u
	}
	// An explanation has the values in it: with sealed ones there is none without them.
	p.ExplainURL = at("/explain", p.Privacy.Sealed && p.Privacy.MayUnseal)
	p.SealedURL, p.UnsealedURL = at("", false), at("", true)
	switch {
	case !p.Privacy.Sealed:
		p.ReportURL = at("/report", false)
	case p.Privacy.MayUnseal:
		// There is none without the values that the explanation is of.
		p.ReportURL, p.ReportShows = at("/report", true), "shows sealed values; the audit log records it"
	}
}

// noFeatures says why a prediction has none.
func noFeatures(p *collector.StoredPrediction) string {
	switch {
	case p.Status >= http.StatusBadRequest:
		return "No features are stored: the request failed."
	case p.Capture == collector.CaptureSampled:
		return "No features are stored: a rule of capture.sample left them out of this prediction. Its outputs, score, status and times are here, and drift, labels and performance count it as any other."
	case p.Capture == collector.CaptureCut:
		return "No features are stored: they were larger than capture.body allows."
	case p.Capture == collector.CaptureFull:
		return "The request brought no features."
	}
	return "No features are stored (" + p.Capture + ")."
}

// unexplained says why a prediction cannot be explained from what is stored of it.
func unexplained(p *collector.StoredPrediction, private api.Privacy) string {
	for _, name := range slices.Sorted(maps.Keys(private.Features)) {
		switch how := private.Features[name]; how {
		case "drop", "mask", "hash", "bucket":
			return "It cannot be explained: feature " + strconv.Quote(name) + " is private (" + how + "), so what the model saw is not stored."
		}
	}
	switch {
	case p.Status >= http.StatusBadRequest:
		return "It failed, so there is nothing to explain."
	case p.Capture == collector.CaptureRedacted:
		return "It cannot be explained: capture.patterns took something out of its features, so what the model saw is not stored."
	case p.Capture == collector.CaptureSampled, p.Capture == collector.CaptureCut, p.Capture == collector.CaptureNone:
		return "It cannot be explained: what the model saw is not stored. Send its features to be explained, or keep them with a rule of capture.sample."
	case private.Sealed && !private.MayUnseal:
		return "Its explanation would show sealed values, which are shown to callers on the server's own machine only."
	}
	return ""
}

// pageOfRows is how many rows of one request stand on one page.
const pageOfRows = 100

// turn leaves on the page of a request's rows those from the one asked for on.
func (p *predictionPage) turn(c echo.Context) error {
	from := 0
	if s := c.QueryParam("row"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n >= p.Of {
			return api.BadRequest(fmt.Errorf("row %q is not between 0 and %d", s, p.Of-1))
		}
		from = n
	}
	to := min(from+pageOfRows, p.Of)
	p.Rows, p.First, p.Last = p.Rows[from:to], from, to-1
	at := func(row int) string {
		q := c.QueryParams()
		q.Set("row", strconv.Itoa(row))
		return c.Request().URL.EscapedPath() + "?" + q.Encode()
	}
	if from > 0 {
		p.EarlierURL = at(max(0, from-pageOfRows))
	}
	if to < p.Of {
		p.LaterURL = at(to)
	}
	return nil
}

// stagesOf lists latencies in the order in which a request passes the stages.
func stagesOf(latency map[string]float64) []pair {
	order := []string{"decode", "model", "encode", "capture", "total"}
	var out []pair
	for _, k := range slices.SortedFunc(maps.Keys(latency), func(a, b string) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a), slices.Index(order, b)), cmp.Compare(a, b))
	}) {
		out = append(out, pair{k, ms(latency[k])})
	}
	return out
}

// fieldRows lists values by name, and those of which none is stored.
func fieldRows(m map[string]any, private map[string]string) []fieldRow {
	out := make([]fieldRow, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fieldRow{k, value(m[k]), private[k], means[private[k]]})
	}
	for _, k := range slices.Sorted(maps.Keys(private)) {
		if _, there := m[k]; !there {
			out = append(out, fieldRow{k, "not stored", private[k], means[private[k]]})
		}
	}
	slices.SortFunc(out, func(a, b fieldRow) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// waterfall orders spans as a tree and places each on the trace's own time.
func waterfall(spans []api.Span) []spanRow {
	if len(spans) == 0 {
		return nil
	}
	first, last := spans[0].Start, spans[0].Start
	children, known := map[string][]api.Span{}, map[string]bool{}
	for _, sp := range spans {
		known[sp.ID] = true
	}
	for _, sp := range spans {
		parent := sp.Parent
		if !known[parent] {
			parent = ""
		}
		children[parent] = append(children[parent], sp)
		if sp.Start.Before(first) {
			first = sp.Start
		}
		if end := sp.Start.Add(sp.Duration); end.After(last) {
			last = end
		}
	}
	total := max(last.Sub(first), time.Nanosecond)
	var rows []spanRow
	var walk func(parent string, depth int)
	walk = func(parent string, depth int) {
		list := children[parent]
		delete(children, parent) // a cycle ends here
		slices.SortFunc(list, func(a, b api.Span) int { return a.Start.Compare(b.Start) })
		for _, sp := range list {
			rows = append(rows, spanRow{
				Name: sp.Name, Service: sp.Service, MS: float64(sp.Duration) / 1e6, Depth: min(depth, 3),
				X: int(1000 * sp.Start.Sub(first) / total), W: max(2, int(1000*sp.Duration/total)),
			})
			walk(sp.ID, depth+1)
		}
	}
	walk("", 0)
	return rows
}

// explanationView is one explanation as the page shows it.
type explanationView struct {
	Plot        figureView
	Words       string
	Promise     string
	Warning     string
	Unit        string
	Rest        string
	Rows        []phiRow
	Certificate []pair
}

type phiRow struct{ Name, Value, Phi string }

// explain answers the part of the page that htmx asks for, or, without script,
// the whole page with the explanation in it.
func (s *server) explain(c echo.Context) error {
	html, err := s.explanation(c)
	if c.Request().Header.Get("HX-Request") == "true" {
		if err != nil {
			html = template.HTML(`<p class="bad" role="alert">` + template.HTMLEscapeString(err.Error()) + `</p>`) //nolint:gosec // escaped here
		}
		return c.HTML(http.StatusOK, string(html))
	}
	if err != nil {
		return s.problem(c, err)
	}
	p, err := s.loadPrediction(c)
	if err != nil {
		return s.problem(c, err)
	}
	p.Explanation = html
	return s.render(c, http.StatusOK, "prediction", p)
}

func (s *server) explanation(c echo.Context) (template.HTML, error) {
	req, err := asked(c)
	if err != nil {
		return "", err
	}
	list, err := s.ask(c, req)
	if err != nil {
		return "", err
	}
	var views []explanationView
	for i := range list {
		v, err := viewOf(&list[i])
		if err != nil {
			return "", err
		}
		views = append(views, v)
	}
	var b bytes.Buffer
	if err := s.pages["prediction"].ExecuteTemplate(&b, "explanation", views); err != nil {
		return "", fmt.Errorf("render explanation: %w", err)
	}
	return template.HTML(b.String()), nil //nolint:gosec // made by the template above
}

// asked is the explanation that the form asks for.
func asked(c echo.Context) (collector.ExplainRequest, error) {
	r := collector.ExplainRequest{
		Method: c.FormValue("method"), Output: strings.TrimSpace(c.FormValue("output")), Input: strings.TrimSpace(c.FormValue("input")),
	}
	for _, text := range strings.FieldsFunc(c.FormValue("baseline"), func(x rune) bool { return x == ',' || unicode.IsSpace(x) }) {
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return r, fmt.Errorf("%w: baseline: %q is no number", collector.ErrRefused, text)
		}
		r.Baseline = append(r.Baseline, x)
	}
	return r, nil
}

func (s *server) ask(c echo.Context, req collector.ExplainRequest) ([]collector.Explanation, error) {
	ref, err := refOf(c)
	if err != nil {
		return nil, err
	}
	return s.Sources.Explain(c.Request().Context(), ref, req)
}

func viewOf(e *collector.Explanation) (explanationView, error) {
	plot, err := draw(640, func(o plots.Options) ([]byte, error) {
		svg, err := plots.Waterfall(e, o)
		if errors.Is(err, plots.ErrNotAdditive) {
			return plots.Bar(e, o) // gradients that are no parts of a sum
		}
		return svg, err
	})
	if err != nil {
		return explanationView{}, err
	}
	v := explanationView{
		Plot:    plot,
		Words:   fmt.Sprintf("%s of %s: base %.5g, prediction %.5g (%s)", e.Method, e.Output, e.Base, e.Prediction, e.Space),
		Promise: fmt.Sprintf("base + sum of phi misses the prediction by %.2g", e.Certificate.Residual),
		Warning: e.Certificate.Warning,
	}
	v.Unit, v.Rest = report.Unit(e), report.Residual(e)
	if e.Certificate.Exact {
		v.Promise = "Exact: nothing was sampled; " + v.Promise
	}
	attrs := slices.Clone(e.Attributions)
	slices.SortStableFunc(attrs, func(a, b collector.Attribution) int { return cmp.Compare(abs(b.Phi), abs(a.Phi)) })
	for _, a := range attrs {
		v.Rows = append(v.Rows, phiRow{a.Feature, value(a.Value), strconv.FormatFloat(a.Phi, 'f', 5, 64)})
	}
	k := e.Certificate
	v.Certificate = []pair{
		{"method", k.Method + " " + k.Mode},
		{"space", k.Space},
		{"base", k.BaseDefinition},
		{"completeness residual", strconv.FormatFloat(k.Residual, 'g', 3, 64)},
		{"error estimate", strconv.FormatFloat(k.ErrorEstimate, 'g', 3, 64)},
		{"exact", strconv.FormatBool(k.Exact)},
		{"model digest", k.ModelDigest},
	}
	for _, p := range []pair{{"cover", k.Cover}, {"baseline", k.Baseline}, {"background digest", k.BackgroundDigest}} {
		if p.Value != "" {
			v.Certificate = append(v.Certificate, p)
		}
	}
	return v, nil
}

func abs(v float64) float64 {
	if v < 0 {
		return -v
	}
	return v
}

// report is the explanation as one page to keep or send.
func (s *server) report(c echo.Context) error {
	p, err := s.loadPrediction(c)
	if err != nil {
		return s.problem(c, err)
	}
	list, err := s.ask(c, collector.ExplainRequest{Method: c.QueryParam("method")})
	if err != nil {
		return s.problem(c, err)
	}
	var b bytes.Buffer
	meta := report.Meta{Generated: s.Sources.Now()}
	if p.P != nil {
		meta.PredictionID, meta.TraceID, meta.Time = p.P.ID, p.P.TraceID, p.P.Time
		for _, o := range p.Outputs {
			meta.Outputs = append(meta.Outputs, report.Output{Name: o.Name, Value: o.Value})
		}
		for _, l := range p.P.Labels {
			meta.Labels = append(meta.Labels, l.Label)
		}
	}
	if err := report.HTML(&b, list, meta); err != nil {
		return err
	}
	// The report is one file to keep, so its style stands in it.
	c.Response().Header().Set("Content-Security-Policy", strings.Replace(policy, "style-src 'self'", "style-src 'unsafe-inline'", 1))
	return c.HTMLBlob(http.StatusOK, b.Bytes())
}

func pairs(m map[string]any) []pair {
	out := make([]pair, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, pair{k, value(m[k])})
	}
	return out
}
