package clickhouse

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

func TestMain(m *testing.M) { embeddedtest.Main(m) }

func open(t testing.TB) *Store {
	t.Helper()
	return openDSN(t, embeddedtest.DSN(t))
}

func openDSN(t testing.TB, dsn string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// A model of one float32, one float64, one integer, one text feature, a named
// category and a dropped one; one output.
func testSchema(t testing.TB) *collector.Schema {
	t.Helper()
	s := &collector.Schema{
		Features: []collector.Field{
			{Name: "distance", DType: engine.Float32, Elements: 1},
			{Name: "income", DType: engine.Float64, Elements: 1},
			{Name: "age", DType: engine.Int64, Elements: 1},
			{Name: "city", DType: engine.String, Elements: 1, Categorical: true},
			{Name: "secret", DType: engine.Float64, Elements: 0, Private: collector.PrivacyDrop},
			{Name: "carrier", DType: engine.Float32, Elements: 1, Categorical: true, Categories: []string{"AA", "UA", "WN"}},
		},
		Outputs: []collector.Field{{Name: "prediction", DType: engine.Float32, Elements: 1}},
	}
	doc, err := collector.EncodeSchema(s)
	if err != nil {
		t.Fatal(err)
	}
	out, err := collector.DecodeSchema(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type maker struct {
	rng    *rand.Rand
	schema *collector.Schema
	cities []string
}

func newMaker(t testing.TB) *maker {
	return &maker{rng: rand.New(rand.NewSource(7)), schema: testSchema(t), cities: []string{"Oslo", "O'Hare", `back\slash`, ""}}
}

var base = time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC)

// prediction returns rows rows received at base+offset with event time there too.
func (m *maker) prediction(t testing.TB, rows int, at time.Time) *collector.Prediction {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	p := &collector.Prediction{
		ID: id.String(), Rows: rows, ReceivedAt: at.Truncate(time.Millisecond), Times: []time.Time{at.Truncate(time.Microsecond)},
		Tenant: "default", Model: "delay", Version: "1", Digest: "d1", Route: collector.RouteInfer,
		TraceID: strings.ReplaceAll(id.String(), "-", ""), SpanID: "00f067aa0ba902b7", Status: 200, Capture: "full", Weight: 1,
		Latency: collector.Stages{Decode: 1000, Model: 20000, Encode: 3000, Capture: 400, Total: 50000}, SchemaID: m.schema.ID,
	}
	for range rows {
		score := float32(m.rng.Float64())
		p.Features.F32 = append(p.Features.F32, float32(m.rng.NormFloat64()), float32(m.rng.Intn(3)))
		p.Features.F64 = append(p.Features.F64, m.rng.NormFloat64())
		p.Features.I64 = append(p.Features.I64, int64(m.rng.Intn(90)))
		p.Features.Str = append(p.Features.Str, m.cities[m.rng.Intn(len(m.cities))])
		p.Outputs.F32 = append(p.Outputs.F32, score)
		p.Scores = append(p.Scores, float64(score))
		p.Decided = append(p.Decided, map[bool]string{true: "late", false: "on_time"}[score > 0.5])
	}
	return p
}

func record(p *collector.Prediction) collector.Record {
	return collector.Record{Kind: collector.KindPrediction, Version: 1, Payload: collector.AppendPrediction(nil, p)}
}

func feedback(f *collector.Feedback) collector.Record {
	return collector.Record{Kind: collector.KindFeedback, Version: collector.FeedbackVersion, Payload: collector.AppendFeedback(nil, f)}
}

func (m *maker) schemaRecord(t testing.TB) collector.Record {
	t.Helper()
	doc, err := collector.EncodeSchema(m.schema)
	if err != nil {
		t.Fatal(err)
	}
	return collector.Record{Kind: collector.KindSchema, Version: collector.SchemaVersion, Payload: doc}
}

func writer(t testing.TB, s *Store, cfg WriterConfig) *Writer {
	t.Helper()
	if cfg.Source == nil {
		cfg.Source = &list{}
	}
	cfg.Log = quiet()
	w, err := NewWriter(s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Dead != nil {
		w.look = 2 * time.Millisecond // these tests look often, for what is mostly not there
	}
	return w
}

// list is a Source of batches, in order, each handed out until acknowledged.
type list struct {
	mu      sync.Mutex
	batches []*collector.Batch
	acked   []string
	twice   bool // hand every batch out once more after its acknowledgement
	again   bool
}

func (l *list) Next(ctx context.Context) (*collector.Batch, error) {
	l.mu.Lock()
	if len(l.batches) > 0 {
		defer l.mu.Unlock()
		return l.batches[0], nil
	}
	l.mu.Unlock()
	<-ctx.Done()
	return nil, ctx.Err()
}

func (l *list) Ack(_ context.Context, b *collector.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b != l.batches[0] {
		return fmt.Errorf("acknowledged %s out of order", b.Token)
	}
	if l.twice && !l.again {
		l.again = true
		return nil
	}
	l.again = false
	l.acked = append(l.acked, b.Token)
	l.batches = l.batches[1:]
	return nil
}

func (l *list) left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.batches)
}

func write(t testing.TB, w *Writer, token string, records ...collector.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := w.Write(ctx, &collector.Batch{Token: token, Records: records}); err != nil {
		t.Fatalf("write %s: %v (%v)", token, err, w.Health().Err)
	}
}

func number(t testing.TB, s *Store, sql string, args ...any) float64 {
	t.Helper()
	var x float64
	if err := s.conn.QueryRow(t.Context(), "SELECT toFloat64(("+sql+"))", args...).Scan(&x); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return x
}

func TestRowsComeBackAsTheyWere(t *testing.T) {
	s, m := open(t), newMaker(t)
	w := writer(t, s, WriterConfig{})
	one, many := m.prediction(t, 1, base.Add(123456*time.Microsecond)), m.prediction(t, 3, base.Add(time.Second))
	one.ExternalIDs = []string{"order-1"}
	many.ExternalIDs = []string{"a", "b", "c"}
	many.Times = []time.Time{base, base.Add(time.Microsecond), time.Date(2013, 1, 1, 5, 0, 0, 0, time.UTC)}
	many.Features.F32[2], many.Features.F64[1] = float32(math.NaN()), math.Inf(1)
	failed := m.prediction(t, 1, base.Add(2*time.Second))
	failed.Status, failed.Error, failed.Features, failed.Outputs, failed.Scores, failed.Decided = 400, "bad input", collector.Columns{}, collector.Columns{}, nil, nil
	many.Attempts = []collector.Attempt{{Status: 503, MS: 1.5}, {MS: 30000}, {Status: 200, MS: 0.25}}
	failed.Attempts = []collector.Attempt{{Status: 422, MS: 2}}
	write(t, w, "b1", m.schemaRecord(t), record(one), record(many), record(failed))

	for _, p := range []*collector.Prediction{one, many, failed} {
		got, err := s.Prediction(t.Context(), collector.Ref{Tenant: "default", ID: p.ID})
		if err != nil {
			t.Fatal(err)
		}
		want := collector.StoredRows(p, m.schema)
		if len(got) != len(want) {
			t.Fatalf("%d rows, want %d", len(got), len(want))
		}
		for i := range want {
			if g, w := show(got[i]), show(want[i]); g != w {
				t.Errorf("row %d:\n got %s\nwant %s", i, g, w)
			}
		}
	}
	got, err := s.Prediction(t.Context(), collector.Ref{Tenant: "default", ID: many.ID + ".1"})
	if err != nil || len(got) != 1 || got[0].ExternalID != "b" || got[0].ID != many.ID+".1" {
		t.Errorf("row 1 of a batch: %v, %v", got, err)
	}
	if got, err := s.Prediction(t.Context(), collector.Ref{Tenant: "default", ID: one.ID + ".0"}); err != nil || len(got) != 1 || got[0].ID != one.ID {
		t.Errorf("the alias .0: %v, %v", got, err)
	}
	for _, id := range []string{many.ID + ".3", one.ID + ".1", "none", "", one.ID + "'"} {
		if got, err := s.Prediction(t.Context(), collector.Ref{Tenant: "default", ID: id}); err == nil {
			t.Errorf("id %q found %d rows", id, len(got))
		}
	}
	if _, err := s.Prediction(t.Context(), collector.Ref{Tenant: "other", ID: one.ID}); err == nil {
		t.Error("another tenant reads the row")
	}
	if got, err := s.Prediction(t.Context(), collector.Ref{Tenant: "default", ID: collector.TracePrefix + strings.ToUpper(many.TraceID)}); err != nil || len(got) != 3 {
		t.Errorf("by trace: %d rows, %v", len(got), err)
	}
	if got, err := s.ByExternalID(t.Context(), "default", "delay", "order-1"); err != nil || len(got) != 1 {
		t.Errorf("by external id: %d rows, %v", len(got), err)
	}
}

// show prints a row; NaN equals itself in it.
func show(p collector.StoredPrediction) string {
	for _, c := range []*collector.Columns{&p.Raw.Features, &p.Raw.Outputs} {
		if c.Empty() {
			*c = collector.Columns{}
		}
	}
	return fmt.Sprintf("%v", p)
}

func TestRetriedBatchCountsOnce(t *testing.T) {
	s, m := open(t), newMaker(t)
	ref := m.reference(t, 500)
	src := &list{twice: true}
	w := writer(t, s, WriterConfig{Source: src, Reference: func(string) *stats.Reference { return ref }})
	rows := 0
	for i := range 5 {
		b := &collector.Batch{Token: fmt.Sprintf("b%d", i), Records: []collector.Record{m.schemaRecord(t)}}
		for k := range 20 {
			// Two months, so that a batch is more than one partition.
			p := m.prediction(t, 1+k%3, base.AddDate(0, k%2, 0).Add(time.Duration(i)*time.Minute))
			rows += p.Rows
			b.Records = append(b.Records, record(p), feedback(&collector.Feedback{
				PredictionID: p.ID, Tenant: "default", Label: "late", ObservedAt: base, ReceivedAt: base,
			}))
		}
		src.batches = append(src.batches, b)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for src.left() > 0 && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m.consistent(t, s, rows)
	if got := number(t, s, "SELECT count() FROM feedback"); got != 100 {
		t.Errorf("%v labels, want 100", got)
	}
}

// consistent checks that n rows are there once, and that the rollups sum to them.
func (m *maker) consistent(t *testing.T, s *Store, n int) {
	t.Helper()
	want := float64(n)
	for _, sql := range []string{"SELECT count() FROM predictions", "SELECT uniqExact(id, row) FROM predictions", "SELECT sum(rows) FROM traffic_1m"} {
		if got := number(t, s, sql); got != want {
			t.Errorf("%s: %v, want %v", sql, got, want)
		}
	}
	want = number(t, s, "SELECT sum(weight) FROM predictions")
	for _, sql := range []string{"SELECT sum(weight) FROM bins_1m WHERE field = 0", "SELECT sum(weight) FROM bins_1m WHERE field = 3", "SELECT sum(weight) FROM bins_1m WHERE field = 6"} {
		if got := number(t, s, sql); math.Abs(got-want) > 1e-6*float64(n) {
			t.Errorf("%s: %v, want %v", sql, got, want)
		}
	}
	if got := number(t, s, "SELECT count() FROM bins_1m WHERE field = 4"); got != 0 {
		t.Errorf("%v bins of a dropped field", got)
	}
}

// reference makes a reference of n made-up rows.
func (m *maker) reference(t testing.TB, n int) *stats.Reference {
	t.Helper()
	p := m.prediction(t, n, base)
	ref, err := stats.NewReference(collector.StatColumns(m.schema, engine.TaskBinary, p.Features, n, p.Scores, p.Decided), "test")
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestFourMigratorsAtOnce(t *testing.T) {
	dsn := embeddedtest.DSN(t)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s, err := Open(t.Context(), Config{DSN: dsn})
			if err != nil {
				errs[i] = err
				return
			}
			defer s.Close()
			errs[i] = s.Migrate(t.Context())
		}()
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("migrator %d: %v", i, err)
		}
	}
	s, m := openDSN(t, dsn), newMaker(t)
	ref := m.reference(t, 100)
	w := writer(t, s, WriterConfig{Reference: func(string) *stats.Reference { return ref }})
	write(t, w, "b", m.schemaRecord(t), record(m.prediction(t, 10, base)))
	m.consistent(t, s, 10)
}

