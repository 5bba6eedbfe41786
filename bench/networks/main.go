// Command networks holds real networks against onnxruntime, in numbers and in time: the
// ones that magika, nudenet, rapidocr-onnxruntime and silero-vad ship, a ResNet-18 and a
// small BERT of random weights, and three dense layers. Ours and the rival's runs
// alternate in every round; it prints the worst difference of an output, relative to the
// output's largest value, the medians, and the median of the rounds' ratios.
//
//	go run ./bench/networks                           # makes a virtual environment, once
//	go run ./bench/networks -python /path/to/python   # one that has onnxruntime and onnx
//	go run ./bench/networks -only ocr -threads 2
//	go run ./bench/networks a.onnx b.onnx             # other files; inputs from a.npz beside a.onnx, or random (zoo.py makes a hundred)
//	go run ./bench/networks -load                     # sessions made of files
//	go run ./bench/networks -only bert -batch 32 -profile cpu.prof   # of ours; the rival is a process of its own
//	go run ./bench/networks -int8                     # networks in 8 bits, also against ourselves in FP32
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/bench/internal/rival"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
)

//go:embed rival.py
var rivalScript []byte

// requirements are what the virtual environment is made of.
var requirements = []string{"onnxruntime==1.32.0", "onnx==1.23.2", "numpy"}

// tolerance is the agreement that is asked for, relative to an output's largest value.
const tolerance = 1e-4

func main() {
	python := flag.String("python", "", "a Python with onnxruntime and onnx; empty makes a virtual environment in the user's cache folder")
	rounds := flag.Int("rounds", 5, "rounds of every measurement")
	threads := flag.Int("threads", 1, "threads of either")
	only := flag.String("only", "", "measure only networks that have this in their name")
	int8 := flag.Bool("int8", false, "measure networks that onnxruntime quantised to 8 bits, statically in two forms and dynamically, beside FP32; how far they differ is only told")
	load := flag.Bool("load", false, "measure loads, on all cores, instead of runs")
	batch := flag.Int("batch", 0, "measure only this batch, 1 or 32; 0 for both")
	profile := flag.String("profile", "", "write a CPU profile of our runs to this file")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "networks [flags] [files of other networks, which are measured alone (with -load: too)]")
		flag.PrintDefaults()
	}
	flag.Parse()
	switch {
	case *batch != 0:
		batches = []int{*batch}
	case flag.NArg() > 0: // many files have no other
		batches = batches[:1]
	}
	err := profiled(*profile, func() error {
		return run(context.Background(), *python, *only, *rounds, *threads, *int8, *load)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "networks:", err)
		os.Exit(1)
	}
}

// profiled runs f and writes a profile of it to the file, where one is named.
func profiled(path string, f func() error) (err error) {
	if path == "" {
		return f()
	}
	file, err := os.Create(path) //nolint:gosec // where its user wants it
	if err != nil {
		return fmt.Errorf("write a profile: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return fmt.Errorf("write a profile: %w", err)
	}
	defer pprof.StopCPUProfile()
	return f()
}

// networks are in the order of their size.
var networks = []string{"dense", "silero", "ocr_class", "magika", "bert", "ocr_detect", "ocr_read", "nudenet", "resnet18"}

var batches = []int{1, 32}

// quantised are the networks that are measured in 8 bits too.
var quantised = []string{"dense", "ocr_class", "bert", "resnet18"}

func run(ctx context.Context, python, only string, rounds, threads int, int8, load bool) (err error) {
	env, err := rival.New(ctx, rival.Config{Name: "networks", Script: rivalScript, Requirements: requirements, Python: python})
	if err != nil {
		return err
	}
	dir := env.Dir
	if err := env.Run(ctx, "make", dir); err != nil {
		return err
	}
	names := networks
	if files := flag.Args(); len(files) > 0 && !load {
		names = files
	} else if int8 {
		if err := env.Run(ctx, "quantise", dir); err != nil {
			return err
		}
		names = nil
		for _, name := range quantised {
			names = append(names, name, name+"_static", name+"_operator", name+"_dynamic")
		}
	}
	r, err := env.Start(ctx, "serve", dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Stop()) }()
	if load {
		var paths []string
		for _, name := range names {
			if strings.Contains(name, only) {
				paths = append(paths, filepath.Join(dir, name+".onnx"))
			}
		}
		return loads(r, append(paths, flag.Args()...), rounds)
	}
	fmt.Printf("rival: onnxruntime %s; %d thread(s) each; medians of %d rounds\n", strings.TrimPrefix(r.Ready, "ready "), threads, rounds)
	fmt.Printf("%-17s %6s %12s %12s %7s %11s\n", "network", "batch", "ours ms", "rival ms", "ratio", "difference")
	product, n, wrong := 0.0, 0, []string(nil)
	for _, name := range names {
		if !strings.Contains(name, only) {
			continue
		}
		path := name
		if !strings.HasSuffix(path, ".onnx") {
			path = filepath.Join(dir, name+".onnx")
		}
		model, err := modelfile.Open(path)
		if err != nil {
			fmt.Printf("%-17s not read: %v\n", name, err)
			wrong = append(wrong, name)
			continue
		}
		session, err := model.NewSession(engine.SessionOptions{Threads: threads, MaxBytes: 8 << 30})
		if err != nil {
			fmt.Printf("%-17s no session: %v\n", name, err)
			wrong = append(wrong, name)
			continue
		}
		for _, batch := range batches {
			ratio, off, err := measure(ctx, session, r, name, batch, threads, rounds)
			if err != nil {
				fmt.Printf("%-17s %6d not run: %v\n", name, batch, err)
				wrong = append(wrong, name)
				continue
			}
			product, n = product+math.Log(ratio), n+1
			if off > tolerance && !int8 {
				wrong = append(wrong, fmt.Sprintf("%s differs by %.2g", name, off))
			}
		}
	}
	if n > 0 {
		fmt.Printf("geometric mean of the ratios: %.3f\n", math.Exp(product/float64(n)))
	}
	if len(wrong) > 0 {
		return fmt.Errorf("not as the rival: %s", strings.Join(wrong, ", "))
	}
	return nil
}

