package main

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pellucid/pellucid/engine/table"
)

// flight is one row of the demo's data: what is known before departure, and when
// and how it came out.
type flight struct {
	departs time.Time // scheduled, the event time
	id      string    // the caller's own id
	row     int       // in the columns of features
	late    int64     // 1, 0, or -1 where there never is a label
	lands   time.Time // when the label is known
}

// flights is the demo's year, ordered by departure.
type flights struct {
	list  []flight
	table *table.Table
}

// readFlights reads the file and keeps the flights of months from on.
func readFlights(path string, from int64) (*flights, error) {
	t, err := table.Open(path)
	if err != nil {
		return nil, err
	}
	col := func(name string) *table.Column {
		c := t.Column(name)
		if c == nil && err == nil {
			err = fmt.Errorf("read %s: no column %q", path, name)
		}
		return c
	}
	year, month, day := col("year"), col("month"), col("day")
	carrier, number, origin := col("carrier"), col("flight"), col("origin")
	departs, late, landed := col("sched_dep"), col("late"), col("landed_after")
	if err != nil {
		return nil, err
	}
	f := &flights{table: t}
	for i := range t.Rows {
		if month.I64[i] < from {
			continue
		}
		one := flight{
			departs: departs.Times[i].UTC(), row: i, late: late.I64[i],
			id: fmt.Sprintf("%04d-%02d-%02d/%s%d/%s", year.I64[i], month.I64[i], day.I64[i], carrier.Str[i], number.I64[i], origin.Str[i]),
		}
		if minutes := float64(landed.F32[i]); one.late >= 0 && !math.IsNaN(minutes) {
			one.lands = one.departs.Add(time.Duration(minutes * float64(time.Minute)))
		}
		f.list = append(f.list, one)
	}
	slices.SortStableFunc(f.list, func(a, b flight) int { return a.departs.Compare(b.departs) })
	return f, nil
}

// landing is a label that becomes known at a time.
type landing struct {
	at time.Time
	id string
	as string
}

// landings is a heap, the earliest first.
type landings []landing

func (l landings) Len() int           { return len(l) }
func (l landings) Less(i, j int) bool { return l[i].at.Before(l[j].at) }
func (l landings) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *landings) Push(v any)        { *l = append(*l, v.(landing)) } //nolint:forcetypeassert // only replay pushes
func (l *landings) Pop() any {
	old := *l
	v := old[len(old)-1]
	*l = old[:len(old)-1]
	return v
}

// replay sends flights to the models of a running server in the order of their
// departure, each on its own event time, and their labels when they have landed.
type replay struct {
	to     *poster
	models []replayModel
	bar    *progress
	// pace is the wall clock the whole replay should take at least; 0 means as
	// fast as it goes.
	pace time.Duration
	sent int
}

// replayModel is a model and the features it is sent, by column name.
type replayModel struct {
	name     string
	features []string
}

// step is how much event time is sent at a time. Within a step requests run side
// by side, so that is also how far rows may be out of order.
const step = 10 * time.Minute

func (r *replay) run(ctx context.Context, f *flights) error {
	if len(f.list) == 0 {
		return fmt.Errorf("replay: no flights")
	}
	r.bar.start("replay", len(f.list))
	defer r.bar.finish()
	began := time.Now()
	var waiting landings
	for at := 0; at < len(f.list); {
		end := f.list[at].departs.Truncate(step).Add(step)
		n := at
		for n < len(f.list) && f.list[n].departs.Before(end) {
			n++
		}
		if err := r.sendStep(ctx, f, f.list[at:n]); err != nil {
			return err
		}
		for _, one := range f.list[at:n] {
			if !one.lands.IsZero() {
				heap.Push(&waiting, landing{one.lands, one.id, label(one.late)})
			}
		}
		if err := r.sendLandings(ctx, &waiting, end, 500); err != nil {
			return err
		}
		r.bar.add(n - at)
		at = n
		if err := r.wait(ctx, began, at, len(f.list)); err != nil {
			return err
		}
	}
	return r.sendLandings(ctx, &waiting, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), 1)
}

func label(late int64) string {
	if late == 1 {
		return "late"
	}
	return "on_time"
}

