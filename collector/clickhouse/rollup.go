package clickhouse

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// The rollup bins_1m is counted here, not by a materialized view: a view that
// takes 30 bins a row apart costs thirty times the row's own insert.
//
// What keeps it exact is the chunk: the rows of one insert batch, month and
// version. A chunk's counts under one reference are inserted under one token,
// whether the writer does it or Backfill, so they count once even where a
// reference came between two attempts at a batch.

// chunk names the rows whose counts are one insert.
type chunk struct {
	tenant, model, version, digest, binsID, batch string
	month                                         int
}

func (c chunk) token() string {
	return "bins:" + c.batch + ":" + strconv.Itoa(c.month) + ":" + c.binsID + ":" + c.tenant + ":" + c.model + ":" + c.version + ":" + c.digest
}

// binCounts are a chunk's weights by minute, field and bin.
type binCounts struct {
	minutes map[int64][]fieldCounts
	// The last minute's counts: rows come in order of time, mostly.
	at   int64
	last []fieldCounts
}

// fieldCounts are dense, but for the reserved bins at the top.
type fieldCounts struct {
	low  []float64
	high [65536 - int(stats.BinNone)]float64
}

// weightUnits are the parts that weights are counted in. In parts of a power of two sums
// of floats are exact in whatever order they are made, up to 2^33 a bin and minute, so
// that a rollup can be held against its rows.
const weightUnits = 1 << 20

// unitsSQL is a row's weight in whole parts.
const unitsSQL = "toInt64(round(weight * 1048576))"

// counted is a weight as it goes into sums.
func counted(weight float64) float64 { return math.RoundToEven(weight*weightUnits) / weightUnits }

// add counts a row's bins: those of features by the weight that they have, the
// prediction's, which is the last and which every row has, by the row's.
func (c *binCounts) add(at time.Time, bins []uint16, features, row float64) {
	features, row = counted(features), counted(row)
	minute := at.Unix() - at.Unix()%60
	if c.minutes == nil {
		c.minutes, c.at = map[int64][]fieldCounts{}, -1
	}
	if minute != c.at || len(c.last) < len(bins) {
		f := c.minutes[minute]
		for len(f) < len(bins) {
			f = append(f, fieldCounts{})
		}
		c.minutes[minute], c.at, c.last = f, minute, f
	}
	for field, bin := range bins {
		weight := features
		if field == len(bins)-1 {
			weight = row
		}
		f := &c.last[field]
		switch {
		case bin == stats.BinNone:
		case bin > stats.BinNone:
			f.high[bin-stats.BinNone] += weight
		default:
			for len(f.low) <= int(bin) {
				f.low = append(f.low, 0)
			}
			f.low[bin] += weight
		}
	}
}

// binRow is one row of the rollup within a chunk.
type binRow struct {
	minute     int64
	field, bin uint16
	weight     float64
}

// rows returns the counts that are not zero, always in the same order.
func (c *binCounts) rows() []binRow {
	var out []binRow
	for minute, fields := range c.minutes {
		for i := range fields {
			for bin, w := range fields[i].low {
				if w != 0 {
					out = append(out, binRow{minute, uint16(i), uint16(bin), w})
				}
			}
			for k, w := range fields[i].high {
				if w != 0 {
					out = append(out, binRow{minute, uint16(i), stats.BinNone + uint16(k), w})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b binRow) int {
		return cmp.Or(cmp.Compare(a.minute, b.minute), cmp.Compare(a.field, b.field), cmp.Compare(a.bin, b.bin))
	})
	return out
}

// insertBins adds a chunk's counts to the rollup, once a token: c.token(), unless
// that was lost.
func (s *Store) insertBins(ctx context.Context, token string, c chunk, counts *binCounts) error {
	var (
		tenant, model, version, binsID lowCardinality
		minute, field, bin, weight     fixed
	)
	list := counts.rows()
	if len(list) == 0 {
		return nil
	}
	for _, r := range list {
		tenant.add(c.tenant)
		model.add(c.model)
		version.add(c.version)
		binsID.add(c.binsID)
		minute.u32(uint32(r.minute))
		field.u16(r.field)
		bin.u16(r.bin)
		weight.f64(r.weight)
	}
	return s.sendBlock(ctx, token, "INSERT INTO bins_1m (tenant, model, version, bins_id, minute, field, bin, weight)",
		[]builder{&tenant, &model, &version, &binsID, &minute, &field, &bin, &weight}, len(list))
}

// watched reports whether a prediction's rows count in drift.
func watched(p *collector.Prediction) bool {
	return p.Route != collector.RouteExplain && p.Status < 400
}