func TestBreakingTableSettingsAreRefused(t *testing.T) {
	dsn := embeddedtest.DSN(t)
	s := openDSN(t, dsn)
	for _, c := range []struct {
		alter, undo string
		synced      bool     // only durability machine refuses it
		want        []string // of the error
	}{
		{alter: "MODIFY SETTING async_insert = 1", undo: "RESET SETTING async_insert"},
		{alter: "MODIFY SETTING non_replicated_deduplication_window = 0", undo: "MODIFY SETTING non_replicated_deduplication_window = 10000", want: []string{"no deduplication window"}},
		{alter: "MODIFY SETTING non_replicated_deduplication_window = 999", undo: "MODIFY SETTING non_replicated_deduplication_window = 10000", want: []string{"deduplication window of 999 blocks"}},
		{alter: "MODIFY SETTING fault_probability_before_part_commit = 0.5", undo: "RESET SETTING fault_probability_before_part_commit", want: []string{"0.5"}},
		{alter: "MODIFY SETTING fault_probability_after_part_commit = 0.5", undo: "RESET SETTING fault_probability_after_part_commit", want: []string{"0.5"}},
		{alter: "MODIFY SETTING max_suspicious_broken_parts = 100000", undo: "RESET SETTING max_suspicious_broken_parts"},
		{alter: "MODIFY SETTING deduplicate_merge_projection_mode = 'drop'", undo: "RESET SETTING deduplicate_merge_projection_mode", want: []string{"drop"}},
		{alter: "MODIFY SETTING min_rows_to_fsync_after_merge = 0", undo: "RESET SETTING min_rows_to_fsync_after_merge", synced: true},
		{alter: "MODIFY SETTING min_compressed_bytes_to_fsync_after_merge = 1000000", undo: "RESET SETTING min_compressed_bytes_to_fsync_after_merge", synced: true},
		{alter: "MODIFY SETTING old_parts_lifetime = 1", undo: "RESET SETTING old_parts_lifetime", synced: true},
		{alter: "MODIFY TTL toDateTime(received_at) + INTERVAL 1 DAY", undo: "REMOVE TTL", want: []string{"toIntervalDay(1)"}},
		{alter: "MODIFY TTL toDateTime(received_at) + INTERVAL 1 DAY RECOMPRESS CODEC(ZSTD(9)), toDateTime(received_at) + INTERVAL 1 YEAR DELETE WHERE rows > 1", undo: "REMOVE TTL", want: []string{"toIntervalYear(1)"}},
		{alter: "MODIFY COLUMN error String TTL toDateTime(received_at) + INTERVAL 1 DAY", undo: "MODIFY COLUMN error REMOVE TTL", want: []string{"column `error` "}},
	} {
		exec(t, s, "ALTER TABLE predictions "+c.alter)
		for _, synced := range []bool{false, true} {
			got, err := Open(t.Context(), Config{DSN: dsn, Synced: synced})
			if c.synced && !synced {
				if err != nil {
					t.Errorf("%s is not durability machine's alone: %v", c.alter, err)
					continue
				}
				_ = got.Close()
				continue
			}
			want := append([]string{"table predictions"}, c.want...)
			if name, _, setting := strings.Cut(strings.TrimPrefix(c.alter, "MODIFY SETTING "), " = "); setting {
				want = append(want, name)
			}
			if !strings.HasPrefix(c.undo, "MODIFY COLUMN") {
				want = append(want, "ALTER TABLE predictions "+c.undo)
			}
			for _, part := range want {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("%s, synced %t: %v, without %q", c.alter, synced, err, part)
				}
			}
		}
		exec(t, s, "ALTER TABLE predictions "+c.undo)
	}
	// What an operator may choose, or says as it is anyway.
	for _, alter := range []string{
		"MODIFY SETTING async_insert = 0, table_readonly = 0, max_bytes_to_merge_at_max_space_in_pool = 1000000000, parts_to_throw_insert = 100, min_bytes_for_wide_part = 1, " +
			"storage_policy = 'default', auto_statistics_types = 'basic, uniq', min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 3600, merge_with_ttl_timeout = 60",
		"MODIFY TTL toDateTime(received_at) + INTERVAL 1 DAY RECOMPRESS CODEC(ZSTD(9))",
		"MODIFY COLUMN error String COMMENT 'no TTL here'",
		"MODIFY COMMENT 'neither a TTL here'",
	} {
		exec(t, s, "ALTER TABLE predictions "+alter)
		got, err := Open(t.Context(), Config{DSN: dsn, Synced: true})
		if err != nil {
			t.Errorf("%s: %v", alter, err)
			continue
		}
		_ = got.Close()
	}
	// The last, as nothing is changed any more afterwards.
	exec(t, s, "ALTER TABLE feedback MODIFY SETTING table_readonly = 1")
	if _, err := Open(t.Context(), Config{DSN: dsn}); err == nil || !strings.Contains(err.Error(), "table feedback has table_readonly = 1") {
		t.Errorf("a table that takes nothing: %v", err)
	}
}

