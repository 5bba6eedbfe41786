package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/engine/stats"
	"github.com/pellucid/pellucid/explain/audit"
)

// maxApplied bounds the changes listed on an audit's page; the rest are counted.
const maxApplied = 100

//go:embed audit.html
var auditSource string

var auditPage = template.Must(template.New("audit").Funcs(template.FuncMap{"number": anyNumber, "percent": percent}).Parse(auditSource))

// auditView is an audit as its page shows it.
type auditView struct {
	*audit.Report
	Made        string
	Cards       []card
	Words       []string
	Applied     []audit.Applied
	MoreApplied int
	Flips       []audit.Flip
	Metrics     []metric
}

// card is one figure at the head of the page.
type card struct{ Name, Figure, Note string }

// metric is one measure of accuracy on both sides.
type metric struct{ Name, Was, Is, Change, Class string }

// Audit writes the page of an audit, made at that time.
func Audit(w io.Writer, r *audit.Report, made time.Time) error {
	v := auditView{Report: r, Made: clock(made), Cards: cards(r), Words: auditWords(r), Applied: r.Applied}
	if n := len(r.Applied); n > maxApplied {
		v.Applied, v.MoreApplied = r.Applied[:maxApplied], n-maxApplied
	}
	if r.Decisions != nil {
		v.Flips = r.Decisions.Flips
	}
	if r.Accuracy != nil && r.Accuracy.Reason == "" {
		v.Metrics = metrics(r.Accuracy)
	}
	if err := auditPage.Execute(w, v); err != nil {
		return fmt.Errorf("write audit: %w", err)
	}
	return nil
}

func cards(r *audit.Report) []card {
	out := []card{{"File", percent(r.File.Ratio), byteText(r.File.Compressed) + ", was " + byteText(r.File.Original)}}
	if m := r.Memory; m != nil {
		out = append(out, card{"In memory", percent(m.Ratio), byteText(m.Compressed) + ", was " + byteText(m.Original)})
	}
	if s := r.Speed; s != nil {
		out = append(out,
			card{"Speed in batches", times(s.InBulk.Ratio), fmt.Sprintf("%s rows/s by %d, measured here", perSecond(s.InBulk.Compressed), s.Batch)},
			card{"Speed row by row", times(s.Single.Ratio), perSecond(s.Single.Compressed) + " rows/s, measured here"})
	}
	out = append(out, card{"Largest difference", anyNumber(r.Scores.MaxDifference), "mean " + anyNumber(r.Scores.MeanDifference)})
	if d := r.Decisions; d != nil {
		out = append(out, card{"Same decision", percent(1 - d.Disagreement), fmt.Sprintf("%d of %d rows differ", d.Differ, d.Rows)})
	}
	if a := r.Accuracy; a != nil && a.Reason == "" {
		out = append(out, card{metricName(a.Metric), anyNumber(a.Compressed[a.Metric]), "was " + anyNumber(a.Original[a.Metric])})
	}
	if e := r.Explanations; e != nil && e.Reason == "" {
		out = append(out, card{"Explanations agree", anyNumber(e.Spearman), "mean Spearman, lowest " + anyNumber(e.LowestSpearman)})
	}
	return out
}

// auditWords tells the comparison of scores in sentences.
func auditWords(r *audit.Report) []string {
	out := []string{fmt.Sprintf("Over all outputs of %d rows the largest difference is %s and the mean %s.", r.Rows, anyNumber(r.Scores.MaxDifference), anyNumber(r.Scores.MeanDifference))}
	if n := r.Scores.NotFinite; n > 0 {
		out = append(out, fmt.Sprintf("%d numbers are finite on one side only.", n))
	}
	if d := r.Decisions; d != nil {
		out = append(out, fmt.Sprintf("%d of %d rows (%s) are decided otherwise than before.", d.Differ, d.Rows, percent(d.Disagreement)))
	}
	d := r.Distribution
	if d.Reason != "" {
		return append(out, "The distribution of scores was not compared: "+d.Reason+".")
	}
	return append(out, fmt.Sprintf("As a set the scores (%s) differ by a population stability index of %s, a Kolmogorov-Smirnov distance of %s (p %s) and a Wasserstein distance of %s.",
		d.Of, anyNumber(d.PSI), anyNumber(d.KolmogorovSmirnov), anyNumber(d.PValue), anyNumber(d.Wasserstein)))
}

// metrics lists the measures both sides have, in the order of stats.Metrics.
func metrics(a *audit.Accuracy) []metric {
	var out []metric
	for _, name := range stats.Metrics {
		was, ok := a.Original[name]
		is, both := a.Compressed[name]
		if !ok || !both {
			continue
		}
		m := metric{Name: metricName(name), Was: anyNumber(was), Is: anyNumber(is), Change: signed(is - was)}
		switch better := (is > was) == name.HigherIsBetter(); {
		case is == was:
		case better:
			m.Class = "good"
		default:
			m.Class = "bad"
		}
		out = append(out, m)
	}
	return out
}

func metricName(m stats.Metric) string {
	name := strings.ReplaceAll(string(m), "_", " ")
	if slices.Contains([]stats.Metric{stats.MetricAUC, stats.MetricRMSE, stats.MetricMAE, stats.MetricR2}, m) {
		return strings.ToUpper(name)
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

// anyNumber writes a number of any of an audit's kinds with four significant digits.
func anyNumber(v any) string {
	var f float64
	switch v := v.(type) {
	case float64:
		f = v
	case *float64:
		f = *v
	case audit.Number:
		f = float64(v)
	}
	switch {
	case math.IsNaN(f):
		return "no number"
	case math.IsInf(f, 0):
		return "infinite"
	case f != 0 && (math.Abs(f) < 1e-4 || math.Abs(f) >= 1e7):
		return strconv.FormatFloat(f, 'e', 2, 64)
	}
	return strconv.FormatFloat(f, 'g', 4, 64)
}

func percent(v float64) string { return strconv.FormatFloat(100*v, 'f', 2, 64) + " %" }

func times(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) + " ×" }

func perSecond(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', 2, 64) + " M"
	case v >= 1e4:
		return strconv.FormatFloat(v/1e3, 'f', 0, 64) + " k"
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

func byteText(n int64) string {
	switch {
	case n >= 1<<20:
		return strconv.FormatFloat(float64(n)/(1<<20), 'f', 1, 64) + " MiB"
	case n >= 1<<10:
		return strconv.FormatFloat(float64(n)/(1<<10), 'f', 1, 64) + " KiB"
	}
	return strconv.FormatInt(n, 10) + " bytes"
}
