package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
	"github.com/pellucid/pellucid/collector/proxy/rpc/pellucidv1"
	"github.com/pellucid/pellucid/engine/crew"
)

// policies are those of the models that the roads lead to, each served from a file under
// its own name: what is done to a text and to a number. That of "rule" is by the
// configuration.
var policies = map[string][2]string{
	"drop": {"true", "drop"}, "mask": {"mask", "mask"}, "hash": {"hash", "bucket"}, "seal": {"seal", "seal"}, "rule": {},
}

// canaryMail is private by its form, in what nobody marked.
const canaryMail = canaryText + "@example.org"

// roads is a server with everything that a value can come in by, and what is sent to it.
type roads struct {
	*rig
	conn *grpc.ClientConn
	// n numbers what is sent, so that ids differ; away says that the store is, read that
	// only what reads is walked.
	n          int
	away, read bool
	// full says that there is no room for records, so that nothing has to be taken.
	full bool
	// ids are predictions that were recorded, by model.
	ids map[string]string
}

// road is a route and what sends the canaries by it, whole and in forms that are
// refused. Roads are walked in their order: those that delete stand last.
type road struct {
	route string
	walk  func(t *testing.T, x *roads)
}

// sent is one request with its canaries.
type sent struct {
	method, path, body string
	header             map[string]string
	// shown says that the answer may hold them: it repeats to its sender what he
	// called something, or he may see what is sealed.
	shown bool
	// asked is what the answer may repeat, and nothing else: a filter, an id.
	asked string
}

// without is an answer without what was asked for, in each form in which JSON, a page or
// a link repeats it.
func (s *sent) without(answer []byte) []byte {
	if s.asked == "" {
		return answer
	}
	quoted, _ := json.Marshal(s.asked)
	query := url.QueryEscape(s.asked)
	forms := []string{s.asked, strings.Trim(string(quoted), `"`), strings.Trim(strconv.Quote(s.asked), `"`), query, url.PathEscape(s.asked), strings.ReplaceAll(query, "+", "%20")}
	for _, form := range forms {
		for _, text := range []string{form, template.HTMLEscapeString(form), strings.ReplaceAll(template.HTMLEscapeString(form), "+", "&#43;")} {
			answer = bytes.ReplaceAll(answer, []byte(text), []byte("..."))
		}
	}
	return answer
}

// send sends a request and looks for the canaries in its answer.
func (x *roads) send(t *testing.T, s sent) (status int, answer []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), s.method, x.url+s.path, strings.NewReader(s.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range s.header {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // redirections are answers too
	if err != nil {
		t.Fatalf("%s %s: %v", s.method, s.path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", s.method, s.path, err)
	}
	if found := leaks(s.without(fmt.Append(b, resp.Header))); found != "" && !s.shown {
		t.Errorf("%s %s answers %d with %s: %.600s", s.method, s.path, resp.StatusCode, found, b)
	}
	if resp.StatusCode >= 500 && resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusNotImplemented && !strings.Contains(s.path, "/broken") && !strings.Contains(s.path, "/slow") && !strings.Contains(s.path, "/panic/") {
		t.Errorf("%s %s: %d %.300s", s.method, s.path, resp.StatusCode, b)
	}
	return resp.StatusCode, b
}

func (x *roads) get(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		x.send(t, sent{method: "GET", path: p})
	}
}

// id is a new one.
func (x *roads) id(of string) string {
	x.n++
	return fmt.Sprintf("%s-%d", of, x.n)
}

// startRoads starts the server, with the store behind a forwarder and what change makes of
// its configuration.
func startRoads(t *testing.T, change func(*config)) (*roads, config, *forwarder) {
	models := t.TempDir()
	head := "carrier,origin,temp,day_of_week,hour,minute,distance,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib\n"
	rows := head + strings.Repeat(canaryText+",JFK,7318492.5,1,8,30,500,40,50,200,10,12,0,1010,10\nUA,JFK,40,1,8,30,500,40,50,200,10,12,0,1010,10\n", 200)
	for name, how := range policies {
		place(t, models, name+"/1/model.ubj", readFile(t, gbm+"model.ubj"))
		yaml := "task: binary\nclasses: [on_time, late]\nreference: reference.csv\n"
		if how[0] != "" {
			yaml += "features:\n  - {name: carrier, private: " + how[0] + "}\n  - {name: temp, private: " + how[1] + "}\n"
		}
		place(t, models, name+"/1/model.yaml", yaml)
		place(t, models, name+"/1/reference.csv", rows)
		place(t, models, name+"/1/notes.txt", rows)
	}
	for _, name := range []string{"made", "ns.made", "letters"} {
		place(t, models, name+"/1/model.yaml", "task: binary\nfeatures: [{name: owner, private: drop}, {name: income, private: mask}, {name: city, private: hash}, {name: text, private: seal}]\n")
	}
	back := httptest.NewServer(http.HandlerFunc(repeatingUpstream))
	t.Cleanup(back.Close)
	cfg := testConfig(t, models)
	cfg.Upstreams = upstreamsOf(t, fmt.Sprintf(`
upstreams:
  - {name: echo, url: %[1]s, features: [{name: text_input, private: drop}, {name: amount, private: mask}]}
  - {name: broken, url: %[1]s, features: [{name: text_input, private: hash}, {name: amount, private: bucket}]}
  - {name: slow, url: %[1]s, timeout: 100ms, features: [{name: text_input, private: seal}, {name: amount, private: seal}]}
`, back.URL))
	cfg.Limits.Body = 1 << 20
	cfg.Capture.Key.File = writeKEK(t, "1")
	cfg.Capture.PairTimeout = duration(200 * time.Millisecond)
	cfg.Capture.Private = map[string]string{"rule.carrier": "drop", "rule.temp": "mask"}
	cfg.Capture.Patterns = []patternConfig{{Name: "email"}}
	f := forwarded(t, &cfg)
	change(&cfg)
	r := startRig(t, cfg)
	r.http.Handler.(*echo.Echo).POST("/panic/:how", func(c echo.Context) error {
		body, err := io.ReadAll(c.Request().Body)
		if err != nil {
			return err
		}
		ctx, span := r.telemetry.TracerProvider().Tracer("panics").Start(c.Request().Context(), "model.run")
		defer span.End() // which sees the panic
		panicWith(ctx, c.Param("how"), string(body), canaryNumber)
		return nil
	})
	until(t, "the upstreams are known", func() bool { return len(r.models.Live()) >= len(policies)+3 })
	sql(t, r.database(t), "ALTER TABLE predictions ADD CONSTRAINT no_letters CHECK model != 'letters'")
	return &roads{rig: r, conn: r.dial(t), ids: map[string]string{}}, cfg, f
}

// repeatingUpstream repeats what it is asked: as an answer, as an error, or after the
// time is over.
func repeatingUpstream(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	said := fmt.Sprintf("you said %s and %s or %v", canaryText, canaryDigits, canaryNumber)
	w.Header().Set("X-Said", said)
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/v2":
		_, _ = io.WriteString(w, `{"name":"s","version":"1","extensions":[]}`)
	case r.Method == http.MethodGet:
		_, _ = io.WriteString(w, `{"name":"m","versions":["1"],"platform":"p","inputs":[{"name":"text_input","datatype":"BYTES","shape":[-1,1]},{"name":"amount","datatype":"FP32","shape":[-1,1]}],"outputs":[{"name":"text_output","datatype":"BYTES","shape":[-1,1]}]}`)
	case strings.Contains(r.URL.Path, "/slow"):
		select {
		case <-r.Context().Done():
		case <-time.After(time.Second):
		}
	case strings.Contains(r.URL.Path, "/broken"):
		w.WriteHeader([]int{http.StatusInternalServerError, http.StatusBadRequest, http.StatusOK}[len(body)%3])
		_, _ = fmt.Fprintf(w, `{"error":%q}`, said)
	case strings.HasSuffix(r.URL.Path, "/generate_stream"):
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprintf(w, "data: {\"text_output\":%q}\n\ndata: {\"error\":%q}\n\n", said, said)
	case strings.HasSuffix(r.URL.Path, "/generate"):
		_, _ = fmt.Fprintf(w, `{"model_name":"m","text_output":%q}`, said)
	default:
		_, _ = fmt.Fprintf(w, `{"model_name":"m","outputs":[{"name":"text_output","datatype":"BYTES","shape":[1,1],"data":[%q]}]}`, said)
	}
}

