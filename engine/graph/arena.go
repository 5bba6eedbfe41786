package graph

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/pellucid/pellucid/engine"
)

// Arena keeps the memory of a session's intermediate values from one run to the next,
// with the tensors that were made over it, and what a run itself needs. It belongs to
// one run at a time. What a run returns leaves it: results are the caller's to keep.
//
// A buffer goes back when the last value that has it is dead. Values that share
// memory share a buffer's beginning; those that lists may hold are left to the
// garbage collector.
type Arena struct {
	free []*buffer
	// small are those of few elements or of other types than those of words.
	small []*buffer
	// empty are tensors without elements.
	empty []*engine.Tensor
	// kept is the bytes in free, texts the elements of those of small that have some, made how
	// many buffers none of free did for.
	kept  int64
	texts int
	made  int
	// frames are of the runs within each other, depth of which go on.
	frames []*frame
	depth  int
	// views are tensors over memory that is not the arena's, inputs' say, so many of which
	// the run has in use. brief says that it gives out none of them.
	views  []*engine.Tensor
	viewed int
	brief  bool
	// runs counts those that began.
	runs int
	// derived are what shapes alone decide, by program; keeping is the bytes of them.
	derived map[*Program][]derived
	keeping int64
	// slack says that a run failed while buffers of earlier ones had more than it used.
	slack bool
}

// frame is what a run needs beside its values.
type frame struct {
	run     Run
	exec    Exec
	buffers buffers
	values  []*engine.Tensor
	owned   []int64
	// in are the inputs of the step that runs.
	in      []*engine.Tensor
	scratch scratch
	inner   int
	// kept is what the session keeps of the program's steps, nil where there is no arena.
	kept []derived
	// given and results are what a run within another is given and gives, until the next one
	// as deep begins.
	given   engine.Values
	results []*engine.Tensor
}

// next is the frame of the run that will begin next.
func (a *Arena) next() *frame {
	if a.depth == len(a.frames) {
		a.frames = append(a.frames, &frame{})
	}
	return a.frames[a.depth]
}

// frame returns the one of a run that begins; a is nil where there is no arena.
func (a *Arena) frame() *frame {
	if a == nil {
		return &frame{}
	}
	f := a.next()
	a.depth++
	return f
}

// done ends the run that began last: nothing of what it had is held on to.
func (a *Arena) done(f *frame) {
	if a == nil {
		return
	}
	clear(f.values)
	clear(f.in)
	f.scratch.begin()
	clear(f.scratch.tensors.v)
	for _, l := range f.scratch.lists {
		clear(l[:cap(l)])
	}
	clear(f.buffers.held)
	clear(f.buffers.fresh[:cap(f.buffers.fresh)])
	f.run, f.exec, f.kept = Run{}, Exec{}, nil
	f.buffers.given, f.buffers.fresh, f.buffers.exec = nil, f.buffers.fresh[:0], nil
	if a.depth--; a.depth == 0 {
		a.end()
	}
}

// maxFree bounds the buffers that wait.
const maxFree = 256

// begin prepares for a run that is within no other. Buffers lie as at the beginning of the
// run before, so that one of the same shapes takes the same ones for the same values, whose
// tensors it finds over them.
func (a *Arena) begin(brief bool) {
	a.depth, a.slack = 0, false // whatever a run before ended with
	a.brief, a.viewed = brief, 0
	a.runs++
	if len(a.derived) == mostDerivedPrograms { // of inner graphs of other shapes, maybe
		a.derived, a.keeping = nil, 0
	}
	slices.SortFunc(a.free, func(f, g *buffer) int { return f.id - g.id })
}

// end ends such a run: what it was given and what it gave is not held on to.
func (a *Arena) end() {
	for _, f := range a.frames {
		clear(f.given)
		clear(f.results)
	}
	for _, v := range a.views[:a.viewed] {
		v.Forget()
	}
	a.viewed = 0
}

// mostViews bounds the views that an arena keeps; a loop makes some in every turn.
const mostViews = 512

