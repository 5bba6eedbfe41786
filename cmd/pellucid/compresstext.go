package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/pellucid/pellucid/engine/compress"
	"github.com/pellucid/pellucid/explain/audit"
)

// shownChanges is how many changes a terminal is told; the audit has all.
const shownChanges = 12

// compressText tells a terminal what was done and what it costs.
func compressText(w io.Writer, before int64, result *compress.Result, r *audit.Report) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for i, c := range result.Changes {
		if i == shownChanges {
			fmt.Fprintf(t, "and\t%d changes more\n", len(result.Changes)-shownChanges)
			break
		}
		fmt.Fprintf(t, "%s\t%s\n", c.Part, c.What)
	}
	for _, n := range result.Notes {
		fmt.Fprintf(t, "note\t%s\n", n)
	}
	after := int64(len(result.Data))
	fmt.Fprintf(t, "file\t%d bytes, was %d (%s)\n", after, before, percent(float64(after)/float64(max(before, 1))))
	if r != nil {
		auditText(t, r)
	}
	return t.Flush()
}

func auditText(w io.Writer, r *audit.Report) {
	if m := r.Memory; m != nil {
		fmt.Fprintf(w, "in memory\t%d bytes, was %d (%s)\n", m.Compressed, m.Original, percent(m.Ratio))
	}
	if s := r.Speed; s != nil {
		fmt.Fprintf(w, "speed here\t%s rows/s in batches of %d (%.2f x), %s rows/s one by one (%.2f x)\n",
			brief(s.InBulk.Compressed), s.Batch, s.InBulk.Ratio, brief(s.Single.Compressed), s.Single.Ratio)
	}
	fmt.Fprintf(w, "scores\t%d rows: largest difference %s, mean %s\n", r.Rows, brief(float64(r.Scores.MaxDifference)), brief(r.Scores.MeanDifference))
	for _, row := range r.Worst[:min(len(r.Worst), 1)] {
		if row.Difference > 0 {
			fmt.Fprintf(w, "most changed\trow %d, %s: %s, was %s\n", row.Row, row.Output, brief(float64(row.Compressed)), brief(float64(row.Original)))
		}
	}
	if d := r.Decisions; d != nil {
		fmt.Fprintf(w, "decisions\t%d of %d differ (%s)\n", d.Differ, d.Rows, percent(d.Disagreement))
	}
	if d := r.Distribution; d.Reason == "" {
		fmt.Fprintf(w, "distribution\tPSI %s, Kolmogorov-Smirnov %s\n", brief(d.PSI), brief(d.KolmogorovSmirnov))
	} else {
		fmt.Fprintf(w, "distribution\tnot compared: %s\n", d.Reason)
	}
	if a := r.Accuracy; a == nil {
		fmt.Fprintf(w, "accuracy\tnot measured: no --labels were given\n")
	} else {
		if a.Reason != "" {
			fmt.Fprintf(w, "accuracy\tnot measured: %s\n", a.Reason)
		} else {
			fmt.Fprintf(w, "%s\t%s, was %s, on %d labels\n", a.Metric, brief(a.Compressed[a.Metric]), brief(a.Original[a.Metric]), a.Rows)
		}
	}
	if e := r.Explanations; e != nil {
		if e.Reason != "" {
			fmt.Fprintf(w, "explanations\tnot compared: %s\n", e.Reason)
		} else {
			fmt.Fprintf(w, "explanations\t%s on %d rows: Spearman %.4f (lowest %.4f), Kendall %.4f, top %d shared %s\n",
				e.Method, e.Rows, e.Spearman, e.LowestSpearman, e.Kendall, e.Top, percent(e.TopOverlap))
			if e.Note != "" {
				fmt.Fprintf(w, "\t%s\n", e.Note)
			}
		}
	}
	if r.Verdict != nil {
		fmt.Fprintf(w, "limits\t%d kept\n", len(r.Verdict.Checks))
	}
}

func percent(v float64) string { return strconv.FormatFloat(100*v, 'f', 2, 64) + " %" }

func brief(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }
