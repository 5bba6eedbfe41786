package clickhouse

import "fmt"

// dedupWindow is how many of a table's last insert blocks are remembered by
// token. A token older than that is not known any more.
const dedupWindow = 10000

// settled are the settings every table of ours is made with.
var settled = fmt.Sprintf("SETTINGS non_replicated_deduplication_window = %d", dedupWindow)

// migrations are run in order at every start. Each is one idempotent statement,
// so any number of servers may run them at once: there is no lock to take
// without a Keeper. None changes a table that is there as it should be: an ALTER
// writes the table's definition anew even where it changes nothing, and on a full disk
// leaves it empty, after which the server does not start any more. A later change is a
// further statement, run only where system.columns says that it is wanted and the disk
// has room.
func migrations() []string {
	return []string{
		createPredictions, createBins, createTraffic, dropTrafficView, createTrafficIn, createTrafficInView,
		createFeedback, createExplanations, createSchemas, createReferences, createBackfills, createAlertEvents,
		createUndecodable, createTraces, createTraceTimes, createTraceTimesView,
	}
}

// A row a prediction row. Partitions follow our own clock, so that one insert
// meets one or two and retention drops whole ones; event time may be decades
// old and has a minmax index instead. id is a UUIDv7 where it is ours, so the
// sort key is nearly the order of arrival and a point query by id reads a
// granule or two of each model. Features lie row by row, where ZSTD finds less than in
// a column of one feature; level 3 looks far enough back to make up for much of it: of the
// features of the demo's models 1.03 and 1.24 times the bytes that ZSTD(1) makes of each
// column alone, 1.20 and 1.50 at level 1. What a column a place would cost is in
// ARCHITECTURE.md ("What recording costs").
// Columns that a table of an earlier Pellucid lacks and gets (addColumns). featureWeight
// is how many predictions a row's features stand for: 0 where a rule sampled them out,
// more than the row's weight where it kept them by chance. The others are the answers of
// an upstream, 0 where it gave none, and how long each took; and which label came last.
const (
	featureWeight = "feature_weight Float64 DEFAULT if(capture = 'sampled', 0, weight) CODEC(ZSTD(1))"
	attemptStatus = "attempt_status Array(UInt16) CODEC(ZSTD(1))"
	attemptMS     = "attempt_ms Array(Float64) CODEC(ZSTD(1))"
	labelArrival  = "arrival DateTime64(6,'UTC') DEFAULT received_at CODEC(Delta(8),ZSTD(1))"
)

var createPredictions = `CREATE TABLE IF NOT EXISTS predictions (
 id String CODEC(ZSTD(1)), row UInt32 CODEC(ZSTD(1)), rows UInt32 CODEC(ZSTD(1)),
 received_at DateTime64(3,'UTC') CODEC(Delta(8),ZSTD(1)), time DateTime64(6,'UTC') CODEC(Delta(8),ZSTD(1)),
 tenant LowCardinality(String), model LowCardinality(String), version LowCardinality(String), digest LowCardinality(String),
 route LowCardinality(String), trace_id String CODEC(ZSTD(1)), span_id String CODEC(ZSTD(1)), external_id String CODEC(ZSTD(1)),
 status UInt16 CODEC(ZSTD(1)), error String CODEC(ZSTD(1)), capture LowCardinality(String), weight Float64 CODEC(ZSTD(1)), ` + featureWeight + `,
 decode_ns Int64 CODEC(T64,ZSTD(1)), model_ns Int64 CODEC(T64,ZSTD(1)), encode_ns Int64 CODEC(T64,ZSTD(1)),
 capture_ns Int64 CODEC(T64,ZSTD(1)), total_ns Int64 CODEC(T64,ZSTD(1)), bytes UInt32 CODEC(T64,ZSTD(1)),
 schema_id LowCardinality(String),
 f32 Array(Float32) CODEC(ZSTD(3)), f64 Array(Float64) CODEC(ZSTD(3)), i64 Array(Int64) CODEC(ZSTD(3)), str Array(String) CODEC(ZSTD(3)),
 out_f32 Array(Float32) CODEC(ZSTD(1)), out_f64 Array(Float64) CODEC(ZSTD(1)), out_i64 Array(Int64) CODEC(ZSTD(1)), out_str Array(String) CODEC(ZSTD(1)),
 score Float64 CODEC(ZSTD(1)), decided LowCardinality(String), bins Array(UInt16) CODEC(ZSTD(1)), bins_id LowCardinality(String),
 insert_batch LowCardinality(String), ` + attemptStatus + `, ` + attemptMS + `,
 INDEX ix_time time TYPE minmax GRANULARITY 1,
 INDEX ix_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
 INDEX ix_external external_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(received_at) ORDER BY (tenant, model, id, row) ` + settled

