package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/pellucid/pellucid/collector"
)

// repeated sends every request of an OTLP/HTTP client as often as times says, some
// of them at the same time: what a collector between the two may do.
type repeated struct {
	t     *testing.T
	times int
}

func (x repeated) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	send := func() (*http.Response, error) {
		again := r.Clone(context.WithoutCancel(r.Context()))
		again.Body = io.NopCloser(bytes.NewReader(body))
		return http.DefaultTransport.RoundTrip(again)
	}
	var wg sync.WaitGroup
	for range x.times {
		wg.Go(func() {
			res, err := send()
			if err != nil {
				x.t.Error(err)
				return
			}
			defer res.Body.Close()
			// A partial success that is there and empty.
			if answer, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || string(answer) != "\n\x00" {
				x.t.Errorf("again: %d %q", res.StatusCode, answer)
			}
		})
		if rand.N(2) == 0 {
			wg.Wait()
		}
	}
	wg.Wait()
	return send()
}

// tracerTo is an unmodified SDK's tracer; flush returns when its spans are taken.
func tracerTo(t *testing.T, exporter *otlptrace.Exporter) (tracer trace.Tracer, flush func()) {
	t.Helper()
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "shop"))))
	return provider.Tracer("shop"), func() {
		t.Helper()
		if err := provider.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

// shopSpans makes n predictions of a model, some of them failed, and n answers of
// a generative one, under one trace. It returns the trace's id.
func shopSpans(t *testing.T, tracer trace.Tracer, n int) string {
	t.Helper()
	ctx, order := tracer.Start(t.Context(), "order")
	defer order.End()
	for i := range n {
		_, s := tracer.Start(ctx, "score", trace.WithAttributes(
			attribute.String("ml.model.name", "basket"), attribute.String("ml.model.version", "3"), attribute.String("ml.prediction.external_id", fmt.Sprint("order-", i)),
			attribute.Int("ml.features.items", i), attribute.Float64("ml.features.total", float64(i)+0.5), attribute.String("ml.features.country", []string{"NO", "SE"}[i%2]),
			attribute.String("ml.features.card", canaryText), attribute.Bool("ml.features.member", i%3 == 0)))
		if i%10 == 9 {
			s.SetAttributes(attribute.String("error.type", "timeout"))
			s.SetStatus(codes.Error, "on purpose")
		} else {
			s.SetAttributes(attribute.Float64("ml.prediction.score", float64(i)/1000))
		}
		s.End()
		_, s = tracer.Start(ctx, "chat gpt-x", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			attribute.String("gen_ai.operation.name", "chat"), attribute.String("gen_ai.request.model", "acme/gpt-x"), attribute.String("gen_ai.response.model", "gpt-x-1"),
			attribute.String("gen_ai.provider.name", "acme"), attribute.String("gen_ai.response.id", fmt.Sprintf("chatcmpl-%s-%d", order.SpanContext().TraceID(), i)), attribute.Int("gen_ai.usage.input_tokens", 100+i),
			attribute.Int("gen_ai.usage.output_tokens", i), attribute.StringSlice("gen_ai.response.finish_reasons", []string{"stop"}),
			attribute.String("gen_ai.input.messages", canaryText), attribute.String("gen_ai.output.messages", canaryText)))
		s.End()
	}
	return order.SpanContext().TraceID().String()
}

