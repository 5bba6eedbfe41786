package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// Backfill counts the bins of the rows of a version that were stored before ref
// was, into the rollup. Each chunk of rows is counted once: under its token, and
// noted in the table backfills. Rows that are still on their way with another
// reference's bins are found by the next call. It returns the rows counted.
func (s *Store) Backfill(ctx context.Context, tenant, model, version, digest string, ref *stats.Reference) (uint64, error) {
	chunks, err := s.pendingChunks(ctx, tenant, model, version, digest, ref.ID)
	if err != nil {
		return 0, fmt.Errorf("back-fill model %q: %w", model, err)
	}
	var total uint64
	for _, c := range chunks {
		n, err := s.backfillChunk(ctx, ref, c)
		total += n
		if err != nil {
			return total, fmt.Errorf("back-fill model %q, batch %s: %w", model, c.batch, err)
		}
	}
	return total, nil
}

func (s *Store) pendingChunks(ctx context.Context, tenant, model, version, digest, binsID string) ([]chunk, error) {
	rows, err := s.conn.Query(ctx, "SELECT DISTINCT toString(insert_batch) AS b, toYYYYMM(received_at) AS m FROM predictions"+
		" WHERE tenant = ? AND model = ? AND version = ? AND digest = ? AND bins_id != ? AND route != 'explain' AND status < 400"+
		" AND (b, m) NOT IN (SELECT insert_batch, month FROM backfills WHERE tenant = ? AND model = ? AND version = ? AND bins_id = ?) ORDER BY m, b",
		tenant, model, version, digest, binsID, tenant, model, version, binsID)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []chunk
	for rows.Next() {
		c := chunk{tenant: tenant, model: model, version: version, digest: digest, binsID: binsID}
		var month uint32
		if err := rows.Scan(&c.batch, &month); err != nil {
			return nil, fmt.Errorf("scan: %w", err)
		}
		c.month = int(month)
		out = append(out, c)
	}
	return out, unavailable(rows.Err())
}

func (s *Store) backfillChunk(ctx context.Context, ref *stats.Reference, c chunk) (uint64, error) {
	counts, n, err := s.countChunk(ctx, ref, c)
	if err != nil {
		return 0, err
	}
	if err := s.insertBins(ctx, c.token(), c, counts); err != nil {
		return 0, err
	}
	return n, s.sendRows(ctx, c.token(), "INSERT INTO backfills (tenant, model, version, bins_id, insert_batch, month, rows)", 1, func(int) []any {
		return []any{c.tenant, c.model, c.version, c.binsID, c.batch, uint32(c.month), n}
	})
}

func (s *Store) countChunk(ctx context.Context, ref *stats.Reference, c chunk) (*binCounts, uint64, error) {
	return s.countRows(ctx, ref, c.tenant, c.model, "tenant = ? AND model = ? AND version = ? AND digest = ? AND bins_id != ? AND insert_batch = ? AND toYYYYMM(received_at) = ?",
		c.tenant, c.model, c.version, c.digest, c.binsID, c.batch, c.month)
}

// countRows counts the rows of one model that a condition selects under a reference.
func (s *Store) countRows(ctx context.Context, ref *stats.Reference, tenant, model, where string, args ...any) (*binCounts, uint64, error) {
	rows, err := s.conn.Query(ctx, "SELECT time, toString(schema_id), feature_weight, weight, score, toString(decided), f32, f64, i64, str FROM predictions"+
		" WHERE "+where+" AND route != 'explain' AND status < 400", args...)
	if err != nil {
		return nil, 0, unavailable(err)
	}
	defer rows.Close()
	counts, n := &binCounts{}, uint64(0)
	p := &collector.Prediction{Tenant: tenant, Model: model, Rows: 1, Scores: make([]float64, 1), Decided: make([]string, 1)}
	var bins []uint16
	for rows.Next() {
		var (
			at       time.Time
			schemaID string
			features float64
			weight   float64
		)
		f := &p.Features
		if err := rows.Scan(&at, &schemaID, &features, &weight, &p.Scores[0], &p.Decided[0], &f.F32, &f.F64, &f.I64, &f.Str); err != nil {
			return nil, 0, fmt.Errorf("scan: %w", err)
		}
		schema, err := s.Schema(ctx, schemaID)
		if errors.Is(err, collector.ErrNotFound) {
			return nil, 0, fmt.Errorf("%w: %w", errNoSchema, err)
		}
		if err != nil {
			return nil, 0, err
		}
		bins = s.bins(ref, schema, p, 0, bins[:0])
		counts.add(at, bins, features, weight)
		n++
	}
	return counts, n, unavailable(rows.Err())
}
