package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/engine/table"
	"github.com/pellucid/pellucid/engine/train"
)

// fitRows are the rows of a fit, with their labels.
type fitRows struct {
	table    *table.Table
	labels   *train.Labels
	network  *train.Network // of --from
	features []string       // names, of a new model
	// weighed says that rows weigh what the export's own column says, unasked.
	weighed bool
	// kept says what became of the reference beside the network, where there is one.
	kept string
	// private are the features that the new version's model.yaml keeps private.
	private string
	// notes say what was left out.
	notes []string
}

// rows takes the rows that can be learnt from, and their labels.
func (o *fitOptions) rows(t *table.Table) (*fitRows, error) {
	for flag, name := range map[string]string{"label": o.label, "weight": o.weight, "time": o.time} {
		if name != "" && t.Column(name) == nil {
			return nil, usage(fmt.Errorf("--%s: %s has no column %q", flag, o.input, name))
		}
	}
	r := &fitRows{}
	if o.from != "" {
		var err error
		if r.network, err = o.openNetwork(); err != nil {
			return nil, err
		}
	} else if exportedTable(t) && len(o.features) == 0 {
		return nil, usage(fmt.Errorf("%s is an export, whose columns are ids and outputs too: name those to learn from by --features", o.input))
	}
	if err := o.checkPrivate(t); err != nil {
		return nil, err
	}
	if name := exportWeights(t); o.weight == "" && name != "" && !slices.Contains(o.features, name) {
		o.weight, r.weighed = name, true
	}
	r.table = r.keep(t, t.Column(o.label))
	if r.table.Rows == 0 {
		return nil, fmt.Errorf("%s has no row with a label in column %q", o.input, o.label)
	}
	labels, err := o.labels(r)
	if err != nil {
		return nil, err
	}
	r.labels = labels
	if o.weight != "" {
		w, ok := r.table.Column(o.weight).Float64s()
		if !ok {
			return nil, fmt.Errorf("--weight: column %q holds no numbers", o.weight)
		}
		labels.Weights = w
	}
	if len(o.classWeight) > 0 {
		if labels.Class == nil {
			return nil, usage(fmt.Errorf("--class-weight: the labels of column %q are numbers, not classes", o.label))
		}
		if labels.Weights, err = o.classWeights(labels); err != nil {
			return nil, err
		}
	}
	if o.time != "" {
		labels.Order, err = order(r.table.Column(o.time))
	}
	return r, err
}

// classWeights are the rows' weights under --class-weight: balanced, or CLASS=NUMBER for
// some classes, which multiply.
func (o *fitOptions) classWeights(l *train.Labels) ([]float64, error) {
	if len(o.classWeight) == 1 && o.classWeight[0] == balanced {
		return l.Balanced(), nil
	}
	of := map[string]float64{}
	for _, text := range o.classWeight {
		at := strings.LastIndex(text, "=")
		if at < 0 {
			return nil, usage(fmt.Errorf("--class-weight %q is neither %s nor CLASS=NUMBER", text, balanced))
		}
		v, err := strconv.ParseFloat(text[at+1:], 64)
		name := text[:at]
		_, twice := of[name]
		switch {
		case err != nil || !(v >= 0 && v <= math.MaxFloat32):
			return nil, usage(fmt.Errorf("--class-weight %q is neither %s nor CLASS=NUMBER", text, balanced))
		case !slices.Contains(l.Classes, name):
			return nil, usage(fmt.Errorf("--class-weight: %q is none of the classes of column %q", name, o.label))
		case twice:
			return nil, usage(fmt.Errorf("--class-weight: class %q is named twice", name))
		}
		of[name] = v
	}
	out := make([]float64, len(l.Class))
	for i, c := range l.Class {
		out[i] = 1
		if l.Weights != nil {
			out[i] = l.Weights[i]
		}
		if v, ok := of[l.Classes[c]]; ok {
			out[i] *= v
		}
	}
	return out, nil
}

const balanced = "balanced"

// exportedTable reports whether a table is what `pellucid export` writes.
func exportedTable(t *table.Table) bool {
	for i, name := range exported {
		if i != weightAt && t.Column(name) == nil { // that of weights may have another name
			return false
		}
	}
	return true
}

// keep returns the rows that have a label and, in an export, their values.
func (r *fitRows) keep(t *table.Table, label *table.Column) *table.Table {
	var rows []int
	unlabelled, empty := 0, 0
	var status []float64
	var capture []string
	if exportedTable(t) {
		status, _ = t.Column("status").Float64s()
		capture = t.Column("capture").Strings()
	}
	for i := range t.Rows {
		switch {
		case label.Missing(i):
			unlabelled++
		case status != nil && (status[i] >= 400 || capture[i] != "full"):
			empty++
		default:
			rows = append(rows, i)
		}
	}
	if unlabelled > 0 {
		r.notes = append(r.notes, fmt.Sprintf("%d rows without a label", unlabelled))
	}
	if empty > 0 {
		r.notes = append(r.notes, fmt.Sprintf("%d rows whose values were not kept", empty))
	}
	if len(rows) == t.Rows {
		return t
	}
	out := &table.Table{Rows: len(rows), Named: t.Named, Path: t.Path}
	for i := range t.Columns {
		out.Columns = append(out.Columns, t.Columns[i].Take(rows))
	}
	return out
}

