package onnx

import (
	"fmt"
	"math"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
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
			return "", nil, &engine.UnsupportedError{What: "a value that is a sequence of maps", Reason: "the model's own is none"}
		}
		return ReadTensor(data)
	}
	if err != nil {
		return "", nil, fmt.Errorf("read value: %w", err)
	}
	return name, t, nil
}

// ReadMaps reads a file that holds a map or a sequence of maps, as the matrix that stands
// for them here (see Keyed): a row a map, a column for each of keys. A key that is not there
// is NaN, 0 or an empty text; one that is not among keys is left out, as DictVectorizer
// does. ok is false where the file holds neither.
func ReadMaps(data []byte, d engine.DType, keys []string) (name string, t *engine.Tensor, ok bool, err error) {
	var maps [][]byte
	switch {
	case holdsMaps(data):
		err = eachField("sequence", data, func(f field) error {
			switch f.id {
			case 1:
				name = f.str()
			case 6:
				maps = append(maps, f.data)
			}
			return nil
		})
	case holdsMap(data):
		maps = [][]byte{data}
	default:
		return "", nil, false, nil
	}
	if err == nil && (len(keys) == 0 || len(maps) > maxMapped/len(keys)) {
		err = fmt.Errorf("%d maps of %d keys: %w", len(maps), len(keys), engine.ErrTooLarge)
	}
	if err == nil {
		t, err = engine.New(d, len(maps), len(keys))
	}
	if err != nil {
		return "", nil, true, fmt.Errorf("read maps: %w", err)
	}
	at := make(map[string]int, len(keys))
	for i, k := range keys {
		at[k] = i
	}
	for i := range engine.Data[float32](t) {
		engine.Data[float32](t)[i] = float32(math.NaN())
	}
	for i := range engine.Data[float64](t) {
		engine.Data[float64](t)[i] = math.NaN()
	}
	for r, m := range maps {
		own, err := fillRow(m, t, r, at)
		if err != nil {
			return "", nil, true, fmt.Errorf("read map %d: %w", r, err)
		}
		if name == "" {
			name = own
		}
	}
	return name, t, true, nil
}

// maxMapped bounds the elements of a matrix made of maps.
const maxMapped = 1 << 26

// fillRow puts a MapProto's values in their columns, and returns its name.
func fillRow(b []byte, t *engine.Tensor, r int, at map[string]int) (name string, err error) {
	var keys []string
	var values []*engine.Tensor
	err = eachField("map", b, func(f field) (err error) {
		var whole []int64
		switch f.id {
		case 1:
			name = f.str()
		case 3:
			if whole, err = numbers(whole, f, protowire.VarintType, toInt64); err != nil {
				return err
			}
			for _, k := range whole {
				keys = append(keys, strconv.FormatInt(k, 10))
			}
		case 4:
			keys = append(keys, f.str())
		case 5:
			var list *engine.Tensor
			if _, list, err = decodeSequence(f.data, 0); err == nil {
				values = list.Items()
			}
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if len(values) == 1 && len(keys) != 1 {
		// One tensor that holds all of them.
		all, err := values[0].Reshape(len(keys))
		if err != nil {
			return "", corrupt("%d keys and values of shape %v", len(keys), values[0].Shape())
		}
		values = values[:0]
		for i := range keys {
			v, err := all.Slice(i, i+1)
			if err != nil {
				return "", err
			}
			values = append(values, v)
		}
	}
	if len(values) != len(keys) {
		return "", corrupt("%d keys and %d values", len(keys), len(values))
	}
	for i, k := range keys {
		j, known := at[k]
		if !known {
			continue
		}
		if values[i].Len() != 1 || values[i].DType() != t.DType() {
			return "", corrupt("a value is %s %v, where the model's are %s", values[i].DType(), values[i].Shape(), t.DType())
		}
		graph.Put(t, values[i], []int{r*t.RowLen() + j})
	}
	return name, nil
}

// holdsMap reports whether a file holds a MapProto: the type of its keys and sequences of
// values, where a tensor would have numbers.
func holdsMap(b []byte) bool {
	kind, values := uint64(0), false
	err := eachField("map", b, func(f field) error {
		switch {
		case f.id == 2 && f.typ == protowire.VarintType:
			kind = f.num
		case f.id == 5 && f.typ == protowire.BytesType:
			_, _, err := decodeSequence(f.data, 0)
			values = err == nil && len(f.data) > 0
		case f.id > 5:
			return corrupt("no map")
		}
		return nil
	})
	return err == nil && values && kind != 1 && (kind == 8 || kind >= 2 && kind <= 13)
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
