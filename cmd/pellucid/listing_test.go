package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
)

// TestAnIdInSeveralModels: an id made elsewhere is one prediction in each model, waiting or
// stored, and each can be read, shown and asked for by its model.
func TestAnIdInSeveralModels(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	send := func(model string, score float64) {
		t.Helper()
		r.post(t, "/api/v1/predictions", fmt.Sprintf(`{"id":"order-1.0","model":%q,"features":{"x":1},"outputs":{"score":%g},"label":%q}`, model, score, model), nil)
	}
	check := func(when string) {
		t.Helper()
		for model, score := range map[string]float64{"credit": 0.25, "fraud": 0.75} {
			var p collector.StoredPrediction
			r.get(t, "/api/v1/predictions/order-1.0?model="+model, &p)
			if p.Model != model || p.Outputs["score"] != score || len(p.Labels) != 1 || p.Labels[0].Label != model {
				t.Errorf("%s: %s is %+v", when, model, p)
			}
			status, b, _ := r.call(t, "GET", "/ui/predictions/order-1.0?model="+model, "")
			if status != http.StatusOK || !strings.Contains(string(b), "One prediction") || !strings.Contains(string(b), "/ui/models/"+model) {
				t.Errorf("%s: the page of %s: %d", when, model, status)
			}
		}
		var list collector.Page
		r.get(t, "/api/v1/predictions/order-1.0", &list)
		if len(list.Predictions) != 2 || list.Predictions[0].Model == list.Predictions[1].Model {
			t.Errorf("%s: %+v", when, list.Predictions)
		}
		_, b, _ := r.call(t, "GET", "/ui/predictions/order-1.0", "")
		for _, want := range []string{"2 predictions of this id", "order-1.0?model=credit", "order-1.0?model=fraud"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s: the page of both lacks %s", when, want)
			}
		}
		if status, b, _ := r.call(t, "GET", "/api/v1/predictions/order-1.0?model=none", ""); status != http.StatusNotFound {
			t.Errorf("%s: of no model: %d %s", when, status, b)
		}
		for _, model := range []string{"credit", "fraud"} { // that there is nothing to explain by is said of the one
			status, b, _ := r.call(t, "POST", "/api/v1/predictions/order-1.0/explain?model="+model, `{}`)
			if status != http.StatusUnprocessableEntity || !strings.Contains(string(b), model) {
				t.Errorf("%s: explain that of %s: %d %s", when, model, status, b)
			}
		}
	}
	send("credit", 0.25)
	r.stored(t)
	f.cut()
	send("fraud", 0.75)
	var one collector.StoredPrediction
	r.get(t, "/api/v1/predictions/order-1.0?model=fraud", &one) // without the store
	if one.Model != "fraud" {
		t.Errorf("waiting: %+v", one)
	}
	r.get(t, "/api/v1/predictions/order-1.0", &one) // what is known of it
	if one.Model != "fraud" {
		t.Errorf("waiting, while the store is away: %+v", one)
	}
	f.open(t)
	r.stored(t)
	check("stored")
	if status, b, _ := r.call(t, "GET", "/api/v1/predictions/order-1.0?modell=fraud", ""); status != http.StatusBadRequest || !strings.Contains(string(b), "modell") {
		t.Errorf("a misspelt parameter: %d %s", status, b)
	}
}

