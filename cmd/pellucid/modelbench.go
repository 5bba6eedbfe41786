package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/golden"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/table"
)

type benchOptions struct {
	data, format          string
	shapes                []string
	batch, threads, least int
	seconds               float64
	batchGiven            bool
}

// Runs before those that are timed: the first ones lay out weights and get memory.
const warmRuns = 3

// maxRuns bounds what is kept of the runs of a model of a microsecond.
const maxRuns = 1 << 20

func benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use: "bench PATH", Short: "Time a model's runs",
		Long: `Runs a model over and over for some seconds and prints the median and the 99th
percentile of a run in milliseconds: the model alone, without protocols and records.

--data is what predict's --input takes (rows as CSV or Parquet, an array, a folder of
arrays) or a test_data_set_* folder, and --batch its first rows. Without it numbers are
drawn at random, always the same; whole numbers and texts are zeros and empty, since
which of them the model knows nobody has said.`,
		Example: `  pellucid model bench model.onnx --batch 32 --threads 2
  pellucid model bench model.ubj --data rows.csv --batch 1 --format json
  pellucid model bench bert.onnx --data cases/bert/test_data_set_0
  pellucid model bench bert.onnx --shape ids=1,128 --shape mask=1,128`,
		Args: oneArg("model file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.batchGiven = cmd.Flags().Changed("batch")
			switch {
			case o.format != "text" && o.format != "json":
				return usage(fmt.Errorf("format %q is not text or json", o.format))
			case o.batch < 1 || o.threads < 1 || o.least < 1:
				return usage(errors.New("--batch, --threads and --runs are numbers from 1 on"))
			case o.data != "" && len(o.shapes) > 0:
				return usage(errors.New("--shape is for inputs that are drawn: --data has its own"))
			case !(o.seconds >= 0 && o.seconds <= 3600):
				return usage(errors.New("--seconds is a number from 0 to 3600"))
			}
			path := args[0]
			if isFolder(path) {
				path = cmp.Or(caseModel(path), path)
			}
			m, err := modelfile.Open(path)
			if err != nil {
				return err
			}
			in, rows, err := o.inputs(m)
			if err != nil {
				return err
			}
			// As the server has it: of a small heap most of the time of a small model would be
			// the collector's.
			pacing, done := context.WithCancel(cmd.Context())
			defer done()
			go paceCollector(pacing)
			took, err := o.run(cmd.Context(), m, in)
			if err != nil {
				return err
			}
			return o.tell(cmd.OutOrStdout(), filepath.Base(path), rows, took)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.data, "data", "", "rows, arrays or a test_data_set_* folder to run over (default: random numbers)")
	f.IntVar(&o.batch, "batch", 1, "rows of a run (default of --data: all)")
	f.StringArrayVar(&o.shapes, "shape", nil, "INPUT=N,N,... of an input whose shape the model leaves open")
	f.IntVar(&o.threads, "threads", 1, "cores to use")
	f.Float64Var(&o.seconds, "seconds", 2, "time to run for")
	f.IntVar(&o.least, "runs", 10, "runs to time at least")
	f.StringVar(&o.format, "format", "text", "text or json")
	return cmd
}

// inputs are those of every run, and how many rows they are.
func (o *benchOptions) inputs(m engine.Model) (in engine.Values, rows int, err error) {
	info := m.Info()
	set, err := setOf(o.data)
	switch {
	case err != nil:
		return nil, 0, err
	case o.data == "":
		if in, err = zeroInputs(info, o.batch, o.shapes); err != nil {
			return nil, 0, err
		}
		if err = draw(in); err == nil {
			in, err = table.Halves(info, in)
		}
		if err == nil {
			in, _, err = engine.Bind(info, in)
		}
		return in, o.batch, err
	case set != "":
		in, rows, err = caseInputs(m, set)
	default:
		_, in, rows, err = predictInputs(info, []string{o.data})
	}
	if err != nil || !o.batchGiven || o.batch == rows {
		return in, rows, err
	}
	if o.batch > rows {
		return nil, 0, usage(fmt.Errorf("--batch %d: %s has %d rows", o.batch, o.data, rows))
	}
	if in, err = in.Slice(0, o.batch); err != nil {
		return nil, 0, err
	}
	return in, o.batch, nil
}

// setOf is the test_data_set_* folder that data is, or the first one in it, "" where it is neither.
func setOf(data string) (string, error) {
	if !isFolder(data) {
		return "", nil // whoever reads it says what it is not
	}
	if exists(filepath.Join(data, "input_0.pb")) {
		return data, nil
	}
	sets, err := golden.Sets(data)
	if err != nil || len(sets) == 0 {
		return "", err
	}
	return sets[0], nil
}

func isFolder(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func caseInputs(m engine.Model, set string) (engine.Values, int, error) {
	in, err := golden.Inputs(m, set)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", filepath.Base(set), err)
	}
	in, rows, err := engine.Bind(m.Info(), in)
	if err != nil {
		return nil, 0, fmt.Errorf("fit %s to the model: %w", filepath.Base(set), err)
	}
	return in, rows, nil
}

// draw fills the numbers of inputs with ones of a normal distribution, always the same: zeros
// send all rows of a tree one way.
func draw(in engine.Values) error {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range in {
		x := in[i].Tensor
		if !x.DType().IsFloat() {
			continue
		}
		values := make([]float32, x.Len())
		for k := range values {
			values[k] = float32(r.NormFloat64())
		}
		drawn, err := engine.Of(values, x.Shape()...)
		if err != nil {
			return err
		}
		in[i].Tensor = drawn
	}
	return nil
}

// run returns what each run took.
func (o *benchOptions) run(ctx context.Context, m engine.Model, in engine.Values) ([]time.Duration, error) {
	session, err := m.NewSession(engine.SessionOptions{Threads: o.threads})
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	until := time.Now().Add(time.Duration(o.seconds * float64(time.Second)))
	for i := 0; len(took) < o.least || len(took) < maxRuns && time.Now().Before(until); i++ {
		began := time.Now()
		if _, err := session.Run(ctx, in, nil); err != nil {
			return nil, fmt.Errorf("run: %w", err)
		}
		if i >= warmRuns {
			took = append(took, time.Since(began))
		}
	}
	return took, nil
}

// benchResult is the result as scripts read it.
type benchResult struct {
	Model   string  `json:"model"`
	Batch   int     `json:"batch"`
	Threads int     `json:"threads"`
	Runs    int     `json:"runs"`
	Median  float64 `json:"median_ms"`
	P99     float64 `json:"p99_ms"`
}

func (o *benchOptions) tell(w io.Writer, model string, rows int, took []time.Duration) error {
	slices.Sort(took)
	r := benchResult{model, rows, o.threads, len(took), quantileMS(took, 0.5), quantileMS(took, 0.99)}
	if o.format == "json" {
		return json.NewEncoder(w).Encode(r)
	}
	_, err := fmt.Fprintf(w, "%s: %s a run of %s (%s at the 99th percentile), %srows a second, %s, %s\n",
		r.Model, inMS(r.Median), several(rows, "row"), inMS(r.P99), scaled(float64(rows)*1e3/r.Median), several(r.Runs, "run"), several(r.Threads, "thread"))
	return err
}

func inMS(v float64) string { return fmt.Sprintf("%.4g ms", v) }

func several(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// quantileMS is the smallest that a share of the runs, in order, do not take longer than.
func quantileMS(took []time.Duration, share float64) float64 {
	i := int(math.Ceil(share*float64(len(took)))) - 1
	return float64(took[max(0, i)].Nanoseconds()) / 1e6
}
