package graph

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
)

// maxTransform bounds the length of a Fourier transform, maxFourier the work of all
// transforms of one node.
const (
	maxTransform = 1 << 20
	maxFourier   = 1 << 34
)

// dft is Fourier transforms of one length: from have elements to out, of length n.
type dft struct {
	have, out, n      int
	inverse, onesided bool
	// inParts and outParts are the numbers of an element: 1 where it is real.
	inParts, outParts int
	angles
	// lines is how many there are, inner that of a group of them; from and to are where they
	// are in the input and in the output; window weighs what goes in.
	lines, inner int
	from, to     spacing
	window       []float64
	x            *Exec
}

// spacing is how far apart groups of lines, lines and elements are.
type spacing struct{ group, line, element int }

func (s spacing) at(line, inner int) int { return line/inner*s.group + line%inner*s.line }

// angles are those of transforms of one length and direction, with the radices that it is
// taken apart by.
type angles struct {
	length   int // 0 where there are none
	back     bool
	factors  []int
	cos, sin []float64
	radices  []int // of the last plan
}

// transforms are such with what is made of them, which is no closure and is kept, as the angles
// are, so that the next run makes no object.
type transforms struct {
	dft
	pairs  func(f func(out, in int, w float64))
	fast32 func(y, x []float32)
	fast64 func(y, x []float64)
}

func (t *transforms) begin() {
	kept := t.angles
	if kept.length > mostSlab {
		kept = angles{}
	}
	t.dft = dft{angles: kept}
}

// newDFT begins a plan of transforms. A real result is that of a transform back from half a
// spectrum.
func newDFT(x *Exec, have, n int, inverse, onesided bool, inParts int) (*transforms, error) {
	if n < 1 || have < 1 {
		return nil, misfit("a transform of no element, or of no length")
	}
	if n > maxTransform {
		return nil, fmt.Errorf("a transform of %d elements of length %d: %w", have, n, engine.ErrTooLarge)
	}
	t := keptOf[transforms](x)
	if t.pairs == nil {
		t.pairs, t.fast32, t.fast64 = t.each, t.singles, t.doubles
	}
	t.dft = dft{have: min(have, n), out: n, n: n, inverse: inverse, onesided: onesided, inParts: inParts, outParts: 2, angles: t.angles, x: x}
	switch {
	case onesided && inverse:
		t.have, t.outParts = min(have, n/2+1), 1
	case onesided:
		t.out = n/2 + 1
	}
	return t, nil
}

// plan sets the transforms' number and places, and their angles.
func (t *dft) plan(lines, inner int, from, to spacing) error {
	known := t.length == t.n && t.back == t.inverse
	if !known {
		t.length, t.factors = 0, factorsOf(t.n)
	}
	work := t.n
	for _, f := range t.factors {
		work += t.n * f
	}
	if lines > maxFourier/work {
		return fmt.Errorf("%d transforms of length %d: %w", lines, t.n, engine.ErrTooLarge)
	}
	t.lines, t.inner, t.from, t.to = lines, inner, from, to
	if !known {
		t.turn()
	}
	return nil
}

// turn works the angles out.
func (t *dft) turn() {
	t.length, t.back = t.n, t.inverse
	sign := -1.0
	if t.inverse {
		sign = 1
	}
	t.cos, t.sin = make([]float64, t.n), make([]float64, t.n)
	for k := range t.n {
		s, c := math.Sincos(2 * math.Pi * float64(k) / float64(t.n))
		t.cos[k], t.sin[k] = c, sign*s
	}
}

// factorsOf are the radices that a length is taken apart by.
func factorsOf(n int) []int {
	var f []int
	for p := 2; n > 1; p++ {
		if p*p > n {
			p = n
		}
		for n%p == 0 {
			f, n = append(f, p), n/p
		}
	}
	return f
}

// each visits the weights of all transforms.
func (t *dft) each(f func(out, in int, w float64)) {
	for line := range t.lines {
		in, inStep, out, outStep := t.from.at(line, t.inner), t.from.element, t.to.at(line, t.inner), t.to.element
		t.weights(func(o, oPart, i, iPart int, w float64) {
			if t.window != nil {
				w *= t.window[i]
			}
			f(out+o*outStep+oPart, in+i*inStep+iPart, w)
		})
	}
}

