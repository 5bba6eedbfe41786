package qgemm

import (
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/pellucid/pellucid/engine/convolve"
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
			channels, one := 4*(1+r.IntN(12)), [2]int{1, 1}
			w := &convolve.Window{Batch: 1, Height: 5, Width: 6, Channels: channels, Lines: 3, Across: 4, Kernel: [2]int{3, 3}, Strides: one, Dilations: one}
			out, filter := 1+r.IntN(40), (*Filter)(nil)
			if i%2 == 0 {
				out, filter = channels, NewEach(channels, w.Kernel, randomSigned(r, channels*9), nil)
			} else {
				filter = NewFilter(out, channels, w.Kernel, one, randomSigned(r, out*channels*9))
			}
			f := randomFinish(r, out)
			f.Zeros, f.Bytes = nil, fenced(t, r, 12*out)
			filter.Convolve(1, w, fenced(t, r, 30*channels), 7, fenced(t, r, filter.Scratch(w)), f)
			Pool(1, w, fenced(t, r, 12*channels), fenced(t, r, 30*channels), fenced(t, r, PoolScratch(w)))
			a, b, c := fenced(t, r, channels), fenced(t, r, channels), fenced(t, r, channels)
			Add(c, a, b, Scale{1, 2}, Scale{1, 2}, Scale{1, 2}, 0)
			Table(c, a, (*[256]uint8)(fenced(t, r, 256)))
		}
	})
}
