package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/report"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/compress"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/onnx"
	"github.com/pellucid/pellucid/engine/table"
	"github.com/pellucid/pellucid/explain/audit"
)

// compressOptions are the flags of `pellucid model compress`.
type compressOptions struct {
	model, to, input, labels, out, audit string
	explainRows, rounds, threads         int
	limits                               audit.Limits
	limited                              bool
}

func compressCommand() *cobra.Command {
	var o compressOptions
	cmd := &cobra.Command{
		Use: "compress MODEL --to HOW --out FILE", Short: "Make a model file smaller and faster, and audit what that costs",
		Long: `Writes a smaller model of the same format, which the runtimes and libraries of the
first read too. With --input both models answer the same rows, and what differs is
told: size, speed on this machine, scores, decisions, accuracy (--labels), the
distribution of scores and the explanations. A limit that is not kept fails the
command, and the compressed model is then not written.

HOW is one of these, or several by commas:
  fp16               weights in half precision, cast back where they are read (ONNX)
  int8               weight matrices as 8-bit integers with a scale a channel (ONNX)
  structured:SHARE   drop that share of each hidden layer's units (ONNX)
  prune:SHARE        set that share of each weight matrix to zero (ONNX)
  trees:N            keep the first N boosting rounds (XGBoost, LightGBM, ONNX)
  least:SHARE        make single leaves of the share of trees that vary least
  leaves:EPSILON     join leaves of a split that differ by less, in the margin's unit`,
		Example: `  pellucid model compress model.onnx --to fp16 --out small.onnx
  pellucid model compress model.ubj --to trees:200,leaves:0.001 --out small.ubj --input rows.csv --max-score-diff 0.02
  pellucid model compress model.onnx --to structured:0.3,fp16 --out small.onnx \
    --input rows.parquet --labels late --audit audit.html --max-disagreement 0.01 --min-rank-correlation 0.95`,
		Args: oneArg("model file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model = args[0]
			if err := required(cmd, "to", "out"); err != nil {
				return err
			}
			o.readLimits(cmd)
			return compressModel(cmd.Context(), cmd.OutOrStdout(), newProgress(cmd.ErrOrStderr()), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", "how to compress (see above)")
	f.StringVar(&o.out, "out", "", "file to write, of the same extension")
	f.StringVar(&o.input, "input", "", "rows to judge by (.csv, .parquet, .npy)")
	f.StringVar(&o.labels, "labels", "", "column of the rows that holds the truth")
	f.StringVar(&o.audit, "audit", "", "file to write the audit to (.html or .json)")
	f.IntVar(&o.explainRows, "explain-rows", 200, "rows to explain by both models; 0 for none")
	f.IntVar(&o.rounds, "rounds", 7, "how often speed is measured on each side; 0 for not at all")
	f.IntVar(&o.threads, "threads", 1, "cores to use")
	for _, l := range limitFlags(&o.limits) {
		f.Float64(l.name, 0, l.help)
	}
	return cmd
}

// limitFlag is a limit that may be asked for.
type limitFlag struct {
	name, help string
	into       **float64
}

func limitFlags(l *audit.Limits) []limitFlag {
	return []limitFlag{
		{"max-score-diff", "fail where any output differs by more", &l.ScoreDiff},
		{"max-mean-score-diff", "fail where outputs differ by more on average", &l.MeanScoreDiff},
		{"max-disagreement", "fail where more than this share of rows is decided otherwise", &l.Disagreement},
		{"max-psi", "fail where the scores' population stability index is larger", &l.PSI},
		{"min-rank-correlation", "fail where explanations agree less (mean Spearman)", &l.RankCorrelation},
		{"max-accuracy-loss", "fail where more accuracy is lost (a regression: where RMSE grows by a larger share)", &l.AccuracyLoss},
		{"max-size-ratio", "fail where the file is larger than this share of the original", &l.SizeRatio},
		{"min-speedup", "fail where batches are not answered so many times as fast", &l.Speedup},
	}
}

// readLimits takes the limits that were given; a limit of 0 is one.
func (o *compressOptions) readLimits(cmd *cobra.Command) {
	for _, l := range limitFlags(&o.limits) {
		if !cmd.Flags().Changed(l.name) {
			continue
		}
		v, err := cmd.Flags().GetFloat64(l.name)
		if err == nil { // the flag is a float64: defined above
			*l.into, o.limited = &v, true
		}
	}
}

// check refuses what cannot work before any work is done.
func (o *compressOptions) check() ([]compress.Step, error) {
	steps, err := compress.Parse(o.to)
	if err != nil {
		return nil, usage(fmt.Errorf("--to: %w", err))
	}
	if a, b := filepath.Ext(o.model), filepath.Ext(o.out); !strings.EqualFold(a, b) {
		return nil, usage(fmt.Errorf("--out %q must end in %s as the model does: the format stays", filepath.Base(o.out), a))
	}
	if o.input == "" {
		for _, x := range []struct {
			name  string
			given bool
		}{{"--audit", o.audit != ""}, {"--labels", o.labels != ""}, {"a limit", o.limited}} {
			if x.given {
				return nil, usage(fmt.Errorf("%s needs --input: without rows nothing is judged", x.name))
			}
		}
	}
	if ext := strings.ToLower(filepath.Ext(o.audit)); o.audit != "" && ext != ".html" && ext != ".json" {
		return nil, usage(fmt.Errorf("--audit %q must end in .html or .json", filepath.Base(o.audit)))
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
	in := compress.Input{Name: o.model, Dir: filepath.Dir(o.model), Data: original.data}
	var labels []string
	if o.input != "" {
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
	var r *audit.Report
	if o.input != "" {
		if r, err = o.judge(ctx, bar, original, compressed, in.Rows, labels); err != nil {
			return err
		}
		describe(r, result)
		if o.audit != "" {
			if err := writeTo(o.audit, nil, func(w io.Writer) error { return writeAudit(w, r, o.audit) }); err != nil {
				return fmt.Errorf("write audit: %w", err)
			}
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

// rows reads the rows and, where a column is named, their labels.
func (o *compressOptions) rows(info *engine.Info) (engine.Values, []string, error) {
	t, err := table.Open(o.input)
	if err != nil {
		return nil, nil, err
	}
	var labels []string
	if o.labels != "" {
		c := t.Column(o.labels)
		if c == nil {
			return nil, nil, usage(fmt.Errorf("%s has no column %q", o.input, o.labels))
		}
		labels = c.Strings()
		for i := range labels {
			if c.Missing(i) {
				labels[i] = ""
			}
		}
	}
	in, err := t.Inputs(info)
	if err == nil {
		in, _, err = engine.Bind(info, in)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("fit %s to the model: %w", o.input, err)
	}
	return in, labels, nil
}

// side is a model with the bytes of its file.
type side struct {
	audit.Model
	data []byte
}

// loadSide reads the model at path, or in data where that is given, and measures
// what it takes in memory.
func loadSide(path string, data []byte) (*side, error) {
	dir := ""
	if data == nil {
		// Open checks what kind of file it is before anything reads it.
		if _, err := modelfile.Open(path); err != nil {
			return nil, err
		}
		var err error
		if data, err = os.ReadFile(path); err != nil {
			return nil, err
		}
		dir = filepath.Dir(path)
	}
	bytes := int64(len(data))
	if strings.EqualFold(filepath.Ext(path), ".onnx") {
		f, err := onnx.Edit(data, dir)
		if err != nil {
			return nil, err
		}
		bytes += int64(f.Outside())
	}
	before := heapBytes()
	m, err := modelfile.Read(path, data, dir)
	if err != nil {
		return nil, err
	}
	memory := max(heapBytes()-before, 0)
	sum := sha256.Sum256(data)
	name := filepath.Base(path)
	return &side{data: data, Model: audit.Model{
		Name: name, FileBytes: bytes, MemoryBytes: memory,
		Version: &collector.ModelVersion{Name: name, Version: "1", Digest: hex.EncodeToString(sum[:]), Info: m.Info(), Model: m},
	}}, nil
}

// heapBytes returns the bytes in use after a collection; what pools keep is freed by
// the second one.
func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func (o *compressOptions) judge(ctx context.Context, bar *progress, a, b *side, rows engine.Values, labels []string) (*audit.Report, error) {
	last := 0
	c := audit.Config{
		Original: a.Model, Compressed: b.Model, Rows: rows, Labels: labels, Threads: o.threads,
		ExplainRows: orNone(o.explainRows), Rounds: orNone(o.rounds),
		Step: func(done, _ int) { bar.add(done - last); last = done },
	}
	bar.start("audit", audit.Steps)
	defer bar.finish()
	r, err := audit.Run(ctx, c)
	if err != nil {
		return nil, err
	}
	r.Judge(o.limits)
	return r, nil
}

// orNone turns a flag's 0 into what means none there.
func orNone(n int) int {
	if n <= 0 {
		return -1
	}
	return n
}

func describe(r *audit.Report, result *compress.Result) {
	for _, c := range result.Changes {
		r.Applied = append(r.Applied, audit.Applied{Part: c.Part, What: c.What})
	}
	r.Notes = append(r.Notes, result.Notes...)
}

func writeAudit(w io.Writer, r *audit.Report, path string) error {
	if strings.EqualFold(filepath.Ext(path), ".html") {
		return report.Audit(w, r, time.Now())
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writeWhole writes a file that is there whole or not at all.
func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".pellucid-*"+filepath.Ext(path))
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
