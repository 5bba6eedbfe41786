package compress

import (
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

const (
	// ridge keeps the prediction of units apart from what is noise in the rows, as a
	// share of the mean variance of the units that predict.
	ridge = 3e-2
	// maxPredicted bounds the work of one layer's prediction (rows times units
	// squared); beyond it only means are taken over.
	maxPredicted = 4e10
)

// takeOver changes the weights and the bias of a reader so that it gives, without the
// units that go, what is nearest to what it gave: each of those is predicted from the
// ones that stay by ridge regression over the rows. Without a bias there is no
// constant in the prediction.
func (s *structurer) takeOver(r reader, m *measured, gone, keep []int) error {
	bias, scale := s.bias(r.node)
	w, err := r.w.Value()
	if err != nil {
		return err
	}
	v, _ := w.Float64s()
	v = slices.Clone(v)
	outs := r.w.Shape[1-r.axis]
	at := func(u, k int) int {
		if r.axis == 1 {
			return k*r.w.Shape[1] + u
		}
		return u*outs + k
	}
	if bias != nil && bias.Len != outs {
		bias = nil
	}
	a := m.predict(gone, keep, bias != nil)
	shift := make([]float64, outs)
	for j, u := range gone {
		for k := range outs {
			lost := v[at(u, k)]
			if bias != nil {
				shift[k] += scale * m.constant(a, j, u, keep) * lost
			}
			if a == nil {
				continue
			}
			for i, kept := range keep {
				v[at(kept, k)] += a.At(i, j) * lost
			}
		}
	}
	o, err := floatsLike(w, v, r.w.Shape)
	if err == nil {
		err = s.file.Replace(r.w, o)
	}
	if err != nil || bias == nil {
		return err
	}
	return s.add(bias, shift)
}

// add adds to a bias.
func (s *structurer) add(b *onnx.Weight, shift []float64) error {
	t, err := b.Value()
	if err != nil {
		return err
	}
	v, _ := t.Float64s()
	v = slices.Clone(v)
	for k := range v {
		v[k] += shift[k]
	}
	var o *engine.Tensor
	if o, err = floatsLike(t, v, b.Shape); err != nil {
		return err
	}
	return s.file.Replace(b, o)
}

// constant is the part of a predicted unit that does not depend on the others.
func (m *measured) constant(a *mat.Dense, j, u int, keep []int) float64 {
	c := m.mean[u]
	if a != nil {
		for i, kept := range keep {
			c -= a.At(i, j) * m.mean[kept]
		}
	}
	return c
}

// predict returns the coefficients, kept by gone, by which the units that stay tell
// those that go, or nil where that cannot be computed.
func (m *measured) predict(gone, keep []int, centred bool) *mat.Dense {
	units := len(gone) + len(keep)
	rows := len(m.given) / units
	if float64(rows)*float64(units)*float64(units) > maxPredicted {
		return nil
	}
	pick := func(which []int) *mat.Dense {
		d := mat.NewDense(rows, len(which), nil)
		for r := range rows {
			for i, u := range which {
				x := m.given[r*units+u]
				if centred {
					x -= m.mean[u]
				}
				d.Set(r, i, x)
			}
		}
		return d
	}
	x, y := pick(keep), pick(gone)
	var square mat.SymDense
	square.SymOuterK(1, x.T())
	trace := 0.0
	for i := range keep {
		trace += square.At(i, i)
	}
	if trace == 0 {
		return nil
	}
	for i := range keep {
		square.SetSym(i, i, square.At(i, i)+ridge*trace/float64(len(keep)))
	}
	var cross, a mat.Dense
	cross.Mul(x.T(), y)
	var chol mat.Cholesky
	if !chol.Factorize(&square) || chol.SolveTo(&a, &cross) != nil {
		return nil
	}
	return &a
}
