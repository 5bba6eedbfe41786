package graph

import (
	"sync"
	"unsafe"

	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/vector"
)

// layout is how windows over one or two dimensions read a plane: as phases, one for
// each element of a stride that a window element falls on, padded at their edges.
// In them the elements that one window element meets lie side by side, as far
// apart as the windows, so that whole rows of windows are computed at once. What
// is computed between the rows is thrown away.
type layout struct {
	// rows and pitch are those of a phase, outs and width those of the windows.
	rows, pitch, outs, width int
	height, wide             int // of the plane
	strides, before          [2]int
	// phases are the elements of a stride that are met; offsets are the window
	// elements' places among them.
	phases  [][2]int
	offsets []int
	// plain says that a plane is its only phase as it lies.
	plain bool
}

// newLayout returns the layout of w, nil where it has more than two dimensions or very
// many elements, or would need many times the plane's room.
func newLayout(w *Windows) *layout {
	if len(w.In) > 2 || w.Taps > mostTaps {
		return nil
	}
	in, out, kernel, strides := two(w.In, 1), two(w.Out, 1), two(w.Kernel, 1), two(w.strides, 1)
	dilations, before := two(w.dilations, 1), two(w.before, 0)
	l := &layout{
		outs: out[0], width: out[1], height: in[0], wide: in[1], strides: strides, before: before,
		rows:  out[0] + (kernel[0]-1)*dilations[0]/strides[0],
		pitch: out[1] + (kernel[1]-1)*dilations[1]/strides[1],
	}
	known := map[[2]int]int{}
	for ky := range kernel[0] {
		for kx := range kernel[1] {
			y, x := ky*dilations[0], kx*dilations[1]
			phase := [2]int{y % strides[0], x % strides[1]}
			at, ok := known[phase]
			if !ok {
				at = len(l.phases)
				known[phase] = at
				l.phases = append(l.phases, phase)
			}
			l.offsets = append(l.offsets, at*l.rows*l.pitch+y/strides[0]*l.pitch+x/strides[1])
		}
	}
	if l.size() > mostPadding*(in[0]*in[1]+out[0]*out[1]) {
		return nil
	}
	l.plain = strides == [2]int{1, 1} && before == [2]int{} && l.rows == in[0] && l.pitch == in[1]
	return l
}

// two is a list of one or two dimensions as one of two.
func two(v []int, first int) [2]int {
	if len(v) == 1 {
		return [2]int{first, v[0]}
	}
	return [2]int{v[0], v[1]}
}

// mostTaps is up to how many elements a window has a layout: no longer one are those
// of global pools.
const mostTaps = 1 << 12

// mostPadding bounds what the phases of a plane take, relative to it and the
// windows; windows of few elements far apart are rare.
const mostPadding = 16

// size is the number of elements of a plane's phases.
func (l *layout) size() int { return len(l.phases) * l.rows * l.pitch }

// flat is the number of elements from the first window's of some rows to the last's.
func (l *layout) flat(rows int) int { return (rows-1)*l.pitch + l.width }

// fill lays out a plane, with padding around it.
func fill[T float](l *layout, to, plane []T, padding T) {
	for p, phase := range l.phases {
		for y := range l.rows {
			row := to[(p*l.rows+y)*l.pitch:][:l.pitch]
			from := y*l.strides[0] + phase[0] - l.before[0]
			if from < 0 || from >= l.height {
				pad(row, padding)
				continue
			}
			line := plane[from*l.wide:][:l.wide]
			step, start := l.strides[1], phase[1]-l.before[1]
			// The first and the last element of row that are in line.
			first := min(max(0, (step-1-start)/step), l.pitch)
			end := min(max(first, (l.wide-start+step-1)/step), l.pitch)
			pad(row[:first], padding)
			pad(row[end:], padding)
			if step == 1 {
				copy(row[first:end], line[start+first:])
				continue
			}
			at := start + first*step
			for i := first; i < end; i++ {
				row[i] = line[at]
				at += step
			}
		}
	}
}

func pad[T float](row []T, padding T) {
	for i := range row {
		row[i] = padding
	}
}

// unpadded writes the windows of rows out of flat, which has a pitch's elements each.
func unpadded[T float](l *layout, to, flat []T, rows int) {
	for y := range rows {
		copy(to[y*l.width:][:l.width], flat[y*l.pitch:])
	}
}

// finish is what follows a product: the channel's bias, and a function.
type finish[T float] struct {
	bias     []T
	function *vector.Function
}

func (f *finish[T]) apply(v []T, channel int) {
	w, ok := any(v).([]float32)
	if ok && f.bias != nil && f.function != nil {
		f.function.Add(w, w, any(f.bias).([]float32)[channel])
		return
	}
	if f.bias != nil {
		if ok {
			vector.Binary(vector.Add, w, w, any(f.bias[channel:channel+1]).([]float32))
		} else {
			for i := range v {
				v[i] += f.bias[channel]
			}
		}
	}
	if f.function != nil {
		f.function.Apply(w, w)
	}
}

// columnBytes is how much of the windows' elements is laid out at once: it should
// stay in the second level of cache.
const columnBytes = 384 << 10

// stripRows is how many rows of windows are computed at once where each has depth
// elements of size bytes.
func (l *layout) stripRows(depth, size int) int {
	const fewColumns = 96
	columns := max(columnBytes/(depth*size), fewColumns)
	return min(max(columns/l.pitch, 1), l.outs)
}

