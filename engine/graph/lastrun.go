package graph

import (
	"math"
	"slices"
	"sync/atomic"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/convolve"
	"github.com/pellucid/pellucid/engine/vector"
)

// fileShape is the shape that the file gives a value whose channels lie last.
func fileShape(shape []int) []int { return []int{shape[0], shape[3], shape[1], shape[2]} }

// shapeLast is the kernel of a Shape of a value that has so many dimensions in the file.
func shapeLast(kernel Kernel, rank int) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		s := fileShape(in[0].Shape())
		if rank == 3 {
			s = []int{s[0], s[1], s[3]}
		}
		t, err := in[0].Reshape(s...)
		if err != nil {
			return nil, err
		}
		return kernel(x, []*engine.Tensor{t})
	}
}

// lastOf lays a value of that many dimensions out with its channels last; one of three
// is an image one element high.
func lastOf(rank int) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		s := in[0].Shape()
		if len(s) != rank || in[0].DType() != engine.Float32 {
			return nil, errUnfused
		}
		high, across := 1, s[rank-1]
		if rank == 4 {
			high = s[2]
		}
		t, out, err := rawOf[float32](x, s[0], high, across, s[1])
		if err != nil {
			return nil, err
		}
		turned(x, out, engine.Data[float32](in[0]), s[0], s[1], high*across)
		return x.one(t, nil)
	}
}

// channelsFirst lays a value of that many dimensions out as the file has it.
func channelsFirst(rank int) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		s := in[0].Shape()
		shape := x.ints(rank)
		shape[0], shape[1], shape[rank-1] = s[0], s[3], s[2]
		if rank == 4 {
			shape[2] = s[1]
		} else if s[1] != 1 {
			return nil, errUnfused
		}
		t, out, err := rawOf[float32](x, shape...)
		if err != nil {
			return nil, err
		}
		turned(x, out, engine.Data[float32](in[0]), s[0], s[1]*s[2], s[3])
		return x.one(t, nil)
	}
}

// transposedLast is a transpose whose result has its channels last.
func transposedLast(perm []int) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		s := in[0].Shape()
		if len(s) != len(perm) || in[0].DType() != engine.Float32 {
			return nil, errUnfused
		}
		order := [4]int{perm[0], -1, perm[2], perm[1]}
		if len(perm) == 4 {
			order = [4]int{perm[0], perm[2], perm[3], perm[1]}
		}
		from := x.rowMajor(s)
		shape, strides := x.ints(4), x.ints(4)
		for i, a := range order {
			shape[i] = 1
			if a >= 0 {
				shape[i], strides[i] = s[a], from[a]
			}
		}
		return x.one(permuted(x, in[0], shape, strides))
	}
}

// permuted is a tensor with its dimensions in another order: a view where those longer
// than one keep theirs.
func permuted(x *Exec, t *engine.Tensor, shape, strides []int) (*engine.Tensor, error) {
	next, kept := t.Len(), t.Len() > 0
	for i, d := range shape {
		if d != 1 && kept {
			next /= d
			kept = strides[i] == next
		}
	}
	if kept {
		return x.memory.view(t, shape)
	}
	return transposed(x, t, shape, strides)
}

// transposed copies a tensor with its dimensions in another order. What comes down to
// matrices is transposed as such.
func transposed(x *Exec, t *engine.Tensor, shape, strides []int) (*engine.Tensor, error) {
	if n, rows, cols, ok := matrices(shape, strides); ok && t.DType() == engine.Float32 {
		o, out, err := rawOf[float32](x, shape...)
		if err == nil {
			turned(x, out, engine.Data[float32](t), n, rows, cols)
		}
		return o, err
	}
	return strided(x, t, 0, shape, strides)
}

