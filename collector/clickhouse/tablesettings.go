package clickhouse

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// harmlessNames are (by regular expressions) the settings that a table may have as its operator likes: they say how rows
// lie on the disk, what is cached, and when and how parts are merged, and none can take a
// row away or have one counted twice. What neither they nor the checks below name is
// refused, so that a setting of a later ClickHouse is looked at before it is allowed.
var harmlessNames = []string{
	// Granules, the forms of parts and columns, compression.
	`(min_)?index_granularity(_bytes)?`, `enable_mixed_granularity_parts`, `enable_index_granularity_compression`, `use_const_adaptive_granularity`,
	`min_(bytes|rows|level)_for_(wide_part|compact_part|full_part_storage)`, `(min|max)_compress_block_size`, `default_compression_codec`, `compress_(marks|primary_key)`,
	`compress_per_column_in_compact_parts`, `marks_compress(_block_size|ion_codec)`, `primary_key_compress(_block_size|ion_codec)`, `primary_key_lazy_load`,
	`ratio_of_defaults_for_sparse_serialization`, `(string|nullable|map|dynamic|object)_serialization_version`, `serialization_info_version`, `write_final_mark`,
	`auto_statistics_types`, `(materialize_)?(skip_indexes|statistics)_on_(merge|insert)`, `exclude_materialize_skip_indexes_on_merge`, `replace_long_file_name_to_hash`, `max_file_name_length`,
	// Disks, whose room they only ask for.
	`storage_policy`, `disk`, `min_free_disk_(bytes|ratio)_to_perform_insert`, `min_bytes_to_rebalance_partition_over_jbod`, `min_merge_bytes_to_use_direct_io`,
	// Merges: which, when, how.
	`max_bytes_to_merge_at_(max|min)_space_in_pool`, `(min|max)_parts_to_merge_at_once`, `merge_max_(block_size|block_size_bytes|bytes_to_prewarm_cache)`,
	`merge_total_max_bytes_to_prewarm_cache`, `(max_)?merge_selecting_sleep_(ms|slowdown_factor)`, `merge_selector_(base|window_size|blurry_base_scale_factor|algorithm)`,
	`enable_vertical_merge_algorithm`, `vertical_merge_algorithm_min_(bytes|rows|columns)_to_activate`, `min_age_to_force_merge_(seconds|on_partition_only)`,
	`enable_max_bytes_limit_for_min_age_to_force_merge`, `number_of_free_entries_in_pool_to_(lower_max_size_of_merge|execute_mutation|execute_optimize_entire_partition)`,
	`number_of_partitions_to_consider_for_merge`, `merge_workload`, `mutation_workload`, `background_task_preferred_step_execution_time_ms`,
	`merge_with_(ttl|recompression_ttl)_timeout`, `ttl_only_drop_parts`, `max_number_of_merges_with_ttl_in_pool`, `max_replicated_merges_(with_ttl_)?in_queue`,
	`prefer_fetch_merged_part_(size|time)_threshold`, `execute_merges_on_single_replica_time_threshold`, `always_fetch_merged_part`,
	// How much may wait: an insert that is refused for it is sent again.
	`(inactive_)?parts_to_(delay|throw)_insert`, `(min|max)_delay_to_(insert|insert_ms|mutate_ms)`, `max_avg_part_size_for_too_many_parts`, `max_parts_in_total`,
	`number_of_mutations_to_(delay|throw)`, `max_number_of_mutations_for_replica`, `max_replicated_mutations_in_queue`, `max_concurrent_queries`,
	`min_marks_to_honor_max_concurrent_queries`, `max_partitions_to_read`, `max_replicated_(fetches|sends)_network_bandwidth`, `replicated_max_parallel_(fetches|sends)(_for_table|_for_host)?`,
	// Caches and threads.
	`prewarm_(mark|primary_key)_cache`, `use_primary_key_cache`, `columns_to_prewarm_mark_cache`, `min_bytes_to_prewarm_caches`, `max_part_(loading|removal)_threads`,
	`concurrent_part_removal_threshold`, `(max_)?cleanup_delay_period`, `cleanup_(delay_period_random_add|thread_preferred_points_per_iteration|threads)`,
	// Of inserts that ours are not.
	`replicated_deduplication_window(_seconds)?_for_async_inserts`,
}

var harmless = regexp.MustCompile(`^(` + strings.Join(harmlessNames, "|") + `)$`)

// windowSettings are checked by checkEngine where a table of its kind goes by them.
var windowSettings = []string{"non_replicated_deduplication_window", "replicated_deduplication_window", "replicated_deduplication_window_seconds"}

// plainly are settings that a table must have so, whether it says that itself or its server
// does for all: an async insert is confirmed by other rules than ours (the table's setting
// counts before the statement's), a readonly table takes nothing, and the others make
// inserts fail on purpose.
var plainly = map[string]string{
	"async_insert": "0", "table_readonly": "0", "fault_probability_before_part_commit": "0", "fault_probability_after_part_commit": "0",
}

