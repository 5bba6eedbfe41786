// Command pellucid serves machine-learning models and remembers every
// prediction: one binary, one trace id, one prediction record.
//
// This package wires: it reads the configuration, fills every room's seams,
// starts sinks before sources and stops sources before sinks. It computes
// nothing and stores nothing itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
)

func main() {
	embedded.RunChildIfAsked()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// usageError is the caller's mistake in words or flags: exit status 2.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usage(err error) error { return usageError{err} }

// run executes one command line and returns the exit status: 0 on success, 2 on
// wrong usage, 1 on any other failure.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := guarded(func() error { return root.ExecuteContext(ctx) })
	if err == nil {
		return 0
	}
	var silent silentError
	if !errors.As(err, &silent) {
		fmt.Fprintf(stderr, "pellucid: %v\n", err)
	}
	var bad usageError
	if errors.As(err, &bad) {
		return 2
	}
	return 1
}

// silentError fails a command that has already said why.
type silentError struct{ error }

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pellucid",
		Short: "Serve machine-learning models, remember every prediction, explain any of them",
		Long: `Pellucid serves machine-learning models and remembers every prediction.
Any past prediction can be explained, any drift located, and any alert followed
back to the rows that caused it.`,
		Example: `  pellucid demo                          # a year of real flights, end to end
  pellucid serve --models models         # your own models
  pellucid explain --model model.json --input rows.csv --method tree_shap`,
		SilenceUsage: true, SilenceErrors: true,
		// An unknown subcommand is wrong usage, not a request for help.
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(fmt.Errorf("unknown command %q: see 'pellucid --help'", args[0]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w: see '%s --help'", err, cmd.CommandPath()))
	})
	root.AddCommand(serveCommand(), demoCommand(), predictCommand(), explainCommand(), driftCommand(),
		importCommand(), exportCommand(), eraseCommand(), modelCommand(), clickhouseCommand(), spoolCommand(), rollupsCommand(), keysCommand(), doctorCommand(), versionCommand())
	return root
}

// noArgs refuses words a command does not take.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(fmt.Errorf("%s takes no argument, got %q", cmd.CommandPath(), args[0]))
	}
	return nil
}

// oneArg wants exactly one word.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage(fmt.Errorf("%s takes one %s, got %d", cmd.CommandPath(), what, len(args)))
		}
		return nil
	}
}