// matrices reports whether a transpose is that of n matrices of rows and columns.
func matrices(shape, strides []int) (n, rows, cols int, ok bool) {
	sizes, steps := [3]int{}, [3]int{}
	k := 0 // groups of dimensions that lie side by side
	for i, d := range shape {
		switch {
		case d == 1:
		case d == 0:
			return 0, 0, 0, false
		case k > 0 && steps[k-1] == strides[i]*d:
			sizes[k-1], steps[k-1] = sizes[k-1]*d, strides[i]
		case k == len(sizes):
			return 0, 0, 0, false
		default:
			sizes[k], steps[k] = d, strides[i]
			k++
		}
	}
	switch {
	case k == 2 && steps[0] == 1 && steps[1] == sizes[0]:
		return 1, sizes[1], sizes[0], true
	case k == 3 && steps[1] == 1 && steps[2] == sizes[1] && steps[0] == sizes[1]*sizes[2]:
		return sizes[0], sizes[2], sizes[1], true
	}
	return 0, 0, 0, false
}

// mostLast is GlobalMaxPool.
func mostLast(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	s := in[0].Shape()
	if in[0].Len() == 0 {
		return nil, errUnfused
	}
	t, out, err := rawOf[float32](x, s[0], 1, 1, s[3])
	if err != nil {
		return nil, err
	}
	src, rows := engine.Data[float32](in[0]), s[1]*s[2]
	for i := range s[0] {
		most := out[i*s[3]:][:s[3]]
		copy(most, src[i*rows*s[3]:])
		for r := 1; r < rows; r++ {
			vector.Binary(vector.Max, most, most, src[(i*rows+r)*s[3]:][:s[3]])
		}
	}
	return x.one(t, nil)
}

// turned transposes n matrices.
func turned(x *Exec, to, from []float32, n, rows, cols int) {
	if rows == 1 || cols == 1 {
		copy(to, from)
		return
	}
	if rows == 3 {
		for i := range n {
			interleave(to[i*3*cols:][:3*cols], from[i*3*cols:][:3*cols])
		}
		return
	}
	threads := 1
	if rows*cols >= leastPart {
		threads = max(1, min(x.threads, n))
	}
	share(x, threads, n, turning{to, from, rows, cols})
}

// turning is the transposes of matrices.
type turning struct {
	to, from   []float32
	rows, cols int
}

func (w *turning) part(first, end int) {
	size := w.rows * w.cols
	for i := first; i < end; i++ {
		blas.Transpose(w.to[i*size:][:size], w.from[i*size:][:size], w.rows, w.cols)
	}
}

// interleave lays the three planes of an image out side by side, for which squares are too
// flat.
func interleave(to, from []float32) {
	n := len(to) / 3
	a, b, c := from[:n], from[n:2*n], from[2*n:3*n]
	for i, v := range a {
		pixel := to[3*i:][:3]
		pixel[0], pixel[1], pixel[2] = v, b[i], c[i]
	}
}

// windowOf is the windows of a node over a value of a shape with its channels last.
func windowOf(w *Windows, shape []int) *convolve.Window {
	return &convolve.Window{
		Batch: shape[0], Height: shape[1], Width: shape[2], Channels: shape[3], Lines: w.Out[0], Across: w.Out[1],
		Kernel: [2]int(w.Kernel), Strides: [2]int(w.strides), Dilations: [2]int(w.dilations), Before: [2]int(w.before),
	}
}

// overImages is the geometry of a convolution or a pool over images of a shape. It is read only.
type overImages struct {
	shape  []int
	widths []int64 // that they are padded by
	window *convolve.Window
	// result is the shape of a convolution's output in the file, taps the elements of a
	// pool's window.
	result []int
	taps   int
	each   *convolve.Each // a pool's
	// uneven are the windows of an average that do not divide by all of their taps, factors
	// what makes up for it.
	uneven  []int
	factors []float32
}

// mostPooled bounds the weights that a pool keeps.
const mostPooled = 1 << 16

// over returns the geometry over images of a shape, which are padded first.
func (c *convolution) over(s []int, widths []int64) (*overImages, error) {
	if g := c.seen.Load(); g != nil && slices.Equal(g.shape, s) && slices.Equal(g.widths, widths) {
		return g, nil
	}
	node := c.node
	if c.padded {
		node = withPads(node, widths)
	}
	n, err := NewConv(node, fileShape(s), c.shape)
	if err != nil {
		return nil, err
	}
	if volume(n.Result) == 0 || volume(s) == 0 {
		return nil, errUnfused
	}
	g := &overImages{shape: slices.Clone(s), widths: slices.Clone(widths), window: windowOf(n.Windows, s), result: n.Result}
	c.seen.Store(g)
	return g, nil
}

