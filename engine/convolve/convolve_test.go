package convolve

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/pellucid/pellucid/engine/vector"
)

func noise(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// Any work is shared here.
func init() { crewWorth = func(threads int, _ time.Duration) int { return max(threads, 1) } }

// geometry is random, with dimensions around the tiles'.
func geometry(r *rand.Rand) Window {
	w := Window{Batch: 1 + r.IntN(3), Height: 1 + r.IntN(20), Width: 1 + r.IntN(40), Channels: 1 + r.IntN(40)}
	if r.IntN(5) == 0 {
		w.Width = 1
	}
	if r.IntN(6) == 0 { // more images than windows on a line
		w.Batch, w.Height, w.Width = 2+r.IntN(30), 1+r.IntN(3), 1+r.IntN(6)
	}
	for d, size := range []int{w.Height, w.Width} {
		w.Kernel[d], w.Strides[d], w.Dilations[d] = 1+r.IntN(4), 1+r.IntN(3), 1+r.IntN(2)
		w.Before[d] = r.IntN(w.Kernel[d])
		if r.IntN(3) == 0 {
			w.Kernel[d], w.Strides[d], w.Before[d] = 1, 1, 0
		}
		reach := (w.Kernel[d]-1)*w.Dilations[d] + 1
		windows := max(1, (size+2*w.Before[d]-reach)/w.Strides[d]+1)
		if d == 0 {
			w.Lines = windows
		} else {
			w.Across = windows
		}
	}
	return w
}

// element is window (n, y, x)'s element of tap (ky, kx) and channel c.
func (w *Window) element(src []float32, n, y, x, ky, kx, c int, padding float64) float64 {
	at := [2]int{y*w.Strides[0] + ky*w.Dilations[0] - w.Before[0], x*w.Strides[1] + kx*w.Dilations[1] - w.Before[1]}
	if at[0] < 0 || at[0] >= w.Height || at[1] < 0 || at[1] >= w.Width {
		return padding
	}
	return float64(src[((n*w.Height+at[0])*w.Width+at[1])*w.Channels+c])
}

// windows calls f for each.
func (w *Window) windows(f func(i, n, y, x int)) {
	for i := range w.Batch * w.Lines * w.Across {
		f(i, i/w.Across/w.Lines, i/w.Across%w.Lines, i%w.Across)
	}
}

func ends(r *rand.Rand, n int) Finish {
	f := Finish{Low: float32(math.Inf(-1)), High: float32(math.Inf(1))}
	if r.IntN(2) == 0 {
		f.Low, f.High = 0, 3
	}
	if r.IntN(3) == 0 {
		f.Then = vector.Tanh
	}
	if n > 0 && r.IntN(2) == 0 {
		f.Add = noise(r, n)
	}
	return f
}

func (f *Finish) of(v float64, i int) float64 {
	if f.Add != nil {
		v += float64(f.Add[i])
	}
	v = min(max(v, float64(f.Low)), float64(f.High))
	if f.Then != nil {
		v = math.Tanh(v)
	}
	return v
}

// guarded is a slice amid others, in which nothing may be written.
func guarded(n int) (all, v []float32) {
	all = make([]float32, n+128)
	for i := range all {
		all[i] = 12345
	}
	return all, all[64 : 64+n : 64+n]
}

func held(t *testing.T, all []float32) {
	t.Helper()
	for i := range 64 {
		if all[i] != 12345 || all[len(all)-1-i] != 12345 {
			t.Fatal("written outside of dst")
		}
	}
}

// TestFilter holds random convolutions against their definition, with each set of
// kernels, with the same bits by AVX2 and AVX-512, on three threads, and for an image
// alone.
func TestFilter(t *testing.T) {
	results := map[string][][]float32{}
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		var all [][]float32
		cases := 300
		if kernels == nil {
			cases = 60 // plain Go is slow, under the race detector much so
		}
		for i := range cases {
			w, groups := geometry(r), 1
			if i%3 == 0 {
				groups = 2 + r.IntN(4)
			}
			in, each := (w.Channels+groups-1)/groups, 1+r.IntN(90/groups)
			out := groups * each
			w.Channels = groups * in
			src, weights := noise(r, w.Batch*w.Height*w.Width*w.Channels), noise(r, out*in*w.taps())
			var bias []float32
			if i%3 > 0 {
				bias = noise(r, out)
			}
			guard, dst := guarded(w.Batch * w.Lines * w.Across * out)
			end := ends(r, len(dst))
			f := NewGrouped(groups, each, in, w.taps(), weights, bias)
			f.Convolve(1, &w, dst, src, end)
			held(t, guard)
			w.windows(func(i, n, y, x int) {
				for o := range out {
					sum := 0.0
					if bias != nil {
						sum = float64(bias[o])
					}
					for tap := range w.taps() {
						for c := range in {
							sum += w.element(src, n, y, x, tap/w.Kernel[1], tap%w.Kernel[1], o/each*in+c, 0) * float64(weights[(o*in+c)*w.taps()+tap])
						}
					}
					near(t, &w, dst[i*out+o], end.of(sum, i*out+o))
				}
			})
			three := make([]float32, len(dst))
			f.Convolve(3, &w, three, src, end)
			if !slices.Equal(dst, three) {
				t.Fatalf("%+v: other bits on three threads", w)
			}
			one := w
			one.Batch = 1
			per := len(dst) / w.Batch
			if end.Add != nil {
				end.Add = end.Add[len(dst)-per:]
			}
			f.Convolve(1, &one, three[:per], src[len(src)-len(src)/w.Batch:], end)
			if !slices.Equal(dst[len(dst)-per:], three[:per]) {
				t.Fatalf("%+v: other bits for an image alone", w)
			}
			all = append(all, dst)
		}
		results[t.Name()] = all
	})
	sameByKernels(t, results)
}

