package clickhouse

import (
	"context"
	"math"
	"time"
)

// insertTraffic adds rows to the rollup traffic_1m, once a token.
func (s *Store) insertTraffic(ctx context.Context, token string, items []*decoded) error {
	var (
		tenant, model, version, route        lowCardinality
		status, at, row, weight, size, total fixed
		n                                    int
	)
	each(items, func(d *decoded, r int, when time.Time) {
		tenant.add(d.p.Tenant)
		model.add(d.p.Model)
		version.add(d.p.Version)
		route.add(string(d.p.Route))
		status.u16(uint16(d.p.Status))
		at.i64(when.UnixMicro())
		row.u32(uint32(r))
		weight.f64(weightOf(d.p))
		bytes := 0
		if r == 0 {
			bytes = d.size // the record's bytes count once
		}
		size.u32(uint32(min(bytes, math.MaxUint32)))
		total.i64(d.p.Latency.Total)
		n++
	})
	if n == 0 {
		return nil
	}
	return s.sendBlock(ctx, token, "INSERT INTO traffic_in (tenant, model, version, route, status, time, row, weight, bytes, total_ns)",
		[]builder{&tenant, &model, &version, &route, &status, &at, &row, &weight, &size, &total}, n)
}

// each calls f for every row with its event time.
func each(items []*decoded, f func(d *decoded, r int, at time.Time)) {
	for _, d := range items {
		for r := range max(d.p.Rows, 1) {
			f(d, r, d.time(r))
		}
	}
}
