package main

import (
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/pellucid/pellucid/bench/internal/rival"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
)

// loads prints how long files take to become sessions, ours and the rival's, on all cores.
func loads(r *rival.Process, paths []string, rounds int) error {
	fmt.Printf("rival: onnxruntime %s; loads, medians of %d rounds\n", strings.TrimPrefix(r.Ready, "ready "), rounds)
	fmt.Printf("%-20s %12s %12s %7s\n", "network", "ours ms", "rival ms", "ratio")
	product := 0.0
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".onnx")
		var ours, theirs, ratios []float64
		for range rounds {
			const repeats = 5
			mine := math.Inf(1)
			for range repeats {
				took, err := load(path)
				if err != nil {
					return err
				}
				mine = min(mine, took)
			}
			least, err := r.Seconds("load", path, runtime.GOMAXPROCS(0), repeats)
			if err != nil {
				return err
			}
			ours, theirs, ratios = append(ours, mine), append(theirs, least), append(ratios, mine/least)
		}
		ratio := median(ratios)
		product += math.Log(ratio)
		fmt.Printf("%-20s %12.2f %12.2f %7.2f\n", name, 1e3*median(ours), 1e3*median(theirs), ratio)
		note := rival.Note{
			Against: "onnxruntime " + strings.TrimPrefix(r.Ready, "ready "), Work: name + ", load",
			Ours: median(ours), Rival: median(theirs), Ratio: ratio, Threads: runtime.GOMAXPROCS(0),
		}
		if err := note.Write(); err != nil {
			return err
		}
	}
	fmt.Printf("geometric mean of the ratios: %.3f\n", math.Exp(product/float64(max(len(paths), 1))))
	return nil
}

// load returns the seconds that a load takes. What was loaded before is no longer there, as
// the rival's is not.
func load(path string) (float64, error) {
	runtime.GC()
	start := time.Now()
	m, err := modelfile.Open(path)
	if err != nil {
		return 0, err
	}
	if _, err := m.NewSession(engine.SessionOptions{Threads: runtime.GOMAXPROCS(0)}); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return time.Since(start).Seconds(), nil
}
