package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/collector/spool"
)

func clickhouseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "clickhouse", Short: "Reach the embedded ClickHouse, run it alone, or fetch its engine",
		Example: "  eval $(pellucid clickhouse env)\n  pellucid clickhouse run\n  pellucid clickhouse fetch",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	env := &cobra.Command{
		Use: "env", Short: "Print address, user and password of the store, for SQL clients and Grafana",
		Example: "  pellucid clickhouse env --data pellucid-data", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := cmd.Flags().GetString("data")
			if err != nil {
				return err
			}
			e, err := embedded.ReadEnv(filepath.Join(data, "clickhouse"))
			if err != nil {
				return fmt.Errorf("find the embedded ClickHouse of %q: %w (has a server run there?)", data, err)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), envText(e))
			return err
		},
	}
	env.Flags().String("data", defaults().Data, "the server's data folder")
	var engine string
	fetch := &cobra.Command{
		Use: "fetch", Short: "Fetch the engine now, instead of at the first start",
		Example: "  pellucid clickhouse fetch", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := embedded.Ensure(cmd.Context(), embedded.Config{Engine: engine, Progress: cmd.ErrOrStderr()})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), path)
			return err
		},
	}
	fetch.Flags().StringVar(&engine, "engine", "", "the engine's package or library, fetched beforehand")
	cmd.AddCommand(env, runCommand(), fetch)
	return cmd
}

func envText(e embedded.Env) string {
	return lines(
		"PELLUCID_CLICKHOUSE='"+e.DSN()+"'", "CLICKHOUSE_ENDPOINT='"+e.Address()+"'", "CLICKHOUSE_HTTP='"+e.HTTPAddress()+"'",
		"CLICKHOUSE_USER='"+e.User+"'", "CLICKHOUSE_PASSWORD='"+e.Password+"'", "CLICKHOUSE_DATABASE='"+e.Database+"'")
}

// runCommand runs the store of a data folder alone: what a server refuses to start on can be
// changed in nothing else.
func runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "run", Short: "Run the embedded ClickHouse alone, without a server",
		Long: `Starts the ClickHouse of a data folder whose server is stopped, prints how to reach it
as 'clickhouse env' does, and stops it when it is interrupted. Where a server refuses to
start for a setting of a table, this is where to change it.`,
		Example: `  pellucid clickhouse run --data pellucid-data
  eval $(pellucid clickhouse env)   # in another shell
  curl "http://$CLICKHOUSE_HTTP/?database=$CLICKHOUSE_DATABASE" -u "$CLICKHOUSE_USER:$CLICKHOUSE_PASSWORD" \
    -d 'ALTER TABLE predictions RESET SETTING async_insert'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd.Flags(), os.Getenv)
			if err != nil {
				return err
			}
			if cfg.ClickHouse != "" {
				return usage(errors.New("the server's ClickHouse is another's: it runs without this"))
			}
			dir := filepath.Join(cfg.Data, "clickhouse")
			if _, err := embedded.ReadEnv(dir); err != nil {
				return fmt.Errorf("find the embedded ClickHouse of %q: %w (has a server run there?)", cfg.Data, err)
			}
			engine, err := embedded.Start(cmd.Context(), embedded.Config{
				Dir: dir, Engine: cfg.Engine, MemoryBytes: int64(cfg.EngineMemory), Progress: cmd.ErrOrStderr(),
				Log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)), Spare: clickhouse.Passing,
			})
			if errors.Is(err, embedded.ErrLocked) {
				return fmt.Errorf("%w: a server runs there, whose ClickHouse 'pellucid clickhouse env' tells of", err)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), envText(engine.Env()))
			if err == nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "clickhouse runs until this is interrupted; a server starts on the folder after that")
				<-cmd.Context().Done()
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), stopTime)
			defer cancel()
			return errors.Join(err, engine.Stop(ctx))
		},
	}
	storeFlags(cmd)
	cmd.Flags().String("engine", "", "the engine's package or library, fetched beforehand")
	return cmd
}

func spoolCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "spool", Short: "Look into the spool of records on their way to the store",
		Example: "  pellucid spool verify pellucid-data/spool", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use: "dump DIR", Short: "Print every frame: place, kind, size", Args: oneArg("folder"),
		Example: "  pellucid spool dump pellucid-data/spool",
		RunE:    func(cmd *cobra.Command, args []string) error { return spool.Dump(cmd.OutOrStdout(), args[0]) },
	}, &cobra.Command{
		Use: "verify DIR", Short: "Check every frame; exits 1 where something is damaged or gone", Args: oneArg("folder"),
		Example: "  pellucid spool verify pellucid-data/spool",
		RunE: func(cmd *cobra.Command, args []string) error {
			return verifySpool(cmd.OutOrStdout(), args[0])
		},
	}, deadCommand())
	return cmd
}

// verifySpool prints what each segment holds and fails where one is damaged.
func verifySpool(w io.Writer, dir string) error {
	r, err := spool.Verify(dir)
	if err != nil {
		return err
	}
	if len(r.Segments)+len(r.BadFiles) == 0 && !exists(filepath.Join(dir, "cursor")) && !exists(filepath.Join(dir, "LOCK")) {
		return fmt.Errorf("verify %q: it holds no spool", dir)
	}
	for _, s := range r.Segments {
		fmt.Fprintf(w, "segment %d: %d records, %d bytes, %d damaged, tail of %d", s.Number, s.Records, s.Bytes, s.Damaged, s.Tail)
		if s.HeaderDamaged {
			fmt.Fprint(w, ", its header is damaged")
		}
		if s.Short > 0 {
			fmt.Fprintf(w, ", %d bytes shorter than it was", s.Short)
		}
		if s.Gone > 0 {
			fmt.Fprintf(w, ", %d records gone", s.Gone)
		}
		fmt.Fprintln(w)
	}
	for _, m := range r.Missing {
		fmt.Fprintln(w, m)
	}
	if found := r.Problems(); len(found) > 0 {
		const most = 5
		more := ""
		if len(found) > most {
			more = fmt.Sprintf("; and %d more", len(found)-most)
		}
		return fmt.Errorf("verify %q: %s%s; what is damaged is kept, nothing was deleted", dir, strings.Join(found[:min(most, len(found))], "; "), more)
	}
	return nil
}