// flightValues are the features of a row beside the text, by name.
var flightValues = map[string]float64{
	"temp": canaryNumber, "day_of_week": 1, "hour": 8, "minute": 30, "distance": 500, "dewp": 40, "humid": 50, "wind_dir": 200, "wind_speed": 10, "wind_gust": 12, "precip": 0, "pressure": 1010, "visib": 10,
}

// members are the same as the members of a JSON object.
func members() string {
	out := `"carrier":"` + canaryText + `","origin":"JFK"`
	for _, name := range slices.Sorted(maps.Keys(flightValues)) {
		out += fmt.Sprintf(",%q:%s", name, digits(flightValues[name]))
	}
	return out
}

// matrix is a row as the model's own input, in JSON and in bytes.
func (x *roads) matrix(t *testing.T) (list, raw string) {
	t.Helper()
	v, err := x.models.Find("drop", "")
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for i, f := range v.Info.Features {
		n := flightValues[f.Name]
		list += strings.Repeat(",", min(i, 1)) + digits(n)
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(n)))
	}
	return list, string(b)
}

// inferences are the forms of a request for inference, and those that are refused.
func (x *roads) inferences(t *testing.T) []sent {
	t.Helper()
	list, raw := x.matrix(t)
	columns := flightBody(canaryText, canaryNumber)
	jsonMatrix := `{"inputs":[{"name":"input","datatype":"FP32","shape":[1,15],"data":[` + list + `]}]}`
	head := `{"inputs":[{"name":"input","shape":[1,15],"datatype":"FP32","parameters":{"binary_data_size":60}}]}`
	length := func(n int) map[string]string {
		return map[string]string{"Inference-Header-Content-Length": fmt.Sprint(n), "Content-Type": "application/octet-stream"}
	}
	out := []sent{
		{body: columns},
		{body: jsonMatrix},
		{body: head + raw, header: length(len(head))},
		{body: raw, header: length(0)},
		{body: columns, header: map[string]string{"traceparent": "00-" + strings.Repeat("ab", 16) + "-" + strings.Repeat("cd", 8) + "-01", "tracestate": "x=" + canaryText, "baggage": "carrier=" + canaryText, "X-Request-Id": canaryText, "User-Agent": canaryText}},
		{body: head + raw[:50], header: length(len(head))},
		{body: head + raw + canaryText, header: length(len(head))},
		{body: raw + canaryText, header: length(0)},
		{body: head + raw, header: length(10)},
		{body: head + raw},
		{body: columns, header: map[string]string{"Content-Encoding": canaryText}},
		{body: columns, header: map[string]string{"Content-Encoding": "gzip"}},
		{body: columns[:len(columns)/4]},
		{body: canaryText},
		{body: `"` + canaryText + `"`},
		{body: `{"inputs":"` + canaryText + `"}`},
		{body: `{"` + canaryText + `":1}`, shown: true},
		{body: strings.Replace(jsonMatrix, "[1,15]", "[2,15]", 1)},
		{body: strings.Replace(jsonMatrix, "[1,15]", `["`+canaryText+`"]`, 1)},
		{body: strings.Replace(jsonMatrix, "FP32", canaryText, 1), shown: true},
		{body: strings.Replace(jsonMatrix, "FP32", "INT64", 1)},
		{body: strings.Replace(jsonMatrix, "FP32", "BYTES", 1)},
		{body: strings.Replace(jsonMatrix, "7318492.5", `7318492.5e`, 1)},
		{body: strings.Replace(jsonMatrix, "7318492.5", `7318492.5e400`, 1)},
		{body: strings.Replace(jsonMatrix, "7318492.5", `"`+canaryText+`"`, 1)},
		{body: strings.Replace(columns, `"JFK"`, "987", 1)},
		{body: strings.Replace(columns, `["`+canaryText+`"]`, "[7318492.5]", 1)},
		{body: strings.Replace(columns, `"name":"origin"`, `"name":"`+canaryText+`"`, 1), shown: true},
		{body: strings.Replace(columns, `"name":"origin"`, `"name":"carrier"`, 1)},
		{body: strings.Replace(columns, "{", `{"parameters":{"event_time":"`+canaryText+`"},`, 1)},
		{body: strings.Replace(columns, "{", `{"parameters":{"event_time":7318492.5},`, 1)},
		{body: strings.Replace(columns, "{", `{"parameters":{"event_times":"[\"`+canaryText+`\"]","external_ids":"[7318492.5]"},`, 1)},
		{body: strings.Replace(columns, "{", `{"parameters":{"external_id":"`+canaryMail+`"},`, 1)},
		{body: strings.Replace(columns, "{", `{"parameters":{"`+canaryText+`":{"a":"`+canaryText+`"}},`, 1), shown: true},
		{body: strings.Replace(columns, "{", `{"outputs":[{"name":"`+canaryText+`"}],`, 1), shown: true},
		{body: strings.Replace(columns, canaryText, strings.Repeat(canaryText, 1<<17), 1)},
		{body: strings.Replace(columns, canaryText, canaryText+"\xff", 1)},
		{body: strings.Replace(columns, canaryText, canaryText+`\ud800`, 1)},
	}
	return out
}

// infer sends every form of a request to every model, by a route's paths.
func inferBy(path string, shown func(model string, s sent) bool) func(t *testing.T, x *roads) {
	return func(t *testing.T, x *roads) {
		for _, model := range slices.Sorted(maps.Keys(policies)) {
			for i, s := range x.inferences(t) {
				s.method, s.path = "POST", strings.Replace(path, ":model", model, 1)
				s.shown = s.shown || shown != nil && shown(model, s)
				status, b := x.send(t, s)
				var answer struct{ ID string }
				if i < 4 && !x.full && !strings.HasSuffix(path, "/explain") && status != http.StatusOK {
					t.Errorf("%s: form %d: %d %s", s.path, i, status, b)
				}
				if status == http.StatusOK && json.Unmarshal(b, &answer) == nil && answer.ID != "" {
					x.ids[model] = answer.ID
				}
			}
		}
		for _, model := range []string{"echo", "broken", "slow"} {
			text := fmt.Sprintf(`{"inputs":[{"name":"text_input","datatype":"BYTES","shape":[1,1],"data":["%s"]},{"name":"amount","datatype":"FP32","shape":[1,1],"data":[%s]}]}`, canaryText, canaryDigits)
			for i := range 3 { // for each of the answers of one that is broken
				x.send(t, sent{method: "POST", path: strings.Replace(path, ":model", model, 1), body: text + strings.Repeat(" ", i), shown: model != "slow"}) // what an upstream says is for whoever asked it
			}
			x.send(t, sent{method: "POST", path: strings.Replace(path, ":model", model, 1), body: strings.Replace(text, "7318492.5", `"`+canaryText+`"`, 1)})
		}
		x.send(t, sent{method: "POST", path: strings.Replace(path, ":model", canaryText, 1), body: flightBody(canaryText, canaryNumber), shown: true})
		x.send(t, sent{method: "POST", path: strings.Replace(path, ":model", "drop", 1) + "?carrier=" + canaryText, body: flightBody(canaryText, canaryNumber)})
	}
}

