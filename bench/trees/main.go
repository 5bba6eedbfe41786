// Command trees measures predictions, path-dependent Shapley values and interactions
// of tree ensembles against XGBoost, LightGBM, lleaves (which compiles LightGBM's
// models) and onnxruntime, one thread each: 500 trees of depth 6 over 30 float32
// features, 100 trees of depth 9, and a forest of 50 trees
// of depth 14 that nobody pruned. What the rival's call takes by itself, over one row of one
// tree, is taken off: it is Python's. Ours
// and the rival's calls alternate in every round; it prints the medians a row and
// the median of the rounds' ratios. Where Python has a call of its own for
// bigger and smaller batches, the faster one counts.
//
//	go run ./bench/trees                              # makes a virtual environment, once
//	go run ./bench/trees -python /path/to/python      # one that has xgboost and lightgbm
//	go run ./bench/trees -only shap -rounds 9
package main

import (
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pellucid/pellucid/bench/internal/rival"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/explain/treeshap"
)

//go:embed rival.py
var rivalScript []byte

// requirements are what the virtual environment is made of.
var requirements = []string{"xgboost-cpu==3.4.1", "lightgbm==4.6.0", "lleaves==1.3.0", "llvmlite==0.44.0", "onnxruntime", "onnxmltools", "onnx", "numpy", "scipy"}

const features = 30

func main() {
	python := flag.String("python", "", "a Python with what rival.py names; empty makes a virtual environment in the user's cache folder")
	rounds := flag.Int("rounds", 7, "rounds of every measurement")
	only := flag.String("only", "", "measure only what has this in its name")
	flag.Parse()
	if err := run(context.Background(), *python, *only, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "trees:", err)
		os.Exit(1)
	}
}

// kind is what is computed.
type kind int

const (
	predict kind = iota
	shap
	pairs
)

// work is one line of the table.
type work struct {
	name, model string
	// calls are the rival's names of the same work.
	calls []string
	kind  kind
	rows  int
	// repeats of a call in a round; the least time counts, of one row the mean: each call has
	// another, as no branch is foretold by the same row again.
	repeats int
	goal    float64
}

var works = []work{
	{"predict xgboost 100,000 rows", "xgboost", []string{"inplace", "predict"}, predict, 100_000, 1, 0.5},
	{"predict xgboost 100 rows", "xgboost", []string{"inplace", "predict"}, predict, 100, 50, 0.5},
	{"predict xgboost 1 row", "xgboost", []string{"inplace", "predict"}, predict, 1, 200, 0.5},
	{"predict lightgbm 100,000 rows", "lightgbm", []string{"predict"}, predict, 100_000, 1, 0.5},
	{"predict lightgbm 100 rows", "lightgbm", []string{"predict"}, predict, 100, 50, 0.5},
	{"predict lightgbm 1 row", "lightgbm", []string{"predict"}, predict, 1, 200, 0.5},
	{"predict lleaves 100,000 rows", "lightgbm", []string{"lleaves"}, predict, 100_000, 1, 0.5},
	{"predict lleaves 100 rows", "lightgbm", []string{"lleaves"}, predict, 100, 50, 0.5},
	{"predict lleaves 1 row", "lightgbm", []string{"lleaves"}, predict, 1, 200, 0.5},
	{"predict onnx 100,000 rows", "onnx", []string{"predict"}, predict, 100_000, 1, 0.5},
	{"predict onnx 100 rows", "onnx", []string{"predict"}, predict, 100, 50, 0.5},
	{"predict onnx 1 row", "onnx", []string{"predict"}, predict, 1, 200, 0.5},
	{"predict deep 100,000 rows", "deep", []string{"inplace", "predict"}, predict, 100_000, 1, 0.5},
	{"predict forest 20,000 rows", "forest", []string{"inplace", "predict"}, predict, 20_000, 1, 0.5},
	{"shap xgboost 2,000 rows", "xgboost", []string{"contribs"}, shap, 2_000, 1, 0.025},
	{"shap xgboost 1 row", "xgboost", []string{"contribs"}, shap, 1, 20, 0.2},
	{"shap lightgbm 500 rows", "lightgbm", []string{"contribs"}, shap, 500, 1, 0.02},
	{"shap lightgbm 1 row", "lightgbm", []string{"contribs"}, shap, 1, 20, 0.2},
	{"shap deep 500 rows", "deep", []string{"contribs"}, shap, 500, 1, 0.025},
	{"shap forest 64 rows", "forest", []string{"contribs"}, shap, 64, 1, 0.025},
	{"pairs xgboost 64 rows", "xgboost", []string{"interactions"}, pairs, 64, 1, 0.025},
	{"pairs xgboost 1 row", "xgboost", []string{"interactions"}, pairs, 1, 20, 0.2},
}

func run(ctx context.Context, python, only string, rounds int) (err error) {
	env, err := rival.New(ctx, rival.Config{Name: "trees", Script: rivalScript, Requirements: requirements, Python: python})
	if err != nil {
		return err
	}
	dir := env.Dir
	if _, err := os.Stat(filepath.Join(dir, "one.onnx")); err != nil {
		fmt.Println("training the models, once")
		if err := env.Run(ctx, "make", dir); err != nil {
			return err
		}
	}
	r, err := env.Start(ctx, "serve", dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Stop()) }()
	x, err := readRows(filepath.Join(dir, "rows.f32"))
	if err != nil {
		return err
	}
	fmt.Printf("rival: %s; one thread each; medians of %d rounds\n", versions(r.Ready), rounds)
	fmt.Printf("%-30s %12s %12s %7s %6s  %s\n", "work", "ours us/row", "rival us/row", "ratio", "goal", "rival's call")
	subjects := map[string]*subject{}
	for _, w := range works {
		if !strings.Contains(w.name, only) {
			continue
		}
		s := subjects[w.model]
		if s == nil {
			if s, err = load(dir, w.model, x); err != nil {
				return err
			}
			subjects[w.model] = s
		}
		if err := measure(ctx, s, r, w, rounds); err != nil {
			return fmt.Errorf("measure %s: %w", w.name, err)
		}
	}
	return nil
}

