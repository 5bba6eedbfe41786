package graph

import (
	"context"
	"fmt"
	"slices"
	"unsafe"

	"github.com/pellucid/pellucid/engine"
)

// Kernel computes a node's outputs. in has one tensor for each input of the
// node, nil where it was left out.
type Kernel func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error)

// Exec is what a kernel may use: memory, within the run's limit.
//
// The accounting is an upper bound. A view (Reshape and its kin) shares its
// input's memory, which is counted until its own name is dead.
type Exec struct {
	ctx   context.Context //nolint:containedctx // lives for one Run
	limit int64
	live  int64
	// slack is what buffers of the arena that are in use have beyond their values.
	slack int64
	// threads bounds those of one kernel.
	threads int
	// owned is the bytes held by each slot.
	owned []int64
	inner *int
	// cost is told of each step, nil where nobody asks; base is what runs around this hold.
	cost *Cost
	base int64
	// memory is nil where the run has no arena.
	memory *buffers
	// geometry is what the step that runs remembers, nil where nothing is kept.
	geometry *geometry
	// scratch is nil where a kernel is run apart from a program.
	scratch *scratch
}

// stringBytes is the memory of one string element without its text.
const stringBytes = 16

func tensorBytes(t *engine.Tensor) int64 { return t.Bytes() }

// reserve counts n elements of type d, and fails when the limit is passed.
func (x *Exec) reserve(d engine.DType, n int) error {
	size := int64(d.Size())
	if d == engine.String {
		size = stringBytes
	}
	if size > 0 && int64(n) > (x.limit-x.live-x.slack)/size {
		return fmt.Errorf("allocate %d elements of %s with %d of %d bytes in use, the limit of a run (limits.memory of a server): %w", n, d, x.live+x.slack, x.limit, engine.ErrTooLarge)
	}
	x.live += int64(n) * size
	return nil
}

// New returns a zeroed tensor, or an error wrapping engine.ErrTooLarge.
func (x *Exec) New(d engine.DType, shape ...int) (*engine.Tensor, error) {
	return x.make(d, shape, true)
}

// make is New; where zero is false, the elements may be whatever they are.
func (x *Exec) make(d engine.DType, shape []int, zero bool) (*engine.Tensor, error) {
	if len(shape) > maxRank {
		return nil, fmt.Errorf("a tensor of %d dimensions: %w", len(shape), engine.ErrTooLarge)
	}
	n, err := engine.Elements(shape)
	if err != nil {
		if slices.ContainsFunc(shape, func(d int) bool { return d < 0 }) {
			return nil, misfit("a dimension of the result is below 0")
		}
		return nil, fmt.Errorf("%w: %w", err, engine.ErrTooLarge)
	}
	if err := x.reserve(d, n); err != nil {
		return nil, err
	}
	if t := x.memory.tensor(d, n, shape, zero); t != nil {
		return t, nil
	}
	return engine.New(d, shape...)
}

// maxRank bounds the dimensions of a tensor; NumPy's own bound.
const maxRank = 64

// free gives up dead slots.
func (x *Exec) free(values []*engine.Tensor, slots []int) {
	for _, s := range slots {
		x.memory.dead(values[s])
		values[s] = nil
		x.live -= x.owned[s]
		x.owned[s] = 0
	}
}

// newOf is New for a Go type.
func newOf[T engine.Element](x *Exec, shape ...int) (*engine.Tensor, []T, error) {
	t, err := x.New(dtypeOf[T](), shape...)
	if err != nil {
		return nil, nil, err
	}
	return t, engine.Data[T](t), nil
}

// rawOf is newOf for a kernel that writes every element.
func rawOf[T engine.Element](x *Exec, shape ...int) (*engine.Tensor, []T, error) {
	t, err := x.make(dtypeOf[T](), shape, false)
	if err != nil {
		return nil, nil, err
	}
	return t, engine.Data[T](t), nil
}

// overOf is rawOf for a result of t's shape that may be written over it where t is an
// input of the node that nobody needs any more: each element depends on t's in the
// same place only, and the kernel does not look at t again.
func overOf(x *Exec, t *engine.Tensor) (*engine.Tensor, []float32, error) {
	if x.memory.ours(t) {
		if err := x.reserve(engine.Float32, t.Len()); err != nil {
			return nil, nil, err
		}
		return t, engine.Data[float32](t), nil
	}
	return rawOf[float32](x, t.Shape()...)
}