// checkShop holds what is stored of shopSpans to what was sent.
func checkShop(t *testing.T, r *rig, id string, n int) {
	t.Helper()
	r.stored(t)
	db := r.database(t)
	for query, want := range map[string]string{
		"SELECT count(), uniqExact(id), countIf(status = 504), countIf(trace_id = '" + id + "') FROM predictions WHERE model = 'basket' AND trace_id = '" + id + "'": fmt.Sprint(n, n, n/10, n),
		"SELECT count(), uniqExact(id), countIf(status = 200) FROM predictions WHERE model = 'acme_gpt-x' AND trace_id = '" + id + "'":                               fmt.Sprint(n, n, n),
		"SELECT count(), uniqExact(SpanId) FROM otel_traces WHERE TraceId = '" + id + "'":                                                                            fmt.Sprint(2*n+1, 2*n+1),
	} {
		if got := strings.Join(strings.Fields(sql(t, db, query)), " "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	var page collector.Page
	r.get(t, "/api/v1/predictions/trace:"+id, &page)
	i := slices.IndexFunc(page.Predictions, func(p collector.StoredPrediction) bool { return p.ExternalID == "order-4" })
	if len(page.Predictions) != 2*n || i < 0 {
		t.Fatalf("the trace has %d predictions", len(page.Predictions))
	}
	p := page.Predictions[i]
	if p.Model != "basket" || p.Version != "3" || p.Features["items"] != 4.0 || p.Features["total"] != 4.5 || p.Features["country"] != "NO" || p.Features["member"] != false ||
		p.Outputs["score"] != 0.004 || p.LatencyMS["total"] <= 0 || time.Since(p.Time) > time.Hour || p.ID != id+"-"+p.SpanID || p.Route != collector.RouteImported {
		t.Errorf("stored %+v", p)
	}
	if _, kept := p.Features["card"]; kept {
		t.Error("a dropped field is stored")
	}
	i = slices.IndexFunc(page.Predictions, func(p collector.StoredPrediction) bool {
		return p.Model == "acme_gpt-x" && p.Outputs["output_tokens"] == 4.0
	})
	if i < 0 {
		t.Fatal("no answer of the generative model")
	}
	p = page.Predictions[i]
	said, _ := p.Features["gen_ai.input.messages"].(string)
	if p.Version != "gpt-x-1" || p.Features["input_tokens"] != 104.0 || p.Features["provider"] != "acme" || p.Features["temperature"] != nil || p.Outputs["finish_reasons"] != "stop" || said != collector.Masked {
		t.Errorf("stored %+v", p)
	}
	if _, kept := p.Features["gen_ai.output.messages"]; kept {
		t.Error("what no model.yaml declares is a feature")
	}
}

// placeShop says what is private about the models of shopSpans.
func placeShop(t *testing.T, models string) {
	t.Helper()
	place(t, models, "basket/3/model.yaml", "features: [{name: card, private: drop}]\n")
	place(t, models, "acme_gpt-x/gpt-x-1/model.yaml", "features: [{name: gen_ai.input.messages, private: mask}]\n")
}

// TestSpansBecomePredictions: what an unmodified OpenTelemetry SDK sends is stored
// once, however often each request of it comes, and nothing private with it.
func TestSpansBecomePredictions(t *testing.T) {
	models := t.TempDir()
	placeShop(t, models)
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	send := func(times int) string {
		exporter, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(r.url+"/v1/traces"), otlptracehttp.WithHTTPClient(&http.Client{Transport: repeated{t, times}}))
		if err != nil {
			t.Fatal(err)
		}
		tracer, flush := tracerTo(t, exporter)
		id := shopSpans(t, tracer, 100)
		flush()
		return id
	}
	id := send(0)
	checkShop(t, r, id, 100)
	checkShop(t, r, send(7), 100)
	if n := sql(t, r.database(t), "SELECT sum(rows) FROM traffic_1m WHERE model = 'basket'"); n != "200" {
		t.Errorf("the rollup has %s rows", n)
	}
	// Labels find such a prediction by the id that its span gave.
	r.post(t, "/api/v1/feedback", `{"external_id":"order-4","label":"1"}`, nil)
	r.stored(t)
	var page collector.Page
	r.get(t, "/api/v1/predictions/trace:"+id, &page)
	i := slices.IndexFunc(page.Predictions, func(p collector.StoredPrediction) bool { return p.ExternalID == "order-4" })
	if i < 0 || len(page.Predictions[i].Labels) != 1 {
		t.Error("the label did not find its prediction")
	}
	if text := sql(t, r.database(t), "SELECT count() FROM otel_traces WHERE toString(SpanAttributes) LIKE '%"+canaryText+"%' OR toString(Events.Attributes) LIKE '%"+canaryText+"%'"); text != "0" {
		t.Errorf("%s spans hold what is private", text)
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
}