// synced are what a table may say of when its bytes are on the disk, and the least of it that
// durability machine allows. What it does not say is the server's choice, but for syncSettings.
var synced = map[string]func(value string) bool{
	"fsync_after_insert": isOn, "fsync_part_directory": isOn,
	"min_rows_to_fsync_after_merge":             func(v string) bool { return v == "1" },
	"min_compressed_bytes_to_fsync_after_merge": func(v string) bool { return v == "1" },
	"min_compressed_bytes_to_fsync_after_fetch": func(v string) bool { return v == "1" },
	// What a merge was made of, should the merged part be lost.
	"old_parts_lifetime": func(v string) bool { return len(v) > 3 || len(v) == 3 && v >= "480" },
}

func isOn(v string) bool { return v == "1" || v == "true" }

// checkOwn refuses a table's own settings that may lose or double rows.
func checkOwn(table string, have map[string]string) error {
	for _, name := range sorted(have) {
		_, sync := synced[name]
		if want, must := plainly[name]; must && plain(have[name]) == want || sync || slices.Contains(windowSettings, name) || harmless.MatchString(name) {
			continue
		}
		return fmt.Errorf("table %s has %s = %s, under which acknowledged rows can be lost or doubled: ALTER TABLE %s RESET SETTING %s", table, name, have[name], table, name)
	}
	return nil
}

// checkTTL refuses what deletes or empties rows by itself, of a table's CREATE statement.
// Rows may be moved to other disks or compressed anew.
func checkTTL(table, create string) error {
	create = quoted.ReplaceAllString(create, "''")
	columns, engine, _ := strings.Cut(create, ") ENGINE = ")
	if _, definitions, found := strings.Cut(columns, "("); found {
		for _, def := range splitList(definitions) {
			if column, _, found := strings.Cut(def, " TTL "); found {
				column, _, _ = strings.Cut(column, " ")
				return fmt.Errorf("column %s of table %s has a TTL, which empties it of what was acknowledged: ALTER TABLE %s MODIFY COLUMN %s REMOVE TTL",
					column, table, table, column)
			}
		}
	}
	engine, _, _ = strings.Cut(engine, " SETTINGS ")
	_, ttl, _ := strings.Cut(engine, " TTL ")
	for _, rule := range splitList(ttl) {
		if !moves.MatchString(rule) {
			return fmt.Errorf("table %s has a TTL that deletes what was acknowledged (%s): ALTER TABLE %s REMOVE TTL; pellucid's own retention deletes by rule", table, rule, table)
		}
	}
	return nil
}

var (
	quoted = regexp.MustCompile(`'(?:[^'\\]|\\.|'')*'`)
	moves  = regexp.MustCompile(` (TO (DISK|VOLUME)|RECOMPRESS CODEC)\b`)
)

// checkDistributed refuses a table over shards that chooses among them in another way than
// ours: a row that is sent again has to meet the shard that had it first.
func checkDistributed(table, full string) error {
	args, _, _ := strings.Cut(strings.TrimPrefix(full, "Distributed("), " SETTINGS ")
	list := splitList(strings.TrimSuffix(args, ")"))
	key := "none"
	if len(list) > 3 {
		key = list[3]
	}
	if want := sharding[table]; key != want {
		return fmt.Errorf("table %s is Distributed by the sharding key %s and not %s, so an insert sent again can meet another shard and double its rows: "+
			"DROP TABLE %s (its rows are in %s%s and stay), and the next start makes it as it should be", table, key, want, table, table, localSuffix)
	}
	return nil
}

// checkPlainly refuses what a table has from its server for all tables.
func checkPlainly(table string, have, byDefault map[string]string) error {
	for _, name := range sorted(plainly) {
		if _, own := have[name]; own {
			continue // checkOwn has looked
		}
		if v, told := byDefault[name]; told && plain(v) != plainly[name] {
			return fmt.Errorf("table %s has %s = %s by its server's configuration (merge_tree), under which acknowledged rows can be lost or doubled: ALTER TABLE %s MODIFY SETTING %s = %s",
				table, name, v, table, name, plainly[name])
		}
	}
	return nil
}

// plain gives values that mean the same one form.
func plain(v string) string {
	switch v {
	case "false", "0.", "0.0":
		return "0"
	case "true":
		return "1"
	}
	return v
}

// tableDefaults says which of the settings that we look at each server has for every table,
// by the system table of those that are replicated or of the others.
func (s *Store) tableDefaults(ctx context.Context, of string) (map[string]map[string]string, error) {
	names := append(sorted(plainly), sorted(synced)...)
	rows, err := s.conn.Query(ctx, "SELECT "+serverName+", name, value FROM "+s.cluster.system(of)+" WHERE name IN (?)", names)
	if err != nil {
		return nil, fmt.Errorf("read the server's table settings: %w", unavailable(err))
	}
	out := map[string]map[string]string{}
	err = scanAll(rows, func() error {
		var server, name, value string
		if err := rows.Scan(&server, &name, &value); err != nil {
			return err
		}
		if out[server] == nil {
			out[server] = map[string]string{}
		}
		out[server][name] = value
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the server's table settings: %w", err)
	}
	return out, nil
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// splitList cuts a list of a statement at its commas, but not at those within brackets or
// quotes.
func splitList(s string) (out []string) {
	depth, from, inside := 0, 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case inside && c == '\\':
			i++
		case c == '\'':
			inside = !inside
		case inside:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(s[from:i]))
			from = i + 1
		}
	}
	if rest := strings.TrimSpace(s[min(from, len(s)):]); rest != "" {
		out = append(out, rest)
	}
	return out
}