// TestNarrow: filters in 8 and 16 bits have the bits of those of the floats that they are of.
func TestNarrow(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(11, 12))
		for i := range 120 {
			w := geometry(r)
			out, taps := 1+r.IntN(90), w.taps()
			n := out * w.Channels * taps
			from, wide := Narrow{Scale: noise(r, out)}, make([]float32, n)
			per := n / out
			if i%2 == 0 {
				from.Zero, from.Bytes = make([]float32, out), make([]int8, n)
				for o := range from.Zero {
					from.Zero[o] = float32(r.IntN(9) - 4)
				}
				for k := range from.Bytes {
					from.Bytes[k] = int8(r.Uint32())
					wide[k] = (float32(from.Bytes[k]) - from.Zero[k/per]) * from.Scale[k/per]
				}
			} else {
				from.Halves, from.Precision = make([]uint16, n), []vector.Precision{vector.Half, vector.Brain}[i/2%2]
				vector.Narrow(from.Precision, from.Halves, noise(r, n))
				vector.Widen(from.Precision, wide, from.Halves)
				if i%3 == 0 {
					from.Scale = nil
				}
				for k := range wide {
					if from.Scale != nil {
						wide[k] *= from.Scale[k/per]
					}
				}
			}
			src, bias := noise(r, w.Batch*w.Height*w.Width*w.Channels), noise(r, out)
			_, dst := guarded(w.Batch * w.Lines * w.Across * out)
			want := make([]float32, len(dst))
			end := ends(r, len(dst))
			NewFilter(out, w.Channels, taps, wide, bias).Convolve(1, &w, want, src, end)
			NewNarrow(out, w.Channels, taps, from, bias).Convolve(1+i%3, &w, dst, src, end)
			for k, v := range want {
				if dst[k] != v {
					t.Fatalf("%+v, element %d: %v, want %v", w, k, dst[k], v)
				}
			}
		}
	})
}

func near(t *testing.T, w *Window, got float32, want float64) {
	t.Helper()
	if math.Abs(float64(got)-want) > 1e-4 {
		t.Fatalf("%+v: %v, want %v", *w, got, want)
	}
}

// sameByKernels holds the results of AVX2 against those of AVX-512.
func sameByKernels(t *testing.T, results map[string][][]float32) {
	t.Helper()
	best, avx2 := results[t.Name()+"/best"], results[t.Name()+"/avx2"]
	for i := range avx2 {
		if !slices.Equal(best[i], avx2[i]) {
			t.Fatalf("case %d: AVX2 and the best kernels give other bits", i)
		}
	}
}

