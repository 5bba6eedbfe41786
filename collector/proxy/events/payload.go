package events

import (
	"encoding/json"
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/collector/proxy/oip"
	"github.com/pellucid/pellucid/engine"
)

// Bounds of one payload.
const (
	maxRows    = 10_000
	maxColumns = 4096
)

// row is a row's values by name.
type row = map[string]json.RawMessage

// payload is what all forms have at their top.
type payload struct {
	Instances   []json.RawMessage `json:"instances"`
	Predictions []json.RawMessage `json:"predictions"`
	Inputs      json.RawMessage   `json:"inputs"`
	Outputs     json.RawMessage   `json:"outputs"`
	Data        *seldonData       `json:"data"`
	JSONData    json.RawMessage   `json:"jsonData"`
	StrData     json.RawMessage   `json:"strData"`
}

type seldonData struct {
	Names   []string          `json:"names"`
	NDArray []json.RawMessage `json:"ndarray"`
	Tensor  *struct {
		Shape  []int             `json:"shape"`
		Values []json.RawMessage `json:"values"`
	} `json:"tensor"`
}

// rowsOf reads a payload. names are the features of the known version, by place.
func rowsOf(h half, data []byte, names []string) ([]row, error) {
	if err := oip.Check(data); err != nil {
		return nil, refuse("the payload is not JSON")
	}
	var p payload
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, refuse("the payload is of no form that is known (KServe v1, Open Inference Protocol, Seldon)")
	}
	var rows []row
	var err error
	switch {
	case p.Data != nil:
		rows, err = p.Data.rows(h, names)
	case p.JSONData != nil || p.StrData != nil:
		rows, err = p.seldonRows(h, names)
	case h == request && p.Instances != nil:
		rows, err = listed(p.Instances, func(raw json.RawMessage) (row, error) { return featuresOf(raw, names) })
	case h == request && p.Inputs != nil:
		var req *oip.Request
		if req, err = oip.DecodeRequest(data, oip.NoHeader); err == nil {
			rows, err = tensorRows(h, req.Inputs, names)
		}
	case h == response && p.Predictions != nil:
		rows, err = listed(p.Predictions, outputsOf)
	case h == response && p.Outputs != nil:
		var res *oip.Response
		if res, err = oip.DecodeResponse(data, oip.NoHeader); err == nil {
			rows, err = tensorRows(h, res.Outputs, nil)
		}
	default:
		return nil, refuse("the payload is of no form that is known (KServe v1, Open Inference Protocol, Seldon)")
	}
	if err != nil {
		return nil, refuse("the payload of the " + string(h) + ": " + err.Error())
	}
	if len(rows) == 0 || len(rows) > maxRows {
		return nil, refuse("the payload has no rows, or more than 10,000")
	}
	return rows, nil
}

