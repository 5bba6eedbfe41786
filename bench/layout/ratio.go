package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/pellucid/pellucid/collector/clickhouse"
)

// form is one way to store the values of a row, v of the table staged: the columns they
// are in and what goes into them, and how the row is got back, bit by bit.
type form struct {
	name, columns, values, back string
	order, settings             string
	// insert is the whole statement, where it is no insert of a row a row.
	insert string
	table  string
}

// slots are columns of the type under a prefix, the values of the first n places.
func slots(typ, codec string, n int) (columns, values, back string) {
	var defs, gives, reads []string
	for i := range n {
		defs = append(defs, fmt.Sprintf("f%02d %s CODEC(%s)", i, typ, codec))
		gives = append(gives, fmt.Sprintf("v[%d]", i+1))
		reads = append(reads, fmt.Sprintf("f%02d", i))
	}
	return strings.Join(defs, ", "), strings.Join(gives, ", "), "[" + strings.Join(reads, ", ") + "]"
}

// forms returns the forms for a set; the first is what the others are held against.
// likeness is an order of places that has columns of few different values first.
func forms(d set, likeness string) []form {
	array := func(name, codec, settings string) form {
		return form{name: name, columns: "v Array(" + d.typ + ") CODEC(" + codec + ")", values: "v", back: "v", settings: settings}
	}
	column := map[string]string{"Float32": "f32", "Float64": "f64", "String": "str"}[d.typ]
	defs, gives, back := slots(d.typ, "ZSTD(1)", d.columns)
	out := []form{{name: "columns, ZSTD(1)", columns: defs, values: gives, back: back, settings: ", ratio_of_defaults_for_sparse_serialization = 1"}}
	out = append(out, form{
		name: "predictions." + column, table: "predictions", columns: column, back: column,
		insert: "INSERT INTO predictions (id, received_at, tenant, model, " + column + ") SELECT leftPad(hex(n), 32, '0'), toDateTime('2026-01-01'), 'default', 'm', v FROM staged ORDER BY n",
	})
	for _, codec := range []string{"ZSTD(1)", "ZSTD(6)", "ZSTD(9)", "ZSTD(3, 24)"} {
		out = append(out, array("array, "+codec, codec, ""))
	}
	out = append(out,
		array("array, 4 MiB blocks", "ZSTD(3)", ", min_compress_block_size = 4194304, max_compress_block_size = 4194304"),
		form{name: "array, values first", columns: "v Array(" + d.typ + ") CODEC(ZSTD(3))", values: "v", back: "v", order: "v, n", settings: ", allow_suspicious_indices = 1"},
	)
	if d.typ != "String" {
		out = append(out,
			array("array, Gorilla", "Gorilla, ZSTD(3)", ""), array("array, FPC", "FPC(12), ZSTD(3)", ""), array("array, Delta", "Delta, ZSTD(3)", ""),
			form{
				name: "array, like by like", columns: "v Array(" + d.typ + ") CODEC(ZSTD(3))", values: "arrayMap(i -> v[i], " + likeness + ")",
				back: "arrayMap(x -> x.2, arraySort(x -> x.1, arrayZip(" + likeness + ", v)))",
			},
		)
	} else {
		out = append(out, form{name: "array, dictionary", columns: "v Array(LowCardinality(String)) CODEC(ZSTD(1))", values: "v", back: "v"})
	}
	// Where a row has fewer, places beyond its end hold the type's zero.
	n := 64
	defs, gives, back = slots(d.typ, "ZSTD(3)", n)
	rest := ", rest Array(" + d.typ + ") CODEC(ZSTD(3))"
	back = fmt.Sprintf("arrayConcat(arraySlice(%s, 1, %d), rest)", back, d.columns)
	out = append(out,
		form{name: "64 slots, sparse", columns: defs + rest, values: gives + fmt.Sprintf(", arraySlice(v, %d)", n+1), back: back},
		form{name: "64 slots, plain", columns: defs + rest, values: gives + fmt.Sprintf(", arraySlice(v, %d)", n+1), back: back, settings: ", ratio_of_defaults_for_sparse_serialization = 1"},
		form{
			name:    "tuple of 64",
			columns: "t Tuple(" + strings.TrimSuffix(strings.Repeat(d.typ+", ", n), ", ") + ") CODEC(ZSTD(3))" + rest,
			values:  "(" + gives + ")" + fmt.Sprintf(", arraySlice(v, %d)", n+1),
			back:    fmt.Sprintf("arrayConcat(arraySlice(array(untuple(t)), 1, %d), rest)", d.columns),
		},
	)
	for _, size := range []int{10, 1000, 50_000} {
		out = append(out, form{
			name: fmt.Sprintf("slabs of %d rows", size), columns: "v Array(" + d.typ + ") CODEC(ZSTD(1))", order: "n",
			// A slab lies where its batch does, feature after feature.
			insert: fmt.Sprintf("INSERT INTO ratio SELECT intDiv(n, %d) * 1000 + f AS k, groupArray(x) FROM (SELECT n, x, f FROM staged ARRAY JOIN v AS x, arrayEnumerate(v) AS f ORDER BY n) GROUP BY k", size),
		})
	}
	return out
}

