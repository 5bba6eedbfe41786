package engine

// Slab makes tensors that are used together and given up together, such as those of one request:
// what many small ones are made of lies in a few blocks. Whoever keeps one keeps its blocks. The
// zero Slab is ready; its methods are for one goroutine at a time.
type Slab struct {
	tensors  []Tensor
	shapes   []int
	bools    pieces[bool]
	int32s   pieces[int32]
	int64s   pieces[int64]
	float32s pieces[float32]
	float64s pieces[float64]
	strings  pieces[string]
}

// New is New, in the slab's blocks.
func (s *Slab) New(d DType, shape ...int) (*Tensor, error) {
	n, err := Elements(shape)
	if err != nil {
		return nil, err
	}
	var data any
	switch d {
	case Bool:
		data = s.bools.hold(n)
	case Int32:
		data = s.int32s.hold(n)
	case Int64:
		data = s.int64s.hold(n)
	case Float32:
		data = s.float32s.hold(n)
	case Float64:
		data = s.float64s.hold(n)
	case String:
		data = s.strings.hold(n)
	default:
		return New(d, shape...)
	}
	t := &cut(&s.tensors, 1)[0]
	t.dtype, t.data, t.shape = d, data, cut(&s.shapes, len(shape))
	copy(t.shape, shape)
	return t, nil
}

// pieces are the elements of tensors of one type, and the slices of them.
type pieces[T Element] struct {
	elements []T
	slices   [][]T
}

func (p *pieces[T]) hold(n int) any {
	at := &cut(&p.slices, 1)[0]
	*at = cut(&p.elements, n)
	return at
}

// largestBlock bounds what a block has that nobody asked for yet, in elements.
const largestBlock = 256

// cut takes n elements off a block's end, of a new block where it has fewer. The first has no
// more than it is asked for, so that a lone tensor takes what New takes.
func cut[T any](block *[]T, n int) []T {
	b := *block
	if n > cap(b)-len(b) {
		b = make([]T, 0, max(n, min(4*cap(b), largestBlock)))
	}
	*block = b[:len(b)+n]
	return b[len(b) : len(b)+n : len(b)+n]
}
