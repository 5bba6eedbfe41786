package clickhouse

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// outsides are the rows of a prediction as something outside of the tables has them.
func outsides(p *collector.Prediction, s *collector.Schema) []*Outside {
	var out []*Outside
	for i, r := range collector.StoredRows(p, s) {
		out = append(out, &Outside{Features: r.Features, Fields: s.Features, Redacted: p.Capture == collector.CaptureRedacted, Columns: map[string]any{
			"id": p.ID, "row": int64(i), "rows": int64(p.Rows), "version": p.Version, "external_id": r.ExternalID, "score": r.Raw.Score,
			"status": int64(p.Status), "time": r.Time, "capture": p.Capture,
		}})
	}
	return out
}

// TestMatchesAsTheTablesDo holds what is said of rows outside of the tables against
// what the tables find of the same.
func TestMatchesAsTheTablesDo(t *testing.T) {
	s, m := open(t), newMaker(t)
	records := []collector.Record{m.schemaRecord(t)}
	var list []*collector.Prediction
	for i := range 40 {
		p := m.prediction(t, 1+i%2, base.Add(time.Duration(i)*time.Hour))
		p.ExternalIDs = []string{fmt.Sprint("order-", i)}
		list = append(list, p)
		records = append(records, record(p))
	}
	write(t, writer(t, s, WriterConfig{}), "b", records...)
	first := list[0].Features
	filters := []string{
		"city = 'JFK'", "city != 'JFK'", "not city = 'JFK'", "city in ('JFK', 'LAX')", "city not in ('JFK')", "city is null", "city = ''", "city > ''", "city is not null", "city < 'K'", "prediction.row = 1", "row = 1 or city is null",
		"score > 0.5", "score <= 0.5 and not (row = 0)", "external_id = 'order-7'", "external_id in ('order-7', 'nobody')", "time >= '2023-05-01T12:00:00Z'", "time < '" + base.Add(5*time.Hour).Format(time.RFC3339) + "'", "status = 200", "rows = 2",
		"capture = 'full'", "id = '" + list[3].ID + "'",
	}
	for i := range m.schema.Features {
		f := &m.schema.Features[i]
		if array, at, ok := collector.FieldPosition(m.schema.Features, i); ok && f.Elements == 1 {
			for _, op := range []string{"=", "!=", "<", ">="} {
				switch array {
				case "F32":
					filters = append(filters, fmt.Sprintf("%q %s %v", f.Name, op, first.F32[at]))
				case "F64":
					filters = append(filters, fmt.Sprintf("%q %s %v", f.Name, op, first.F64[at]))
				case "I64":
					filters = append(filters, fmt.Sprintf("%q %s %d", f.Name, op, first.I64[at]))
				}
			}
			filters = append(filters, fmt.Sprintf("%q is null", f.Name), fmt.Sprintf("not (%q is not null)", f.Name))
		}
	}
	asked, maybe := 0, 0
	for _, filter := range filters {
		x := Subject{Tenant: "default", Model: "delay", Where: filter}
		w, err := s.subjectRows(t.Context(), &x)
		if err != nil {
			t.Fatalf("%s: %v", filter, err)
		}
		found, err := s.strings(t.Context(), "SELECT concat(id, ' ', toString(row)) FROM predictions WHERE "+w.sql, w.args...)
		if err != nil {
			t.Fatalf("%s: %v", filter, err)
		}
		for _, p := range list {
			for i, row := range outsides(p, m.schema) {
				got, err := x.Matches(row)
				if err != nil {
					t.Fatalf("%s: %v", filter, err)
				}
				want := No
				if slices.Contains(found, fmt.Sprint(p.ID, " ", i)) {
					want = Yes
				}
				if asked++; got == Maybe {
					maybe++
				} else if got != want {
					t.Fatalf("%s: %v of %+v, the tables say %v", filter, got, row.Features, want)
				}
			}
		}
	}
	if asked < 2000 || maybe > asked/20 {
		t.Errorf("%d of %d cannot be known", maybe, asked)
	}
}

