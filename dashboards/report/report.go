// Package report writes explanations for people and for programs: one
// self-contained HTML page, CSV and JSON lines.
//
// It owns the page's words and look and the formats' columns. It computes
// nothing, fetches nothing, and its page has no script and makes no request.
//
// Invariants: every text from a model or a request is escaped; the page is
// readable light and dark, at 390 and at 1440 pixels, and on paper; numbers in
// CSV and JSON are the shortest that read back exactly.
package report

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/plots"
)

// maxExplanations bounds a page; more are better read as CSV.
const maxExplanations = 50

// maxFeatures bounds the rows of a page's table; the rest are counted.
const maxFeatures = 200

// Meta is what a report's head says beyond the explanations themselves. Empty
// fields are left out.
type Meta struct {
	// Title stands above all; empty means "Why this prediction?".
	Title        string
	PredictionID string
	TraceID      string
	// Time is the prediction's event time, Generated when the report was made.
	Time, Generated time.Time
	// Outputs are the model's answer as it was given, in order.
	Outputs []Output
	// Labels are truths that arrived since.
	Labels []string
}

// Output is one output of the prediction with its value as text.
type Output struct{ Name, Value string }

//go:embed report.html
var pageSource string

var page = template.Must(template.New("report").Parse(pageSource))

// HTML writes a page with every explanation, in order.
func HTML(w io.Writer, list []collector.Explanation, meta Meta) error {
	if len(list) == 0 {
		return errors.New("write report: no explanation")
	}
	if len(list) > maxExplanations {
		return fmt.Errorf("write report: %d explanations on one page, at most %d: use CSV or JSON", len(list), maxExplanations)
	}
	view := pageView{Meta: meta, Model: list[0].Model, Version: list[0].Version, Digest: list[0].Certificate.ModelDigest}
	if view.Title == "" {
		view.Title = "Why this prediction?"
	}
	if meta.PredictionID == "" {
		view.PredictionID = list[0].PredictionID
	}
	view.When, view.Made = clock(meta.Time), clock(meta.Generated)
	for i := range list {
		s, err := newSection(&list[i], i)
		if err != nil {
			return fmt.Errorf("write report of output %q: %w", list[i].Output, err)
		}
		view.Sections = append(view.Sections, *s)
	}
	var out bytes.Buffer
	if err := page.Execute(&out, view); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	_, err := w.Write(out.Bytes())
	return err
}

func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

type pageView struct {
	Meta
	Model, Version, Digest string
	When, Made             string
	Sections               []section
}

// section is one explanation on the page.
type section struct {
	Number                            int
	Output, Row                       string
	Words                             []string
	Waterfall, WaterfallNarrow        template.HTML
	Bar, BarNarrow                    template.HTML
	NotAdditive                       bool
	Features                          []line
	Left                              int
	LeftSum                           string
	Base, BaseName, Prediction, Space string
	Pairs                             []line
	Promise, Unit, Rest               string
	Facts                             []Output
	Additive                          bool
}

// line is one row of a table.
type line struct {
	Name, Value, Phi, Sign string
	Share                  string
}

func newSection(e *collector.Explanation, i int) (*section, error) {
	s := &section{
		Number: i + 1, Output: e.Output, Space: e.Space, Row: e.PredictionID,
		Base: number(e.Base), Prediction: number(e.Prediction), BaseName: e.Certificate.BaseDefinition,
		Words: words(e), Promise: promise(e), Unit: Unit(e), Rest: Residual(e), Facts: facts(e),
	}
	s.tables(e)
	s.Additive = e.Certificate.ResidualRelative < 0.05 && e.Method != "saliency"
	for _, d := range []struct {
		dst   *template.HTML
		width int
		draw  func(*collector.Explanation, plots.Options) ([]byte, error)
	}{
		{&s.Waterfall, 680, plots.Waterfall},
		{&s.WaterfallNarrow, 340, plots.Waterfall},
		{&s.Bar, 680, plots.Bar},
		{&s.BarNarrow, 340, plots.Bar},
	} {
		svg, err := d.draw(e, plots.Options{Theme: plots.Page, Width: d.width})
		if errors.Is(err, plots.ErrNotAdditive) {
			s.NotAdditive = true
			continue
		}
		if err != nil {
			return nil, err
		}
		*d.dst = template.HTML(svg) //nolint:gosec // our own SVG, whose texts plots escapes
	}
	return s, nil
}