// weights visits those of one transform: element and part (0 real, 1 imaginary).
func (t *dft) weights(f func(out, outPart, in, inPart int, w float64)) {
	for k := range t.out {
		for i := range t.have {
			at := int(int64(k) * int64(i) % int64(t.n))
			c, s := t.cos[at], t.sin[at]
			if t.inverse {
				c, s = c/float64(t.n), s/float64(t.n)
			}
			if t.outParts == 1 {
				// The other half of the spectrum is this one mirrored.
				twice := i > 0 && 2*i != t.n
				if twice {
					c, s = 2*c, 2*s
				}
				f(k, 0, i, 0, c)
				if t.inParts == 2 && twice {
					f(k, 0, i, 1, -s)
				}
				continue
			}
			f(k, 0, i, 0, c)
			f(k, 1, i, 0, s)
			if t.inParts == 2 {
				f(k, 0, i, 1, -s)
				f(k, 1, i, 1, c)
			}
		}
	}
}

// number2 is a complex number.
type number2[T float] struct{ re, im T }

// product2 is x times y, rounded before anything is added to it: where the machine
// would fuse the two, results would differ from one machine to another.
func product2[T float](x, y T) T {
	return T(x * y) //nolint:unconvert // the conversion is what rounds
}

func (a number2[T]) times(re, im T) number2[T] {
	return number2[T]{product2(a.re, re) - product2(a.im, im), product2(a.re, im) + product2(a.im, re)}
}

// packed reports whether lines are real and of an even length: they are transformed as complex
// ones of half of it, whose elements are two neighbours each.
func (t *dft) packed() bool { return t.inParts == 1 && t.outParts == 2 && t.n%2 == 0 }

// fast computes all transforms by factors.
func fast[T float](t *dft, y, x []T) {
	n := t.n
	if t.packed() {
		n /= 2
	}
	t.radices = radicesOf(t.radices[:0], t.factors, n)
	largest := 1
	for _, r := range t.radices {
		largest = max(largest, r)
	}
	own, work, room := scratchOf[number2[T]](t.x, n), scratchOf[number2[T]](t.x, n), scratchOf[number2[T]](t.x, 2*largest)
	scale := T(1)
	if t.inverse {
		scale = T(1 / float64(t.n))
	}
	for line := range t.lines {
		in, out := x[t.from.at(line, t.inner):], y[t.to.at(line, t.inner):]
		clear(own)
		if t.packed() {
			loadPairs(t, own, in)
			unpack(t, out, transformed(t, work, own, room), scale)
			continue
		}
		load(t, own, in)
		if t.outParts == 1 {
			mirror(own, t.have)
		}
		z := transformed(t, work, own, room)
		for k := range t.out {
			out[k*t.to.element] = z[k].re * scale
			if t.outParts == 2 {
				out[k*t.to.element+1] = z[k].im * scale
			}
		}
	}
}

// radicesOf appends fours and then the primes that are left, whose product is n.
func radicesOf(radices, factors []int, n int) []int {
	for ; n%4 == 0; n /= 4 {
		radices = append(radices, 4)
	}
	for _, f := range factors {
		if n%f == 0 {
			radices, n = append(radices, f), n/f
		}
	}
	return radices
}

// load takes a line in.
func load[T float](t *dft, own []number2[T], x []T) {
	for i := range t.have {
		own[i].re = x[i*t.from.element]
		if t.inParts == 2 {
			own[i].im = x[i*t.from.element+1]
		}
		if t.window != nil {
			w := T(t.window[i])
			own[i] = number2[T]{own[i].re * w, own[i].im * w}
		}
	}
}

