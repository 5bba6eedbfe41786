package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/stats"
	"github.com/pellucid/pellucid/engine/table"
	"github.com/pellucid/pellucid/engine/train"
	"github.com/pellucid/pellucid/engine/train/calibrate"
	"github.com/pellucid/pellucid/engine/train/trees"
)

// fitOptions are the flags of `pellucid model fit`.
type fitOptions struct {
	kind, input, label, from, output   string
	features, categorical              []string
	weight, time, layers, calibrate    string
	classWeight, monotone              []string
	loss, activation, optimiser, sched string
	hidden                             []int
	seed                               uint64
	l2Given                            bool
	cfg                                train.Config
	trees                              trees.Options
}

func fitCommand() *cobra.Command {
	var o fitOptions
	cmd := &cobra.Command{
		Use: "fit --input ROWS --label COLUMN --output FILE", Short: "Fit a model to labelled rows, or a network's last layers anew",
		Long: `Fits a model to the labelled rows of a file and writes it as one file that takes raw
values: scales, what a missing number stands for and categories are inside.
Part of the rows is held out, to stop early and to measure by. The same rows, flags
and seed give the same file, whatever the number of threads.

  linear   least squares, logistic or multinomial regression, or another --loss
  mlp      a network of dense layers (--hidden)
  trees    gradient-boosted trees (--rounds, --depth, --leaves, --monotone ...)

--calibrate maps the probabilities to what half of the rows held out tell, and the
other half says what became of them. It is ONNX, behind the model, whose label stays
what the model itself decides.

With --from the last dense layers of an ONNX network are fitted anew, and everything
else in it stays as it is: a drifted head from labelled rows, such as those that
'pellucid export' takes out of the store. Rows without a label are left out.

--output is an .onnx file (trees: or a .json one, XGBoost's, which can hold sets of
categories), or a new folder models/NAME/VERSION, in which uncalibrated trees are
XGBoost's: model.yaml is then written beside the model, with rows learnt from as the
reference of its drift, and a server that watches models/ serves it at once.

An export's rows weigh what its column of weights says.

Text is a category, numbers are numbers (but for --categorical). A label that is
text, or 0 and 1 only, is a class, any other a number (but for --loss).`,
		Example: `  pellucid model fit --input rows.csv --label late --output model.onnx
  pellucid model fit --kind mlp --hidden 64,32 --input rows.parquet --label price --features area,city,year --output models/price/1
  pellucid model fit --kind trees --monotone area=+1 --input rows.csv --label price --output models/price/2
  pellucid model fit --input claims.csv --label claims --loss poisson --time day --output model.onnx

  pellucid export --model flights_mlp --from 2013-07-01 --output july.csv
  pellucid model fit --from models/flights_mlp/1/model.onnx --input july.csv --label label --time time --output models/flights_mlp/2`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "input", "label", "output"); err != nil {
				return err
			}
			o.l2Given = cmd.Flags().Changed("l2")
			if err := o.check(cmd); err != nil {
				return err
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), newProgress(cmd.ErrOrStderr()))
		},
	}
	o.flags(cmd)
	o.treeFlags(cmd)
	return cmd
}

