package calibrate

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestProbabilities: probabilities that are too sure become right, and the file maps
// them as Apply does, certain ones too.
func TestProbabilities(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const n = 4000
	for _, classes := range []int{2, 3} {
		p, labels := make([]float64, 0, n*classes), make([]int, n)
		for i := range n {
			logits, truth := make([]float64, classes), make([]float64, classes)
			for k := range logits {
				logits[k] = r.NormFloat64()
			}
			softmax(truth, logits, 1)
			for draw := r.Float64(); draw > truth[labels[i]] && labels[i] < classes-1; labels[i]++ {
				draw -= truth[labels[i]]
			}
			sure := make([]float64, classes)
			softmax(sure, logits, 3) // a temperature of 3 is missing
			for _, v := range sure {
				p = append(p, float64(float32(v)))
			}
		}
		for _, m := range Methods {
			c, err := FitProbabilities(m, p, classes, labels, nil)
			if err != nil {
				t.Fatal(err)
			}
			before, after := errorOf(p, classes, labels), 0.0
			mapped := applied(c, p)
			if after = errorOf(mapped, classes, labels); before < 0.1 || after > 0.03 {
				t.Errorf("%s of %d classes: calibration error %v before, %v after", m, classes, before, after)
			}
			if m == Temperature && math.Abs(c.Temperature()-3) > 0.3 {
				t.Errorf("temperature %v, not 3", c.Temperature())
			}
			some := append(append([]float64{}, p[:30*classes]...), make([]float64, classes)...)
			some[len(some)-1] = 1
			file, err := c.ONNX()
			if err != nil {
				t.Fatal(err)
			}
			near(t, string(m), run(t, file, InputName, OutputName, some, classes, false), applied(c, some), 1e-6)
		}
	}
	if _, err := FitProbabilities(Platt, []float64{0.5, 1.5}, 2, []int{0}, nil); err == nil {
		t.Error("1.5 was taken for a probability")
	}
}

func errorOf(p []float64, classes int, labels []int) float64 {
	sure, right := make([]float64, len(labels)), make([]bool, len(labels))
	for i, l := range labels {
		row, best := p[i*classes:(i+1)*classes], 0
		for k, v := range row {
			if v > row[best] {
				best = k
			}
		}
		sure[i], right[i] = row[best], best == l
	}
	return Error(sure, right, nil)
}
