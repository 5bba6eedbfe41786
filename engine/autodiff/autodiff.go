// Package autodiff differentiates programs of engine/graph in reverse mode. It
// owns the rule of each operator and the walk back from a target to the inputs.
//
// It runs nothing by itself (graph.Program.Run computes the values) and gives no
// meaning to a gradient (see explain/gradient).
//
// Rounding to 8 bits (QuantizeLinear) is seen straight through: as what it rounds,
// within its range. Its own derivative is zero nearly everywhere, and says nothing.
//
// Invariants: rows do not influence each other, so one walk back gives every
// row's own gradient; what cannot be differentiated on a path from the target to
// an input that was asked for is a *engine.NotDifferentiableError that names the
// node, the reason and what to use instead, never a zero. By what changes a value only by
// jumps (rounding, how far a range goes) it is zero, as it is nearly everywhere. Ids have no gradient; the vectors that they look up in a constant
// table have (Embeddings), and may be given in the place of those. The arithmetic is float64 where a float input or the target
// is, and float32 otherwise.
package autodiff

import (
	"context"
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

type float interface{ float32 | float64 }

// Gradient computes the target of every row, and its gradient with respect to
// the inputs (or inner float values) named in wrt. What in holds beyond the graph's
// inputs are inner values, taken as they are.
func Gradient(ctx context.Context, p *graph.Program, opt graph.Options, in engine.Values, target engine.Target, wrt []string) (*engine.Gradient, error) {
	return differentiate(ctx, p, opt, in, []term{{name: target.Name, index: target.Index}}, wrt)
}

// Weighted is Gradient of a sum: of the elements of each weighted value's row times the
// weights, which are as many as the value has elements, or as its rows have.
func Weighted(ctx context.Context, p *graph.Program, opt graph.Options, in, weights engine.Values, wrt []string) (*engine.Gradient, error) {
	if len(weights) == 0 {
		return nil, &engine.InputError{Reason: "no weights: nothing to differentiate"}
	}
	terms := make([]term, len(weights))
	for i := range weights {
		w, ok := weights[i].Tensor.Float64s()
		if !ok || len(w) == 0 {
			return nil, &engine.InputError{Input: weights[i].Name, Reason: "its weights are no numbers"}
		}
		terms[i] = term{name: weights[i].Name, weights: w}
	}
	return differentiate(ctx, p, opt, in, terms, wrt)
}

// term is a part of what is differentiated: an element of each row of a value, or where
// there are weights, the row weighted by them.
type term struct {
	name    string
	index   int
	weights []float64
}

func differentiate(ctx context.Context, p *graph.Program, opt graph.Options, in engine.Values, terms []term, wrt []string) (*engine.Gradient, error) {
	want := make([]string, 0, len(terms)+len(wrt))
	for i := range terms {
		if err := differentiable(p, terms[i].name); err != nil {
			return nil, err
		}
		want = append(want, terms[i].name)
	}
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = 1 << 30
	}
	opt.Keep = true
	var err error
	if opt.Given, err = innerValues(p, in); err != nil {
		return nil, err
	}
	run, err := p.Run(ctx, opt, in, append(want, wrt...))
	if err != nil {
		return nil, err
	}
	wide := false
	for _, name := range append(want, wrt...) {
		wide = wide || run.Value(name).DType() == engine.Float64
	}
	if wide {
		return gradient[float64](ctx, run, opt, terms, wrt)
	}
	return gradient[float32](ctx, run, opt, terms, wrt)
}

// innerValues are those of in that are no inputs, in the types that the program has them.
func innerValues(p *graph.Program, in engine.Values) (engine.Values, error) {
	var inner engine.Values
	for _, v := range in {
		if slices.ContainsFunc(p.Graph().Inputs, func(s engine.Spec) bool { return s.Name == v.Name }) {
			continue
		}
		if d, _ := p.Type(v.Name); d.IsFloat() && d != v.Tensor.DType() && v.Tensor.DType().IsFloat() {
			var err error
			if v.Tensor, err = graph.Cast(v.Tensor, d); err != nil {
				return nil, err
			}
		}
		inner = append(inner, v)
	}
	return inner, nil
}

