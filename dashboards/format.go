package dashboards

import (
	"fmt"
	"html/template"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// formats are the template functions that turn values into words.
func formats() template.FuncMap {
	return template.FuncMap{
		"number": number, "ms": ms, "when": when, "metric": metric, "short": short, "tail": tail,
		"outputs": outputs, "link": link, "linkIn": linkIn, "label": label, "cell": cell, "share": share, "raw": raw, "orNaN": orNaN,
		"stateWord": func(s any) string { return strings.ReplaceAll(fmt.Sprint(s), "_", " ") },
	}
}

// number writes a count with thin groups of three.
func number(v any) string {
	var f float64
	switch v := v.(type) {
	case float64:
		f = v
	case int:
		f = float64(v)
	case int64:
		f = float64(v)
	}
	if known(f) == nil {
		return "–"
	}
	s := strconv.FormatFloat(math.Round(f), 'f', -1, 64)
	for at := len(s) - 3; at > 0 && s[at-1] != '-'; at -= 3 {
		s = s[:at] + "\u202f" + s[at:]
	}
	return s
}

func ms(v float64) string {
	switch {
	case known(v) == nil || v <= 0:
		return "–"
	case v < 1:
		return strconv.FormatFloat(v*1000, 'f', 0, 64) + " µs"
	case v < 1000:
		return strconv.FormatFloat(v, 'g', 3, 64) + " ms"
	}
	return strconv.FormatFloat(v/1000, 'g', 3, 64) + " s"
}

func metric(v float64) string {
	if known(v) == nil {
		return "–"
	}
	return strconv.FormatFloat(v, 'f', 4, 64)
}

// raw writes a number to its last digit, for programs that read the page.
func raw(v float64) string {
	if known(v) == nil {
		return ""
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

func when(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// tail is the end of an id: ids of one moment begin alike.
func tail(s string) string { return "…" + s[max(0, len(s)-10):] }

func short(s string) string { return s[:min(len(s), 12)] }

// value writes one stored value, shortened as a page shows it.
func value(v any) string {
	switch v := v.(type) {
	case nil:
		return "missing"
	case float64:
		return strconv.FormatFloat(v, 'g', 6, 64)
	case float32:
		return strconv.FormatFloat(float64(v), 'g', 6, 32)
	case string:
		return v
	case []float32:
		return listOf(v, func(x float32) string { return value(x) })
	case []float64:
		return listOf(v, func(x float64) string { return value(x) })
	case []any:
		return listOf(v, value)
	}
	return fmt.Sprint(v)
}

// maxListed is how many elements of a list are written out.
const maxListed = 20

func listOf[T any](list []T, one func(T) string) string {
	parts := make([]string, 0, maxListed+1)
	for i, x := range list {
		if i == maxListed {
			parts = append(parts, fmt.Sprintf("… %d in all", len(list)))
			break
		}
		parts = append(parts, one(x))
	}
	return "[" + strings.Join(parts, " ") + "]"
}

func outputs(m map[string]any) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+" "+value(m[k]))
	}
	return strings.Join(parts, ", ")
}

func label(p collector.StoredPrediction) string {
	if len(p.Labels) == 0 {
		return "–"
	}
	return p.Labels[0].Label
}

func cell(values []*float64, i int) string {
	if i >= len(values) || values[i] == nil {
		return "–"
	}
	return strconv.FormatFloat(*values[i], 'g', 5, 64)
}

// share writes element i of counts as a part of their sum.
func share(counts []float64, i int) string {
	var sum float64
	for _, c := range counts {
		sum += c
	}
	if sum == 0 || i >= len(counts) {
		return "–"
	}
	return strconv.FormatFloat(100*counts[i]/sum, 'f', 2, 64) + " %"
}
