//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pellucid/pellucid/engine/enginetest"
)

// Hostile files are given to the command line in a child process that may take
// hostileMemory, whatever the garbage collector is told, and hostileTime
// for each: what a file makes of it is an answer or a refusal, never a panic, a process
// that is killed, or one that does not end.
const (
	hostileMemory = 1500 << 20
	hostileTime   = 30 * time.Second
	hostileRun    = 15 * time.Second
	hostileEnv    = "PELLUCID_TEST_HOSTILE"
	hostileMark   = "\x1eend"
)

// runHostileIfAsked is the child: each line of its input is a command, as JSON.
func runHostileIfAsked() {
	if os.Getenv(hostileEnv) == "" {
		return
	}
	if err := limitData(hostileMemory); err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var args []string
		if err := json.Unmarshal(in.Bytes(), &args); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		var out, errs short
		// A run ends with its context, as a server's does after limits.timeout.
		ctx, cancel := context.WithTimeout(context.Background(), hostileRun)
		status := run(ctx, args, &out, &errs)
		cancel()
		fmt.Printf("%s %s%s %d\n", &out, &errs, hostileMark, status)
	}
	os.Exit(0)
}

// short keeps the beginning of what is written to it.
type short struct{ bytes.Buffer }

func (s *short) Write(p []byte) (int, error) {
	if n := 4096 - s.Len(); n > 0 {
		s.Buffer.Write(p[:min(n, len(p))])
	}
	return len(p), nil
}

// hostileChild gives commands to one process after the other.
type hostileChild struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  chan string
	errs bytes.Buffer
}

func startHostile(t *testing.T) *hostileChild {
	t.Helper()
	c := &hostileChild{cmd: exec.Command(os.Args[0]), out: make(chan string)}
	c.cmd.Env = append(os.Environ(), hostileEnv+"=1", "GOMEMLIMIT=off", "GOTRACEBACK=single")
	c.cmd.Stderr = &c.errs
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in = in
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.out)
		r := bufio.NewReader(out)
		for text := ""; ; {
			line, err := r.ReadString('\n')
			text += line
			if strings.Contains(line, hostileMark) {
				c.out <- text
				text = ""
			}
			if err != nil {
				return
			}
		}
	}()
	return c
}

func (c *hostileChild) stop() {
	_ = c.in.Close()         // it ends at the end of its input
	_ = c.cmd.Process.Kill() // or now
	for range c.out {
	}
	_ = c.cmd.Wait() // killed
}

// ask runs one command. What is wrong is that the child did not survive it.
func (c *hostileChild) ask(args []string) (answer, wrong string) {
	line, err := json.Marshal(args)
	if err != nil {
		return "", err.Error()
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return "", err.Error()
	}
	select {
	case answer, ok := <-c.out:
		if !ok {
			_ = c.cmd.Wait() // how it ended is told
			text := c.errs.String()
			return "", fmt.Sprintf("%v: %s", c.cmd.ProcessState, text[:min(len(text), 1500)])
		}
		if strings.Contains(answer, "goroutine ") || strings.Contains(answer, "runtime error") {
			return answer, "a panic's text: " + answer
		}
		return answer, ""
	case <-time.After(hostileTime):
		return "", fmt.Sprintf("no answer within %v", hostileTime)
	}
}

// hostile runs commands and reports those that a process did not survive alone.
func hostile(t *testing.T, commands map[string][]string) {
	t.Helper()
	names := make([]string, 0, len(commands))
	for name := range commands {
		names = append(names, name)
	}
	slices.Sort(names)
	c := startHostile(t)
	defer func() { c.stop() }()
	refused := 0
	for _, name := range names {
		answer, wrong := c.ask(commands[name])
		if wrong != "" {
			c.stop()
			c = startHostile(t)
			if answer, wrong = c.ask(commands[name]); wrong != "" {
				t.Errorf("%s: %v: %s", name, commands[name], wrong)
				c.stop()
				c = startHostile(t)
				continue
			}
		}
		if !strings.HasSuffix(answer, " 0\n") {
			refused++
		}
		if testing.Verbose() && len(names) < 400 {
			t.Logf("%s: %.300s", name, strings.ReplaceAll(answer, hostileMark, ""))
		}
	}
	t.Logf("%d files, %d refused", len(names), refused)
	if refused == 0 {
		t.Error("nothing was refused: the files are not hostile")
	}
}

