package graph

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
)

// The local operators that engine/onnx makes of ai.onnx.ml's support vector
// machines. They compute in float64: a decision is a sum of hundreds of terms
// that nearly cancel.
//
//	SVMKernel(X) -> K        kernel of every row with every support vector
//	SVMPairs(K) -> margin    decision of every pair of classes
//	SVMOutput(margin) -> Y, Z
const (
	OpSVMKernel = "SVMKernel"
	OpSVMPairs  = "SVMPairs"
	OpSVMOutput = "SVMOutput"
)

// SVMParams are the support vectors of an SVMKernel node, [Vectors, Features],
// and its kernel function.
type SVMParams struct {
	Vectors, Features   int
	Support             []float64
	kind                string
	gamma, coef, degree float64
}

// NewSVMParams reads and checks the node's attributes.
func NewSVMParams(n *Node) (*SVMParams, error) {
	p := &SVMParams{Vectors: int(n.Attrs["vectors"].Int), Support: widen32(n.Attrs["support_vectors"].Floats), kind: n.Attrs["kernel_type"].String}
	if p.Vectors < 1 || len(p.Support) == 0 || len(p.Support)%p.Vectors != 0 {
		return nil, n.corrupt("%d numbers for %d support vectors", len(p.Support), p.Vectors)
	}
	p.Features = len(p.Support) / p.Vectors
	switch params := n.Attrs["kernel_params"].Floats; {
	case len(params) >= 3:
		p.gamma, p.coef, p.degree = float64(params[0]), float64(params[1]), float64(params[2])
	case p.kind != "LINEAR":
		return nil, n.corrupt("kernel_params has %d elements, 3 are needed", len(params))
	}
	switch p.kind {
	case "LINEAR", "POLY", "RBF", "SIGMOID":
		return p, nil
	}
	return nil, n.unsupported("kernel_type %q", p.kind)
}

// Of returns the kernel of a row with support vector v.
func (p *SVMParams) Of(row []float64, v int) float64 {
	support := p.Support[v*p.Features:][:p.Features]
	sum := 0.0
	if p.kind == "RBF" {
		for j, x := range row {
			sum += (x - support[j]) * (x - support[j])
		}
		return math.Exp(-p.gamma * sum)
	}
	for j, x := range row {
		sum += x * support[j]
	}
	switch p.kind {
	case "POLY":
		return math.Pow(p.gamma*sum+p.coef, p.degree)
	case "SIGMOID":
		return math.Tanh(p.gamma*sum + p.coef)
	}
	return sum
}

// Slope adds d times the kernel's gradient with respect to the row to g, where
// the kernel with vector v is k.
func (p *SVMParams) Slope(row []float64, v int, k, d float64, g func(j int, slope float64)) {
	support := p.Support[v*p.Features:][:p.Features]
	if p.kind == "RBF" {
		for j, x := range row {
			g(j, -2*p.gamma*(x-support[j])*k*d)
		}
		return
	}
	switch p.kind {
	case "POLY":
		sum := 0.0
		for j, x := range row {
			sum += x * support[j]
		}
		d *= p.degree * p.gamma * math.Pow(p.gamma*sum+p.coef, p.degree-1)
	case "SIGMOID":
		d *= p.gamma * (1 - k*k)
	}
	for j := range row {
		g(j, support[j]*d)
	}
}

func buildSVMKernel(b *builder) (Kernel, error) {
	b.attrs.ignore("vectors", "support_vectors", "kernel_type", "kernel_params")
	p, err := NewSVMParams(b.node)
	if err != nil {
		return nil, err
	}
	b.result = []engine.DType{engine.Float64}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		rows, cols, err := matrix(in[0])
		if err != nil {
			return nil, err
		}
		if cols != p.Features {
			return nil, fmt.Errorf("%d features for support vectors of %d", cols, p.Features)
		}
		wide, err := castTensor(x, in[0], engine.Float64, true)
		if err != nil {
			return nil, err
		}
		t, out, err := newOf[float64](x, rows, p.Vectors)
		if err != nil {
			return nil, err
		}
		src := engine.Data[float64](wide)
		for r := range rows {
			row := src[r*cols : (r+1)*cols]
			for v := range p.Vectors {
				out[r*p.Vectors+v] = p.Of(row, v)
			}
		}
		return x.one(t, nil)
	}, nil
}

