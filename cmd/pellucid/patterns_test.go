package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
)

// TestRulesAndPatterns: what nobody marked in a model.yaml is private by the
// configuration, by name or by its form.
func TestRulesAndPatterns(t *testing.T) {
	const mail, card, plain = "ann@example.org", "4111 1111 1111 1111", "987654.25"
	cfg := testConfig(t, t.TempDir())
	cfg.Capture.Key.File = writeKEK(t, "1")
	cfg.Capture.Private = map[string]string{"*.email": "hash", "notes.in*": "seal"}
	cfg.Capture.Patterns = []patternConfig{{Name: "email"}, {Name: "card"}, {Name: "token", Action: "hash"}}
	cfg.Capture.Texts = textsCleaned
	r := startRig(t, cfg)
	for i, note := range []string{"write to " + mail + ", paid by " + card, "order 4111111111111112 of 2026-05-01"} {
		body := fmt.Sprintf(`{"model":"notes","id":"n%d","external_id":"of %s %d","features":{"note":%q,"email":%q,"income":%s},"outputs":{"said":%q,"score":0.5}}`, i, mail, i, note, mail, plain, "to "+mail)
		r.post(t, "/api/v1/predictions", body, nil)
	}
	r.post(t, "/api/v1/predictions", `{"model":"notes","id":"n9","features":{"note":"","email":"","income":null},"outputs":{"said":"","score":0},"status":500,"error":"no `+card+` of `+mail+`"}`, nil)
	r.post(t, "/api/v1/feedback", `{"external_id":"of `+mail+` 0","label":"ask `+mail+`"}`, nil)
	r.post(t, "/v1/traces", `{"resourceSpans":[{"resource":{"attributes":[{"key":"owner","value":{"stringValue":"`+mail+`"}},{"key":"service.name","value":{"stringValue":"of `+mail+`"}}]},"scopeSpans":[{"scope":{"name":"lib `+mail+`","version":"`+card+`"},"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","name":"mail `+mail+`","kind":1,`+
		`"startTimeUnixNano":"1714564800000000000","endTimeUnixNano":"1714564801000000000","attributes":[{"key":"to","value":{"stringValue":"`+mail+`"}},{"key":"of `+mail+`","value":{"intValue":"1"}},{"key":"of bob@example.org","value":{"intValue":"2"}},`+
		`{"key":"url.full","value":{"stringValue":"https://x.example/?to=ann%40example.org&x=1"}},{"key":"map","value":{"kvlistValue":{"values":[{"key":"`+mail+`","value":{"stringValue":"ann%40example.org"}}]}}}],"events":[{"timeUnixNano":"1714564800500000000","name":"e","attributes":[{"key":"card","value":{"stringValue":"`+card+`"}}]}],"status":{"message":"no `+mail+`","code":2}}]}]}]}`, nil)
	r.stored(t)
	var p collector.StoredPrediction
	r.get(t, "/api/v1/predictions/n0", &p)
	email := fmt.Sprint(p.Features["email"])
	if p.Features["note"] != "write to [email], paid by [card]" || len(email) != 32 || p.Features["income"] != "***" || p.Outputs["said"] != "to ***" || p.Capture != "redacted" {
		t.Errorf("%+v", p)
	}
	if len(p.Labels) != 1 || p.Labels[0].Label != "ask [email]" {
		t.Errorf("labels by an external id: %+v", p.Labels)
	}
	// On this machine the clear id finds what patterns made of it.
	var page collector.Page
	if r.get(t, "/api/v1/predictions?external_id="+url.QueryEscape("of "+mail+" 1"), &page); len(page.Predictions) != 1 || page.Predictions[0].ID != "n1" {
		t.Errorf("by an external id: %+v", page.Predictions)
	}
	r.get(t, "/api/v1/predictions/n1?unseal=true", &p)
	if p.Features["note"] != "order 4111111111111112 of 2026-05-01" || fmt.Sprint(p.Features["email"]) != email || fmt.Sprint(p.Features["income"]) != plain || p.Capture != "full" {
		t.Errorf("%+v", p)
	}
	r.get(t, "/api/v1/predictions/n9", &p)
	if p.Error != "no [card] of [email]" {
		t.Errorf("error %q", p.Error)
	}
	secrets := []string{mail, "example.org", card, plain}
	db := r.database(t)
	until(t, "the spans are stored", func() bool {
		return sql(t, db, "SELECT countIf(SpanName = 'mail [email]') = 1 AND count() > 2 FROM otel_traces") == "1"
	})
	if got := sql(t, db, "SELECT arrayStringConcat(arraySort(mapKeys(SpanAttributes)), '|') || ' ' || SpanAttributes['url.full'] FROM otel_traces WHERE SpanName = 'mail [email]'"); got != "map|of [email]|of [email]\\'|to|url.full https://x.example/?to=[email]&x=1" {
		t.Errorf("attributes %s", got)
	}
	for table := range strings.FieldsSeq(sql(t, db, "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine NOT LIKE '%View'")) {
		rows := sql(t, db, "SELECT * FROM `"+table+"` FORMAT TSV")
		for _, s := range secrets {
			if strings.Contains(rows, s) {
				t.Errorf("table %s holds %q: %.1000s", table, s, rows)
			}
		}
	}
	for _, page := range []string{"/ui/predictions", "/ui/predictions/n0", "/api/v1/predictions?model=notes", "/metrics", "/ui/"} {
		_, b, _ := r.call(t, "GET", page, "")
		for _, s := range secrets {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("%s shows %q", page, s)
			}
		}
	}
	r.halt(t)
	for _, s := range secrets {
		if strings.Contains(r.log.String(), s) {
			t.Errorf("the log holds %q", s)
		}
	}
}

