// Command layout measures how features are best laid out in ClickHouse: arrays
// by position with a schema row (what the product does), one column a feature,
// and a map by name.
//
// For each layout it reports rows inserted a second of wall clock, bytes a row
// on disk after merges, and the time of a drift query (ten bins of every one of
// 50 features) over all rows.
//
// Then it holds the bytes of the product's own columns (predictions.f32, f64 and str, made
// by its migrations) and of other forms (codecs, blocks, sort keys, an order within the row,
// a column a place, slabs of one feature of many rows) against ZSTD(1) over each column
// alone, and has the very bits read back. The data are the flights as the demo's models record
// them, all their numbers and texts, and made ones (sets in data.go).
//
// Last it measures what ClickHouse's process uses for an insert of 1, 10 and 1,000 rows and for
// reads, the table being the product's with its features in a few of those forms.
//
// With -parts it measures an insert alone, with parts of the table left out or cheaper.
//
// It empties the table of predictions: give it a database of its own. The parts are left
// out by -ratio-rows 0 and -cost=false. Run it with
//
//	go run ./bench/layout -dsn clickhouse://user:password@host:9000/db
package main
