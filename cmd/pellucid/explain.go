package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/dashboards/plots"
	"github.com/pellucid/pellucid/dashboards/report"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/explain"
)

// explainOptions are the flags of `pellucid explain`.
type explainOptions struct {
	model, method, background, outputName, inputName, format, output string
	inputs                                                           []string
	baseline                                                         []float64
	interactions                                                     bool
	steps, threads                                                   int
}

func explainCommand() *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use: "explain --model FILE --input ROWS", Short: "Explain a model's predictions for rows of a file, offline",
		Long: `Explains every row of a file: exact Shapley values for trees, gradients for
networks. Methods: tree_shap, integrated_gradients, saliency, input_x_gradient.
Ids of tokens are explained at the vectors that they look up, added up for each id.
Of several classes trees give one line each, gradients the class that scores highest
in the row, unless --output-name picks one.`,
		Example: `  pellucid explain --model model.ubj --input rows.csv --format csv --output phi.csv
  pellucid explain --model model.txt --input rows.parquet --background train.parquet --method tree_shap
  pellucid explain --model model.onnx --input one.csv --method integrated_gradients --format html --output why.html
  pellucid explain --model bert.onnx --input folder-of-arrays --input-name input_ids --baseline 0`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "model", "input"); err != nil {
				return err
			}
			if built := explain.Built(); o.method != "" && !slices.Contains(built, o.method) {
				return usage(fmt.Errorf("method %q is none of %s", o.method, strings.Join(built, ", ")))
			}
			return writeTo(o.output, cmd.OutOrStdout(), func(w io.Writer) error {
				return explainFile(cmd.Context(), w, newProgress(cmd.ErrOrStderr()), o)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "", "model file (.onnx, .json, .ubj, .txt)")
	f.StringArrayVar(&o.inputs, "input", nil, "rows (.csv, .parquet, .npy), a folder of NAME.npy, or NAME=FILE.npy for each input")
	f.StringVar(&o.method, "method", "", "method (default: the model's own)")
	f.StringVar(&o.background, "background", "", "rows to take Shapley values against (.csv, .parquet, .npy)")
	f.StringVar(&o.outputName, "output-name", "", "output to explain: its name, name[k] or a class")
	f.StringVar(&o.inputName, "input-name", "", "the one input to attribute to (gradients; default: floats, else the ids with the largest table)")
	f.Float64SliceVar(&o.baseline, "baseline", nil, "where integrated gradients begin: a row, or of ids one for all positions or one for each (default: zeros)")
	f.BoolVar(&o.interactions, "interactions", false, "add pairs of features (json)")
	f.IntVar(&o.steps, "steps", 0, "points of integrated gradients (default: as many as needed)")
	f.StringVar(&o.format, "format", "json", "json (one object a line), csv, html, svg or png (one row)")
	f.StringVar(&o.output, "output", "", "file to write (default: standard output)")
	f.IntVar(&o.threads, "threads", 1, "cores to use")
	return cmd
}

// explainBlock is how many rows are explained at a time.
const explainBlock = 1000

func explainFile(ctx context.Context, w io.Writer, bar *progress, o explainOptions) error {
	v, err := repository.Offline(o.model, o.background, o.threads)
	if err != nil {
		return err
	}
	_, rows, n, err := predictInputs(v.Info, o.inputs)
	if err != nil {
		return err
	}
	sink, err := explanationSink(w, o, n)
	if err != nil {
		return err
	}
	x, err := explain.New(explain.Config{Engine: "pellucid " + build(), Deadline: 24 * time.Hour, MaxCost: 1 << 60})
	if err != nil {
		return err
	}
	req := collector.ExplainRequest{Method: o.method, Output: o.outputName, Interactions: o.interactions, Steps: o.steps, Input: o.inputName, Baseline: o.baseline}
	if o.background != "" {
		req.Background = []byte(`"default"`)
	}
	bar.start("explain", n)
	defer bar.finish()
	var warned warnings
	for from := 0; from < n; from += explainBlock {
		to := min(from+explainBlock, n)
		list, err := explainRows(ctx, x, v, rows, from, to, req)
		if err != nil {
			return err
		}
		if err := sink.write(from, to-from, list); err != nil {
			return err
		}
		warned.add(from, to-from, list)
		bar.add(to - from)
	}
	warned.tell(bar.w)
	return sink.close()
}

// warnings are the explanations that say of themselves that they do not add up.
type warnings struct {
	count, all int
	first      string
}

func (s *warnings) add(from, rows int, list []collector.Explanation) {
	s.all += len(list)
	for i := range list {
		w := list[i].Certificate.Warning
		if w == "" {
			continue
		}
		if s.count++; s.count == 1 {
			s.first = fmt.Sprintf("row %d: %s", from+i*rows/len(list), w)
		}
	}
}

func (s *warnings) tell(w io.Writer) {
	if s.count > 0 {
		fmt.Fprintf(w, "warning: %d of %d explanations do not add up; %s\n", s.count, s.all, s.first)
	}
}

func explainRows(ctx context.Context, x *explain.Explainer, v *collector.ModelVersion, rows engine.Values, from, to int, req collector.ExplainRequest) ([]collector.Explanation, error) {
	part, err := rows.Slice(from, to)
	if err != nil {
		return nil, err
	}
	list, err := x.Explain(ctx, v, part, req)
	if err != nil {
		return nil, fmt.Errorf("explain rows %d to %d: %w", from, to-1, err)
	}
	return list, nil
}

// sink writes explanations in one of the formats as they come.
type sink struct {
	write func(first, rows int, list []collector.Explanation) error
	close func() error
}

func explanationSink(w io.Writer, o explainOptions, n int) (sink, error) {
	none := func() error { return nil }
	switch o.format {
	case "json":
		return sink{func(_, _ int, list []collector.Explanation) error { return report.JSON(w, list) }, none}, nil
	case "csv":
		out := report.NewCSVWriter(w)
		return sink{func(first, rows int, list []collector.Explanation) error {
			per := len(list) / max(rows, 1)
			for i := range list {
				if err := out.Write(first+i/max(per, 1), &list[i]); err != nil {
					return err
				}
			}
			return nil
		}, out.Flush}, nil
	case "html":
		var all []collector.Explanation
		return sink{
			func(_, _ int, list []collector.Explanation) error { all = append(all, list...); return nil },
			func() error { return report.HTML(w, all, report.Meta{}) },
		}, nil
	case "svg", "png":
		if n != 1 {
			return sink{}, usage(fmt.Errorf("format %s draws one row, the input has %d", o.format, n))
		}
		return sink{func(_, _ int, list []collector.Explanation) error { return drawOne(w, list, o.format) }, none}, nil
	}
	return sink{}, usage(fmt.Errorf("format %q is not json, csv, html, svg or png", o.format))
}

func drawOne(w io.Writer, list []collector.Explanation, format string) error {
	if len(list) != 1 {
		return usage(fmt.Errorf("format %s draws one output, the model has %d: choose one with --output-name", format, len(list)))
	}
	b, err := plots.Waterfall(&list[0], plots.Options{Format: plots.Format(format)})
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}