// TestRulesHoldForUpstreams: the features of a model elsewhere are known only when it
// has told them.
func TestRulesHoldForUpstreams(t *testing.T) {
	models := t.TempDir()
	place(t, models, "flights/1/model.ubj", readFile(t, gbm+"model.ubj"))
	behind := startRig(t, testConfig(t, models))
	cfg := testConfig(t, t.TempDir())
	cfg.Capture.Private = map[string]string{"*.f2": "mask"}
	cfg.Upstreams = []upstreamConfig{{Name: "flights", URL: behind.url, Missing: true}}
	r := startRig(t, cfg)
	id := r.post(t, "/v2/models/flights/infer", `{"inputs":[{"name":"input","datatype":"FP32","shape":[1,15],"data":[1,2,7318492.5,4,5,6,7,8,9,10,11,12,13,14,15]}]}`, nil).Get("Pellucid-Prediction-Id")
	r.stored(t)
	var p collector.StoredPrediction
	if r.get(t, "/api/v1/predictions/"+id, &p); p.Features["f2"] != "***" || p.Features["f1"] != 2.0 {
		t.Errorf("%+v", p.Features)
	}
	searchFolder(t, cfg.Data)
	r.halt(t)
	cfg.Capture.Private = map[string]string{"*.f2": "seal"} // and there is no key
	r = startRig(t, cfg)
	status, b, _ := r.call(t, "POST", "/v2/models/flights/infer", `{"inputs":[{"name":"input","datatype":"FP32","shape":[1,15],"data":[1,2,7318492.5,4,5,6,7,8,9,10,11,12,13,14,15]}]}`)
	if status < 400 || r.spool.Stats().Appended != r.spool.Stats().Acked {
		t.Errorf("an upstream without its keys: %d %s", status, b)
	}
	searchFolder(t, cfg.Data)
}

// TestRulesOfOneFile: two models of the same file have rules of their own, while they are
// served and afterwards.
func TestRulesOfOneFile(t *testing.T) {
	models := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		place(t, models, name+"/1/model.ubj", readFile(t, gbm+"model.ubj"))
	}
	cfg := testConfig(t, models)
	cfg.Capture.Private = map[string]string{"a.temp": "mask", "c.temp": "drop"}
	r := startRig(t, cfg)
	ids := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		ids[name] = r.post(t, "/v2/models/"+name+"/infer", `{"inputs":[{"name":"input","datatype":"FP32","shape":[1,15],"data":[1,2,7318492.5,4,5,6,7,8,9,10,11,12,13,14,15]}]}`, nil).Get("Pellucid-Prediction-Id")
	}
	r.stored(t)
	explain := func(name string) (int, string) {
		status, b, _ := r.call(t, "POST", "/api/v1/predictions/"+ids[name]+"/explain", `{"method":"tree_shap"}`)
		return status, string(b)
	}
	for _, name := range []string{"a", "c"} {
		if status, b := explain(name); status != 422 || !strings.Contains(b, "temp") {
			t.Errorf("%s: %d %s", name, status, b)
		}
	}
	if status, b := explain("b"); status != 200 {
		t.Errorf("without a rule: %d %s", status, b)
	}
	r.halt(t)
	// None is served any more, and the rules are gone: what was recorded is not what
	// the model saw.
	cfg.Models, cfg.Capture.Private = t.TempDir(), nil
	r = startRig(t, cfg)
	for _, name := range []string{"a", "c"} {
		if status, b := explain(name); status != 422 || !strings.Contains(b, "temp") {
			t.Errorf("%s, not served: %d %s", name, status, b)
		}
	}
	if status, b := explain("b"); status != 200 {
		t.Errorf("without a rule, not served: %d %s", status, b)
	}
}

// TestPrivateConfigurationFailsClosed: what cannot be meant is refused at start.
func TestPrivateConfigurationFailsClosed(t *testing.T) {
	for text, want := range map[string]string{
		`capture: {private: {"*.email": hide}}`:                    `"hide" is not a policy`,
		`capture: {private: {email: drop}}`:                        "not of the form",
		`capture: {private: {"*.email": false}}`:                   `"false" is not a policy`,
		`capture: {patterns: [mail]}`:                              `"mail" is none of card, email`,
		`capture: {patterns: [card, card]}`:                        "there twice",
		`capture: {patterns: [{name: card, action: drop}]}`:        `"drop" is not mask or hash`,
		`capture: {patterns: [{nam: card}]}`:                       "nam",
		`capture: {key: {file: a, env: B}}`:                        "more than one",
		`capture: {key: {command: [""]}}`:                          "no program",
		`capture: {key: {command: "cat kek"}}`:                     "line 1",
		`capture: {patterns: [card, {name: email, action: hash}]}`: "",
	} {
		path := filepath.Join(t.TempDir(), "pellucid.yaml")
		place(t, filepath.Dir(path), "pellucid.yaml", text+"\n")
		cmd := serveCommand()
		if err := cmd.Flags().Set("config", path); err != nil {
			t.Fatal(err)
		}
		_, err := loadConfig(cmd.Flags(), func(string) string { return "" })
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	cfg := testConfig(t, t.TempDir())
	cfg.Capture.Private = map[string]string{"*.email": "hide"}
	if s, err := startServer(t.Context(), cfg, slog.New(slog.DiscardHandler), io.Discard); err == nil {
		t.Error("it starts")
		_ = s.stop(t.Context())
	}
}