// asksSealed: whoever asks from this machine may see what is sealed.
func asksSealed(model string, _ sent) bool { return model == "seal" }

// generateBy asks upstreams for texts.
func generateBy(path string) func(t *testing.T, x *roads) {
	return func(t *testing.T, x *roads) {
		for _, model := range []string{"echo", "broken", "slow", "drop", canaryText} {
			whole := fmt.Sprintf(`{"id":"g","text_input":"%s","amount":%s}`, canaryText, canaryDigits)
			for _, body := range []string{whole, whole + " ", whole + "  ", whole[:20], canaryText, `["` + canaryText + `"]`, `{"text_input":{"` + canaryText + `":1}}`, `{"id":7318492.5,"text_input":"x"}`, `{"text_input":7318492.5}`, `{"text_input":"` + strings.Repeat(canaryText, 1<<17) + `"}`} {
				x.send(t, sent{method: "POST", path: strings.Replace(path, ":model", model, 1), body: body, shown: model == "echo" || model == "broken" || model == canaryText})
			}
		}
	}
}

// madeRow is a prediction that was made elsewhere.
func madeRow(model, id, more string) string {
	return fmt.Sprintf(`{"model":%q,"id":%q,"status":500,"error":"no %s at 7,318,492.5 of %s"%s,"features":{"owner":%q,"income":%s,"city":%q,"text":%q,"note":"to %s","plain":1010},"outputs":{"score":0.5}}`,
		model, id, canaryText, canaryMail, more, canaryText, canaryDigits, canaryText, canaryText, canaryMail)
}

// laterSpan sends a span that is no prediction, of a trace whose prediction came by another
// road, and repeats its values.
func (x *roads) laterSpan(t *testing.T, trace string) {
	t.Helper()
	x.n++
	status, b := x.send(t, sent{method: "POST", path: "/v1/traces", body: fmt.Sprintf(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":%q,"spanId":"%016x","name":"later %s","startTimeUnixNano":"1714564800000000000","endTimeUnixNano":"1714564800250000000","attributes":[{"key":"of","value":{"stringValue":"7,318,492.5"}}],"status":{"code":2,"message":"bad %[3]s of 7318492.5"}}]}]}]}`,
		trace, x.n, canaryText)})
	if want := map[bool]int{true: 503, false: 200}[x.away]; status != want {
		t.Errorf("a later span: %d %s", status, b)
	}
}

// importRoad sends predictions made elsewhere.
func importRoad(t *testing.T, x *roads) {
	id := x.id("made")
	whole := madeRow("made", id, "")
	if status, b := x.send(t, sent{method: "POST", path: "/api/v1/predictions", body: whole}); status != http.StatusOK && !x.full {
		t.Errorf("an import: %d %s", status, b)
	}
	x.ids["made"] = id
	trace := strings.Repeat("ad", 16)
	x.send(t, sent{method: "POST", path: "/api/v1/predictions", body: madeRow("made", x.id("made"), `,"trace_id":"`+trace+`"`)})
	x.laterSpan(t, trace)
	for _, body := range []string{
		whole, "[" + whole + "," + madeRow("letters", x.id("letter"), "") + "]", `{"predictions":` + whole + `}`, whole[:len(whole)/2], canaryText, `"` + canaryText + `"`,
		strings.Replace(whole, `"income":7318492.5`, `"income":"`+canaryText+`"`, 1), strings.Replace(whole, `"owner":"`+canaryText+`"`, `"owner":7318492.5`, 1), strings.Replace(whole, `"owner":"`+canaryText+`"`, `"owner":["`+canaryText+`"]`, 1),
		strings.Replace(whole, `"income":7318492.5`, `"income":7318492.5e999`, 1),
		madeRow("made", x.id("made"), `,"time":"`+canaryText+`"`), madeRow("made", x.id("made"), `,"trace_id":"`+canaryText+`"`), madeRow("made", x.id("made"), `,"weight":"`+canaryText+`"`), madeRow("made", x.id("made"), `,"latency_ms":{"total":"`+canaryText+`"}`),
		madeRow("made", x.id("made"), `,"label":{"a":"`+canaryText+`"}`), strings.Replace(whole, canaryText, strings.Repeat(canaryText, 1<<17), 1), strings.Replace(whole, canaryText, canaryText+`\ud800`, 1),
	} {
		x.send(t, sent{method: "POST", path: "/api/v1/predictions", body: body})
	}
	// What somebody called a thing is told to him, and is told to nobody else.
	// So is what an output was that no number is: outputs are not private.
	for _, body := range []string{strings.Replace(whole, `"score":0.5`, `"score":"`+canaryText+`"`, 1), strings.Replace(whole, `"owner"`, `"`+canaryText+`"`, 1), madeRow("made", x.id("made"), `,"`+canaryText+`":1`), madeRow("made", x.id("made"), `,"latency_ms":{"`+canaryText+`":1}`)} {
		x.send(t, sent{method: "POST", path: "/api/v1/predictions", body: body, shown: true})
	}
}

// eventRoad sends the events of payload loggers, KServe's and Seldon's, with and without
// their other half.
func eventRoad(t *testing.T, x *roads) {
	features := `{"owner":"` + canaryText + `","income":7318492.5,"city":"` + canaryText + `","text":"` + canaryText + `","note":"to ` + canaryMail + `","plain":1010}`
	send := func(kind, typ, id, body, content string) {
		status, b := x.send(t, sent{method: "POST", path: "/api/v1/cloudevents", body: body, header: map[string]string{
			"Content-Type": content, "Ce-Specversion": "1.0", "Ce-Id": id, "Ce-Type": typ + kind, "Ce-Source": "http://localhost:9081/", "Ce-Time": "2024-05-01T12:00:00Z",
			"Ce-Inferenceservicename": "made", "Ce-Namespace": "ns", "Ce-Component": "predictor", "Ce-Endpoint": "default", "Ce-Traceparent": "00-" + strings.Repeat("ef", 16) + "-" + strings.Repeat("cd", 8) + "-01", "Ce-Requestid": id,
		}})
		if status >= 500 && !x.full {
			t.Errorf("an event: %d %s", status, b)
		}
	}
	for _, typ := range []string{"org.kubeflow.serving.inference.", "io.seldon.serving.inference."} {
		request, response := `{"instances":[`+features+`]}`, `{"predictions":[0.5]}`
		for range 2 {
			id := x.id("event")
			send("request", typ, id, request, "application/json")
			send("response", typ, id, response, "application/json")
		}
		x.laterSpan(t, strings.Repeat("ef", 16))
		send("request", typ, x.id("half"), request, "application/json")
		send("response", typ, x.id("half"), `{"predictions":["`+canaryText+`"]}`, "application/json")
		id := x.id("event")
		send("request", typ, id, request, "application/json")
		send("response", typ, id, `{"error":"no `+canaryText+` at 7318492.5"}`, "application/json")
		for _, bad := range []string{request[:30], canaryText, `{"instances":"` + canaryText + `"}`, `{"inputs":[{"name":"x","data":["` + canaryText + `"]}]}`, `{"instances":[["` + canaryText + `",7318492.5]]}`, `{"instances":[{"owner":["` + canaryText + `"]}]}`} {
			send("request", typ, x.id("bad"), bad, "application/json")
			send("request", typ, x.id("bad"), bad, canaryText)
		}
		x.send(t, sent{method: "POST", path: "/api/v1/cloudevents", header: map[string]string{"Content-Type": "application/cloudevents+json"}, body: fmt.Sprintf(
			`{"specversion":"1.0","id":%q,"type":"%srequest","source":"http://localhost:9081/","time":"2024-05-01T12:00:00Z","inferenceservicename":"made","namespace":"ns","data":%s}`, x.id("event"), typ, request)})
		x.send(t, sent{method: "POST", path: "/api/v1/cloudevents", header: map[string]string{"Content-Type": "application/cloudevents+json"}, body: fmt.Sprintf(
			`{"specversion":%q,"id":%q,"type":%q,"data":%s}`, canaryText, canaryText, canaryText, request), shown: true})
	}
}