func write(t *testing.T, file string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// pb builds a protobuf message from field numbers and values.
func pb(parts ...any) []byte {
	var b []byte
	for i := 0; i < len(parts); i += 2 {
		id := protowire.Number(parts[i].(int))
		switch v := parts[i+1].(type) {
		case int:
			b = protowire.AppendVarint(protowire.AppendTag(b, id, protowire.VarintType), uint64(v))
		case string:
			b = protowire.AppendString(protowire.AppendTag(b, id, protowire.BytesType), v)
		case []byte:
			b = protowire.AppendBytes(protowire.AppendTag(b, id, protowire.BytesType), v)
		}
	}
	return b
}

func protoValue(name string, kind int, dims ...int) []byte {
	var shape []byte
	for _, d := range dims {
		if d < 0 {
			shape = append(shape, pb(1, pb(2, "n"))...)
			continue
		}
		shape = append(shape, pb(1, pb(1, d))...)
	}
	return pb(1, name, 2, pb(1, pb(1, kind, 2, shape)))
}

func protoModel(graph ...any) []byte { return pb(1, 8, 8, pb(1, "", 2, 17), 7, pb(graph...)) }

func packedInts(v []int) []byte {
	var b []byte
	for _, n := range v {
		b = protowire.AppendVarint(b, uint64(n))
	}
	return b
}

// blowUps are small models that ask for much when they run: x is a row of four numbers.
func blowUps() map[string][]byte {
	const huge, big = 1<<62 - 1, 1 << 31
	x, y := protoValue("x", 1, -1, 4), protoValue("y", 1, -1, 4)
	ints := func(name string, v ...int) []byte { return pb(1, len(v), 2, 7, 8, name, 7, packedInts(v)) }
	scalar := func(name string, v int) []byte { return pb(2, 7, 8, name, 7, packedInts([]int{v})) }
	float := func(name string, n int) []byte { return pb(1, n, 2, 1, 8, name, 9, make([]byte, 4*n)) }
	node := func(op, out string, in ...string) []byte {
		var b []byte
		for _, s := range in {
			b = append(b, pb(1, s)...)
		}
		return append(b, pb(2, out, 4, op)...)
	}
	attr := func(n []byte, name string, kind int, parts ...any) []byte {
		return append(n, pb(5, append(pb(1, name, 20, kind), pb(parts...)...))...)
	}
	m := map[string][]byte{}
	for name, v := range map[string][]int{"2^31": {big, big}, "2^62": {huge, 4}, "gib": {1 << 28, 4}, "negative": {-5, 4}, "ranks": slices.Repeat([]int{2}, 63)} {
		m["expand "+name] = protoModel(11, x, 12, y, 5, ints("s", v...), 1, node("Expand", "y", "x", "s"))
		m["constant of shape "+name] = protoModel(11, x, 12, y, 5, ints("s", v...), 1, node("ConstantOfShape", "y", "s"))
		m["reshape "+name] = protoModel(11, x, 12, y, 5, ints("s", v...), 1, node("Reshape", "y", "x", "s"))
		m["tile "+name] = protoModel(11, x, 12, y, 5, ints("s", v...), 1, node("Tile", "y", "x", "s"))
		m["pad "+name] = protoModel(11, x, 12, y, 5, ints("s", slices.Concat(v, v)...), 1, node("Pad", "y", "x", "s"))
		m["resize "+name] = protoModel(11, x, 12, y, 5, ints("s", v...), 1, node("Resize", "y", "x", "", "", "s"))
		m["random "+name] = protoModel(11, x, 12, y, 5, ints("s", v...), 1, node("ConstantOfShape", "c", "s"), 1, node("NonZero", "y", "c"))
	}
	for name, v := range map[string]int{"2^31": big, "2^62": huge, "negative": -7, "100M": 100_000_000} {
		m["range "+name] = protoModel(11, x, 12, y, 5, scalar("a", 0), 5, scalar("b", v), 5, scalar("c", 1), 1, node("Range", "y", "a", "b", "c"))
		m["range by none "+name] = protoModel(11, x, 12, y, 5, scalar("a", 0), 5, scalar("b", v), 5, scalar("c", 0), 1, node("Range", "y", "a", "b", "c"))
		m["one hot "+name] = protoModel(11, x, 12, y, 5, scalar("d", v), 5, float("v", 2), 1, node("OneHot", "y", "x", "d", "v"))
		m["top k "+name] = protoModel(11, x, 12, y, 5, ints("k", v), 1, append(node("TopK", "y", "x", "k"), pb(2, "z")...))
		m["eye "+name] = protoModel(11, x, 12, y, 5, ints("s", v, v), 1, node("ConstantOfShape", "c", "s"), 1, node("EyeLike", "y", "c"))
		m["cum "+name] = protoModel(11, x, 12, y, 5, scalar("a", v), 1, node("CumSum", "y", "x", "a"))
		m["window "+name] = protoModel(11, x, 12, y, 5, scalar("a", v), 1, node("HannWindow", "y", "a"))
		m["split "+name] = protoModel(11, x, 12, y, 1, attr(node("SplitToSequence", "s", "x"), "axis", 2, 3, v), 1, node("ConcatFromSequence", "y", "s"))
		m["squeeze "+name] = protoModel(11, x, 12, y, 5, ints("a", v), 1, node("Unsqueeze", "y", "x", "a"))
		m["pool "+name] = protoModel(11, x, 12, y, 1, attr(node("MaxPool", "y", "x"), "kernel_shape", 7, 8, v))
		m["initialiser "+name] = protoModel(11, x, 12, y, 5, pb(1, v, 1, 4, 2, 1, 8, "w", 9, make([]byte, 16)), 1, node("Add", "y", "x", "w"))
		m["input "+name] = protoModel(11, protoValue("x", 1, 1, v), 12, y, 1, node("Relu", "y", "x"))
		m["features "+name] = protoModel(11, protoValue("x", 1, -1, v), 12, y, 1, node("Relu", "y", "x"))
	}
	// Outputs twice the size of what is before, forty times.
	doubling := []any{11, x, 12, y}
	for i := range 40 {
		in, out := fmt.Sprint("d", i), fmt.Sprint("d", i+1)
		if i == 0 {
			in = "x"
		}
		doubling = append(doubling, 1, attr(node("Concat", out, in, in), "axis", 2, 3, 1))
	}
	m["doubling"] = protoModel(append(doubling, 1, node("Identity", "y", "d40"))...)
	// The same of constants, which are folded.
	folded := []any{11, x, 12, y, 5, float("d0", 1024)}
	for i := range 40 {
		folded = append(folded, 1, attr(node("Concat", fmt.Sprint("d", i+1), fmt.Sprint("d", i), fmt.Sprint("d", i)), "axis", 2, 3, 0))
	}
	m["folded doubling"] = protoModel(append(folded, 1, node("ReduceMax", "r", "d40"), 1, node("Add", "y", "x", "r"))...)
	for name, trips := range map[string]int{"2^62": huge, "2^31": big, "negative": -1} {
		for kind, nodes := range map[string][]byte{
			"idle":    pb(1, node("Identity", "co", "ci"), 1, node("Identity", "vo", "vi")),
			"grows":   pb(1, node("Identity", "co", "ci"), 1, attr(node("Concat", "vo", "vi", "vi"), "axis", 2, 3, 1)),
			"product": pb(1, node("Identity", "co", "ci"), 1, node("MatMul", "vo", "big", "big")),
		} {
			body := append(bytes.Clone(nodes), pb(2, "b", 11, protoValue("i", 7), 11, protoValue("ci", 9), 11, protoValue("vi", 1), 12, protoValue("co", 9), 12, protoValue("vo", 1))...)
			loop := attr(node("Loop", "y", "t", "c", "x"), "body", 5, 6, body)
			m["loop "+kind+" "+name] = protoModel(11, x, 12, protoValue("y", 1), 5, scalar("t", trips), 5, pb(2, 9, 8, "c", 9, []byte{1}), 5, ints("bs", 1500, 1500),
				1, node("ConstantOfShape", "big", "bs"), 1, loop)
		}
	}
	for _, depth := range []int{3, 100, 10_000} {
		b := pb(1, "then_branch", 20, 5, 6, pb(2, "b", 1, node("Identity", "o", "x"), 12, protoValue("o", 1)))
		for range depth {
			inner := append(node("If", "o", "cond"), pb(5, b)...)
			b = pb(1, "then_branch", 20, 5, 6, pb(2, "b", 1, inner, 12, protoValue("o", 1)))
		}
		m[fmt.Sprint("if of depth ", depth)] = protoModel(11, x, 12, y, 5, pb(2, 9, 8, "cond", 9, []byte{1}), 1, append(node("If", "y", "cond"), pb(5, b)...))
	}
	m["self loop"] = protoModel(11, x, 12, y, 1, node("Add", "y", "x", "y"))
	m["cycle"] = protoModel(11, x, 12, y, 1, node("Add", "a", "x", "y"), 1, node("Relu", "y", "a"))
	m["duplicate"] = protoModel(11, x, 11, x, 12, y, 1, node("Relu", "y", "x"))
	// One image, a window of it all, and every place it may stand.
	wide := protoValue("x", 1, -1, 4)
	m["convolution"] = protoModel(11, wide, 12, y, 5, ints("s", 1, 1, 8000, 8000), 5, ints("k", 1, 1, 4000, 4000), 1, node("ConstantOfShape", "i", "s"), 1, node("ConstantOfShape", "w", "k"), 1, node("Conv", "o", "i", "w"),
		1, node("ReduceMax", "r", "o"), 1, node("Add", "y", "x", "r"))
	m["product"] = protoModel(11, wide, 12, y, 5, ints("s", 9000, 9000), 1, node("ConstantOfShape", "i", "s"), 1, node("MatMul", "o", "i", "i"), 1, node("ReduceMax", "r", "o"), 1, node("Add", "y", "x", "r"))
	m["decomposition"] = protoModel(11, wide, 12, y, 5, ints("s", 6000, 6000), 1, node("ConstantOfShape", "i", "s"), 1, node("Det", "r", "i"), 1, node("Add", "y", "x", "r"))
	m["convolution of padding"] = protoModel(11, wide, 12, y, 5, ints("s", 1, 1, 2, 2), 5, ints("k", 1, 1, 2, 2), 1, node("ConstantOfShape", "i", "s"), 1, node("ConstantOfShape", "w", "k"),
		1, attr(node("Conv", "o", "i", "w"), "pads", 7, 8, 1<<30, 8, 1<<30, 8, 1<<30, 8, 1<<30), 1, node("ReduceMax", "r", "o"), 1, node("Add", "y", "x", "r"))
	return m
}

const hostileRows = "x0,x1,x2,x3\n1,2,3,4\n5,6,7,8\n"

// TestHostileGraphs gives small models that ask for much to inspect and predict.
func TestHostileGraphs(t *testing.T) {
	dir := t.TempDir()
	rows := write(t, filepath.Join(dir, "rows.csv"), []byte(hostileRows))
	commands := map[string][]string{}
	for name, data := range blowUps() {
		file := write(t, filepath.Join(dir, strings.ReplaceAll(name, " ", "_")+".onnx"), data)
		commands[name+" inspect"] = []string{"model", "inspect", file}
		commands[name+" predict"] = []string{"predict", "--model", file, "--input", rows}
	}
	hostile(t, commands)
}

// TestHostileNeighbours are files and links that models point to, and rows that are no
// files.
func TestHostileNeighbours(t *testing.T) {
	dir := t.TempDir()
	pipe := func(p string) string {
		if err := makePipe(p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	pipe(filepath.Join(dir, "pipe"))
	for _, name := range []string{"pipe.onnx", "pipe.json", "pipe.ubj", "pipe.txt", "pipe.csv", "pipe.parquet", "pipe.npy"} {
		pipe(filepath.Join(dir, name))
	}
	link := func(name, to string) {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("zero", "/dev/zero")
	link("zero.csv", "/dev/zero")
	link("zero.onnx", "/dev/zero")
	link("out", "/etc/passwd")
	link("self", "self")
	rows := write(t, filepath.Join(dir, "rows.csv"), []byte(hostileRows))
	write(t, filepath.Join(dir, "short"), make([]byte, 8))
	commands := map[string][]string{}
	for _, location := range []string{"pipe", "zero", "out", "self", "short", ".", "../x", "/dev/zero", "/etc/passwd", "", "a/../../b", "missing", strings.Repeat("x", 1<<16)} {
		for _, offset := range []string{"0", "9223372036854775807", "-1", "18446744073709551616"} {
			tensor := pb(1, 1, 1, 4, 2, 1, 8, "w", 14, 1, 13, pb(1, "location", 2, location), 13, pb(1, "offset", 2, offset))
			name := fmt.Sprintf("external %.10s %s", location, offset)
			file := write(t, filepath.Join(dir, fmt.Sprint(len(commands), ".onnx")),
				protoModel(11, protoValue("x", 1, -1, 4), 12, protoValue("y", 1, -1, 4), 5, tensor, 1, pb(1, "x", 1, "w", 2, "y", 4, "Add")))
			commands[name] = []string{"predict", "--model", file, "--input", rows}
		}
	}
	good := write(t, filepath.Join(dir, "good.onnx"), protoModel(11, protoValue("x", 1, -1, 4), 12, protoValue("y", 1, -1, 4), 1, pb(1, "x", 2, "y", 4, "Relu")))
	for _, name := range []string{"pipe.csv", "pipe.parquet", "pipe.npy", "zero.csv", "."} {
		commands["rows "+name] = []string{"predict", "--model", good, "--input", filepath.Join(dir, name)}
	}
	for _, name := range []string{"pipe.onnx", "pipe.json", "pipe.ubj", "pipe.txt", "zero.onnx"} {
		commands["model "+name] = []string{"model", "inspect", filepath.Join(dir, name)}
	}
	set := filepath.Join(dir, "case", "test_data_set_0")
	write(t, filepath.Join(dir, "case", "model.onnx"), protoModel(11, protoValue("x", 1, -1, 4), 12, protoValue("y", 1, -1, 4), 1, pb(1, "x", 2, "y", 4, "Relu")))
	write(t, filepath.Join(set, "output_0.pb"), nil)
	pipe(filepath.Join(set, "input_0.pb"))
	commands["golden pipe"] = []string{"model", "test", filepath.Join(dir, "case")}
	// Many columns, names that are all different.
	var wide strings.Builder
	for i := range 600_000 {
		fmt.Fprintf(&wide, "c%d,", i)
	}
	commands["wide rows"] = []string{"predict", "--model", good, "--input", write(t, filepath.Join(dir, "wide.csv"), []byte(wide.String()+"z\n"))}
	for name, header := range map[string]string{
		"rows": "(1099511627776, 0)", "columns": "(0, 1099511627776)", "overflow": "(4294967296, 4294967296, 4)", "long": "(" + strings.Repeat("1,", 1000) + ")", "many": "(99999999999999999999,)",
	} {
		head := "{'descr': '<f4', 'fortran_order': False, 'shape': " + header + ", }\n"
		data := append([]byte("\x93NUMPY\x01\x00"), byte(len(head)), byte(len(head)>>8))
		commands["npy "+name] = []string{"predict", "--model", good, "--input", write(t, filepath.Join(dir, name+".npy"), append(data, head...))}
	}
	hostile(t, commands)
}

// extremes are what a number becomes.
var extremes = []uint64{0, 1, 2, 3, 255, 1 << 15, 1 << 20, 1 << 28, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 40, 1<<62 - 1, 1<<63 - 1, 1 << 63, ^uint64(0), ^uint64(1)}

// mutateProto changes one field of a message, or of one within it.
func mutateProto(r *rand.Rand, data []byte) []byte {
	type field struct {
		id         protowire.Number
		kind       protowire.Type
		head, body []byte
	}
	var fields []field
	for rest := data; len(rest) > 0; {
		id, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return mutateBytes(r, data)
		}
		k := protowire.ConsumeFieldValue(id, kind, rest[n:])
		if k < 0 {
			return mutateBytes(r, data)
		}
		fields = append(fields, field{id, kind, rest[:n], rest[n : n+k]})
		rest = rest[n+k:]
	}
	if len(fields) == 0 {
		return mutateBytes(r, data)
	}
	i := r.IntN(len(fields))
	f := &fields[i]
	switch op := r.IntN(12); {
	case op == 0:
		fields = slices.Delete(fields, i, i+1)
	case op == 1:
		fields = slices.Insert(fields, r.IntN(len(fields)), *f)
	case op == 2:
		f.body = fields[r.IntN(len(fields))].body
	case f.kind == protowire.VarintType:
		f.body = protowire.AppendVarint(nil, extremes[r.IntN(len(extremes))])
	case f.kind == protowire.BytesType:
		inner, _ := protowire.ConsumeBytes(f.body)
		f.body = protowire.AppendBytes(nil, mutateProto(r, inner))
		if op == 3 { // a length that is not there
			f.body = append(protowire.AppendVarint(nil, 1<<30), inner...)
		}
	default:
		f.body = mutateBytes(r, f.body)
	}
	var out []byte
	for _, f := range fields {
		out = append(append(out, f.head...), f.body...)
	}
	return out
}

// mutateBytes changes bytes, repeats, or cuts.
func mutateBytes(r *rand.Rand, data []byte) []byte {
	out := bytes.Clone(data)
	if len(out) == 0 {
		return []byte{byte(r.Uint32())}
	}
	at := r.IntN(len(out))
	switch r.IntN(6) {
	case 0:
		return out[:at]
	case 1:
		return slices.Insert(out, at, out[at:min(len(out), at+1+r.IntN(16))]...)
	case 2:
		return slices.Delete(out, at, min(len(out), at+1+r.IntN(8)))
	case 3:
		for i := at; i < min(len(out), at+8); i++ {
			out[i] = 0xff
		}
	case 4:
		out[at] ^= 1 << r.IntN(8)
	default:
		out[at] = []byte{0, 1, 0x7f, 0x80, 0xff}[r.IntN(5)]
	}
	return out
}

var numbers = regexp.MustCompile(`-?\d+(\.\d+)?([eE][-+]?\d+)?`)

// mutateText changes a number of a text, or its bytes.
func mutateText(r *rand.Rand, data []byte) []byte {
	places := numbers.FindAllIndex(data, -1)
	if len(places) == 0 || r.IntN(5) == 0 {
		return mutateBytes(r, data)
	}
	values := []string{"0", "1", "-1", "-2", "2147483647", "2147483648", "-2147483648", "9223372036854775807", "99999999999999999999", "1e308", "-1e999", "NaN", "null", "1.5", "[[[]]]", `"x"`, "{}", ""}
	at := places[r.IntN(len(places))]
	return slices.Concat(data[:at[0]], []byte(values[r.IntN(len(values))]), data[at[1]:])
}

// rounds is how many changes a file gets, one of a given seed.
const rounds = 4

// TestHostileNodes changes a field of each of ONNX's node cases, or of its data.
func TestHostileNodes(t *testing.T) {
	dir := t.TempDir()
	commands := map[string][]string{}
	n := uint64(0)
	for name, files := range enginetest.Nodes(t, "../../engine/onnx/testdata/nodes.tar.gz") {
		if len(files["model.onnx"]) == 0 {
			continue
		}
		for round := range rounds {
			n++
			r := rand.New(rand.NewPCG(uint64(len(name)), uint64(round)*7919+uint64(len(files["model.onnx"]))))
			folder := filepath.Join(dir, fmt.Sprint(n))
			for file, data := range files {
				switch {
				case file == "model.onnx" && round < 3, file != "model.onnx" && round == 3 && r.IntN(2) == 0:
					data = mutateProto(r, data)
				}
				if file != "model.onnx" {
					file = filepath.Join("test_data_set_0", file)
				}
				write(t, filepath.Join(folder, file), data)
			}
			commands[fmt.Sprint(name, " ", round)] = []string{"model", "test", folder}
		}
	}
	hostile(t, commands)
}

// TestHostileTrees changes a number or a byte of models of trees and of rows.
func TestHostileTrees(t *testing.T) {
	dir := t.TempDir()
	rows := write(t, filepath.Join(dir, "rows.csv"), []byte("f0,f1,f2,f3,f4\n1,2,3,4,5\n,,,,\n-1e38,0,1e38,NaN,inf\n"))
	commands := map[string][]string{}
	for _, pattern := range []string{"xgboost/testdata/*.json", "xgboost/testdata/*.ubj", "lightgbm/testdata/*.txt", "catboost/testdata/*.json"} {
		files, err := filepath.Glob(filepath.Join("../../engine", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s: %v", pattern, err)
		}
		for _, file := range files {
			if strings.Contains(file, ".expect.") {
				continue
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for round := range rounds * 4 {
				r := rand.New(rand.NewPCG(uint64(len(data)), uint64(round)))
				mutate := mutateText
				if strings.HasSuffix(file, ".ubj") {
					mutate = mutateBytes
				}
				changed := write(t, filepath.Join(dir, fmt.Sprint(len(commands), filepath.Ext(file))), mutate(r, data))
				commands[fmt.Sprint(file, " ", round)] = []string{"predict", "--model", changed, "--input", rows}
			}
		}
	}
	good := write(t, filepath.Join(dir, "good.onnx"), protoModel(11, protoValue("x", 1, -1, 2), 12, protoValue("y", 1, -1, 2), 1, pb(1, "x", 2, "y", 4, "Relu")))
	for _, name := range []string{"pandas.parquet", "v2_zstd.parquet", "nested.parquet", "c.npy", "ints.npy", "text.npy", "fortran.npy"} {
		data, err := os.ReadFile(filepath.Join("../../engine/table/testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for round := range 100 {
			r := rand.New(rand.NewPCG(uint64(len(name)), uint64(round)))
			file := write(t, filepath.Join(dir, fmt.Sprint(round, "_", name)), mutateBytes(r, data))
			commands[fmt.Sprint(name, " ", round)] = []string{"predict", "--model", good, "--input", file}
		}
	}
	hostile(t, commands)
}
