// Command layout measures how features are best laid out in ClickHouse: arrays
// by position with a schema row (what the product does), one column a feature,
// and a map by name. It owns its own tables and nothing of the product's.
//
// For each layout it reports rows inserted a second of wall clock, bytes a row
// on disk after merges, and the time of a drift query (ten bins of every one of
// 50 features) over all rows. Run it with
//
//	go run ./bench/layout -dsn clickhouse://user:password@host:9000/db
package main