// tracedBody is a request of spans: one that is a prediction, and one that repeats its
// values.
func (x *roads) tracedBody(model string) string {
	x.n++
	trace := fmt.Sprintf("%032x", 0xabc000+x.n)
	attribute := func(key, value string) string {
		return fmt.Sprintf(`{"key":%q,"value":{%s}}`, key, value)
	}
	list := []string{
		attribute("ml.model.name", `"stringValue":"`+model+`"`), attribute("ml.features.owner", `"stringValue":"`+canaryText+`"`), attribute("ml.features.income", `"doubleValue":7318492.5`), attribute("ml.features.city", `"stringValue":"`+canaryText+`"`),
		attribute("ml.features.text", `"stringValue":"`+canaryText+`"`), attribute("ml.features.note", `"stringValue":"to `+canaryMail+`"`), attribute("ml.features.plain", `"doubleValue":1010`), attribute("ml.outputs.score", `"doubleValue":0.5`), attribute("ml.prediction.label", `"stringValue":"`+canaryText+`"`),
		attribute("raw", `"bytesValue":"`+base64.StdEncoding.EncodeToString([]byte("a "+canaryText))+`"`), attribute(canaryText, `"stringValue":"`+canaryText+`"`),
	}
	span := func(n int, list []string) string {
		return fmt.Sprintf(`{"traceId":%q,"spanId":"eee19b7ec3c1b17%d","traceState":"x=%[3]s","name":"score %[3]s","startTimeUnixNano":"1714564800000000000","endTimeUnixNano":"1714564800250000000","attributes":[%[4]s],
			"links":[{"traceId":%[1]q,"spanId":"eee19b7ec3c1b179","traceState":"y=%[3]s","attributes":[%[4]s]}],"status":{"code":2,"message":"bad %[3]s of 7318492.5, 7,318,492.50 and 7.318492e+06"},"events":[{"name":"no %[3]s","timeUnixNano":"1714564800000000001","attributes":[{"key":"exception.message","value":{"stringValue":"no %[3]s"}}]}]}`,
			trace, n, canaryText, strings.Join(list, ","))
	}
	return `{"resourceSpans":[{"resource":{"attributes":[` + attribute("owner", `"stringValue":"`+canaryText+`"`) + `]},"scopeSpans":[{"scope":{"name":"` + canaryText + `","version":"` + canaryText + `"},"spans":[` + span(1, list) + "," + span(2, []string{attribute("http.url", `"stringValue":"https://x.example/?q=`+canaryText+`"`)}) + `]}]}]}`
}

// otlpRoad sends spans over HTTP, as JSON and as protobuf.
func otlpRoad(t *testing.T, x *roads) {
	for _, model := range []string{"made", "unheard", "drop"} {
		body := x.tracedBody(model)
		status, b := x.send(t, sent{method: "POST", path: "/v1/traces", body: body, shown: model == "drop"}) // it tells what it has no feature of
		if want := map[bool]int{true: 503, false: 200}[x.away]; status != want {
			t.Errorf("spans: %d %s", status, b)
		}
		req := ptraceotlp.NewExportRequest()
		if err := req.UnmarshalJSON([]byte(x.tracedBody(model))); err != nil {
			t.Fatal(err)
		}
		raw, err := req.MarshalProto()
		if err != nil {
			t.Fatal(err)
		}
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		_, _ = z.Write(raw)
		_ = z.Close()
		for _, s := range []sent{
			{body: string(raw)},
			{body: zipped.String(), header: map[string]string{"Content-Encoding": "gzip"}},
			{body: string(raw[:len(raw)/2])},
			{body: zipped.String()[:zipped.Len()/2], header: map[string]string{"Content-Encoding": "gzip"}},
			{body: string(raw), header: map[string]string{"Content-Encoding": canaryText}},
			{body: string(raw), header: map[string]string{"Content-Type": canaryText}},
			{body: body[:len(body)/2], header: map[string]string{"Content-Type": "application/json"}},
		} {
			s.method, s.path, s.shown = "POST", "/v1/traces", model == "drop"
			s.header = maps.Clone(s.header)
			if s.header == nil {
				s.header = map[string]string{}
			}
			if s.header["Content-Type"] == "" {
				s.header["Content-Type"] = "application/x-protobuf"
			}
			x.send(t, s)
		}
	}
}

// feedbackRoad labels predictions. A label is no private field: only patterns hold for it.
func feedbackRoad(t *testing.T, x *roads) {
	for _, body := range []string{
		`{"prediction_id":"` + x.ids["drop"] + `","label":"ask ` + canaryMail + `"}`, `{"external_id":"` + canaryMail + `","label":1}`, `[{"prediction_id":"x","label":{"a":"` + canaryText + `"}}]`, `{"prediction_id":"x","label":["` + canaryText + `"]}`,
		`{"prediction_id":"x","label":1,"observed_at":"` + canaryText + `"}`, `{"prediction_id":["` + canaryText + `"]}`, `{"label":"` + canaryText + `"}`, canaryText, `{"label":"` + strings.Repeat(canaryText, 1<<17) + `"}`,
	} {
		x.send(t, sent{method: "POST", path: "/api/v1/feedback", body: body})
	}
}

// anyID are ids to ask for: those that are there, in both of their forms, and none.
func (x *roads) anyID() []string {
	out := []string{"trace:" + strings.Repeat("ab", 16), canaryText, "nothing"}
	for _, model := range slices.Sorted(maps.Keys(x.ids)) {
		out = append(out, url.PathEscape(x.ids[model]), url.PathEscape(x.ids[model])+".0")
	}
	return out
}

// byID asks for every prediction. What was asked for is said to whoever asked.
func byID(method string, paths ...string) func(t *testing.T, x *roads) {
	return func(t *testing.T, x *roads) {
		for _, id := range x.anyID() {
			for _, p := range paths {
				explains := strings.HasSuffix(p, "/explain") || strings.HasSuffix(p, "/report")
				for _, body := range []string{"", `{"method":"tree_shap"}`, `{"method":"` + canaryText + `"}`, canaryText} {
					if body != "" && method == "GET" {
						break
					}
					x.send(t, sent{method: method, path: strings.Replace(p, ":id", id, 1), body: body, shown: id == canaryText || strings.Contains(p, canaryText) || strings.Contains(body, canaryText) || explains && strings.HasPrefix(id, x.ids["seal"])})
				}
			}
		}
	}
}

// byModel asks what is known of every model.
func byModel(paths ...string) func(t *testing.T, x *roads) {
	return func(t *testing.T, x *roads) {
		for _, model := range append(slices.Sorted(maps.Keys(policies)), "made", "ns.made", "echo", "broken", "slow", "letters", "unheard", canaryText) {
			for _, p := range paths {
				x.send(t, sent{method: "GET", path: strings.Replace(p, ":model", model, 1), shown: model == canaryText || strings.Contains(p, canaryText)})
			}
		}
	}
}

