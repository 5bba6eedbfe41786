package clickhouse

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
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
	// hosts are connections to all of them where perHost is set.
	hosts []driver.Conn
}

// replicas reports whether there may be several servers that have the same rows.
func (c cluster) replicas() bool { return c.name != "" && !c.perHost }

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
	if c.perHost || c.name == "" {
		return ""
	}
	return " ON CLUSTER '" + c.name + "'"
}

// local is the name of the table that has a server's own rows.
func (c cluster) local(table string) string {
	if c.name == "" {
		return table
	}
	return table + localSuffix
}

// system is a system table of every server, replicas of the same rows included;
// shards is that of one server a shard.
func (c cluster) system(table string) string { return c.across("clusterAllReplicas", table) }
func (c cluster) shards(table string) string { return c.across("cluster", table) }

func (c cluster) across(function, table string) string {
	if c.name == "" {
		return "system." + table
	}
	return function + "('" + c.name + "', system." + table + ")"
}

// current is the database, on other servers too.
func (c cluster) current() string {
	if c.name == "" {
		return "currentDatabase()"
	}
	return "'" + c.database + "'"
}

// mutating are the settings of a mutation, whose end is asked for. A replicated table
// refuses a mutation that reads another, since replicas might differ in it: the tables
// of keys are the same on all, and not written again, before a mutation begins.
func (c cluster) mutating() ch.Settings {
	out := ch.Settings{"mutations_sync": 0}
	if c.name != "" {
		out["allow_nondeterministic_mutations"] = 1
	}
	return out
}

// keyTable is how a table of keys of a table's rows is made and filled: statements for
// every server, the beginning of the insert that rows follow, and what to wait with
// until every replica has them. On a cluster keys lie where their rows do, by the same
// sharding, so that a mutation reads those of its own server: one that read a
// Distributed table would rest on other servers while it runs.
func (c cluster) keyTable(name, of, rows string) (before []string, fill, after string) {
	if c.name == "" {
		// Made and filled in one, it would have a name of the engine's own meanwhile, by which
		// what a crash or a full disk leaves of it is not known.
		return []string{"CREATE TABLE " + name + " ENGINE = MergeTree ORDER BY tuple() EMPTY AS " + rows + of}, "INSERT INTO " + name + " ", ""
	}
	local := c.local(name)
	engine := "MergeTree"
	if !c.perHost {
		engine = "ReplicatedMergeTree('/clickhouse/tables/{shard}/" + c.database + "/" + local + "', '{replica}')"
		after = "SYSTEM SYNC REPLICA" + c.on() + " " + c.database + "." + local
	}
	return []string{
		"CREATE TABLE " + local + c.on() + " ENGINE = " + engine + " ORDER BY tuple() EMPTY AS " + rows + c.local(of),
		"CREATE TABLE " + name + c.on() + " AS " + local + " ENGINE = Distributed('" + c.name + "', '" + c.database + "', '" + local + "', " + sharding[of] + ")",
	}, "INSERT INTO " + name + " ", after
}

// everywhere runs a statement that has ON CLUSTER in it where that is known, else on
// one server after the other.
func (s *Store) everywhere(ctx context.Context, statement string, args ...any) error {
	if len(s.cluster.hosts) == 0 {
		return s.conn.Exec(ctx, statement, args...)
	}
	for _, host := range s.cluster.hosts {
		if err := host.Exec(ctx, statement, args...); err != nil {
			return err
		}
	}
	return nil
}

// hosts counts the servers that a change has to reach.
func (s *Store) hosts(ctx context.Context) (uint64, error) {
	if s.cluster.name == "" {
		return 1, nil
	}
	n, err := s.ask(ctx, "SELECT count() FROM "+s.cluster.system("one"))
	return uint64(n), err
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
