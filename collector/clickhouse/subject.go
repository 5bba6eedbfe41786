package clickhouse

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/pellucid/pellucid/collector"
)

// Subject names whose rows are meant: by the caller's own id, by the id of a
// prediction, or by a filter over a model's. One of the three is set.
type Subject struct {
	Tenant string
	// Model narrows an ExternalID to one model; a filter needs it.
	Model                    string
	ExternalID, PredictionID string
	Where                    string
	// Stored turns a clear value of a field that is private by hash into what may be
	// stored of it; nil takes the filter's values as they are.
	Stored func(f *collector.Field, value string) ([]string, error)
	// StoredID turns a caller's own id, or another text, into what may be stored of it
	// besides: patterns hash parts of it. nil takes it as it is.
	StoredID func(id string) ([]string, error)
	// Elsewhere are rows of the subject's that the table of predictions does not have,
	// whose labels, explanations and spans may be stored all the same.
	Elsewhere []Elsewhere
}

// Elsewhere is one row of a prediction that is a dead letter, or waits for its other half.
type Elsewhere struct {
	Model, ID           string // the request's
	Row                 int
	ExternalID, TraceID string
}

// clear is how the subject's filter is compiled.
func (x *Subject) clear(may bool) *clearForms {
	return &clearForms{field: x.Stored, id: x.StoredID, may: may}
}

// externalIDs are the forms in which the subject's own id may be stored.
func (x *Subject) externalIDs() ([]string, error) {
	if x.StoredID == nil || x.ExternalID == "" {
		return []string{x.ExternalID}, nil
	}
	return x.StoredID(x.ExternalID)
}

// ErrSubject is wrapped by the error of a subject that names nobody, or in more than
// one way.
var ErrSubject = errors.New("bad subject")

// check refuses a subject that cannot be meant.
func (x *Subject) check() error {
	given := 0
	for _, s := range []string{x.ExternalID, x.PredictionID, strings.TrimSpace(x.Where)} {
		if s != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return fmt.Errorf("%w: give one of external_id, prediction_id and where", ErrSubject)
	case x.Where != "" && x.Model == "":
		return fmt.Errorf("%w: where needs a model", ErrSubject)
	case x.PredictionID != "" && x.Model != "":
		return fmt.Errorf("%w: a prediction_id needs no model", ErrSubject)
	}
	return nil
}

// subjectRows is the condition on the table predictions.
func (s *Store) subjectRows(ctx context.Context, x *Subject) (predicate, error) {
	p := predicate{sql: "tenant = ?", args: []any{x.Tenant}}
	add := func(sql string, args ...any) {
		p.sql += " AND " + sql
		p.args = append(p.args, args...)
	}
	if x.Model != "" {
		add("model = ?", x.Model)
	}
	switch {
	case x.ExternalID != "":
		ids, err := x.externalIDs()
		if err != nil {
			return p, err
		}
		add("external_id IN (?)", ids)
	case x.PredictionID != "":
		// As it is read: a whole request, else one row of it.
		n, err := s.ask(ctx, "SELECT count() FROM predictions WHERE tenant = ? AND id = ?", x.Tenant, x.PredictionID)
		if err != nil {
			return p, err
		}
		if base, row, ok := collector.SplitID(x.PredictionID); ok && n == 0 {
			add("id = ? AND row = ?", base, uint32(row))
			break
		}
		if id, _ := splitRowID(x.PredictionID + ".0"); id == x.PredictionID { // and its rows that were sent alone
			add("(id = ? OR startsWith(id, ?) AND "+sentAlone+")", x.PredictionID, x.PredictionID+".")
			break
		}
		add("id = ?", x.PredictionID)
	default:
		schemas, err := s.modelSchemas(ctx, x.Tenant, x.Model)
		if err != nil {
			return p, err
		}
		w, err := compileClear(x.Where, schemas, x.clear(false))
		if err != nil {
			return p, err
		}
		add(w.sql, w.args...)
	}
	return p, nil
}

// target is a table with the columns that tell its rows apart.
type target struct{ table, key, also string }

// targets are the tables that hold something about a subject, in the order in which
// their rows are found: what is found later rests on what was found before.
var targets = []target{
	{"predictions", "tenant, model, id, row, insert_batch", ", external_id, trace_id"},
	{"feedback", "tenant, target_id, target_row, external_id, model, received_at, insert_batch, position", ""},
	{"explanations", "tenant, target_id, target_row, method, output, doc_hash", ""},
	{"otel_traces", "TraceId", ""},
	{"otel_traces_trace_id_ts", "TraceId", ""},
	{"undecodable", "insert_batch, position", ""},
}

// found is a set of rows of every target, kept in tables of its own, so that what is
// counted, read and deleted is the same, and so that no statement which the server
// keeps (a mutation's stays on its disk) has a value of somebody's in it.
type found struct {
	s      *Store
	prefix string
	counts map[string]int64
}

// list is the table with the keys of a target's rows.
func (f *found) list(t target) string { return f.prefix + t.table }

// in selects the rows of a target that were found.
func (f *found) in(t target) string {
	return "(" + t.key + ") IN (SELECT " + t.key + " FROM " + f.list(t) + ")"
}

