package main

import (
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// line is one command line of a person's, after the command's own words.
type line struct {
	status int
	args   []string
	// asked is what may be repeated to whoever wrote it, and nothing else.
	asked string
	// rows says that the output is of rows of the person's own file: only what goes to
	// standard error is searched.
	rows bool
}

// commandRoad is a command and what it is told of the canaries, or why none comes to it.
type commandRoad struct {
	command string
	why     string
	lines   func(x *told) []line
	// after says that it works on the folder of a server that was stopped.
	after bool
}

// told is what command lines name: a server, its folders, and a folder of the person's own.
type told struct {
	*roads
	cfg config
	dir string
}

func (a *told) file(name string) string { return filepath.Join(a.dir, name) }

// commandRoads are all commands. A new one needs a line here, which says what of a private
// value could come or go by it, or why nothing can.
var commandRoads = []commandRoad{
	{command: "serve", why: "is the server that the other tests send everything to"},
	{command: "demo", why: "is a server over public rows of its own"},
	{command: "version", why: "reads nothing"},
	{command: "clickhouse env", why: "tells an address and a password of the store, and reads no rows"},
	{command: "clickhouse run", why: "tells an address and a password of the store, and reads no rows"},
	{command: "clickhouse fetch", why: "fetches a package"},
	{command: "import", lines: func(x *told) []line {
		args := []string{"--url", x.url, "--model", "made", "--version", "1", "--id", "key", "--outputs", "score"}
		return []line{
			{args: append(args, x.file("rows.csv"))},
			{args: append(args, x.file("wrong.csv")), status: 1},
			{args: append(args, x.file("ragged.csv")), status: 1},
			// What is no time is told to whoever says that it is one.
			{args: append(args, "--time", "text", x.file("rows.csv")), status: 2, asked: canaryText},
			{args: append(args, "--weight", "owner", x.file("rows.csv")), status: 1},
			{args: append(args, "--external-id", "owner", x.file("rows.csv"))},
			{args: []string{"--url", x.url, "--model", "made", "--labels", "--id", "key", "--label", "label", x.file("labels.csv")}},
			{args: []string{"--url", x.url, "--model", "made", "--labels", "--id", "key", "--label", "label", "--observed-at", "label", x.file("labels.csv")}, status: 2, asked: canaryMail},
			{args: []string{"--url", x.url, "--model", canaryText, "--id", "key", x.file("nothing.csv")}, status: 2, asked: canaryText},
		}
	}},
	{command: "export", lines: func(x *told) (out []line) {
		for _, model := range []string{"made", "drop", "mask", "hash", "seal", "rule"} {
			out = append(out, line{args: []string{"--model", model, "--clickhouse", x.cfg.ClickHouse}})
		}
		for _, where := range []string{"carrier = '" + canaryText + "'", "temp = " + canaryDigits} {
			out = append(out, line{args: []string{"--model", "hash", "--where", where, "--clickhouse", x.cfg.ClickHouse}, asked: where})
		}
		return append(out,
			line{args: []string{"--external-id", canaryMail, "--url", x.url}, asked: canaryMail},
			line{args: []string{"--external-id", "a person's", "--url", x.url}},
			line{args: []string{"--prediction-id", x.ids["made"], "--url", x.url}},
			line{args: []string{"--model", "made", "--from", canaryText, "--clickhouse", x.cfg.ClickHouse}, asked: canaryText, status: 2})
	}},
	{command: "rollups check", lines: func(x *told) []line {
		return []line{{args: []string{"--url", x.url}}, {args: []string{"--url", x.url, "--format", "json"}}}
	}},
	{command: "rollups repair", lines: func(x *told) []line { return []line{{args: []string{"--url", x.url}}} }},
	{command: "erase", lines: func(x *told) []line {
		where := "carrier = '" + canaryText + "'"
		return []line{
			{args: []string{"--url", x.url, "--external-id", canaryMail, "--dry-run"}, asked: canaryMail},
			{args: []string{"--url", x.url, "--model", "drop", "--where", where, "--dry-run"}, asked: where, status: 2},
			{args: []string{"--url", x.url, "--model", "mask", "--where", canaryText + " = 1", "--dry-run"}, asked: canaryText, status: 2},
			{args: []string{"--url", x.url, "--prediction-id", canaryText, "--yes"}, asked: canaryText},
			{args: []string{"--url", x.url, "--model", "rule", "--where", everyRow}, status: 2},
			{args: []string{"--url", x.url, "--model", "rule", "--external-id", "a person's", "--forget", canaryText, "--yes"}, asked: canaryText},
		}
	}},
	{command: "predict", lines: offlineLines},
	{command: "model predict", lines: offlineLines},
	{command: "explain", lines: offlineLines},
	{command: "drift", lines: func(x *told) []line {
		return []line{
			{args: []string{"--reference", x.file("flights.csv"), "--current", x.file("flights.csv"), "--min-rows", "1"}, rows: true},
			{args: []string{"--reference", x.file("flights.csv"), "--current", x.file("letters.csv"), "--min-rows", "1"}, status: 1},
			{args: []string{"--reference", x.file("flights.csv"), "--current", x.file("ragged.csv")}, status: 1},
			{args: []string{"--reference", x.file("flights.csv"), "--current", x.file("flights.csv"), "--timestamp", "carrier", "--chunk", "1d"}, status: 1},
		}
	}},
	{command: "model inspect", lines: func(x *told) []line {
		return []line{{args: []string{gbm + "model.ubj"}}, {args: []string{filepath.Join(x.cfg.Models, "mask", "1", "model.ubj")}}, {args: []string{x.file("letters.csv")}, status: 1}}
	}},
	{command: "model bench", lines: func(x *told) []line {
		return []line{{args: []string{gbm + "model.ubj", "--seconds", "0"}}, {args: []string{gbm + "model.ubj", "--data", x.file("flights.csv"), "--seconds", "0", "--format", "json"}}, {args: []string{gbm + "model.ubj", "--data", x.file("letters.csv")}, status: 1, rows: true}}
	}},
	{command: "model test", lines: func(x *told) []line { return []line{{args: []string{x.file("case")}, status: 1, rows: true}} }},
	{command: "model audit", lines: func(x *told) []line {
		old := gbm + "model.ubj"
		return []line{
			{args: []string{old, old, "--input", x.file("flights.csv"), "--rounds", "0", "--explain-rows", "1"}},
			{args: []string{old, old, "--input", x.file("letters.csv"), "--rounds", "0"}, status: 1},
			{args: []string{old, old, "--input", x.file("flights.csv"), "--labels", "carrier", "--rounds", "0"}},
		}
	}},
	{command: "model compress", lines: func(x *told) []line {
		return []line{
			{args: []string{gbm + "model.ubj", "--to", "trees:5", "--out", x.file("small.ubj"), "--input", x.file("flights.csv"), "--rounds", "0", "--explain-rows", "1"}},
			{args: []string{gbm + "model.ubj", "--to", "trees:5", "--out", x.file("small2.ubj"), "--input", x.file("letters.csv"), "--rounds", "0"}, status: 1},
		}
	}},
	{command: "model fit", lines: func(x *told) []line {
		return []line{
			{args: []string{"--input", x.file("flights.csv"), "--label", "temp", "--output", x.file("temp.onnx")}},
			// The classes of a label are told to whoever fits a model to them.
			{args: []string{"--input", x.file("flights.csv"), "--label", "carrier", "--output", x.file("carrier.onnx")}, asked: canaryText},
			{args: []string{"--input", x.file("letters.csv"), "--label", "temp", "--output", x.file("letters.onnx")}, status: 1},
			{args: []string{"--input", x.file("ragged.csv"), "--label", "plain", "--output", x.file("ragged.onnx")}, status: 1},
		}
	}},
	{command: "spool dead list", lines: func(x *told) []line {
		return []line{{args: []string{"--url", x.url}}, {args: []string{"--dir", filepath.Join(x.cfg.Data, "spool", "dead")}}}
	}},
	{command: "spool dead show", lines: func(x *told) []line {
		return []line{{args: []string{"--url", x.url, x.letter()}}, {args: []string{"--url", x.url, canaryText}, status: 1, asked: canaryText}}
	}},
	{command: "spool dead edit", lines: func(x *told) []line {
		out := []line{{args: []string{"--url", x.url, canaryText, "--drop", "owner"}, status: 1, asked: canaryText}}
		for _, set := range []string{"owner=" + canaryText, "income=" + canaryDigits, "city=" + canaryText, "text=" + canaryText, "plain=" + canaryText, canaryText + "=1", canaryText} {
			status := 1
			if !strings.Contains(set, "=") {
				status = 2
			}
			out = append(out, line{args: []string{"--url", x.url, x.letter(), "--set", set}, status: status, asked: strings.TrimPrefix(set, "plain=")})
		}
		return append(out, line{args: []string{"--url", x.url, x.letter(), "--set", "plain=1", "--drop", "note"}})
	}},
	{command: "spool dead drive", lines: func(x *told) []line {
		return []line{{args: []string{"--url", x.url, canaryText}, status: 1, asked: canaryText}, {args: []string{"--url", x.url, x.letter()}}, {args: []string{"--url", x.url, "--all"}}}
	}},
	{command: "doctor", after: true, lines: func(x *told) []line {
		args := []string{"--data", x.cfg.Data, "--models", x.cfg.Models, "--clickhouse", x.cfg.ClickHouse, "--config", x.file("pellucid.yaml"), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"}
		return []line{{args: args}, {args: append(args, "--format", "json", "--tables")}}
	}},
	{command: "spool dump", after: true, lines: func(x *told) []line { return []line{{args: []string{filepath.Join(x.cfg.Data, "spool")}}} }},
	{command: "spool verify", after: true, lines: func(x *told) []line { return []line{{args: []string{filepath.Join(x.cfg.Data, "spool")}}} }},
	{command: "keys list", after: true, lines: keyLines(line{})},
	{command: "keys rotate", after: true, lines: keyLines(line{})},
	{command: "keys forget", after: true, lines: keyLines(line{args: []string{"--subject", canaryText}, asked: canaryText}, line{args: []string{"--subject", canaryDigits}, asked: canaryDigits})},
	{command: "keys rewrap", after: true, lines: keyLines(line{status: 2}, line{args: []string{"--to", canaryText}, status: 1, asked: canaryText})},
}

// recording are the roads by which something comes to be recorded.
var recording = []string{
	"POST /v2/models/:model/infer", "POST /v2/models/:model/generate", "POST /v1/models/:model", "POST /api/v1/predictions", "POST /v1/traces", "POST /api/v1/cloudevents", "POST /api/v1/feedback",
	"/inference.GRPCInferenceService/ModelInfer", "/pellucid.v1.Recorder/RecordPredictions", "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}

// keyLines are told the configuration's file.
func keyLines(list ...line) func(*told) []line {
	return func(x *told) []line {
		out := slices.Clone(list)
		for i := range out {
			out[i].args = append([]string{"--config", x.file("pellucid.yaml"), "--data", x.cfg.Data}, out[i].args...)
		}
		return out
	}
}

// offlineLines are of commands that answer for rows of a file: good ones, and those that no
// model takes.
func offlineLines(x *told) []line {
	return []line{
		{args: []string{"--model", gbm + "model.ubj", "--input", x.file("flights.csv")}, rows: true},
		{args: []string{"--model", gbm + "model.ubj", "--input", x.file("letters.csv")}, status: 1},
		{args: []string{"--model", gbm + "model.ubj", "--input", x.file("ragged.csv")}, status: 1},
		{args: []string{"--model", gbm + "model.ubj", "--input", x.file("rows.csv")}, status: 1},
		{args: []string{"--model", mlp + "model.onnx", "--input", x.file("letters.csv")}, status: 1},
		{args: []string{"--model", x.file("letters.csv"), "--input", x.file("flights.csv")}, status: 1},
	}
}

// letter is a dead letter of the server's.
func (a *told) letter() string {
	for _, l := range a.dead.List() {
		if l.Model == "letters" {
			return l.ID
		}
	}
	return "there is none"
}

// commandFiles are files with the canaries in good and bad places.
func commandFiles(t *testing.T, x *told) {
	t.Helper()
	head := "key,owner,income,city,text,note,plain,score\n"
	place(t, x.dir, "rows.csv", head+x.id("cli")+","+canaryText+","+canaryDigits+","+canaryText+","+canaryText+",to "+canaryMail+",1010,0.5\n")
	place(t, x.dir, "wrong.csv", head+x.id("cli")+","+canaryText+","+canaryText+","+canaryText+",x,y,1010,"+canaryText+"\n")
	place(t, x.dir, "ragged.csv", head+x.id("cli")+","+canaryText+","+canaryDigits+"\n\""+canaryText+"\"x,"+canaryText+"\n")
	place(t, x.dir, "nothing.csv", "key\n1\n")
	place(t, x.dir, "labels.csv", "key,label\nx,"+canaryMail+"\n")
	flights := "carrier,origin,temp,day_of_week,hour,minute,distance,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib\n"
	row := canaryText + ",JFK," + canaryDigits + ",1,8,30,500,40,50,200,10,12,0,1010,10\n"
	place(t, x.dir, "flights.csv", flights+strings.Repeat(row+"UA,JFK,40,1,8,30,500,40,50,200,10,12,0,1010,10\n", 50))
	place(t, x.dir, "letters.csv", flights+row+strings.Replace(row, canaryDigits, canaryText, 1))
	place(t, x.dir, "pellucid.yaml", "data: "+strconv.Quote(x.cfg.Data)+"\ncapture: {key: {file: "+strconv.Quote(x.cfg.Capture.Key.File)+"}}\n")
	// A case whose answer is another than what is expected.
	spec := engine.Spec{Name: "x", DType: engine.Float32, Shape: []int{-1, 1}}
	made, err := onnx.Encode(&onnx.Made{
		Graph:   &graph.Graph{Nodes: []*graph.Node{{Op: "Neg", Version: 13, Inputs: []string{"x"}, Outputs: []string{"y"}, Attrs: graph.Attrs{}}}, Inputs: []engine.Spec{spec}, Outputs: []string{"y"}},
		Outputs: []engine.Spec{{Name: "y", DType: engine.Float32, Shape: []int{-1, 1}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	place(t, x.dir, "case/model.onnx", string(made))
	tensor := func(name string, v float32) string { // a TensorProto of one by one
		bits := math.Float32bits(v)
		return "\x08\x01\x08\x01\x10\x01\x42\x01" + name + "\x4a\x04" + string([]byte{byte(bits), byte(bits >> 8), byte(bits >> 16), byte(bits >> 24)})
	}
	place(t, x.dir, "case/test_data_set_0/input_0.pb", tensor("x", canaryNumber))
	place(t, x.dir, "case/test_data_set_0/output_0.pb", tensor("y", 1))
}

// runnable are the commands that do something, by their words.
func runnable(c *cobra.Command) (out []string) {
	for _, sub := range c.Commands() {
		out = append(out, runnable(sub)...)
	}
	if len(out) == 0 {
		out = []string{strings.TrimPrefix(c.CommandPath(), "pellucid ")}
	}
	return out
}

// TestEveryCommand tells every command of the canaries, and looks for them in what it says,
// and afterwards on the disk, in the store and in the log.
func TestEveryCommand(t *testing.T) {
	var known []string
	for _, r := range commandRoads {
		if known = append(known, r.command); (r.why == "") == (r.lines == nil) {
			t.Errorf("%s is walked or has a reason, not both", r.command)
		}
	}
	all := runnable(rootCommand())
	for _, command := range all {
		if !slices.Contains(known, command) {
			t.Errorf("no canary goes to %q, and nothing says why not", command)
		}
	}
	for _, command := range known {
		if !slices.Contains(all, command) {
			t.Errorf("there is no command %q", command)
		}
	}
	r, cfg, _ := startRoads(t, func(*config) {})
	x := &told{roads: r, cfg: cfg, dir: t.TempDir()}
	commandFiles(t, x)
	for _, road := range slices.Concat(httpRoads, rpcRoads) {
		if slices.Contains(recording, road.route) {
			road.walk(t, x.roads)
		}
	}
	for model := range policies {
		x.send(t, sent{method: "POST", path: "/v2/models/" + model + "/infer", body: strings.Replace(flightBody(canaryText, canaryNumber), "{", `{"parameters":{"external_id":"a person's"},`, 1)})
	}
	x.stored(t)
	x.walkCommands(t, false)
	x.stored(t)
	x.tables(t)
	x.halt(t)
	x.walkCommands(t, true)
	searchFolder(t, cfg.Data)
	searchLog(t, x.log.String())
}

func (a *told) walkCommands(t *testing.T, after bool) {
	t.Helper()
	for _, r := range commandRoads {
		if r.after != after || r.lines == nil {
			continue
		}
		t.Run(r.command, func(t *testing.T) {
			// More than a few would be taken for a fault of the store's, which the drain waits for.
			if strings.HasPrefix(r.command, "spool dead") && a.letter() == "there is none" {
				for range 2 {
					a.send(t, sent{method: "POST", path: "/api/v1/predictions", body: madeRow("letters", a.id("letter"), "")})
				}
				until(t, "there are dead letters", func() bool { return a.letter() != "there is none" })
			}
			for _, l := range r.lines(a) {
				a.tell(t, r.command, l)
			}
		})
	}
}

// tell runs a command line and looks for the canaries in what it says.
func (a *told) tell(t *testing.T, name string, l line) {
	t.Helper()
	args := append(strings.Fields(name), l.args...)
	status, out, errs := command(t, args...)
	if l.rows {
		out = ""
	}
	s := sent{asked: l.asked}
	for text := range strings.Lines(out + errs) {
		if found := leaks(s.without([]byte(text))); found != "" {
			t.Errorf("pellucid %s shows %s: %.600s", strings.Join(args, " "), found, text)
		}
	}
	if status != l.status {
		t.Errorf("pellucid %s: %d, want %d: %.400s%.400s", strings.Join(args, " "), status, l.status, errs, out)
	}
}

// searchLog looks for the canaries in what a server logged.
func searchLog(t *testing.T, log string) {
	t.Helper()
	for line := range strings.Lines(log) {
		if found := leaks([]byte(line)); found != "" {
			t.Errorf("the log holds %s: %.400s", found, line)
		}
	}
}
