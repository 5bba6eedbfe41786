package blas

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"
)

// fenced returns n elements that end, or begin, where memory that faults does.
func fenced[T Float](t *testing.T, n int, atEnd bool) []T {
	t.Helper()
	page := syscall.Getpagesize()
	bytes := (n*size[T]() + page - 1) / page * page
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
	if n == 0 {
		return nil
	}
	at := page
	if atEnd {
		at += bytes - n*size[T]()
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&m[at])), n)
}

// TestReadsNothingAround multiplies matrices between pages that cannot be read.
func TestReadsNothingAround(t *testing.T) {
	eachMachine(t, func(t *testing.T) {
		t.Run("float32", readsNothingAround[float32])
		t.Run("float64", readsNothingAround[float64])
	})
}

func readsNothingAround[T Float](t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for i := range 300 {
		m, n, k := 1+r.IntN(40), 1+r.IntN(140), 1+r.IntN(70)
		if i%10 == 0 {
			m, k = 200, depth+r.IntN(40)
		}
		a, b, c := newMatrix[T](r, m, k, r.IntN(2) > 0), newMatrix[T](r, k, n, r.IntN(2) > 0), newMatrix[T](r, m, n, false)
		before := c.clone()
		for _, x := range []*matrix[T]{a, b, c} {
			data := fenced[T](t, len(x.data), i%2 == 0)
			copy(data, x.data)
			x.data = data
		}
		call(t, 1, 1, a, b, 1, c)
		hold(t, 1, a, b, 1, before, c)
	}
}

// TestReadsOnlyWhatIsGiven: Reads, which a benchmark calls, too.
func TestReadsOnlyWhatIsGiven(t *testing.T) {
	eachMachine(t, func(t *testing.T) {
		for _, n := range []int{0, 1, 511, 512, 513, 4096} {
			b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(fenced[float64](t, 512, true)))), 4096)[4096-n:]
			want := n / 512 * 512
			if machine[float32]() == nil {
				want = 0
			}
			if got := Reads(b); got != want {
				t.Errorf("of %d bytes %d were read, want %d", n, got, want)
			}
		}
	})
}