func (o *fitOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.kind, "kind", "linear", "linear, mlp or trees")
	f.StringVar(&o.input, "input", "", "labelled rows (.csv, .parquet)")
	f.StringVar(&o.label, "label", "", "column that holds the truth")
	f.StringSliceVar(&o.features, "features", nil, "columns to learn from (default: all others)")
	f.StringSliceVar(&o.categorical, "categorical", nil, "columns of numbers that are categories")
	f.StringVar(&o.weight, "weight", "", "column of what each row counts for")
	f.StringSliceVar(&o.classWeight, "class-weight", nil, "balanced: every class counts as much as any other; or CLASS=NUMBER,...: rows of it count for so much")
	f.StringVar(&o.calibrate, "calibrate", "", "probabilities by "+list(calibrate.Methods)+", fitted to rows held out")
	f.StringVar(&o.time, "time", "", "column of time: the last rows are held out (default: rows are drawn)")
	f.StringVar(&o.from, "from", "", "ONNX network whose last layers are fitted anew")
	f.StringVar(&o.layers, "layers", "last", "with --from, the dense layers to fit: last, all or how many from the last")
	f.StringVar(&o.output, "output", "", "file to write (.onnx; of trees .json too), or a new folder models/NAME/VERSION")
	f.IntSliceVar(&o.hidden, "hidden", []int{64, 32}, "sizes of an mlp's hidden layers")
	f.StringVar(&o.activation, "activation", "relu", "of hidden layers: "+strings.Join(activationNames(), ", "))
	f.StringVar(&o.loss, "loss", "", list(train.Losses)+" (default: what the label suggests)")
	f.Float64Var(&o.cfg.Delta, "delta", 0, "where the huber loss turns linear, in the label's unit (default: one standard deviation)")
	f.Float64Var(&o.cfg.Quantile, "quantile", 0.5, "share of labels below, of the quantile loss")
	f.StringVar(&o.optimiser, "optimizer", "", list(train.Optimisers)+" (default: lbfgs for linear models, else adam)")
	f.Float64Var(&o.cfg.Rate, "learning-rate", 0, "of sgd, adam and trees (default: 0.01, 0.001 and 0.1)")
	f.StringVar(&o.sched, "schedule", "constant", "of the learning rate: "+list(train.Schedules))
	f.Float64Var(&o.cfg.Momentum, "momentum", 0, "of sgd")
	f.BoolVar(&o.cfg.Nesterov, "nesterov", false, "look ahead along sgd's momentum")
	f.Float64Var(&o.cfg.Decay, "weight-decay", 0, "share of the rate by which weights shrink a step (AdamW's)")
	f.Float64Var(&o.cfg.L2, "l2", 0, "L2/2 of the sum of squared weights is added to the mean loss (default: 0.0001 for linear models)")
	f.IntVar(&o.cfg.Epochs, "epochs", 0, "how often all rows are seen, at most (default: 100; steps of lbfgs: 1000)")
	f.IntVar(&o.cfg.Batch, "batch", 256, "rows of a step")
	f.Float64Var(&o.cfg.Hold, "holdout", 0.2, "share of rows to hold out; 0 for none")
	f.IntVar(&o.cfg.Patience, "patience", 10, "epochs, or trees, without a smaller held-out loss that end the fit; 0 for none")
	f.Uint64Var(&o.seed, "seed", 0, "of the split, the first weights, the order of rows and what is drawn of them")
	f.IntVar(&o.cfg.Threads, "threads", 1, "cores to use")
}

func list[T ~string](values []T) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return strings.Join(out, ", ")
}

