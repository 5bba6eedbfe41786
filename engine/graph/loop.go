package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// loop is a Loop node: the number of turns at most, a condition, the values carried
// from turn to turn; then what each turn adds to the results.
type loop struct {
	body    *inner
	carried int
	shapes  [2][]int
	// empty are the results of no turn, nil where their shapes are not known.
	empty []*engine.Tensor
}

func buildLoop(b *builder) (Kernel, error) {
	g, err := b.attrs.graph("body")
	if err != nil {
		return nil, err
	}
	given := len(b.node.Inputs) - b.node.Captured
	l := &loop{carried: given - 2, shapes: paramShapes(g)}
	if len(g.Outputs) < 1+l.carried || len(b.node.Outputs) > len(g.Outputs)-1 {
		return nil, b.node.corrupt("carries %d values through a body of %d outputs to %d", l.carried, len(g.Outputs), len(b.node.Outputs))
	}
	types := append([]engine.DType{engine.Int64, engine.Bool}, b.inputs[2:given]...)
	if l.body, err = b.compileInner(g, types); err != nil {
		return nil, err
	}
	b.result = l.body.outputTypes()[1:]
	if l.empty, err = emptyResults(g, l.body.outputTypes(), 1+l.carried); err != nil {
		return nil, err
	}
	b.plain = !slices.ContainsFunc(slices.Concat(b.inputs, l.body.outputTypes()), func(d engine.DType) bool { return d == engine.Invalid || d.IsList() })
	return l.run, nil
}

// emptyResults are the results of no turn for the outputs of g from the given one on. What
// the file does not tell of their shapes is none, as in onnxruntime: one without any is [0].
func emptyResults(g *Graph, types []engine.DType, from int) ([]*engine.Tensor, error) {
	var list []*engine.Tensor
	for i := from; i < len(g.Outputs); i++ {
		var spec engine.Spec
		if i < len(g.OutputSpecs) {
			spec = g.OutputSpecs[i]
		}
		d := types[i]
		if d == engine.Invalid {
			d = spec.DType
		}
		shape := []int{0}
		for _, n := range spec.Shape {
			shape = append(shape, max(n, 0))
		}
		t, err := engine.New(d, shape...)
		if err != nil {
			t = nil
		}
		list = append(list, t)
	}
	return list, nil
}

// paramShapes are those of the turn and the condition that a loop's body is given: scalars,
// or vectors of one element where the body declares them so, as TensorFlow's converter
// does and onnxruntime takes it.
func paramShapes(body *Graph) (shapes [2][]int) {
	for i := range min(len(body.Inputs), len(shapes)) {
		if len(body.Inputs[i].Shape) == 1 {
			shapes[i] = []int{1}
		}
	}
	return shapes
}

// turns reads the bound of a loop and whether it begins.
func turns(x *Exec, in []*engine.Tensor) (most int, begins bool, err error) {
	most, begins = math.MaxInt, true
	if t := in[0]; t != nil {
		v, err := x.intsOf(t)
		if err != nil || len(v) != 1 {
			return 0, false, fmt.Errorf("a number of turns of %s %v", t.DType(), t.Shape())
		}
		most = v[0]
	}
	if t := in[1]; t != nil {
		if begins, err = condition(t); err != nil {
			return 0, false, err
		}
	}
	return most, begins, nil
}

func condition(t *engine.Tensor) (bool, error) {
	v := engine.Data[bool](t)
	if len(v) != 1 {
		return false, fmt.Errorf("a condition of %s %v", t.DType(), t.Shape())
	}
	return v[0], nil
}

func (l *loop) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	most, goes, err := turns(x, in)
	if err != nil {
		return nil, err
	}
	state, params := x.list(l.carried), x.list(2+l.carried)
	copy(state, in[2:])
	pieces := x.lists(len(l.empty))
	base, kept := x.live, int64(0)
	for turn := 0; turn < most && goes; turn++ {
		if err := loopParams(x, l.shapes, params, pieces, turn, goes, state); err != nil {
			return nil, err
		}
		out, err := l.body.run(x, params, in)
		if err != nil {
			return nil, err
		}
		if goes, err = condition(out[0]); err != nil {
			return nil, err
		}
		copy(state, out[1:])
		for i, t := range out[1+l.carried:] {
			kept += tensorBytes(t)
			pieces[i] = append(pieces[i], t)
			x.memory.pin(t, 1)
		}
		x.memory.turned(params[2:], state)
		held := kept
		for _, t := range state {
			held += tensorBytes(t)
		}
		if x.live = base + held; x.live > x.limit {
			return nil, fmt.Errorf("values carried by turn %d hold %d bytes: %w", turn, held, engine.ErrTooLarge)
		}
	}
	results := x.list(l.carried + len(pieces))
	copy(results, state)
	for i, list := range pieces {
		t := l.empty[i]
		if len(list) > 0 || t == nil {
			if t, err = stack(x, list, 0); err != nil {
				return nil, err
			}
		}
		results[l.carried+i] = t
		for _, piece := range list {
			x.memory.pin(piece, -1)
		}
	}
	return results, nil
}

