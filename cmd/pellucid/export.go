package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/collector/spool"
	"github.com/pellucid/pellucid/dashboards/api"
)

func exportCommand() *cobra.Command {
	var model, ver, from, to, where, output, url string
	var subject api.Subject
	cmd := &cobra.Command{
		Use: "export --model NAME", Short: "Take stored predictions out as CSV",
		Long: `Writes one line a stored prediction, with its features, outputs and id; column
"label" is the truth that feedback told, a model's output of that name "_label". Works
beside a running server, on the same --data folder or --clickhouse address. The
audit log of that folder gets an entry first: through the server at --url while it
runs, which is also asked where --url is given and no such folder is here.

With --external-id or --prediction-id it asks the running server instead for
everything stored of that subject, and writes JSON, one object a line: the counts,
then predictions with their labels, labels, explanations, spans.`,
		Example: `  pellucid export --model flights_gbm --from 2013-07-01 --to 2013-08-01 --output july.csv
  pellucid export --model risk --where "score > 0.9" --clickhouse clickhouse://user:pass@host:9000/db
  pellucid export --external-id customer-17 --output customer-17.ndjson`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if subject != (api.Subject{}) {
				for _, name := range []string{"version", "from", "to", "where"} {
					if cmd.Flags().Changed(name) {
						return usage(fmt.Errorf("--%s narrows an export of a model, not of a subject", name))
					}
				}
				subject.Model = model
				return writeTo(output, cmd.OutOrStdout(), func(w io.Writer) error {
					return (&subjectClient{strings.TrimRight(url, "/")}).export(cmd.Context(), subject, w)
				})
			}
			if err := required(cmd, "model"); err != nil {
				return err
			}
			q := collector.Query{Tenant: collector.DefaultTenant, Model: model, Version: ver, Where: where}
			var err error
			if q.From, err = optionalTime("from", from); err != nil {
				return err
			}
			if q.To, err = optionalTime("to", to); err != nil {
				return err
			}
			store, err := openStore(cmd)
			if err != nil {
				return err
			}
			return errors.Join(exportModel(cmd, store, q, url, output), store.Close())
		},
	}
	f := cmd.Flags()
	f.StringVar(&model, "model", "", "model to export")
	f.StringVar(&ver, "version", "", "its version (default: all)")
	f.StringVar(&from, "from", "", "first event time (RFC 3339 or a date)")
	f.StringVar(&to, "to", "", "event time to stop before")
	f.StringVar(&where, "where", "", "filter, such as: carrier = 'UA' and score > 0.8")
	f.StringVar(&output, "output", "", "file to write (default: standard output)")
	subjectFlags(cmd, &subject, &url)
	storeFlags(cmd)
	return cmd
}

// exportModel has the export recorded, and writes it.
func exportModel(cmd *cobra.Command, store *clickhouse.Store, q collector.Query, url, output string) error {
	total, err := exportable(cmd.Context(), store, q)
	if err != nil {
		return err
	}
	if err := exportRecorded(cmd, q, url, total); err != nil {
		return fmt.Errorf("record the export in the audit log, before which nothing is taken out: %w", err)
	}
	return writeTo(output, cmd.OutOrStdout(), func(w io.Writer) error {
		return export(cmd.Context(), w, newProgress(cmd.ErrOrStderr()), store, q, total)
	})
}

