package report_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"html"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/report"
)

func sample() collector.Explanation {
	e := collector.Explanation{
		PredictionID: "0198c2f0-0000-7000-8000-000000000001", Model: "flights", Version: "3", Method: "tree_shap", Output: "prediction", Space: "margin", Base: -0.84,
		Certificate: collector.Certificate{
			Method: "tree_shap", Mode: "path_dependent", Space: "margin", Cover: "hessian", Exact: true, Points: 3, Residual: 1.2e-8, ResidualRelative: 1e-8, ErrorEstimate: 3e-14,
			BaseDefinition: "expected margin over the training rows, weighted by the trees' covers (hessian)",
			ModelDigest:    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", Engine: "pellucid (devel)",
		},
	}
	for _, a := range []collector.Attribution{
		{Feature: "dep_delay", Value: 42.0, Phi: 1.3125},
		{Feature: "distance", Value: 2475.0, Phi: -0.625},
		{Feature: "carrier", Value: "UA", Phi: 0.4},
		{Feature: "<script>alert(1)</script>", Value: nil, Phi: 1.0 / 3},
		{Feature: "hour", Value: 17.0, Phi: -0.0625},
	} {
		e.Attributions = append(e.Attributions, a)
		e.Prediction += a.Phi
	}
	e.Prediction += e.Base
	e.Interactions = []collector.Interaction{{A: "dep_delay", B: "hour", Phi: 0.05}}
	return e
}

func TestHTML(t *testing.T) {
	var out bytes.Buffer
	meta := report.Meta{
		TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Time: time.Date(2013, 4, 1, 17, 5, 0, 0, time.UTC),
		Outputs: []report.Output{{Name: "prediction", Value: "0.6305"}}, Labels: []string{"1"},
	}
	second := sample()
	second.Method, second.Certificate.Method, second.Certificate.Exact = "saliency", "saliency", false
	if err := report.HTML(&out, []collector.Explanation{sample(), second}, meta); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	for _, want := range []string{
		"flights", "version 3", "0198c2f0-0000-7000-8000-000000000001", meta.TraceID, "2013-04-01 17:05:00 UTC", "+1.3125", "dep_delay = 42",
		"path dependent", "nothing was sampled", "9f86d081884c", "&lt;script&gt;", "dep_delay × hour", "E[f(X)]", "do not add up",
	} {
		if !strings.Contains(page, want) && !strings.Contains(html.UnescapeString(page), want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	for _, bad := range []string{"<script", "<link", "@import", "url(", "<img", "<iframe"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	for _, address := range regexp.MustCompile(`https?://[^"' ]*`).FindAllString(page, -1) {
		if !strings.HasPrefix(address, "http://www.w3.org/") {
			t.Errorf("the page names %s", address)
		}
	}
	if file := os.Getenv("REPORT_FILE"); file != "" {
		if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := report.HTML(&out, nil, meta); err == nil {
		t.Error("a page of nothing was written")
	}
	if err := report.HTML(&out, make([]collector.Explanation, 51), meta); err == nil {
		t.Error("a page of 51 was written")
	}
}

func TestCSV(t *testing.T) {
	a, b := sample(), sample()
	b.Output = "other"
	var out bytes.Buffer
	if err := report.CSV(&out, []collector.Explanation{a, b, a, b}, 2); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&out).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(rows[0], ","); got != "row,output,base,prediction,dep_delay,distance,carrier,<script>alert(1)</script>,hour" {
		t.Errorf("header %s", got)
	}
	if len(rows) != 5 || rows[3][0] != "1" || rows[4][1] != "other" {
		t.Errorf("rows %v", rows)
	}
	if v, err := strconv.ParseFloat(rows[1][7], 64); err != nil || v != 1.0/3 {
		t.Errorf("1/3 reads back as %v (%v)", v, err)
	}
	b.Attributions = b.Attributions[1:]
	if err := report.CSV(&out, []collector.Explanation{a, b}, 2); err == nil {
		t.Error("rows of different features were written")
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	if err := report.JSON(&out, []collector.Explanation{sample(), sample()}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	var e collector.Explanation
	if err := json.Unmarshal([]byte(lines[1]), &e); err != nil || e.Attributions[3].Phi != 1.0/3 || e.Attributions[3].Value != nil {
		t.Errorf("read back %+v (%v)", e.Attributions, err)
	}
}
