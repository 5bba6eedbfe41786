package oip

import (
	"slices"
	"unicode/utf8"

	"github.com/pellucid/pellucid/engine"
)

// Param is one parameter of a request, a response or a tensor. Value is a
// string, bool, int64, uint64 or float64; or json.RawMessage for what the
// protocol does not foresee.
type Param struct {
	Name  string
	Value any
}

// Params are parameters in the order they were written.
type Params []Param

// Get returns the value of that name, or nil.
func (p Params) Get(name string) any {
	for i := range p {
		if p[i].Name == name {
			return p[i].Value
		}
	}
	return nil
}

// Without returns the parameters but those named, in memory of their own; nil where none is left.
func (p Params) Without(names ...string) Params {
	var out Params
	for _, x := range p {
		if !slices.Contains(names, x.Name) {
			out = append(out, x)
		}
	}
	return out
}

// Item is a tensor of a request or a response. Binary says whether it is, or is
// to be, carried as raw bytes after the JSON.
type Item struct {
	Name   string
	Tensor *engine.Tensor
	Params Params
	Binary bool
}

// OutputRequest is an output asked for by name.
type OutputRequest struct {
	Name   string
	Params Params
	// Binary asks for raw bytes, after the request's default was applied.
	Binary bool
}

// Request is a decoded inference request. ID counts only where HasID is set: an
// empty id is echoed too.
type Request struct {
	ID     string
	HasID  bool
	Params Params
	Inputs []Item
	// Outputs is empty when every output is wanted.
	Outputs []OutputRequest
	// Binary is the form of outputs that say nothing themselves.
	Binary bool
}

// Values returns the inputs as the engine takes them.
func (r *Request) Values() engine.Values { return values(r.Inputs) }

func values(items []Item) engine.Values {
	out := make(engine.Values, len(items))
	for i := range items {
		out[i] = engine.Named{Name: items[i].Name, Tensor: items[i].Tensor}
	}
	return out
}

// NoHeader is the header length of a body that is JSON only.
const NoHeader = -1

// DecodeRequest decodes an inference request. header is the number of bytes of
// JSON before the binary tensors (the Inference-Header-Content-Length), or
// NoHeader. A body that is one raw tensor (length 0) is DecodeRaw's.
func DecodeRequest(body []byte, header int) (*Request, error) {
	return DecodeRequestFor(body, header, nil)
}

// DecodeRequestFor is DecodeRequest for a model: where it takes a matrix and the
// request has a column a feature, the request decodes to that matrix.
func DecodeRequestFor(body []byte, header int, info *engine.Info) (*Request, error) {
	d, err := newDecoder(body, header)
	if err != nil {
		return nil, err
	}
	req := &Request{}
	var seen keys
	err = d.s.object(func(key string) error {
		switch key {
		case "id":
			return d.once(&seen, 1, key, func() (err error) {
				req.ID, err = d.s.str()
				req.HasID = true
				return err
			})
		case "parameters":
			return d.once(&seen, 2, key, func() (err error) {
				req.Params, err = d.params()
				return err
			})
		case "inputs":
			return d.once(&seen, 4, key, func() (err error) {
				var ok bool
				if info != nil {
					d.inputs = info.Inputs
					req.Inputs, ok = d.columns(info)
				}
				if !ok {
					req.Inputs, err = d.items("inputs")
				}
				return err
			})
		case "outputs":
			return d.once(&seen, 8, key, func() (err error) {
				req.Outputs, err = d.outputs()
				return err
			})
		}
		return d.s.skip(0)
	})
	if err != nil {
		return nil, err
	}
	if req.Inputs == nil {
		return nil, refuse(`the request has no "inputs"`)
	}
	if err := d.finish(req.Inputs); err != nil {
		return nil, err
	}
	return req, req.form()
}

// form settles which outputs are wanted as raw bytes: an output's own parameter
// wins over the request's.
func (r *Request) form() error {
	var err error
	if r.Binary, err = flag(r.Params, "binary_data_output", false); err != nil {
		return err
	}
	for i := range r.Outputs {
		o := &r.Outputs[i]
		if o.Binary, err = flag(o.Params, "binary_data", r.Binary); err != nil {
			return err
		}
	}
	return nil
}

func flag(p Params, name string, otherwise bool) (bool, error) {
	switch v := p.Get(name).(type) {
	case nil:
		return otherwise, nil
	case bool:
		return v, nil
	}
	return false, refuse("parameter %q must be true or false", Own(name))
}

// keys is the set of an object's keys seen so far, by bit.
type keys uint8

// decoder decodes the JSON of a request or response and the bytes behind it.
type decoder struct {
	s    scanner
	tail []byte
	json bool
	// inputs are those of the model, whose names need not be made anew; nil where it is
	// not known. r, dims and given are used for one tensor after the other.
	inputs []engine.Spec
	r      reader
	dims   []int
	given  Params
}

