package qgemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
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
					if l < k && f.Zeros != nil {
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

func randomWindow(r *rand.Rand, channels int) *Window {
	w := &Window{Batch: 1 + r.IntN(2), Channels: channels}
	for d := range 3 {
		w.Size[d], w.Kernel[d], w.Strides[d], w.Dilations[d], w.Before[d] = 1+r.IntN(12), 1+r.IntN(3), 1+r.IntN(2), 1+r.IntN(2), r.IntN(2)
		if d == 0 && r.IntN(2) == 0 { // an image
			w.Size[d], w.Kernel[d], w.Before[d] = 1, 1, 0
		}
		if d == 2 && r.IntN(2) == 0 {
			w.Size[d], w.Kernel[d] = w.Size[d]+r.IntN(30), 1+r.IntN(5)
		}
		w.fit(d)
	}
	return w
}

// fit has windows go as far as they do.
func (w *Window) fit(d int) {
	w.Windows[d] = max(1, (w.Size[d]+2*w.Before[d]-(w.Kernel[d]-1)*w.Dilations[d]-1)/w.Strides[d]+1)
}

// windowSums are the exact ones.
func windowSums(w *Window, src []uint8, padding uint8, weights []int8, s Shape, zeros []int32) []int64 {
	sums := make([]int64, w.count()*s.Out)
	for i := range sums {
		o, at := i%s.Out, i/s.Out
		x, y, z, image := at%w.Windows[2], at/w.Windows[2]%w.Windows[1], at/w.Windows[2]/w.Windows[1]%w.Windows[0], at/volumeOf(w.Windows)
		for c := range s.Inner {
			for k := range s.taps() {
				v, inside := int64(padding), true
				place := [3]int{z, y, x}
				for d, tap := range [3]int{k / s.Kernel[2] / s.Kernel[1], k / s.Kernel[2] % s.Kernel[1], k % s.Kernel[2]} {
					place[d] = place[d]*w.Strides[d] + tap*w.Dilations[d] - w.Before[d]
					inside = inside && place[d] >= 0 && place[d] < w.Size[d]
				}
				if inside {
					element := ((image*w.Size[0]+place[0])*w.Size[1]+place[1])*w.Size[2] + place[2]
					v = int64(src[element*w.Channels+o/(s.Out/s.Groups)*s.Inner+c])
				}
				zero := int64(0)
				if zeros != nil {
					zero = int64(zeros[o])
				}
				sums[i] += v * (int64(weights[(o*s.Inner+c)*s.taps()+k]) - zero)
			}
		}
	}
	return sums
}

// filterSize is what a filter's weights take.
func filterSize(f *Filter) (n int64) {
	for _, p := range f.parts {
		n += int64(len(p.weights.panels) + 4*len(p.weights.sums))
	}
	if f.each != nil {
		n += 4 * int64(len(f.each.words)+len(f.each.rows))
	}
	return n
}

// TestConvolve holds convolutions of all forms against sums in 64 bits.
func TestConvolve(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		for i := range 240 {
			s := Shape{Out: 1 + r.IntN(70), Inner: 1 + r.IntN(40), Groups: 1}
			switch i % 3 {
			case 0:
				s.Inner, s.Groups = 1, 1+r.IntN(50)
				s.Out = s.Groups
			case 1:
				s.Inner, s.Groups = 1+r.IntN(9), 1+r.IntN(12)
				s.Out = s.Groups * (1 + r.IntN(6))
			}
			if i%2 == 0 && s.Groups == 1 {
				s.Inner = 16 * (1 + r.IntN(3))
			}
			w := randomWindow(r, s.Groups*s.Inner)
			if i%5 == 0 {
				w.Before = [3]int{}
				for d := range 3 {
					w.fit(d)
				}
			}
			s.Kernel, s.Dilations = w.Kernel, w.Dilations
			src, padding := randomBytes(r, w.Batch*volumeOf(w.Size)*w.Channels), uint8(r.Uint32())
			weights := randomSigned(r, s.Out*s.Inner*s.taps())
			f := randomFinish(r, s.Out)
			zeros := f.Zeros
			f.Zeros = nil
			for o := range zeros {
				zeros[o] *= 20
			}
			filter := NewFilter(s, weights, zeros)
			if size := filterSize(filter); size > FilterBytes(s) {
				t.Fatalf("%+v: a filter of %d bytes, said to be of %d at most", s, size, FilterBytes(s))
			}
			exact := windowSums(w, src, padding, weights, s, zeros)
			scratch := randomBytes(r, filter.Scratch(w))
			sums, floats, bytes := results(f, w.count(), s.Out, func(f *Finish) { filter.Convolve(1+i%2, w, src, padding, scratch, f) })
			wanted(t, f, exact, s.Out, sums, floats, bytes)
			for o, sum := range filter.Sums() {
				for _, v := range weights[o*s.Inner*s.taps():][:s.Inner*s.taps()] {
					if sum -= int32(v); zeros != nil {
						sum += zeros[o]
					}
				}
				if sum != 0 {
					t.Fatalf("the sum of channel %d is %d off", o, sum)
				}
			}
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
			for _, c := range []int{1, 8, 16, 50} {
				sums := make([]int64, c)
				Columns(sums, a[:len(a)/c*c])
				got = append(got, fmt.Sprint(sums))
			}
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
