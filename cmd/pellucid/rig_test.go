package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
	"github.com/pellucid/pellucid/engine/enginetest"
	"github.com/pellucid/pellucid/engine/table"
)

// mainEnv makes the test's binary the product's.
const mainEnv = "PELLUCID_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
	}
	runHostileIfAsked()
	embeddedtest.Main(m)
}

// rig is a whole server in this process, on the shared embedded ClickHouse.
type rig struct {
	*server
	dsn string
	log *journal
}

// journal is a log that can be read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func testConfig(t *testing.T, models string) config {
	t.Helper()
	cfg := defaults()
	all := 1.0
	cfg.HTTP, cfg.GRPC, cfg.Models, cfg.Data, cfg.Telemetry.Sample = "127.0.0.1:0", "127.0.0.1:0", models, t.TempDir(), &all
	cfg.ClickHouse = embeddedtest.DSN(t)
	return cfg
}

func startRig(t *testing.T, cfg config) *rig {
	t.Helper()
	j := &journal{}
	s, err := startServer(t.Context(), cfg, slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug})), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{server: s, dsn: cfg.ClickHouse, log: j}
	t.Cleanup(func() { r.halt(t) })
	return r
}

// halt stops the server, once.
func (r *rig) halt(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := r.stop(ctx); err != nil {
		t.Errorf("stop: %v\n%s", err, r.log)
	}
}

// call sends a request and returns status, body and header.
func (r *rig) call(t *testing.T, method, path, body string) (int, []byte, http.Header) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b, resp.Header
}

// get decodes the JSON of a 200 into v.
func (r *rig) get(t *testing.T, path string, v any) {
	t.Helper()
	status, b, _ := r.call(t, "GET", path, "")
	decode(t, "GET "+path, status, b, v)
}

func (r *rig) post(t *testing.T, path, body string, v any) http.Header {
	t.Helper()
	status, b, h := r.call(t, "POST", path, body)
	decode(t, "POST "+path, status, b, v)
	return h
}

func decode(t *testing.T, what string, status int, b []byte, v any) {
	t.Helper()
	if status != http.StatusOK {
		t.Fatalf("%s: %d %s", what, status, b)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v in %s", what, err, b)
	}
}

// until waits for ok, which other goroutines bring about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// stored waits until everything recorded has left the spool for ClickHouse.
func (r *rig) stored(t *testing.T) {
	t.Helper()
	until(t, "the spool is empty", func() bool { st := r.spool.Stats(); return st.Appended == st.Acked })
}

// infer sends rows as one matrix and returns the prediction's id and the data of
// the first output.
func (r *rig) infer(t *testing.T, model string, c *servedCase) (id string, got []float64) {
	t.Helper()
	var answer struct {
		Model   string `json:"model_name"`
		ID      string
		Outputs []struct {
			Name string
			Data []float64
		}
	}
	h := r.post(t, "/v2/models/"+model+"/infer", c.body(""), &answer)
	if answer.Model != model || len(answer.Outputs) == 0 {
		t.Fatalf("%s answered %+v", model, answer)
	}
	if id = h.Get("Pellucid-Prediction-Id"); id == "" {
		t.Fatal("the answer names no prediction")
	}
	return id, answer.Outputs[0].Data
}

// servedCase is a model file with rows and what a library makes of them.
type servedCase struct {
	input, datatype string
	rows            [][]float64
	want            [][]float64
	// contribs as in enginetest.Oracle; nil for networks, which have gradients.
	contribs [][][]float64
	gradient [][]float64
	// tolerance is of a row's contributions, relative to the largest.
	tolerance float64
}

// whole returns the rows without a missing value, which the protocol between
// servers cannot say that a model takes.
func (c *servedCase) whole() *servedCase {
	out := &servedCase{input: c.input, datatype: c.datatype}
	for i, row := range c.rows {
		if !slices.ContainsFunc(row, math.IsNaN) {
			out.rows, out.want = append(out.rows, row), append(out.want, c.want[i])
		}
	}
	return out
}

// body is the inference request of all rows.
func (c *servedCase) body(parameters string) string {
	var b strings.Builder
	b.WriteString("{")
	if parameters != "" {
		b.WriteString(`"parameters":` + parameters + ",")
	}
	fmt.Fprintf(&b, `"inputs":[{"name":%q,"shape":[%d,%d],"datatype":%q,"data":[`, c.input, len(c.rows), len(c.rows[0]), c.datatype)
	for i, row := range c.rows {
		for j, v := range row {
			if i+j > 0 {
				b.WriteByte(',')
			}
			b.WriteString(jsonNumber(v))
		}
	}
	b.WriteString("]}]}")
	return b.String()
}

