package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// record keeps what a room records, as the proxy does: each id once, and only of
// models of which a row with both parts has come.
type record struct {
	mu    sync.Mutex
	rows  map[string]*collector.Imported
	known map[string]bool
	err   error
}

func (r *record) take(_ context.Context, rows []*collector.Imported) ([]collector.ImportResult, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	out := make([]collector.ImportResult, len(rows))
	for i, p := range rows {
		if len(p.Features) > 0 && len(p.Outputs) > 0 {
			r.known[p.Model] = true
		}
		_, twice := r.rows[p.Model+" "+p.ID]
		switch {
		case !r.known[p.Model]:
			out[i] = collector.ImportResult{Status: collector.ImportRefused, Error: "not known"}
		case twice:
			out[i].Status = collector.ImportDuplicate
		default:
			out[i].Status = collector.ImportAccepted
			r.rows[p.Model+" "+p.ID] = p
		}
	}
	return out, nil
}

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) get() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type rig struct {
	*Room
	dir   string
	rec   *record
	clock *clock
}

func openRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir(), rec: &record{rows: map[string]*collector.Imported{}, known: map[string]bool{}}, clock: &clock{now: time.Now()}}
	r.reopen(t, change)
	return r
}

func (r *rig) config(change func(*Config)) Config {
	cfg := Config{
		Dir: r.dir, Key: func() ([]byte, error) { return []byte("a secret of the machine's"), nil }, Record: r.rec.take,
		Names: func(model, _ string) []string {
			if model == "named" {
				return []string{"age", "plan"}
			}
			return nil
		},
		Now: r.clock.get, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	return cfg
}

// reopen opens the room without the sweeps of its own, which would do what a test is
// about to do.
func (r *rig) reopen(t *testing.T, change func(*Config)) {
	t.Helper()
	room, err := open(r.config(change), vfs.OS{})
	if err == nil {
		err = room.observe()
	}
	if err != nil {
		t.Fatal(err)
	}
	room.stop = func() {}
	close(room.over)
	t.Cleanup(room.Close)
	r.Room = room
}

// TestRoomSweepsByItself: what has waited for long enough is recorded though nobody asks,
// that of an earlier run too.
func TestRoomSweepsByItself(t *testing.T) {
	r := openRig(t, nil)
	r.must(t, event(request, "known", "m", `{"instances":[1]}`), Waiting)
	r.must(t, event(response, "known", "m", `{"predictions":[1]}`), Recorded)
	r.must(t, event(request, "early", "m", `{"instances":[2]}`), Waiting)
	r.Close()
	room, err := Open(r.config(func(c *Config) { c.Wait = 20 * time.Millisecond }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(room.Close)
	r.Room = room
	r.must(t, event(request, "late", "m", `{"instances":[3]}`), Waiting)
	r.clock.forward(time.Hour)
	for range 1000 {
		if n, _ := room.Waiting(); n == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	n, _ := room.Waiting()
	t.Errorf("%d still wait", n)
}

func event(h half, id, name, data string) Event {
	return Event{ID: id, Type: "org.kubeflow.serving.inference." + string(h), Time: "2026-05-01T12:00:00Z", Extensions: map[string]string{"inferenceservicename": name, "specversion": "1.0"}, Data: []byte(data)}
}

func (r *rig) must(t *testing.T, e Event, want string) {
	t.Helper()
	if got, err := r.Take(t.Context(), e); err != nil || got.Status != want {
		t.Fatalf("%s of %s: %+v %v, want %q", e.Type, e.ID, got, err, want)
	}
}

func (r *rig) files(t *testing.T) int {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(r.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(slices.DeleteFunc(list, func(n string) bool { return filepath.Base(n) == listName }))
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestForms reads every form of payload that the loggers send.
func TestForms(t *testing.T) {
	for _, c := range []struct{ name, model, request, response, want string }{
		{"KServe v1, lists", "m", `{"instances":[[1,2.5],[3,null]]}`, `{"predictions":[0.25,0.75]}`, `[{"f0":1,"f1":2.5}{"prediction":0.25}][{"f0":3,"f1":null}{"prediction":0.75}]`},
		{"KServe v1, by the version's names", "named", `{"instances":[[41,"basic"]]}`, `{"predictions":[[0.25,0.75]]}`, `[{"age":41,"plan":"basic"}{"prediction":[0.25,0.75]}]`},
		{"KServe v1, objects", "m", `{"instances":[{"age":41,"plan":"basic"}]}`, `{"predictions":[{"score":0.5,"label":"yes"}]}`, `[{"age":41,"plan":"basic"}{"label":"yes","score":0.5}]`},
		{"KServe v1, images", "m", `{"instances":[[[[1,2],[3,4]]],[[[5,6],[7,8]]]]}`, `{"predictions":[0.25,0.75]}`, `[{"f0":1,"f1":2,"f2":3,"f3":4}{"prediction":0.25}][{"f0":5,"f1":6,"f2":7,"f3":8}{"prediction":0.75}]`},
		{"KServe v1, lists in objects", "m", `{"instances":[{"v":[[1,2],[3]],"one":[7],"age":41}]}`, `{"predictions":["yes"]}`, `[{"age":41,"one":7,"v[0]":1,"v[1]":2,"v[2]":3}{"prediction":"yes"}]`},
		{"KServe v1, bare", "m", `{"instances":[7]}`, `{"predictions":["yes"]}`, `[{"f0":7}{"prediction":"yes"}]`},
		{
			"OIP, a matrix", "m", `{"id":"x","inputs":[{"name":"input-0","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4]]}]}`,
			`{"model_name":"m","outputs":[{"name":"p","shape":[2,1],"datatype":"FP32","data":[0.5,0.25]},{"name":"q","shape":[2,2],"datatype":"INT64","data":[1,2,3,4]}]}`,
			`[{"f0":1,"f1":2}{"p":0.5,"q":[1,2]}][{"f0":3,"f1":4}{"p":0.25,"q":[3,4]}]`,
		},
		{
			"OIP, columns", "m", `{"inputs":[{"name":"age","shape":[1],"datatype":"INT64","data":[41]},{"name":"plan","shape":[1,1],"datatype":"BYTES","data":["basic"]},{"name":"e","shape":[1,2],"datatype":"FP64","data":[1,2]}]}`,
			`{"model_name":"m","outputs":[{"name":"p","shape":[1],"datatype":"BOOL","data":[true]}]}`, `[{"age":41,"e[0]":1,"e[1]":2,"plan":"basic"}{"p":true}]`,
		},
		{"Seldon, ndarray", "m", `{"data":{"names":["age","plan"],"ndarray":[[41,"basic"]]}}`, `{"meta":{},"data":{"names":["a","b"],"ndarray":[[0.25,0.75]]}}`, `[{"age":41,"plan":"basic"}{"a":0.25,"b":0.75}]`},
		{"Seldon, tensor", "m", `{"data":{"tensor":{"shape":[2,2],"values":[1,2,3,4]}}}`, `{"data":{"tensor":{"shape":[2],"values":[0.5,0.25]}}}`, `[{"f0":1,"f1":2}{"prediction":0.5}][{"f0":3,"f1":4}{"prediction":0.25}]`},
		{"Seldon, three dimensions", "m", `{"data":{"tensor":{"shape":[2,1,2],"values":[1,2,3,4]}}}`, `{"data":{"tensor":{"shape":[2,2,1],"values":[1,2,3,4]}}}`, `[{"f0":1,"f1":2}{"prediction":[1,2]}][{"f0":3,"f1":4}{"prediction":[3,4]}]`},
		{"Seldon, JSON", "m", `{"jsonData":{"age":41,"plan":"basic"}}`, `{"jsonData":{"score":0.25}}`, `[{"age":41,"plan":"basic"}{"score":0.25}]`},
		{"Seldon, JSON of rows", "m", `{"jsonData":[{"age":41},{"age":42}]}`, `{"jsonData":[[1,2],[3,4]]}`, `[{"age":41}{"prediction":[1,2]}][{"age":42}{"prediction":[3,4]}]`},
		{"Seldon, text", "m", `{"strData":"so it is"}`, `{"strData":"yes"}`, `[{"f0":"so it is"}{"prediction":"yes"}]`},
		{"Seldon, without names", "named", `{"data":{"ndarray":[[41,"basic"]]}}`, `{"data":{"names":[],"ndarray":[[0.25,0.75]]}}`, `[{"age":41,"plan":"basic"}{"prediction":[0.25,0.75]}]`},
	} {
		r := openRig(t, nil)
		r.must(t, event(request, "a", c.model, c.request), Waiting)
		r.must(t, event(response, "a", c.model, c.response), Recorded)
		got, n := "", len(r.rec.rows)
		for i := range n {
			p := r.rec.rows[c.model+" "+collector.RowID("a", i, n)]
			if p == nil || p.Version != "1" || p.Time != "2026-05-01T12:00:00Z" || p.Status != 0 {
				t.Fatalf("%s: row %d is %+v", c.name, i, p)
			}
			got += "[" + text(t, p.Features) + text(t, p.Outputs) + "]"
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestNames maps what the loggers say to models, versions and ids.
func TestNames(t *testing.T) {
	for _, c := range []struct{ extensions, want string }{
		{"inferenceservicename=iris,namespace=default,component=predictor,endpoint=default", "iris 1 e"},
		{"inferenceservicename=iris,namespace=prod,component=predictor,endpoint=canary", "prod.iris canary e"},
		{"inferenceservicename=iris,component=transformer", "iris-transformer 1 e"},
		{"inferenceservicename=loan,modelid=classifier,requestid=puid-1,endpoint=blue", "loan.classifier blue puid-1"},
		{"inferenceservicename=a b/c", "a_b_c 1 e"},
	} {
		e := event(request, "e", "", `{"instances":[1]}`)
		for pair := range strings.SplitSeq(c.extensions, ",") {
			name, value, _ := strings.Cut(pair, "=")
			e.Extensions[name] = value
		}
		k, err := openRig(t, nil).read(e)
		if err != nil || k.Model+" "+k.Version+" "+k.ID != c.want {
			t.Errorf("%s: %+v %v, want %s", c.extensions, k, err, c.want)
		}
	}
	e := event(request, "e", "m", `{"instances":[1]}`)
	e.Extensions["traceparent"] = "00-" + strings.Repeat("ab", 16) + "-" + strings.Repeat("cd", 8) + "-01"
	if k, err := openRig(t, nil).read(e); err != nil || k.Trace != strings.Repeat("ab", 16) || k.Span != strings.Repeat("cd", 8) {
		t.Errorf("%+v %v", k, err)
	}
}

// TestModes reads the three ways in which an event travels by HTTP.
func TestModes(t *testing.T) {
	plain := `{"instances":[[1,2]]}`
	whole := `{"specversion":"1.0","id":"a b","type":"t","source":"s","time":"2026-05-01T12:00:00Z","inferenceservicename":"m","data":` + plain + `}`
	based := `{"specversion":"1.0","id":"b","type":"t","source":"s","data_base64":"eyJpbnN0YW5jZXMiOltbMSwyXV19"}`
	for _, c := range []struct {
		name, kind, body string
		headers          map[string]string
		ids, refuse      string
	}{
		{name: "binary", kind: "application/json", body: plain, headers: map[string]string{"Ce-Id": "a%20b", "Ce-Type": "t", "Ce-Specversion": "1.0", "Ce-Inferenceservicename": "m"}, ids: "a b"},
		{name: "structured", kind: "application/cloudevents+json; charset=utf-8", body: whole, ids: "a b"},
		{name: "base64", kind: "application/cloudevents+json", body: based, ids: "b"},
		{name: "batch", kind: "application/cloudevents-batch+json", body: "[" + whole + "," + based + "]", ids: "a b,b"},
		{name: "no event", kind: "application/json", body: plain, refuse: "no CloudEvent"},
		{name: "an empty batch", kind: "application/cloudevents-batch+json", body: "[]", refuse: "list"},
		{name: "no JSON", kind: "application/cloudevents+json", body: "x", refuse: "not a CloudEvent"},
		{name: "no base64", kind: "application/cloudevents+json", body: strings.Replace(based, "eyJ", "!", 1), refuse: "base64"},
		{name: "a key twice", kind: "application/cloudevents+json", body: strings.Replace(whole, "{", `{"id":"c",`, 1), refuse: "not a CloudEvent"},
		{name: "a long id", kind: "application/cloudevents+json", body: strings.Replace(whole, "a b", strings.Repeat("a", 2000), 1), refuse: "longer"},
	} {
		h := http.Header{"Content-Type": {c.kind}}
		for k, v := range c.headers {
			h.Set(k, v)
		}
		list, err := Read(h, []byte(c.body))
		var refused *Refusal
		if c.refuse != "" {
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.refuse) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		var ids []string
		for _, e := range list {
			ids = append(ids, e.ID)
			if string(e.Data) != plain {
				t.Errorf("%s: data %s", c.name, e.Data)
			}
		}
		if err != nil || strings.Join(ids, ",") != c.ids {
			t.Errorf("%s: %v %v", c.name, ids, err)
		}
	}
}

// TestHalvesJoin: in either order, however often each comes, across a restart, and
// with nothing in clear on disk.
func TestHalvesJoin(t *testing.T) {
	const canary = "canary-5544"
	for _, order := range [][2]half{{request, response}, {response, request}} {
		r := openRig(t, func(c *Config) { c.Sync = true })
		data := map[half]string{request: `{"instances":[["` + canary + `"],["b"]]}`, response: `{"predictions":[1,"` + canary + `"]}`}
		for range 3 {
			r.must(t, event(order[0], "a", "m", data[order[0]]), Waiting)
		}
		if n, size := r.Waiting(); n != 1 || size <= 0 || r.files(t) != 1 {
			t.Fatalf("%d halves of %d bytes, %d files", n, size, r.files(t))
		}
		r.Close()
		for _, path := range must(filepath.Glob(filepath.Join(r.dir, "*"))) {
			if b := must(os.ReadFile(path)); bytes.Contains(b, []byte(canary)) || bytes.Contains(b, []byte("instances")) {
				t.Error("a half is in clear on disk")
			}
		}
		if err := os.WriteFile(filepath.Join(r.dir, "torn.request.half.new"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.reopen(t, nil)
		r.rec.err = collector.ErrFull
		if _, err := r.Take(t.Context(), event(order[1], "a", "m", data[order[1]])); !errors.Is(err, collector.ErrFull) {
			t.Errorf("full: %v", err)
		}
		r.rec.err = nil
		r.must(t, event(order[1], "a", "m", data[order[1]]), Recorded)
		if n, size := r.Waiting(); n != 0 || size != 0 || r.files(t) != 0 || len(r.rec.rows) != 2 {
			t.Fatalf("%d halves of %d bytes, %d files, %d rows", n, size, r.files(t), len(r.rec.rows))
		}
		r.must(t, event(order[1], "a", "m", data[order[1]]), Duplicate)
		// Sent again when nobody remembers it, a half waits in vain and changes nothing.
		r.Close()
		r.reopen(t, nil)
		r.must(t, event(order[1], "a", "m", data[order[1]]), Waiting)
		r.clock.forward(time.Hour)
		r.sweep(t.Context())
		if n, _ := r.Waiting(); n != 0 || len(r.rec.rows) != 2 || r.rec.rows["m a.0"].Status != 0 {
			t.Errorf("again: %d wait, rows %+v", n, r.rec.rows)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestAloneAfterItsTime: a request without a response is a failed prediction, a
// response without a request one without features; of a model that nobody knows yet
// it is kept, and in the end given up.
func TestAloneAfterItsTime(t *testing.T) {
	r := openRig(t, func(c *Config) { c.Wait, c.GiveUp = time.Minute, time.Hour })
	r.must(t, event(request, "a", "m", `{"instances":[1,2]}`), Waiting)
	r.must(t, event(response, "b", "m", `{"predictions":[0.5]}`), Waiting)
	r.sweep(t.Context())
	if n, _ := r.Waiting(); n != 2 {
		t.Fatal("recorded before its time")
	}
	r.clock.forward(time.Minute)
	r.sweep(t.Context())
	if n, _ := r.Waiting(); n != 2 || len(r.rec.rows) != 0 {
		t.Fatalf("%d wait, %d rows of a model that nobody knows", n, len(r.rec.rows))
	}
	r.rec.known["m"] = true
	r.sweep(t.Context())
	if len(r.rec.rows) != 0 {
		t.Error("asked again before its time")
	}
	r.clock.forward(time.Minute)
	r.sweep(t.Context())
	a, b := r.rec.rows["m a.1"], r.rec.rows["m b"]
	if n, _ := r.Waiting(); n != 0 || a == nil || b == nil || a.Status != 504 || a.Outputs != nil || string(a.Features["f0"]) != "2" || !strings.Contains(a.Error, "no response") ||
		b.Status != 0 || b.Features != nil || !strings.Contains(b.Error, "no request") {
		t.Errorf("%d wait, %+v %+v", n, a, b)
	}
	var log bytes.Buffer
	r.cfg.Logger, r.cfg.LogID = slog.New(slog.NewTextHandler(&log, nil)), strings.ToUpper
	long := strings.Repeat("é", 200)
	r.must(t, event(request, "c", "unknown", `{"instances":[1]}`), Waiting)
	r.must(t, event(request, long, "unknown", `{"instances":[2718281828]}`), Waiting)
	r.clock.forward(time.Minute)
	r.sweep(t.Context())
	r.clock.forward(time.Hour)
	r.sweep(t.Context())
	for _, want := range []string{"cannot be recorded alone yet", "given up", "model=unknown", "id=C", "half=request"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q: %s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "2718281828") || strings.Contains(log.String(), strings.ToUpper(long)) {
		t.Errorf("the log has too much: %s", log.String())
	}
	r.cfg.Logger = slog.New(slog.DiscardHandler)
	if n, _ := r.Waiting(); n != 0 || r.files(t) != 0 {
		t.Errorf("%d wait for ever", n)
	}
	// An append that fails now is tried again.
	r.must(t, event(request, "d", "m", `{"instances":[1]}`), Waiting)
	r.rec.err = collector.ErrFull
	r.clock.forward(time.Minute)
	r.sweep(t.Context())
	r.rec.err = nil
	if n, _ := r.Waiting(); n != 1 {
		t.Error("lost while the spool was full")
	}
	r.clock.forward(time.Minute)
	r.sweep(t.Context())
	if n, _ := r.Waiting(); n != 0 || r.rec.rows["m d"] == nil {
		t.Errorf("%d wait", n)
	}
}

// TestRefusedEvents are told why, and leave what waits alone.
func TestRefusedEvents(t *testing.T) {
	r := openRig(t, func(c *Config) { c.MaxHalves = 1 })
	for what, e := range map[string]Event{
		"another type":        {ID: "a", Type: "io.seldon.serving.inference.outlier", Extensions: map[string]string{"inferenceservicename": "m"}, Data: []byte(`{"instances":[1]}`)},
		"no model":            event(request, "a", "", `{"instances":[1]}`),
		"a long name":         event(request, "a", strings.Repeat("m", 129), `{"instances":[1]}`),
		"no JSON":             event(request, "a", "m", "\x00\x01"),
		"no data":             event(request, "a", "m", ""),
		"another form":        event(request, "a", "m", `{"text":"x"}`),
		"the wrong half":      event(request, "a", "m", `{"predictions":[1]}`),
		"no rows":             event(request, "a", "m", `{"instances":[]}`),
		"too many rows":       event(request, "a", "m", `{"instances":[`+strings.Repeat("1,", maxRows)+`1]}`),
		"too many values":     event(request, "a", "m", `{"instances":[[`+strings.Repeat("1,", maxColumns)+`1]]}`),
		"a shape of nothing":  event(request, "a", "m", `{"data":{"tensor":{"shape":[0,4],"values":[]}}}`),
		"a text that is none": event(request, "a", "m", `{"strData":7}`),
		"bytes":               event(request, "a", "m", `{"binData":"AAAA"}`),
		"a huge shape":        event(request, "a", "m", `{"data":{"tensor":{"shape":[4611686018427387904,4],"values":[1]}}}`),
		"differing tensors":   event(request, "a", "m", `{"inputs":[{"name":"a","shape":[1],"datatype":"FP32","data":[1]},{"name":"b","shape":[2],"datatype":"FP32","data":[1,2]}]}`),
	} {
		var refused *Refusal
		if _, err := r.Take(t.Context(), e); !errors.As(err, &refused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n, _ := r.Waiting(); n != 0 {
		t.Errorf("%d refused events wait", n)
	}
	r.must(t, event(request, "a", "m", `{"instances":[1,2]}`), Waiting)
	var refused *Refusal
	if _, err := r.Take(t.Context(), event(response, "a", "m", `{"predictions":[1]}`)); !errors.As(err, &refused) {
		t.Errorf("another number of rows: %v", err)
	}
	if _, err := r.Take(t.Context(), event(request, "b", "m", `{"instances":[1]}`)); !errors.Is(err, collector.ErrFull) {
		t.Errorf("a full room: %v", err)
	}
	r.must(t, event(response, "a", "m", `{"predictions":[1,2]}`), Recorded)
}

// TestTamperedFile is neither believed nor deleted.
func TestTamperedFile(t *testing.T) {
	r := openRig(t, nil)
	r.must(t, event(request, "a", "m", `{"instances":[1]}`), Waiting)
	for _, path := range must(filepath.Glob(filepath.Join(r.dir, "*"))) {
		b := must(os.ReadFile(path))
		b[len(b)-1] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.must(t, event(response, "a", "m", `{"predictions":[1]}`), Waiting)
	if len(r.rec.rows) != 0 {
		t.Errorf("%d rows", len(r.rec.rows))
	}
	r.clock.forward(time.Hour)
	r.sweep(t.Context())
	if left := must(filepath.Glob(filepath.Join(r.dir, "*.damaged"))); len(left) != 1 || len(r.rec.rows) != 0 {
		t.Errorf("%v are left, %d rows", left, len(r.rec.rows)) // of a model that is not known
	}
}

// FuzzEvents: any request is refused or leaves a room that records what is whole.
func FuzzEvents(f *testing.F) {
	f.Add("application/json", []byte(`{"instances":[[1,2],[3,4]]}`), []byte(`{"predictions":[1,2]}`))
	f.Add("application/json", []byte(`{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":[1,2]}]}`), []byte(`{"model_name":"m","outputs":[{"name":"p","shape":[1],"datatype":"FP32","data":[1]}]}`))
	f.Add("application/json", []byte(`{"data":{"names":["a"],"ndarray":[[1]]}}`), []byte(`{"data":{"tensor":{"shape":[1,1],"values":[1]}}}`))
	f.Add("application/cloudevents+json", []byte(`{"specversion":"1.0","id":"a","type":"t","data":{}}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, kind string, req, res []byte) {
		if list, err := Read(http.Header{"Content-Type": {kind}, "Ce-Id": {"a"}, "Ce-Type": {"t"}, "Ce-Specversion": {"1.0"}}, req); err == nil {
			for _, e := range list {
				if e.ID == "" || e.Type == "" {
					t.Errorf("%+v", e)
				}
			}
		}
		names := []string{"x", "y"}
		for h, data := range map[half][]byte{request: req, response: res} {
			rows, err := rowsOf(h, data, names)
			if err != nil {
				continue
			}
			if len(rows) == 0 || len(rows) > maxRows {
				t.Errorf("%d rows", len(rows))
			}
			for _, r := range rows {
				if _, err := json.Marshal(r); err != nil {
					t.Errorf("%v: %v", r, err)
				}
			}
		}
	})
}

func ExampleRead() {
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("Ce-Specversion", "1.0")
	h.Set("Ce-Id", "7")
	h.Set("Ce-Type", "org.kubeflow.serving.inference.request")
	list, err := Read(h, []byte(`{"instances":[[1,2]]}`))
	fmt.Println(list[0].ID, list[0].Type, err)
	// Output: 7 org.kubeflow.serving.inference.request <nil>
}

// TestHeldHalvesAreNeitherJoinedNorRecorded finds a half, and deletes it or lets it go.
func TestHeldHalvesAreNeitherJoinedNorRecorded(t *testing.T) {
	r := openRig(t, func(c *Config) { c.Wait = time.Hour })
	r.must(t, event(request, "known", "m", `{"instances":[1]}`), Waiting)
	r.must(t, event(response, "known", "m", `{"predictions":[1]}`), Recorded)
	r.must(t, event(request, "late", "m", `{"instances":[4]}`), Waiting)
	r.clock.forward(2 * time.Hour)
	for _, id := range []string{"a", "b", "c"} {
		r.must(t, event(request, id, "m", `{"instances":[{"owner":"`+id+`"}]}`), Waiting)
	}
	hold := func(want string) *Held {
		t.Helper()
		h, err := r.Hold(t.Context(), func(x *Half) (bool, error) { return x.ID == want && string(x.Rows[0]["owner"]) == `"`+want+`"`, nil })
		if err != nil || h.Len() != 1 || h.Unread != 0 {
			t.Fatalf("%+v, %v", h, err)
		}
		return h
	}
	h := hold("a")
	if _, ok := r.rec.rows["m late"]; !ok {
		t.Error("what has waited for long enough is not recorded first")
	}
	answer := event(response, "a", "m", `{"predictions":[1]}`)
	if _, err := r.Take(t.Context(), answer); !errors.Is(err, collector.ErrUnavailable) {
		t.Errorf("joined while it is held: %v", err)
	}
	r.clock.forward(2 * time.Hour)
	r.sweep(t.Context())
	if _, ok := r.rec.rows["m a"]; ok || r.files(t) != 1 {
		t.Errorf("recorded while it is held, or not the others: %d files", r.files(t))
	}
	r.clock.forward(-2 * time.Hour) // or a sweep of the room's own might record it alone first
	h.Release()
	r.must(t, answer, Recorded)
	if left, err := h.Delete(); left != 0 || err != nil { // it went another way
		t.Errorf("%d left, %v", left, err)
	}
	if n, bytes := r.Waiting(); n != 0 || bytes != 0 {
		t.Errorf("%d halves of %d bytes wait", n, bytes)
	}
	r.must(t, event(request, "d", "m", `{"instances":[{"owner":"d"}]}`), Waiting)
	h = hold("d")
	if left, err := h.Delete(); left != 0 || err != nil || r.files(t) != 0 {
		t.Errorf("%d left, %v, %d files", left, err, r.files(t))
	}
	if n, bytes := r.Waiting(); n != 0 || bytes != 0 {
		t.Errorf("%d halves of %d bytes wait", n, bytes)
	}
	h.Release()
	r.must(t, event(response, "d", "m", `{"predictions":[1]}`), Waiting)
	no := errors.New("no")
	if _, err := r.Hold(t.Context(), func(*Half) (bool, error) { return true, no }); !errors.Is(err, no) {
		t.Errorf("%v", err)
	}
}

// TestLateAndRepeatedHalves are told what became of their rows.
func TestLateAndRepeatedHalves(t *testing.T) {
	r := openRig(t, func(c *Config) { c.Wait = time.Minute })
	r.rec.known["m"] = true
	r.must(t, event(request, "late", "m", `{"instances":[1,2]}`), Waiting)
	r.clock.forward(time.Minute)
	r.sweep(t.Context())
	r.must(t, event(response, "late", "m", `{"predictions":[1,2]}`), Duplicate)
	// Where nobody remembers, both halves that come again are joined, and told the same.
	r.Close()
	r.reopen(t, nil)
	r.must(t, event(request, "late", "m", `{"instances":[1,2]}`), Waiting)
	r.must(t, event(response, "late", "m", `{"predictions":[1,2]}`), Duplicate)
	if p := r.rec.rows["m late.1"]; p == nil || p.Status != http.StatusGatewayTimeout || p.Outputs != nil || r.files(t) != 0 {
		t.Errorf("%+v, %d files", p, r.files(t))
	}
}

// TestRowsThatAreRefused: of a pair that fits but for some rows the others are recorded,
// and its sender is told; those are not made failures later. Where none fits, the other
// half goes on waiting.
func TestRowsThatAreRefused(t *testing.T) {
	r := openRig(t, nil)
	r.cfg.Record = func(ctx context.Context, rows []*collector.Imported) ([]collector.ImportResult, error) {
		var fit []*collector.Imported
		out := make([]collector.ImportResult, len(rows))
		for i, p := range rows {
			if out[i] = (collector.ImportResult{Status: collector.ImportRefused, Error: "it must be a number"}); string(p.Outputs["prediction"]) != `"x"` {
				fit, out[i].Status = append(fit, p), collector.ImportAccepted
			}
		}
		_, err := r.rec.take(ctx, fit)
		return out, err
	}
	r.must(t, event(request, "a", "m", `{"instances":[1,2,3]}`), Waiting)
	got, err := r.Take(t.Context(), event(response, "a", "m", `{"predictions":[1,"x","x"]}`))
	if want := (Outcome{Status: Recorded, Refused: 2, Reason: "row 2: it must be a number"}); got != want || err != nil {
		t.Errorf("%+v %v", got, err)
	}
	r.must(t, event(request, "b", "m", `{"instances":[1,2]}`), Waiting)
	var refused *Refusal
	if _, err := r.Take(t.Context(), event(response, "b", "m", `{"predictions":["x","x"]}`)); !errors.As(err, &refused) || r.files(t) != 1 {
		t.Errorf("%v, %d files", err, r.files(t))
	}
	r.clock.forward(time.Hour)
	r.sweep(t.Context())
	if len(r.rec.rows) != 3 || r.rec.rows["m b.1"].Status != http.StatusGatewayTimeout || r.files(t) != 0 {
		t.Errorf("%v, %d files", r.rec.rows, r.files(t))
	}
}

// TestHeldPair: both halves are found and deleted where either is the subject's.
func TestHeldPair(t *testing.T) {
	r := openRig(t, nil)
	r.must(t, event(request, "a", "m", `{"instances":[{"owner":"o"},{"owner":"p"}]}`), Waiting)
	r.rec.err = collector.ErrFull
	if _, err := r.Take(t.Context(), event(response, "a", "m", `{"predictions":[1,2]}`)); !errors.Is(err, collector.ErrFull) || r.files(t) != 2 {
		t.Fatalf("%v, %d files", err, r.files(t))
	}
	h, err := r.Hold(t.Context(), func(x *Half) (bool, error) { return x.Half == "request", nil })
	if err != nil || h.Len() != 2 {
		t.Fatalf("%+v, %v", h, err)
	}
	r.rec.err = nil
	r.sweep(t.Context())
	if left, err := h.Delete(); left != 0 || err != nil || r.files(t) != 0 || len(r.rec.rows) != 0 {
		t.Errorf("%d left, %v, %d files, %v", left, err, r.files(t), r.rec.rows)
	}
}

// TestAHalfKeepsItsRules: what was private when a request came is not recorded in clear
// because it no longer is when the response does, also after a restart and under other names.
func TestAHalfKeepsItsRules(t *testing.T) {
	policies := map[string]collector.Privacy{"plan": collector.PrivacyMask}
	names := []string{"age", "plan"}
	configure := func(c *Config) {
		c.Private = func(string, string, []string) (map[string]collector.Privacy, error) { return policies, nil }
		c.Names = func(string, string) []string { return names }
	}
	r := openRig(t, configure)
	take := func(h half, id, data string) {
		t.Helper()
		if _, err := r.Take(t.Context(), event(h, id, "named", data)); err != nil {
			t.Fatal(err)
		}
	}
	plan := func(id string) string { return string(r.rec.rows["named "+id].Features["plan"]) }
	for _, id := range []string{"looser", "stricter", "same", "renamed"} {
		take(request, id, `{"instances":[[41,"basic"]]}`)
	}
	r.Close()
	r.reopen(t, configure)
	take(response, "same", `{"predictions":[1]}`)
	policies = map[string]collector.Privacy{"plan": collector.PrivacyDrop}
	take(response, "stricter", `{"predictions":[1]}`)
	for _, id := range []string{"same", "stricter"} { // the version itself hides it
		if got := plan(id); got != `"basic"` {
			t.Errorf("%s: %s", id, got)
		}
	}
	policies = map[string]collector.Privacy{"plan": collector.PrivacyHash}
	take(response, "looser", `{"predictions":[1]}`)
	if got := plan("looser"); got != "null" {
		t.Errorf("looser: %s", got)
	}
	policies, names = nil, []string{"plan", "other"}
	take(response, "renamed", `{"predictions":[1]}`)
	for name, v := range r.rec.rows["named renamed"].Features {
		if string(v) == `"basic"` {
			t.Errorf("renamed: %s is %s", name, v)
		}
	}
}

// TestAHalfWhoseRulesAreNotKnown is not taken, and what waits already is kept, until they
// are; so it is with the key of the room.
func TestAHalfWhoseRulesAreNotKnown(t *testing.T) {
	var closed, lost error
	r := openRig(t, func(c *Config) {
		c.Private = func(_, _ string, features []string) (map[string]collector.Privacy, error) {
			if len(features) > 0 && text(t, features) != `["f0"]` {
				t.Errorf("asked for %v", features)
			}
			return map[string]collector.Privacy{"f0": collector.PrivacyMask}, closed
		}
		c.Key = func() ([]byte, error) { return []byte("a secret of the machine's"), lost }
	})
	refused := func(want error, e Event) {
		t.Helper()
		before := r.files(t)
		if got, err := r.Take(t.Context(), e); !errors.Is(err, want) || r.files(t) != before {
			t.Errorf("%s of %s: %+v, %v", e.Type, e.ID, got, err)
		}
	}
	first, second := event(request, "a", "m", `{"instances":[1]}`), event(response, "a", "m", `{"predictions":[1]}`)
	lost = errors.New("no key today")
	refused(collector.ErrUnavailable, first)
	lost = nil
	r.must(t, first, Waiting)
	closed = collector.ErrNotReady
	refused(collector.ErrNotReady, second)
	refused(collector.ErrNotReady, event(request, "b", "m", `{"instances":[1]}`))
	r.clock.forward(48 * time.Hour)
	r.sweep(t.Context())
	if n, _ := r.Waiting(); n != 1 || len(r.rec.rows) != 0 {
		t.Errorf("%d wait, %d rows", n, len(r.rec.rows))
	}
	closed = nil
	r.must(t, second, Recorded)
}

// TestADamagedHalfIsSetAside: it neither answers for the one that is sent again nor stands in
// the way of its other half.
func TestADamagedHalfIsSetAside(t *testing.T) {
	for _, again := range []half{request, response} {
		r := openRig(t, nil)
		first, second := event(request, "a", "m", `{"instances":[1]}`), event(response, "a", "m", `{"predictions":[1]}`)
		r.must(t, first, Waiting)
		names, err := filepath.Glob(filepath.Join(r.cfg.Dir, "*"+suffix))
		if err != nil || len(names) != 1 {
			t.Fatal(names, err)
		}
		if err := os.Truncate(names[0], 0); err != nil {
			t.Fatal(err)
		}
		if again == response {
			r.must(t, second, Waiting)
			r.must(t, first, Recorded)
		} else {
			r.must(t, first, Waiting)
			r.must(t, second, Recorded)
		}
		if left, err := filepath.Glob(filepath.Join(r.cfg.Dir, "*.damaged")); err != nil || len(left) != 1 {
			t.Error(left, err)
		}
		if n, bytes := r.Waiting(); n != 0 || bytes != 0 || len(r.rec.rows) != 1 {
			t.Errorf("%d wait, %d bytes, %d rows", n, bytes, len(r.rec.rows))
		}
	}
}
