package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// shape is the product's table with the features laid out in one way.
type shape struct {
	name  string
	alter []string
	// columns take the features in an insert; all reads a row's, one the fifth.
	columns, all, one string
	add               func(b driver.Batch, at int, rows [][]float32) error
}

func shapes() []shape {
	array := func(b driver.Batch, at int, rows [][]float32) error { return b.Column(at).Append(rows) }
	slotted := func(n int) shape {
		var alter, names []string
		for i := range n {
			alter = append(alter, fmt.Sprintf("ADD COLUMN slot%02d Float32 CODEC(ZSTD(3)) AFTER schema_id", i))
			names = append(names, fmt.Sprintf("slot%02d", i))
		}
		all := strings.Join(names, ", ") + ", f32"
		return shape{
			name: strconv.Itoa(n) + " slots", alter: []string{"ALTER TABLE shaped " + strings.Join(alter, ", ")}, columns: all, all: all, one: "slot04",
			add: func(b driver.Batch, at int, rows [][]float32) error {
				rest := make([][]float32, len(rows))
				column := make([]float32, len(rows))
				for c := range n {
					for r, row := range rows {
						column[r] = 0
						if c < len(row) {
							column[r] = row[c]
						}
					}
					if err := b.Column(at + c).Append(column); err != nil {
						return err
					}
				}
				for r, row := range rows {
					rest[r] = row[min(n, len(row)):]
				}
				return b.Column(at + n).Append(rest)
			},
		}
	}
	return []shape{
		{name: "as it is", columns: "f32", all: "f32", one: "f32[5]", add: array},
		{name: "ZSTD(6)", alter: []string{"ALTER TABLE shaped MODIFY COLUMN f32 CODEC(ZSTD(6))"}, columns: "f32", all: "f32", one: "f32[5]", add: array},
		{name: "ZSTD(9)", alter: []string{"ALTER TABLE shaped MODIFY COLUMN f32 CODEC(ZSTD(9))"}, columns: "f32", all: "f32", one: "f32[5]", add: array},
		slotted(64), slotted(128),
	}
}

// lesser are the table with a part of it left out or cheaper, which tells what of an insert it is.
func lesser() []shape {
	as := shapes()[0]
	with := func(name, alter string) shape {
		s := as
		s.name, s.alter = name, []string{"ALTER TABLE shaped " + alter}
		return s
	}
	var quick []string
	for _, c := range append(strings.Split(plain, ", "), "f32") {
		quick = append(quick, "MODIFY COLUMN "+c+" CODEC(LZ4)")
	}
	none := as
	none.name = "no features"
	none.add = func(b driver.Batch, at int, rows [][]float32) error {
		return b.Column(at).Append(make([][]float32, len(rows)))
	}
	return []shape{
		as, none, with("no indexes", "DROP INDEX ix_time, DROP INDEX ix_trace, DROP INDEX ix_external"),
		with("f32 LZ4", "MODIFY COLUMN f32 CODEC(LZ4)"), with("f32 plain", "MODIFY COLUMN f32 CODEC(NONE)"), with("all LZ4", strings.Join(quick, ", ")),
	}
}

// mixedRows are the rows of mixed.
func mixedRows(columns, n int) [][]float32 {
	data := mixed(columns, n)
	rows := make([][]float32, n)
	for r := range rows {
		rows[r] = make([]float32, columns)
		for c := range rows[r] {
			rows[r][c] = data[c][r]
		}
	}
	return rows
}

// insertParts reports what an insert of 30 features costs ClickHouse with parts of the table left out.
func insertParts(ctx context.Context, conn driver.Conn, pid int) error {
	fmt.Printf("CPU of ClickHouse, us a row: inserts with the merges that come by themselves, then OPTIMIZE FINAL\n%-10s %-9s %9s %10s %8s %8s\n", "data", "form", "rows each", "insert us", "ratio", "final us")
	rows := mixedRows(30, 200_000)
	for _, batch := range []struct{ size, n int }{{1000, 200}, {10_000, 20}, {50_000, 4}} {
		if err := inserts(ctx, conn, pid, lesser(), rows, batch.size, batch.n); err != nil {
			return err
		}
	}
	return nil
}

// plain are the other columns of an insert.
const plain = "id, row, rows, received_at, time, tenant, model, version, digest, route, trace_id, span_id, status, capture, weight, feature_weight, " +
	"decode_ns, model_ns, encode_ns, capture_ns, total_ns, bytes, schema_id, out_f32, score, bins, bins_id, insert_batch"

