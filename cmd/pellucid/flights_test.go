package main

import (
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine/stats"
	"github.com/pellucid/pellucid/engine/table"
)

// replayed starts a server with the demo's models, flights_mlp without its
// reference, and replays the first days of April against it, labels and all.
func replayed(t *testing.T) (*rig, []flight, map[string]*offline) {
	t.Helper()
	f, year := demoYear(t)
	models := t.TempDir()
	if err := os.CopyFS(models, os.DirFS("demo/data/models")); err != nil {
		t.Fatal(err)
	}
	place(t, models, "flights_mlp/1/model.yaml", "task: binary\nclasses: [on_time, late]\n")
	r := startRig(t, testConfig(t, models))
	_, list := f.between(f.list[0].departs, f.list[0].departs.Add(50*time.Hour))
	part := &flights{table: f.table, list: list}
	play := &replay{to: &poster{url: r.url, client: http.DefaultClient}, bar: newProgress(r.log)}
	for _, v := range r.models.Live() {
		m := replayModel{name: v.Name}
		for _, feature := range v.Info.Features {
			m.features = append(m.features, feature.Name)
		}
		play.models = append(play.models, m)
	}
	if err := play.run(t.Context(), part); err != nil {
		t.Fatal(err)
	}
	r.stored(t)
	return r, list, year
}

// TestFlightsThroughTheServer: what the server answers of drift, performance and
// listings over days of event time long past, held against the same computed
// without it.
func TestFlightsThroughTheServer(t *testing.T) {
	r, list, year := replayed(t)
	if len(list) < 1500 {
		t.Fatalf("%d flights", len(list))
	}
	rows := make([]int, len(list))
	for i, one := range list {
		rows[i] = one.row
	}
	t.Run("drift", func(t *testing.T) { checkDrift(t, r, rows, year["flights_gbm"]) })
	t.Run("performance", func(t *testing.T) {
		for name, o := range year {
			checkPerformance(t, r, name, o, list)
		}
	})
	t.Run("listing", func(t *testing.T) { checkListing(t, r, list) })
	t.Run("provisional reference", func(t *testing.T) { checkProvisional(t, r, rows, year["flights_mlp"]) })
	t.Run("export", func(t *testing.T) { checkExport(t, r, list, year["flights_gbm"]) })
}

func checkDrift(t *testing.T, r *rig, rows []int, o *offline) {
	ref := o.reference(t, gbm+"reference.parquet")
	want := stats.Compare(ref, o.counts(t, ref, rows), len(rows), stats.Options{})
	var got stats.Report
	r.get(t, "/api/v1/models/flights_gbm/drift", &got)
	if got.State != want.State || got.Rows != want.Rows || len(got.Features) != 16 || got.Provisional || got.ReferenceID == "" {
		t.Errorf("%s %+v of %s, want %s %+v", got.State, got.Rows, got.ReferenceID, want.State, want.Rows)
	}
	for i, g := range got.Features {
		w := want.Features[i]
		if g.Name != w.Name || g.Kind != w.Kind || g.State != w.State || g.Decides != w.Decides || len(g.Tests) != len(w.Tests) {
			t.Errorf("field %d is %+v, want %+v", i, g, w)
		}
		for test, have := range g.Tests {
			if d := math.Abs(have.Value - w.Tests[test].Value); !(d <= 1e-5) || have.Drifted != w.Tests[test].Drifted {
				t.Errorf("%s %s: %+v, want %+v", g.Name, test, have, w.Tests[test])
			}
		}
	}
	var daily stats.Report
	r.get(t, "/api/v1/models/flights_gbm/drift?from=2013-04-01&to=2013-04-04&step=1d&tests=psi", &daily)
	n := 0
	for _, c := range daily.Chunks {
		n += c.Rows
		if len(c.Features) != 16 || c.Start == nil || c.End.Sub(*c.Start) != 24*time.Hour {
			t.Errorf("chunk %+v", c)
		}
	}
	if len(daily.Chunks) != 3 || n != len(rows) {
		t.Errorf("%d chunks with %d rows, want 3 with %d", len(daily.Chunks), n, len(rows))
	}
	// The keys that clients rely on.
	var shape map[string]any
	r.get(t, "/api/v1/models/flights_gbm/drift?tests=psi", &shape)
	for _, key := range []string{"profile", "rows", "features", "dataset", "state", "reference_id"} {
		if _, ok := shape[key]; !ok {
			t.Errorf("the report has no %q", key)
		}
	}
	for path, status := range map[string]int{
		"/api/v1/models/absent/drift":                404,
		"/api/v1/models/flights_gbm/drift?form=2013": 400,
		"/api/v1/models/flights_gbm/drift?tests=pis": 400,
		"/api/v1/models/flights_gbm/drift?step=1s":   400,
		"/api/v1/models/flights_gbm/drift?segment=x": 400,
	} {
		if got, b, _ := r.call(t, "GET", path, ""); got != status {
			t.Errorf("%s: %d %s, want %d", path, got, b, status)
		}
	}
}

