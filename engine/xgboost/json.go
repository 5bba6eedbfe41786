package xgboost

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/pellucid/pellucid/engine"
)

// jsonDecoder reads a JSON document. encoding/json would allocate for each of
// millions of numbers and refuses the NaN and Infinity that XGBoost writes; here
// an array of numbers becomes one slice, and depth and values are bounded.
type jsonDecoder struct {
	data   []byte
	pos    int
	values int
}

func decodeJSON(data []byte) (any, error) {
	d := &jsonDecoder{data: data}
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	if d.peek() != 0 || d.pos < len(d.data) {
		return nil, d.errorf("text after the document")
	}
	return v, nil
}

func (d *jsonDecoder) errorf(format string, args ...any) error {
	return fmt.Errorf("at byte %d: %w", d.pos, corruptf(format, args...))
}

// peek skips white space and returns the next byte, 0 at the end.
func (d *jsonDecoder) peek() byte {
	for d.pos < len(d.data) {
		switch c := d.data[d.pos]; c {
		case ' ', '\t', '\r', '\n':
			d.pos++
		default:
			return c
		}
	}
	return 0
}

func (d *jsonDecoder) enter(depth int) error {
	d.values++
	if depth > maxDepth {
		return d.errorf("nested deeper than %d", maxDepth)
	}
	if d.values > maxValues {
		return fmt.Errorf("more than %d values: %w", maxValues, engine.ErrTooLarge)
	}
	return nil
}

func (d *jsonDecoder) value(depth int) (any, error) {
	if err := d.enter(depth); err != nil {
		return nil, err
	}
	switch c := d.peek(); {
	case c == '{':
		return d.object(depth)
	case c == '[':
		return d.array(depth)
	case c == '"':
		return d.text()
	case c == 't':
		return true, d.literal("true")
	case c == 'f':
		return false, d.literal("false")
	case c == 'n':
		return nil, d.literal("null")
	case startsNumber(c):
		return d.number()
	}
	return nil, d.errorf("no JSON value")
}

func (d *jsonDecoder) literal(word string) error {
	if len(d.data)-d.pos < len(word) || string(d.data[d.pos:d.pos+len(word)]) != word {
		return d.errorf("no JSON value")
	}
	d.pos += len(word)
	return nil
}

func (d *jsonDecoder) object(depth int) (any, error) {
	o := object{}
	d.pos++
	if d.peek() == '}' {
		d.pos++
		return o, nil
	}
	for {
		if d.peek() != '"' {
			return nil, d.errorf("no key")
		}
		key, err := d.text()
		if err != nil {
			return nil, err
		}
		if d.peek() != ':' {
			return nil, d.errorf("no colon after a key")
		}
		d.pos++
		if _, dup := o[key]; dup {
			return nil, d.errorf("key %s given twice", strconv.Quote(short(key)))
		}
		if o[key], err = d.value(depth + 1); err != nil {
			return nil, err
		}
		switch d.peek() {
		case ',':
			d.pos++
		case '}':
			d.pos++
			return o, nil
		default:
			return nil, d.errorf("an object is not closed")
		}
	}
}

func (d *jsonDecoder) array(depth int) (any, error) {
	d.pos++
	switch c := d.peek(); {
	case c == ']':
		d.pos++
		return numbers{}, nil
	case startsNumber(c), c == 't', c == 'f':
		return d.numberArray()
	}
	var list []any
	for {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		switch d.peek() {
		case ',':
			d.pos++
		case ']':
			d.pos++
			return list, nil
		default:
			return nil, d.errorf("an array is not closed")
		}
	}
}

// numberArray reads numbers and booleans (older versions' default_left).
func (d *jsonDecoder) numberArray() (any, error) {
	var out []float64
	for {
		v, err := d.numberOrBool()
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		switch d.peek() {
		case ',':
			d.pos++
		case ']':
			d.pos++
			return numbers{decoded: out}, nil
		default:
			return nil, d.errorf("an array of numbers holds something else")
		}
	}
}

func (d *jsonDecoder) numberOrBool() (float64, error) {
	switch d.peek() {
	case 't':
		return 1, d.literal("true")
	case 'f':
		return 0, d.literal("false")
	}
	return d.number()
}

func startsNumber(c byte) bool {
	return c == '-' || c >= '0' && c <= '9' || c == 'N' || c == 'I'
}

// number reads a number. One with a fraction or an exponent is a float32 in
// every XGBoost model and is rounded once, to that, not by way of float64.
func (d *jsonDecoder) number() (float64, error) {
	d.peek()
	start, float := d.pos, false
	for d.pos < len(d.data) && isNumberByte(d.data[d.pos]) {
		c := d.data[d.pos]
		float = float || c == '.' || c == 'e' || c == 'E'
		d.pos++
	}
	s := d.data[start:d.pos]
	switch string(s) {
	case "NaN":
		return math.NaN(), nil
	case "Infinity":
		return math.Inf(1), nil
	case "-Infinity":
		return math.Inf(-1), nil
	}
	if len(s) == 0 || s[0] != '-' && (s[0] < '0' || s[0] > '9') || len(s) > 64 {
		return 0, d.errorf("no number")
	}
	bits := 64
	if float {
		bits = 32
	}
	v, err := strconv.ParseFloat(string(s), bits)
	if err != nil && !math.IsInf(v, 0) {
		return 0, d.errorf("no number")
	}
	return v, nil
}

func isNumberByte(c byte) bool {
	switch {
	case c >= '0' && c <= '9', c == '-', c == '+', c == '.', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		return true
	}
	return false
}

func (d *jsonDecoder) text() (string, error) {
	start := d.pos
	plain := true
	for d.pos++; d.pos < len(d.data); d.pos++ {
		switch c := d.data[d.pos]; {
		case c == '\\':
			plain = false
			d.pos++
		case c < ' ':
			return "", d.errorf("a control character in text")
		case c == '"':
			d.pos++
			if plain {
				return string(d.data[start+1 : d.pos-1]), nil
			}
			var s string
			if err := json.Unmarshal(d.data[start:d.pos], &s); err != nil {
				return "", d.errorf("text with a bad escape")
			}
			return s, nil
		}
	}
	return "", d.errorf("text is not closed")
}