// filters are conditions on what is private. An answer may repeat its own, and nothing of
// what it finds.
func filters() []string {
	return []string{
		"carrier = '" + canaryText + "'", "carrier in ('" + canaryText + "','x')", "temp = 7318492.5", "temp > 7318492.4", "owner = '" + canaryText + "'", "income < 7318492.5", "city = '" + canaryText + "'", "text = '" + canaryText + "'",
		// These find rows without naming their values.
		"temp > 0", "temp is not null", "carrier is not null", "carrier != 'x'", "income > 0", "city != 'x'", "text is not null", "origin = 'JFK'", "plain = 1010", everyRow,
	}
}

// everyRow is the filter that all rows pass.
const everyRow = "status >= 200"

// mistakes are filters that cannot be meant, of a word; the answer may say where.
func mistakes(word string) []string {
	return []string{word + " = 1", "carrier = '" + word, "carrier ! '" + word + "'", "temp = '" + word + "'", "plain = '" + word + "'"}
}

// listRoad lists predictions.
func listRoad(path string) func(t *testing.T, x *roads) {
	return func(t *testing.T, x *roads) {
		list := func(model, name, value, asked string) {
			status, b := x.send(t, sent{method: "GET", path: path + "?model=" + model + "&" + name + "=" + url.QueryEscape(value), asked: asked})
			if value == everyRow && !x.away && model != "unheard" && (status != http.StatusOK || !bytes.Contains(b, []byte(`"features"`)) && !bytes.Contains(b, []byte("/ui/predictions/"))) {
				t.Errorf("%s of %s shows no rows that could be searched: %d %.300s", path, model, status, b)
			}
		}
		for _, model := range append(slices.Sorted(maps.Keys(policies)), "made", "echo", "unheard") {
			x.get(t, path+"?model="+model)
			for _, where := range filters() {
				list(model, "where", where, where)
			}
			for _, word := range []string{"nobody", canaryText} {
				for _, where := range mistakes(word) {
					list(model, "where", where, word)
				}
			}
		}
		for _, q := range []string{"external_id", "from", "to", "cursor", "limit", "count", "version", canaryText} {
			list("drop", q, canaryText, canaryText)
			if q != canaryText {
				list("drop", q, "nobody", "")
			}
		}
	}
}

// subjectRoad erases or exports those whom filters and ids find.
func subjectRoad(path, more string) func(t *testing.T, x *roads) {
	return func(t *testing.T, x *roads) {
		ask := func(asked, body string) {
			status, b := x.send(t, sent{method: "POST", path: path, body: body, asked: asked})
			if asked == everyRow && (status != http.StatusOK || !bytes.Contains(b, []byte("predictions"))) {
				t.Errorf("%s finds no rows that could be searched: %d %.300s", body, status, b)
			}
		}
		for _, model := range []string{"drop", "mask", "hash", "seal", "rule", "made"} {
			for _, where := range filters() {
				ask(where, fmt.Sprintf(`{"model":%q,"where":%q%s}`, model, where, more))
			}
			for _, word := range []string{"nobody", canaryText} {
				for _, where := range mistakes(word) {
					ask(word, fmt.Sprintf(`{"model":%q,"where":%q%s}`, model, where, more))
				}
			}
			if id := x.ids[model]; id != "" {
				ask("", fmt.Sprintf(`{"prediction_id":%q%s}`, id, more))
			}
		}
		ask(canaryMail, `{"external_id":"`+canaryMail+`"`+more+`}`)
		for _, body := range []string{`{"prediction_id":"` + canaryText + `"` + more + `}`, `{"` + canaryText + `":1}`, canaryText, `{"model":"` + canaryText + `","where":"carrier = 'x'"` + more + `}`} {
			ask(canaryText, body)
		}
	}
}

// askBy sends one body by a route.
func askBy(method, path string, bodies ...string) func(t *testing.T, x *roads) {
	return func(t *testing.T, x *roads) {
		if len(bodies) == 0 {
			bodies = []string{""}
		}
		for _, body := range bodies {
			x.send(t, sent{method: method, path: path, body: body, shown: strings.Contains(path, canaryText) || strings.Contains(body, canaryText)})
		}
	}
}

// letterRoad does something with every dead letter, and with one that is not there.
func letterRoad(method, path string) func(t *testing.T, x *roads) {
	return func(t *testing.T, x *roads) {
		for _, l := range x.dead.List() {
			x.send(t, sent{method: method, path: strings.Replace(path, ":id", l.ID, 1)})
			if method == "DELETE" {
				break
			}
		}
		x.send(t, sent{method: method, path: strings.Replace(path, ":id", canaryText, 1), shown: true})
	}
}

// panicWith panics with what it is called with, or over it.
//
//go:noinline
func panicWith(_ context.Context, how, text string, number float64) {
	switch how {
	case "text":
		panic("no " + text + " at " + digits(number))
	case "error":
		panic(fmt.Errorf("no %s at %v", text, number))
	case "index":
		panic(text[int(number)])
	case "type":
		panic(any(text).(error))
	case "parts":
		crew.Run(2, 2, func(int) { panic([]string{text, digits(number)}) })
	}
	panic(number)
}

// panicRoad makes the server panic with the canaries.
func panicRoad(t *testing.T, x *roads) {
	for _, how := range []string{"text", "error", "index", "type", "parts", "number"} {
		status, b := x.send(t, sent{method: "POST", path: "/panic/" + how, body: canaryText, header: map[string]string{"traceparent": "00-" + strings.Repeat("ba", 16) + "-" + strings.Repeat("cd", 8) + "-01"}})
		if status != http.StatusInternalServerError || !strings.Contains(strings.ToLower(string(b)), "internal") {
			t.Errorf("a panic of %s: %d %s", how, status, b)
		}
	}
}

