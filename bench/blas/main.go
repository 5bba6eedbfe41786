// Command blas measures products of float32 matrices against onnxruntime and
// gonum: square ones of two inputs, and those of real networks' dense layers,
// whose right operand is a weight that both lay out when they load it. The three
// alternate in every round. It prints medians in GFLOPS, the median of the
// rounds' ratios of time, and the part of the machine's peak, which is what a
// loop of nothing but fused multiply-adds reaches.
//
//	go run ./bench/blas                                  # makes a virtual environment, once
//	go run ./bench/blas -python /path/to/python          # one that has onnxruntime and onnx
//	taskset -c 1 go run ./bench/blas -threads 1 -only 512
//	go run ./bench/blas -peak                            # only what the machine can do
//
// GODEBUG=cpu.avx512f=off tries the kernels for AVX2. What a call of an
// onnxruntime session costs that computes nothing is taken off its time.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/bench/internal/rival"
	"github.com/pellucid/pellucid/engine/blas"
	gonumblas "gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"
)

//go:embed rival.py
var rivalScript []byte

// requirements are what the virtual environment is made of.
var requirements = []string{"onnxruntime==1.32.0", "onnx==1.23.2", "numpy"}

func main() {
	python := flag.String("python", "", "a Python with onnxruntime and onnx; empty makes a virtual environment in the user's cache folder")
	rounds := flag.Int("rounds", 7, "rounds of every measurement")
	threads := flag.String("threads", "1,2", "numbers of threads, with commas")
	only := flag.String("only", "", "measure only what has this in its name")
	peaks := flag.Bool("peak", false, "measure no product but the machine: multiply-adds, and bytes read from each cache and from memory")
	flag.Parse()
	if *peaks {
		printPeaks(*rounds)
		return
	}
	if err := run(context.Background(), *python, *threads, *only, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "blas:", err)
		os.Exit(1)
	}
}

// work is one product.
type work struct {
	m, n, k int
	// weight says that the right operand is a constant.
	weight bool
}

func (w work) String() string {
	kind := "inputs"
	if w.weight {
		kind = "weight"
	}
	return fmt.Sprintf("%dx%dx%d %s", w.m, w.n, w.k, kind)
}

// constant says to the rival whether the right operand is a weight.
func (w work) constant() int {
	if w.weight {
		return 1
	}
	return 0
}

func (w work) flops() float64 { return 2 * float64(w.m) * float64(w.n) * float64(w.k) }

func works() []work {
	var list []work
	for _, n := range []int{64, 128, 256, 512, 1024, 2048} {
		list = append(list, work{n, n, n, false})
	}
	for _, layer := range [][2]int{{128, 128}, {512, 128}, {768, 768}, {3072, 768}, {768, 3072}} {
		for _, rows := range []int{1, 8, 32, 128} {
			list = append(list, work{rows, layer[0], layer[1], true})
		}
	}
	return list
}

// least is how long the product is repeated in a round, in seconds.
const least = 0.01

func run(ctx context.Context, python, threads, only string, rounds int) (err error) {
	env, err := rival.New(ctx, rival.Config{Name: "blas", Script: rivalScript, Requirements: requirements, Python: python})
	if err != nil {
		return err
	}
	r, err := env.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Stop()) }()
	fmt.Printf("rival: %s; medians of %d rounds; m x n x k\n", r.Ready, rounds)
	for _, text := range strings.Split(threads, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("read -threads %q: not numbers above 0", threads)
		}
		if err := table(r, n, only, rounds); err != nil {
			return err
		}
	}
	return nil
}

func table(r *rival.Process, threads int, only string, rounds int) error {
	was := runtime.GOMAXPROCS(threads) // bounds gonum, which asks nobody
	defer runtime.GOMAXPROCS(was)
	fmt.Printf("\n%d thread(s); GFLOPS\n%-24s %8s %12s %8s %14s %14s %8s\n", threads,
		"product", "ours", "onnxruntime", "gonum", "ours/ort time", "ours/gonum", "of peak")
	var ratios, gonums []float64
	for _, w := range works() {
		if !strings.Contains(w.String(), only) {
			continue
		}
		m, err := measure(r, w, threads, rounds)
		if err != nil {
			return fmt.Errorf("measure %v: %w", w, err)
		}
		flops := w.flops() / 1e9
		fmt.Printf("%-24s %8.1f %12.1f %8.1f %14.3f %14.3f %8.2f\n", w, flops/median(m.ours), flops/median(m.rival), flops/median(m.gonum),
			median(m.ratio), median(m.gonumRatio), flops/median(m.ours)/median(m.peak)/float64(threads))
		if err := (rival.Note{
			Against: strings.TrimPrefix(r.Ready, "ready "), Work: "product " + w.String(), Ours: median(m.ours), Rival: median(m.rival), Ratio: median(m.ratio), Threads: threads,
		}).Write(); err != nil {
			return err
		}
		ratios, gonums = append(ratios, median(m.ratio)), append(gonums, median(m.gonumRatio))
	}
	if len(ratios) > 0 {
		fmt.Printf("%-24s %8s %12s %8s %14.3f %14.3f   worst %.3f\n", "geometric mean", "", "", "", geometric(ratios), geometric(gonums), slices.Max(ratios))
	}
	return nil
}

// times is seconds a product, by round; peak is GFLOPS of one thread.
type times struct{ ours, rival, gonum, ratio, gonumRatio, peak []float64 }

func measure(r *rival.Process, w work, threads, rounds int) (times, error) {
	source := rand.New(rand.NewPCG(1, 2))
	a, b, c := random(source, w.m*w.k), random(source, w.k*w.n), make([]float32, w.m*w.n)
	ours := func() {
		blas.Gemm(threads, false, false, w.m, w.n, w.k, 1, a, w.k, b, w.n, 0, c, w.n)
	}
	if w.weight {
		p := blas.Pack(false, w.k, w.n, b, w.n)
		ours = func() { p.Gemm(threads, false, w.m, 1, a, w.k, 0, c, w.n) }
	}
	theirs := func() {
		gonum.Implementation{}.Sgemm(gonumblas.NoTrans, gonumblas.NoTrans, w.m, w.n, w.k, 1, a, w.k, b, w.n, 0, c, w.n)
	}
	var t times
	for range rounds {
		t.ours = append(t.ours, seconds(ours))
		rival, err := r.Seconds(w.m, w.n, w.k, w.constant(), threads, least)
		if err != nil {
			return t, err
		}
		t.rival, t.gonum = append(t.rival, rival), append(t.gonum, seconds(theirs))
		last := len(t.ours) - 1
		t.ratio = append(t.ratio, t.ours[last]/rival)
		t.gonumRatio = append(t.gonumRatio, t.ours[last]/t.gonum[last])
		t.peak = append(t.peak, peak())
	}
	return t, nil
}

func random(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// seconds is the mean of as many calls as take the least time.
func seconds(f func()) float64 {
	f()
	runs, start := 0, time.Now()
	for {
		more := 1 + runs/2
		for range more {
			f()
		}
		runs += more
		if spent := time.Since(start).Seconds(); spent >= least {
			return spent / float64(runs)
		}
	}
}

// peak is in GFLOPS, NaN where there are no kernels of ours.
func peak() float64 {
	var flops float64
	s := seconds(func() { flops = float64(blas.Peak(10_000)) })
	if flops == 0 {
		return math.NaN()
	}
	return flops / s / 1e9
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func geometric(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += math.Log(x)
	}
	return math.Exp(sum / float64(len(v)))
}
