package clickhouse

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// On a cluster each table of ours is two: the rows lie in <name>_local on the shards,
// and <name> is Distributed over them, so that every statement but those that make or
// change tables is the same. Which shard a row goes to follows from the row alone: an
// insert that is repeated meets the shards and tokens of the first time.

// sharding is what decides where a table's rows go.
var sharding = map[string]string{
	"predictions": "sipHash64(id)", "feedback": "sipHash64(target_id, external_id)", "explanations": "sipHash64(target_id)",
	"bins_1m": "sipHash64(tenant, model, version, field)", "traffic_1m": "sipHash64(tenant, model, version)", "traffic_in": "sipHash64(tenant, model, version)",
	"schemas": "sipHash64(id)", "references": "sipHash64(bins_id)", "backfills": "sipHash64(insert_batch)", "alert_events": "sipHash64(id)",
	"undecodable": "sipHash64(insert_batch)", "otel_traces": "sipHash64(TraceId)", "otel_traces_trace_id_ts": "sipHash64(TraceId)",
}

// cluster is the form that tables have on a cluster; without a name they are plain.
type cluster struct {
	name, database string
	// perHost is for servers that know neither ON CLUSTER nor replication: their
	// tables are made one server at a time, and are not replicated.
	perHost bool
}

const (
	localSuffix = "_local"
	// replicatedWindow replaces the deduplication window of a plain table: as many
	// blocks, and for a month, where the default forgets after an hour.
	replicatedWindow = "replicated_deduplication_window = %d, replicated_deduplication_window_seconds = 2592000"
)

var (
	createTable = regexp.MustCompile("^CREATE TABLE IF NOT EXISTS `?(\\w+)`? \\(")
	engineOf    = regexp.MustCompile(`ENGINE = (\w*MergeTree)(?:\(([^)]*)\))?`)
	createView  = regexp.MustCompile(`^CREATE MATERIALIZED VIEW IF NOT EXISTS (\w+) TO (\w+) AS`)
	readFrom    = regexp.MustCompile(`FROM (\w+)`)
	alterTable  = regexp.MustCompile("^ALTER TABLE `?(\\w+)`?")
	dropView    = regexp.MustCompile(`^DROP VIEW IF EXISTS (\w+)`)
)

// statements turns a migration into those that have its effect on a cluster.
func (c cluster) statements(migration string) ([]string, error) {
	if c.name == "" {
		return []string{migration}, nil
	}
	if m := createTable.FindStringSubmatch(migration); m != nil {
		key, ok := sharding[m[1]]
		if !ok {
			return nil, fmt.Errorf("table %s has no sharding key", m[1])
		}
		local := c.replicated(m[1], migration[len(m[0]):])
		return []string{
			"CREATE TABLE IF NOT EXISTS `" + m[1] + localSuffix + "`" + c.on() + " (" + local,
			"CREATE TABLE IF NOT EXISTS `" + m[1] + "`" + c.on() + " AS `" + m[1] + localSuffix + "` ENGINE = Distributed('" +
				c.name + "', '" + c.database + "', '" + m[1] + localSuffix + "', " + key + ")",
		}, nil
	}
	if m := createView.FindStringSubmatch(migration); m != nil {
		body := readFrom.ReplaceAllString(migration[len(m[0]):], "FROM ${1}"+localSuffix)
		return []string{"CREATE MATERIALIZED VIEW IF NOT EXISTS " + m[1] + c.on() + " TO " + m[2] + localSuffix + " AS" + body}, nil
	}
	if m := alterTable.FindStringSubmatch(migration); m != nil {
		return []string{"ALTER TABLE " + c.stored(m[1]) + migration[len(m[0]):]}, nil
	}
	if m := dropView.FindStringSubmatch(migration); m != nil {
		return []string{m[0] + c.on()}, nil
	}
	return nil, fmt.Errorf("no form for a cluster of %q", title(migration))
}

// stored names the tables that hold a table's rows, for statements that change them.
func (c cluster) stored(table string) string {
	if c.name == "" {
		return "`" + table + "`"
	}
	return "`" + table + localSuffix + "`" + c.on()
}

func (c cluster) on() string {
	if c.perHost {
		return ""
	}
	return " ON CLUSTER '" + c.name + "'"
}

// replicated gives a table's engine its replicated form.
func (c cluster) replicated(table, definition string) string {
	if c.perHost {
		return definition
	}
	definition = engineOf.ReplaceAllStringFunc(definition, func(engine string) string {
		m := engineOf.FindStringSubmatch(engine)
		args := "'/clickhouse/tables/{shard}/" + c.database + "/" + table + localSuffix + "', '{replica}'"
		if m[2] != "" {
			args += ", " + m[2]
		}
		return "ENGINE = Replicated" + m[1] + "(" + args + ")"
	})
	return strings.ReplaceAll(definition, fmt.Sprintf("non_replicated_deduplication_window = %d", dedupWindow), fmt.Sprintf(replicatedWindow, dedupWindow))
}

// checkCluster refuses a cluster that the server does not have, and names that do not
// go into a statement as they are.
func (s *Store) checkCluster(ctx context.Context) error {
	c := s.cluster
	if c.name == "" {
		return nil
	}
	for what, name := range map[string]string{"cluster": c.name, "database": c.database} {
		if !plainName.MatchString(name) {
			return fmt.Errorf("open clickhouse: %s %q is not a name of letters, digits, - and _", what, name)
		}
	}
	n, err := s.number(ctx, "SELECT count() FROM system.clusters WHERE cluster = ?", c.name)
	if err != nil {
		return fmt.Errorf("look for cluster %q: %w", c.name, err)
	}
	if n == 0 {
		return fmt.Errorf("open clickhouse: the server has no cluster %q (system.clusters)", c.name)
	}
	return nil
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)
