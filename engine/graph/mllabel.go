package graph

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
)

// mapping is a table from keys to values of other types, with a default.
type mapping struct {
	from, to, def *engine.Tensor
}

// column reads a parallel list from one of an operator's attributes.
func (r *attrReader) column(names ...string) (*engine.Tensor, error) {
	for _, name := range names {
		if !r.has(name) {
			continue
		}
		switch r.node.Attrs[name].Kind {
		case AttrFloats:
			v := r.floats(name)
			return engine.Of(v, len(v))
		case AttrInts:
			v := r.ints(name)
			return engine.Of(v, len(v))
		case AttrStrings:
			v := r.strings(name)
			return engine.Of(v, len(v))
		case AttrTensor:
			return r.tensor(name), nil
		}
	}
	return nil, nil
}

func (r *attrReader) defaultFor(d engine.DType) (*engine.Tensor, error) {
	if t := r.tensor("default_tensor"); t != nil {
		return t, nil
	}
	text, whole, real := r.string("default_string", "_Unused"), r.int("default_int64", -1), r.float("default_float", math.Copysign(0, -1))
	switch d {
	case engine.String:
		return engine.Of([]string{text}, 1)
	case engine.Int64:
		return engine.Of([]int64{int64(whole)}, 1)
	case engine.Float32:
		return engine.Of([]float32{float32(real)}, 1)
	}
	return engine.New(d, 1)
}

func readMapping(b *builder) (*mapping, error) {
	r := b.attrs
	m := &mapping{}
	var err error
	if m.from, err = r.column("keys_tensor", "keys_strings", "keys_int64s", "keys_floats"); err != nil {
		return nil, err
	}
	if m.to, err = r.column("values_tensor", "values_strings", "values_int64s", "values_floats"); err != nil {
		return nil, err
	}
	if m.from == nil || m.to == nil || m.from.Len() != m.to.Len() {
		return nil, b.node.corrupt("needs as many keys as values")
	}
	if m.def, err = r.defaultFor(m.to.DType()); err != nil {
		return nil, err
	}
	if m.def.Len() != 1 || m.def.DType() != m.to.DType() {
		return nil, b.node.corrupt("the default has another type than the values")
	}
	return m, nil
}

// buildLabelEncoder maps by a table; version 1 maps strings to their place in
// classes_strings, or back.
func buildLabelEncoder(b *builder) (Kernel, error) {
	if b.version() < 2 {
		return buildPlaces(b, "classes_strings")
	}
	m, err := readMapping(b)
	if err != nil {
		return nil, err
	}
	b.result = []engine.DType{m.to.DType()}
	return m.kernel()
}

func (m *mapping) kernel() (Kernel, error) {
	switch m.from.DType() {
	case engine.String:
		return lookupKernel[string](m), nil
	case engine.Int64:
		return lookupKernel[int64](m), nil
	case engine.Int32:
		return lookupKernel[int32](m), nil
	case engine.Int16:
		return lookupKernel[int16](m), nil
	case engine.Float32:
		return lookupFloats[float32](m), nil
	case engine.Float64:
		return lookupFloats[float64](m), nil
	}
	return nil, typeError(m.from)
}

func lookupKernel[T string | int64 | int32 | int16](m *mapping) Kernel {
	table := make(map[T]int, m.from.Len())
	for i, k := range engine.Data[T](m.from) {
		if _, dup := table[k]; !dup {
			table[k] = i
		}
	}
	return lookupWith(m, func(k T) (int, bool) { i, ok := table[k]; return i, ok })
}

// lookupFloats finds NaN too, which equals nothing.
func lookupFloats[T float](m *mapping) Kernel {
	table := make(map[T]int, m.from.Len())
	nan := -1
	for i, k := range engine.Data[T](m.from) {
		if k != k {
			nan = i
		} else if _, dup := table[k]; !dup {
			table[k] = i
		}
	}
	return lookupWith(m, func(k T) (int, bool) {
		if k != k {
			return nan, nan >= 0
		}
		i, ok := table[k]
		return i, ok
	})
}