// name reads the name of tensor i.
func (d *decoder) name(i int) (string, error) {
	if i < len(d.inputs) && d.s.peek() == '"' {
		if name := d.inputs[i].Name; plainly(d.s.b[d.s.i+1:], name) {
			d.s.i += len(name) + 2
			return name, nil
		}
	}
	return d.s.str()
}

// plainly reports whether text begins with a name and a quotation mark, and the name is in
// JSON as it is.
func plainly(text []byte, name string) bool {
	if len(text) <= len(name) || text[len(name)] != '"' {
		return false
	}
	for i, c := range []byte(name) {
		if text[i] != c || c < 0x20 || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func newDecoder(body []byte, header int) (*decoder, error) {
	if len(body) == 0 {
		return nil, refuse("the body is empty")
	}
	if header == NoHeader {
		return &decoder{s: scanner{b: body}, json: true}, nil
	}
	if header <= 0 || header > len(body) {
		return nil, refuse("Inference-Header-Content-Length does not lie within the body of %d bytes", len(body))
	}
	return &decoder{s: scanner{b: body[:header]}, tail: body[header:]}, nil
}

// once reads the value of a key that may stand once; null is as if it were not
// there.
func (d *decoder) once(seen *keys, bit keys, key string, read func() error) error {
	if *seen&bit != 0 {
		return refuse("the key %q is there twice", Own(key))
	}
	*seen |= bit
	if null, err := d.s.null(); null || err != nil {
		return err
	}
	return read()
}

func (d *decoder) params() (Params, error) { return d.paramsInto(nil) }

// paramsInto reads parameters behind those that are there.
func (d *decoder) paramsInto(out Params) (Params, error) {
	err := d.s.object(func(key string) error {
		if null, err := d.s.null(); null || err != nil {
			return err
		}
		v, err := d.s.scalar()
		if err != nil {
			return err
		}
		if out.Get(key) != nil {
			return refuse("the parameter %q is there twice", clip(key))
		}
		if len(out) >= maxParams {
			return refuse("more than %d parameters", Number(maxParams))
		}
		out = append(out, Param{Name: key, Value: v})
		return nil
	})
	return out, err
}

// The most parameters and tensors of one list. A model may have one input a
// feature, so tensors are many.
const (
	maxParams = 256
	maxItems  = 1 << 16
)

func (d *decoder) items(what string) ([]Item, error) {
	out := make([]Item, 0, 1)
	if d.s.peek() != '[' {
		return nil, refuse("%q must be a list", Own(what))
	}
	err := d.s.list(func(i int) error {
		if i >= maxItems {
			return refuse("%q has more than %d tensors", Own(what), Number(maxItems))
		}
		it, err := d.item(what, i)
		if err != nil {
			return err
		}
		out = append(out, it)
		return nil
	})
	return out, err
}

// pending is a tensor being read: its keys come in any order.
type pending struct {
	Item
	dtype    engine.DType
	shape    []int
	seen     keys
	later    []byte // data that came before its shape and type
	laterAt  int
	hasData  bool
	hasShape bool
}

// item reads one tensor object. Its data is decoded where it stands when shape
// and datatype came before it, else afterwards.
func (d *decoder) item(what string, i int) (Item, error) {
	var p pending
	err := d.s.object(func(key string) error {
		switch key {
		case "name":
			return d.once(&p.seen, 1, key, func() (err error) { p.Name, err = d.name(i); return err })
		case "shape":
			return d.once(&p.seen, 2, key, func() (err error) {
				p.shape, err = d.shape(p.Name)
				p.hasShape = true
				return err
			})
		case "datatype":
			return d.once(&p.seen, 4, key, func() error { return d.dtype(&p) })
		case "parameters":
			return d.once(&p.seen, 8, key, func() (err error) { d.given, err = d.paramsInto(d.given[:0]); p.Params = d.given; return err })
		case "data":
			return d.once(&p.seen, 16, key, func() error { return d.data(&p) })
		}
		return d.s.skip(0)
	})
	if err != nil {
		return Item{}, err
	}
	return p.Item, d.complete(&p, what, i)
}

func (d *decoder) dtype(p *pending) error {
	name, err := d.s.key()
	if err != nil {
		return err
	}
	dt, ok := engine.ParseDType(string(name))
	if !ok {
		return refuse("tensor %q: unknown datatype %q", clip(p.Name), clip(string(name)))
	}
	p.dtype = dt
	return nil
}

func (d *decoder) data(p *pending) (err error) {
	p.hasData = true
	if p.hasShape && p.dtype != engine.Invalid {
		p.Tensor, err = d.r.data(&d.s, p.Name, p.dtype, p.shape)
		return err
	}
	d.s.peek()
	p.laterAt = d.s.i
	p.later, err = d.s.raw()
	return err
}

// complete checks what every tensor must have and takes its data from where it
// is.
func (d *decoder) complete(p *pending, what string, i int) (err error) {
	switch {
	case p.Name == "":
		return refuse("%s[%d] has no name", Own(what), Number(i))
	case p.dtype == engine.Invalid:
		return refuse("tensor %q has no datatype", clip(p.Name))
	case !p.hasShape:
		return refuse("tensor %q has no shape", clip(p.Name))
	}
	if p.Params.Get("shared_memory_region") != nil {
		return refuse("tensor %q: shared memory is not supported", clip(p.Name))
	}
	size, err := binarySize(p)
	if err != nil {
		return err
	}
	p.Params = p.Params.Without("binary_data_size")
	switch {
	case size < 0 && !p.hasData:
		return refuse("tensor %q has no data", clip(p.Name))
	case size >= 0 && p.hasData:
		return refuse("tensor %q has both data and binary_data_size", clip(p.Name))
	case size < 0 && p.later != nil:
		s := scanner{b: d.s.b[:p.laterAt+len(p.later)], i: p.laterAt}
		p.Tensor, err = d.r.data(&s, p.Name, p.dtype, p.shape)
		return err
	case size < 0:
		return nil
	case d.json:
		return refuse("tensor %q has binary_data_size, but the request has no Inference-Header-Content-Length", clip(p.Name))
	case size > len(d.tail):
		return refuse("tensor %q: binary_data_size is %d, the body has %d bytes left", clip(p.Name), size, len(d.tail))
	}
	p.Binary = true
	p.Tensor, err = fromBinary(&d.r.slab, p.Name, p.dtype, p.shape, d.tail[:size])
	d.tail = d.tail[size:]
	return err
}

// binarySize returns the parameter binary_data_size, or -1.
func binarySize(p *pending) (int, error) {
	switch v := p.Params.Get("binary_data_size").(type) {
	case nil:
		return -1, nil
	case int64:
		if v >= 0 && int64(int(v)) == v {
			return int(v), nil
		}
	}
	return 0, refuse("tensor %q: binary_data_size must be a whole number of bytes", clip(p.Name))
}

func (d *decoder) shape(name string) ([]int, error) {
	if d.dims == nil {
		d.dims = make([]int, 0, 4)
	}
	out := d.dims[:0]
	if d.s.peek() != '[' {
		return nil, refuse("tensor %q: shape must be a list of integers", clip(name))
	}
	err := d.s.list(func(int) error {
		if c := d.s.peek(); c != '-' && c-'0' > 9 {
			return refuse("tensor %q: shape must be a list of integers", clip(name))
		}
		num, err := d.s.number()
		if err != nil {
			return err
		}
		v, err := num.signed(64)
		switch {
		case err != nil || int64(int(v)) != v:
			return refuse("tensor %q: a dimension of its shape is not an integer in range", clip(name))
		case v < 0:
			return refuse("tensor %q: its shape has a negative dimension", clip(name))
		case len(out) == maxRank:
			return refuse("tensor %q: its shape has more than %d dimensions", clip(name), Number(maxRank))
		}
		out = append(out, int(v))
		return nil
	})
	d.dims = out
	return out, err
}

func (d *decoder) outputs() ([]OutputRequest, error) {
	var out []OutputRequest
	if d.s.peek() != '[' {
		return nil, refuse(`"outputs" must be a list`)
	}
	err := d.s.list(func(i int) error {
		if i >= maxItems {
			return refuse(`"outputs" has more than %d entries`, Number(maxItems))
		}
		o, err := d.output(i)
		if err != nil {
			return err
		}
		out = append(out, o)
		return nil
	})
	return out, err
}

func (d *decoder) output(i int) (OutputRequest, error) {
	var o OutputRequest
	var seen keys
	err := d.s.object(func(key string) error {
		switch key {
		case "name":
			return d.once(&seen, 1, key, func() (err error) { o.Name, err = d.s.str(); return err })
		case "parameters":
			return d.once(&seen, 2, key, func() (err error) { o.Params, err = d.params(); return err })
		}
		return d.s.skip(0)
	})
	switch {
	case err != nil:
		return o, err
	case o.Name == "":
		return o, refuse("outputs[%d] has no name", Number(i))
	}
	// Ignoring these would answer something else than was asked for.
	for _, p := range [...]string{"classification", "shared_memory_region"} {
		if v := o.Params.Get(p); v != nil && v != int64(0) {
			return o, refuse("output %q: parameter %q is not supported", clip(o.Name), Own(p))
		}
	}
	return o, nil
}

// finish checks that the body has been used up and that no name is there twice.
func (d *decoder) finish(items []Item) error {
	if err := d.s.end(); err != nil {
		return err
	}
	if len(d.tail) > 0 {
		return refuse("%d bytes after the last binary tensor", len(d.tail))
	}
	return unique(items)
}

// unique refuses a name that is there twice. Few names are compared pairwise,
// many through a map.
func unique(items []Item) error {
	if len(items) <= 16 {
		for i := range items {
			for j := range i {
				if items[i].Name == items[j].Name {
					return refuse("tensor %q is there twice", clip(items[i].Name))
				}
			}
		}
		return nil
	}
	seen := make(map[string]struct{}, len(items))
	for i := range items {
		if _, dup := seen[items[i].Name]; dup {
			return refuse("tensor %q is there twice", clip(items[i].Name))
		}
		seen[items[i].Name] = struct{}{}
	}
	return nil
}
