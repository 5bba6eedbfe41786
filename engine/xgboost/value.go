package xgboost

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/pellucid/pellucid/engine"
)

// Both decoders yield the same values: object, []any, numbers, string, float64,
// bool and nil.
const (
	maxDepth = 32
	// maxValues bounds the containers and single values of a document. An array
	// of numbers counts as one, so a real model has some twenty a tree.
	maxValues = 1 << 24
)

type object map[string]any

// numbers is an array of numbers: decoded, or the bytes of a typed UBJSON array.
type numbers struct {
	decoded []float64
	kind    byte
	raw     []byte
}

var kindSizes = map[byte]int{'i': 1, 'U': 1, 'I': 2, 'l': 4, 'L': 8, 'd': 4, 'D': 8}

func (n numbers) Len() int {
	if n.kind == 0 {
		return len(n.decoded)
	}
	return len(n.raw) / kindSizes[n.kind]
}

func (n numbers) At(i int) float64 {
	if n.kind == 0 {
		return n.decoded[i]
	}
	return number(n.kind, n.raw[i*kindSizes[n.kind]:])
}

// Int returns element i as an index; ok is false when it is not a whole number
// of 32 bits.
func (n numbers) Int(i int) (v int32, ok bool) {
	f := n.At(i)
	v = int32(max(min(f, math.MaxInt32), math.MinInt32))
	return v, float64(v) == f
}

// number decodes the big-endian number of that UBJSON type at the head of b.
func number(kind byte, b []byte) float64 {
	switch kind {
	case 'i':
		return float64(int8(b[0]))
	case 'U':
		return float64(b[0])
	case 'I':
		return float64(int16(binary.BigEndian.Uint16(b)))
	case 'l':
		return float64(int32(binary.BigEndian.Uint32(b)))
	case 'L':
		return float64(int64(binary.BigEndian.Uint64(b)))
	case 'd':
		return float64(math.Float32frombits(binary.BigEndian.Uint32(b)))
	}
	return math.Float64frombits(binary.BigEndian.Uint64(b))
}

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", engine.ErrCorrupt, fmt.Sprintf(format, args...))
}

// short bounds what an error repeats of a file's text.
func short(s string) string {
	if len(s) <= 64 {
		return s
	}
	return s[:64] + "..."
}

func (o object) object(key string) (object, error) {
	v, ok := o[key].(object)
	if !ok {
		return nil, corruptf("%q is absent or not an object", key)
	}
	return v, nil
}

func (o object) text(key string) (string, error) {
	v, ok := o[key].(string)
	if !ok {
		return "", corruptf("%q is absent or not text", key)
	}
	return v, nil
}

// count returns a parameter that XGBoost keeps as text, from 0 to limit.
func (o object) count(key string, limit int) (int, error) {
	s, err := o.text(key)
	if err != nil {
		return 0, err
	}
	v, err := strconv.Atoi(s)
	if err != nil || v < 0 {
		return 0, corruptf("%q is not a count", key)
	}
	if v > limit {
		return 0, fmt.Errorf("%q is %d, more than %d: %w", key, v, limit, engine.ErrTooLarge)
	}
	return v, nil
}

// list returns an array of anything but numbers.
func (o object) list(key string) ([]any, error) {
	switch v := o[key].(type) {
	case []any:
		return v, nil
	case numbers:
		if v.Len() == 0 {
			return nil, nil
		}
	}
	return nil, corruptf("%q is absent or not a list", key)
}

func (o object) numbers(key string) (numbers, error) {
	switch v := o[key].(type) {
	case numbers:
		return v, nil
	case []any: // an untyped UBJSON array
		out := make([]float64, len(v))
		for i := range v {
			switch e := v[i].(type) {
			case float64:
				out[i] = e
			case bool:
				if e {
					out[i] = 1
				}
			default:
				return numbers{}, corruptf("%q holds something else than numbers", key)
			}
		}
		return numbers{decoded: out}, nil
	}
	return numbers{}, corruptf("%q is absent or not a list of numbers", key)
}

// optionalNumbers is numbers where the key may be absent.
func (o object) optionalNumbers(key string) (numbers, error) {
	if _, ok := o[key]; !ok {
		return numbers{}, nil
	}
	return o.numbers(key)
}

func (o object) optionalTexts(key string) ([]string, error) {
	if _, ok := o[key]; !ok {
		return nil, nil
	}
	list, err := o.list(key)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(list))
	for i := range list {
		s, ok := list[i].(string)
		if !ok {
			return nil, corruptf("%q holds something else than text", key)
		}
		out[i] = s
	}
	return out, nil
}