func listed(list []json.RawMessage, read func(json.RawMessage) (row, error)) ([]row, error) {
	if len(list) > maxRows {
		return nil, refuse("it has more than 10,000 rows")
	}
	out := make([]row, len(list))
	for i, raw := range list {
		var err error
		if out[i], err = read(raw); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// featuresOf reads one instance: values by name, by place, or a bare one. Lists within are taken
// apart as tensors are.
func featuresOf(raw json.RawMessage, names []string) (row, error) {
	if first(raw) != '{' {
		list, err := flat(raw, nil, 0)
		if err != nil {
			return nil, err
		}
		return placed(list, names)
	}
	var given row
	if err := json.Unmarshal(raw, &given); err != nil {
		return nil, err
	}
	out := make(row, len(given))
	for name, value := range given {
		list, err := flat(value, nil, 0)
		if err != nil {
			return nil, err
		}
		if len(list) == 1 {
			out[name] = list[0]
			continue
		}
		if len(out)+len(list) > maxColumns {
			return nil, refuse("a row has more than 4,096 values")
		}
		for j, v := range list {
			out[name+"["+strconv.Itoa(j)+"]"] = v
		}
	}
	return out, nil
}

// placed names values by their place.
func placed(list []json.RawMessage, names []string) (row, error) {
	if len(list) > maxColumns {
		return nil, refuse("a row has more than 4,096 values")
	}
	r := make(row, len(list))
	for i, raw := range list {
		r[nameAt(names, i, len(list))] = raw
	}
	return r, nil
}

// nameAt is the name of the feature at a place of so many.
func nameAt(names []string, i, of int) string {
	if len(names) == of {
		return names[i]
	}
	return "f" + strconv.Itoa(i)
}

// outputsOf reads one prediction: outputs by name, or the only one.
func outputsOf(raw json.RawMessage) (row, error) {
	if first(raw) != '{' {
		return row{"prediction": raw}, nil
	}
	var r row
	err := json.Unmarshal(raw, &r)
	return r, err
}

func first(raw json.RawMessage) byte {
	if len(raw) == 0 {
		return 0
	}
	return raw[0] // encoding/json leaves no space before a value
}

// tensorRows takes tensors apart by their first dimension, which must be the same.
// A tensor of one value a row is a column of its name. One of several is, as an
// output, a list; as a model's only input its features; else the columns name[0],
// name[1], ...
func tensorRows(h half, items []oip.Item, names []string) ([]row, error) {
	if len(items) == 0 || len(items) > maxColumns {
		return nil, refuse("it has no tensors, or more than 4,096")
	}
	n := lengthOf(items[0].Tensor)
	if n > maxRows {
		return nil, refuse("it has more than 10,000 rows")
	}
	out := make([]row, n)
	for i := range out {
		out[i] = row{}
	}
	for _, it := range items {
		if lengthOf(it.Tensor) != n {
			return nil, refuse("the first dimensions of its tensors differ")
		}
		if n > 0 && it.Tensor.Len()/n > maxColumns {
			return nil, refuse("a row of a tensor has more than 4,096 values")
		}
		for i := range out {
			if err := addTensor(out[i], h, it, i, len(items) == 1, names); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func lengthOf(t *engine.Tensor) int {
	if len(t.Shape()) == 0 {
		return 1
	}
	return t.Shape()[0]
}

func addTensor(to row, h half, it oip.Item, i int, only bool, names []string) error {
	raw, err := oip.AppendRow(nil, it.Tensor, i)
	if err != nil {
		return err
	}
	if first(raw) != '[' {
		to[it.Name] = raw
		return nil
	}
	list, err := flat(raw, nil, 0)
	if err != nil {
		return err
	}
	switch {
	case len(list) == 1:
		to[it.Name] = list[0]
	case h == response:
		to[it.Name], err = json.Marshal(list)
	case only:
		for j, v := range list {
			to[nameAt(names, j, len(list))] = v
		}
	default:
		for j, v := range list {
			to[it.Name+"["+strconv.Itoa(j)+"]"] = v
		}
	}
	return err
}

// flat appends the values of nested lists in their order.
func flat(raw json.RawMessage, to []json.RawMessage, depth int) ([]json.RawMessage, error) {
	if first(raw) != '[' {
		return append(to, raw), nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil || depth > 16 {
		return nil, refuse("its lists are nested too deep")
	}
	for _, one := range list {
		var err error
		if to, err = flat(one, to, depth+1); err != nil {
			return nil, err
		}
	}
	return to, nil
}

// seldonRows reads the two forms of Seldon's that are no tables: JSON of any shape, and one
// text. A list of objects, or of lists, is a row each; anything else is one row.
func (p *payload) seldonRows(h half, names []string) ([]row, error) {
	list := []json.RawMessage{p.JSONData}
	switch {
	case p.JSONData == nil:
		if first(p.StrData) != '"' {
			return nil, refuse("strData is no text")
		}
		list[0] = p.StrData
	case first(p.JSONData) == '[':
		var inner []json.RawMessage
		if err := json.Unmarshal(p.JSONData, &inner); err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(inner, func(raw json.RawMessage) bool { return first(raw) != '{' && first(raw) != '[' }) {
			list = inner
		}
	}
	return listed(list, func(raw json.RawMessage) (row, error) {
		if h == request {
			return featuresOf(raw, names)
		}
		return outputsOf(raw)
	})
}

// rows reads Seldon's data.
func (d *seldonData) rows(h half, names []string) ([]row, error) {
	list, err := d.lists()
	if err != nil {
		return nil, err
	}
	return listed(list, func(raw json.RawMessage) (row, error) {
		var values []json.RawMessage
		switch first(raw) {
		case '{':
			return nil, refuse("a row of data is an object")
		case '[':
			if err := json.Unmarshal(raw, &values); err != nil {
				return nil, err
			}
		default:
			values = []json.RawMessage{raw}
		}
		if len(values) > maxColumns {
			return nil, refuse("a row has more than 4,096 values")
		}
		given := len(d.Names) > 0 && len(d.Names) == len(values)
		switch {
		case given:
			return placed(values, d.Names)
		case h == request:
			return placed(values, names)
		case len(values) == 1:
			return row{"prediction": values[0]}, nil
		}
		return row{"prediction": raw}, nil
	})
}

// lists are the rows of data, whichever of its two forms it has.
func (d *seldonData) lists() ([]json.RawMessage, error) {
	if d.Tensor == nil {
		if d.NDArray == nil {
			return nil, refuse("data has neither ndarray nor tensor")
		}
		return d.NDArray, nil
	}
	n, err := engine.Elements(d.Tensor.Shape)
	if err != nil || n != len(d.Tensor.Values) || n == 0 {
		return nil, refuse("the tensor's shape has another number of values than it has, or none")
	}
	if len(d.Tensor.Shape) < 2 {
		return d.Tensor.Values, nil
	}
	out := make([]json.RawMessage, d.Tensor.Shape[0])
	width := n / len(out)
	for i := range out {
		if out[i], err = json.Marshal(d.Tensor.Values[i*width : (i+1)*width]); err != nil {
			return nil, err
		}
	}
	return out, nil
}
