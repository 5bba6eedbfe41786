package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
	"github.com/pellucid/pellucid/collector/spool"
	"github.com/pellucid/pellucid/engine/stats"
)

// poison is an age that no other row has; refuseAge makes the server refuse it.
const (
	poison        = 770077
	refuseAge     = "ALTER TABLE predictions ADD CONSTRAINT no_poison CHECK NOT has(i64, 770077)"
	refuseAgeDrop = "ALTER TABLE predictions DROP CONSTRAINT no_poison"
)

func openDead(t testing.TB, dir string) *spool.Dead {
	t.Helper()
	d, err := spool.OpenDead(spool.DeadConfig{Dir: dir, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func exec(t testing.TB, s *Store, statement string) {
	t.Helper()
	if err := s.conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// driven are the records that driving letters appends to the spool.
func driven(t testing.TB, d *spool.Dead) (out []collector.Record) {
	t.Helper()
	for _, l := range d.List() {
		whole, err := d.Get(l.ID)
		if err != nil {
			t.Fatal(err)
		}
		payload, err := collector.EncodeDeadLetter(whole)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, collector.Record{Kind: collector.KindDriven, Version: collector.DeadLetterVersion, Payload: payload})
	}
	return out
}

// batchWith makes n predictions of one to three rows, those at the places of bad
// poisoned, and counts rows and the poisoned ones among them.
func (m *maker) batchWith(t testing.TB, n int, at time.Time, bad ...int) (records []collector.Record, rows, poisoned int) {
	t.Helper()
	records = append(records, m.schemaRecord(t))
	for i := range n {
		p := m.prediction(t, 1+i%3, at.AddDate(0, i%2, 0).Add(time.Duration(i)*time.Second))
		rows += p.Rows
		for _, b := range bad {
			if b == i {
				p.Features.I64[0] = poison
				poisoned += p.Rows
				break
			}
		}
		records = append(records, record(p))
	}
	return records, rows, poisoned
}

// TestAViewThatThrows: somebody's view of predictions throws at some rows, which are in the table
// by then. What is stored is counted, and has no letter.
func TestAViewThatThrows(t *testing.T) {
	s, m := open(t), newMaker(t)
	ref := m.reference(t, 300)
	dead := openDead(t, t.TempDir())
	w := writer(t, s, WriterConfig{Dead: dead, Backoff: time.Millisecond, Reference: func(string) *stats.Reference { return ref }})
	records, rows, _ := m.batchWith(t, 5, base)
	write(t, w, "a", records...)
	exec(t, s, "CREATE TABLE somebodys (n UInt8) ENGINE = MergeTree ORDER BY n")
	exec(t, s, "CREATE MATERIALIZED VIEW somebodys_mv TO somebodys AS SELECT throwIf(has(i64, 770077)) AS n FROM predictions")
	more, others, _ := m.batchWith(t, 20, base.Add(time.Hour), 0, 7, 8, 19)
	write(t, w, "b", more...)
	m.consistent(t, s, rows+others)
	if n := dead.Len(); n != 0 {
		t.Errorf("%d rows that are stored have letters", n)
	}
	exec(t, s, "DROP VIEW somebodys_mv")
}

func TestPoisonRowsBecomeDeadLetters(t *testing.T) {
	s, m, dir := open(t), newMaker(t), t.TempDir()
	ref := m.reference(t, 300)
	dead := openDead(t, dir)
	cfg := WriterConfig{Dead: dead, Backoff: time.Millisecond, Reference: func(string) *stats.Reference { return ref }}
	exec(t, s, refuseAge)
	records, rows, poisoned := m.batchWith(t, 70, base, 0, 1, 17, 40, 69)
	w := writer(t, s, cfg)
	write(t, w, "b", records...)
	m.consistent(t, s, rows-poisoned)
	check := func(what string, want int) {
		t.Helper()
		if got := dead.Len(); got != want {
			t.Fatalf("%s: %d letters, want %d", what, got, want)
		}
	}
	check("at first", 5)
	for _, l := range dead.List() {
		if l.Reason != "VIOLATED_CONSTRAINT" || l.Code != 469 || l.Detail != "no_poison" || l.Batch != "b" || l.Insert != "predictions" || l.Model != "delay" || l.Record == "" || l.Tries != 1 {
			t.Errorf("letter %+v", l)
		}
		if strings.Contains(fmt.Sprintf("%+v", l), fmt.Sprint(poison)) {
			t.Errorf("a letter's reason quotes a value: %+v", l)
		}
	}
	if h := w.Health(); h.Err != nil || h.Dead != 5 || h.Rows != uint64(rows-poisoned) {
		t.Errorf("health %+v", h)
	}
	// The same batch by the next process, also when the server would take it whole.
	write(t, writer(t, s, cfg), "b", records...)
	m.consistent(t, s, rows-poisoned)
	exec(t, s, refuseAgeDrop)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	dead = openDead(t, dir)
	cfg.Dead = dead
	write(t, writer(t, s, cfg), "b", records...)
	m.consistent(t, s, rows-poisoned)
	check("after a restart", 5)
	// Driven while one of them is refused still, then all; each twice, in one batch
	// and in another, as a kill between the append and the answer makes it.
	again := driven(t, dead)
	exec(t, s, refuseAge)
	write(t, writer(t, s, cfg), "d0", again[:1]...)
	check("refused again", 5)
	if l := dead.List()[4]; l.Tries != 2 || l.Batch != "d0" {
		t.Errorf("driven in vain: %+v", l)
	}
	exec(t, s, refuseAgeDrop)
	again = driven(t, dead)
	write(t, writer(t, s, cfg), "d1", append(again, again...)...)
	m.consistent(t, s, rows)
	check("home", 0)
	for _, token := range []string{"d1", "d2"} {
		write(t, writer(t, s, cfg), token, append(again, again...)...)
		m.consistent(t, s, rows)
	}
	// What nobody understands may be refused as well.
	exec(t, s, "ALTER TABLE undecodable ADD CONSTRAINT c CHECK kind = 1")
	junk := collector.Record{Kind: collector.KindDriven, Version: 1, Payload: []byte("junk")}
	write(t, writer(t, s, cfg), "junk", junk, collector.Record{Kind: 1, Version: 1, Payload: []byte("junk")})
	if l := dead.List(); len(l) != 1 || l[0].Insert != "undecodable" || number(t, s, "SELECT count() FROM undecodable") != 1 {
		t.Errorf("refused junk: %+v", l)
	}
	exec(t, s, "ALTER TABLE undecodable DROP CONSTRAINT c")
	write(t, writer(t, s, cfg), "junk2", driven(t, dead)...)
	if n := number(t, s, "SELECT count() FROM undecodable"); n != 2 || dead.Len() != 0 {
		t.Errorf("junk driven: %g records, %d letters", n, dead.Len())
	}
}

// TestPoisonAtRegularDistances: every tenth record is refused, which is no fault of the server's
// wherever the looks at single ones fall. Where the server names the row, a record at fault costs
// three inserts and not two for each halving; a constraint whose expression throws names none.
func TestPoisonAtRegularDistances(t *testing.T) {
	s, m := open(t), newMaker(t)
	for i, c := range []struct {
		constraint string
		n, every   int
		inserts    float64 // a letter
	}{{"NOT has(i64, 770077)", 320, 10, 4.5}, {"throwIf(has(i64, 770077)) = 0", 320, 10, 9}, {"NOT has(i64, 770077)", 64, 32, 8}} {
		exec(t, s, "ALTER TABLE predictions ADD CONSTRAINT c CHECK "+c.constraint)
		var bad []int
		for at := c.every / 2; at < c.n; at += c.every {
			bad = append(bad, at)
		}
		dead := openDead(t, t.TempDir())
		var st BatchStats
		before := number(t, s, "SELECT count() FROM predictions")
		records, rows, poisoned := m.batchWith(t, c.n, base, bad...)
		write(t, writer(t, s, WriterConfig{Dead: dead, Backoff: time.Millisecond, OnBatch: func(b BatchStats) { st = b }}), fmt.Sprint("d", i), records...)
		if got := number(t, s, "SELECT count() FROM predictions") - before; got != float64(rows-poisoned) || dead.Len() != len(bad) {
			t.Errorf("%s: %v rows of %d, %d letters of %d", c.constraint, got, rows-poisoned, dead.Len(), len(bad))
		}
		a := float64(st.Attempts) / float64(len(bad))
		if a > c.inserts {
			t.Errorf("%s: %.1f inserts a letter", c.constraint, a)
		}
		exec(t, s, "ALTER TABLE predictions DROP CONSTRAINT c")
	}
}

// TestLettersRefusedAgain: letters that are driven though nothing was mended come back, however
// many they are, and hold up nothing.
func TestLettersRefusedAgain(t *testing.T) {
	s, m, dead := open(t), newMaker(t), openDead(t, t.TempDir())
	cfg := WriterConfig{Dead: dead, Backoff: time.Millisecond, BackoffMax: time.Hour}
	exec(t, s, refuseAge)
	var bad []int
	for i := range 40 {
		bad = append(bad, 3*i)
	}
	records, rows, poisoned := m.batchWith(t, 120, base, bad...)
	write(t, writer(t, s, cfg), "b", records...)
	again := driven(t, dead)
	more, others, _ := m.batchWith(t, 3, base)
	for i, with := range [][]collector.Record{nil, more} {
		write(t, writer(t, s, cfg), fmt.Sprint("d", i), append(again, with...)...)
		if dead.Len() != len(bad) {
			t.Fatalf("%d letters, want %d", dead.Len(), len(bad))
		}
		for _, l := range dead.List() {
			if l.Tries != 2+i {
				t.Fatalf("letter %+v", l)
			}
		}
		if i == 0 { // as a kill between the append and the answer makes it
			write(t, writer(t, s, cfg), "twice", again...)
			if dead.Len() != len(bad) {
				t.Fatalf("%d letters of %d records", dead.Len(), len(bad))
			}
		}
		again = driven(t, dead)
	}
	if got := number(t, s, "SELECT count() FROM predictions"); got != float64(rows-poisoned+others) {
		t.Errorf("%v rows are stored", got)
	}
	exec(t, s, refuseAgeDrop)
	write(t, writer(t, s, cfg), "home", again...)
	if got := number(t, s, "SELECT count() FROM predictions"); got != float64(rows+others) || dead.Len() != 0 {
		t.Errorf("%v rows of %d, %d letters", got, rows+others, dead.Len())
	}
}

// TestRollupAndFeedbackRefusals: rows are stored, their part in a rollup or their
// label is a letter until it is driven.
func TestRollupAndFeedbackRefusals(t *testing.T) {
	s, m, dir := open(t), newMaker(t), t.TempDir()
	ref := m.reference(t, 300)
	dead := openDead(t, dir)
	cfg := WriterConfig{Dead: dead, Backoff: time.Millisecond, Reference: func(string) *stats.Reference { return ref }}
	records, rows, _ := m.batchWith(t, 40, base)
	bad := 0
	for _, i := range []int{3, 21} {
		p := m.prediction(t, 2, base.Add(time.Duration(i)*time.Hour))
		p.Version = "bad"
		rows, bad = rows+p.Rows, bad+p.Rows
		records = append(records, record(p))
	}
	for i := range 30 {
		label := "late"
		if i == 7 {
			label = "poison"
		}
		records = append(records, feedback(&collector.Feedback{Tenant: "default", Model: "delay", PredictionID: fmt.Sprint("p", i), Label: label, ObservedAt: base, ReceivedAt: base}))
	}
	tables := map[string]string{"traffic_1m": "version != 'bad'", "bins_1m": "version != 'bad'", "feedback": "label != 'poison'"}
	for table, check := range tables {
		exec(t, s, "ALTER TABLE "+table+" ADD CONSTRAINT c CHECK "+check)
	}
	numbers := func(what string, counted, labels int) {
		t.Helper()
		for sql, want := range map[string]int{
			"SELECT count() FROM predictions": rows, "SELECT uniqExact(id, row) FROM predictions": rows, "SELECT sum(rows) FROM traffic_1m": counted,
			"SELECT sum(weight) FROM bins_1m WHERE field = 0": counted, "SELECT count() FROM feedback": labels,
		} {
			if got := number(t, s, sql); got != float64(want) {
				t.Errorf("%s: %s is %v, want %d", what, sql, got, want)
			}
		}
	}
	write(t, writer(t, s, cfg), "b", records...)
	numbers("at first", rows-bad, 29)
	kinds := map[string]int{}
	for _, l := range dead.List() {
		kinds[l.Insert]++
	}
	if fmt.Sprint(kinds) != "map[bins:2 feedback:1 traffic:2]" {
		t.Fatalf("letters %v", kinds)
	}
	// A new process looks whether the rollups are whole: they are, but for letters.
	write(t, writer(t, s, cfg), "b", records...)
	numbers("offered again", rows-bad, 29)
	late, n, _ := m.batchWith(t, 4, base)
	rows += n
	write(t, writer(t, s, cfg), "c", late...)
	numbers("a batch in the same minutes", rows-bad, 29)
	for table := range tables {
		exec(t, s, "ALTER TABLE "+table+" DROP CONSTRAINT c")
	}
	write(t, writer(t, s, cfg), "c", late...)
	numbers("offered again without constraints", rows-bad, 29)
	again := driven(t, dead)
	for _, token := range []string{"d", "d", "e"} {
		write(t, writer(t, s, cfg), token, again...)
		numbers("driven in "+token, rows, 30)
	}
	if dead.Len() != 0 {
		t.Errorf("%d letters left", dead.Len())
	}
}

// mortal ends the process, as far as the writer can tell, at its k-th call.
type mortal struct {
	*spool.Dead
	left int
	die  context.CancelFunc
}

var errDied = errors.New("the process has died")

func (d *mortal) step() bool {
	if d.left--; d.left == 0 {
		d.die()
	}
	return d.left > 0
}

func (d *mortal) Divided(batch, token string) (int, bool) {
	d.step()
	return d.Dead.Divided(batch, token)
}

func (d *mortal) Divide(batch, token string, alone int) error {
	if !d.step() {
		return errDied
	}
	err := d.Dead.Divide(batch, token, alone)
	d.step()
	return err
}

func (d *mortal) Bury(list []collector.DeadLetter) error {
	if !d.step() {
		return errDied
	}
	err := d.Dead.Bury(list)
	d.step()
	return err
}

func (d *mortal) Finish(batch string, home []string) error {
	if !d.step() {
		return errDied
	}
	err := d.Dead.Finish(batch, home)
	d.step()
	return err
}

// TestDeathAtEveryStep: the process dies at every step of dividing a batch, also of
// one that brings letters home, and the next one, for which the server may by then
// take everything, stores each good row once.
func TestDeathAtEveryStep(t *testing.T) {
	s, m, dir := open(t), newMaker(t), t.TempDir()
	ref := m.reference(t, 300)
	dead := openDead(t, dir)
	refuse := false
	total, steps := 0, 0
	var before []collector.Record
	for k := 1; ; k++ {
		if !refuse {
			exec(t, s, refuseAge)
			refuse = true
		}
		records, rows, _ := m.batchWith(t, 9, base.Add(time.Duration(k)*time.Minute), 2, 7)
		records = append(records, before...)
		total += rows
		token := fmt.Sprint("b", k)
		ctx, cancel := context.WithCancel(t.Context())
		d := &mortal{Dead: dead, left: k, die: cancel}
		cfg := WriterConfig{Dead: d, Backoff: time.Millisecond, BackoffMax: 2 * time.Millisecond, Reference: func(string) *stats.Reference { return ref }}
		err := writer(t, s, cfg).Write(ctx, &collector.Batch{Token: token, Records: records})
		cancel()
		if k%2 == 1 {
			exec(t, s, refuseAgeDrop)
			refuse = false
		}
		if err := dead.Close(); err != nil {
			t.Fatal(err)
		}
		dead = openDead(t, dir)
		cfg.Dead = dead
		write(t, writer(t, s, cfg), token, records...)
		lying := 0
		for _, l := range dead.List() {
			lying += l.Rows
		}
		m.consistent(t, s, total-lying)
		if t.Failed() {
			t.Fatalf("death at step %d (%v): %d rows, %d in letters", k, err, total, lying)
		}
		before = driven(t, dead)
		if err == nil {
			steps = k
			break
		}
	}
	exec(t, s, "ALTER TABLE predictions DROP CONSTRAINT IF EXISTS no_poison")
	write(t, writer(t, s, WriterConfig{Dead: dead, Reference: func(string) *stats.Reference { return ref }}), "home", before...)
	m.consistent(t, s, total)
	if dead.Len() != 0 || steps < 20 {
		t.Errorf("%d letters left after %d deaths", dead.Len(), steps)
	}
}

// TestServerFaultIsNotPoison: where nearly everything is refused, or the statement
// itself is, nothing is set aside and the batch waits.
func TestServerFaultIsNotPoison(t *testing.T) {
	s, m := open(t), newMaker(t)
	dead := openDead(t, t.TempDir())
	cfg := WriterConfig{Dead: dead, Backoff: time.Millisecond, BackoffMax: 5 * time.Millisecond}
	total := 0
	for i, fault := range []struct {
		n          int
		make, mend string
		permanent  bool
	}{
		{40, "ALTER TABLE predictions ADD CONSTRAINT c CHECK row > 1000", "ALTER TABLE predictions DROP CONSTRAINT c", true},
		{400, "ALTER TABLE predictions ADD CONSTRAINT c CHECK row > 1000", "ALTER TABLE predictions DROP CONSTRAINT c", true},
		{12, "ALTER TABLE predictions RENAME COLUMN weight TO gewicht", "ALTER TABLE predictions RENAME COLUMN gewicht TO weight", true},
		{1, "RENAME TABLE predictions TO aside", "RENAME TABLE aside TO predictions", true},
	} {
		records, rows, _ := m.batchWith(t, fault.n, base)
		exec(t, s, fault.make)
		w := writer(t, s, cfg)
		done := make(chan error, 1)
		go func() {
			done <- w.Write(t.Context(), &collector.Batch{Token: fmt.Sprint("b", i), Records: records[1:]})
		}()
		for deadline := time.Now().Add(3 * time.Minute); w.Health().Retries < 25 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		h := w.Health()
		if h.Err == nil || h.Permanent != fault.permanent || dead.Len() != 0 {
			t.Errorf("%s: health %+v, %d letters", fault.make, h, dead.Len())
		}
		exec(t, s, fault.mend)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		total += rows
		if got := number(t, s, "SELECT count() FROM predictions"); got != float64(total) || dead.Len() != 0 {
			t.Errorf("%s, mended: %v rows of %d, %d letters", fault.make, got, total, dead.Len())
		}
	}
	// One record alone may be poison.
	exec(t, s, refuseAge)
	records, _, _ := m.batchWith(t, 1, base, 0)
	write(t, writer(t, s, cfg), "alone", records[1:]...)
	if dead.Len() != 1 || number(t, s, "SELECT count() FROM predictions") != float64(total) {
		t.Errorf("a batch of one poisoned record: %d letters", dead.Len())
	}
	// And where there is no room for letters the drain waits.
	small, err := spool.OpenDead(spool.DeadConfig{Dir: t.TempDir(), MaxLetters: 1, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	cfg.Dead = small
	records, _, _ = m.batchWith(t, 6, base, 1, 3) // of one month
	w := writer(t, s, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Write(ctx, &collector.Batch{Token: "full", Records: records}) }()
	for deadline := time.Now().Add(30 * time.Second); !errors.Is(w.Health().Err, collector.ErrFull) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if err := w.Health().Err; !errors.Is(err, collector.ErrFull) || small.Len() != 0 {
		t.Errorf("no room for letters: %v, %d letters", err, small.Len())
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("a batch whose letters found no room was stored")
	}
}

// TestKilledEngineWithPoison: kill -9 of the engine while batches are divided.
func TestKilledEngineWithPoison(t *testing.T) {
	e, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), ChildCommand: embeddedtest.ChildCommand(t), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s, m := openDSN(t, e.Env().DSN()), newMaker(t)
	ref := m.reference(t, 300)
	exec(t, s, refuseAge)
	dead := openDead(t, t.TempDir())
	src := &list{}
	rows, poisoned := 0, 0
	for i := range 40 {
		records, n, bad := m.batchWith(t, 50, base.Add(time.Duration(i)*time.Second), m.rng.Intn(50), m.rng.Intn(50))
		rows, poisoned = rows+n, poisoned+bad
		src.batches = append(src.batches, &collector.Batch{Token: fmt.Sprintf("b%03d", i), Records: records})
	}
	w := writer(t, s, WriterConfig{Source: src, Dead: dead, Backoff: 20 * time.Millisecond, Reference: func(string) *stats.Reference { return ref }})
	w.look = 200 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	total := src.left()
	for round := 1; round <= 4; round++ {
		for src.left() > total-total*round/5 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(m.rng.Intn(40)) * time.Millisecond)
		if err := syscall.Kill(e.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(120 * time.Second)
	for src.left() > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d batches left: %v", src.left(), w.Health().Err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.consistent(t, s, rows-poisoned)
	exec(t, s, refuseAgeDrop)
	again := driven(t, dead)
	src.mu.Lock()
	src.batches = append(src.batches, &collector.Batch{Token: "home", Records: again})
	src.mu.Unlock()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	write(t, w, "home", again...)
	m.consistent(t, s, rows)
	if dead.Len() != 0 {
		t.Errorf("%d letters left", dead.Len())
	}
	t.Logf("%d rows, %d poisoned, %d kills, health %+v", rows, poisoned, e.Restarts(), w.Health())
}