// TestKnownTableSettings: what is known to be harmless, or checked, are settings that the
// server has, and none is of both kinds.
func TestKnownTableSettings(t *testing.T) {
	s := open(t)
	all, err := s.strings(t.Context(), "SELECT name FROM system.merge_tree_settings")
	if err != nil {
		t.Fatal(err)
	}
	free := 0
	for _, name := range all {
		if !harmless.MatchString(name) {
			continue
		}
		free++
		if _, must := plainly[name]; must || synced[name] != nil || slices.Contains(windowSettings, name) {
			t.Errorf("%s is harmless and checked", name)
		}
	}
	if free < 100 || free > 160 {
		t.Errorf("%d settings of %d are harmless", free, len(all))
	}
	for _, name := range append(append(sorted(plainly), sorted(synced)...), windowSettings...) {
		if !slices.Contains(all, name) {
			t.Errorf("the server has no %s", name)
		}
	}
	for _, part := range harmlessNames {
		if !slices.ContainsFunc(all, regexp.MustCompile("^("+part+")$").MatchString) {
			t.Errorf("no setting is %q", part)
		}
	}
}

// TestDeduplicationWindows: a window is refused where retried inserts may outlive it, and
// the error says how to mend that.
func TestDeduplicationWindows(t *testing.T) {
	const day = "replicated_deduplication_window_seconds = 86400"
	for settings, want := range map[string]string{
		"MergeTree ORDER BY a": "no deduplication window",
		"MergeTree ORDER BY a SETTINGS index_granularity = 8192":                                                                                             "no deduplication window",
		"MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 1":                                                                              "window of 1 blocks",
		"MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 999, index_granularity = 8192":                                                  "window of 999 blocks",
		"MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 1000":                                                                           "",
		"MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = '10000'":                                                                        "",
		"MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = -1":                                                                             "no deduplication window",
		"MergeTree ORDER BY a SETTINGS replicated_deduplication_window = 10000, " + day:                                                                      "no deduplication window",
		"ReplicatedMergeTree('/x', '{replica}') ORDER BY a SETTINGS " + day:                                                                                  "no deduplication window",
		"ReplicatedMergeTree('/x', '{replica}') ORDER BY a SETTINGS replicated_deduplication_window = 100, " + day:                                           "window of 100 blocks",
		"ReplicatedMergeTree('/x', '{replica}') ORDER BY a SETTINGS replicated_deduplication_window = 1000, " + day:                                          "",
		"ReplicatedMergeTree('/x', '{replica}') ORDER BY a SETTINGS replicated_deduplication_window = 10000":                                                 "sooner than a day",
		"ReplicatedMergeTree('/x', '{replica}') ORDER BY a SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 3600": "sooner than a day",
	} {
		err := checkEngine("bins_1m", settings)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "ALTER TABLE bins_1m MODIFY SETTING")) {
			t.Errorf("%s: %v, want %q", settings, err, want)
		}
	}
}

