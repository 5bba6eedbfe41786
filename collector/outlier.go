package collector

import (
	"math"

	"github.com/pellucid/pellucid/engine/stats"
)

// Outlier reports whether a row lies outside its reference: a number (or the score)
// below the smallest or above the largest there, a category that is not among its
// own, or a missing value where it has none. bins are the row's under ref, as BinRow
// gives them.
func Outlier(ref *stats.Reference, s *Schema, p *Prediction, row int, bins []uint16) bool {
	features := p.Features.Row(row, p.Rows)
	for i, b := range bins {
		if i >= len(ref.Fields) {
			break
		}
		f := &ref.Fields[i]
		switch {
		case b == stats.BinNone:
		case b == stats.BinUnseen:
			return true
		case b == stats.BinMissing:
			if i < len(ref.Counts) && ref.Counts[i][stats.BinMissing] == 0 {
				return true
			}
		case f.Kind == stats.KindNumeric:
			x, ok := watchedNumber(s, p, &features, row, i)
			if ok && !math.IsNaN(x) && (x < f.Min || x > f.Max) {
				return true
			}
		}
	}
	return false
}

// watchedNumber is the number of field i of a reference in a row: a feature, or
// after the last the score.
func watchedNumber(s *Schema, p *Prediction, features *Columns, row, i int) (float64, bool) {
	if i == len(s.Features) {
		if row < len(p.Scores) {
			return p.Scores[row], true
		}
		return 0, false
	}
	array, at, ok := FieldPosition(s.Features, i)
	if !ok {
		return 0, false
	}
	return number(&s.Features[i], array, at, features)
}