// loadPairs takes a real line in, two elements a number.
func loadPairs[T float](t *dft, own []number2[T], x []T) {
	for i := range own[:(t.have+1)/2] {
		v := x[2*i*t.from.element]
		if t.window != nil {
			v *= T(t.window[2*i])
		}
		own[i].re = v
		if 2*i+1 == t.have {
			break
		}
		v = x[(2*i+1)*t.from.element]
		if t.window != nil {
			v *= T(t.window[2*i+1])
		}
		own[i].im = v
	}
}

// unpack takes the transform of pairs apart: z's even and odd parts are those of the
// elements of even and odd places.
func unpack[T float](t *dft, y []T, z []number2[T], scale T) {
	h := len(z)
	put := func(k int, v number2[T]) {
		y[k*t.to.element], y[k*t.to.element+1] = v.re*scale, v.im*scale
		if k > 0 && t.out == t.n { // all of the spectrum: the other half is this one mirrored
			y[(t.n-k)*t.to.element], y[(t.n-k)*t.to.element+1] = v.re*scale, -v.im*scale
		}
	}
	y[0], y[1] = (z[0].re+z[0].im)*scale, 0
	for k := 1; k < h; k++ {
		a, b := z[k], z[h-k]
		even := number2[T]{(a.re + b.re) / 2, (a.im - b.im) / 2}
		odd := number2[T]{(a.im + b.im) / 2, (b.re - a.re) / 2}.times(T(t.cos[k]), T(t.sin[k]))
		put(k, number2[T]{even.re + odd.re, even.im + odd.im})
	}
	y[h*t.to.element], y[h*t.to.element+1] = (z[0].re-z[0].im)*scale, 0
}

// mirror completes a spectrum of which the first have elements are there, to that of
// a real signal.
func mirror[T float](x []number2[T], have int) {
	n := len(x)
	x[0].im = 0
	if n%2 == 0 && have > n/2 {
		x[n/2].im = 0
	}
	for i := 1; i < have && 2*i < n; i++ {
		x[n-i] = number2[T]{x[i].re, -x[i].im}
	}
}

// transformed is the transform of x, in x or in y: radix by radix, elements of one place in
// runs are combined and turned, and lie so that the result comes in order (Stockham). room has
// two elements for each of the largest radix.
func transformed[T float](t *dft, y, x, room []number2[T]) []number2[T] {
	length, stride := len(x), 1
	for _, r := range t.radices {
		m := length / r
		turn := t.n / length
		switch r {
		case 4:
			fours(t, y, x, m, stride, turn)
		case 2:
			halved(t, y, x, m, stride, turn)
		default:
			combined(t, y, x, room[:r], room[r:2*r], m, stride, turn)
		}
		y, x = x, y
		length, stride = m, stride*r
	}
	return x
}

// combined combines as many runs of x as group and mixed have room for.
func combined[T float](t *dft, y, x, group, mixed []number2[T], m, stride, turn int) {
	r := len(group)
	for i := range m * stride {
		p := i / stride
		for j := range group {
			group[j] = x[i+j*m*stride]
		}
		butterfly(t, mixed, group)
		for q, v := range mixed {
			if at := p * q * turn; at != 0 {
				v = v.times(T(t.cos[at]), T(t.sin[at]))
			}
			y[i+(p*(r-1)+q)*stride] = v
		}
	}
}

// fours combines four runs of x.
func fours[T float](t *dft, y, x []number2[T], m, stride, turn int) {
	back := T(1)
	if t.inverse {
		back = -1
	}
	for p := range m {
		x0, x1, x2, x3 := x[p*stride:][:stride], x[(p+m)*stride:][:stride], x[(p+2*m)*stride:][:stride], x[(p+3*m)*stride:][:stride]
		y0, y1, y2, y3 := y[4*p*stride:][:stride], y[(4*p+1)*stride:][:stride], y[(4*p+2)*stride:][:stride], y[(4*p+3)*stride:][:stride]
		at := p * turn
		c1, s1, c2, s2, c3, s3 := T(t.cos[at]), T(t.sin[at]), T(t.cos[2*at]), T(t.sin[2*at]), T(t.cos[3*at]), T(t.sin[3*at])
		for q := range x0 {
			a, b, c, d := x0[q], x1[q], x2[q], x3[q]
			ac, bd := number2[T]{a.re + c.re, a.im + c.im}, number2[T]{b.re + d.re, b.im + d.im}
			a.re, a.im = a.re-c.re, a.im-c.im
			b.re, b.im = (b.im-d.im)*back, (d.re-b.re)*back // a quarter of a turn
			y0[q] = number2[T]{ac.re + bd.re, ac.im + bd.im}
			u, v, w := number2[T]{a.re + b.re, a.im + b.im}, number2[T]{ac.re - bd.re, ac.im - bd.im}, number2[T]{a.re - b.re, a.im - b.im}
			if p > 0 {
				u, v, w = u.times(c1, s1), v.times(c2, s2), w.times(c3, s3)
			}
			y1[q], y2[q], y3[q] = u, v, w
		}
	}
}

