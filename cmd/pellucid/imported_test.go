package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine/stats"
)

type imports struct {
	Accepted, Duplicate, Refused int
	Results                      []struct{ ID, Status, Error string }
}

// importRow is one prediction of a model that runs elsewhere.
func importRow(i int) string {
	return fmt.Sprintf(`{"id":"order-%d.%d","model":"elsewhere","version":"7","time":"2024-05-%02dT%02d:00:00Z","external_id":"o%d",
		"features":{"amount":%d.5,"country":"%s","vip":%t,"note":null},"outputs":{"score":%g,"parts":[%d,2,3]},"latency_ms":{"total":12.5},"label":"%d"}`,
		i, i%3, 1+i/600, i%24, i, i, []string{"NO", "SE", "DK"}[i%3], i%2 == 0, float64(i%100)/100, i, i%100/50)
}

func importList(from, to int) string {
	rows := make([]string, 0, to-from)
	for i := from; i < to; i++ {
		rows = append(rows, importRow(i))
	}
	return "[" + strings.Join(rows, ",") + "]"
}

// TestImportedPredictions: predictions made elsewhere are recorded once however
// often they are sent, and watched like any other, also after a restart.
func TestImportedPredictions(t *testing.T) {
	models := notedModels(t)
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	var got imports
	first := strings.Replace(importList(0, 1000), `"note":null`, `"note":"`+canaryText+`"`, 1)
	r.post(t, "/api/v1/predictions", first, &got)
	if got.Accepted != 1000 || got.Results[3].ID != "order-3.0" {
		t.Fatalf("%+v", got.Results[:4])
	}
	r.post(t, "/api/v1/predictions", importList(500, 1500), &got)
	if got.Duplicate+got.Accepted != 1000 || got.Accepted < 500 {
		t.Fatalf("again: %d accepted, %d duplicate", got.Accepted, got.Duplicate)
	}
	r.stored(t)
	// None of these is in the spool any more: the store knows them.
	r.post(t, "/api/v1/predictions", importList(0, 1500), &got)
	r.stored(t)
	checkImported := func(r *rig) {
		t.Helper()
		db := r.database(t)
		if n := sql(t, db, "SELECT count(), uniqExact(id, row), countIf(route = 'imported') FROM predictions WHERE model = 'elsewhere' AND status = 200"); strings.Join(strings.Fields(n), " ") != "1500 1500 1500" {
			t.Errorf("rows, ids, imported: %s", n)
		}
		if n := sql(t, db, "SELECT sum(rows) FROM traffic_1m WHERE model = 'elsewhere' AND status_class = 2"); n != "1500" {
			t.Errorf("the rollup has %s rows", n)
		}
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/order-4.1", &p)
		b, _ := json.Marshal(p.Outputs)
		if p.Features["amount"] != 4.5 || p.Features["country"] != "SE" || p.Features["vip"] != true || string(b) != `{"parts":[4,2,3],"score":0.04}` ||
			p.ExternalID != "o4" || p.LatencyMS["total"] != 12.5 || p.Time.Format("2006-01-02T15") != "2024-05-01T04" || p.Version != "7" {
			t.Errorf("read back %+v %s", p, b)
		}
		if _, ok := p.Features["note"]; ok {
			t.Error("a dropped field is stored")
		}
		var perf api.Performance
		r.get(t, "/api/v1/models/elsewhere/performance", &perf)
		if perf.State != stats.StateOK || perf.Rows.Labelled != 1500 || perf.Metrics["auc"] != 1 {
			t.Errorf("performance %+v", perf)
		}
		var d stats.Report
		defer func() {
			if t.Failed() {
				t.Logf("%+v %s", d, r.log)
			}
		}()
		until(t, "a provisional reference", func() bool {
			r.get(t, "/api/v1/models/elsewhere/drift", &d)
			return d.Provisional && d.Rows.Current == 1500 && len(d.Features) == 4
		})
		if status, b, _ := r.call(t, "GET", "/ui/models/elsewhere", ""); status != http.StatusOK || !strings.Contains(string(b), "country") {
			t.Errorf("its page: %d", status)
		}
	}
	checkImported(r)
	for path, body := range map[string]string{
		"/v2/models/elsewhere/infer":            `{"inputs":[{"name":"amount","datatype":"FP64","shape":[1],"data":[1]},{"name":"country","datatype":"BYTES","shape":[1],"data":["NO"]},{"name":"note","datatype":"BYTES","shape":[1],"data":[""]},{"name":"vip","datatype":"BOOL","shape":[1],"data":[true]}]}`,
		"/api/v1/predictions/order-4.1/explain": `{}`,
	} {
		if status, b, _ := r.call(t, "POST", path, body); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", path, status, b)
		}
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
	checkImported(startRig(t, cfg))
}