// measure returns the median ratio of the times and the worst relative difference.
func measure(ctx context.Context, session engine.Session, r *rival.Process, name string, batch, threads, rounds int) (ratio, off float64, err error) {
	path, err := r.Ask("want", name, batch)
	if err != nil {
		return 0, 0, err
	}
	in, err := readTensors(strings.TrimSuffix(path, ".out") + ".in")
	if err != nil {
		return 0, 0, err
	}
	want, err := readTensors(path)
	if err != nil {
		return 0, 0, err
	}
	got, err := session.Run(ctx, in, nil)
	if err != nil {
		return 0, 0, err
	}
	if off, err = difference(got, want); err != nil {
		return 0, 0, err
	}
	var ours, theirs, ratios []float64
	repeats := 1
	for range rounds {
		mine := math.Inf(1)
		for i := 0; i < repeats; i++ {
			start := time.Now()
			if _, err := session.Run(ctx, in, nil); err != nil {
				return 0, 0, err
			}
			mine = min(mine, time.Since(start).Seconds())
			if i == 0 && len(ours) == 0 {
				// A fifth of a second of runs a round, at most a thousand.
				repeats = min(1000, 1+int(0.2/mine))
			}
		}
		least, err := r.Seconds("run", name, batch, threads, repeats)
		if err != nil {
			return 0, 0, err
		}
		ours, theirs, ratios = append(ours, mine), append(theirs, least), append(ratios, mine/least)
	}
	ratio = median(ratios)
	fmt.Printf("%-17s %6d %12.3f %12.3f %7.2f %11.1e\n", strings.TrimSuffix(filepath.Base(name), ".onnx"), batch, 1e3*median(ours), 1e3*median(theirs), ratio, off)
	return ratio, off, rival.Note{
		Against: "onnxruntime " + strings.TrimPrefix(r.Ready, "ready "), Work: fmt.Sprintf("%s, batch %d", name, batch),
		Ours: median(ours), Rival: median(theirs), Ratio: ratio, Threads: threads,
	}.Write()
}

// difference is the largest of any output's elements, relative to the output's largest
// value.
func difference(got, want engine.Values) (float64, error) {
	if len(got) != len(want) {
		return 0, fmt.Errorf("%d outputs, the rival has %d", len(got), len(want))
	}
	worst := 0.0
	for i, w := range want {
		g := got.Get(w.Name)
		if g == nil || !slices.Equal(g.Shape(), w.Tensor.Shape()) {
			return 0, fmt.Errorf("output %d, %s, is not of shape %v", i, w.Name, w.Tensor.Shape())
		}
		if g.DType() != w.Tensor.DType() {
			return 0, fmt.Errorf("output %d, %s, is %v, the rival's %v", i, w.Name, g.DType(), w.Tensor.DType())
		}
		switch w.Tensor.DType() {
		case engine.Float32:
			worst = max(worst, apart(engine.Data[float32](g), engine.Data[float32](w.Tensor)))
		case engine.Int64:
			worst = max(worst, apart(engine.Data[int64](g), engine.Data[int64](w.Tensor)))
		case engine.Int32:
			worst = max(worst, apart(engine.Data[int32](g), engine.Data[int32](w.Tensor)))
		}
	}
	return worst, nil
}

// apart is the largest difference of an element, relative to the largest value.
func apart[T float32 | int32 | int64](a, b []T) float64 {
	scale, off := 0.0, 0.0
	for k := range b {
		x, y := float64(a[k]), float64(b[k])
		switch {
		case math.IsNaN(x) != math.IsNaN(y):
			return math.Inf(1)
		case x == y || math.IsNaN(y): // infinities among them
			continue
		}
		off = max(off, math.Abs(x-y))
	}
	for _, y := range b {
		if !math.IsInf(float64(y), 0) {
			scale = max(scale, math.Abs(float64(y)))
		}
	}
	if off == 0 {
		return 0
	}
	return off / scale
}

// readTensors reads what the rival has written.
func readTensors(path string) (engine.Values, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read tensors: %w", err)
	}
	var out engine.Values
	for len(data) > 0 {
		head, rest, ok := bytes.Cut(data, []byte("\n"))
		words := strings.Fields(string(head))
		if !ok || len(words) < 2 {
			return nil, fmt.Errorf("%s is not what the rival writes", path)
		}
		shape, n := []int{}, 1
		for _, w := range words[2:] {
			d, err := strconv.Atoi(w)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			shape, n = append(shape, d), n*d
		}
		var t *engine.Tensor
		switch words[1] {
		case "float32":
			t, rest, err = tensor[float32](rest, n, shape)
		case "int32":
			t, rest, err = tensor[int32](rest, n, shape)
		case "int64":
			t, rest, err = tensor[int64](rest, n, shape)
		default:
			err = fmt.Errorf("type %s", words[1])
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, engine.Named{Name: words[0], Tensor: t})
		data = rest
	}
	return out, nil
}

func tensor[T float32 | int32 | int64](data []byte, n int, shape []int) (*engine.Tensor, []byte, error) {
	values := make([]T, n)
	read, err := binary.Decode(data, binary.LittleEndian, values)
	if err != nil {
		return nil, nil, err
	}
	t, err := engine.Of(values, shape...)
	return t, data[read:], err
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
