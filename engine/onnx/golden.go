package onnx

import (
	"fmt"

	"github.com/pellucid/pellucid/engine"
	"google.golang.org/protobuf/encoding/protowire"
)

// ReadTensor reads a file that holds one TensorProto, as ONNX's test_data_set_*
// folders do, and returns the tensor with the name it carries (often empty).
func ReadTensor(data []byte) (name string, t *engine.Tensor, err error) {
	p, err := decodeTensor(data)
	if err != nil {
		return "", nil, fmt.Errorf("read tensor: %w", err)
	}
	t, err = p.tensor("")
	if err != nil {
		return "", nil, fmt.Errorf("read tensor: %w", err)
	}
	return p.name, t, nil
}

// ReadValue reads a file that holds a value of the type an input or output has: a
// tensor, or a sequence or optional value where d is engine.Sequence or
// engine.Nothing.
func ReadValue(data []byte, d engine.DType) (name string, t *engine.Tensor, err error) {
	switch d {
	case engine.Sequence:
		name, t, err = decodeSequence(data, 0)
	case engine.Nothing:
		name, t, err = decodeOptional(data)
	default:
		if holdsMaps(data) {
			return "", nil, &engine.UnsupportedError{What: "a value that is a sequence of maps", Reason: "what ZipMap makes is a matrix here, a column a class"}
		}
		return ReadTensor(data)
	}
	if err != nil {
		return "", nil, fmt.Errorf("read value: %w", err)
	}
	return name, t, nil
}

// holdsMaps reports whether a file holds a SequenceProto of maps. Read as a tensor it would
// be one of 16-bit integers that holds text.
func holdsMaps(b []byte) bool {
	kind, maps := uint64(0), false
	err := eachField("sequence", b, func(f field) error {
		switch {
		case f.id == 2 && f.typ == protowire.VarintType:
			kind = f.num
		case f.id == 6 && f.typ == protowire.BytesType:
			maps = true
		}
		return nil
	})
	return err == nil && maps && kind == 4
}

// decodeSequence decodes a SequenceProto that stands inside depth others.
func decodeSequence(b []byte, depth int) (name string, t *engine.Tensor, err error) {
	if depth > maxNesting {
		return "", nil, corrupt("sequences nested deeper than %d", maxNesting)
	}
	var items []*engine.Tensor
	err = eachField("sequence", b, func(f field) error {
		var item *engine.Tensor
		var err error
		switch f.id {
		case 1:
			name = f.str()
			return nil
		case 2:
			return nil // the type of its elements, which they carry
		case 3:
			_, item, err = ReadTensor(f.data)
		case 5:
			_, item, err = decodeSequence(f.data, depth+1)
		default:
			return &engine.UnsupportedError{What: "a sequence of maps or sparse tensors"}
		}
		items = append(items, item)
		return err
	})
	if err != nil {
		return "", nil, err
	}
	return name, engine.NewSequence(items), nil
}

func decodeOptional(b []byte) (name string, t *engine.Tensor, err error) {
	t = engine.NewNothing()
	err = eachField("optional", b, func(f field) (err error) {
		switch f.id {
		case 1:
			name = f.str()
		case 2:
		case 3:
			_, t, err = ReadTensor(f.data)
		case 5:
			_, t, err = decodeSequence(f.data, 0)
		default:
			err = &engine.UnsupportedError{What: "an optional map or sparse tensor"}
		}
		return err
	})
	return name, t, err
}
