package clickhouse

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/pellucid/pellucid/collector"
)

// storedColumns are what a stored prediction is read from, in the order of
// scanPrediction.
const storedColumns = "id, row, rows, received_at, time, model, version, digest, route, trace_id, span_id, external_id, " +
	"status, error, capture, decode_ns, model_ns, encode_ns, capture_ns, total_ns, schema_id, " +
	"f32, f64, i64, str, out_f32, out_f64, out_i64, out_str, score, decided, attempt_status, attempt_ms, weight, feature_weight"

// Limits of a listing.
const (
	defaultLimit = 50
	maxLimit     = 10000
)

// Row says which row of its request a stored prediction is.
type Row struct {
	collector.StoredPrediction
	RequestID string
	Row, Rows int
}

// Prediction returns the rows of an id: all of a request's, or one of them where the id
// is "<request>.<i>" ("<request>.0" of a request of one row as well); of a trace,
// "trace:<id>". An id made elsewhere may be one in several models. It returns
// collector.ErrNotFound where there is none.
func (s *Store) Prediction(ctx context.Context, ref collector.Ref) ([]collector.StoredPrediction, error) {
	where, args := "tenant = ?", []any{ref.Tenant}
	if ref.Model != "" {
		where, args = where+" AND model = ?", append(args, ref.Model)
	}
	ask := func(also string, arg ...any) ([]Row, error) {
		return s.rows(ctx, where+" AND "+also, append(slices.Clone(args), arg...)...)
	}
	var found []Row
	var err error
	if trace, ok := strings.CutPrefix(ref.ID, collector.TracePrefix); ok {
		found, err = ask("trace_id = ? ORDER BY time, id, row LIMIT 10000", strings.ToLower(trace))
	} else {
		found, err = ask("id = ? ORDER BY model, row LIMIT 100000", ref.ID)
		if base, n, one := collector.SplitID(ref.ID); err == nil && one && len(found) == 0 {
			found, err = ask("id = ? AND row = ? ORDER BY model LIMIT 1000", base, uint32(n))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find prediction %q: %w", ref.ID, err)
	}
	return s.finish(ctx, ref.Tenant, dedupe(found), "prediction "+ref.ID)
}

// ByExternalID returns the rows of a caller's id, of one model where model is
// not empty, newest first.
func (s *Store) ByExternalID(ctx context.Context, tenant, model, externalID string) ([]collector.StoredPrediction, error) {
	where, args := "tenant = ? AND external_id = ?", []any{tenant, externalID}
	if model != "" {
		where += " AND model = ?"
		args = append(args, model)
	}
	found, err := s.rows(ctx, where+" ORDER BY time DESC, id DESC, row DESC LIMIT 10000", args...)
	if err != nil {
		return nil, fmt.Errorf("find external id %q: %w", externalID, err)
	}
	return s.finish(ctx, tenant, dedupe(found), "external id "+externalID)
}

// List returns a page of predictions, newest event time first.
func (s *Store) List(ctx context.Context, q collector.Query) (*collector.Page, error) {
	where, args, err := s.conditions(ctx, q)
	if err != nil {
		return nil, err
	}
	limit := q.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	limit = min(limit, maxLimit)
	if q.Cursor != "" {
		c, err := parseCursor(q.Cursor)
		if err != nil {
			return nil, err
		}
		where += " AND (time, id, row) < (fromUnixTimestamp64Micro(?, 'UTC'), ?, ?)"
		args = append(args, c.micros, c.id, c.row)
	}
	found, err := s.rows(ctx, where+" ORDER BY time DESC, id DESC, row DESC LIMIT "+strconv.Itoa(limit+1), args...)
	if err != nil {
		return nil, fmt.Errorf("list predictions: %w", err)
	}
	page := &collector.Page{Predictions: []collector.StoredPrediction{}}
	if len(found) > limit {
		found = found[:limit]
		last := found[limit-1]
		page.Next = cursor{last.Time.UnixMicro(), last.RequestID, uint32(last.Row)}.String()
	}
	list, err := s.finish(ctx, q.Tenant, dedupe(found), "predictions")
	if errors.Is(err, collector.ErrNotFound) {
		return page, nil
	}
	if err != nil {
		return nil, err
	}
	page.Predictions = list
	return page, nil
}

// Count returns how many predictions a query selects.
func (s *Store) Count(ctx context.Context, q collector.Query) (uint64, error) {
	where, args, err := s.conditions(ctx, q)
	if err != nil {
		return 0, err
	}
	var n uint64
	if err := s.conn.QueryRow(ctx, "SELECT count() FROM predictions WHERE "+where, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count predictions: %w", unavailable(err))
	}
	return n, nil
}

// Schemas returns the schemas of the rows that q selects, those that are known.
func (s *Store) Schemas(ctx context.Context, q collector.Query) ([]*collector.Schema, error) {
	where, args, err := s.conditions(ctx, q)
	if err != nil {
		return nil, err
	}
	ids, err := s.strings(ctx, "SELECT DISTINCT toString(schema_id) FROM predictions WHERE schema_id != '' AND "+where+" LIMIT 1000", args...)
	if err != nil {
		return nil, fmt.Errorf("find the schemas of predictions: %w", err)
	}
	return s.schemasOf(ctx, ids)
}

// schemasOf returns the schemas of those ids that are known, in the order of the ids.
func (s *Store) schemasOf(ctx context.Context, ids []string) ([]*collector.Schema, error) {
	slices.Sort(ids)
	var out []*collector.Schema
	for _, id := range ids {
		schema, err := s.Schema(ctx, id)
		if errors.Is(err, collector.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, schema)
	}
	return out, nil
}

// labelledAtOnce is how many rows of an export get their labels by one question.
const labelledAtOnce = 1000

// Each calls f for every prediction that q selects, in the order of the table and
// with its labels, while they stream from the server: for export. An error of f ends
// it.
func (s *Store) Each(ctx context.Context, q collector.Query, f func(*collector.StoredPrediction) error) error {
	where, args, err := s.conditions(ctx, q)
	if err != nil {
		return err
	}
	rows, err := s.conn.Query(ctx, "SELECT "+storedColumns+" FROM predictions FINAL WHERE "+where, args...)
	if err != nil {
		return fmt.Errorf("export predictions: %w", unavailable(err))
	}
	defer rows.Close()
	waiting := make([]Row, 0, labelledAtOnce)
	flush := func() error {
		if err := s.label(ctx, q.Tenant, waiting); err != nil {
			return fmt.Errorf("export predictions: find their labels: %w", err)
		}
		for i := range waiting {
			if err := f(&waiting[i].StoredPrediction); err != nil {
				return err
			}
		}
		waiting = waiting[:0]
		return nil
	}
	for rows.Next() {
		r, err := scanPrediction(rows)
		if err == nil {
			err = s.name(ctx, &r)
		}
		if err != nil {
			return fmt.Errorf("export predictions: %w", err)
		}
		if waiting = append(waiting, r); len(waiting) < labelledAtOnce {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("export predictions: %w", unavailable(err))
	}
	return flush()
}

// conditions compiles a query, but for its limit and cursor.
func (s *Store) conditions(ctx context.Context, q collector.Query) (string, []any, error) {
	where, args := []string{"tenant = ?"}, []any{q.Tenant}
	add := func(sql string, arg ...any) {
		where = append(where, sql)
		args = append(args, arg...)
	}
	if q.Model != "" {
		add("model = ?", q.Model)
	}
	if q.Version != "" {
		add("version = ?", q.Version)
	}
	if !q.From.IsZero() {
		add("time >= fromUnixTimestamp64Micro(?, 'UTC')", q.From.UnixMicro())
	}
	if !q.To.IsZero() {
		add("time < fromUnixTimestamp64Micro(?, 'UTC')", q.To.UnixMicro())
	}
	if len(q.Routes) > 0 {
		names := make([]string, len(q.Routes))
		for i, r := range q.Routes {
			names[i] = string(r)
		}
		add("route IN (?)", names)
	}
	clear := &clearForms{}
	if s.clear != nil {
		clear.field, clear.id = s.clear(ctx)
	}
	if q.ExternalID != "" {
		forms := []string{q.ExternalID}
		if clear.id != nil {
			var err error
			if forms, err = clear.id(q.ExternalID); err != nil {
				return "", nil, err
			}
		}
		add("external_id IN (?)", forms)
	}
	if strings.TrimSpace(q.Where) != "" {
		schemas, err := s.modelSchemas(ctx, q.Tenant, q.Model)
		if err != nil {
			return "", nil, err
		}
		p, err := compileClear(q.Where, schemas, clear)
		if err != nil {
			return "", nil, err
		}
		add(p.sql, p.args...)
	}
	return strings.Join(where, " AND "), args, nil
}

// modelSchemas is a cached answer of which schemas a model's rows have.
type modelSchemas struct {
	at      time.Time
	schemas []*collector.Schema
}

// modelSchemas returns the schemas that rows of the model have. A filter is
// compiled against them all.
func (s *Store) modelSchemas(ctx context.Context, tenant, model string) ([]*collector.Schema, error) {
	if model == "" {
		return nil, nil
	}
	key := tenant + "\x00" + model
	s.mu.Lock()
	known, ok := s.modelIDs[key]
	s.mu.Unlock()
	if ok && time.Since(known.at) < 5*time.Second {
		return known.schemas, nil
	}
	ids, err := s.strings(ctx, "SELECT DISTINCT toString(schema_id) FROM predictions WHERE tenant = ? AND model = ? AND schema_id != '' LIMIT 1000", tenant, model)
	if err != nil {
		return nil, fmt.Errorf("find the schemas of model %q: %w", model, err)
	}
	out, err := s.schemasOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.modelIDs[key] = modelSchemas{time.Now(), out}
	s.mu.Unlock()
	return out, nil
}

type cursor struct {
	micros int64
	id     string
	row    uint32
}

func (c cursor) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %d %s", c.micros, c.row, c.id))
}

// ErrCursor is wrapped by the error of a cursor that List did not make.
var ErrCursor = errors.New("bad cursor")

func parseCursor(s string) (c cursor, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrCursor, err)
	}
	parts := strings.SplitN(string(b), " ", 3)
	if len(parts) != 3 {
		return c, fmt.Errorf("%w: %d parts", ErrCursor, len(parts))
	}
	row, errRow := strconv.ParseUint(parts[1], 10, 32)
	c.micros, err = strconv.ParseInt(parts[0], 10, 64)
	if err != nil || errRow != nil {
		return c, fmt.Errorf("%w: not a number in it", ErrCursor)
	}
	c.row, c.id = uint32(row), parts[2]
	return c, nil
}

