package clickhouse

import (
	"context"
	"fmt"
	"time"
)

// Extent returns the span of event time that a version's answered predictions
// cover, to the minute at its start, and how many rows there are; zero times
// where it has none. An empty version means all of the model.
func (s *Store) Extent(ctx context.Context, tenant, model, version string) (first, last time.Time, rows uint64, err error) {
	return s.extent(ctx, tenant, model, version, 4)
}

// TrafficExtent is Extent of all requests, failed ones too: a model that answers nothing
// any more still has traffic.
func (s *Store) TrafficExtent(ctx context.Context, tenant, model, version string) (first, last time.Time, rows uint64, err error) {
	return s.extent(ctx, tenant, model, version, 10)
}

func (s *Store) extent(ctx context.Context, tenant, model, version string, below uint8) (first, last time.Time, rows uint64, err error) {
	err = s.conn.QueryRow(ctx, "SELECT min(minute), max(last), sum(rows) FROM traffic_1m"+
		" WHERE tenant = ? AND model = ? AND (? = '' OR version = ?) AND route != 'explain' AND status_class < ?",
		tenant, model, version, version, below).Scan(&first, &last, &rows)
	if err != nil {
		return time.Time{}, time.Time{}, 0, fmt.Errorf("find the extent of model %q: %w", model, unavailable(err))
	}
	if rows == 0 {
		return time.Time{}, time.Time{}, 0, nil
	}
	return first.UTC(), last.UTC(), rows, nil
}
