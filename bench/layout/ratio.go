package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/engine/table"
)

// sets are the data whose bytes are compared, by feature.
func sets(flights string, rows int) (map[string][][]float32, error) {
	rng := rand.New(rand.NewPCG(2, 2))
	made := func(of ...func(i int) float32) [][]float32 {
		out := make([][]float32, len(of))
		for f := range of {
			out[f] = make([]float32, rows)
			for i := range out[f] {
				out[f][i] = of[f](i)
			}
		}
		return out
	}
	normal := func(int) float32 { return float32(rng.NormFloat64()) }
	all := map[string][][]float32{
		"general": made(
			func(int) float32 { return 1 }, func(i int) float32 { return float32(i) }, func(i int) float32 { return float32(i / 3600 % 24) },
			normal, func(i int) float32 { return float32(i / 1000) }, func(int) float32 { return float32(rng.IntN(2)) },
		),
		"random": made(normal, normal, normal, normal, normal, normal, normal, normal),
	}
	if flights == "" {
		return all, nil
	}
	t, err := table.Open(flights)
	if err != nil {
		return nil, err
	}
	for c := range t.Columns {
		column := &t.Columns[c]
		var values []float32
		switch column.Type {
		case table.Float64:
			values = narrowed(column.F64)
		case table.Float32:
			values = column.F32
		case table.Int64:
			values = narrowed(column.I64)
		default:
			continue
		}
		all["flights"] = append(all["flights"], values)
	}
	return all, nil
}

func narrowed[T float64 | int64](values []T) []float32 {
	out := make([]float32, len(values))
	for i, v := range values {
		out[i] = float32(v)
	}
	return out
}

// form is one way to store the features: its table, where the product does not make it,
// the column that is measured, and how a block of rows goes in.
type form struct {
	name, table, create, column, insert string
	add                                 func(b driver.Batch, block [][]float32, from int) error
}

func byRow(b driver.Batch, block [][]float32, from int, fields func(id string, v []float32) []any) error {
	for r := range block[0] {
		v := make([]float32, len(block))
		for f := range block {
			v[f] = block[f][r]
		}
		if err := b.Append(fields(fmt.Sprintf("%032x", from+r), v)...); err != nil {
			return err
		}
	}
	return nil
}

func forms(features int) []form {
	var columns, names []string
	for f := range features {
		columns, names = append(columns, fmt.Sprintf("f%d Float32 CODEC(ZSTD(1))", f)), append(names, fmt.Sprintf("f%d", f))
	}
	row := func(b driver.Batch, block [][]float32, from int) error {
		return byRow(b, block, from, func(id string, v []float32) []any { return []any{id, v} })
	}
	array := func(name, codec string) form {
		return form{name: name, table: "ratio", create: "id String, v Array(Float32) CODEC(" + codec + ")", column: "= 'v'", insert: "(id, v)", add: row}
	}
	now := time.Now().UTC()
	return []form{
		{
			name: "columns, ZSTD(1)", table: "ratio", create: "id String, " + strings.Join(columns, ", "), column: "!= 'id'", insert: "(id, " + strings.Join(names, ", ") + ")",
			add: func(b driver.Batch, block [][]float32, from int) error {
				return byRow(b, block, from, func(id string, v []float32) []any {
					out := []any{id}
					for _, x := range v {
						out = append(out, x)
					}
					return out
				})
			},
		},
		{
			name: "predictions.f32", table: "predictions", column: "= 'f32'", insert: "(id, received_at, tenant, model, f32)",
			add: func(b driver.Batch, block [][]float32, from int) error {
				return byRow(b, block, from, func(id string, v []float32) []any { return []any{id, now, "default", "m", v} })
			},
		},
		array("array, ZSTD(1)", "ZSTD(1)"), array("array, ZSTD(9)", "ZSTD(9)"), array("array, Gorilla", "Gorilla(4), ZSTD(1)"),
		{
			name: "slabs, ZSTD(1)", table: "ratio", create: "id String, v Array(Float32) CODEC(ZSTD(1))", column: "= 'v'", insert: "(id, v)",
			add: func(b driver.Batch, block [][]float32, from int) error {
				for f := range block {
					if err := b.Append(fmt.Sprintf("%016x%04x", f, from), block[f]); err != nil {
						return err
					}
				}
				return nil
			},
		},
	}
}

// ratios reports the bytes of each form beside those of ZSTD(1) over each column alone.
func ratios(ctx context.Context, conn driver.Conn, dsn, flights string, rows int) error {
	if _, err := os.Stat(flights); flights != "" && err != nil {
		return err
	}
	s, err := clickhouse.Open(ctx, clickhouse.Config{DSN: dsn})
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // the process ends
	if err := s.Migrate(ctx); err != nil {
		return err
	}
	all, err := sets(flights, rows)
	if err != nil {
		return err
	}
	fmt.Printf("\n%-10s %-18s %14s %8s %12s %12s\n", "data", "form", "bytes/feature", "ratio", "insert us/row", "read ns/value")
	for name, data := range all {
		base := math.NaN()
		for _, f := range forms(len(data)) {
			bytes, in, out, err := f.measure(ctx, conn, data)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", name, f.name, err)
			}
			if math.IsNaN(base) {
				base = bytes
			}
			values := float64(len(data) * len(data[0]))
			fmt.Printf("%-10s %-18s %14.3f %8.2f %12.2f %12.1f\n", name, f.name, bytes/values, bytes/base, in.Seconds()*1e6/float64(len(data[0])), out.Seconds()*1e9/values)
		}
	}
	return nil
}

// measure stores data in blocks of 50,000 rows, merges them and reads them once.
func (f *form) measure(ctx context.Context, conn driver.Conn, data [][]float32) (bytes float64, in, out time.Duration, err error) {
	begin := []string{"TRUNCATE TABLE predictions"}
	if f.create != "" {
		begin = []string{"DROP TABLE IF EXISTS " + f.table, "CREATE TABLE " + f.table + " (" + f.create + ") ENGINE = MergeTree ORDER BY id"}
	}
	for _, sql := range begin {
		if err := conn.Exec(ctx, sql); err != nil {
			return 0, 0, 0, err
		}
	}
	const size = 50_000
	for from := 0; from < len(data[0]); from += size {
		block := make([][]float32, len(data))
		for c := range data {
			block[c] = data[c][from:min(from+size, len(data[c]))]
		}
		b, err := conn.PrepareBatch(ctx, "INSERT INTO "+f.table+" "+f.insert)
		if err != nil {
			return 0, 0, 0, err
		}
		if err := f.add(b, block, from); err != nil {
			return 0, 0, 0, err
		}
		began := time.Now()
		if err := b.Send(); err != nil {
			return 0, 0, 0, err
		}
		in += time.Since(began)
	}
	if err := conn.Exec(ctx, "OPTIMIZE TABLE "+f.table+" FINAL"); err != nil {
		return 0, 0, 0, err
	}
	var compressed uint64
	var reads string
	err = conn.QueryRow(ctx, "SELECT sum(data_compressed_bytes), arrayStringConcat(groupArray(name), ', ') FROM system.columns WHERE database = currentDatabase() AND table = '"+
		f.table+"' AND name "+f.column).Scan(&compressed, &reads)
	if err != nil {
		return 0, 0, 0, err
	}
	began := time.Now()
	err = conn.Exec(ctx, "SELECT ignore("+reads+") FROM "+f.table+" FORMAT Null")
	return float64(compressed), in, time.Since(began), err
}
