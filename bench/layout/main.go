package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
)

// features is how many a row has; ten of them are small integers, as in the
// flights' data.
const features = 50

func main() {
	embedded.RunChildIfAsked()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "layout:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	rows := flag.Int("rows", 1_000_000, "rows in each layout")
	ratioRows := flag.Int("ratio-rows", 500_000, "rows of the made data whose bytes are held against ZSTD(1) over each column alone; 0 leaves that out")
	flights := flag.String("flights", "cmd/pellucid/demo/data/flights.parquet", "a table whose numbers are held against it too; empty for none")
	only := flag.String("only", "", "the only data whose bytes are measured; empty for all")
	cost := flag.Bool("cost", true, "measure ClickHouse's CPU by form (Linux, its own ClickHouse)")
	parts := flag.Bool("parts", false, "measure only what of the table an insert's CPU goes to")
	dsn := flag.String("dsn", "", "address of a ClickHouse; empty starts the embedded one in a temporary folder")
	flag.Parse()
	pid := 0
	if *dsn == "" {
		dir, err := os.MkdirTemp("", "layout-")
		if err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
		defer os.RemoveAll(dir)
		e, err := embedded.Start(context.Background(), embedded.Config{Dir: dir, MemoryBytes: 2 << 30})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, e.Stop(context.Background())) }()
		*dsn, pid = e.Env().DSN(), e.PID()
	}
	opts, err := ch.ParseDSN(*dsn)
	if err != nil {
		return errors.New("the address is not of the form clickhouse://user:password@host:9000/database")
	}
	conn, err := ch.Open(opts)
	if err != nil {
		return fmt.Errorf("open clickhouse: %w", err)
	}
	defer conn.Close() //nolint:errcheck // the process ends
	if *parts {
		if err := migrate(context.Background(), *dsn); err != nil {
			return err
		}
		return insertParts(context.Background(), conn, pid)
	}
	fmt.Printf("%d rows of %d float32 features\n%-8s %12s %12s %14s\n", *rows, features, "layout", "rows/s", "bytes/row", "drift query ms")
	for _, l := range layouts() {
		if err := measure(context.Background(), conn, l, *rows); err != nil {
			return fmt.Errorf("measure %s: %w", l.name, err)
		}
	}
	if err := migrate(context.Background(), *dsn); err != nil {
		return err
	}
	if *ratioRows > 0 {
		all, err := sets(*flights, *ratioRows)
		if err != nil {
			return err
		}
		if *only != "" {
			all = slices.DeleteFunc(all, func(d set) bool { return d.name != *only })
		}
		if err := ratios(context.Background(), conn, all); err != nil {
			return err
		}
	}
	if *cost && pid != 0 {
		return costs(context.Background(), conn, pid)
	}
	return nil
}

// layout is one way to lay features out.
type layout struct {
	name, columns, drift string
	insert               string
	append               func(b driver.Batch, block [][]float32) error
}

const benchTable = "layout_bench"

func layouts() []layout {
	var names, wide, reads []string
	for i := range features {
		names = append(names, fmt.Sprintf("f%d", i))
		wide = append(wide, fmt.Sprintf("f%d Float32 CODEC(ZSTD(1))", i))
		reads = append(reads, fmt.Sprintf("f%d", i))
	}
	// least(9, ...) stands for the search of an edge: the same work in each.
	binOf := func(x string) string { return "toUInt8(greatest(0, least(9, floor(" + x + " * 2 + 5))))" }
	var wideDrift []string
	for _, r := range reads {
		wideDrift = append(wideDrift, "sumMap([("+binOf(r)+")], [toUInt64(1)])")
	}
	return []layout{
		{
			name: "arrays", columns: "v Array(Float32) CODEC(ZSTD(1))", insert: "(id, v)",
			drift:  "SELECT sum(n) FROM (SELECT i, " + binOf("x") + " AS bin, count() AS n FROM " + benchTable + " ARRAY JOIN v AS x, arrayEnumerate(v) AS i GROUP BY i, bin)",
			append: func(b driver.Batch, block [][]float32) error { return b.Column(1).Append(block) },
		},
		{
			name: "wide", columns: strings.Join(wide, ", "), insert: "(id, " + strings.Join(names, ", ") + ")",
			drift: "SELECT " + strings.Join(wideDrift, ", ") + " FROM " + benchTable,
			append: func(b driver.Batch, block [][]float32) error {
				column := make([]float32, len(block))
				for f := range features {
					for r := range block {
						column[r] = block[r][f]
					}
					if err := b.Column(1 + f).Append(column); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "map", columns: "v Map(LowCardinality(String), Float32) CODEC(ZSTD(1))", insert: "(id, v)",
			drift: "SELECT sum(n) FROM (SELECT k, " + binOf("x") + " AS bin, count() AS n FROM " + benchTable + " ARRAY JOIN mapKeys(v) AS k, mapValues(v) AS x GROUP BY k, bin)",
			append: func(b driver.Batch, block [][]float32) error {
				for _, row := range block {
					m := make(map[string]float32, features)
					for f, x := range row {
						m[names[f]] = x
					}
					if err := b.Column(1).AppendRow(m); err != nil {
						return err
					}
				}
				return nil
			},
		},
	}
}

func measure(ctx context.Context, conn driver.Conn, l layout, rows int) error {
	for _, sql := range []string{"DROP TABLE IF EXISTS " + benchTable, "CREATE TABLE " + benchTable + " (id UInt64 CODEC(Delta, ZSTD(1)), " + l.columns + ") ENGINE = MergeTree ORDER BY id"} {
		if err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var took time.Duration
	const size = 50_000
	for done := 0; done < rows; done += size {
		block, ids := makeBlock(rng, done, min(size, rows-done))
		began := time.Now()
		b, err := conn.PrepareBatch(ctx, "INSERT INTO "+benchTable+" "+l.insert)
		if err != nil {
			return err
		}
		if err := errors.Join(b.Column(0).Append(ids), l.append(b, block)); err != nil {
			return err
		}
		if err := b.Send(); err != nil {
			return err
		}
		took += time.Since(began)
	}
	if err := conn.Exec(ctx, "OPTIMIZE TABLE "+benchTable+" FINAL"); err != nil {
		return err
	}
	var bytes uint64
	if err := conn.QueryRow(ctx, "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase() AND table = '"+benchTable+"'").Scan(&bytes); err != nil {
		return err
	}
	best := time.Hour
	for range 3 {
		began := time.Now()
		if err := conn.Exec(ctx, l.drift+" FORMAT Null"); err != nil {
			return err
		}
		best = min(best, time.Since(began))
	}
	fmt.Printf("%-8s %12.0f %12.1f %14.0f\n", l.name, float64(rows)/took.Seconds(), float64(bytes)/float64(rows), float64(best.Microseconds())/1000)
	return conn.Exec(ctx, "DROP TABLE "+benchTable)
}

func makeBlock(rng *rand.Rand, from, n int) ([][]float32, []uint64) {
	block, ids := make([][]float32, n), make([]uint64, n)
	for r := range block {
		ids[r] = uint64(from + r)
		block[r] = make([]float32, features)
		for f := range block[r] {
			if f%5 == 0 {
				block[r][f] = float32(rng.IntN(24))
				continue
			}
			block[r][f] = float32(rng.NormFloat64())
		}
	}
	return block, ids
}
