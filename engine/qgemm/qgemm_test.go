package qgemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine/convolve"
)

func randomBytes(r *rand.Rand, n int) []uint8 {
	v := make([]uint8, n)
	for i := range v {
		switch r.IntN(4) {
		case 0:
			v[i] = 255
		default:
			v[i] = uint8(r.Uint32())
		}
	}
	return v
}

func randomSigned(r *rand.Rand, n int) []int8 {
	v := make([]int8, n)
	for i := range v {
		switch r.IntN(4) {
		case 0:
			v[i] = -128
		case 1:
			v[i] = 127
		default:
			v[i] = int8(r.Uint32())
		}
	}
	return v
}

func randomFinish(r *rand.Rand, n int) *Finish {
	f := &Finish{Whole: make([]int32, n), Scale: make([]float32, n), Shift: make([]float32, n), Low: -90, High: 165, Zero: 90}
	for j := range n {
		f.Whole[j], f.Scale[j], f.Shift[j] = r.Int32N(2000)-1000, r.Float32()*0.001, r.Float32()-0.5
	}
	if r.IntN(3) == 0 {
		f.Zeros = make([]int32, n)
		for j := range f.Zeros {
			f.Zeros[j] = r.Int32N(20) - 10
		}
	}
	return f
}

// results computes f's three forms of what multiply gives.
func results(f *Finish, rows, n int, multiply func(f *Finish)) (sums []int32, floats []float32, bytes []uint8) {
	a, b, c := *f, *f, *f
	a.Sums, b.Floats, c.Bytes = make([]int32, rows*n), make([]float32, rows*n), make([]uint8, rows*n)
	b.Low, b.High = float32(math.Inf(-1)), float32(math.Inf(1))
	for _, f := range []*Finish{&a, &b, &c} {
		multiply(f)
	}
	return a.Sums, b.Floats, c.Bytes
}

// wanted are they from exact sums.
func wanted(t *testing.T, f *Finish, exact []int64, n int, sums []int32, floats []float32, bytes []uint8) {
	t.Helper()
	for i, e := range exact {
		j := i % n
		whole := int32(e) + f.Whole[j]
		v := float32(float32(whole)*f.Scale[j]) + f.Shift[j]
		b := uint8(int32(math.RoundToEven(float64(min(max(v, f.Low), f.High)))) + f.Zero)
		if sums[i] != whole || floats[i] != v || bytes[i] != b {
			t.Fatalf("element %d: %d, %g and %d, want %d, %g and %d", i, sums[i], floats[i], bytes[i], whole, v, b)
		}
	}
}

// TestMultiply holds products of all shapes against sums in 64 bits, to the bit, with the
// bytes whose products are the largest among the elements.
func TestMultiply(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for i := range 200 {
			m, n, k := 1+r.IntN(30), 1+r.IntN(150), 1+r.IntN(300)
			if i%20 == 0 {
				m = 100 + r.IntN(200)
			}
			depth := Rounded(k)
			a, b, trans := randomBytes(r, m*depth), randomSigned(r, k*n), r.IntN(2) == 0
			w, f := PackMatrix(trans, k, n, b), randomFinish(r, n)
			left := Matrix(a, m, depth)
			exact := make([]int64, m*n)
			for at := range exact {
				row, col, sum := at/n, at%n, int64(0)
				for l := range depth {
					v := int64(0)
					if l < k && trans {
						v = int64(b[col*k+l])
					} else if l < k {
						v = int64(b[l*n+col])
					}
					if f.Zeros != nil {
						v -= int64(f.Zeros[col])
					}
					sum += int64(a[row*depth+l]) * v
				}
				exact[at] = sum
			}
			sums, floats, bytes := results(f, m, n, func(f *Finish) { w.Multiply(1+i%3, &left, f) })
			wanted(t, f, exact, n, sums, floats, bytes)
		}
	})
}

// TestSumsWrap has sums that do not fit in 32 bits come out modulo 2^32.
func TestSumsWrap(t *testing.T) {
	onEach(t, func(t *testing.T) {
		const k = 1 << 17
		a, b := slices.Repeat([]uint8{255}, k), slices.Repeat([]int8{-128}, k)
		out := make([]int32, 1)
		left := Matrix(a, 1, k)
		PackMatrix(false, k, 1, b).Multiply(1, &left, &Finish{Whole: []int32{7}, Sums: out})
		exact := int64(-255*128)*k + 7
		if want := int32(exact & math.MaxUint32); out[0] != want {
			t.Errorf("%d, want %d", out[0], want)
		}
	})
}

// TestThen is called for every element once.
func TestThen(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const m, n, k = 230, 150, 64
	seen := make([]int, m*n)
	f := randomFinish(r, n)
	f.Floats = make([]float32, m*n)
	f.Then = func(row, col int, v []float32) {
		for j := range v {
			seen[row*n+col+j]++
		}
	}
	left := Matrix(randomBytes(r, m*k), m, k)
	PackMatrix(false, k, n, randomSigned(r, k*n)).Multiply(1, &left, f)
	if slices.Min(seen) != 1 || slices.Max(seen) != 1 {
		t.Error("not once for each")
	}
}

func randomWindow(r *rand.Rand, channels int) *convolve.Window {
	w := &convolve.Window{Batch: 1 + r.IntN(2), Height: 1 + r.IntN(12), Width: 1 + r.IntN(12), Channels: channels}
	sizes := [2]int{w.Height, w.Width}
	var windows [2]int
	for d := range 2 {
		w.Kernel[d], w.Strides[d], w.Dilations[d], w.Before[d] = 1+r.IntN(3), 1+r.IntN(2), 1+r.IntN(2), r.IntN(2)
		windows[d] = max(1, (sizes[d]+2*w.Before[d]-(w.Kernel[d]-1)*w.Dilations[d]-1)/w.Strides[d]+1)
	}
	w.Lines, w.Across = windows[0], windows[1]
	return w
}