// loopParams makes params what the body of a loop is given. The turn and the condition of
// the turn before are written over where nothing that it made shares their memory.
func loopParams(x *Exec, shapes [2][]int, params []*engine.Tensor, pieces [][]*engine.Tensor, turn int, goes bool, state []*engine.Tensor) error {
	for i, d := range [...]engine.DType{engine.Int64, engine.Bool} {
		t := params[i]
		shares := func(o *engine.Tensor) bool { return SameMemory(o, t) }
		if t != nil && !slices.ContainsFunc(state, shares) && !slices.ContainsFunc(pieces, func(list []*engine.Tensor) bool { return shares(list[len(list)-1]) }) {
			continue
		}
		live := x.live
		t, err := x.New(d, shapes[i]...)
		if err != nil {
			return err
		}
		x.live = live // two elements
		params[i] = t
	}
	engine.Data[int64](params[0])[0], engine.Data[bool](params[1])[0] = int64(turn), goes
	copy(params[2:], state)
	return nil
}

// rowOf copies out row r of t.
func rowOf(x *Exec, t *engine.Tensor, r int) (*engine.Tensor, error) {
	live := x.live
	out, err := x.make(t.DType(), t.Shape()[1:], false)
	if err != nil {
		return nil, err
	}
	x.live = live // gone before the next row is taken
	moveRun(out, t, 0, r*out.Len(), out.Len())
	return out, nil
}

// buildScan8 is Scan of operator set 8: each row of a batch is walked alone.
func buildScan8(b *builder) (Kernel, error) {
	if b.node.Inputs[0] != "" {
		return nil, b.node.unsupported("sequence_lens")
	}
	g, err := b.attrs.graph("body")
	if err != nil {
		return nil, err
	}
	given := len(b.node.Inputs) - b.node.Captured - 1
	s := &scan{scans: b.attrs.int("num_scan_inputs", 0), inBack: b.attrs.ints("directions")}
	s.states = given - s.scans
	if s.scans < 1 || s.states < 0 || len(g.Outputs) < s.states || len(b.node.Outputs) > len(g.Outputs) || len(s.inBack) != 0 && len(s.inBack) != s.scans {
		return nil, b.node.corrupt("%d inputs of which %d are walked, a body of %d outputs", given, s.scans, len(g.Outputs))
	}
	if s.body, err = b.compileInner(g, b.inputs[1:1+given]); err != nil {
		return nil, err
	}
	b.result, b.plain = s.body.outputTypes(), true
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		rows := 0
		room := x.lists(2*len(g.Outputs) - s.states)
		lists, pieces := room[:len(g.Outputs)], room[len(g.Outputs):]
		row := x.list(len(in))
		copy(row, in)
		for i, t := range in[1 : 1+given] {
			if len(t.Shape()) == 0 || i > 0 && t.Shape()[0] != rows {
				return nil, fmt.Errorf("a batch of shape %v", t.Shape())
			}
			rows = t.Shape()[0]
		}
		for r := range rows {
			for i, t := range in[1 : 1+given] {
				var err error
				if row[1+i], err = rowOf(x, t, r); err != nil {
					return nil, err
				}
			}
			for i := range pieces {
				pieces[i] = pieces[i][:0]
			}
			out, err := s.walk(x, row[1:1+given], row, pieces)
			if err != nil {
				return nil, err
			}
			for i, t := range out {
				lists[i] = append(lists[i], t)
			}
		}
		out := x.list(len(lists))
		for i, l := range lists {
			var err error
			if out[i], err = stack(x, l, 0); err != nil {
				return nil, err
			}
		}
		return out, nil
	}, nil
}

func init() {
	register(DomainONNX, map[string]opDef{
		"Loop": {since: 1, minIn: 2, maxIn: 1 << 16, maxOut: 1 << 16, lists: true, optional: 2, result: fromBuilder, build: buildLoop},
		"Scan": {since: 8, until: 8, minIn: 2, maxIn: 1 << 16, maxOut: 1 << 16, optional: 1, result: fromBuilder, build: buildScan8},
	})
}
