package graph

import (
	"fmt"
	"maps"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/vector"
)

// Conv is the geometry of a Conv or ConvTranspose node. A transposed convolution
// is the convolution that would lead from its output to its input, walked back.
type Conv struct {
	*Windows
	// Batch is N. The windows lie over Inner channels a group and make Outer
	// channels a group: of a Conv, Inner belongs to the input and Outer to the
	// output, of a ConvTranspose the other way round.
	Batch, Groups, Inner, Outer int
	// Result is the output's shape.
	Result []int
	// threads bounds those of a product.
	threads int
	// layout is how the windows are laid out, nil where they are not; of a Conv alone.
	layout *layout
}

// mostRemembered is up to how many elements of all windows a step remembers their geometry,
// which may hold a table of them.
const mostRemembered = 1 << 18

// convOf is NewConv for a step that runs on in.
func convOf(x *Exec, n *Node, in []*engine.Tensor, shape, weights []int) (*Conv, error) {
	c := recall[Conv](x, in)
	if c == nil {
		var err error
		if c, err = NewConv(n, shape, weights); err != nil {
			return nil, err
		}
		if n.Op != "ConvTranspose" && c.Inner > 0 {
			c.layout = newLayout(c.Windows)
		}
		if c.layout != nil || c.Taps*c.Positions() <= mostRemembered {
			remember(x, in, c)
		}
	}
	c.threads = x.threads
	return c, nil
}

// NewConv works out the geometry of node n for an input and weights of these
// shapes.
func NewConv(n *Node, x, weights []int) (*Conv, error) {
	c := &Conv{Groups: 1}
	if a, ok := n.Attrs["group"]; ok {
		c.Groups = int(a.Int)
	}
	if len(x) < 3 || len(weights) != len(x) || c.Groups < 1 || c.Groups > x[1] || x[1]%c.Groups != 0 || weights[0]%c.Groups != 0 {
		return nil, fmt.Errorf("input %v and weights %v in %d groups", x, weights, c.Groups)
	}
	if k := toInts(n.Attrs["kernel_shape"].Ints); len(k) > 0 && !slices.Equal(k, weights[2:]) {
		return nil, fmt.Errorf("kernel_shape %v, the weights have %v", k, weights[2:])
	}
	c.Batch = x[0]
	if n.Op == "ConvTranspose" {
		return c, c.transposed(n, x, weights)
	}
	c.Inner, c.Outer = x[1]/c.Groups, weights[0]/c.Groups
	if weights[1] != c.Inner {
		return nil, fmt.Errorf("input %v and weights %v in %d groups", x, weights, c.Groups)
	}
	var err error
	c.Windows, err = NewWindows(n, x, weights[2:])
	if err != nil {
		return nil, err
	}
	c.Result = append([]int{x[0], weights[0]}, c.Out...)
	return c, nil
}

func (c *Conv) transposed(n *Node, x, weights []int) error {
	if weights[0] != x[1] {
		return fmt.Errorf("input %v and weights %v", x, weights)
	}
	d := len(x) - 2
	w, err := windowAttrs(n, d)
	if err != nil {
		return err
	}
	extra := toInts(n.Attrs["output_padding"].Ints)
	if len(extra) == 0 {
		extra = make([]int, d)
	}
	if len(extra) != d {
		return n.corrupt("output_padding has %d elements for %d dimensions", len(extra), d)
	}
	c.Inner, c.Outer = weights[1], x[1]/c.Groups
	c.Result = []int{x[0], weights[1] * c.Groups}
	// The padding may follow from the output's shape, the other way round than here.
	plain := *n
	plain.Attrs = maps.Clone(n.Attrs)
	delete(plain.Attrs, "auto_pad")
	if err := outputPadding(n, w, x, weights, extra); err != nil {
		return err
	}
	pads := Attr{Kind: AttrInts}
	for _, p := range append(slices.Clone(w.before), w.after...) {
		pads.Ints = append(pads.Ints, int64(p))
	}
	plain.Attrs["pads"] = pads
	n = &plain
	for i := range d {
		if extra[i] < 0 || extra[i] >= max(w.strides[i], w.dilations[i]) {
			return n.corrupt("output_padding %v", extra)
		}
		size := (x[2+i]-1)*w.strides[i] + (weights[2+i]-1)*w.dilations[i] + 1 + extra[i] - w.before[i] - w.after[i]
		if size < 1 {
			return fmt.Errorf("input %v and weights %v leave %d elements", x, weights, size)
		}
		c.Result = append(c.Result, size)
	}
	if c.Windows, err = NewWindows(n, c.Result, weights[2:]); err != nil {
		return err
	}
	// output_padding below a stride makes no further window.
	if !slices.Equal(c.Out, x[2:]) {
		return fmt.Errorf("windows %v over an output of %v do not fit the input %v", c.Out, c.Result, x)
	}
	return nil
}

