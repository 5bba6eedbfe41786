package train

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// TestGradients holds every loss and activation against central differences in 64 bits.
func TestGradients(t *testing.T) {
	rows := readRows(t)
	all := make([]int, 40)
	for i := range all {
		all[i] = 3 * i
	}
	e, err := encode(columnsOf(t, rows, "age", "gaps", "city"), all)
	if err != nil {
		t.Fatal(err)
	}
	check := func(loss Loss, activation string) {
		label := map[Loss]string{Logistic: "label", CrossEntropy: "group", Poisson: "count"}[loss]
		labels := labelsOf(t, rows, orElse(label, "value"), true)
		c, err := Config{Hidden: []int{5}, Activation: activation, Loss: loss, L2: 0.3, Quantile: 0.7}.check()
		if err != nil {
			t.Fatal(err)
		}
		outputs := 1
		if loss == CrossEntropy {
			outputs = len(labels.Classes)
		}
		n, err := newNetwork(e.width, outputs, &c)
		if err != nil {
			t.Fatal(err)
		}
		x := n.start(11)
		// Differences need 64 bits: those of a linear model, here of a deep one.
		o, err := n.objectiveOf(engine.Float64, e, labels, labels.scaleOf(loss, all), &c)
		if err != nil {
			t.Fatal(err)
		}
		grad := make([]float64, n.size)
		if _, err := o.value(t.Context(), x, all, grad); err != nil {
			t.Fatal(err)
		}
		for i := range x {
			const h = 1e-5
			at := x[i]
			x[i] = at + h
			up, err := o.value(t.Context(), x, all, nil)
			if err != nil {
				t.Fatal(err)
			}
			x[i] = at - h
			down, err := o.value(t.Context(), x, all, nil)
			if err != nil {
				t.Fatal(err)
			}
			x[i] = at
			if d := (up - down) / (2 * h); !near(d, grad[i], 1e-6) {
				t.Errorf("%s, %s, weight %d: gradient %v, difference %v", loss, activation, i, grad[i], d)
			}
		}
	}
	for _, loss := range Losses {
		check(loss, "tanh")
	}
	for activation := range Activations {
		check(Squared, activation)
	}
}

// TestEarlyStopping keeps the best epoch's weights and not the last ones.
func TestEarlyStopping(t *testing.T) {
	rows := readRows(t)
	var held []float64
	c := Config{Hidden: []int{64}, Epochs: 400, Batch: 16, Rate: 0.02, Hold: 0.4, Patience: 15, Seed: 4, Step: func(p Progress) { held = append(held, p.Held) }}
	labels := labelsOf(t, rows, "label", false)
	f, err := Fit(t.Context(), columnsOf(t, rows, numbers...), labels, c)
	if err != nil {
		t.Fatal(err)
	}
	if f.Epochs == 400 || f.Epochs != f.Best+15 || len(held) != f.Epochs || f.HeldLoss != slices.Min(held) || held[f.Best-1] != f.HeldLoss {
		t.Errorf("%d epochs, best %d, loss %v of %v", f.Epochs, f.Best, f.HeldLoss, held)
	}
	p, err := f.Measure(t.Context(), read(t, f.Model), inputs(t, read(t, f.Model).Info(), rows), labels, f.Held)
	if err != nil {
		t.Fatal(err)
	}
	if l := p.Metrics[stats.MetricLogLoss]; !near(l, f.HeldLoss, 1e-5) || p.Metrics[stats.MetricAUC] < 0.7 || p.Rows != 64 {
		t.Errorf("the file's loss %v is not %v: %+v", l, f.HeldLoss, p)
	}
}

// TestSplit holds the last rows out where an order is given, and every class on both
// sides where not.
func TestSplit(t *testing.T) {
	l := &Labels{Class: make([]int, 100), Classes: []string{"often", "seldom"}}
	l.Class[7], l.Class[93], l.Class[50], l.Class[51] = 1, 1, 1, 1
	training, held, err := l.split(0.25, 9)
	if err != nil || len(held) != 25 || len(training) != 75 {
		t.Fatalf("%d and %d rows (%v)", len(training), len(held), err)
	}
	if !slices.ContainsFunc(held, func(i int) bool { return l.Class[i] == 1 }) || !slices.ContainsFunc(training, func(i int) bool { return l.Class[i] == 1 }) {
		t.Error("the seldom class is on one side")
	}
	for i := range 100 {
		l.Order = append(l.Order, float64(-i))
	}
	if _, held, err = l.split(0.1, 0); err != nil || len(held) != 10 || held[0] != 0 || held[9] != 9 {
		t.Errorf("held out %v (%v)", held, err)
	}
}

