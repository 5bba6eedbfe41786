package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

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
