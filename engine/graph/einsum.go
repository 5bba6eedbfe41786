package graph

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/engine"
)

// Einsum is a parsed equation over operands of given shapes: every label is a
// dimension, summed where the output does not have it.
type Einsum struct {
	// Size is the extent of each label, the output's labels first; Out is how
	// many those are, and Shape their extents.
	Size  []int
	Out   int
	Shape []int
	// Strides is by operand and label: how far a step along the label goes, 0
	// where the operand does not have it.
	Strides [][]int
	// products is how it is one of matrices, nil where its terms are visited.
	products *contraction
}

// maxEinsum bounds the elements of what an equation makes, and the terms of one that is
// computed by visiting each.
const maxEinsum = 1 << 32

// mostOperands is how many an equation has.
const mostOperands = 16

// NewEinsum parses the equation of an Einsum node for operands of these shapes.
func NewEinsum(n *Node, shapes [][]int) (*Einsum, error) {
	equation := strings.ReplaceAll(n.Attrs["equation"].String, " ", "")
	left, right, explicit := strings.Cut(equation, "->")
	if strings.Count(left, ",")+1 != len(shapes) {
		return nil, n.corrupt("an equation of %d operands for %d", strings.Count(left, ",")+1, len(shapes))
	}
	left, right, err := ellipses(n, left, right, explicit, shapes)
	if err != nil {
		return nil, err
	}
	terms := strings.Split(left, ",")
	size := map[rune]int{}
	for i, term := range terms {
		if len([]rune(term)) != len(shapes[i]) {
			return nil, fmt.Errorf("operand %d of shape %v has labels %q", i, shapes[i], term)
		}
		for k, label := range []rune(term) {
			d, ok := size[label]
			if ok && d != shapes[i][k] && (label < ellipsisLabel || d != 1 && shapes[i][k] != 1) {
				return nil, fmt.Errorf("label %q is %d and %d", label, d, shapes[i][k])
			}
			size[label] = max(d, shapes[i][k])
			if ok && d == 1 || ok && shapes[i][k] == 1 {
				size[label] = d * shapes[i][k]
			}
		}
	}
	labels := []rune(right)
	for i, l := range labels {
		if _, ok := size[l]; !ok || slices.Contains(labels[:i], l) {
			return nil, n.corrupt("the output's labels %q", right)
		}
	}
	e := &Einsum{Out: len(labels)}
	for _, l := range left {
		if l != ',' && !slices.Contains(labels, l) {
			labels = append(labels, l)
		}
	}
	for _, l := range labels {
		e.Size = append(e.Size, size[l])
	}
	e.Shape = e.Size[:e.Out:e.Out]
	if err := e.bounded(); err != nil {
		return nil, fmt.Errorf("equation %q: %w", equation, err)
	}
	for i, term := range terms {
		strides, own := make([]int, len(labels)), rowMajor(shapes[i])
		for k, label := range []rune(term) {
			if shapes[i][k] == 1 && label >= ellipsisLabel {
				continue // what an ellipsis stands for is broadcast
			}
			strides[slices.Index(labels, label)] += own[k] // a diagonal where it is repeated
		}
		e.Strides = append(e.Strides, strides)
	}
	e.products = newContraction(e)
	return e, nil
}

// ellipsisLabel is the first of the labels that stand for the dimensions of an
// ellipsis, the last dimension having the first.
const ellipsisLabel = 0xe000

// ellipses writes labels for every ellipsis, and the output where it is implicit.
func ellipses(n *Node, left, right string, explicit bool, shapes [][]int) (string, string, error) {
	terms := strings.Split(left, ",")
	widest := 0
	labels := func(count int) string {
		var out []rune
		for k := count - 1; k >= 0; k-- {
			out = append(out, ellipsisLabel+rune(k))
		}
		return string(out)
	}
	for i, term := range terms {
		named := len([]rune(strings.Replace(term, "...", "", 1)))
		if strings.Contains(term, "...") {
			if named > len(shapes[i]) {
				return "", "", fmt.Errorf("operand %d of shape %v has labels %q", i, shapes[i], term)
			}
			widest = max(widest, len(shapes[i])-named)
			terms[i] = strings.Replace(term, "...", labels(len(shapes[i])-named), 1)
		}
	}
	if !explicit {
		right = implicitOutput(strings.ReplaceAll(left, "...", ""))
		if strings.Contains(left, "...") {
			right = "..." + right
		}
	}
	left, right = strings.Join(terms, ","), strings.Replace(right, "...", labels(widest), 1)
	if strings.Contains(left+right, ".") {
		return "", "", n.corrupt("an equation with more than one ellipsis a term")
	}
	return left, right, nil
}