func lookupWith[T engine.Element](m *mapping, find func(T) (int, bool)) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		keys := engine.Data[T](in[0])
		if keys == nil && in[0].Len() > 0 {
			return nil, typeError(in[0])
		}
		o, err := x.New(m.to.DType(), in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		for i, k := range keys {
			if j, ok := find(k); ok {
				moveRun(o, m.to, i, j, 1)
			} else {
				moveRun(o, m.def, i, 0, 1)
			}
		}
		return x.one(o, nil)
	}
}

// buildPlaces maps strings to their place in a list, or places to strings.
func buildPlaces(b *builder, list string) (Kernel, error) {
	names := b.attrs.strings(list)
	places := make([]int64, len(names))
	for i := range places {
		places[i] = int64(i)
	}
	text, err := engine.Of(names, len(names))
	if err != nil {
		return nil, err
	}
	number, err := engine.Of(places, len(places))
	if err != nil {
		return nil, err
	}
	m := &mapping{from: text, to: number}
	if b.inType(0) == engine.Int64 {
		m.from, m.to = number, text
	}
	return m.finish(b)
}

// buildCategoryMapper maps names to numbers or back by two parallel lists.
func buildCategoryMapper(b *builder) (Kernel, error) {
	m := &mapping{}
	var err error
	if m.from, err = b.attrs.column("cats_strings"); err != nil {
		return nil, err
	}
	if m.to, err = b.attrs.column("cats_int64s"); err != nil {
		return nil, err
	}
	if m.from == nil || m.to == nil || m.from.Len() != m.to.Len() {
		return nil, b.node.corrupt("needs as many names as numbers")
	}
	if b.inType(0) == engine.Int64 {
		m.from, m.to = m.to, m.from
	}
	return m.finish(b)
}

func (m *mapping) finish(b *builder) (Kernel, error) {
	var err error
	if m.def, err = b.attrs.defaultFor(m.to.DType()); err != nil {
		return nil, err
	}
	b.result = []engine.DType{m.to.DType()}
	return m.kernel()
}

// buildOneHotEncoder adds a last dimension of one column a category.
func buildOneHotEncoder(b *builder) (Kernel, error) {
	ints, text := b.attrs.ints("cats_int64s"), b.attrs.strings("cats_strings")
	zeros := b.attrs.int("zeros", 1) == 1
	if (len(ints) == 0) == (len(text) == 0) {
		return nil, b.node.corrupt("needs categories of one type")
	}
	table := make(map[string]int, len(text))
	for i, s := range text {
		table[s] = i
	}
	numbers := make(map[int64]int, len(ints))
	for i, v := range ints {
		numbers[v] = i
	}
	n := max(len(ints), len(text))
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := x.ints(len(in[0].Shape()) + 1)
		shape[copy(shape, in[0].Shape())] = n
		o, out, err := newOf[float32](x, shape...)
		if err != nil {
			return nil, err
		}
		put := func(i, j int, ok bool) error {
			if !ok && !zeros {
				return fmt.Errorf("element %d is of no known category", i)
			}
			if ok {
				out[i*n+j] = 1
			}
			return nil
		}
		if s := engine.Data[string](in[0]); len(text) > 0 && (s != nil || in[0].Len() == 0) {
			for i, v := range s {
				j, ok := table[v]
				if err := put(i, j, ok); err != nil {
					return nil, err
				}
			}
			return x.one(o, nil)
		}
		v, ok := x.float64s(in[0])
		if !ok || len(ints) == 0 {
			return nil, typeError(in[0])
		}
		for i, f := range v {
			j, ok := numbers[clampFloat(f)]
			if err := put(i, j, ok); err != nil {
				return nil, err
			}
		}
		return x.one(o, nil)
	}, nil
}

func init() {
	register(DomainML, map[string]opDef{
		"LabelEncoder":   {since: 1, minIn: 1, maxIn: 1, maxOut: 1, result: fromBuilder, build: buildLabelEncoder},
		"CategoryMapper": {since: 1, minIn: 1, maxIn: 1, maxOut: 1, result: fromBuilder, build: buildCategoryMapper},
		"OneHotEncoder":  {since: 1, minIn: 1, maxIn: 1, maxOut: 1, result: isFloat32, build: buildOneHotEncoder},
	})
}
