// Command networks holds real networks against onnxruntime, in numbers and in time: the
// ones that magika, nudenet, rapidocr-onnxruntime and silero-vad ship, a ResNet-18 and a
// small BERT of random weights, and three dense layers. Ours and the rival's runs
// alternate in every round; it prints the worst difference of an output, relative to the
// output's largest value, the medians, and the median of the rounds' ratios.
//
//	go run ./bench/networks                           # makes a virtual environment, once
//	go run ./bench/networks -python /path/to/python   # one that has onnxruntime and onnx
//	go run ./bench/networks -only ocr -threads 2
package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

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
	flag.Parse()
	if err := run(context.Background(), *python, *only, *rounds, *threads); err != nil {
		fmt.Fprintln(os.Stderr, "networks:", err)
		os.Exit(1)
	}
}

// networks are in the order of their size.
var networks = []string{"dense", "silero", "ocr_class", "magika", "bert", "ocr_detect", "ocr_read", "nudenet", "resnet18"}

var batches = []int{1, 32}

func run(ctx context.Context, python, only string, rounds, threads int) (err error) {
	dir, err := folder()
	if err != nil {
		return err
	}
	script := filepath.Join(dir, "rival.py")
	if err := os.WriteFile(script, rivalScript, 0o600); err != nil {
		return fmt.Errorf("write the rival's script: %w", err)
	}
	if python == "" {
		if python, err = environment(ctx, dir); err != nil {
			return err
		}
	}
	if err := command(ctx, python, script, "make", dir).Run(); err != nil {
		return fmt.Errorf("fetch the networks: %w", err)
	}
	r, err := startRival(ctx, python, script, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	fmt.Printf("rival: onnxruntime %s; %d thread(s) each; medians of %d rounds\n", r.version, threads, rounds)
	fmt.Printf("%-12s %6s %12s %12s %7s %11s\n", "network", "batch", "ours ms", "rival ms", "ratio", "difference")
	product, n, wrong := 0.0, 0, []string(nil)
	for _, name := range networks {
		if !strings.Contains(name, only) {
			continue
		}
		model, err := modelfile.Open(filepath.Join(dir, name+".onnx"))
		if err != nil {
			fmt.Printf("%-12s not read: %v\n", name, err)
			wrong = append(wrong, name)
			continue
		}
		session, err := model.NewSession(engine.SessionOptions{Threads: threads, MaxBytes: 8 << 30})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, batch := range batches {
			ratio, off, err := measure(ctx, session, r, name, batch, threads, rounds)
			if err != nil {
				fmt.Printf("%-12s %6d not run: %v\n", name, batch, err)
				wrong = append(wrong, name)
				continue
			}
			product, n = product+math.Log(ratio), n+1
			if off > tolerance {
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
func measure(ctx context.Context, session engine.Session, r *rival, name string, batch, threads, rounds int) (ratio, off float64, err error) {
	path, err := r.ask("want", name, batch)
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
		text, err := r.ask("run", name, batch, threads, repeats)
		if err != nil {
			return 0, 0, err
		}
		least, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("the rival says %q", text)
		}
		ours, theirs, ratios = append(ours, mine), append(theirs, least), append(ratios, mine/least)
	}
	ratio = median(ratios)
	fmt.Printf("%-12s %6d %12.3f %12.3f %7.2f %11.1e\n", name, batch, 1e3*median(ours), 1e3*median(theirs), ratio, off)
	return ratio, off, nil
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
		a, b := engine.Data[float32](g), engine.Data[float32](w.Tensor)
		scale, off := 0.0, 0.0
		for k := range b {
			scale, off = max(scale, math.Abs(float64(b[k]))), max(off, math.Abs(float64(a[k])-float64(b[k])))
			if math.IsNaN(float64(a[k])) != math.IsNaN(float64(b[k])) {
				off = math.Inf(1)
			}
		}
		if off > 0 {
			worst = max(worst, off/scale)
		}
	}
	return worst, nil
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

// folder is where networks, tensors and the environment are kept between runs.
func folder() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder: %w", err)
	}
	dir := filepath.Join(cache, "pellucid", "bench-networks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make %s: %w", dir, err)
	}
	return dir, nil
}

func environment(ctx context.Context, dir string) (string, error) {
	python := filepath.Join(dir, "venv", "bin", "python")
	if _, err := os.Stat(filepath.Join(dir, "venv", "complete")); err == nil {
		return python, nil
	}
	fmt.Println("making a virtual environment, once")
	steps := []*exec.Cmd{
		command(ctx, "python3", "-m", "venv", filepath.Join(dir, "venv")),
		command(ctx, python, append([]string{"-m", "pip", "install", "--quiet"}, requirements...)...),
	}
	for _, c := range steps {
		if err := c.Run(); err != nil {
			return "", fmt.Errorf("run %v: %w", c.Args, err)
		}
	}
	return python, os.WriteFile(filepath.Join(dir, "venv", "complete"), nil, 0o600)
}

// command is one without the settings that slow a current numpy down.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Stderr = os.Stderr
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "OPENBLAS_") {
			c.Env = append(c.Env, v)
		}
	}
	return c
}

// rival is the Python process that runs the rival.
type rival struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
	version string
}

func startRival(ctx context.Context, python, script, dir string) (*rival, error) {
	r := &rival{process: command(ctx, python, script, "serve", dir)}
	in, err := r.process.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := r.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.in, r.out = in, bufio.NewScanner(out)
	if err := r.process.Start(); err != nil {
		return nil, fmt.Errorf("start the rival: %w", err)
	}
	if !r.out.Scan() || !strings.HasPrefix(r.out.Text(), "ready ") {
		return nil, errors.Join(errors.New("the rival did not start"), r.stop())
	}
	r.version = strings.TrimPrefix(r.out.Text(), "ready ")
	return r, nil
}

func (r *rival) stop() error {
	return errors.Join(r.in.Close(), r.process.Wait())
}

// ask sends a line of words and returns the answer's.
func (r *rival) ask(words ...any) (string, error) {
	fmt.Fprintln(r.in, words...)
	if !r.out.Scan() {
		return "", errors.New("the rival has ended")
	}
	return r.out.Text(), nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