func checkPerformance(t *testing.T, r *rig, name string, o *offline, list []flight) {
	t.Helper()
	var scores []float64
	var late []bool
	for _, one := range list {
		if one.late >= 0 && !one.lands.IsZero() {
			scores, late = append(scores, o.scores[one.row]), append(late, one.late == 1)
		}
	}
	want, err := stats.BinaryPerformance(scores, nil, late, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got api.Performance
	r.get(t, "/api/v1/models/"+name+"/performance", &got)
	if got.State != stats.StateOK || got.Rows.Labelled != float64(len(scores)) || got.Rows.Predictions != float64(len(list)) || got.Task != "binary" {
		t.Errorf("%s: %+v, want %d labels of %d", name, got, len(scores), len(list))
	}
	for metric, w := range want.Metrics {
		if g, ok := got.Metrics[string(metric)]; !ok || !(math.Abs(g-w) <= 1e-5) {
			t.Errorf("%s %s: %g, want %g", name, metric, g, w)
		}
	}
}

func checkListing(t *testing.T, r *rig, list []flight) {
	where := url.QueryEscape("carrier = 'UA' and distance > 1000")
	var n struct{ Count int }
	r.get(t, "/api/v1/predictions?model=flights_gbm&count=true&where="+where, &n)
	_, year := demoYear(t)
	tab := year["flights_gbm"].fields
	i := slices.IndexFunc(tab, func(c stats.Column) bool { return c.Name == "distance" })
	want := 0
	for _, one := range list {
		if strings.Contains(one.id, "/UA") && tab[i].Numbers[one.row] > 1000 {
			want++
		}
	}
	if n.Count != want || want == 0 {
		t.Errorf("the filter counts %d, want %d", n.Count, want)
	}
	seen := map[string]bool{}
	cursor, last := "", time.Time{}
	for page := 0; page == 0 || cursor != ""; page++ {
		var p collector.Page
		r.get(t, "/api/v1/predictions?model=flights_gbm&limit=37&where="+where+"&cursor="+url.QueryEscape(cursor), &p)
		for _, one := range p.Predictions {
			if seen[one.ID] || !last.IsZero() && one.Time.After(last) {
				t.Errorf("%s at %s comes again or out of order", one.ID, one.Time)
			}
			seen[one.ID], last = true, one.Time
			if one.Features["carrier"] != "UA" {
				t.Errorf("%s has carrier %v", one.ID, one.Features["carrier"])
			}
		}
		if cursor = p.Next; page > want {
			t.Fatal("the listing does not end")
		}
	}
	if len(seen) != want {
		t.Errorf("pages hold %d predictions, want %d", len(seen), want)
	}
	for _, bad := range []string{"where=carrier+%3D", "where=nosuch+%3D+1", "limit=0", "cursor=x", "from=2013-05-01&to=2013-04-01", "colour=x"} {
		if status, b, _ := r.call(t, "GET", "/api/v1/predictions?model=flights_gbm&"+bad, ""); status != 400 {
			t.Errorf("%s: %d %s", bad, status, b)
		}
	}
}

// checkProvisional waits for the reference that a version without one is given,
// made of its first day.
func checkProvisional(t *testing.T, r *rig, rows []int, o *offline) {
	var got stats.Report
	until(t, "a provisional reference", func() bool {
		r.get(t, "/api/v1/models/flights_mlp/drift", &got)
		return got.State != stats.StateNoReference && got.Rows.Current == len(rows)
	})
	if !got.Provisional || got.Rows.Reference < provisionalRows || got.Rows.Reference >= len(rows) || len(got.Features) != 11 {
		t.Fatalf("%+v provisional %t over %d fields", got.Rows, got.Provisional, len(got.Features))
	}
	v, err := r.models.Find("flights_mlp", "")
	if err != nil {
		t.Fatal(err)
	}
	ref := v.Reference()
	want := stats.Compare(ref, o.counts(t, ref, rows), len(rows), stats.Options{})
	for i, g := range got.Features {
		if w := want.Features[i]; g.Name != w.Name || g.State != w.State || !(math.Abs(g.Tests[stats.PSI].Value-w.Tests[stats.PSI].Value) <= 1e-5) {
			t.Errorf("%s: %+v, want %+v", g.Name, g, w)
		}
	}
}

func checkExport(t *testing.T, r *rig, list []flight, o *offline) {
	path := filepath.Join(t.TempDir(), "out.csv")
	status, _, stderr := command(t, "export", "--clickhouse", r.dsn, "--model", "flights_gbm", "--from", "2013-04-01", "--output", path)
	if status != 0 {
		t.Fatal(stderr)
	}
	records, err := csv.NewReader(strings.NewReader(readFile(t, path))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	head := records[0]
	id, score := slices.Index(head, "external_id"), len(head)-1
	if len(records) != len(list)+1 || id < 0 || head[score] != "prediction" || !slices.Contains(head, "carrier") {
		t.Fatalf("%d lines for %d flights, head %v", len(records), len(list), head)
	}
	want := map[string]float64{}
	for _, one := range list {
		want[one.id] = o.scores[one.row]
	}
	for _, rec := range records[1:] {
		w, ok := want[rec[id]]
		if got := number(t, rec[score]); !ok || !(math.Abs(got-w) <= 1e-6) {
			t.Errorf("%s: %g, want %g", rec[id], got, w)
		}
		delete(want, rec[id])
	}
	checkParquet(t, r, path, records)
	if status, _, stderr := command(t, "export", "--clickhouse", r.dsn, "--model", "flights_gbm", "--from", "yesterday"); status != 2 || !strings.Contains(stderr, "--from") {
		t.Errorf("a bad --from: %d %s", status, stderr)
	}
	if status, _, stderr := command(t, "export", "--clickhouse", r.dsn, "--model", "flights_gbm", "--where", "nosuch = 1"); status == 0 || !strings.Contains(stderr, "nosuch") {
		t.Errorf("a bad --where: %d %s", status, stderr)
	}
}

// checkParquet takes the same rows out as Parquet: numbers and times are such, and each cell is
// what the CSV has.
func checkParquet(t *testing.T, r *rig, path string, records [][]string) {
	t.Helper()
	path += ".parquet"
	if status, _, stderr := command(t, "export", "--clickhouse", r.dsn, "--model", "flights_gbm", "--from", "2013-04-01", "--output", path); status != 0 {
		t.Fatal(stderr)
	}
	got, err := table.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Rows != len(records)-1 || len(got.Columns) != len(records[0]) {
		t.Fatalf("%d rows of %d columns, want %d of %d", got.Rows, len(got.Columns), len(records)-1, len(records[0]))
	}
	types := map[table.Type]int{}
	for k := range got.Columns {
		c := &got.Columns[k]
		types[c.Type]++
		if c.Name != records[0][k] {
			t.Fatalf("column %d is %q, want %q", k, c.Name, records[0][k])
		}
		for i := range got.Rows {
			want, have := records[i+1][k], c.Strings()[i]
			switch c.Type {
			case table.Time:
				have = c.Times[i].UTC().Format(time.RFC3339Nano)
			case table.Float32:
				if have = ""; want != "" {
					have = strconv.FormatFloat(float64(c.F32[i]), 'g', -1, 32)
				}
			}
			if have != want {
				t.Fatalf("%s of row %d is %q, want %q", c.Name, i, have, want)
			}
		}
	}
	if types[table.Time] != 2 || types[table.Float32] < 2 || types[table.String] < 7 {
		t.Errorf("columns of types %v", types)
	}
	if status, _, stderr := command(t, "export", "--external-id", "x", "--output", path); status != 2 || !strings.Contains(stderr, "JSON") {
		t.Errorf("a subject as Parquet: %d %s", status, stderr)
	}
}

func TestModelInspectAndTest(t *testing.T) {
	for path, say := range map[string][]string{
		gbm + "model.ubj":  {"xgboost", "binary", "feature 0", "carrier categorical: ", "missing values  true"},
		mlp + "model.onnx": {"onnx", "day_of_week"},
		filepath.Join(lightgbmData, "objective_binary.txt"): {"lightgbm", "binary"},
	} {
		status, out, stderr := command(t, "model", "inspect", path)
		if status != 0 {
			t.Fatal(stderr)
		}
		for _, s := range say {
			if !strings.Contains(strings.ToLower(out), s) {
				t.Errorf("%s: no %q in\n%s", path, s, out)
			}
		}
		var doc struct {
			Format string
			Inputs []struct {
				Name, Datatype string
				Shape          []int
			}
		}
		if status, out, stderr = command(t, "model", "inspect", path, "--format", "json"); status != 0 {
			t.Fatal(stderr)
		}
		if err := json.Unmarshal([]byte(out), &doc); err != nil || doc.Format == "" || len(doc.Inputs) == 0 || len(doc.Inputs[0].Shape) == 0 {
			t.Errorf("%s: %+v, %v", path, doc, err)
		}
	}
	if status, _, stderr := command(t, "model", "inspect", "demo/data/rules.yaml"); status != 1 || !strings.Contains(stderr, "rules.yaml") {
		t.Errorf("inspect what is no model: %d %s", status, stderr)
	}
}

// TestPredictGivesTheLibrariesNumbers scores the libraries' own rows.
func TestPredictGivesTheLibrariesNumbers(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ data, name string }{{xgboostData, "base_binary_logistic"}, {lightgbmData, "objective_multiclass"}} {
		o := treeCase(t, dir, c.name, c.data, c.name)
		var text strings.Builder
		for j := range o.rows[0] {
			fmt.Fprintf(&text, "%sf%d", strings.Repeat(",", min(j, 1)), j)
		}
		for _, row := range o.rows {
			for j, v := range row {
				cell := ""
				if !math.IsNaN(v) {
					cell = jsonNumber(v)
				}
				text.WriteString([]string{"\n", ","}[min(j, 1)] + cell)
			}
		}
		place(t, dir, "rows.csv", text.String()+"\n")
		found, err := filepath.Glob(filepath.Join(dir, c.name, "1", "model.*"))
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		status, out, stderr := command(t, "predict", "--model", found[0], "--input", filepath.Join(dir, "rows.csv"))
		if status != 0 {
			t.Fatal(stderr)
		}
		records, err := csv.NewReader(strings.NewReader(out)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var got []float64
		for _, rec := range records[1:] {
			for _, cell := range rec {
				got = append(got, number(t, cell))
			}
		}
		near(t, c.name, got, o.want)
	}
}

// TestModelTest runs golden data that reproduces, and the same with one number
// moved.
func TestModelTest(t *testing.T) {
	dir := t.TempDir()
	c := treeCase(t, dir, "m", xgboostData, "base_binary_logistic")
	write := func(off float32) {
		var x, y []float32
		for i, row := range c.rows {
			for _, v := range row {
				x = append(x, float32(v))
			}
			y = append(y, float32(c.want[i][0]))
		}
		y[len(y)-1] += off
		place(t, dir, "m/1/test_data_set_0/input_0.pb", tensorProto("input", []int{len(c.rows), len(c.rows[0])}, x))
		place(t, dir, "m/1/test_data_set_0/output_0.pb", tensorProto("prediction", []int{len(y)}, y))
	}
	write(0)
	if status, out, stderr := command(t, "model", "test", dir); status != 0 || out != "1 passed, 0 failed, 0 skipped\n" {
		t.Errorf("%d %q %q", status, out, stderr)
	}
	write(0.1)
	if status, out, _ := command(t, "model", "test", dir); status != 1 || !strings.Contains(out, "FAIL ") || !strings.Contains(out, "0 passed, 1 failed") {
		t.Errorf("%d %q", status, out)
	}
}

// tensorProto writes an ONNX tensor of float32.
func tensorProto(name string, shape []int, data []float32) string {
	var b []byte
	for _, d := range shape {
		b = binary.AppendUvarint(append(b, 1<<3), uint64(d))
	}
	b = append(b, 2<<3, 1) // data_type FLOAT
	b = binary.AppendUvarint(append(b, 8<<3|2), uint64(len(name)))
	b = append(b, name...)
	b = binary.AppendUvarint(append(b, 9<<3|2), uint64(4*len(data)))
	for _, v := range data {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return string(b)
}