// tables fills the tables of features and pairs, largest first.
func (s *section) tables(e *collector.Explanation) {
	order := slices.Clone(e.Attributions)
	slices.SortStableFunc(order, func(a, b collector.Attribution) int { return bySize(a.Phi, b.Phi) })
	total := 0.0
	for _, a := range order {
		total += math.Abs(a.Phi)
	}
	rest := 0.0
	for i, a := range order {
		if i >= maxFeatures {
			s.Left++
			rest += a.Phi
			continue
		}
		l := line{Name: a.Feature, Value: valueText(a.Value), Phi: signed(a.Phi), Sign: sign(a.Phi)}
		if total > 0 {
			l.Share = strconv.FormatFloat(100*math.Abs(a.Phi)/total, 'f', 1, 64) + " %"
		}
		s.Features = append(s.Features, l)
	}
	s.LeftSum = signed(rest)
	pairs := slices.Clone(e.Interactions)
	slices.SortStableFunc(pairs, func(a, b collector.Interaction) int { return bySize(a.Phi, b.Phi) })
	for _, p := range pairs[:min(20, len(pairs))] {
		s.Pairs = append(s.Pairs, line{Name: p.A + " × " + p.B, Phi: signed(p.Phi), Sign: sign(p.Phi)})
	}
}

func bySize(a, b float64) int {
	switch x, y := math.Abs(a), math.Abs(b); {
	case x > y:
		return -1
	case x < y:
		return 1
	}
	return 0
}

func sign(v float64) string {
	switch {
	case v > 0:
		return "up"
	case v < 0:
		return "down"
	}
	return "none"
}

// words tells the explanation in sentences.
func words(e *collector.Explanation) []string {
	verb := map[string]string{"margin": "margin (the score before it becomes a probability or a prediction)", "probability": "probability", "identity": "value"}[e.Space]
	if verb == "" {
		verb = e.Space
	}
	out := []string{fmt.Sprintf("For %q the model's %s is %s.", e.Output, verb, number(e.Prediction))}
	if e.Method == "saliency" {
		return append(out, "The figures below say how strongly the model reacts to a small change of each feature; they have no direction and do not add up.")
	}
	difference := e.Prediction - e.Base
	start := "It starts from " + number(e.Base)
	if d := e.Certificate.BaseDefinition; d != "" {
		start += " (" + d + ")"
	}
	switch {
	case difference > 0:
		out = append(out, fmt.Sprintf("%s; the features of this row raise it by %s.", start, number(difference)))
	case difference < 0:
		out = append(out, fmt.Sprintf("%s; the features of this row lower it by %s.", start, number(-difference)))
	default:
		out = append(out, start+"; the features of this row leave it there.")
	}
	up, down := strongest(e, 1), strongest(e, -1)
	if up != "" {
		out = append(out, "Upwards push most: "+up+".")
	}
	if down != "" {
		out = append(out, "Downwards pull most: "+down+".")
	}
	return out
}

// strongest lists up to three features of a direction with their effects.
func strongest(e *collector.Explanation, direction float64) string {
	order := slices.Clone(e.Attributions)
	slices.SortStableFunc(order, func(a, b collector.Attribution) int { return bySize(a.Phi, b.Phi) })
	var parts []string
	for _, a := range order {
		if a.Phi*direction > 0 && len(parts) < 3 {
			parts = append(parts, fmt.Sprintf("%s = %s (%s)", a.Feature, valueText(a.Value), signed(a.Phi)))
		}
	}
	return strings.Join(parts, ", ")
}

