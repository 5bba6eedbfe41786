package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
	"github.com/pellucid/pellucid/collector/proxy/rpc/pellucidv1"
)

const categoriesData = "testdata/categories"

// categoryRows are rows as people have them, and a library's predictions.
type categoryRows struct {
	library, frame string
	Columns        []string
	Rows           [][]any // json.Number, string or nil
	Want           []float64
}

func (c *categoryRows) name() string { return c.library + "_" + c.frame }

// model is the file of the model that the rows are for.
func (c *categoryRows) model() string {
	return filepath.Join(categoriesData, c.library+"."+c.frame+map[string]string{"lightgbm": ".txt"}[c.library]+map[bool]string{true: ".json"}[c.library != "lightgbm"])
}

func categoryCases(t *testing.T) []*categoryRows {
	t.Helper()
	var out []*categoryRows
	for _, library := range []string{"xgboost", "lightgbm", "catboost"} {
		for _, frame := range []string{"mixed", "ints"} {
			c := &categoryRows{library: library, frame: frame}
			b, err := os.ReadFile(filepath.Join(categoriesData, library+"."+frame+".rows.json"))
			if err != nil {
				t.Fatal(err)
			}
			d := json.NewDecoder(bytes.NewReader(b))
			d.UseNumber()
			if err := d.Decode(c); err != nil || len(c.Rows) != 17 || len(c.Want) != 17 {
				t.Fatalf("%d rows, %v", len(c.Rows), err)
			}
			out = append(out, c)
		}
	}
	return out
}

// some are the rows that keep holds for.
func (c *categoryRows) some(keep func(row []any) bool) *categoryRows {
	out := &categoryRows{library: c.library, frame: c.frame, Columns: c.Columns}
	for i, row := range c.Rows {
		if keep(row) {
			out.Rows, out.Want = append(out.Rows, row), append(out.Want, c.Want[i])
		}
	}
	return out
}

// whole are the rows whose categories are all there.
func (c *categoryRows) whole() *categoryRows {
	return c.some(func(row []any) bool { return row[1] != nil && (len(row) < 3 || row[2] != nil) })
}

// each are the rows one by one.
func (c *categoryRows) each() []*categoryRows {
	var out []*categoryRows
	for i := range c.Rows {
		out = append(out, &categoryRows{library: c.library, frame: c.frame, Columns: c.Columns, Rows: c.Rows[i : i+1], Want: c.Want[i : i+1]})
	}
	return out
}

func (c *categoryRows) check(t *testing.T, road string, got []float64) {
	t.Helper()
	if len(got) != len(c.Want) {
		t.Errorf("%s by %s: %d numbers of %d rows", c.name(), road, len(got), len(c.Want))
		return
	}
	for i, w := range c.Want {
		if !(math.Abs(got[i]-w) <= 2e-6*max(1, math.Abs(w))) {
			t.Errorf("%s by %s: %v is %g, the library's is %g", c.name(), road, c.Rows[i], got[i], w)
		}
	}
}

// cell is a value as JSON. CatBoost knows a missing category as the empty text only.
func (c *categoryRows) cell(v any) string {
	if v == nil && c.library == "catboost" {
		return `""`
	}
	b, _ := json.Marshal(v)
	return string(b)
}

// datatypes are those in which a column of numbers may come.
func (c *categoryRows) datatypes() []string {
	if c.library == "catboost" {
		return []string{"BYTES", "INT64", "INT32"} // to which no real number is a category
	}
	return []string{"BYTES", "INT64", "INT32", "FP64", "FP32", "INT8", "UINT32"}
}

// fits reports whether all categories that are numbers fit a type.
func fits(datatype string) func(row []any) bool {
	return func(row []any) bool {
		n, there := row[1].(json.Number)
		v, _ := n.Int64()
		switch datatype {
		case "INT64", "INT32":
			return there
		case "INT8":
			return there && v == int64(int8(v))
		case "UINT32":
			return there && v >= 0
		}
		return true
	}
}

