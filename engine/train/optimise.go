package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// The streams of random numbers, one a purpose, so that none depends on what another
// has drawn.
const (
	streamSplit = 1 + iota
	streamInit
	streamOrder
)

// stepper moves params along a gradient.
type stepper struct {
	cfg    Config
	layout *layout
	step   int
	// first and second are the moments of adam; first is sgd's momentum too.
	first, second []float64
}

func newStepper(c Config, l *layout) *stepper {
	s := &stepper{cfg: c, layout: l}
	if c.Optimiser == Adam || c.Momentum > 0 {
		s.first = make([]float64, l.size)
	}
	if c.Optimiser == Adam {
		s.second = make([]float64, l.size)
	}
	return s
}

// rate is the learning rate at a share of the way.
func (c *Config) rate(done float64) float64 {
	switch c.Schedule {
	case Linear:
		return c.Rate * (1 - done)
	case Cosine:
		return c.Rate * (1 + math.Cos(math.Pi*done)) / 2
	}
	return c.Rate
}

// move takes one step, done being the share of all that were taken.
func (s *stepper) move(x, grad []float64, done float64) {
	rate := s.cfg.rate(done)
	s.step++
	if s.cfg.Decay > 0 {
		for _, p := range s.layout.params {
			for i := p.at; p.penalised && i < p.at+p.n; i++ {
				x[i] -= rate * s.cfg.Decay * x[i]
			}
		}
	}
	if s.cfg.Optimiser == Adam {
		s.adam(x, grad, rate)
		return
	}
	for i, g := range grad {
		if s.first != nil {
			s.first[i] = s.cfg.Momentum*s.first[i] + g
			if s.cfg.Nesterov {
				g += s.cfg.Momentum * s.first[i]
			} else {
				g = s.first[i]
			}
		}
		x[i] -= rate * g
	}
}

// adam corrects both moments for having begun at 0, as its authors do.
func (s *stepper) adam(x, grad []float64, rate float64) {
	b1, b2 := s.cfg.Beta1, s.cfg.Beta2
	c1, c2 := 1-math.Pow(b1, float64(s.step)), 1-math.Pow(b2, float64(s.step))
	for i, g := range grad {
		s.first[i] = b1*s.first[i] + (1-b1)*g
		s.second[i] = b2*s.second[i] + (1-b2)*g*g
		x[i] -= rate * (s.first[i] / c1) / (math.Sqrt(s.second[i]/c2) + s.cfg.Epsilon)
	}
}

// outcome is how a fit went.
type outcome struct {
	// epochs were run, best is the one whose weights were kept; 0 is the beginning.
	epochs, best   int
	training, held float64
}

// descend moves x to where the loss of training is small, and returns how that went.
// unit is what losses are told in.
func descend(ctx context.Context, o *objective, c Config, x []float64, training, held []int, unit float64) (outcome, error) {
	// Rows of no weight have no loss, and a part of them no mean.
	training = slices.DeleteFunc(slices.Clone(training), func(i int) bool { return o.total([]int{i}) == 0 })
	if len(held) > 0 && o.total(held) == 0 {
		return outcome{}, errors.New("the weights of the rows held out are all 0")
	}
	if c.Optimiser == LBFGS {
		return minimise(ctx, o, c, x, training, held, unit)
	}
	return batches(ctx, o, c, x, training, held, unit)
}

// measure returns the mean loss of rows without the penalty, NaN for none.
func measure(ctx context.Context, o *objective, x []float64, rows []int) (float64, error) {
	if len(rows) == 0 {
		return math.NaN(), nil
	}
	plain := *o
	plain.l2 = 0
	return plain.value(ctx, x, rows, nil)
}

func batches(ctx context.Context, o *objective, c Config, x []float64, training, held []int, unit float64) (outcome, error) {
	grad := make([]float64, o.size)
	s := newStepper(c, &o.layout)
	steps := (len(training) + c.Batch - 1) / c.Batch
	// What it begins with counts too: a fit is never worse than none.
	first, err := measure(ctx, o, x, held)
	if err != nil {
		return outcome{}, inEpoch(0, err)
	}
	best := outcome{held: first}
	kept := slices.Clone(x)
	inOrder := slices.Sorted(slices.Values(training))
	for epoch := 1; epoch <= c.Epochs; epoch++ {
		copy(training, inOrder)
		shuffle(training, c.Seed, epoch)
		var mean float64
		for i := range steps {
			rows := training[i*c.Batch : min((i+1)*c.Batch, len(training))]
			l, err := o.value(ctx, x, rows, grad)
			if err != nil {
				return best, inEpoch(epoch, err)
			}
			mean += (l - mean) / float64(i+1)
			s.move(x, grad, float64(s.step)/float64(c.Epochs*steps))
		}
		l, err := measure(ctx, o, x, held)
		if err != nil {
			return best, inEpoch(epoch, err)
		}
		tell(c, epoch, mean*unit, l*unit)
		if len(held) == 0 || l < best.held {
			best = outcome{best: epoch, held: l}
			copy(kept, x)
		}
		best.epochs = epoch
		if len(held) > 0 && c.Patience > 0 && epoch-best.best >= c.Patience {
			break
		}
	}
	copy(x, kept)
	return finish(ctx, o, x, training, best, unit)
}

// finish measures what was kept over the rows learnt from.
func finish(ctx context.Context, o *objective, x []float64, training []int, out outcome, unit float64) (outcome, error) {
	slices.Sort(training)
	var err error
	out.training, err = measure(ctx, o, x, training)
	out.training, out.held = out.training*unit, out.held*unit
	return out, err
}

func inEpoch(epoch int, err error) error {
	if errors.Is(err, ErrDiverged) {
		return fmt.Errorf("epoch %d: %w: a smaller learning rate may help", epoch, err)
	}
	return fmt.Errorf("epoch %d: %w", epoch, err)
}

func tell(c Config, epoch int, training, held float64) {
	if c.Step != nil {
		c.Step(Progress{Epoch: epoch, Epochs: c.Epochs, Training: training, Held: held})
	}
}

// shuffle orders sorted rows anew, as the seed and the epoch say and nothing else.
func shuffle(rows []int, seed uint64, epoch int) {
	r := rand.New(rand.NewPCG(seed, streamOrder+uint64(epoch)<<8))
	r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
}