// SVMPairs are the decisions of a classifier: for each pair of classes the
// weights of the two classes' own support vectors, which stand class by class.
type SVMPairs struct {
	Classes, Vectors int
	coefs, rho       []float64 // coefs is [Classes-1, Vectors]
	start            []int     // of each class's vectors; one more than classes
}

// NewSVMPairs reads and checks the attributes of an SVMPairs node.
func NewSVMPairs(n *Node) (*SVMPairs, error) {
	per := n.Attrs["vectors_per_class"].Ints
	p := &SVMPairs{Classes: len(per), coefs: widen32(n.Attrs["coefficients"].Floats), rho: widen32(n.Attrs["rho"].Floats), start: []int{0}}
	if p.Classes < 2 || p.Classes > 1<<12 {
		return nil, n.corrupt("%d classes", p.Classes)
	}
	for _, c := range per {
		if c < 0 || c > math.MaxInt32 {
			return nil, n.corrupt("%d support vectors of a class", c)
		}
		p.Vectors += int(c)
		p.start = append(p.start, p.Vectors)
	}
	pairs := p.Classes * (p.Classes - 1) / 2
	if len(p.coefs) != (p.Classes-1)*p.Vectors || len(p.rho) != pairs {
		return nil, n.corrupt("%d coefficients and %d rho for %d classes of %d vectors", len(p.coefs), len(p.rho), p.Classes, p.Vectors)
	}
	return p, nil
}

// Each calls term for every pair and each of its vectors with their weight.
func (p *SVMPairs) Each(term func(pair, vector int, weight float64)) {
	pair := 0
	for i := range p.Classes {
		for j := i + 1; j < p.Classes; j++ {
			for v := p.start[i]; v < p.start[i+1]; v++ {
				term(pair, v, p.coefs[(j-1)*p.Vectors+v])
			}
			for v := p.start[j]; v < p.start[j+1]; v++ {
				term(pair, v, p.coefs[i*p.Vectors+v])
			}
			pair++
		}
	}
}

func buildSVMPairs(b *builder) (Kernel, error) {
	b.attrs.ignore("vectors_per_class", "coefficients", "rho")
	p, err := NewSVMPairs(b.node)
	if err != nil {
		return nil, err
	}
	b.result = []engine.DType{engine.Float64}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		k := engine.Data[float64](in[0])
		rows := in[0].Rows()
		if in[0].RowLen() != p.Vectors || len(k) != rows*p.Vectors {
			return nil, typeError(in[0])
		}
		t, out, err := newOf[float64](x, rows, len(p.rho))
		if err != nil {
			return nil, err
		}
		for r := range rows {
			scores := out[r*len(p.rho):][:len(p.rho)]
			copy(scores, p.rho)
			row := k[r*p.Vectors:]
			p.Each(func(pair, v int, w float64) { scores[pair] += w * row[v] })
		}
		return x.one(t, nil)
	}, nil
}

// svmOutput makes labels and scores of the pairs' decisions.
type svmOutput struct {
	labels       labels
	probA, probB []float64
}

// buildSVMOutput: the label is the class with the most pairs won. The scores are
// probabilities where the file has them fitted (prob_a), else the decisions
// themselves, with two classes as [-s, s].
func buildSVMOutput(b *builder) (Kernel, error) {
	l, err := readLabels(b)
	if err != nil {
		return nil, err
	}
	s := &svmOutput{labels: l, probA: widen32(b.attrs.floats("prob_a")), probB: widen32(b.attrs.floats("prob_b"))}
	pairs := l.len() * (l.len() - 1) / 2
	if len(s.probA) != len(s.probB) || len(s.probA) != 0 && len(s.probA) != pairs {
		return nil, b.node.corrupt("%d prob_a and %d prob_b for %d pairs of classes", len(s.probA), len(s.probB), pairs)
	}
	b.result = []engine.DType{l.dtype(), engine.Float32}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		scores := engine.Data[float64](in[0])
		rows := in[0].Rows()
		if len(scores) != rows*pairs {
			return nil, fmt.Errorf("%d decisions for %d rows of %d pairs", len(scores), rows, pairs)
		}
		width := pairs
		if len(s.probA) > 0 || pairs == 1 {
			width = l.len()
		}
		z, out, err := newOf[float32](x, rows, width)
		if err != nil {
			return nil, err
		}
		chosen, votes := x.ints(rows), x.wide(l.len())
		var room []float64
		if len(s.probA) > 0 {
			room = x.wide(2 * l.len() * (l.len() + 1))
		}
		for r := range rows {
			row := scores[r*pairs : (r+1)*pairs]
			chosen[r] = mostPairs(row, votes)
			s.scores(out[r*width:(r+1)*width], row, room)
		}
		y, err := l.pick(x, chosen)
		return x.pair(y, z), err
	}, nil
}