// versions are those that the rival says it has.
func versions(ready string) string {
	words := strings.Fields(ready)
	if len(words) != 5 {
		return ready
	}
	return fmt.Sprintf("XGBoost %s, LightGBM %s, lleaves %s, onnxruntime %s", words[1], words[2], words[3], words[4])
}

func readRows(path string) ([]float32, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	x := make([]float32, len(data)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return x, nil
}

// subject is one of our models, ready for both kinds of work.
type subject struct {
	session engine.Session
	input   string
	double  bool
	path    *treeshap.Path
	narrow  []float32
	wide    []float64
}

func load(dir, name string, x []float32) (*subject, error) {
	file := name + ".json"
	switch name {
	case "lightgbm":
		file = name + ".txt"
	case "onnx":
		file = "lightgbm.onnx"
	}
	m, err := modelfile.Open(filepath.Join(dir, file))
	if err != nil {
		return nil, err
	}
	in := m.Info().Inputs[0]
	s := &subject{narrow: x, wide: make([]float64, len(x)), input: in.Name, double: in.DType == engine.Float64}
	for i, v := range x {
		s.wide[i] = float64(v)
	}
	if s.session, err = m.NewSession(engine.SessionOptions{Threads: 1}); err != nil {
		return nil, err
	}
	if name == "onnx" {
		return s, nil // such files have no covers to explain by
	}
	holder, ok := m.(tree.Holder)
	if !ok {
		return nil, fmt.Errorf("%s holds no trees", file)
	}
	e, _ := holder.Trees()
	s.path, err = treeshap.Prepare(e)
	return s, err
}

// call returns the work as a function of where its rows begin, 0 but for one row.
func (s *subject) call(ctx context.Context, w work) (func(row int) error, error) {
	n := w.rows * features
	switch w.kind {
	case shap:
		phi := make([]float64, n)
		return func(row int) error { return s.path.Explain(s.wide[row*features:][:n], phi) }, nil
	case pairs:
		dst := make([]float64, n*features)
		return func(row int) error { return s.path.Interactions(s.wide[row*features:][:n], dst) }, nil
	}
	inputs := make([]engine.Values, 1)
	if w.rows == 1 {
		inputs = make([]engine.Values, w.repeats)
	}
	for i := range inputs {
		t, err := engine.Of(s.narrow[i*features:][:n], w.rows, features)
		if s.double {
			t, err = engine.Of(s.wide[i*features:][:n], w.rows, features)
		}
		if err != nil {
			return nil, err
		}
		inputs[i] = engine.Values{{Name: s.input, Tensor: t}}
	}
	return func(row int) error {
		_, err := s.session.Run(ctx, inputs[row], nil)
		return err
	}, nil
}

// seconds is how long a call takes.
func (w *work) seconds(f func(row int) error) (float64, error) {
	least, began := math.Inf(1), time.Now()
	for i := range w.repeats {
		start, row := time.Now(), 0
		if w.rows == 1 {
			row = i
		}
		if err := f(row); err != nil {
			return 0, err
		}
		least = min(least, time.Since(start).Seconds())
	}
	if w.rows == 1 {
		return time.Since(began).Seconds() / float64(w.repeats), nil
	}
	return least, nil
}

func measure(ctx context.Context, s *subject, r *rival.Process, w work, rounds int) error {
	f, err := s.call(ctx, w)
	if err != nil {
		return err
	}
	var ours, theirs, ratios []float64
	best := map[string]int{}
	for range rounds {
		mine, err := w.seconds(f)
		if err != nil {
			return err
		}
		least, which := math.Inf(1), ""
		for _, call := range w.calls {
			t, err := r.Seconds(w.model, call, w.rows, w.repeats)
			if err != nil {
				return err
			}
			if t < least {
				least, which = t, call
			}
		}
		best[which]++
		ours, theirs, ratios = append(ours, mine), append(theirs, least), append(ratios, mine/least)
	}
	which := w.calls[0]
	for call, n := range best {
		if n > best[which] {
			which = call
		}
	}
	row := 1e6 / float64(w.rows)
	fmt.Printf("%-30s %12.2f %12.2f %7.3f %6.3f  %s\n", w.name, median(ours)*row, median(theirs)*row, median(ratios), w.goal, which)
	return rival.Note{Against: against(r.Ready, w), Work: w.name, Ours: median(ours), Rival: median(theirs), Ratio: median(ratios), Threads: 1}.Write()
}

// against is the library that a work is measured against, with its version.
func against(ready string, w work) string {
	for _, one := range strings.Split(versions(ready), ", ") {
		name, _, _ := strings.Cut(strings.ToLower(one), " ")
		if w.calls[0] == "lleaves" && name == "lleaves" || w.calls[0] != "lleaves" && (w.model == name || w.model == "onnx" && name == "onnxruntime") {
			return one
		}
	}
	first, _, _ := strings.Cut(versions(ready), ", ") // deep trees are XGBoost's, too
	return first
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
