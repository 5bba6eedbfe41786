package clickhouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	stdmaps "maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
)

// keyID is how a schema names the key of a hashed field.
func keyID(key []byte) string {
	sum := sha256.Sum256(append([]byte("pellucid key id\x00"), key...))
	return hex.EncodeToString(sum[:4])
}

func atOnce(context.Context, *Erasure) error { return nil }

func explanation(t *testing.T, id, model string) collector.Record {
	t.Helper()
	b, err := collector.EncodeExplanation(&collector.Explanation{PredictionID: id, Model: model, Version: "1", Method: "tree_shap", Output: "prediction"})
	if err != nil {
		t.Fatal(err)
	}
	return collector.Record{Kind: collector.KindExplanation, Version: collector.ExplanationVersion, Payload: b}
}

func span(trace string, at time.Time) Span {
	return Span{Start: at, TraceID: trace, SpanID: trace[:16], Name: "predict", Kind: "Server", ServiceName: "pellucid"}
}

// people are rows of two persons and what belongs to them: ann has one prediction of
// each of two models and a row of a batch that she shares with bob.
type people struct {
	ann, other, shared, bob *collector.Prediction
}

func writePeople(t *testing.T, s *Store, w *Writer, m *maker) *people {
	t.Helper()
	p := &people{m.prediction(t, 1, base), m.prediction(t, 1, base), m.prediction(t, 2, base), m.prediction(t, 1, base)}
	p.ann.ExternalIDs, p.other.ExternalIDs, p.bob.ExternalIDs = []string{"ann"}, []string{"ann"}, []string{"bob"}
	p.other.Model = "loans"
	p.shared.ExternalIDs = []string{"ann", "bob"}
	for i := range p.shared.Features.Str {
		p.shared.Features.Str[i] = []string{"Annville", "Bobtown"}[i]
	}
	p.ann.Features.Str[0], p.bob.Features.Str[0], p.other.Features.Str[0] = "Annville", "Bobtown", "Annville"
	label := func(id, external, model string) collector.Record {
		return feedback(&collector.Feedback{PredictionID: id, ExternalID: external, Model: model, Tenant: "default", Label: "1", ObservedAt: base, ReceivedAt: base})
	}
	junk := collector.Record{Kind: collector.KindPrediction, Version: 9, Payload: append([]byte{9, 1}, collector.EncodedText("annabel")...)}
	hers := collector.Record{Kind: collector.KindPrediction, Version: 9, Payload: append([]byte{9, 1}, collector.EncodedText("ann")...)}
	write(t, w, "people", m.schemaRecord(t), record(p.ann), record(p.other), record(p.shared), record(p.bob),
		label(p.ann.ID, "", ""), label(p.shared.ID+".0", "", ""), label(p.shared.ID+".1", "", ""), label(p.bob.ID, "", ""),
		label("", "ann", ""), label("", "ann", "loans"), label("", "bob", ""),
		explanation(t, p.ann.ID, "delay"), explanation(t, p.shared.ID+".1", "delay"), explanation(t, p.bob.ID, "delay"), junk, hers)
	for i, x := range []*collector.Prediction{p.ann, p.other, p.shared, p.bob} {
		if err := s.InsertSpans(t.Context(), fmt.Sprint("spans", i), []Span{span(x.TraceID, base), span(x.TraceID, base.Add(time.Second))}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// tables counts the rows of every target.
func tables(t *testing.T, s *Store) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	for _, x := range targets {
		out[x.table] = int64(number(t, s, "SELECT count() FROM "+x.table))
	}
	return out
}

func wantCounts(t *testing.T, what string, got map[string]int64, predictions, labels, explanations, spans, times, undecodable int64) {
	t.Helper()
	want := map[string]int64{
		"predictions": predictions, "feedback": labels, "explanations": explanations, "otel_traces": spans,
		"otel_traces_trace_id_ts": times, "undecodable": undecodable,
	}
	if !stdmaps.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestErasingAPersonLeavesTheOthers erases one of two persons by each of the ways to
// name her, and holds what is left.
func TestErasingAPersonLeavesTheOthers(t *testing.T) {
	type want struct{ predictions, labels, explanations, spans, times int64 }
	for name, c := range map[string]struct {
		subject func(p *people) Subject
		want    want
	}{
		// Her own spans of two requests; the shared one's stay, bob is in it. Of labels
		// two by id, two by her own id.
		"external id":              {func(*people) Subject { return Subject{ExternalID: "ann"} }, want{3, 4, 1, 4, 2}},
		"external id of a model":   {func(*people) Subject { return Subject{ExternalID: "ann", Model: "loans"} }, want{1, 1, 0, 2, 1}},
		"prediction id":            {func(p *people) Subject { return Subject{PredictionID: p.ann.ID} }, want{1, 1, 1, 2, 1}},
		"row of a batch":           {func(p *people) Subject { return Subject{PredictionID: p.shared.ID + ".0"} }, want{1, 1, 0, 0, 0}},
		"whole batch":              {func(p *people) Subject { return Subject{PredictionID: p.shared.ID} }, want{2, 2, 1, 2, 1}},
		"filter":                   {func(*people) Subject { return Subject{Model: "delay", Where: "city = 'Bobtown'"} }, want{2, 3, 2, 2, 1}},
		"nobody":                   {func(*people) Subject { return Subject{ExternalID: "nobody"} }, want{}},
		"a quote in somebody's id": {func(*people) Subject { return Subject{ExternalID: `' OR '' = '`} }, want{}},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := open(t), newMaker(t)
			p := writePeople(t, s, writer(t, s, WriterConfig{}), m)
			before := tables(t, s)
			wantCounts(t, "written", before, 5, 7, 3, 8, 4, 2)
			x := c.subject(p)
			x.Tenant = "default"
			dry, err := s.CountSubject(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			wantCounts(t, "dry run", dry.Before, c.want.predictions, c.want.labels, c.want.explanations, c.want.spans, c.want.times, 0)
			if got := tables(t, s); !stdmaps.Equal(got, before) || dry.After != nil {
				t.Fatalf("a dry run changed %v to %v (%v)", before, got, dry.After)
			}
			var exported subjectCounts
			if err := s.ExportSubject(t.Context(), x, func(e *Erasure) error { return exported.same(e, dry) }, exported.add); err != nil {
				t.Fatal(err)
			}
			if exported.predictions != c.want.predictions || exported.labels != c.want.labels || exported.explanations != c.want.explanations || exported.spans != c.want.spans {
				t.Errorf("exported %+v, want %+v", exported, c.want)
			}
			e, err := s.Erase(t.Context(), x, atOnce)
			if err != nil {
				t.Fatal(err)
			}
			if !stdmaps.Equal(e.Before, dry.Before) {
				t.Errorf("before: %v, the dry run said %v", e.Before, dry.Before)
			}
			wantCounts(t, "after", e.After, 0, 0, 0, 0, 0, 0)
			after := tables(t, s)
			for table, n := range before {
				if after[table] != n-e.Before[table] {
					t.Errorf("%s: %d rows of %d are left, %d were erased", table, after[table], n, e.Before[table])
				}
			}
			if e.FilesGoneBy.Before(time.Now()) || e.FilesGoneBy.After(time.Now().Add(time.Hour)) {
				t.Errorf("files gone by %s", e.FilesGoneBy)
			}
			if left, err := s.strings(t.Context(), "SELECT name FROM system.tables WHERE database = currentDatabase() AND match(name, '^(erase|count)_')"); err != nil || len(left) > 0 {
				t.Errorf("tables left: %v, %v", left, err)
			}
			again, err := s.CountSubject(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			wantCounts(t, "asked again", again.Before, 0, 0, 0, 0, 0, 0)
			if got := number(t, s, "SELECT sum(rows) FROM traffic_1m"); got != 5 {
				t.Errorf("the rollup has %v rows of 5: sums stay", got)
			}
		})
	}
}

// subjectCounts counts what an export gives.
type subjectCounts struct{ predictions, labels, explanations, spans, undecodable int64 }

func (c *subjectCounts) same(e, dry *Erasure) error {
	if !stdmaps.Equal(e.Before, dry.Before) {
		return fmt.Errorf("an export of %v, a dry run of %v", e.Before, dry.Before)
	}
	return nil
}

func (c *subjectCounts) add(r SubjectRow) error {
	switch {
	case r.Prediction != nil:
		c.predictions++
	case r.Feedback != nil:
		c.labels++
	case r.Explanation != nil:
		c.explanations++
	case r.Span != nil:
		c.spans++
	case r.Undecodable != nil:
		c.undecodable++
	}
	return nil
}

// TestUndecodableRecordsOfAPersonGo looks for a person's id in what nobody
// understands, as a text of its own and not as a part of another.
func TestUndecodableRecordsOfAPersonGo(t *testing.T) {
	s, m := open(t), newMaker(t)
	w := writer(t, s, WriterConfig{})
	var records []collector.Record
	for _, id := range []string{"anna", "annabel", "anna"} {
		records = append(records, collector.Record{Kind: collector.KindPrediction, Version: 9, Payload: append([]byte{9, 1}, collector.EncodedText(id)...)})
	}
	write(t, w, "b", append(records, m.schemaRecord(t))...)
	var got subjectCounts
	if err := s.ExportSubject(t.Context(), Subject{Tenant: "default", ExternalID: "anna"}, func(*Erasure) error { return nil }, got.add); err != nil || got.undecodable != 2 {
		t.Errorf("exported %+v, %v", got, err)
	}
	e, err := s.Erase(t.Context(), Subject{Tenant: "default", ExternalID: "anna"}, atOnce)
	if err != nil || e.Before["undecodable"] != 2 || number(t, s, "SELECT count() FROM undecodable") != 1 {
		t.Errorf("erased %+v, %v", e, err)
	}
	short, err := s.CountSubject(t.Context(), Subject{Tenant: "default", ExternalID: "ann"})
	if err != nil || short.Before["undecodable"] != 0 || short.Unsearched["undecodable"] != 1 {
		t.Errorf("an id too short to look for: %+v, %v", short, err)
	}
}

// TestErasedRowsStayErased sends the batch again, as after a lost acknowledgement,
// and lets a fresh writer doubt it.
func TestErasedRowsStayErased(t *testing.T) {
	s, m := open(t), newMaker(t)
	w := writer(t, s, WriterConfig{})
	p := writePeople(t, s, w, m)
	if _, err := s.Erase(t.Context(), Subject{Tenant: "default", ExternalID: "ann"}, atOnce); err != nil {
		t.Fatal(err)
	}
	// Another batch of the same minute, of a writer that has just begun and looks
	// whether its rows are there.
	late := m.prediction(t, 1, base)
	fresh := writer(t, s, WriterConfig{})
	write(t, fresh, "later", m.schemaRecord(t), record(late))
	if got := number(t, s, "SELECT count() FROM predictions WHERE external_id = 'ann'"); got != 0 {
		t.Errorf("%v erased rows came back", got)
	}
	if _, err := s.Prediction(t.Context(), collector.Ref{Tenant: "default", ID: p.ann.ID}); !errors.Is(err, collector.ErrNotFound) {
		t.Errorf("an erased prediction: %v", err)
	}
	if _, err := s.Prediction(t.Context(), collector.Ref{Tenant: "default", ID: late.ID}); err != nil {
		t.Errorf("the row that came later: %v", err)
	}
	// The token is still known: the same batch again brings nothing back.
	writePeopleAgain(t, w, m, p)
	if got := number(t, s, "SELECT count() FROM predictions WHERE external_id = 'ann'"); got != 0 {
		t.Errorf("%v erased rows came back with their batch's token", got)
	}
}

func writePeopleAgain(t *testing.T, w *Writer, m *maker, p *people) {
	t.Helper()
	write(t, w, "people", m.schemaRecord(t), record(p.ann), record(p.other), record(p.shared), record(p.bob))
}

// TestErasureWaitsForWhatIsOnItsWay finds rows, and deletes none where it is not told
// that their batch is acknowledged.
func TestErasureWaitsForWhatIsOnItsWay(t *testing.T) {
	s, m := open(t), newMaker(t)
	writePeople(t, s, writer(t, s, WriterConfig{}), m)
	before := tables(t, s)
	busy := errors.New("a batch is under way")
	e, err := s.Erase(t.Context(), Subject{Tenant: "default", ExternalID: "ann"}, func(context.Context, *Erasure) error { return busy })
	if !errors.Is(err, busy) {
		t.Fatalf("%+v, %v", e, err)
	}
	if got := tables(t, s); !stdmaps.Equal(got, before) {
		t.Errorf("%v became %v", before, got)
	}
	// Rows that come between finding and deleting are not among those found.
	late := m.prediction(t, 1, base)
	late.ExternalIDs = []string{"ann"}
	e, err = s.Erase(t.Context(), Subject{Tenant: "default", ExternalID: "ann"}, func(context.Context, *Erasure) error {
		write(t, writer(t, s, WriterConfig{}), "late", record(late))
		return nil
	})
	if err != nil || e.Before["predictions"] != 3 || e.After["predictions"] != 0 {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := s.Prediction(t.Context(), collector.Ref{Tenant: "default", ID: late.ID}); err != nil {
		t.Errorf("the row that came meanwhile: %v", err)
	}
}

// TestHashedValuesAreFoundByTheClearOne names somebody by what only the caller knows.
func TestHashedValuesAreFoundByTheClearOne(t *testing.T) {
	s, m := open(t), newMaker(t)
	key := []byte("0123456789abcdef")
	plain := collector.Field{Name: "customer", Private: collector.PrivacyHash, KeyID: keyID(key)}
	stored, err := plain.StoredAs(key, "ann")
	if err != nil {
		t.Fatal(err)
	}
	hash := stored[slices.IndexFunc(stored, func(s string) bool { return s != "ann" })]
	for i := range m.schema.Features {
		if m.schema.Features[i].Name == "city" {
			m.schema.Features[i].Private, m.schema.Features[i].KeyID = collector.PrivacyHash, plain.KeyID
			m.schema.Features[i].Name = "customer"
		}
	}
	w := writer(t, s, WriterConfig{})
	one, two := m.prediction(t, 1, base), m.prediction(t, 1, base)
	one.Features.Str[0], two.Features.Str[0] = hash, "ffff"
	doc, err := collector.EncodeSchema(m.schema)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := collector.DecodeSchema(doc)
	if err != nil {
		t.Fatal(err)
	}
	one.SchemaID, two.SchemaID, m.schema = parsed.ID, parsed.ID, parsed
	write(t, w, "b", m.schemaRecord(t), record(one), record(two))
	x := Subject{Tenant: "default", Model: "delay", Stored: func(f *collector.Field, v string) ([]string, error) { return f.StoredAs(key, v) }}
	for where, want := range map[string]int64{
		"customer = 'ann'": 1, "customer in ('ann', 'bob')": 1, "customer = '" + hash + "'": 1, "customer != 'ann'": 1, "customer not in ('ann')": 1, "customer = 'bob'": 0,
	} {
		x.Where = where
		got, err := s.CountSubject(t.Context(), x)
		if err != nil || got.Before["predictions"] != want {
			t.Errorf("%s: %+v, %v; want %d", where, got, err, want)
		}
	}
	x.Where = "customer < 'b'"
	if _, err := s.CountSubject(t.Context(), x); !errors.Is(err, ErrWhere) {
		t.Errorf("an order of hashes: %v", err)
	}
	x.Where, x.Stored = "customer = 'ann'", func(f *collector.Field, v string) ([]string, error) {
		return f.StoredAs([]byte("another key of enough bytes"), v)
	}
	if _, err := s.CountSubject(t.Context(), x); !errors.Is(err, ErrWhere) || !strings.Contains(err.Error(), "another key") {
		t.Errorf("another key: %v", err)
	}
}

func TestSubjectsNameSomebody(t *testing.T) {
	s := open(t)
	for _, x := range []Subject{{}, {Model: "m"}, {ExternalID: "a", PredictionID: "b"}, {Where: "score > 0"}, {PredictionID: "a", Model: "m"}, {ExternalID: "a", Model: "m", Where: "score > 0"}} {
		if _, err := s.CountSubject(t.Context(), x); !errors.Is(err, ErrSubject) {
			t.Errorf("%+v: %v", x, err)
		}
	}
	if _, err := s.CountSubject(t.Context(), Subject{Tenant: "default", Model: "m", Where: "score >"}); !errors.Is(err, ErrWhere) {
		t.Errorf("a broken filter: %v", err)
	}
}

// TestTidyLeavesOthersAlone: a server that starts drops what its own erasures left, and of those of
// another on the same ClickHouse, which may be at work, what is a day old.
func TestTidyLeavesOthersAlone(t *testing.T) {
	dsn := embeddedtest.DSN(t)
	alone := openDSN(t, dsn)
	var two []*Store
	for _, owner := range []string{"a", "b"} {
		s, err := Open(t.Context(), Config{DSN: dsn, Owner: owner})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		two = append(two, s)
	}
	left := func() float64 {
		return number(t, alone, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND match(name, '^(erase|count)_')")
	}
	for _, kind := range []string{erasePrefix, countPrefix} {
		prefix, err := two[0].keysPrefix(kind)
		if err != nil {
			t.Fatal(err)
		}
		if !Passing(prefix + "predictions") {
			t.Errorf("%s is not known for a table of keys", prefix)
		}
		exec(t, alone, "CREATE TABLE "+prefix+"predictions (id String) ENGINE = MergeTree ORDER BY id")
	}
	for _, step := range []struct {
		s    *Store
		left float64
	}{{two[1], 2}, {two[0], 0}} {
		if err := step.s.Tidy(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if got := left(); got != step.left {
			t.Errorf("%v tables are left, want %v", got, step.left)
		}
	}
	prefix, err := two[0].keysPrefix(erasePrefix)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, alone, "CREATE TABLE "+prefix+"predictions (id String) ENGINE = MergeTree ORDER BY id")
	if err := alone.Tidy(t.Context(), ""); err != nil || left() != 0 {
		t.Errorf("who is alone leaves %v tables: %v", left(), err)
	}
}
