package plots

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/collector"
)

// ErrNotAdditive is returned by Waterfall for attributions that do not add up to
// the prediction, such as saliency; Bar draws those.
var ErrNotAdditive = errors.New("the attributions do not add up to the prediction, so a waterfall would mislead: draw bars")

// maxGap is the completeness residual, relative to the effect, up to which bars
// may be stacked.
const maxGap = 0.05

// bar is one feature's effect with its label.
type bar struct {
	label string
	value float64
}

// Waterfall draws how an explanation's features lead from its base, at the
// bottom, to its prediction, at the top.
func Waterfall(e *collector.Explanation, o Options) ([]byte, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if e.Certificate.ResidualRelative > maxGap || e.Method == "saliency" {
		return nil, ErrNotAdditive
	}
	bars := largestFirst(labelled(e), o.MaxFeatures, true)
	if err := finite(bars, e.Base, e.Prediction); err != nil {
		return nil, err
	}
	top := titleHeight(o) + 34
	height := top + float64(len(bars))*rowHeight + 64
	name := fmt.Sprintf("Waterfall from %s to %s", number(e.Base), number(e.Prediction))
	return render(o, height, name, func(s *sheet) {
		s.title(o)
		s.waterfall(e, bars, top)
	})
}

func (s *sheet) waterfall(e *collector.Explanation, bars []bar, top float64) {
	a := s.leave(bars)
	a.lo, a.hi = e.Base, e.Base
	end := e.Base
	for i := len(bars) - 1; i >= 0; i-- {
		end += bars[i].value
		a.lo, a.hi = min(a.lo, end), max(a.hi, end)
	}
	a = padded(a, (a.hi-a.lo)*0.12)
	bottom := top + float64(len(bars))*rowHeight
	from, to := a.at(e.Base), a.at(end)
	s.line(s.colors.grid, from, top+float64(len(bars)-1)*rowHeight, from, bottom+6, 3, 3)
	s.line(s.colors.grid, to, top-6, to, top+rowHeight, 3, 3)
	at := end
	for i, b := range bars {
		y := top + (float64(i)+0.5)*rowHeight
		s.rowLabel(b.label, a.from, y)
		s.arrow(a.at(at-b.value), a.at(at), y, b.value, a)
		at -= b.value
		if i+1 < len(bars) {
			s.line(s.colors.grid, a.at(at), y+barHeight/2, a.at(at), y+rowHeight-barHeight/2, 2, 2)
		}
	}
	s.axis(a, bottom+6)
	s.within(to, top-16, "f(x) = "+number(e.Prediction), s.colors.ink, a)
	s.within(from, bottom+44, baseName(e)+" = "+number(e.Base), s.colors.muted, a)
}

// baseName is the short name of what the base is.
func baseName(e *collector.Explanation) string {
	if e.Certificate.Baseline != "" {
		return "f(baseline)"
	}
	return "E[f(X)]"
}

// Bar draws the signed effects of one explanation, largest first.
func Bar(e *collector.Explanation, o Options) ([]byte, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return drawBars(largestFirst(labelled(e), o.MaxFeatures, true), o, "effect on "+e.Output, signed)
}

// Global draws the mean absolute effect of every feature over explanations of
// one model and output.
func Global(list []collector.Explanation, o Options) ([]byte, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New("draw global bars: no explanation")
	}
	means := make([]bar, len(list[0].Attributions))
	for i := range list {
		if len(list[i].Attributions) != len(means) {
			return nil, errors.New("draw global bars: explanations of different features")
		}
		for j, a := range list[i].Attributions {
			if means[j].label == "" {
				means[j].label = a.Feature
			}
			if means[j].label != a.Feature {
				return nil, errors.New("draw global bars: explanations of different features")
			}
			means[j].value += math.Abs(a.Phi) / float64(len(list))
		}
	}
	what := fmt.Sprintf("mean(|effect|) over %d explanations", len(list))
	return drawBars(largestFirst(means, o.MaxFeatures, false), o, what, number)
}

// drawBars draws horizontal bars from a line at zero.
func drawBars(bars []bar, o Options, what string, format func(float64) string) ([]byte, error) {
	if err := finite(bars); err != nil {
		return nil, err
	}
	top := titleHeight(o) + 6
	height := top + float64(len(bars))*rowHeight + 54
	return render(o, height, "Bars: "+what, func(s *sheet) {
		s.title(o)
		a := s.leave(bars)
		for _, b := range bars {
			a.lo, a.hi = min(a.lo, b.value), max(a.hi, b.value)
		}
		a = s.roomForLabels(a, bars, format)
		bottom := top + float64(len(bars))*rowHeight
		s.line(s.colors.grid, a.at(0), top, a.at(0), bottom+6)
		for i, b := range bars {
			y := top + (float64(i)+0.5)*rowHeight
			s.rowLabel(b.label, a.from, y)
			x := a.at(b.value)
			s.fill(inkOf(b.value), a.at(0), y-barHeight/2, x, y-barHeight/2, x, y+barHeight/2, a.at(0), y+barHeight/2)
			if b.value < 0 {
				s.write(x-5, y, format(b.value), fontSize-1, negative, toLeft)
			} else {
				s.write(x+5, y, format(b.value), fontSize-1, positive, toRight)
			}
		}
		s.axis(a, bottom+6)
		s.within((a.from+a.to)/2, bottom+40, what, s.colors.muted, a)
	})
}

