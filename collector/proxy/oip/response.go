package oip

import (
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/pellucid/pellucid/engine"
)

// Response is an inference answer. Version is left out where it is empty, ID
// where HasID is not set.
type Response struct {
	Model, Version string
	ID             string
	HasID          bool
	Params         Params
	Outputs        []Item
}

// Values returns the outputs as the engine gives them.
func (r *Response) Values() engine.Values { return values(r.Outputs) }

// JSONable reports whether elements of that type can be written as JSON.
func JSONable(d engine.DType) bool { return d != engine.Float16 && d != engine.BFloat16 }

// AppendResponse appends the answer to dst: JSON, then the raw bytes of the
// outputs that are Binary. header is the number of bytes of JSON, or NoHeader
// when there are no raw bytes (the body is then plain JSON).
//
// In JSON a NaN or infinite element is null and is told by the output's
// parameter "nonfinite": a comma-separated list of index:nan, index:inf and
// index:-inf, indices counting the flat elements.
func AppendResponse(dst []byte, r *Response) (out []byte, header int, err error) {
	start := len(dst)
	dst = append(dst, `{"model_name":`...)
	dst = appendString(dst, r.Model)
	if r.Version != "" {
		dst = append(dst, `,"model_version":`...)
		dst = appendString(dst, r.Version)
	}
	if r.HasID {
		dst = append(dst, `,"id":`...)
		dst = appendString(dst, r.ID)
	}
	if len(r.Params) > 0 {
		dst = append(dst, `,"parameters":`...)
		dst = AppendParams(dst, r.Params)
	}
	dst = append(dst, `,"outputs":`...)
	if dst, err = appendItems(dst, r.Outputs); err != nil {
		return dst, NoHeader, err
	}
	dst = append(dst, '}')
	return appendTail(dst, start, r.Outputs)
}