// TestClockJumps: a batch received by a clock that jumped over a hundred years and back is
// stored once, whatever months that makes of it.
func TestClockJumps(t *testing.T) {
	s, m := open(t), newMaker(t)
	ref := m.reference(t, 100)
	cfg := WriterConfig{Reference: func(string) *stats.Reference { return ref }}
	records, rows := []collector.Record{m.schemaRecord(t)}, 0
	for i := range 240 {
		at := base.AddDate(0, -m.rng.Intn(12*40), -m.rng.Intn(31))
		switch i % 8 {
		case 0:
			at = time.Unix(int64(i), 0) // a machine without a battery
		case 1:
			at = base.AddDate(60+i%5, 0, 0)
		case 2:
			at = base.Add(time.Duration(i) * time.Hour)
		}
		p := m.prediction(t, 1+i%3, at)
		rows += p.Rows
		records = append(records, record(p), feedback(&collector.Feedback{Tenant: "default", PredictionID: p.ID, Label: "1", ObservedAt: at, ReceivedAt: at}))
	}
	for range 2 { // and again by a process that does not know of the first
		write(t, writer(t, s, cfg), "jumps", records...)
	}
	m.consistent(t, s, rows)
	if n := number(t, s, "SELECT count() FROM feedback"); n != 240 {
		t.Errorf("%v labels, not 240", n)
	}
	if n := number(t, s, "SELECT uniqExact(toYYYYMM(received_at)) FROM predictions"); n < 100 {
		t.Errorf("only %v months", n)
	}
}

func TestOpenErrorsNameNoPassword(t *testing.T) {
	for _, dsn := range []string{"clickhouse://u:hunter2@127.0.0.1:1/db", "clickhouse://u:hunter2@127.0.0.1:x/db", "http://u:hunter2@127.0.0.1:1/db", ""} {
		_, err := Open(t.Context(), Config{DSN: dsn, DialTimeout: time.Second})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", dsn, err)
		}
	}
}