// Its rows are counted in Go (rollup.go). Rollups are not partitioned: event time spans decades, and one insert may not
// meet more than a hundred partitions.
var createBins = `CREATE TABLE IF NOT EXISTS bins_1m (
 tenant LowCardinality(String), model LowCardinality(String), version LowCardinality(String), bins_id LowCardinality(String),
 minute DateTime('UTC') CODEC(Delta(4),ZSTD(1)), field UInt16 CODEC(ZSTD(1)), bin UInt16 CODEC(ZSTD(1)), weight Float64 CODEC(ZSTD(1))
) ENGINE = SummingMergeTree(weight) ORDER BY (tenant, model, version, bins_id, minute, field, bin) ` + settled

var createTraffic = `CREATE TABLE IF NOT EXISTS traffic_1m (
 tenant LowCardinality(String), model LowCardinality(String), version LowCardinality(String), route LowCardinality(String),
 status_class UInt8, minute DateTime('UTC') CODEC(Delta(4),ZSTD(1)),
 requests SimpleAggregateFunction(sum, UInt64), rows SimpleAggregateFunction(sum, UInt64),
 weight SimpleAggregateFunction(sum, Float64), bytes SimpleAggregateFunction(sum, UInt64),
 last SimpleAggregateFunction(max, DateTime64(6,'UTC')),
 latency AggregateFunction(quantilesTDigestIf(0.5, 0.9, 0.99), Int64, UInt8)
) ENGINE = AggregatingMergeTree ORDER BY (tenant, model, version, route, status_class, minute) ` + settled

// A view on predictions would share their insert, and a crash could leave the one
// without the other; rows go into traffic_in, which keeps none, by an insert of
// their own, so that each table is repaired for itself.
const dropTrafficView = `DROP VIEW IF EXISTS traffic_1m_mv`

const createTrafficIn = `CREATE TABLE IF NOT EXISTS traffic_in (
 tenant LowCardinality(String), model LowCardinality(String), version LowCardinality(String), route LowCardinality(String),
 status UInt16, time DateTime64(6,'UTC'), row UInt32, weight Float64, bytes UInt32, total_ns Int64
) ENGINE = Null`

const createTrafficInView = `CREATE MATERIALIZED VIEW IF NOT EXISTS traffic_in_mv TO traffic_1m AS
SELECT tenant, model, version, route, toUInt8(intDiv(status, 100)) AS status_class, toStartOfMinute(toDateTime(time, 'UTC')) AS minute,
 countIf(row = 0) AS requests, count() AS rows, sum(weight) AS weight, sum(bytes) AS bytes, max(time) AS last,
 quantilesTDigestIfState(0.5, 0.9, 0.99)(total_ns, row = 0) AS latency
FROM (SELECT tenant, model, version, route, status, time, row, weight, bytes, total_ns FROM traffic_in)
GROUP BY tenant, model, version, route, status_class, minute`

// target_id and target_row are prediction_id taken apart: the request and its
// row.
var createFeedback = `CREATE TABLE IF NOT EXISTS feedback (
 tenant LowCardinality(String), model LowCardinality(String), prediction_id String CODEC(ZSTD(1)), target_id String CODEC(ZSTD(1)), target_row UInt32,
 external_id String CODEC(ZSTD(1)), label String CODEC(ZSTD(1)),
 observed_at DateTime64(6,'UTC') CODEC(Delta(8),ZSTD(1)), received_at DateTime64(3,'UTC') CODEC(Delta(8),ZSTD(1)),
 position UInt32, insert_batch LowCardinality(String), ` + labelArrival + `,
 INDEX ix_external external_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(received_at) ORDER BY (tenant, target_id, target_row, external_id, model, received_at, insert_batch, position) ` + settled

var createExplanations = `CREATE TABLE IF NOT EXISTS explanations (
 tenant LowCardinality(String), model LowCardinality(String), version LowCardinality(String), target_id String CODEC(ZSTD(1)), target_row UInt32,
 method LowCardinality(String), output LowCardinality(String), space LowCardinality(String), base Float64, prediction Float64,
 doc_hash UInt64, doc String CODEC(ZSTD(3)), stored_at DateTime64(3,'UTC') DEFAULT now64(3), insert_batch LowCardinality(String)
) ENGINE = ReplacingMergeTree ORDER BY (tenant, target_id, target_row, method, output, doc_hash) ` + settled

