package clickhouse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// Window is a stretch of event time, [Start, End), of one model version.
type Window struct{ Start, End time.Time }

// BinWindow is the counts of one window: Fields[i] belongs to field i of the
// reference (the schema's features, then the prediction). Rows is the weight of
// the rows counted.
type BinWindow struct {
	Window
	Rows   float64
	Fields []stats.Counts
}

// TrafficWindow is what was asked of a model in one window.
type TrafficWindow struct {
	Window
	Requests, Rows uint64
	// Errors are requests answered with a status of 400 or more, ByClass the
	// requests by the first digit of their status.
	Errors  uint64
	ByClass map[uint8]uint64
	Bytes   uint64
	// Latency quantiles of whole requests, in seconds; NaN without requests.
	P50, P90, P99 float64
}

// minuteWindow is the condition on the rollups' minutes; windows begin and end
// on whole minutes.
const minuteWindow = "minute >= fromUnixTimestamp(?) AND minute < fromUnixTimestamp(?)"

// maxWindows bounds the answer of one question.
const maxWindows = 20000

func windows(from, to time.Time, step time.Duration) ([]Window, error) {
	from, to = from.UTC().Truncate(time.Minute), to.UTC()
	if r := to.Truncate(time.Minute); !r.Equal(to) {
		to = r.Add(time.Minute)
	}
	if step <= 0 {
		step = to.Sub(from)
	}
	if step%time.Minute != 0 {
		return nil, fmt.Errorf("step %v is not of whole minutes", step)
	}
	if !to.After(from) || from.Unix() < 0 || to.Unix() > math.MaxUint32 {
		return nil, fmt.Errorf("no time from %v to %v", from, to)
	}
	n := (to.Sub(from) + step - 1) / step
	if n > maxWindows {
		return nil, fmt.Errorf("%d windows are more than %d", n, maxWindows)
	}
	out := make([]Window, n)
	for i := range out {
		out[i].Start = from.Add(time.Duration(i) * step)
		out[i].End = out[i].Start.Add(step)
		if out[i].End.After(to) {
			out[i].End = to
		}
	}
	return out, nil
}

// BinCounts returns the counts by field and bin of each window of step (one
// window where step is 0) from from to to, of the rows whose bins are binsID's.
// Times are event time, widened to whole minutes. An empty version means all.
func (s *Store) BinCounts(ctx context.Context, tenant, model, version, binsID string, from, to time.Time, step time.Duration) ([]BinWindow, error) {
	w, err := windows(from, to, step)
	if err != nil {
		return nil, fmt.Errorf("count bins: %w", err)
	}
	out := make([]BinWindow, len(w))
	for i := range w {
		out[i].Window = w[i]
	}
	width := int64(w[0].End.Sub(w[0].Start) / time.Second)
	first := w[0].Start.Unix()
	rows, err := s.conn.Query(ctx, "SELECT toUInt32(intDiv(toUnixTimestamp(minute) - ?, ?)) AS w, field, bin, sum(weight) FROM bins_1m"+
		" WHERE tenant = ? AND model = ? AND (? = '' OR version = ?) AND bins_id = ? AND "+minuteWindow+" GROUP BY w, field, bin",
		first, width, tenant, model, version, version, binsID, first, w[len(w)-1].End.Unix())
	if err != nil {
		return nil, fmt.Errorf("count bins of model %q: %w", model, unavailable(err))
	}
	defer rows.Close()
	for rows.Next() {
		var (
			at         uint32
			field, bin uint16
			weight     float64
		)
		if err := rows.Scan(&at, &field, &bin, &weight); err != nil {
			return nil, fmt.Errorf("count bins of model %q: %w", model, err)
		}
		o := &out[at]
		for len(o.Fields) <= int(field) {
			o.Fields = append(o.Fields, stats.Counts{})
		}
		o.Fields[field][bin] += weight
	}
	for i := range out {
		for _, c := range out[i].Fields {
			sum := 0.0
			for _, v := range c {
				sum += v
			}
			out[i].Rows = max(out[i].Rows, sum)
		}
	}
	return out, unavailable(rows.Err())
}

