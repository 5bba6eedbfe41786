package autodiff

import (
	"maps"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// through walks back through a program that ran inside a node: in are its inputs,
// seeds the gradients of its outputs by name, wanted the inputs whose gradients are
// asked for. Those it has none for are left out.
func (b *back[T]) through(p *graph.Program, in engine.Values, seeds map[string][]T, wanted map[string]bool) (map[string][]T, error) {
	want := make([]string, 0, len(seeds))
	for name := range seeds {
		want = append(want, name)
	}
	run, err := p.Run(b.ctx, graph.Options{MaxBytes: max(b.limit-b.live, 1), Keep: true}, in, want)
	if err != nil {
		return nil, err
	}
	inner := &back[T]{ctx: b.ctx, run: run, grads: map[string][]T{}, needed: map[string]bool{}, rows: b.rows, live: b.live + run.Live, limit: b.limit}
	for name := range wanted {
		if _, ok := graph.Floats(run.Value(name)); ok {
			inner.needed[name] = true
		}
	}
	var blocked *graph.Node
	nodes := run.Nodes()
	for _, n := range nodes {
		for _, i := range n.Inputs {
			if i != "" && inner.needed[i] {
				blocked = inner.reach(n, blocked)
			}
		}
	}
	reached := false
	for name, g := range seeds {
		reached = reached || inner.needed[name]
		// An output may be an input too: what is added to it has to be its own.
		own, err := inner.alloc(len(g))
		if err != nil {
			return nil, err
		}
		copy(own, g)
		inner.grads[name] = own
	}
	if !reached && blocked != nil {
		return nil, noFloat(blocked)
	}
	if err := inner.walk(nodes); err != nil {
		return nil, err
	}
	out := map[string][]T{}
	for name := range wanted {
		if g := inner.grads[name]; g != nil && inner.needed[name] {
			out[name] = g
		}
	}
	return out, nil
}

// walk goes back over the nodes that ran.
func (b *back[T]) walk(nodes []*graph.Node) error {
	for i := len(nodes) - 1; i >= 0; i-- {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if err := b.node(nodes[i]); err != nil {
			return err
		}
	}
	return nil
}

// add adds to the gradient of a value, at places, or everywhere where they are nil.
func (b *back[T]) add(name string, d []T, places []int) error {
	g, err := b.grad(name)
	if err != nil || g == nil {
		return err
	}
	for i, v := range d {
		if places != nil {
			i = places[i]
		}
		g[i] += v
	}
	return nil
}

// composite differentiates what the operator is defined by.
func composite[T float](b *back[T], n *graph.Node) error {
	p, in, err := graph.BodyOf(n, b.inputs(n))
	if err != nil {
		return err
	}
	seeds, wanted, outer := map[string][]T{}, map[string]bool{}, map[string]string{}
	for i, name := range n.Outputs {
		if g := b.grads[name]; name != "" && g != nil {
			seed(seeds, p.Graph().Outputs[i], g)
		}
	}
	at := 0
	for _, name := range n.Inputs {
		if name == "" {
			continue
		}
		outer[in[at].Name] = name
		wanted[in[at].Name] = b.needed[name]
		at++
	}
	maps.DeleteFunc(wanted, func(_ string, w bool) bool { return !w })
	grads, err := b.through(p, in, seeds, wanted)
	if err != nil {
		return err
	}
	for name, d := range grads {
		if err := b.add(outer[name], d, nil); err != nil {
			return err
		}
	}
	return nil
}

// seed adds to a seed: two outputs may be one value.
func seed[T float](seeds map[string][]T, name string, d []T) {
	if old := seeds[name]; old != nil {
		sum := make([]T, len(d))
		for i := range d {
			sum[i] = old[i] + d[i]
		}
		d = sum
	}
	seeds[name] = d
}

// turns differentiates If, Loop, Scan and SequenceMap: the turns are run again, and walked
// back from the last.
func turns[T float](b *back[T], n *graph.Node) error {
	x := graph.NewExec(max(b.limit-b.live, 1))
	t, ok, err := graph.TurnsOf(x, n, b.inputs(n))
	if err != nil {
		return err
	}
	if !ok {
		return notDifferentiable(n, "")
	}
	wanted := wantedOf(t, b.needed, n)
	state := make([][]T, t.States)
	for i := range state {
		state[i] = b.grads[n.Outputs[i]]
	}
	for turn := len(t.Given) - 1; turn >= 0; turn-- {
		seeds := map[string][]T{}
		if err := b.seedTurn(t, n, turn, state, seeds); err != nil {
			return err
		}
		if len(seeds) == 0 {
			continue
		}
		grads, err := b.through(t.Program, t.Given[turn], seeds, wanted)
		if err != nil {
			return err
		}
		for i := range state {
			state[i] = grads[t.Params[t.FirstParam+i]]
		}
		if err := b.collect(t, n, turn, grads); err != nil {
			return err
		}
	}
	for i, d := range state {
		if err := b.add(n.Inputs[t.FirstInput+i], d, nil); err != nil {
			return err
		}
	}
	return nil
}

// scanRows differentiates Scan of operator set 8, which walks each row of its batch alone.
func scanRows[T float](b *back[T], n *graph.Node) error {
	p, rows, err := graph.ScanRows(graph.NewExec(max(b.limit-b.live, 1)), n, b.inputs(n))
	if err != nil {
		return err
	}
	own := len(n.Inputs) - 1 - n.Captured
	for r, in := range rows {
		seeds, wanted := map[string][]T{}, map[string]bool{}
		for _, name := range p.Graph().Outputs {
			if g := b.grads[name]; g != nil {
				size := len(g) / len(rows)
				seeds[name] = g[r*size : (r+1)*size]
			}
		}
		for i, v := range in {
			if b.needed[n.Inputs[1+i]] {
				wanted[v.Name] = true
			}
		}
		grads, err := b.through(p, in, seeds, wanted)
		if err != nil {
			return err
		}
		for i, v := range in {
			g, err := b.grad(n.Inputs[1+i])
			if err != nil {
				return err
			}
			d := grads[v.Name]
			if g != nil && i < own {
				g = g[r*len(d):]
			}
			for k := range d {
				g[k] += d[k]
			}
		}
	}
	return nil
}

// wantedOf are the inputs of a turn that depend on what is needed: the values it
// reads from around it, what is walked, and states, which may come to depend on them
// in a later turn.
func wantedOf(t *graph.Turns, needed map[string]bool, n *graph.Node) map[string]bool {
	wanted := map[string]bool{}
	for _, name := range t.Captured {
		if needed[name] {
			wanted[name] = true
		}
	}
	for i := range t.Walked {
		if needed[n.Inputs[t.FirstInput+t.States+i]] {
			wanted[t.Params[t.FirstParam+t.States+i]] = true
		}
	}
	for i := range t.States {
		if needed[n.Inputs[t.FirstInput+i]] {
			wanted[t.Params[t.FirstParam+i]] = true
		}
	}
	for grows := true; grows; {
		grows = false
		depends := t.Program.Depends(wanted)
		for i := range t.States {
			param := t.Params[t.FirstParam+i]
			if depends[t.Program.Graph().Outputs[t.FirstOut+i]] && !wanted[param] {
				wanted[param], grows = true, true
			}
		}
	}
	return wanted
}

// seedTurn collects what arrives at the outputs of a turn: from the turn after it, and
// from the outputs that all turns make.
func (b *back[T]) seedTurn(t *graph.Turns, n *graph.Node, turn int, state [][]T, seeds map[string][]T) error {
	outputs := t.Program.Graph().Outputs
	for i, d := range state {
		if d != nil {
			seed(seeds, outputs[t.FirstOut+i], d)
		}
	}
	for i := range t.Stacked {
		if t.States+i >= len(n.Outputs) {
			break
		}
		name := n.Outputs[t.States+i]
		g := b.grads[name]
		if name == "" || g == nil {
			continue
		}
		places, err := t.Stacked[i].Places(b.run.Value(name), turn, len(t.Given))
		if err != nil {
			return err
		}
		part := g
		if places != nil {
			part = make([]T, len(places))
			for k, at := range places {
				part[k] = g[at]
			}
		}
		seed(seeds, outputs[t.FirstOut+t.States+i], part)
	}
	return nil
}

// collect adds a turn's gradients to those of the values that it read.
func (b *back[T]) collect(t *graph.Turns, n *graph.Node, turn int, grads map[string][]T) error {
	for _, name := range t.Captured {
		if err := b.add(name, grads[name], nil); err != nil {
			return err
		}
	}
	for i := range t.Walked {
		d := grads[t.Params[t.FirstParam+t.States+i]]
		if d == nil {
			continue
		}
		name := n.Inputs[t.FirstInput+t.States+i]
		places, err := t.Walked[i].Places(b.run.Value(name), turn, len(t.Given))
		if err != nil {
			return err
		}
		if err := b.add(name, d, places); err != nil {
			return err
		}
	}
	return nil
}
