package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/report"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/onnx"
	"github.com/pellucid/pellucid/engine/table"
	"github.com/pellucid/pellucid/explain/audit"
)

// auditOptions are the flags of an audit.
type auditOptions struct {
	inputs                       []string
	labels, audit                string
	explainTime                  time.Duration
	explainRows, rounds, threads int
	limits                       audit.Limits
	limited                      bool
}

func (o *auditOptions) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&o.inputs, "input", nil, "rows to judge by (.csv, .parquet, .npy), a folder of NAME.npy, or NAME=FILE.npy for each input")
	f.StringVar(&o.labels, "labels", "", "column of the rows that holds the truth, or a .npy of one label a row")
	f.StringVar(&o.audit, "audit", "", "file to write the audit to (.html or .json)")
	f.IntVar(&o.explainRows, "explain-rows", 200, "rows to explain by both models; 0 for none")
	f.DurationVar(&o.explainTime, "explain-time", 2*time.Minute, "how long that may take; 0 for as long as it takes")
	f.IntVar(&o.rounds, "rounds", 7, "how often speed is measured on each side; 0 for not at all")
	f.IntVar(&o.threads, "threads", 1, "cores to use")
	for _, l := range limitFlags(&o.limits) {
		f.Float64(l.name, 0, l.help)
	}
}

func auditCommand() *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use: "audit OLD NEW --input ROWS", Short: "Hold a new version of a model against the old one",
		Long: `Has both models answer the same rows and tells what differs: size, speed on this
machine, scores, decisions, accuracy (--labels), the distribution of scores, the
explanations and the rows that changed most. Both must take and give values of the
same names and types; they may be of different formats. A limit that is not kept
fails the command. --input takes what 'pellucid predict' takes: a file of rows, images
and other tensors as a .npy, several inputs as a folder of NAME.npy. Rows are explained
until --explain-time is over; a network of which one row takes more than a tenth of it by
integrated gradients is explained by saliency.`,
		Example: `  pellucid model audit old.onnx new.onnx --input rows.parquet
  pellucid model audit old.ubj new.ubj --input rows.csv --labels late --audit audit.html --max-disagreement 0.01 --max-accuracy-loss 0
  pellucid model audit resnet.onnx small.onnx --input images.npy --labels classes.npy --explain-time 10m
  pellucid model audit bert.onnx small.onnx --input arrays/`,
		Args: twoModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(o.inputs) == 0 || o.inputs[0] == "" {
				return usage(fmt.Errorf("%s needs --input: see '%s --help'", cmd.Name(), cmd.CommandPath()))
			}
			o.readLimits(cmd.Flags())
			return auditModels(cmd.Context(), cmd.OutOrStdout(), newProgress(cmd.ErrOrStderr()), args[0], args[1], o)
		},
	}
	o.flags(cmd.Flags())
	return cmd
}

func twoModels(cmd *cobra.Command, args []string) error {
	if len(args) != 2 {
		return usage(fmt.Errorf("%s takes two model files, the old one and the new one, got %d", cmd.CommandPath(), len(args)))
	}
	return nil
}

func auditModels(ctx context.Context, w io.Writer, bar *progress, before, after string, o auditOptions) error {
	if err := o.page(); err != nil {
		return err
	}
	a, err := loadSide(before, nil)
	if err != nil {
		return err
	}
	b, err := loadSide(after, nil)
	if err != nil {
		return err
	}
	rows, labels, err := o.rows(a.Version.Info)
	if err != nil {
		return err
	}
	r, err := o.judge(ctx, bar, a, b, rows, labels)
	if err != nil {
		return err
	}
	if err := o.write(r); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "file\t%d bytes, was %d (%s)\n", r.File.Compressed, r.File.Original, percent(r.File.Ratio))
	auditText(t, r)
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Verdict != nil && !r.Verdict.Passed {
		return fmt.Errorf("audit %s: outside the limits: %s", filepath.Base(after), r.Verdict.Failures())
	}
	return nil
}

// page refuses an audit's file of another kind.
func (o *auditOptions) page() error {
	if ext := strings.ToLower(filepath.Ext(o.audit)); o.audit != "" && ext != ".html" && ext != ".json" {
		return usage(fmt.Errorf("--audit %q must end in .html or .json", filepath.Base(o.audit)))
	}
	return nil
}

// write writes the audit where a file was asked for.
func (o *auditOptions) write(r *audit.Report) error {
	if o.audit == "" {
		return nil
	}
	if err := writeTo(o.audit, nil, func(w io.Writer) error { return writeAudit(w, r, o.audit) }); err != nil {
		return fmt.Errorf("write audit: %w", err)
	}
	return nil
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
func (o *auditOptions) readLimits(f *pflag.FlagSet) {
	for _, l := range limitFlags(&o.limits) {
		if !f.Changed(l.name) {
			continue
		}
		v, err := f.GetFloat64(l.name)
		if err == nil { // the flag is a float64: defined above
			*l.into, o.limited = &v, true
		}
	}
}

// rows reads the rows and, where a column is named, their labels.
func (o *auditOptions) rows(info *engine.Info) (engine.Values, []string, error) {
	t, in, _, err := predictInputs(info, o.inputs)
	if err != nil || o.labels == "" {
		return in, nil, err
	}
	if strings.EqualFold(filepath.Ext(o.labels), ".npy") {
		labels, err := labelArray(o.labels)
		return in, labels, err
	}
	if t == nil {
		return nil, nil, usage(fmt.Errorf("--labels %q: arrays have no columns; give a .npy of one label a row", o.labels))
	}
	c := t.Column(o.labels)
	if c == nil {
		return nil, nil, usage(fmt.Errorf("%s has no column %q", o.inputs[0], o.labels))
	}
	return in, labelTexts(c), nil
}

// labelArray reads the labels of a .npy, one a row.
func labelArray(path string) ([]string, error) {
	t, err := table.Open(path)
	if err != nil {
		return nil, err
	}
	if len(t.Columns) != 1 {
		return nil, usage(fmt.Errorf("--labels %s: %d columns, where one label a row is asked for", path, len(t.Columns)))
	}
	return labelTexts(&t.Columns[0]), nil
}

// labelTexts are a column's labels, empty where they are missing.
func labelTexts(c *table.Column) []string {
	labels := c.Strings()
	for i := range labels {
		if c.Missing(i) {
			labels[i] = ""
		}
	}
	return labels
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

func (o *auditOptions) judge(ctx context.Context, bar *progress, a, b *side, rows engine.Values, labels []string) (*audit.Report, error) {
	part, last := "", 0
	limit := o.explainTime
	if limit <= 0 {
		limit = -1
	}
	c := audit.Config{
		Original: a.Model, Compressed: b.Model, Rows: rows, Labels: labels, Threads: o.threads,
		ExplainRows: orNone(o.explainRows), ExplainTime: limit, Rounds: orNone(o.rounds),
		Step: func(name string, done, total int) {
			if name != part {
				bar.finish()
				bar.start(name, total)
				part, last = name, 0
			}
			bar.add(done - last)
			last = done
		},
	}
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

func writeAudit(w io.Writer, r *audit.Report, path string) error {
	if strings.EqualFold(filepath.Ext(path), ".html") {
		return report.Audit(w, r, time.Now())
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