// TestListingsTakeClearValues: a filter finds a hashed value by its clear text, which goes
// into nothing that is kept; a caller from elsewhere has to know what is stored.
func TestListingsTakeClearValues(t *testing.T) {
	models := t.TempDir()
	place(t, models, "loans/1/model.yaml", "features: [{name: who, private: hash}, {name: pin, private: mask}, {name: key, private: drop}, {name: age, private: bucket}]\n")
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	for i, who := range []string{canaryText, "bob", canaryText} {
		r.post(t, "/api/v1/predictions", fmt.Sprintf(`{"id":"l%d","model":"loans","features":{"who":%q,"pin":"1","key":"k","age":41,"note":"n"},"outputs":{"score":0.%d,"verdict":"ok"}}`, i, who, i+1), nil)
	}
	r.stored(t)
	ask := func(where string, header ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/api/v1/predictions?model=loans&count=true&where="+url.QueryEscape(where), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range header {
			req.Header.Set(h, "192.0.2.1")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := make([]byte, 4096)
		n, _ := resp.Body.Read(b)
		return resp.StatusCode, strings.TrimSpace(string(b[:n]))
	}
	count := func(where string, want int, header ...string) {
		t.Helper()
		if status, b := ask(where, header...); status != http.StatusOK || b != fmt.Sprintf(`{"count":%d}`, want) {
			t.Errorf("%s: %d %s, want %d", where, status, b, want)
		}
	}
	who := "who = '" + canaryText + "'"
	count(who, 2)
	count("who != 'bob'", 2)
	count("who in ('bob', 'nobody') and score > 0.1", 1)
	count("verdict = 'ok' and output.score >= 0.2", 2)
	var p collector.StoredPrediction
	r.get(t, "/api/v1/predictions/l0", &p)
	stored := fmt.Sprintf("who = '%v'", p.Features["who"])
	count(stored, 2)
	count(stored, 2, "X-Forwarded-For")
	for where, want := range map[string]string{"pin = '1'": "mask", "key = 'k'": "drop", "who > 'a'": "no order"} {
		if status, b := ask(where); status != http.StatusBadRequest || !strings.Contains(b, want) {
			t.Errorf("%s: %d %s", where, status, b)
		}
	}
	if status, b := ask(who, "X-Forwarded-For"); status != http.StatusBadRequest || !strings.Contains(b, "callers on this machine") || strings.Contains(b, canaryText) {
		t.Errorf("from elsewhere: %d %s", status, b)
	}
	for _, what := range []string{"export", "erase"} {
		subject := func(where string) (int, string) {
			of := map[string]any{"model": "loans", "where": where}
			if what == "erase" {
				of["dry_run"] = true
			}
			b, err := json.Marshal(of)
			if err != nil {
				t.Fatal(err)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/api/v1/subjects/"+what, bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("X-Forwarded-For", "192.0.2.1")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			out, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode, string(out)
		}
		if status, b := subject(who); status != http.StatusBadRequest || !strings.Contains(b, "callers on this machine") {
			t.Errorf("%s by a clear value from elsewhere: %d %s", what, status, b)
		}
		if status, b := subject(stored); status != http.StatusOK {
			t.Errorf("%s by a stored value from elsewhere: %d %s", what, status, b)
		}
	}
	_, page, _ := r.call(t, "GET", "/ui/predictions?model=loans&where="+url.QueryEscape(who), "")
	if n := strings.Count(string(page), `tr data-id="`); n != 2 {
		t.Errorf("the page lists %d rows", n)
	}
	_, page, _ = r.call(t, "GET", "/ui/predictions/l0", "")
	for _, want := range []string{`who <span class="mark hash"`, `pin <span class="mark mask"`, `key <span class="mark drop"`, `age <span class="mark bucket"`, "<td>note</td>"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page of a row lacks %s", want)
		}
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
	if leaks([]byte(r.log.String())) != "" {
		t.Error("the log has the value")
	}
}

// TestSealedPageLeadsToItsValues for who may see them.
func TestSealedPageLeadsToItsValues(t *testing.T) {
	r := startRig(t, sealedFlights(t))
	id := r.post(t, "/v2/models/flights/infer", flightBody("UA", 41), nil).Get("Pellucid-Prediction-Id")
	_, b, _ := r.call(t, "GET", "/ui/predictions/"+id, "")
	link := "/ui/predictions/" + id + "?unseal=true"
	if page := string(b); !strings.Contains(page, `carrier <span class="mark seal"`) || !strings.Contains(page, `href="`+link+`"`) || strings.Contains(page, ">UA<") {
		t.Errorf("sealed: %s", page)
	}
	_, b, _ = r.call(t, "GET", link, "")
	if page := string(b); !strings.Contains(page, ">UA<") || !strings.Contains(page, "Hide them") || !strings.Contains(page, "/explain?unseal=true") {
		t.Errorf("unsealed: %s", page)
	}
	if status, b, _ := r.call(t, "POST", "/ui/predictions/"+id+"/explain?unseal=true", ""); status != http.StatusOK || !strings.Contains(string(b), "log-odds") {
		t.Errorf("explained from the unsealed page: %d", status)
	}
}

// TestRulesTellWhereTheyStand, over an edit of one under its name and a restart.
func TestRulesTellWhereTheyStand(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "xgb", xgboostData, "base_binary_logistic")
	cfg := testConfig(t, models)
	cfg.Alerts.Rules = filepath.Join(t.TempDir(), "rules.yaml")
	write := func(above string) {
		place(t, filepath.Dir(cfg.Alerts.Rules), "rules.yaml", "rules:\n"+
			"  - {name: slow, model: xgb, kind: latency, above: "+above+", window: 1d, every: 1h, min_rows: 1}\n"+
			"  - {name: nobody, model: gone, kind: errors, above: 0.5}\n"+
			"  - {name: blind, model: xgb, kind: drift, features: [nothing]}\n")
	}
	states := func(r *rig) map[string]api.Rule {
		var got struct{ Rules []api.Rule }
		r.get(t, "/api/v1/rules", &got)
		out := map[string]api.Rule{}
		for _, one := range got.Rules {
			out[one.Name] = one
		}
		return out
	}
	write("1000000")
	r := startRig(t, cfg)
	for h := range 3 {
		r.post(t, "/v2/models/xgb/infer", c.body(fmt.Sprintf(`{"event_time":"2026-05-01T%02d:30:00Z"}`, 10+h)), nil)
	}
	r.stored(t)
	until(t, "the rule is judged", func() bool { return states(r)["slow"].EvaluatedAt.Hour() == 12 })
	all := states(r)
	slow, blind, nobody, self := all["slow"], all["blind"], all["nobody"], all["PellucidLagging"]
	if slow.State != "inactive" || slow.Signal != "ok" || slow.File != cfg.Alerts.Rules || slow.Condition != "p99 above 1e+06 ms" || slow.Error != "" {
		t.Errorf("%+v", slow)
	}
	if !strings.Contains(blind.Error, "nothing") || !strings.Contains(nobody.Error, "no such model") || self.File != "built in" || !nobody.EvaluatedAt.IsZero() {
		t.Errorf("%+v %+v %+v", blind, nobody, self)
	}
	r.halt(t)
	write("0.0000001") // event time stands still: what is judged is the same window
	r = startRig(t, cfg)
	until(t, "the edited rule is judged", func() bool { return states(r)["slow"].State == "firing" })
	if again := states(r)["slow"]; !again.EvaluatedAt.Equal(slow.EvaluatedAt) || !again.Since.Equal(slow.EvaluatedAt) {
		t.Errorf("%+v after %+v", again, slow)
	}
	_, b, _ := r.call(t, "GET", "/ui/rules", "")
	if page := string(b); !strings.Contains(page, `data-rule="slow" data-state="firing"`) || !strings.Contains(page, "PellucidSpoolFull") {
		t.Errorf("the page: %s", page)
	}
}

