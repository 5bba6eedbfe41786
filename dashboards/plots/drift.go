package plots

import (
	"fmt"
	"image/color"
	"strconv"
)

// Share is one bin of a feature: its label, and the shares (0 to 1) of the
// reference's and of the current rows in it.
type Share struct {
	Label              string
	Reference, Current float64
}

// ReferenceVsCurrent draws a feature's reference beside its current values, bin
// by bin. MaxFeatures is the number of bins drawn; the rest are summed in the
// last.
func ReferenceVsCurrent(feature string, bins []Share, o Options) ([]byte, error) {
	if o.MaxFeatures == 0 {
		o.MaxFeatures = 20
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	labels := make([]bar, len(bins))
	for i, b := range bins {
		labels[i] = bar{label: b.Label}
	}
	for _, b := range bins {
		if err := finite(labels, b.Reference, b.Current); err != nil {
			return nil, err
		}
	}
	if err := finite(labels); err != nil {
		return nil, err
	}
	bins, labels = foldBins(bins, labels, o.MaxFeatures)
	top := titleHeight(o) + 30
	height := top + float64(len(bins))*rowHeight + 34
	return render(o, height, "Reference and current shares of "+feature, func(s *sheet) {
		s.title(o)
		a := s.leave(labels)
		for _, b := range bins {
			a.hi = max(a.hi, b.Reference, b.Current)
		}
		room := textWidth("100.0 %", fontSize-2) + 8
		a.hi = max(a.hi, 1e-9) * (a.to - a.from) / max(a.to-a.from-room, 20)
		s.legend(margin, top-18)
		bottom := top + float64(len(bins))*rowHeight
		s.line(s.colors.grid, a.from, top, a.from, bottom+4)
		for i, b := range bins {
			y := top + (float64(i)+0.5)*rowHeight
			s.rowLabel(b.Label, a.from, y)
			s.share(a, y-6.5, b.Reference, reference)
			s.share(a, y+6.5, b.Current, current)
		}
		s.within((a.from+a.to)/2, bottom+20, "share of rows", s.colors.muted, a)
	})
}

func (s *sheet) share(a scale, y, v float64, ink color.Color) {
	x := a.at(v)
	s.fill(ink, a.from, y-5.5, x, y-5.5, x, y+5.5, a.from, y+5.5)
	s.write(x+5, y, percent(v), fontSize-2, s.colors.muted, toRight)
}

func percent(v float64) string {
	if v > 0 && v < 0.0005 {
		return "<0.1 %"
	}
	return trimmed(v*100, 1) + " %"
}

func (s *sheet) legend(x, y float64) {
	for _, e := range []struct {
		name string
		ink  color.Color
	}{{"reference", reference}, {"current", current}} {
		s.fill(e.ink, x, y-5, x+10, y-5, x+10, y+5, x, y+5)
		s.write(x+15, y, e.name, fontSize-1, s.colors.ink, toRight)
		x += 15 + textWidth(e.name, fontSize-1) + 18
	}
}

// foldBins sums the bins beyond limit in the last.
func foldBins(bins []Share, labels []bar, limit int) ([]Share, []bar) {
	if len(bins) <= limit {
		return bins, labels
	}
	rest := Share{Label: strconv.Itoa(len(bins)-limit+1) + " other bins"}
	for _, b := range bins[limit-1:] {
		rest.Reference += b.Reference
		rest.Current += b.Current
	}
	bins = append(bins[:limit-1:limit-1], rest)
	return bins, append(labels[:limit-1:limit-1], bar{label: fmt.Sprint(rest.Label)})
}
