package vector

import "math"

// Blend is how each element of a line is made of a few of another line. It is read only.
type Blend struct {
	from, to, taps int
	// weights and places are tap after tap those of all elements.
	weights []float32
	places  []int32
}

// NewBlend is a blend of lines of from elements: element i is the sum of weights[i][t] of
// what stands at places[i][t], of at least one.
func NewBlend(from int, places [][]int, weights [][]float32) *Blend {
	b := &Blend{from: from, to: len(places)}
	if len(weights) != b.to || from > math.MaxInt32 {
		panic("vector: places and weights of different lengths, or too long a line")
	}
	for _, p := range places {
		b.taps = max(b.taps, len(p))
	}
	b.weights, b.places = make([]float32, b.taps*b.to), make([]int32, b.taps*b.to)
	for i, p := range places {
		if len(p) == 0 || len(weights[i]) != len(p) {
			panic("vector: an element made of nothing, or of elements without weights")
		}
		for t := range b.taps {
			at := p[min(t, len(p)-1)]
			if at < 0 || at >= from {
				panic("vector: a place outside of the source")
			}
			w := weights[i][min(t, len(p)-1)]
			if t >= len(p) {
				// What has fewer taps shares out its last one: times 0 what is infinite is NaN.
				b.weights[(t-1)*b.to+i] /= 2
				w = b.weights[(t-1)*b.to+i]
			}
			b.weights[t*b.to+i], b.places[t*b.to+i] = w, int32(at)
		}
	}
	return b
}

// BlendOf is a blend of lines of from elements to lines of to, whose weights and places are
// given tap after tap, those of all elements; it keeps them.
func BlendOf(from, to int, weights []float32, places []int32) Blend {
	if to < 1 || len(weights) != len(places) || len(weights)%to != 0 || len(weights) == 0 {
		panic("vector: places and weights of different lengths, or none")
	}
	for _, at := range places {
		if at < 0 || int(at) >= from {
			panic("vector: a place outside of the source")
		}
	}
	return Blend{from: from, to: to, taps: len(weights) / to, weights: weights, places: places}
}

// Lines blends the lines of src, one after another, to those of dst, which does not overlap it.
func (b Blend) Lines(dst, src []float32) {
	if b.to == 0 || len(dst)%b.to != 0 || len(src) != len(dst)/b.to*b.from {
		panic("vector: lines of other lengths than their blend")
	}
	for ; len(dst) > 0; dst, src = dst[b.to:], src[b.from:] {
		if kernels != nil {
			kernels.blend(&dst[0], &src[0], &b.weights[0], &b.places[0], b.taps, b.to)
			continue
		}
		for i := range b.to {
			sum := float32(0)
			for t := i; t < len(b.places); t += b.to {
				sum += b.weights[t] * src[b.places[t]]
			}
			dst[i] = sum
		}
	}
}

// Mix is a list of sums of a few of the runs of a slice.
type Mix struct {
	// Ends is where each sum's taps end, At the runs they are of, Weights how much of each.
	Ends    []int
	At      []int
	Weights []float32
}

// Runs writes the sums from one on until before another, one after the other, of runs of n
// elements of src, which dst does not overlap.
func (m *Mix) Runs(dst, src []float32, n, from, end int) {
	if n <= 0 || len(dst) != n*(end-from) || len(m.At) != len(m.Weights) {
		panic("vector: another number of runs than of sums")
	}
	s := borrow()
	defer s.release()
	s.all[0] = 0
	first := 0
	if from > 0 {
		first = m.Ends[from-1]
	}
	for i, last := range m.Ends[from:end] {
		at, weights, run := m.At[first:last], m.Weights[first:last], dst[i*n:][:n]
		first = last
		switch {
		case len(at) == 0:
			panic("vector: a sum of nothing")
		case len(at) == 1 && weights[0] == 1:
			copy(run, src[at[0]*n:][:n])
		case kernels != nil:
			s.sumRuns(run, src, weights, at)
		default:
			sumRunsGo(run, src, weights, at)
		}
	}
}

func sumRunsGo(run, src, weights []float32, at []int) {
	n := len(run)
	for k := range run {
		sum := float32(0)
		for t, a := range at {
			sum += weights[t] * src[a*n+k]
		}
		run[k] = sum
	}
}

// fewRuns is how many offsets are made at once.
const fewRuns = 8

// sumRuns sums by the kernel of Taps, whose offsets are of elements.
func (s *scratch) sumRuns(run, src, weights []float32, at []int) {
	n, offsets := len(run), s.offsets[:0]
	if len(at) > len(s.offsets) {
		offsets = make([]int, 0, len(at))
	}
	for _, a := range at {
		if a < 0 || a > len(src)/n-1 {
			panic("vector: a run outside of the source")
		}
		offsets = append(offsets, a*n)
	}
	kernels.tapSum(&run[0], &src[0], &weights[0], &offsets[0], len(at), n, &s.all[0])
}
