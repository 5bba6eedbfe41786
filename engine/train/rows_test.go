package train

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine/table"
)

// numbers are the columns of rows.csv that scikit-learn and PyTorch are given.
var numbers = []string{"age", "income", "visits", "score"}

func readRows(t *testing.T) *table.Table {
	t.Helper()
	rows, err := table.Open(filepath.Join("testdata", "rows.csv"))
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func columnsOf(t *testing.T, rows *table.Table, names ...string) []Column {
	t.Helper()
	out := make([]Column, len(names))
	for i, name := range names {
		c := rows.Column(name)
		out[i].Name = name
		if v, ok := c.Float64s(); ok {
			out[i].Numbers = v
		} else {
			out[i].Texts = c.Strings()
		}
	}
	return out
}

// labelsOf takes value and count for numbers, everything else for classes.
func labelsOf(t *testing.T, rows *table.Table, name string, weighted bool) *Labels {
	t.Helper()
	l := &Labels{}
	if weighted {
		l.Weights, _ = rows.Column("weight").Float64s()
	}
	if name == "value" || name == "count" {
		l.Values, _ = rows.Column(name).Float64s()
		return l
	}
	texts := rows.Column(name).Strings()
	l.Classes = slices.Compact(slices.Sorted(slices.Values(texts)))
	for _, s := range texts {
		i, _ := slices.BinarySearch(l.Classes, s)
		l.Class = append(l.Class, i)
	}
	return l
}

type expected struct {
	Linear []struct {
		Name, Loss, Label string
		L2                float64
		Weighted          bool
		Coef              [][]float64
		Intercept         []float64
		Minimum           float64
	}
	Network []struct {
		Name, Loss, Label, Activation, Optimizer string
		LR, Decay, Momentum                      float64
		Nesterov                                 bool
		Betas                                    []float64
		Start                                    [][]float64
		Losses                                   []float64
	}
	Written map[string]map[string][]json.RawMessage
}

func readExpected(t *testing.T) *expected {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	e := &expected{}
	if err := json.Unmarshal(data, e); err != nil {
		t.Fatal(err)
	}
	return e
}

// near reports whether two numbers agree to a tolerance of the larger, or of 1.
func near(a, b, tolerance float64) bool {
	return math.Abs(a-b) <= tolerance*max(1, math.Abs(a), math.Abs(b))
}
