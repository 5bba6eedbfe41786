package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// runCost is what a run of a batch takes, as scripts read it.
type runCost struct {
	Batch   int        `json:"batch"`
	Inputs  []specJSON `json:"inputs"`
	Outputs []specJSON `json:"outputs"`
	// Comparisons are what rows of trees take at most; Weights and Laid are of trees too, where
	// there are no Operations, which graphs have.
	Comparisons float64 `json:"comparisons,omitempty"`
	Operations  float64 `json:"operations,omitempty"`
	Weights     int64   `json:"weight_bytes,omitempty"`
	Laid        int64   `json:"laid_out_bytes,omitempty"`
	Peak        int64   `json:"run_bytes,omitempty"`
}

// costOf runs the model over zeros: batch rows, in the shapes that --shape gives where the
// model leaves dimensions open.
func costOf(ctx context.Context, m engine.Model, batch int, shapes []string) (*runCost, error) {
	in, err := zeroInputs(m.Info(), batch, shapes)
	if err != nil {
		return nil, err
	}
	in, _, err = engine.Bind(m.Info(), in)
	if err != nil {
		return nil, err
	}
	c := &runCost{Batch: batch, Inputs: namedSpecs(in)}
	session, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		return nil, err
	}
	if h, ok := m.(tree.Holder); ok {
		e, _ := h.Trees()
		c.Comparisons = float64(batch) * float64(comparisons(e))
	}
	coster, ok := session.(engine.Coster)
	if !ok {
		if trees, ok := m.(tree.Sized); ok {
			c.Laid = trees.Bytes() / 2
			c.Weights = trees.Bytes() - c.Laid
		}
		out, err := session.Run(ctx, in, nil)
		if err != nil {
			return nil, fmt.Errorf("run a batch of %d: %w", batch, err)
		}
		c.Outputs = namedSpecs(out)
		return c, nil
	}
	cost, err := coster.Cost(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("run a batch of %d: %w", batch, err)
	}
	c.Outputs, c.Operations, c.Weights, c.Laid, c.Peak = namedSpecs(cost.Outputs), cost.Operations, cost.Weights, cost.Laid, cost.Peak
	return c, nil
}

func namedSpecs(v engine.Values) []specJSON {
	out := make([]specJSON, 0, len(v))
	for _, x := range v {
		out = append(out, specJSON{x.Name, x.Tensor.DType().String(), x.Tensor.Shape()})
	}
	return out
}

// comparisons is how many a row takes at most: the depths of all trees.
func comparisons(e *tree.Ensemble) int {
	total := 0
	for i := range e.Trees {
		total += e.Trees[i].Depth()
	}
	return total
}

// zeroInputs makes inputs of a batch.
func zeroInputs(info *engine.Info, batch int, shapes []string) (engine.Values, error) {
	if batch < 1 {
		return nil, usage(errors.New("--batch is a number from 1 on"))
	}
	given := map[string][]int{}
	for _, s := range shapes {
		name, dims, ok := strings.Cut(s, "=")
		if !ok || !slices.ContainsFunc(info.Inputs, func(s engine.Spec) bool { return s.Name == name }) {
			return nil, usage(fmt.Errorf("--shape %q is not INPUT=N,N,... with an input of the model", s))
		}
		var shape []int
		for d := range strings.SplitSeq(dims, ",") {
			n, err := strconv.Atoi(strings.TrimSpace(d))
			if err != nil || n < 0 {
				return nil, usage(fmt.Errorf("--shape %q: %q is no dimension", s, d))
			}
			shape = append(shape, n)
		}
		given[name] = shape
	}
	var in engine.Values
	for _, spec := range info.Inputs {
		shape, ok := given[spec.Name]
		if !ok {
			shape = slices.Clone(spec.Shape)
			if len(shape) > 0 && shape[0] < 0 {
				shape[0] = batch
			}
			if slices.ContainsFunc(shape, func(d int) bool { return d < 0 }) {
				return nil, usage(fmt.Errorf("input %q has shape %v: say which, as in --shape '%s=%s'", spec.Name, spec.Shape, spec.Name, example(spec.Shape, batch)))
			}
		}
		x, err := engine.New(spec.DType, shape...)
		if err != nil {
			return nil, fmt.Errorf("make input %q: %w", spec.Name, err)
		}
		in = append(in, engine.Named{Name: spec.Name, Tensor: x})
	}
	return in, nil
}

// example is a shape as --shape takes it.
func example(shape []int, batch int) string {
	parts := make([]string, len(shape))
	for i, d := range shape {
		switch {
		case d >= 0:
		case i == 0:
			d = batch
		default:
			d = 128
		}
		parts[i] = strconv.Itoa(d)
	}
	return strings.Join(parts, ",")
}

// text are the lines of a table about a run.
func (c *runCost) text() [][2]string {
	lines := [][2]string{{"a run of", fmt.Sprintf("%d rows of zeros", c.Batch)}}
	for _, part := range []struct {
		name  string
		specs []specJSON
	}{{"  takes", c.Inputs}, {"  makes", c.Outputs}} {
		for _, s := range part.specs {
			lines = append(lines, [2]string{part.name, fmt.Sprintf("%s %s %v", s.Name, s.Datatype, s.Shape)})
		}
	}
	if c.Comparisons > 0 {
		lines = append(lines, [2]string{"  comparisons", scaled(c.Comparisons) + " at most"})
	}
	switch {
	case c.Peak > 0:
		lines = append(lines, [2]string{"  operations", fmt.Sprintf("%sFLOP, %sFLOP a row", scaled(c.Operations), scaled(c.Operations/float64(c.Batch)))},
			[2]string{"  memory", fmt.Sprintf("%s of weights, %s laid out of them, %s for the run", sizeText(c.Weights), sizeText(c.Laid), sizeText(c.Peak))})
	case c.Weights > 0:
		lines = append(lines, [2]string{"  memory", fmt.Sprintf("%s of trees, %s of them compiled", sizeText(c.Weights), sizeText(c.Laid))})
	}
	return lines
}

// scaled writes a count with three digits and a letter.
func scaled(v float64) string {
	for _, u := range []struct {
		of   float64
		unit string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.of {
			return strconv.FormatFloat(v/u.of, 'g', 3, 64) + " " + u.unit
		}
	}
	return strconv.FormatFloat(math.Round(v), 'f', -1, 64) + " "
}

// sizeText writes bytes as a person reads them.
func sizeText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}
