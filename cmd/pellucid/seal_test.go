package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/spool"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine/stats"
)

// sealedFlights is a models folder with a model of sealed features, whose rows belong
// to a subject, and a configuration with a key-encryption key.
func sealedFlights(t *testing.T) config {
	t.Helper()
	models := t.TempDir()
	place(t, models, "flights/1/model.ubj", readFile(t, gbm+"model.ubj"))
	place(t, models, "flights/1/model.yaml", "task: binary\nclasses: [on_time, late]\nsubject: distance\nfeatures:\n  - {name: carrier, private: seal}\n  - {name: temp, private: seal}\nreference: reference.csv\n")
	head := "carrier,origin,temp,day_of_week,hour,minute,distance,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib\n"
	rows := strings.Repeat(canaryText+",JFK,7318492.5,1,8,30,500,40,50,200,10,12,0,1010,10\nUA,JFK,40,1,8,30,500,40,50,200,10,12,0,1010,10\n", 300)
	for _, file := range []string{"reference.csv", "background.csv", "rows.csv.gz", "notes"} {
		place(t, models, "flights/1/"+file, head+rows)
	}
	cfg := testConfig(t, models)
	cfg.Capture.Key.File = writeKEK(t, "1")
	return cfg
}

func writeKEK(t *testing.T, digit string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(path, []byte(strings.Repeat(digit, 64)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func flightBody(carrier string, temp float64) string {
	return `{"inputs":[{"name":"carrier","datatype":"BYTES","shape":[1],"data":["` + carrier + `"]},{"name":"origin","datatype":"BYTES","shape":[1],"data":["JFK"]},` +
		strings.TrimSuffix(strings.Join([]string{
			column("temp", temp), column("day_of_week", 1), column("hour", 8), column("minute", 30), column("distance", 500), column("dewp", 40), column("humid", 50),
			column("wind_dir", 200), column("wind_speed", 10), column("wind_gust", 12), column("precip", 0), column("pressure", 1010), column("visib", 10),
		}, ""), ",") + `]}`
}

// explained asks why, and returns the attributions.
func explained(t *testing.T, r *rig, id string) []collector.Attribution {
	t.Helper()
	var answer struct{ Explanations []collector.Explanation }
	r.post(t, "/api/v1/predictions/"+id+"/explain", `{}`, &answer)
	if len(answer.Explanations) != 1 || !reflect.DeepEqual(answer.Explanations[0].Sealed, []string{"carrier", "temp"}) {
		t.Fatalf("%+v", answer)
	}
	return answer.Explanations[0].Attributions
}

// TestSealedFieldsAreNowhere follows sealed values through everything that a server
// keeps or shows, a restart, another key and the end of the person they are about.
func TestSealedFieldsAreNowhere(t *testing.T) {
	cfg := sealedFlights(t)
	direct := cfg.ClickHouse
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)

	f.cut() // so that the spool holds everything
	id := r.post(t, "/v2/models/flights/infer", flightBody(canaryText, canaryNumber), nil).Get("Pellucid-Prediction-Id") + ".0"
	for range 3 {
		r.post(t, "/v2/models/flights/infer", flightBody("UA", 41), nil)
	}
	if status, _, _ := r.call(t, "POST", "/v2/models/flights/infer", strings.Replace(flightBody(canaryText, canaryNumber), "origin", "airport", 1)); status != 400 {
		t.Errorf("a bad request: %d", status)
	}
	waiting := explained(t, r, id)
	searchFolder(t, cfg.Data)
	f.open(t)
	r.stored(t)
	searchFolder(t, cfg.Data)

	var p collector.StoredPrediction
	r.get(t, "/api/v1/predictions/"+id, &p)
	if got := fmt.Sprint(p.Features["carrier"], " ", p.Features["temp"], " ", p.Features["origin"]); got != "*** *** JFK" || p.Capture != "full" {
		t.Errorf("stored %s of %+v", got, p.Features)
	}
	checkShown(t, r, id)
	if now := explained(t, r, id); !reflect.DeepEqual(now, waiting) {
		t.Errorf("explained in the store %v, in the spool %v", now, waiting)
	}
	checkAsOffline(t, r, id, waiting)
	status, b, _ := r.call(t, "POST", "/v2/models/flights/explain", flightBody(canaryText, canaryNumber))
	if status != 200 || !strings.Contains(string(b), `"sealed":["carrier","temp"]`) {
		t.Errorf("explain rows: %d %s", status, b)
	}
	checkSealedDrift(t, r)
	var out, errs bytes.Buffer
	if status := run(t.Context(), []string{"export", "--model", "flights", "--clickhouse", direct}, &out, &errs); status != 0 || leaks(out.Bytes()) != "" || !strings.Contains(out.String(), "***") {
		t.Errorf("export: %d %s %s", status, out.String(), errs.String())
	}
	r.stored(t)
	checkFilters(t, r)
	checkTables(t, r)
	if n := sql(t, r.database(t), "SELECT count() FROM explanations"); n != "0" {
		t.Errorf("%s explanations are stored", n)
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
	if found := leaks([]byte(r.log.String())); found != "" {
		t.Errorf("the log holds %s", found)
	}
	checkLater(t, cfg, id, waiting)
}

// checkShown looks at every page with and without the wish to see what is sealed.
func checkShown(t *testing.T, r *rig, id string) {
	t.Helper()
	for _, page := range []string{
		"/ui/", "/ui/models/flights", "/ui/predictions", "/ui/predictions/" + id, "/ui/predictions/" + id + "/report", "/ui/alerts", "/metrics",
		"/api/v1/predictions/" + id, "/api/v1/predictions/" + id + "?unseal=false", "/api/v1/predictions?model=flights", "/api/v1/models/flights/drift",
		"/v2/models/flights", "/ui/models/flights?feature=temp", "/ui/models/flights?feature=carrier",
	} {
		if _, b, _ := r.call(t, "GET", page, ""); leaks(b) != "" {
			t.Errorf("%s shows %s", page, leaks(b))
		}
	}
	for _, page := range []string{
		"/ui/predictions/" + id + "?unseal=true", "/ui/predictions/" + id + "/report?unseal=true", "/api/v1/predictions/" + id + "?unseal=true",
		"/api/v1/predictions?model=flights&unseal=true",
	} {
		if status, b, _ := r.call(t, "GET", page, ""); status != 200 || leaks(b) == "" || strings.Contains(string(b), "***") {
			t.Errorf("%s does not show what is sealed: %d %.300s", page, status, b)
		}
		// Through a proxy nobody is known to be on this machine.
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+page, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", "127.0.0.1")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode == 200 || leaks(b) != "" {
			t.Errorf("%s shows what is sealed to others: %d %v", page, resp.StatusCode, err)
		}
	}
	// The page's own link to the report is one that answers, for whom there is one.
	_, b, _ := r.call(t, "GET", "/ui/predictions/"+id, "")
	link := regexp.MustCompile(`href="(/ui/predictions/[^/"]+/report[^"]*)"`).FindSubmatch(b)
	if link == nil {
		t.Fatalf("no link to a report: %s", b)
	}
	if status, b, _ := r.call(t, "GET", html.UnescapeString(string(link[1])), ""); status != 200 {
		t.Errorf("%s: %d %.300s", link[1], status, b)
	}
	// So is its button.
	button := regexp.MustCompile(`action="(/ui/predictions/[^/"]+/explain[^"]*)"`).FindSubmatch(b)
	if button == nil {
		t.Fatalf("no button that explains: %s", b)
	}
	if status, b, _ := r.call(t, "POST", html.UnescapeString(string(button[1])), ""); status != 200 || !strings.Contains(string(b), "carrier") {
		t.Errorf("%s: %d %.300s", button[1], status, b)
	}
	for _, wrong := range []string{"?unseal=1", "?unseal=true&unseal=true", "?unseal="} {
		if status, _, _ := r.call(t, "GET", "/api/v1/predictions/"+id+wrong, ""); status != 400 {
			t.Errorf("%s: %d", wrong, status)
		}
	}
	if status, _, _ := r.call(t, "GET", "/api/v1/models/flights/drift?unseal=true", ""); status != 400 {
		t.Errorf("drift takes unseal: %d", status)
	}
}

// checkAsOffline holds an explanation against that of the file, which knows of no
// privacy.
// checkFilters: a ciphertext has an order, and may not be compared with anything.
func checkFilters(t *testing.T, r *rig) {
	t.Helper()
	for _, where := range []string{"temp > 1", "temp != 5", "temp = 1", "carrier < 'a'", "carrier in ('UA')", "not temp > 1", "distance > 0 and temp < 1e9"} {
		status, b, _ := r.call(t, "GET", "/api/v1/predictions?model=flights&where="+url.QueryEscape(where), "")
		if status != 400 || !strings.Contains(string(b), "seal") {
			t.Errorf("list where %s: %d %.200s", where, status, b)
		}
		status, b, _ = r.call(t, "POST", "/api/v1/subjects/erase", fmt.Sprintf(`{"model":"flights","where":%q,"dry_run":true}`, where))
		if status != 400 || !strings.Contains(string(b), "seal") {
			t.Errorf("erase where %s: %d %.200s", where, status, b)
		}
	}
	var page collector.Page
	r.get(t, "/api/v1/predictions?model=flights&where="+url.QueryEscape("temp is not null and distance > 0"), &page)
	if len(page.Predictions) == 0 {
		t.Error("no row whose sealed value is there")
	}
}

func checkAsOffline(t *testing.T, r *rig, id string, got []collector.Attribution) {
	t.Helper()
	dir := t.TempDir()
	place(t, dir, "rows.csv", "carrier,origin,temp,day_of_week,hour,minute,distance,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib\n"+
		canaryText+",JFK,7318492.5,1,8,30,500,40,50,200,10,12,0,1010,10\n")
	var out, errs bytes.Buffer
	if status := run(t.Context(), []string{"explain", "--model", gbm + "model.ubj", "--input", filepath.Join(dir, "rows.csv")}, &out, &errs); status != 0 {
		t.Fatalf("explain offline: %s", errs.String())
	}
	var want collector.Explanation
	if err := json.Unmarshal(out.Bytes(), &want); err != nil {
		t.Fatal(err)
	}
	for i, a := range want.Attributions {
		if i >= len(got) || got[i].Feature != a.Feature || got[i].Phi != a.Phi {
			t.Errorf("%s: %+v, offline %+v", id, got, a)
			break
		}
	}
}

// checkSealedDrift: sealed features are watched by keyed bins.
func checkSealedDrift(t *testing.T, r *rig) {
	t.Helper()
	var report stats.Report
	r.get(t, "/api/v1/models/flights/drift", &report)
	for _, name := range []string{"carrier", "temp"} {
		found := false
		for _, f := range report.Features {
			if f.Name != name {
				continue
			}
			_, psi := f.Tests[stats.PSI]
			_, ks := f.Tests[stats.KolmogorovSmirnov]
			found = psi && !ks
		}
		if !found {
			t.Errorf("drift of %s: %+v", name, report)
		}
	}
	v, err := r.models.Find("flights", "")
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range v.Reference().Fields {
		if f.Name == "carrier" && !f.Keyed() || f.Name == "origin" && f.Keyed() {
			t.Errorf("field %d: %+v", i, f)
		}
	}
	n := sql(t, r.database(t), fmt.Sprintf("SELECT count(), countIf(bins[%d] < 65532), countIf(bins[%d] < 65532) FROM predictions WHERE model = 'flights' AND status = 200 AND route = 'infer'", place1(v, "carrier"), place1(v, "temp")))
	if n != "4\t4\t4" && n != "4 4 4" {
		t.Errorf("rows, carriers and temperatures in bins: %q", n)
	}
}

// place1 is the place of a feature, counted as SQL does.
func place1(v *collector.ModelVersion, name string) int {
	return 1 + slices.IndexFunc(v.Schema.Features, func(f collector.Field) bool { return f.Name == name })
}

func checkTables(t *testing.T, r *rig) {
	t.Helper()
	db := r.database(t)
	until(t, "the spans are stored", func() bool { return sql(t, db, "SELECT count() > 5 FROM otel_traces") == "1" })
	for table := range strings.FieldsSeq(sql(t, db, "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine NOT LIKE '%View'")) {
		rows := sql(t, db, "SELECT * FROM `"+table+"` FORMAT TSV")
		if found := leaks([]byte(rows)); found != "" {
			t.Errorf("table %s holds %s: %.2000s", table, found, rows)
		}
		if table == "predictions" && (!strings.Contains(rows, "sealed1.") || !strings.Contains(rows, "1010")) {
			t.Error("the search sees no features at all")
		}
	}
}

// checkLater starts the server again: with its key, with another, with none, and after
// the subject was forgotten.
func checkLater(t *testing.T, cfg config, id string, want []collector.Attribution) {
	t.Helper()
	r := startRig(t, cfg)
	if got := explained(t, r, id); !reflect.DeepEqual(got, want) {
		t.Errorf("after a restart %v, before it %v", got, want)
	}
	r.halt(t)
	for said, key := range map[string]keyConfig{"another key-encryption key": {File: writeKEK(t, "2")}, "no key-encryption key": {}, "no such file": {File: "no/such/kek"}} {
		wrong := cfg
		wrong.Capture.Key = key
		r := startRig(t, wrong)
		before := r.spool.Stats().Appended
		status, b, _ := r.call(t, "POST", "/v2/models/flights/infer", flightBody(canaryText, canaryNumber))
		if status < 400 || leaks(b) != "" || r.spool.Stats().Appended != before {
			t.Errorf("%s: served: %d %s", said, status, b)
		}
		if _, b, _ := r.call(t, "POST", "/v2/repository/index", `{}`); !strings.Contains(string(b), said) {
			t.Errorf("the index does not say %q: %s", said, b)
		}
		if status, b, _ := r.call(t, "POST", "/api/v1/predictions/"+id+"/explain", `{}`); status < 400 || leaks(b) != "" {
			t.Errorf("%s: explained: %d %s", said, status, b)
		}
		r.halt(t)
	}
	r = startRig(t, cfg)
	if got := explained(t, r, id); !reflect.DeepEqual(got, want) {
		t.Errorf("with the key again: %v", got)
	}
	r.post(t, "/api/v1/keys/rotate", "", nil)
	for i, n := range []int{1, 0} {
		var answer struct{ Deleted int }
		if r.post(t, "/api/v1/keys/forget", `{"subject":"500"}`, &answer); answer.Deleted != n {
			t.Fatalf("time %d: %+v", i, answer)
		}
	}
	for body, want := range map[string]int{`{}`: 400, ``: 400, `{"subject":5}`: 400, `{"subject":"5","x":1}`: 400, `[`: 400, `{"subject":"` + strings.Repeat("x", 1<<17) + `"}`: 400} {
		if status, b, _ := r.call(t, "POST", "/api/v1/keys/forget", body); status != want {
			t.Errorf("%.40s: %d %s", body, status, b)
		}
	}
	if got, err := r.keyring.open(); err != nil {
		t.Error(err)
	} else if list, err := got.List(); err != nil || len(list[0].Data) != 2 || list[0].Subjects != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	gone := func(r *rig) {
		t.Helper()
		status, b, _ := r.call(t, "POST", "/api/v1/predictions/"+id+"/explain", `{}`)
		if status != 422 || !strings.Contains(string(b), `carrier`) || !strings.Contains(string(b), "deleted") {
			t.Errorf("explain what is forgotten: %d %s", status, b)
		}
		if status, b, _ := r.call(t, "GET", "/api/v1/predictions/"+id+"?unseal=true", ""); status != 200 || leaks(b) != "" || !strings.Contains(string(b), "***") {
			t.Errorf("read what is forgotten: %d %s", status, b)
		}
	}
	gone(r)
	// A later row of the subject has a new key, which an erasure takes along.
	h := r.post(t, "/v2/models/flights/infer", flightBody(canaryText, canaryNumber), nil)
	r.stored(t)
	var erased api.Erasure
	r.post(t, "/api/v1/subjects/erase", fmt.Sprintf(`{"prediction_id":%q,"forget":"500"}`, h.Get("Pellucid-Prediction-Id")), &erased)
	if erased.Keys != 1 || erased.Before["predictions"] != 1 || erased.After["predictions"] != 0 {
		t.Errorf("erased %+v", erased)
	}
	later := r.post(t, "/v2/models/flights/infer", flightBody("UA", 41), nil).Get("Pellucid-Prediction-Id") + ".0"
	explained(t, r, later)
	r.halt(t)
	r = startRig(t, cfg)
	gone(r)
	explained(t, r, later)
}

// TestARuleComesLater: what a version's reference told of a feature before it became
// private is not kept.
func TestARuleComesLater(t *testing.T) {
	cfg := sealedFlights(t)
	place(t, cfg.Models, "flights/1/model.yaml", "task: binary\nclasses: [on_time, late]\nreference: reference.csv\n")
	for _, file := range []string{"background.csv", "rows.csv.gz", "notes"} {
		if err := os.Remove(filepath.Join(cfg.Models, "flights/1", file)); err != nil {
			t.Fatal(err)
		}
	}
	kept := func() string {
		files, err := filepath.Glob(filepath.Join(cfg.Data, "models", "*", ".reference.json"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		return readFile(t, files[0])
	}
	r := startRig(t, cfg)
	id := r.post(t, "/v2/models/flights/infer", flightBody("UA", 41), nil).Get("Pellucid-Prediction-Id") + ".0"
	r.stored(t)
	r.halt(t)
	if leaks([]byte(kept())) == "" {
		t.Fatal("the reference would tell nothing anyway")
	}
	cfg.Capture.Private = map[string]string{"flights.temp": "seal", "*.carrier": "seal"}
	for range 2 {
		r = startRig(t, cfg)
		searchFolder(t, filepath.Join(cfg.Data, "models"))
		v, err := r.models.Find("flights", "")
		if err != nil || v.Reference() == nil || !strings.Contains(kept(), `"sealed":"sealed1.`) {
			t.Fatal(v, err)
		}
		sealed := r.post(t, "/v2/models/flights/infer", flightBody(canaryText, canaryNumber), nil).Get("Pellucid-Prediction-Id") + ".0"
		explained(t, r, sealed)
		// What was stored in clear has another schema, and is explained no more.
		if status, b, _ := r.call(t, "POST", "/api/v1/predictions/"+id+"/explain", `{}`); status != 422 || !strings.Contains(string(b), "has changed since") {
			t.Errorf("explain what came before: %d %s", status, b)
		}
		r.halt(t)
	}
}

var keyedSubject = regexp.MustCompile(`^subject #[0-9a-f]{24}$`)

// TestKeysCommands runs each as a person would.
func TestKeysCommands(t *testing.T) {
	cfg := sealedFlights(t)
	data := cfg.Data
	file := filepath.Join(t.TempDir(), "pellucid.yaml")
	configure := func(kek string) {
		if err := os.WriteFile(file, []byte("data: "+data+"\ncapture: {key: {file: "+kek+"}}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure(cfg.Capture.Key.File)
	call := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if got := run(t.Context(), append([]string{"keys"}, append(args, "--config", file)...), &out, &errs); got != want {
			t.Errorf("%v: status %d: %s %s", args, got, out.String(), errs.String())
		}
		return out.String() + errs.String()
	}
	if s := call(1, "list"); !strings.Contains(s, "nothing was sealed yet") {
		t.Error(s)
	}
	r := startRig(t, cfg)
	id := r.post(t, "/v2/models/flights/infer", flightBody(canaryText, canaryNumber), nil).Get("Pellucid-Prediction-Id") + ".0"
	want := explained(t, r, id)
	if s := call(1, "rotate"); !strings.Contains(s, "in use by another process") {
		t.Error(s)
	}
	r.stored(t)
	r.halt(t)
	if s := call(0, "rotate"); !strings.Contains(s, "new data key") {
		t.Errorf("rotate said %q", s)
	}
	if s := call(0, "list"); strings.Count(s, "data key") != 2 || !strings.Contains(s, "1 subjects") {
		t.Error(s)
	}
	call(2, "rewrap")
	call(2, "forget")
	kek := writeKEK(t, "3")
	if s := call(0, "rewrap", "--to", kek); !strings.Contains(s, "name it in capture.key") {
		t.Errorf("rewrap said %q", s)
	}
	if s := call(1, "list"); !strings.Contains(s, "another key-encryption key") {
		t.Error(s)
	}
	configure(kek)
	call(0, "list")
	cfg.Capture.Key.File = kek
	r = startRig(t, cfg)
	if got := explained(t, r, id); !reflect.DeepEqual(got, want) {
		t.Errorf("after all that %v", got)
	}
	r.halt(t)
	if s := call(0, "forget", "--subject", "500"); !strings.Contains(s, "keys deleted: 1") {
		t.Error(s)
	}
	searchFolder(t, data)
	var acts []string
	for _, e := range auditEntries(t, data) {
		if strings.HasPrefix(e.Action, "keys.") {
			acts = append(acts, e.Action+e.Outcome)
			// A subject is told by its keyed digest alone, whose digits may be anything.
			keyed := keyedSubject.MatchString(e.Object)
			if e.Actor != "command line" || (e.Action == "keys.forget") != keyed || !keyed && strings.Contains(e.Object, "500") {
				t.Errorf("recorded %+v", e)
			}
		}
	}
	if want := []string{"keys.rotate", "keys.rewrap", "keys.forget"}; !slices.Equal(acts, want) {
		t.Errorf("recorded %q, want %q", acts, want)
	}
	// Where a server has the log, and has not opened the keys yet, nothing is changed.
	lock, err := spool.Lock(filepath.Join(data, "spool"))
	if err != nil {
		t.Fatal(err)
	}
	if s := call(1, "rotate"); !strings.Contains(s, "a server uses the folder") {
		t.Error(s)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if s := call(0, "list"); strings.Count(s, "data key") != 2 {
		t.Error(s)
	}
}

// TestSealedAndSampled: a prediction whose features are sampled out still counts in the
// keyed bins of its sealed features.
func TestSealedAndSampled(t *testing.T) {
	cfg := sealedFlights(t)
	none, outliers := 0.0, false
	cfg.Capture.Sample = []sampleConfig{{Model: "flights", Share: &none, KeepOutliers: &outliers}}
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	f.cut()
	for range 2 {
		r.post(t, "/v2/models/flights/infer", flightBody("UA", 40), nil)
		r.post(t, "/v2/models/flights/infer", flightBody(canaryText, canaryNumber), nil)
	}
	searchFolder(t, cfg.Data)
	f.open(t)
	r.stored(t)
	v, err := r.models.Find("flights", "")
	if err != nil {
		t.Fatal(err)
	}
	got := sql(t, r.database(t), fmt.Sprintf("SELECT count(), uniqExact(bins[%d]), uniqExact(bins[%[2]d]), max(bins[%[2]d]) < 65532, max(length(str)) FROM predictions WHERE model = 'flights'", place1(v, "carrier"), place1(v, "temp")))
	if strings.Join(strings.Fields(got), " ") != "4 2 2 1 0" {
		t.Errorf("rows, bins of carriers and temperatures, texts: %q", got)
	}
}