// types are the types of the columns, with numbers as said.
func (c *categoryRows) types(datatype string) []string {
	return []string{"FP64", datatype, "BYTES", "FP32"}[:len(c.Columns)]
}

// columns is a v2 request of one column a feature; binary columns lie behind the JSON.
func (c *categoryRows) columns(datatype string, raw bool) (body string, header int) {
	var list []string
	var tail []byte
	for j, typ := range c.types(datatype) {
		var cells []string
		from := len(tail)
		for _, row := range c.Rows {
			cells = append(cells, text(row[j], typ))
			tail = append(tail, packed(row[j], typ)...)
		}
		data := `"data":[` + strings.Join(cells, ",") + `]`
		if raw {
			data = fmt.Sprintf(`"parameters":{"binary_data_size":%d}`, len(tail)-from)
		}
		list = append(list, fmt.Sprintf(`{"name":%q,"datatype":%q,"shape":[%d],%s}`, c.Columns[j], typ, len(c.Rows), data))
	}
	body = `{"inputs":[` + strings.Join(list, ",") + `]}`
	if raw {
		return body + string(tail), len(body)
	}
	return body, 0
}

// text is a value in the JSON of a datatype.
func text(v any, datatype string) string {
	switch {
	case datatype == "BYTES" && v == nil:
		return `""`
	case datatype == "BYTES":
		return strconv.Quote(fmt.Sprint(v))
	case v == nil:
		return "null"
	}
	return fmt.Sprint(v)
}

// packed is a value in the bytes of a datatype.
func packed(v any, datatype string) []byte {
	x := math.NaN()
	if n, ok := v.(json.Number); ok {
		x, _ = n.Float64()
	}
	le := binary.LittleEndian
	switch datatype {
	case "BYTES":
		s := ""
		if v != nil {
			s = fmt.Sprint(v)
		}
		return append(le.AppendUint32(nil, uint32(len(s))), s...)
	case "INT64":
		return le.AppendUint64(nil, uint64(int64(x)))
	case "INT32", "UINT32":
		return le.AppendUint32(nil, uint32(int64(x)))
	case "INT8":
		return []byte{byte(int8(x))}
	case "FP64":
		return le.AppendUint64(nil, math.Float64bits(x))
	}
	return le.AppendUint32(nil, math.Float32bits(float32(x)))
}

// message is the request by gRPC.
func (c *categoryRows) message(datatype string, raw bool) *inference.ModelInferRequest {
	m := &inference.ModelInferRequest{ModelName: c.name()}
	for j, typ := range c.types(datatype) {
		in := &inference.ModelInferRequest_InferInputTensor{Name: c.Columns[j], Datatype: typ, Shape: []int64{int64(len(c.Rows))}}
		m.Inputs = append(m.Inputs, in)
		var bytes []byte
		typed := &inference.InferTensorContents{}
		for _, row := range c.Rows {
			b := packed(row[j], typ)
			bytes = append(bytes, b...)
			le := binary.LittleEndian
			switch typ {
			case "BYTES":
				typed.BytesContents = append(typed.BytesContents, b[4:])
			case "INT64":
				typed.Int64Contents = append(typed.Int64Contents, int64(le.Uint64(b)))
			case "INT32":
				typed.IntContents = append(typed.IntContents, int32(le.Uint32(b)))
			case "INT8":
				typed.IntContents = append(typed.IntContents, int32(int8(b[0])))
			case "UINT32":
				typed.UintContents = append(typed.UintContents, le.Uint32(b))
			case "FP64":
				typed.Fp64Contents = append(typed.Fp64Contents, math.Float64frombits(le.Uint64(b)))
			case "FP32":
				typed.Fp32Contents = append(typed.Fp32Contents, math.Float32frombits(le.Uint32(b)))
			}
		}
		if raw {
			m.RawInputContents = append(m.RawInputContents, bytes)
		} else {
			in.Contents = typed
		}
	}
	return m
}

