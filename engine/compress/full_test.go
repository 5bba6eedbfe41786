package compress

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
	"github.com/pellucid/pellucid/engine/table"
)

// network returns the network of testdata, its rows, and what onnxruntime made of them.
func network(t *testing.T) (data []byte, rows engine.Values, want fullOracle) {
	t.Helper()
	data = file(t, "testdata/full.onnx")
	if err := json.Unmarshal(file(t, "testdata/full.json"), &want); err != nil {
		t.Fatal(err)
	}
	c, err := table.Open("testdata/full.rows.csv")
	if err != nil {
		t.Fatal(err)
	}
	if rows, err = c.Inputs(load(t, "m.onnx", data).Info()); err != nil {
		t.Fatal(err)
	}
	return data, rows, want
}

// fullOracle is what testdata/make_full.py writes: scale and zero point of values, the
// scales of weights, and what the network answers before.
type fullOracle struct {
	Values  map[string][2]float64
	Weights map[string][]float64
	Answers [][]float64
}

func single(t *testing.T, f *onnx.File, name string) float64 {
	t.Helper()
	return numbers(t, f, name)[0]
}

func numbers(t *testing.T, f *onnx.File, name string) []float64 {
	t.Helper()
	w := f.Weight(name)
	if w == nil {
		t.Fatalf("no weight %q", name)
	}
	x, err := w.Value()
	if err != nil {
		t.Fatal(err)
	}
	v, _ := x.Float64s()
	return v
}

// TestFullOracle holds ranges and scales against onnxruntime's quantiser.
func TestFullOracle(t *testing.T) {
	data, rows, want := network(t)
	r, err := Apply(t.Context(), Input{Name: "m.onnx", Data: data, Calibration: rows}, []Step{{Kind: Full}})
	if err != nil {
		t.Fatal(err)
	}
	f := edit(t, r.Data)
	for name, w := range want.Values {
		if s, z := single(t, f, name+"/scale"), single(t, f, name+"/zero"); math.Abs(s-w[0]) > 1e-6*w[0] || z != w[1] {
			t.Errorf("%s: scale %g and zero point %g, onnxruntime has %v", name, s, z, w)
		}
	}
	for name, w := range want.Weights {
		s := numbers(t, f, name+"/scale")
		if len(s) != len(w) {
			t.Errorf("%s: %d scales, onnxruntime has %d", name, len(s), len(w))
			continue
		}
		for c := range s {
			// It spreads the range over 254 and a half steps, or 254.
			if math.Abs(s[c]-w[c]) > 0.005*w[c] {
				t.Errorf("%s, channel %d: scale %g, onnxruntime has %g", name, c, s[c], w[c])
			}
		}
	}
	// A pool keeps the range of what it chooses from.
	if single(t, f, "p1/scale") != single(t, f, "r1/scale") {
		t.Error("a pool's result has a range of its own")
	}
	out := run(t, load(t, "m.onnx", r.Data), rows)
	v, _ := out[0].Tensor.Float64s()
	for i, row := range want.Answers {
		for k, w := range row {
			if d := math.Abs(v[i*len(row)+k] - w); d > 0.1 {
				t.Errorf("row %d: answer %g, was %g", i, v[i*len(row)+k], w)
			}
		}
	}
}

// TestFull compresses every network of the zoo: what is not refused answers nearly what it
// did, keeps its weights as bytes, and is the same file again.
func TestFull(t *testing.T) {
	done := 0
	for name, data := range zoo(t) {
		rows := made(t, load(t, "m.onnx", data).Info(), 40)
		if rows == nil {
			continue
		}
		for _, how := range []Ranges{MinMax, Percentile, Entropy} {
			in := Input{Name: "m.onnx", Data: data, Rows: rows, Ranges: how}
			r, err := Apply(t.Context(), in, []Step{{Kind: Full}})
			if errors.Is(err, ErrRefused) {
				continue
			}
			if err != nil {
				t.Errorf("%s, %s: %v", name, how, err)
				continue
			}
			again, err := Apply(t.Context(), in, []Step{{Kind: Full}})
			if err != nil || !slices.Equal(again.Data, r.Data) {
				t.Errorf("%s, %s: not the same bytes again (%v)", name, how, err)
			}
			was, is := run(t, load(t, "m.onnx", data), rows), run(t, load(t, "m.onnx", r.Data), rows)
			if d := furthest(t, was, is); how == MinMax && d > 0.15 {
				t.Errorf("%s, %s: outputs differ by %g", name, how, d)
			}
			done++
		}
	}
	if done < 30 {
		t.Errorf("%d models were compressed", done)
	}
}

// TestRanges holds ranges against values of a known spread.
func TestRanges(t *testing.T) {
	s := &span{}
	v := make([]float32, 200000)
	state := uint64(7)
	for i := range v {
		sum := 0.0
		for range 12 {
			state = state*6364136223846793005 + 1442695040888963407
			sum += float64(state>>11) / (1 << 53)
		}
		v[i] = float32(sum - 6)
	}
	v[100] = 60 // one value far outside
	s.widen(v)
	s.bins, s.sizes = make([]float64, histogram), make([]float64, histogram)
	s.count(v)
	if s.high != 60 {
		t.Errorf("largest %g", s.high)
	}
	if low, high := s.middle(); high < 3 || high > 4.5 || low > -3 || low < -5.5 {
		t.Errorf("without the outermost: %g to %g", low, high)
	}
	if top := s.threshold(); top < 3 || top > 12 {
		t.Errorf("threshold %g", top)
	}
	scale, zero := (&span{low: -1, high: 3}).parameters()
	if math.Abs(float64(scale)-4.0/255) > 1e-9 || zero != 64 {
		t.Errorf("scale %g, zero point %d", scale, zero)
	}
	if scale, zero := (&span{}).parameters(); scale != 1 || zero != 0 {
		t.Errorf("of zeros: scale %g, zero point %d", scale, zero)
	}
}

// TestFullNotFinite leaves a value alone that has no range.
func TestFullNotFinite(t *testing.T) {
	s := &span{}
	s.widen([]float32{1, float32(math.NaN())})
	if s.no == "" {
		t.Error("a range of what is no number")
	}
}