// TestWinograd holds Winograd's algorithm against sums, with the same bits by AVX2 and
// AVX-512, on three threads, and for an image alone; an element that is no number
// reaches the windows that meet it only.
func TestWinograd(t *testing.T) {
	results := map[string][][]float32{}
	onEach(t, func(t *testing.T) {
		if kernels == nil {
			if NewWinograd(NewFilter(32, 32, 9, make([]float32, 32*32*9), nil), make([]float32, 32*32*9), nil) != nil {
				t.Fatal("there are no kernels for it")
			}
			return
		}
		r := rand.New(rand.NewPCG(7, 8))
		var all [][]float32
		for range 60 {
			w := Window{
				Batch: 1 + r.IntN(3), Height: 12 + r.IntN(22), Width: 12 + r.IntN(22), Channels: 16 * (2 + r.IntN(3)),
				Kernel: [2]int{3, 3}, Strides: [2]int{1, 1}, Dilations: [2]int{1, 1}, Before: [2]int{r.IntN(3), r.IntN(3)},
			}
			w.Lines, w.Across = w.Height+w.Before[0]+r.IntN(2)-2, w.Width+w.Before[1]+r.IntN(2)-2
			out := 16 * (2 + r.IntN(5))
			src, weights, bias := noise(r, w.Batch*w.Height*w.Width*w.Channels), noise(r, 9*out*w.Channels), noise(r, out)
			plain := NewFilter(out, w.Channels, 9, weights, bias)
			f := NewWinograd(plain, weights, bias)
			if !f.Suits(&w) {
				continue
			}
			guard, dst := guarded(w.Batch * w.Lines * w.Across * out)
			want := make([]float32, len(dst))
			end := ends(r, len(dst))
			f.Convolve(1, &w, dst, src, end)
			held(t, guard)
			plain.Convolve(1, &w, want, src, end)
			for i, v := range want {
				if math.Abs(float64(v)-float64(dst[i])) > 2e-5*math.Sqrt(float64(9*w.Channels)) {
					t.Fatalf("%+v: element %d is %v, want %v", w, i, dst[i], v)
				}
			}
			got := make([]float32, len(dst))
			f.Convolve(3, &w, got, src, end)
			if !slices.Equal(dst, got) {
				t.Fatalf("%+v: other bits on three threads", w)
			}
			one, per, finish := w, len(dst)/w.Batch, end
			one.Batch = 1
			if end.Add != nil {
				finish.Add = end.Add[len(dst)-per:]
			}
			f.Convolve(1, &one, got[:per], src[len(src)-len(src)/w.Batch:], finish)
			if !slices.Equal(dst[len(dst)-per:], got[:per]) {
				t.Fatalf("%+v: other bits for an image alone", w)
			}
			all = append(all, dst)
			src[r.IntN(len(src))] = float32(math.Inf(1))
			f.Convolve(1, &w, got, src, Finish{Low: -9, High: 9})
			plain.Convolve(1, &w, want, src, Finish{Low: -9, High: 9})
			for i, v := range want {
				if v != v || math.Abs(float64(v)-float64(got[i])) > 5e-5*math.Sqrt(float64(9*w.Channels)) {
					t.Fatalf("%+v: element %d is %v with an infinity, want %v", w, i, got[i], v)
				}
			}
		}
		if len(all) < 40 {
			t.Fatalf("only %d cases", len(all))
		}
		results[t.Name()] = all
	})
	sameByKernels(t, results)
}

