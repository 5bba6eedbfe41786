package oip

import (
	"unicode/utf8"

	"github.com/pellucid/pellucid/engine"
)

// fewRows are so many that the names of categories are looked up one by one.
const fewRows = 16

// columns reads inputs that are one column a feature straight into the model's matrix,
// without memory for each. It takes what clients usually write (a name, a type and a
// shape before the data, nothing else) and knows no errors: everything else is read
// again as tensors, by the code that tells what is wrong with it.
type columns struct {
	s       *scanner
	info    *engine.Info
	gather  *engine.Gather
	rows    int
	shape   [2]int
	scratch [engine.String]*reader // one a type
	tensors [engine.String]*engine.Tensor
}

// columns returns the matrix as the only item. ok is false where it is not to be had,
// and nothing has been read then.
func (d *decoder) columns(info *engine.Info) (items []Item, ok bool) {
	if !d.json || !engine.Gathers(info) || d.s.peek() != '[' {
		return nil, false
	}
	s := d.s
	s.i++
	c := &columns{s: &s, info: info}
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
	matrix, ok := c.gather.Matrix()
	if !ok {
		return nil, false
	}
	d.s = s
	return []Item{{Name: info.Inputs[0].Name, Tensor: matrix}}, true
}

// column reads one column.
func (c *columns) column() bool {
	s := c.s
	if !s.take('{') {
		return false
	}
	var name []byte
	dtype, dims, done := engine.Invalid, 0, false
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
		default:
			return false
		}
		if s.peek() != ',' {
			return s.take('}') && done
		}
		s.i++
	}
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
	if c.gather == nil {
		// An element takes at least two bytes, its own and a comma: nothing is made
		// for what the body is too short for.
		if c.shape[0] > (len(s.b)-s.i+1)/2/len(c.info.Features) {
			return 0
		}
		c.rows = c.shape[0]
		c.gather = engine.NewGather(c.info, c.rows)
	}
	if c.gather == nil || c.shape[0] != c.rows {
		return 0
	}
	return dims
}

// data reads the values of a column into its place.
func (c *columns) data(name []byte, dtype engine.DType, dims int) bool {
	f, ok := c.gather.Feature(name)
	if !ok {
		return false
	}
	if dtype == engine.String {
		return dims == 1 && c.rows <= fewRows && c.names(f)
	}
	if int(dtype) >= len(c.scratch) || !JSONable(dtype) {
		return false
	}
	r := c.scratch[dtype]
	if r == nil {
		t, err := engine.New(dtype, c.rows)
		if err != nil {
			return false
		}
		r = &reader{s: c.s, n: c.rows}
		r.elem = r.into(t)
		c.scratch[dtype], c.tensors[dtype] = r, t
	}
	r.at = 0
	return r.all(c.shape[:dims]) == nil && c.gather.Fill(f, c.tensors[dtype])
}

// names reads a list of categories' names.
func (c *columns) names(f int) bool {
	s := c.s
	if !s.take('[') {
		return false
	}
	for r := range c.rows {
		if r > 0 && !s.take(',') {
			return false
		}
		text, ok := s.plain()
		if !ok || !c.gather.Name(f, r, text) {
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
	}
	return string(key)
}
