package qgemm

import (
	"math/rand/v2"
	"syscall"
	"testing"
)

// fenced returns n bytes that end where memory that faults begins.
func fenced(t *testing.T, r *rand.Rand, n int) []uint8 {
	t.Helper()
	page := syscall.Getpagesize()
	size := (n + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, size+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(m) })
	if err := syscall.Mprotect(m[size:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	out := m[size-n : size : size]
	copy(out, randomBytes(r, n))
	return out
}

// TestReadsNothingBehind computes with operands and results that end where memory does.
func TestReadsNothingBehind(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(9, 10))
		for range 100 {
			m, n, k := 1+r.IntN(20), 1+r.IntN(140), Rounded(1+r.IntN(90))
			f := randomFinish(r, n)
			f.Bytes = fenced(t, r, m*n)
			left := Matrix(fenced(t, r, m*k), m, k)
			PackMatrix(false, k, n, randomSigned(r, k*n)).Multiply(1, &left, f)
		}
		for i := range 100 {
			channels, one := 4*(1+r.IntN(12)), [3]int{1, 1, 1}
			w := &Window{Batch: 1, Size: [3]int{1, 5, 6}, Channels: channels, Windows: [3]int{1, 3, 4}, Kernel: [3]int{1, 3, 3}, Strides: one, Dilations: one}
			s := Shape{Out: 1 + r.IntN(40), Inner: channels, Groups: 1, Kernel: w.Kernel, Dilations: one}
			switch i % 3 {
			case 0:
				s.Out, s.Inner, s.Groups = channels, 1, channels
			case 1:
				s.Out, s.Inner, s.Groups = channels, 2, channels/2
			}
			filter, f := NewFilter(s, randomSigned(r, s.Out*s.Inner*9), nil), randomFinish(r, s.Out)
			f.Zeros, f.Bytes = nil, fenced(t, r, 12*s.Out)
			filter.Convolve(1, w, fenced(t, r, 30*channels), 7, fenced(t, r, filter.Scratch(w)), f)
			Pool(1, w, fenced(t, r, 12*channels), fenced(t, r, 30*channels), fenced(t, r, PoolScratch(w)))
			a, b, c := fenced(t, r, channels), fenced(t, r, channels), fenced(t, r, channels)
			Add(c, a, b, Scale{1, 2}, Scale{1, 2}, Scale{1, 2}, 0)
			Columns(make([]int64, channels), fenced(t, r, 7*channels))
			Table(c, a, (*[256]uint8)(fenced(t, r, 256)))
		}
	})
}
