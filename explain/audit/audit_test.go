package audit_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/compress"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/table"
	"github.com/pellucid/pellucid/explain/audit"
)

const demo = "../../cmd/pellucid/demo/data/models/"

// side reads a model, compressed by steps where there are some.
func side(t *testing.T, path, steps string) audit.Model {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if steps != "" {
		list, err := compress.Parse(steps)
		if err != nil {
			t.Fatal(err)
		}
		r, err := compress.Apply(t.Context(), compress.Input{Name: path, Data: data}, list)
		if err != nil {
			t.Fatal(err)
		}
		data = r.Data
	}
	m, err := modelfile.Read(path, data, filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(path) + steps
	return audit.Model{Name: name, FileBytes: int64(len(data)), Version: &collector.ModelVersion{Name: name, Version: "1", Digest: name + path, Info: m.Info(), Model: m}}
}

func rowsOf(t *testing.T, path string, info *engine.Info, n int) engine.Values {
	t.Helper()
	if strings.HasSuffix(path, ".rows.csv") {
		path = named(t, path, info)
	}
	tab, err := table.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	in, err := tab.Inputs(info)
	if err != nil {
		t.Fatal(err)
	}
	rows, _, err := engine.Bind(info, in)
	if err != nil {
		t.Fatal(err)
	}
	if tab.Rows <= n {
		return rows
	}
	if rows, err = rows.Slice(0, n); err != nil {
		t.Fatal(err)
	}
	return rows
}

// named copies rows without a header to a file that has one.
func named(t *testing.T, path string, info *engine.Info) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(info.Features))
	for i, f := range info.Features {
		names[i] = f.Name
	}
	out := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(out, append([]byte(strings.Join(names, ",")+"\n"), data...), 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// answersOf returns the second class's probability of each row.
func answersOf(t *testing.T, m audit.Model, rows engine.Values) []float64 {
	t.Helper()
	s, err := m.Version.Model.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(t.Context(), rows, []string{"probabilities"})
	if err != nil {
		t.Fatal(err)
	}
	v, _ := out[0].Tensor.Float64s()
	p := make([]float64, len(v)/2)
	for i := range p {
		p[i] = v[2*i+1]
	}
	return p
}

func near(t *testing.T, what string, got, want, tol float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tol) {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

// TestReport holds the figures of a pruned network against sums made here.
func TestReport(t *testing.T) {
	path := demo + "flights_mlp/1/model.onnx"
	a, b := side(t, path, ""), side(t, path, "prune:0.4")
	rows := rowsOf(t, demo+"flights_mlp/1/reference.parquet", a.Version.Info, 3000)
	p, q := answersOf(t, a, rows), answersOf(t, b, rows)
	labels := make([]string, len(p))
	var worst, differ, right, rightNow, known float64
	for i := range p {
		yes, now := p[i] > 0.5, q[i] > 0.5
		worst = max(worst, math.Abs(p[i]-q[i]))
		if yes != now {
			differ++
		}
		if i%7 == 0 {
			continue // no label
		}
		known++
		truth := i%5 == 0
		labels[i] = strconv.Itoa(map[bool]int{true: 1}[truth])
		if yes == truth {
			right++
		}
		if now == truth {
			rightNow++
		}
	}
	parts := map[string]bool{}
	r, err := audit.Run(t.Context(), audit.Config{
		Original: a, Compressed: b, Rows: rows, Labels: labels, ExplainRows: 40, Rounds: 1, Step: func(part string, done, total int) { parts[part] = done == total },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 3 || !parts["answer"] || !parts["explain"] || !parts["measure speed"] || r.Rows != 3000 {
		t.Errorf("parts done: %v, %d rows", parts, r.Rows)
	}
	near(t, "largest difference", float64(r.Scores.MaxDifference), worst, 1e-6)
	near(t, "disagreement", r.Decisions.Disagreement, differ/3000, 1e-12)
	near(t, "accuracy", r.Accuracy.Original["accuracy"], right/known, 1e-12)
	near(t, "accuracy loss", r.Accuracy.Loss, (right-rightNow)/known, 1e-12)
	if len(r.Worst) != 10 || float64(r.Worst[0].Difference) < float64(r.Worst[9].Difference) {
		t.Errorf("worst rows %+v", r.Worst)
	}
	w := r.Worst[0]
	if side := map[string]float64{"probabilities[0]": 1 - p[w.Row], "probabilities[1]": p[w.Row]}[w.Output]; math.Abs(side-float64(w.Original)) > 1e-6 {
		t.Errorf("the worst row is %+v, its score %v", w, side)
	}
	e := r.Explanations
	if e == nil || e.Method != "integrated_gradients" || e.Rows != 40 || e.Features != 10 || !(e.Spearman > 0.3 && e.Spearman < 1 && e.LowestSpearman <= e.Spearman) {
		t.Errorf("explanations %+v", e)
	}
	if !(r.Distribution.PSI > 0 && r.Distribution.KolmogorovSmirnov > 0 && r.Distribution.Reason == "") {
		t.Errorf("distribution %+v", r.Distribution)
	}
	if r.Speed == nil || r.Speed.Batch < 1 || r.Speed.Batch > 1000 || r.Speed.InBulk.Original <= 0 || r.Speed.Single.Compressed <= 0 {
		t.Errorf("speed %+v", r.Speed)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

// TestSameModel compares models with themselves: nothing differs and every explanation
// agrees.
func TestSameModel(t *testing.T) {
	for path, rows := range map[string]string{
		demo + "flights_mlp/1/model.onnx":                            demo + "flights_mlp/1/reference.parquet",
		demo + "flights_gbm/1/model.ubj":                             demo + "flights_gbm/1/reference.parquet",
		"../../engine/lightgbm/testdata/objective_multiclass.txt":    "../../engine/lightgbm/testdata/objective_multiclass.rows.csv",
		"../../engine/xgboost/testdata/objective_count_poisson.json": "../../engine/xgboost/testdata/objective_count_poisson.rows.csv",
	} {
		a, b := side(t, path, ""), side(t, path, "")
		in := rowsOf(t, rows, a.Version.Info, 300)
		r, err := audit.Run(t.Context(), audit.Config{Original: a, Compressed: b, Rows: in, ExplainRows: 20, Rounds: -1})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if r.Scores != (audit.Scores{}) || r.File.Ratio != 1 || r.Distribution.PSI != 0 || r.Distribution.KolmogorovSmirnov != 0 || r.Speed != nil {
			t.Errorf("%s: %+v", path, r)
		}
		if r.Decisions != nil && r.Decisions.Differ != 0 {
			t.Errorf("%s: decisions %+v", path, r.Decisions)
		}
		if e := r.Explanations; e == nil || e.Spearman != 1 || e.Kendall != 1 || e.TopOverlap != 1 || e.Change != 0 || e.Compared == 0 {
			t.Errorf("%s: explanations %+v", path, e)
		}
	}
}

func TestLimits(t *testing.T) {
	path := demo + "flights_mlp/1/model.onnx"
	a, b := side(t, path, ""), side(t, path, "prune:0.4")
	rows := rowsOf(t, demo+"flights_mlp/1/reference.parquet", a.Version.Info, 500)
	r, err := audit.Run(t.Context(), audit.Config{Original: a, Compressed: b, Rows: rows, ExplainRows: -1, Rounds: -1})
	if err != nil {
		t.Fatal(err)
	}
	if r.Judge(audit.Limits{}) != nil || r.Verdict != nil {
		t.Error("a verdict without limits")
	}
	zero, one := 0.0, 1.0
	if v := r.Judge(audit.Limits{ScoreDiff: &one, Disagreement: &one, SizeRatio: &one}); !v.Passed || len(v.Checks) != 3 {
		t.Errorf("verdict %+v", v)
	}
	v := r.Judge(audit.Limits{ScoreDiff: &zero, RankCorrelation: &zero, AccuracyLoss: &one, Speedup: &zero, MeanScoreDiff: &one})
	if v.Passed || r.Verdict != v {
		t.Error("a limit was not kept, and the verdict is well")
	}
	for _, want := range []string{"max-score-diff is", "min-rank-correlation could not be judged: no row was explained", "max-accuracy-loss could not be judged: there are no labels", "min-speedup could not be judged"} {
		if !strings.Contains(v.Failures(), want) {
			t.Errorf("%q is not in %q", want, v.Failures())
		}
	}
	if strings.Contains(v.Failures(), "mean") {
		t.Errorf("a limit that was kept is in %q", v.Failures())
	}
}

func TestRefusals(t *testing.T) {
	mlp, gbm := side(t, demo+"flights_mlp/1/model.onnx", ""), side(t, demo+"flights_gbm/1/model.ubj", "")
	rows := rowsOf(t, demo+"flights_mlp/1/reference.parquet", mlp.Version.Info, 10)
	for _, x := range []struct {
		c   audit.Config
		why string
	}{
		{audit.Config{Original: mlp, Compressed: gbm, Rows: rows}, "inputs"},
		{audit.Config{Original: mlp, Rows: rows}, "missing"},
		{audit.Config{Original: mlp, Compressed: mlp}, "nothing to compare"},
		{audit.Config{Original: mlp, Compressed: mlp, Rows: rows, Labels: []string{"1"}}, "1 labels for 10 rows"},
	} {
		if _, err := audit.Run(t.Context(), x.c); err == nil || !strings.Contains(err.Error(), x.why) {
			t.Errorf("error %v, want %q", err, x.why)
		}
	}
	// Labels that are of no class are no accuracy of 0.
	r, err := audit.Run(t.Context(), audit.Config{Original: mlp, Compressed: mlp, Rows: rows, Labels: strings.Split("1,0,1,0,maybe,0,1,0,1,0", ","), ExplainRows: -1, Rounds: -1})
	if err != nil || r.Accuracy == nil || !strings.Contains(r.Accuracy.Reason, "row 4") {
		t.Errorf("accuracy %+v (%v)", r.Accuracy, err)
	}
}

// TestRankCorrelations holds them against scipy 1.17 (spearmanr, kendalltau) and
// against every pair counted.
func TestRankCorrelations(t *testing.T) {
	a := []float64{3, 1, 2, 2, 5, -1, 0, 0, 7, 2}
	b := []float64{2, 1, 1, 3, 4, 0, 0, -2, 3, 3}
	near(t, "Spearman", audit.Spearman(a, b), 0.8495339547372857, 1e-14)
	near(t, "Kendall", audit.Kendall(a, b), 0.7161039575709525, 1e-14)
	state := uint64(7)
	for n := 2; n < 60; n++ {
		x, y := make([]float64, n), make([]float64, n)
		for i := range x {
			state = state*6364136223846793005 + 1442695040888963407
			x[i], y[i] = float64(state>>33%11), float64(state>>50%7)
		}
		near(t, "Kendall", audit.Kendall(x, y), pairs(x, y), 1e-12)
	}
	flat, up := []float64{1, 1, 1}, []float64{1, 2, 3}
	for _, f := range []func(a, b []float64) float64{audit.Spearman, audit.Kendall} {
		if f(flat, flat) != 1 || f(flat, up) != 0 || f(up, up) != 1 || f(up, []float64{3, 2, 1}) != -1 {
			t.Error("tied or ordered sides are told wrongly")
		}
	}
}

// pairs is tau-b by definition.
func pairs(x, y []float64) float64 {
	var s, nx, ny float64
	sign := func(d float64) float64 {
		switch {
		case d > 0:
			return 1
		case d < 0:
			return -1
		}
		return 0
	}
	for i := range x {
		for j := range i {
			dx, dy := sign(x[i]-x[j]), sign(y[i]-y[j])
			s += dx * dy
			nx += dx * dx
			ny += dy * dy
		}
	}
	if nx == 0 || ny == 0 {
		return map[bool]float64{true: 1}[nx == 0 && ny == 0]
	}
	return s / math.Sqrt(nx*ny)
}
