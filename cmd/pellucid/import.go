package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/engine/table"
)

// importBatch is how many rows one request of an import carries.
const importBatch = 1000

// importOptions say what the columns of a file of predictions are.
type importOptions struct {
	url, model, version                     string
	id, externalID, time, label, observedAt string
	weight                                  string
	outputs                                 []string
	labels                                  bool
}

func importCommand() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use: "import --model NAME ROWS", Short: "Back-fill predictions or labels made elsewhere, from CSV or Parquet",
		Long: `Sends the rows of a file to a running server, as predictions that were made
elsewhere: the columns named as outputs, id, time and so on are those, every other
column is a feature. With --labels each row is a label instead, for a prediction
named by --id or --external-id.

Rows with an id may be sent again: a prediction is recorded once an id. What
export wrote can be imported: its own columns are no features, and its weights are
read back.`,
		Example: `  pellucid import --model risk --id order --time at --outputs score history.parquet
  pellucid import --model risk --labels --id order --label outcome labels.csv`,
		Args: oneArg("file of rows"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := required(cmd, "model"); err != nil {
				return err
			}
			switch {
			case o.labels && (o.label == "" || (o.id == "") == (o.externalID == "")):
				return usage(errors.New("import --labels needs --label and one of --id and --external-id"))
			case !o.labels && len(o.outputs) == 0:
				return usage(errors.New("import needs --outputs, the columns that the model answered"))
			}
			t, err := table.Open(args[0])
			if err != nil {
				return err
			}
			im, err := newImporter(t, o)
			if err != nil {
				return usage(err)
			}
			return im.run(cmd.Context(), cmd.OutOrStdout(), newProgress(cmd.ErrOrStderr()))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.url, "url", "http://"+defaults().HTTP, "the server")
	f.StringVar(&o.model, "model", "", "model the rows are of")
	f.StringVar(&o.version, "version", "", "its version (default: the newest known, else 1)")
	f.StringSliceVar(&o.outputs, "outputs", nil, "columns that the model answered; out[0],out[1],... are one output")
	f.StringVar(&o.id, "id", "", "column of ids, unique for a model")
	f.StringVar(&o.externalID, "external-id", "", "column of the caller's own ids, which need not be unique")
	f.StringVar(&o.time, "time", "", "column of event times (RFC 3339, a date, or a Parquet timestamp)")
	f.StringVar(&o.weight, "weight", "", "column of the numbers of predictions that rows stand for")
	f.StringVar(&o.label, "label", "", "column of labels")
	f.StringVar(&o.observedAt, "observed-at", "", "column of the times labels were observed at")
	f.BoolVar(&o.labels, "labels", false, "the rows are labels for predictions that are known")
	return cmd
}

// importer turns rows of a table into what the server takes.
type importer struct {
	importOptions
	table *table.Table
	to    poster
	times map[string][]time.Time
	texts map[string][]string
	// features are the columns that are nothing else.
	features []*table.Column
}

func newImporter(t *table.Table, o importOptions) (*importer, error) {
	im := &importer{
		importOptions: o, table: t, times: map[string][]time.Time{}, texts: map[string][]string{},
		to: poster{url: strings.TrimRight(o.url, "/"), client: &http.Client{Timeout: time.Minute}},
	}
	// What export wrote beside features and outputs is neither.
	own := slices.IndexFunc(exported, func(name string) bool { return name != exported[weightAt] && t.Column(name) == nil }) < 0
	weights := ""
	if own {
		weights = exportedWeight(t)
		o.weight = cmp.Or(o.weight, weights)
		im.weight = o.weight
	}
	taken := slices.Concat([]string{o.id, o.externalID, o.time, o.label, o.observedAt, o.weight}, o.outputs)
	for _, name := range taken {
		if name != "" && t.Column(name) == nil {
			return nil, fmt.Errorf("%s has no column %q", t.Path, name)
		}
	}
	for _, name := range []string{o.time, o.observedAt} {
		if name == "" {
			continue
		}
		times, err := t.Column(name).TimeValues()
		var wrong *table.TimeError
		if errors.As(err, &wrong) && wrong.Text != "" {
			err = fmt.Errorf("%w (it is %s)", err, quoted(wrong.Text))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Path, err)
		}
		im.times[name] = times
	}
	for _, name := range []string{o.id, o.externalID, o.label} {
		if name != "" {
			im.texts[name] = t.Column(name).Strings()
		}
	}
	for i := range t.Columns {
		if name := t.Columns[i].Name; !slices.Contains(taken, name) && (!own || name != weights && (name == exported[weightAt] || !slices.Contains(exported, name))) {
			im.features = append(im.features, &t.Columns[i])
		}
	}
	return im, nil
}