// TestImportsThatAreRefused says why, row by row, and records the rest.
func TestImportsThatAreRefused(t *testing.T) {
	models, cases := threeModels(t)
	r := startRig(t, testConfig(t, models))
	row := func(change string) string {
		return `{"id":"a","model":"m","features":{"x":1,"c":"u"},"outputs":{"y":2}` + change + `}`
	}
	var got imports
	r.post(t, "/api/v1/predictions", row(""), &got)
	for body, want := range map[string]string{
		`{}`:                                  "model is missing",
		row(`,"modl":"m"`):                    "modl",
		row(`,"time":"yesterday"`):            "time",
		row(`,"time":"2101-01-01T00:00:00Z"`): "2100",
		row(`,"status":42`):                   "status 42",
		row(`,"trace_id":"xyz"`):              "trace_id",
		row(`,"latency_ms":{"nap":1}`):        "nap",
		row(`,"weight":0`):                    "weight",
		row(`,"label":[1]`):                   "label",
		`{"id":"b","model":"m","features":{"x":1,"c":"u","z":1},"outputs":{"y":2}}`:                                                   `no feature \"z\"`,
		`{"id":"b","model":"m","features":{"x":"1","c":"u"},"outputs":{"y":2}}`:                                                       `\"x\"`,
		`{"id":"b","model":"m","features":{"x":1,"c":2},"outputs":{"y":2}}`:                                                           `\"c\"`,
		`{"id":"b","model":"m","features":{"x":1,"c":"u"},"outputs":{"z":2}}`:                                                         `no output \"z\"`,
		`{"id":"b","model":"m","features":{"x":1,"c":"u"},"outputs":{"y":[2,3]}}`:                                                     "list of 1",
		`{"id":"b","model":"m","features":{"x":1,"c":"u"},"outputs":{"y":"high"}}`:                                                    "number",
		`{"id":"b","model":"n","features":{"x":null},"outputs":{"y":2}}`:                                                              "null in every row",
		`{"id":"b","model":"n","features":{"x":{}},"outputs":{"y":2}}`:                                                                "neither",
		`{"id":"b","model":"n","features":{"x":1}}`:                                                                                   "both features and outputs",
		`{"id":"b","model":"../n","features":{"x":1},"outputs":{"y":2}}`:                                                              "letters",
		`{"id":"b","model":"net","features":{"q":1},"outputs":{"y":2}}`:                                                               "",
		`[{"id":"b","model":"k","features":{"x":1},"outputs":{"y":2}},{"id":"c","model":"k","features":{"x":"1"},"outputs":{"y":2}}]`: "in one row",
	} {
		status, b, _ := r.call(t, "POST", "/api/v1/predictions", body)
		if status != http.StatusBadRequest && status != http.StatusUnprocessableEntity || !strings.Contains(string(b), want) || !strings.Contains(string(b), `"error"`) {
			t.Errorf("%s: %d %s", body, status, b)
		}
	}
	// One bad row does not hold up the good ones.
	r.post(t, "/api/v1/predictions", "["+row("")+","+strings.Replace(row(""), `"a"`, `"z"`, 1)+`,{"id":"y"}]`, &got)
	if got.Accepted != 1 || got.Duplicate != 1 || got.Refused != 1 {
		t.Errorf("mixed: %+v", got)
	}
	// A served model's own features and outputs are taken in their own types.
	c := cases["xgb"]
	features := map[string]any{}
	for i, x := range c.whole().rows[0] {
		features[fmt.Sprintf("f%d", i)] = x
	}
	b, err := json.Marshal(map[string]any{"id": "served", "model": "xgb", "features": features, "outputs": map[string]any{"prediction": c.whole().want[0][0]}})
	if err != nil {
		t.Fatal(err)
	}
	r.post(t, "/api/v1/predictions", string(b), &got)
	r.stored(t)
	list := r.explained(t, "served", `{}`)
	if len(list) != 1 || list[0].Model != "xgb" || len(list[0].Attributions) != len(features) {
		t.Errorf("explain an imported prediction of a served model: %+v", list)
	}
}

// checkWeightsExported takes weights out and back in, also of a model with a feature
// that is called so.
func checkWeightsExported(t *testing.T, r *rig) {
	t.Helper()
	dir := t.TempDir()
	r.post(t, "/api/v1/predictions", `[{"model":"heavy","id":"a","weight":2.5,"features":{"weight":70,"x":1},"outputs":{"y":1}},{"model":"heavy","id":"b","features":{"weight":80,"x":2},"outputs":{"y":0}},
		{"model":"light","id":"c","weight":10,"features":{"x":1},"outputs":{"y":1}}]`, nil)
	r.stored(t)
	for model, column := range map[string]string{"heavy": "_weight", "light": "weight"} {
		path := filepath.Join(dir, model+".csv")
		if status, _, stderr := command(t, "export", "--clickhouse", r.dsn, "--model", model, "--output", path); status != 0 {
			t.Fatal(stderr)
		}
		if head, _, _ := strings.Cut(readFile(t, path), "\n"); !strings.Contains(head, ",capture,"+column+",label,") {
			t.Errorf("%s: %s", model, head)
		}
		if status, _, stderr := command(t, "import", path, "--url", r.url, "--model", model+"_again", "--id", "id", "--outputs", "y"); status != 0 || strings.Contains(stderr, "taken for a feature") {
			t.Fatal(stderr)
		}
		r.stored(t)
		var was, now collector.Page
		r.get(t, "/api/v1/predictions?model="+model, &was)
		r.get(t, "/api/v1/predictions?model="+model+"_again", &now)
		if len(was.Predictions) != len(now.Predictions) {
			t.Fatalf("%s: %d predictions, were %d", model, len(now.Predictions), len(was.Predictions))
		}
		for _, p := range now.Predictions {
			i := slices.IndexFunc(was.Predictions, func(q collector.StoredPrediction) bool { return q.ID == p.ID })
			want := map[string]float64{"a": 2.5, "b": 0, "c": 10}[p.ID]
			if i < 0 || p.Weight != want || was.Predictions[i].Weight != want || !reflect.DeepEqual(p.Features, was.Predictions[i].Features) {
				t.Errorf("%s: %+v", model, p)
			}
		}
	}
}

// TestImportCommand takes what export wrote into another server, and the labels of
// a file after it; sent again it changes nothing.
func TestImportCommand(t *testing.T) {
	r := startRig(t, testConfig(t, t.TempDir()))
	dir := t.TempDir()
	place(t, dir, "rows.csv", "id,at,amount,country,p[0],p[1],seen\na,2024-01-01T00:00:00Z,1.5,NO,0.25,0.75,2024-01-02\nb,2024-01-01T01:00:00Z,,SE,0.5,0.5,2024-01-02\nc,2024-01-01T02:00:00Z,1e3,,1,0,2024-01-02\n")
	place(t, dir, "labels.csv", "id,truth\na,1\nb,0\n")
	command1 := []string{"import", dir + "/rows.csv", "--url", r.url, "--model", "risk", "--id", "id", "--time", "at", "--outputs", "p[0],p[1]"}
	if status, out, stderr := command(t, command1...); status != 0 || !strings.Contains(out, "3 accepted, 0 duplicate, 0 refused") {
		t.Fatalf("%d %s %s", status, out, stderr)
	}
	if status, out, stderr := command(t, "import", dir+"/labels.csv", "--url", r.url, "--model", "risk", "--labels", "--id", "id", "--label", "truth"); status != 0 || !strings.Contains(out, "2 accepted") {
		t.Fatalf("%d %s %s", status, out, stderr)
	}
	r.stored(t)
	if status, out, stderr := command(t, command1...); status != 0 || !strings.Contains(out, "refused") {
		t.Fatalf("again: %d %s %s", status, out, stderr)
	}
	r.stored(t)
	var page collector.Page
	r.get(t, "/api/v1/predictions?model=risk", &page)
	if len(page.Predictions) != 3 {
		t.Fatalf("%d predictions", len(page.Predictions))
	}
	c, b, a := page.Predictions[0], page.Predictions[1], page.Predictions[2]
	if fmt.Sprint(a.Outputs["p"]) != "[0.25 0.75]" || a.Features["amount"] != 1.5 || len(a.Labels) != 1 || a.Labels[0].Label != "1" ||
		b.Features["amount"] != nil || b.Features["country"] != "SE" || c.ID != "c" || c.Features["country"] != nil || c.Time.Hour() != 2 {
		t.Errorf("stored %+v\n%+v\n%+v", a, b, c)
	}
	// What is exported can be imported, and is the same again.
	for _, kind := range []string{"csv", "parquet"} {
		if status, _, stderr := command(t, "export", "--clickhouse", r.dsn, "--model", "risk", "--output", dir+"/out."+kind); status != 0 {
			t.Fatal(stderr)
		}
		if status, _, stderr := command(t, "import", dir+"/out."+kind, "--url", r.url, "--model", kind, "--id", "id", "--time", "time", "--outputs", "p[0],p[1]"); status != 0 {
			t.Fatal(stderr)
		}
		r.stored(t)
		var copied collector.Page
		r.get(t, "/api/v1/predictions?model="+kind, &copied)
		for i, p := range copied.Predictions {
			q := page.Predictions[i]
			if p.ID != q.ID || !p.Time.Equal(q.Time) || !reflect.DeepEqual(p.Features, q.Features) || !reflect.DeepEqual(p.Outputs, q.Outputs) {
				t.Errorf("%s: copied %+v, was %+v", kind, p, q)
			}
		}
		if len(copied.Predictions) != 3 {
			t.Errorf("%s: %d copies", kind, len(copied.Predictions))
		}
	}
	// Labels of one model are not those of another that has the same ids.
	place(t, dir, "others.csv", "id,truth\nc,2\n")
	if status, out, stderr := command(t, "import", dir+"/others.csv", "--url", r.url, "--model", "csv", "--labels", "--id", "id", "--label", "truth"); status != 0 || !strings.Contains(out, "1 accepted") {
		t.Fatalf("%d %s %s", status, out, stderr)
	}
	r.stored(t)
	for model, want := range map[string]int{"csv": 1, "risk": 0, "parquet": 0} {
		var of collector.StoredPrediction
		if r.get(t, "/api/v1/predictions/c?model="+model, &of); of.Model != model || len(of.Labels) != want {
			t.Errorf("%s has %d labels of c, want %d", model, len(of.Labels), want)
		}
	}
	checkWeightsExported(t, r)
	place(t, dir, "errors.csv", "id,error,score\nx,none,0.5\n")
	if status, _, stderr := command(t, "import", dir+"/errors.csv", "--url", r.url, "--model", "errors", "--id", "id", "--outputs", "score"); status != 0 || !strings.Contains(stderr, `"error" is taken for a feature`) {
		t.Errorf("a column of errors: %d %s", status, stderr)
	}
	for want, args := range map[string][]string{
		"no column":  {"import", dir + "/rows.csv", "--url", r.url, "--model", "risk", "--outputs", "q"},
		"--outputs":  {"import", dir + "/rows.csv", "--url", r.url, "--model", "risk"},
		"--label":    {"import", dir + "/rows.csv", "--url", r.url, "--model", "risk", "--labels"},
		"--model":    {"import", dir + "/rows.csv", "--url", r.url},
		"no output":  {"import", dir + "/labels.csv", "--url", r.url, "--model", "risk", "--id", "id", "--outputs", "truth"},
		"absent.csv": {"import", dir + "/absent.csv", "--url", r.url, "--model", "risk", "--outputs", "q"},
	} {
		if status, _, stderr := command(t, args...); status == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%v: %d %s, want %q", args[1:], status, stderr, want)
		}
	}
}

