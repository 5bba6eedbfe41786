package graph

import (
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// Turns is what an If, Loop, Scan or SequenceMap node ran: its inner graph, and what that
// was given in each turn. A gradient walks them back.
type Turns struct {
	Program *Program
	// Params are the names of the inner graph's own inputs, Captured those of the
	// values it reads from around it, under the names they have there.
	Params, Captured []string
	// Given is what each turn was given.
	Given []engine.Values
	// States is how many values go from turn to turn: params and outputs from
	// FirstParam and FirstOut on, and the node's inputs from FirstInput on.
	States, FirstParam, FirstOut, FirstInput int
	// Walked tells of a Scan's other inputs and of a SequenceMap's, Stacked of the outputs
	// made of all turns, where a turn's part of them is.
	Walked, Stacked []Walk
}

// Walk is how one value is walked: a tensor along an axis, perhaps from its end, and a
// sequence value by value; or each turn has the whole.
type Walk struct {
	Axis        int
	Back, Whole bool
	starts      []int // where a sequence's values begin, and where the last one ends
}

// Places returns the offsets of turn t's part of a walked value, nil where that is the whole.
func (w *Walk) Places(v *engine.Tensor, t, turns int) ([]int, error) {
	switch {
	case w.Whole:
		return nil, nil
	case v.DType() == engine.Sequence:
		return w.item(v, t, turns)
	}
	shape := v.Shape()
	a, err := normAxis(w.Axis, len(shape))
	if err != nil || shape[a] != turns {
		return nil, fmt.Errorf("%d turns along axis %d of %v", turns, w.Axis, shape)
	}
	if w.Back {
		t = turns - 1 - t
	}
	outer, inner := split(shape, a)
	out := make([]int, 0, outer*inner)
	for o := range outer {
		for i := range inner {
			out = append(out, (o*turns+t)*inner+i)
		}
	}
	return out, nil
}

// item returns the offsets of the elements of value t of a sequence of so many.
func (w *Walk) item(v *engine.Tensor, t, turns int) ([]int, error) {
	if len(v.Items()) != turns {
		return nil, fmt.Errorf("%d turns over a sequence of %d", turns, len(v.Items()))
	}
	if w.starts == nil {
		w.starts = make([]int, 1, turns+1)
		for i, item := range v.Items() {
			w.starts = append(w.starts, w.starts[i]+item.Len())
		}
	}
	out := make([]int, w.starts[t+1]-w.starts[t])
	for i := range out {
		out[i] = w.starts[t] + i
	}
	return out, nil
}

// TurnsOf runs a node's inner graph again within limit bytes and keeps what each turn
// was given. ok is false where the node is none of those it knows.
func TurnsOf(x *Exec, n *Node, in []*engine.Tensor) (t *Turns, ok bool, err error) {
	b := &builder{node: n, attrs: &attrReader{node: n, read: map[string]bool{}}, constants: make([]*engine.Tensor, len(in))}
	for _, v := range in {
		d := engine.Invalid
		if v != nil {
			d = v.DType()
		}
		b.inputs = append(b.inputs, d)
	}
	given := len(n.Inputs) - n.Captured
	switch {
	case n.Domain != DomainONNX:
		return nil, false, nil
	case n.Op == "If":
		t, err = b.branchTurns(in)
	case n.Op == "Loop":
		t, err = b.loopTurns(x, in, given)
	case n.Op == "Scan" && n.Version >= 9:
		t, err = b.scanTurns(x, in, given)
	case n.Op == "SequenceMap":
		t, err = b.mapTurns(x, in, given)
	default:
		return nil, false, nil
	}
	return t, true, err
}

// HasTurns reports whether TurnsOf knows a node's operator.
func HasTurns(n *Node) bool {
	return n.Domain == DomainONNX && (n.Op == "If" || n.Op == "Loop" || n.Op == "SequenceMap" || n.Op == "Scan" && n.Version >= 9)
}

// IsScan8 reports whether a node is a Scan of operator set 8, whose gradient is that of
// ScanRows.
func IsScan8(n *Node) bool { return n.Domain == DomainONNX && n.Op == "Scan" && n.Version == 8 }

// ScanRows returns what a Scan node of operator set 8 runs for each row of its batch: a
// Scan of a later set, with the same outputs, and what each row gives it, in the order of the
// node's inputs from the second on.
func ScanRows(x *Exec, n *Node, in []*engine.Tensor) (*Program, []engine.Values, error) {
	row := &Node{Name: n.Name, Op: "Scan", Version: bodyVersion, Outputs: n.Outputs, Captured: n.Captured, Attrs: Attrs{"body": n.Attrs["body"], "num_scan_inputs": n.Attrs["num_scan_inputs"]}}
	if d, ok := n.Attrs["directions"]; ok {
		row.Attrs["scan_input_directions"] = d
	}
	own := len(n.Inputs) - 1 - n.Captured
	g := &Graph{Nodes: []*Node{row}, Constants: map[string]*engine.Tensor{}}
	for _, name := range n.Outputs {
		if name != "" {
			g.Outputs = append(g.Outputs, name)
		}
	}
	rows := make([]engine.Values, in[1].Rows())
	for i, t := range in[1:] {
		name := n.Inputs[1+i]
		if i < own {
			name = bodyInput(i) // the same value may be walked twice
		}
		row.Inputs = append(row.Inputs, name)
		g.Inputs = append(g.Inputs, engine.Spec{Name: name, DType: t.DType()})
		for r := range rows {
			part := t
			if i < own {
				var err error
				if part, err = rowOf(x, t, r); err != nil {
					return nil, nil, err
				}
			}
			rows[r] = append(rows[r], engine.Named{Name: name, Tensor: part})
		}
	}
	p, err := compileIn(g, nil, packs{})
	return p, rows, err
}

// NewExec returns what a kernel that is run apart from a program may use.
func NewExec(limit int64) *Exec { return &Exec{limit: limit, inner: new(int)} }

func (g *inner) turns() *Turns {
	return &Turns{Program: g.program, Params: g.params, Captured: g.captured}
}

// values are what the inner graph is given for these params.
func (g *inner) values(params, outer []*engine.Tensor) engine.Values {
	return g.appendValues(make(engine.Values, 0, len(g.params)+len(g.captured)), params, outer)
}

func (g *inner) appendValues(in engine.Values, params, outer []*engine.Tensor) engine.Values {
	for i, name := range g.params {
		in = append(in, engine.Named{Name: name, Tensor: params[i]})
	}
	for i, name := range g.captured {
		in = append(in, engine.Named{Name: name, Tensor: outer[g.at[i]]})
	}
	return in
}

func (b *builder) branchTurns(in []*engine.Tensor) (*Turns, error) {
	taken, err := condition(in[0])
	if err != nil {
		return nil, err
	}
	name := "else_branch"
	if taken {
		name = "then_branch"
	}
	g, err := b.attrs.graph(name)
	if err != nil {
		return nil, err
	}
	body, err := b.compileInner(g, nil)
	if err != nil {
		return nil, err
	}
	t := body.turns()
	t.Given = []engine.Values{body.values(nil, in)}
	t.Stacked = slices.Repeat([]Walk{{Whole: true}}, len(g.Outputs))
	return t, nil
}

func (b *builder) loopTurns(x *Exec, in []*engine.Tensor, given int) (*Turns, error) {
	g, err := b.attrs.graph("body")
	if err != nil {
		return nil, err
	}
	body, err := b.compileInner(g, append([]engine.DType{engine.Int64, engine.Bool}, b.inputs[2:given]...))
	if err != nil {
		return nil, err
	}
	t := body.turns()
	t.States, t.FirstParam, t.FirstOut, t.FirstInput = given-2, 2, 1, 2
	t.Stacked = make([]Walk, len(g.Outputs)-1-t.States)
	most, goes, err := turns(x, in)
	if err != nil {
		return nil, err
	}
	state := slices.Clone(in[2:given])
	for turn := 0; turn < most && goes; turn++ {
		params := make([]*engine.Tensor, 2+len(state))
		if err := loopParams(x, paramShapes(g), params, nil, turn, goes, state); err != nil {
			return nil, err
		}
		out, err := t.turn(x, body, params, in)
		if err != nil {
			return nil, err
		}
		if goes, err = condition(out[0]); err != nil {
			return nil, err
		}
		copy(state, out[1:])
	}
	return t, nil
}

// turn keeps and runs one turn.
func (t *Turns) turn(x *Exec, body *inner, params, in []*engine.Tensor) ([]*engine.Tensor, error) {
	for _, p := range params {
		if x.live += tensorBytes(p); x.live > x.limit {
			return nil, fmt.Errorf("keep %d turns: %w", len(t.Given), engine.ErrTooLarge)
		}
	}
	t.Given = append(t.Given, body.values(params, in))
	return body.run(x, params, in)
}

func (b *builder) scanTurns(x *Exec, in []*engine.Tensor, given int) (*Turns, error) {
	s, g, err := readScan(b)
	if err != nil {
		return nil, err
	}
	if s.body, err = b.compileInner(g, b.inputs[:given]); err != nil {
		return nil, err
	}
	t := s.body.turns()
	t.States = s.states
	for i := range s.scans {
		t.Walked = append(t.Walked, Walk{Axis: at64(s.inAxes, i), Back: at64(s.inBack, i) == 1})
	}
	for i := range len(g.Outputs) - s.states {
		t.Stacked = append(t.Stacked, Walk{Axis: at64(s.outAxes, i), Back: at64(s.outBack, i) == 1})
	}
	w, err := s.walking(x, in)
	if err != nil {
		return nil, err
	}
	params := slices.Clone(in[:given])
	for step := range w.length {
		if err := s.elements(x, params, in, w, step); err != nil {
			return nil, err
		}
		out, err := t.turn(x, s.body, slices.Clone(params), in)
		if err != nil {
			return nil, err
		}
		copy(params, out[:s.states])
	}
	return t, nil
}

// namedWords are those of 64 bits that a value with its name takes in a list.
const namedWords = 3

// mapTurns runs nothing: what a turn is given hangs on no other.
func (b *builder) mapTurns(x *Exec, in []*engine.Tensor, given int) (*Turns, error) {
	body, err := b.mapBody(given)
	if err != nil {
		return nil, err
	}
	t := body.turns()
	t.Stacked = make([]Walk, len(body.program.graph.Outputs))
	for _, v := range in[:given] {
		t.Walked = append(t.Walked, Walk{Whole: v.DType() != engine.Sequence})
	}
	params, items := slices.Clone(in[:given]), len(in[0].Items())
	if err := x.reserve(engine.Int64, namedWords*items*(given+len(t.Captured))); err != nil {
		return nil, fmt.Errorf("keep %d turns: %w", items, err)
	}
	for i := range items {
		if err := mapParams(params, in, i, items); err != nil {
			return nil, err
		}
		t.Given = append(t.Given, body.values(params, in))
	}
	return t, nil
}

// Depends returns which of a program's values follow from those named.
func (p *Program) Depends(from map[string]bool) map[string]bool {
	known := make(map[string]bool, len(from))
	for name := range from {
		known[name] = true
	}
	for i := range p.steps {
		n := p.steps[i].node
		if slices.ContainsFunc(n.Inputs, func(name string) bool { return name != "" && known[name] }) {
			for _, out := range n.Outputs {
				known[out] = true
			}
		}
	}
	return known
}
