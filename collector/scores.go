package collector

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// Scores reduces a model's outputs to what its rows are watched by: one number
// a row and, for classification, the class decided for.
//
// Classification looks for an output of probabilities (the one whose name says
// so, else the first float output of a fitting width) and one of labels (the
// first integer or text output of one value a row). Outputs named as logits
// pass the softmax or sigmoid first. Where a row's numbers are not
// probabilities the score of a two-column or multiclass output is NaN; the
// class is still decided by the largest. Without a label output a binary score
// above 0.5 decides for the second class.
func Scores(info *engine.Info, out engine.Values) (scores []float64, decided []string) {
	rows := outputRows(info, out)
	if rows == 0 {
		return nil, nil
	}
	switch info.Task {
	case engine.TaskBinary:
		return classScores(info, out, rows, binaryScores)
	case engine.TaskMulticlass:
		return classScores(info, out, rows, multiclassScores)
	}
	return valueScores(out, rows), nil
}

// outputRows is the number of rows the outputs belong to.
func outputRows(info *engine.Info, out engine.Values) int {
	if len(out) == 0 {
		return 0
	}
	if !Batched(info) {
		return 1
	}
	for _, spec := range info.Outputs {
		t := out.Get(spec.Name)
		if t != nil && len(spec.Shape) > 0 && spec.Shape[0] == -1 && len(t.Shape()) > 0 {
			return t.Rows()
		}
	}
	return out[0].Tensor.Rows()
}

// valueScores takes the first numeric output with one value a row.
func valueScores(out engine.Values, rows int) []float64 {
	scores := nans(rows)
	for _, o := range out {
		if o.Tensor.DType() == engine.String || o.Tensor.Len() != rows {
			continue
		}
		v, _ := o.Tensor.Float64s()
		copy(scores, v)
		break
	}
	return scores
}

func nans(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = math.NaN()
	}
	return v
}

// scorer fills scores from the values of a probability output of width values a
// row, and returns the class index decided for each row, -1 for none.
type scorer func(info *engine.Info, v []float64, width int, name string, scores []float64) []int

func classScores(info *engine.Info, out engine.Values, rows int, score scorer) ([]float64, []string) {
	scores, decided := nans(rows), make([]string, rows)
	if o := probabilityOutput(info, out, rows); o != nil {
		v, _ := o.Tensor.Float64s()
		for r, k := range score(info, v, len(v)/rows, o.Name, scores) {
			decided[r] = className(info, k)
		}
	}
	if t := labelOutput(out, rows); t != nil {
		for r := range rows {
			decided[r] = labelName(info, t, r)
		}
	}
	return scores, decided
}

// probabilityOutput returns the float output the classes are read from: named
// as probabilities before any other.
func probabilityOutput(info *engine.Info, out engine.Values, rows int) *engine.Named {
	var found *engine.Named
	for i := range out {
		t := out[i].Tensor
		if !t.DType().IsFloat() || t.Len() == 0 || t.Len()%rows != 0 {
			continue
		}
		width := t.Len() / rows
		if len(info.Classes) > 0 && width != 1 && width != len(info.Classes) {
			continue
		}
		if info.Task == engine.TaskBinary && width > 2 {
			continue
		}
		if strings.Contains(strings.ToLower(out[i].Name), "prob") {
			return &out[i]
		}
		if found == nil {
			found = &out[i]
		}
	}
	return found
}

func labelOutput(out engine.Values, rows int) *engine.Tensor {
	for _, o := range out {
		d := o.Tensor.DType()
		if (d.IsInteger() || d == engine.Bool || d == engine.String) && o.Tensor.Len() == rows {
			return o.Tensor
		}
	}
	return nil
}

func isLogit(name string) bool { return strings.Contains(strings.ToLower(name), "logit") }

func binaryScores(_ *engine.Info, v []float64, width int, name string, scores []float64) []int {
	decided := make([]int, len(scores))
	for r := range scores {
		var p float64
		switch {
		case width == 1 && isLogit(name):
			p = 1 / (1 + math.Exp(-v[r]))
		case width == 1:
			p = v[r]
		default:
			row := v[2*r : 2*r+2]
			decided[r] = argmax(row)
			if q := probabilities(row, name); q != nil {
				scores[r] = q[1]
			}
			continue
		}
		scores[r] = p
		decided[r] = -1
		if !math.IsNaN(p) {
			decided[r] = 0
		}
		if p > 0.5 {
			decided[r] = 1
		}
	}
	return decided
}