// own is in for a mutation: on a cluster each server has the keys of the rows that
// it has itself.
func (f *found) own(t target) string {
	return "(" + t.key + ") IN (SELECT " + t.key + " FROM " + f.s.cluster.local(f.list(t)) + ")"
}

// find notes what belongs to a subject.
func (s *Store) find(ctx context.Context, prefix string, x *Subject) (*found, error) {
	rows, err := s.subjectRows(ctx, x)
	if err != nil {
		return nil, err
	}
	n, err := s.ask(ctx, "SELECT count() FROM predictions WHERE "+rows.sql, rows.args...)
	if err != nil {
		return nil, err
	}
	if n > maxErased {
		return nil, fmt.Errorf("%w: %.0f predictions are more than the %d of one call: narrow it", ErrSubject, n, maxErased)
	}
	f := &found{s: s, prefix: prefix, counts: map[string]int64{}}
	for _, t := range targets {
		where, err := f.condition(t, x, rows)
		if err != nil {
			return f, err
		}
		var elsewhere [][]any
		if t == targets[0] {
			elsewhere = x.elsewhere()
		}
		if err := f.note(ctx, t, where, elsewhere...); err != nil {
			return f, err
		}
	}
	return f, nil
}

// elsewhere are the keys of rows that are elsewhere: of no batch.
func (x *Subject) elsewhere() [][]any {
	out := make([][]any, len(x.Elsewhere))
	for i, e := range x.Elsewhere {
		out[i] = []any{x.Tenant, e.Model, e.ID, uint32(e.Row), "", e.ExternalID, e.TraceID} //nolint:gosec // rows of a request are bounded
	}
	return out
}

// note makes the table of a target's rows under a condition, and counts them. Rows that
// are elsewhere have keys among those of predictions, that what goes with them is found
// as what goes with a stored one is.
func (f *found) note(ctx context.Context, t target, where predicate, elsewhere ...[]any) error {
	rows := "SELECT DISTINCT " + t.key + t.also + " FROM "
	before, fill, after := f.s.cluster.keyTable(f.list(t), t.table, rows)
	for _, statement := range before {
		if err := f.s.everywhere(ctx, statement); err != nil {
			return fmt.Errorf("find rows of %s: %w", t.table, unavailable(err))
		}
	}
	if err := f.s.conn.Exec(ctx, fill+rows+t.table+" WHERE "+where.sql, where.args...); err != nil {
		return fmt.Errorf("find rows of %s: %w", t.table, unavailable(err))
	}
	if len(elsewhere) > 0 {
		insert := "INSERT INTO " + f.list(t) + " (tenant, model, id, row, insert_batch, external_id, trace_id)"
		if err := f.s.sendRows(ctx, f.list(t), insert, len(elsewhere), func(i int) []any { return elsewhere[i] }); err != nil {
			return fmt.Errorf("find rows of %s: %w", t.table, unavailable(err))
		}
	}
	if after != "" {
		if err := f.s.conn.Exec(ctx, after); err != nil {
			return fmt.Errorf("find rows of %s: %w", t.table, unavailable(err))
		}
	}
	n, err := f.count(ctx, t)
	f.counts[t.table] = n
	return err
}

// count asks how many rows of a target are there of those that were found.
func (f *found) count(ctx context.Context, t target) (int64, error) {
	var n uint64
	if err := f.s.conn.QueryRow(ctx, "SELECT count() FROM "+t.table+" WHERE "+f.in(t)).Scan(&n); err != nil {
		return 0, fmt.Errorf("count rows of %s: %w", t.table, unavailable(err))
	}
	return int64(n), nil
}

// condition is which rows of a target go with the predictions that were found.
func (f *found) condition(t target, x *Subject, rows predicate) (predicate, error) {
	p := targets[0]
	keys := f.list(p)
	// gone selects a column of the predictions found that no other prediction has.
	gone := func(column string) string {
		return "SELECT " + column + " FROM " + keys + " WHERE (" + column + ") NOT IN (SELECT " + column + " FROM predictions WHERE (" + column +
			") IN (SELECT " + column + " FROM " + keys + ") AND NOT " + f.in(p) + ")"
	}
	switch t.table {
	case "predictions":
		return rows, nil
	case "feedback":
		// A label names a row, or the caller's id, which is nobody's when no row has it.
		w := predicate{
			sql: "tenant = ? AND (target_id != '' AND (" + about("target_id, target_row", "id, row", keys, "NOT ("+sentAlone+")") + " OR " + about("prediction_id", "id", keys, sentAlone) + ")" +
				" OR external_id != '' AND ((tenant, external_id) IN (" + gone("tenant, external_id") + ") OR (tenant, model, external_id) IN (" + gone("tenant, model, external_id") + "))",
			args: []any{x.Tenant},
		}
		if x.ExternalID != "" {
			ids, err := x.externalIDs()
			if err != nil {
				return w, err
			}
			w.sql += " OR external_id IN (?) AND (model = ? OR ? = '')"
			w.args = append(w.args, ids, x.Model, x.Model)
		}
		own := x.named()
		w.sql += own.sql + ")"
		w.args = append(w.args, own.args...)
		return w, nil
	case "explanations":
		own := x.named()
		return predicate{
			sql:  "tenant = ? AND ((model, target_id, target_row) IN (SELECT model, " + rowTarget + " FROM " + keys + ")" + own.sql + ")",
			args: append([]any{x.Tenant}, own.args...),
		}, nil
	case "undecodable":
		return x.undecodable()
	}
	return f.traces(x, gone("trace_id"))
}