// differentiable refuses what is no float value of the program.
func differentiable(p *graph.Program, name string) error {
	d, ok := p.Type(name)
	if !ok {
		return &engine.InputError{Reason: fmt.Sprintf("no value %q to differentiate", name)}
	}
	if d == engine.Invalid || d.IsFloat() {
		return nil
	}
	n := p.Producer(name)
	if n == nil {
		n = &graph.Node{Name: name, Op: "input"}
	}
	return noFloat(n)
}

// back is the state of one walk back.
type back[T float] struct {
	ctx context.Context //nolint:containedctx // lives for one walk
	run *graph.Run
	// grads holds d target / d value by name, with the value's shape.
	grads map[string][]T
	// needed marks the values on a path from an input asked for.
	needed map[string]bool
	// rows is how many the target has.
	rows        int
	live, limit int64
}

func gradient[T float](ctx context.Context, run *graph.Run, opt graph.Options, terms []term, wrt []string) (*engine.Gradient, error) {
	b := &back[T]{ctx: ctx, run: run, grads: map[string][]T{}, needed: map[string]bool{}, live: run.Live, limit: opt.MaxBytes}
	nodes := run.Nodes()
	for _, name := range wrt {
		if t := run.Value(name); !t.DType().IsFloat() {
			return nil, &engine.InputError{Input: name, Reason: fmt.Sprintf("has type %s, which has no gradient (ids have one at the vectors that they look up)", t.DType())}
		}
		b.needed[name] = true
	}
	var blocked *graph.Node
	for _, n := range nodes {
		for _, i := range n.Inputs {
			if i == "" || !b.needed[i] {
				continue
			}
			blocked = b.reach(n, blocked)
		}
	}
	g := &engine.Gradient{}
	for i := range terms {
		if blocked != nil && !b.needed[terms[i].name] {
			return nil, noFloat(blocked)
		}
		if err := b.seed(run.Value(terms[i].name), &terms[i], g); err != nil {
			return nil, err
		}
	}
	if err := b.walk(nodes); err != nil {
		return nil, err
	}
	for _, name := range wrt {
		t, err := b.result(name)
		if err != nil {
			return nil, err
		}
		g.Inputs = append(g.Inputs, engine.Named{Name: name, Tensor: t})
	}
	return g, nil
}

// reach marks n's outputs as depending on an input asked for. What is no float (a
// condition, an index, a shape) stops there: which branch or element is taken has no
// derivative, as at a ReLU's corner. The first node that stops so is returned, to be
// named where nothing else goes through.
func (b *back[T]) reach(n *graph.Node, blocked *graph.Node) *graph.Node {
	for _, o := range n.Outputs {
		if o == "" {
			continue
		}
		if _, ok := graph.Floats(b.run.Value(o)); !ok && (b.run.Value(o) == nil || n.Op != "QuantizeLinear") {
			if blocked == nil {
				blocked = n
			}
			continue
		}
		b.needed[o] = true
	}
	return blocked
}

// seed adds a term to the values of the rows, and to the gradient of what it is of: 1 at
// an element of every row, or the weights.
func (b *back[T]) seed(t *engine.Tensor, k *term, g *engine.Gradient) error {
	size := t.RowLen()
	if k.index < 0 || k.index >= size {
		return &engine.InputError{Reason: fmt.Sprintf("element %d of value %q, whose rows have %d", k.index, k.name, size)}
	}
	v, ok := t.Float64s()
	if !ok || !t.DType().IsFloat() {
		return &engine.InputError{Reason: fmt.Sprintf("value %q of type %s has no gradient", k.name, t.DType())}
	}
	if n := len(k.weights); n > 0 && n != size && n != len(v) {
		return &engine.InputError{Reason: fmt.Sprintf("%d weights of value %q, which has %d elements in rows of %d", n, k.name, len(v), size)}
	}
	rows := len(v) / size
	if g.Value == nil {
		g.Value, b.rows = make([]float64, rows), rows
	}
	if len(g.Value) != rows {
		return &engine.InputError{Reason: fmt.Sprintf("value %q has %d rows, those before it %d", k.name, rows, len(g.Value))}
	}
	seed := b.grads[k.name]
	if seed == nil {
		var err error
		if seed, err = b.alloc(len(v)); err != nil {
			return err
		}
		b.grads[k.name] = seed
	}
	if len(k.weights) == 0 {
		for r := range rows {
			at := r*size + k.index
			g.Value[r] += v[at]
			seed[at]++
		}
		return nil
	}
	for i, x := range v {
		w := k.weights[i%len(k.weights)]
		g.Value[i/size] += w * x
		seed[i] += T(w)
	}
	return nil
}

