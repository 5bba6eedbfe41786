package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
	"github.com/pellucid/pellucid/engine"
)

// TestPrivateFieldsAreNowhere follows values of private features through everything
// that a server keeps or shows.
func TestPrivateFieldsAreNowhere(t *testing.T) {
	for text, number := range map[string]string{"drop": "true", "mask": "mask", "hash": "bucket"} {
		t.Run(text+" and "+number, func(t *testing.T) { checkPrivate(t, text, number) })
	}
}

func checkPrivate(t *testing.T, text, number string) {
	models := t.TempDir()
	place(t, models, "flights/1/model.ubj", readFile(t, gbm+"model.ubj"))
	place(t, models, "flights/1/model.yaml", "task: binary\nclasses: [on_time, late]\nfeatures:\n  - {name: carrier, private: "+text+"}\n  - {name: temp, private: "+number+"}\nreference: reference.csv\nbackground: background.csv\n")
	// Rows that lie beside the model hold private values too.
	rows := "carrier,origin,temp,day_of_week,hour,minute,distance,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib\n"
	rows += strings.Repeat(canaryText+",JFK,7318492.5,1,8,30,500,40,50,200,10,12,0,1010,10\n", 50)
	for _, file := range []string{"reference.csv", "background.csv", "old/train.CSV", "rows.csv.gz", "notes", "sub/dir/rows.jsonl"} {
		place(t, models, "flights/1/"+file, rows)
	}
	cfg := testConfig(t, models)
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	body := func(parameters string) string {
		return `{` + parameters + `"inputs":[
			{"name":"carrier","datatype":"BYTES","shape":[1],"data":["` + canaryText + `"]},
			{"name":"origin","datatype":"BYTES","shape":[1],"data":["JFK"]},
			` + column("temp", canaryNumber) + strings.Join([]string{
			column("day_of_week", 1), column("hour", 8), column("minute", 30), column("distance", 500), column("dewp", 40), column("humid", 50),
			column("wind_dir", 200), column("wind_speed", 10), column("wind_gust", 12), column("precip", 0), column("pressure", 1010), column("visib", 10),
		}, "") + `]}`
	}
	request := func(parameters string) string { return strings.Replace(body(parameters), ",]}", "]}", 1) }

	f.cut() // so that the spool holds everything
	h := r.post(t, "/v2/models/flights/infer", request(""), nil)
	id := h.Get("Pellucid-Prediction-Id") + ".0"
	// Requests that fail carry their values into errors, if anywhere.
	for _, bad := range []string{
		strings.Replace(request(""), `"name":"origin"`, `"name":"airport"`, 1),
		strings.Replace(request(""), `"datatype":"FP32","shape":[1],"data":[7318492.5]`, `"datatype":"FP32","shape":[1],"data":["`+canaryText+`"]`, 1),
		strings.Replace(request(""), `"datatype":"FP32","shape":[1],"data":[7318492.5]`, `"datatype":"INT64","shape":[1],"data":[7318492.5]`, 1),
	} {
		if status, _, _ := r.call(t, "POST", "/v2/models/flights/infer", bad); status != 400 {
			t.Errorf("a bad request: %d", status)
		}
	}
	spans := otherRoads(t, r)
	// An explanation would tell the value or its part.
	for path, b := range map[string]string{
		"/v2/models/flights/explain":             request(""),
		"/api/v1/predictions/" + id + "/explain": `{}`,
	} {
		status, answer, _ := r.call(t, "POST", path, b)
		if status != 422 || !strings.Contains(string(answer), `carrier`) || leaks(answer) != "" {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	searchFolder(t, cfg.Data)
	f.open(t)
	if code, b, _ := r.call(t, "POST", "/v1/traces", spans); code != 200 {
		t.Errorf("spans: %d %s", code, b)
	}
	r.stored(t)
	searchFolder(t, cfg.Data)

	var p collector.StoredPrediction
	r.get(t, "/api/v1/predictions/"+id, &p)
	stored := fmt.Sprint(p.Features["carrier"], " ", p.Features["temp"])
	want := map[string]string{"drop": "<nil> <nil>", "mask": "*** ***"}[text]
	if text == "hash" {
		// What the model has not seen is one value to it, whatever it was.
		v, err := r.models.Find("flights", "")
		if err != nil {
			t.Fatal(err)
		}
		key, err := hex.DecodeString(strings.TrimSpace(readFile(t, filepath.Join(cfg.Data, "private.key"))))
		if err != nil {
			t.Fatal(err)
		}
		h := hmac.New(sha256.New, key)
		fmt.Fprintf(h, "carrier\x00%d", len(v.Info.Features[slices.IndexFunc(v.Info.Features, func(f engine.Feature) bool { return f.Name == "carrier" })].Categories))
		want = hex.EncodeToString(h.Sum(nil)[:16]) + " 7e+06"
	}
	if _, ok := p.Features["carrier"]; ok == (text == "drop") || stored != want || p.Features["origin"] != "JFK" || p.Capture != "full" {
		t.Errorf("stored %s, want %s, of %+v", stored, want, p.Features)
	}
	if status, b, _ := r.call(t, "POST", "/api/v1/predictions/"+id+"/explain", `{}`); status != 422 || !strings.Contains(string(b), "carrier") {
		t.Errorf("explain by id: %d %s", status, b)
	}
	for _, page := range []string{
		"/ui/", "/ui/models/flights", "/ui/predictions", "/ui/predictions/" + id, "/ui/predictions/" + id + "/report", "/ui/alerts", "/metrics",
		"/api/v1/predictions/" + id, "/api/v1/predictions?model=flights", "/api/v1/models/flights/drift", "/v2/models/flights",
	} {
		if _, b, _ := r.call(t, "GET", page, ""); leaks(b) != "" {
			t.Errorf("%s shows %s", page, leaks(b))
		}
	}
	db := r.database(t)
	until(t, "the spans are stored", func() bool { return sql(t, db, "SELECT count() > 5 FROM otel_traces") == "1" })
	tables := strings.Fields(sql(t, db, "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine NOT LIKE '%View'"))
	if len(tables) < 8 {
		t.Fatalf("tables: %v", tables)
	}
	for _, table := range tables {
		rows := sql(t, db, "SELECT * FROM `"+table+"` FORMAT TSV")
		if found := leaks([]byte(rows)); found != "" {
			t.Errorf("table %s holds %s: %.2000s", table, found, rows)
		}
		if table == "predictions" && !strings.Contains(rows, "JFK") && !strings.Contains(rows, "1010") {
			t.Error("the search sees no features at all")
		}
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
	if found := leaks([]byte(r.log.String())); found != "" {
		t.Errorf("the log holds %s", found)
	}
}

// otherRoads sends the canaries by every road there is beside HTTP inference, whole
// and in forms that are refused.
func otherRoads(t *testing.T, r *rig) (spans string) {
	t.Helper()
	req := &inference.ModelInferRequest{ModelName: "flights"}
	values := map[string]float64{"temp": canaryNumber, "day_of_week": 1, "hour": 8, "minute": 30, "distance": 500, "dewp": 40, "humid": 50, "wind_dir": 200, "wind_speed": 10, "wind_gust": 12, "precip": 0, "pressure": 1010, "visib": 10}
	attributes := `{"key":"ml.model.name","value":{"stringValue":"flights"}},{"key":"ml.features.carrier","value":{"stringValue":"` + canaryText + `"}},{"key":"ml.features.origin","value":{"stringValue":"JFK"}},{"key":"ml.prediction.label","value":{"stringValue":"` + canaryText + `"}}`
	features := `"carrier":"` + canaryText + `","origin":"JFK"`
	for name, v := range values {
		req.Inputs = append(req.Inputs, &inference.ModelInferRequest_InferInputTensor{Name: name, Datatype: "FP32", Shape: []int64{1}, Contents: &inference.InferTensorContents{Fp32Contents: []float32{float32(v)}}})
		attributes += fmt.Sprintf(`,{"key":"ml.features.%s","value":{"doubleValue":%s}}`, name, digits(v))
		features += fmt.Sprintf(`,%q:%s`, name, digits(v))
	}
	for name, v := range map[string]string{"carrier": canaryText, "origin": "JFK"} {
		req.Inputs = append(req.Inputs, &inference.ModelInferRequest_InferInputTensor{Name: name, Datatype: "BYTES", Shape: []int64{1}, Contents: &inference.InferTensorContents{BytesContents: [][]byte{[]byte(v)}}})
	}
	client := inference.NewGRPCInferenceServiceClient(r.dial(t))
	if _, err := client.ModelInfer(t.Context(), req); err != nil {
		t.Errorf("inference by gRPC: %v", err)
	}
	stream, err := client.ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1", canaryText, "1"} {
		req.ModelVersion = version
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		if res, err := stream.Recv(); err != nil || (version == "1") != (res.GetErrorMessage() == "") {
			t.Errorf("a stream by gRPC: %v %v", res, err)
		}
		req.Inputs[0].Parameters = map[string]*inference.InferParameter{canaryText: {}}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	req.ModelVersion = ""
	req.Inputs[0].Name = canaryText
	if _, err := client.ModelInfer(t.Context(), req); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a bad request by gRPC: %v", err)
	}
	span := `{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b17%d","name":"score ` + canaryText + `","startTimeUnixNano":"1714564800000000000","endTimeUnixNano":"1714564800250000000","attributes":[{"key":"raw","value":{"bytesValue":"` + base64.StdEncoding.EncodeToString([]byte("a "+canaryText)) + `"}},` + attributes + `%s],
		"status":{"code":2,"message":"bad ` + canaryText + ` of 7318492.5, 7,318,492.50 and 7.318492e+06"},"events":[{"name":"exception","timeUnixNano":"1714564800000000001","attributes":[{"key":"exception.message","value":{"stringValue":"no ` + canaryText + `"}}]}]}`
	spans = `{"resourceSpans":[{"scopeSpans":[{"spans":[` + fmt.Sprintf(span, 1, `,{"key":"error.type","value":{"stringValue":"no such `+canaryText+`"}}`) + "," + fmt.Sprintf(span, 2, `,{"key":"ml.features.`+canaryText+`","value":{"intValue":1}}`) + `]}]}]}`
	// The store is away: the predictions are recorded, the spans are to come again.
	if code, b, _ := r.call(t, "POST", "/v1/traces", spans); code != 503 {
		t.Errorf("spans while the store is away: %d %s", code, b)
	}
	for _, body := range []string{`{"instances":[{` + features + `}]}`, `{"instances":"` + canaryText + `"}`} {
		if code, b := r.loggedEvent(t, "request", "half", body, false); (code == 200) != strings.HasPrefix(body, `{"instances":[`) {
			t.Errorf("an event: %d %s", code, b)
		}
	}
	if code, b, _ := r.call(t, "POST", "/api/v1/predictions", `{"model":"flights","id":"imported","status":500,"error":"`+canaryText+` at 7318492.5","features":{`+features+`}}`); code != 200 {
		t.Errorf("an import: %d %s", code, b)
	}
	return spans
}

func column(name string, v float64) string {
	return fmt.Sprintf(`{"name":%q,"datatype":"FP32","shape":[1],"data":[%s]},`, name, digits(v))
}

// searchFolder looks for the canaries in every file a server keeps.
func searchFolder(t *testing.T, dir string) {
	t.Helper()
	n := 0
	search := func(path string) error {
		b, err := os.ReadFile(path)
		n += len(b)
		if found := leaks(b); found != "" {
			t.Errorf("%s holds %s", path, found)
		}
		return err
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return search(path)
	})
	for _, path := range embeddedtest.Logs(t) { // the engine's folder is its own
		err = errors.Join(err, search(path))
	}
	if err != nil || n == 0 {
		t.Fatalf("search %d bytes: %v", n, err)
	}
}