func multiclassScores(_ *engine.Info, v []float64, width int, name string, scores []float64) []int {
	decided := make([]int, len(scores))
	for r := range scores {
		if width == 1 {
			// The class itself (multi:softmax): there is no probability to score.
			decided[r] = -1
			if k := v[r]; k >= 0 && k < math.MaxInt32 && k == math.Trunc(k) {
				decided[r] = int(k)
			}
			continue
		}
		row := v[r*width : (r+1)*width]
		decided[r] = argmax(row)
		if p := probabilities(row, name); p != nil {
			scores[r] = slices.Max(p)
		}
	}
	return decided
}

// probabilities returns the row itself where it is one of probabilities, its
// softmax where it is named as logits, else nil.
func probabilities(row []float64, name string) []float64 {
	if isLogit(name) {
		return softmax(row)
	}
	for _, p := range row {
		if !(p >= 0 && p <= 1+1e-6) {
			return nil
		}
	}
	return row
}

func softmax(row []float64) []float64 {
	top, sum := slices.Max(row), 0.0
	out := make([]float64, len(row))
	for i, x := range row {
		out[i] = math.Exp(x - top)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

// argmax returns the first of the largest values, or -1 where one is NaN.
func argmax(row []float64) int {
	best := 0
	for i, v := range row {
		if math.IsNaN(v) {
			return -1
		}
		if v > row[best] {
			best = i
		}
	}
	return best
}

func className(info *engine.Info, k int) string {
	switch {
	case k < 0:
		return ""
	case k < len(info.Classes):
		return info.Classes[k]
	}
	return strconv.Itoa(k)
}

// labelName names the class of a label output. A number that is a class's own
// name stands for itself (classes "3" and "7"), else it counts classes.
func labelName(info *engine.Info, t *engine.Tensor, r int) string {
	if s := engine.Data[string](t); s != nil {
		return s[r]
	}
	v := i64At(t)(r)
	name := strconv.FormatInt(v, 10)
	if slices.Contains(info.Classes, name) || v < 0 || v >= int64(len(info.Classes)) {
		return name
	}
	return info.Classes[v]
}

// BinRow appends the bins of row number row of p: one for each field of the
// schema's features (BinNone where it is dropped, not a scalar or not stored),
// then one for the prediction: its score, or the class decided for where the
// reference's field is categorical. Without a reference it appends nothing.
func BinRow(ref *stats.Reference, s *Schema, p *Prediction, row int, dst []uint16) []uint16 {
	if ref == nil {
		return dst
	}
	features := p.Features.Row(row, p.Rows)
	known := !features.Empty()
	for i := range s.Features {
		b := stats.BinNone
		if known && i < len(ref.Fields) && s.Features[i].Elements == 1 {
			b = binField(&ref.Fields[i], s.Features, i, &features)
		}
		dst = append(dst, b)
	}
	return append(dst, binPrediction(ref, len(s.Features), p, row))
}

func binField(f *stats.FieldBins, fields []Field, i int, row *Columns) uint16 {
	array, at, ok := FieldPosition(fields, i)
	if !ok || f.Kind == stats.KindNone || f.Keyed() || fields[i].Private == PrivacySeal {
		return stats.BinNone // a sealed value has a bin for a Binner only
	}
	if array == "Str" {
		if f.Kind != stats.KindCategorical || at >= len(row.Str) {
			return stats.BinNone
		}
		return f.BinString(row.Str[at])
	}
	x, ok := number(&fields[i], array, at, row)
	if !ok {
		return stats.BinNone
	}
	if f.Kind == stats.KindCategorical {
		return f.BinCode(x)
	}
	return f.Bin(x)
}

func number(f *Field, array string, at int, row *Columns) (float64, bool) {
	switch {
	case array == "F32" && at < len(row.F32):
		return float64(row.F32[at]), true
	case array == "F64" && at < len(row.F64):
		return row.F64[at], true
	case array == "I64" && at < len(row.I64) && f.DType == engine.Uint64:
		return float64(uint64(row.I64[at])), true
	case array == "I64" && at < len(row.I64):
		return float64(row.I64[at]), true
	}
	return 0, false
}

func binPrediction(ref *stats.Reference, at int, p *Prediction, row int) uint16 {
	if at >= len(ref.Fields) {
		return stats.BinNone
	}
	// Outputs that nothing can be read from, since they are not shaped as declared, are a
	// missing score and no class: so they are stored, and counted again from the rows.
	switch f := &ref.Fields[at]; f.Kind {
	case stats.KindNumeric:
		if row >= len(p.Scores) {
			return stats.BinMissing
		}
		return f.Bin(p.Scores[row])
	case stats.KindCategorical:
		if row >= len(p.Decided) {
			return stats.BinMissing
		}
		return f.BinString(p.Decided[row])
	}
	return stats.BinNone
}
