package graph

import (
	"slices"
	"unsafe"

	"github.com/pellucid/pellucid/engine"
)

// Arena keeps the memory of a session's intermediate float32 values from one run to
// the next. It belongs to one run at a time. What a run returns leaves it: results
// are the caller's to keep.
//
// A buffer goes back when the last value that has it is dead. Values that share
// memory share a buffer's beginning; those that lists may hold are left to the
// garbage collector.
type Arena struct {
	free [][]float32
	// kept is the bytes in free, made how many buffers none of them did for.
	kept int64
	made int
}

// maxFree bounds the buffers that wait.
const maxFree = 256

// take returns a buffer of n elements, whatever they are, or nil where there is
// none that fits well: the smallest that fits, of those the last one used.
func (a *Arena) take(n int) []float32 {
	best := -1
	for i, v := range a.free {
		if cap(v) >= n && cap(v)/4 <= n && (best < 0 || cap(v) <= cap(a.free[best])) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	v := a.free[best]
	a.free = append(a.free[:best], a.free[best+1:]...)
	a.kept -= 4 * int64(cap(v))
	return v[:n]
}

func (a *Arena) give(v []float32) {
	a.free = append(a.free, v[:cap(v)])
	a.kept += 4 * int64(cap(v))
}

// trim lets at most limit bytes wait: the oldest, which nobody has needed, go.
func (a *Arena) trim(limit int64) {
	drop := 0
	for ; drop < len(a.free) && (len(a.free)-drop > maxFree || a.kept > limit); drop++ {
		a.kept -= 4 * int64(cap(a.free[drop]))
	}
	if drop > 0 {
		n := copy(a.free, a.free[drop:])
		clear(a.free[n:])
		a.free = a.free[:n]
	}
}

// buffer is memory of an arena during a run.
type buffer struct {
	v []float32
	// values counts the slots that have it.
	values int
}

// buffers are those of one run, by their first element.
type buffers struct {
	arena *Arena
	exec  *Exec
	held  map[*float32]*buffer
	// fresh are those of the step that runs; off says that it may hide what it makes.
	fresh []*buffer
	off   bool
	// dying are the slots that nobody reads after the step.
	dying []int
	// in and given are the step's inputs, by slot and by value.
	in    []int
	given []*engine.Tensor
}

func first(t *engine.Tensor) *float32 {
	if t == nil || t.DType() != engine.Float32 {
		return nil
	}
	return unsafe.SliceData(engine.Data[float32](t))
}

// of returns t's buffer, nil where it is not one of the arena's.
func (b *buffers) of(t *engine.Tensor) *buffer {
	p := first(t)
	if p == nil || t.Len() == 0 {
		return nil
	}
	return b.held[p]
}

// smallest is from where on a buffer is worth keeping.
const smallest = 64

// tensor returns a tensor of the run's memory, nil where it should be made anew.
func (b *buffers) tensor(n int, shape []int, zero bool) *engine.Tensor {
	if b == nil || b.off || n < smallest {
		return nil
	}
	v := b.arena.take(n)
	if v == nil {
		b.trim()
		b.arena.made++
		v = make([]float32, n)
	} else if zero {
		clear(v)
	}
	t, err := engine.Of(v, shape...)
	if err != nil {
		return nil
	}
	f := &buffer{v: v}
	b.held[&v[0]] = f
	b.fresh = append(b.fresh, f)
	return t
}

// begin prepares for a step.
func (b *buffers) begin(s *step, in []*engine.Tensor, dying []int) {
	if b == nil {
		return
	}
	b.dying, b.in, b.given, b.off = dying, s.in, in, s.op.lists
	if !b.off {
		return
	}
	for _, t := range in {
		if f := b.of(t); f != nil {
			delete(b.held, &f.v[0])
		}
	}
}

// end gives back what the step used only itself.
func (b *buffers) end(s *step, out []*engine.Tensor) {
	if b == nil {
		return
	}
	for i, slot := range s.out {
		if slot >= 0 {
			if f := b.of(out[i]); f != nil {
				f.values++
			}
		}
	}
	for _, f := range b.fresh {
		if f.values == 0 {
			b.release(f)
		}
	}
	b.fresh = b.fresh[:0]
}

func (b *buffers) release(f *buffer) {
	delete(b.held, &f.v[0])
	b.arena.give(f.v)
	b.trim()
}

// trim holds what waits and what is in use within the run's limit.
func (b *buffers) trim() { b.arena.trim(b.exec.limit - b.exec.live) }

// dead gives up a slot's value.
func (b *buffers) dead(t *engine.Tensor) {
	if b == nil {
		return
	}
	if f := b.of(t); f != nil {
		if f.values--; f.values <= 0 {
			b.release(f)
		}
	}
}

// ours reports whether t may be written over: it is an input of the step that runs,
// once, and its memory is the run's and nobody else's, now or later.
func (b *buffers) ours(t *engine.Tensor) bool {
	if b == nil || b.off {
		return false
	}
	at := slices.Index(b.given, t)
	if at < 0 || slices.Contains(b.given[at+1:], t) || !slices.Contains(b.dying, b.in[at]) {
		return false
	}
	f := b.of(t)
	return f != nil && f.values == 1
}
