package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// chunk is the rows of one insert batch and month that have no bins of a
// reference yet. An insert lands whole or not at all, so a chunk never grows.
type chunk struct {
	batch string
	month uint32
}

// Backfill counts the bins of the rows of a version that were stored before ref
// was, into the rollup. Each chunk of rows is counted once: under a token, and
// noted in the table backfills. Rows that are still on their way with another
// reference's bins are found by the next call. It returns the rows counted.
func (s *Store) Backfill(ctx context.Context, tenant, model, version, digest string, ref *stats.Reference) (uint64, error) {
	chunks, err := s.pendingChunks(ctx, tenant, model, version, digest, ref.ID)
	if err != nil {
		return 0, fmt.Errorf("back-fill model %q: %w", model, err)
	}
	var total uint64
	for _, c := range chunks {
		n, err := s.backfillChunk(ctx, tenant, model, version, digest, ref, c)
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
		var c chunk
		if err := rows.Scan(&c.batch, &c.month); err != nil {
			return nil, fmt.Errorf("scan: %w", err)
		}
		out = append(out, c)
	}
	return out, unavailable(rows.Err())
}

// binKey is one row of the rollup within a chunk.
type binKey struct {
	minute     int64
	field, bin uint16
}

func (s *Store) backfillChunk(ctx context.Context, tenant, model, version, digest string, ref *stats.Reference, c chunk) (uint64, error) {
	counts, n, err := s.countChunk(ctx, tenant, model, version, digest, ref, c)
	if err != nil {
		return 0, err
	}
	list := make([]binKey, 0, len(counts))
	for k := range counts {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b binKey) int {
		if a.minute != b.minute {
			return int(a.minute - b.minute)
		}
		return int(a.field)<<16 + int(a.bin) - int(b.field)<<16 - int(b.bin)
	})
	token := "backfill:" + ref.ID + ":" + tenant + ":" + model + ":" + version + ":" + c.batch + ":" + strconv.Itoa(int(c.month))
	if len(list) > 0 {
		err = s.sendRows(ctx, token, "INSERT INTO bins_1m (tenant, model, version, bins_id, minute, field, bin, weight)", len(list), func(i int) []any {
			k := list[i]
			return []any{tenant, model, version, ref.ID, time.Unix(k.minute, 0).UTC(), k.field, k.bin, counts[k]}
		})
		if err != nil {
			return 0, err
		}
	}
	return n, s.sendRows(ctx, token, "INSERT INTO backfills (tenant, model, version, bins_id, insert_batch, month, rows)", 1, func(int) []any {
		return []any{tenant, model, version, ref.ID, c.batch, c.month, n}
	})
}

func (s *Store) countChunk(ctx context.Context, tenant, model, version, digest string, ref *stats.Reference, c chunk) (map[binKey]float64, uint64, error) {
	rows, err := s.conn.Query(ctx, "SELECT time, toString(schema_id), weight, score, toString(decided), f32, f64, i64, str FROM predictions"+
		" WHERE tenant = ? AND model = ? AND version = ? AND digest = ? AND bins_id != ? AND insert_batch = ? AND toYYYYMM(received_at) = ? AND route != 'explain' AND status < 400",
		tenant, model, version, digest, ref.ID, c.batch, c.month)
	if err != nil {
		return nil, 0, unavailable(err)
	}
	defer rows.Close()
	counts, n := map[binKey]float64{}, uint64(0)
	p := &collector.Prediction{Rows: 1, Scores: make([]float64, 1), Decided: make([]string, 1)}
	var bins []uint16
	for rows.Next() {
		var (
			at       time.Time
			schemaID string
			weight   float64
		)
		f := &p.Features
		if err := rows.Scan(&at, &schemaID, &weight, &p.Scores[0], &p.Decided[0], &f.F32, &f.F64, &f.I64, &f.Str); err != nil {
			return nil, 0, fmt.Errorf("scan: %w", err)
		}
		schema, err := s.Schema(ctx, schemaID)
		if errors.Is(err, collector.ErrNotFound) {
			return nil, 0, fmt.Errorf("%w: %w", errNoSchema, err)
		}
		if err != nil {
			return nil, 0, err
		}
		bins = collector.BinRow(ref, schema, p, 0, bins[:0])
		minute := at.Unix() - at.Unix()%60
		for field, bin := range bins {
			if bin != stats.BinNone {
				counts[binKey{minute, uint16(field), bin}] += weight
			}
		}
		n++
	}
	return counts, n, unavailable(rows.Err())
}