// labels takes the label's column for classes or for numbers.
func (o *fitOptions) labels(r *fitRows) (*train.Labels, error) {
	c := r.table.Column(o.label)
	if c.Type == table.Time {
		return nil, fmt.Errorf("the label's column %q is a time", o.label)
	}
	v, numeric := c.Float64s()
	classes := o.cfg.Loss.Classifies()
	switch {
	case o.cfg.Loss != "":
	case r.network != nil:
		n := r.network
		classes = n.Loss.Classifies() || n.Loss == "" && (n.Width > 1 || len(n.Info.Classes) > 0)
	default:
		classes = !numeric || slices.Contains(v, 0) && slices.Contains(v, 1) && !slices.ContainsFunc(v, func(x float64) bool { return x != 0 && x != 1 })
	}
	if !classes {
		if !numeric {
			return nil, fmt.Errorf("the label's column %q holds text, and loss %s is of numbers", o.label, cmp.Or(o.loss, "squared"))
		}
		return &train.Labels{Values: v}, nil
	}
	names := c.Strings()
	l := &train.Labels{Class: make([]int, len(names))}
	if r.network != nil {
		l.Classes = r.network.Classes()
	} else {
		l.Classes = classNames(names)
	}
	index := make(map[string]int, len(l.Classes))
	for i, s := range l.Classes {
		index[s] = i
	}
	for i, s := range names {
		at, ok := index[s]
		if !ok {
			return nil, fmt.Errorf("a label in column %q is none of the %d classes of %s (%s)", o.label, len(l.Classes), o.from, shortened(l.Classes))
		}
		l.Class[i] = at
	}
	return l, nil
}

// classNames lists what labels say, each once, numbers by their size.
func classNames(labels []string) []string {
	names := slices.Compact(slices.Sorted(slices.Values(labels)))
	number := func(s string) float64 {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return math.NaN()
		}
		return v
	}
	if !slices.ContainsFunc(names, func(s string) bool { return math.IsNaN(number(s)) }) {
		slices.SortFunc(names, func(a, b string) int { return cmp.Compare(number(a), number(b)) })
	}
	return names
}

// order is the place of each row in time.
func order(c *table.Column) ([]float64, error) {
	if v, ok := c.Float64s(); ok {
		for i, x := range v {
			if math.IsNaN(x) {
				return nil, fmt.Errorf("--time: column %q row %d is missing", c.Name, i+1)
			}
		}
		return v, nil
	}
	times, err := c.TimeValues()
	if err != nil {
		return nil, fmt.Errorf("--time: %w", err)
	}
	out := make([]float64, len(times))
	for i, x := range times {
		// Microseconds: a float64 has room for those of 285 years.
		out[i] = float64(x.Sub(time.Unix(0, 0)).Microseconds())
	}
	return out, nil
}

// columns are the features, as numbers or as text.
func (o *fitOptions) columns(r *fitRows) ([]train.Column, error) {
	names := o.features
	if len(names) == 0 {
		for i := range r.table.Columns {
			c := &r.table.Columns[i]
			switch {
			case c.Name == o.label || c.Name == o.weight || c.Name == o.time:
			case c.Type == table.Time:
				r.notes = append(r.notes, fmt.Sprintf("column %s, which is a time", c.Name))
			default:
				names = append(names, c.Name)
			}
		}
	}
	for _, name := range o.categorical {
		if !slices.Contains(names, name) {
			return nil, usage(fmt.Errorf("--categorical: %q is none of the features", name))
		}
	}
	r.features = names
	out := make([]train.Column, 0, len(names))
	for _, name := range names {
		c := r.table.Column(name)
		switch {
		case c == nil:
			return nil, usage(fmt.Errorf("--features: %s has no column %q", o.input, name))
		case name == o.label:
			return nil, usage(fmt.Errorf("--features: %q is the label", name))
		case c.Type == table.Time:
			return nil, usage(fmt.Errorf("--features: column %q is a time", name))
		case c.Type == table.String || slices.Contains(o.categorical, name):
			out = append(out, train.Column{Name: name, Texts: c.Strings()})
		default:
			v, _ := c.Float64s()
			out = append(out, train.Column{Name: name, Numbers: v})
		}
	}
	return out, nil
}
