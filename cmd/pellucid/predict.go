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

func inputRows(info *engine.Info, input string) (engine.Values, int, error) {
	t, err := table.Open(input)
	if err != nil {
		return nil, 0, err
	}
	in, err := t.Inputs(info)
	if err != nil {
		return nil, 0, fmt.Errorf("fit %s to the model: %w", input, err)
	}
	rows, _, err := engine.Bind(info, in)
	if err != nil {
		return nil, 0, fmt.Errorf("fit %s to the model: %w", input, err)
	}
	return rows, t.Rows, nil
}

func predict(ctx context.Context, w io.Writer, bar *progress, model string, inputs []string, threads int) error {
	m, err := modelfile.Open(model)
	if err != nil {
		return err
	}
	rows, n, err := predictInputs(m.Info(), inputs)
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
		if got, err = upright(m.Info(), got, to-from); err != nil {
			return err
		}
		if from == 0 {
			if err := out.Write(outputHeader(got)); err != nil {
				return err
			}
		}
		if err := writeOutputs(out, got, rowsOf(got, to-from)); err != nil {
			return err
		}
		bar.add(to - from)
	}
	out.Flush()
	return out.Error()
}

// upright has outputs that give a number a row side by side, [1, N], as labels of some
// exporters do, give one below the other, as a record takes them too. What the file says is of
// a fixed size is not of the rows.
func upright(info *engine.Info, out engine.Values, rows int) (engine.Values, error) {
	out = slices.Clone(out)
	for i, o := range out {
		if rows < 2 || !slices.Equal(o.Tensor.Shape(), []int{1, rows}) {
			continue
		}
		open := func(s engine.Spec) bool { return s.Name == o.Name && slices.Contains(s.Shape, -1) }
		if !slices.ContainsFunc(info.Outputs, open) {
			continue
		}
		t, err := o.Tensor.Reshape(rows)
		if err != nil {
			return nil, fmt.Errorf("shape output %q: %w", o.Name, err)
		}
		out[i].Tensor = t
	}
	return out, nil
}

// rowsOf is how many rows outputs of a run of n are written as. Inputs that are no rows,
// such as a batch of fixed size, may have as many of their own.
func rowsOf(out engine.Values, n int) int {
	if n != 1 || len(out) == 0 {
		return n
	}
	for _, o := range out {
		if o.Tensor.Rows() != out[0].Tensor.Rows() {
			return n
		}
	}
	return out[0].Tensor.Rows()
}

func outputHeader(out engine.Values) []string {
	var names []string
	for _, o := range out {
		k := o.Tensor.RowLen()
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

func writeOutputs(w *csv.Writer, out engine.Values, rows int) error {
	record := make([]string, 0, 8)
	format := make([]func(int) string, len(out))
	for i, o := range out {
		if o.Tensor.Rows() != rows {
			return fmt.Errorf("output %q has %d rows for %d rows of input", o.Name, o.Tensor.Rows(), rows)
		}
		format[i] = formatter(o.Tensor)
	}
	for r := range rows {
		record = record[:0]
		for f, o := range out {
			k := o.Tensor.RowLen()
			for i := r * k; i < (r+1)*k; i++ {
				record = append(record, format[f](i))
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
