// Command fit measures how long boosted trees take to fit, against XGBoost's hist: 255
// bins, depth 6, logistic loss, 30 float32 features, bins included; and with -network a
// network of 64 and 32 units, against PyTorch: Adam, batches of 256. Ours and the
// rival's fits alternate in every round; it prints medians and the median of the
// rounds' ratios.
//
//	go run ./bench/fit                              # makes a virtual environment, once
//	go run ./bench/fit -python /path/to/python      # one that has xgboost, or torch
//	go run ./bench/fit -rows 100000 -trees 20 -cpuprofile cpu.out
//	go run ./bench/fit -network -rows 100000 -epochs 5
package main

import (
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/pellucid/pellucid/bench/internal/rival"
	"github.com/pellucid/pellucid/engine/train/trees"
)

//go:embed rival.py
var rivalScript []byte

const features = 30

func main() {
	python := flag.String("python", "", "a Python with xgboost; empty makes a virtual environment in the user's cache folder")
	rounds := flag.Int("rounds", 3, "rounds of every measurement")
	rows := flag.Int("rows", 1_000_000, "rows to fit on")
	network := flag.Bool("network", false, "fit a network instead of trees")
	epochs := flag.Int("epochs", 5, "epochs of a network's fit")
	count := flag.Int("trees", 100, "trees of a fit")
	profile := flag.String("cpuprofile", "", "file for a profile of our fits")
	flag.Parse()
	if err := run(context.Background(), options{*python, *profile, *rows, *count, *rounds, *network, *epochs}); err != nil {
		fmt.Fprintln(os.Stderr, "fit:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	python, profile     string
	rows, count, rounds int
	network             bool
	epochs              int
}

func run(ctx context.Context, o options) (err error) {
	cfg := rival.Config{Name: "fit", Script: rivalScript, Requirements: []string{"xgboost-cpu==3.4.1", "numpy"}, Python: o.python}
	mode, name := "serve", "XGBoost"
	if o.network {
		cfg.Name, cfg.Requirements = "fit-network", []string{"torch==2.9.1", "numpy"}
		mode, name = "network", "PyTorch"
	}
	env, err := rival.New(ctx, cfg)
	if err != nil {
		return err
	}
	d := makeData(o.rows)
	if o.network { // a missing number has no place in it
		for i, v := range d.X {
			if v != v {
				d.X[i] = 0
			}
		}
	}
	x, y := filepath.Join(env.Dir, "x.f32"), filepath.Join(env.Dir, "y.f32")
	if err := errors.Join(write(x, d.X), write(y, narrow(d.Labels))); err != nil {
		return err
	}
	r, err := env.Start(ctx, mode, x, y)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Stop()) }()
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Printf("rival: %s (%s); %d rows, %d features; medians of %d rounds\n", name, r.Ready, o.rows, features, o.rounds)
	fmt.Printf("%-10s %8s %8s %7s\n", "threads", "ours s", "rival s", "ratio")
	for _, threads := range []int{1, 2} {
		fit := measure
		work := o.count
		if o.network {
			fit, work = measureNetwork, o.epochs
		}
		if err := fit(ctx, r, d, threads, work, o.rounds); err != nil {
			return err
		}
	}
	return nil
}

func measure(ctx context.Context, r *rival.Process, d *trees.Data, threads, count, rounds int) error {
	var ours, theirs, ratios []float64
	for range rounds {
		start := time.Now()
		_, _, err := trees.Fit(ctx, d, trees.Options{
			Loss: trees.Logistic, Rounds: count, Rate: 0.1, MaxDepth: 6, Lambda: 1, MinChildWeight: 1, Threads: threads,
		})
		if err != nil {
			return err
		}
		mine := time.Since(start).Seconds()
		s, err := r.Seconds(threads, count)
		if err != nil {
			return err
		}
		ours, theirs, ratios = append(ours, mine), append(theirs, s), append(ratios, mine/s)
	}
	fmt.Printf("%-10d %8.2f %8.2f %7.3f\n", threads, median(ours), median(theirs), median(ratios))
	return rival.Note{
		Against: "XGBoost " + strings.TrimPrefix(r.Ready, "ready "), Work: fmt.Sprintf("fit %d trees of depth 6 to %d rows of %d features", count, len(d.Labels), features),
		Ours: median(ours), Rival: median(theirs), Ratio: median(ratios), Threads: threads,
	}.Write()
}

// makeData is what bench/trees fits its models on, with less noise.
func makeData(rows int) *trees.Data {
	random := rand.New(rand.NewPCG(1, 2))
	d := &trees.Data{X: make([]float32, rows*features), Features: features, Labels: make([]float64, rows)}
	for r := range rows {
		x := d.X[r*features : (r+1)*features]
		for f := range x {
			x[f] = float32(random.NormFloat64())
		}
		score := float64(x[0]*x[1]+x[9]*x[10]*x[11]) + math.Sin(2*float64(x[2])) + 0.3*float64(x[3]+x[4]+x[5]+x[6]+x[7])
		if score+random.NormFloat64() > 0 {
			d.Labels[r] = 1
		}
		for f := range x {
			if random.Float64() < 0.02 {
				x[f] = float32(math.NaN())
			}
		}
	}
	return d
}

func narrow(v []float64) []float32 {
	out := make([]float32, len(v))
	for i, e := range v {
		out[i] = float32(e)
	}
	return out
}

func write(path string, v []float32) error {
	b := make([]byte, 0, 4*len(v))
	for _, e := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(e))
	}
	return os.WriteFile(path, b, 0o600)
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
