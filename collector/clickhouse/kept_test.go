package clickhouse

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/spool"
	"github.com/pellucid/pellucid/engine/stats"
)

// station is a spool at level machine, the writer that drains it, and the power.
type station struct {
	s     *Store
	m     *maker
	ref   *stats.Reference
	dead  *spool.Dead
	cfg   spool.Config
	boots int
	spool *spool.Spool
}

func newStation(t *testing.T) *station {
	t.Helper()
	dir := t.TempDir()
	x := &station{s: open(t), m: newMaker(t), dead: openDead(t, filepath.Join(dir, "dead"))}
	x.ref = x.m.reference(t, 300)
	x.cfg = spool.Config{
		Dir: filepath.Join(dir, "spool"), Level: spool.LevelMachine, BootIDPath: filepath.Join(dir, "boot"), SegmentBytes: 64 << 10, MinFreeBytes: -1,
		BatchRows: 40, BatchAge: time.Millisecond, Logger: quiet(),
	}
	x.start(t)
	return x
}

// start opens the spool on a machine that was started anew.
func (x *station) start(t *testing.T) {
	t.Helper()
	x.boots++
	if x.spool != nil {
		if err := x.spool.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(x.cfg.BootIDPath, fmt.Appendf(nil, "boot-%d\n", x.boots), 0o600); err != nil {
		t.Fatal(err)
	}
	sp, err := spool.Open(x.cfg)
	if err != nil {
		t.Fatal(err)
	}
	x.spool = sp
	t.Cleanup(func() { _ = sp.Close() })
}

func (x *station) append(t *testing.T, records ...collector.Record) {
	t.Helper()
	for _, r := range records {
		if err := x.spool.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

// drain runs a writer until everything is stored, and looked for where it is in doubt.
func (x *station) drain(t *testing.T) Health {
	t.Helper()
	w := writer(t, x.s, WriterConfig{
		Source: x.spool, Kept: x.spool, Dead: x.dead, Backoff: time.Millisecond, BackoffMax: 10 * time.Millisecond,
		Reference: func(string) *stats.Reference { return x.ref },
	})
	w.look = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	x.spool.Flush()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(time.Millisecond) {
		if st := x.spool.Stats(); st.Appended == st.Acked && !st.Doubt {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not drained: %+v, %v", x.spool.Stats(), w.Health())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return w.Health()
}

// lose drops some parts of a table, as a power cut does of files that were not synced.
func (x *station) lose(t *testing.T, rng *rand.Rand, table string) int {
	t.Helper()
	parts, err := x.s.strings(t.Context(), "SELECT name FROM system.parts WHERE database = currentDatabase() AND table = ? AND active AND rows > 0 ORDER BY name", table)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, p := range parts {
		if rng.IntN(2) == 0 || n == 0 && i == len(parts)-1 {
			exec(t, x.s, "ALTER TABLE "+table+" DROP PART '"+p+"'")
			n++
		}
	}
	return n
}

// TestPowerCutThatTakesWhatIsKnown: the store has all of a batch that was not acknowledged, and
// the power cut takes its list of tokens: the batch comes again, and is counted once.
func TestPowerCutThatTakesWhatIsKnown(t *testing.T) {
	x := newStation(t)
	x.append(t, x.m.schemaRecord(t))
	rows := 0
	fill := func(n int) {
		for i := range n {
			p := x.m.prediction(t, 1+i%3, base.Add(time.Duration(rows)*time.Second))
			rows += p.Rows
			x.append(t, record(p))
		}
	}
	fill(30)
	x.drain(t)
	for round := range 3 {
		fill(20)
		x.spool.Flush()
		b, err := x.spool.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w := writer(t, x.s, WriterConfig{Dead: x.dead, Backoff: time.Millisecond, Reference: func(string) *stats.Reference { return x.ref }})
		if err := w.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"predictions", "traffic_1m", "bins_1m"} {
			for _, window := range []int{0, 10000} {
				exec(t, x.s, fmt.Sprintf("ALTER TABLE %s MODIFY SETTING non_replicated_deduplication_window = %d", table, window))
			}
		}
		x.start(t)
		x.drain(t)
		x.m.consistent(t, x.s, rows)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

// TestPowerCutTakesWhatWasConfirmed has the server lose parts of every table after it
// had confirmed them, at random, or whole batches whose tokens it still knows: after
// the machine was started anew everything is there, once, and the rollups count it.
func TestPowerCutTakesWhatWasConfirmed(t *testing.T) {
	x := newStation(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	rows, predictions := 0, 0
	x.append(t, x.m.schemaRecord(t))
	fill := func() {
		for range 40 {
			// Some of them of another month, and the batches of a minute together.
			p := x.m.prediction(t, 1+rng.IntN(4), base.AddDate(0, -rng.IntN(2), 0).Add(time.Duration(predictions)*time.Second))
			p.Weight = []float64{1, 10, 0.1, 1. / 3, 0}[rng.IntN(5)]
			rows, predictions = rows+p.Rows, predictions+1
			doc, err := collector.EncodeExplanation(&collector.Explanation{PredictionID: p.ID + ".0", Model: "delay", Version: "1", Method: "tree_shap"})
			if err != nil {
				t.Fatal(err)
			}
			x.append(t, record(p),
				feedback(&collector.Feedback{Tenant: "default", PredictionID: p.ID + ".0", Label: "1", ObservedAt: base, ReceivedAt: p.ReceivedAt}),
				collector.Record{Kind: collector.KindExplanation, Version: collector.ExplanationVersion, Payload: doc},
				collector.Record{Kind: 99, Version: 1, Payload: []byte(p.ID)})
		}
	}
	check := func(what string) {
		t.Helper()
		x.m.consistent(t, x.s, rows)
		for sql, want := range map[string]int{
			"SELECT count() FROM feedback": predictions, "SELECT uniqExact(prediction_id) FROM feedback": predictions,
			"SELECT count() FROM undecodable": predictions, "SELECT uniqExact(payload) FROM undecodable": predictions,
			"SELECT uniqExact(target_id) FROM explanations": predictions, "SELECT uniqExact(id) FROM schemas": 1,
			"SELECT sum(requests) FROM traffic_1m": predictions,
		} {
			if got := number(t, x.s, sql); got != float64(want) {
				t.Errorf("%s: %s is %v, want %d", what, sql, got, want)
			}
		}
		if bytes, want := number(t, x.s, "SELECT sum(bytes) FROM traffic_1m"), number(t, x.s, "SELECT sum(bytes) FROM predictions"); bytes != want {
			t.Errorf("%s: the rollup counts %v bytes, want %v", what, bytes, want)
		}
		if left := x.dead.Len(); left > 0 {
			t.Errorf("%s: %d dead letters", what, left)
		}
	}
	fill()
	x.drain(t)
	check("at first")
	for round := range 4 {
		lost := 0
		for _, table := range []string{"predictions", "traffic_1m", "bins_1m", "feedback", "explanations", "schemas", "undecodable"} {
			if round < 2 || rng.IntN(2) == 0 {
				lost += x.lose(t, rng, table)
			}
		}
		if round > 1 { // the tokens stay known
			exec(t, x.s, fmt.Sprintf("ALTER TABLE predictions DELETE WHERE cityHash64(insert_batch) %% 3 = %d SETTINGS mutations_sync = 2", round%3))
			lost++
		}
		x.start(t)
		if lost > 0 && !x.spool.Stats().Doubt {
			t.Fatal("nothing is in doubt")
		}
		fill() // and the drain goes on behind it
		h := x.drain(t)
		check(fmt.Sprintf("round %d, %d parts lost, %d sent again", round, lost, h.Restored))
		if lost > 0 && h.Restored == 0 {
			t.Errorf("round %d: %d parts were lost and nothing was sent again", round, lost)
		}
		if t.Failed() {
			return
		}
	}
	for _, table := range []string{"traffic_1m", "predictions"} {
		exec(t, x.s, "TRUNCATE TABLE "+table)
		x.start(t)
		x.drain(t)
		check(table + " truncated")
	}
	x.start(t)
	if h := x.drain(t); h.Restored != 0 {
		t.Errorf("nothing was lost, and %d were sent again", h.Restored)
	}
	check("nothing lost")
}

// TestDeadLettersAfterAPowerCut: what was deleted stays so, what another batch has
// brought home is there once, and what is still kept is not kept twice.
func TestDeadLettersAfterAPowerCut(t *testing.T) {
	x := newStation(t)
	exec(t, x.s, refuseAge)
	records, rows, poisoned := x.m.batchWith(t, 20, base, 3, 9, 14)
	x.append(t, records...)
	x.drain(t)
	x.m.consistent(t, x.s, rows-poisoned)
	list := x.dead.List()
	if len(list) != 3 {
		t.Fatalf("%d letters", len(list))
	}
	home, deleted, kept := list[0], list[1], list[2]
	exec(t, x.s, refuseAgeDrop)
	for _, r := range driven(t, x.dead)[:1] {
		x.append(t, r)
	}
	x.drain(t)
	if n, err := x.dead.Delete([]string{deleted.ID}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	want := rows - poisoned + home.Rows
	x.m.consistent(t, x.s, want)
	for _, lose := range []string{
		"TRUNCATE TABLE predictions", "TRUNCATE TABLE traffic_1m", "TRUNCATE TABLE bins_1m",
		"ALTER TABLE predictions DELETE WHERE id = '" + home.Record + "' SETTINGS mutations_sync = 2",
	} {
		exec(t, x.s, lose)
		x.start(t)
		x.drain(t)
		x.m.consistent(t, x.s, want)
		if left := x.dead.List(); len(left) != 1 || left[0].ID != kept.ID || left[0].Tries != kept.Tries {
			t.Errorf("%s: letters %+v", lose, left)
		}
		if t.Failed() {
			t.Fatal(lose)
		}
	}
	for _, r := range driven(t, x.dead) {
		x.append(t, r)
	}
	x.drain(t)
	x.m.consistent(t, x.s, want+kept.Rows)
}

// TestPowerCutInTheMiddleOfABatch: its rows are stored and not counted yet, while those
// of the batches before it were, and are not any more.
func TestPowerCutInTheMiddleOfABatch(t *testing.T) {
	x := newStation(t)
	records, rows, _ := x.m.batchWith(t, 60, base)
	x.append(t, records...)
	x.drain(t)
	more, n, _ := x.m.batchWith(t, 10, base)
	x.append(t, more...)
	x.spool.Flush()
	b, err := x.spool.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := writer(t, x.s, WriterConfig{Reference: func(string) *stats.Reference { return x.ref }})
	p := w.sort(b)
	w.bin(t.Context(), p)
	for _, in := range w.rowInserts(p) {
		if _, _, err := w.place(t.Context(), b.Token, in); err != nil {
			t.Fatal(err)
		}
	}
	if got := number(t, x.s, "SELECT count() FROM predictions") - number(t, x.s, "SELECT sum(rows) FROM traffic_1m"); got != float64(n) {
		t.Fatalf("%v rows are not counted, want %d", got, n)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	if x.lose(t, rng, "traffic_1m")+x.lose(t, rng, "bins_1m") == 0 {
		t.Fatal("nothing was lost")
	}
	x.start(t)
	if h := x.drain(t); h.Restored == 0 {
		t.Error("nothing was sent again")
	}
	x.m.consistent(t, x.s, rows+n)
}

// TestShortfallThatIsNotExactIsLeft: where rows were taken out of a rollup that no set
// of batches accounts for, nothing is guessed; and where it counts more, nothing is
// taken away.
func TestShortfallThatIsNotExactIsLeft(t *testing.T) {
	x := newStation(t)
	records, rows, _ := x.m.batchWith(t, 30, base)
	x.append(t, records...)
	x.drain(t)
	x.m.consistent(t, x.s, rows)
	one, err := x.s.strings(t.Context(), "SELECT id FROM predictions ORDER BY id LIMIT 1")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, x.s, "ALTER TABLE predictions DELETE WHERE id = '"+one[0]+"' SETTINGS mutations_sync = 2")
	less := number(t, x.s, "SELECT count() FROM predictions")
	w := writer(t, x.s, WriterConfig{Source: &list{}})
	batches, err := x.s.strings(t.Context(), "SELECT DISTINCT insert_batch FROM predictions")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, statement string
	}{
		{"counts more than there is", "SELECT 1"},
		{"is short of something else", "INSERT INTO traffic_1m (tenant, model, version, route, status_class, minute, requests, rows, bytes) SELECT tenant, model, version, route, 2, minute, -5, -5, 7 FROM traffic_1m GROUP BY tenant, model, version, route, minute"},
	} {
		exec(t, x.s, c.statement)
		before := number(t, x.s, "SELECT sum(rows) FROM traffic_1m")
		if n, err := w.restoreRollups(t.Context(), batches, ""); err != nil || n != 0 {
			t.Errorf("a rollup that %s: %d sent, %v", c.what, n, err)
		}
		if got := number(t, x.s, "SELECT sum(rows) FROM traffic_1m"); got != before {
			t.Errorf("a rollup that %s: %v rows, before %v (%v stored)", c.what, got, before, less)
		}
	}
}

func TestExplainFindsTheSharesThatAreLost(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 300 {
		var list []share
		for i := range 1 + rng.IntN(12) {
			sh := share{batch: fmt.Sprint(i), order: i, minutes: map[int64]sums{}}
			for range 1 + rng.IntN(3) {
				n := int64(1 + rng.IntN(3))
				sh.minutes[60*int64(i/4+rng.IntN(2))] = sums{n, n, 100 * n, rng.Int64N(1_000_000)}
			}
			list = append(list, sh)
		}
		short, want := map[int64]sums{}, []string{}
		for _, sh := range list {
			lost := rng.IntN(2) == 0
			if lost {
				want = append(want, sh.batch)
			}
			for m, v := range sh.minutes {
				have := short[m]
				for i := range v {
					if lost {
						have[i] += v[i]
					}
				}
				short[m] = have
			}
		}
		found, exact := explain(short, list)
		got := []string{}
		for _, sh := range found {
			got = append(got, sh.batch)
		}
		if !exact || strings.Join(got, ",") != strings.Join(want, ",") {
			t.Fatalf("round %d: found %v, lost were %v, exact %t", round, got, want, exact)
		}
		if len(want) == 0 {
			continue
		}
		for m, v := range short { // one row that is nobody's
			if v[0] > 0 {
				short[m] = sums{v[0] + 1, v[1], v[2], v[3] + 1}
				break
			}
		}
		if _, exact := explain(short, list); exact {
			t.Fatalf("round %d: accounted for what nobody has", round)
		}
	}
}

// TestTablesThatAreNotSyncedAreRefused at durability machine, by name; tables made then
// are synced whatever the server's default.
func TestTablesThatAreNotSyncedAreRefused(t *testing.T) {
	s := open(t)
	if err := s.checkTables(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.synced = true
	if err := s.checkTables(t.Context()); err != nil {
		t.Fatalf("the embedded server syncs every table: %v", err)
	}
	exec(t, s, "ALTER TABLE feedback MODIFY SETTING fsync_after_insert = 0")
	err := s.checkTables(t.Context())
	if err == nil || !strings.Contains(err.Error(), "table feedback ") || !strings.Contains(err.Error(), "ALTER TABLE feedback MODIFY SETTING "+syncSettings) {
		t.Errorf("a table that does not sync: %v", err)
	}
	_, mend, _ := strings.Cut(err.Error(), "allow: ")
	exec(t, s, mend)
	if err := s.checkTables(t.Context()); err != nil {
		t.Error(err)
	}
	exec(t, s, "DROP TABLE feedback")
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	full, err := s.strings(t.Context(), "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'feedback'")
	if err != nil || len(full) != 1 {
		t.Fatal(full, err)
	}
	if err := checkSynced("feedback", full[0], nil); err != nil {
		t.Errorf("a table made at level machine: %v", err)
	}
	for engine, want := range map[string]bool{
		"ReplicatedMergeTree('/x', '{replica}') ORDER BY id SETTINGS " + syncSettings: true,
		"ReplicatedMergeTree('/x', '{replica}') ORDER BY id":                          false,
		"MergeTree ORDER BY id":                                   true,
		"MergeTree ORDER BY id SETTINGS fsync_part_directory = 0": false,
	} {
		err := checkSynced("x", engine, map[string]string{"fsync_after_insert": "1", "fsync_part_directory": "1"})
		if (err == nil) != want {
			t.Errorf("%s: %v", engine, err)
		}
	}
	for _, m := range migrations() {
		made := strings.HasPrefix(m, "CREATE TABLE") && strings.Contains(m, "MergeTree")
		if strings.Contains(s.withSync(m), syncSettings) != made {
			t.Errorf("%s: does not sync", title(m))
		}
	}
}
