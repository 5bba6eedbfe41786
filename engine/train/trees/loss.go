package trees

import (
	"cmp"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine/vector"
)

// leastHessian keeps a leaf's denominator above 0, as in XGBoost.
const leastHessian = 1e-16

// poissonStep bounds a leaf of the Poisson loss and damps its hessian: one row far
// above its prediction would else ask for a step that no float32 holds.
const poissonStep = 0.7

// leastShare keeps a logarithm of a share of labels finite.
const leastShare = 1e-6

// base returns what all predictions start from, as it stands in a file (behind the
// link), and as margins.
func base(d *Data, o *Options) (stored, margins []float32) {
	stored = make([]float32, o.outputs())
	margins = make([]float32, len(stored))
	switch o.Loss {
	case Quantile:
		stored[0] = float32(quantile(slices.Clone(d.Labels), d.Weights, o.Quantile))
	case Softmax:
		priors(d, stored)
	default:
		stored[0] = float32(mean(d))
	}
	copy(margins, stored)
	switch o.Loss {
	case Logistic:
		stored[0] = min(max(stored[0], leastShare), 1-leastShare)
		odds := 1/stored[0] - 1
		margins[0] = float32(-math.Log(float64(odds)))
	case Poisson:
		stored[0] = max(stored[0], leastShare)
		margins[0] = float32(math.Log(float64(stored[0])))
	}
	return stored, margins
}

func mean(d *Data) float64 {
	sum, weight := 0.0, 0.0
	for i, y := range d.Labels {
		w := d.weight(i)
		sum += w * y
		weight += w
	}
	return sum / weight
}

// priors are the logarithms of the classes' shares, around 0.
func priors(d *Data, out []float32) {
	share := make([]float64, len(out))
	total := 0.0
	for i, y := range d.Labels {
		share[int(y)] += d.weight(i)
		total += d.weight(i)
	}
	middle := 0.0
	for k := range share {
		share[k] = math.Log(max(share[k]/total, leastShare))
		middle += share[k] / float64(len(share))
	}
	for k := range share {
		out[k] = float32(share[k] - middle)
	}
}

// quantile returns the a-quantile of v, which is reordered: between two values by the
// rule of Weibull, or with weights the first at which the weight reaches its share, as
// in XGBoost.
func quantile(v, weights []float64, a float64) float64 {
	if weights == nil {
		slices.Sort(v)
		x := a*float64(len(v)+1) - 1
		if x <= 0 {
			return v[0]
		}
		k := int(x)
		if k >= len(v)-1 {
			return v[len(v)-1]
		}
		return v[k] + (x-float64(k))*(v[k+1]-v[k])
	}
	order := make([]int, len(v))
	total := 0.0
	for i := range order {
		order[i] = i
		total += weights[i]
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(v[i], v[j]) })
	sum := 0.0
	for _, i := range order {
		if sum += weights[i]; sum >= a*total && weights[i] > 0 {
			return v[i]
		}
	}
	return v[order[len(order)-1]]
}

// means turns the margins of whole rows into what the gradients are made of.
func (o *Options) means(out, margins []float32) {
	switch o.Loss {
	case Logistic:
		vector.Sigmoid.Apply(out, margins)
	case Poisson:
		vector.Exponential.Apply(out, margins)
	case Softmax:
		k := o.Classes
		for i := 0; i < len(margins); i += k {
			softmax(out[i:i+k], margins[i:i+k])
		}
	default:
		copy(out, margins)
	}
}

func softmax(out, margins []float32) {
	top := slices.Max(margins)
	vector.Exp(out, margins, top)
	total := float32(vector.Sum(out))
	for i := range out {
		out[i] /= total
	}
}

// gradients writes those of the loss with respect to margin k of rows from..to, and
// returns the largest magnitudes.
func (f *fitter) gradients(k, from, to int) (maxG, maxH float32) {
	outputs := f.outputs
	for r := from; r < to; r++ {
		m, y := f.means[r*outputs+k], f.labels[r]
		g, h := m-y, float32(1)
		switch f.opt.Loss {
		case Logistic:
			h = max(m*(1-m), leastHessian)
		case Softmax:
			g = m
			if int(y) == k {
				g = m - 1
			}
			h = max(2*m*(1-m), leastHessian)
		case Poisson:
			h = m * float32(math.Exp(poissonStep))
		case Quantile:
			g = float32(1 - f.opt.Quantile)
			if y > m {
				g = float32(-f.opt.Quantile)
			}
		}
		if f.weights != nil {
			g *= f.weights[r]
			h *= f.weights[r]
		}
		f.g[r], f.h[r] = g, h
		maxG, maxH = max(maxG, g, -g), max(maxH, h)
	}
	return maxG, maxH
}

// rowLoss is the loss of one row.
func (o *Options) rowLoss(margins []float32, y float64) float64 {
	m := float64(margins[0])
	switch o.Loss {
	case Logistic:
		return max(m, 0) - m*y + math.Log1p(math.Exp(-math.Abs(m)))
	case Poisson:
		whole, _ := math.Lgamma(y + 1)
		return math.Exp(m) - y*m + whole
	case Quantile:
		return max(o.Quantile*(y-m), (o.Quantile-1)*(y-m))
	case Softmax:
		top, sum := float64(slices.Max(margins)), 0.0
		for _, v := range margins {
			sum += math.Exp(float64(v) - top)
		}
		return top + math.Log(sum) - float64(margins[int(y)])
	}
	return (m - y) * (m - y)
}

// meanLoss is the loss of all rows, a unit of weight; threads change no bit.
func (o *Options) meanLoss(d *Data, margins []float32) float64 {
	const some = 4096
	n := d.rows()
	parts := make([][2]float64, (n+some-1)/some)
	k := o.outputs()
	spread(len(parts), o.Threads, 1, func(_, from, to int) {
		for p := from; p < to; p++ {
			for r := p * some; r < min((p+1)*some, n); r++ {
				w := d.weight(r)
				parts[p][0] += w * o.rowLoss(margins[r*k:(r+1)*k], d.Labels[r])
				parts[p][1] += w
			}
		}
	})
	sum, weight := 0.0, 0.0
	for _, p := range parts {
		sum, weight = sum+p[0], weight+p[1]
	}
	return sum / weight
}
