package train

import (
	"math"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// TestLinearAgainstScikitLearn holds coefficients against Ridge, LogisticRegression and
// PoissonRegressor, and the quantile loss against the exact minimum.
func TestLinearAgainstScikitLearn(t *testing.T) {
	rows := readRows(t)
	for _, want := range readExpected(t).Linear {
		t.Run(want.Name, func(t *testing.T) {
			c := Config{Loss: Loss(want.Loss), L2: want.L2}
			if want.Loss == "quantile" {
				c.Quantile, c.Rate, c.Epochs, c.Batch, c.Schedule = 0.8, 0.1, 3000, 160, Cosine
			}
			f, err := Fit(t.Context(), columnsOf(t, rows, numbers...), labelsOf(t, rows, want.Label, want.Weighted), c)
			if err != nil {
				t.Fatal(err)
			}
			if want.Loss == "quantile" {
				if !near(f.TrainingLoss, want.Minimum, 1e-3) || f.TrainingLoss < want.Minimum-1e-4 {
					t.Errorf("loss %v, the minimum is %v", f.TrainingLoss, want.Minimum)
				}
				return
			}
			g, err := onnx.ReadGraph(f.Model, "")
			if err != nil {
				t.Fatal(err)
			}
			w, b := engine.Data[float32](g.Constants["pellucid/layer0.weight"]), engine.Data[float32](g.Constants["pellucid/layer0.bias"])
			k := len(b)
			for j, row := range append(slices.Clone(want.Coef), want.Intercept) {
				for i, v := range row {
					at := k - len(row) + i // two classes have a first margin of 0
					got := float64(append(slices.Clone(w), b...)[j*k+at])
					if math.Abs(got-v) > 1e-4 && !near(got/v, 1, 1e-5) {
						t.Errorf("row %d of the coefficients, output %d: %v, scikit-learn has %v", j, i, got, v)
					}
				}
			}
		})
	}
}

// TestStepsAgainstPyTorch takes 50 steps from PyTorch's weights with each optimiser.
func TestStepsAgainstPyTorch(t *testing.T) {
	rows := readRows(t)
	all := make([]int, rows.Rows)
	for i := range all {
		all[i] = i
	}
	e, err := encode(columnsOf(t, rows, numbers...), all)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range readExpected(t).Network {
		t.Run(want.Name, func(t *testing.T) {
			labels := labelsOf(t, rows, want.Label, false)
			c := Config{
				Hidden: []int{8, 5}, Activation: want.Activation, Loss: Loss(want.Loss), Optimiser: Optimiser(want.Optimizer),
				Rate: want.LR, Momentum: want.Momentum, Nesterov: want.Nesterov, Delta: 0.7, Threads: 2,
			}
			if want.Betas != nil {
				c.Beta1, c.Beta2 = want.Betas[0], want.Betas[1]
			}
			// PyTorch's weight decay is AdamW's with adam and an L2 penalty with sgd.
			if c.Decay = want.Decay; c.Optimiser == SGD {
				c.Decay, c.L2 = 0, want.Decay
			}
			if c, err = c.check(); err != nil {
				t.Fatal(err)
			}
			outputs := 1
			if c.Loss == CrossEntropy {
				outputs = len(labels.Classes)
			}
			n, err := newNetwork(e.width, outputs, &c)
			if err != nil {
				t.Fatal(err)
			}
			o, err := n.objective(e, labels, noScale, &c)
			if err != nil {
				t.Fatal(err)
			}
			x := slices.Concat(want.Start...)
			if len(x) != n.size || len(want.Losses) != 50 {
				t.Fatalf("%d weights for %d, %d losses", len(x), n.size, len(want.Losses))
			}
			s, grad := newStepper(c, &o.layout), make([]float64, n.size)
			for i, l := range want.Losses {
				got, err := o.value(t.Context(), x, all, grad)
				if err != nil {
					t.Fatal(err)
				}
				got -= o.penalty(x, nil)
				if !near(got, l, 1e-5) {
					t.Fatalf("step %d: loss %v, PyTorch has %v", i, got, l)
				}
				s.move(x, grad, 0)
			}
		})
	}
}
