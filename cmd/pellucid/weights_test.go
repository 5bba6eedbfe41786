package main

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine/stats"
)

// TestWeightsOfImports: a row that stands for ten counts in drift and performance as
// ten rows do, whether it came before its reference or after.
func TestWeightsOfImports(t *testing.T) {
	models := t.TempDir()
	for _, m := range []string{"one", "ten"} {
		place(t, models, m+"/1/model.yaml", "task: binary\nclasses: [no, yes]\nreference: {from: 2024-04-01T00:00:00Z, to: 2024-05-01T00:00:00Z}\n")
	}
	r := startRig(t, testConfig(t, models))
	send := func(model string, month, n int, count func(i int) int) {
		t.Helper()
		var rows []string
		for i := range n {
			copies, weight := count(i), ""
			if model == "ten" {
				copies, weight = 1, fmt.Sprintf(`,"weight":%d`, count(i))
			}
			for k := range copies {
				rows = append(rows, fmt.Sprintf(`{"id":"%[1]s-%[2]d-%[3]d-%[4]d","model":"%[1]s","version":"1","time":"2024-%02[2]d-%02[5]dT%02[6]d:00:00Z","features":{"amount":%[7]d,"country":"%[8]s"},"outputs":{"score":%[9]g},"label":"%[10]d"%[11]s}`,
					model, month, i, k, 1+i%20, i%24, i*i%(50+5*month), []string{"NO", "DK", "SE"}[(i+i*i/month)%3], float64(i*7%10)/10, i*i%3%2, weight))
			}
		}
		var got imports
		r.post(t, "/api/v1/predictions", "["+strings.Join(rows, ",")+"]", &got)
		if got.Accepted != len(rows) {
			t.Fatalf("%d of %d accepted", got.Accepted, len(rows))
		}
	}
	both := func(month int) {
		t.Helper()
		for _, m := range []string{"one", "ten"} {
			send(m, month, 60, func(int) int { return 10 })
		}
	}
	for _, m := range []string{"one", "ten"} { // of these the reference is made
		send(m, 4, 1000, func(i int) int { return 1 + i%3 })
	}
	both(5)
	r.stored(t)
	compare := func(rows int) {
		t.Helper()
		var drift [2]stats.Report
		var perf [2]api.Performance
		for i, m := range []string{"one", "ten"} {
			until(t, "drift of "+m, func() bool {
				drift[i] = stats.Report{} // of the last answer nothing stays that this one leaves out
				r.get(t, "/api/v1/models/"+m+"/drift?from=2024-05-01T00:00:00Z&to=2024-08-01T00:00:00Z", &drift[i])
				return !drift[i].Provisional && drift[i].Rows.Current == rows
			})
			r.get(t, "/api/v1/models/"+m+"/performance?from=2024-05-01T00:00:00Z&to=2024-08-01T00:00:00Z", &perf[i])
		}
		if len(drift[0].Features) < 2 || drift[0].Rows != drift[1].Rows || !reflect.DeepEqual(rounded(t, drift[0].Features), rounded(t, drift[1].Features)) {
			t.Errorf("ten rows\n%+v\none of weight ten\n%+v", drift[0], drift[1])
		}
		if len(perf[0].Metrics) < 3 || perf[0].Rows.Labelled != float64(rows) || perf[1].Rows.Labelled != float64(rows/10) {
			t.Errorf("performance %+v", perf)
		}
		for name, want := range perf[0].Metrics {
			if got := perf[1].Metrics[name]; math.Abs(got-want) > 1e-12 {
				t.Errorf("%s of ten rows %g, of one of weight ten %g", name, want, got)
			}
		}
	}
	compare(600) // back-filled
	both(6)
	r.stored(t)
	compare(1200) // and counted as it came
}

// rounded is v as JSON has it, but for the last digits of numbers: sums of weights and of
// rows round in other places.
func rounded(t *testing.T, v any) any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return roundedValue(out)
}

func roundedValue(v any) any {
	switch v := v.(type) {
	case float64:
		return fmt.Sprintf("%.10g", v)
	case []any:
		for i := range v {
			v[i] = roundedValue(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = roundedValue(v[k])
		}
	}
	return v
}

// TestASmallWindowIsAReference: somebody named it. One of too few rows is told of.
func TestASmallWindowIsAReference(t *testing.T) {
	models := t.TempDir()
	for _, m := range []string{"enough", "few"} {
		place(t, models, m+"/1/model.yaml", "task: regression\nreference: {from: 2024-04-01T00:00:00Z, to: 2024-05-01T00:00:00Z}\n")
	}
	r := startRig(t, testConfig(t, models))
	for m, n := range map[string]int{"enough": windowRows, "few": windowRows - 1} {
		rows := make([]string, n+1)
		for i := range rows {
			at := fmt.Sprintf("2024-04-%02dT00:00:00Z", 1+i%28)
			if i == n {
				at = "2024-06-01T00:00:00Z" // event time is past the window
			}
			rows[i] = fmt.Sprintf(`{"id":"%d","model":%q,"version":"1","time":%q,"features":{"x":%d},"outputs":{"y":%d}}`, i, m, at, i%40, i%7)
		}
		r.post(t, "/api/v1/predictions", "["+strings.Join(rows, ",")+"]", nil)
	}
	until(t, "the reference, and why there is none", func() bool {
		v, err := r.models.Find("enough", "1")
		return err == nil && v.Reference() != nil && strings.Contains(r.log.String(), "has 99 rows with features: a reference takes 100")
	})
	if v, err := r.models.Find("few", "1"); err != nil || v.Reference() != nil {
		t.Errorf("%v, %v", v, err)
	}
}

// TestAWindowedReferenceWaits for all of its window: what is still being sent is not
// frozen at what has come so far. The rows come by the command, with their weights.
func TestAWindowedReferenceWaits(t *testing.T) {
	models := t.TempDir()
	place(t, models, "m/1/model.yaml", "task: regression\nreference: {from: 2024-04-01T00:00:00Z, to: 2024-05-01T00:00:00Z}\n")
	r := startRig(t, testConfig(t, models))
	dir := t.TempDir()
	send := func(month, from, to int) {
		t.Helper()
		var b strings.Builder
		b.WriteString("id,at,x,w,y\n")
		for i := from; i < to; i++ {
			fmt.Fprintf(&b, "%d-%d,2024-%02d-%02dT%02d:00:00Z,%d,%d,%d\n", month, i, month, 1+i%28, i%24, i%40, 1+i%3, i%7)
		}
		place(t, dir, "rows.csv", b.String())
		if status, out, stderr := command(t, "import", dir+"/rows.csv", "--url", r.url, "--model", "m", "--version", "1", "--id", "id", "--time", "at", "--outputs", "y", "--weight", "w"); status != 0 || !strings.Contains(out, fmt.Sprint(to-from, " accepted")) {
			t.Fatalf("%d %s %s", status, out, stderr)
		}
	}
	send(4, 0, 1200)
	send(5, 0, 300)
	r.stored(t)
	time.Sleep(2500 * time.Millisecond) // some looks of the monitor
	send(4, 1200, 1500)
	var d stats.Report
	until(t, "the reference", func() bool {
		r.get(t, "/api/v1/models/m/drift?from=2024-05-01T00:00:00Z&to=2024-06-01T00:00:00Z", &d)
		return d.Rows.Current > 0
	})
	if d.Rows.Reference != 3000 || d.Rows.Current != 600 {
		t.Errorf("%+v", d.Rows)
	}
}
