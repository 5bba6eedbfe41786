package compress

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/onnx"
)

// channelRows bounds the rows by which channels are measured: an image has many places.
const channelRows = 64

// dropChannels drops, of each group of channels or heads that stand for one another, the
// share that matters least, with all that is made for them or takes them in. It returns
// the nodes that make fewer, and why the others do not.
func dropChannels(ctx context.Context, in Input, share float64, r *Result) (done map[string]bool, stay []string, err error) {
	done = map[string]bool{}
	f, err := onnx.Edit(in.Data, in.Dir)
	if err != nil {
		return nil, nil, err
	}
	if !slices.ContainsFunc(f.Nodes(), func(n *onnx.FileNode) bool {
		return n.Domain == "" && (n.Op == "Conv" || n.Op == "ConvTranspose" || n.Op == "Softmax")
	}) {
		return done, nil, nil
	}
	shapes, err := observed(ctx, in, f)
	if err != nil {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		return done, []string{fmt.Sprintf("channels and heads stay as they are: their shapes are seen by a run, and %v", err)}, nil
	}
	t := trace(f, shapes)
	spread, mean, err := t.measure(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	weight, err := t.weigh(spread)
	if err != nil {
		return nil, nil, err
	}
	gone := t.least(weight, share)
	for _, m := range t.sources {
		at := t.parents.find(m.parts[0])
		n, all := t.counted(m, gone)
		switch why := t.kept[at]; {
		case !t.chosen[at]:
		case n > 0:
			done[label(m.node)] = true
			what := "channels"
			if all < len(m.parts) {
				what = "groups of " + count(len(m.parts)/all, "unit", "units") + ", heads or channels that go together,"
			}
			r.change(label(m.node), "%d of %d %s dropped", n, all, what)
		case why != "":
			stay = append(stay, fmt.Sprintf("%s stays as it is: %s", label(m.node), why))
		default:
			stay = append(stay, fmt.Sprintf("%s keeps its %d parts: the share is less than one", label(m.node), all))
		}
	}
	if len(gone) == 0 {
		return done, stay, nil
	}
	if err := t.apply(gone, mean); err != nil {
		return nil, nil, err
	}
	r.Data, err = f.Bytes()
	return done, stay, err
}

// counted tells how many parts a node makes that go on their own, and how many go.
func (t *tracer) counted(m *source, gone map[int]bool) (n, all int) {
	seen := map[int]bool{}
	for _, p := range m.parts {
		root := t.parents.find(p)
		if !seen[root] && gone[root] {
			n++
		}
		seen[root] = true
	}
	return n, len(seen)
}

// total is what was seen of the parts of one value.
type total struct{ n, sum, square []float64 }

// measure runs rows and returns, for each weight that takes parts in, how much they
// vary and their means; nil without rows.
func (t *tracer) measure(ctx context.Context, in Input) (spread, mean map[*cutting][]float64, err error) {
	if len(in.Rows) == 0 {
		return nil, nil, nil
	}
	totals := map[string]*total{}
	var names []string
	for _, c := range t.cuts {
		if c.takes != nil && totals[c.input] == nil && t.goes(c.parts) {
			width := t.shapes[c.input][c.from]
			totals[c.input] = &total{make([]float64, width), make([]float64, width), make([]float64, width)}
			names = append(names, c.input)
		}
	}
	if len(names) == 0 {
		return nil, nil, nil
	}
	m, err := modelfile.Read(in.Name, in.Data, in.Dir)
	if err != nil {
		return nil, nil, err
	}
	rows, err := engine.RowsOf(m.Info(), in.Rows).Spread(channelRows)
	if err != nil {
		return nil, nil, err
	}
	wrong := ""
	err = eachBlock(ctx, m, rows.Values, names, func(v engine.Values) {
		for _, o := range v {
			if !totals[o.Name].add(o.Tensor, t.lanes[o.Name].axis) {
				wrong = o.Name
			}
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("measure channels: %w", err)
	}
	if wrong != "" {
		return nil, nil, refuse("%q is no finite number on these rows, or not of one shape", clip(wrong))
	}
	spread, mean = map[*cutting][]float64{}, map[*cutting][]float64{}
	for _, c := range t.cuts {
		s := totals[c.input]
		if c.takes == nil || s == nil {
			continue
		}
		spread[c], mean[c] = make([]float64, len(s.n)), make([]float64, len(s.n))
		for i, n := range s.n {
			mean[c][i] = s.sum[i] / max(n, 1)
			spread[c][i] = math.Sqrt(max(0, s.square[i]/max(n, 1)-mean[c][i]*mean[c][i]))
		}
	}
	return spread, mean, nil
}

// goes tells whether any of the parts may go.
func (t *tracer) goes(parts []int) bool {
	return slices.ContainsFunc(parts, func(p int) bool {
		root := t.parents.find(p)
		return t.chosen[root] && t.kept[root] == ""
	})
}

// add takes a value in; false where it is not finite or of another shape.
func (s *total) add(v *engine.Tensor, axis int) bool {
	shape := v.Shape()
	x, ok := v.Float64s()
	if !ok || axis >= len(shape) || shape[axis] != len(s.n) {
		return false
	}
	inner := 1
	for _, d := range shape[axis+1:] {
		inner *= d
	}
	for from := 0; from < len(x); from += inner {
		i := from / inner % len(s.n)
		for _, y := range x[from : from+inner] {
			s.sum[i] += y
			s.square[i] += y * y
		}
		s.n[i] += float64(inner)
		if math.IsNaN(s.square[i]) || math.IsInf(s.square[i], 0) {
			return false
		}
	}
	return true
}

// weigh tells how much each part matters: the size of the weights that take it in, each
// times how much it varies on the rows. Without rows the size of what makes it, with the
// normalisation behind that, stands for how much it varies.
func (t *tracer) weigh(spread map[*cutting][]float64) (map[int]float64, error) {
	makes, takes := map[int]float64{}, map[int]float64{}
	others := map[int]bool{} // parts that something makes which does not only weigh others
	for _, m := range t.sources {
		for _, p := range m.parts {
			others[t.parents.find(p)] = others[t.parents.find(p)] || !t.behind[m.node]
		}
	}
	for _, c := range t.cuts {
		if c.makes == nil && c.takes == nil || !t.goes(c.parts) {
			continue
		}
		size, err := norms(c.slice)
		if err != nil {
			return nil, err
		}
		for i, p := range c.parts {
			root := t.parents.find(p)
			x := size[i]
			switch {
			case c.takes != nil:
				if spread != nil {
					x *= spread[c][i]
				}
				takes[root] += x * x
				continue
			case t.behind[c.makes] && others[root]:
				continue
			}
			if g, ok := t.gain[p]; ok {
				x *= g
			}
			makes[root] += x * x
		}
	}
	out := map[int]float64{}
	for root := range makes {
		out[root] = takes[root]
		if spread == nil {
			out[root] *= makes[root]
		}
		if math.IsNaN(out[root]) || math.IsInf(out[root], 0) {
			return nil, refuse("weights of a convolution or product are no finite numbers")
		}
	}
	return out, nil
}

// least chooses, of each group, the share of parts that matter least. Of what each node
// makes or takes in at least one stays.
func (t *tracer) least(weight map[int]float64, share float64) map[int]bool {
	members := map[int][]int{}
	for p := range t.parents {
		if root := t.parents.find(p); root == p && t.chosen[p] && t.kept[p] == "" {
			g := t.groups.find(p)
			members[g] = append(members[g], p)
		}
	}
	left := make([]int, len(t.cuts))
	where := map[int]map[int]int{} // how often a part stands in each cut
	for i, c := range t.cuts {
		left[i] = len(c.parts)
		for _, p := range c.parts {
			root := t.parents.find(p)
			if where[root] == nil {
				where[root] = map[int]int{}
			}
			where[root][i]++
		}
	}
	gone := map[int]bool{}
	for g := range t.groups {
		parts := members[g]
		slices.SortStableFunc(parts, func(a, b int) int { return cmp.Compare(weight[a], weight[b]) })
		drop := int(math.Round(share * float64(len(parts))))
		for _, p := range parts {
			if drop == 0 {
				break
			}
			last := false
			for i, n := range where[p] {
				last = last || left[i] <= n
			}
			if last {
				continue
			}
			for i, n := range where[p] {
				left[i] -= n
			}
			gone[p] = true
			drop--
		}
	}
	return gone
}

// apply cuts the file.
func (t *tracer) apply(gone map[int]bool, mean map[*cutting][]float64) error {
	stays := func(parts []int) (keep []int) {
		for i, p := range parts {
			if !gone[t.parents.find(p)] {
				keep = append(keep, i)
			}
		}
		return keep
	}
	for _, c := range t.cuts {
		if m := mean[c]; m != nil && len(stays(c.parts)) < len(c.parts) {
			if err := t.shift(c, m, gone); err != nil {
				return err
			}
		}
	}
	var names []string
	for _, c := range t.cuts {
		keep := stays(c.parts)
		if len(keep) == len(c.parts) {
			continue
		}
		if err := t.structurer.cut(c.slice, keep); err != nil {
			return err
		}
		names = append(names, c.w.Name)
	}
	for _, a := range t.amends {
		if n := len(stays(a.parts)); n < len(a.parts) {
			if err := t.amend(a, n); err != nil {
				return err
			}
		}
	}
	for name := range t.lanes {
		names = append(names, name)
	}
	t.file.Reshaped(names...)
	return nil
}

// shift adds what the parts that go gave on average to the bias of the node that took
// them in, where it has one of its own or can be given one.
func (t *tracer) shift(c *cutting, mean []float64, gone map[int]bool) error {
	n := c.takes
	if n.Op == "ConvTranspose" || n.Op == "Conv" && n.Number("group", 1) != 1 {
		return nil
	}
	v, err := c.w.Value()
	if err != nil {
		return err
	}
	x, _ := v.Float64s()
	outs, inner := c.w.Shape[1-c.axis], 1
	for _, d := range c.w.Shape[2:] {
		inner *= d
	}
	by := make([]float64, outs)
	for i, y := range x {
		out, in := i/inner/c.w.Shape[1], i/inner%c.w.Shape[1]
		if c.axis == 0 {
			out, in = in, out
		}
		if gone[t.parents.find(c.parts[in])] {
			by[out] += y * mean[in]
		}
	}
	bias, scale := t.bias(n)
	if n.Op == "Conv" {
		if len(n.Inputs) < 3 || n.Inputs[2] == "" {
			return t.newBias(n, v, by, c)
		}
		bias, scale = t.own(n.Inputs[2]), 1
	}
	if bias == nil || bias.Len != outs || bias.DType != engine.Float32 && bias.DType != engine.Float64 {
		return nil
	}
	for i := range by {
		by[i] *= scale
	}
	return t.add(bias, by)
}

// newBias gives a convolution a bias, which is cut with what it makes.
func (t *tracer) newBias(n *onnx.FileNode, like *engine.Tensor, by []float64, c *cutting) error {
	o, err := floatsLike(like, by, []int{len(by)})
	if err != nil {
		return err
	}
	name := t.file.Fresh(n.Outputs[0] + "/bias")
	if err := t.file.AddWeight(name, o); err != nil {
		return err
	}
	if err := t.file.SetInput(n, 2, name); err != nil {
		return err
	}
	for _, m := range t.sources {
		if m.node == n {
			t.cuts = append(t.cuts, &cutting{slice: slice{t.file.Weight(name), 0}, parts: m.parts})
		}
	}
	return nil
}

// amend writes a number of parts.
func (t *tracer) amend(a amend, n int) error {
	if a.attribute != "" {
		return a.node.SetAttr(a.attribute, int64(n))
	}
	old := t.file.Weight(a.node.Inputs[a.input])
	if old == nil {
		return fmt.Errorf("%s: its shape is no constant any more", label(a.node))
	}
	v := slices.Clone(t.integers(old.Name))
	v[a.at] = int64(n)
	o, err := engine.Of(v, old.Shape...)
	if err != nil {
		return err
	}
	if t.reads[old.Name] == 1 && old.DType == engine.Int64 {
		return t.file.Replace(old, o)
	}
	name := t.file.Fresh(strings.TrimSuffix(old.Name, "/cut") + "/cut")
	if err := t.file.AddWeight(name, o); err != nil {
		return err
	}
	t.reads[old.Name]--
	t.reads[name] = 1
	return t.file.SetInput(a.node, a.input, name)
}