func (b *back[T]) alloc(n int) ([]T, error) {
	b.live += int64(n) * 8
	if b.live > b.limit {
		return nil, fmt.Errorf("allocate a gradient of %d elements: %w", n, engine.ErrTooLarge)
	}
	return make([]T, n), nil
}

// grad returns the place where the gradient of a value is added up, or nil when
// nobody needs it.
func (b *back[T]) grad(name string) ([]T, error) {
	if name == "" || !b.needed[name] {
		return nil, nil
	}
	if g, ok := b.grads[name]; ok {
		return g, nil
	}
	t := b.run.Value(name)
	n, ok := graph.Floats(t)
	if !ok {
		n = t.Len()
	}
	g, err := b.alloc(n)
	if err != nil {
		return nil, err
	}
	b.grads[name] = g
	return g, nil
}

// value returns a value's elements as T.
func (b *back[T]) value(name string) []T {
	t := b.run.Value(name)
	if d := engine.Data[T](t); d != nil {
		return d
	}
	v, _ := t.Float64s()
	out := make([]T, len(v))
	for i, e := range v {
		out[i] = T(e)
	}
	return out
}

func (b *back[T]) shape(name string) []int { return b.run.Value(name).Shape() }

// node adds to the gradients of a node's inputs.
func (b *back[T]) node(n *graph.Node) error {
	reached, needs := false, false
	for _, o := range n.Outputs {
		reached = reached || o != "" && b.grads[o] != nil
	}
	for _, i := range n.Inputs {
		needs = needs || i != "" && b.needed[i]
	}
	if !reached || !needs {
		return nil
	}
	rule := ruleOf[T](n)
	if rule == nil {
		return notDifferentiable(n, "")
	}
	for i, reason := range refusedInputs[n.Op] {
		if i < len(n.Inputs) && b.needed[n.Inputs[i]] {
			return notDifferentiable(n, reason)
		}
	}
	if err := rule(b, n); err != nil {
		return fmt.Errorf("differentiate node %q (%s): %w", n.Label(), n.Title(), err)
	}
	for _, o := range n.Outputs {
		if g := b.grads[o]; g != nil && !b.keep(o) {
			b.live -= int64(len(g)) * 8
			delete(b.grads, o)
		}
	}
	return nil
}

// keep reports whether a gradient may still be asked for: inner values of wrt
// are rare, so every value that is needed by name stays.
func (b *back[T]) keep(name string) bool { return b.needed[name] }

func (b *back[T]) result(name string) (*engine.Tensor, error) {
	t := b.run.Value(name)
	g := b.grads[name]
	if g == nil {
		g = make([]T, t.Len())
	}
	if t.DType() == engine.Float64 {
		out := make([]float64, len(g))
		for i, v := range g {
			out[i] = float64(v)
		}
		return engine.Of(out, t.Shape()...)
	}
	out := make([]float32, len(g))
	for i, v := range g {
		out[i] = float32(v)
	}
	return engine.Of(out, t.Shape()...)
}

// Logit walks back from out over what keeps its element's place, and returns the
// value before the last softmax or sigmoid; out itself where there is none.
func Logit(p *graph.Program, out engine.Target) engine.Target {
	name := out.Name
	for {
		n := p.Producer(name)
		if n == nil {
			return out
		}
		switch n.Op {
		case "Softmax", "LogSoftmax", "Sigmoid":
			return engine.Target{Name: n.Inputs[0], Index: out.Index}
		case graph.OpPostTransform, graph.OpClassifierOutput:
			kind := n.Attrs["post_transform"].String
			if kind != "SOFTMAX" && kind != "LOGISTIC" || n.Attrs["second_class"].String != "" || name != n.Outputs[len(n.Outputs)-1] {
				return out
			}
			return engine.Target{Name: n.Inputs[0], Index: out.Index}
		case "Identity", "Cast", "Dropout", "ZipMap", "Normalizer":
			name = n.Inputs[0]
		default:
			return out
		}
	}
}