// roomForLabels widens a so that the numbers beside the bars stay inside.
func (s *sheet) roomForLabels(a scale, bars []bar, format func(float64) string) scale {
	left, right := 0.0, 0.0
	for _, b := range bars {
		if w := textWidth(format(b.value), fontSize-1) + 10; b.value < 0 {
			left = max(left, w)
		} else {
			right = max(right, w)
		}
	}
	if a.hi <= a.lo {
		return padded(a, 1)
	}
	room := max(a.to-a.from-left-right, 20)
	unit := (a.hi - a.lo) / room
	a.lo, a.hi = a.lo-left*unit, a.hi+right*unit
	return a
}

func inkOf(v float64) color.Color {
	if v < 0 {
		return negative
	}
	return positive
}

// arrow draws an effect from x1 to x2 with its number inside where it fits, else
// beside it.
func (s *sheet) arrow(x1, x2, y, value float64, a scale) {
	head := min(6, math.Abs(x2-x1))
	ink := inkOf(value)
	if value < 0 {
		head = -head
	}
	const h = barHeight / 2
	s.fill(ink, x1, y-h, x2-head, y-h, x2, y, x2-head, y+h, x1, y+h)
	label := signed(value)
	w := textWidth(label, fontSize-1)
	left, right := min(x1, x2), max(x1, x2)
	switch {
	case right-left > w+14:
		s.write((x1+x2-head/2)/2, y, label, fontSize-1, white, centered)
	case right+5+w <= a.to:
		s.write(right+5, y, label, fontSize-1, ink, toRight)
	default:
		s.write(left-5, y, label, fontSize-1, ink, toLeft)
	}
}

// leave returns the scale of the figure beside room for the rows' labels.
func (s *sheet) leave(bars []bar) scale {
	widest := 0.0
	for _, b := range bars {
		widest = max(widest, textWidth(b.label, fontSize))
	}
	label := min(widest, s.width*0.42)
	return scale{from: margin + label + 12, to: s.width - margin}
}

// rowLabel writes a row's label left of x.
func (s *sheet) rowLabel(label string, x, y float64) {
	s.write(x-12, y, fit(label, x-12-margin+0.5, fontSize), fontSize, s.colors.ink, toLeft)
}

// within writes centred text near x, pushed inside the figure.
func (s *sheet) within(x, y float64, txt string, ink color.Color, a scale) {
	half := textWidth(txt, fontSize) / 2
	x = max(margin+half, min(x, a.to-half))
	s.write(x, y, txt, fontSize, ink, centered)
}

func (s *sheet) title(o Options) {
	if o.Title != "" {
		s.write(margin, 16, fit(o.Title, s.width-2*margin, fontSize+1), fontSize+1, s.colors.ink, toRight)
	}
}

func titleHeight(o Options) float64 {
	if o.Title == "" {
		return margin
	}
	return 34
}

func padded(a scale, by float64) scale {
	if by <= 0 {
		by = max(math.Abs(a.lo)*0.1, 1)
	}
	a.lo, a.hi = a.lo-by, a.hi+by
	return a
}

// labelled lists an explanation's effects, labelled "value = feature".
func labelled(e *collector.Explanation) []bar {
	bars := make([]bar, len(e.Attributions))
	for i, a := range e.Attributions {
		bars[i] = bar{label: valueText(a.Value) + " = " + a.Feature, value: a.Phi}
	}
	return bars
}

// valueText writes a feature's value briefly.
func valueText(v any) string {
	switch v := v.(type) {
	case nil:
		return "missing"
	case float64:
		return number(v)
	case string:
		if r := []rune(v); len(r) > 24 {
			return string(r[:23]) + "…"
		}
		return v
	}
	return fmt.Sprint(v)
}

// largestFirst orders bars by size and sums those beyond limit in a last one,
// named with their number; of unsigned values that is their sum.
func largestFirst(bars []bar, limit int, single bool) []bar {
	bars = slices.Clone(bars)
	slices.SortStableFunc(bars, func(a, b bar) int {
		switch x, y := math.Abs(a.value), math.Abs(b.value); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	if len(bars) <= limit {
		return bars
	}
	rest := bar{}
	for _, b := range bars[limit-1:] {
		rest.value += b.value
	}
	n := len(bars) - limit + 1
	rest.label = strconv.Itoa(n) + " other features"
	if !single {
		rest.label = "sum of " + rest.label
	}
	return append(bars[:limit-1:limit-1], rest)
}

// finite refuses to draw what has no place on an axis.
func finite(bars []bar, more ...float64) error {
	if len(bars) == 0 {
		return errors.New("draw plot: nothing to draw")
	}
	for _, b := range bars {
		more = append(more, b.value)
	}
	for _, v := range more {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return errors.New("draw plot: a value is not finite")
		}
	}
	return nil
}