// day is when the first of the rows came; they come ten a second.
var day = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

func (s shape) insert(ctx context.Context, conn driver.Conn, from int, rows [][]float32) error {
	ctx = ch.Context(ctx, ch.WithSettings(ch.Settings{"insert_deduplication_token": strconv.Itoa(from), "async_insert": 0}))
	b, err := conn.PrepareBatch(ctx, "INSERT INTO shaped ("+plain+", "+s.columns+")")
	if err != nil {
		return err
	}
	column := func(value func(r int) any) []any {
		out := make([]any, len(rows))
		for r := range out {
			out[r] = value(from + r)
		}
		return out
	}
	same := func(v any) []any { return column(func(int) any { return v }) }
	nanos := func(scale int) []any { return column(func(r int) any { return int64(scale + r*7919%scale) }) }
	at := column(func(r int) any { return day.Add(time.Duration(r) * 100 * time.Millisecond) })
	hash := func(r int) uint64 { return uint64(r+1) * 0x9e3779b97f4a7c15 }
	bins := column(func(r int) any {
		out := make([]uint16, len(rows[r-from])+1)
		for i := range out {
			out[i] = uint16(hash(r+i) >> 60)
		}
		return out
	})
	for i, values := range [][]any{
		column(func(r int) any { return idOf(r) }), same(uint32(0)), same(uint32(1)), at, at, same("default"), same("m"), same("1"), same("sha256:" + strings.Repeat("ab", 32)), same("infer"),
		column(func(r int) any { return fmt.Sprintf("%016x%016x", hash(r), hash(r+1)) }), column(func(r int) any { return fmt.Sprintf("%016x", hash(r+2)) }),
		same(uint16(200)), same("full"), same(1.0), same(1.0), nanos(4000), nanos(90_000), nanos(5000), nanos(2000), nanos(100_000), same(uint32(220)), same("5a3f"),
		column(func(r int) any { return []float32{float32(hash(r)>>40) / (1 << 24)} }), column(func(r int) any { return float64(hash(r)>>40) / (1 << 24) }), bins, same("b1"), same("batch-" + strconv.Itoa(from)),
	} {
		for _, v := range values {
			if err := b.Column(i).AppendRow(v); err != nil {
				return fmt.Errorf("column %d: %w", i, err)
			}
		}
	}
	if err := s.add(b, strings.Count(plain, ",")+1, rows); err != nil {
		return err
	}
	return b.Send()
}

// idOf returns an id in the order of arrival whose tail is random, as UUIDv7 are.
func idOf(r int) string {
	return fmt.Sprintf("019b%08x-7%018x", r, uint64(r+1)*0x9e3779b97f4a7c15)
}

// create makes an empty table of the shape.
func (s shape) create(ctx context.Context, conn driver.Conn) error {
	return execAll(ctx, conn, append([]string{"DROP TABLE IF EXISTS shaped SYNC", "CREATE TABLE shaped AS predictions"}, s.alter...)...)
}

// costs reports what an insert costs ClickHouse, merges included, and what reads do.
func costs(ctx context.Context, conn driver.Conn, pid int) error {
	fmt.Printf("\nCPU of ClickHouse, us a row: inserts with the merges that come by themselves, then OPTIMIZE FINAL\n%-10s %-9s %9s %10s %8s %8s\n", "data", "form", "rows each", "insert us", "ratio", "final us")
	for _, columns := range []int{10, 30, 100} {
		rows := mixedRows(columns, 100_000)
		for _, batch := range []struct{ size, n int }{{1, 200}, {10, 200}, {1000, 30}} {
			if err := inserts(ctx, conn, pid, shapes(), rows, batch.size, batch.n); err != nil {
				return err
			}
		}
		if err := reads(ctx, conn, pid, rows); err != nil {
			return err
		}
	}
	return nil
}

// inserts measures n inserts of size rows in each shape.
func inserts(ctx context.Context, conn driver.Conn, pid int, forms []shape, rows [][]float32, size, n int) error {
	var base float64
	for i, s := range forms {
		in, final, err := s.fill(ctx, conn, pid, rows[:n*size], size)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if i == 0 {
			base = in
		}
		fmt.Printf("%-10s %-11s %9d %10.1f %8.2f %8.1f\n", "mixed "+strconv.Itoa(len(rows[0])), s.name, size, in, in/base, final)
	}
	return nil
}