// TestWhatCannotBeKnownIsNotNo: features that are not there, or in a form that tells
// nothing, make no row somebody else's.
func TestWhatCannotBeKnownIsNotNo(t *testing.T) {
	sealed := []collector.Field{{Name: "who", Private: collector.PrivacySeal, Elements: 1}, {Name: "note", Elements: 1}, {Name: "gone", Private: collector.PrivacyDrop}}
	stored := &Outside{Features: map[string]any{"who": "***", "note": "of [email]"}, Fields: sealed, Redacted: true, Columns: map[string]any{"row": int64(0)}}
	sampled := &Outside{Features: map[string]any{}, Fields: sealed, Columns: map[string]any{"row": int64(0)}}
	half := &Outside{Features: map[string]any{"who": "ann", "age": json.Number("41"), "temp": json.Number("0.1"), "n": nil}, Columns: map[string]any{"external_id": ""}}
	for _, c := range []struct {
		row   *Outside
		where string
		want  Verdict
	}{
		{stored, "who = 'ann'", Maybe},
		{stored, "not who = 'ann'", Maybe},
		{stored, "who is not null", Yes},
		{stored, "gone = 1", Maybe},
		{stored, "who = 'ann' and row = 1", No},
		{stored, "who = 'ann' or row = 0", Yes},
		{stored, "note = 'of ann@example.org'", Maybe},
		{stored, "note = 'of [email]'", Yes},
		{stored, "nothing = 1", No},
		{stored, "bins_id = 'x'", Maybe},
		{sampled, "who = 'ann'", Maybe},
		{sampled, "note in ('a', 'b')", Maybe},
		{sampled, "note not in ('a')", Maybe},
		{sampled, "note is null", Maybe},
		{half, "who = 'ann'", Yes},
		{half, "who in ('bob', 'ann')", Yes},
		{half, "age >= 41 and age < 42", Yes},
		{half, "age = 40", No},
		{half, "age = 'x'", Maybe},
		{half, "temp = 0.1", Yes},
		{half, "temp = 0.100000001", Maybe},
		{half, "n = 1", No},
		{half, "n is null", Yes},
		{half, "external_id = 'a'", No},
		{half, "score > 0", Maybe},
		{half, "not (score > 0)", Maybe},
	} {
		x := Subject{Where: c.where}
		if got, err := x.Matches(c.row); err != nil || got != c.want {
			t.Errorf("%s: %v, %v; want %v of %+v", c.where, got, err, c.want, c.row)
		}
	}
	for _, bad := range []string{"who =", "(who = 'a'", "who = 'a' who", "who is 1", "who in 1", "who in ('a'", "'a' = 1", "who not 1", "who = who", strings.Repeat("(", 100) + "a = 1", strings.Repeat("not ", 100) + "a = 1", strings.Repeat("a = 1 or ", 600) + "a = 1"} {
		x := Subject{Where: bad}
		if _, err := x.Matches(half); !errors.Is(err, ErrWhere) {
			t.Errorf("%.40s: %v", bad, err)
		}
	}
}