// run is the kernel of a convolution.
func (c *convolution) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	var widths []int64
	if c.padded {
		if widths = engine.Data[int64](in[1]); !padsImages(in[1], c.rank) {
			return nil, errUnfused
		}
	}
	g, err := c.over(in[0].Shape(), widths)
	if err != nil {
		return nil, err
	}
	threads := max(x.threads, 1)
	if c.node.Op == "ConvTranspose" {
		return c.transposed(x, in[0], g.result)
	}
	w := g.window
	t, out, err := rawOf[float32](x, g.result[0], g.result[2], g.result[3], g.result[1])
	if err != nil {
		return nil, err
	}
	quick := c.quick != nil && c.quick.Suits(w)
	scratch := w.Scratch(threads)
	switch {
	case quick:
		scratch = c.quick.Scratch(threads, w)
	case c.each != nil:
		scratch = c.each.Scratch(threads, w)
	}
	if c.filter != nil {
		scratch += c.filter.Room(threads)
	}
	if err := x.reserve(engine.Float32, scratch); err != nil {
		return nil, err
	}
	end := convolve.Finish{Low: c.low, High: c.high, Then: c.then}
	apart := c.added > 0 && !slices.Equal(in[c.added].Shape(), t.Shape())
	switch {
	case apart:
		end = convolve.Finish{Low: float32(math.Inf(-1)), High: float32(math.Inf(1))}
	case c.added > 0:
		end.Add = engine.Data[float32](in[c.added])
	}
	src := engine.Data[float32](in[0])
	switch {
	case c.each != nil:
		c.each.Convolve(threads, w, out, src, end)
	case quick:
		c.quick.Convolve(threads, w, out, src, end)
	default:
		c.filter.Convolve(threads, w, out, src, end)
	}
	if apart {
		return x.one(c.broadcast(x, t, in[c.added]))
	}
	return x.one(t, nil)
}

// broadcast is what follows the sums where one of them and what is added to it is
// repeated.
func (c *convolution) broadcast(x *Exec, sums, add *engine.Tensor) (*engine.Tensor, error) {
	t, err := zipVector(x, sums, add, vector.Add)
	if err != nil {
		return nil, err
	}
	v := engine.Data[float32](t)
	if c.bounded {
		vector.Clip(c.low, c.high).Apply(v, v)
	}
	if c.then != nil {
		c.then.Apply(v, v)
	}
	return t, nil
}

// splitLast cuts the channels.
func splitLast(x *Exec, t *engine.Tensor, parts []int, outs int) ([]*engine.Tensor, error) {
	s := t.Shape()
	sum := 0
	for _, p := range parts {
		if p < 0 || p > s[3] {
			return nil, misfit("parts of a dimension of %d are not in its range", s[3])
		}
		sum += p
	}
	if sum != s[3] || len(parts) != outs {
		return nil, misfit("%d parts of a dimension of %d for %d outputs, or their sum is another", len(parts), s[3], outs)
	}
	list := x.list(len(parts))[:0]
	src, pixels := engine.Data[float32](t), s[0]*s[1]*s[2]
	at := 0
	for _, p := range parts {
		o, out, err := rawOf[float32](x, s[0], s[1], s[2], p)
		if err != nil {
			return nil, err
		}
		for i := range pixels {
			copy(out[i*p:][:p], src[i*s[3]+at:])
		}
		list, at = append(list, o), at+p
	}
	return list, nil
}