// TestAReferenceThatCountedNothingYet: a server that dies between keeping a reference and
// counting the rows older than it counts them when it is there again.
func TestAReferenceThatCountedNothingYet(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	r := startRig(t, cfg)
	r.post(t, "/api/v1/predictions", strings.ReplaceAll(importList(0, 600), `"note":null`, `"note":"x"`), nil) // too few for one of their own
	r.stored(t)
	v, err := r.models.Find("elsewhere", "")
	if err != nil {
		t.Fatal(err)
	}
	var list []collector.RawRow
	err = r.store.Each(t.Context(), collector.Query{Tenant: collector.DefaultTenant, Model: "elsewhere"}, func(p *collector.StoredPrediction) error {
		list = append(list, p.Raw)
		return nil
	})
	if err != nil || len(list) != 600 {
		t.Fatal(len(list), err)
	}
	ref, err := repository.StoredReference(v, collector.DefaultTenant, list, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.SaveReference(t.Context(), collector.DefaultTenant, v.Name, v.Version, v.Digest, ref); err != nil {
		t.Fatal(err)
	}
	if err := r.models.SetReference(v.Digest, ref); err != nil {
		t.Fatal(err)
	}
	r.halt(t)
	r = startRig(t, cfg)
	var d stats.Report
	until(t, "the rows are counted", func() bool {
		r.get(t, "/api/v1/models/elsewhere/drift", &d)
		return d.Rows.Current == 600
	})
}

// TestExportOfRowsWithoutOutputs: a span that tells no outcome is a row with empty cells.
func TestExportOfRowsWithoutOutputs(t *testing.T) {
	r := startRig(t, testConfig(t, t.TempDir()))
	span := func(id int, more string) string {
		return fmt.Sprintf(`{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b17%d","name":"score","startTimeUnixNano":"1714564800000000000","endTimeUnixNano":"1714564800250000000",
			"attributes":[{"key":"ml.model.name","value":{"stringValue":"far"}},{"key":"ml.features.x","value":{"doubleValue":%d.5}}%s]}`, id, id, more)
	}
	outcome := `,{"key":"ml.prediction.score","value":{"doubleValue":0.25}}`
	for _, s := range []string{span(1, outcome), span(2, "")} {
		if code, b, _ := r.call(t, "POST", "/v1/traces", `{"resourceSpans":[{"scopeSpans":[{"spans":[`+s+`]}]}]}`); code != 200 {
			t.Fatalf("%d %s", code, b)
		}
		r.stored(t)
	}
	status, out, stderr := command(t, "export", "--clickhouse", r.dsn, "--model", "far")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); status != 0 || len(lines) != 3 || !strings.Contains(out, ",1.5,0.25") || !strings.Contains(out, ",2.5,\n") {
		t.Errorf("%d %s %s", status, out, stderr)
	}
}

