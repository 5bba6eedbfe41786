package collector

import (
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// PredictionField is the name under which what a model answered is watched,
// beside its features.
const PredictionField = "prediction"

// StatColumns turns rows into the columns a reference is cut from: the schema's
// features in order, then the prediction. It is the counterpart of BinRow: the
// same fields have bins, in the same places. A field that is dropped or not a
// scalar becomes a column of no kind.
func StatColumns(s *Schema, task engine.Task, cols Columns, rows int, scores []float64, decided []string) []stats.Column {
	out := make([]stats.Column, 0, len(s.Features)+1)
	for i := range s.Features {
		out = append(out, statColumn(s.Features, i, cols, rows))
	}
	last := stats.Column{Name: PredictionField, Kind: stats.KindNumeric, Numbers: scores}
	if task == engine.TaskMulticlass {
		last = stats.Column{Name: PredictionField, Kind: stats.KindCategorical, Strings: decided}
	}
	if last.Len() != rows {
		last = stats.Column{Name: PredictionField, Kind: stats.KindNone}
	}
	return append(out, last)
}

func statColumn(fields []Field, i int, cols Columns, rows int) stats.Column {
	f := &fields[i]
	array, at, ok := FieldPosition(fields, i)
	if !ok || f.Elements != 1 {
		return stats.Column{Name: f.Name, Kind: stats.KindNone}
	}
	c := stats.Column{Name: f.Name, Kind: stats.KindNumeric}
	if f.Categorical {
		c.Kind = stats.KindCategorical
	}
	if array == "Str" {
		c.Kind = stats.KindCategorical
		for r := range rows {
			row := cols.Row(r, rows)
			c.Strings = append(c.Strings, row.Str[at])
		}
		return c
	}
	for r := range rows {
		row := cols.Row(r, rows)
		x, ok := number(f, array, at, &row)
		if !ok {
			return stats.Column{Name: f.Name, Kind: stats.KindNone}
		}
		c.Numbers = append(c.Numbers, x)
	}
	return c
}