// transposed makes each element's window and puts it where it belongs.
func (c *convolution) transposed(x *Exec, in *engine.Tensor, result []int) ([]*engine.Tensor, error) {
	s, channels := in.Shape(), result[1]
	high, wide := c.shape[2], c.shape[3]
	t, out, err := rawOf[float32](x, s[0], result[2], result[3], channels)
	if err != nil {
		return nil, err
	}
	_, made, err := rawOf[float32](x, s[0], s[1], s[2], high*wide*channels)
	if err != nil {
		return nil, err
	}
	point := [2]int{1, 1}
	w := &convolve.Window{Batch: s[0], Height: s[1], Width: s[2], Channels: s[3], Lines: s[1], Across: s[2], Kernel: point, Strides: point, Dilations: point}
	end := convolve.Finish{Low: c.low, High: c.high, Then: c.then}
	c.filter.Convolve(max(x.threads, 1), w, made, engine.Data[float32](in), end)
	run := wide * channels
	for row := range s[0] * s[1] {
		for y := range high {
			line := out[(row*high+y)*s[2]*run:][:s[2]*run]
			for i := range s[2] {
				copy(line[i*run:][:run], made[((row*s[2]+i)*high+y)*run:])
			}
		}
	}
	return x.one(t, nil)
}

// poolLast is the kernel of a pool.
func poolLast(n *Node) Kernel {
	var seen atomic.Pointer[overImages]
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		s := in[0].Shape()
		g := seen.Load()
		if g == nil || !slices.Equal(g.shape, s) {
			p, err := PoolWindows(n, fileShape(s))
			if err != nil {
				return nil, err
			}
			if in[0].Len() == 0 || volume(p.Out) == 0 {
				return nil, errUnfused
			}
			g = &overImages{shape: slices.Clone(s), window: windowOf(p, s), taps: p.Taps}
			switch n.Op {
			case "MaxPool":
				g.each = convolve.Largest(s[3], g.taps)
			case "AveragePool":
				g.each = convolve.NewEach(s[3], g.taps, slices.Repeat([]float32{1 / float32(g.taps)}, s[3]*g.taps), nil)
				for i, weight := range p.averages(n) {
					if factor := float32(weight * float64(g.taps)); factor != 1 {
						g.uneven, g.factors = append(g.uneven, i), append(g.factors, factor)
					}
				}
			}
			if g.each == nil || g.taps*s[3] <= mostPooled && len(g.uneven) <= mostPooled {
				seen.Store(g)
			}
		}
		w, src := g.window, engine.Data[float32](in[0])
		t, out, err := rawOf[float32](x, s[0], w.Lines, w.Across, s[3])
		if err != nil {
			return nil, err
		}
		threads := max(x.threads, 1)
		if err := x.reserve(engine.Float32, w.Scratch(threads)+s[3]*(1+g.taps)); err != nil {
			return nil, err
		}
		open := convolve.Finish{Low: float32(math.Inf(-1)), High: float32(math.Inf(1))}
		if g.each == nil {
			return x.one(t, meansOf(x, out, src, s))
		}
		g.each.Convolve(threads, w, out, src, open)
		for i := range s[0] {
			image := out[i*w.Lines*w.Across*s[3]:]
			for k, at := range g.uneven {
				pixel := image[at*s[3]:][:s[3]]
				vector.Scale(pixel, pixel, g.factors[k], 0)
			}
		}
		return x.one(t, nil)
	}
}

// meanLast is the mean of each channel, of so many dimensions.
func meanLast(rank int) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		s := in[0].Shape()
		if in[0].Len() == 0 {
			return nil, errUnfused
		}
		shape := x.ints(rank)
		for i := range shape {
			shape[i] = 1
		}
		shape[0], shape[rank-1] = s[0], s[3]
		t, out, err := rawOf[float32](x, shape...)
		if err != nil {
			return nil, err
		}
		return x.one(t, meansOf(x, out, engine.Data[float32](in[0]), s))
	}
}

// meansOf writes the mean of every channel of every image: those of lines first, so
// that no sum is long.
func meansOf(x *Exec, out, src []float32, s []int) error {
	n, c := s[0]*s[1], s[3]
	if err := x.reserve(engine.Float32, n*c); err != nil {
		return err
	}
	r := rooms.Get().(*room)
	lines := r.of(n * c)
	convolve.Means(lines, src, s[2], c)
	convolve.Means(out, lines, s[1], c)
	rooms.Put(r)
	return nil
}

// nearestOf is what a Resize that takes the nearest elements reads of images of a shape.
// It is read only.
type nearestOf struct {
	shape  []int
	told   told
	ys, xs []Line
}

// mostNearest bounds what is kept of it, in lines and columns.
const mostNearest = 1 << 13

