package gradient

import "math"

// nullRules estimate the error of a quadrature from its own points (Berntsen and Espelid, Error
// estimation in automatic quadrature routines, ACM TOMS 17, 1991): sums that vanish for
// polynomials of a low degree, as the error does, and have weights of the same size. What bends
// or jumps on the way does not vanish in them, whatever it cancels with in another sum.
type nullRules struct {
	rules, width int
	// weights are of each rule and point, sums of each rule and element.
	weights [mostRules][]float64
	sums    [mostRules][]float64
}

// mostRules rules are told by Legendre's polynomials of the degrees n-1, n-2 and n-3 at the n
// points, which are orthogonal to all of a lower degree: what one of them does not see of
// several bends the next one does.
const mostRules = 3

func newNullRules(at, weight []float64, width int) *nullRules {
	n := len(at)
	r := &nullRules{rules: min(mostRules, n-1), width: width}
	size := norm(weight)
	for k := range r.rules {
		w := make([]float64, n)
		for i, a := range at {
			w[i] = weight[i] * legendre(n-1-k, 2*a-1)
		}
		by := size / norm(w)
		for i := range w {
			w[i] *= by
		}
		r.weights[k], r.sums[k] = w, make([]float64, width)
	}
	return r
}

func norm(v []float64) float64 {
	sum := 0.0
	for _, e := range v {
		sum += e * e
	}
	return math.Sqrt(sum)
}

// legendre is Legendre's polynomial of a degree.
func legendre(degree int, t float64) float64 {
	before, p := 0.0, 1.0
	for k := range degree {
		before, p = p, (float64(2*k+1)*t*p-float64(k)*before)/float64(k+1)
	}
	return p
}

// add takes the gradient of point i in.
func (r *nullRules) add(i int, g []float64) {
	for k := range r.rules {
		w, sums := r.weights[k][i], r.sums[k]
		for e, v := range g {
			sums[e] += w * v
		}
	}
}

// smooth is up to which ratio of one rule to the next lower one they fall as they do for what is
// smooth, whose quadrature is exact to twice the degree that the rules are.
const smooth = 0.25

// errors are the estimates for the elements; of one point alone, which has no rules, nothing is
// known: zeros.
func (r *nullRules) errors() []float64 {
	out := make([]float64, r.width)
	for e := range out {
		most, ratio := 0.0, 0.0
		for k := range r.rules {
			v := math.Abs(r.sums[k][e])
			if k > 0 && r.rules == mostRules {
				ratio = max(ratio, math.Abs(r.sums[k-1][e])/max(v, math.SmallestNonzeroFloat64))
			}
			most = max(most, v)
		}
		if out[e] = most; r.rules == mostRules && ratio < smooth {
			out[e] = math.Abs(r.sums[0][e]) * ratio * ratio
		}
	}
	return out
}