var createSchemas = `CREATE TABLE IF NOT EXISTS schemas (
 id String, doc String CODEC(ZSTD(3)), stored_at DateTime64(3,'UTC') DEFAULT now64(3)
) ENGINE = ReplacingMergeTree ORDER BY id ` + settled

var createReferences = "CREATE TABLE IF NOT EXISTS `references` (" + `
 tenant LowCardinality(String), model LowCardinality(String), version LowCardinality(String), digest LowCardinality(String), bins_id String,
 provisional UInt8, rows UInt64, source String, doc String CODEC(ZSTD(3)), stored_at DateTime64(3,'UTC') DEFAULT now64(3)
) ENGINE = ReplacingMergeTree ORDER BY (tenant, model, version, digest, bins_id) ` + settled

// backfills says which insert batches have had their bins counted for a
// reference that came after them.
var createBackfills = `CREATE TABLE IF NOT EXISTS backfills (
 tenant LowCardinality(String), model LowCardinality(String), version LowCardinality(String), bins_id String, insert_batch String, month UInt32, rows UInt64
) ENGINE = ReplacingMergeTree ORDER BY (tenant, model, version, bins_id, insert_batch, month) ` + settled

var createAlertEvents = `CREATE TABLE IF NOT EXISTS alert_events (
 id String, time DateTime64(6,'UTC'), tenant LowCardinality(String), rule LowCardinality(String), fingerprint String,
 model LowCardinality(String), version LowCardinality(String), state LowCardinality(String), value Float64,
 labels Map(LowCardinality(String), String), annotations Map(LowCardinality(String), String)
) ENGINE = ReplacingMergeTree ORDER BY (tenant, time, rule, fingerprint, id) ` + settled

// undecodable keeps the records of the spool that no decoder understood, so
// that nothing is dropped and the spool goes on.
var createUndecodable = `CREATE TABLE IF NOT EXISTS undecodable (
 insert_batch String, position UInt32, kind UInt8, version UInt8, payload String CODEC(ZSTD(1)), error String,
 stored_at DateTime64(3,'UTC') DEFAULT now64(3)
) ENGINE = ReplacingMergeTree ORDER BY (insert_batch, position) ` + settled

// The next three have the names and types of the OpenTelemetry Collector's
// ClickHouse exporter, so that its readers (Grafana, HyperDX) read ours.
var createTraces = `CREATE TABLE IF NOT EXISTS otel_traces (
 Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)), TraceId String CODEC(ZSTD(1)), SpanId String CODEC(ZSTD(1)), ParentSpanId String CODEC(ZSTD(1)),
 TraceState String CODEC(ZSTD(1)), SpanName LowCardinality(String) CODEC(ZSTD(1)), SpanKind LowCardinality(String) CODEC(ZSTD(1)),
 ServiceName LowCardinality(String) CODEC(ZSTD(1)), ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
 ScopeName String CODEC(ZSTD(1)), ScopeVersion String CODEC(ZSTD(1)), SpanAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
 Duration UInt64 CODEC(ZSTD(1)), StatusCode LowCardinality(String) CODEC(ZSTD(1)), StatusMessage String CODEC(ZSTD(1)),
 Events Nested(Timestamp DateTime64(9), Name LowCardinality(String), Attributes Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
 Links Nested(TraceId String, SpanId String, TraceState String, Attributes Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
 INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
 INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
 INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
 INDEX idx_span_attr_key mapKeys(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
 INDEX idx_span_attr_value mapValues(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
 INDEX idx_duration Duration TYPE minmax GRANULARITY 1
) ENGINE = MergeTree PARTITION BY toDate(Timestamp) ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000`

var createTraceTimes = `CREATE TABLE IF NOT EXISTS otel_traces_trace_id_ts (
 TraceId String CODEC(ZSTD(1)), Start DateTime CODEC(Delta(4), ZSTD(1)), End DateTime CODEC(Delta(4), ZSTD(1)),
 INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = MergeTree PARTITION BY toDate(Start) ORDER BY (TraceId, Start) ` + settled

const createTraceTimesView = `CREATE MATERIALIZED VIEW IF NOT EXISTS otel_traces_trace_id_ts_mv TO otel_traces_trace_id_ts AS
SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End FROM otel_traces WHERE TraceId != '' GROUP BY TraceId`
