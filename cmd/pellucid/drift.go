package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/engine/stats"
	"github.com/pellucid/pellucid/engine/table"
)

// driftOptions are the flags of `pellucid drift`.
type driftOptions struct {
	reference, current, tests, profile, timestamp, chunk, format, output string
	threads, minRows                                                     int
}

func driftCommand() *cobra.Command {
	var o driftOptions
	cmd := &cobra.Command{
		Use: "drift --reference ROWS --current ROWS", Short: "Compare rows with a reference, offline, with the server's statistics",
		Example: `  pellucid drift --reference march.parquet --current april.parquet
  pellucid drift --reference march.csv --current year.csv --timestamp time --chunk 7d --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "reference", "current"); err != nil {
				return err
			}
			return writeTo(o.output, cmd.OutOrStdout(), func(w io.Writer) error { return drift(w, o) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.reference, "reference", "", "rows to compare with (.csv, .parquet, .npy)")
	f.StringVar(&o.current, "current", "", "rows to judge")
	f.StringVar(&o.tests, "tests", "", "tests, the deciding one first, by commas (default: all)")
	f.StringVar(&o.profile, "profile", "pellucid", "whose definitions hold: pellucid or evidently")
	f.StringVar(&o.timestamp, "timestamp", "", "column of the current rows' time")
	f.StringVar(&o.chunk, "chunk", "", "cut the current rows: 1d, 6h (needs --timestamp), or a number of rows")
	f.StringVar(&o.format, "format", "text", "text or json")
	f.StringVar(&o.output, "output", "", "file to write (default: standard output)")
	f.IntVar(&o.threads, "threads", 1, "cores to use")
	f.IntVar(&o.minRows, "min-rows", 0, "rows a verdict needs (default 500)")
	return cmd
}

func drift(w io.Writer, o driftOptions) error {
	opt := stats.Options{Threads: o.threads, MinRows: o.minRows}
	var err error
	if opt.Profile, err = stats.ParseProfile(o.profile); err != nil {
		return usage(err)
	}
	if o.tests != "" {
		if opt.Tests, err = stats.ParseTests(o.tests); err != nil {
			return usage(err)
		}
	}
	write, ok := driftFormats[o.format]
	if !ok {
		return usage(fmt.Errorf("format %q is not text or json", o.format))
	}
	ref, err := table.Open(o.reference)
	if err != nil {
		return err
	}
	cur, err := table.Open(o.current)
	if err != nil {
		return err
	}
	r, err := compareTables(ref, cur, o, opt)
	if err != nil {
		return err
	}
	return write(w, r)
}

var driftFormats = map[string]func(io.Writer, stats.Report) error{
	"json": func(w io.Writer, r stats.Report) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	},
	"text": driftText,
}

// compareTables holds the current rows against the reference, whole and chunk by
// chunk. Text columns are categorical, numbers numeric.
func compareTables(ref, cur *table.Table, o driftOptions, opt stats.Options) (stats.Report, error) {
	if o.timestamp != "" && cur.Column(o.timestamp) == nil {
		return stats.Report{}, usage(fmt.Errorf("%s has no column %q for --timestamp", cur.Path, o.timestamp))
	}
	refCols, curCols, err := pairColumns(ref, cur, o.timestamp)
	if err != nil || o.chunk == "" {
		if err != nil {
			return stats.Report{}, err
		}
		return stats.CompareColumns(refCols, curCols, opt)
	}
	by, err := stats.ParseChunk(o.chunk)
	if err != nil {
		return stats.Report{}, usage(err)
	}
	var times []time.Time
	if o.timestamp != "" {
		if times, err = cur.Column(o.timestamp).TimeValues(); err != nil {
			return stats.Report{}, err
		}
	}
	return stats.CompareChunks(refCols, curCols, times, by, opt)
}

// pairColumns matches the current columns to the reference's by name.
func pairColumns(ref, cur *table.Table, timestamp string) (refCols, curCols []stats.Column, err error) {
	for i := range ref.Columns {
		rc := &ref.Columns[i]
		if rc.Name == timestamp || rc.Type == table.Time {
			continue
		}
		cc := cur.Column(rc.Name)
		if cc == nil {
			return nil, nil, fmt.Errorf("compare: %s has no column %q, which the reference has", cur.Path, rc.Name)
		}
		kind := stats.KindNumeric
		if rc.Type == table.String {
			kind = stats.KindCategorical
		}
		a, err := rc.Stats(kind)
		if err != nil {
			return nil, nil, err
		}
		b, err := cc.Stats(kind)
		if err != nil {
			return nil, nil, err
		}
		refCols, curCols = append(refCols, a), append(curCols, b)
	}
	if len(refCols) == 0 {
		return nil, nil, fmt.Errorf("compare: %s has no column to compare", ref.Path)
	}
	return refCols, curCols, nil
}

// driftText writes a report for people: the features that drifted first.
func driftText(w io.Writer, r stats.Report) error {
	fmt.Fprintf(w, "%d rows against %d of the reference: %s\n\n", r.Rows.Current, r.Rows.Reference, r.State)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "FEATURE\tKIND\tSTATE\tTEST\tVALUE\tTHRESHOLD")
	features := slices.Clone(r.Features)
	slices.SortStableFunc(features, func(a, b stats.FieldDrift) int { return cmp.Compare(excess(b), excess(a)) })
	for _, f := range features {
		d := f.Tests[f.Decides]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.4f\t%.4f\n", f.Name, f.Kind, f.State, f.Decides, d.Value, d.Threshold)
	}
	if len(r.Chunks) > 0 {
		fmt.Fprintln(t, "\nSTART\tEND\tROWS\tSTATE\tDRIFTED")
	}
	for _, c := range r.Chunks {
		var names []string
		for _, f := range c.Features {
			if f.State == stats.StateDrifted {
				names = append(names, f.Name)
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\n", at(c.Start), at(c.End), c.Rows, c.State, strings.Join(names, ", "))
	}
	return t.Flush()
}

func excess(f stats.FieldDrift) float64 {
	d := f.Tests[f.Decides]
	return d.Value - d.Threshold
}

func at(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
