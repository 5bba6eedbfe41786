package table

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/engine"
)

// Inputs picks a model's inputs from the table, ready for engine.Bind: by name,
// or by position where the table has no names or names none of the features and
// has exactly as many columns. Columns the model does not know are left out.
//
// In a table with names, a column of a feature whose categories are named holds
// names: also where those are numbers (shop 100 to 189), which engine.Bind then finds
// by their value, 100 and 100.0 and 1e2 alike. Elsewhere, and in a table without names,
// which is the model's matrix, numbers are codes.
func (t *Table) Inputs(info *engine.Info) (engine.Values, error) {
	in, err := t.inputs(info)
	if err != nil {
		return nil, err
	}
	if in, err = Halves(info, in); err != nil {
		return nil, fmt.Errorf("read %s: %w", t.Path, err)
	}
	return in, nil
}

func (t *Table) inputs(info *engine.Info) (engine.Values, error) {
	if len(info.Inputs) == 0 {
		return nil, fmt.Errorf("read %s: the model names no inputs", t.Path)
	}
	if len(info.Inputs) == 1 && isMatrix(info.Inputs[0]) {
		return t.matrix(info)
	}
	if s := info.Inputs[0]; len(info.Inputs) == 1 && s.DType == engine.String && len(s.Shape) == 2 && s.Shape[1] > 1 {
		return t.textMatrix(s)
	}
	names := make([]string, len(info.Inputs))
	for i, s := range info.Inputs {
		names[i] = s.Name
	}
	cols, err := t.pick(names)
	if err != nil {
		return nil, err
	}
	var in engine.Values
	for i, c := range cols {
		spec := info.Inputs[i]
		if !isColumn(spec) {
			return nil, fmt.Errorf("read %s: input %q has shape %v, which is not a column", t.Path, spec.Name, spec.Shape)
		}
		x, err := c.tensor(spec.DType)
		if err == nil && len(spec.Shape) == 2 {
			x, err = x.Reshape(t.Rows, 1)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: input %q: %w", t.Path, spec.Name, err)
		}
		in = append(in, engine.Named{Name: spec.Name, Tensor: x})
	}
	return in, nil
}

// textMatrix builds the one tensor of a model that takes all columns as text.
func (t *Table) textMatrix(spec engine.Spec) (engine.Values, error) {
	if len(t.Columns) != spec.Shape[1] {
		return nil, fmt.Errorf("read %s: a row of %d columns does not fill input %q of shape %v", t.Path, len(t.Columns), spec.Name, spec.Shape)
	}
	out := make([]string, t.Rows*len(t.Columns))
	for j := range t.Columns {
		for i, s := range t.Columns[j].Strings() {
			out[i*len(t.Columns)+j] = s
		}
	}
	x, err := engine.Of(out, t.Rows, len(t.Columns))
	return engine.Values{{Name: spec.Name, Tensor: x}}, err
}

// isMatrix says that an input takes all columns of a row in one tensor.
func isMatrix(s engine.Spec) bool {
	return (s.DType.IsFloat() || s.DType.IsInteger()) && len(s.Shape) >= 2
}

func isColumn(s engine.Spec) bool {
	return len(s.Shape) == 1 || len(s.Shape) == 2 && (s.Shape[1] == 1 || s.Shape[1] < 0)
}

// pick returns the columns of these names, in order.
func (t *Table) pick(names []string) ([]*Column, error) {
	cols := make([]*Column, len(names))
	var absent []string
	byName := make(map[string]*Column, len(t.Columns))
	for i := range t.Columns {
		byName[t.Columns[i].Name] = &t.Columns[i]
	}
	for i, n := range names {
		if cols[i] = byName[n]; cols[i] == nil {
			absent = append(absent, n)
		}
	}
	if len(absent) == 0 {
		return cols, nil
	}
	if len(t.Columns) == len(names) && (!t.Named || len(absent) == len(names)) {
		for i := range t.Columns {
			cols[i] = &t.Columns[i]
		}
		return cols, nil
	}
	const show = 5
	more := ""
	if len(absent) > show {
		more = fmt.Sprintf(" and %d more", len(absent)-show)
		absent = absent[:show]
	}
	return nil, fmt.Errorf("read %s: no column for %s%s (the table has %d columns, the model takes %d)",
		t.Path, strings.Join(absent, ", "), more, len(t.Columns), len(names))
}

// matrix builds the one tensor [rows, ...] of a model. Where a column is text,
// the columns are handed over one by one, which native tree models accept and map
// by the categories of their file.
func (t *Table) matrix(info *engine.Info) (engine.Values, error) {
	spec := info.Inputs[0]
	cols, err := t.matrixColumns(info)
	if err != nil {
		return nil, err
	}
	for i, c := range cols {
		if c.Type == String || t.namesNumbers(info, i, c) {
			return t.namedColumns(info, cols)
		}
		if c.Type == Time {
			return nil, fmt.Errorf("read %s: column %q is a time, not a number", t.Path, c.Name)
		}
	}
	shape := append([]int{t.Rows}, spec.Shape[1:]...)
	if len(shape) == 2 {
		shape[1] = len(cols)
	}
	x, err := fill(cols, t.Rows, shape, spec.DType)
	if err != nil {
		return nil, fmt.Errorf("read %s: input %q: %w", t.Path, spec.Name, err)
	}
	return engine.Values{{Name: spec.Name, Tensor: x}}, nil
}