func activationNames() []string {
	var names []string
	for name := range train.Activations {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// check refuses what cannot work before any work is done.
func (o *fitOptions) check(cmd *cobra.Command) error {
	for _, x := range []struct{ flag, value, known string }{
		{"kind", o.kind, "linear, mlp, trees"},
		{"loss", o.loss, list(train.Losses)},
		{"optimizer", o.optimiser, list(train.Optimisers)},
		{"schedule", o.sched, list(train.Schedules)},
		{"activation", o.activation, strings.Join(activationNames(), ", ")},
		{"calibrate", o.calibrate, list(calibrate.Methods)},
	} {
		if x.value != "" && !slices.Contains(strings.Split(x.known, ", "), x.value) {
			return usage(fmt.Errorf("--%s %q is none of %s", x.flag, x.value, x.known))
		}
	}
	given := func(names ...string) error {
		for _, name := range names {
			if cmd.Flags().Changed(name) {
				return usage(fmt.Errorf("--%s has no effect here: see '%s --help'", name, cmd.CommandPath()))
			}
		}
		return nil
	}
	if o.from != "" {
		if err := given("kind", "hidden", "activation", "features", "categorical"); err != nil {
			return err
		}
	} else if err := given("layers"); err != nil {
		return err
	}
	if o.kind != "mlp" {
		if err := given("hidden", "activation"); err != nil {
			return err
		}
	}
	switch n, err := strconv.Atoi(o.layers); {
	case o.layers == "last":
		o.cfg.Layers = 1
	case o.layers == "all":
		o.cfg.Layers = -1
	case err != nil || n < 1:
		return usage(fmt.Errorf("--layers %q is neither last, all nor a number above 0", o.layers))
	default:
		o.cfg.Layers = n
	}
	if o.cfg.Batch < 1 || o.cfg.Threads < 1 || o.cfg.Epochs < 0 || o.cfg.Patience < 0 || cmd.Flags().Changed("epochs") && o.cfg.Epochs == 0 {
		return usage(errors.New("--batch, --threads and --epochs are above 0, and --patience not below"))
	}
	o.cfg.Patience = orNone(o.cfg.Patience)
	o.cfg.Loss, o.cfg.Optimiser, o.cfg.Schedule, o.cfg.Activation = train.Loss(o.loss), train.Optimiser(o.optimiser), train.Schedule(o.sched), o.activation
	o.cfg.Seed = o.seed
	if !(o.cfg.Hold >= 0 && o.cfg.Hold < 1) {
		return usage(errors.New("--holdout is from 0 up, and below 1"))
	}
	if err := errors.Join(o.checkTrees(given), o.checkCalibration()); err != nil {
		return err
	}
	if o.kind == "mlp" {
		o.cfg.Hidden = o.hidden
	} else if o.from == "" && !o.l2Given {
		o.cfg.L2 = 1e-4
	}
	return o.checkOutput()
}

// run fits, measures by the file that was made, and writes it.
func (o *fitOptions) run(ctx context.Context, w io.Writer, bar *progress) error {
	t, err := table.Open(o.input)
	if err != nil {
		return err
	}
	rows, err := o.rows(t)
	if err != nil {
		return err
	}
	done := 0
	o.cfg.Step = func(p train.Progress) {
		if done == 0 {
			bar.start("fit", p.Epochs)
		}
		bar.add(p.Epoch - done)
		done = p.Epoch
	}
	f, err := o.fit(ctx, rows, bar)
	if done > 0 {
		bar.finish()
	}
	if err != nil {
		return err
	}
	m, err := o.readBack(f.Model)
	if err != nil {
		return err
	}
	if f.Output == "" {
		f.Output = m.Info().Outputs[0].Name
	}
	in, err := boundRows(rows.table, m.Info())
	if err != nil {
		return fmt.Errorf("read back what was made: %w", err)
	}
	measured := f.Held
	if len(measured) == 0 {
		measured = f.Training
	}
	var cal *calibration
	if o.calibrate != "" {
		if cal, measured, err = o.calibrated(ctx, m, in, rows.labels, f); err != nil {
			return err
		}
		if m, err = o.readBack(f.Model); err != nil {
			return err
		}
	}
	p, err := f.Measure(ctx, m, in, rows.labels, measured)
	if err != nil {
		return fmt.Errorf("measure what was made: %w", err)
	}
	path, err := o.write(f, m.Info(), rows)
	if err != nil {
		return err
	}
	return o.report(w, path, rows, f, m.Info(), p, cal, len(measured))
}

// readBack reads a model that was made, as the server will.
func (o *fitOptions) readBack(model []byte) (engine.Model, error) {
	m, err := modelfile.Read(o.fileName(), model, "")
	if err != nil {
		return nil, fmt.Errorf("read back what was made: %w", err)
	}
	return m, nil
}

// fit makes the model of the kind asked for.
func (o *fitOptions) fit(ctx context.Context, rows *fitRows, bar *progress) (*train.Fitted, error) {
	if rows.network != nil {
		in, err := boundRows(rows.table, rows.network.Info)
		if err != nil {
			return nil, fmt.Errorf("fit %s to %s: %w", filepath.Base(o.input), filepath.Base(o.from), err)
		}
		return rows.network.Tune(ctx, in, rows.labels, o.cfg)
	}
	columns, err := o.columns(rows)
	if err != nil {
		return nil, err
	}
	switch o.kind {
	case "linear", "mlp":
		return train.Fit(ctx, columns, rows.labels, o.cfg)
	case treesKind:
		return o.fitTrees(ctx, columns, rows.labels, bar)
	}
	return nil, usage(fmt.Errorf("--kind %q is not known", o.kind))
}

// boundRows are the inputs of a model that all rows make.
func boundRows(t *table.Table, info *engine.Info) (engine.Values, error) {
	in, err := t.Inputs(info)
	if err == nil {
		in, _, err = engine.Bind(info, in)
	}
	return in, err
}

// openNetwork reads the network of --from.
func (o *fitOptions) openNetwork() (*train.Network, error) {
	if !strings.EqualFold(filepath.Ext(o.from), ".onnx") {
		return nil, usage(fmt.Errorf("--from %q is no .onnx file", filepath.Base(o.from)))
	}
	info, err := os.Stat(o.from)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 2<<30 {
		return nil, fmt.Errorf("open %s: not a regular file of at most 2 GiB", o.from)
	}
	data, err := os.ReadFile(o.from)
	if err != nil {
		return nil, err
	}
	n, err := train.Open(data, filepath.Dir(o.from))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", o.from, err)
	}
	return n, nil
}

// report tells what was fitted, how well, and where it is.
func (o *fitOptions) report(w io.Writer, path string, rows *fitRows, f *train.Fitted, info *engine.Info, p stats.Performance, cal *calibration, measured int) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	held := "none held out"
	switch {
	case len(f.Held) > 0 && o.time != "":
		held = fmt.Sprintf("the last %d by %s held out", len(f.Held), o.time)
	case len(f.Held) > 0:
		held = fmt.Sprintf("%d held out, drawn by seed %d", len(f.Held), o.seed)
	}
	fmt.Fprintf(t, "rows\t%d to learn from, %s\n", len(f.Training), held)
	if rows.weighed {
		fmt.Fprintf(t, "weights\tthe export's own, column %s\n", o.weight)
	}
	for _, n := range rows.notes {
		fmt.Fprintf(t, "left out\t%s\n", n)
	}
	names := make([]string, len(info.Features))
	for i := range names {
		names[i] = info.Features[i].Name
	}
	if len(names) > 0 {
		fmt.Fprintf(t, "features\t%s\n", shortened(names))
	}
	if rows.labels.Class != nil {
		fmt.Fprintf(t, "classes\t%s\n", shortened(rows.labels.Classes))
	}
	fmt.Fprintf(t, "fitted\t%s\n", o.fittedText(f))
	fmt.Fprintf(t, "loss\t%s: %s over what was learnt from", f.Loss, brief(f.TrainingLoss))
	if !math.IsNaN(f.HeldLoss) {
		fmt.Fprintf(t, ", %s held out", brief(f.HeldLoss))
		if f.Tuned {
			fmt.Fprintf(t, " (%s before)", brief(f.HeldBefore))
		}
	}
	part := "held out"
	if len(f.Held) == 0 {
		part = "learnt from"
	}
	if cal != nil {
		fmt.Fprintf(t, "\ncalibrated\t%s\n", cal.text(o.calibrate, measured))
		part = fmt.Sprintf("held out (%d)", measured)
	}
	fmt.Fprintf(t, "\n%s\t%s\n", part, metricsText(p))
	if rows.private != "" {
		fmt.Fprintf(t, "private\t%s\n", rows.private)
	}
	if rows.kept != "" {
		fmt.Fprintf(t, "reference\t%s\n", rows.kept)
	}
	fmt.Fprintf(t, "wrote\t%s\n", path)
	return t.Flush()
}

