package oip

import (
	"bytes"
	"errors"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// span is the place of one value in a body.
type span struct{ from, to int }

// DecodeInstances decodes a KServe v1 request for a model: "instances" is a list
// of rows, each a list of values by position or an object of values by name.
// For a tabular model the names are its features; for any other its inputs.
// A row must have every name: null is how a missing value is said.
func DecodeInstances(body []byte, info *engine.Info) (*Request, error) {
	d, err := newDecoder(body, NoHeader)
	if err != nil {
		return nil, err
	}
	req := &Request{}
	var at span
	var seen keys
	err = d.s.object(func(key string) error {
		switch key {
		case "instances":
			return d.once(&seen, 1, key, func() error {
				d.s.peek()
				at.from = d.s.i
				_, err := d.s.raw()
				at.to = d.s.i
				return err
			})
		case "parameters":
			return d.once(&seen, 2, key, func() (err error) { req.Params, err = d.params(); return err })
		}
		return d.s.skip(0)
	})
	if err != nil {
		return nil, err
	}
	if err := d.s.end(); err != nil {
		return nil, err
	}
	if at.to == 0 {
		return nil, refuse(`the request has no "instances"`)
	}
	if body[at.from] != '[' {
		return nil, refuse(`"instances" must be a list`)
	}
	in := instances{body: body[:at.to], info: info}
	if err := in.split(at); err != nil {
		return nil, err
	}
	req.Inputs, err = in.items()
	return req, err
}

// instances is the rows of a v1 request by place. Their JSON has been checked.
type instances struct {
	body []byte
	info *engine.Info
	list span
	rows []span
	r    reader
	dims []int // of one column after the other
}

func (in *instances) split(at span) error {
	in.list = at
	s := scanner{b: in.body, i: at.from}
	err := s.list(func(int) error {
		s.peek()
		from := s.i
		if err := s.skip(0); err != nil {
			return err
		}
		in.rows = append(in.rows, span{from, s.i})
		return nil
	})
	if err == nil && len(in.rows) == 0 {
		return refuse(`"instances" has no rows`)
	}
	return err
}

// items turns the rows into tensors.
func (in *instances) items() ([]Item, error) {
	switch {
	case in.body[in.rows[0].from] == '{':
		if in.info.Features != nil && len(in.info.Inputs) == 1 && in.unwrap(in.info.Inputs[0].Name) {
			return in.lists()
		}
		return in.objects()
	case in.matrix():
		return in.tensor(in.info.Inputs[0])
	case in.info.Features != nil:
		return in.lists()
	case len(in.info.Inputs) == 1:
		return in.tensor(in.info.Inputs[0])
	}
	return nil, refuse("the model has %d inputs: each instance must be an object with all of them", Number(len(in.info.Inputs)))
}

// matrix reports whether the rows are the one input of the model as it is:
// strings among them would be categories by name, which go by column, as numbers that
// are categories do, so that a value means the same in every row.
func (in *instances) matrix() bool {
	return len(in.info.Inputs) == 1 && (in.info.Inputs[0].DType == engine.String ||
		bytes.IndexByte(in.body[in.list.from:in.list.to], '"') < 0 && !in.values())
}

// values reports whether a number may be a category by its value.
func (in *instances) values() bool {
	return slices.ContainsFunc(in.info.Features, func(f engine.Feature) bool { return f.TakesValues() })
}

// tensor reads all rows as one tensor whose shape is that of their nesting.
func (in *instances) tensor(spec engine.Spec) ([]Item, error) {
	shape, err := in.measure(in.list)
	if err != nil {
		return nil, err
	}
	// A row may be written as a bare value where the model takes a column.
	if len(shape) == 1 && len(spec.Shape) == 2 {
		shape = append(shape, 1)
	}
	s := scanner{b: in.body, i: in.list.from}
	t, err := s.data(spec.Name, spec.DType, shape)
	if err != nil {
		return nil, err
	}
	return []Item{{Name: spec.Name, Tensor: t}}, nil
}

// measure returns the shape that the nesting of the value at sp begins with.
func (in *instances) measure(sp span) ([]int, error) {
	var shape []int
	s := scanner{b: in.body, i: sp.from}
	for s.peek() == '[' && s.i < sp.to {
		if len(shape) == maxRank {
			return nil, refuse("instances are nested more than %d deep", Number(maxRank))
		}
		n := 0
		count := s
		if err := count.list(func(int) error { n++; return count.skip(0) }); err != nil {
			return nil, err
		}
		shape = append(shape, n)
		s.i++
	}
	return shape, nil
}

// column is one named part of every row.
type column struct {
	name  string
	spec  *engine.Spec // nil for a feature of a matrix model
	cells []span
}

// columns lists the names rows go by: the features of a tabular model, else its
// inputs.
func (in *instances) columns() []column {
	out := make([]column, 0, max(len(in.info.Features), len(in.info.Inputs)))
	if in.info.Features != nil {
		for _, f := range in.info.Features {
			out = append(out, column{name: f.Name})
		}
	} else {
		for _, s := range in.info.Inputs {
			out = append(out, column{name: s.Name})
		}
	}
	cells := make([]span, len(out)*len(in.rows))
	for i := range out {
		if k := in.input(i, out[i].name); k >= 0 {
			out[i].spec = &in.info.Inputs[k]
		}
		out[i].cells = cells[i*len(in.rows) : (i+1)*len(in.rows)]
	}
	return out
}

// input returns which input has a name, mostly the i-th, or -1.
func (in *instances) input(i int, name string) int {
	if i < len(in.info.Inputs) && in.info.Inputs[i].Name == name {
		return i
	}
	return slices.IndexFunc(in.info.Inputs, func(s engine.Spec) bool { return s.Name == name })
}

// objects reads rows that are objects of named values.
func (in *instances) objects() ([]Item, error) {
	cols := in.columns()
	place := make(map[string]int, len(cols))
	for i := range cols {
		place[cols[i].name] = i
	}
	for r, row := range in.rows {
		if in.body[row.from] != '{' {
			return nil, refuse("instance %d is not an object, the first one is", Number(r))
		}
		s := scanner{b: in.body, i: row.from}
		found := 0
		err := s.members(func(key []byte) error {
			k, ok := place[string(key)]
			if !ok {
				return refuse("instance %d: the model has no feature %q", Number(r), clip(string(key)))
			}
			if cols[k].cells[r].to != 0 {
				return refuse("instance %d: %q is there twice", Number(r), clip(string(key)))
			}
			s.peek()
			from := s.i
			err := s.skip(0)
			cols[k].cells[r] = span{from, s.i}
			found++
			return err
		})
		if err != nil {
			return nil, err
		}
		if found < len(cols) {
			i := slices.IndexFunc(cols, func(c column) bool { return c.cells[r].to == 0 })
			return nil, refuse("instance %d: feature %q is absent (null says that a value is missing)", Number(r), Own(cols[i].name))
		}
	}
	return in.read(cols)
}

// unwrap makes rows that are objects of nothing but a list called like the model's matrix these lists;
// where one is anything else it leaves them.
func (in *instances) unwrap(name string) bool {
	if slices.ContainsFunc(in.info.Features, func(f engine.Feature) bool { return f.Name == name }) {
		return false
	}
	lists := make([]span, 0, len(in.rows))
	for r, row := range in.rows {
		if in.body[row.from] != '{' {
			return false
		}
		s := scanner{b: in.body, i: row.from}
		others := s.members(func(key []byte) error {
			if string(key) != name || len(lists) > r || s.peek() != '[' {
				return errOther
			}
			from := s.i
			err := s.skip(0)
			lists = append(lists, span{from, s.i})
			return err
		})
		if others != nil || len(lists) != r+1 {
			return false
		}
	}
	in.rows = lists
	return true
}

// errOther ends a look at a row that is an object of something else.
var errOther = errors.New("something else")

// lists reads rows that are lists of a tabular model's features by position.
func (in *instances) lists() ([]Item, error) {
	cols := in.columns()
	for r, row := range in.rows {
		if in.body[row.from] != '[' {
			return nil, refuse("instance %d is not a list of %d values", Number(r), Number(len(cols)))
		}
		s := scanner{b: in.body, i: row.from}
		n := 0
		err := s.list(func(i int) error {
			s.peek()
			from := s.i
			err := s.skip(0)
			if i < len(cols) {
				cols[i].cells[r] = span{from, s.i}
			}
			n++
			return err
		})
		if err != nil {
			return nil, err
		}
		if n != len(cols) {
			return nil, refuse("instance %d has %d values, the model has %d features", Number(r), n, Number(len(cols)))
		}
	}
	return in.read(cols)
}

// read turns columns into tensors: one matrix where the model takes one and
// every cell is a number that is no category, else one tensor a column.
func (in *instances) read(cols []column) ([]Item, error) {
	if in.info.Features != nil && len(in.info.Inputs) == 1 && len(in.info.Inputs[0].Shape) == 2 && !in.text(cols) && !in.values() {
		return in.gather(cols)
	}
	if matrix := in.categories(cols); matrix != nil {
		return []Item{{Name: in.info.Inputs[0].Name, Tensor: matrix}}, nil
	}
	out := make([]Item, len(cols))
	for i := range cols {
		t, err := in.column(&cols[i])
		if err != nil {
			return nil, err
		}
		out[i] = Item{Name: cols[i].name, Tensor: t}
	}
	return out, nil
}

// codes reports whether a column's cells are all bare numbers.
func (in *instances) codes(c *column) bool {
	return !slices.ContainsFunc(c.cells, func(cell span) bool {
		b := in.body[cell.from]
		return b != '-' && (b < '0' || b > '9')
	})
}

// text reports whether a cell is a string.
func (in *instances) text(cols []column) bool {
	for i := range cols {
		for _, c := range cols[i].cells {
			if in.body[c.from] == '"' {
				return true
			}
		}
	}
	return false
}

// categories reads columns of which some are names of categories into the model's
// matrix, without memory for each. It returns nil where that is not to be had: the cells
// are then read column by column, which tells what is wrong with them.
func (in *instances) categories(cols []column) *engine.Tensor {
	if slices.ContainsFunc(cols, func(c column) bool { return c.spec != nil }) {
		return nil
	}
	g := engine.NewGather(in.info, len(in.rows))
	t, err := engine.New(engine.Float64, len(in.rows))
	if g == nil || err != nil {
		return nil
	}
	s := scanner{b: in.body}
	rd := &reader{s: &s, n: t.Len()}
	rd.elem = rd.into(t)
	for f := range cols {
		text := in.text(cols[f : f+1])
		rd.at = 0
		for r, cell := range cols[f].cells {
			s.i = cell.from
			if text {
				name, ok := s.plain()
				if !ok || !g.Name(f, r, name) {
					return nil
				}
				continue
			}
			if rd.elem() != nil {
				return nil
			}
			rd.at++
		}
		if !text && !g.Fill(f, t) {
			return nil
		}
	}
	matrix, _ := g.Matrix() // every feature has a column
	return matrix
}

// gather reads the cells of all columns into the model's one matrix.
func (in *instances) gather(cols []column) ([]Item, error) {
	spec := in.info.Inputs[0]
	if !JSONable(spec.DType) {
		return nil, refuse("input %q: %s cannot be sent as JSON: use the binary tensor extension", Own(spec.Name), spec.DType)
	}
	t, err := engine.New(spec.DType, len(in.rows), len(cols))
	if err != nil {
		return nil, refuse("the instances make no tensor: %s", err)
	}
	s := scanner{b: in.body}
	rd := &reader{s: &s, name: spec.Name, n: t.Len()}
	rd.elem = rd.into(t)
	for r := range in.rows {
		for k := range cols {
			s.i = cols[k].cells[r].from
			if err := rd.elem(); err != nil {
				return nil, refuse("instance %d: feature %q: %s", Number(r), Own(cols[k].name), err)
			}
			rd.at++
		}
	}
	return []Item{{Name: spec.Name, Tensor: t}}, nil
}

// one is the shape of a row that is a bare value of a column.
var one = []int{1}

// column reads one column: of the input's own type where the model declares it,
// else strings or float64 by what its first cell that is not null holds.
func (in *instances) column(c *column) (*engine.Tensor, error) {
	d := engine.Float64
	in.dims = append(in.dims[:0], len(in.rows))
	if c.spec != nil {
		if d = c.spec.DType; d == engine.String && in.codes(c) {
			d = engine.Int64 // which stands for its digits, as in a tensor
		}
		row, err := in.measure(c.cells[0])
		if err != nil {
			return nil, err
		}
		if len(row) == 0 && len(c.spec.Shape) == 2 {
			row = one
		}
		in.dims = append(in.dims, row...)
	} else if in.text([]column{*c}) {
		d = engine.String
	}
	if !JSONable(d) {
		return nil, refuse("feature %q: %s cannot be sent as JSON", Own(c.name), d)
	}
	shape := in.dims
	// Every cell holds at least a byte of the body, but a claimed row shape is
	// only the first cell's: bound the product by the body.
	if n, err := engine.Elements(shape); err != nil || n > len(in.body) {
		return nil, refuse("feature %q: the rows' shapes differ", Own(c.name))
	}
	t, err := in.r.slab.New(d, shape...)
	if err != nil {
		return nil, refuse("the instances make no tensor: %s", err)
	}
	rd := &in.r
	if rd.s == nil {
		rd.s = &scanner{b: in.body}
	}
	s := rd.s
	rd.name, rd.n, rd.at = c.name, t.RowLen(), 0
	rd.elem = rd.into(t)
	for r, cell := range c.cells {
		s.i = cell.from
		if in.body[cell.from] == '[' {
			err = rd.nested(shape[1:])
		} else if t.RowLen() != 1 {
			err = rd.mismatch()
		} else {
			err = rd.elem()
			rd.at++
		}
		if err != nil {
			return nil, refuse("instance %d: feature %q: %s", Number(r), Own(c.name), err)
		}
	}
	return t, nil
}

// AppendPredictions appends a KServe v1 answer: {"predictions": [...]}, one entry
// a row, which is the output's value where there is one output, else an object
// by output name.
func AppendPredictions(dst []byte, out engine.Values) ([]byte, error) {
	if len(out) == 0 {
		return append(dst, `{"predictions":[]}`...), nil
	}
	rows := out[0].Tensor.Rows()
	for _, o := range out {
		if o.Tensor.Rows() != rows {
			return dst, refuse("the outputs differ in their number of rows: use the v2 protocol for this model")
		}
	}
	dst = append(dst, `{"predictions":[`...)
	var err error
	for r := range rows {
		if r > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendPrediction(dst, out, r); err != nil {
			return dst, err
		}
	}
	return append(dst, "]}"...), nil
}

func appendPrediction(dst []byte, out engine.Values, r int) ([]byte, error) {
	if len(out) == 1 {
		return AppendRow(dst, out[0].Tensor, r)
	}
	dst = append(dst, '{')
	var err error
	for i, o := range out {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, o.Name)
		dst = append(dst, ':')
		if dst, err = AppendRow(dst, o.Tensor, r); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}
