package trees

import (
	"compress/gzip"
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine/table"
)

// oracle is what testdata/make_trees.py writes.
type oracle struct {
	Exact map[string]struct {
		Rounds int
		Trees  []json.RawMessage
	}
	Quality map[string]struct{ XGBoost, Sklearn float64 }
}

func readOracle(t *testing.T) *oracle {
	t.Helper()
	f, err := os.Open("testdata/trees.json.gz")
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

// uniform is SplitMix64, as in make_trees.py.
func uniform(seed uint64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = float64(mix(seed*0x2545F4914F6CDD1D+uint64(i))>>11) / (1 << 53)
	}
	return out
}

func columns(x []float32, from, to int) []float32 {
	var out []float32
	for at := 0; at < len(x); at += from {
		out = append(out, x[at:at+to]...)
	}
	return out
}

// grid is rows of few distinct values, with a category.
func grid(n int) (x []float32, y []float64) {
	u, gone, noise := uniform(1, n*6), uniform(2, n*6), uniform(3, n)
	sizes := [6]float64{40, 7, 200, 3, 90, 9}
	x, y = make([]float32, n*6), make([]float64, n)
	for r := range n {
		var f [6]float64
		for c := range 6 {
			v := math.Floor(u[r*6+c] * sizes[c])
			if c < 5 {
				v = v/8 - 1
			}
			f[c] = v
			if gone[r*6+c] < 0.06 {
				v, f[c] = math.NaN(), 2
			}
			x[r*6+c] = float32(v)
		}
		y[r] = f[0]*f[1] + f[2]/16 + math.Mod(f[5], 3) + 4*noise[r]
	}
	return x, y
}

func total(v []float64) float64 {
	sum := 0.0
	for _, e := range v {
		sum += e
	}
	return sum
}

func friedman(n int) *Data {
	u, noise := uniform(11, n*10), uniform(12, n*12)
	d := &Data{X: make([]float32, n*10), Features: 10, Labels: make([]float64, n)}
	for r := range n {
		var f [10]float64
		for c := range f {
			d.X[r*10+c] = float32(u[r*10+c])
			f[c] = float64(d.X[r*10+c])
		}
		d.Labels[r] = 10*math.Sin(math.Pi*f[0]*f[1]) + 20*(f[2]-0.5)*(f[2]-0.5) + 10*f[3] + 5*f[4] + 2*total(noise[r*12:r*12+12]) - 12
	}
	return d
}

func mixed(n int) *Data {
	u, gone, noise := uniform(21, n*20), uniform(22, n*20), uniform(23, n*4)
	d := &Data{X: make([]float32, n*20), Features: 20, Labels: make([]float64, n)}
	for r := range n {
		var f [20]float64
		for c := range f {
			v := float32(u[r*20+c])*2 - 1
			f[c] = float64(v)
			if gone[r*20+c] < 0.03 {
				v = float32(math.NaN())
			}
			d.X[r*20+c] = v
		}
		score := 3*f[0]*f[1] + math.Sin(4*f[2]) + 1.5*total(f[3:8])*f[9] + f[10]*f[11]*f[12]
		d.Labels[r] = score + total(noise[r*4:r*4+4])*2 - 4
	}
	return d
}

// dataOf makes the data of a quality case.
func dataOf(t *testing.T, name string) *Data {
	t.Helper()
	const n = 20000
	switch name {
	case "friedman", "quantile":
		return friedman(n)
	case "flights":
		return flights(t)
	}
	d := mixed(n)
	u := uniform(24, n)
	for r, s := range d.Labels {
		switch name {
		case "binary":
			d.Labels[r] = 0
			if s > 0 {
				d.Labels[r] = 1
			}
		case "classes":
			d.Labels[r] = min(max(math.Floor(s/1.5+2), 0), 3)
		case "counts":
			d.Labels[r] = math.Floor(math.Exp(s/3) * 2 * u[r])
		}
	}
	return d
}

// flights are those of the demo that arrived.
func flights(t *testing.T) *Data {
	t.Helper()
	file, err := table.Open("../../../cmd/pellucid/demo/data/flights.parquet")
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]*table.Column{}
	for i := range file.Columns {
		column[file.Columns[i].Name] = &file.Columns[i]
	}
	d := &Data{Names: []string{
		"month", "day", "hour", "minute", "day_of_week", "distance", "temp", "dewp", "humid", "wind_dir", "wind_speed",
		"wind_gust", "precip", "pressure", "visib", "carrier", "origin", "dest",
	}}
	d.Features = len(d.Names)
	codes := map[string]map[string]int{}
	for _, name := range d.Names {
		c := column[name]
		d.Categorical = append(d.Categorical, c.Type == table.String)
		if c.Type != table.String {
			continue
		}
		distinct := slices.Compact(slices.Sorted(slices.Values(c.Str)))
		codes[name] = map[string]int{}
		for i, s := range distinct {
			codes[name][s] = i
		}
	}
	for r := range file.Rows {
		late := column["late"].I64[r]
		if late < 0 {
			continue
		}
		d.Labels = append(d.Labels, float64(late))
		for _, name := range d.Names {
			switch c := column[name]; c.Type {
			case table.String:
				d.X = append(d.X, float32(codes[name][c.Str[r]]))
			case table.Int64:
				d.X = append(d.X, float32(c.I64[r]))
			case table.Float32:
				d.X = append(d.X, c.F32[r])
			default:
				t.Fatalf("column %q is of type %s", name, c.Type)
			}
		}
	}
	return d
}

// held parts every fourth row from the others.
func held(d *Data) (fit, out *Data) {
	fit, out = &Data{Features: d.Features, Names: d.Names, Categorical: d.Categorical}, &Data{Features: d.Features}
	for r, y := range d.Labels {
		to := fit
		if r%4 == 3 {
			to = out
		}
		to.X = append(to.X, d.X[r*d.Features:(r+1)*d.Features]...)
		to.Labels = append(to.Labels, y)
	}
	return fit, out
}
