package main

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/table"
)

// columns are those of an export besides the ones that every export has.
type columns struct {
	features, outputs []string
	widths            map[string]int // of outputs that are lists
	// types are those of the features' and the outputs' columns.
	types map[string]table.Type
	// same has the ids of the schemas that have the first one's fields, of whatever shape:
	// those of requests that were not shaped as the model declares.
	same map[string]bool
}

func columnsOf(first *collector.Schema, all []*collector.Schema) *columns {
	c := &columns{features: storedNames(first.Features), outputs: storedNames(first.Outputs), widths: map[string]int{}, types: map[string]table.Type{}, same: map[string]bool{first.ID: true}}
	for _, name := range c.outputs {
		c.widths[name] = outputWidth(first, name)
	}
	for _, s := range all {
		if !sameNames(s.Features, first.Features) || !sameNames(s.Outputs, first.Outputs) {
			continue
		}
		c.same[s.ID] = true
		c.features = append(c.features, storedNames(s.Features)...)
		for _, name := range c.outputs {
			if outputWidth(s, name) != c.widths[name] {
				c.widths[name] = -1
			}
		}
	}
	for _, s := range all {
		if c.same[s.ID] {
			c.typed(s)
		}
	}
	slices.Sort(c.features)
	c.features = slices.Compact(c.features)
	return c
}

// ofOutput is before the name of an output in columns.types: a feature may be called so too.
const ofOutput = "\x00"

// typed notes the types of a schema's fields: one that holds both where two schemas differ.
func (c *columns) typed(s *collector.Schema) {
	note := func(name string, t table.Type) {
		if was, ok := c.types[name]; ok && was != t {
			if was == table.String || t == table.String {
				t = table.String
			} else {
				t = table.Float64
			}
		}
		c.types[name] = t
	}
	for i := range s.Features {
		note(s.Features[i].Name, cellType(&s.Features[i], s.Features[i].Elements == 1))
	}
	for i := range s.Outputs {
		f := &s.Outputs[i]
		note(ofOutput+f.Name, cellType(f, f.Elements == 1 || c.widths[f.Name] > 0))
	}
}

// cellType is what a cell of a field is shown as, which has one element or a list of them.
func cellType(f *collector.Field, one bool) table.Type {
	switch d := f.DType; {
	case !one || f.Private != "" || f.Categorical || f.Categories != nil:
	case d == engine.Float64:
		return table.Float64
	case d.IsFloat():
		return table.Float32
	case d.IsInteger() && d != engine.Uint64:
		return table.Int64
	}
	return table.String
}

func sameNames(a, b []collector.Field) bool {
	return slices.EqualFunc(a, b, func(x, y collector.Field) bool { return x.Name == y.Name })
}

func (c *columns) head() []table.Column {
	head := make([]table.Column, len(exported))
	named := func(name string) bool {
		return slices.ContainsFunc(head, func(h table.Column) bool { return h.Name == name })
	}
	for i, name := range exported {
		t, ok := exportedTypes[name]
		if !ok {
			t = table.String
		}
		head[i] = table.Column{Name: name, Type: t}
	}
	if slices.Contains(c.features, head[weightAt].Name) || slices.Contains(c.outputs, head[weightAt].Name) {
		head[weightAt].Name = otherWeight
	}
	for _, name := range c.features {
		head = append(head, table.Column{Name: name, Type: c.types[name]})
	}
	for _, name := range c.outputs {
		for _, column := range outputColumns(name, c.widths[name]) {
			for named(column) {
				column = "_" + column
			}
			head = append(head, table.Column{Name: column, Type: c.types[ofOutput+name]})
		}
	}
	return head
}

// lacks reports whether a row has other columns than these. One that has none, as a span
// that tells no outcome, has no others.
func (c *columns) lacks(p *collector.StoredPrediction) bool {
	other := func(values map[string]any, names []string) bool {
		return len(values) > 0 && len(values) != len(names)
	}
	return !c.same[p.Raw.SchemaID] && (other(p.Features, c.features) || other(p.Outputs, c.outputs))
}

// record are the cells of a row; nil is none.
func (c *columns) record(p *collector.StoredPrediction) []any {
	some := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	record := []any{
		p.ID, some(p.ExternalID), p.Time, p.ReceivedAt, p.Model, p.Version, int64(p.Status), some(p.TraceID), p.Capture, cmp.Or(p.Weight, 1), nil,
	}
	if len(p.Labels) > 0 {
		record[len(record)-1] = p.Labels[0].Label
	}
	for _, name := range c.features {
		record = append(record, p.Features[name])
	}
	for _, name := range c.outputs {
		record = append(record, outputCells(p.Outputs[name], c.widths[name])...)
	}
	return record
}

// exported are the columns of an export that are neither feature nor output, in
// their order. That of weights has another name where a feature or an output is called
// so, as a person's weight is; an output that is called like a column before it, as
// scikit-learn's classifiers have one "label", is written behind a "_".
var exported = []string{"id", "external_id", "time", "received_at", "model", "version", "status", "trace_id", "capture", "weight", "label"}

// exportedTypes are the types of those that are not text.
var exportedTypes = map[string]table.Type{"time": table.Time, "received_at": table.Time, "status": table.Int64, "weight": table.Float64}

const (
	weightAt    = 9
	otherWeight = "_weight"
)

// storedNames are the names of fields that have values, in order.
func storedNames(fields []collector.Field) []string {
	names := []string{}
	for i := range fields {
		if fields[i].Private != collector.PrivacyDrop {
			names = append(names, fields[i].Name)
		}
	}
	slices.Sort(names)
	return names
}

// outputWidth is how many columns an output has, -1 where it is one value or its
// number of values changes.
func outputWidth(s *collector.Schema, name string) int {
	i := slices.IndexFunc(s.Outputs, func(f collector.Field) bool { return f.Name == name })
	if n := s.Outputs[i].Elements; n > 1 {
		return n
	}
	return -1
}

// outputColumns names the columns of an output: itself, or one for each of n.
func outputColumns(name string, n int) []string {
	if n < 0 {
		return []string{name}
	}
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s[%d]", name, i)
	}
	return out
}

func outputCells(v any, n int) []any {
	if n < 0 {
		return []any{v}
	}
	out := make([]any, n)
	if l := reflect.ValueOf(v); l.Kind() == reflect.Slice {
		for i := range min(n, l.Len()) {
			out[i] = l.Index(i).Interface()
		}
	}
	return out
}
