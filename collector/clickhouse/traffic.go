package clickhouse

import (
	"context"
	"math"
	"time"
)

// trafficBlock is rows on their way into traffic_in.
type trafficBlock struct {
	tenant, model, version, route        lowCardinality
	status, at, row, weight, size, total fixed
	n                                    int
}

func (b *trafficBlock) add(tenant, model, version, route string, status uint16, at int64, row uint32, weight float64, bytes uint32, total int64) {
	b.tenant.add(tenant)
	b.model.add(model)
	b.version.add(version)
	b.route.add(route)
	b.status.u16(status)
	b.at.i64(at)
	b.row.u32(row)
	b.weight.f64(weight)
	b.size.u32(bytes)
	b.total.i64(total)
	b.n++
}

// insertTraffic adds rows to the rollup traffic_1m, once a token.
func (s *Store) insertTraffic(ctx context.Context, token string, items []*decoded) error {
	var b trafficBlock
	each(items, func(d *decoded, r int, when time.Time) {
		bytes := 0
		if r == 0 {
			bytes = d.size // the record's bytes count once
		}
		b.add(d.p.Tenant, d.p.Model, d.p.Version, string(d.p.Route), uint16(d.p.Status), when.UnixMicro(), uint32(r), weightOf(d.p),
			uint32(min(bytes, math.MaxUint32)), d.p.Latency.Total)
	})
	return s.sendTraffic(ctx, token, &b)
}

func (s *Store) sendTraffic(ctx context.Context, token string, b *trafficBlock) error {
	if b.n == 0 {
		return nil
	}
	return s.sendBlock(ctx, token, "INSERT INTO traffic_in (tenant, model, version, route, status, time, row, weight, bytes, total_ns)",
		[]builder{&b.tenant, &b.model, &b.version, &b.route, &b.status, &b.at, &b.row, &b.weight, &b.size, &b.total}, b.n)
}

// each calls f for every row with its event time.
func each(items []*decoded, f func(d *decoded, r int, at time.Time)) {
	for _, d := range items {
		for r := range max(d.p.Rows, 1) {
			f(d, r, d.time(r))
		}
	}
}
