package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/engine/compress"
	"github.com/pellucid/pellucid/explain/audit"
)

// compressOptions are the flags of `pellucid model compress`.
type compressOptions struct {
	auditOptions
	model, to, out, ranges string
	calibration            []string
}

func compressCommand() *cobra.Command {
	var o compressOptions
	cmd := &cobra.Command{
		Use: "compress MODEL --to HOW --out FILE", Short: "Make a model file smaller and faster, and audit what that costs",
		Long: `Writes a smaller model of the same format, which the runtimes and libraries of the
first read too. With --input both models answer the same rows, and what differs is
told: size, speed on this machine, scores, decisions, accuracy (--labels), the
distribution of scores and the explanations. A limit that is not kept fails the
command, and the compressed model is then not written. A file that became larger is
written, with a warning (--max-size-ratio 1 refuses it). --input and --calibration take
what 'pellucid predict' takes, images and folders of arrays too.

HOW is one of these, or several by commas:
  fp16               weights in half precision, cast back where they are read (ONNX)
  int8               weight matrices as 8-bit integers with a scale a channel (ONNX)
  int8:full          what flows between layers as 8-bit integers too, its ranges taken
                     from the rows of --calibration, else of --input (ONNX)
  structured:SHARE   drop that share of each hidden layer's units, of the channels of
                     convolutions and of the heads of attention (ONNX)
  prune:SHARE        set that share of each weight matrix to zero (ONNX)
  trees:N            keep the first N boosting rounds (XGBoost, LightGBM, ONNX)
  least:SHARE        make single leaves of the share of trees that vary least
  leaves:EPSILON     join leaves of a split that differ by less, in the margin's unit`,
		Example: `  pellucid model compress model.onnx --to fp16 --out small.onnx
  pellucid model compress model.ubj --to trees:200,leaves:0.001 --out small.ubj --input rows.csv --max-score-diff 0.02
  pellucid model compress model.onnx --to int8:full --calibration train.npy --ranges percentile --out small.onnx
  pellucid model compress resnet.onnx --to int8:full --input images.npy --out small.onnx
  pellucid model compress bert.onnx --to fp16 --input arrays/ --out small.onnx
  pellucid model compress model.onnx --to structured:0.3,fp16 --out small.onnx \
    --input rows.parquet --labels late --audit audit.html --max-disagreement 0.01 --min-rank-correlation 0.95`,
		Args: oneArg("model file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model = args[0]
			if err := required(cmd, "to", "out"); err != nil {
				return err
			}
			o.readLimits(cmd.Flags())
			return compressModel(cmd.Context(), cmd.OutOrStdout(), newProgress(cmd.ErrOrStderr()), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", "how to compress (see above)")
	f.StringVar(&o.out, "out", "", "file to write, of the same extension")
	f.StringArrayVar(&o.calibration, "calibration", nil, "rows that int8:full takes ranges from, as --input")
	f.StringVar(&o.ranges, "ranges", string(compress.MinMax), "how: minmax, percentile or entropy")
	o.flags(f)
	return cmd
}

// check refuses what cannot work before any work is done.
func (o *compressOptions) check() ([]compress.Step, error) {
	steps, err := compress.Parse(o.to)
	if err != nil {
		return nil, usage(fmt.Errorf("--to: %w", err))
	}
	if _, err := compress.ParseRanges(o.ranges); err != nil {
		return nil, usage(fmt.Errorf("--ranges: %w", err))
	}
	full := slices.ContainsFunc(steps, func(s compress.Step) bool { return s.Kind == compress.Full })
	if full && len(o.calibration) == 0 && len(o.inputs) == 0 {
		return nil, usage(errors.New("--to int8:full needs rows to take ranges from: --calibration, or --input"))
	}
	if !full && len(o.calibration) > 0 {
		return nil, usage(errors.New("--calibration is for --to int8:full"))
	}
	if a, b := filepath.Ext(o.model), filepath.Ext(o.out); !strings.EqualFold(a, b) {
		return nil, usage(fmt.Errorf("--out %q must end in %s as the model does: the format stays", filepath.Base(o.out), a))
	}
	if len(o.inputs) == 0 {
		for _, x := range []struct {
			name  string
			given bool
		}{{"--audit", o.audit != ""}, {"--labels", o.labels != ""}, {"a limit", o.limited}} {
			if x.given {
				return nil, usage(fmt.Errorf("%s needs --input: without rows nothing is judged", x.name))
			}
		}
	}
	if err := o.page(); err != nil {
		return nil, err
	}
	if same, err := sameFile(o.model, o.out); err != nil || same {
		return nil, errors.Join(err, usageIf(same, "--out is the model itself: the original is never written over"))
	}
	return steps, nil
}

func usageIf(wrong bool, text string) error {
	if !wrong {
		return nil
	}
	return usage(errors.New(text))
}

// sameFile reports whether two paths are one file; the second may not exist yet.
func sameFile(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(x, y), nil
}

func compressModel(ctx context.Context, w io.Writer, bar *progress, o compressOptions) error {
	steps, err := o.check()
	if err != nil {
		return err
	}
	original, err := loadSide(o.model, nil)
	if err != nil {
		return err
	}
	in := compress.Input{Name: o.model, Dir: filepath.Dir(o.model), Data: original.data, Ranges: compress.Ranges(o.ranges)}
	if len(o.calibration) > 0 {
		if _, in.Calibration, _, err = predictInputs(original.Version.Info, o.calibration); err != nil {
			return err
		}
	}
	var labels []string
	if len(o.inputs) > 0 {
		if in.Rows, labels, err = o.rows(original.Version.Info); err != nil {
			return err
		}
	}
	result, err := compress.Apply(ctx, in, steps)
	if err != nil {
		return err
	}
	compressed, err := loadSide(o.out, result.Data)
	if err != nil {
		return fmt.Errorf("read back what was made: %w", err)
	}
	warnings := larger(original.FileBytes, compressed.FileBytes)
	for _, text := range warnings {
		bar.warn(text)
	}
	var r *audit.Report
	if len(o.inputs) > 0 {
		if r, err = o.judge(ctx, bar, original, compressed, in.Rows, labels); err != nil {
			return err
		}
		describe(r, result)
		r.Warnings = warnings
		if err := o.write(r); err != nil {
			return err
		}
		if r.Verdict != nil && !r.Verdict.Passed {
			return fmt.Errorf("compress %s: not written, for it is outside the limits: %s", filepath.Base(o.model), r.Verdict.Failures())
		}
	}
	if err := writeWhole(o.out, result.Data); err != nil {
		return fmt.Errorf("write %s: %w", o.out, err)
	}
	return compressText(w, original.FileBytes, result, r)
}

// larger warns of a file that did not become smaller.
func larger(before, after int64) []string {
	if after <= before {
		return nil
	}
	return []string{fmt.Sprintf("the file became larger: %d bytes, was %d (%s)", after, before, percent(float64(after)/float64(max(before, 1))))}
}

func describe(r *audit.Report, result *compress.Result) {
	for _, c := range result.Changes {
		r.Applied = append(r.Applied, audit.Applied{Part: c.Part, What: c.What})
	}
	r.Notes = append(r.Notes, result.Notes...)
}