// exportedWeight is the column in which export wrote the weights: beside the label,
// where no feature can be. Files of an earlier Pellucid have none.
func exportedWeight(t *table.Table) string {
	if len(t.Columns) <= weightAt+1 || t.Columns[weightAt+1].Name != exported[weightAt+1] {
		return ""
	}
	if name := t.Columns[weightAt].Name; name == exported[weightAt] || name == otherWeight {
		return name
	}
	return ""
}

// quoted is the beginning of a cell, for whoever's file it is of.
func quoted(s string) string {
	const limit = 40
	if runes := []rune(s); len(runes) > limit {
		s = string(runes[:limit]) + "..."
	}
	return strconv.Quote(s)
}

// run sends every row and prints what became of them. Rows that are refused do
// not keep others from being sent, but make the command fail.
func (im *importer) run(ctx context.Context, out io.Writer, bar *progress) error {
	if im.weight == "" && !im.labels && slices.ContainsFunc(im.features, func(c *table.Column) bool { return c.Name == "weight" }) {
		fmt.Fprintln(bar.w, `the column "weight" is taken for a feature: --weight weight makes it the rows' weight`)
	}
	im.to.told = bar.w
	if !im.labels && slices.ContainsFunc(im.features, func(c *table.Column) bool { return c.Name == "error" }) {
		fmt.Fprintln(bar.w, `the column "error" is taken for a feature: rows of a file have answers, failed predictions are sent by POST /api/v1/predictions`)
	}
	bar.start("import", im.table.Rows)
	path, row := "/api/v1/predictions", im.prediction
	if im.labels {
		path, row = "/api/v1/feedback", im.feedback
	}
	var accepted, duplicate, refused int
	for from := 0; from < im.table.Rows; from += importBatch {
		to := min(from+importBatch, im.table.Rows)
		var body bytes.Buffer
		for i := from; i < to; i++ {
			body.WriteByte(map[bool]byte{true: '[', false: ','}[i == from])
			if err := row(&body, i); err != nil {
				return fmt.Errorf("row %d: %w", i+1, err)
			}
		}
		body.WriteByte(']')
		var answer struct {
			Accepted, Duplicate, Refused int
			Results                      []struct{ Status, Error, Field, Value string }
		}
		if err := im.to.post(ctx, path, body.Bytes(), &answer); err != nil {
			return fmt.Errorf("%w (%d rows before are recorded)", err, accepted+duplicate)
		}
		for i, r := range answer.Results {
			if r.Status != "refused" {
				continue
			}
			if refused++; refused <= 5 {
				value := ""
				if r.Value != "" {
					value = " (it is " + r.Value + ")"
				}
				fmt.Fprintf(bar.w, "row %d is refused: %s%s\n", from+i+1, r.Error, value)
			}
		}
		accepted, duplicate = accepted+answer.Accepted, duplicate+answer.Duplicate
		bar.add(to - from)
	}
	bar.finish()
	fmt.Fprintf(out, "%d accepted, %d duplicate, %d refused\n", accepted, duplicate, refused)
	if im.id != "" && !im.labels {
		fmt.Fprintln(bar.w, "an id that is stored already stays as it is, also where it was accepted here: only recent ids are known at once")
	}
	if refused > 0 {
		return fmt.Errorf("%d of %d rows were refused", refused, im.table.Rows)
	}
	return nil
}

// fields writes a JSON object field by field.
type fields struct {
	b     *bytes.Buffer
	begun bool
}

