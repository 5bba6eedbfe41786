package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWrongUsageIsSaid: what cannot be meant is exit status 2, with the line where
// a file says it, and no name of a Go type.
func TestWrongUsageIsSaid(t *testing.T) {
	dir := t.TempDir()
	written := func(text string) string {
		path := filepath.Join(dir, "p.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	explain := []string{"explain", "--model", gbm + "model.ubj", "--input", gbm + "reference.parquet", "--method"}
	for _, c := range []struct {
		config string
		args   []string
		say    string
	}{
		{"", append(explain, "kernel"), "kernel"},
		{"", append(explain, "zzz"), "tree_shap"},
		{"", []string{"serve", "--clickhouse", "notadsn"}, "clickhouse://"},
		{"", []string{"serve", "--clickhouse", "clickhouse:///x"}, "clickhouse://"},
		{"", []string{"serve", "--clickhouse", "http://a:8123"}, "clickhouse://"},
		{"", []string{"export", "--model", "m", "--clickhouse", "notadsn"}, "clickhouse://"},
		{"", []string{"serve", "--http", ":99999", "--allow-unauthenticated"}, "65535"},
		{"", []string{"serve", "--http", "127.0.0.1:-1"}, "65535"},
		{"limits:\n  in_flight: -1\n", nil, "line 2: limits.in_flight"},
		{"capture: {spool_bytes: 1}\n", nil, "line 1: capture.spool_bytes"},
		{"\nengine_memory: 1\n", nil, "line 2: engine_memory"},
		{"limits:\n  timeout: 1s\n  body: abc\n", nil, "line 3: size"},
		{"limits:\n  timeout: soon\n", nil, "line 2: time"},
		{"capture:\n  on_full: maybe\n", nil, "line 2: capture.on_full"},
		{"http: 127.0.0.1:0\ncapture: {durability: x}\n", nil, "line 2: capture.durability"},
		{"telemetry:\n  sample: 2\n", nil, "line 2: telemetry.sample"},
		{"telemetry:\n  otlp: notaurl\n", nil, "line 2: telemetry.otlp"},
		{"telemetry:\n  otlp: ftp://x\n", nil, "telemetry.otlp"},
		{"threads: many\n", nil, "line 1: cannot unmarshal !!str `many` into a whole number"},
		{"limits: 3\n", nil, "into keys with values"},
		{"http: 127.0.0.1:99999\n", nil, "line 1: http"},
		{"http: 127.0.0.1:1\n", []string{"serve", "--http", "127.0.0.1:99999"}, "pellucid: http"},
	} {
		args := c.args
		if c.config != "" {
			if args == nil {
				args = []string{"serve"}
			}
			args = append(args, "--config", written(c.config))
		}
		status, _, stderr := command(t, args...)
		if status != 2 || !strings.Contains(stderr, c.say) || strings.Contains(stderr, "main.") {
			t.Errorf("%q %v: status %d, %q; want %q", c.config, args, status, stderr, c.say)
		}
		if c.config != "" && !strings.Contains(c.say, "pellucid:") && !strings.Contains(stderr, "p.yaml") {
			t.Errorf("%q: %q does not name the file", c.config, stderr)
		}
	}
	for _, good := range []string{"telemetry: {otlp: 'collector:4317'}", "telemetry: {otlp: 'https://c/v1/traces'}", "clickhouse: 'clickhouse://u:p@h:9000/d'", "limits: {in_flight: 0}"} {
		fs := serveCommand().Flags()
		if err := fs.Set("config", written(good)); err != nil {
			t.Fatal(err)
		}
		if _, err := loadConfig(fs, func(string) string { return "" }); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

// TestSpoolVerifyWantsASpool: a folder without one is not whole.
func TestSpoolVerifyWantsASpool(t *testing.T) {
	dir := t.TempDir()
	if status, _, stderr := command(t, "spool", "verify", dir); status != 1 || !strings.Contains(stderr, "no spool") {
		t.Errorf("%d %q", status, stderr)
	}
	cfg := testConfig(t, t.TempDir())
	startRig(t, cfg)
	if status, _, stderr := command(t, "spool", "verify", filepath.Join(cfg.Data, "spool")); status != 0 {
		t.Errorf("a new spool: %d %q", status, stderr)
	}
}

func TestExportOfWhatIsNotThere(t *testing.T) {
	models, cases := threeModels(t)
	r := startRig(t, testConfig(t, models))
	r.infer(t, "xgb", cases["xgb"])
	r.stored(t)
	for _, c := range []struct {
		args   []string
		status int
		say    string
	}{
		{[]string{"--model", "nope"}, 1, `"nope"`},
		{[]string{"--model", "xgb", "--version", "9"}, 1, `version "9"`},
		{[]string{"--model", "xgb", "--where", "zz"}, 2, "where"},
		{[]string{"--model", "xgb", "--from", "1677-01-01"}, 2, "1970"},
		{[]string{"--model", "xgb", "--from", "2090-01-01"}, 0, ""},
		{[]string{"--model", "xgb"}, 0, ""},
	} {
		status, _, stderr := command(t, append([]string{"export", "--clickhouse", r.dsn}, c.args...)...)
		if status != c.status || !strings.Contains(stderr, c.say) {
			t.Errorf("%v: %d %q", c.args, status, stderr)
		}
	}
}

// TestStopWithSlowBodies: clients that never finish their request keep a stop
// waiting for its grace time, and do not make it fail.
func TestStopWithSlowBodies(t *testing.T) {
	r := startRig(t, testConfig(t, t.TempDir()))
	for range 20 {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "POST /api/v1/feedback HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{")
	}
	began := time.Now()
	r.halt(t)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the stop took %s", took)
	}
}