// windowSums are the exact ones.
func windowSums(w *convolve.Window, src []uint8, padding uint8, weights []int8, out int, each bool, zeros []int32) []int64 {
	taps := w.Kernel[0] * w.Kernel[1]
	sums := make([]int64, w.Batch*w.Lines*w.Across*out)
	inner := w.Channels
	if each {
		inner = 1
	}
	for i := range sums {
		o, x, y, image := i%out, i/out%w.Across, i/out/w.Across%w.Lines, i/out/w.Across/w.Lines
		for c := range inner {
			for k := range taps {
				ch := c
				if each {
					ch = o
				}
				v := int64(padding)
				iy, ix := y*w.Strides[0]+k/w.Kernel[1]*w.Dilations[0]-w.Before[0], x*w.Strides[1]+k%w.Kernel[1]*w.Dilations[1]-w.Before[1]
				if iy >= 0 && iy < w.Height && ix >= 0 && ix < w.Width {
					v = int64(src[((image*w.Height+iy)*w.Width+ix)*w.Channels+ch])
				}
				z := int64(0)
				if zeros != nil {
					z = int64(zeros[o])
				}
				sums[i] += v * (int64(weights[(o*inner+c)*taps+k]) - z)
			}
		}
	}
	return sums
}

// TestConvolve holds convolutions of all forms against sums in 64 bits.
func TestConvolve(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		for i := range 300 {
			channels, out, each := 1+r.IntN(40), 1+r.IntN(70), i%3 == 0
			if i%2 == 0 {
				channels = 16 * (1 + r.IntN(3))
			}
			w := randomWindow(r, channels)
			if i%5 == 0 {
				w.Before = [2]int{}
				w.Lines, w.Across = max(1, (w.Height-(w.Kernel[0]-1)*w.Dilations[0]-1)/w.Strides[0]+1), max(1, (w.Width-(w.Kernel[1]-1)*w.Dilations[1]-1)/w.Strides[1]+1)
			}
			src, padding := randomBytes(r, w.Batch*w.Height*w.Width*channels), uint8(r.Uint32())
			var filter *Filter
			var weights []int8
			if each {
				out = channels
				weights = randomSigned(r, channels*w.Kernel[0]*w.Kernel[1])
			} else {
				weights = randomSigned(r, out*channels*w.Kernel[0]*w.Kernel[1])
				filter = NewFilter(out, channels, w.Kernel, w.Dilations, weights)
			}
			f := randomFinish(r, out)
			zeros := f.Zeros
			if each {
				for o := range zeros {
					zeros[o] *= 20
				}
				filter, f.Zeros = NewEach(channels, w.Kernel, weights, zeros), nil
			}
			exact := windowSums(w, src, padding, weights, out, each, zeros)
			scratch := randomBytes(r, filter.Scratch(w))
			sums, floats, bytes := results(f, w.Batch*w.Lines*w.Across, out, func(f *Finish) { filter.Convolve(1+i%2, w, src, padding, scratch, f) })
			wanted(t, f, exact, out, sums, floats, bytes)
		}
	})
}

// TestLoops have all forms give what plain Go does.
func TestLoops(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, n := range []int{0, 1, 15, 16, 33, 1000} {
		a, b, x := randomBytes(r, n+200), randomBytes(r, n), make([]float32, n)
		for i := range x {
			x[i] = float32(r.IntN(900)-300) * 0.0185 // halves of a step among them
		}
		if n > 20 {
			x[3], x[4], x[5] = float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())
		}
		ofA, ofB, to := Scale{0.03, 12}, Scale{0.011, 128}, Scale{0.037, 90}
		offsets := []int{0, 7, 100, 200}
		var table [256]uint8
		for i := range table {
			table[i] = uint8(r.Uint32())
		}
		var first []string
		onEach(t, func(t *testing.T) {
			var got []string
			y, z := make([]uint8, n), make([]float32, n)
			ToBytes(y, x, to)
			got = append(got, string(y))
			ToFloats(z, a[:n], ofA)
			got = append(got, fmt.Sprint(z))
			Add(y, a[:n], b, ofA, ofB, to, 0)
			got = append(got, string(y))
			Mul(y, a[:n], b, ofA, ofB, to, -1000)
			got = append(got, string(y))
			Largest(y, a, offsets)
			got = append(got, string(y))
			Table(y, a[:n], &table)
			got = append(got, string(y))
			low, high := Span(x)
			got = append(got, fmt.Sprint(low, high))
			if first == nil {
				first = got
			}
			for i := range got {
				if got[i] != first[i] {
					t.Errorf("%d elements, loop %d: not the same", n, i)
				}
			}
		})
	}
}

func BenchmarkMultiply(b *testing.B) {
	for _, s := range [][3]int{{1, 512, 512}, {64, 1024, 256}, {784, 64, 576}, {49, 512, 4608}, {512, 512, 512}} {
		m, n, k := s[0], s[1], s[2]
		b.Run(fmt.Sprintf("%dx%dx%d", m, n, k), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			w, f := PackMatrix(false, k, n, randomSigned(r, k*n)), randomFinish(r, n)
			f.Zeros, f.Bytes = nil, make([]uint8, m*n)
			left := Matrix(randomBytes(r, m*k), m, k)
			for b.Loop() {
				w.Multiply(1, &left, f)
			}
			b.ReportMetric(float64(m)*float64(n)*float64(k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GMAC/s")
		})
	}
}