// TestEach is TestFilter for convolutions of each channel by itself and for the largest
// elements of windows.
func TestEach(t *testing.T) {
	results := map[string][][]float32{}
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		var all [][]float32
		for i := range 300 {
			w := geometry(r)
			src, weights, bias := noise(r, w.Batch*w.Height*w.Width*w.Channels), noise(r, w.Channels*w.taps()), noise(r, w.Channels)
			guard, dst := guarded(w.Batch * w.Lines * w.Across * w.Channels)
			end := ends(r, 0)
			largest := i%2 == 0
			e := NewEach(w.Channels, w.taps(), weights, bias)
			if largest {
				e = Largest(w.Channels, w.taps())
			}
			e.Convolve(1, &w, dst, src, end)
			held(t, guard)
			w.windows(func(i, n, y, x int) {
				for c := range w.Channels {
					sum, most := float64(bias[c]), math.Inf(-1)
					for tap := range w.taps() {
						v := w.element(src, n, y, x, tap/w.Kernel[1], tap%w.Kernel[1], c, math.Inf(-1))
						if most = max(most, v); !math.IsInf(v, 0) {
							sum += v * float64(weights[c*w.taps()+tap])
						}
					}
					if largest {
						sum = most
					}
					if want := end.of(sum, 0); !math.IsInf(want, 0) {
						near(t, &w, dst[i*w.Channels+c], want)
					}
				}
			})
			three := make([]float32, len(dst))
			e.Convolve(3, &w, three, src, end)
			if !slices.Equal(dst, three) {
				t.Fatalf("%+v: other bits on three threads", w)
			}
			all = append(all, dst)
		}
		results[t.Name()] = all
	})
	sameByKernels(t, results)
}

// slidable is a random geometry that slides take: windows that meet edges, and images that
// are smaller than windows among them.
func slidable(r *rand.Rand) Window {
	w := Window{Batch: 1 + r.IntN(2), Height: 1 + r.IntN(12), Channels: 1 + r.IntN(70), Dilations: [2]int{1, 1}}
	w.Kernel = [2]int{1 + r.IntN(8), 3 + 2*r.IntN(3)}
	w.Width = w.Kernel[1] + r.IntN(40)
	for d, size := range []int{w.Height, w.Width} {
		w.Strides[d] = 1 + r.IntN(2)
		w.Before[d] = r.IntN(w.Kernel[d])
		windows := 1 + (size+w.Before[d]-1)/w.Strides[d] // as many as begin within
		if d == 0 {
			w.Lines = 1 + r.IntN(windows)
		} else {
			w.Across = 1 + r.IntN(windows)
		}
	}
	return w
}

// copied is what the kernels make that load each element once a tap, of a padded copy.
func copied(e *Each, w *Window, src []float32, end Finish) []float32 {
	other := *e
	other.finite = false
	dst := make([]float32, w.Batch*w.Lines*w.Across*w.Channels)
	other.Convolve(1, w, dst, src, end)
	return dst
}

// TestSlides holds the kernels that slide against those that do not: the same numbers,
// for one thread and three, by AVX2 and AVX-512.
func TestSlides(t *testing.T) {
	results := map[string][][]float32{}
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(11, 12))
		var all [][]float32
		slid := 0
		for i := range 600 {
			w := slidable(r)
			if i%8 == 0 { // crowded
				w.Channels = 256 * (1 + r.IntN(4))
			}
			src, weights := noise(r, w.Batch*w.Height*w.Width*w.Channels), noise(r, w.Channels*w.taps())
			e := NewEach(w.Channels, w.taps(), weights, noise(r, w.Channels))
			if u := w.upright(); e.slide(&u) != nil {
				slid++
			}
			end := ends(r, 0)
			want := copied(e, &w, src, end)
			for threads := 1; threads <= 3; threads += 2 {
				guard, dst := guarded(len(want))
				e.Convolve(threads, &w, dst, src, end)
				held(t, guard)
				if !slices.Equal(dst, want) {
					t.Fatalf("%+v, %d threads: other numbers than from a padded copy", w, threads)
				}
			}
			all = append(all, want)
		}
		if kernels != nil && slid < 500 {
			t.Fatalf("only %d of 600 slid", slid)
		}
		results[t.Name()] = all
	})
	sameByKernels(t, results)
}

// TestWeightsThatAreNoNumbers meet padding too: zero times infinity is none.
func TestWeightsThatAreNoNumbers(t *testing.T) {
	onEach(t, func(t *testing.T) {
		weights := make([]float32, 9)
		weights[0] = float32(math.Inf(1)) // of the tap above and before
		e := NewEach(1, 9, weights, nil)
		w := Window{Batch: 1, Height: 3, Width: 3, Channels: 1, Lines: 3, Across: 3, Kernel: [2]int{3, 3}, Strides: [2]int{1, 1}, Dilations: [2]int{1, 1}, Before: [2]int{1, 1}}
		src, dst := make([]float32, 9), make([]float32, 9)
		fill(src, 1)
		e.Convolve(1, &w, dst, src, Finish{Low: float32(math.Inf(-1)), High: float32(math.Inf(1))})
		for i, v := range dst {
			if meets := i < 3 || i%3 == 0; meets != (v != v) {
				t.Fatalf("element %d is %v", i, v)
			}
		}
	})
}