// TestImportErrorsTellWhere: row, field and the value where it is not private; what is
// refused goes into nothing that is kept.
func TestImportErrorsTellWhere(t *testing.T) {
	models := t.TempDir()
	place(t, models, "loans/1/model.yaml", "features: [{name: who, private: hash}]\n")
	place(t, models, "waits/1/model.yaml", "task: binary\n")
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	row := func(id, who, age, score string) string {
		return fmt.Sprintf(`{"id":%q,"model":"loans","features":{"who":%s,"age":%s},"outputs":{"score":%s}}`, id, who, age, score)
	}
	r.post(t, "/api/v1/predictions", row("a", `"x"`, "41", "0.5"), nil)
	var got struct{ Results []collector.ImportResult }
	long := strings.Repeat("y", 50)
	r.post(t, "/api/v1/predictions", "["+strings.Join([]string{
		row("b", `"x"`, "42", "0.5"), row("c", `"x"`, `"`+long+`"`, "0.5"), row("d", "["+`"`+canaryText+`"`+"]", "1", "0.5"), row("e", `"x"`, "1", `"high"`), `{"id":"f","model":"loans","features":{"zip":1},"outputs":{"score":1}}`,
	}, ",")+"]", &got)
	for i, want := range []collector.ImportResult{
		{}, {Row: 2, Field: "age", Value: `"` + long[:39] + "..."}, {Row: 3, Field: "who"}, {Row: 4, Field: "score", Value: `"high"`}, {Row: 5, Field: "zip"},
	} {
		x := got.Results[i]
		if x.Row != want.Row || x.Field != want.Field || x.Value != want.Value || (x.Error == "") != (i == 0) || strings.Contains(x.Error, canaryText) {
			t.Errorf("row %d: %+v", i+1, x)
		}
	}
	dir := t.TempDir()
	place(t, dir, "rows.csv", "id,at,who,age,score\na,2024-01-01,x,1,0.5\nb,noon,x,2,0.5\n")
	args := []string{"import", dir + "/rows.csv", "--url", r.url, "--model", "loans", "--id", "id", "--outputs", "score"}
	if status, _, stderr := command(t, append(args, "--time", "at")...); status == 0 || !strings.Contains(stderr, `column "at" row 2`) || !strings.Contains(stderr, `it is "noon"`) {
		t.Errorf("a time: %d %s", status, stderr)
	}
	place(t, dir, "rows.csv", "id,who,age,score\nz,x,1,0.5\ny,x,old,0.5\n")
	if status, _, stderr := command(t, args...); status == 0 || !strings.Contains(stderr, "row 1 is refused") && !strings.Contains(stderr, "row 1: ") || !strings.Contains(stderr, "age") {
		t.Errorf("a value: %d %s", status, stderr)
	}
	for _, path := range []string{"/api/v1/models/waits/drift", "/api/v1/models/waits/performance", "/api/v1/models/waits/traffic", "/ui/models/waits"} {
		if status, b, _ := r.call(t, "GET", path, ""); status != http.StatusConflict || !strings.Contains(string(b), "pellucid import") {
			t.Errorf("%s: %d %s", path, status, b)
		}
	}
	if status, _, stderr := command(t, "drift", "--reference", dir+"/rows.csv", "--current", dir+"/rows.csv", "--timestamp", "noted"); status != 2 || !strings.Contains(stderr, `no column "noted"`) {
		t.Errorf("a misspelt column of times: %d %s", status, stderr)
	}
	r.stored(t)
	r.halt(t)
	searchFolder(t, cfg.Data)
	if leaks([]byte(r.log.String())) != "" {
		t.Error("the log has the value")
	}
}

