package train

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// Column is one feature: Numbers, NaN where missing, or Texts, "" where missing, which
// are categories.
type Column struct {
	Name    string
	Numbers []float64
	Texts   []string
}

func (c *Column) len() int { return max(len(c.Numbers), len(c.Texts)) }

// The bounds of columns.
const (
	maxCategories = 1000
	maxWidth      = 1 << 16
)

// coded is how a column becomes numbers of a network: (x - mean) / deviation with the
// mean where x is missing, or one number for each of the categories.
type coded struct {
	column          *Column
	mean, deviation float64
	categories      []string
	codes           []int32 // of each row; -1 for a category that is none of them
}

func (c *coded) width() int { return max(len(c.categories), 1) }

// encoder makes a network's inputs of rows.
type encoder struct {
	// ready are all rows in 32 bits, or nil.
	ready   []float32
	columns []coded
	width   int
	// missing says that a number was missing among the rows learnt from. Where none
	// was, the model refuses one that is, rather than to guess.
	missing bool
}

// encode finds out from the rows learnt from how columns are coded.
func encode(columns []Column, training []int) (*encoder, error) {
	e := &encoder{}
	for i := range columns {
		c, err := e.column(&columns[i], training)
		if err != nil {
			return nil, err
		}
		e.columns = append(e.columns, c)
		if e.width += c.width(); e.width > maxWidth {
			return nil, fmt.Errorf("the columns make more than %d numbers a row: %w", maxWidth, engine.ErrTooLarge)
		}
	}
	return e, nil
}

func (e *encoder) column(c *Column, training []int) (coded, error) {
	out := coded{column: c}
	if c.Texts == nil {
		for _, i := range training {
			v := c.Numbers[i]
			e.missing = e.missing || math.IsNaN(v)
			if math.Abs(v) > math.MaxFloat32 {
				return out, fmt.Errorf("column %q: the value of row %d is not one of 32 bits", c.Name, i+1)
			}
		}
		out.mean, out.deviation = moments(training, func(i int) float64 { return float64(float32(c.Numbers[i])) })
		// In the file both are of 32 bits: rows are coded with what will be served.
		out.mean, out.deviation = float64(float32(out.mean)), float64(float32(out.deviation))
		if !(out.deviation > 0) || math.IsInf(1/out.deviation, 0) || math.IsInf(out.deviation, 0) {
			out.deviation = 1
		}
		return out, nil
	}
	seen := map[string]bool{}
	for _, i := range training {
		seen[c.Texts[i]] = true
		if len(seen) > maxCategories {
			return out, fmt.Errorf("column %q has more than %d categories: leave it out, or join some", c.Name, maxCategories)
		}
	}
	for s := range seen {
		if !utf8.ValidString(s) {
			return out, fmt.Errorf("column %q has a category that is no UTF-8", c.Name)
		}
		out.categories = append(out.categories, s)
	}
	slices.Sort(out.categories)
	out.codes = make([]int32, len(c.Texts))
	for i, s := range c.Texts {
		at, ok := slices.BinarySearch(out.categories, s)
		out.codes[i] = int32(at)
		if !ok {
			out.codes[i] = -1
		}
	}
	return out, nil
}

// rows returns [n, width] of d.
func (e *encoder) rows(rows []int, d engine.DType) (*engine.Tensor, error) {
	if e.ready != nil && d == engine.Float32 {
		out := make([]float32, len(rows)*e.width)
		for r, i := range rows {
			copy(out[r*e.width:(r+1)*e.width], e.ready[i*e.width:])
		}
		return engine.Of(out, len(rows), e.width)
	}
	if d == engine.Float64 {
		return engine.Of(fill[float64](e, rows), len(rows), e.width)
	}
	return engine.Of(fill[float32](e, rows), len(rows), e.width)
}

// prepare encodes all rows once, where they are numbers only: in 32 bits they take half the
// room of the rows given. Categories are expanded a part at a time.
func (e *encoder) prepare() {
	rows := 0
	for i := range e.columns {
		if e.columns[i].codes != nil {
			return
		}
		rows = len(e.columns[i].column.Numbers)
	}
	all := make([]int, rows)
	for i := range all {
		all[i] = i
	}
	e.ready = fill[float32](e, all)
}