// TestNotNumbersStay: windows that meet one give one, bounds or not; others do not.
func TestNotNumbersStay(t *testing.T) {
	onEach(t, func(t *testing.T) {
		nan := float32(math.NaN())
		w := Window{Batch: 1, Height: 1, Width: 40, Channels: 19, Lines: 1, Across: 38, Kernel: [2]int{1, 3}, Strides: [2]int{1, 1}, Dilations: [2]int{1, 1}}
		src := make([]float32, w.Width*w.Channels)
		src[20*w.Channels+18] = nan
		ones := make([]float32, 33*19*3)
		fill(ones, 1)
		dst := make([]float32, w.Across*33)
		NewFilter(33, 19, 3, ones, nil).Convolve(1, &w, dst, src, Finish{High: 6})
		for i, v := range dst {
			if met := i/33 >= 18 && i/33 <= 20; (v != v) != met {
				t.Fatalf("element %d of the convolution is %v", i, v)
			}
		}
		for _, e := range []*Each{Largest(19, 3), NewEach(19, 3, ones[:19*3], nil)} {
			dst := make([]float32, w.Across*19)
			e.Convolve(1, &w, dst, src, Finish{Low: -1, High: 6})
			for i, v := range dst {
				if met := i%19 == 18 && i/19 >= 18 && i/19 <= 20; (v != v) != met {
					t.Fatalf("element %d, channel by channel, is %v", i, v)
				}
			}
		}
	})
}

func TestRows(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		for n := 1; n < 40; n++ {
			src, scale, shift := noise(r, 5*n), noise(r, n), noise(r, n)
			for form := range 3 {
				guard, dst := guarded(len(src))
				a, b := scale, shift
				switch form {
				case 1:
					a = nil
				case 2:
					b = nil
				}
				Rows(dst, src, a, b)
				held(t, guard)
				for i, v := range src {
					want := float64(v)
					if a != nil {
						want *= float64(a[i%n])
					}
					if b != nil {
						want += float64(b[i%n])
					}
					if math.Abs(float64(dst[i])-want) > 1e-6 {
						t.Fatalf("element %d of rows of %d is %v, want %v", i, n, dst[i], want)
					}
				}
			}
		}
	})
}

// TestSizesAreChecked: what contradicts itself panics before anything is read.
func TestSizesAreChecked(t *testing.T) {
	good := Window{Batch: 1, Height: 4, Width: 4, Channels: 2, Lines: 4, Across: 4, Kernel: [2]int{3, 3}, Strides: [2]int{1, 1}, Dilations: [2]int{1, 1}, Before: [2]int{1, 1}}
	f := NewFilter(3, 2, 9, make([]float32, 54), nil)
	for i, change := range []func(w *Window){
		func(w *Window) { w.Batch = 0 }, func(w *Window) { w.Height = 5 }, func(w *Window) { w.Lines = 5 },
		func(w *Window) { w.Kernel[0] = 2 }, func(w *Window) { w.Strides[1] = 0 }, func(w *Window) { w.Before[0] = -1 },
	} {
		w := good
		change(&w)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("change %d is taken", i)
				}
			}()
			f.Convolve(1, &w, make([]float32, 48), make([]float32, 32), Finish{})
		}()
	}
	f.Convolve(1, &good, make([]float32, 48), make([]float32, 32), Finish{})
}

