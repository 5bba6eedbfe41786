package graph

import (
	"fmt"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// NormLayout tells how an InstanceNormalization or GroupNormalization node sees
// its input: rows of Span neighbouring elements are normalised, and element i of
// row r has the scale and bias at Scale(r, i).
type NormLayout struct {
	Span  int
	Scale func(r, i int) int
	// Run is how many neighbours have the same scale and bias; rows are whole runs.
	Run int
	// Parameters is the length of scale and bias.
	Parameters int
}

// NewNormLayout works out the layout for an input of the given shape.
func NewNormLayout(n *Node, shape []int) (*NormLayout, error) {
	if len(shape) < 2 {
		return nil, fmt.Errorf("an input of shape %v has no channels", shape)
	}
	channels, inner := shape[1], volume(shape[2:])
	groups := channels
	if n.Op == "GroupNormalization" {
		groups = int(n.Attrs["num_groups"].Int)
	}
	if groups < 1 || channels%groups != 0 {
		return nil, fmt.Errorf("%d groups of %d channels", groups, channels)
	}
	per := channels / groups
	l := &NormLayout{Span: per * inner, Run: inner, Parameters: channels}
	l.Scale = func(r, i int) int { return r%groups*per + i/inner }
	if n.Op == "GroupNormalization" && n.Version < 21 {
		l.Parameters, l.Run = groups, l.Span
		l.Scale = func(r, _ int) int { return r % groups }
	}
	return l, nil
}

func buildChannelNorm(b *builder) (Kernel, error) {
	n := b.node
	eps := b.attrs.float("epsilon", 1e-5)
	b.attrs.int("num_groups", 0)
	b.attrs.ignore("stash_type") // the statistics are computed in float64
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		l := recall[NormLayout](x, in)
		if l == nil {
			var err error
			if l, err = NewNormLayout(n, in[0].Shape()); err != nil {
				return nil, err
			}
			remember(x, in, l)
		}
		for _, p := range in[1:3] {
			if p.Len() != l.Parameters || p.DType() != in[0].DType() {
				return nil, fmt.Errorf("parameters of %s %v for an input of %s %v", p.DType(), p.Shape(), in[0].DType(), in[0].Shape())
			}
		}
		switch in[0].DType() {
		case engine.Float32:
			return x.one(channelNorm[float32](x, in, l, eps))
		case engine.Float64:
			return x.one(channelNorm[float64](x, in, l, eps))
		}
		return nil, typeError(in[0])
	}, nil
}

func channelNorm[T float](x *Exec, in []*engine.Tensor, l *NormLayout, eps float64) (*engine.Tensor, error) {
	t, out, err := rawOf[T](x, in[0].Shape()...)
	if err != nil {
		return nil, err
	}
	src, scale, bias := engine.Data[T](in[0]), engine.Data[T](in[1]), engine.Data[T](in[2])
	if l.Span == 0 {
		return t, nil
	}
	rows := len(src) / l.Span
	share(x, x.inRows(rows, l.Span), rows, channelWork[T]{l, out, src, scale, bias, scratchOf[float32](x, rows), eps})
	return t, nil
}

// channelWork is what is normalised: rows of a layout.
type channelWork[T float] struct {
	l                     *NormLayout
	out, src, scale, bias []T
	// means are the rows', as they are subtracted.
	means []float32
	eps   float64
}

func (w *channelWork[T]) part(from, to int) {
	l := w.l
	scale, quick := any(w.scale).([]float32)
	bias, _ := any(w.bias).([]float32)
	for r := from; r < to; r++ {
		row, out := w.src[r*l.Span:(r+1)*l.Span], w.out[r*l.Span:(r+1)*l.Span]
		mean, inv := moments(row, w.eps)
		if quick && l.Run >= leastRun {
			w.means[r] = float32(mean)
			normRuns(l, r, any(out).([]float32), any(row).([]float32), w.means[r:r+1], mean, inv, scale, bias)
			continue
		}
		for i, v := range row {
			p := l.Scale(r, i)
			out[i] = T((float64(v)-mean)*inv*float64(w.scale[p]) + float64(w.bias[p]))
		}
	}
}

// leastRun is from how many neighbours on with one scale and bias kernels compute them.
const leastRun = 8

// normRuns normalises row r run by run, in pieces that stay in the cache. center is its mean
// in float32.
func normRuns(l *NormLayout, r int, out, row, center []float32, mean, inv float64, scale, bias []float32) {
	const piece = 4096
	for i := 0; i < l.Span; i += l.Run {
		p := l.Scale(r, i)
		factor := float32(inv * float64(scale[p]))
		// What the mean lost when it was rounded comes to the bias.
		shift := float32(float64(bias[p]) + (float64(center[0])-mean)*float64(factor))
		for from := i; from < i+l.Run; from += piece {
			to := min(from+piece, i+l.Run)
			vector.Binary(vector.Sub, out[from:to], row[from:to], center)
			vector.Scale(out[from:to], out[from:to], factor, shift)
		}
	}
}

// trainingNorm is BatchNormalization in training: by the mean and variance of what it
// is given, which also move the running ones.
func trainingNorm(eps, momentum float64) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := in[0].Shape()
		if len(shape) < 2 || in[0].Len() == 0 {
			return nil, fmt.Errorf("an input of shape %v has no batch of channels", shape)
		}
		channels, inner := shape[1], volume(shape[2:])
		v, err := floats(x, in[0])
		if err != nil {
			return nil, err
		}
		own, moved := x.list(len(in)), x.list(3)
		copy(own, in)
		count := float64(len(v) / channels)
		var mean []float64
		for k := range 2 {
			t, stats, err := newOf[float64](x, channels)
			if err != nil {
				return nil, err
			}
			for i, e := range v {
				c := i / inner % channels
				if k == 1 {
					e = (e - mean[c]) * (e - mean[c])
				}
				stats[c] += e / count
			}
			old, ok := x.float64s(in[3+k])
			if !ok || len(old) != channels {
				return nil, fmt.Errorf("input %d has %d elements for %d channels", 3+k, in[3+k].Len(), channels)
			}
			running := x.wide(channels)
			for c := range running {
				running[c] = old[c]*momentum + stats[c]*(1-momentum)
			}
			if moved[1+k], err = x.New(in[3+k].DType(), channels); err != nil {
				return nil, err
			}
			if err := storeFloats(moved[1+k], running); err != nil {
				return nil, err
			}
			own[3+k], mean = t, stats
		}
		wide, err := castTensor(x, in[0], engine.Float64, true)
		if err != nil {
			return nil, err
		}
		own[0] = wide
		y, err := batchNorm[float64](x, own, eps)
		if err != nil {
			return nil, err
		}
		moved[0], err = castTensor(x, y, in[0].DType(), true)
		return moved, err
	}
}

func init() {
	register(DomainONNX, map[string]opDef{
		"InstanceNormalization": {since: 6, minIn: 3, maxIn: 3, maxOut: 1, accept: floatTypes, half: true, build: buildChannelNorm},
		"GroupNormalization":    {since: 18, minIn: 3, maxIn: 3, maxOut: 1, accept: floatTypes, half: true, build: buildChannelNorm},
	})
}