// outputPadding sets the padding of a ConvTranspose whose output_shape or auto_pad
// says how large its output is: what would be more is cut from both ends, an odd
// element from the beginning, or from the end with SAME_UPPER. What would be less
// becomes further elements at the end.
func outputPadding(n *Node, w *Windows, x, weights, extra []int) error {
	mode, given := n.Attrs["auto_pad"].String, toInts(n.Attrs["output_shape"].Ints)
	d := len(extra)
	if len(given) == d+2 {
		given = given[2:]
	}
	switch mode {
	case "", "NOTSET":
		if len(given) == 0 {
			return nil
		}
	case "VALID":
		if len(given) == 0 {
			clear(w.before)
			clear(w.after)
			return nil
		}
	case "SAME_UPPER", "SAME_LOWER":
	default:
		return n.unsupported("auto_pad %q", mode)
	}
	if len(given) != 0 && len(given) != d {
		return n.corrupt("output_shape %v", given)
	}
	for i := range d {
		want := x[2+i] * w.strides[i]
		if len(given) > 0 {
			want = given[i]
		}
		cut := (x[2+i]-1)*w.strides[i] + (weights[2+i]-1)*w.dilations[i] + 1 + extra[i] - want
		if want < 1 || cut < 0 && -cut >= max(w.strides[i], w.dilations[i]) {
			return fmt.Errorf("an output of %d elements is not within reach", want)
		}
		if cut < 0 {
			extra[i], cut = extra[i]-cut, 0
		}
		w.before[i], w.after[i] = cut-cut/2, cut/2
		if mode == "SAME_UPPER" {
			w.before[i], w.after[i] = w.after[i], w.before[i]
		}
	}
	return nil
}

// Gather adds to small [Batch, Groups*Outer, Out...] the convolution of large
// [Batch, Groups*Inner, In...] with weights [Groups*Outer, Inner, Kernel...].
func Gather[T float](c *Conv, small, large, weights []T) {
	gatherWindows(c, small, large, weights, make([]T, c.Inner*c.Taps*c.Positions()))
}

func gatherWindows[T float](c *Conv, small, large, weights, columns []T) {
	plane, positions := c.Plane(), c.Positions()
	depth := c.Inner * c.Taps
	for b := range c.Batch * c.Groups {
		from := large[b*c.Inner*plane:][:c.Inner*plane]
		columnsOfWindows(c, columns, from)
		to := small[b*c.Outer*positions:][:c.Outer*positions]
		matmul(c.threads, to, weights[b%c.Groups*c.Outer*depth:][:c.Outer*depth], columns, c.Outer, positions, depth, false, false)
	}
}

func columnsOfWindows[T float](c *Conv, columns, from []T) {
	plane, positions := c.Plane(), c.Positions()
	index := c.Index()
	for ch := range c.Inner {
		for k := range c.Taps {
			row := columns[(ch*c.Taps+k)*positions:][:positions]
			for p := range positions {
				row[p] = 0
				if at := index[p*c.Taps+k]; at >= 0 {
					row[p] = from[ch*plane+int(at)]
				}
			}
		}
	}
}

// Scatter is the transpose of Gather in its first two arguments: it adds to large
// what small sends back through the weights.
func Scatter[T float](c *Conv, large, small, weights []T) {
	scatterWindows(c, large, small, weights, make([]T, scatterColumns(c)))
}