func BenchmarkFilter(b *testing.B) {
	for _, s := range [][4]int{{56, 64, 64, -3}, {28, 128, 128, -3}, {14, 256, 256, -3}, {160, 16, 16, -3}, {80, 32, 32, -3}, {40, 64, 64, -3}, {20, 128, 128, -3}, {56, 64, 64, 3}, {28, 128, 128, 3}, {14, 256, 256, 3}, {7, 512, 512, 3}, {80, 32, 32, 3}, {160, 16, 16, 3}, {40, 64, 128, 1}, {20, 256, 128, 1}} {
		b.Run(fmt.Sprint(s), func(b *testing.B) {
			fast := s[3] < 0
			s[3] = max(s[3], -s[3])
			w := Window{Batch: 1, Height: s[0], Width: s[0], Channels: s[1], Lines: s[0], Across: s[0], Kernel: [2]int{s[3], s[3]}, Strides: [2]int{1, 1}, Dilations: [2]int{1, 1}, Before: [2]int{s[3] / 2, s[3] / 2}}
			weights := make([]float32, s[1]*s[2]*s[3]*s[3])
			f := NewFilter(s[2], s[1], s[3]*s[3], weights, nil)
			winograd := NewWinograd(f, weights, nil)
			dst, src := make([]float32, s[0]*s[0]*s[2]), make([]float32, s[0]*s[0]*s[1])
			for b.Loop() {
				if fast && winograd != nil {
					winograd.Convolve(1, &w, dst, src, Finish{})
				} else {
					f.Convolve(1, &w, dst, src, Finish{})
				}
			}
			flops := 2 * float64(len(dst)) * float64(s[1]*s[3]*s[3])
			b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOPS")
		})
	}
}

// BenchmarkEach has the depthwise convolutions of a MobileNetV2, a ConvNeXt and of PP-OCR's
// classifier and recogniser: height, width, channels, kernel, strides.
func BenchmarkEach(b *testing.B) {
	for _, s := range [][6]int{
		{112, 112, 32, 3, 1, 1},
		{112, 112, 96, 3, 2, 2},
		{56, 56, 144, 3, 1, 1},
		{56, 56, 144, 3, 2, 2},
		{28, 28, 192, 3, 1, 1},
		{14, 14, 384, 3, 1, 1},
		{14, 14, 576, 3, 2, 2},
		{7, 7, 960, 3, 1, 1},
		{24, 96, 8, 3, 2, 1},
		{12, 96, 24, 3, 2, 1},
		{6, 96, 40, 5, 1, 1},
		{6, 96, 96, 5, 2, 1},
		{24, 24, 96, 5, 1, 1},
		{28, 28, 120, 5, 1, 1},
		{56, 56, 72, 5, 2, 2},
		{14, 14, 512, 3, 1, 1},
		{14, 14, 528, 3, 1, 1},
		{28, 28, 256, 3, 1, 1},
		{56, 56, 128, 3, 1, 1},
		{7, 7, 1024, 3, 1, 1},
		{10, 10, 480, 5, 1, 1},
		{56, 56, 96, 7, 1, 1},
		{32, 32, 768, 7, 1, 1},
		{14, 14, 320, 7, 1, 1},
		{7, 7, 640, 7, 1, 1},
	} {
		b.Run(fmt.Sprint(s), func(b *testing.B) {
			w := Window{Batch: 1, Height: s[0], Width: s[1], Channels: s[2], Lines: (s[0]-1)/s[4] + 1, Across: (s[1]-1)/s[5] + 1, Kernel: [2]int{s[3], s[3]}, Strides: [2]int{s[4], s[5]}, Dilations: [2]int{1, 1}, Before: [2]int{s[3] / 2, s[3] / 2}}
			e := NewEach(s[2], s[3]*s[3], make([]float32, s[2]*s[3]*s[3]), nil)
			dst, src := make([]float32, w.Lines*w.Across*s[2]), make([]float32, s[0]*s[1]*s[2])
			for b.Loop() {
				e.Convolve(1, &w, dst, src, Finish{High: 6})
			}
			flops := 2 * float64(len(dst)*s[3]*s[3])
			b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOPS")
		})
	}
}