// halved combines the two halves of x.
func halved[T float](t *dft, y, x []number2[T], m, stride, turn int) {
	for p := range m {
		low, high, sums, rest := x[p*stride:][:stride], x[(p+m)*stride:][:stride], y[2*p*stride:][:stride], y[(2*p+1)*stride:][:stride]
		c, s := T(t.cos[p*turn]), T(t.sin[p*turn])
		for q := range low {
			a, b := low[q], high[q]
			sums[q] = number2[T]{a.re + b.re, a.im + b.im}
			d := number2[T]{a.re - b.re, a.im - b.im}
			if p > 0 {
				d = d.times(c, s)
			}
			rest[q] = d
		}
	}
}

// butterfly is a transform of an odd prime length, by pairs of elements that stand
// the same way from both ends.
func butterfly[T float](t *dft, y, x []number2[T]) {
	r := len(x)
	y[0] = x[0]
	for j := 1; 2*j < r; j++ {
		a, b := x[j], x[r-j]
		x[j] = number2[T]{a.re + b.re, a.im + b.im}
		x[r-j] = number2[T]{a.re - b.re, a.im - b.im}
		y[0] = number2[T]{y[0].re + x[j].re, y[0].im + x[j].im}
	}
	turn := t.n / r
	for q := 1; 2*q < r; q++ {
		even, odd := x[0], number2[T]{}
		for j := 1; 2*j < r; j++ {
			at := j * q % r * turn
			c, s := T(t.cos[at]), T(t.sin[at])
			even = number2[T]{even.re + product2(c, x[j].re), even.im + product2(c, x[j].im)}
			odd = number2[T]{odd.re + product2(s, x[r-j].re), odd.im + product2(s, x[r-j].im)}
		}
		y[q] = number2[T]{even.re - odd.im, even.im + odd.re}
		y[r-q] = number2[T]{even.re + odd.im, even.im - odd.re}
	}
}

// linear is the map of the transforms, which has a faster form to be computed by.
// Real signals are computed in float64 whatever their type, complex ones in their
// own: so does what made ONNX's expected values, down to the rounding of zeros.
func (t *transforms) linear(shape []int) *LinearMap {
	m := keptOf[LinearMap](t.x)
	m.Shape, m.Each, m.fast64 = shape, t.pairs, t.fast64
	m.weights, m.scratch = float64(t.lines)*float64(t.out)*float64(t.have), 8*t.n
	if t.inParts == 2 {
		m.fast32 = t.fast32
	}
	return m
}

func (t *dft) singles(y, x []float32) { fast(t, y, x) }
func (t *dft) doubles(y, x []float64) { fast(t, y, x) }

