package report_test

import (
	"bytes"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/dashboards/report"
	"github.com/pellucid/pellucid/engine/stats"
	"github.com/pellucid/pellucid/explain/audit"
)

// TestAuditPage writes a page with all there can be, and one with nothing.
func TestAuditPage(t *testing.T) {
	limit, found := 0.01, 0.25
	r := &audit.Report{
		Original: "<b>big</b>.onnx", Compressed: "small.onnx", OriginalDigest: "aa", CompressedDigest: "bb", Rows: 400,
		File: audit.Size{Original: 5 << 20, Compressed: 1 << 20, Ratio: 0.2}, Memory: &audit.Size{Original: 100, Compressed: 50, Ratio: 0.5},
		Speed:        &audit.Speed{Machine: "linux/amd64, 2 cores", Threads: 1, Rounds: 7, Batch: 400, InBulk: audit.Rate{Original: 1e6, Compressed: 2.5e6, Ratio: 2.5}, Single: audit.Rate{Original: 10, Compressed: 20, Ratio: 2}},
		Scores:       audit.Scores{MaxDifference: audit.Number(math.Inf(1)), MeanDifference: 0.5, NotFinite: 3},
		Distribution: audit.Distribution{Of: "predicted value", PSI: 0.125},
		Decisions:    &audit.Decisions{Rows: 400, Differ: 100, Disagreement: 0.25, Flips: []audit.Flip{{From: "cat", To: "dog", Count: 99}}},
		Accuracy:     &audit.Accuracy{Rows: 300, Metric: stats.MetricAccuracy, Original: map[stats.Metric]float64{"accuracy": 0.9, "log_loss": 0.3}, Compressed: map[stats.Metric]float64{"accuracy": 0.8, "log_loss": 0.2}},
		Explanations: &audit.Explanations{Method: "tree_shap", Rows: 200, Compared: 200, Features: 7, Spearman: 0.98, Top: 5},
		Worst:        []audit.Row{{Row: 17, Output: "score[1]", Original: 0.5, Compressed: audit.Number(math.NaN()), Difference: audit.Number(math.Inf(1)), OriginalDecided: "cat", NewDecided: "dog"}},
		Verdict:      &audit.Verdict{Checks: []audit.Check{{Name: "max-disagreement", Limit: limit, Value: &found}, {Name: "max-psi", Reason: "no score is finite"}}},
		Notes:        []string{"a note"}, Warnings: []string{"a warning"},
	}
	for range 150 {
		r.Applied = append(r.Applied, audit.Applied{Part: "w", What: "halved"})
	}
	made := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	if err := report.Audit(&out, r, made); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	for _, want := range []string{
		"&lt;b&gt;big&lt;/b&gt;.onnx", "Outside the limits", "max-disagreement is 0.25, the limit is 0.01", "20.00 %", "2.50 ×", "2.50 M rows/s", "measured here",
		"infinite", "3 numbers are finite on one side only", "75.00 %", "cat → dog", "Log loss", "-0.1000", "tree_shap", "50 more", "a note", "a warning", "no number", "2026-05-01 12:00:00 UTC", "1.0 MiB, was 5.0 MiB",
	} {
		if !strings.Contains(strings.ReplaceAll(page, "&#43;", "+"), want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	for _, bad := range []string{"<script", "<link", "@import", "url(", "<img", "<iframe", "<b>big"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	if found := regexp.MustCompile(`https?://`).FindString(page); found != "" {
		t.Error("the page names an address")
	}
	out.Reset()
	if err := report.Audit(&out, &audit.Report{Original: "a", Compressed: "b", Distribution: audit.Distribution{Reason: "no score is finite"}}, made); err != nil {
		t.Fatal(err)
	}
	if page := out.String(); strings.Contains(page, "Rows that changed most") || strings.Contains(page, "Outside") || !strings.Contains(page, "no score is finite") {
		t.Error("the page of nothing tells of something")
	}
}
