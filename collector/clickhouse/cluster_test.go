package clickhouse

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

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

// twoShards starts two engines that know each other as the shards of a cluster "pair".
func twoShards(t *testing.T) []*shard {
	t.Helper()
	shards := []*shard{{}, {}}
	var known strings.Builder
	for _, s := range shards {
		s.cfg = embedded.Config{Dir: t.TempDir(), ChildCommand: embeddedtest.ChildCommand(t), Log: quiet()}
		s.start(t) // its port and passwords are kept
		env := s.engine.Env()
		fmt.Fprintf(&known, "<shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>%d</port><user>%s</user><password>%s</password></replica></shard>",
			env.Port, env.AdminUser, env.AdminPassword)
		s.stop(t)
	}
	for _, s := range shards {
		s.cfg.Extra = "<remote_servers><pair>" + known.String() + "</pair></remote_servers>"
		s.start(t)
		t.Cleanup(func() { s.stop(t) })
	}
	return shards
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
	ask("a prediction", func(s *Store) (any, error) { return s.Prediction(ctx, "default", ids[7]) })
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
