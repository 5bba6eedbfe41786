//go:build otelcol

// Package otelcol holds otel-config.yaml against a real OpenTelemetry Collector:
// go test -tags otelcol ./e2e/otelcol (the first run builds the collector).
package otelcol

import (
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
)

func TestMain(m *testing.M) { embeddedtest.Main(m) }

// TestCollectorWritesEverySpanOnce runs check.sh against the embedded ClickHouse
// and the tables that Pellucid's own migrations made.
func TestCollectorWritesEverySpanOnce(t *testing.T) {
	dsn := embeddedtest.DSN(t)
	store, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	cmd := exec.CommandContext(t.Context(), "./check.sh")
	cmd.Env = append(os.Environ(),
		"CLICKHOUSE_ENDPOINT="+u.Host, "CLICKHOUSE_HTTP="+embeddedtest.Engine(t).Env().HTTPAddress(),
		"CLICKHOUSE_USER="+u.User.Username(), "CLICKHOUSE_PASSWORD="+password, "CLICKHOUSE_DATABASE="+strings.Trim(u.Path, "/"),
		"OTLP_GRPC_LISTEN="+freePort(t), "OTLP_HTTP_LISTEN="+freePort(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("check.sh: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
