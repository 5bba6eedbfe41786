package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
		Use: "export --model NAME", Short: "Take stored predictions out as CSV or Parquet",
		Long: `Writes one line a stored prediction, with its features, outputs and id; column
"label" is the truth that feedback told, a model's output of that name "_label". A file
called .parquet is Parquet, with numbers and times as such; any other is CSV. Works
beside a running server, on the same --data folder or --clickhouse address. The
audit log of that folder gets an entry first: through the server at --url while it
runs, which is also asked where --url is given and no such folder is here.

With --external-id or --prediction-id it asks the running server instead for
everything stored of that subject, and writes JSON, one object a line: the counts,
then predictions with their labels, labels, explanations, spans.`,
		Example: `  pellucid export --model flights_gbm --from 2013-07-01 --to 2013-08-01 --output july.csv
  pellucid export --model flights_gbm --output all.parquet
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
				if isParquet(output) {
					return usage(fmt.Errorf("--output %s: what is stored of a subject is written as JSON, one object a line", output))
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
		return export(cmd.Context(), outTo(w, isParquet(output)), newProgress(cmd.ErrOrStderr()), store, q, total)
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
func export(ctx context.Context, out rowsOut, bar *progress, store *clickhouse.Store, q collector.Query, total uint64) error {
	schemas, err := store.Schemas(ctx, q)
	if err != nil {
		return err
	}
	bar.start("export", int(total))
	defer bar.finish()
	var cols *columns
	err = store.Each(ctx, q, func(p *collector.StoredPrediction) error {
		if cols == nil {
			// The first one may have failed, or have been sampled: it has no values then.
			first, err := store.Schema(ctx, p.Raw.SchemaID)
			if err != nil {
				return err
			}
			cols = columnsOf(first, schemas)
			if err := out.begin(cols.head()); err != nil {
				return err
			}
		}
		if p.Status < 400 && p.Capture == collector.CaptureFull && cols.lacks(p) {
			return fmt.Errorf("prediction %s has other columns than the first: choose one --version", p.ID)
		}
		bar.add(1)
		return out.row(cols.record(p))
	})
	if err != nil {
		return err
	}
	return out.end()
}
