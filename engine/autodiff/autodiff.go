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
// node, never a zero. The arithmetic is float64 where a float input or the target
// is, and float32 otherwise.
package autodiff

import (
	"context"
	"fmt"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

type float interface{ float32 | float64 }

// Gradient computes the target of every row, and its gradient with respect to
// the inputs (or inner float values) named in wrt.
func Gradient(ctx context.Context, p *graph.Program, opt graph.Options, in engine.Values, target engine.Target, wrt []string) (*engine.Gradient, error) {
	d, ok := p.Type(target.Name)
	if !ok {
		return nil, &engine.InputError{Reason: fmt.Sprintf("no value %q to differentiate", target.Name)}
	}
	if d != engine.Invalid && !d.IsFloat() {
		n := p.Producer(target.Name)
		if n == nil {
			n = &graph.Node{Name: target.Name, Op: "input"}
		}
		return nil, notDifferentiable(n)
	}
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = 1 << 30
	}
	opt.Keep = true
	run, err := p.Run(ctx, opt, in, append([]string{target.Name}, wrt...))
	if err != nil {
		return nil, err
	}
	wide := run.Value(target.Name).DType() == engine.Float64
	for _, name := range wrt {
		wide = wide || run.Value(name).DType() == engine.Float64
	}
	if wide {
		return gradient[float64](ctx, p, run, opt, target, wrt)
	}
	return gradient[float32](ctx, p, run, opt, target, wrt)
}

// back is the state of one walk back.
type back[T float] struct {
	ctx context.Context //nolint:containedctx // lives for one walk
	run *graph.Run
	// grads holds d target / d value by name, with the value's shape.
	grads map[string][]T
	// needed marks the values on a path from an input asked for.
	needed      map[string]bool
	live, limit int64
}

func gradient[T float](ctx context.Context, p *graph.Program, run *graph.Run, opt graph.Options, target engine.Target, wrt []string) (*engine.Gradient, error) {
	b := &back[T]{ctx: ctx, run: run, grads: map[string][]T{}, needed: map[string]bool{}, live: run.Live, limit: opt.MaxBytes}
	nodes := run.Nodes()
	for _, name := range wrt {
		if t := run.Value(name); !t.DType().IsFloat() {
			return nil, &engine.InputError{Input: name, Reason: fmt.Sprintf("has type %s, which has no gradient", t.DType())}
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
	if blocked != nil && !b.needed[target.Name] {
		return nil, notDifferentiable(blocked)
	}
	g := &engine.Gradient{}
	if err := b.seed(run.Value(target.Name), target, g); err != nil {
		return nil, err
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
		if t := b.run.Value(o); t == nil || !t.DType().IsFloat() && n.Op != "QuantizeLinear" {
			if blocked == nil {
				blocked = n
			}
			continue
		}
		b.needed[o] = true
	}
	return blocked
}

// seed sets the target's own gradient: 1 at element Index of every row.
func (b *back[T]) seed(t *engine.Tensor, target engine.Target, g *engine.Gradient) error {
	size := t.RowLen()
	if target.Index < 0 || target.Index >= size {
		return &engine.InputError{Reason: fmt.Sprintf("element %d of value %q, whose rows have %d", target.Index, target.Name, size)}
	}
	v, ok := t.Float64s()
	if !ok || !t.DType().IsFloat() {
		return &engine.InputError{Reason: fmt.Sprintf("value %q of type %s has no gradient", target.Name, t.DType())}
	}
	seed, err := b.alloc(len(v))
	if err != nil {
		return err
	}
	for i := target.Index; i < len(v); i += size {
		g.Value = append(g.Value, v[i])
		seed[i] = 1
	}
	b.grads[target.Name] = seed
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
	g, err := b.alloc(b.run.Value(name).Len())
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
		return notDifferentiable(n)
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

func notDifferentiable(n *graph.Node) error {
	instead := "a method that only calls the model, of which there is none here yet (of a quantised network the one that it was made of can be explained)"
	if n.Op == graph.OpTreeScores {
		instead = "tree_shap with a background"
	}
	return &engine.NotDifferentiableError{Node: n.Label(), Op: n.Op, Instead: instead}
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
