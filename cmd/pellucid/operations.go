package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/collector/spool"
)

func clickhouseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "clickhouse", Short: "Reach the embedded ClickHouse, or fetch its engine",
		Example: "  eval $(pellucid clickhouse env)\n  pellucid clickhouse fetch",
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
			_, err = fmt.Fprint(cmd.OutOrStdout(), lines(
				"PELLUCID_CLICKHOUSE='"+e.DSN()+"'", "CLICKHOUSE_ENDPOINT='"+e.Address()+"'", "CLICKHOUSE_HTTP='"+e.HTTPAddress()+"'",
				"CLICKHOUSE_USER='"+e.User+"'", "CLICKHOUSE_PASSWORD='"+e.Password+"'", "CLICKHOUSE_DATABASE='"+e.Database+"'"))
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
	cmd.AddCommand(env, fetch)
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
		Use: "verify DIR", Short: "Check every frame; exits 1 where one is damaged", Args: oneArg("folder"),
		Example: "  pellucid spool verify pellucid-data/spool",
		RunE: func(cmd *cobra.Command, args []string) error {
			return verifySpool(cmd.OutOrStdout(), args[0])
		},
	})
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
		fmt.Fprintf(w, "segment %d: %d records, %d bytes, %d damaged, tail of %d\n", s.Number, s.Records, s.Bytes, s.Damaged, s.Tail)
	}
	if !r.OK() {
		return fmt.Errorf("verify %q: damaged frames; they are kept, nothing was deleted", dir)
	}
	return nil
}

func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check what Pellucid needs on this machine, and the state of a data folder",
		Example: "  pellucid doctor --data pellucid-data", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd.Flags(), os.Getenv)
			if err != nil {
				return err
			}
			return doctor(cmd.Context(), cmd.OutOrStdout(), cfg)
		},
	}
	new(config).flags(cmd.Flags())
	return cmd
}

// check is one thing the doctor looks at.
type check struct {
	name string
	look func(ctx context.Context, cfg config) (string, error)
}

var checks = []check{
	{"platform", func(context.Context, config) (string, error) {
		return runtime.GOOS + "/" + runtime.GOARCH + ", " + runtime.Version(), nil
	}},
	{"address", checkAddress},
	{"models", func(_ context.Context, cfg config) (string, error) {
		entries, err := os.ReadDir(cfg.Models)
		return fmt.Sprintf("%d entries in %s", len(entries), cfg.Models), err
	}},
	{"engine", func(ctx context.Context, cfg config) (string, error) {
		if cfg.ClickHouse != "" {
			return "not needed: --clickhouse is given", nil
		}
		return embedded.Ensure(ctx, embedded.Config{Engine: cfg.Engine})
	}},
	{"store", checkStore},
	{"spool", func(_ context.Context, cfg config) (string, error) {
		dir := filepath.Join(cfg.Data, "spool")
		if !exists(dir) {
			return "none yet", nil
		}
		return "every frame is whole", verifySpool(io.Discard, dir)
	}},
}

func checkAddress(ctx context.Context, cfg config) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.HTTP)
	if err != nil {
		return cfg.HTTP + " is taken (by a running server?)", nil
	}
	return cfg.HTTP + " is free", l.Close()
}

func checkStore(ctx context.Context, cfg config) (string, error) {
	dsn := cfg.ClickHouse
	if dsn == "" {
		env, err := embedded.ReadEnv(filepath.Join(cfg.Data, "clickhouse"))
		if err != nil {
			return "embedded, not running", nil
		}
		dsn = env.DSN()
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := clickhouse.Open(ctx, clickhouse.Config{DSN: dsn})
	if err != nil {
		if cfg.ClickHouse == "" {
			return "embedded, not running", nil
		}
		return "", err
	}
	return "ClickHouse " + s.Version() + " answers", s.Close()
}

// doctor looks at everything and fails when anything is wrong.
func doctor(ctx context.Context, w io.Writer, cfg config) error {
	bad := 0
	for _, c := range checks {
		found, err := c.look(ctx, cfg)
		state := "ok  "
		if err != nil {
			bad, state, found = bad+1, "FAIL", err.Error()
		}
		fmt.Fprintf(w, "%s %-9s %s\n", state, c.name, found)
	}
	if bad > 0 {
		return silentError{errors.New("checks failed")}
	}
	return nil
}