// implicitOutput is the labels that occur once, in order.
func implicitOutput(left string) string {
	var once []rune
	for _, l := range left {
		if l != ',' && strings.Count(left, string(l)) == 1 {
			once = append(once, l)
		}
	}
	slices.Sort(once)
	return string(once)
}

// Each calls f with the output's offset and the operands' offsets of every term, until it
// says false. The slice it passes is its own.
func (e *Einsum) Each(f func(out int, at []int) bool) {
	e.each(make([]int, len(e.Size)), make([]int, len(e.Strides)), f)
}

// each is Each with lists of zeros, of as many as there are labels and operands.
func (e *Einsum) each(index, at []int, f func(out int, at []int) bool) {
	total := volume(e.Size)
	if total == 0 {
		return
	}
	summed := volume(e.Size[e.Out:])
	for i := range total {
		if !f(i/summed, at) {
			return
		}
		for k := len(index) - 1; k >= 0; k-- {
			index[k]++
			for o := range at {
				at[o] += e.Strides[o][k]
			}
			if index[k] < e.Size[k] {
				break
			}
			for o := range at {
				at[o] -= e.Strides[o][k] * e.Size[k]
			}
			index[k] = 0
		}
	}
}

// ShapesOf returns the shapes of tensors.
func ShapesOf(in []*engine.Tensor) [][]int {
	var shapes [][]int
	for _, t := range in {
		shapes = append(shapes, t.Shape())
	}
	return shapes
}

func buildEinsum(b *builder) (Kernel, error) {
	n := b.node
	b.attrs.string("equation", "")
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		for i, t := range in {
			if t == nil || t.DType() != in[0].DType() {
				return nil, fmt.Errorf("operand %d has another type than the first", i)
			}
		}
		e := recall[Einsum](x, in)
		if e == nil {
			var err error
			if e, err = NewEinsum(n, ShapesOf(in)); err != nil {
				return nil, err
			}
			remember(x, in, e)
		}
		switch in[0].DType() {
		case engine.Float32:
			return x.one(einsum[float32](x, e, in))
		case engine.Float64:
			return x.one(einsum[float64](x, e, in))
		}
		return nil, typeError(in[0])
	}, nil
}

// einsumTerms visits every term.
func einsumTerms[T float](x *Exec, e *Einsum, in []*engine.Tensor) (*engine.Tensor, error) {
	if n := e.terms(); n > maxEinsum {
		return nil, fmt.Errorf("an equation of %.3g terms: %w", n, engine.ErrTooLarge)
	}
	t, out, err := newOf[T](x, e.Shape...)
	if err != nil {
		return nil, err
	}
	if err := x.reserve(engine.Float64, len(out)); err != nil {
		return nil, err
	}
	sums := x.wide(len(out))
	clear(sums)
	var data [mostOperands][]T
	for i := range in {
		data[i] = engine.Data[T](in[i])
	}
	visited := 0
	e.each(x.ints(len(e.Size)), x.ints(len(e.Strides)), func(o int, at []int) bool {
		if visited++; visited%(1<<20) == 0 && x.ctx != nil && x.ctx.Err() != nil {
			return false
		}
		p := 1.0
		for i, a := range at {
			p *= float64(data[i][a])
		}
		sums[o] += p
		return true
	})
	if x.ctx != nil && x.ctx.Err() != nil {
		return nil, x.ctx.Err()
	}
	for i, s := range sums {
		out[i] = T(s)
	}
	return t, nil
}

func init() {
	register(DomainONNX, map[string]opDef{
		"Einsum": {since: 12, minIn: 1, maxIn: mostOperands, maxOut: 1, accept: floatTypes, half: true, build: buildEinsum},
	})
}