// Attributes of a span that name a prediction, stored or not.
const (
	spanModel      = "ml.model.name"
	spanPrediction = "ml.prediction.id"
	spanExternal   = "ml.prediction.external_id"
)

// traces are those of the predictions found, and those with a span that names the subject's id,
// of which no prediction is stored, or none but those found.
func (f *found) traces(x *Subject, gone string) (predicate, error) {
	w := predicate{sql: "TraceId != '' AND (TraceId IN (" + gone + ")"}
	attribute, ids := spanPrediction, []string{x.PredictionID}
	if x.ExternalID != "" {
		var err error
		if ids, err = x.externalIDs(); err != nil {
			return w, err
		}
		attribute = spanExternal
	}
	if x.ExternalID+x.PredictionID != "" {
		// The index is of all values.
		named := "SELECT TraceId FROM otel_traces WHERE hasAny(mapValues(SpanAttributes), ?) AND SpanAttributes['" + attribute + "'] IN (?)" +
			" AND (? = '' OR SpanAttributes['" + spanModel + "'] IN ('', ?))"
		w.sql += " OR TraceId IN (" + named + ") AND TraceId NOT IN (SELECT trace_id FROM predictions WHERE trace_id IN (" + named + ") AND NOT " + f.in(targets[0]) + ")"
		w.args = append(w.args, ids, ids, x.Model, x.Model, ids, ids, x.Model, x.Model)
	}
	w.sql += ")"
	return w, nil
}

// about is which labels name some of the rows found, by columns of theirs and of the rows', of
// the label's model where it has one.
func about(label, row, keys, which string) string {
	from := " FROM " + keys + " WHERE " + which + ")"
	return "(tenant, " + label + ") IN (SELECT tenant, " + row + from + " AND (model = '' OR (tenant, model, " + label + ") IN (SELECT tenant, model, " + row + from + ")"
}

// named is what is about the id that the subject gives, a prediction of which may be
// stored or not, as one more alternative.
func (x *Subject) named() predicate {
	if x.PredictionID == "" {
		return predicate{}
	}
	id, row := splitRowID(x.PredictionID)
	if id == x.PredictionID {
		return predicate{sql: " OR target_id = ?", args: []any{id}} // of any row
	}
	return predicate{sql: " OR target_id = ? AND target_row = ?", args: []any{id, row}}
}

// leastText is how long an id must be to be looked for among bytes that nobody
// understands.
const leastText = 4

// undecodable selects records that no decoder understood and that have the subject's
// id as a text of theirs.
func (x *Subject) undecodable() (predicate, error) {
	texts, err := x.texts()
	if err != nil || len(texts) == 0 {
		return predicate{sql: "0"}, err
	}
	var p predicate
	for i, text := range texts {
		if i > 0 {
			p.sql += " OR "
		}
		p.sql += "position(payload, unhex(?)) > 0"
		p.args = append(p.args, hex.EncodeToString(text))
	}
	return p, nil
}

// texts are what the subject's id is among bytes that nobody understands; none where
// it cannot be looked for there.
func (x *Subject) texts() ([][]byte, error) {
	ids, err := x.externalIDs()
	if err != nil || len(x.ExternalID+x.PredictionID) < leastText {
		return nil, err
	}
	if x.PredictionID != "" {
		ids = []string{x.PredictionID}
	}
	out := make([][]byte, len(ids))
	for i, id := range ids {
		out[i] = collector.EncodedText(id)
	}
	return out, nil
}

// mayBe counts the predictions that were not found and of which the filter cannot be
// known: their features are not stored, or not in a form that can be compared.
func (s *Store) mayBe(ctx context.Context, x *Subject) (int64, error) {
	if x.Where == "" {
		return 0, nil
	}
	schemas, err := s.modelSchemas(ctx, x.Tenant, x.Model)
	if err != nil {
		return 0, err
	}
	sure, err := compileClear(x.Where, schemas, x.clear(false))
	if err != nil {
		return 0, err
	}
	may, err := compileClear(x.Where, schemas, x.clear(true))
	if err != nil {
		return 0, err
	}
	args := append(append([]any{x.Tenant, x.Model}, may.args...), sure.args...)
	n, err := s.ask(ctx, "SELECT count() FROM predictions WHERE tenant = ? AND model = ? AND "+may.sql+" AND NOT "+sure.sql, args...)
	return int64(n), err
}

// ask asks for one number.
func (s *Store) ask(ctx context.Context, query string, args ...any) (float64, error) {
	var x float64
	err := s.conn.QueryRow(ctx, "SELECT toFloat64(("+query+"))", args...).Scan(&x)
	return x, unavailable(err)
}
