package trees

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/engine/xgboost"
)

// worse is how far a loss on held-out rows may be above a library's.
const worse = 1.01

// TestQuality holds losses on held-out rows against those of XGBoost and scikit-learn.
func TestQuality(t *testing.T) {
	losses := map[string]Options{
		"friedman": {Loss: Squared}, "binary": {Loss: Logistic}, "classes": {Loss: Softmax, Classes: 4},
		"counts": {Loss: Poisson}, "quantile": {Loss: Quantile, Quantile: 0.9}, "flights": {Loss: Logistic},
	}
	for name, want := range readOracle(t).Quality {
		t.Run(name, func(t *testing.T) {
			fit, out := held(dataOf(t, name))
			opt, ok := losses[name]
			if !ok {
				t.Fatal("no such case")
			}
			opt.Lambda, opt.MinChildWeight, opt.Valid, opt.Threads = 1, 5, out, 2
			if loss := lastLoss(t, fit, opt); !(loss <= want.XGBoost*worse) {
				t.Errorf("loss %.5f, XGBoost %.5f", loss, want.XGBoost)
			}
			// scikit-learn's hessians of these are half of XGBoost's (of counts as
			// much as damps XGBoost's), and it bounds a leaf's rows instead of them.
			switch opt.Loss {
			case Softmax, Poisson:
				opt.Rate, opt.Lambda, opt.MinChildWeight = 0.2, 2, 2
			case Logistic:
				opt.MinChildWeight = 1
			}
			if loss := lastLoss(t, fit, opt); !(loss <= want.Sklearn*worse) {
				t.Errorf("loss %.5f, scikit-learn %.5f", loss, want.Sklearn)
			}
		})
	}
}

