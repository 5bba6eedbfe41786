#!/bin/sh
# Runs a real OpenTelemetry Collector with otel-config.yaml against a ClickHouse
# that Pellucid has migrated, sends it spans over gRPC and HTTP, and looks for each
# of them, exactly once, in otel_traces.
#
#   CLICKHOUSE_ENDPOINT=host:port CLICKHOUSE_HTTP=host:port CLICKHOUSE_USER=...
#   CLICKHOUSE_PASSWORD=... CLICKHOUSE_DATABASE=...  e2e/otelcol/check.sh
#
# OTELCOL names a collector to use; without it one is built, once, with
# OpenTelemetry's builder into the cache (about four minutes on two cores).
# OTLP_GRPC_LISTEN and OTLP_HTTP_LISTEN move its listeners.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
: "${CLICKHOUSE_ENDPOINT:?}" "${CLICKHOUSE_HTTP:?}" "${CLICKHOUSE_USER:?}" "${CLICKHOUSE_PASSWORD:?}" "${CLICKHOUSE_DATABASE:?}"
export CLICKHOUSE_ENDPOINT CLICKHOUSE_USER CLICKHOUSE_PASSWORD CLICKHOUSE_DATABASE
export OTLP_GRPC_LISTEN="${OTLP_GRPC_LISTEN:-127.0.0.1:4317}" OTLP_HTTP_LISTEN="${OTLP_HTTP_LISTEN:-127.0.0.1:4318}"

otelcol=${OTELCOL:-$("$here/build.sh")}

work=$(mktemp -d)
pid=
cleanup() {
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    rm -r "$work"
}
trap cleanup EXIT INT TERM

fail() {
    echo "check.sh: $*" >&2
    if [ -f "$work/otelcol.log" ]; then tail -20 "$work/otelcol.log" >&2; fi
    exit 1
}

# The password goes by a file, not by the command line, which others can read.
umask 077
printf 'header = "X-ClickHouse-User: %s"\nheader = "X-ClickHouse-Key: %s"\nheader = "X-ClickHouse-Database: %s"\n' \
    "$CLICKHOUSE_USER" "$CLICKHOUSE_PASSWORD" "$CLICKHOUSE_DATABASE" >"$work/curlrc"
sql() {
    curl -sS --fail-with-body -K "$work/curlrc" "http://$CLICKHOUSE_HTTP/" --data-binary "$1"
}

[ "$(sql "EXISTS TABLE otel_traces")" = 1 ] || fail "there is no table otel_traces: has Pellucid run against this database?"

# Built before the collector starts, so that nothing waits for the compiler.
(cd "$root" && go build -o "$work/send" ./e2e/otelcol/send)

"$otelcol" --config "$root/otel-config.yaml" >"$work/otelcol.log" 2>&1 &
pid=$!
tries=0
until curl -s -o "$work/answer" "http://$OTLP_HTTP_LISTEN/v1/traces"; do
    kill -0 "$pid" 2>/dev/null || fail "the collector ended"
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || fail "the collector does not listen on $OTLP_HTTP_LISTEN"
    sleep 0.2
done

"$work/send" -grpc "$OTLP_GRPC_LISTEN" -http "$OTLP_HTTP_LISTEN" >"$work/sent" || fail "could not send"
[ "$(wc -l <"$work/sent")" -eq 2 ] || fail "want two traces, sent $(cat "$work/sent")"

# A clean end of the collector flushes it: what is there then is all that will be.
kill "$pid"
wait "$pid" || fail "the collector ended with an error"
pid=

while read -r trace want; do
    got=$(sql "SELECT count(), uniqExact(SpanId), countIf(SpanName = 'model.run' AND SpanKind = 'Internal' AND StatusCode = 'Error'
        AND StatusMessage = 'on purpose' AND SpanAttributes['ml.model.name'] = 'flights_gbm' AND Events.Name = ['half way'] AND ParentSpanId != ''),
        countIf(SpanName = 'infer' AND SpanKind = 'Server' AND StatusCode = 'Unset' AND ParentSpanId = ''), any(ServiceName), any(ScopeName)
        FROM otel_traces WHERE TraceId = '$trace' FORMAT TSV" | tr '\t' ' ')
    [ "$got" = "$want $want $((want - 1)) 1 otelcol-check e2e/otelcol" ] || fail "trace $trace: got '$got' for $want spans"
    times=$(sql "SELECT count() FROM otel_traces_trace_id_ts WHERE TraceId = '$trace'")
    [ "$times" -ge 1 ] || fail "trace $trace: not in otel_traces_trace_id_ts"
    echo "trace $trace: $want spans, each once"
done <"$work/sent"
echo "ok: $("$otelcol" --version)"