// TestANewVersionKeepsPrivate: a version that nobody configured brings nothing into the
// open that is private in another of its model.
func TestANewVersionKeepsPrivate(t *testing.T) {
	models := t.TempDir()
	place(t, models, "elsewhere/7/model.yaml", "task: binary\nclasses: [no, yes]\nfeatures: [{name: note, private: drop}, {name: amount, private: mask}, {name: gone, private: bucket}]\n")
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	row := strings.NewReplacer(`"note":null`, `"note":"`+canaryText+`"`, `"version":"7"`, `"version":"8"`, `"amount":1.5`, `"amount":`+canaryDigits).Replace(importRow(1))
	var got imports
	r.post(t, "/api/v1/predictions", row, &got)
	r.post(t, "/api/v1/predictions", strings.NewReplacer(`"version":"8",`, "", "order-1.1", "order-2.2").Replace(row), &got)
	if got.Accepted != 1 {
		t.Fatalf("%+v", got)
	}
	r.stored(t)
	for _, id := range []string{"order-1.1", "order-2.2"} {
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+id, &p)
		if p.Version != "8" || p.Features["amount"] != "***" || p.Features["country"] != "SE" || p.Features["note"] != nil {
			t.Errorf("%s: %+v", id, p)
		}
	}
	if rows := sql(t, r.database(t), "SELECT * FROM predictions FORMAT TSV"); leaks([]byte(rows)) != "" {
		t.Errorf("stored: %s", rows)
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
}

// TestImportOfParquet sends the rows of a file that pandas wrote (engine/table/testdata/make_tables.py) to a
// server. Sent again after a restart, which has forgotten the ids, they are accepted, not
// stored a second time, and counted.
func TestImportOfParquet(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	r := startRig(t, cfg)
	send := func() {
		t.Helper()
		status, out, stderr := command(t, "import", "../../engine/table/testdata/pandas.parquet", "--url", r.url, "--model", "frame", "--id", "i32", "--time", "when", "--outputs", "f64")
		if status != 0 || !strings.Contains(out, "7 accepted, 0 duplicate, 0 refused") {
			t.Fatalf("%d %s %s", status, out, stderr)
		}
		r.stored(t)
	}
	send()
	check := func() {
		t.Helper()
		var page collector.Page
		r.get(t, "/api/v1/predictions?model=frame", &page)
		if len(page.Predictions) != 7 {
			t.Fatalf("%d predictions", len(page.Predictions))
		}
		for i, want := range []string{
			"0.1 map[cat:a f32:0.1 flag:1 i64:0 nullable:1 text:a u32:4e+09]",
			"-2.5 map[cat:b f32:2 flag:0 i64:1e+12 nullable:<nil> text:b u32:4.000000001e+09]",
			"NaN map[cat:<nil> f32:3 flag:1 i64:2e+12 nullable:3 text:<nil> u32:4.000000002e+09]",
			"1e+300 map[cat:d,e f32:<nil> flag:0 i64:3e+12 nullable:4 text:d,e u32:4.000000003e+09]",
			`5e-324 map[cat:quo"te f32:5 flag:1 i64:4e+12 nullable:<nil> text:quo"te u32:4.000000004e+09]`,
			"3 map[cat:ä f32:6 flag:0 i64:5e+12 nullable:6 text:ä u32:4.000000005e+09]",
			"7.25 map[cat:a f32:7 flag:1 i64:6e+12 nullable:7 text:a u32:4.000000006e+09]",
		} {
			p := page.Predictions[6-i] // the newest is first
			at := time.Date(2013, 1, 1, 5+i, 15, 0, 0, time.UTC)
			if got := fmt.Sprint(p.Outputs["f64"], " ", p.Features); p.ID != fmt.Sprint(i-3) || !p.Time.Equal(at) || got != want {
				t.Errorf("row %d: %s of %s: %s, want %s of %s", i, p.ID, p.Time, got, want, at)
			}
		}
	}
	check()
	r.halt(t)
	r = startRig(t, cfg)
	send()
	check()
	if _, b, _ := r.call(t, "GET", "/metrics", ""); !strings.Contains(string(b), "\nml_server_import_duplicates_total 7\n") {
		t.Error("the metrics do not tell of the duplicates")
	}
}