// TestRowsOfAnExternalId are listed by it as it is, in all models or one, and the search box
// of the page leads to them; the audit log has that somebody looked, and not for whom.
func TestRowsOfAnExternalId(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	r := startRig(t, cfg)
	const who = "o'Neil & \"7\" 100%"
	for i, model := range []string{"credit", "credit", "fraud"} {
		quoted, err := json.Marshal(who)
		if err != nil {
			t.Fatal(err)
		}
		r.post(t, "/api/v1/predictions", fmt.Sprintf(`[{"id":"n%d","model":%q,"external_id":%s,"features":{"x":1},"outputs":{"score":0.5}},{"id":"other-%d","model":%q,"external_id":"o","features":{"x":1},"outputs":{"score":0.5}}]`,
			i, model, quoted, i, model), nil)
	}
	r.stored(t)
	id := url.QueryEscape(who)
	for query, want := range map[string]string{
		"external_id=" + id: "n0 n1 n2", "model=credit&external_id=" + id: "n0 n1", "external_id=" + id + "&model=fraud&where=x%3E1": "", "external_id=" + id[:4]: "",
		"external_id=": "n0 n1 n2 other-0 other-1 other-2",
	} {
		var page collector.Page
		r.get(t, "/api/v1/predictions?"+query, &page)
		var got []string
		for _, p := range page.Predictions {
			got = append(got, p.ID)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, not %q", query, got, want)
		}
		var n struct{ Count int }
		if r.get(t, "/api/v1/predictions?count=true&"+query, &n); n.Count != len(got) {
			t.Errorf("%s: counts %d", query, n.Count)
		}
	}
	for path, wants := range map[string][]string{
		"/ui/find?id=" + id: {`data-id="n0"`, `data-id="n2"`, "3</span> in all", "!other-", `name="external_id" value="o&#39;Neil`}, "/ui/find?id=n1": {"One prediction", "/ui/predictions?external_id=o%27Neil"},
		"/ui/predictions?model=fraud&external_id=" + id: {`data-id="n2"`, `!data-id="n0"`},
	} {
		status, b, _ := r.call(t, "GET", path, "")
		for _, want := range wants {
			if bare, no := strings.CutPrefix(want, "!"); status != http.StatusOK || strings.Contains(string(b), bare) == no {
				t.Errorf("%s: %d, about %q", path, status, want)
			}
		}
	}
	if status, _, _ := r.call(t, "GET", "/ui/find?id=nobody", ""); status != http.StatusNotFound {
		t.Errorf("nobody: %d", status)
	}
	if status, b, _ := r.call(t, "GET", "/api/v1/predictions?external_id="+strings.Repeat("x", 1025), ""); status != http.StatusBadRequest || !strings.Contains(string(b), "external_id") {
		t.Errorf("a longer id than there can be: %d %s", status, b)
	}
	counted := 0
	for _, e := range auditEntries(t, cfg.Data) {
		if strings.Contains(e.Object, "Neil") {
			t.Errorf("the audit log says who: %+v", e)
		}
		if e.Action == "count" && strings.HasSuffix(e.Object, "of external_id "+r.audit.Hash(who)) {
			counted++
		}
	}
	if counted < 2 {
		t.Errorf("%d counts are in the audit log", counted)
	}
}