// httpRoads are all routes of the server. A new one needs a line here, which says what
// of a private value could come or go by it.
var httpRoads = []road{
	{"POST /v2/models/:model/infer", inferBy("/v2/models/:model/infer", nil)},
	{"POST /v2/models/:model/versions/:version/infer", inferBy("/v2/models/:model/versions/1/infer", nil)},
	{"POST /v1/models/:model", kserveRoad},
	{"POST /v2/models/:model/explain", inferBy("/v2/models/:model/explain", asksSealed)},
	{"POST /v2/models/:model/versions/:version/explain", inferBy("/v2/models/:model/versions/1/explain", asksSealed)},
	{"POST /v2/models/:model/generate", generateBy("/v2/models/:model/generate")},
	{"POST /v2/models/:model/versions/:version/generate", generateBy("/v2/models/:model/versions/1/generate")},
	{"POST /v2/models/:model/generate_stream", generateBy("/v2/models/:model/generate_stream")},
	{"POST /v2/models/:model/versions/:version/generate_stream", generateBy("/v2/models/:model/versions/1/generate_stream")},
	{"POST /panic/:how", panicRoad}, // of the test's own
	{"POST /api/v1/predictions", importRoad},
	{"POST /api/v1/cloudevents", eventRoad},
	{"POST /v1/traces", otlpRoad},
	{"POST /api/v1/feedback", feedbackRoad},
	{"GET /api/v1/predictions", listRoad("/api/v1/predictions")},
	{"GET /ui/predictions", listRoad("/ui/predictions")},
	{"GET /api/v1/predictions/:id", byID("GET", "/api/v1/predictions/:id", "/api/v1/predictions/:id?model="+canaryText)},
	{"POST /api/v1/predictions/:id/explain", byID("POST", "/api/v1/predictions/:id/explain")},
	{"GET /ui/predictions/:id", byID("GET", "/ui/predictions/:id", "/ui/predictions/:id?row="+canaryText)},
	{"POST /ui/predictions/:id/explain", byID("POST", "/ui/predictions/:id/explain")},
	{"GET /ui/predictions/:id/report", byID("GET", "/ui/predictions/:id/report", "/ui/predictions/:id/report?method="+canaryText)},
	{"GET /ui/find", byID("GET", "/ui/find?id=:id")},
	{"GET /api/v1/models/:model/drift", byModel("/api/v1/models/:model/drift", "/api/v1/models/:model/drift?feature=carrier&segment="+canaryText)},
	{"GET /api/v1/models/:model/performance", byModel("/api/v1/models/:model/performance", "/api/v1/models/:model/performance?from="+canaryText)},
	{"GET /api/v1/models/:model/traffic", byModel("/api/v1/models/:model/traffic", "/api/v1/models/:model/traffic?step="+canaryText)},
	{"GET /ui/models/:model", byModel("/ui/models/:model", "/ui/models/:model?feature=temp", "/ui/models/:model?feature=carrier", "/ui/models/:model?feature="+canaryText)},
	{"GET /v1/models/:model", byModel("/v1/models/:model")},
	{"GET /v2/models/:model", byModel("/v2/models/:model")},
	{"GET /v2/models/:model/ready", byModel("/v2/models/:model/ready")},
	{"GET /v2/models/:model/versions/:version", byModel("/v2/models/:model/versions/1", "/v2/models/:model/versions/"+canaryText)},
	{"GET /v2/models/:model/versions/:version/ready", byModel("/v2/models/:model/versions/1/ready")},
	{"GET /", askBy("GET", "/")},
	{"GET /api/v1/alerts", askBy("GET", "/api/v1/alerts")},
	{"GET /api/v1/models", askBy("GET", "/api/v1/models")},
	{"GET /api/v1/retention", askBy("GET", "/api/v1/retention")},
	{"GET /api/v1/rules", askBy("GET", "/api/v1/rules")},
	{"GET /api/v2/alerts", askBy("GET", "/api/v2/alerts?filter=carrier="+canaryText)},
	{"GET /favicon.ico", askBy("GET", "/favicon.ico")},
	{"GET /healthz", askBy("GET", "/healthz")},
	{"GET /readyz", askBy("GET", "/readyz")},
	{"GET /metrics", askBy("GET", "/metrics")},
	{"GET /ui", askBy("GET", "/ui")},
	{"GET /ui/", askBy("GET", "/ui/")},
	{"GET /ui/*", askBy("GET", "/ui/"+canaryText)},
	{"GET /ui/alerts", askBy("GET", "/ui/alerts")},
	{"GET /ui/health", askBy("GET", "/ui/health")},
	{"GET /ui/rules", askBy("GET", "/ui/rules")},
	{"GET /ui/static/:name", askBy("GET", "/ui/static/"+canaryText)},
	{"GET /v1/models", askBy("GET", "/v1/models")},
	{"GET /v2", askBy("GET", "/v2")},
	{"GET /v2/", askBy("GET", "/v2/")},
	{"GET /v2/health/live", askBy("GET", "/v2/health/live")},
	{"GET /v2/health/ready", askBy("GET", "/v2/health/ready")},
	{"GET /v2/models", askBy("GET", "/v2/models")},
	{"POST /v2/repository/index", askBy("POST", "/v2/repository/index", "", "{}", `{"ready":"`+canaryText+`"}`)},
	{"echo_route_not_found /ui", askBy("PUT", "/ui", canaryText)},
	{"echo_route_not_found /ui/*", askBy("PUT", "/ui/"+canaryText, canaryText)},
	{"GET /api/v1/dead-letters", askBy("GET", "/api/v1/dead-letters")},
	{"GET /api/v1/dead-letters/:id", letterRoad("GET", "/api/v1/dead-letters/:id")},
	{"GET /ui/dead-letters/:id", letterRoad("GET", "/ui/dead-letters/:id")},
	{"POST /ui/dead-letters/:id/drive", letterRoad("POST", "/ui/dead-letters/:id/drive")},
	{"POST /ui/dead-letters/drive", askBy("POST", "/ui/dead-letters/drive")},
	{"POST /api/v1/dead-letters/drive", askBy("POST", "/api/v1/dead-letters/drive", `{"all":true}`, `{"ids":["`+canaryText+`"]}`, canaryText)},
	{"POST /ui/dead-letters/:id/delete", askBy("POST", "/ui/dead-letters/"+canaryText+"/delete")},
	{"DELETE /api/v1/dead-letters/:id", letterRoad("DELETE", "/api/v1/dead-letters/:id")},
	{"POST /api/v1/rollups/recount", askBy("POST", "/api/v1/rollups/recount", "{}", `{"model":"`+canaryText+`"}`, canaryText)},
	{"POST /api/v1/subjects/export", subjectRoad("/api/v1/subjects/export", "")},
	{"POST /api/v1/exports", askBy("POST", "/api/v1/exports", `{"model":"rule","where":"carrier = '`+canaryText+`'"}`, `{"model":"`+canaryText+`"}`, `{"model":"rule","where":"`+canaryText+`"}`, `{"`+canaryText+`":1}`, canaryText)},
	{"POST /api/v1/keys/rotate", askBy("POST", "/api/v1/keys/rotate")},
	{"POST /api/v1/keys/forget", askBy("POST", "/api/v1/keys/forget", `{"subject":"`+canaryText+`"}`, `{"subject":7318492.5}`, canaryText)},
	{"POST /v2/repository/models/:model/unload", askBy("POST", "/v2/repository/models/rule/unload", "{}", canaryText)},
	{"POST /v2/repository/models/:model/load", askBy("POST", "/v2/repository/models/rule/load", "{}", `{"parameters":{"config":"`+canaryText+`"}}`, canaryText)},
	{"POST /api/v1/subjects/erase", subjectRoad("/api/v1/subjects/erase", `,"dry_run":true`)},
	{"DELETE /api/v1/dead-letters", askBy("DELETE", "/api/v1/dead-letters", "", canaryText)},
}

// kserveRoad predicts and explains by KServe's first protocol.
func kserveRoad(t *testing.T, x *roads) {
	list, _ := x.matrix(t)
	for _, verb := range []string{":predict", ":explain", ":" + canaryText} {
		for _, model := range append(slices.Sorted(maps.Keys(policies)), canaryText) {
			shown := verb == ":explain" && model == "seal" || verb == ":"+canaryText || model == canaryText
			whole := `{"instances":[{` + members() + `}]}`
			for i, body := range []string{
				whole, `{"instances":[[` + list + `]]}`, whole[:40], canaryText, `{"instances":"` + canaryText + `"}`, `{"instances":[["` + canaryText + `"]]}`, strings.Replace(whole, "7318492.5", `"`+canaryText+`"`, 1), strings.Replace(whole, `"JFK"`, "987", 1),
				strings.Replace(whole, `"JFK"`, `{"a":"`+canaryText+`"}`, 1), strings.Replace(whole, canaryText, strings.Repeat(canaryText, 1<<17), 1), strings.Replace(whole, "7318492.5", "7318492.5e400", 1),
			} {
				if status, b := x.send(t, sent{method: "POST", path: "/v1/models/" + model + verb, body: body, shown: shown}); i < 2 && !x.full && verb == ":predict" && model != canaryText && status != http.StatusOK {
					t.Errorf("%s: form %d: %d %s", model, i, status, b)
				}
			}
			x.send(t, sent{method: "POST", path: "/v1/models/" + model + verb, body: strings.Replace(whole, `"origin"`, `"`+canaryText+`"`, 1), shown: true})
		}
	}
}