// Of the columns that a transposed convolution adds up, those of so many channels are made at
// once that they stay in the second-level cache, but as many rows as a product needs to be worth
// laying out its operand.
const (
	columnsAtOnce = 1 << 17
	rowsAtOnce    = 64
)

// scatterChannels is of how many channels scatterWindows makes columns at once.
func scatterChannels(c *Conv) int {
	return min(c.Inner, max(columnsAtOnce/(c.Taps*c.Positions()), (rowsAtOnce+c.Taps-1)/c.Taps))
}

// scatterColumns is how many elements these have.
func scatterColumns(c *Conv) int { return scatterChannels(c) * c.Taps * c.Positions() }

func scatterWindows[T float](c *Conv, large, small, weights, columns []T) {
	plane, positions := c.Plane(), c.Positions()
	depth, some := c.Inner*c.Taps, scatterChannels(c)
	for b := range c.Batch * c.Groups {
		from, w := small[b*c.Outer*positions:][:c.Outer*positions], weights[b%c.Groups*c.Outer*depth:][:c.Outer*depth]
		for first := 0; first < c.Inner; first += some {
			channels := min(some, c.Inner-first)
			blas.Gemm(c.threads, true, false, channels*c.Taps, positions, c.Outer, 1, w[first*c.Taps:], depth, from, positions, 0, columns, positions)
			for ch := range channels {
				ofWindows(c.Windows, large[(b*c.Inner+first+ch)*plane:][:plane], columns[ch*c.Taps*positions:][:c.Taps*positions])
			}
		}
	}
}

// ofWindows adds columns of [Taps, Out...] to a channel of [In...], without the table of
// windows: by planes of the last two dimensions.
func ofWindows[T float](w *Windows, to, columns []T) {
	if len(w.In) <= 2 {
		p := planesOf(w, 0)
		rowsOfColumns(&p, to, columns)
		return
	}
	last := len(w.In) - 2
	planes := planesOf(w, last)
	taps, in, out := planes.kernel[0]*planes.kernel[1], planes.in[0]*planes.in[1], planes.out[0]*planes.out[1]
	positions := len(columns) / w.Taps
	for k := range w.Taps / taps {
		for p := range positions / out {
			if at := w.leading(last, k, p); at >= 0 {
				rowsOfColumns(&planes, to[at*in:][:in], columns[k*taps*positions+p*out:])
			}
		}
	}
}

// leading is the place among the first dimensions of In of element k of window p, both of these
// dimensions alone; -1 where it is padding.
func (w *Windows) leading(dims, k, p int) int {
	at, size := 0, 1
	for d := dims - 1; d >= 0; d-- {
		i := p%w.Out[d]*w.strides[d] + k%w.Kernel[d]*w.dilations[d] - w.before[d]
		if i < 0 || i >= w.In[d] {
			return -1
		}
		at, size = at+i*size, size*w.In[d]
		k, p = k/w.Kernel[d], p/w.Out[d]
	}
	return at
}

// planes are the last two dimensions of windows; step is how far the columns of one tap are
// from those of the next.
type planes struct {
	in, out, kernel, strides, dilations, before [2]int
	step                                        int
}

func planesOf(w *Windows, from int) planes {
	p := planes{
		in: two(w.In[from:], 1), out: two(w.Out[from:], 1), kernel: two(w.Kernel[from:], 1), strides: two(w.strides[from:], 1),
		dilations: two(w.dilations[from:], 1), before: two(w.before[from:], 0), step: 1,
	}
	for _, n := range w.Out {
		p.step *= n
	}
	return p
}

func rowsOfColumns[T float](p *planes, plane, columns []T) {
	for k := range p.kernel[0] * p.kernel[1] {
		ky, kx := k/p.kernel[1]*p.dilations[0]-p.before[0], k%p.kernel[1]*p.dilations[1]-p.before[1]
		// The windows whose element k is in the plane.
		first := min(max(0, (p.strides[1]-1-kx)/p.strides[1]), p.out[1])
		end := min(max(first, (p.in[1]-kx+p.strides[1]-1)/p.strides[1]), p.out[1])
		for y := range p.out[0] {
			at := y*p.strides[0] + ky
			if at < 0 || at >= p.in[0] || first == end {
				continue
			}
			row, to := columns[k*p.step+y*p.out[1]:][first:end], plane[at*p.in[1]:][:p.in[1]]
			x := first*p.strides[1] + kx
			if p.strides[1] == 1 {
				to = to[x:][:len(row)]
				for i, v := range row {
					to[i] += v
				}
				continue
			}
			for _, v := range row {
				to[x] += v
				x += p.strides[1]
			}
		}
	}
}

