package calibrate

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
	"github.com/pellucid/pellucid/engine/train/trees"
)

// oracle is what testdata/make_calibrate.py writes.
type oracle struct {
	Single []struct {
		Name                        string
		Scores, Labels, Weights, At []float64
		X, Y, Isotonic, Platt       []float64
		A, B                        float64
	}
	Several struct {
		Logits          []float64
		Labels          []int
		Isotonic, Platt []float64
		Temperature     float64
	}
}

func readOracle(t *testing.T) *oracle {
	t.Helper()
	f, err := os.Open("testdata/calibrate.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var o oracle
	if err := json.NewDecoder(z).Decode(&o); err != nil {
		t.Fatal(err)
	}
	return &o
}

func near(t *testing.T, what string, got, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range want {
		if !(math.Abs(got[i]-want[i]) <= tolerance*(1+math.Abs(want[i]))) {
			t.Fatalf("%s: value %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

// plattTolerance is how near scikit-learn's own optimiser comes to the minimum.
const plattTolerance = 2e-5

func TestScikitLearn(t *testing.T) {
	for _, c := range readOracle(t).Single {
		t.Run(c.Name, func(t *testing.T) {
			curve, err := FitIsotonic(c.Scores, c.Labels, c.Weights)
			if err != nil {
				t.Fatal(err)
			}
			near(t, "X", curve.X, c.X, 0)
			near(t, "Y", curve.Y, c.Y, 1e-14)
			s, err := FitPlatt(c.Scores, c.Labels, c.Weights)
			if err != nil {
				t.Fatal(err)
			}
			var isotonic, platt []float64
			for _, x := range c.At {
				isotonic, platt = append(isotonic, curve.At(x)), append(platt, s.At(x))
			}
			near(t, "isotonic", isotonic, c.Isotonic, 1e-13)
			near(t, "platt", platt, c.Platt, plattTolerance)
			p := platt0(c.Scores, c.Labels, c.Weights)
			if ours, theirs := p.loss(s), p.loss(Sigmoid{c.A, c.B}); ours > theirs+1e-12*math.Abs(theirs) {
				t.Errorf("the loss is %v, scikit-learn's %v", ours, theirs)
			}
		})
	}
}

// platt0 is the loss that FitPlatt minimises, of scores as they are.
func platt0(scores, labels, weights []float64) *platt {
	p := &platt{scores: scores, weights: weights}
	positive, negative := 0.0, 0.0
	for i, l := range labels {
		if l > 0 {
			positive += weightOf(weights, i)
		} else {
			negative += weightOf(weights, i)
		}
	}
	for _, l := range labels {
		if l > 0 {
			p.targets = append(p.targets, (positive+1)/(positive+2))
		} else {
			p.targets = append(p.targets, 1/(negative+2))
		}
	}
	return p
}

// TestClasses holds three classes against scikit-learn, and the files of all kinds of
// calibrator against themselves.
func TestClasses(t *testing.T) {
	o := readOracle(t).Several
	fit := func(c *Calibrator, err error) *Calibrator {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	two, binary := make([]float64, 0, 600), make([]int, 0, 300)
	one := make([]float64, 0, 300)
	for r, l := range o.Labels {
		two = append(two, o.Logits[3*r], o.Logits[3*r+1])
		one = append(one, o.Logits[3*r+1])
		binary = append(binary, l%2)
	}
	temperature := fit(FitTemperature(o.Logits, 3, o.Labels, nil))
	if got := temperature.Temperature(); math.Abs(got-o.Temperature) > 1e-6 {
		t.Errorf("temperature %v, want %v", got, o.Temperature)
	}
	for _, c := range []struct {
		name   string
		c      *Calibrator
		scores []float64
		want   []float64
		near   float64
	}{
		{"isotonic3", fit(Fit(Isotonic, o.Logits, 3, o.Labels, nil)), o.Logits, o.Isotonic, 1e-12},
		{"platt3", fit(Fit(Platt, o.Logits, 3, o.Labels, nil)), o.Logits, o.Platt, plattTolerance},
		{"temperature", temperature, o.Logits, nil, 0},
		{"isotonic2", fit(Fit(Isotonic, two, 2, binary, nil)), two, nil, 0},
		{"platt2", fit(Fit(Platt, two, 2, binary, nil)), two, nil, 0},
		{"isotonic1", fit(Fit(Isotonic, one, 1, binary, nil)), one, nil, 0},
		{"platt1", fit(Fit(Platt, one, 1, binary, nil)), one, nil, 0},
		{"point", fit(Fit(Isotonic, []float64{1, 1}, 1, []int{0, 1}, nil)), one, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want != nil {
				near(t, "probabilities", applied(c.c, c.scores), c.want, c.near)
			}
			narrow := make([]float64, len(c.scores)) // as the file gets them
			for i, v := range c.scores {
				narrow[i] = float64(float32(v))
			}
			file, err := c.c.ONNX()
			if err != nil {
				t.Fatal(err)
			}
			want := applied(c.c, narrow)
			near(t, "the file", run(t, file, InputName, OutputName, narrow, c.c.classes, c.c.classes == 1), want, 1e-6)
			keep(t, c.name, file, OutputName, narrow, want)
		})
	}
}

func applied(c *Calibrator, scores []float64) []float64 {
	out := make([]float64, len(scores))
	for at := 0; at < len(scores); at += c.classes {
		c.Apply(out[at:at+c.classes], scores[at:at+c.classes])
	}
	return out
}

func run(t *testing.T, file []byte, input, output string, x []float64, width int, flat bool) []float64 {
	t.Helper()
	m, err := onnx.Read(file, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	narrow := make([]float32, len(x))
	for i, v := range x {
		narrow[i] = float32(v)
	}
	shape := []int{len(x) / width, width}
	if flat {
		shape = shape[:1]
	}
	in, err := engine.Of(narrow, shape...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(context.Background(), engine.Values{{Name: input, Tensor: in}}, []string{output})
	if err != nil {
		t.Fatal(err)
	}
	var got []float64
	for _, v := range engine.Data[float32](out[0].Tensor) {
		got = append(got, float64(v))
	}
	return got
}

// keep writes files for make_calibrate.py check, where the environment names a folder.
func keep(t *testing.T, name string, file []byte, output string, scores, want []float64) {
	t.Helper()
	dir := os.Getenv("PELLUCID_CALIBRATE_OUT")
	if dir == "" {
		return
	}
	text, err := json.Marshal(map[string]any{"output": output, "scores": scores, "want": want})
	if err != nil {
		t.Fatal(err)
	}
	for ext, data := range map[string][]byte{".onnx": file, ".json": text} {
		if err := os.WriteFile(filepath.Join(dir, name+ext), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAppend calibrates the classifier and the regressor that engine/train/trees writes.
func TestAppend(t *testing.T) {
	const rows = 200
	d := &trees.Data{Features: 2}
	var labels []int
	for r := range rows {
		a, b := float64(r*37%101)/100, float64(r*53%89)/90
		d.X = append(d.X, float32(a), float32(b))
		labels = append(labels, map[bool]int{true: 1}[a+b+float64(r%7)/10 > 1.3])
		d.Labels = append(d.Labels, float64(labels[r]))
	}
	for loss, output := range map[trees.Loss]string{trees.Logistic: trees.ProbabilitiesName, trees.Squared: trees.PredictionName} {
		m, _, err := trees.Fit(context.Background(), d, trees.Options{Loss: loss, Rounds: 5})
		if err != nil {
			t.Fatal(err)
		}
		file, err := m.ONNX()
		if err != nil {
			t.Fatal(err)
		}
		x := make([]float64, len(d.X))
		for i, v := range d.X {
			x[i] = float64(v)
		}
		scores := run(t, file, trees.InputName, output, x, 2, false)
		classes := len(scores) / rows
		for _, method := range []Method{Isotonic, Platt} {
			c, err := Fit(method, scores, classes, labels, nil)
			if err != nil {
				t.Fatal(err)
			}
			behind, name, stays, err := c.Append(file, output)
			if err != nil {
				t.Fatal(err)
			}
			if stays != "" {
				t.Errorf("stays as it was: %s", stays)
			}
			want := applied(c, scores)
			if classes == 2 {
				labelled(t, behind, name, x)
			}
			near(t, string(method), run(t, behind, trees.InputName, name, x, 2, false), want, 1e-6)
			keep(t, fmt.Sprintf("%s_%s", loss, method), behind, name, x, want)
			if _, _, _, err := c.Append(file, "no such output"); err == nil {
				t.Error("calibrated an output that is not there")
			}
			other := *c
			other.classes = 7
			if _, _, _, err := other.Append(file, output); err == nil {
				t.Error("calibrated another number of classes")
			}
		}
	}
}

// labelled looks that labels follow the calibrated scores, and that some of them did not
// before.
func labelled(t *testing.T, file []byte, scores string, x []float64) {
	t.Helper()
	m, err := onnx.Read(file, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	narrow := make([]float32, len(x))
	for i, v := range x {
		narrow[i] = float32(v)
	}
	in, err := engine.Of(narrow, len(x)/2, 2)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(t.Context(), engine.Values{{Name: trees.InputName, Tensor: in}}, []string{trees.LabelName, scores})
	if err != nil {
		t.Fatal(err)
	}
	p := engine.Data[float32](out[1].Tensor)
	for r, l := range engine.Data[int64](out[0].Tensor) {
		if want := p[2*r+1] > p[2*r]; want != (l == 1) {
			t.Fatalf("row %d: label %d of calibrated scores %v", r, l, p[2*r:2*r+2])
		}
	}
}

func TestRefused(t *testing.T) {
	nan := math.NaN()
	for name, f := range map[string]func() error{
		"no rows":        func() error { _, err := FitIsotonic(nil, nil, nil); return err },
		"NaN score":      func() error { _, err := FitPlatt([]float64{nan}, []float64{1}, nil); return err },
		"infinite score": func() error { _, err := FitIsotonic([]float64{math.Inf(1)}, []float64{1}, nil); return err },
		"NaN label":      func() error { _, err := FitIsotonic([]float64{1}, []float64{nan}, nil); return err },
		"no weight":      func() error { _, err := FitPlatt([]float64{1}, []float64{1}, []float64{0}); return err },
		"huge weight":    func() error { _, err := FitPlatt([]float64{1}, []float64{1}, []float64{1e300}); return err },
		"ragged":         func() error { _, err := Fit(Platt, []float64{1, 2, 3}, 2, []int{0}, nil); return err },
		"no class":       func() error { _, err := Fit(Platt, []float64{1, 2, 3}, 3, []int{3}, nil); return err },
		"method":         func() error { _, err := Fit("spline", []float64{1}, 1, []int{1}, nil); return err },
		"one class":      func() error { _, err := FitTemperature([]float64{1}, 1, []int{0}, nil); return err },
		"certain":        func() error { _, err := FitTemperature([]float64{1, 0, 0, 1}, 2, []int{0, 1}, nil); return err },
	} {
		if f() == nil {
			t.Errorf("%s: fitted", name)
		}
	}
	c, err := Fit(Platt, []float64{1, 2}, 1, []int{0, 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := c.Append([]byte("no model"), "x"); !errors.Is(err, engine.ErrCorrupt) {
		t.Errorf("behind no model: %v", err)
	}
}

// FuzzFit fits what bytes make of scores, labels and weights: an error, or maps that
// stay between 0 and 1 and, of isotonic regression, never fall.
func FuzzFit(f *testing.F) {
	f.Add([]byte{1, 1, 1, 2, 0, 1, 3, 1, 1})
	f.Add([]byte{9, 0, 3, 9, 1, 200, 9, 1, 1})
	f.Add([]byte{250, 1, 1, 251, 0, 252, 253, 1, 255})
	special := []float64{math.NaN(), math.Inf(1), 1e99, -1e99, 1e-300, 0, 1e-16, 1e50}
	value := func(b byte) float64 {
		if int(b) >= 256-len(special) {
			return special[255-int(b)]
		}
		return float64(b)/8 - 10
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var scores, labels, weights []float64
		for ; len(raw) >= 3 && len(scores) < 100; raw = raw[3:] {
			scores = append(scores, value(raw[0]))
			labels = append(labels, float64(raw[1]%2))
			weights = append(weights, math.Abs(value(raw[2])))
		}
		if c, err := FitIsotonic(scores, labels, weights); err == nil {
			for i, y := range c.Y {
				if !(y >= 0 && y <= 1+1e-12) || i > 0 && (y < c.Y[i-1] || c.X[i] <= c.X[i-1]) {
					t.Fatalf("point %d of %d is out of order", i, len(c.Y))
				}
			}
		}
		if s, err := FitPlatt(scores, labels, weights); err == nil {
			for _, x := range scores {
				if p := s.At(x); !(p >= 0 && p <= 1) {
					t.Fatalf("a probability is %v", p)
				}
			}
		}
	})
}
