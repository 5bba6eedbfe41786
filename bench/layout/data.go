package main

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"github.com/pellucid/pellucid/engine/table"
)

// set is data whose bytes are compared: rows of values of one type.
type set struct {
	name, typ     string
	columns, rows int
	// array returns the values of a row as an array of the type.
	array func(r int) any
}

func setOf[T any](name, typ string, columns [][]T) set {
	return set{name: name, typ: typ, columns: len(columns), rows: len(columns[0]), array: func(r int) any {
		out := make([]T, len(columns))
		for c := range columns {
			out[c] = columns[c][r]
		}
		return out
	}}
}

// mixed returns columns of kinds that follow one another: a constant, a counter, an
// hour, random numbers, a slow step and a coin, then the same at another rhythm.
func mixed(columns, rows int) [][]float32 {
	rng := rand.New(rand.NewPCG(2, 2))
	out := make([][]float32, columns)
	for c := range out {
		out[c] = make([]float32, rows)
		rhythm := 1 + c/6
		for i := range out[c] {
			out[c][i] = []func() float32{
				func() float32 { return float32(rhythm) },
				func() float32 { return float32(i / rhythm) },
				func() float32 { return float32(i / (3600 * rhythm) % 24) },
				func() float32 { return float32(rng.NormFloat64()) },
				func() float32 { return float32(i / (1000 * rhythm)) },
				func() float32 { return float32(rng.IntN(1 + rhythm)) },
			}[c%6]()
		}
	}
	return out
}

func random(columns, rows int) [][]float32 {
	rng := rand.New(rand.NewPCG(3, 3))
	out := make([][]float32, columns)
	for c := range out {
		out[c] = make([]float32, rows)
		for i := range out[c] {
			out[c][i] = float32(rng.NormFloat64())
		}
	}
	return out
}

// sparse returns columns that are mostly zero, one of them with zeros of both signs and
// one with numbers that are missing.
func sparse(columns, rows int) [][]float32 {
	rng := rand.New(rand.NewPCG(4, 4))
	out := make([][]float32, columns)
	for c := range out {
		out[c] = make([]float32, rows)
		for i := range out[c] {
			if rng.IntN(50) > 0 {
				continue
			}
			out[c][i] = []float32{1, float32(math.Copysign(0, -1)), float32(math.NaN()), float32(rng.IntN(9))}[c%4]
		}
	}
	return out
}

// sets returns the data, rows of each that is made.
func sets(flights string, rows int) ([]set, error) {
	all := []set{
		setOf("random", "Float32", random(8, rows)), setOf("general", "Float32", mixed(6, rows)), setOf("sparse", "Float32", sparse(10, rows)),
		setOf("mixed 10", "Float32", mixed(10, rows)), setOf("mixed 30", "Float32", mixed(30, rows/2)), setOf("mixed 100", "Float32", mixed(100, rows/4)),
	}
	if flights == "" {
		return all, nil
	}
	of, err := flightSets(flights)
	return append(of, all...), err
}

// flightSets are the features that the demo's models record, in the order in which the
// demo sends them, then every number of the file in its own order, as float32 and as
// float64, and every text.
func flightSets(path string) ([]set, error) {
	t, err := table.Open(path)
	if err != nil {
		return nil, err
	}
	order, err := replayed(t)
	if err != nil {
		return nil, err
	}
	var out []set
	for _, model := range []string{"flights_gbm", "flights_mlp"} {
		ref, err := table.Open(filepath.Join(filepath.Dir(path), "models", model, "1", "reference.parquet"))
		if err != nil {
			return nil, err
		}
		var columns [][]float32
		for i := range ref.Columns {
			c := t.Column(ref.Columns[i].Name)
			if c == nil || c.Name == "late" {
				continue
			}
			values := numbers(c)
			sorted := make([]float32, len(order))
			for k, r := range order {
				sorted[k] = float32(values[r])
			}
			columns = append(columns, sorted)
		}
		out = append(out, setOf(model, "Float32", columns))
	}
	var wide [][]float64
	var narrow [][]float32
	var text [][]string
	for i := range t.Columns {
		switch c := &t.Columns[i]; c.Type {
		case table.Float64, table.Float32, table.Int64:
			values := numbers(c)
			wide = append(wide, values)
			low := make([]float32, len(values))
			for r, v := range values {
				low[r] = float32(v)
			}
			narrow = append(narrow, low)
		case table.String:
			text = append(text, c.Str)
		}
	}
	return append(out, setOf("flights", "Float32", narrow), setOf("flights 64", "Float64", wide), setOf("texts", "String", text)), nil
}

// replayed returns the rows that the demo sends, by departure.
func replayed(t *table.Table) ([]int, error) {
	month, departs := t.Column("month"), t.Column("sched_dep")
	if month == nil || departs == nil {
		return nil, fmt.Errorf("read %s: it has no month or sched_dep", t.Path)
	}
	var order []int
	for r := range t.Rows {
		if month.I64[r] >= 4 {
			order = append(order, r)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return departs.Times[a].Compare(departs.Times[b]) })
	return order, nil
}

// numbers returns a column as numbers, texts by their place among the sorted ones.
func numbers(c *table.Column) []float64 {
	switch c.Type {
	case table.Float64:
		return c.F64
	case table.Float32:
		return widened(c.F32, nil)
	case table.Int64:
		return widened(c.I64, c.Null)
	}
	names := slices.Clone(c.Str)
	slices.Sort(names)
	names = slices.Compact(names)
	out := make([]float64, len(c.Str))
	for r, v := range c.Str {
		at, _ := slices.BinarySearchFunc(names, v, cmp.Compare)
		out[r] = float64(at)
	}
	return out
}

func widened[T float32 | int64](values []T, null []bool) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = float64(v)
		if null != nil && null[i] {
			out[i] = math.NaN()
		}
	}
	return out
}