func (f *fields) put(name, value string) {
	f.b.WriteByte(map[bool]byte{true: ',', false: '{'}[f.begun])
	f.begun = true
	key, _ := json.Marshal(name) // text always marshals
	f.b.Write(key)
	f.b.WriteByte(':')
	f.b.WriteString(value)
}

func (f *fields) end() {
	if !f.begun {
		f.b.WriteByte('{')
	}
	f.b.WriteByte('}')
}

// text is a cell of an id or a label, as a JSON string.
func (im *importer) text(name string, i int) string {
	b, _ := json.Marshal(im.texts[name][i]) // text always marshals
	return string(b)
}

func (im *importer) prediction(b *bytes.Buffer, i int) error {
	f := &fields{b: b}
	f.put("model", strconv.Quote(im.model))
	if im.version != "" {
		f.put("version", strconv.Quote(im.version))
	}
	im.shared(f, i)
	if im.id != "" {
		f.put("id", im.text(im.id, i))
	}
	if im.time != "" {
		f.put("time", strconv.Quote(im.times[im.time][i].UTC().Format(time.RFC3339Nano)))
	}
	if im.weight != "" {
		v, err := finiteCell(im.table.Column(im.weight), i)
		if err != nil {
			return err
		}
		f.put("weight", v)
	}
	inner := &bytes.Buffer{}
	g := &fields{b: inner}
	for _, c := range im.features {
		v, err := finiteCell(c, i)
		if err != nil {
			return err
		}
		g.put(c.Name, v)
	}
	g.end()
	f.put("features", inner.String())
	outputs, err := im.outputValues(i)
	if err != nil {
		return err
	}
	f.put("outputs", outputs)
	f.end()
	return nil
}

// shared writes what predictions and labels have in common.
func (im *importer) shared(f *fields, i int) {
	if im.externalID != "" {
		f.put("external_id", im.text(im.externalID, i))
	}
	if im.label != "" && !im.table.Column(im.label).Missing(i) {
		f.put("label", im.text(im.label, i))
	}
	if im.observedAt != "" {
		f.put("observed_at", strconv.Quote(im.times[im.observedAt][i].UTC().Format(time.RFC3339Nano)))
	}
}

func (im *importer) feedback(b *bytes.Buffer, i int) error {
	f := &fields{b: b}
	im.shared(f, i)
	if im.id != "" {
		f.put("prediction_id", im.text(im.id, i))
	}
	f.put("model", strconv.Quote(im.model)) // another model may have the same id
	f.end()
	return nil
}

// outputValues writes the outputs of a row: out[0], out[1]... are one list.
func (im *importer) outputValues(i int) (string, error) {
	var names []string
	values := map[string][]string{}
	list := map[string]bool{}
	for _, column := range im.outputs {
		name, at, indexed := strings.Cut(strings.TrimSuffix(column, "]"), "[")
		if _, err := strconv.Atoi(at); !indexed || err != nil || !strings.HasSuffix(column, "]") {
			name, indexed = column, false
		}
		if values[name] == nil {
			names = append(names, name)
		}
		v, err := finiteCell(im.table.Column(column), i)
		if err != nil {
			return "", err
		}
		values[name] = append(values[name], v)
		list[name] = list[name] || indexed
	}
	var b bytes.Buffer
	f := &fields{b: &b}
	for _, name := range names {
		v := values[name][0]
		if list[name] {
			v = "[" + strings.Join(values[name], ",") + "]"
		}
		f.put(name, v)
	}
	f.end()
	return b.String(), nil
}

// finiteCell is a cell as JSON, which has no infinity.
func finiteCell(c *table.Column, i int) (string, error) {
	if c.Missing(i) {
		return "null", nil
	}
	if c.Type == table.Float64 && math.IsInf(c.F64[i], 0) || c.Type == table.Float32 && math.IsInf(float64(c.F32[i]), 0) {
		return "", fmt.Errorf("column %q is infinite, which JSON cannot carry", c.Name)
	}
	if c.Type == table.Time {
		return strconv.Quote(c.Times[i].UTC().Format(time.RFC3339Nano)), nil
	}
	return cellJSON(c, i), nil
}