// mostPairs returns the class that wins the most pairs, the first of equals; votes has an
// element for each.
func mostPairs(scores, votes []float64) int {
	clear(votes)
	pair := 0
	for i := range votes {
		for j := i + 1; j < len(votes); j++ {
			if scores[pair] > 0 {
				votes[i]++
			} else {
				votes[j]++
			}
			pair++
		}
	}
	return largest(votes)
}

func (s *svmOutput) scores(out []float32, scores, room []float64) {
	switch {
	case len(s.probA) > 0:
		narrow(out, s.probabilities(scores, room))
	case len(scores) == 1:
		out[0], out[1] = float32(-scores[0]), float32(scores[0])
	default:
		narrow(out, scores)
	}
}

// probabilities couples the pairs' probabilities (Platt's sigmoid of each
// decision) into one distribution over the k classes, in room for 2 k (k + 1) numbers.
func (s *svmOutput) probabilities(scores, room []float64) []float64 {
	const least = 1e-7
	k := s.labels.len()
	r := room[:k*k]
	pair := 0
	for i := range k {
		for j := i + 1; j < k; j++ {
			p := sigmoid(-(scores[pair]*s.probA[pair] + s.probB[pair]))
			r[i*k+j] = min(max(p, least), 1-least)
			r[j*k+i] = 1 - r[i*k+j]
			pair++
		}
	}
	return couplePairs(k, r, room[k*k:])
}

// couplePairs is the second method of Wu, Lin and Weng, "Probability estimates
// for multi-class classification by pairwise coupling" (2004), with the steps and
// the stopping rule that libraries share, since their iteration ends early.
func couplePairs(k int, r, room []float64) []float64 {
	q, p, qp := room[:k*k], room[k*k:][:k], room[k*(k+1):][:k]
	clear(q)
	for t := range k {
		p[t] = 1 / float64(k)
		for j := range k {
			if j != t {
				q[t*k+t] += r[j*k+t] * r[j*k+t]
				q[t*k+j] = -r[j*k+t] * r[t*k+j]
			}
		}
	}
	for range max(100, k) {
		total := 0.0
		for t := range k {
			qp[t] = 0
			for j := range k {
				qp[t] += q[t*k+j] * p[j]
			}
			total += p[t] * qp[t]
		}
		worst := 0.0
		for t := range k {
			worst = max(worst, math.Abs(qp[t]-total))
		}
		if worst < 0.005/float64(k) {
			break
		}
		for t := range k {
			step := (total - qp[t]) / q[t*k+t]
			p[t] += step
			total = (total + step*(step*q[t*k+t]+2*qp[t])) / ((1 + step) * (1 + step))
			for j := range k {
				qp[j] = (qp[j] + step*q[t*k+j]) / (1 + step)
				p[j] /= 1 + step
			}
		}
	}
	return p
}

func init() {
	register(DomainLocal, map[string]opDef{
		OpSVMKernel: {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: mlTypes, result: fromBuilder, build: buildSVMKernel},
		OpSVMPairs:  {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, result: fromBuilder, build: buildSVMPairs},
		OpSVMOutput: {since: 1, minIn: 1, maxIn: 1, maxOut: 2, accept: floatTypes, result: fromBuilder, build: buildSVMOutput},
	})
}