// rpcRoads are all methods of gRPC.
var rpcRoads = []road{
	{"/inference.GRPCInferenceService/ModelInfer", func(t *testing.T, x *roads) {
		client := inference.NewGRPCInferenceServiceClient(x.conn)
		for i, req := range x.messages() {
			res, err := client.ModelInfer(metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+strings.Repeat("ab", 16)+"-"+strings.Repeat("cd", 8)+"-01", "user-said", canaryText), req)
			if x.answered(t, "ModelInfer", res.GetOutputs(), err, req.GetModelName() == "echo" || req.GetModelName() == "broken"); err != nil && i < len(policies) && !x.full {
				t.Errorf("ModelInfer of %s: %v", req.GetModelName(), err)
			}
		}
	}},
	{"/inference.GRPCInferenceService/ModelStreamInfer", func(t *testing.T, x *roads) {
		stream, err := inference.NewGRPCInferenceServiceClient(x.conn).ModelStreamInfer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, req := range x.messages() {
			if err := stream.Send(req); err != nil {
				t.Fatal(err)
			}
			res, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			x.answered(t, "ModelStreamInfer", res.GetErrorMessage(), nil, true) // of names it tells
		}
		if err := stream.CloseSend(); err != nil {
			t.Error(err)
		}
	}},
	{"/inference.GRPCInferenceService/ModelMetadata", func(t *testing.T, x *roads) {
		for _, name := range []string{"drop", "hash", "echo", canaryText} {
			res, err := inference.NewGRPCInferenceServiceClient(x.conn).ModelMetadata(t.Context(), &inference.ModelMetadataRequest{Name: name, Version: map[bool]string{true: canaryText}[name == "hash"]})
			x.answered(t, "ModelMetadata", res, err, name == canaryText || name == "hash")
		}
	}},
	{"/inference.GRPCInferenceService/ModelReady", func(t *testing.T, x *roads) {
		res, err := inference.NewGRPCInferenceServiceClient(x.conn).ModelReady(t.Context(), &inference.ModelReadyRequest{Name: canaryText})
		x.answered(t, "ModelReady", res, err, false)
	}},
	{"/inference.GRPCInferenceService/ServerLive", func(t *testing.T, x *roads) {
		res, err := inference.NewGRPCInferenceServiceClient(x.conn).ServerLive(t.Context(), &inference.ServerLiveRequest{})
		x.answered(t, "ServerLive", res, err, false)
	}},
	{"/inference.GRPCInferenceService/ServerMetadata", func(t *testing.T, x *roads) {
		res, err := inference.NewGRPCInferenceServiceClient(x.conn).ServerMetadata(t.Context(), &inference.ServerMetadataRequest{})
		x.answered(t, "ServerMetadata", res, err, false)
	}},
	{"/inference.GRPCInferenceService/ServerReady", func(t *testing.T, x *roads) {
		res, err := inference.NewGRPCInferenceServiceClient(x.conn).ServerReady(t.Context(), &inference.ServerReadyRequest{})
		x.answered(t, "ServerReady", res, err, false)
	}},
	{"/grpc.health.v1.Health/Check", func(t *testing.T, x *roads) {
		res, err := grpc_health_v1.NewHealthClient(x.conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: canaryText})
		x.answered(t, "Check", res, err, false)
	}},
	{"/grpc.health.v1.Health/List", func(t *testing.T, x *roads) {
		res, err := grpc_health_v1.NewHealthClient(x.conn).List(t.Context(), &grpc_health_v1.HealthListRequest{})
		x.answered(t, "List", res, err, false)
	}},
	{"/grpc.health.v1.Health/Watch", func(t *testing.T, x *roads) {
		stream, err := grpc_health_v1.NewHealthClient(x.conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: canaryText})
		if err != nil {
			t.Fatal(err)
		}
		res, err := stream.Recv()
		x.answered(t, "Watch", res, err, false)
	}},
	{"/pellucid.v1.Recorder/RecordPredictions", recorderRoad},
	{"/pellucid.v1.Recorder/RecordFeedback", func(t *testing.T, x *roads) {
		client := pellucidv1.NewRecorderClient(x.conn)
		for _, l := range []*pellucidv1.Label{
			{PredictionId: "x", Label: structpb.NewStringValue("to " + canaryMail)},
			{ExternalId: canaryMail, Label: structpb.NewBoolValue(true)},
			{Label: structpb.NewStringValue(canaryText)},
			{PredictionId: "x", Label: structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue(canaryText)}})},
		} {
			res, err := client.RecordFeedback(t.Context(), &pellucidv1.RecordFeedbackRequest{Labels: []*pellucidv1.Label{l}})
			x.answered(t, "RecordFeedback", res, err, false)
		}
	}},
	{"/opentelemetry.proto.collector.trace.v1.TraceService/Export", func(t *testing.T, x *roads) {
		for _, model := range []string{"made", "drop"} {
			req := ptraceotlp.NewExportRequest()
			if err := req.UnmarshalJSON([]byte(x.tracedBody(model))); err != nil {
				t.Fatal(err)
			}
			res, err := ptraceotlp.NewGRPCClient(x.conn).Export(t.Context(), req)
			if (err != nil) != x.away {
				t.Errorf("Export: %v", err)
			}
			var said string
			if err == nil {
				said = res.PartialSuccess().ErrorMessage()
			}
			x.answered(t, "Export", said, err, model == "drop")
		}
	}},
}

// answered looks for the canaries in an answer of gRPC.
func (x *roads) answered(t *testing.T, method string, res any, err error, shown bool) {
	t.Helper()
	if found := leaks(fmt.Append(nil, res, err)); found != "" && !shown {
		t.Errorf("%s answers with %s: %v %v", method, found, res, err)
	}
}

// messages are requests for inference by gRPC: a whole one for each policy, then others.
func (x *roads) messages() []*inference.ModelInferRequest {
	whole := func(model string) *inference.ModelInferRequest {
		req := &inference.ModelInferRequest{ModelName: model, Id: x.id("rpc")}
		for _, name := range slices.Sorted(maps.Keys(flightValues)) {
			req.Inputs = append(req.Inputs, &inference.ModelInferRequest_InferInputTensor{Name: name, Datatype: "FP32", Shape: []int64{1}, Contents: &inference.InferTensorContents{Fp32Contents: []float32{float32(flightValues[name])}}})
		}
		for name, v := range map[string]string{"carrier": canaryText, "origin": "JFK"} {
			req.Inputs = append(req.Inputs, &inference.ModelInferRequest_InferInputTensor{Name: name, Datatype: "BYTES", Shape: []int64{1}, Contents: &inference.InferTensorContents{BytesContents: [][]byte{[]byte(v)}}})
		}
		return req
	}
	var out []*inference.ModelInferRequest
	for _, model := range slices.Sorted(maps.Keys(policies)) {
		out = append(out, whole(model))
	}
	for _, change := range []func(*inference.ModelInferRequest){
		func(m *inference.ModelInferRequest) { m.Inputs[0].Datatype = "INT64" },
		func(m *inference.ModelInferRequest) { m.Inputs[0].Shape = []int64{2} },
		func(m *inference.ModelInferRequest) {
			m.Inputs[0].Contents = &inference.InferTensorContents{BytesContents: [][]byte{[]byte(canaryText)}}
		},
		func(m *inference.ModelInferRequest) { m.RawInputContents = [][]byte{[]byte(canaryText)} },
		func(m *inference.ModelInferRequest) {
			m.Parameters = map[string]*inference.InferParameter{"event_time": {ParameterChoice: &inference.InferParameter_StringParam{StringParam: canaryText}}}
		},
		func(m *inference.ModelInferRequest) { m.Inputs = m.Inputs[1:] },
	} {
		req := whole("drop")
		change(req)
		out = append(out, req)
	}
	for _, model := range []string{"broken", "slow", "echo"} {
		out = append(out, &inference.ModelInferRequest{ModelName: model, Inputs: []*inference.ModelInferRequest_InferInputTensor{
			{Name: "text_input", Datatype: "BYTES", Shape: []int64{1, 1}, Contents: &inference.InferTensorContents{BytesContents: [][]byte{[]byte(canaryText)}}},
			{Name: "amount", Datatype: "FP32", Shape: []int64{1, 1}, Contents: &inference.InferTensorContents{Fp32Contents: []float32{canaryNumber}}},
		}})
	}
	return out
}

