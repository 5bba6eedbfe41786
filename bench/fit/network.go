package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pellucid/pellucid/bench/internal/rival"
	"github.com/pellucid/pellucid/engine/train"
	"github.com/pellucid/pellucid/engine/train/trees"
)

// The network: units of its hidden layers and rows of a step.
var hidden = []int{64, 32}

const batch = 256

// measureNetwork holds fits of a network against PyTorch's: the same layers, loss, optimiser and
// number of steps, rows drawn anew in each epoch.
func measureNetwork(ctx context.Context, r *rival.Process, d *trees.Data, threads, epochs, rounds int) error {
	rows := len(d.Labels)
	columns := make([]train.Column, features)
	for f := range columns {
		v := make([]float64, rows)
		for i := range v {
			v[i] = float64(d.X[i*features+f])
		}
		columns[f] = train.Column{Name: fmt.Sprintf("f%d", f), Numbers: v}
	}
	labels := &train.Labels{Classes: []string{"0", "1"}, Class: make([]int, rows)}
	for i, y := range d.Labels {
		labels.Class[i] = int(y)
	}
	var ours, theirs, ratios []float64
	for range rounds {
		start := time.Now()
		f, err := train.Fit(ctx, columns, labels, train.Config{Hidden: hidden, Optimiser: train.Adam, Epochs: epochs, Batch: batch, Seed: 1, Threads: threads})
		if err != nil {
			return err
		}
		mine := time.Since(start).Seconds()
		text, err := r.Ask(threads, epochs)
		if err != nil {
			return err
		}
		var s, loss float64
		if _, err := fmt.Sscan(text, &s, &loss); err != nil {
			return fmt.Errorf("the rival says %q", text)
		}
		ours, theirs, ratios = append(ours, mine), append(theirs, s), append(ratios, mine/s)
		fmt.Printf("%-10d %8.2f %8.2f %7.3f   (losses %.4f and %.4f)\n", threads, mine, s, mine/s, f.TrainingLoss, loss)
	}
	fmt.Printf("%-10d %8.2f %8.2f %7.3f   median\n", threads, median(ours), median(theirs), median(ratios))
	return rival.Note{
		Against: "PyTorch " + strings.TrimPrefix(r.Ready, "ready "), Work: fmt.Sprintf("fit a network of %v units to %d rows of %d features, %d epochs", hidden, rows, features, epochs),
		Ours: median(ours), Rival: median(theirs), Ratio: median(ratios), Threads: threads,
	}.Write()
}