// wait keeps the replay from running ahead of its pace.
func (r *replay) wait(ctx context.Context, began time.Time, done, total int) error {
	due := time.Duration(float64(r.pace) * float64(done) / float64(total))
	ahead := due - time.Since(began)
	if ahead <= 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(ahead):
		return nil
	}
}

// sendStep predicts flights that depart within one step: one request for each
// minute of departure and model.
func (r *replay) sendStep(ctx context.Context, f *flights, list []flight) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for from := 0; from < len(list); {
		to := from
		for to < len(list) && list[to].departs.Equal(list[from].departs) {
			to++
		}
		batch := list[from:to]
		for _, m := range r.models {
			g.Go(func() error { return r.infer(ctx, f.table, m, batch) })
		}
		r.sent += len(batch) * len(r.models)
		from = to
	}
	return g.Wait()
}

func (r *replay) infer(ctx context.Context, t *table.Table, m replayModel, batch []flight) error {
	ids, times := make([]string, len(batch)), make([]string, len(batch))
	for i, one := range batch {
		ids[i], times[i] = one.id, one.departs.Format(time.RFC3339)
	}
	var b bytes.Buffer
	b.WriteString(`{"parameters":{"external_ids":`)
	jsonList(&b, ids)
	b.WriteString(`,"event_times":`)
	jsonList(&b, times)
	b.WriteString(`},"inputs":[`)
	for i, name := range m.features {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := writeColumn(&b, t.Column(name), name, batch); err != nil {
			return err
		}
	}
	b.WriteString(`]}`)
	return r.to.post(ctx, "/v2/models/"+m.name+"/infer", b.Bytes(), nil)
}

// jsonList writes a list of strings as the protocol's parameters want it: a
// string that holds a JSON list.
func jsonList(b *bytes.Buffer, list []string) {
	inner, _ := json.Marshal(list) // strings always marshal
	outer, _ := json.Marshal(string(inner))
	b.Write(outer)
}

// writeColumn writes one feature of a batch as an input tensor of its own.
func writeColumn(b *bytes.Buffer, c *table.Column, name string, batch []flight) error {
	if c == nil {
		return fmt.Errorf("replay: the flights have no column %q", name)
	}
	kind := "FP32"
	if c.Type == table.String {
		kind = "BYTES"
	}
	fmt.Fprintf(b, `{"name":%q,"datatype":%q,"shape":[%d,1],"data":[`, name, kind, len(batch))
	for i, one := range batch {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(cellJSON(c, one.row))
	}
	b.WriteString(`]}`)
	return nil
}

func cellJSON(c *table.Column, row int) string {
	switch c.Type {
	case table.String:
		b, _ := json.Marshal(c.Str[row]) // text always marshals
		return string(b)
	case table.Int64:
		return strconv.FormatInt(c.I64[row], 10)
	case table.Float32:
		if v := float64(c.F32[row]); !math.IsNaN(v) {
			return strconv.FormatFloat(v, 'g', -1, 32)
		}
	case table.Float64:
		if v := c.F64[row]; !math.IsNaN(v) {
			return strconv.FormatFloat(v, 'g', -1, 64)
		}
	}
	return "null"
}

// sendLandings posts the labels known by now, once there are at least few of
// them.
func (r *replay) sendLandings(ctx context.Context, waiting *landings, now time.Time, few int) error {
	var batch []map[string]string
	for waiting.Len() > 0 && (*waiting)[0].at.Before(now) {
		l := heap.Pop(waiting).(landing) //nolint:forcetypeassert // only replay pushes
		batch = append(batch, map[string]string{"external_id": l.id, "label": l.as, "observed_at": l.at.Format(time.RFC3339)})
		if len(batch) == 2000 {
			if err := r.feedback(ctx, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	if len(batch) < cmp.Or(few, 1) && waiting.Len() > 0 {
		for _, l := range batch { // too few for a request: they wait for the next step
			at, err := time.Parse(time.RFC3339, l["observed_at"])
			if err != nil {
				return err
			}
			heap.Push(waiting, landing{at, l["external_id"], l["label"]})
		}
		return nil
	}
	return r.feedback(ctx, batch)
}

func (r *replay) feedback(ctx context.Context, batch []map[string]string) error {
	if len(batch) == 0 {
		return nil
	}
	body, err := json.Marshal(batch)
	if err != nil {
		return err
	}
	return r.to.post(ctx, "/api/v1/feedback", body, nil)
}
