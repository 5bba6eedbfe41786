package trees

import (
	"context"
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
	"github.com/pellucid/pellucid/engine/train"
	"github.com/pellucid/pellucid/engine/xgboost"
)

// named are rows of two texts, one of them at times missing, and a number.
func named(n int) ([]train.Column, *train.Labels) {
	u := uniform(31, n*3)
	city, kind, size := make([]string, n), make([]string, n), make([]float64, n)
	l := &train.Labels{Class: make([]int, n), Classes: []string{"früh", "spät"}}
	cities := []string{"Zürich", "Genf", "Bern", "Chur", "Thun", ""}
	for i := range n {
		c := int(u[3*i] * 6)
		city[i], kind[i], size[i] = cities[c], strconv.Itoa(int(u[3*i+1]*4)), math.Floor(u[3*i+2]*100)
		if c == 1 || c == 3 || c == 5 && size[i] > 50 || kind[i] == "2" {
			l.Class[i] = 1
		}
	}
	return []train.Column{{Name: "city", Texts: city}, {Name: "probabilities", Texts: kind}, {Name: "size", Numbers: size}}, l
}

// TestNamedCategories: text goes into either file as text, what was never seen and what
// is missing among it, and both answer what the fit's own trees do.
func TestNamedCategories(t *testing.T) {
	columns, labels := named(600)
	m, f, err := FitColumns(context.Background(), columns, labels, 0.25, Options{Rounds: 12, OneVsRest: true, MinChildRows: 3})
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Training) != 450 || len(f.Held) != 150 || !(f.HeldLoss < 0.5) || f.Weights != m.Nodes() {
		t.Errorf("%d and %d rows, loss %v, %d nodes", len(f.Training), len(f.Held), f.HeldLoss, f.Weights)
	}
	rows := engine.Values{}
	add := func(name string, v any) {
		var x *engine.Tensor
		var err error
		if s, ok := v.([]string); ok {
			x, err = engine.Of(s, len(s), 1)
		} else {
			x, err = engine.Of(v.([]float32), len(v.([]float32)), 1)
		}
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, engine.Named{Name: name, Tensor: x})
	}
	add("city", []string{"Zürich", "Genf", "Bern", "Chur", "Thun", "", "", "Basel"})
	add("probabilities", []string{"0", "1", "2", "3", "0", "1", "2", "9"})
	add("size", []float32{10, 60, 10, 60, 10, 20, 80, 33})
	json, err := m.XGBoost()
	if err != nil {
		t.Fatal(err)
	}
	file, err := m.ONNX()
	if err != nil {
		t.Fatal(err)
	}
	a, err := xgboost.Read(json)
	if err != nil {
		t.Fatal(err)
	}
	b, err := onnx.Read(file, "")
	if err != nil {
		t.Fatal(err)
	}
	one, two := answers(t, a, rows, "prediction"), answers(t, b, rows, m.Output())
	for i := range one {
		if math.Abs(one[i]-two[2*i+1]) > 1e-6 {
			t.Errorf("row %d: %v of XGBoost's file, %v of ONNX's", i, one[i], two[2*i+1])
		}
	}
	if one[1] < 0.7 || one[0] > 0.3 {
		t.Errorf("Genf %v, Zürich %v: the names are mixed up", one[1], one[0])
	}
	if got := b.Info().Classes; !slices.Equal(got, labels.Classes) {
		t.Errorf("classes %v", got)
	}
}

func answers(t *testing.T, m engine.Model, rows engine.Values, output string) []float64 {
	t.Helper()
	in, _, err := engine.Bind(m.Info(), rows)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(context.Background(), in, []string{output})
	if err != nil {
		t.Fatal(err)
	}
	v, ok := out[0].Tensor.Float64s()
	if !ok {
		t.Fatal("no numbers")
	}
	return v
}

// TestMinChildRows counts the rows of every leaf, weightless ones too.
func TestMinChildRows(t *testing.T) {
	d := friedman(500)
	d.Weights = make([]float64, 500)
	for i := range d.Weights {
		d.Weights[i] = float64(i % 3)
	}
	d.Categorical = make([]bool, d.Features)
	for i := range d.X {
		if i%d.Features == 9 {
			d.X[i] = float32(math.Floor(float64(d.X[i]) * 30))
		} else if i%7 == 0 {
			d.X[i] = float32(math.NaN())
		}
	}
	d.Categorical[9] = true
	for _, threads := range []int{1, 2} {
		fewest := map[int]int{}
		for _, least := range []int{0, 25} {
			m, _, err := Fit(context.Background(), d, Options{Rounds: 5, MaxDepth: 8, MinChildRows: least, Threads: threads})
			if err != nil {
				t.Fatal(err)
			}
			fewest[least] = 500
			for _, nodes := range m.trees {
				count := make([]int, len(nodes))
				for r := range 500 {
					count[reached(nodes, d.X[r*d.Features:])]++
				}
				for i, n := range nodes {
					if n.left == 0 {
						fewest[least] = min(fewest[least], count[i])
					}
				}
			}
		}
		if fewest[25] < 25 || fewest[0] >= 25 {
			t.Errorf("%d threads: the smallest leaf has %d rows, without a least number %d", threads, fewest[25], fewest[0])
		}
	}
}

// reached is the leaf that a row reaches.
func reached(nodes []fitted, row []float32) int {
	i := int32(0)
	for nodes[i].left != 0 {
		n, v := &nodes[i], row[nodes[i].feature]
		left := v < n.threshold
		if n.categorical {
			left = !slices.Contains(n.set, int32(v))
		}
		if v != v {
			left = n.missingLeft
		}
		if i = n.right; left {
			i = n.left
		}
	}
	return int(i)
}

// TestLevelShare: each level draws anew, from the seed alone.
func TestLevelShare(t *testing.T) {
	d := friedman(800)
	var files [][]byte
	for _, o := range []Options{{Seed: 1}, {Seed: 1, Threads: 2}, {Seed: 2}} {
		o.Rounds, o.LevelShare = 8, 0.3
		m, _, err := Fit(context.Background(), d, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, nodes := range m.trees {
			used := map[int32]bool{}
			for _, n := range nodes[1:min(3, len(nodes))] { // the two of the second level
				if n.left != 0 {
					used[n.feature] = true
				}
			}
			if len(used) > 3 {
				t.Errorf("a level uses %d of 3 features", len(used))
			}
		}
		file, err := m.XGBoost()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	if !slices.Equal(files[0], files[1]) || slices.Equal(files[0], files[2]) {
		t.Error("the draw follows something else than the seed")
	}
}