// fill stores rows, size an insert, and returns ClickHouse's CPU a row in microseconds: of
// the inserts with the merges they bring about, and of the last merge.
func (s shape) fill(ctx context.Context, conn driver.Conn, pid int, rows [][]float32, size int) (in, final float64, err error) {
	if err := s.create(ctx, conn); err != nil {
		return 0, 0, err
	}
	began, err := cpu(pid)
	if err != nil {
		return 0, 0, err
	}
	for from := 0; from < len(rows); from += size {
		if err := s.insert(ctx, conn, from, rows[from:from+size]); err != nil {
			return 0, 0, err
		}
	}
	if err := quiet(pid); err != nil {
		return 0, 0, err
	}
	inserted, err := cpu(pid)
	if err != nil {
		return 0, 0, err
	}
	if err := conn.Exec(ctx, "OPTIMIZE TABLE shaped FINAL"); err != nil {
		return 0, 0, err
	}
	merged, err := cpu(pid)
	per := float64(len(rows)) / 1e6
	return (inserted - began).Seconds() / per, (merged - inserted).Seconds() / per, err
}

// reads measures questions on 100,000 merged rows: one row by its id, one feature of
// 72,000, and all that an export reads of those.
func reads(ctx context.Context, conn driver.Conn, pid int, rows [][]float32) error {
	fmt.Printf("%-10s %-9s %-10s %10s %10s %12s\n", "data", "form", "read", "ms", "CPU ms", "bytes read")
	for _, s := range shapes() {
		if err := s.create(ctx, conn); err != nil {
			return err
		}
		for from := 0; from < len(rows); from += 20_000 {
			if err := s.insert(ctx, conn, from, rows[from:from+20_000]); err != nil {
				return err
			}
		}
		if err := conn.Exec(ctx, "OPTIMIZE TABLE shaped FINAL"); err != nil {
			return err
		}
		of := " FROM shaped WHERE tenant = 'default' AND model = 'm' AND "
		span := of + "time >= '2026-01-05 00:00:00' AND time < '2026-01-05 02:00:00'"
		for _, q := range []struct {
			name, sql string
			times     int
		}{
			{"by id", "SELECT " + plain + ", " + s.all + of + "id = '" + idOf(len(rows)/2) + "'", 60},
			{"feature", "SELECT avg(" + s.one + ")" + span, 60},
			{"export", "SELECT " + plain + ", " + s.all + span + " FORMAT Null", 15},
		} {
			wall, used, bytes, err := ask(ctx, conn, pid, q.sql, q.times)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, q.name, err)
			}
			fmt.Printf("%-10s %-9s %-10s %10.2f %10.2f %12d\n", "mixed "+strconv.Itoa(len(rows[0])), s.name, q.name, wall, used, bytes)
		}
	}
	return nil
}

// ask runs a question some times: the median of its time, the mean of ClickHouse's CPU,
// and the bytes read.
func ask(ctx context.Context, conn driver.Conn, pid int, sql string, times int) (wall, used float64, bytes uint64, err error) {
	began, err := cpu(pid)
	if err != nil {
		return 0, 0, 0, err
	}
	var took []float64
	for range times {
		bytes = 0
		seen := ch.Context(ctx, ch.WithProgress(func(p *ch.Progress) { bytes += p.Bytes }))
		start := time.Now()
		rows, err := conn.Query(seen, sql)
		if err != nil {
			return 0, 0, 0, err
		}
		for rows.Next() {
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return 0, 0, 0, err
		}
		took = append(took, time.Since(start).Seconds()*1e3)
	}
	ended, err := cpu(pid)
	slices.Sort(took)
	return took[len(took)/2], (ended - began).Seconds() * 1e3 / float64(times), bytes, err
}

// quiet waits until ClickHouse does next to nothing: merges that inserts have left to it
// are over. The rights of the product do not reach to system.merges.
func quiet(pid int) error {
	last, err := cpu(pid)
	for calm := 0; calm < 3 && err == nil; {
		time.Sleep(200 * time.Millisecond)
		var now time.Duration
		now, err = cpu(pid)
		if calm++; now-last > 20*time.Millisecond {
			calm = 0
		}
		last = now
	}
	return err
}

// cpu returns what a process has used.
func cpu(pid int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("read the CPU of ClickHouse: %w", err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks time.Duration
	for _, at := range []int{11, 12} {
		n, err := strconv.ParseInt(fields[at], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the CPU of ClickHouse: %w", err)
		}
		ticks += time.Duration(n)
	}
	return ticks * (time.Second / 100), nil
}