func (t *Table) matrixColumns(info *engine.Info) ([]*Column, error) {
	spec := info.Inputs[0]
	if info.Features != nil {
		names := make([]string, len(info.Features))
		for i, f := range info.Features {
			names[i] = f.Name
		}
		return t.pick(names)
	}
	want := 1
	for _, d := range spec.Shape[1:] {
		want *= d
		if d < 0 {
			want = -1
			break
		}
	}
	if want < 0 && len(spec.Shape) != 2 || want >= 0 && want != len(t.Columns) {
		return nil, fmt.Errorf("read %s: a row of %d columns does not fill input %q of shape %v", t.Path, len(t.Columns), spec.Name, spec.Shape)
	}
	cols := make([]*Column, len(t.Columns))
	for i := range cols {
		cols[i] = &t.Columns[i]
	}
	return cols, nil
}

// namesNumbers reports whether column i holds numbers that are category names.
func (t *Table) namesNumbers(info *engine.Info, i int, c *Column) bool {
	return t.Named && c.Type != Time && i < len(info.Features) && info.Features[i].TakesValues()
}

// namedColumns hands over one named column a feature.
func (t *Table) namedColumns(info *engine.Info, cols []*Column) (engine.Values, error) {
	if info.Features == nil {
		return nil, fmt.Errorf("read %s: a column holds text, the model takes numbers", t.Path)
	}
	var in engine.Values
	for i, c := range cols {
		f := info.Features[i]
		d := engine.String
		if c.Type != String {
			d = info.Inputs[0].DType
		} else if !f.Categorical {
			return nil, fmt.Errorf("read %s: column %q holds text, feature %q takes numbers", t.Path, c.Name, f.Name)
		}
		var x *engine.Tensor
		var err error
		if c.Type != String && t.namesNumbers(info, i, c) {
			x, err = c.values()
		} else {
			x, err = c.tensor(d)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: column %q: %w", t.Path, c.Name, err)
		}
		in = append(in, engine.Named{Name: f.Name, Tensor: x})
	}
	return in, nil
}

// values returns a column of numbers in the type it has, or FP64 where one is missing.
func (c *Column) values() (*engine.Tensor, error) {
	switch {
	case c.Type == Int64 && !slices.Contains(c.Null, true):
		return engine.Of(c.I64, len(c.I64))
	case c.Type == Float32:
		return engine.Of(c.F32, len(c.F32))
	}
	f, _ := c.Float64s()
	return engine.Of(f, len(f))
}

// tensor returns the column as a tensor [rows] of type d where that loses
// nothing that the type can hold, else of the column's own type for engine.Bind
// to judge.
func (c *Column) tensor(d engine.DType) (*engine.Tensor, error) {
	switch {
	case c.Type == Time:
		return nil, fmt.Errorf("column %q is a time", c.Name)
	case d == engine.String || c.Type == String:
		s := c.Strings()
		return engine.Of(s, len(s))
	case d.IsFloat():
		return fill([]*Column{c}, c.Len(), []int{c.Len()}, d)
	case c.Type == Int64:
		for i, null := range c.Null {
			if null {
				return nil, fmt.Errorf("row %d is missing, and %s has no missing value", i, d)
			}
		}
		return engine.Of(c.I64, len(c.I64))
	}
	f, _ := c.Float64s()
	return engine.Of(f, len(f))
}

// fill writes columns of numbers side by side in a tensor.
func fill(cols []*Column, rows int, shape []int, d engine.DType) (*engine.Tensor, error) {
	if d == engine.Float32 {
		return fillFloat32(cols, rows, shape)
	}
	// Any other type: float64 holds every number a file can bring but integers
	// beyond 2^53, and Bind narrows it or refuses.
	out := make([]float64, rows*len(cols))
	for j, c := range cols {
		v, ok := c.Float64s()
		if !ok {
			return nil, fmt.Errorf("column %q holds no numbers", c.Name)
		}
		for i, x := range v {
			out[i*len(cols)+j] = x
		}
	}
	return engine.Of(out, shape...)
}

func fillFloat32(cols []*Column, rows int, shape []int) (*engine.Tensor, error) {
	out := make([]float32, rows*len(cols))
	for j, c := range cols {
		if c.Type == Float32 {
			for i, x := range c.F32 {
				out[i*len(cols)+j] = x
			}
			continue
		}
		v, ok := c.Float64s()
		if !ok {
			return nil, fmt.Errorf("column %q holds no numbers", c.Name)
		}
		for i, x := range v {
			out[i*len(cols)+j] = float32(x)
		}
	}
	return engine.Of(out, shape...)
}
