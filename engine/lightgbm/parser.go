package lightgbm

import (
	"bytes"
	"strconv"
)

// parser walks a file line by line.
type parser struct {
	data []byte
	pos  int
}

func (p *parser) done() bool { return p.pos >= len(p.data) }

// line returns the next line without its end, empty past the last.
func (p *parser) line() []byte {
	rest := p.data[p.pos:]
	i := bytes.IndexByte(rest, '\n')
	if i < 0 {
		p.pos = len(p.data)
		return bytes.TrimSuffix(rest, []byte("\r"))
	}
	p.pos += i + 1
	return bytes.TrimSuffix(rest[:i], []byte("\r"))
}

// fields are the key=value lines of a block; a line without "=" is a flag.
type fields map[string][]byte

// block reads key=value lines up to an empty line or the end, into f or a new
// map.
func (p *parser) block(f fields) fields {
	if f == nil {
		f = fields{}
	}
	for !p.done() {
		line := p.line()
		if len(bytes.TrimSpace(line)) == 0 {
			return f
		}
		key, value, _ := bytes.Cut(line, []byte("="))
		f[string(key)] = value
	}
	return f
}

func (f fields) count(key string, low, high int) (int, error) {
	v, err := strconv.Atoi(string(bytes.TrimSpace(f[key])))
	if err != nil {
		return 0, corruptf("%q is absent or not a count", key)
	}
	if v < low || v > high {
		return 0, corruptf("%q is %d, not between %d and %d", key, v, low, high)
	}
	return v, nil
}

// each calls add with each word of the field, at most n, and reports how many
// there were. It fails where there are more.
func (f fields) each(key string, n int, add func(word string) error) (int, error) {
	count := 0
	for word := range bytes.FieldsSeq(f[key]) {
		if count == n {
			return 0, corruptf("%q has more than %d elements", key, n)
		}
		if err := add(string(word)); err != nil {
			return 0, corruptf("%q: element %d is not a number of its kind", key, count)
		}
		count++
	}
	return count, nil
}

// floats returns the n numbers of a field. Where the field is optional it may
// be empty or absent: nil.
func (f fields) floats(key string, n int, optional bool) ([]float64, error) {
	var out []float64
	count, err := f.each(key, n, func(word string) error {
		v, err := strconv.ParseFloat(word, 64)
		if err != nil && v == 0 {
			return err
		}
		out = append(out, v) // out of range is infinite, as in the library
		return nil
	})
	if err == nil && count != n && !(optional && count == 0) {
		err = corruptf("%q has %d elements, want %d", key, count, n)
	}
	return out, err
}

func (f fields) integers(key string, n int) ([]int32, error) {
	var out []int32
	count, err := f.each(key, n, func(word string) error {
		v, err := strconv.ParseInt(word, 10, 32)
		out = append(out, int32(v))
		return err
	})
	if err == nil && count != n {
		err = corruptf("%q has %d elements, want %d", key, count, n)
	}
	return out, err
}

func (f fields) words(key string, n int) ([]uint32, error) {
	var out []uint32
	count, err := f.each(key, n, func(word string) error {
		v, err := strconv.ParseUint(word, 10, 32)
		out = append(out, uint32(v))
		return err
	})
	if err == nil && count != n {
		err = corruptf("%q has %d elements, want %d", key, count, n)
	}
	return out, err
}
