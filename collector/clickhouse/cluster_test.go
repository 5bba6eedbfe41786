package clickhouse

import (
	"context"
	"errors"
	"fmt"
	stdmaps "maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
	"github.com/pellucid/pellucid/engine/stats"
)

// shard is one server of a cluster of two.
type shard struct {
	cfg    embedded.Config
	engine *embedded.Engine
}

func (s *shard) start(t *testing.T) {
	t.Helper()
	e, err := embedded.Start(t.Context(), s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.engine = e
}

func (s *shard) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.engine.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// users adds to the configuration of a server's users, from its next start.
func (s *shard) users(t *testing.T, xml string) {
	t.Helper()
	dir := filepath.Join(s.cfg.Dir, "users.d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "more.xml"), []byte("<clickhouse>"+xml+"</clickhouse>"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// twoShards starts two engines that know each other as the shards of a cluster "pair".
func twoShards(t *testing.T) []*shard {
	t.Helper()
	shards := []*shard{{}, {}}
	for !theyMeet(t, shards) { // somebody else took a port while none of them had it
		for _, s := range shards {
			s.stop(t)
		}
	}
	for _, s := range shards {
		t.Cleanup(func() { s.stop(t) })
	}
	return shards
}

// theyMeet starts the shards twice, and reports whether they are then where they know each other to be.
func theyMeet(t *testing.T, shards []*shard) bool {
	t.Helper()
	var known strings.Builder
	var ports []int
	for _, s := range shards {
		s.cfg = embedded.Config{Dir: t.TempDir(), ChildCommand: embeddedtest.ChildCommand(t), Log: quiet()}
		s.start(t) // its port and passwords are kept
		env := s.engine.Env()
		fmt.Fprintf(&known, "<shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>%d</port><user>%s</user><password>%s</password></replica></shard>",
			env.Port, env.AdminUser, env.AdminPassword)
		ports = append(ports, env.Port)
		s.stop(t)
	}
	met := true
	for i, s := range shards {
		s.cfg.Extra = "<remote_servers><pair>" + known.String() + "</pair></remote_servers>"
		s.start(t)
		met = met && s.engine.Env().Port == ports[i]
	}
	return met
}

// openShard opens a store as a member of the cluster. ON CLUSTER is not in the
// embedded engine, so each server's tables are made by a store of its own.
func openShard(t *testing.T, s *shard) *Store {
	t.Helper()
	env := s.engine.Env()
	store, err := Open(t.Context(), Config{DSN: fmt.Sprintf("clickhouse://%s:%s@127.0.0.1:%d/default", env.AdminUser, env.AdminPassword, env.Port), Cluster: "pair"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	store.cluster.perHost = true
	for range 2 {
		if err := store.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// TestCluster writes the same batches to one server and to two shards, of which one is
// killed in between, and holds every answer of the two against each other.
func TestCluster(t *testing.T) {
	shards := twoShards(t)
	pair := []*Store{openShard(t, shards[0]), openShard(t, shards[1])}
	alone, m := open(t), newMaker(t)
	ref := m.reference(t, 1000)
	cfg := WriterConfig{Reference: func(string) *stats.Reference { return ref }, Backoff: 20 * time.Millisecond, BackoffMax: 100 * time.Millisecond}
	wp, wa := writer(t, pair[0], cfg), writer(t, alone, cfg)
	const batches, each = 12, 50
	var ids []string
	for b := range batches {
		records := []collector.Record{m.schemaRecord(t)}
		for i := range each {
			p := m.prediction(t, 1+i%2, base.Add(time.Duration(b*each+i)*time.Minute))
			p.ExternalIDs = []string{fmt.Sprintf("order-%d-%d", b, i)}
			ids = append(ids, collector.RowID(p.ID, 0, p.Rows))
			records = append(records, record(p))
			f := &collector.Feedback{PredictionID: ids[len(ids)-1], Tenant: "default", Label: fmt.Sprint(i % 2), ObservedAt: base, ReceivedAt: base.Add(time.Hour)}
			if i%3 == 0 {
				f.PredictionID, f.ExternalID = "", p.ExternalIDs[0]
			}
			records = append(records, collector.Record{Kind: collector.KindFeedback, Version: collector.FeedbackVersion, Payload: collector.AppendFeedback(nil, f)})
		}
		token := fmt.Sprintf("batch-%d", b)
		if b%4 == 2 {
			// One of the shards dies under the batch: the other may have its part already.
			if err := syscall.Kill(shards[1].engine.PID(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		write(t, wp, token, records...)
		if b%3 == 0 {
			write(t, wp, token, records...) // as after a lost acknowledgement
		}
		write(t, wa, token, records...)
	}
	if err := alone.SaveReference(t.Context(), "default", "delay", "1", "d1", ref); err != nil {
		t.Fatal(err)
	}
	if err := pair[1].SaveReference(t.Context(), "default", "delay", "1", "d1", ref); err != nil {
		t.Fatal(err)
	}
	for _, s := range pair {
		sameAnswers(t, s, alone, ref.ID, ids)
	}
	for _, table := range []string{"predictions", "feedback"} {
		for _, s := range pair {
			if n := number(t, s, "SELECT count() FROM "+table+"_local"); n == 0 || n >= number(t, s, "SELECT count() FROM "+table) {
				t.Errorf("one shard has %g rows of %s", n, table)
			}
		}
	}
}

func sameAnswers(t *testing.T, got, want *Store, binsID string, ids []string) {
	t.Helper()
	for _, q := range []string{
		"SELECT count() FROM predictions", "SELECT uniqExact(id, row) FROM predictions", "SELECT count() FROM feedback",
		"SELECT sum(rows) FROM traffic_1m", "SELECT sum(requests) FROM traffic_1m", "SELECT sum(weight) FROM bins_1m",
	} {
		if g, w := number(t, got, q), number(t, want, q); g != w || w == 0 {
			t.Errorf("%s: %g on the cluster, %g alone", q, g, w)
		}
	}
	ctx, from, to := t.Context(), base, base.Add(24*time.Hour)
	ask := func(what string, f func(s *Store) (any, error)) {
		t.Helper()
		g, err := f(got)
		if err != nil {
			t.Errorf("%s on the cluster: %v", what, err)
			return
		}
		w, err := f(want)
		if err != nil {
			t.Fatalf("%s alone: %v", what, err)
		}
		if !reflect.DeepEqual(g, w) {
			t.Errorf("%s: %+v on the cluster, %+v alone", what, g, w)
		}
	}
	ask("bin counts", func(s *Store) (any, error) {
		return s.BinCounts(ctx, "default", "delay", "1", binsID, from, to, time.Hour)
	})
	ask("traffic", func(s *Store) (any, error) {
		list, err := s.Traffic(ctx, "default", "delay", "1", from, to, time.Hour)
		for i := range list { // quantiles of merged digests depend on the order
			list[i].P50, list[i].P90, list[i].P99 = 0, 0, 0
		}
		return list, err
	})
	ask("labelled rows", func(s *Store) (any, error) { return s.Labelled(ctx, "default", "delay", "1", from, to) })
	ask("a prediction", func(s *Store) (any, error) { return s.Prediction(ctx, collector.Ref{Tenant: "default", ID: ids[7]}) })
	ask("a listing", func(s *Store) (any, error) {
		return s.List(ctx, collector.Query{Tenant: "default", Model: "delay", From: from, To: to, Where: "distance > 0", Limit: 50})
	})
	ask("a count", func(s *Store) (any, error) {
		return s.Count(ctx, collector.Query{Tenant: "default", Model: "delay", From: from, To: to})
	})
	ask("the reference", func(s *Store) (any, error) {
		r, err := s.LoadReference(ctx, "default", "delay", "1", "d1")
		if r != nil {
			return r.ID, err
		}
		return nil, err
	})
	ask("a back-fill", func(s *Store) (any, error) {
		other := newMaker(t).reference(t, 200)
		return s.Backfill(ctx, "default", "delay", "1", "d1", other)
	})
}

// openPair opens a store at each of two shards; either reaches both.
func openPair(t *testing.T) ([]*shard, []*Store) {
	t.Helper()
	shards := twoShards(t)
	pair := []*Store{openShard(t, shards[0]), openShard(t, shards[1])}
	for _, s := range pair {
		s.cluster.hosts = []driver.Conn{pair[0].conn, pair[1].conn}
	}
	return shards, pair
}

// TestBreakingTableSettingsOnCluster: a setting that breaks what inserts rest on is found
// whichever server of the cluster has it, and the error names that one.
func TestBreakingTableSettingsOnCluster(t *testing.T) {
	shards, pair := openPair(t)
	at := make([]string, len(shards))
	for i, s := range shards {
		at[i] = fmt.Sprintf(":%d: ", s.engine.Env().Port)
	}
	// reopen fails unless a start from either server is refused, naming server and table.
	reopen := func(what string, synced bool, server int, want ...string) {
		t.Helper()
		for i, s := range shards {
			env := s.engine.Env()
			store, err := Open(t.Context(), Config{
				DSN:     fmt.Sprintf("clickhouse://%s:%s@127.0.0.1:%d/default", env.AdminUser, env.AdminPassword, env.Port),
				Cluster: "pair", Synced: synced,
			})
			if err == nil {
				err = store.Close()
			}
			if len(want) == 0 {
				if err != nil {
					t.Errorf("%s, from server %d: %v", what, i, err)
				}
				continue
			}
			for _, part := range append([]string{at[server]}, want...) {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("%s on server %d, from server %d: %v, without %q", what, server, i, err, part)
				}
			}
		}
	}
	reopen("as made", true, 0)
	for server, s := range pair {
		for setting, want := range map[string]string{"async_insert = 1": "async_insert", "non_replicated_deduplication_window = 0": "no deduplication window"} {
			name, _, _ := strings.Cut(setting, " ")
			exec(t, s, "ALTER TABLE predictions_local MODIFY SETTING "+setting)
			reopen(setting, false, server, want, "table predictions_local ")
			if name == "async_insert" {
				exec(t, s, "ALTER TABLE predictions_local RESET SETTING async_insert")
			} else {
				exec(t, s, fmt.Sprintf("ALTER TABLE predictions_local MODIFY SETTING %s = %d", name, dedupWindow))
			}
		}
		exec(t, s, "ALTER TABLE feedback_local MODIFY SETTING fsync_after_insert = 0")
		reopen("fsync_after_insert = 0", true, server, "table feedback_local ", "fsync_after_insert")
		exec(t, s, "ALTER TABLE feedback_local RESET SETTING fsync_after_insert")
	}
	// A table over the shards that was made beforehand, and lays rows where chance has it.
	for server, s := range pair {
		exec(t, s, "DROP TABLE feedback SYNC")
		for _, key := range []string{"rand()", "sipHash64(target_id)", ""} {
			args, named := key, key
			if key != "" {
				args = ", " + key
			} else {
				named = "none"
			}
			exec(t, s, "CREATE TABLE feedback AS feedback_local ENGINE = Distributed('pair', 'default', 'feedback_local'"+args+")")
			reopen("sharding key "+named, false, server, "table feedback ", "the sharding key "+named+" ", "sipHash64(target_id, external_id)")
			exec(t, s, "DROP TABLE feedback SYNC")
		}
		exec(t, s, "CREATE TABLE feedback AS feedback_local ENGINE = Distributed('pair', 'default', 'feedback_local', sipHash64(target_id, external_id)) SETTINGS fsync_after_insert = 1")
	}
	reopen("mended", true, 0)
	// A server that is away cannot be looked at: the start waits for it.
	env := shards[0].engine.Env()
	shards[1].stop(t)
	_, err := Open(t.Context(), Config{DSN: fmt.Sprintf("clickhouse://%s:%s@127.0.0.1:%d/default?skip_unavailable_shards=1", env.AdminUser, env.AdminPassword, env.Port), Cluster: "pair"})
	if !errors.Is(err, collector.ErrUnavailable) {
		t.Errorf("one server is away: %v", err)
	}
	// A server's own default counts for its own tables only.
	dir := filepath.Join(shards[1].cfg.Dir, "config.d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const unsynced = "<clickhouse><merge_tree><fsync_after_insert>0</fsync_after_insert></merge_tree></clickhouse>"
	if err := os.WriteFile(filepath.Join(dir, "unsynced.xml"), []byte(unsynced), 0o600); err != nil {
		t.Fatal(err)
	}
	shards[1].start(t)
	reopen("a default that does not sync", true, 1, "fsync_after_insert")
	reopen("where that is not asked for", false, 1)
	shards[1].stop(t)
	if err := os.WriteFile(filepath.Join(dir, "unsynced.xml"), []byte(strings.ReplaceAll(strings.ReplaceAll(unsynced, "fsync_after_insert", "async_insert"), ">0<", ">1<")), 0o600); err != nil {
		t.Fatal(err)
	}
	shards[1].start(t)
	reopen("async inserts by default", false, 1, "async_insert = 1 by its server's configuration", "MODIFY SETTING async_insert = 0")
}

// TestSettingsOfAServer: what a server or a user's profile has for its own is overruled by
// what statements say; one that does not let them is refused at the start, by name.
func TestSettingsOfAServer(t *testing.T) {
	const defaults = "<async_insert>1</async_insert><wait_for_async_insert>0</wait_for_async_insert><insert_deduplicate>0</insert_deduplicate>" +
		"<deduplicate_blocks_in_dependent_materialized_views>0</deduplicate_blocks_in_dependent_materialized_views>"
	profiles := map[string]string{
		"free":        defaults,
		"constrained": "<async_insert>1</async_insert><constraints><async_insert><const/></async_insert></constraints>",
		"bounded":     "<async_insert>1</async_insert><constraints><async_insert><min>1</min></async_insert></constraints>",
		"readonly":    "<readonly>1</readonly>",
	}
	own := shard{cfg: embedded.Config{Dir: t.TempDir(), ChildCommand: embeddedtest.ChildCommand(t), Log: quiet()}}
	var all, users strings.Builder
	for name, profile := range profiles {
		fmt.Fprintf(&all, "<%[1]s>%[2]s</%[1]s>", name, profile)
		fmt.Fprintf(&users, "<%[1]s><password>secret</password><profile>%[1]s</profile><quota>default</quota><networks><ip>127.0.0.1</ip></networks></%[1]s>", name)
	}
	own.users(t, "<profiles>"+all.String()+"</profiles><users>"+users.String()+"</users>")
	own.start(t)
	defer own.stop(t)
	env := own.engine.Env()
	as := func(user, password string) string {
		return fmt.Sprintf("clickhouse://%s:%s@127.0.0.1:%d/default", user, password, env.Port)
	}
	s, m := openDSN(t, as(env.AdminUser, env.AdminPassword)), newMaker(t)
	records := []collector.Record{m.schemaRecord(t), record(m.prediction(t, 10, base))}
	for name := range profiles {
		got, err := Open(t.Context(), Config{DSN: as(name, "secret")})
		if name != "free" {
			if err == nil {
				err = errors.Join(errors.New("opened"), got.Close())
			}
			if text := err.Error(); !strings.Contains(text, "async_insert") || !strings.Contains(text, `"`+name+`"`) || !strings.Contains(text, "does not let") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		w := writer(t, got, WriterConfig{})
		for range 3 {
			// Seen at once and counted once: neither is so where the profile's settings hold.
			write(t, w, "b", records...)
			if n := number(t, s, "SELECT count() FROM predictions"); n != 10 {
				t.Errorf("%g rows", n)
			}
		}
		if err := got.Close(); err != nil {
			t.Error(err)
		}
	}
	shards, _ := openPair(t)
	shards[1].stop(t)
	shards[1].users(t, "<profiles><default>"+profiles["constrained"]+"</default></profiles>")
	shards[1].start(t)
	for i, want := range []string{"async_insert = 1 whatever a statement asks for", "does not let user"} {
		env := shards[i].engine.Env()
		store, err := Open(t.Context(), Config{DSN: fmt.Sprintf("clickhouse://%s:%s@127.0.0.1:%d/default", env.AdminUser, env.AdminPassword, env.Port), Cluster: "pair"})
		if err == nil {
			err = errors.Join(errors.New("opened"), store.Close())
		}
		if !strings.Contains(err.Error(), want) || i == 0 && !strings.Contains(err.Error(), fmt.Sprintf(":%d ", shards[1].engine.Env().Port)) {
			t.Errorf("from server %d: %v", i, err)
		}
	}
}

// spread fails where one of the shards has all rows of a table, or none.
func spread(t *testing.T, pair []*Store, names ...string) {
	t.Helper()
	for _, s := range pair {
		for _, table := range names {
			if n := number(t, s, "SELECT count() FROM "+table+localSuffix); n == 0 || n >= number(t, s, "SELECT count() FROM "+table) {
				t.Errorf("one shard has %g rows of %s", n, table)
			}
		}
	}
}

// tidied fails where a table of keys is left on either shard.
func tidied(t *testing.T, pair []*Store) {
	t.Helper()
	for _, s := range pair {
		if left, err := s.strings(t.Context(), "SELECT name FROM system.tables WHERE match(name, '^(erase|count)_')"); err != nil || len(left) > 0 {
			t.Errorf("tables left: %v, %v", left, err)
		}
	}
}

// TestErasureOnCluster erases and exports the same persons on one server and on two
// shards, from either, and holds the two against each other after each step.
func TestErasureOnCluster(t *testing.T) {
	shards, pair := openPair(t)
	alone := open(t)
	here, there := newMaker(t), newMaker(t)
	a := writePeople(t, alone, writer(t, alone, WriterConfig{}), here)
	c := writePeople(t, pair[0], writer(t, pair[0], WriterConfig{}), there)
	var more [2][]*collector.Prediction
	for i, m := range []*maker{here, there} {
		records := []collector.Record{m.schemaRecord(t)}
		for range 40 {
			p := m.prediction(t, 1, base)
			p.ExternalIDs = []string{"carl"}
			more[i] = append(more[i], p)
			records = append(records, record(p), explanation(t, p.ID, "delay"),
				feedback(&collector.Feedback{PredictionID: p.ID, Tenant: "default", Label: "1", ObservedAt: base, ReceivedAt: base}))
		}
		s := []*Store{alone, pair[0]}[i]
		write(t, writer(t, s, WriterConfig{}), "more", records...)
		for k, p := range more[i] {
			if err := s.InsertSpans(t.Context(), fmt.Sprint("more", k), []Span{span(p.TraceID, base)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	spread(t, pair, "predictions", "feedback", "explanations", "otel_traces")
	for i, step := range []struct {
		what    string
		subject func(p *people, more []*collector.Prediction) Subject
	}{
		{"row of a batch", func(p *people, _ []*collector.Prediction) Subject { return Subject{PredictionID: p.shared.ID + ".0"} }},
		{"filter", func(*people, []*collector.Prediction) Subject {
			return Subject{Model: "delay", Where: "city = 'Bobtown'"}
		}},
		{"external id of a model", func(*people, []*collector.Prediction) Subject { return Subject{ExternalID: "ann", Model: "loans"} }},
		{"prediction id", func(_ *people, more []*collector.Prediction) Subject { return Subject{PredictionID: more[7].ID} }},
		{"rows of both shards", func(*people, []*collector.Prediction) Subject { return Subject{ExternalID: "carl"} }},
		{"nobody", func(*people, []*collector.Prediction) Subject { return Subject{ExternalID: "carl"} }},
		{"undecodable", func(*people, []*collector.Prediction) Subject { return Subject{ExternalID: "annabel"} }},
	} {
		s := pair[i%2]
		xa, xc := step.subject(a, more[0]), step.subject(c, more[1])
		xa.Tenant, xc.Tenant = "default", "default"
		var exported [2]subjectCounts
		for k, on := range []*Store{alone, s} {
			if err := on.ExportSubject(t.Context(), []Subject{xa, xc}[k], func(*Erasure) error { return nil }, exported[k].add); err != nil {
				t.Fatalf("%s: %v", step.what, err)
			}
		}
		if exported[0] != exported[1] {
			t.Errorf("%s: exported %+v, alone %+v", step.what, exported[1], exported[0])
		}
		want, err := alone.Erase(t.Context(), xa, atOnce)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Erase(t.Context(), xc, atOnce)
		if err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if !stdmaps.Equal(got.Before, want.Before) || !stdmaps.Equal(got.After, want.After) {
			t.Errorf("%s: %v became %v; alone %v became %v", step.what, got.Before, got.After, want.Before, want.After)
		}
		for _, at := range pair {
			if g, w := tables(t, at), tables(t, alone); !stdmaps.Equal(g, w) {
				t.Errorf("%s: left %v, alone %v", step.what, g, w)
			}
		}
		if got.FilesGoneBy.IsZero() {
			t.Errorf("%s: no time when the files are gone", step.what)
		}
	}
	tidied(t, pair)
	if n := number(t, pair[1], "SELECT sum(rows) FROM traffic_1m"); n != 45 {
		t.Errorf("the rollup has %v rows of 45: sums stay", n)
	}
	// A shard that is away has rows that nobody can count: nothing is said to be gone.
	ann := Subject{Tenant: "default", ExternalID: "ann"}
	e, err := pair[0].Erase(t.Context(), ann, func(context.Context, *Erasure) error { shards[1].stop(t); return nil })
	if err == nil {
		t.Errorf("erased without a shard: %+v", e)
	}
	shards[1].start(t)
	if _, err := pair[0].Erase(t.Context(), ann, atOnce); err != nil {
		t.Errorf("when it is back: %v", err)
	}
	if e, err := pair[1].CountSubject(t.Context(), ann); err != nil || e.Before["predictions"]+e.Before["feedback"]+e.Before["explanations"] != 0 {
		t.Errorf("then left: %+v, %v", e, err)
	}
}

// TestRetentionOnCluster removes what is past on one server and on two shards.
func TestRetentionOnCluster(t *testing.T) {
	_, pair := openPair(t)
	alone := open(t)
	now := time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)
	for _, s := range []*Store{alone, pair[0]} {
		m := newMaker(t)
		records := []collector.Record{m.schemaRecord(t), {Kind: collector.KindPrediction, Version: 9, Payload: []byte{9}}}
		for i, model := range []string{"loans", "delay", "delay"} {
			for _, days := range []int{1, 29, 32, 33, 34, 35, 89, 92, 93, 94, 200, 201, 202, 203} {
				p, list := m.agedOf(t, now, []string{"default", "default", "acme"}[i], model, days)
				records = append(records, list...)
				if err := s.InsertSpans(t.Context(), p.TraceID, []Span{span(p.TraceID, now.Add(-time.Duration(days)*wholeDay))}); err != nil {
					t.Fatal(err)
				}
			}
		}
		write(t, writer(t, s, WriterConfig{}), "b", records...)
	}
	spread(t, pair, "predictions", "feedback", "explanations", "otel_traces")
	r := Retention{Default: 90 * wholeDay, Models: map[string]time.Duration{"loans": 30 * wholeDay}, Tenants: map[string]time.Duration{"acme": 32 * wholeDay}, Traces: 60 * wholeDay}
	// The last time is far enough ahead for what is stored by the server's own clock.
	for i, at := range []time.Time{now, now, now.Add(40 * wholeDay), time.Now().Add(400 * wholeDay)} {
		want, err := alone.Retain(t.Context(), r, at, nothing)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pair[i%2].Retain(t.Context(), r, at, nothing)
		if err != nil {
			t.Fatal(err)
		}
		if !stdmaps.Equal(got, want) || i == 0 && (got["predictions"] == 0 || got["feedback"] == 0 || got["explanations"] == 0 || got["otel_traces"] == 0) {
			t.Errorf("run %d removed %v, alone %v", i, got, want)
		}
		for _, s := range pair {
			if g, w := tables(t, s), tables(t, alone); !stdmaps.Equal(g, w) {
				t.Errorf("run %d left %v, alone %v", i, g, w)
			}
		}
	}
	tidied(t, pair)
}

// TestReplicatedErasure holds the statements of an erasure on a cluster of replicas,
// which the embedded engine cannot run.
func TestReplicatedErasure(t *testing.T) {
	c := cluster{name: "prod", database: "pellucid"}
	before, fill, after := c.keyTable("erase_x_feedback", "feedback", "SELECT DISTINCT target_id FROM ")
	got := append(slices.Clone(before), fill, after, "ALTER TABLE "+c.stored("feedback"), c.system("mutations"), c.shards("parts"))
	want := []string{
		"CREATE TABLE erase_x_feedback_local ON CLUSTER 'prod' ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/pellucid/erase_x_feedback_local', '{replica}') ORDER BY tuple() EMPTY AS SELECT DISTINCT target_id FROM feedback_local",
		"CREATE TABLE erase_x_feedback ON CLUSTER 'prod' AS erase_x_feedback_local ENGINE = Distributed('prod', 'pellucid', 'erase_x_feedback_local', sipHash64(target_id, external_id))",
		"INSERT INTO erase_x_feedback ", "SYSTEM SYNC REPLICA ON CLUSTER 'prod' pellucid.erase_x_feedback_local",
		"ALTER TABLE `feedback_local` ON CLUSTER 'prod'", "clusterAllReplicas('prod', system.mutations)", "cluster('prod', system.parts)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	// Keys lie where their rows do.
	for _, x := range targets {
		for column := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(sharding[x.table], "sipHash64("), ")"), ", ") {
			if !slices.Contains(strings.Split(x.key, ", "), column) {
				t.Errorf("%s is sharded by %s, which is not of its key", x.table, column)
			}
		}
	}
	if c.mutating()["allow_nondeterministic_mutations"] != 1 {
		t.Error("a replicated table refuses a mutation that reads another")
	}
}

// TestReplicatedTables holds the statements for a cluster of replicas, which the
// embedded engine cannot run.
func TestReplicatedTables(t *testing.T) {
	c := cluster{name: "prod", database: "pellucid"}
	for _, m := range migrations() {
		steps, err := c.statements(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range steps {
			if !strings.Contains(s, " ON CLUSTER 'prod'") || strings.Contains(s, "non_replicated") {
				t.Errorf("%s", s)
			}
			if strings.Contains(s, "MergeTree") && !strings.Contains(s, "MergeTree('/clickhouse/tables/{shard}/pellucid/") {
				t.Errorf("not replicated: %s", s)
			}
			if _, body, view := strings.Cut(s, " AS SELECT "); view && !strings.Contains(body, localSuffix) {
				t.Errorf("a view that does not read the shard's own rows: %s", s)
			}
		}
	}
	steps, err := c.statements(createBins)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"CREATE TABLE IF NOT EXISTS `bins_1m_local` ON CLUSTER 'prod' (",
		"CREATE TABLE IF NOT EXISTS `bins_1m` ON CLUSTER 'prod' AS `bins_1m_local` ENGINE = Distributed('prod', 'pellucid', 'bins_1m_local', sipHash64(tenant, model, version, field))",
	} {
		if !strings.HasPrefix(steps[i], want) {
			t.Errorf("step %d is %s", i, steps[i])
		}
	}
	const engine = "ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/{shard}/pellucid/bins_1m_local', '{replica}', weight) ORDER BY"
	if !strings.Contains(steps[0], engine) || !strings.Contains(steps[0], "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 2592000") {
		t.Error(steps[0])
	}
	if err := checkEngine("bins_1m_local", "ReplicatedSummingMergeTree('/x', '{replica}', weight) ORDER BY a SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 2592000"); err != nil {
		t.Error(err)
	}
	if err := checkEngine("bins_1m_local", "ReplicatedSummingMergeTree('/x', '{replica}', weight) ORDER BY a SETTINGS index_granularity = 8192"); err == nil {
		t.Error("a window of an hour is taken")
	}
}
