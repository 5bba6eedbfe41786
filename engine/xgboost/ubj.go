package xgboost

import (
	"fmt"
	"math"
	"strconv"

	"github.com/pellucid/pellucid/engine"
)

// ubjDecoder reads a Universal Binary JSON document (ubjson.org, draft 12).
// Typed arrays of numbers stay as the bytes they are, so a document takes no
// more memory than its file plus a bounded number of other values.
type ubjDecoder struct {
	data   []byte
	pos    int
	values int
}

func decodeUBJ(data []byte) (any, error) {
	d := &ubjDecoder{data: data}
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	if d.pos != len(d.data) {
		return nil, d.errorf("bytes after the document")
	}
	return v, nil
}

func (d *ubjDecoder) errorf(format string, args ...any) error {
	return fmt.Errorf("at byte %d: %w", d.pos, corruptf(format, args...))
}

// take returns the next n bytes.
func (d *ubjDecoder) take(n int) ([]byte, error) {
	if n < 0 || n > len(d.data)-d.pos {
		return nil, d.errorf("the file ends early")
	}
	b := d.data[d.pos : d.pos+n]
	d.pos += n
	return b, nil
}

// marker returns the next type marker, past any no-op.
func (d *ubjDecoder) marker() (byte, error) {
	for {
		b, err := d.take(1)
		if err != nil {
			return 0, err
		}
		if b[0] != 'N' {
			return b[0], nil
		}
	}
}

func (d *ubjDecoder) value(depth int) (any, error) {
	m, err := d.marker()
	if err != nil {
		return nil, err
	}
	return d.typed(m, depth)
}

// typed reads the value whose marker has been read.
func (d *ubjDecoder) typed(m byte, depth int) (any, error) {
	d.values++
	if depth > maxDepth {
		return nil, d.errorf("nested deeper than %d", maxDepth)
	}
	if d.values > maxValues {
		return nil, fmt.Errorf("more than %d values: %w", maxValues, engine.ErrTooLarge)
	}
	switch m {
	case '{':
		return d.object(depth)
	case '[':
		return d.array(depth)
	case 'S':
		return d.text()
	case 'C':
		b, err := d.take(1)
		return string(b), err
	case 'T':
		return true, nil
	case 'F':
		return false, nil
	case 'Z':
		return nil, nil
	}
	size, ok := kindSizes[m]
	if !ok {
		return nil, d.errorf("unknown type marker 0x%02x", m)
	}
	b, err := d.take(size)
	if err != nil {
		return nil, err
	}
	return number(m, b), nil
}

// length reads a length or count: an integer of any type.
func (d *ubjDecoder) length() (int, error) {
	m, err := d.marker()
	if err != nil {
		return 0, err
	}
	size, ok := kindSizes[m]
	if !ok || m == 'd' || m == 'D' {
		return 0, d.errorf("a length is not an integer")
	}
	b, err := d.take(size)
	if err != nil {
		return 0, err
	}
	n := number(m, b)
	if n < 0 || n > math.MaxInt32*16 {
		return 0, d.errorf("a length is out of range")
	}
	return int(n), nil
}

func (d *ubjDecoder) text() (string, error) {
	n, err := d.length()
	if err != nil {
		return "", err
	}
	b, err := d.take(n)
	return string(b), err
}

// header reads the optional "$type" and "#count" of a container. count is -1
// where there is none, kind 0.
func (d *ubjDecoder) header() (kind byte, count int, err error) {
	if d.pos < len(d.data) && d.data[d.pos] == '$' {
		b, err := d.take(2)
		if err != nil {
			return 0, 0, err
		}
		kind = b[1]
		if d.pos >= len(d.data) || d.data[d.pos] != '#' {
			return 0, 0, d.errorf("a typed container has no count")
		}
	}
	if d.pos >= len(d.data) || d.data[d.pos] != '#' {
		return kind, -1, nil
	}
	d.pos++
	count, err = d.length()
	return kind, count, err
}

func (d *ubjDecoder) object(depth int) (any, error) {
	kind, count, err := d.header()
	if err != nil {
		return nil, err
	}
	if kind != 0 {
		return nil, d.errorf("a typed object")
	}
	o := object{}
	for i := 0; i != count; i++ {
		if count < 0 && d.at('}') {
			d.pos++
			return o, nil
		}
		key, err := d.text()
		if err != nil {
			return nil, err
		}
		if _, dup := o[key]; dup {
			return nil, d.errorf("key %s given twice", strconv.Quote(short(key)))
		}
		if o[key], err = d.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// at reports whether the next byte past no-ops is c.
func (d *ubjDecoder) at(c byte) bool {
	for d.pos < len(d.data) && d.data[d.pos] == 'N' {
		d.pos++
	}
	return d.pos < len(d.data) && d.data[d.pos] == c
}

func (d *ubjDecoder) array(depth int) (any, error) {
	kind, count, err := d.header()
	if err != nil {
		return nil, err
	}
	if kind != 0 {
		return d.typedArray(kind, count, depth)
	}
	var list []any
	for i := 0; i != count; i++ {
		if count < 0 && d.at(']') {
			d.pos++
			return list, nil
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

func (d *ubjDecoder) typedArray(kind byte, count, depth int) (any, error) {
	if size, ok := kindSizes[kind]; ok {
		if count > (len(d.data)-d.pos)/size {
			return nil, d.errorf("the file ends early")
		}
		raw, err := d.take(count * size)
		return numbers{kind: kind, raw: raw}, err
	}
	switch kind {
	case '{', '[', 'S', 'C': // each element takes at least one byte
	default:
		return nil, d.errorf("an array of type marker 0x%02x", kind)
	}
	var list []any
	for range count {
		v, err := d.typed(kind, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}