func (s *Store) rows(ctx context.Context, where string, args ...any) ([]Row, error) {
	rows, err := s.conn.Query(ctx, "SELECT "+storedColumns+" FROM predictions WHERE "+where, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Row
	for rows.Next() {
		r, err := scanPrediction(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, unavailable(rows.Err())
}

func scanPrediction(rows driver.Rows) (Row, error) {
	var (
		r         Row
		row, n    uint32
		status    uint16
		route     string
		l         collector.Stages
		answers   []uint16
		took      []float64
		weight    float64
		p         = &r.StoredPrediction
		fin, fout = &p.Raw.Features, &p.Raw.Outputs
	)
	err := rows.Scan(&r.RequestID, &row, &n, &p.ReceivedAt, &p.Time, &p.Model, &p.Version, &p.Digest, &route, &p.TraceID, &p.SpanID, &p.ExternalID,
		&status, &p.Error, &p.Capture, &l.Decode, &l.Model, &l.Encode, &l.Capture, &l.Total, &p.Raw.SchemaID,
		&fin.F32, &fin.F64, &fin.I64, &fin.Str, &fout.F32, &fout.F64, &fout.I64, &fout.Str, &p.Raw.Score, &p.Raw.Decided, &answers, &took, &weight, &p.Raw.Weight)
	if err != nil {
		return r, fmt.Errorf("scan a prediction: %w", err)
	}
	for i := range min(len(answers), len(took)) {
		p.Attempts = append(p.Attempts, collector.Attempt{Status: int(answers[i]), MS: took[i]})
	}
	if p.Raw.Weight == 1 {
		p.Raw.Weight = 0
	}
	if weight != 1 {
		p.Weight = weight
	}
	r.Row, r.Rows = int(row), int(n)
	p.ID = collector.RowID(r.RequestID, r.Row, r.Rows)
	p.Status, p.Route, p.LatencyMS = int(status), collector.Route(route), l.Milliseconds()
	p.Time, p.ReceivedAt = p.Time.UTC(), p.ReceivedAt.UTC()
	p.Labels = []collector.StoredLabel{}
	return r, nil
}

// dedupe drops rows that are there twice, which a merge would drop later: the
// last line behind tokens, for a server whose memory of them was lost.
func dedupe(rows []Row) []Row {
	type key struct {
		id, model string
		row       int
	}
	seen := make(map[key]bool, len(rows))
	return slices.DeleteFunc(rows, func(r Row) bool {
		k := key{r.RequestID, r.Model, r.Row}
		twice := seen[k]
		seen[k] = true
		return twice
	})
}

// name fills the maps that need the schema. A row whose schema was never stored
// has empty maps.
func (s *Store) name(ctx context.Context, r *Row) error {
	r.Features, r.Outputs = map[string]any{}, map[string]any{}
	if r.Raw.SchemaID == "" {
		return nil
	}
	schema, err := s.Schema(ctx, r.Raw.SchemaID)
	if errors.Is(err, collector.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	r.Features, r.Outputs = collector.RowMaps(schema, r.Raw)
	return nil
}

// finish names the rows' values and joins their labels.
func (s *Store) finish(ctx context.Context, tenant string, rows []Row, what string) ([]collector.StoredPrediction, error) {
	if len(rows) == 0 {
		return nil, fmt.Errorf("find %s: %w", what, collector.ErrNotFound)
	}
	for i := range rows {
		if err := s.name(ctx, &rows[i]); err != nil {
			return nil, fmt.Errorf("find %s: %w", what, err)
		}
	}
	if err := s.label(ctx, tenant, rows); err != nil {
		return nil, fmt.Errorf("find the labels of %s: %w", what, err)
	}
	out := make([]collector.StoredPrediction, len(rows))
	for i := range rows {
		out[i] = rows[i].StoredPrediction
	}
	return out, nil
}

// label joins the labels of rows, by our id and by the caller's, newest first.
func (s *Store) label(ctx context.Context, tenant string, rows []Row) error {
	byID, byExternal := map[string][]int{}, map[string][]int{}
	for i := range rows {
		id := rows[i].RequestID
		if rows[i].Row == 0 {
			id, _ = splitRowID(id)
		}
		byID[id] = append(byID[id], i)
		if e := rows[i].ExternalID; e != "" {
			byExternal[e] = append(byExternal[e], i)
		}
	}
	add := func(i int, l collector.StoredLabel) { rows[i].Labels = append(rows[i].Labels, l) }
	err := s.labels(ctx, "target_id", tenant, keys(byID), func(target, id string, row uint32, model string, l collector.StoredLabel) {
		for _, i := range byID[target] {
			// One that was sent alone has the labels of its very id.
			its := rows[i].RequestID == target && rows[i].Row == int(row)
			if rows[i].RequestID != target {
				its = rows[i].RequestID == id
			}
			if its && (model == "" || model == rows[i].Model) {
				add(i, l)
			}
		}
	})
	if err != nil {
		return err
	}
	err = s.labels(ctx, "external_id", tenant, keys(byExternal), func(external, _ string, _ uint32, model string, l collector.StoredLabel) {
		for _, i := range byExternal[external] {
			if model == "" || model == rows[i].Model {
				add(i, l)
			}
		}
	})
	if err != nil {
		return err
	}
	for i := range rows {
		slices.SortStableFunc(rows[i].Labels, func(a, b collector.StoredLabel) int {
			return b.Arrival.Compare(a.Arrival)
		})
	}
	return nil
}

func keys(m map[string][]int) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// labels calls found for the feedback whose column is one of ids, the last
// to arrive first.
func (s *Store) labels(ctx context.Context, column, tenant string, ids []string, found func(key, id string, row uint32, model string, l collector.StoredLabel)) error {
	for chunk := range slices.Chunk(ids, 1000) {
		rows, err := s.conn.Query(ch.Context(ctx), "SELECT "+column+", prediction_id, target_row, model, label, observed_at, received_at, arrival FROM feedback FINAL WHERE tenant = ? AND "+
			column+" IN (?) ORDER BY arrival DESC, insert_batch DESC, position DESC", tenant, chunk)
		if err != nil {
			return unavailable(err)
		}
		for rows.Next() {
			var (
				key, id, model string
				row            uint32
				l              collector.StoredLabel
			)
			if err := rows.Scan(&key, &id, &row, &model, &l.Label, &l.ObservedAt, &l.ReceivedAt, &l.Arrival); err != nil {
				return errors.Join(fmt.Errorf("scan a label: %w", err), rows.Close())
			}
			l.ObservedAt, l.ReceivedAt = l.ObservedAt.UTC(), l.ReceivedAt.UTC()
			found(key, id, row, model, l)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return unavailable(err)
		}
	}
	return nil
}