func lastLoss(t *testing.T, d *Data, opt Options) float64 {
	t.Helper()
	_, r, err := Fit(context.Background(), d, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r.Valid[len(r.Valid)-1]
}

// kinds are fits of every loss and kind of split, on the few rows of grid.
func kinds() map[string]Options {
	few := Options{Rounds: 8, Lambda: 1, MinChildWeight: 1, MaxDepth: 4, Rate: 0.3, OneVsRest: true}
	with := func(change func(o *Options)) Options {
		o := few
		change(&o)
		return o
	}
	return map[string]Options{
		"squared":  few,
		"logistic": with(func(o *Options) { o.Loss = Logistic }),
		"softmax":  with(func(o *Options) { o.Loss, o.Classes = Softmax, 3 }),
		"poisson":  with(func(o *Options) { o.Loss = Poisson }),
		"quantile": with(func(o *Options) { o.Loss, o.Quantile = Quantile, 0.7 }),
		"sets":     with(func(o *Options) { o.OneVsRest = false }),
		"drawn":    with(func(o *Options) { o.Subsample, o.FeatureShare, o.Seed = 0.6, 0.5, 7 }),
		"leafwise": with(func(o *Options) { o.Growth, o.MaxLeaves = LeafWise, 9 }),
		"monotone": with(func(o *Options) { o.Monotone = []int8{1, -1, 1, 0, 0, 0} }),
		"coarse":   with(func(o *Options) { o.Bins = 5 }),
	}
}

// TestFiles holds what the written files predict against the ensemble that was fitted.
func TestFiles(t *testing.T) {
	for name, opt := range kinds() {
		t.Run(name, func(t *testing.T) {
			d := exactData(&opt, 6, false)
			m, r, err := Fit(context.Background(), d, opt)
			if err != nil {
				t.Fatal(err)
			}
			e := m.Ensemble()
			if err := e.Validate(); err != nil {
				t.Fatal(err)
			}
			margins := make([]float32, len(d.Labels)*m.Outputs())
			if err := tree.NewEvaluator(e).Margins32(context.Background(), d.X, len(d.Labels), margins, 1); err != nil {
				t.Fatal(err)
			}
			if loss := opt.withDefaults().meanLossOf(d, margins); math.Abs(loss-r.Train) > 1e-6*(1+math.Abs(loss)) {
				t.Errorf("the ensemble's loss is %v, reported %v", loss, r.Train)
			}
			want := tree.Apply(e.Link, 0, margins, m.Outputs())
			text, err := m.XGBoost()
			if err != nil {
				t.Fatal(err)
			}
			model, err := xgboost.Read(text)
			if err != nil {
				t.Fatal(err)
			}
			near(t, "XGBoost's file", predict(t, model, tree.InputName, tree.OutputName, d), want, 0)
			file := checkONNX(t, m, d, want)
			keep(t, name, d, want, text, file)
		})
	}
}

// meanLossOf lets a test call meanLoss on a value.
func (o Options) meanLossOf(d *Data, margins []float32) float64 { return o.meanLoss(d, margins) }

func checkONNX(t *testing.T, m *Model, d *Data, want []float32) []byte {
	t.Helper()
	file, err := m.ONNX()
	if !m.opt.OneVsRest {
		var unsupported *engine.UnsupportedError
		if !errors.As(err, &unsupported) {
			t.Errorf("sets of categories in ONNX: %v", err)
		}
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	model, err := onnx.Read(file, "")
	if err != nil {
		t.Fatal(err)
	}
	out := PredictionName
	if m.opt.Loss == Logistic || m.opt.Loss == Softmax {
		out = ProbabilitiesName
	}
	got := predict(t, model, InputName, out, d)
	if m.opt.Loss == Logistic {
		for i := range want {
			got[i] = got[2*i+1]
		}
		got = got[:len(want)]
	}
	near(t, "the ONNX file", got, want, 1e-6)
	if _, ok := model.(tree.Holder); !ok && m.opt.Loss != Poisson {
		t.Error("the ONNX file's trees cannot be explained")
	}
	return file
}

func predict(t *testing.T, m engine.Model, input, output string, d *Data) []float32 {
	t.Helper()
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	x, err := engine.Of(d.X, len(d.Labels), d.Features)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(context.Background(), engine.Values{{Name: input, Tensor: x}}, []string{output})
	if err != nil {
		t.Fatal(err)
	}
	return engine.Data[float32](out[0].Tensor)
}

func near(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s gives %d values, want %d", what, len(got), len(want))
	}
	for i := range want {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= tolerance*(1+math.Abs(float64(want[i])))) {
			t.Fatalf("%s: value %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

// keep writes files for make_trees.py check, where the environment names a folder.
func keep(t *testing.T, name string, d *Data, want []float32, text, file []byte) {
	t.Helper()
	dir := os.Getenv("PELLUCID_TREES_OUT")
	if dir == "" {
		return
	}
	table := func(v []float32, width int) []byte {
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		for at := 0; at < len(v); at += width {
			var row []string
			for _, e := range v[at : at+width] {
				row = append(row, strconv.FormatFloat(float64(e), 'g', -1, 32))
			}
			if err := w.Write(row); err != nil {
				t.Fatal(err)
			}
		}
		w.Flush()
		return b.Bytes()
	}
	for ext, data := range map[string][]byte{
		".json": text, ".onnx": file, ".rows.csv": table(d.X, d.Features), ".expect.csv": table(want, len(want)/len(d.Labels)),
	} {
		if data == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name+ext), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestThreads holds the files of one seed against each other, bit by bit.
func TestThreads(t *testing.T) {
	d := mixed(30000)
	d.Categorical = make([]bool, 20)
	d.Categorical[19] = true
	d.Weights = uniform(9, len(d.Labels))
	for r := range d.Labels {
		d.X[r*20+19] = float32(r * 7 % 400)
	}
	for _, opt := range []Options{
		{Rounds: 5, Lambda: 1},
		{Rounds: 5, Growth: LeafWise, MaxLeaves: 40, Subsample: 0.7, FeatureShare: 0.6, Seed: 3, Gamma: 0.1},
	} {
		var first []byte
		for threads := 1; threads <= 3; threads++ {
			opt.Threads = threads
			m, _, err := Fit(context.Background(), d, opt)
			if err != nil {
				t.Fatal(err)
			}
			file, err := m.XGBoost()
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = file
			} else if !bytes.Equal(first, file) {
				t.Errorf("%d threads give another file", threads)
			}
		}
		opt.Seed++
		m, _, err := Fit(context.Background(), d, opt)
		if err != nil {
			t.Fatal(err)
		}
		if file, err := m.XGBoost(); err != nil || bytes.Equal(first, file) != (opt.Subsample == 0) {
			t.Errorf("another seed: the same file %v, %v", bytes.Equal(first, file), err)
		}
	}
}

// TestLittleMemory has histograms dropped and summed anew, and the same trees.
func TestLittleMemory(t *testing.T) {
	d := friedman(3000)
	grow := func(most int) []node {
		o := Options{MaxDepth: 8, Lambda: 1}.withDefaults()
		f, err := newFitter(context.Background(), d, &o)
		if err != nil {
			t.Fatal(err)
		}
		f.grower.most = most
		if err := f.round(context.Background(), 1); err != nil {
			t.Fatal(err)
		}
		if f.grower.made > most {
			t.Fatalf("%d histograms, more than %d", f.grower.made, most)
		}
		return slices.Clone(f.grower.nodes)
	}
	many, few := grow(1000), grow(4)
	if len(many) < 100 || len(many) != len(few) {
		t.Fatalf("%d and %d nodes", len(many), len(few))
	}
	for i := range many {
		if many[i].value != few[i].value || many[i].split.feature != few[i].split.feature || many[i].split.bin != few[i].split.bin {
			t.Fatalf("node %d is another", i)
		}
	}
	o := Options{MaxBytes: 1 << 18}
	if _, _, err := Fit(context.Background(), d, o); !errors.Is(err, engine.ErrTooLarge) {
		t.Errorf("a fit in little memory: %v", err)
	}
}

// TestMonotone walks each constrained feature from end to end.
func TestMonotone(t *testing.T) {
	d := friedman(4000)
	opt := Options{Rounds: 30, Monotone: []int8{1, 0, -1, 1, 0, 0, 0, 0, 0, -1}, Lambda: 1}
	m, _, err := Fit(context.Background(), d, opt)
	if err != nil {
		t.Fatal(err)
	}
	v := tree.NewEvaluator(m.Ensemble())
	const steps = 200
	for f, sign := range opt.Monotone {
		for r := 0; r < 50 && sign != 0; r++ {
			x := make([]float32, 0, steps*10)
			for s := range steps {
				row := slices.Clone(d.X[r*10 : r*10+10])
				row[f] = float32(s) / steps
				x = append(x, row...)
			}
			out := make([]float32, steps)
			if err := v.Margins32(context.Background(), x, steps, out, 1); err != nil {
				t.Fatal(err)
			}
			for s := 1; s < steps; s++ {
				if (out[s]-out[s-1])*float32(sign) < -1e-5 {
					t.Fatalf("feature %d goes the wrong way at row %d", f, r)
				}
			}
		}
	}
}

// TestEarlyStopping has noise fitted until the held-out loss rises.
func TestEarlyStopping(t *testing.T) {
	fit, out := held(friedman(2000))
	opt := Options{Rounds: 500, Rate: 0.5, Valid: out, Patience: 5}
	m, r, err := Fit(context.Background(), fit, opt)
	if err != nil {
		t.Fatal(err)
	}
	least := slices.Min(r.Valid)
	if r.Rounds != r.Best || len(r.Valid) != r.Best+5 || r.Valid[r.Best-1] != least || m.Rounds() != r.Best {
		t.Errorf("%d rounds kept of %d, best %d of loss %v, least %v", r.Rounds, len(r.Valid), r.Best, r.Valid[r.Best-1], least)
	}
	margins := make([]float32, len(out.Labels))
	if err := tree.NewEvaluator(m.Ensemble()).Margins32(context.Background(), out.X, len(out.Labels), margins, 1); err != nil {
		t.Fatal(err)
	}
	if loss := opt.meanLossOf(out, margins); math.Abs(loss-least) > 1e-6*least {
		t.Errorf("the model's held-out loss is %v, reported %v", loss, least)
	}
}

// TestRareCategories has more categories than bins.
func TestRareCategories(t *testing.T) {
	const n = 6000
	u := uniform(31, n)
	d := &Data{X: make([]float32, n), Features: 1, Labels: make([]float64, n), Categorical: []bool{true}}
	for i := range n {
		d.X[i] = float32(math.Floor(u[i] * u[i] * 1000))
		d.Labels[i] = math.Mod(float64(d.X[i]), 2)
	}
	m, r, err := Fit(context.Background(), d, Options{Rounds: 60, Rate: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	if r.Bins[0] != MaxBins || r.Train > 0.12 {
		t.Errorf("%d bins, loss %v", r.Bins[0], r.Train)
	}
	// What was never seen goes where the rare ones go.
	x := []float32{100_000, 999_999, float32(math.NaN())}
	out := make([]float32, 3)
	if err := tree.NewEvaluator(m.Ensemble()).Margins32(context.Background(), x, 3, out, 1); err != nil {
		t.Fatal(err)
	}
	if out[0] != out[1] {
		t.Errorf("two unseen categories: %v", out)
	}
}

// TestRefused holds what is no data, and no way to fit, to an error without a value.
func TestRefused(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	good := func() *Data { return &Data{X: []float32{1, 2, 3, 4}, Features: 2, Labels: []float64{0, 1}} }
	for name, c := range map[string]struct {
		change func(d *Data)
		opt    Options
	}{
		"no rows":          {func(d *Data) { *d = Data{Features: 1} }, Options{}},
		"no features":      {func(d *Data) { d.Features = 0 }, Options{}},
		"ragged":           {func(d *Data) { d.X = d.X[:3] }, Options{}},
		"infinite value":   {func(d *Data) { d.X[1] = float32(inf) }, Options{}},
		"NaN label":        {func(d *Data) { d.Labels[0] = nan }, Options{}},
		"huge label":       {func(d *Data) { d.Labels[0] = 1e300 }, Options{}},
		"label of a class": {func(d *Data) { d.Labels[0] = 7 }, Options{Loss: Softmax, Classes: 3}},
		"half a class":     {func(d *Data) { d.Labels[0] = 0.5 }, Options{Loss: Softmax, Classes: 3}},
		"no probability":   {func(d *Data) { d.Labels[0] = -1 }, Options{Loss: Logistic}},
		"negative count":   {func(d *Data) { d.Labels[0] = -1 }, Options{Loss: Poisson}},
		"no weight":        {func(d *Data) { d.Weights = []float64{0, 0} }, Options{}},
		"NaN weight":       {func(d *Data) { d.Weights = []float64{1, nan} }, Options{}},
		"few weights":      {func(d *Data) { d.Weights = []float64{1} }, Options{}},
		"half a category":  {func(d *Data) { d.Categorical, d.X[0] = []bool{true, false}, 0.5 }, Options{}},
		"large category":   {func(d *Data) { d.Categorical, d.X[0] = []bool{true, false}, 1<<25 }, Options{}},
		"names":            {func(d *Data) { d.Names = []string{"a"} }, Options{}},
		"loss":             {nil, Options{Loss: "huber"}},
		"classes":          {nil, Options{Loss: Softmax, Classes: 1}},
		"quantile":         {nil, Options{Loss: Quantile, Quantile: 1}},
		"rate":             {nil, Options{Rate: nan}},
		"depth":            {nil, Options{MaxDepth: 1000}},
		"bins":             {nil, Options{Bins: 256}},
		"lambda":           {nil, Options{Lambda: -1}},
		"share":            {nil, Options{Subsample: 1.5}},
		"patience":         {nil, Options{Patience: 3}},
		"monotone":         {nil, Options{Monotone: []int8{1}}},
		"held-out":         {nil, Options{Valid: &Data{X: []float32{1}, Features: 1, Labels: []float64{1}}}},
		"monotone codes":   {func(d *Data) { d.Categorical = []bool{true, false} }, Options{Monotone: []int8{1, 0}}},
	} {
		d := good()
		if c.change != nil {
			c.change(d)
		}
		if m, _, err := Fit(context.Background(), d, c.opt); err == nil || m != nil {
			t.Errorf("%s: fitted", name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := Fit(ctx, good(), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled fit: %v", err)
	}
}

// FuzzFit fits what bytes make of rows, labels, weights and options: an error, or a
// model whose predictions are finite and the same from its file.
func FuzzFit(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, uint8(2), uint8(0), uint16(0))
	f.Add([]byte{255, 0, 128, 7, 0, 0, 0, 9}, uint8(1), uint8(1), uint16(77))
	f.Add(bytes.Repeat([]byte{3}, 60), uint8(3), uint8(2), uint16(999))
	f.Add([]byte{200, 250, 251, 252, 253, 254}, uint8(1), uint8(4), uint16(13))
	special := []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e30, -1e30, 1e-40, math.MaxFloat32, 0, -1, 1e15, 2, 0.5}
	value := func(b byte) float64 {
		if int(b) >= 256-len(special) {
			return special[255-int(b)]
		}
		return float64(b%16) / 4
	}
	f.Fuzz(func(t *testing.T, raw []byte, features, loss uint8, bits uint16) {
		width := int(features%4) + 1
		d := &Data{Features: width}
		for ; len(raw) > width+1 && len(d.Labels) < 200; raw = raw[width+2:] {
			for _, b := range raw[:width] {
				d.X = append(d.X, float32(value(b)))
			}
			d.Labels = append(d.Labels, value(raw[width]))
			if bits&1 == 1 {
				d.Weights = append(d.Weights, value(raw[width+1]))
			}
		}
		if bits&2 == 2 {
			d.Categorical = make([]bool, width)
			d.Categorical[0] = true
		}
		o := Options{
			Loss: []Loss{Squared, Logistic, Softmax, Poisson, Quantile}[loss%5], Classes: 3, Quantile: 0.3, Rounds: 4,
			Rate: 1, Lambda: float64(bits >> 2 & 1), Threads: 2, MaxBytes: 1 << 24, OneVsRest: bits&8 == 8, Bins: 2 + int(bits>>4&63),
		}
		m, r, err := Fit(context.Background(), d, o)
		if err != nil {
			return
		}
		if math.IsNaN(r.Train) {
			t.Fatal("the loss is NaN")
		}
		text, err := m.XGBoost()
		if err != nil {
			t.Fatal(err)
		}
		model, err := xgboost.Read(text)
		if err != nil {
			t.Fatal(fmt.Errorf("read what was written: %w", err))
		}
		for _, v := range predict(t, model, tree.InputName, tree.MarginName, d) {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				t.Fatal("a margin is not finite")
			}
		}
		if _, err := m.ONNX(); err != nil && o.OneVsRest {
			t.Fatal(err)
		}
	})
}