// fill puts numbers first and then categories, as the graph in the file does.
func fill[T float32 | float64](e *encoder, rows []int) []T {
	out := make([]T, len(rows)*e.width)
	at := 0
	for _, text := range []bool{false, true} {
		for k := range e.columns {
			c := &e.columns[k]
			if (c.codes != nil) != text {
				continue
			}
			for r, i := range rows {
				row := out[r*e.width+at:]
				switch {
				case text && c.codes[i] >= 0:
					row[c.codes[i]] = 1
				case !text && !math.IsNaN(c.column.Numbers[i]):
					row[0] = T((float64(float32(c.column.Numbers[i])) - c.mean) / c.deviation)
				}
			}
			at += c.width()
		}
	}
	return out
}

// write adds what rows does to a graph: its inputs, and the nodes from them to the
// value whose name it returns. The input of a model of numbers only is one matrix, else
// there is one a column.
func (e *encoder) write(m *maker) string {
	var numbers, texts []*coded
	for i := range e.columns {
		if c := &e.columns[i]; c.codes == nil {
			numbers = append(numbers, c)
		} else {
			texts = append(texts, c)
		}
	}
	var parts []string
	if len(numbers) > 0 {
		parts = append(parts, e.writeNumbers(m, numbers, len(texts) == 0))
	}
	for _, c := range texts {
		m.g.Inputs = append(m.g.Inputs, engine.Spec{Name: c.column.Name, DType: engine.String, Shape: []int{-1, 1}})
		hot := m.ml("OneHotEncoder", graph.Attrs{"cats_strings": {Kind: graph.AttrStrings, Strings: c.categories}, "zeros": integer(1)}, c.column.Name)
		parts = append(parts, m.op("Flatten", graph.Attrs{"axis": integer(1)}, hot))
	}
	// Inputs stand in the order of the columns.
	place := func(name string) int {
		return slices.IndexFunc(e.columns, func(c coded) bool { return c.column.Name == name })
	}
	slices.SortStableFunc(m.g.Inputs, func(a, b engine.Spec) int { return place(a.Name) - place(b.Name) })
	if len(parts) == 1 {
		return parts[0]
	}
	return m.op("Concat", graph.Attrs{"axis": integer(1)}, parts...)
}

func (e *encoder) writeNumbers(m *maker, numbers []*coded, matrix bool) string {
	var mean, deviation []float32
	var names []string
	for _, c := range numbers {
		mean, deviation = append(mean, float32(c.mean)), append(deviation, float32(c.deviation))
		names = append(names, c.column.Name)
	}
	var x string
	if matrix {
		x = matrixInput
		m.g.Inputs = append(m.g.Inputs, engine.Spec{Name: x, DType: engine.Float32, Shape: []int{-1, len(numbers)}})
	} else {
		for _, name := range names {
			m.g.Inputs = append(m.g.Inputs, engine.Spec{Name: name, DType: engine.Float32, Shape: []int{-1, 1}})
		}
		if x = names[0]; len(names) > 1 {
			x = m.op("Concat", graph.Attrs{"axis": integer(1)}, names...)
		}
	}
	middle := m.constant(engine.Of(mean, 1, len(mean)))
	if e.missing {
		x = m.op("Where", nil, m.op("IsNaN", nil, x), middle, x)
	}
	return m.op("Div", nil, m.op("Sub", nil, x, middle), m.constant(engine.Of(deviation, 1, len(deviation))))
}

// matrixInput is the name of the input of a model of numbers only.
const matrixInput = "input"

// checkColumns refuses columns that cannot be a model's inputs.
func checkColumns(columns []Column, rows int) error {
	if len(columns) == 0 {
		return errors.New("there is no feature to learn from")
	}
	seen := map[string]bool{}
	for i := range columns {
		c := &columns[i]
		switch {
		case c.Name == "" || seen[c.Name]:
			return fmt.Errorf("column %d has no name, or that of another", i+1)
		case !utf8.ValidString(c.Name):
			return fmt.Errorf("column %d: the name is no UTF-8", i+1)
		case (c.Numbers == nil) == (c.Texts == nil) || c.len() != rows:
			return fmt.Errorf("column %q has %d values for %d rows", c.Name, c.len(), rows)
		}
		seen[c.Name] = true
		for i, v := range c.Numbers {
			if math.IsInf(v, 0) {
				return fmt.Errorf("column %q: the value of row %d is not finite", c.Name, i+1)
			}
		}
	}
	return nil
}
