//go:build otelcol

package otelcol

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
)

// TestCollectorHandsPredictionsOver: a real collector with
// otel-config-predictions.yaml holds spans while there is no Pellucid, and each of
// them is one prediction when there is.
func TestCollectorHandsPredictionsOver(t *testing.T) {
	dir := t.TempDir()
	grpc, web, pellucid := freePort(t), freePort(t), freePort(t)
	binary := filepath.Join(dir, "pellucid")
	output(t, "go", "build", "-o", binary, "../../cmd/pellucid")
	collector := strings.TrimSpace(output(t, "./build.sh"))
	run(t, []string{"OTLP_GRPC_LISTEN=" + grpc, "OTLP_HTTP_LISTEN=" + freePort(t), "PELLUCID_GRPC=" + pellucid}, collector, "--config", "../../otel-config-predictions.yaml")
	const n = 500
	send(t, grpc, n)
	run(t, nil, binary, "serve", "--http", web, "--grpc", pellucid, "--models", dir, "--data", filepath.Join(dir, "data"), "--clickhouse", embeddedtest.DSN(t))
	var got struct{ Count int }
	for deadline := time.Now().Add(2 * time.Minute); got.Count != n; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d predictions of %d spans", got.Count, n)
		}
		if body, err := fetch(t.Context(), "http://"+web+"/api/v1/predictions?model=basket&count=true"); err == nil {
			_ = json.Unmarshal(body, &got) // until it is what is expected
		}
	}
}

// send makes n spans that are predictions and waits until the collector has them.
func send(t *testing.T, address string, n int) {
	t.Helper()
	exporter, err := otlptracegrpc.New(t.Context(), otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithInsecure())
	if err != nil {
		t.Fatal(err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
	for i := range n {
		_, s := provider.Tracer("shop").Start(t.Context(), "score", trace.WithAttributes(
			attribute.String("ml.model.name", "basket"), attribute.Int("ml.features.items", i), attribute.Float64("ml.prediction.score", float64(i)/1000)))
		s.End()
	}
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(res.Body)
	return b.Bytes(), err
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}

// run starts a program that ends with the test, and shows what it said if that
// failed.
func run(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	var said bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); t.Failed() {
			t.Logf("%s: %v\n%s", name, err, said.String())
		}
	})
	deadline := time.Now().Add(time.Minute)
	for _, e := range append(env, args...) {
		address := e[strings.LastIndexByte(e, '=')+1:]
		if strings.HasPrefix(e, "PELLUCID_") || !strings.HasPrefix(address, "127.0.0.1:") {
			continue
		}
		for {
			c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
			if err == nil {
				c.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s does not listen on %s", name, address)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}
