package train

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/autodiff"
	"github.com/pellucid/pellucid/engine/graph"
)

// param is a tensor that is fitted: n numbers from at on in the vector of all.
type param struct {
	name  string
	shape []int
	at, n int
	// penalised is what L2 and Decay are about: weights are, biases not.
	penalised bool
}

// layout is the params of a network, one behind the other.
type layout struct {
	params []param
	size   int
}

func (l *layout) add(name string, penalised bool, shape ...int) error {
	n, err := engine.Elements(shape)
	if err != nil {
		return err
	}
	if n > maxParams-l.size {
		return fmt.Errorf("fit more than %d weights: %w", maxParams, engine.ErrTooLarge)
	}
	l.params = append(l.params, param{name: name, shape: shape, at: l.size, n: n, penalised: penalised})
	l.size += n
	return nil
}

// tensors returns the params in a vector as tensors of d.
func (l *layout) tensors(x []float64, d engine.DType) (engine.Values, error) {
	var out engine.Values
	for _, p := range l.params {
		t, err := floats(x[p.at:p.at+p.n:p.at+p.n], d, p.shape...)
		if err != nil {
			return nil, err
		}
		out = append(out, engine.Named{Name: p.name, Tensor: t})
	}
	return out, nil
}

// objective is a loss as a function of params: the mean over rows, by their weights,
// and the L2 penalty.
type objective struct {
	layout
	program *graph.Program
	dtype   engine.DType
	// loss is the value of each row's weighted loss.
	loss     string
	l2       float64
	threads  int
	maxBytes int64
	// inputs returns all inputs of the program but the params, for some rows.
	inputs func(rows []int) (engine.Values, error)
	// total is the weight of rows.
	total func(rows []int) float64
}

// The rows of a part. Parts depend on the number of rows alone: with them, so do the
// sums, and no number of threads changes a bit.
const (
	leastPart = 128
	mostPart  = 1024
	// partsOfBatch is how many parts a small batch is cut into, at most.
	partsOfBatch = 8
	// wave is how many parts are held before they are added up.
	wave = 16
)

func partRows(n int) int { return min(max((n+partsOfBatch-1)/partsOfBatch, leastPart), mostPart) }

// part is what some of the rows give.
type part struct {
	loss  float64
	grads engine.Values
	err   error
}

// value returns the mean loss of rows at x and, where grad is not nil, sets its gradient.
func (o *objective) value(ctx context.Context, x []float64, rows []int, grad []float64) (float64, error) {
	params, err := o.tensors(x, o.dtype)
	if err != nil {
		return 0, err
	}
	clear(grad)
	size := partRows(len(rows))
	parts := (len(rows) + size - 1) / size
	var sum float64
	held := make([]part, min(wave, parts))
	for from := 0; from < parts; from += wave {
		some := held[:min(wave, parts-from)]
		o.parts(ctx, params, rows, from, size, some, grad != nil)
		for i := range some {
			if some[i].err != nil {
				return 0, some[i].err
			}
			sum += some[i].loss
			o.addTo(grad, some[i].grads)
			some[i] = part{}
		}
	}
	scale := 1 / o.total(rows)
	for i := range grad {
		grad[i] *= scale
	}
	sum = sum*scale + o.penalty(x, grad)
	if math.IsNaN(sum) || math.IsInf(sum, 0) {
		return sum, ErrDiverged
	}
	return sum, nil
}

// parts computes the parts from the one numbered from on, on the threads there are.
func (o *objective) parts(ctx context.Context, params engine.Values, rows []int, from, size int, into []part, grads bool) {
	var next struct {
		sync.Mutex
		i int
	}
	work := func() {
		for {
			next.Lock()
			i := next.i
			next.i++
			next.Unlock()
			if i >= len(into) {
				return
			}
			at := (from + i) * size
			into[i] = o.part(ctx, params, rows[at:min(at+size, len(rows))], grads)
		}
	}
	var wait sync.WaitGroup
	for range min(o.threads, len(into)) - 1 {
		wait.Go(work)
	}
	work()
	wait.Wait()
}

func (o *objective) part(ctx context.Context, params engine.Values, rows []int, grads bool) (p part) {
	in, err := o.inputs(rows)
	if err != nil {
		return part{err: err}
	}
	in = append(in, params...)
	opt := graph.Options{MaxBytes: o.maxBytes, Threads: 1}
	if !grads {
		run, err := o.program.Run(ctx, opt, in, []string{o.loss})
		if err != nil {
			return part{err: err}
		}
		v, _ := run.Value(o.loss).Float64s()
		return part{loss: sum(v)}
	}
	names := make([]string, len(params))
	for i := range params {
		names[i] = params[i].Name
	}
	g, err := autodiff.Gradient(ctx, o.program, opt, in, engine.Target{Name: o.loss}, names)
	if err != nil {
		return part{err: err}
	}
	return part{loss: sum(g.Value), grads: g.Inputs}
}

func sum(v []float64) float64 {
	var s float64
	for _, x := range v {
		s += x
	}
	return s
}

func (o *objective) addTo(grad []float64, grads engine.Values) {
	for i := range grads {
		into := grad[o.params[i].at:]
		switch d := grads[i].Tensor; d.DType() {
		case engine.Float64:
			for j, v := range engine.Data[float64](d) {
				into[j] += v
			}
		default:
			for j, v := range engine.Data[float32](d) {
				into[j] += float64(v)
			}
		}
	}
}

// penalty returns L2/2 times the sum of squared weights, and adds its gradient.
func (o *objective) penalty(x, grad []float64) float64 {
	if o.l2 == 0 {
		return 0
	}
	var s float64
	for _, p := range o.params {
		if !p.penalised {
			continue
		}
		for i := p.at; i < p.at+p.n; i++ {
			s += x[i] * x[i]
			if grad != nil {
				grad[i] += o.l2 * x[i]
			}
		}
	}
	return s * o.l2 / 2
}
