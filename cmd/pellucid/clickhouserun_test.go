package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
)

// TestClickHouseAlone: what keeps a server from starting is changed in its ClickHouse, run alone.
func TestClickHouseAlone(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.ClickHouse = ""
	fails(t, 1, "clickhouse", "run", "--data", cfg.Data)
	r := startRig(t, cfg)
	r.admin(t, "ALTER TABLE predictions MODIFY SETTING non_replicated_deduplication_window = 0")
	if got := fails(t, 1, "clickhouse", "run", "--data", cfg.Data); !strings.Contains(got, "a server runs there") {
		t.Error(got)
	}
	r.halt(t)
	_, err := startServer(t.Context(), cfg, slog.New(slog.DiscardHandler), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "pellucid clickhouse run --data "+cfg.Data) {
		t.Fatalf("a server starts: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, to := io.Pipe()
	ended := make(chan int, 1)
	var said bytes.Buffer
	go func() {
		ended <- run(ctx, []string{"clickhouse", "run", "--data", cfg.Data}, to, &said)
		_ = to.Close() // of a pipe: never fails
	}()
	env := map[string]string{}
	for lines := bufio.NewScanner(out); env["CLICKHOUSE_DATABASE"] == "" && lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "=")
		env[name] = strings.Trim(value, "'")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+env["CLICKHOUSE_HTTP"]+"/?database="+env["CLICKHOUSE_DATABASE"],
		strings.NewReader("ALTER TABLE predictions MODIFY SETTING non_replicated_deduplication_window = 10000"))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(env["CLICKHOUSE_USER"], env["CLICKHOUSE_PASSWORD"])
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %s %v", resp.StatusCode, b, err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if status := <-ended; status != 0 {
		t.Fatalf("%d %s", status, &said)
	}
	startRig(t, cfg)
}
