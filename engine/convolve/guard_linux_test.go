package convolve

import (
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"unsafe"
)

// fenced is v in memory that ends, or begins, where memory that faults does.
func fenced(t *testing.T, v []float32, atEnd bool) []float32 {
	t.Helper()
	page := syscall.Getpagesize()
	bytes := (4*len(v) + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, bytes+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(m) })
	for _, fence := range [][]byte{m[:page], m[page+bytes:]} {
		if err := syscall.Mprotect(fence, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	at := page
	if atEnd {
		at += bytes - 4*len(v)
	}
	out := unsafe.Slice((*float32)(unsafe.Pointer(&m[at])), len(v))
	copy(out, v)
	return out
}

// TestSlidesReadNothingAround: images, weights and results lie between pages that cannot
// be read, and the results are those of the kernels that read padded copies.
func TestSlidesReadNothingAround(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(9, 10))
		for i := range 200 {
			w := slidable(r)
			src, weights := noise(r, w.Batch*w.Height*w.Width*w.Channels), noise(r, w.Channels*w.taps())
			e := NewEach(w.Channels, w.taps(), weights, noise(r, w.Channels))
			want := copied(e, &w, src, Finish{Low: -2, High: 2})
			e.weights, e.bias = fenced(t, e.weights, i%2 == 0), fenced(t, e.bias, i%2 == 0)
			dst := fenced(t, make([]float32, len(want)), i%2 == 0)
			e.Convolve(1, &w, dst, fenced(t, src, i%2 == 0), Finish{Low: -2, High: 2})
			if !slices.Equal(dst, want) {
				t.Fatalf("%+v: other numbers than from a padded copy", w)
			}
		}
	})
}