// exportRecorded has the audit log say who takes out which rows, and how many.
func exportRecorded(cmd *cobra.Command, q collector.Query, url string, rows uint64) error {
	cfg, err := loadConfig(cmd.Flags(), os.Getenv)
	if err != nil {
		return err
	}
	ctx := collector.WithActor(cmd.Context(), "command line")
	named := cmd.Flags().Changed("url")
	if exists(cfg.auditDir()) {
		record, done, err := cfg.offlineAudit(ctx)
		if err == nil {
			err = record(audit.Entry{Action: "export", Tenant: q.Tenant, Model: q.Model, Counts: map[string]int64{"predictions": int64(rows)}},
				func(hash func(string) string) string { return question(q.Version, q.From, q.To, q.Where, hash) }, func() error { return nil })
			return errors.Join(err, done())
		}
		if !errors.Is(err, spool.ErrLocked) {
			return err
		}
		if !named {
			url = "http://" + cfg.HTTP
		}
	} else if !named {
		fmt.Fprintf(cmd.ErrOrStderr(), "no audit log in %q: nothing records this export (--data or --url says where)\n", cfg.Data)
		return nil
	}
	resp, err := (&subjectClient{strings.TrimRight(url, "/")}).post(ctx, "/api/v1/exports",
		api.ExportRequest{Model: q.Model, Version: q.Version, From: q.From, To: q.To, Where: q.Where})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// storeFlags are the flags of commands that talk to the store of a server.
func storeFlags(cmd *cobra.Command) {
	d := defaults()
	cmd.Flags().String("config", "", "the server's configuration file")
	cmd.Flags().String("data", d.Data, "the server's data folder")
	cmd.Flags().String("clickhouse", "", "the server's ClickHouse, where it is not the embedded one")
}

// storeDSN is the address of the store that the flags mean.
func storeDSN(cmd *cobra.Command) (string, error) {
	cfg, err := loadConfig(cmd.Flags(), os.Getenv)
	if err != nil {
		return "", err
	}
	if cfg.ClickHouse != "" {
		return cfg.ClickHouse, nil
	}
	env, err := embedded.ReadEnv(filepath.Join(cfg.Data, "clickhouse"))
	if err != nil {
		return "", fmt.Errorf("find the embedded ClickHouse of %q: %w (is the server running?)", cfg.Data, err)
	}
	return env.DSN(), nil
}

func openStore(cmd *cobra.Command) (*clickhouse.Store, error) {
	dsn, err := storeDSN(cmd)
	if err != nil {
		return nil, err
	}
	return clickhouse.Open(cmd.Context(), clickhouse.Config{DSN: dsn})
}

func optionalTime(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := api.ParseTime(s)
	if err != nil {
		return t, usage(fmt.Errorf("--%s: %w", name, err))
	}
	return t, nil
}

// exportable counts what there is to export.
func exportable(ctx context.Context, store *clickhouse.Store, q collector.Query) (uint64, error) {
	total, err := store.Count(ctx, q)
	if errors.Is(err, clickhouse.ErrWhere) {
		return 0, usage(fmt.Errorf("--where: %w", err))
	}
	if err != nil {
		return 0, err
	}
	if total == 0 {
		// A misspelt name is not a model without predictions.
		stored, err := store.Count(ctx, collector.Query{Tenant: q.Tenant, Model: q.Model, Version: q.Version})
		if err != nil {
			return 0, err
		}
		if stored == 0 {
			return 0, fmt.Errorf("export model %q version %q: no prediction is stored", q.Model, q.Version)
		}
	}
	return total, nil
}

// export writes predictions whose columns are those that the first one's schema has;
// later ones with other columns (another version's) are an error, not a crooked line.
func export(ctx context.Context, w io.Writer, bar *progress, store *clickhouse.Store, q collector.Query, total uint64) error {
	schemas, err := store.Schemas(ctx, q)
	if err != nil {
		return err
	}
	bar.start("export", int(total))
	defer bar.finish()
	out := csv.NewWriter(w)
	var cols *columns
	err = store.Each(ctx, q, func(p *collector.StoredPrediction) error {
		if cols == nil {
			// The first one may have failed, or have been sampled: it has no values then.
			first, err := store.Schema(ctx, p.Raw.SchemaID)
			if err != nil {
				return err
			}
			cols = columnsOf(first, schemas)
			if err := out.Write(cols.head()); err != nil {
				return err
			}
		}
		if p.Status < 400 && p.Capture == collector.CaptureFull && cols.lacks(p) {
			return fmt.Errorf("prediction %s has other columns than the first: choose one --version", p.ID)
		}
		bar.add(1)
		return out.Write(cols.record(p))
	})
	if err != nil {
		return err
	}
	out.Flush()
	return out.Error()
}

// columns are those of an export besides the ones that every export has.
type columns struct {
	features, outputs []string
	widths            map[string]int // of outputs that are lists
	// same has the ids of the schemas that have the first one's fields, of whatever shape:
	// those of requests that were not shaped as the model declares.
	same map[string]bool
}

func columnsOf(first *collector.Schema, all []*collector.Schema) *columns {
	c := &columns{features: storedNames(first.Features), outputs: storedNames(first.Outputs), widths: map[string]int{}, same: map[string]bool{first.ID: true}}
	for _, name := range c.outputs {
		c.widths[name] = outputWidth(first, name)
	}
	for _, s := range all {
		if !sameNames(s.Features, first.Features) || !sameNames(s.Outputs, first.Outputs) {
			continue
		}
		c.same[s.ID] = true
		c.features = append(c.features, storedNames(s.Features)...)
		for _, name := range c.outputs {
			if outputWidth(s, name) != c.widths[name] {
				c.widths[name] = -1
			}
		}
	}
	slices.Sort(c.features)
	c.features = slices.Compact(c.features)
	return c
}

func sameNames(a, b []collector.Field) bool {
	return slices.EqualFunc(a, b, func(x, y collector.Field) bool { return x.Name == y.Name })
}

func (c *columns) head() []string {
	head := append(slices.Clone(exported), c.features...)
	if slices.Contains(c.features, head[weightAt]) || slices.Contains(c.outputs, head[weightAt]) {
		head[weightAt] = otherWeight
	}
	for _, name := range c.outputs {
		for _, column := range outputColumns(name, c.widths[name]) {
			for slices.Contains(head, column) {
				column = "_" + column
			}
			head = append(head, column)
		}
	}
	return head
}

// lacks reports whether a row has other columns than these. One that has none, as a span
// that tells no outcome, has no others.
func (c *columns) lacks(p *collector.StoredPrediction) bool {
	other := func(values map[string]any, names []string) bool {
		return len(values) > 0 && len(values) != len(names)
	}
	return !c.same[p.Raw.SchemaID] && (other(p.Features, c.features) || other(p.Outputs, c.outputs))
}

func (c *columns) record(p *collector.StoredPrediction) []string {
	record := []string{
		p.ID, p.ExternalID, p.Time.Format(time.RFC3339Nano), p.ReceivedAt.Format(time.RFC3339Nano),
		p.Model, p.Version, strconv.Itoa(p.Status), p.TraceID, p.Capture, plain(cmp.Or(p.Weight, 1)), "",
	}
	if len(p.Labels) > 0 {
		record[len(record)-1] = p.Labels[0].Label
	}
	for _, name := range c.features {
		record = append(record, plain(p.Features[name]))
	}
	for _, name := range c.outputs {
		record = append(record, outputCells(p.Outputs[name], c.widths[name])...)
	}
	return record
}

// exported are the columns of an export that are neither feature nor output, in
// their order. That of weights has another name where a feature or an output is called
// so, as a person's weight is; an output that is called like a column before it, as
// scikit-learn's classifiers have one "label", is written behind a "_".
var exported = []string{"id", "external_id", "time", "received_at", "model", "version", "status", "trace_id", "capture", "weight", "label"}

const (
	weightAt    = 9
	otherWeight = "_weight"
)

// storedNames are the names of fields that have values, in order.
func storedNames(fields []collector.Field) []string {
	names := []string{}
	for i := range fields {
		if fields[i].Private != collector.PrivacyDrop {
			names = append(names, fields[i].Name)
		}
	}
	slices.Sort(names)
	return names
}

// outputWidth is how many columns an output has, -1 where it is one value or its
// number of values changes.
func outputWidth(s *collector.Schema, name string) int {
	i := slices.IndexFunc(s.Outputs, func(f collector.Field) bool { return f.Name == name })
	if n := s.Outputs[i].Elements; n > 1 {
		return n
	}
	return -1
}

// outputColumns names the columns of an output: itself, or one for each of n.
func outputColumns(name string, n int) []string {
	if n < 0 {
		return []string{name}
	}
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s[%d]", name, i)
	}
	return out
}

func outputCells(v any, n int) []string {
	if n < 0 {
		return []string{plain(v)}
	}
	out := make([]string, n)
	if l := reflect.ValueOf(v); l.Kind() == reflect.Slice {
		for i := range min(n, l.Len()) {
			out[i] = plain(l.Index(i).Interface())
		}
	}
	return out
}

// plain writes a stored value as a CSV field; a missing one is empty.
func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return strings.TrimSpace(fmt.Sprint(v))
}
