package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
)

// exported are the lines of an export by what they are.
func (r *rig) exported(t *testing.T, subject string) map[string][]string {
	t.Helper()
	status, b, _ := r.call(t, "POST", "/api/v1/subjects/export", subject)
	if status != http.StatusOK {
		t.Fatalf("export %s: %d %s", subject, status, b)
	}
	out := map[string][]string{}
	for scan := bufio.NewScanner(strings.NewReader(string(b))); scan.Scan(); {
		var line map[string]json.RawMessage
		if err := json.Unmarshal(scan.Bytes(), &line); err != nil {
			t.Fatalf("%v in %s", err, scan.Text())
		}
		for kind, v := range line {
			out[kind] = append(out[kind], string(v))
		}
	}
	return out
}

func (r *rig) erase(t *testing.T, request string) (out api.Erasure) {
	t.Helper()
	r.post(t, "/api/v1/subjects/erase", request, &out)
	return out
}

// TestWhoWaitsForTheTurnGoesFirst: a long run between whose steps the turn is passed on lets
// in who waits, before its next step.
func TestWhoWaitsForTheTurnGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := make(turn, 1)
		if !own.tryTake() || own.tryTake() || own.take(t.Context(), time.Minute) {
			t.Fatal("it is not one's own")
		}
		var order []string
		go func() {
			if own.take(t.Context(), time.Minute) {
				order = append(order, "erasure")
				time.Sleep(10 * time.Second)
				own.give()
			}
		}()
		synctest.Wait()
		own.pass()
		order = append(order, "second step")
		own.pass() // nobody waits
		own.give()
		if !slices.Equal(order, []string{"erasure", "second step"}) || !own.tryTake() {
			t.Errorf("in the order %q", order)
		}
	})
}

// wantErased holds what was found of a place and that nothing of it is left.
func wantErased(t *testing.T, what string, got api.Erasure, place string, n, unsearched int64) {
	t.Helper()
	left, told := got.After[place]
	if got.Before[place] != n || got.UnsearchedIn[place] != unsearched || left != 0 || told == got.DryRun {
		t.Errorf("%s: %+v; want %d %s, and %d that cannot be searched", what, got, n, place, unsearched)
	}
}

