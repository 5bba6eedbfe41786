package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/table"
)

// blockRows is how many rows are scored at a time: enough to keep the kernels
// busy, little enough to show progress and to bound memory.
const blockRows = 10_000

func predictCommand() *cobra.Command {
	var model, output string
	var inputs []string
	var threads int
	cmd := &cobra.Command{
		Use: "predict --model FILE --input ROWS", Short: "Score rows of a file, offline",
		Long: `Score rows of a file, offline, and write a CSV of the outputs.

--input is a file of rows (.csv, .parquet, .npy). A .npy of as many dimensions as the
model's only input is taken as it is, such as images [N, 3, 224, 224]. Several inputs are
a folder that has NAME.npy for each, or --input NAME=FILE.npy for each.`,
		Example: `  pellucid predict --model model.ubj --input rows.csv --output scores.csv
  pellucid predict --model model.onnx --input rows.parquet --threads 2
  pellucid predict --model resnet.onnx --input images.npy
  pellucid predict --model bert.onnx --input ids=ids.npy --input mask=mask.npy
  pellucid predict --model bert.onnx --input arrays/`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "model"); err != nil {
				return err
			}
			if len(inputs) == 0 || inputs[0] == "" {
				return usage(fmt.Errorf("%s needs --input: see '%s --help'", cmd.Name(), cmd.CommandPath()))
			}
			return writeTo(output, cmd.OutOrStdout(), func(w io.Writer) error {
				return predict(cmd.Context(), w, newProgress(cmd.ErrOrStderr()), model, inputs, threads)
			})
		},
	}
	cmd.Flags().StringVar(&model, "model", "", "model file (.onnx, .json, .ubj, .txt)")
	cmd.Flags().StringArrayVar(&inputs, "input", nil, "rows (.csv, .parquet, .npy), a folder of NAME.npy, or NAME=FILE.npy for each input")
	cmd.Flags().StringVar(&output, "output", "", "CSV file to write (default: standard output)")
	cmd.Flags().IntVar(&threads, "threads", 1, "cores to use")
	return cmd
}

// required refuses a command whose flags lack one it cannot do without.
func required(cmd *cobra.Command, names ...string) error {
	for _, n := range names {
		if f := cmd.Flags().Lookup(n); f.Value.String() == "" {
			return usage(fmt.Errorf("%s needs --%s: see '%s --help'", cmd.Name(), n, cmd.CommandPath()))
		}
	}
	return nil
}

// textColumns are the features whose values are texts, also where a file has them look like
// numbers: "1e3" is not "1000".
func textColumns(info *engine.Info) (names []string) {
	for i := range info.Features {
		f := &info.Features[i]
		if f.TellsTextsApart() || len(info.Inputs) == len(info.Features) && info.Inputs[i].DType == engine.String {
			names = append(names, f.Name)
		}
	}
	return names
}

func inputRows(info *engine.Info, input string) (*table.Table, engine.Values, error) {
	t, err := table.OpenLimited(input, table.Limits{Texts: textColumns(info)})
	if err != nil {
		return nil, nil, err
	}
	in, err := t.Inputs(info)
	if err == nil {
		in, _, err = engine.Bind(info, in)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("fit %s to the model: %w", input, err)
	}
	return t, in, nil
}

func predict(ctx context.Context, w io.Writer, bar *progress, model string, inputs []string, threads int) error {
	m, err := modelfile.Open(model)
	if err != nil {
		return err
	}
	_, rows, n, err := predictInputs(m.Info(), inputs)
	if err != nil {
		return err
	}
	session, err := m.NewSession(engine.SessionOptions{Threads: threads})
	if err != nil {
		return err
	}
	bar.start("predict", n)
	defer bar.finish()
	out := csv.NewWriter(w)
	step := rowsAtOnce(rows, n)
	for from := 0; from < n; from += step {
		to, part := min(from+step, n), rows
		if step < n {
			if part, err = rows.Slice(from, to); err != nil {
				return err
			}
		}
		got, err := session.Run(ctx, part, nil)
		if err != nil {
			return fmt.Errorf("predict rows %d to %d: %w", from, to-1, err)
		}
		upright := lay(m.Info(), got, to-from)
		if from == 0 {
			if err := out.Write(outputHeader(upright)); err != nil {
				return err
			}
		}
		if err := writeOutputs(out, upright, rowsOf(upright, to-from)); err != nil {
			return err
		}
		bar.add(to - from)
	}
	out.Flush()
	return out.Error()
}