// fittedText says what was fitted, and in how many steps.
func (o *fitOptions) fittedText(f *train.Fitted) string {
	if f.Optimiser == "" {
		return fmt.Sprintf("%d rounds of trees with %d nodes, of %d rounds tried", f.Best, f.Weights, f.Epochs)
	}
	what := fmt.Sprintf("%d weights", f.Weights)
	if f.Tuned {
		what += " of " + shortened(f.Layers)
	}
	steps := fmt.Sprintf("%d epochs, those of the %d. kept", f.Epochs, f.Best)
	switch {
	case f.Optimiser == train.LBFGS:
		steps = fmt.Sprintf("%d steps", f.Epochs)
	case f.Best == 0:
		steps = fmt.Sprintf("%d epochs, none better than the beginning, which is kept: a smaller learning rate may help", f.Epochs)
	}
	return fmt.Sprintf("%s by %s, %s", what, f.Optimiser, steps)
}

func metricsText(p stats.Performance) string {
	var out []string
	for _, m := range stats.Metrics {
		if v, ok := p.Metrics[m]; ok {
			out = append(out, string(m)+" "+brief(v))
		}
	}
	return strings.Join(out, ", ")
}

// shortened lists names, the first of many.
func shortened(names []string) string {
	const shown = 10
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:shown], ", ") + fmt.Sprintf(" and %d more", len(names)-shown)
}