// TestErasureReachesDeadLetters finds letters of a person by each way to name one,
// exports and erases them to the last byte, and lets no drive bring one back.
func TestErasureReachesDeadLetters(t *testing.T) {
	models := t.TempDir()
	place(t, models, "churn/1/model.yaml", "features: [{name: customer, private: hash}, {name: hidden, private: mask}]\n")
	cfg := testConfig(t, models)
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	db := r.database(t)
	sql(t, db, "ALTER TABLE predictions ADD CONSTRAINT no_denmark CHECK NOT has(str, 'DK')")
	sql(t, db, "ALTER TABLE feedback ADD CONSTRAINT no_maybe CHECK label != 'maybe'")
	post := func(id, who, country string, age int) {
		t.Helper()
		r.post(t, "/api/v1/predictions", fmt.Sprintf(`{"model":"churn","id":%q,"external_id":%q,"features":{"customer":%q,"hidden":"h","country":%q,"age":%d},"outputs":{"score":0.5}}`,
			id, who, "c-"+who, country, age), nil)
	}
	for i, who := range []string{canaryText, "bob", "carl", "dora", "emil"} {
		post(fmt.Sprint("dead-", i), who, "DK", 40+i)
		post(fmt.Sprint("kept-", i), who, "FR", 40+i)
	}
	r.stored(t)
	r.post(t, "/api/v1/feedback", `[{"prediction_id":"kept-0","label":"maybe"},{"external_id":"`+canaryText+`","label":"maybe"},{"external_id":"bob","label":"maybe"}]`, nil)
	r.stored(t)
	if n := r.dead.Len(); n != 8 {
		t.Fatalf("%d letters", n)
	}
	folder := filepath.Join(cfg.Data, "spool", "dead")
	if len(holding(t, folder)) == 0 {
		t.Fatal("the canary is not even in a letter")
	}
	// Her two predictions, and a label of each way to name whose it is.
	subject := `{"external_id":"` + canaryText + `"`
	r.erasing <- struct{}{} // somebody is at it, whom an erasure waits for
	time.AfterFunc(100*time.Millisecond, r.erasing.give)
	wantErased(t, "a dry run", r.erase(t, subject+`,"dry_run":true}`), countLetters, 3, 0)
	lines := r.exported(t, subject+"}")
	if got := lines["dead_letter"]; len(got) != 3 || len(lines["prediction"]) != 1 || !strings.Contains(strings.Join(got, ""), `"dead-0"`) || !strings.Contains(lines["subject"][0], `"dead_letters":3`) {
		t.Errorf("exported %v", lines)
	}
	wantErased(t, "by external id", r.erase(t, subject+"}"), countLetters, 3, 0)
	if paths := holding(t, folder); len(paths) > 0 {
		t.Errorf("the canary is in %q", paths)
	}
	// The label by an id of the caller's may be of whoever a filter selects.
	where := func(filter string) string { return fmt.Sprintf(`{"model":"churn","where":%q`, filter) }
	wantErased(t, "masked", r.erase(t, where("country is not null and age = 41")+`,"dry_run":true}`), countLetters, 1, 1)
	wantErased(t, "by a hashed feature", r.erase(t, where("customer = 'c-bob'")+"}"), countLetters, 1, 1)
	wantErased(t, "of another model", r.erase(t, `{"external_id":"carl","model":"other","dry_run":true}`), countLetters, 0, 0)
	wantErased(t, "by the prediction's id", r.erase(t, `{"prediction_id":"dead-2"}`), countLetters, 1, 1)
	if status, b, _ := r.call(t, "POST", "/api/v1/subjects/erase", where("hidden = 'h'")+"}"); status != http.StatusBadRequest || !strings.Contains(string(b), "mask") {
		t.Errorf("by a masked feature: %d %s", status, b)
	}
	if n := r.dead.Len(); n != 3 { // dora's, emil's, bob's label
		t.Fatalf("%d letters", n)
	}

	// A drive is under way while the store is away, and another is asked for meanwhile.
	sql(t, db, "ALTER TABLE predictions DROP CONSTRAINT no_denmark")
	f.cut()
	if n, err := r.driveDead(t.Context(), api.DriveRequest{All: true}); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	r.settleTime = 300 * time.Millisecond
	if status, b, _ := r.call(t, "POST", "/api/v1/subjects/erase", `{"external_id":"dora"}`); status != http.StatusServiceUnavailable {
		t.Errorf("while the store is away: %d %s", status, b)
	}
	r.erasing <- struct{}{}
	if status, b, _ := r.call(t, "POST", "/api/v1/subjects/erase", `{"external_id":"dora"}`); status != http.StatusServiceUnavailable || !strings.Contains(string(b), "ask again") {
		t.Errorf("while another is at it: %d %s", status, b)
	}
	r.erasing.give()
	r.settleTime = 0
	f.open(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 200 {
			_, _ = r.driveDead(t.Context(), api.DriveRequest{All: true}) // often refused: it is busy
			time.Sleep(time.Millisecond)
		}
	})
	for _, who := range []string{"dora", "emil"} {
		got := r.erase(t, `{"external_id":"`+who+`"}`)
		if got.Pending || got.Before["predictions"]+got.Before[countLetters] != 2 || got.After["predictions"]+got.After[countLetters] != 0 {
			t.Errorf("%s, while letters are driven: %+v", who, got)
		}
	}
	wg.Wait()
	r.stored(t)
	r.halt(t)
	r = startRig(t, cfg)
	r.stored(t)
	if got := sql(t, db, "SELECT groupArray(id) FROM (SELECT id FROM predictions ORDER BY id)"); got != "['kept-2']" {
		t.Errorf("stored %s", got)
	}
	for _, l := range r.dead.List() {
		if l.Insert == collector.InsertPredictions {
			t.Errorf("a letter is left: %+v", l)
		}
	}
}