// AppendRequest appends an inference request to dst in the same form, for an
// upstream.
func AppendRequest(dst []byte, r *Request) (out []byte, header int, err error) {
	start := len(dst)
	dst = append(dst, '{')
	if r.HasID {
		dst = append(dst, `"id":`...)
		dst = appendString(dst, r.ID)
		dst = append(dst, ',')
	}
	if len(r.Params) > 0 {
		dst = append(dst, `"parameters":`...)
		dst = AppendParams(dst, r.Params)
		dst = append(dst, ',')
	}
	dst = append(dst, `"inputs":`...)
	if dst, err = appendItems(dst, r.Inputs); err != nil {
		return dst, NoHeader, err
	}
	if len(r.Outputs) > 0 {
		dst = append(dst, `,"outputs":[`...)
		for i, o := range r.Outputs {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"name":`...)
			dst = appendString(dst, o.Name)
			if len(o.Params) > 0 {
				dst = append(dst, `,"parameters":`...)
				dst = AppendParams(dst, o.Params)
			}
			dst = append(dst, '}')
		}
		dst = append(dst, ']')
	}
	dst = append(dst, '}')
	return appendTail(dst, start, r.Inputs)
}

func appendTail(dst []byte, start int, items []Item) ([]byte, int, error) {
	header := NoHeader
	for i := range items {
		if !items[i].Binary {
			continue
		}
		if header == NoHeader {
			header = len(dst) - start
		}
		dst = appendBinary(dst, items[i].Tensor)
	}
	return dst, header, nil
}

func appendItems(dst []byte, items []Item) ([]byte, error) {
	dst = append(dst, '[')
	for i := range items {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendItem(dst, &items[i]); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func appendItem(dst []byte, it *Item) ([]byte, error) {
	t := it.Tensor
	dst = append(dst, `{"name":`...)
	dst = appendString(dst, it.Name)
	dst = append(dst, `,"datatype":"`...)
	dst = append(dst, t.DType().String()...)
	dst = append(dst, `","shape":[`...)
	for i, d := range t.Shape() {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, int64(d), 10)
	}
	dst = append(dst, ']')
	params := it.Params
	if it.Binary {
		// The slice is clipped so that a shared backing array is never written.
		params = append(params[:len(params):len(params)], Param{"binary_data_size", int64(binaryLen(t))})
	} else if list := nonfinite(t); list != "" {
		params = append(params[:len(params):len(params)], Param{"nonfinite", list})
	}
	if len(params) > 0 {
		dst = append(dst, `,"parameters":`...)
		dst = AppendParams(dst, params)
	}
	if it.Binary {
		return append(dst, '}'), nil
	}
	dst = append(dst, `,"data":[`...)
	dst, err := appendElements(dst, t, 0, t.Len())
	if err != nil {
		return dst, refuse("tensor %q: %s", clip(it.Name), err)
	}
	return append(dst, "]}"...), nil
}

// nonfinite lists the elements that JSON cannot say.
func nonfinite(t *engine.Tensor) string {
	var list []byte
	add := func(i int, v float64) {
		if v-v == 0 {
			return
		}
		if len(list) > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendInt(list, int64(i), 10)
		switch {
		case math.IsInf(v, 1):
			list = append(list, ":inf"...)
		case math.IsInf(v, -1):
			list = append(list, ":-inf"...)
		default:
			list = append(list, ":nan"...)
		}
	}
	for i, v := range engine.Data[float32](t) {
		add(i, float64(v))
	}
	for i, v := range engine.Data[float64](t) {
		add(i, v)
	}
	return string(list)
}

// appendElements appends elements [from, to) of t, separated by commas.
func appendElements(dst []byte, t *engine.Tensor, from, to int) ([]byte, error) {
	for i := from; i < to; i++ {
		if i > from {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendElement(dst, t, i); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func appendElement(dst []byte, t *engine.Tensor, i int) ([]byte, error) {
	switch t.DType() {
	case engine.Float32:
		return appendNumber(dst, float64(engine.Data[float32](t)[i]), 32), nil
	case engine.Float64:
		return appendNumber(dst, engine.Data[float64](t)[i], 64), nil
	case engine.Int64:
		return strconv.AppendInt(dst, engine.Data[int64](t)[i], 10), nil
	case engine.Int32:
		return strconv.AppendInt(dst, int64(engine.Data[int32](t)[i]), 10), nil
	case engine.Int16:
		return strconv.AppendInt(dst, int64(engine.Data[int16](t)[i]), 10), nil
	case engine.Int8:
		return strconv.AppendInt(dst, int64(engine.Data[int8](t)[i]), 10), nil
	case engine.Uint64:
		return strconv.AppendUint(dst, engine.Data[uint64](t)[i], 10), nil
	case engine.Uint32:
		return strconv.AppendUint(dst, uint64(engine.Data[uint32](t)[i]), 10), nil
	case engine.Uint16:
		return strconv.AppendUint(dst, uint64(engine.Data[uint16](t)[i]), 10), nil
	case engine.Uint8:
		return strconv.AppendUint(dst, uint64(engine.Data[uint8](t)[i]), 10), nil
	case engine.Bool:
		return strconv.AppendBool(dst, engine.Data[bool](t)[i]), nil
	case engine.String:
		s := engine.Data[string](t)[i]
		if !utf8.ValidString(s) {
			return dst, refuse("element %d is not UTF-8, which JSON cannot carry: ask for binary_data", Number(i))
		}
		return appendString(dst, s), nil
	}
	return dst, refuse("%s cannot be written as JSON: ask for binary_data", t.DType())
}

func appendNumber(dst []byte, f float64, bits int) []byte {
	if f-f != 0 {
		return append(dst, "null"...)
	}
	return appendFloat(dst, f, bits)
}

// AppendRow appends row r of t as JSON: a bare value where a row has one
// dimension less than none, else lists nested by the row's shape. Elements that
// are not finite are null.
func AppendRow(dst []byte, t *engine.Tensor, r int) ([]byte, error) {
	if len(t.Shape()) == 0 {
		return appendElement(dst, t, 0)
	}
	n := t.RowLen()
	return appendNested(dst, t, t.Shape()[1:], r*n, n)
}

// AppendTensor appends all of t as JSON, nested by its shape.
func AppendTensor(dst []byte, t *engine.Tensor) ([]byte, error) {
	return appendNested(dst, t, t.Shape(), 0, t.Len())
}

// appendNested appends the n elements from at on, nested by shape.
func appendNested(dst []byte, t *engine.Tensor, shape []int, at, n int) ([]byte, error) {
	if len(shape) == 0 {
		return appendElement(dst, t, at)
	}
	dst = append(dst, '[')
	for k := range shape[0] {
		if k > 0 {
			dst = append(dst, ',')
		}
		var err error
		step := n / shape[0]
		if dst, err = appendNested(dst, t, shape[1:], at+k*step, step); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// AppendParams appends parameters as a JSON object.
func AppendParams(dst []byte, params Params) []byte {
	dst = append(dst, '{')
	for i, p := range params {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, p.Name)
		dst = append(dst, ':')
		switch v := p.Value.(type) {
		case string:
			dst = appendString(dst, v)
		case bool:
			dst = strconv.AppendBool(dst, v)
		case int64:
			dst = strconv.AppendInt(dst, v, 10)
		case uint64:
			dst = strconv.AppendUint(dst, v, 10)
		case float64:
			dst = appendNumber(dst, v, 64)
		case json.RawMessage:
			dst = append(dst, v...)
		default:
			dst = append(dst, "null"...)
		}
	}
	return append(dst, '}')
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD; only names and messages of our own making can have any.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || size > 1 {
				i += size - 1
				continue
			}
		}
		dst = append(dst, s[from:i]...)
		dst = appendEscape(dst, c)
		from = i + 1
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch {
	case c == '"' || c == '\\':
		return append(dst, '\\', c)
	case c == '\n':
		return append(dst, `\n`...)
	case c == '\r':
		return append(dst, `\r`...)
	case c == '\t':
		return append(dst, `\t`...)
	case c >= utf8.RuneSelf:
		return append(dst, "\ufffd"...)
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// DecodeResponse decodes an upstream's answer, header as in DecodeRequest.
func DecodeResponse(body []byte, header int) (*Response, error) {
	d, err := newDecoder(body, header)
	if err != nil {
		return nil, err
	}
	r := &Response{}
	var seen keys
	err = d.s.object(func(key string) error {
		switch key {
		case "model_name":
			return d.once(&seen, 1, key, func() (err error) { r.Model, err = d.s.str(); return err })
		case "model_version":
			return d.once(&seen, 2, key, func() (err error) { r.Version, err = d.s.str(); return err })
		case "id":
			return d.once(&seen, 4, key, func() (err error) {
				r.ID, err = d.s.str()
				r.HasID = true
				return err
			})
		case "parameters":
			return d.once(&seen, 8, key, func() (err error) { r.Params, err = d.params(); return err })
		case "outputs":
			return d.once(&seen, 16, key, func() (err error) { r.Outputs, err = d.items("outputs"); return err })
		}
		return d.s.skip(0)
	})
	if err != nil {
		return nil, err
	}
	if r.Outputs == nil {
		return nil, refuse(`the response has no "outputs"`)
	}
	return r, d.finish(r.Outputs)
}

// AppendError appends the protocol's error body.
func AppendError(dst []byte, message string) []byte {
	dst = append(dst, `{"error":`...)
	dst = appendString(dst, message)
	return append(dst, '}')
}