// view returns t in another shape, as a tensor that may be another's once the run has ended,
// or as one of its own where that would be given out or there are many.
func (a *Arena) view(t *engine.Tensor, shape []int) (*engine.Tensor, error) {
	if !a.brief || a.viewed == mostViews {
		return t.Reshape(shape...)
	}
	if a.viewed == len(a.views) {
		a.views = append(a.views, new(engine.Tensor))
	}
	v := a.views[a.viewed]
	a.viewed++
	return v, v.View(t, shape...)
}

// isView reports whether t is one that the run uses.
func (a *Arena) isView(t *engine.Tensor) bool { return slices.Contains(a.views[:a.viewed], t) }

// take returns a buffer of n elements, whatever they are, or nil where there is
// none that fits well, with at most spare bytes more: the smallest that fits, of those
// the last one used.
func (a *Arena) take(n int, spare int64) *buffer {
	best := -1
	for i, f := range a.free {
		if size := cap(f.v); size >= n && size/4 <= n && 4*int64(size-n) <= spare && (best < 0 || size <= cap(a.free[best].v)) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	f := a.free[best]
	a.free = slices.Delete(a.free, best, best+1)
	a.kept -= 4 * int64(cap(f.v))
	return f
}

// few returns a buffer that was a tensor of this type and shape, or nil.
func (a *Arena) few(d engine.DType, shape []int) *buffer {
	for i := len(a.small) - 1; i >= 0; i-- {
		if f := a.small[i]; f.heads[0].DType() == d && slices.Equal(f.heads[0].Shape(), shape) {
			a.small = slices.Delete(a.small, i, i+1)
			if d == engine.String {
				a.texts -= f.heads[0].Len()
			}
			return f
		}
	}
	return nil
}

// mostEmpty bounds the tensors of no elements that an arena keeps.
const mostEmpty = 64

// none returns a tensor of no elements, which has nothing that could be written over and so
// may be anyone's; nil where there is no such tensor.
func (a *Arena) none(d engine.DType, shape []int) *engine.Tensor {
	for _, t := range a.empty {
		if t.DType() == d && slices.Equal(t.Shape(), shape) {
			return t
		}
	}
	t, err := engine.New(d, shape...)
	if err != nil {
		return nil
	}
	if len(a.empty) < mostEmpty {
		a.empty = append(a.empty, t)
	}
	return t
}

func (a *Arena) give(f *buffer) {
	f.values, f.used = 0, a.runs
	switch {
	case f.v != nil:
		a.free = append(a.free, f)
		a.kept += 4 * int64(cap(f.v))
	case f.heads[0].DType() == engine.String:
		wipe(f.heads[0]) // nobody's text is held on to
		if n := f.heads[0].Len(); a.texts+n <= 4*mostTexts && len(a.small) < maxFree {
			a.texts += n
			a.small = append(a.small, f)
		}
	case len(a.small) < maxFree:
		a.small = append(a.small, f)
	}
}

// trim lets at most limit bytes wait: those that nobody has needed for longest go.
func (a *Arena) trim(limit int64) {
	for len(a.free) > 0 && (len(a.free) > maxFree || a.kept > limit) {
		oldest := 0
		for i, f := range a.free {
			if f.used < a.free[oldest].used {
				oldest = i
			}
		}
		a.kept -= 4 * int64(cap(a.free[oldest].v))
		a.free = slices.Delete(a.free, oldest, oldest+1)
	}
}

// buffer is memory of an arena.
type buffer struct {
	// v is nil where heads[0] is the only one to have the memory, which is small.
	v []float32
	// id is its place in the order in which they were made, used the last run that used it.
	id, used int
	// lent is how many of them the run has that uses it.
	lent int
	// values counts the slots that have it.
	values int
	// heads are the tensors that were made over it. They are immutable as all are, and
	// serve again where one of their shape is asked for. at is where the last one was: a run
	// like the one before asks for them in turn.
	heads []*engine.Tensor
	at    int
}

// mostHeads bounds the tensors that a buffer remembers.
const mostHeads = 128

// head returns a tensor of a type and a shape over the buffer, or nil.
func (f *buffer) head(d engine.DType, shape []int) *engine.Tensor {
	for i := range f.heads {
		k := f.at + i
		if k >= len(f.heads) {
			k -= len(f.heads)
		}
		if t := f.heads[k]; t.DType() == d && slices.Equal(t.Shape(), shape) {
			f.at = k + 1
			return t
		}
	}
	return nil
}

// keep remembers a tensor.
func (f *buffer) keep(t *engine.Tensor) {
	if len(f.heads) == mostHeads {
		clear(f.heads[1:])
		f.heads = f.heads[:1]
	}
	f.heads = append(f.heads, t)
	f.at = len(f.heads)
}

// slack is the bytes that it has beyond its value.
func (f *buffer) slack() int64 {
	if f.v == nil {
		return 0
	}
	return 4 * int64(cap(f.v)-f.lent)
}

// buffers are those of one run, by their first element.
type buffers struct {
	arena *Arena
	exec  *Exec
	held  map[unsafe.Pointer]*buffer
	// fresh are those of the step that runs; off says that it may hide what it makes,
	// adopts that the results of its inner runs are buffers of this one.
	fresh  []*buffer
	off    bool
	adopts bool
	// keeps says that the session keeps what the step makes, gives that the run's caller gets it.
	keeps, gives bool
	// dying are the slots that nobody reads after the step.
	dying []int
	// in and given are the step's inputs, by slot and by value.
	in    []int
	given []*engine.Tensor
}

// of returns t's buffer, nil where it is not one of the arena's.
func (b *buffers) of(t *engine.Tensor) *buffer {
	if p := firstOf(t); p != nil {
		return b.held[p]
	}
	return nil
}

// smallest is from where on a buffer may be of another size than what it is lent for.
const smallest = 64

// mostTexts bounds the elements of a tensor of texts that is kept. Texts hold pointers, and
// so lie in no buffer of words.
const mostTexts = 1 << 12

// small reports whether a tensor of so few elements is kept as it is.
func small(d engine.DType, n int) bool {
	if d == engine.String {
		return n > 0 && n <= mostTexts
	}
	return n > 0 && d.Size() > 0
}

func wipe(t *engine.Tensor) {
	switch t.DType().Storage() {
	case engine.Bool:
		clear(engine.Data[bool](t))
	case engine.Uint8:
		clear(engine.Data[uint8](t))
	case engine.Uint16:
		clear(engine.Data[uint16](t))
	case engine.Uint32:
		clear(engine.Data[uint32](t))
	case engine.Uint64:
		clear(engine.Data[uint64](t))
	case engine.Int8:
		clear(engine.Data[int8](t))
	case engine.Int16:
		clear(engine.Data[int16](t))
	case engine.Int32:
		clear(engine.Data[int32](t))
	case engine.Int64:
		clear(engine.Data[int64](t))
	case engine.Float32:
		clear(engine.Data[float32](t))
	case engine.Float64:
		clear(engine.Data[float64](t))
	case engine.String:
		clear(engine.Data[string](t))
	}
}

// tensor returns a tensor of the run's memory, nil where it should be made anew.
func (b *buffers) tensor(d engine.DType, n int, shape []int, zero bool) *engine.Tensor {
	if b == nil || b.off {
		return nil
	}
	elements := n
	if n = wordsOf(d, n); n < smallest {
		return b.few(d, elements, shape, zero)
	}
	if b.gives && n >= leastGiven {
		return nil
	}
	f := b.arena.take(n, b.exec.limit-b.exec.live-b.exec.slack)
	if f == nil {
		b.trim()
		b.arena.made++
		f = &buffer{v: make([]float32, n), id: b.arena.made}
	} else if zero {
		clear(f.v[:n])
	}
	f.lent = n
	t := f.head(d, shape)
	if t == nil {
		var err error
		if t, err = wordsAs(f.v, d, elements, shape); err != nil {
			return nil
		}
		f.keep(t)
	}
	return b.lend(f, t)
}

// wordsOf is how many of the arena's words n elements take, 0 where they do not lie there.
func wordsOf(d engine.DType, n int) int { return (n*d.Size() + 3) / 4 }

// wordsAs is a tensor of n elements that lie in some words: of at least smallest words, which
// are laid out for elements of 8 bytes.
func wordsAs(v []float32, d engine.DType, n int, shape []int) (*engine.Tensor, error) {
	at := unsafe.Pointer(unsafe.SliceData(v))
	var t *engine.Tensor
	var err error
	switch d.Storage() {
	case engine.Bool:
		t, err = engine.Of(unsafe.Slice((*bool)(at), n), shape...)
	case engine.Uint8:
		t, err = engine.Of(unsafe.Slice((*uint8)(at), n), shape...)
	case engine.Uint16:
		t, err = engine.Of(unsafe.Slice((*uint16)(at), n), shape...)
	case engine.Uint32:
		t, err = engine.Of(unsafe.Slice((*uint32)(at), n), shape...)
	case engine.Uint64:
		t, err = engine.Of(unsafe.Slice((*uint64)(at), n), shape...)
	case engine.Int8:
		t, err = engine.Of(unsafe.Slice((*int8)(at), n), shape...)
	case engine.Int16:
		t, err = engine.Of(unsafe.Slice((*int16)(at), n), shape...)
	case engine.Int32:
		t, err = engine.Of(unsafe.Slice((*int32)(at), n), shape...)
	case engine.Int64:
		t, err = engine.Of(unsafe.Slice((*int64)(at), n), shape...)
	case engine.Float32:
		t, err = engine.Of(v[:n], shape...)
	case engine.Float64:
		t, err = engine.Of(unsafe.Slice((*float64)(at), n), shape...)
	default:
		return nil, fmt.Errorf("a %s in words", d)
	}
	if err != nil || d == d.Storage() {
		return t, err
	}
	return t.As(d)
}

// few is tensor for few elements, or those of another type.
func (b *buffers) few(d engine.DType, n int, shape []int, zero bool) *engine.Tensor {
	if n == 0 {
		return b.arena.none(d, shape)
	}
	if !small(d, n) {
		return nil
	}
	f := b.arena.few(d, shape)
	if f == nil {
		t, err := engine.New(d, shape...)
		if err != nil {
			return nil
		}
		f = &buffer{heads: []*engine.Tensor{t}}
	} else if zero {
		wipe(f.heads[0])
	}
	return b.lend(f, f.heads[0])
}

func (b *buffers) lend(f *buffer, t *engine.Tensor) *engine.Tensor {
	b.held[firstOf(t)] = f
	b.exec.slack += f.slack()
	b.fresh = append(b.fresh, f)
	return t
}

// view returns t in another shape.
func (b *buffers) view(t *engine.Tensor, shape []int) (*engine.Tensor, error) {
	var f *buffer
	if b != nil {
		f = b.of(t)
	}
	switch {
	case b == nil || b.keeps:
		return t.Reshape(shape...)
	case f == nil:
		return b.arena.view(t, shape)
	}
	if known := f.head(t.DType(), shape); known != nil && known.Len() == t.Len() {
		return known, nil
	}
	v, err := t.Reshape(shape...)
	if err == nil {
		f.keep(v)
	}
	return v, err
}

// adopt takes what a run within the step gives, where that was the run's own: it goes
// on as a buffer of this one.
func (b *buffers) adopt(of *buffers, t *engine.Tensor) {
	f := of.of(t)
	if f == nil || !b.adopts {
		return
	}
	delete(of.held, firstOf(t))
	of.exec.slack -= f.slack()
	f.values = 0
	b.lend(f, t)
}

// begin prepares for a step.
func (b *buffers) begin(s *step, in []*engine.Tensor, dying []int) {
	if b == nil {
		return
	}
	b.dying, b.in, b.given = dying, s.in, in
	b.off, b.adopts = s.holds(), s.op.branches || s.op.compose != nil || s.plain
	if b.off {
		b.leave(in)
	}
	b.off, b.adopts = b.off || b.keeps, b.adopts && !b.keeps
}

// leave gives values to the garbage collector.
func (b *buffers) leave(values []*engine.Tensor) {
	for _, t := range values {
		if b.of(t) != nil {
			delete(b.held, firstOf(t))
		}
	}
}

// pin keeps a value of a loop's turn until it is pinned by -1.
func (b *buffers) pin(t *engine.Tensor, by int) {
	if b == nil || b.off {
		return
	}
	if f := b.of(t); f != nil {
		f.values += by
	}
}

// turned gives back what a turn of a loop was given of the one before and did not give on.
func (b *buffers) turned(was, state []*engine.Tensor) {
	if b == nil || b.off {
		return
	}
	for _, t := range was {
		f := b.of(t)
		if f == nil || f.values > 0 {
			continue
		}
		if !slices.ContainsFunc(state, func(o *engine.Tensor) bool { return firstOf(o) == firstOf(t) }) {
			i := len(b.fresh) - 1 // one of the last, where there are many
			for i >= 0 && b.fresh[i] != f {
				i--
			}
			if i >= 0 {
				b.fresh = slices.Delete(b.fresh, i, i+1)
			}
			b.release(f)
		}
	}
}

// end gives back what the step used only itself.
func (b *buffers) end(s *step, out []*engine.Tensor) {
	if b == nil {
		return
	}
	if s.op.branches && slices.ContainsFunc(out, func(t *engine.Tensor) bool { return t != nil && t.DType().IsList() }) {
		// A list may hold what the branch was given, or made.
		b.leave(b.given)
		b.leave(out)
		b.fresh = slices.DeleteFunc(b.fresh, func(f *buffer) bool { return b.of(f.heads[0]) == nil })
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
	delete(b.held, firstOf(f.heads[0]))
	b.exec.slack -= f.slack()
	b.arena.give(f)
	b.trim()
}

// trim holds what waits and what is in use within the run's limit.
func (b *buffers) trim() { b.arena.trim(b.exec.limit - b.exec.live - b.exec.slack) }

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

// leastGiven is how many words a result has for which its step asks for memory that is
// not the arena's: to copy fewer costs nothing that one would notice.
const leastGiven = 1 << 15

// leaves returns a result as the run's caller may have it. What the session keeps is copied,
// and so is what lies in the arena, which stay as they are; but a result that is large, or
// that there is no room for twice, goes with its memory.
func (b *buffers) leaves(t *engine.Tensor) (*engine.Tensor, error) {
	switch f := b.of(t); {
	case t == nil:
	case t.DType().IsList() || b.arena.isKept(t):
		return Clone(t) // a list of whatever is in it
	case f != nil && wordsOf(t.DType(), t.Len()) < leastGiven && tensorBytes(t) <= b.exec.limit-b.exec.live-b.exec.slack:
		return Clone(t)
	case b.arena.isView(t):
		return Clone(t) // what it shares the memory of is an input, or the model's
	case f != nil:
		b.leave([]*engine.Tensor{t})
	}
	return t, nil
}

// settle gives back what the results of a run have left.
func (b *buffers) settle() {
	for _, f := range b.held {
		b.arena.give(f)
	}
	clear(b.held)
}

// ours reports whether t may be written over: it is an input of the step that runs,
// once, and its memory is the run's and nobody else's, now or later.
func (b *buffers) ours(t *engine.Tensor) bool {
	if b == nil || b.off || b.gives && t.Len() >= leastGiven {
		return false
	}
	at := slices.Index(b.given, t)
	if at < 0 || slices.Contains(b.given[at+1:], t) || !slices.Contains(b.dying, b.in[at]) {
		return false
	}
	f := b.of(t)
	return f != nil && f.values == 1
}