// TestErasureReachesWaitingHalves: what waits for its other half is found by the id
// that it will have and by what a request says, and is gone with its file.
func TestErasureReachesWaitingHalves(t *testing.T) {
	models := t.TempDir()
	place(t, models, "prod.iris/1/model.yaml", "task: binary\nfeatures: [{name: secret, private: drop}]\n")
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	send := func(kind, id, body string, want int) {
		t.Helper()
		if status, answer := r.loggedEvent(t, kind, id, body, false); status != want {
			t.Fatalf("%s of %s: %d %s", kind, id, status, answer)
		}
	}
	request := func(owner string) string {
		return fmt.Sprintf(`{"instances":[{"width":1,"owner":%q,"secret":%q},{"width":2,"owner":"all","secret":"s"}]}`, owner, canaryText)
	}
	send("request", "known", request("zoe"), 200)
	send("response", "known", `{"predictions":[0.1,0.2]}`, 200) // now the version is known
	send("request", "one", request("ann"), 200)
	send("request", "two", request("bob"), 200)
	send("request", "three", request("carl"), 200)
	send("response", "four", `{"predictions":[0.1,0.2]}`, 200)
	waiting := func(n int) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(cfg.Data, "events", "*.half"))
		if got, _ := r.events.Waiting(); err != nil || got != n || len(files) != n {
			t.Fatalf("%d halves wait in %q, want %d; %v", got, files, n, err)
		}
	}
	waiting(4)
	where := func(filter string) string { return fmt.Sprintf(`{"model":"prod.iris","where":%q`, filter) }
	wantErased(t, "of nobody", r.erase(t, `{"external_id":"ann","dry_run":true}`), countHalves, 0, 0)
	// Whose the response is cannot be known.
	wantErased(t, "a dry run", r.erase(t, where("owner = 'ann'")+`,"dry_run":true}`), countHalves, 1, 1)
	waiting(4)
	lines := r.exported(t, where("owner = 'ann'")+"}")
	if got := strings.Join(lines["waiting_half"], ""); len(lines["waiting_half"]) != 1 || !strings.Contains(got, `"owner":"ann"`) || strings.Contains(got, canaryText) || !strings.Contains(lines["subject"][0], `"waiting_halves":1`) {
		t.Errorf("exported %v", lines)
	}
	wantErased(t, "by a feature", r.erase(t, where("owner = 'ann'")+"}"), countHalves, 1, 1)
	waiting(3)
	wantErased(t, "by a row's id", r.erase(t, `{"prediction_id":"two.1"}`), countHalves, 1, 0)
	waiting(2)
	wantErased(t, "by a response's id", r.erase(t, `{"prediction_id":"four"}`), countHalves, 1, 0)
	waiting(1)
	// One that is not hers is joined as ever afterwards, and a file that nobody can read
	// is counted.
	if err := os.WriteFile(filepath.Join(cfg.Data, "events", strings.Repeat("0", 32)+".request.half"), []byte("nonsense of some length"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.halt(t)
	r = startRig(t, cfg)
	wantErased(t, "with one that is damaged", r.erase(t, where("owner = 'ann'")+"}"), countHalves, 0, 1)
	send("response", "three", `{"predictions":[0.1,0.2]}`, 200)
	r.stored(t)
	if got := sql(t, r.database(t), "SELECT groupArray(concat(id, ' ', toString(status))) FROM (SELECT * FROM predictions ORDER BY id, row)"); got != "['known.0 200','known.1 200','three.0 200','three.1 200']" {
		t.Errorf("stored %s", got)
	}
	searchFolder(t, cfg.Data)
}

// TestErasureReachesLabelsWithoutTheirPrediction: a label is somebody's also where what it
// is about is a dead letter, waits for its other half, or was never there.
func TestErasureReachesLabelsWithoutTheirPrediction(t *testing.T) {
	models := t.TempDir()
	place(t, models, "prod.iris/1/model.yaml", "task: binary\n")
	c := treeCase(t, models, "xgb", xgboostData, "base_binary_logistic")
	c.rows = c.rows[:1]
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	db := r.database(t)
	sql(t, db, "ALTER TABLE predictions ADD CONSTRAINT no_kim CHECK external_id != 'kim'")
	sql(t, db, "ALTER TABLE predictions ADD CONSTRAINT no_denmark CHECK NOT has(str, 'DK')")
	post := func(id, who, country string) {
		t.Helper()
		r.post(t, "/api/v1/predictions", fmt.Sprintf(`{"model":"churn","id":%q,"external_id":%q,"label":"1","features":{"country":%q,"who":%q},"outputs":{"score":0.5}}`, id, who, country, who), nil)
	}
	label := func(body string) {
		t.Helper()
		r.post(t, "/api/v1/feedback", body, nil)
	}
	post("live-ann", "ann", "FR")
	for _, who := range []string{"ann", "bob", "carl", "dora", "emil"} {
		post("dead-"+who, who, "DK")
	}
	r.post(t, "/v2/models/xgb/infer", c.body(`{"external_id":"kim"}`), nil)
	label(`[{"external_id":"bob","label":"0"},{"prediction_id":"dead-bob","label":"0"},{"external_id":"carl","model":"churn","label":"0"}]`)
	label(`[{"prediction_id":"nowhere","label":"1"},{"prediction_id":"nowhere.1","label":"1"},{"prediction_id":"nowhere.2","label":"1"},{"prediction_id":"nowhere2","label":"1"}]`)
	// Another system's UUIDs: its rows come as predictions of their own.
	const whole, half = "3f2b7e3e-1111-4222-8333-444455556666", "3f2b7e3e-1111-4222-8333-444455557777"
	const other = "3f2b7e3e-1111-4222-8333-444455558888"
	send := func(kind, id, body string) {
		t.Helper()
		if status, answer := r.loggedEvent(t, kind, id, body, false); status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
	}
	send("request", whole, `{"instances":[{"owner":"hal"},{"owner":"ida"}]}`)
	send("response", whole, `{"predictions":[0.1,0.2]}`) // now the version is known
	send("request", half, `{"instances":[{"owner":"fred"},{"owner":"gil"}]}`)
	for _, id := range []string{whole, half} {
		label(strings.ReplaceAll(`[{"prediction_id":"ID.0","label":"1"},{"prediction_id":"ID.1","label":"1"},{"prediction_id":"ID.2","label":"1"}]`, "ID", id))
	}
	r.stored(t)
	if n := r.dead.Len(); n != 6 {
		t.Fatalf("%d letters", n)
	}
	if got := r.erase(t, `{"external_id":"kim"}`); got.Before["otel_traces"] == 0 || got.After["otel_traces"] != 0 {
		t.Errorf("spans of a letter: %+v", got)
	}
	labels := func() string {
		return sql(t, db, "SELECT arrayStringConcat(groupArray(concat(prediction_id, external_id)), ' ') FROM (SELECT * FROM feedback FINAL ORDER BY prediction_id, external_id)")
	}
	const all = "bob carl " + whole + ".0 " + whole + ".1 " + whole + ".2 " + half + ".0 " + half + ".1 " + half + ".2 " +
		"dead-ann dead-bob dead-bob dead-carl dead-dora dead-emil live-ann nowhere nowhere.1 nowhere.2 nowhere2"
	if got := labels(); got != all {
		t.Fatalf("labels of %q", got)
	}
	left := all
	erase := func(subject string, gone ...string) {
		t.Helper()
		n := int64(len(gone))
		wantErased(t, "a dry run of "+subject, r.erase(t, strings.TrimSuffix(subject, "}")+`,"dry_run":true}`), "feedback", n, 0)
		if lines := r.exported(t, subject); len(lines["feedback"]) != len(gone) {
			t.Errorf("exported of %s: %q", subject, lines["feedback"])
		}
		wantErased(t, subject, r.erase(t, subject), "feedback", n, 0)
		for _, id := range gone {
			left = strings.TrimSpace(strings.Replace(" "+left+" ", " "+id+" ", " ", 1))
		}
		if got := labels(); got != left {
			t.Errorf("after %s labels of %q are left, want %q", subject, got, left)
		}
	}
	erase(`{"prediction_id":"dead-dora"}`, "dead-dora")
	erase(`{"external_id":"bob"}`, "bob", "dead-bob", "dead-bob")
	erase(`{"model":"churn","where":"who = 'carl'"}`, "carl", "dead-carl")
	erase(`{"external_id":"ann"}`, "dead-ann", "live-ann")
	erase(`{"prediction_id":"nowhere.1"}`, "nowhere.1")
	erase(`{"prediction_id":"nowhere"}`, "nowhere") // a dot in a foreign id is its own
	erase(`{"model":"prod.iris","where":"owner = 'gil'"}`, half+".0", half+".1")
	erase(`{"prediction_id":"`+half+`"}`, half+".2") // of the request
	var p map[string]any
	r.get(t, "/api/v1/predictions/"+whole+".1?model=prod.iris", &p)
	if list, _ := p["labels"].([]any); len(list) != 1 {
		t.Errorf("labels of a row that came alone: %v", p)
	}
	erase(`{"model":"prod.iris","where":"owner = 'ida'"}`, whole+".1")
	erase(`{"prediction_id":"`+whole+`.0"}`, whole+".0")
	// By the id of the request what is left of it goes, rows and labels.
	send("request", other, `{"instances":[{"owner":"jo"},{"owner":"jo"}]}`)
	send("response", other, `{"predictions":[0.1,0.2]}`)
	label(`[{"prediction_id":"` + other + `.1","label":"1"}]`)
	r.stored(t)
	if got := r.erase(t, `{"prediction_id":"`+other+`"}`); got.Before["predictions"] != 2 || got.Before["feedback"] != 1 || got.After["predictions"]+got.After["feedback"] != 0 {
		t.Errorf("a request whose rows were sent alone: %+v", got)
	}
	erase(`{"prediction_id":"nobody"}`)
	if n := r.dead.Len(); n != 1 {
		t.Errorf("%d letters are left", n)
	}
	// What is sent anew begins without a label.
	sql(t, db, "ALTER TABLE predictions DROP CONSTRAINT no_denmark")
	r.post(t, "/api/v1/predictions", `{"model":"churn","id":"dead-dora","features":{"country":"FR"},"outputs":{"score":0.5}}`, nil)
	r.stored(t)
	p = nil
	r.get(t, "/api/v1/predictions/dead-dora?model=churn", &p)
	if list, ok := p["labels"].([]any); !ok || len(list) != 0 {
		t.Errorf("an erased label is back: %v", p)
	}
}

// TestErasureReachesSpansThatNameSomebody: a span whose prediction was refused, or is stored
// from elsewhere, says whose it is by itself; the trace of another's prediction stays.
func TestErasureReachesSpansThatNameSomebody(t *testing.T) {
	r := startRig(t, testConfig(t, t.TempDir()))
	db := r.database(t)
	span := func(trace int, id, who, features string) string {
		return fmt.Sprintf(`{"traceId":"5b8efff798038103d269b633813fc6%02d","spanId":"eee19b7ec3c1b1%02d","name":"score","startTimeUnixNano":"1714564800000000000","endTimeUnixNano":"1714564800250000000",
			"attributes":[{"key":"ml.model.name","value":{"stringValue":"far"}},{"key":"ml.prediction.score","value":{"doubleValue":0.5}},{"key":"ml.prediction.id","value":{"stringValue":%q}},{"key":"ml.prediction.external_id","value":{"stringValue":%q}}%s]}`,
			trace, trace, id, who, features)
	}
	send := func(spans ...string) {
		t.Helper()
		if code, b, _ := r.call(t, "POST", "/v1/traces", `{"resourceSpans":[{"scopeSpans":[{"spans":[`+strings.Join(spans, ",")+`]}]}]}`); code != http.StatusOK {
			t.Fatalf("%d %s", code, b)
		}
		r.stored(t)
	}
	x := `,{"key":"ml.features.x","value":{"doubleValue":1.5}}`
	send(span(1, "p1", "ann", x))
	send(span(2, "p1", "ann", x))                                                    // again, in another trace
	send(span(3, "p3", "ann", `,{"key":"ml.features.y","value":{"doubleValue":1}}`)) // another feature: refused
	send(span(4, "p4", "bob", x))
	other := strings.Replace(strings.Replace(span(4, "p4", "ann", ""), "ml.model.name", "of", 1), "eee19b7ec3c1b104", "eee19b7ec3c1b105", 1)
	send(other) // she is named in a trace of bob's
	until(t, "the spans are stored", func() bool {
		return sql(t, db, "SELECT count() FROM otel_traces WHERE startsWith(TraceId, '5b8e')") == "5"
	})
	if n := sql(t, db, "SELECT count() FROM predictions"); n != "2" {
		t.Fatalf("%s predictions", n)
	}
	if lines := r.exported(t, `{"external_id":"ann"}`); len(lines["span"]) != 3 || len(lines["prediction"]) != 1 {
		t.Errorf("exported %d spans and %d predictions", len(lines["span"]), len(lines["prediction"]))
	}
	wantErased(t, "of another model", r.erase(t, `{"external_id":"ann","model":"near","dry_run":true}`), "otel_traces", 0, 0)
	wantErased(t, "by external id", r.erase(t, `{"external_id":"ann","model":"far"}`), "otel_traces", 3, 0)
	if got := sql(t, db, "SELECT arrayStringConcat(arraySort(groupArray(substring(TraceId, 31))), ' ') FROM otel_traces WHERE startsWith(TraceId, '5b8e')"); got != "04 04" {
		t.Errorf("left are spans of %s", got)
	}
	send(span(6, "p6", "carl", `,{"key":"ml.features.y","value":{"doubleValue":1}}`))
	until(t, "the span is stored", func() bool {
		return sql(t, db, "SELECT count() FROM otel_traces WHERE startsWith(TraceId, '5b8e')") == "3"
	})
	wantErased(t, "by prediction id", r.erase(t, `{"prediction_id":"p6"}`), "otel_traces", 1, 0)
}

// TestErasureByAnIDThatIsStoredHashed names somebody by what a pattern has taken out of
// every row, label and letter, also when the patterns are others since.
func TestErasureByAnIDThatIsStoredHashed(t *testing.T) {
	const mail = "ann@example.org"
	cfg := testConfig(t, t.TempDir())
	cfg.Capture.Patterns = []patternConfig{{Name: "email"}, {Name: "card"}}
	r := startRig(t, cfg)
	db := r.database(t)
	sql(t, db, "ALTER TABLE predictions ADD CONSTRAINT no_denmark CHECK NOT has(str, 'DK')")
	post := func(id, who, country string) {
		t.Helper()
		r.post(t, "/api/v1/predictions", fmt.Sprintf(`{"model":"notes","id":%q,"external_id":%q,"features":{"country":%q,"note":%q},"outputs":{"score":0.5}}`, id, who, country, "of "+who), nil)
	}
	post("a", "of "+mail, "FR")
	post("b", "of bob@example.org", "FR")
	post("d", "of "+mail, "DK")
	r.post(t, "/api/v1/feedback", `[{"external_id":"of `+mail+`","label":"1"},{"external_id":"of bob@example.org","label":"1"}]`, nil)
	r.stored(t)
	check := func(what string) {
		t.Helper()
		got := r.erase(t, `{"external_id":"of `+mail+`","dry_run":true}`)
		if got.Before["predictions"] != 1 || got.Before["feedback"] != 1 || got.Before[countLetters] != 1 {
			t.Errorf("%s: %+v", what, got)
		}
	}
	check("with the patterns that were")
	// A mask has no one in it: the row may be hers, as every other.
	if got := r.erase(t, `{"model":"notes","where":"note = 'of of `+mail+`'","dry_run":true}`); got.Before["predictions"] != 0 || got.UnsearchedIn["predictions"] != 2 || got.UnsearchedIn[countLetters] != 1 {
		t.Errorf("by a masked text: %+v", got)
	}
	r.halt(t)
	cfg.Capture.Patterns = nil
	r = startRig(t, cfg)
	check("with none")
	post("e", "of "+mail, "FR") // in clear now
	got := r.erase(t, `{"external_id":"of `+mail+`"}`)
	if got.Before["predictions"] != 2 || got.Before[countLetters] != 1 || got.After["predictions"]+got.After["feedback"]+got.After[countLetters] != 0 {
		t.Errorf("erased: %+v", got)
	}
	r.get(t, "/api/v1/predictions/b", nil)
	if n := sql(t, db, "SELECT count() FROM feedback"); n != "1" || r.dead.Len() != 0 {
		t.Errorf("%s labels and %d letters are left", n, r.dead.Len())
	}
}

// TestErasureOfSealedAndSampledRows finds both by the caller's id, and says how many a
// filter cannot see.
func TestErasureOfSealedAndSampledRows(t *testing.T) {
	cfg := sealedFlights(t)
	none := 0.0
	cfg.Capture.Sample = []sampleConfig{{Model: "thin", Share: &none}}
	c := treeCase(t, cfg.Models, "thin", xgboostData, "base_binary_logistic")
	row, names, reference := make([]float64, len(c.rows[0])), make([]string, len(c.rows[0])), ""
	for i := range row {
		row[i], names[i] = 0.5, fmt.Sprint("f", i)
	}
	c.rows = [][]float64{row}
	for i := range 2001 { // so that 0.5 is no outlier
		reference += strings.TrimSuffix(strings.Repeat(fmt.Sprint(float64(i)/2000)+",", len(row)), ",") + "\n"
	}
	place(t, cfg.Models, "thin/1/reference.csv", strings.Join(names, ",")+"\n"+reference)
	place(t, cfg.Models, "thin/1/model.yaml", "task: binary\nreference: reference.csv\n")
	r := startRig(t, cfg)
	sampled := r.post(t, "/v2/models/thin/infer", c.body(`{"external_id":"ann"}`), nil)
	if sampled.Get("Pellucid-Capture") != collector.CaptureSampled {
		t.Fatalf("captured %q", sampled.Get("Pellucid-Capture"))
	}
	r.post(t, "/v2/models/flights/infer", `{"parameters":{"external_id":"ann"},`+flightBody(canaryText, canaryNumber)[1:], nil)
	if status, _, _ := r.call(t, "POST", "/v2/models/flights/infer", `{"parameters":{"external_id":"ann"},`+strings.Replace(flightBody("UA", 1), "origin", "airport", 1)[1:]); status != http.StatusBadRequest {
		t.Fatalf("a bad request: %d", status)
	}
	r.stored(t)
	// What was refused unread has nothing in it of whoever asked but the id that it came with.
	if got := sql(t, r.database(t), "SELECT status, external_id, length(f32) + length(str) + length(f64) + length(i64) FROM predictions WHERE status = 400"); got != "400\tann\t0" {
		t.Errorf("stored of a refused request: %q", got)
	}
	for request, want := range map[string][2]int64{
		`{"external_id":"ann"`:                             {3, 0},
		`{"model":"thin","where":"f1 > -1e9"`:              {0, 1},
		`{"model":"flights","where":"distance = 500"`:      {1, 1}, // and the one that was refused
		`{"model":"flights","where":"external_id = 'ann'"`: {2, 0},
	} {
		got := r.erase(t, request+`,"dry_run":true}`)
		if got.Before["predictions"] != want[0] || got.UnsearchedIn["predictions"] != want[1] || got.Unsearched != want[1] {
			t.Errorf("%s: %+v, want %v", request, got, want)
		}
	}
	if status, b, _ := r.call(t, "POST", "/api/v1/subjects/erase", `{"model":"flights","where":"carrier = 'UA'"}`); status != http.StatusBadRequest || !strings.Contains(string(b), "seal") {
		t.Errorf("by a sealed feature: %d %s", status, b)
	}
	if got := r.erase(t, `{"external_id":"ann","forget":"500"}`); got.Before["predictions"] != 3 || got.After["predictions"] != 0 || got.Keys != 1 {
		t.Errorf("erased: %+v", got)
	}
}

// TestForgetReachesWaitingHalves: what waits about a person whose key is deleted would be sealed
// under a new one, so it goes.
func TestForgetReachesWaitingHalves(t *testing.T) {
	models := t.TempDir()
	place(t, models, "prod.iris/1/model.yaml", "task: binary\nsubject: owner\nfeatures: [{name: secret, private: seal}]\n")
	cfg := testConfig(t, models)
	cfg.Capture.Key = keyConfig{File: writeKEK(t, "1")}
	r := startRig(t, cfg)
	send := func(kind, id, body string) {
		t.Helper()
		if status, answer := r.loggedEvent(t, kind, id, body, false); status != 200 {
			t.Fatalf("%s of %s: %d %s", kind, id, status, answer)
		}
	}
	request := func(owner string) string {
		return fmt.Sprintf(`{"instances":[{"width":1,"owner":"all","secret":"s"},{"width":2,"owner":%s,"secret":%q}]}`, owner, canaryText)
	}
	const answer = `{"predictions":[0.1,0.2]}`
	send("request", "known", request(`"ann"`))
	send("response", "known", answer)
	send("request", "one", request(`"ann"`))
	send("request", "two", request(`"bob"`))
	var forgotten map[string]int
	if r.post(t, "/api/v1/keys/forget", `{"subject":"ann"}`, &forgotten); forgotten["deleted"] != 1 || forgotten[countHalves] != 1 {
		t.Errorf("forgotten: %v", forgotten)
	}
	if n, _ := r.events.Waiting(); n != 1 {
		t.Errorf("%d halves wait, want bob's", n)
	}
	send("response", "two", answer)
	send("response", "one", answer) // waits for a request that will not come
	r.stored(t)
	if got := sql(t, r.database(t), "SELECT groupArray(id) FROM (SELECT DISTINCT id FROM predictions ORDER BY id)"); got != "['known.0','known.1','two.0','two.1']" {
		t.Errorf("stored: %s", got)
	}
	if r.post(t, "/api/v1/keys/forget", `{"subject":"ann"}`, &forgotten); forgotten["deleted"] != 0 || forgotten[countHalves] != 0 {
		t.Errorf("forgotten once more: %v", forgotten)
	}
}