// TestFiltersSayWhatTheyCannotSee counts rows without features, and those of another
// version that has the feature sealed, and refuses a filter that can find nobody.
func TestFiltersSayWhatTheyCannotSee(t *testing.T) {
	s, m := open(t), newMaker(t)
	w := writer(t, s, WriterConfig{})
	full, other, sampled, refused, redacted := m.prediction(t, 1, base), m.prediction(t, 1, base), m.prediction(t, 2, base), m.prediction(t, 1, base), m.prediction(t, 1, base)
	full.Features.Str[0], other.Features.Str[0], redacted.Features.Str[0] = "Annville", "Bobtown", "[card]"
	sampled.Features, sampled.Capture = collector.Columns{}, collector.CaptureSampled
	refused.Features, refused.SchemaID, refused.Capture, refused.Status = collector.Columns{}, "", "none", 400
	redacted.Capture = collector.CaptureRedacted
	write(t, w, "clear", m.schemaRecord(t), record(full), record(other), record(sampled), record(refused), record(redacted))
	count := func(where string) (int64, int64, error) {
		t.Helper()
		e, err := s.CountSubject(t.Context(), Subject{Tenant: "default", Model: "delay", Where: where})
		if err != nil {
			return 0, 0, err
		}
		return e.Before["predictions"], e.Unsearched["predictions"], nil
	}
	same := func(where string, found, unsearched int64) {
		t.Helper()
		if n, u, err := count(where); err != nil || n != found || u != unsearched {
			t.Errorf("%s: found %d, cannot know of %d, %v; want %d and %d", where, n, u, err, found, unsearched)
		}
	}
	same("city = 'Annville'", 1, 4) // two rows sampled, one refused, one redacted
	same("city = 'Annville' and row = 1", 0, 1)
	same("distance > 1e30", 0, 3)
	same("row = 1", 1, 0)
	same("city in ('Annville', 'Bobtown') and version = 'nine'", 0, 0)
	// A later version seals it.
	for i := range m.schema.Features {
		if f := &m.schema.Features[i]; f.Name == "city" {
			f.Private = collector.PrivacySeal
		}
	}
	doc, err := collector.EncodeSchema(m.schema)
	if err != nil {
		t.Fatal(err)
	}
	if m.schema, err = collector.DecodeSchema(doc); err != nil {
		t.Fatal(err)
	}
	later := m.prediction(t, 1, base)
	later.SchemaID, later.Features.Str[0] = m.schema.ID, "c2VhbGVk"
	write(t, w, "sealed", m.schemaRecord(t), record(later))
	s.mu.Lock()
	clear(s.modelIDs)
	s.mu.Unlock()
	same("city = 'Annville'", 1, 5)
	later.Model, later.ID = "shut", "of-another"
	write(t, w, "shut", record(later))
	if _, err := s.CountSubject(t.Context(), Subject{Tenant: "default", Model: "shut", Where: "city = 'Annville'"}); !errors.Is(err, ErrWhere) || !strings.Contains(err.Error(), "seal") {
		t.Errorf("a filter that can find nobody: %v", err)
	}
	if e, err := s.CountSubject(t.Context(), Subject{Tenant: "default", Model: "shut", Where: "city is not null"}); err != nil || e.Before["predictions"] != 1 {
		t.Errorf("whether it is missing is known: %+v, %v", e, err)
	}
}

// TestErasureByAnyFormOfAnID: of the caller's id a part may be stored hashed.
func TestErasureByAnyFormOfAnID(t *testing.T) {
	s, m := open(t), newMaker(t)
	w := writer(t, s, WriterConfig{})
	one, two, other := m.prediction(t, 1, base), m.prediction(t, 1, base), m.prediction(t, 1, base)
	one.ExternalIDs, two.ExternalIDs, other.ExternalIDs = []string{"of ann@x.org"}, []string{"of [email:01]"}, []string{"of [email:02]"}
	junk := collector.Record{Kind: collector.KindPrediction, Version: 9, Payload: append([]byte{9, 1}, collector.EncodedText("of [email:01]")...)}
	write(t, w, "b", m.schemaRecord(t), record(one), record(two), record(other), junk,
		feedback(&collector.Feedback{ExternalID: "of [email:01]", Tenant: "default", Label: "1", ObservedAt: base, ReceivedAt: base}))
	forms := func(id string) ([]string, error) {
		return []string{id, strings.ReplaceAll(id, "ann@x.org", "[email:01]")}, nil
	}
	for _, x := range []Subject{{ExternalID: "of ann@x.org"}, {Model: "delay", Where: "external_id = 'of ann@x.org'"}, {Model: "delay", Where: "external_id in ('of ann@x.org', 'x')"}} {
		x.Tenant, x.StoredID = "default", forms
		e, err := s.CountSubject(t.Context(), x)
		if err != nil || e.Before["predictions"] != 2 || e.Before["feedback"] != 1 {
			t.Errorf("%+v: %+v, %v", x, e, err)
		}
	}
	e, err := s.Erase(t.Context(), Subject{Tenant: "default", ExternalID: "of ann@x.org", StoredID: forms}, atOnce)
	if err != nil || e.Before["undecodable"] != 1 || e.After["predictions"] != 0 {
		t.Errorf("erased %+v, %v", e, err)
	}
	if n := number(t, s, "SELECT count() FROM predictions"); n != 1 {
		t.Errorf("%v predictions are left", n)
	}
}