func dtypeOf[T engine.Element]() engine.DType {
	var zero T
	switch any(zero).(type) {
	case bool:
		return engine.Bool
	case uint8:
		return engine.Uint8
	case uint16:
		return engine.Uint16
	case uint32:
		return engine.Uint32
	case uint64:
		return engine.Uint64
	case int8:
		return engine.Int8
	case int16:
		return engine.Int16
	case int32:
		return engine.Int32
	case int64:
		return engine.Int64
	case float32:
		return engine.Float32
	case float64:
		return engine.Float64
	}
	return engine.String
}

// call runs the step's kernel, in float32 where the operator computes and the
// inputs are half precision.
func (s *step) call(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	if !s.op.lists {
		for i, t := range in[:len(in)-s.node.Captured] {
			if t != nil && t.DType().IsList() {
				return nil, fmt.Errorf("input %d is a %s where a tensor is needed", i, t.DType())
			}
		}
	}
	half := engine.Invalid
	if s.op.half {
		half = halfType(in)
	}
	if half == engine.Invalid {
		return s.kernel(x, in)
	}
	gives := x.gives(false) // what is float32 stays
	wide := x.list(len(in))
	for i, t := range in {
		wide[i] = t
		if t == nil || (t.DType() != engine.Float16 && t.DType() != engine.BFloat16) {
			continue
		}
		w, err := castTensor(x, t, engine.Float32, true)
		if err != nil {
			return nil, err
		}
		wide[i] = w
	}
	out, err := s.kernel(x, wide)
	if err != nil {
		return nil, err
	}
	x.gives(gives)
	for i, t := range out {
		if t == nil || t.DType() != engine.Float32 {
			continue
		}
		if out[i], err = castTensor(x, t, half, true); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func halfType(in []*engine.Tensor) engine.DType {
	for _, t := range in {
		if t != nil && (t.DType() == engine.Float16 || t.DType() == engine.BFloat16) {
			return t.DType()
		}
	}
	return engine.Invalid
}

// SameMemory reports whether two tensors share their elements.
func SameMemory(a, b *engine.Tensor) bool {
	if a == nil || b == nil || a.DType() != b.DType() || a.Len() == 0 || b.Len() == 0 {
		return false
	}
	if a.DType().Storage() == engine.Sequence {
		return true // its elements may be anyone's
	}
	return firstOf(a) == firstOf(b)
}

// firstOf is where a tensor's elements begin, nil where it has none or is a list.
func firstOf(t *engine.Tensor) unsafe.Pointer {
	if t == nil || t.Len() == 0 {
		return nil
	}
	switch t.DType().Storage() {
	case engine.Bool:
		return dataAt[bool](t)
	case engine.Uint8:
		return dataAt[uint8](t)
	case engine.Uint16:
		return dataAt[uint16](t)
	case engine.Uint32:
		return dataAt[uint32](t)
	case engine.Uint64:
		return dataAt[uint64](t)
	case engine.Int8:
		return dataAt[int8](t)
	case engine.Int16:
		return dataAt[int16](t)
	case engine.Int32:
		return dataAt[int32](t)
	case engine.Int64:
		return dataAt[int64](t)
	case engine.Float32:
		return dataAt[float32](t)
	case engine.Float64:
		return dataAt[float64](t)
	case engine.String:
		return dataAt[string](t)
	}
	return nil
}

func dataAt[T engine.Element](t *engine.Tensor) unsafe.Pointer {
	return unsafe.Pointer(unsafe.SliceData(engine.Data[T](t)))
}

// Clone returns a copy of t.
func Clone(t *engine.Tensor) (*engine.Tensor, error) {
	if t.DType() == engine.Nothing {
		return t, nil
	}
	if t.DType() == engine.Sequence {
		items := make([]*engine.Tensor, len(t.Items()))
		for i, item := range t.Items() {
			c, err := Clone(item)
			if err != nil {
				return nil, err
			}
			items[i] = c
		}
		return engine.NewSequence(items), nil
	}
	o, err := engine.New(t.DType(), t.Shape()...)
	if err != nil {
		return nil, err
	}
	moveRun(o, t, 0, 0, t.Len())
	return o, nil
}
