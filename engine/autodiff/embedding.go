package autodiff

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// lookup is a node that looks up vectors by ids of an input.
type lookup struct {
	node    *graph.Node
	ids     string
	vectors []string
	entries int
	// number says that the node makes floats of the integers themselves.
	number bool
}

// EmbeddedInputs names the integer inputs whose ids look up vectors in a constant
// table, the one with the largest table first; where there are none, those whose integers
// are made floats and nothing else. In a model of ids such an input is a mask.
func EmbeddedInputs(p *graph.Program) []string {
	entries := map[string]int{}
	var names []string
	for _, s := range p.Graph().Inputs {
		if !s.DType.IsInteger() {
			continue
		}
		_, found := lookups(p, s.Name)
		for _, l := range found {
			entries[s.Name] = max(entries[s.Name], l.entries)
		}
		if len(found) > 0 {
			names = append(names, s.Name)
		}
	}
	if len(names) == 0 {
		for _, s := range p.Graph().Inputs {
			if s.DType.IsInteger() && len(numbers(p, s.Name)) > 0 {
				names = append(names, s.Name)
			}
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(entries[b], entries[a]) })
	return names
}

// dataInputs are the inputs of a node whose elements its output holds, perhaps in other
// places, or each changed by a constant; none where it does something else to them.
func dataInputs(n *graph.Node) (at []int, moves bool) {
	if n.Domain != graph.DomainONNX {
		return nil, false
	}
	switch n.Op {
	case "Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Clip":
		return []int{0}, false
	case "Add", "Sub", "Mul", "Mod", "Max", "Min":
		if len(n.Inputs) == 2 {
			return []int{0, 1}, false
		}
	case "Transpose", "Slice", "Expand", "Tile", "Gather", "GatherElements", "Split":
		return []int{0}, true
	case "Where":
		return []int{1, 2}, true
	case "Concat":
		for i := range n.Inputs {
			at = append(at, i)
		}
		return at, true
	}
	return nil, false
}

// lookups follows an input's ids to the nodes that look vectors up by them. traced names
// the values that hold ids: what is computed of several ids, such as a mask or a
// position that counts them, holds none.
func lookups(p *graph.Program, input string) (traced map[string]bool, found []lookup) {
	traced = map[string]bool{input: true}
	inputs := map[string]bool{}
	for _, s := range p.Graph().Inputs {
		inputs[s.Name] = true
	}
	varies := p.Depends(inputs)
	nodes := p.Nodes()
	floats := map[string][]string{} // made of what is quantised
	for _, n := range nodes {
		if n.Op == "DequantizeLinear" {
			floats[n.Inputs[0]] = append(floats[n.Inputs[0]], n.Outputs[0])
		}
	}
	for _, n := range nodes {
		if l, ok := lookupOf(p, n, traced, varies, floats); ok {
			found = append(found, l)
			continue
		}
		at, moves := dataInputs(n)
		one, others := false, false
		for _, i := range at {
			one = one || traced[n.Inputs[i]]
			others = others || !traced[n.Inputs[i]] && varies[n.Inputs[i]]
		}
		if one && (moves || !others) {
			for _, o := range n.Outputs {
				if o != "" {
					traced[o] = true
				}
			}
		}
	}
	return traced, found
}

// numbers are the nodes that make floats of an input's integers, where all that read it do.
func numbers(p *graph.Program, input string) (found []lookup) {
	if slices.Contains(p.Graph().Outputs, input) {
		return nil
	}
	for _, n := range p.Nodes() {
		if !slices.Contains(n.Inputs, input) {
			continue
		}
		d, _ := p.Type(n.Outputs[0])
		if n.Op != "Cast" || n.Domain != graph.DomainONNX || !d.IsFloat() {
			return nil
		}
		found = append(found, lookup{node: n, ids: input, vectors: n.Outputs[:1], number: true})
	}
	return found
}

// lookupOf tells what a Gather by traced ids looks up: its output, or the floats that are
// made of it where the table is quantised.
func lookupOf(p *graph.Program, n *graph.Node, traced, varies map[string]bool, floats map[string][]string) (lookup, bool) {
	gathers := n.Op == "Gather" && n.Domain == graph.DomainONNX && n.Attrs["axis"].Int == 0 ||
		n.Op == "GatherBlockQuantized" && n.Domain == graph.DomainContrib
	if !gathers || !traced[n.Inputs[1]] || varies[n.Inputs[0]] {
		return lookup{}, false
	}
	l := lookup{node: n, ids: n.Inputs[1]}
	switch d, _ := p.Type(n.Outputs[0]); {
	case d.IsFloat():
		l.vectors = []string{n.Outputs[0]}
	default:
		l.vectors = floats[n.Outputs[0]]
	}
	// What makes a table of a constant (Cast, DequantizeLinear) has it as its first input.
	const far = 8
	name := n.Inputs[0]
	for range far {
		if t := p.Constant(name); t != nil {
			l.entries = t.Rows()
			break
		}
		by := p.Producer(name)
		if by == nil || len(by.Inputs) == 0 {
			break
		}
		name = by.Inputs[0]
	}
	return l, len(l.vectors) > 0
}

