package oip

import (
	"unicode/utf8"

	"github.com/pellucid/pellucid/engine"
)

// columns reads inputs that are one column a feature straight into the model's matrix,
// without memory for each. It takes what clients usually write (a name, a type and a
// shape before the data, nothing else) and knows no errors: everything else is read
// again as tensors, by the code that tells what is wrong with it.
type columns struct {
	s      *scanner
	tail   []byte // of which a column that says how long it is takes its bytes
	shape  [2]int
	lists  [engine.String]*reader // one a type
	matrix gathered
}

// gathered is a matrix that columns are put into.
type gathered struct {
	info    *engine.Info
	gather  *engine.Gather
	rows    int
	tensors [engine.String]*engine.Tensor // one a type
}

// start makes the matrix with the first column; every other must have as many rows.
func (g *gathered) start(rows, most int) bool {
	if g.gather == nil {
		if rows < 1 || rows > most/len(g.info.Features) {
			return false // nothing is made for what came too short
		}
		g.rows, g.gather = rows, engine.NewGather(g.info, rows)
	}
	return g.gather != nil && rows == g.rows
}

// scratch is the one column of a type that numbers are read into.
func (g *gathered) scratch(d engine.DType) *engine.Tensor {
	if int(d) >= len(g.tensors) || d == engine.Invalid {
		return nil
	}
	if g.tensors[d] == nil {
		t, err := engine.New(d, g.rows)
		if err != nil {
			return nil
		}
		g.tensors[d] = t
	}
	return g.tensors[d]
}

// binary puts the bytes of a column into feature f.
func (g *gathered) binary(f int, d engine.DType, raw []byte) bool {
	if d == engine.String {
		return g.names(f, raw)
	}
	t := g.scratch(d)
	return t != nil && len(raw) == g.rows*d.Size() && numbersInto(t, raw) && g.gather.Fill(f, t)
}

// names puts names of categories, each behind its length, into feature f.
func (g *gathered) names(f int, raw []byte) bool {
	for r := range g.rows {
		if len(raw) < 4 || uint64(le.Uint32(raw)) > uint64(len(raw)-4) {
			return false
		}
		end := 4 + int(le.Uint32(raw))
		if !g.gather.Name(f, r, raw[4:end]) {
			return false
		}
		raw = raw[end:]
	}
	return len(raw) == 0
}

// columns returns the matrix as the only item. ok is false where it is not to be had,
// and nothing has been read then.
func (d *decoder) columns(info *engine.Info) (items []Item, ok bool) {
	if !engine.Gathers(info) || d.s.peek() != '[' {
		return nil, false
	}
	s := d.s
	s.i++
	c := &columns{s: &s, tail: d.tail, matrix: gathered{info: info}}
	for {
		if !c.column() {
			return nil, false
		}
		if s.peek() == ',' {
			s.i++
			continue
		}
		break
	}
	if s.peek() != ']' {
		return nil, false
	}
	s.i++
	matrix, ok := c.matrix.gather.Matrix()
	if !ok {
		return nil, false
	}
	d.s, d.tail = s, c.tail
	return []Item{{Name: info.Inputs[0].Name, Tensor: matrix}}, true
}

// column reads one column.
func (c *columns) column() bool {
	s := c.s
	if !s.take('{') {
		return false
	}
	var name []byte
	dtype, dims, done, size := engine.Invalid, 0, false, -1
	for {
		key, ok := s.plain()
		if !ok || !s.take(':') {
			return false
		}
		switch string(key) {
		case "name":
			if name != nil {
				return false
			}
			if name, ok = s.plain(); !ok || len(name) == 0 {
				return false
			}
		case "datatype":
			text, ok := s.plain()
			if !ok || dtype != engine.Invalid {
				return false
			}
			if dtype, ok = engine.ParseDType(string(text)); !ok {
				return false
			}
		case "shape":
			if dims != 0 {
				return false
			}
			if dims = c.dimensions(); dims == 0 {
				return false
			}
		case "data":
			if done || name == nil || dtype == engine.Invalid || dims == 0 || !c.data(name, dtype, dims) {
				return false
			}
			done = true
		case "parameters":
			if size >= 0 {
				return false
			}
			if size = c.size(); size < 0 {
				return false
			}
		default:
			return false
		}
		if s.peek() == ',' {
			s.i++
			continue
		}
		if size >= 0 {
			done = !done && name != nil && dims > 0 && c.bytes(name, dtype, dims, size)
		}
		return s.take('}') && done
	}
}

