// Command send puts spans on an OpenTelemetry Collector through Pellucid's own
// telemetry, over gRPC and over HTTP, and prints one line a trace: its id and how
// many spans it has. check.sh looks for them in ClickHouse.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/pellucid/pellucid/collector/telemetry"
)

func main() {
	grpc := flag.String("grpc", "127.0.0.1:4317", "OTLP/gRPC address")
	http := flag.String("http", "127.0.0.1:4318", "OTLP/HTTP address")
	n := flag.Int("n", 50, "children of each trace")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	for _, endpoint := range []string{"grpc://" + *grpc, "http://" + *http} {
		if err := send(ctx, endpoint, *n); err != nil {
			fmt.Fprintf(os.Stderr, "send: %s: %v\n", endpoint, err)
			cancel()
			os.Exit(1)
		}
	}
	cancel()
}

// send makes one trace of a request with n children and waits until the
// collector has taken it.
func send(ctx context.Context, endpoint string, n int) (err error) {
	t, err := telemetry.New(ctx, telemetry.Config{OTLPEndpoint: endpoint, SampleRatio: 1, ServiceName: "otelcol-check"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Shutdown(ctx)) }()
	tracer := t.TracerProvider().Tracer("e2e/otelcol")
	parent, request := tracer.Start(ctx, "infer", trace.WithSpanKind(trace.SpanKindServer))
	for i := range n {
		_, span := tracer.Start(parent, "model.run", trace.WithAttributes(attribute.String("ml.model.name", "flights_gbm"), attribute.Int("ml.batch.size", i)))
		span.AddEvent("half way")
		span.SetStatus(codes.Error, "on purpose")
		span.End()
	}
	request.End()
	if err := t.Flush(ctx); err != nil {
		return err
	}
	if s := t.Stats(); s.Written != uint64(n+1) {
		return fmt.Errorf("of %d spans: %+v", n+1, s)
	}
	fmt.Println(request.SpanContext().TraceID(), n+1)
	return nil
}