// TestWinogradOnAnyCores: the same weights, whoever transforms them and by which kernels,
// and they are those of the algorithm.
func TestWinogradOnAnyCores(t *testing.T) {
	const out, in = 80, 48 // the last panel is not full
	weights := noise(rand.New(rand.NewPCG(8, 8)), out*in*9)
	results := map[string][][]float32{}
	onEach(t, func(t *testing.T) {
		f := NewFilter(out, in, 9, weights, nil)
		var first *Winograd
		for _, cores := range []int{1, 2, 7} {
			before := runtime.GOMAXPROCS(cores)
			w := NewWinograd(f, weights, nil)
			runtime.GOMAXPROCS(before)
			if (w == nil) == Winogradable(out, in, 9) {
				t.Fatalf("%d cores: made %t, possible here %t", cores, w != nil, Winogradable(out, in, 9))
			}
			if w == nil {
				continue // plain Go has no form of it
			}
			if first == nil {
				first = w
			}
			for k, p := range w.planes {
				if !slices.Equal(p.panels, first.planes[k].panels) {
					t.Fatalf("%d cores: plane %d differs", cores, k)
				}
				var plane []float32
				for o := range out {
					for c := range in {
						plane = append(plane, p.panels[(o/p.width*in+c)*p.width+o%p.width])
						got := float64(plane[len(plane)-1])
						want, scale := weighed(weights[9*(o*in+c):][:9], k/squareSide, k%squareSide)
						if math.Abs(got-want) > 0x1p-24*1.0001*math.Abs(want)+1e-14*scale {
							t.Fatalf("%d cores: weight %d of %d to %d is %v, want %v", cores, k, c, o, got, want)
						}
					}
				}
				results[t.Name()] = append(results[t.Name()], plane)
			}
		}
	})
	sameByKernels(t, results)
}

// weighed is the value at points i and j of the polynomial of nine taps, each point's
// divided by the product of its distances to the others; and the sum of its terms' sizes.
func weighed(taps []float32, i, j int) (value, scale float64) {
	points := []float64{0, 11.0 / 16, -11.0 / 16, 1.5, -1.5}
	powers := func(i int) (p [3]float64) {
		if i == len(points) {
			return [3]float64{0, 0, 1}
		}
		product := 1.0
		for k, other := range points {
			if k != i {
				product *= points[i] - other
			}
		}
		return [3]float64{1 / product, points[i] / product, points[i] * points[i] / product}
	}
	for y, a := range powers(i) {
		for x, b := range powers(j) {
			term := a * b * float64(taps[3*y+x])
			value, scale = value+term, scale+math.Abs(term)
		}
	}
	return value, scale
}

// TestErrors: the root mean square error of Winograd's algorithm is at most two and a half
// times that of adding one product after the other, and that of sums, which are of
// several chains, less, for elements around zero and those after a Relu.
func TestErrors(t *testing.T) {
	if !Winogradable(64, 64, 9) {
		return // this processor has no kernels of it
	}
	r := rand.New(rand.NewPCG(5, 9))
	const channels, size = 64, 28
	w := Window{
		Batch: 1, Height: size, Width: size, Channels: channels, Lines: size - 2, Across: size - 2,
		Kernel: [2]int{3, 3}, Strides: [2]int{1, 1}, Dilations: [2]int{1, 1},
	}
	open := Finish{Low: float32(math.Inf(-1)), High: float32(math.Inf(1))}
	for _, relu := range []bool{false, true} {
		src, weights := noise(r, size*size*channels), noise(r, 9*channels*channels)
		if relu {
			vector.Relu.Apply(src, src)
		}
		plain := NewFilter(channels, channels, 9, weights, nil)
		sums, quick := make([]float32, w.Lines*w.Across*channels), make([]float32, w.Lines*w.Across*channels)
		plain.Convolve(1, &w, sums, src, open)
		NewWinograd(plain, weights, nil).Convolve(1, &w, quick, src, open)
		var off [3]float64
		w.windows(func(i, n, y, x int) {
			for o := range channels {
				exact, one := 0.0, float32(0)
				for tap := range 9 {
					for c := range channels {
						product := w.element(src, n, y, x, tap/3, tap%3, c, 0) * float64(weights[(o*channels+c)*9+tap])
						exact, one = exact+product, float32(float64(one)+product)
					}
				}
				for k, v := range []float32{one, sums[i*channels+o], quick[i*channels+o]} {
					off[k] += (float64(v) - exact) * (float64(v) - exact)
				}
			}
		})
		if chains, winograd := math.Sqrt(off[1]/off[0]), math.Sqrt(off[2]/off[0]); chains > 0.7 || winograd > 2.5 {
			t.Fatalf("after a Relu %t: errors of %.2f and %.2f", relu, chains, winograd)
		} else {
			t.Logf("after a Relu %t: errors of %.2f and %.2f", relu, chains, winograd)
		}
	}
}
