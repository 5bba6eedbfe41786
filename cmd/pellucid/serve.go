package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// stopTime is how long a stop may take before what is left is left.
const stopTime = 25 * time.Second

// spanTime is how much of it the last spans may take to reach the store.
const spanTime = 3 * time.Second

func serveCommand() *cobra.Command {
	var printConfig bool
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve the models of a folder, record, watch and explain",
		Example: `  pellucid serve                                   # models/ on 127.0.0.1:8080, embedded ClickHouse
  pellucid serve --config pellucid.yaml
  pellucid serve --clickhouse clickhouse://user:pass@host:9000/pellucid
  pellucid serve --print-config > pellucid.yaml    # every key, commented`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if printConfig {
				_, err := fmt.Fprint(cmd.OutOrStdout(), exampleConfig)
				return err
			}
			cfg, err := loadConfig(cmd.Flags(), os.Getenv)
			if err != nil {
				return err
			}
			return serve(cmd, cfg)
		},
	}
	new(config).flags(cmd.Flags())
	cmd.Flags().BoolVar(&printConfig, "print-config", false, "print a commented configuration and exit")
	return cmd
}

func serve(cmd *cobra.Command, cfg config) error {
	began := time.Now()
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	go paceCollector(cmd.Context())
	s, err := startServer(cmd.Context(), cfg, log, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "pellucid serves on %s (pages: %s/ui/), ready in %d ms\n", s.url, s.url, time.Since(began).Milliseconds())
	<-cmd.Context().Done()
	return s.stopNow(cmd.Context())
}

// stopNow stops the server after its context has ended.
func (s *server) stopNow(ctx context.Context) error {
	s.log.Info("stopping")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	return s.stop(ctx)
}