func fourier(x *Exec, n *Node, in []*engine.Tensor) (*LinearMap, error) {
	shape := in[0].Shape()
	axis := -2
	switch t := arg(in, 2); {
	case n.Version < 20:
		axis = 1
		if a, ok := n.Attrs["axis"]; ok {
			axis = int(a.Int)
		}
	case t != nil:
		var err error
		if axis, err = scalarInt(t); err != nil {
			return nil, err
		}
	}
	a, err := normAxis(axis, len(shape))
	if err != nil {
		return nil, err
	}
	last := len(shape) - 1
	if last < 1 || a == last || shape[last] != 1 && shape[last] != 2 {
		return nil, fmt.Errorf("axis %d of shape %v is transformed", a, shape)
	}
	inverse, onesided := n.Attrs["inverse"].Int == 1, n.Attrs["onesided"].Int == 1
	length := shape[a]
	if inverse && onesided {
		length = 2 * (shape[a] - 1)
	}
	if t := arg(in, 1); t != nil {
		if length, err = scalarInt(t); err != nil {
			return nil, err
		}
	}
	t, err := newDFT(x, shape[a], length, inverse, onesided, shape[last])
	if err != nil {
		return nil, err
	}
	final := x.shaped(shape)
	final[a], final[last] = t.out, t.outParts
	outer, inner := split(shape[:last], a)
	err = t.plan(outer*inner, inner,
		spacing{shape[a] * inner * t.inParts, t.inParts, inner * t.inParts}, spacing{t.out * inner * t.outParts, t.outParts, inner * t.outParts})
	return t.linear(final), err
}

func checkFourier(b *builder) error {
	b.attrs.int("inverse", 0)
	b.attrs.int("onesided", 0)
	if b.version() < 20 {
		b.attrs.int("axis", 1)
	}
	return nil
}

// shortFourier transforms windows of a signal [batch, length, 1 or 2], or [batch, length]
// of real numbers, as PyTorch writes it and onnxruntime takes it.
func shortFourier(x *Exec, n *Node, in []*engine.Tensor) (*LinearMap, error) {
	t, final, err := shortTransforms(x, n, in)
	if err != nil {
		return nil, err
	}
	return t.linear(final), nil
}

// shortTransforms are those of shortFourier, and the shape of what they make.
func shortTransforms(x *Exec, n *Node, in []*engine.Tensor) (*transforms, []int, error) {
	shape := in[0].Shape()
	if len(shape) == 2 {
		given := shape
		shape = x.ints(3)
		shape[0], shape[1], shape[2] = given[0], given[1], 1
	}
	step, err := scalarInt(in[1])
	if err != nil {
		return nil, nil, err
	}
	if len(shape) != 3 || shape[2] != 1 && shape[2] != 2 {
		return nil, nil, fmt.Errorf("a signal of shape %v", shape)
	}
	length := shape[1]
	var window []float64
	if t := arg(in, 2); t != nil {
		length = t.Len()
		window, _ = x.float64s(t)
	}
	if t := arg(in, 3); t != nil {
		if length, err = scalarInt(t); err != nil {
			return nil, nil, err
		}
	}
	if step < 1 || length > shape[1] || window != nil && len(window) != length {
		return nil, nil, misfit("windows, or their steps, do not fit a signal of %d", shape[1])
	}
	onesided := true
	if a, ok := n.Attrs["onesided"]; ok {
		onesided = a.Int == 1
	}
	t, err := newDFT(x, length, length, false, onesided, shape[2])
	if err != nil {
		return nil, nil, err
	}
	t.window = window
	frames := (shape[1]-length)/step + 1
	final := x.ints(4)
	final[0], final[1], final[2], final[3] = shape[0], frames, t.out, 2
	err = t.plan(shape[0]*frames, frames, spacing{shape[1] * shape[2], step * shape[2], shape[2]}, spacing{frames * t.out * 2, t.out * 2, 2})
	return t, final, err
}

func scalarInt(t *engine.Tensor) (int, error) {
	if v := engine.Data[int64](t); len(v) == 1 {
		return int(v[0]), nil
	}
	if v := engine.Data[int32](t); len(v) == 1 {
		return int(v[0]), nil
	}
	return 0, fmt.Errorf("%s %v where one whole number is needed", t.DType(), t.Shape())
}

// windowFunctions are the cosines' weights of the windows.
var windowFunctions = map[string][]float64{
	"HannWindow": {0.5, -0.5}, "HammingWindow": {25.0 / 46, -21.0 / 46}, "BlackmanWindow": {0.42, -0.5, 0.08},
}

