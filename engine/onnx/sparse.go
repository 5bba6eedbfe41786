package onnx

import (
	"fmt"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"google.golang.org/protobuf/encoding/protowire"
)

// sparseProto is a tensor of which only some elements are told, the others being zero.
type sparseProto struct {
	values, indices *tensorProto
	dims            []int64
}

func decodeSparse(b []byte) (*sparseProto, error) {
	t := &sparseProto{}
	err := eachField("sparse tensor", b, func(f field) (err error) {
		switch f.id {
		case 1:
			t.values, err = decodeTensor(f.data)
		case 2:
			t.indices, err = decodeTensor(f.data)
		case 3:
			t.dims, err = numbers(t.dims, f, protowire.VarintType, toInt64)
		}
		return err
	})
	return t, err
}

// maxDense bounds what the sparse tensors of a file are written out to: a few bytes can
// name any size.
const maxDense = 512 << 20

// writtenOut is a sparse tensor with all of its elements.
func (p *modelProto) writtenOut(t *sparseProto, dir string) (*engine.Tensor, error) {
	if t.values == nil || t.indices == nil {
		return nil, corrupt("a sparse tensor without values or indices")
	}
	name := t.values.name
	values, err := t.values.tensor(dir)
	if err != nil {
		return nil, err
	}
	d := values.DType()
	if d == engine.String || d.IsNarrow() {
		return nil, &engine.UnsupportedError{What: fmt.Sprintf("sparse tensor %q of %s", name, d)}
	}
	shape := make([]int, len(t.dims))
	for i, v := range t.dims {
		shape[i] = int(v)
	}
	n, err := engine.Elements(shape)
	if err != nil || len(shape) == 0 || len(shape) > maxDims {
		return nil, corrupt("sparse tensor %q has shape %v", name, shape)
	}
	if int64(n) > (maxDense-p.dense)/int64(d.Size()) {
		return nil, fmt.Errorf("sparse tensor %q of shape %v, which needs more than the %d bytes that those of a model may take: %w", name, shape, maxDense, engine.ErrTooLarge)
	}
	p.dense += int64(n) * int64(d.Size())
	places, err := t.places(values.Len(), shape, n, dir)
	if err != nil {
		return nil, err
	}
	out, err := engine.New(d, shape...)
	if err != nil {
		return nil, err
	}
	graph.Put(out, values, places)
	return out, nil
}

// places are where the values stand among all elements: an index each, or one for each
// dimension.
func (t *sparseProto) places(values int, shape []int, n int, dir string) ([]int, error) {
	name := t.values.name
	list, err := t.indices.tensor(dir)
	if err != nil {
		return nil, err
	}
	index := engine.Data[int64](list)
	depth, ok := 1, false
	switch s := list.Shape(); len(s) {
	case 1:
		ok = s[0] == values
		shape = []int{n}
	case 2:
		ok = s[0] == values && s[1] == len(shape)
		depth = len(shape)
	}
	if list.DType() != engine.Int64 || !ok {
		return nil, corrupt("sparse tensor %q of %d values has indices of %s %v", name, values, list.DType(), list.Shape())
	}
	places := make([]int, values)
	for i := range places {
		at := 0
		for k, side := range shape {
			v := index[i*depth+k]
			if v < 0 || v >= int64(side) {
				return nil, corrupt("sparse tensor %q has an index outside of its shape", name)
			}
			at = at*side + int(v)
		}
		if i > 0 && at <= places[i-1] {
			return nil, corrupt("sparse tensor %q has indices that are not in order, or twice", name)
		}
		places[i] = at
	}
	return places, nil
}