// Traffic returns what was asked of a model in each window of step from from to
// to, without rows brought to explanations. An empty model or version means all.
func (s *Store) Traffic(ctx context.Context, tenant, model, version string, from, to time.Time, step time.Duration) ([]TrafficWindow, error) {
	w, err := windows(from, to, step)
	if err != nil {
		return nil, fmt.Errorf("count traffic: %w", err)
	}
	out := make([]TrafficWindow, len(w))
	for i := range w {
		out[i] = TrafficWindow{Window: w[i], ByClass: map[uint8]uint64{}, P50: math.NaN(), P90: math.NaN(), P99: math.NaN()}
	}
	width, first := int64(w[0].End.Sub(w[0].Start)/time.Second), w[0].Start.Unix()
	const where = " FROM traffic_1m WHERE tenant = ? AND (? = '' OR model = ?) AND (? = '' OR version = ?) AND route != 'explain' AND " + minuteWindow
	args := []any{first, width, tenant, model, model, version, version, first, w[len(w)-1].End.Unix()}
	// Of requests refused unread a row stands for as many as it weighs.
	rows, err := s.conn.Query(ctx, "SELECT toUInt32(intDiv(toUnixTimestamp(minute) - ?, ?)) AS w, sumMap(map(status_class, if(status_class = 4, toUInt64(round(weight)), requests))),"+
		" sum(rows), sum(bytes), quantilesTDigestIfMerge(0.5, 0.9, 0.99)(latency)"+where+" GROUP BY w", args...)
	if err != nil {
		return nil, fmt.Errorf("count traffic of model %q: %w", model, unavailable(err))
	}
	defer rows.Close()
	for rows.Next() {
		var (
			at        uint32
			byClass   map[uint8]uint64
			q         []float32
			n, nBytes uint64
		)
		if err := rows.Scan(&at, &byClass, &n, &nBytes, &q); err != nil {
			return nil, fmt.Errorf("count traffic of model %q: %w", model, err)
		}
		o := &out[at]
		o.Rows, o.Bytes, o.ByClass = n, nBytes, byClass
		for class, requests := range byClass {
			o.Requests += requests
			if class >= 4 {
				o.Errors += requests
			}
		}
		if len(q) == 3 {
			o.P50, o.P90, o.P99 = float64(q[0])/1e9, float64(q[1])/1e9, float64(q[2])/1e9
		}
	}
	return out, unavailable(rows.Err())
}

// Watermark returns the newest event time that a version has a row of; zero
// where it has none. An empty version means all of the model.
func (s *Store) Watermark(ctx context.Context, tenant, model, version string) (time.Time, error) {
	var (
		last time.Time
		n    uint64
	)
	err := s.conn.QueryRow(ctx, "SELECT max(last), count() FROM traffic_1m WHERE tenant = ? AND model = ? AND (? = '' OR version = ?) AND route != 'explain'",
		tenant, model, version, version).Scan(&last, &n)
	if err != nil {
		return time.Time{}, fmt.Errorf("find the watermark of model %q: %w", model, unavailable(err))
	}
	if n == 0 {
		return time.Time{}, nil
	}
	return last.UTC(), nil
}

// LabelledRow is a prediction with the newest label that it got.
type LabelledRow struct {
	ID      string
	Time    time.Time
	Score   float64
	Decided string
	Label   string
	// Weight is the number of predictions that it stands for.
	Weight float64
}

// maxLabelled bounds one answer of Labelled.
const maxLabelled = 5_000_000

// Labelled returns the answered predictions of event time [from, to) that have a
// label, by our id or the caller's, in order of event time. The newest label of
// a prediction counts.
func (s *Store) Labelled(ctx context.Context, tenant, model, version string, from, to time.Time) ([]LabelledRow, error) {
	rows, err := s.conn.Query(ctx, labelledQuery, tenant, model, tenant, model,
		tenant, model, version, version, from.UnixMicro(), to.UnixMicro(), maxLabelled+1)
	if err != nil {
		return nil, fmt.Errorf("join labels of model %q: %w", model, unavailable(err))
	}
	defer rows.Close()
	var out []LabelledRow
	for rows.Next() {
		var (
			r      LabelledRow
			id     string
			row, n uint32
		)
		if err := rows.Scan(&id, &row, &n, &r.Time, &r.Score, &r.Decided, &r.Label, &r.Weight); err != nil {
			return nil, fmt.Errorf("join labels of model %q: %w", model, err)
		}
		r.ID, r.Time = collector.RowID(id, int(row), int(n)), r.Time.UTC()
		if out = append(out, r); len(out) > maxLabelled {
			return nil, fmt.Errorf("join labels of model %q: more than %d labelled rows in the window", model, maxLabelled)
		}
	}
	return out, unavailable(rows.Err())
}