func jsonNumber(v float64) string {
	if math.IsNaN(v) {
		return "null"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

const (
	xgboostData  = "../../engine/xgboost/testdata"
	lightgbmData = "../../engine/lightgbm/testdata"
	onnxData     = "../../engine/onnx/testdata"
)

// treeCase copies a library's model into a models folder.
func treeCase(t *testing.T, models, name, data, oracle string) *servedCase {
	t.Helper()
	c := &servedCase{input: "input", datatype: "FP32", tolerance: 1e-4}
	if data == lightgbmData {
		c.datatype, c.tolerance = "FP64", 1e-9
	}
	for _, o := range enginetest.Oracles(t, data) {
		if o.Name == oracle {
			c.rows, c.want, c.contribs = o.Rows, o.Prediction, o.Contribs
			place(t, models, name+"/1/model"+filepath.Ext(o.Model), readFile(t, o.Model))
		}
	}
	if c.rows == nil || c.contribs == nil {
		t.Fatalf("no case %s", oracle)
	}
	return c
}

// networkCase takes a network out of the archive of PyTorch's models.
func networkCase(t *testing.T, models, name, folder string) *servedCase {
	t.Helper()
	file := archived(t, "torch.zip", folder)
	place(t, models, name+"/1/model.onnx", string(file("model.onnx")))
	return &servedCase{
		input: "x", datatype: "FP32", tolerance: 1e-4,
		rows: array(t, file, "in_0.npy"), want: array(t, file, "out_0.npy"), gradient: array(t, file, "grad_0.npy"),
	}
}

// archived reads the files of one case of an archive of ONNX models.
func archived(t *testing.T, archive, folder string) func(name string) []byte {
	t.Helper()
	z, err := zip.OpenReader(filepath.Join(onnxData, archive))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { z.Close() })
	return func(name string) []byte {
		b, err := fs.ReadFile(z, path.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// array reads a file of numbers, row by row.
func array(t *testing.T, file func(string) []byte, name string) [][]float64 {
	t.Helper()
	dir := t.TempDir()
	place(t, dir, name, string(file(name)))
	tab, err := table.Open(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	rows := make([][]float64, tab.Rows)
	for i := range tab.Columns {
		col, ok := tab.Columns[i].Float64s()
		if !ok {
			t.Fatalf("%s: column %d is not numeric", name, i)
		}
		for r := range rows {
			rows[r] = append(rows[r], col[r])
		}
	}
	return rows
}

func place(t *testing.T, dir, name, text string) {
	t.Helper()
	to := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// near checks numbers to 1e-5 of max(1, |want|).
func near(t *testing.T, what string, got []float64, want [][]float64) {
	t.Helper()
	if len(got) != len(want)*len(want[0]) {
		t.Fatalf("%s: %d numbers for %d rows", what, len(got), len(want))
	}
	for i, g := range got {
		w := want[i/len(want[0])][i%len(want[0])]
		if !(math.Abs(g-w) <= 1e-5*max(1, math.Abs(w))) {
			t.Errorf("%s: element %d is %g, want %g", what, i, g, w)
		}
	}
}

// explained asks for explanations of a stored prediction.
func (r *rig) explained(t *testing.T, id, request string) []collector.Explanation {
	t.Helper()
	var got struct{ Explanations []collector.Explanation }
	r.post(t, "/api/v1/predictions/"+url.PathEscape(id)+"/explain", request, &got)
	return got.Explanations
}

// sql asks the shared ClickHouse as its admin.
func sql(t *testing.T, database, query string) string {
	t.Helper()
	env := embeddedtest.Engine(t).Env()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+env.HTTPAddress()+"/?database="+database, strings.NewReader(query))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-ClickHouse-User", env.AdminUser)
	req.Header.Set("X-ClickHouse-Key", env.AdminPassword)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v %s", query, resp.Status, err, b)
	}
	return strings.TrimSpace(string(b))
}

func (r *rig) database(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(r.dsn)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

// forwarder stands between a server and ClickHouse and can be cut, or slow.
type forwarder struct {
	to      string
	address string
	// late is how long each piece that ClickHouse sends is kept.
	late atomic.Int64

	mu    sync.Mutex // guards the rest
	l     net.Listener
	conns []net.Conn
}

// forwarded has a configuration reach its ClickHouse through a forwarder.
func forwarded(t *testing.T, cfg *config) *forwarder {
	t.Helper()
	f, dsn := newForwarder(t, cfg.ClickHouse)
	cfg.ClickHouse = dsn
	return f
}

func newForwarder(t *testing.T, dsn string) (*forwarder, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{to: u.Host, address: "127.0.0.1:0"}
	f.open(t)
	t.Cleanup(f.cut)
	u.Host = f.address
	return f, u.String()
}

func (f *forwarder) open(t *testing.T) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.l, f.address = l, l.Addr().String()
	f.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // cut
			}
			f.join(l, c)
		}
	}()
}

func (f *forwarder) join(l net.Listener, c net.Conn) {
	d, err := net.Dial("tcp", f.to)
	if err != nil {
		_ = c.Close()
		return
	}
	f.mu.Lock()
	if f.l != l { // cut meanwhile
		_, _ = c.Close(), d.Close()
	}
	f.conns = append(f.conns, c, d)
	f.mu.Unlock()
	for _, pair := range []struct {
		to   net.Conn
		from io.Reader
	}{{d, c}, {c, f.kept(d)}} {
		go func() {
			_, _ = io.Copy(pair.to, pair.from) // ends when either side is closed
			_, _ = c.Close(), d.Close()
		}()
	}
}

// kept reads from ClickHouse, late.
func (f *forwarder) kept(from io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		n, err := from.Read(p)
		time.Sleep(time.Duration(f.late.Load()))
		return n, err
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// cut ends every connection and takes no more.
func (f *forwarder) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.l != nil {
		_ = f.l.Close()
	}
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.l, f.conns = nil, nil
}
