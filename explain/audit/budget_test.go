package audit

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/table"
)

// network is the demo's network, and n of its rows.
func network(t *testing.T, n int) (Model, engine.Values) {
	t.Helper()
	const dir = "../../cmd/pellucid/demo/data/models/flights_mlp/1/"
	m, err := modelfile.Open(dir + "model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	tab, err := table.Open(dir + "reference.parquet")
	if err != nil {
		t.Fatal(err)
	}
	in, err := tab.Inputs(m.Info())
	if err == nil {
		in, _, err = engine.Bind(m.Info(), in)
	}
	if err == nil {
		in, err = in.Slice(0, n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return Model{Name: "mlp", Version: &collector.ModelVersion{Name: "mlp", Version: "1", Info: m.Info(), Model: m}}, in
}

// TestExplainTime: no row within no time, the rows that were explained by then, and another
// method where the first row takes too long.
func TestExplainTime(t *testing.T) {
	m, in := network(t, 20)
	c := Config{Original: m, Compressed: m, Rows: in, ExplainTime: time.Nanosecond, Rounds: -1}
	r, err := Run(t.Context(), c)
	if err != nil || r.Explanations == nil || !strings.Contains(r.Explanations.Reason, "no row was explained by both models within 1ns") {
		t.Fatalf("explanations %+v (%v)", r, err)
	}
	one := 0.5
	if v := r.Judge(Limits{RankCorrelation: &one}); v.Passed {
		t.Error("a limit of what was not compared is kept")
	}

	bounded, over := context.WithCancel(t.Context())
	defer over()
	c.ExplainTime, c.Step = -1, func(part string, done, _ int) {
		if part == "explain" && done >= 3 {
			over()
		}
	}
	rows, err := c.check()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPair(c, rows)
	if err != nil || p.out.Reason != "" {
		t.Fatal(p, err)
	}
	if err := p.run(t.Context(), bounded); err != nil || p.out.Rows != 3 || p.out.Compared != 3 || p.out.Asked != 20 || p.out.Spearman != 1 || !strings.Contains(p.out.Note, "3 of 20 rows") {
		t.Errorf("explanations %+v (%v)", p.out, err)
	}

	c.Step = nil
	if rows, err = c.check(); err != nil {
		t.Fatal(err)
	}
	if p, err = newPair(c, rows); err != nil {
		t.Fatal(err)
	}
	p.first = time.Nanosecond
	if err := p.run(t.Context(), t.Context()); err != nil || p.out.Method != "saliency" || p.out.Rows != 20 || p.out.Note != "one row took more than 1ns by integrated_gradients" {
		t.Errorf("explanations %+v (%v)", p.out, err)
	}
}

// TestScattered: rows at even distances, the beginning of them too.
func TestScattered(t *testing.T) {
	for _, x := range [][2]int{{1, 1}, {1, 5}, {10, 3}, {1000, 200}, {7, 7}} {
		at := scattered(x[0], x[1])
		var want []int
		for i := range min(x[0], x[1]) {
			want = append(want, i*x[0]/min(x[0], x[1]))
		}
		sorted := slices.Sorted(slices.Values(at))
		if !slices.Equal(sorted, want) {
			t.Errorf("%d of %d: %v", x[1], x[0], at)
		}
	}
	if at := scattered(1000, 8); !slices.Equal(at[:4], []int{0, 500, 250, 750}) {
		t.Errorf("the first of eight are %v", at)
	}
}
