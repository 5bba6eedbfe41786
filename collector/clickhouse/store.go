// Package clickhouse is the only database of Pellucid: its tables, the writer
// that drains the spool into them, and the questions asked of them.
//
// It owns the connection, the schema and every statement. It never decides what
// is recorded (capture does), never waits on behalf of a request that is being
// served (the spool stands between), and never interprets a drift count (the
// statistics are functions of engine/stats).
//
// Invariants: every insert carries a deduplication token and every setting that
// exactly-once rests on; a batch is acknowledged only after all its inserts
// succeeded; every value of a caller reaches a statement as a bound parameter.
package clickhouse

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/engine/stats"
)

// Config says which ClickHouse to use. DSN is required; the embedded engine's is
// embedded.Env.DSN.
type Config struct {
	// DSN is clickhouse://user:password@host:9000/database, with clickhouse-go's
	// options as query parameters.
	DSN string
	// Cluster names the cluster that the server is of, whose shards are to hold the
	// rows (system.clusters); empty means this server alone.
	Cluster string
	// Owner tells this server from others that use the same database, over restarts too; empty
	// means that there are none.
	Owner string
	// Synced has tables made so that an insert is on the disk when it is confirmed, and
	// refuses those that are not: durability machine rests on it.
	Synced bool
	// AllowOldServer lets a server older than embedded.MinVersion be used.
	AllowOldServer bool
	// MaxConns bounds the connections; 0 means 8.
	MaxConns int
	// DialTimeout bounds one connection's start; 0 means 5 s.
	DialTimeout time.Duration
	// Bins computes the bins of a row as collector.BinRow does, which it is by
	// default; sealed features need keys that are not of this room.
	Bins func(ref *stats.Reference, s *collector.Schema, p *collector.Prediction, row int, dst []uint16) []uint16
	// Clear turns what a filter of whoever asks with ctx names in clear into what may be
	// stored of it, as Subject's Stored and StoredID do. nil takes what is stored.
	Clear func(ctx context.Context) (field func(f *collector.Field, value string) ([]string, error), id func(value string) ([]string, error))
}

// Store is an open ClickHouse. It is safe for concurrent use.
type Store struct {
	conn    driver.Conn
	version string
	cluster cluster
	owner   string // 16 hexadecimal digits, or none
	user    string
	synced  bool
	bins    func(ref *stats.Reference, s *collector.Schema, p *collector.Prediction, row int, dst []uint16) []uint16
	clear   func(ctx context.Context) (field func(f *collector.Field, value string) ([]string, error), id func(value string) ([]string, error))

	// spansUnsure is when an insert of spans last failed, or the start.
	spansUnsure atomic.Int64

	mu         sync.Mutex // guards everything declared below
	schemas    map[string]*collector.Schema
	references map[string]*stats.Reference
	modelIDs   map[string]modelSchemas
	inUse      map[string]bool // prefixes of the tables of erasures under way
}

// settings are sent with every statement, because servers and releases differ
// in their defaults and exactly-once rests on these: one insert is one block,
// at once, deduplicated by its token in the table and in its views. An answer is of
// every shard or is none.
var settings = ch.Settings{
	"async_insert":       0,
	"insert_deduplicate": 1,
	"deduplicate_blocks_in_dependent_materialized_views": 1,
	"materialized_views_ignore_errors":                   0,
	"min_insert_block_size_rows":                         1048449,
	"min_insert_block_size_bytes":                        268402944,
	"max_insert_block_size":                              1048449,
	"max_insert_threads":                                 1,
	"insert_quorum":                                      0,
	"distributed_foreground_insert":                      1,
	"distributed_product_mode":                           "global",
	"parallel_distributed_insert_select":                 0,
	"join_use_nulls":                                     0,
	"skip_unavailable_shards":                            0,
}