// ratios reports the bytes of each form beside those of ZSTD(1) over each column alone.
func ratios(ctx context.Context, conn driver.Conn, all []set) error {
	fmt.Printf("\n%-12s %-22s %12s %8s\n", "data", "form", "bytes/value", "ratio")
	for _, d := range all {
		likeness, bits, err := d.stage(ctx, conn)
		if err != nil {
			return fmt.Errorf("stage %s: %w", d.name, err)
		}
		var base float64
		for i, f := range forms(d, likeness) {
			bytes, exact, err := f.measure(ctx, conn, d.typ, bits)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", d.name, f.name, err)
			}
			if i == 0 {
				base = bytes
			}
			note := ""
			if !exact {
				note = "  other bits come back"
			}
			fmt.Printf("%-12s %-22s %12.3f %8.2f%s\n", d.name, f.name, bytes/float64(d.columns*d.rows), bytes/base, note)
		}
	}
	return nil
}

// bitsOf is an expression for a sum over the bits of rows.
func bitsOf(typ, array string) string {
	if typ == "String" {
		return "sum(cityHash64(" + array + "))"
	}
	return "sum(cityHash64(arrayMap(x -> reinterpretAsUInt64(x), " + array + ")))"
}

// stage puts the rows into a table that the forms are made of. It returns an order of
// the places by how many values each has, and the sum over the bits.
func (d set) stage(ctx context.Context, conn driver.Conn) (likeness string, bits uint64, err error) {
	if err := execAll(ctx, conn, "DROP TABLE IF EXISTS staged", "CREATE TABLE staged (n UInt64, v Array("+d.typ+")) ENGINE = MergeTree ORDER BY n"); err != nil {
		return "", 0, err
	}
	const size = 50_000
	for from := 0; from < d.rows; from += size {
		b, err := conn.PrepareBatch(ctx, "INSERT INTO staged")
		if err != nil {
			return "", 0, err
		}
		for r := from; r < min(from+size, d.rows); r++ {
			if err := b.Append(uint64(r), d.array(r)); err != nil {
				return "", 0, err
			}
		}
		if err := b.Send(); err != nil {
			return "", 0, err
		}
	}
	err = conn.QueryRow(ctx, "SELECT toString(arraySort(i -> u[i], arrayEnumerate(uniqForEach(v) AS u))), "+bitsOf(d.typ, "v")+" FROM staged").Scan(&likeness, &bits)
	return likeness, bits, err
}

func execAll(ctx context.Context, conn driver.Conn, statements ...string) error {
	for _, sql := range statements {
		if err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// measure stores what is staged and returns the bytes of its columns after a merge, and
// whether the very bits come back.
func (f form) measure(ctx context.Context, conn driver.Conn, typ string, bits uint64) (bytes float64, exact bool, err error) {
	ctx = ch.Context(ctx, ch.WithSettings(ch.Settings{"max_threads": 1, "max_insert_threads": 1}))
	order := "n"
	if f.order != "" {
		order = f.order
	}
	name, in, begin := "ratio", f.insert, []string{
		"DROP TABLE IF EXISTS ratio",
		"CREATE TABLE ratio (n UInt64 CODEC(Delta, ZSTD(1)), " + f.columns + ") ENGINE = MergeTree ORDER BY (" + order + ") SETTINGS min_bytes_for_wide_part = 0" + f.settings,
	}
	if f.table != "" {
		name, begin = f.table, []string{"TRUNCATE TABLE " + f.table}
	}
	if in == "" {
		in = "INSERT INTO ratio SELECT n, " + f.values + " FROM staged ORDER BY n"
	}
	if err := execAll(ctx, conn, append(begin, in, "OPTIMIZE TABLE "+name+" FINAL")...); err != nil {
		return 0, false, err
	}
	which := "name != 'n'"
	if f.table != "" {
		which = "name = '" + f.columns + "'"
	}
	var compressed, back uint64
	err = conn.QueryRow(ctx, "SELECT sum(data_compressed_bytes) FROM system.columns WHERE database = currentDatabase() AND table = '"+name+"' AND "+which).Scan(&compressed)
	if err != nil || f.back == "" {
		return float64(compressed), true, err
	}
	err = conn.QueryRow(ctx, "SELECT "+bitsOf(typ, f.back)+" FROM "+name).Scan(&back)
	return float64(compressed), back == bits, err
}

// migrate makes the product's tables.
func migrate(ctx context.Context, dsn string) error {
	s, err := clickhouse.Open(ctx, clickhouse.Config{DSN: dsn})
	if err != nil {
		return err
	}
	return errors.Join(s.Migrate(ctx), s.Close())
}