// TestCategoriesByEveryProtocol holds what every road makes of categories that are
// numbers, negative ones among them, and text, not seen or missing, against the numbers
// of the libraries, and that what is recorded is explained as the row it was.
func TestCategoriesByEveryProtocol(t *testing.T) {
	models := t.TempDir()
	cases := categoryCases(t)
	for _, c := range cases {
		place(t, models, c.name()+"/1/model"+filepath.Ext(c.model()), readFile(t, c.model()))
	}
	r := startRig(t, testConfig(t, models))
	grpc := r.dial(t)
	for _, c := range cases {
		t.Run(c.name(), func(t *testing.T) {
			c.byHTTP(t, r)
			c.byGRPC(t, r, inference.NewGRPCInferenceServiceClient(grpc))
			c.byFile(t)
			c.madeElsewhere(t, r, pellucidv1.NewRecorderClient(grpc))
		})
	}
}

func (c *categoryRows) byHTTP(t *testing.T, r *rig) {
	t.Helper()
	for _, datatype := range c.datatypes() {
		for _, raw := range []bool{false, true} {
			some := c.some(fits(datatype))
			for _, batch := range append(some.each(), some) {
				body, n := batch.columns(datatype, raw)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/v2/models/"+c.name()+"/infer", strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if raw {
					req.Header.Set("Inference-Header-Content-Length", strconv.Itoa(n))
				}
				batch.check(t, fmt.Sprintf("v2 %s raw %v", datatype, raw), answered(t, req))
			}
		}
	}
	for _, batch := range append(c.each(), c.whole()) {
		var lists, objects []string
		for _, row := range batch.Rows {
			var cells, members []string
			for j, v := range row {
				cells = append(cells, c.cell(v))
				members = append(members, strconv.Quote(c.Columns[j])+":"+c.cell(v))
			}
			lists, objects = append(lists, "["+strings.Join(cells, ",")+"]"), append(objects, "{"+strings.Join(members, ",")+"}")
		}
		for road, list := range map[string][]string{"v1 rows": lists, "v1 names": objects} {
			var got struct{ Predictions []float64 }
			r.post(t, "/v1/models/"+c.name()+":predict", `{"instances":[`+strings.Join(list, ",")+`]}`, &got)
			batch.check(t, road, got.Predictions)
		}
	}
}