// Open connects, refuses a server that is too old (by name), and refuses tables
// whose own settings would break exactly-once. It does not migrate.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	opts, err := options(cfg)
	if err != nil {
		return nil, err
	}
	conn, err := ch.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("open clickhouse %s: %w", opts.Addr, err)
	}
	if cfg.Bins == nil {
		cfg.Bins = collector.BinRow
	}
	s := &Store{
		conn: conn, bins: cfg.Bins, clear: cfg.Clear, synced: cfg.Synced, schemas: map[string]*collector.Schema{}, references: map[string]*stats.Reference{},
		modelIDs: map[string]modelSchemas{}, inUse: map[string]bool{}, cluster: cluster{name: cfg.Cluster, database: opts.Auth.Database},
		user: opts.Auth.Username,
	}
	if cfg.Owner != "" {
		sum := sha256.Sum256([]byte(cfg.Owner))
		s.owner = hex.EncodeToString(sum[:8])
	}
	s.spansUnsure.Store(time.Now().UnixNano())
	if err := s.check(ctx, cfg, strings.Join(opts.Addr, ",")); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

func options(cfg Config) (*ch.Options, error) {
	if cfg.DSN == "" {
		return nil, errors.New("open clickhouse: no address given")
	}
	opts, err := ch.ParseDSN(cfg.DSN)
	if err != nil {
		// The error of a URL holds the URL, and with it the password.
		return nil, errors.New("open clickhouse: the address is not of the form clickhouse://user:password@host:9000/database")
	}
	if opts.Protocol != ch.Native {
		return nil, errors.New("open clickhouse: only the native protocol is spoken: clickhouse://user:password@host:9000/database")
	}
	if opts.TLS != nil && opts.TLS.MinVersion == 0 {
		opts.TLS.MinVersion = tls.VersionTLS12
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 8
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 5 * time.Second
	}
	opts.MaxOpenConns, opts.MaxIdleConns = cfg.MaxConns, cfg.MaxConns
	opts.DialTimeout = cfg.DialTimeout
	opts.ReadTimeout = 5 * time.Minute
	if opts.Settings == nil {
		opts.Settings = ch.Settings{}
	}
	for k, v := range settings {
		opts.Settings[k] = v
	}
	opts.ClientInfo.Products = append(opts.ClientInfo.Products, struct{ Name, Version string }{"pellucid", "1"})
	if opts.Compression == nil && !loopback(opts.Addr) {
		opts.Compression = &ch.Compression{Method: ch.CompressionLZ4}
	}
	return opts, nil
}