func TestBinCountsEqualBinsComputedInGo(t *testing.T) {
	s, m := open(t), newMaker(t)
	ref := m.reference(t, 1000)
	w := writer(t, s, WriterConfig{Reference: func(string) *stats.Reference { return ref }})
	want := make([][]stats.Counts, 3)
	var records []collector.Record
	for i := range 300 {
		h := i % 3
		p := m.prediction(t, 1+i%2, base.Add(time.Duration(h)*time.Hour+time.Duration(i%60)*time.Minute))
		switch i % 10 {
		case 8:
			p.Route = collector.RouteExplain
		case 9:
			p.Status = 500
		}
		records = append(records, record(p))
		if i%10 >= 8 {
			continue
		}
		for r := range p.Rows {
			for f, b := range collector.BinRow(ref, m.schema, p, r, nil) {
				for len(want[h]) <= f {
					want[h] = append(want[h], stats.Counts{})
				}
				if b != stats.BinNone {
					want[h][f][b]++
				}
			}
		}
	}
	write(t, w, "b", append(records, m.schemaRecord(t))...)
	got, err := s.BinCounts(t.Context(), "default", "delay", "1", ref.ID, base, base.Add(3*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for h := range want {
		if !reflect.DeepEqual(got[h].Fields, want[h]) {
			t.Errorf("hour %d:\n got %v\nwant %v", h, got[h].Fields, want[h])
		}
	}
	traffic, err := s.Traffic(t.Context(), "default", "delay", "", base, base.Add(3*time.Hour), 0)
	if err != nil || len(traffic) != 1 {
		t.Fatal(traffic, err)
	}
	if tr := traffic[0]; tr.Requests != 270 || tr.Errors != 30 || tr.ByClass[2] != 240 || math.Abs(tr.P99-50e-6) > 1e-9 {
		t.Errorf("traffic: %+v", tr)
	}
	mark, err := s.Watermark(t.Context(), "default", "delay", "1")
	if err != nil || !mark.Equal(base.Add(2*time.Hour+59*time.Minute)) {
		t.Errorf("watermark %v, %v", mark, err)
	}
}

// TestRowsWithoutAScoreCountTheSame: outputs that are not shaped as declared give no
// score and no class; the row counts as missing both as it is written and when it is
// counted again from what is stored.
func TestRowsWithoutAScoreCountTheSame(t *testing.T) {
	s, m := open(t), newMaker(t)
	ref := m.reference(t, 1000)
	var now *stats.Reference
	w := writer(t, s, WriterConfig{Reference: func(string) *stats.Reference { return now }})
	for i, batch := range []string{"early", "late"} {
		p := m.prediction(t, 5, base.Add(time.Duration(i)*time.Hour))
		p.Scores, p.Decided = nil, nil
		write(t, w, batch, m.schemaRecord(t), record(p))
		now = ref
	}
	if n, err := s.Backfill(t.Context(), "default", "delay", "1", "d1", ref); err != nil || n != 5 {
		t.Fatal(n, err)
	}
	got, err := s.BinCounts(t.Context(), "default", "delay", "1", ref.ID, base, base.Add(2*time.Hour), time.Hour)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	last := len(m.schema.Features)
	for h := range got {
		if n := got[h].Fields[last][stats.BinMissing]; n != 5 {
			t.Errorf("hour %d: %g of 5 rows without a score: %v", h, n, got[h].Fields[last])
		}
	}
}

func TestBackfillCountsEachRowOnce(t *testing.T) {
	s, m := open(t), newMaker(t)
	var ref *stats.Reference
	w := writer(t, s, WriterConfig{Reference: func(string) *stats.Reference { return ref }})
	total := 0
	for i := range 4 {
		p := m.prediction(t, 25, base.AddDate(0, i%2, 0))
		write(t, w, fmt.Sprintf("early%d", i), m.schemaRecord(t), record(p))
		total += p.Rows
	}
	ref = m.reference(t, 200)
	write(t, w, "late", record(m.prediction(t, 10, base)))
	total += 10
	for round, want := range []uint64{100, 0} {
		n, err := s.Backfill(t.Context(), "default", "delay", "1", "d1", ref)
		if err != nil || n != want {
			t.Fatalf("round %d: %d rows, %v", round, n, err)
		}
	}
	m.consistent(t, s, total)
	// A crash after the insert and before the note: the token counts it once.
	if err := s.conn.Exec(t.Context(), "TRUNCATE TABLE backfills"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Backfill(t.Context(), "default", "delay", "1", "d1", ref); err != nil {
		t.Fatal(err)
	}
	m.consistent(t, s, total)
}

// A reference that comes between two attempts at a batch: the rows stay without
// bins, the retry counts them, and Backfill does not count them again.
func TestReferenceBetweenAttempts(t *testing.T) {
	s, m := open(t), newMaker(t)
	var ref *stats.Reference
	w := writer(t, s, WriterConfig{Reference: func(string) *stats.Reference { return ref }})
	records := []collector.Record{m.schemaRecord(t), record(m.prediction(t, 30, base)), record(m.prediction(t, 5, base.AddDate(0, 1, 0)))}
	write(t, w, "b", records...)
	ref = m.reference(t, 100)
	write(t, w, "b", records...)
	if _, err := s.Backfill(t.Context(), "default", "delay", "1", "d1", ref); err != nil {
		t.Fatal(err)
	}
	m.consistent(t, s, 35)
}

func TestReferenceIsKept(t *testing.T) {
	s, m := open(t), newMaker(t)
	ref := m.reference(t, 100)
	for range 2 {
		if err := s.SaveReference(t.Context(), "default", "delay", "1", "d1", ref); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.LoadReference(t.Context(), "default", "delay", "1", "d1")
	if err != nil || got.ID != ref.ID || !reflect.DeepEqual(got.Counts, ref.Counts) {
		t.Fatalf("load: %v", err)
	}
	if _, err := s.LoadReference(t.Context(), "default", "delay", "1", "d2"); err == nil {
		t.Error("another digest has it")
	}
	if again, err := s.Reference(t.Context(), ref.ID); err != nil || again.Rows != 100 {
		t.Errorf("by id: %v", err)
	}
}

func TestLabels(t *testing.T) {
	s, m := open(t), newMaker(t)
	w := writer(t, s, WriterConfig{})
	a, b, c := m.prediction(t, 1, base), m.prediction(t, 2, base.Add(time.Minute)), m.prediction(t, 1, base.Add(2*time.Minute))
	c.ExternalIDs = []string{"flight-7"}
	// Of another system, which sends the rows of a request one by one.
	alone, other := m.prediction(t, 1, base.Add(3*time.Minute)), m.prediction(t, 1, base.Add(4*time.Minute))
	alone.ID, other.ID = "3f2b7e3e-1111-4222-8333-444455556666.12", "order.12"
	// Of yet another, which means two by an id and the same with .0.
	bare, zero := m.prediction(t, 1, base.Add(5*time.Minute)), m.prediction(t, 1, base.Add(6*time.Minute))
	bare.ID, zero.ID = "3f2b7e3e-1111-4222-8333-444455557777", "3f2b7e3e-1111-4222-8333-444455557777.0"
	fb := func(id, ext, label string, after time.Duration) collector.Record {
		return feedback(&collector.Feedback{PredictionID: id, ExternalID: ext, Tenant: "default", Label: label, ObservedAt: base.Add(after), ReceivedAt: base.Add(after)})
	}
	// A label before its prediction, a corrected one, one by the caller's id.
	write(t, w, "b1", fb(a.ID+".0", "", "on_time", time.Hour), fb(c.ID, "", "on_time", time.Hour), fb("", "flight-7", "late", 2*time.Hour))
	write(t, w, "b2", m.schemaRecord(t), record(a), record(b), record(c), record(alone), record(other), record(bare), record(zero))
	write(t, w, "b3", fb(alone.ID, "", "late", time.Hour), fb(other.ID, "", "on_time", time.Hour), fb(zero.ID, "", "on_time", time.Hour), fb(bare.ID, "", "late", 2*time.Hour), fb(a.ID, "", "late", 3*time.Hour), fb(b.ID+".1", "", "late", time.Hour), fb("unknown", "", "late", time.Hour))

	got, err := s.Prediction(t.Context(), collector.Ref{Tenant: "default", ID: a.ID})
	if err != nil || len(got[0].Labels) != 2 || got[0].Labels[0].Label != "late" {
		t.Fatalf("labels of a: %v, %v", got, err)
	}
	rows, err := s.Labelled(t.Context(), "default", "delay", "1", base, base.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, r := range rows {
		seen = append(seen, r.ID+"="+r.Label)
	}
	want := []string{a.ID + "=late", b.ID + ".1=late", c.ID + "=late", alone.ID + "=late", other.ID + "=on_time", bare.ID + "=late", zero.ID + "=on_time"}
	if !slices.Equal(seen, want) {
		t.Errorf("labelled:\n got %v\nwant %v", seen, want)
	}
	if rows[0].Score != a.Scores[0] || rows[0].Decided != a.Decided[0] {
		t.Errorf("row %+v", rows[0])
	}
}

// TestLabelsOfALostCursor: a spool without its cursor delivers what it keeps under new
// tokens. Labels that were stored are not stored twice, those that were not are.
func TestLabelsOfALostCursor(t *testing.T) {
	s, m := open(t), newMaker(t)
	w := writer(t, s, WriterConfig{})
	var records []collector.Record
	for i := range 40 {
		f := &collector.Feedback{
			PredictionID: fmt.Sprintf("theirs-%d", i%20), Tenant: "default", Model: "delay", Label: fmt.Sprint(i % 3),
			ObservedAt: base, ReceivedAt: base, Arrival: base.Add(time.Duration(i/2) * time.Microsecond),
		}
		if i%4 == 3 {
			f.PredictionID, f.ExternalID = "", f.PredictionID
		}
		records = append(records, feedback(f))
	}
	p := m.prediction(t, 1, base)
	p.ID, p.Label, p.LabelObservedAt, p.LabelArrival = "labelled", "late", base, base
	own := collector.Record{Kind: collector.KindImported, Version: collector.PredictionVersion, Payload: collector.AppendPrediction(nil, p)}
	write(t, w, "before", append([]collector.Record{m.schemaRecord(t), own}, records[:30]...)...)
	for _, token := range []string{"after", "after", "once more"} {
		b := &collector.Batch{Token: token, Again: true, Records: append([]collector.Record{m.schemaRecord(t), own}, records[10:]...)}
		if err := w.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if n := number(t, s, "SELECT count() FROM feedback FINAL"); n != 41 {
		t.Errorf("%g labels of 41", n)
	}
	if n := number(t, s, "SELECT uniqExact(target_id, external_id, label, arrival) FROM feedback"); n != 41 {
		t.Errorf("%g different labels of 41", n)
	}
}

// TestTheLabelThatCameLastCounts: of labels within one millisecond, of a clock that was
// set back between them, by our id and by the caller's, whatever the names of their
// batches.
func TestTheLabelThatCameLastCounts(t *testing.T) {
	s, m := open(t), newMaker(t)
	w := writer(t, s, WriterConfig{})
	var batches int
	for i, c := range []struct {
		first, second         string // external id, or "" for ours
		firstBatch, nextBatch string
		back                  time.Duration
		cameWithItsPrediction bool
	}{
		{"", "", "b", "a", 0, false},
		{"", "", "a", "b", 0, false},
		{"x", "x", "b", "a", 0, false},
		{"x", "x", "a", "b", 0, false},
		{"x", "", "a", "b", 0, false},
		{"", "x", "a", "b", 0, false},
		{"", "x", "b", "a", 0, false},
		{"", "", "b", "a", time.Hour, false},
		{"x", "", "b", "a", time.Hour, false},
		{"", "x", "a", "b", time.Hour, false},
		{"", "", "b", "a", 0, true},
		{"", "x", "a", "b", time.Minute, true},
	} {
		at := base.Add(time.Duration(i) * time.Minute)
		p := m.prediction(t, 1, at)
		if c.first != "" || c.second != "" {
			p.ExternalIDs = []string{fmt.Sprint("came-", i)}
		}
		label := func(external, label string, received, arrival time.Time) collector.Record {
			f := &collector.Feedback{PredictionID: p.ID, Tenant: "default", Label: label, ObservedAt: base, ReceivedAt: received, Arrival: arrival}
			if external != "" {
				f.PredictionID, f.ExternalID = "", p.ExternalIDs[0]
			}
			return feedback(f)
		}
		own := record(p)
		first := label(c.first, "earlier", at, at)
		if c.cameWithItsPrediction {
			p.Label, p.LabelObservedAt, p.LabelArrival = "earlier", base, at
			own = collector.Record{Kind: collector.KindImported, Version: collector.PredictionVersion, Payload: collector.AppendPrediction(nil, p)}
			write(t, w, fmt.Sprint(c.firstBatch, i), m.schemaRecord(t), own)
		} else {
			write(t, w, fmt.Sprint(c.firstBatch, i), m.schemaRecord(t), own, first)
		}
		write(t, w, fmt.Sprint(c.nextBatch, i), label(c.second, "later", at.Add(-c.back), at.Add(time.Microsecond)))
		batches += 2
	}
	rows, err := s.Labelled(t.Context(), "default", "delay", "1", base, base.Add(24*time.Hour))
	if err != nil || len(rows) != batches/2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for i, r := range rows {
		if r.Label != "later" {
			t.Errorf("case %d: %q counts", i, r.Label)
		}
		got, err := s.Prediction(t.Context(), collector.Ref{Tenant: "default", ID: r.ID})
		if err != nil || len(got) != 1 || len(got[0].Labels) != 2 || got[0].Labels[0].Label != "later" {
			t.Errorf("case %d: %+v, %v", i, got, err)
		}
	}
}

func TestListPagesAndFilters(t *testing.T) {
	s, m := open(t), newMaker(t)
	w := writer(t, s, WriterConfig{})
	var all []*collector.Prediction
	records := []collector.Record{m.schemaRecord(t)}
	for i := range 60 {
		p := m.prediction(t, 1+i%2, base.Add(time.Duration(i/4)*time.Second)) // equal times
		if i%7 == 0 {
			p.Features.F32[0] = float32(math.NaN())
		}
		all = append(all, p)
		records = append(records, record(p))
	}
	write(t, w, "b", records...)
	q := collector.Query{Tenant: "default", Model: "delay", Limit: 7}
	seen := map[string]bool{}
	last := time.Now().AddDate(10, 0, 0)
	for {
		page, err := s.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page.Predictions {
			if seen[p.ID] || p.Time.After(last) {
				t.Fatalf("%s twice or out of order", p.ID)
			}
			seen[p.ID], last = true, p.Time
		}
		if page.Next == "" {
			break
		}
		q.Cursor = page.Next
	}
	if len(seen) != 90 {
		t.Fatalf("%d rows over the pages, want 90", len(seen))
	}
	// Every filter against the same condition in Go.
	row := func(f func(f32, carrier float32, f64 float64, i64 int64, str string, p *collector.Prediction) bool) (n uint64) {
		for _, p := range all {
			for r := range p.Rows {
				if f(p.Features.F32[2*r], p.Features.F32[2*r+1], p.Features.F64[r], p.Features.I64[r], p.Features.Str[r], p) {
					n++
				}
			}
		}
		return n
	}
	first := all[1].Features.F32[0]
	for where, want := range map[string]uint64{
		"distance > 0.5":                    row(func(d, _ float32, _ float64, _ int64, _ string, _ *collector.Prediction) bool { return d > 0.5 }),
		"distance is null":                  row(func(d, _ float32, _ float64, _ int64, _ string, _ *collector.Prediction) bool { return d != d }),
		"distance IS NOT NULL":              row(func(d, _ float32, _ float64, _ int64, _ string, _ *collector.Prediction) bool { return d == d }),
		"distance != 0.5":                   row(func(d, _ float32, _ float64, _ int64, _ string, _ *collector.Prediction) bool { return d == d }),
		fmt.Sprintf("distance = %v", first): row(func(d, _ float32, _ float64, _ int64, _ string, _ *collector.Prediction) bool { return d == first }),
		"carrier = 'UA'":                    row(func(_, c float32, _ float64, _ int64, _ string, _ *collector.Prediction) bool { return c == 1 }),
		"carrier in ('UA', 'WN', 'XX')":     row(func(_, c float32, _ float64, _ int64, _ string, _ *collector.Prediction) bool { return c >= 1 }),
		"city = 'O''Hare'":                  row(func(_, _ float32, _ float64, _ int64, s string, _ *collector.Prediction) bool { return s == "O'Hare" }),
		`city = 'back\slash'`: row(func(_, _ float32, _ float64, _ int64, s string, _ *collector.Prediction) bool {
			return s == `back\slash`
		}),
		"city is null":         row(func(_, _ float32, _ float64, _ int64, s string, _ *collector.Prediction) bool { return s == "" }),
		"not city in ('Oslo')": row(func(_, _ float32, _ float64, _ int64, s string, _ *collector.Prediction) bool { return s != "Oslo" }),
		"city not in ('Oslo')": row(func(_, _ float32, _ float64, _ int64, s string, _ *collector.Prediction) bool {
			return s != "Oslo" && s != ""
		}),
		"age >= 30 and age < 60 or income < 0": row(func(_, _ float32, f float64, a int64, _ string, _ *collector.Prediction) bool {
			return a >= 30 && a < 60 || f < 0
		}),
		"age >= 30 and (age < 60 or income < 0)": row(func(_, _ float32, f float64, a int64, _ string, _ *collector.Prediction) bool {
			return a >= 30 && (a < 60 || f < 0)
		}),
		"prediction.status = 200 and score > 0.5": row(func(_, _ float32, _ float64, _ int64, _ string, p *collector.Prediction) bool { return false }) + scored(all, 0.5),
		"time < '2026-11-03T12:00:05Z'": row(func(_, _ float32, _ float64, _ int64, _ string, p *collector.Prediction) bool {
			return p.Times[0].Before(base.Add(5 * time.Second))
		}),
		"id = '" + all[3].ID + "'": uint64(all[3].Rows),
	} {
		got, err := s.Count(t.Context(), collector.Query{Tenant: "default", Model: "delay", Where: where})
		if err != nil || got != want {
			t.Errorf("%s: %d, want %d, %v", where, got, want, err)
		}
	}
	for _, where := range []string{"nothing = 1", "secret > 1", "distance >", "distance = 'x'", "(age > 1", "age > 1)", "age in ()", "1 = 1", "age > 1; DROP TABLE predictions", "city = 'x", "time > 'soon'", "age = age", "--", "city like '%'"} {
		if _, err := s.Count(t.Context(), collector.Query{Tenant: "default", Model: "delay", Where: where}); err == nil {
			t.Errorf("%q is accepted", where)
		}
	}
	n := 0
	if err := s.Each(t.Context(), collector.Query{Tenant: "default", Model: "delay"}, func(p *collector.StoredPrediction) error { n++; return nil }); err != nil || n != 90 {
		t.Errorf("export: %d rows, %v", n, err)
	}
}

func scored(all []*collector.Prediction, over float64) (n uint64) {
	for _, p := range all {
		for _, s := range p.Scores {
			if s > over {
				n++
			}
		}
	}
	return n
}

func TestUndecodableRecordsAreKept(t *testing.T) {
	s, m := open(t), newMaker(t)
	w := writer(t, s, WriterConfig{})
	write(t, w, "b", m.schemaRecord(t), collector.Record{Kind: collector.KindPrediction, Version: 1, Payload: []byte{1, 2}}, collector.Record{Kind: 99, Payload: []byte("x")}, record(m.prediction(t, 1, base)))
	if got := number(t, s, "SELECT count() FROM undecodable"); got != 2 {
		t.Errorf("%v set aside, want 2", got)
	}
	if got := number(t, s, "SELECT count() FROM predictions"); got != 1 || w.Health().Undecodable != 2 {
		t.Errorf("%v rows, health %+v", got, w.Health())
	}
}

func TestExplanationsSpansAndAlertEvents(t *testing.T) {
	s, m := open(t), newMaker(t)
	w := writer(t, s, WriterConfig{})
	p := m.prediction(t, 2, base)
	e := &collector.Explanation{
		PredictionID: p.ID + ".1", Model: "delay", Version: "1", Method: "tree_shap", Output: "margin", Space: "margin", Base: 0.5, Prediction: 0.7,
		Attributions: []collector.Attribution{{Feature: "distance", Value: 1.5, Phi: 0.2}},
	}
	doc, err := collector.EncodeExplanation(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"b", "b", "b2"} {
		write(t, w, token, collector.Record{Kind: collector.KindExplanation, Version: 1, Payload: doc})
	}
	for id, want := range map[string]int{p.ID: 1, p.ID + ".1": 1, p.ID + ".0": 0} {
		got, err := s.Explanations(t.Context(), "default", id)
		if err != nil || len(got) != want || want == 1 && !reflect.DeepEqual(got[0], *e) {
			t.Errorf("explanations of %s: %+v, %v", id, got, err)
		}
	}
	now := time.Date(2026, 11, 3, 1, 2, 3, 456789123, time.UTC)
	spans := []Span{
		{
			Start: now, Duration: time.Millisecond, TraceID: "0af7651916cd43dd8448eb211c80319c", SpanID: "b7ad6b7169203331", Name: "predict delay", Kind: "Server", ServiceName: "pellucid",
			Resource: map[string]string{"service.name": "pellucid"}, Attributes: map[string]string{"ml.model.name": "delay"}, StatusCode: "Ok",
			Events: []SpanEvent{{now, "e", map[string]string{"a": "b"}}}, Links: []SpanLink{{"1", "2", "", map[string]string{}}},
		},
		{Start: now.Add(time.Microsecond), TraceID: "0af7651916cd43dd8448eb211c80319c", SpanID: "c", ParentSpanID: "b7ad6b7169203331", Name: "model", Resource: map[string]string{}, Attributes: map[string]string{}},
	}
	for range 2 {
		if err := s.InsertSpans(t.Context(), "t1", spans); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.SpansByTrace(t.Context(), "0AF7651916cd43dd8448eb211c80319c")
	if err != nil || fmt.Sprint(got) != fmt.Sprint(spans) {
		t.Errorf("spans:\n got %v\nwant %v\n%v", got, spans, err)
	}
	events := []AlertEvent{{
		ID: "1", Time: now.Truncate(time.Microsecond), Tenant: "default", Rule: "drift", Fingerprint: "f", Model: "delay", State: "firing", Value: 0.4,
		Labels: map[string]string{"feature": "distance"}, Annotations: map[string]string{"summary": "x"},
	}}
	for range 2 {
		if err := s.InsertAlertEvents(t.Context(), "a1", events); err != nil {
			t.Fatal(err)
		}
	}
	back, err := s.AlertEvents(t.Context(), "default", "", now.Add(-time.Hour), now.Add(time.Hour), 10)
	if err != nil || !reflect.DeepEqual(back, events) {
		t.Errorf("events: %+v, %v", back, err)
	}
}

// Event times of decades in one batch: no partition limit, no retention by event
// time.
func TestOldEventTimesLive(t *testing.T) {
	s, m := open(t), newMaker(t)
	ref := m.reference(t, 100)
	w := writer(t, s, WriterConfig{Reference: func(string) *stats.Reference { return ref }})
	records := []collector.Record{m.schemaRecord(t)}
	n := 0
	for y := 1970; y < 2100; y++ {
		for mo := time.January; mo <= time.December; mo += 4 {
			p := m.prediction(t, 1, base)
			p.Times = []time.Time{time.Date(y, mo, 2, 3, 4, 5, 6000, time.UTC)}
			records = append(records, record(p))
			n++
		}
	}
	write(t, w, "b", records...)
	for _, table := range []string{"predictions", "bins_1m", "traffic_1m"} {
		if err := s.conn.Exec(t.Context(), "OPTIMIZE TABLE "+table+" FINAL"); err != nil {
			t.Fatal(err)
		}
	}
	m.consistent(t, s, n)
	got, err := s.Count(t.Context(), collector.Query{Tenant: "default", Model: "delay", From: time.Date(2013, 1, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2014, 1, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil || got != 3 {
		t.Errorf("2013 has %d rows, want 3, %v", got, err)
	}
}

func FuzzWhere(f *testing.F) {
	for _, s := range []string{"distance > 0.5", "city in ('a','b') and not age is null", `"odd ""name" = -1e9`, "((((", "a=1 or b!='x''y'", "time>'2013-01-01'"} {
		f.Add(s)
	}
	schema := testSchema(f)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := compileWhere(text, []*collector.Schema{schema})
		x := Subject{Where: text}
		_, merr := x.Matches(&Outside{Features: map[string]any{"distance": 0.5}, Columns: map[string]any{"time": base}})
		if err != nil {
			return
		}
		if strings.TrimSpace(text) != "" && merr != nil {
			t.Fatalf("%q is a filter for the tables: %v", text, merr)
		}
		if strings.Count(p.sql, "?") != len(p.args) {
			t.Fatalf("%q: %d markers, %d arguments: %s", text, strings.Count(p.sql, "?"), len(p.args), p.sql)
		}
		// Nothing of the text may reach the statement but through arguments.
		if i := strings.IndexFunc(p.sql, func(r rune) bool { return r > 126 || strings.ContainsRune(";\"`\\#%$", r) }); i >= 0 {
			t.Fatalf("%q: %q in %s", text, p.sql[i], p.sql)
		}
	})
}

func imported(p *collector.Prediction) collector.Record {
	r := record(p)
	r.Kind = collector.KindImported
	return r
}

// TestImportedIDsAreStoredOnce: an id made elsewhere is stored once, within a
// batch, over batches, and when a batch is sent again after a crash that left part
// of it stored.
func TestImportedIDsAreStoredOnce(t *testing.T) {
	s, m := open(t), newMaker(t)
	ref := m.reference(t, 100)
	w := writer(t, s, WriterConfig{Reference: func(string) *stats.Reference { return ref }})
	var list []collector.Record
	for i := range 300 {
		p := m.prediction(t, 1, base.Add(time.Duration(i)*time.Second))
		p.ID, p.Route = fmt.Sprintf("theirs-%d", i%200), collector.RouteImported
		list = append(list, imported(p))
	}
	write(t, w, "b1", append([]collector.Record{m.schemaRecord(t)}, list[:150]...)...)
	m.consistent(t, s, 150)
	// A crash between the inserts of a batch: its rows are there, its rollup is not.
	b2 := &collector.Batch{Token: "b2", Records: list[100:]}
	p := w.sort(b2)
	if err := w.dropStored(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	w.bin(t.Context(), p)
	for _, in := range w.rowInserts(p) {
		if err := in.run(t.Context(), in.token, 0, in.n); err != nil {
			t.Fatal(err)
		}
	}
	write(t, w, "b2", b2.Records...)
	m.consistent(t, s, 200)
	write(t, w, "b3", list...)
	m.consistent(t, s, 200)
	// 150 of b2's 200 ids are b1's; 100 of b3's 300 records come twice in it, and all others are stored.
	if got := w.Health().Duplicates; got != 150+100+200 {
		t.Errorf("%d duplicates are counted", got)
	}
	// What the spool may have delivered before is nobody's second.
	if err := w.Write(t.Context(), &collector.Batch{Token: "b3 again", Records: list, Again: true}); err != nil {
		t.Fatal(err)
	}
	if got := w.Health().Duplicates; got != 450 {
		t.Errorf("%d duplicates are counted after a cursor was lost", got)
	}
	// The same id of another model is another prediction.
	p1 := m.prediction(t, 1, base)
	p1.ID, p1.Model = "theirs-1", "other"
	write(t, w, "b4", imported(p1))
	if n := number(t, s, "SELECT count() FROM predictions WHERE id = 'theirs-1'"); n != 2 {
		t.Errorf("%g predictions of two models with one id", n)
	}
}