// promise says in words what the certificate vouches for.
func promise(e *collector.Explanation) string {
	c := &e.Certificate
	if c.Warning != "" {
		return "Does not add up: " + c.Warning + "."
	}
	switch {
	case e.Method == "saliency":
		return "These are gradients of the model at this row, computed by reverse-mode differentiation. They are not shares of the prediction."
	case c.Exact:
		return fmt.Sprintf("These values are exact: nothing was sampled. Base and effects add up to the prediction within %s, and no effect is off by more than %s through rounding.", small(c.Residual), small(c.ErrorEstimate))
	case e.Method == "integrated_gradients":
		return fmt.Sprintf("The gradient was integrated over %d points from the baseline (%s) to this row. Base and effects miss the prediction by %s, which is %s of the difference explained.", c.Points, c.Baseline, small(c.Residual), share(c.ResidualRelative))
	}
	return fmt.Sprintf("Base and effects miss the prediction by %s, which is %s of the difference explained: a first-order approximation.", small(c.Residual), share(c.ResidualRelative))
}

// Unit says what an effect of an explanation is a number of.
func Unit(e *collector.Explanation) string {
	switch {
	case e.Method == "saliency":
		return "Each number is by how much the explained value changes for a small change of the feature, in that value's unit for one of the feature's; it has no direction."
	case e.Space == "margin":
		return "Effects (phi) are in the unit of the margin, the score that the model computes before it makes a probability or a prediction of it. " +
			"For a classifier that is log-odds: +0.69 doubles the odds, -0.69 halves them. For a regression without a link it is the unit of what is predicted."
	case e.Space == "probability":
		return "Effects (phi) are in probability: 0.05 is five percentage points."
	}
	return "Effects (phi) are in the unit of the model's own output: +1 raises it by one."
}

// Residual says what an explanation's completeness residual is.
func Residual(e *collector.Explanation) string {
	if e.Method == "saliency" {
		return ""
	}
	s := "The completeness residual is what base and effects together miss the prediction by, here " + small(e.Certificate.Residual)
	switch {
	case e.Certificate.Warning != "":
		return s + ", beyond the tolerance."
	case e.Certificate.Exact:
		return s + ": rounding of floating point numbers, no part of the prediction is left unexplained."
	case e.Method == "integrated_gradients":
		return s + ": what is left of the error of summing the gradient over a number of points. The error estimate bounds it for any one effect."
	}
	return s + ": the part of the prediction that this method does not account for."
}

func share(v float64) string {
	if v > 0 && v < 1e-4 {
		return "less than 0.01 %"
	}
	return strconv.FormatFloat(v*100, 'f', 2, 64) + " %"
}

// facts are the certificate line by line.
func facts(e *collector.Explanation) []Output {
	c := &e.Certificate
	method := c.Method
	if c.Mode != "" {
		method += ", " + strings.ReplaceAll(c.Mode, "_", " ")
	}
	all := []Output{
		{"Method", method},
		{"Space", c.Space},
		{"Base", c.BaseDefinition},
		{"Cover", c.Cover},
		{"Background", c.BackgroundDigest},
		{"Background rows", count(c.BackgroundRows)},
		{"Baseline", c.Baseline},
		{"Model digest", c.ModelDigest},
		{"Completeness residual", small(c.Residual)},
		{"Relative residual", small(c.ResidualRelative)},
		{"Error estimate", small(c.ErrorEstimate)},
		{"Exact", map[bool]string{true: "yes", false: "no"}[c.Exact]},
		{"Quadrature points", count(c.Points)},
		{"Warning", c.Warning},
		{"Computed by", c.Engine},
	}
	return slices.DeleteFunc(all, func(o Output) bool { return o.Value == "" })
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func small(v float64) string { return strconv.FormatFloat(v, 'g', 2, 64) }

// number writes a value with at most six significant digits.
func number(v float64) string {
	if a := math.Abs(v); a != 0 && (a >= 1e7 || a < 1e-4) {
		return strconv.FormatFloat(v, 'g', 4, 64)
	}
	t := strconv.FormatFloat(v, 'f', 4, 64)
	return strings.TrimRight(strings.TrimRight(t, "0"), ".")
}

func signed(v float64) string {
	switch a := math.Abs(v); {
	case v == 0:
		return "0"
	case a < 1e-4 || a >= 1e7:
		return fmt.Sprintf("%+.2g", v)
	}
	return fmt.Sprintf("%+.4f", v)
}

func valueText(v any) string {
	switch v := v.(type) {
	case nil:
		return "missing"
	case float64:
		return number(v)
	}
	return fmt.Sprint(v)
}