// labelledQuery joins labels by the row that they are about, and those of a row that was sent
// alone, under the id of one of a request, by its very id, which char(0) begins there.
const labelledQuery = `WITH
 by_id AS (SELECT about, argMax(label, (arrival, insert_batch, position)) AS label, max(arrival) AS at
  FROM (SELECT arrayJoin(arrayDistinct([concat(target_id, '.', toString(target_row)), if(prediction_id = target_id, concat(target_id, '.', toString(target_row)), concat(char(0), prediction_id))])) AS about,
   label, arrival, insert_batch, position FROM feedback WHERE tenant = ? AND target_id != '' AND (model = '' OR model = ?)) GROUP BY about),
 by_external AS (SELECT external_id, argMax(label, (arrival, insert_batch, position)) AS label, max(arrival) AS at
  FROM feedback WHERE tenant = ? AND external_id != '' AND (model = '' OR model = ?) GROUP BY external_id)
SELECT p.id, p.row, p.rows, p.time, p.score, p.decided, if(i.about = '' OR (e.external_id != '' AND e.at > i.at), e.label, i.label), p.weight
FROM (SELECT id, row, rows, if(` + sentAlone + `, concat(char(0), id), concat(id, '.', toString(row))) AS about, time, score, toString(decided) AS decided, weight, external_id FROM predictions
 WHERE tenant = ? AND model = ? AND (? = '' OR version = ?) AND time >= fromUnixTimestamp64Micro(?, 'UTC') AND time < fromUnixTimestamp64Micro(?, 'UTC')
 AND route != 'explain' AND status < 400) AS p
LEFT JOIN by_id AS i ON i.about = p.about
LEFT JOIN by_external AS e ON e.external_id = p.external_id
WHERE i.about != '' OR e.external_id != ''
ORDER BY p.time, p.id, p.row LIMIT ?`

// SaveReference stores a version's reference, once however often it is called.
func (s *Store) SaveReference(ctx context.Context, tenant, model, version, digest string, ref *stats.Reference) error {
	doc, err := encodeJSON("reference", ref)
	if err != nil {
		return err
	}
	provisional := uint8(0)
	if ref.Provisional {
		provisional = 1
	}
	err = s.sendRows(ctx, "reference:"+tenant+":"+model+":"+version+":"+digest+":"+ref.ID,
		"INSERT INTO `references` (tenant, model, version, digest, bins_id, provisional, rows, source, doc)", 1, func(int) []any {
			return []any{tenant, model, version, digest, ref.ID, provisional, uint64(ref.Rows), ref.Source, doc}
		})
	if err != nil {
		return fmt.Errorf("save reference of model %q: %w", model, unavailable(err))
	}
	return nil
}

// LoadReference returns the newest reference stored for a version's digest, or
// collector.ErrNotFound; one that is not provisional comes before one that is.
func (s *Store) LoadReference(ctx context.Context, tenant, model, version, digest string) (*stats.Reference, error) {
	docs, err := s.strings(ctx, "SELECT doc FROM `references` FINAL WHERE tenant = ? AND model = ? AND version = ? AND digest = ?"+
		" ORDER BY provisional, stored_at DESC LIMIT 1", tenant, model, version, digest)
	if err != nil {
		return nil, fmt.Errorf("load reference of model %q: %w", model, err)
	}
	return decodeReference(docs, model)
}

// Reference returns the reference of that id.
func (s *Store) Reference(ctx context.Context, binsID string) (*stats.Reference, error) {
	s.mu.Lock()
	known := s.references[binsID]
	s.mu.Unlock()
	if known != nil {
		return known, nil
	}
	docs, err := s.strings(ctx, "SELECT doc FROM `references` WHERE bins_id = ? LIMIT 1", binsID)
	if err != nil {
		return nil, fmt.Errorf("load reference %q: %w", binsID, err)
	}
	ref, err := decodeReference(docs, binsID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.references[binsID] = ref
	s.mu.Unlock()
	return ref, nil
}

func decodeReference(docs []string, what string) (*stats.Reference, error) {
	if len(docs) == 0 {
		return nil, fmt.Errorf("load reference of %q: %w", what, collector.ErrNotFound)
	}
	ref := &stats.Reference{}
	if err := json.Unmarshal([]byte(docs[0]), ref); err != nil {
		return nil, fmt.Errorf("load reference of %q: %w", what, err)
	}
	if err := ref.Validate(); err != nil {
		return nil, fmt.Errorf("load reference of %q: %w", what, err)
	}
	return ref, nil
}

var errNoSchema = errors.New("the rows' schema was never stored")