func loopback(addrs []string) bool {
	for _, a := range addrs {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			return false
		}
		ip := net.ParseIP(host)
		if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

func (s *Store) check(ctx context.Context, cfg Config, addr string) error {
	if err := s.conn.QueryRow(ctx, "SELECT version()").Scan(&s.version); err != nil {
		var ex *ch.Exception
		if errors.As(err, &ex) && (ex.Code == settingConstrained || ex.Code == readOnly) {
			return fmt.Errorf("clickhouse %s does not let user %q choose the settings of its inserts, without which acknowledged rows can be lost or doubled: "+
				"give it a profile that is not readonly and has no constraints on %s: %w", addr, s.user, strings.Join(settingNames(), ", "), err)
		}
		return fmt.Errorf("ask clickhouse %s for its version: %w", addr, unavailable(err))
	}
	if err := embedded.CheckVersion("server "+addr, s.version); err != nil && !cfg.AllowOldServer {
		return err
	}
	if err := s.checkCluster(ctx); err != nil {
		return err
	}
	if err := s.checkSettings(ctx); err != nil {
		return err
	}
	return s.checkTables(ctx)
}

// Codes of a server that lets a user not choose a setting: READONLY, SETTING_CONSTRAINT_VIOLATION.
const readOnly, settingConstrained = 164, 452

func settingNames() []string {
	var out []string
	for name := range settings {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// checkSettings refuses a server that does not go by the settings of our statements. One
// that is asked by another, as a shard is, quietly takes its own where its user's profile
// has constraints; so each is asked in the way that inserts reach it.
func (s *Store) checkSettings(ctx context.Context) error {
	rows, err := s.conn.Query(ctx, "SELECT "+serverName+", name, value FROM "+s.cluster.system("settings")+" WHERE name IN (?)", settingNames())
	if err != nil {
		return fmt.Errorf("read the settings in force: %w", unavailable(err))
	}
	return scanAll(rows, func() error {
		var server, name, value string
		if err := rows.Scan(&server, &name, &value); err != nil {
			return fmt.Errorf("read the settings in force: %w", err)
		}
		if want := fmt.Sprint(settings[name]); value != want {
			return fmt.Errorf("server %s has %s = %s whatever a statement asks for, and not %s, without which acknowledged rows can be lost or doubled: "+
				"take the constraint on it out of the profile of the cluster's user", server, name, value, want)
		}
		return nil
	})
}

// serverName tells the servers of a cluster apart, several on one machine too.
const serverName = "concat(hostName(), ':', toString(tcpPort()))"

// checkTables refuses tables whose own settings override what inserts ask for, or have rows
// go, on every server that has them: an ALTER reaches one server where it is not sent ON CLUSTER.
func (s *Store) checkTables(ctx context.Context) error {
	defaults := map[string]map[string]map[string]string{}
	rows, err := s.conn.Query(ctx, "SELECT "+serverName+", name, engine, engine_full, create_table_query FROM "+s.cluster.system("tables")+
		" WHERE database = "+s.cluster.current()+" AND (engine LIKE '%MergeTree' OR engine = 'Distributed')")
	if err != nil {
		return fmt.Errorf("read table settings: %w", unavailable(err))
	}
	return scanAll(rows, func() error {
		var server, name, engine, full, create string
		if err := rows.Scan(&server, &name, &engine, &full, &create); err != nil {
			return fmt.Errorf("read table settings: %w", err)
		}
		if _, ours := sharding[strings.TrimSuffix(name, localSuffix)]; !ours {
			return nil
		}
		of := "merge_tree_settings"
		if strings.HasPrefix(engine, "Replicated") {
			of = "replicated_merge_tree_settings"
		}
		var err error
		if defaults[of] == nil && engine != "Distributed" {
			if defaults[of], err = s.tableDefaults(ctx, of); err != nil {
				return err
			}
		}
		if err = s.checkTableSettings(name, engine, full, create, defaults[of][server]); err != nil && s.cluster.name != "" {
			err = fmt.Errorf("server %s: %w", server, err)
		}
		return err
	})
}

func (s *Store) checkTableSettings(name, engine, full, create string, byDefault map[string]string) error {
	if engine == "Distributed" {
		return checkDistributed(name, full)
	}
	err := checkEngine(name, full)
	if err == nil {
		err = checkTTL(name, create)
	}
	if err == nil {
		err = checkPlainly(name, tableSettings(full), byDefault)
	}
	if err == nil && s.synced {
		err = checkSynced(name, full, byDefault)
	}
	return err
}

// syncSettings are what makes an insert be on the disk when it is confirmed.
const syncSettings = "fsync_after_insert = 1, fsync_part_directory = 1"

// checkSynced refuses a table that confirms what is not on its disk, or that says itself
// that what becomes of it in a merge need not be.
func checkSynced(table, full string, byDefault map[string]string) error {
	have := tableSettings(full)
	for _, name := range []string{"fsync_after_insert", "fsync_part_directory"} {
		v, own := have[name]
		if !own && !strings.HasPrefix(full, "Replicated") {
			v = byDefault[name]
		}
		if !isOn(v) {
			return fmt.Errorf("table %s confirms inserts that a power cut can take away (%s is not 1), which durability machine does not allow: ALTER TABLE %s MODIFY SETTING %s",
				table, name, table, syncSettings)
		}
	}
	for _, name := range sorted(synced) {
		if v, own := have[name]; own && !synced[name](v) {
			return fmt.Errorf("table %s has %s = %s, by which a power cut can take acknowledged rows away, which durability machine does not allow: ALTER TABLE %s RESET SETTING %s",
				table, name, v, table, name)
		}
	}
	return nil
}

// withSync makes a migration's table one that syncs, if it makes one.
func (s *Store) withSync(migration string) string {
	if !s.synced || !strings.HasPrefix(migration, "CREATE TABLE") {
		return migration
	}
	return strings.Replace(migration, "SETTINGS ", "SETTINGS "+syncSettings+", ", 1)
}

// tableSettings are a table's own, from its engine as the server writes it.
func tableSettings(full string) map[string]string {
	_, set, _ := strings.Cut(full, " SETTINGS ")
	have := map[string]string{}
	for _, kv := range splitList(set) {
		k, v, _ := strings.Cut(kv, " = ")
		have[k] = strings.Trim(v, "'")
	}
	return have
}

// A table forgets the token of an insert when window more blocks have come. Between the
// first attempt of an insert and the last there come, of the same server, the other inserts
// of its batch into the table: one a month of its rows, or a version and reference, and
// where the insert is divided two a halving, 2 * 17 for a letter among 50,000 records. Of
// each other server that drains into the same tables there come as many. leastWindow is
// eight letters a batch and four servers (1,088), rounded; tables are made with ten times
// that. leastReplicatedWindow is a day, in seconds: the server's own default is an hour.
const (
	leastWindow           = 1000
	leastReplicatedWindow = 24 * 60 * 60
)

func checkEngine(table, full string) error {
	have := tableSettings(full)
	if err := checkOwn(table, have); err != nil {
		return err
	}
	if strings.HasPrefix(full, "Replicated") {
		mend := fmt.Sprintf("ALTER TABLE %s MODIFY SETTING "+replicatedWindow, table, dedupWindow)
		if n, err := strconv.ParseUint(have["replicated_deduplication_window_seconds"], 10, 64); err != nil || n < leastReplicatedWindow {
			return fmt.Errorf("table %s forgets what was inserted sooner than a day ago, so an insert retried after an outage would double its rows: %s", table, mend)
		}
		return checkWindow(table, "replicated_deduplication_window", have, mend)
	}
	const window = "non_replicated_deduplication_window"
	return checkWindow(table, window, have, fmt.Sprintf("ALTER TABLE %s MODIFY SETTING %s = %d", table, window, dedupWindow))
}

// checkWindow refuses a deduplication window that retried inserts may outlive. What a
// table does not say itself is the server's default, which differs and may change.
func checkWindow(table, name string, have map[string]string, mend string) error {
	v, ok := have[name]
	n, err := strconv.ParseUint(v, 10, 64)
	switch {
	case !ok || err != nil || n == 0:
		return fmt.Errorf("table %s has no deduplication window of its own (%s), so a retried insert would double its rows: %s", table, name, mend)
	case n < leastWindow:
		return fmt.Errorf("table %s has a deduplication window of %d blocks (%s), less than the %d that retried inserts need, so they could double their rows: %s",
			table, n, name, leastWindow, mend)
	}
	return nil
}

// unavailable marks errors of the connection, and the server's answers that it may not
// give another time, with collector.ErrUnavailable.
func unavailable(err error) error {
	var ex *ch.Exception
	if err == nil || errors.Is(err, context.Canceled) || errors.As(err, &ex) && !busy(ex.Code) && !marred(ex.Code) {
		return err
	}
	return fmt.Errorf("%w: %w", collector.ErrUnavailable, err)
}

// busy reports whether a code is of a server that is short of something or cannot reach
// another: time, queries, connections, memory, readonly, space, parts, locks, keeper.
func busy(code int32) bool {
	switch code {
	case 159, 202, 203, 209, 210, 236, 241, 242, 243, 252, 279, 319, 394, 439, 473, 499, 999:
		return true
	}
	return false
}

// IsFull reports whether the server refused something because its disk has no room:
// NOT_ENOUGH_SPACE, or what the system said to it.
func IsFull(err error) bool {
	var ex *ch.Exception
	return errors.As(err, &ex) && (ex.Code == 243 || strings.Contains(ex.Message, "No space left on device"))
}

// marred reports whether a code is of a disk that takes no more, or of a part that was
// not written whole on one, which a server sets aside when it is started again:
// CANNOT_READ_ALL_DATA, CHECKSUM_DOESNT_MATCH, CANNOT_WRITE_TO_FILE_DESCRIPTOR, CORRUPTED_DATA.
func marred(code int32) bool {
	switch code {
	case 33, 40, 75, 246:
		return true
	}
	return false
}

// Version returns the server's version.
func (s *Store) Version() string { return s.version }

// Ping reports whether the server answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.conn.Ping(ctx); err != nil {
		return fmt.Errorf("ping clickhouse: %w", unavailable(err))
	}
	return nil
}

// Close closes the connections.
func (s *Store) Close() error {
	if err := s.conn.Close(); err != nil {
		return fmt.Errorf("close clickhouse: %w", err)
	}
	return nil
}

// withToken returns a context whose insert is counted once however often it is
// sent.
func withToken(ctx context.Context, token string) context.Context {
	set := make(ch.Settings, len(settings)+1)
	for k, v := range settings {
		set[k] = v
	}
	set["insert_deduplication_token"] = token
	return ch.Context(ctx, ch.WithSettings(set))
}
