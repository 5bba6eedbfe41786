package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
)

func modelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "model", Short: "Look at model files, test, time, compress, compare and fit them",
		Example: "  pellucid model inspect model.ubj\n  pellucid model test cases/\n  pellucid model compress model.onnx --to fp16 --out small.onnx\n  pellucid model fit --input rows.csv --label late --output model.onnx",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(inspectCommand(), predictCommand(), modelTestCommand(), benchCommand(), compressCommand(), auditCommand(), fitCommand())
	return cmd
}

func inspectCommand() *cobra.Command {
	var format string
	var batch int
	var shapes []string
	cmd := &cobra.Command{
		Use: "inspect PATH", Short: "Print a model's inputs, outputs, features and what it is",
		Long: `Print a model's inputs, outputs, features and what it is.

With --batch the model runs over so many rows of zeros, and what that takes is printed:
shapes, memory, and floating-point operations (comparisons of trees). Where a model leaves
dimensions open beside the first, --shape says which.`,
		Example: `  pellucid model inspect model.onnx
  pellucid model inspect model.txt --format json
  pellucid model inspect bert.onnx --batch 8 --shape ids=8,128 --shape mask=8,128`,
		Args: oneArg("model file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := modelfile.Open(args[0])
			if err != nil {
				return err
			}
			if format != "text" && format != "json" {
				return usage(fmt.Errorf("format %q is not text or json", format))
			}
			var run *runCost
			if cmd.Flags().Changed("batch") || len(shapes) > 0 {
				if run, err = costOf(cmd.Context(), m, batch, shapes); err != nil {
					return err
				}
			}
			if format == "json" {
				return inspectJSON(cmd.OutOrStdout(), args[0], m.Info(), run)
			}
			return inspectText(cmd.OutOrStdout(), args[0], m.Info(), run)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.Flags().IntVar(&batch, "batch", 1, "run so many rows and tell what that takes")
	cmd.Flags().StringArrayVar(&shapes, "shape", nil, "INPUT=N,N,... of an input whose shape the model leaves open")
	return cmd
}

func inspectText(w io.Writer, path string, info *engine.Info, run *runCost) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "file\t%s\nformat\t%s\ntask\t%s\n", filepath.Base(path), info.Format, info.Task)
	for _, d := range info.Details {
		fmt.Fprintf(t, "%s\t%s\n", d.Name, d.Value)
	}
	if len(info.Classes) > 0 {
		fmt.Fprintf(t, "classes\t%s\n", strings.Join(info.Classes, ", "))
	}
	fmt.Fprintf(t, "missing values\t%t\n", info.Missing)
	for _, part := range []struct {
		name  string
		specs []engine.Spec
	}{{"input", info.Inputs}, {"left out", info.Optional}, {"output", info.Outputs}, {"on request", info.Extra}} {
		for _, s := range part.specs {
			fmt.Fprintf(t, "%s\t%s %s %v\n", part.name, s.Name, s.DType, s.Shape)
		}
	}
	for i, f := range info.Features {
		kind := "numeric"
		if f.Categorical {
			kind = "categorical"
		}
		if len(f.Categories) > 0 {
			kind += ": " + strings.Join(f.Categories[:min(len(f.Categories), 8)], ", ")
			if len(f.Categories) > 8 {
				kind += ", … (" + strconv.Itoa(len(f.Categories)) + ")"
			}
		}
		fmt.Fprintf(t, "feature %d\t%s %s\n", i, f.Name, kind)
	}
	if run != nil {
		for _, line := range run.text() {
			fmt.Fprintf(t, "%s\t%s\n", line[0], line[1])
		}
	}
	return t.Flush()
}

// specJSON is one input or output as scripts read it.
type specJSON struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
}

func specsJSON(specs []engine.Spec) []specJSON {
	out := make([]specJSON, 0, len(specs))
	for _, s := range specs {
		out = append(out, specJSON{s.Name, s.DType.String(), s.Shape})
	}
	return out
}

func inspectJSON(w io.Writer, path string, info *engine.Info, run *runCost) error {
	details := map[string]string{}
	for _, d := range info.Details {
		details[d.Name] = d.Value
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	all := map[string]any{
		"file": filepath.Base(path), "format": info.Format, "task": info.Task, "classes": info.Classes,
		"inputs": specsJSON(info.Inputs), "optional": specsJSON(info.Optional), "outputs": specsJSON(info.Outputs), "extra": specsJSON(info.Extra),
		"features": info.Features, "missing": info.Missing, "details": details,
	}
	if run != nil {
		all["run"] = run
	}
	return e.Encode(all)
}