// ConvWeights adds to weights what Gather's small and large, one of them a gradient, send back
// to them.
func ConvWeights[T float](c *Conv, weights, small, large []T) {
	plane, positions := c.Plane(), c.Positions()
	depth := c.Inner * c.Taps
	columns := make([]T, depth*positions)
	for b := range c.Batch * c.Groups {
		columnsOfWindows(c, columns, large[b*c.Inner*plane:][:c.Inner*plane])
		from := small[b*c.Outer*positions:][:c.Outer*positions]
		matmul(c.threads, weights[b%c.Groups*c.Outer*depth:][:c.Outer*depth], from, columns, c.Outer, depth, positions, false, true)
	}
}

func buildConv(b *builder) (Kernel, error) {
	n := b.node
	for _, name := range []string{"kernel_shape", "strides", "dilations", "pads", "output_padding", "output_shape"} {
		b.attrs.ints(name)
	}
	b.attrs.string("auto_pad", "")
	b.attrs.int("group", 1)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() != in[1].DType() {
			return nil, fmt.Errorf("operands of types %s and %s", in[0].DType(), in[1].DType())
		}
		c, err := convOf(x, n, in, in[0].Shape(), in[1].Shape())
		if err != nil {
			return nil, err
		}
		switch in[0].DType() {
		case engine.Float32:
			return x.one(convThen[float32](x, n, c, in, nil))
		case engine.Float64:
			return x.one(convThen[float64](x, n, c, in, nil))
		}
		return nil, typeError(in[0])
	}, nil
}

// convThen is a convolution and the function that follows it, nil for none.
func convThen[T float](x *Exec, n *Node, c *Conv, in []*engine.Tensor, then *vector.Function) (*engine.Tensor, error) {
	l := c.layout
	build := newOf[T]
	if l != nil {
		build = rawOf[T]
	}
	t, out, err := build(x, c.Result...)
	if err != nil {
		return nil, err
	}
	var bias []T
	if b := arg(in, 2); b != nil {
		if bias = engine.Data[T](b); len(bias) != c.Result[1] {
			return nil, fmt.Errorf("bias of %d elements for %d channels", b.Len(), c.Result[1])
		}
	}
	if l != nil && len(out) > 0 {
		d := direct[T]{Conv: c, layout: l, finish: finish[T]{bias, then}, out: out, in: engine.Data[T](in[0]), weights: engine.Data[T](in[1])}
		planes, columns, flat := d.needs()
		if err := x.reserve(t.DType(), planes+columns+flat); err != nil {
			return nil, err
		}
		d.run(x)
		return t, nil
	}
	elements := c.Inner * c.Taps * c.Positions() // one group's
	if n.Op == "ConvTranspose" {
		elements = scatterColumns(c)
	} else if err := x.reserve(engine.Float64, c.Taps*c.Positions()/2); err != nil { // the windows' table
		return nil, err
	}
	_, columns, err := rawOf[T](x, elements)
	if err != nil {
		return nil, err
	}
	if n.Op == "ConvTranspose" {
		scatterWindows(c, out, engine.Data[T](in[0]), engine.Data[T](in[1]), columns)
	} else {
		gatherWindows(c, out, engine.Data[T](in[0]), engine.Data[T](in[1]), columns)
	}
	f := finish[T]{bias, then}
	plane := volume(c.Result[2:])
	for i := range len(out) / max(plane, 1) {
		f.apply(out[i*plane:(i+1)*plane], i%c.Result[1])
	}
	return t, nil
}

func init() {
	conv := opDef{since: 1, minIn: 2, maxIn: 3, maxOut: 1, accept: floatTypes, half: true, build: buildConv}
	register(DomainONNX, map[string]opDef{"Conv": conv, "ConvTranspose": conv})
}