// answered is the first output of a request.
func answered(t *testing.T, req *http.Request) []float64 {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got struct {
		Error   string
		Outputs []struct{ Data []float64 }
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || len(got.Outputs) == 0 {
		t.Errorf("%s: %v %s", req.URL, err, got.Error)
		return nil
	}
	return got.Outputs[0].Data
}

func (c *categoryRows) byGRPC(t *testing.T, r *rig, client inference.GRPCInferenceServiceClient) {
	t.Helper()
	stream, err := client.ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, datatype := range c.datatypes() {
		for _, raw := range []bool{false, true} {
			some := c.some(fits(datatype))
			road := fmt.Sprintf("gRPC %s raw %v", datatype, raw)
			res, err := client.ModelInfer(t.Context(), some.message(datatype, raw))
			if err != nil {
				t.Errorf("%s by %s: %v", c.name(), road, err)
				continue
			}
			some.check(t, road, floats(t, res))
			if err := stream.Send(some.message(datatype, raw)); err != nil {
				t.Fatal(err)
			}
			one, err := stream.Recv()
			if err != nil || one.GetErrorMessage() != "" {
				t.Fatalf("%s by stream: %v %v", road, one, err)
			}
			some.check(t, road+" in a stream", floats(t, one.GetInferResponse()))
		}
	}
}

// byFile predicts rows of files. A matrix without names has the model's codes.
func (c *categoryRows) byFile(t *testing.T) {
	t.Helper()
	var csv strings.Builder
	csv.WriteString(strings.Join(c.Columns, ",") + "\n")
	for _, row := range c.Rows {
		for j, v := range row {
			if j > 0 {
				csv.WriteByte(',')
			}
			if v != nil {
				fmt.Fprint(&csv, v)
			}
		}
		csv.WriteByte('\n')
	}
	dir := t.TempDir()
	place(t, dir, "rows.csv", csv.String())
	files := []string{filepath.Join(dir, "rows.csv"), filepath.Join(categoriesData, "rows."+c.frame+".parquet")}
	if c.library != "catboost" {
		files = append(files, filepath.Join(categoriesData, "codes."+c.frame+".npy"))
	}
	for _, file := range files {
		status, out, stderr := command(t, "predict", "--model", c.model(), "--input", file)
		if status != 0 {
			t.Errorf("%s of %s: %s", file, c.name(), stderr)
			continue
		}
		var got []float64
		for _, line := range strings.Fields(out)[1:] {
			v, err := strconv.ParseFloat(strings.Split(line, ",")[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, v)
		}
		c.check(t, filepath.Base(file), got)
	}
}

// madeElsewhere records rows as predictions of others and has them explained, which
// predicts the very row that is stored.
func (c *categoryRows) madeElsewhere(t *testing.T, r *rig, client pellucidv1.RecorderClient) {
	t.Helper()
	ids := c.recorded(t, r, client)
	var csv strings.Builder
	csv.WriteString("id," + strings.Join(c.Columns, ",") + ",prediction\n")
	for i, row := range c.Rows {
		id := fmt.Sprintf("%s-csv-%d", c.name(), i)
		ids["import"] = append(ids["import"], id)
		csv.WriteString(id)
		for _, v := range row {
			csv.WriteByte(',')
			if v != nil {
				fmt.Fprint(&csv, v)
			}
		}
		fmt.Fprintf(&csv, ",%g\n", c.Want[i])
	}
	dir := t.TempDir()
	place(t, dir, "rows.csv", csv.String())
	if status, out, stderr := command(t, "import", dir+"/rows.csv", "--url", r.url, "--model", c.name(), "--id", "id", "--outputs", "prediction"); status != 0 || !strings.Contains(out, "17 accepted") {
		t.Errorf("import: %d %s %s", status, out, stderr)
	}
	r.stored(t)
	c.filtered(t, r)
	for road, list := range ids {
		var got []float64
		for i, id := range list {
			var p collector.StoredPrediction
			r.get(t, "/api/v1/predictions/"+id, &p)
			c.shown(t, road, i, p.Features["shop"])
			if c.library == "catboost" {
				continue // whose statistics of categories have no Shapley values of trees
			}
			e := r.explained(t, id, `{"method":"tree_shap"}`)
			if len(e) != 1 || math.Abs(e[0].Base+parts(&e[0])-e[0].Prediction) > 1e-5 {
				t.Fatalf("%s by %s: %+v", id, road, e)
			}
			got = append(got, e[0].Prediction)
		}
		if c.library != "catboost" {
			c.check(t, road+", explained", got)
		}
	}
}

// filtered holds what a filter makes of numbers against what it makes of names.
func (c *categoryRows) filtered(t *testing.T, r *rig) {
	t.Helper()
	if c.library == "catboost" {
		return // whose categories are stored as text
	}
	count := func(where string) (n int) {
		var got struct{ Count int }
		r.get(t, "/api/v1/predictions?count=true&model="+c.name()+"&where="+url.QueryEscape(where), &got)
		return got.Count
	}
	for number, name := range map[string]string{
		"shop = 107":          "shop = '107'",
		"shop != 107":         "shop != '107'",
		"shop in (107, -7.0)": "shop in ('107', '-7')",
		"shop >= 102":         "shop in ('102', '103', '104', '105', '107')",
		"shop < 0":            "shop in ('-7', '-1')",
		"shop = 11":           "shop = 'eleven'",
		"shop > 1000":         "shop = 'eleven'",
	} {
		if got, want := count(number), count(name); got != want || want == 0 != strings.Contains(name, "eleven") {
			t.Errorf("%s: %s finds %d, %s %d", c.name(), number, got, name, want)
		}
	}
}

// shown checks a recorded category. XGBoost's place for one it has not seen is a number.
func (c *categoryRows) shown(t *testing.T, road string, i int, got any) {
	t.Helper()
	want := c.Rows[i][1]
	n, _ := want.(json.Number)
	switch {
	case i < 12 || c.library == "catboost":
		if want != nil {
			want = n.String()
		}
	case want == nil || c.library == "lightgbm":
		want = nil
	default:
		want = 12.0
	}
	if got != want {
		t.Errorf("%s by %s: shop %v is shown as %v, want %v", c.name(), road, c.Rows[i][1], got, want)
	}
}

// parts are an explanation's contributions together.
func parts(e *collector.Explanation) (sum float64) {
	for i := range e.Attributions {
		sum += e.Attributions[i].Phi
	}
	return sum
}

// recorded records the rows by HTTP, by gRPC and as spans.
func (c *categoryRows) recorded(t *testing.T, r *rig, client pellucidv1.RecorderClient) (ids map[string][]string) {
	t.Helper()
	var list, spans []string
	var messages []*pellucidv1.Prediction
	ids = map[string][]string{}
	for i, row := range c.Rows {
		for _, road := range []string{"http", "grpc", "span"} {
			ids[road] = append(ids[road], fmt.Sprintf("%s-%s-%d", c.name(), road, i))
		}
		members, attributes, fields := c.recordedRow(t, row)
		list = append(list, fmt.Sprintf(`{"model":%q,"id":%q,"features":{%s},"outputs":{"prediction":1}}`, c.name(), ids["http"][i], members))
		messages = append(messages, &pellucidv1.Prediction{Model: c.name(), Id: ids["grpc"][i], Features: fields, Outputs: map[string]*structpb.Value{"prediction": structpb.NewNumberValue(1)}})
		spans = append(spans, fmt.Sprintf(`{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b1%02x","name":"score","startTimeUnixNano":"1714564800000000000","endTimeUnixNano":"1714564800250000000","attributes":[%s
			{"key":"ml.model.name","value":{"stringValue":%q}},{"key":"ml.prediction.id","value":{"stringValue":%q}},{"key":"ml.outputs.prediction","value":{"doubleValue":1}}]}`, i+1, attributes, c.name(), ids["span"][i]))
	}
	var got struct{ Accepted int }
	r.post(t, "/api/v1/predictions", "["+strings.Join(list, ",")+"]", &got)
	res, err := client.RecordPredictions(t.Context(), &pellucidv1.RecordPredictionsRequest{Predictions: messages})
	if got.Accepted != len(list) || err != nil || res.GetAccepted() != int64(len(list)) {
		t.Errorf("%s: %v, %v %v", c.name(), got, res, err)
	}
	body := `{"resourceSpans":[{"scopeSpans":[{"spans":[` + strings.Join(spans, ",") + `]}]}]}`
	if status, b, _ := r.call(t, http.MethodPost, "/v1/traces", body); status != http.StatusOK || strings.Contains(string(b), "rejected") {
		t.Errorf("%s: spans: %d %s", c.name(), status, b)
	}
	return ids
}

// recordedRow is a row in each form. A feature that is absent is missing.
func (c *categoryRows) recordedRow(t *testing.T, row []any) (members, attributes string, fields map[string]*structpb.Value) {
	t.Helper()
	var list []string
	fields = map[string]*structpb.Value{}
	for j, v := range row {
		list = append(list, strconv.Quote(c.Columns[j])+":"+c.cell(v))
		kind := "stringValue"
		switch v := v.(type) {
		case nil:
			continue
		case json.Number:
			if kind = "doubleValue"; j == 1 {
				kind = "intValue"
			}
			x, err := v.Float64()
			if err != nil {
				t.Fatal(err)
			}
			fields[c.Columns[j]] = structpb.NewNumberValue(x)
		case string:
			fields[c.Columns[j]] = structpb.NewStringValue(v)
		}
		attributes += fmt.Sprintf(`{"key":"ml.features.%s","value":{%q:%s}},`, c.Columns[j], kind, c.cell(v))
	}
	return strings.Join(list, ","), attributes, fields
}
