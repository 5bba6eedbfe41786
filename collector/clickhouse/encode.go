package clickhouse

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// predictionColumns are the columns of an insert, in the order of
// predictionBlock.columns.
const predictionColumns = "id, row, rows, received_at, time, tenant, model, version, digest, route, trace_id, span_id, external_id, " +
	"status, error, capture, weight, feature_weight, decode_ns, model_ns, encode_ns, capture_ns, total_ns, bytes, schema_id, " +
	"f32, f64, i64, str, out_f32, out_f64, out_i64, out_str, score, decided, bins, bins_id, insert_batch, attempt_status, attempt_ms"

// predictionBlock is rows of predictions being built: the one encoder of
// features into the table.
type predictionBlock struct {
	n int

	id, traceID, spanID, externalID, err                                                  text
	row, rows, receivedAt, time, status, weight, features                                 fixed
	decode, model, encode, capture, total, bytes, score                                   fixed
	tenant, modelName, version, digest, route, captured, schemaID, decided, binsID, batch lowCardinality
	f32, f64, i64, str, outF32, outF64, outI64, outStr, bins, attempts, attemptMS         arrays
}

func (b *predictionBlock) columns() []builder {
	return []builder{
		&b.id, &b.row, &b.rows, &b.receivedAt, &b.time, &b.tenant, &b.modelName, &b.version, &b.digest, &b.route,
		&b.traceID, &b.spanID, &b.externalID, &b.status, &b.err, &b.captured, &b.weight, &b.features,
		&b.decode, &b.model, &b.encode, &b.capture, &b.total, &b.bytes, &b.schemaID,
		&b.f32, &b.f64, &b.i64, &b.str, &b.outF32, &b.outF64, &b.outI64, &b.outStr,
		&b.score, &b.decided, &b.bins, &b.binsID, &b.batch, &b.attempts, &b.attemptMS,
	}
}

func (b *predictionBlock) reset() {
	b.n = 0
	for _, c := range b.columns() {
		c.reset()
	}
}

// add appends all rows of d.
func (b *predictionBlock) add(d *decoded, batch string) {
	p, size := d.p, d.size
	rows := max(p.Rows, 1)
	for r := range rows {
		b.shared(p, rows, r, batch)
		b.bytes.u32(uint32(min(size, math.MaxUint32)))
		size = 0 // the record's bytes count once
		b.time.i64(d.time(r).UnixMicro())
		b.externalID.add(pick(p.ExternalIDs, r))
		f, o := p.Features.Row(r, rows), p.Outputs.Row(r, rows)
		b.f32.f32(f.F32)
		b.f64.f64(f.F64)
		b.i64.i64(f.I64)
		b.str.str(f.Str)
		b.outF32.f32(o.F32)
		b.outF64.f64(o.F64)
		b.outI64.i64(o.I64)
		b.outStr.str(o.Str)
		score := math.NaN()
		if r < len(p.Scores) {
			score = p.Scores[r]
		}
		b.score.f64(score)
		decided := ""
		if r < len(p.Decided) {
			decided = p.Decided[r]
		}
		b.decided.add(decided)
		b.bins.u16(d.row(r))
		b.binsID.add(d.binsID)
	}
}

// weightOf returns how many predictions each row of p stands for.
func weightOf(p *collector.Prediction) float64 {
	if p.Weight == 0 {
		return 1
	}
	return p.Weight
}

// featureWeightOf returns how many predictions the features of each row of p stand for.
func featureWeightOf(p *collector.Prediction) float64 {
	switch {
	case p.Capture == collector.CaptureSampled:
		return 0
	case p.FeatureShare != 0:
		return weightOf(p) / p.FeatureShare
	}
	return weightOf(p)
}

func (b *predictionBlock) shared(p *collector.Prediction, rows, r int, batch string) {
	b.n++
	b.id.add(p.ID)
	b.row.u32(uint32(r))
	b.rows.u32(uint32(rows))
	b.receivedAt.i64(p.ReceivedAt.UnixMilli())
	b.tenant.add(p.Tenant)
	b.modelName.add(p.Model)
	b.version.add(p.Version)
	b.digest.add(p.Digest)
	b.route.add(string(p.Route))
	b.traceID.add(p.TraceID)
	b.spanID.add(p.SpanID)
	b.status.u16(uint16(p.Status))
	b.err.add(p.Error)
	b.captured.add(p.Capture)
	b.weight.f64(weightOf(p))
	b.features.f64(featureWeightOf(p))
	b.decode.i64(p.Latency.Decode)
	b.model.i64(p.Latency.Model)
	b.encode.i64(p.Latency.Encode)
	b.capture.i64(p.Latency.Capture)
	b.total.i64(p.Latency.Total)
	b.schemaID.add(p.SchemaID)
	b.batch.add(batch)
	b.asked(p.Attempts)
}

func (b *predictionBlock) asked(attempts []collector.Attempt) {
	for _, a := range attempts {
		b.attempts.values = binary.LittleEndian.AppendUint16(b.attempts.values, uint16(a.Status))
		b.attemptMS.values = binary.LittleEndian.AppendUint64(b.attemptMS.values, math.Float64bits(a.MS))
	}
	b.attempts.end(len(attempts))
	b.attemptMS.end(len(attempts))
}

func pick[T time.Time | string](v []T, r int) T {
	var zero T
	switch {
	case len(v) == 1:
		return v[0]
	case r < len(v):
		return v[r]
	}
	return zero
}