// TestWeights: a row of weight 2 counts as it does when it is there twice, one of 0 not at all.
func TestWeights(t *testing.T) {
	x, y := []float64{0, 1, 2, 3, 4, 5}, []float64{0, 1, 4, 9, 7, 1}
	fit := func(x, y, w []float64) []byte {
		f, err := Fit(t.Context(), []Column{{Name: "x", Numbers: x}}, &Labels{Values: y, Weights: w}, Config{Loss: Poisson})
		if err != nil {
			t.Fatal(err)
		}
		return f.Model
	}
	rows := func(data []byte) []float64 {
		in, err := engine.Of([]float32{0, 1, 2, 3}, 4, 1)
		if err != nil {
			t.Fatal(err)
		}
		s, err := read(t, data).NewSession(engine.SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(t.Context(), engine.Values{{Name: "input", Tensor: in}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		v, _ := out[0].Tensor.Float64s()
		return v
	}
	a := rows(fit(x, y, []float64{1, 2, 1, 1, 0, 0}))
	b := rows(fit([]float64{0, 1, 1, 2, 3}, []float64{0, 1, 1, 4, 9}, nil))
	for i := range a {
		if !near(a[i], b[i], 1e-5) {
			t.Errorf("row %d: %v by weight, %v by rows", i, a[i], b[i])
		}
	}
	l := &Labels{Class: []int{0, 0, 0, 1}, Classes: []string{"a", "b"}}
	if w := l.Balanced(); w[0]*3 != w[3] || math.Abs(w[0]*3+w[3]-4) > 1e-12 {
		t.Errorf("balanced weights %v", w)
	}
}

// TestRefusals names what is wrong and holds no value of a row.
func TestRefusals(t *testing.T) {
	x := []Column{{Name: "x", Numbers: []float64{1, 2, 3, 4}}}
	two := &Labels{Class: []int{0, 1, 0, 1}, Classes: []string{"a", "b"}}
	values := &Labels{Values: []float64{1, 2, 3, 4}}
	many := make([]string, 2000)
	for i := range many {
		many[i] = strings.Repeat("x", i)
	}
	for name, c := range map[string]struct {
		columns []Column
		labels  *Labels
		cfg     Config
		say     string
	}{
		"no column":       {nil, &Labels{Values: []float64{}}, Config{}, "no feature"},
		"one class":       {x, &Labels{Class: []int{0, 0, 0, 0}, Classes: []string{"a"}}, Config{}, "all of one class"},
		"a class unseen":  {x, &Labels{Class: []int{0, 0, 0, 1}, Classes: []string{"a", "b"}, Order: []float64{1, 2, 3, 4}}, Config{Hold: 0.25}, "class 2 of 2 has no row to learn from"},
		"labels":          {x, &Labels{Values: []float64{1}}, Config{}, "1 labels for 4 rows"},
		"NaN label":       {x, &Labels{Values: []float64{1, 2, math.NaN(), 4}}, Config{}, "label of row 3 is not finite"},
		"weight":          {x, &Labels{Values: values.Values, Weights: []float64{1, 1, -1, 1}}, Config{}, "weight of row 3"},
		"no weight":       {x, &Labels{Values: values.Values, Weights: make([]float64, 4)}, Config{}, "all 0"},
		"infinite":        {[]Column{{Name: "x", Numbers: []float64{1, 2, math.Inf(1), 4}}}, values, Config{}, `column "x": the value of row 3 is not finite`},
		"too large":       {[]Column{{Name: "x", Numbers: []float64{1, 2, 1e300, 4}}}, values, Config{}, "not one of 32 bits"},
		"twice":           {slices.Concat(x, x), values, Config{}, "that of another"},
		"categories":      {[]Column{{Name: "x", Texts: many}}, &Labels{Values: make([]float64, 2000)}, Config{}, "more than 1000 categories"},
		"loss of classes": {x, values, Config{Loss: Logistic}, "labels that are numbers"},
		"loss of numbers": {x, two, Config{Loss: Squared}, "labels that are classes"},
		"below 0":         {x, &Labels{Values: []float64{1, -2, 3, 4}}, Config{Loss: Poisson}, "below 0"},
		"unknown loss":    {x, values, Config{Loss: "hinge"}, "hinge"},
		"activation":      {x, values, Config{Activation: "step"}, "step"},
		"hidden":          {x, values, Config{Hidden: []int{0}}, "hidden layers"},
		"too many":        {x, values, Config{Hidden: []int{1 << 16, 1 << 16}}, "fit more than"},
		"rate":            {x, values, Config{Rate: math.NaN()}, "learning rate"},
		"lbfgs' rate":     {x, values, Config{Rate: 0.1}, "finds its own steps"},
		"hold":            {x, values, Config{Hold: 1}, "held out"},
		"nesterov":        {x, values, Config{Optimiser: SGD, Nesterov: true}, "momentum"},
		"adam's momentum": {x, values, Config{Optimiser: Adam, Momentum: 0.9}, "sgd's"},
	} {
		if _, err := Fit(t.Context(), c.columns, c.labels, c.cfg); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDivergence ends with an error that names the epoch, and a cancelled fit with its own.
func TestDivergence(t *testing.T) {
	rows := readRows(t)
	_, err := Fit(t.Context(), columnsOf(t, rows, numbers...), labelsOf(t, rows, "value", false), Config{Hidden: []int{8}, Optimiser: SGD, Rate: 1e9, Batch: 16})
	if !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), "epoch 1") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, hidden := range [][]int{nil, {4}} {
		if _, err := Fit(ctx, columnsOf(t, rows, numbers...), labelsOf(t, rows, "value", false), Config{Hidden: hidden}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	if _, err := Fit(t.Context(), columnsOf(t, rows, numbers...), labelsOf(t, rows, "value", false), Config{Hidden: []int{512}, MaxBytes: 1 << 10}); !errors.Is(err, engine.ErrTooLarge) {
		t.Errorf("%v", err)
	}
}

// TestConstantColumn learns nothing from a column that never changes, nor fails on it.
func TestConstantColumn(t *testing.T) {
	f, err := Fit(t.Context(), []Column{
		{Name: "same", Numbers: []float64{5, 5, 5, 5}},
		{Name: "none", Numbers: []float64{math.NaN(), math.NaN(), math.NaN(), math.NaN()}},
		{Name: "x", Numbers: []float64{1, 2, 3, 4}},
	}, &Labels{Values: []float64{2, 4, 6, 8}}, Config{})
	if err != nil || !(f.TrainingLoss < 1e-9) {
		t.Fatalf("loss %v (%v)", f.TrainingLoss, err)
	}
}

// TestPartsAreAddedInOrder compares a loss and its gradient in all their bits, over more
// parts than are held at a time: the 32 bits of a file would hide most of a difference.
func TestPartsAreAddedInOrder(t *testing.T) {
	rows := readRows(t)
	var many []int
	for i := range 20 * mostPart {
		many = append(many, i*7%rows.Rows)
	}
	e, err := encode(columnsOf(t, rows, numbers...), many[:rows.Rows])
	if err != nil {
		t.Fatal(err)
	}
	labels := labelsOf(t, rows, "value", true)
	var first []float64
	for _, threads := range []int{1, 2, 3, 8} {
		c, err := Config{Loss: Squared, Threads: threads}.check()
		if err != nil {
			t.Fatal(err)
		}
		n, err := newNetwork(e.width, 1, &c)
		if err != nil {
			t.Fatal(err)
		}
		o, err := n.objective(e, labels, labels.scaleOf(Squared, many), &c)
		if err != nil {
			t.Fatal(err)
		}
		grad := make([]float64, n.size)
		l, err := o.value(t.Context(), make([]float64, n.size), many, grad)
		if err != nil {
			t.Fatal(err)
		}
		if all := slices.Concat(grad, []float64{l}); first == nil {
			first = all
		} else if !slices.Equal(all, first) {
			t.Errorf("%d threads: %v, one thread has %v", threads, all, first)
		}
	}
}