// laid is an output of rows rows, which lie behind before elements and have after side by side.
type laid struct {
	engine.Named
	rows, before, after int
}

// lay finds the rows of outputs. They are the first dimension but of numbers that lie side by side,
// [1, N], as labels of some exporters do, and of what has them behind dimensions that the file says
// are of a fixed size, [targets, N, classes], as classifiers of several targets do.
func lay(info *engine.Info, out engine.Values, rows int) []laid {
	list := make([]laid, len(out))
	for i, o := range out {
		shape := o.Tensor.Shape()
		list[i] = laid{Named: o, rows: o.Tensor.Rows(), before: 1, after: o.Tensor.RowLen()}
		k := slices.IndexFunc(info.Outputs, func(s engine.Spec) bool { return s.Name == o.Name })
		if k < 0 {
			continue
		}
		says := info.Outputs[k].Shape
		axis := slices.Index(says, -1)
		if axis >= 0 && rows > 1 && slices.Equal(shape, []int{1, rows}) {
			axis = 1 // however many dimensions it says
		} else if axis < 1 || len(says) != len(shape) || shape[axis] != rows {
			continue
		}
		before := 1
		for _, d := range shape[:axis] {
			before *= d
		}
		list[i].rows, list[i].before, list[i].after = rows, before, o.Tensor.Len()/max(1, before*rows)
	}
	return list
}

// rowsOf is how many rows outputs of a run of n are written as. Inputs that are no rows,
// such as a batch of fixed size, may have as many of their own.
func rowsOf(out []laid, n int) int {
	if n != 1 || len(out) == 0 {
		return n
	}
	for _, o := range out {
		if o.rows != out[0].rows {
			return n
		}
	}
	return out[0].rows
}

func outputHeader(out []laid) []string {
	var names []string
	for _, o := range out {
		k := o.before * o.after
		if k == 1 {
			names = append(names, o.Name)
			continue
		}
		for i := range k {
			names = append(names, fmt.Sprintf("%s[%d]", o.Name, i))
		}
	}
	return names
}

func writeOutputs(w *csv.Writer, out []laid, rows int) error {
	record := make([]string, 0, 8)
	format := make([]func(int) string, len(out))
	for i, o := range out {
		if o.rows != rows {
			return fmt.Errorf("output %q has %d rows for %d rows of input", o.Name, o.rows, rows)
		}
		format[i] = formatter(o.Tensor)
	}
	for r := range rows {
		record = record[:0]
		for f, o := range out {
			for b := range o.before {
				for a := range o.after {
					record = append(record, format[f]((b*rows+r)*o.after+a))
				}
			}
		}
		if err := w.Write(record); err != nil {
			return err
		}
	}
	return nil
}

// formatter returns what writes element i of t as the shortest text that reads
// back exactly.
func formatter(t *engine.Tensor) func(i int) string {
	switch t.DType() {
	case engine.Float32:
		d := engine.Data[float32](t)
		return func(i int) string { return strconv.FormatFloat(float64(d[i]), 'g', -1, 32) }
	case engine.String:
		d := engine.Data[string](t)
		return func(i int) string { return d[i] }
	case engine.Int64:
		d := engine.Data[int64](t)
		return func(i int) string { return strconv.FormatInt(d[i], 10) }
	case engine.Uint64:
		d := engine.Data[uint64](t)
		return func(i int) string { return strconv.FormatUint(d[i], 10) }
	case engine.Bool:
		d := engine.Data[bool](t)
		return func(i int) string { return strconv.FormatBool(d[i]) }
	}
	d, _ := t.Float64s() // every other type fits a float64 exactly
	return func(i int) string { return strconv.FormatFloat(d[i], 'g', -1, 64) }
}
