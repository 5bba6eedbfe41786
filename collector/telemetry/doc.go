// Package telemetry is the one owner of the OpenTelemetry SDK: it builds the
// tracer and meter providers that every other room uses through the API, the
// Prometheus endpoint, and the one road that spans take.
//
// That road is either straight to the store (Config.WriteSpans) or to an OTLP
// endpoint, never both, so no span is stored twice. Spans wait in a bounded
// queue; when it is full they are dropped and counted. Nothing here ever makes a
// request wait, and nothing here knows ClickHouse.
//
// registry.yaml beside this file is the published list of the attributes, spans
// and metrics of Pellucid; tests hold it against the code that sets them.
package telemetry