// recorderRoad records predictions by gRPC.
func recorderRoad(t *testing.T, x *roads) {
	client := pellucidv1.NewRecorderClient(x.conn)
	made := func(model string) *pellucidv1.Prediction {
		return &pellucidv1.Prediction{
			Id: x.id("recorded"), Model: model, Version: "1", Time: timestamppb.Now(), Status: 500, Error: "no " + canaryText + " at 7,318,492.5", TraceId: strings.Repeat("ac", 16),
			Features: map[string]*structpb.Value{
				"owner": structpb.NewStringValue(canaryText), "income": numeric(canaryNumber), "city": structpb.NewStringValue(canaryText), "text": structpb.NewStringValue(canaryText), "note": structpb.NewStringValue("to " + canaryMail), "plain": numeric(1010),
			},
			Outputs: map[string]*structpb.Value{"score": numeric(0.5)},
		}
	}
	for i, change := range []func(*pellucidv1.Prediction){
		func(*pellucidv1.Prediction) {},
		func(p *pellucidv1.Prediction) { p.Features["income"] = structpb.NewStringValue(canaryText) },
		func(p *pellucidv1.Prediction) { p.Features["owner"] = numeric(canaryNumber) },
		func(p *pellucidv1.Prediction) {
			p.Features["owner"] = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue(canaryText)}})
		},
		func(p *pellucidv1.Prediction) { p.Error, p.TraceId = canaryText, strings.Repeat("ae", 16) },
		func(p *pellucidv1.Prediction) { p.Outputs["score"] = structpb.NewStringValue(canaryText) },
	} {
		p := made("made")
		change(p)
		res, err := client.RecordPredictions(t.Context(), &pellucidv1.RecordPredictionsRequest{Predictions: []*pellucidv1.Prediction{p}})
		x.answered(t, "RecordPredictions", res, err, false)
		if i == 0 && err != nil && !x.full {
			t.Errorf("RecordPredictions: %v", err)
		}
		x.laterSpan(t, p.GetTraceId())
	}
}

// TestEveryRoad sends values of private fields by every route and method that the server
// answers, in good forms and bad, with the store and without, and looks for them in every
// answer, every byte on the disk, every table and the log. TestEveryRoadOut looks at what
// is sent to others.
func TestEveryRoad(t *testing.T) {
	where := "carrier = '" + canaryText + "'"
	if s := (sent{asked: where}); leaks(s.without([]byte(template.HTMLEscapeString(where)))) != "" || leaks(s.without([]byte(where+" finds "+canaryText))) == "" {
		t.Fatal("a leak beside what was asked for would not be seen")
	}
	x, cfg, f := startRoads(t, func(*config) {})
	x.areAll(t)
	f.cut()
	x.away = true
	x.walk(t)
	searchFolder(t, cfg.Data)
	f.open(t)
	x.away = false
	until(t, "the store is back", func() bool { return x.writer.Health().Err == nil })
	x.walk(t)
	until(t, "a half is recorded alone", func() bool {
		return sql(t, x.database(t), "SELECT count() > 0 FROM predictions WHERE model = 'ns.made' AND status = 504") == "1"
	})
	x.stored(t)
	searchFolder(t, cfg.Data)
	x.read = true // what is stored is read now
	x.walk(t)
	x.stored(t)
	x.tables(t)
	x.halt(t)
	searchFolder(t, cfg.Data)
	searchLog(t, x.log.String())
}

// TestEveryRoadWhenFull sends the same by the roads that record to a server that has no room
// left and whose store is away, by either choice of the operator.
func TestEveryRoadWhenFull(t *testing.T) {
	for _, choice := range []string{"reject", "serve"} {
		t.Run(choice, func(t *testing.T) {
			x, cfg, f := startRoads(t, func(cfg *config) {
				cfg.Capture.SpoolBytes, cfg.Capture.OnFull = leastSpool, choice
			})
			f.cut()
			x.away, x.full = true, true
			for n := 0; !x.spool.Stats().Full; n++ {
				if x.send(t, sent{method: "POST", path: "/v2/models/drop/infer", body: flightBody(canaryText, canaryNumber)}); n > 10_000 {
					t.Fatal("the spool takes whatever comes")
				}
			}
			for _, r := range slices.Concat(httpRoads, rpcRoads) {
				if slices.Contains(recording, r.route) {
					t.Run(r.route, func(t *testing.T) { r.walk(t, x) })
				}
			}
			x.get(t, "/metrics", "/readyz", "/ui/health", "/ui/", "/ui/predictions", "/api/v1/predictions?model=drop")
			searchFolder(t, cfg.Data)
			f.open(t)
			x.stored(t)
			x.halt(t)
			searchFolder(t, cfg.Data)
			searchLog(t, x.log.String())
		})
	}
}

// areAll holds the roads against what the server answers.
func (x *roads) areAll(t *testing.T) {
	t.Helper()
	var routes, methods, known, knownMethods []string
	for _, r := range x.http.Handler.(*echo.Echo).Routes() {
		routes = append(routes, r.Method+" "+r.Path)
	}
	methods = x.rpc.Methods()
	for _, r := range httpRoads {
		known = append(known, r.route)
	}
	for _, r := range rpcRoads {
		knownMethods = append(knownMethods, r.route)
	}
	for what, both := range map[string][2][]string{"HTTP": {routes, known}, "gRPC": {methods, knownMethods}} {
		for i, list := range both {
			for _, route := range list {
				if !slices.Contains(both[1-i], route) {
					t.Errorf("%s: %q is %s", what, route, []string{"answered, and no canary goes there", "no route of the server"}[i])
				}
			}
		}
	}
}

func (x *roads) walk(t *testing.T) {
	t.Helper()
	for _, r := range slices.Concat(httpRoads, rpcRoads) {
		name := r.route
		if x.read && !strings.HasPrefix(name, "GET") && !strings.Contains(name, "/dead-letters") {
			continue
		}
		if x.away {
			if strings.Contains(name, "/subjects/") || strings.Contains(name, "/rollups/") {
				continue // they wait for the store
			}
			name += " while the store is away"
		}
		t.Run(name, func(t *testing.T) { r.walk(t, x) })
	}
}

// tables looks through everything that is stored.
func (x *roads) tables(t *testing.T) {
	t.Helper()
	db := x.database(t)
	until(t, "the spans are stored", func() bool { return sql(t, db, "SELECT count() > 50 FROM otel_traces") == "1" })
	list := strings.Fields(sql(t, db, "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine NOT LIKE '%View'"))
	if len(list) < 8 {
		t.Fatalf("tables: %v", list)
	}
	for _, table := range list {
		rows := sql(t, db, "SELECT * FROM `"+table+"` FORMAT TSV")
		for line := range strings.Lines(rows) {
			if found := leaks([]byte(line)); found != "" {
				t.Errorf("table %s holds %s: %.1500s", table, found, line)
				break
			}
		}
		if table == "predictions" && (!strings.Contains(rows, "sealed1.") || !strings.Contains(rows, "1010")) {
			t.Error("the search sees no features at all")
		}
	}
	for _, model := range append(slices.Sorted(maps.Keys(policies)), "made", "ns.made", "echo", "broken", "slow") {
		if sql(t, db, "SELECT count() > 0 FROM predictions WHERE model = '"+model+"'") != "1" {
			t.Errorf("of %s nothing is stored", model)
		}
	}
}