// size reads parameters that say how many bytes a column has behind the JSON and nothing
// else, -1 for others.
func (c *columns) size() int {
	s := c.s
	if !s.take('{') {
		return -1
	}
	if key, ok := s.plain(); !ok || string(key) != "binary_data_size" || !s.take(':') {
		return -1
	}
	if b := s.peek(); b < '0' || b > '9' {
		return -1
	}
	num, err := s.number()
	if err != nil {
		return -1
	}
	n, err := num.signed(32)
	if err != nil || n < 0 || int(n) > len(c.tail) || !s.take('}') {
		return -1
	}
	return int(n)
}

// bytes puts the next bytes behind the JSON into the place of a column.
func (c *columns) bytes(name []byte, dtype engine.DType, dims, size int) bool {
	f, ok := c.matrix.gather.Feature(name)
	if !ok || dtype == engine.String && dims != 1 || !c.matrix.binary(f, dtype, c.tail[:size]) {
		return false
	}
	c.tail = c.tail[size:]
	return true
}

// dimensions reads [n] or [n,1] and returns how many dimensions there are, 0 for
// another shape. All columns have the same n.
func (c *columns) dimensions() int {
	s := c.s
	if !s.take('[') {
		return 0
	}
	dims := 0
	for {
		if b := s.peek(); b < '0' || b > '9' || dims == 2 {
			return 0
		}
		num, err := s.number()
		if err != nil {
			return 0
		}
		n, err := num.signed(32)
		if err != nil || n < 1 || dims == 1 && n != 1 {
			return 0
		}
		c.shape[dims] = int(n)
		dims++
		if s.peek() != ',' {
			break
		}
		s.i++
	}
	if !s.take(']') {
		return 0
	}
	// An element takes at least two bytes in JSON, its own and a comma, and one behind it.
	if !c.matrix.start(c.shape[0], max((len(s.b)-s.i+1)/2, len(c.tail))) {
		return 0
	}
	return dims
}

// data reads the values of a column into its place.
func (c *columns) data(name []byte, dtype engine.DType, dims int) bool {
	f, ok := c.matrix.gather.Feature(name)
	if !ok {
		return false
	}
	if dtype == engine.String {
		return dims == 1 && c.names(f)
	}
	t := c.matrix.scratch(dtype)
	if t == nil || !JSONable(dtype) {
		return false
	}
	r := c.lists[dtype]
	if r == nil {
		r = &reader{s: c.s, n: c.matrix.rows}
		r.elem = r.into(t)
		c.lists[dtype] = r
	}
	r.at = 0
	return r.all(c.shape[:dims]) == nil && c.matrix.gather.Fill(f, t)
}

// names reads a list of categories' names.
func (c *columns) names(f int) bool {
	s := c.s
	if !s.take('[') {
		return false
	}
	for r := range c.matrix.rows {
		if r > 0 && !s.take(',') {
			return false
		}
		text, ok := s.plain()
		if !ok || !c.matrix.gather.Name(f, r, text) {
			return false
		}
	}
	return s.take(']')
}

// take consumes b if it is next.
func (s *scanner) take(b byte) bool {
	if s.peek() != b || s.i >= len(s.b) {
		return false
	}
	s.i++
	return true
}

// plain reads a string that has no escape, and returns its bytes, not a copy. What it
// does not take is left unread.
func (s *scanner) plain() ([]byte, bool) {
	if s.peek() != '"' {
		return nil, false
	}
	ascii := true
	for i := s.i + 1; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			raw := s.b[s.i+1 : i]
			if !ascii && !utf8.Valid(raw) {
				return nil, false
			}
			s.i = i + 1
			return raw, true
		case c == '\\' || c < 0x20:
			return nil, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, false
}

// key reads an object's key, or any string, and returns its bytes: those of the body
// where it has no escape.
func (s *scanner) key() ([]byte, error) {
	if raw, ok := s.plain(); ok {
		return raw, nil
	}
	text, err := s.str()
	return []byte(text), err
}

// known returns a key as text, without memory for those of the protocol.
func known(key []byte) string {
	switch string(key) {
	case "id":
		return "id"
	case "parameters":
		return "parameters"
	case "inputs":
		return "inputs"
	case "outputs":
		return "outputs"
	case "name":
		return "name"
	case "shape":
		return "shape"
	case "datatype":
		return "datatype"
	case "data":
		return "data"
	case "instances":
		return "instances"
	case "binary_data_size":
		return "binary_data_size"
	}
	return string(key)
}
