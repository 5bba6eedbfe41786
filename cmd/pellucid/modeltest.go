package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/golden"
	"github.com/pellucid/pellucid/engine/modelfile"
)

func modelTestCommand() *cobra.Command {
	return &cobra.Command{
		Use: "test PATH...", Short: "Run models against the test_data_set_* folders beside them",
		Long: `Each PATH is one case (a folder with model.onnx and test_data_set_*) or a folder
of cases. One line a case that did not pass, with the reason; an operator that is
not supported counts as skipped. Exits 1 if any failed.`,
		Example: "  pellucid model test models/digits/1\n  pellucid model test onnx/backend/test/data/node",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("model test needs a PATH: see 'pellucid model test --help'"))
			}
			return modelTest(cmd.Context(), cmd.OutOrStdout(), args)
		},
	}
}

func modelTest(ctx context.Context, w io.Writer, paths []string) error {
	passed, failed, skipped := 0, 0, 0
	for _, p := range paths {
		cases, err := findCases(p)
		if err != nil {
			return err
		}
		for _, c := range cases {
			err := guarded(func() error { return runCase(ctx, c) })
			var unsupported *engine.UnsupportedError
			switch {
			case err == nil:
				passed++
			case errors.As(err, &unsupported):
				skipped++
				fmt.Fprintf(w, "SKIP %s: %v\n", c, err)
			default:
				failed++
				fmt.Fprintf(w, "FAIL %s: %v\n", c, err)
			}
		}
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 {
		return silentError{errors.New("cases failed")}
	}
	return nil
}

// findCases returns the folders at or below path that hold a model and golden
// data.
func findCases(path string) ([]string, error) {
	var cases []string
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() || strings.HasPrefix(d.Name(), "test_data_set_") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		sets, err := golden.Sets(p)
		if err == nil && len(sets) > 0 && caseModel(p) != "" {
			cases = append(cases, p)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(cases) == 0 {
		return nil, usage(fmt.Errorf("no case (a model file beside test_data_set_*) at or below %q", path))
	}
	return cases, nil
}

func caseModel(dir string) string {
	for _, name := range []string{"model.onnx", "model.ubj", "model.json", "model.txt"} {
		if p := filepath.Join(dir, name); exists(p) {
			return p
		}
	}
	return ""
}

func runCase(ctx context.Context, dir string) error {
	m, err := modelfile.Open(caseModel(dir))
	if err != nil {
		return err
	}
	return golden.Check(ctx, m, dir)
}
