package graph

import (
	"math"

	"github.com/pellucid/pellucid/engine/vector"
)

// samples is a GridSample of float32: what a point reads is worked out once for all channels,
// which go through the kernel of blends.
type samples struct {
	sampled
	x    *Exec
	taps int
	// run is kept with it.
	run func(y, v []float32)
}

func (g *samples) begin() { *g = samples{run: g.run} }

// mostSamples bounds the taps of all points of an image that are held in memory.
const mostSamples = 1 << 24

// samplesOf is nil where the taps would be too many.
func samplesOf(x *Exec, s *sampled) *samples {
	taps := 1
	for range s.strides {
		switch s.mode {
		case "nearest":
		case "linear":
			taps *= 2
		default:
			taps *= 4
		}
	}
	if s.outs == 0 || s.plane > math.MaxInt32 || taps*s.outs > mostSamples {
		return nil
	}
	g := keptOf[samples](x)
	if g.run == nil {
		g.run = g.singles
	}
	g.sampled, g.x, g.taps = *s, x, taps
	return g
}

func (g *samples) singles(y, v []float32) {
	r, channels := len(g.strides), g.shape[1]
	weights, places := roomOf[float32](g.x, g.taps*g.outs), roomOf[int32](g.x, g.taps*g.outs)
	for image := range g.shape[0] {
		in, out := v[image*channels*g.plane:][:channels*g.plane], y[image*channels*g.outs:][:channels*g.outs]
		clear(weights)
		clear(places)
		for i := range g.outs {
			for k := range r {
				// A grid's coordinates begin with the last axis.
				g.axes[k] = g.sampler.taps(g.sampled.taps[k][:0], g.grid[(image*g.outs+i)*r+r-1-k], g.shape[2+k])
			}
			g.spread(weights[i:], places[i:])
		}
		if sum := vector.Sum(in); math.IsNaN(sum) || math.IsInf(sum, 0) {
			g.careful(out, in, weights, places)
			continue
		}
		vector.BlendOf(g.plane, g.outs, weights, places).Lines(out, in)
	}
}

// spread writes the elements that the axes' taps meet at, each g.outs behind the one before.
func (g *samples) spread(weights []float32, places []int32) {
	at := 0
	for n := range g.taps {
		w, place, rest := 1.0, 0, n
		for k, axis := range g.axes[:len(g.strides)] {
			t := axis[rest%len(axis)]
			rest /= len(axis)
			if t.at < 0 || t.weight == 0 {
				w = 0
				break
			}
			w *= t.weight
			place += t.at * g.strides[k]
		}
		if w != 0 {
			weights[at], places[at] = float32(w), int32(place) //nolint:gosec // it lies in the plane
			at += g.outs
		}
	}
}

// careful is a blend that takes nothing times 0, of what may have no end.
func (g *samples) careful(out, in, weights []float32, places []int32) {
	for c := range g.shape[1] {
		plane, to := in[c*g.plane:][:g.plane], out[c*g.outs:][:g.outs]
		for i := range to {
			sum := 0.0
			for t := i; t < len(weights); t += g.outs {
				if w := weights[t]; w != 0 {
					sum += float64(w) * float64(plane[places[t]])
				}
			}
			to[i] = float32(sum)
		}
	}
}