// resizeOfLast is NewResize of images with their channels last.
func resizeOfLast(x *Exec, n *Node, in []*engine.Tensor) (*Resize, error) {
	view, err := in[0].Reshape(fileShape(in[0].Shape())...)
	if err != nil {
		return nil, err
	}
	as := append([]*engine.Tensor{view}, in[1:]...)
	if err := reserveLines(x, n, as); err != nil {
		return nil, err
	}
	return NewResize(n, as)
}

func newNearest(x *Exec, n *Node, in []*engine.Tensor) (*nearestOf, error) {
	s := in[0].Shape()
	r, err := resizeOfLast(x, n, in)
	if err != nil {
		return nil, err
	}
	if len(r.Lines[0]) != s[0] || len(r.Lines[1]) != s[3] || slices.ContainsFunc(slices.Concat(r.Lines...), func(l Line) bool { return len(l.At) != 1 }) {
		return nil, errUnfused
	}
	return &nearestOf{slices.Clone(s), toldBy(in), r.Lines[2], r.Lines[3]}, nil
}

// resizeLast is the kernel of a Resize that takes the nearest element.
func resizeLast(n *Node) Kernel {
	var seen atomic.Pointer[nearestOf]
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		s := in[0].Shape()
		g := seen.Load()
		if g == nil || !slices.Equal(g.shape, s) || !g.told.again(x, in) {
			var err error
			if g, err = newNearest(x, n, in); err != nil {
				return nil, err
			}
			if len(g.ys)+len(g.xs) <= mostNearest {
				seen.Store(g)
			}
		}
		c, ys, xs := s[3], g.ys, g.xs
		t, out, err := rawOf[float32](x, s[0], len(ys), len(xs), c)
		if err != nil {
			return nil, err
		}
		src, line := engine.Data[float32](in[0]), len(xs)*c
		for i := range s[0] {
			for y, from := range ys {
				row := out[(i*len(ys)+y)*line:][:line]
				if y > 0 && ys[y-1].At[0] == from.At[0] {
					copy(row, out[(i*len(ys)+y-1)*line:])
					continue
				}
				above := src[(i*s[1]+from.At[0])*s[2]*c:][:s[2]*c]
				for k := range xs {
					copy(row[k*c:][:c], above[xs[k].At[0]*c:])
				}
			}
		}
		return x.one(t, nil)
	}
}

// arithmeticLast is the kernel of s over two values with their channels last. A
// product with a value of one element a channel, as squeeze and excitation has it, goes
// image by image.
func arithmeticLast(s *step) Kernel {
	kernel, product := s.kernel, s.node.Op == "Mul"
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		a, b := in[0], in[1]
		if product && len(a.Shape()) == 4 && len(b.Shape()) == 4 {
			if perChannel(b.Shape(), a.Shape()) {
				a, b = b, a
			}
			if perChannel(a.Shape(), b.Shape()) {
				return scaled(x, b, a)
			}
		}
		return kernel(x, in)
	}
}

// perChannel reports whether a has one element for each channel of each image of b.
func perChannel(a, b []int) bool {
	return a[0] == b[0] && a[1] == 1 && a[2] == 1 && a[3] == b[3] && b[1]*b[2] > 1
}

// rowsWork is what convolve.Rows is given.
type rowsWork struct{ out, src, a, b []float32 }

func (w *rowsWork) part(from, to int) {
	n := len(w.a)
	convolve.Rows(w.out[from*n:to*n], w.src[from*n:to*n], w.a, w.b)
}

func scaled(x *Exec, t, by *engine.Tensor) ([]*engine.Tensor, error) {
	s := t.Shape()
	o, out, err := overOf(x, t)
	if err != nil {
		return nil, err
	}
	src, factors, c := engine.Data[float32](t), engine.Data[float32](by), s[3]
	pixels := s[1] * s[2]
	for i := range s[0] {
		at := i * pixels * c
		w := rowsWork{out[at : at+pixels*c], src[at : at+pixels*c], factors[i*c : (i+1)*c], nil}
		share(x, x.inParts(pixels), pixels, w)
	}
	return x.one(o, nil)
}