// direct is a convolution without a table of windows.
type direct[T float] struct {
	*Conv
	*layout
	finish[T]
	out, in, weights []T
	// planes has the phases of one group's channels, columns a strip of its windows'
	// elements, flat the strip's result.
	planes, columns, flat []T
	strip                 int
}

// needs is the number of elements of scratch memory.
func (d *direct[T]) needs() (planes, columns, flat int) {
	if !d.plain {
		planes = d.Inner * d.size()
	}
	if d.single() {
		return planes, 0, d.layout.flat(d.outs)
	}
	d.strip = d.stripRows(d.Inner*d.Taps, 4)
	if d.Taps == 1 {
		d.strip = d.outs
	}
	if d.Taps > 1 {
		columns = d.Inner * d.Taps * d.layout.flat(d.strip)
	}
	if d.pitch != d.width {
		flat = d.Outer * d.layout.flat(d.strip)
	}
	return planes, columns, flat
}

func isSingle[T float]() bool {
	_, ok := any([]T(nil)).([]float32)
	return ok
}

// group computes one group of channels of one element of the batch.
func (d *direct[T]) group(b int) {
	plane, positions := d.Plane(), d.outs*d.width
	from := d.in[b*d.Inner*plane:][:d.Inner*plane]
	to := d.out[b*d.Outer*positions:][:d.Outer*positions]
	first := b % d.Groups * d.Outer
	planes, size := from, plane
	if !d.plain {
		planes, size = d.planes, d.size()
		for c := range d.Inner {
			fill(d.layout, planes[c*size:][:size], from[c*plane:][:plane], 0)
		}
	}
	if d.single() {
		d.alone(any(to).([]float32), any(planes).([]float32), first)
		return
	}
	depth := d.Inner * d.Taps
	weights := d.weights[first*depth:][:d.Outer*depth]
	for y := 0; y < d.outs; y += d.strip {
		rows := min(d.strip, d.outs-y)
		n := d.layout.flat(rows)
		right, stride := d.columns, n
		if d.Taps == 1 {
			right, stride = planes[d.offsets[0]+y*d.pitch:], size
		} else {
			for c := range d.Inner {
				for k, o := range d.offsets {
					copy(d.columns[(c*d.Taps+k)*n:][:n], planes[c*size+o+y*d.pitch:])
				}
			}
		}
		if d.pitch == d.width {
			blas.Gemm(d.threads, false, false, d.Outer, n, depth, 1, weights, depth, right, stride, 0, to[y*d.width:], positions)
		} else {
			blas.Gemm(d.threads, false, false, d.Outer, n, depth, 1, weights, depth, right, stride, 0, d.flat, n)
		}
		for o := range d.Outer {
			row := to[o*positions+y*d.width:][:rows*d.width]
			if d.pitch != d.width {
				unpadded(d.layout, row, d.flat[o*n:], rows)
			}
			d.finish.apply(row, first+o)
		}
	}
}

// fewOuter is up to how many channels made of one are summed each by itself.
const fewOuter = 4

// single reports whether there is one channel a group, for which sums over its windows
// are faster than a product.
func (d *direct[T]) single() bool { return d.Inner == 1 && d.Outer <= fewOuter && isSingle[T]() }

// alone is a group of one channel: sums over the windows only.
func (d *direct[T]) alone(to, planes []float32, first int) {
	flat, _ := any(d.flat).([]float32)
	weights, _ := any(d.weights).([]float32)
	positions, n := d.outs*d.width, d.layout.flat(d.outs)
	for o := range d.Outer {
		row := to[o*positions:][:positions]
		w, result := weights[(first+o)*d.Taps:][:d.Taps], flat[:n]
		if d.pitch == d.width {
			result = row
		}
		vector.Taps(result, planes, w, d.offsets, 0)
		if d.pitch != d.width {
			unpadded(d.layout, row, result, d.outs)
		}
		d.finish.apply(any(row).([]T), first+o)
	}
}

// room is scratch memory that is used again.
type room struct{ v []float32 }

var rooms = sync.Pool{New: func() any { return new(room) }}

// mostRoom bounds what is kept for the next time.
const mostRoom = 16 << 20

// of returns n elements, whatever they are. More than mostRoom are not kept.
func (r *room) of(n int) []float32 {
	if n > mostRoom {
		return make([]float32, n)
	}
	if cap(r.v) < n {
		r.v = make([]float32, n)
	}
	return r.v[:n]
}

// leastWords is of how many elements memory is laid out for elements of 8 bytes.
const leastWords = 4

// borrowed calls f with n elements, whatever they are.
func borrowed[T float](n int, f func(v []T)) {
	var zero T
	words := n * int(unsafe.Sizeof(zero)) / 4
	if words > mostRoom {
		f(make([]T, n))
		return
	}
	r := rooms.Get().(*room)
	v := r.of(max(words, leastWords))
	f(unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(v))), n))
	rooms.Put(r)
}

// run computes all groups, those of few channels on several threads.
func (d *direct[T]) run(x *Exec) {
	threads, groups := max(x.threads, 1), d.Batch*d.Groups
	if d.Inner > 1 || groups < 2*threads {
		threads = 1
	}
	share(x, threads, groups, *d)
}

func (d *direct[T]) part(from, to int) {
	planes, columns, flat := d.needs()
	borrowed(planes+columns+flat, func(v []T) {
		own := *d
		own.planes, own.columns, own.flat = v[:planes], v[planes:planes+columns], v[planes+columns:]
		for b := from; b < to; b++ {
			own.group(b)
		}
	})
}