func buildWindow(b *builder) (Kernel, error) {
	d, periodic := TypeOfONNX(b.attrs.int("output_datatype", 1)), b.attrs.int("periodic", 1) == 1
	if !d.IsFloat() && !d.IsInteger() {
		return nil, b.node.unsupported("element type %s", d)
	}
	terms := windowFunctions[b.node.Op]
	b.result = []engine.DType{d}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		n, err := scalarInt(in[0])
		if err != nil {
			return nil, err
		}
		o, err := x.New(d, n)
		if err != nil {
			return nil, err
		}
		if err := x.reserve(engine.Float64, n); err != nil {
			return nil, err
		}
		span := float64(n)
		if !periodic {
			span--
		}
		v := x.wide(n)
		clear(v)
		for i := range v {
			for k, w := range terms {
				v[i] += w * math.Cos(2*math.Pi*float64(k)*float64(i)/max(span, 1))
			}
		}
		return x.one(o, storeFloats(o, v))
	}, nil
}

// buildMelWeights makes triangles that are even on the mel scale.
func buildMelWeights(b *builder) (Kernel, error) {
	d := TypeOfONNX(b.attrs.int("output_datatype", 1))
	if !d.IsFloat() && !d.IsInteger() {
		return nil, b.node.unsupported("element type %s", d)
	}
	b.result = []engine.DType{d}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		var v [5]float64
		for i := range v {
			var err error
			if v[i], err = scalarOf(in[i]); err != nil {
				return nil, err
			}
		}
		bins, length, rate := v[0], v[1], v[2]
		if !(bins >= 1 && bins < 1<<16 && length >= 0 && length < 1<<24 && rate > 0) {
			return nil, misfit("bins, a length or a rate out of range")
		}
		rows, cols := int(length)/2+1, int(bins)
		o, err := x.New(d, rows, cols)
		if err != nil {
			return nil, err
		}
		if err := x.reserve(engine.Float64, o.Len()); err != nil {
			return nil, err
		}
		mel := func(hz float64) float64 { return 2595 * math.Log10(1+hz/700) }
		low := mel(v[3])
		step := (mel(v[4]) - low) / (bins + 2)
		edges := x.ints(cols + 2)
		for i := range edges {
			hz := 700 * (math.Pow(10, (low+float64(i)*step)/2595) - 1)
			edges[i] = clampIndex(math.Floor((length+1)*hz/rate), rows+1)
		}
		w := x.wide(o.Len())
		clear(w)
		for c := range cols {
			triangle(w, c, cols, rows, edges[c], edges[c+1], edges[c+2])
		}
		return x.one(o, storeFloats(o, w))
	}, nil
}

// triangle fills column c with what rises from one row to the next and falls again. The
// edges are a caller's.
func triangle(w []float64, c, cols, rows, left, centre, right int) {
	if left == centre && centre >= 0 && centre < rows {
		w[centre*cols+c] = 1
	}
	for r := max(left, 0); r <= min(centre, rows-1) && left < centre; r++ {
		w[r*cols+c] = (float64(r) - float64(left)) / (float64(centre) - float64(left))
	}
	for r := max(centre, 0); r < min(right, rows); r++ {
		w[r*cols+c] = (float64(right) - float64(r)) / (float64(right) - float64(centre))
	}
}

func init() {
	window := opDef{since: 17, minIn: 1, maxIn: 1, maxOut: 1, accept: intTypes, result: fromBuilder, build: buildWindow}
	register(DomainONNX, map[string]opDef{
		"HannWindow": window, "HammingWindow": window, "BlackmanWindow": window,
		"MelWeightMatrix": {since: 17, minIn: 5, maxIn: 5, maxOut: 1, accept: intTypes, result: fromBuilder, build: buildMelWeights},
	})
	float := opDef{since: 17, minIn: 1, maxIn: 3, maxOut: 1, accept: floatTypes, half: true}
	linearOp("DFT", float, checkFourier, fourier)
	float.minIn, float.maxIn = 2, 4
	linearOp("STFT", float, func(b *builder) error { b.attrs.int("onesided", 1); return nil }, shortFourier)
}