// Embeddings returns the vectors that the ids of an input look up in constant tables.
func Embeddings(ctx context.Context, p *graph.Program, opt graph.Options, in engine.Values, input string) ([]engine.Embedding, error) {
	traced, found := lookups(p, input)
	if len(found) == 0 {
		traced, found = map[string]bool{input: true}, numbers(p, input)
	}
	if len(found) == 0 {
		return nil, &engine.InputError{Input: input, Reason: "looks up no vectors in a constant table, and is not made floats"}
	}
	opt.Keep = true
	var want []string
	for i := range found {
		want = append(append(want, found[i].vectors...), found[i].ids)
	}
	run, err := p.Run(ctx, opt, in, want)
	if err != nil {
		return nil, err
	}
	origin, err := origins(run, input, traced)
	if err != nil {
		return nil, err
	}
	var out []engine.Embedding
	for i := range found {
		for _, name := range found[i].vectors {
			e, err := embedding(run, &found[i], name, origin[found[i].ids])
			if err != nil {
				return nil, err
			}
			if err := sameRows(&e, in.Get(input)); err != nil {
				return nil, err
			}
			out = append(out, e)
		}
	}
	return out, nil
}

func embedding(run *graph.Run, l *lookup, name string, of []int) (engine.Embedding, error) {
	t := run.Value(name)
	e := engine.Embedding{Name: name, Node: l.node.Label(), Entries: l.entries, Tensor: t, Of: of, Number: l.number}
	if len(of) == 0 || t.Len()%len(of) != 0 || !t.DType().IsFloat() {
		return e, &engine.InputError{Reason: fmt.Sprintf("node %q looks up %s of shape %v for %d ids that can be followed", l.node.Label(), t.DType(), t.Shape(), len(of))}
	}
	e.Width = t.Len() / len(of)
	if d := t.DType(); d == engine.Float16 || d == engine.BFloat16 {
		var err error
		if e.Tensor, err = graph.Cast(t, engine.Float32); err != nil {
			return e, err
		}
	}
	return e, nil
}

// sameRows refuses vectors that do not lie in the row of the id that looked them up.
func sameRows(e *engine.Embedding, ids *engine.Tensor) error {
	rows, width := e.Tensor.Rows(), ids.RowLen()
	per := len(e.Of) / max(rows, 1)
	fits := rows == ids.Rows() && per*rows == len(e.Of)
	for i, at := range e.Of {
		fits = fits && (at < 0 || at/width == i/per)
	}
	if !fits {
		return &engine.InputError{Reason: fmt.Sprintf("the vectors that node %q looks up do not lie in the rows of their ids", e.Node)}
	}
	return nil
}

// origins tells for every traced value that was computed which element of the input
// each of its elements is, -1 for none.
func origins(run *graph.Run, input string, traced map[string]bool) (map[string][]int, error) {
	first := make([]int, run.Value(input).Len())
	for i := range first {
		first[i] = i
	}
	origin := map[string][]int{input: first}
	for _, n := range run.Nodes() {
		if !slices.ContainsFunc(n.Outputs, func(o string) bool { return traced[o] }) {
			continue
		}
		at, moves := dataInputs(n)
		for _, i := range at {
			from := origin[n.Inputs[i]]
			if from == nil {
				continue
			}
			if moves {
				if err := followMoves(run, n, i, at, from, origin); err != nil {
					return nil, err
				}
				continue
			}
			if run.Value(n.Outputs[0]).Len() != len(from) {
				return nil, &engine.InputError{Input: input, Reason: fmt.Sprintf("its ids are repeated by node %q, which is not followed", n.Label())}
			}
			origin[n.Outputs[0]] = from
		}
	}
	return origin, nil
}

// followMoves adds what input k of a node that moves elements brings to its outputs.
func followMoves(run *graph.Run, n *graph.Node, k int, data []int, from []int, origin map[string][]int) error {
	in := make([]*engine.Tensor, len(n.Inputs))
	for i, name := range n.Inputs {
		if name != "" {
			in[i] = run.Value(name)
		}
	}
	for _, i := range data { // Origin marks floats
		var err error
		if in[i], err = engine.New(engine.Float32, in[i].Shape()...); err != nil {
			return err
		}
	}
	places, err := graph.Origin(n, in, k)
	if err != nil {
		return err
	}
	for o, name := range n.Outputs {
		if name == "" {
			continue
		}
		to := origin[name]
		if to == nil {
			to = slices.Repeat([]int{-1}, len(places[o]))
			origin[name] = to
		}
		for i, p := range places[o] {
			if p > 0 {
				to[i] = from[p-1]
			}
		}
	}
	return nil
}
