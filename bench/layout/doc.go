// Command layout measures how features are best laid out in ClickHouse: arrays
// by position with a schema row (what the product does), one column a feature,
// and a map by name.
//
// For each layout it reports rows inserted a second of wall clock, bytes a row
// on disk after merges, and the time of a drift query (ten bins of every one of
// 50 features) over all rows. Then it holds the bytes of the product's own column
// (predictions.f32, made by its migrations) and of other forms against ZSTD(1) over each
// column alone: for the flights, general data (a constant, a counter, an hour, random
// numbers, a slow step, a coin) and random numbers. It empties the table of predictions: give it
// a database of its own. Run it with
//
//	go run ./bench/layout -dsn clickhouse://user:password@host:9000/db
package main
