package clickhouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	stdmaps "maps"
	"slices"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// A part of a rollup that is damaged is set aside by the server, and the rollup then
// counts less than there is. It is held against the rows, cell by cell (a minute of a
// version, and in it a route and class of status, or a bin of a field), and what is
// short is counted again from them.
//
// bins_1m gets just what each cell is short of. Digests of latency cannot be taken
// apart, so a cell of traffic_1m that is short is counted anew: what is left of it is
// deleted first. Both are exact, and neither takes anything away from a cell that counts
// as much as there is, or more, as it does by right after an erasure. A crash at any
// step leaves cells that are short, which the next run finds.
//
// It is done between two batches of the drain, whose rows are stored before they are
// counted. Of what is added elsewhere (Backfill counts before it notes) the rows are
// read first and the rollup then, so that nothing counts as short that is not.

// Shortage is what a rollup counts less than the rows that are stored, of one version
// and, in bins_1m, of one reference.
type Shortage struct {
	Rollup, Tenant, Model, Version, BinsID string
	// From is the first minute that is short, To the end of the last; Minutes are so many.
	From, To time.Time
	Minutes  int
	// Missing counts rows of traffic_1m, and bins of rows of bins_1m.
	Missing float64
}

// Recounting says how the rollups are held against the rows.
type Recounting struct {
	// Repair counts again what is short; else it is only told.
	Repair bool
	// Begin is called before the first thing is changed, Progress after each day of a
	// version, with how many there are. Their errors end it; nil means none.
	Begin    func() error
	Progress func(done, of int) error
}

// Recount is what came of it.
type Recount struct {
	// Damaged are the parts of rollups with a flipped bit, as "table/part". Unless they
	// were taken out, to be counted again, nothing else was looked at.
	Damaged []string
	// Short is what the rollups counted less, in order of their rows.
	Short []Shortage
	// Unread are the references under which not all rows could be counted, since they,
	// or schemas of the rows, are not stored.
	Unread []string
	Days   int
}

const (
	// sliceCells bounds the cells of bins_1m that are held in memory, slotsOfField is
	// how many a field has in a minute, as a rule.
	sliceCells   = 1_000_000
	slotsOfField = 16
	// deletedMinutes bounds what one mutation names.
	deletedMinutes = 5_000
	// recountTries bounds the attempts at one insert.
	recountTries = 5
	dayMinutes   = 24 * 60
)

// between has f run while no batch is partly written. It waits for the batch under way,
// and at the start for one that an earlier process may have begun.
func (w *Writer) between(ctx context.Context, f func() error) error {
	late := time.NewTimer(turnWait)
	defer late.Stop()
	for {
		select {
		case w.turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return errNoTurn
		}
		if w.even || w.nothingBegun() {
			defer func() { <-w.turn }()
			return f()
		}
		<-w.turn
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return errNoTurn
		}
	}
}

// turnWait bounds the wait for the end of a batch, which a store that is away or full does not
// come to: whoever waits keeps erasures and exports waiting.
const turnWait = 30 * time.Second

var errNoTurn = fmt.Errorf("the batch on its way has not been stored meanwhile: %w", collector.ErrUnavailable)

// storeBatch is the turn of a batch: from its first insert until it is acknowledged the
// rollups may count less than is stored.
func (w *Writer) storeBatch(ctx context.Context, b *collector.Batch) (ended bool, err error) {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return true, nil
	}
	defer func() { <-w.turn }()
	w.even, w.begun = false, true
	if err := w.Write(ctx, b); err != nil {
		return true, nil //nolint:nilerr // Write fails only when ctx is done
	}
	var closed error
	err = w.insist(ctx, b.Token, func() error {
		err := w.cfg.Source.Ack(ctx, b)
		if errors.Is(err, fs.ErrClosed) {
			closed = fmt.Errorf("acknowledge batch %s: %w", b.Token, err)
			return nil
		}
		return err
	})
	if closed != nil || err != nil {
		return true, closed // without one the end was asked for
	}
	w.even = true
	return false, nil
}

// nothingBegun reports whether no batch is under way though none was stored by this process:
// what an earlier one had planned may be damaged, and never come. The caller holds turn.
func (w *Writer) nothingBegun() bool {
	return w.checked && !w.begun && w.cfg.Kept != nil && w.cfg.Kept.Planned() == ""
}

// startEven notes at the start, when what a power cut took is stored again, whether a batch of
// an earlier process is under way.
func (w *Writer) startEven() {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	w.checked = true
	w.even = w.nothingBegun()
}

// recount is one run.
type recount struct {
	w     *Writer
	s     *Store
	cfg   Recounting
	id    string // of this run: its tokens are those of no other
	steps int
	begun bool
	out   *Recount
	short map[shortKey]*Shortage
	order []shortKey
}

type shortKey struct{ rollup, tenant, model, version, binsID string }

// Recount holds the rollups against the rows that are stored, a day of a version at a
// time, and counts again what is short where it is told to. Batches are stored in
// between. What was found or done until an error is returned with it.
func (w *Writer) Recount(ctx context.Context, cfg Recounting) (*Recount, error) {
	id, err := prefixOf("recount_")
	if err != nil {
		return nil, err
	}
	r := &recount{w: w, s: w.store, cfg: cfg, id: id, out: &Recount{}, short: map[shortKey]*Shortage{}}
	goOn, err := r.takeOut(ctx)
	if err == nil && goOn {
		err = r.run(ctx)
	}
	for _, k := range r.order {
		r.out.Short = append(r.out.Short, *r.short[k])
	}
	if err != nil {
		err = fmt.Errorf("recount the rollups: %w", err)
	}
	return r.out, err
}

// recounted is a version with what its rows need to be counted.
type recounted struct {
	tenant, model, version string
	days                   int
	// refs are the references that its rows were back-filled under, fields the most
	// that a row has.
	refs   []*stats.Reference
	fields int
}

func (r *recount) run(ctx context.Context) error {
	versions, total, err := r.versions(ctx)
	if err != nil {
		return err
	}
	for i := range versions {
		v := &versions[i]
		if err := r.references(ctx, v); err != nil {
			return err
		}
		days, err := r.days(ctx, v)
		if err != nil {
			return err
		}
		for _, day := range days {
			if err := r.day(ctx, v, day); err != nil {
				return fmt.Errorf("model %q, version %q, %s: %w", v.model, v.version, day.Format(time.DateOnly), err)
			}
			r.out.Days++
			total = max(total, r.out.Days) // rows of another day have come meanwhile
			if r.cfg.Progress == nil {
				continue
			}
			if err := r.cfg.Progress(r.out.Days, total); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *recount) versions(ctx context.Context) (list []recounted, total int, err error) {
	rows, err := r.s.conn.Query(ctx, "SELECT toString(tenant) AS t, toString(model) AS m, toString(version) AS v, uniqExact(toDate(time)), max(length(bins))"+
		" FROM predictions GROUP BY t, m, v ORDER BY t, m, v")
	if err != nil {
		return nil, 0, unavailable(err)
	}
	err = scanAll(rows, func() error {
		var v recounted
		var days, fields uint64
		if err := rows.Scan(&v.tenant, &v.model, &v.version, &days, &fields); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		v.days, v.fields = int(days), int(fields)
		list, total = append(list, v), total+v.days
		return nil
	})
	return list, total, err
}

func (r *recount) days(ctx context.Context, v *recounted) ([]time.Time, error) {
	rows, err := r.s.conn.Query(ctx, "SELECT DISTINCT toInt64(toDate(time)) AS d FROM predictions WHERE tenant = ? AND model = ? AND version = ? ORDER BY d", v.tenant, v.model, v.version)
	if err != nil {
		return nil, unavailable(err)
	}
	var out []time.Time
	return out, scanAll(rows, func() error {
		var d int64
		if err := rows.Scan(&d); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		out = append(out, time.Unix(d*int64(wholeDay/time.Second), 0).UTC())
		return nil
	})
}

// references finds what the rows of a version were back-filled under.
func (r *recount) references(ctx context.Context, v *recounted) error {
	ids, err := r.s.strings(ctx, "SELECT DISTINCT bins_id FROM backfills WHERE tenant = ? AND model = ? AND version = ? ORDER BY bins_id", v.tenant, v.model, v.version)
	if err != nil {
		return err
	}
	for _, id := range ids {
		ref, err := r.s.Reference(ctx, id)
		if errors.Is(err, collector.ErrNotFound) {
			r.unread(id)
			continue
		}
		if err != nil {
			return err
		}
		v.refs, v.fields = append(v.refs, ref), max(v.fields, len(ref.Fields))
	}
	return nil
}

func (r *recount) unread(id string) {
	if !slices.Contains(r.out.Unread, id) {
		r.out.Unread = append(r.out.Unread, id)
	}
}

// daySpan is a stretch of event time of a version.
type daySpan struct {
	*recounted
	from, to time.Time
}

func (x *daySpan) where() (string, []any) {
	return "tenant = ? AND model = ? AND version = ?", []any{x.tenant, x.model, x.version}
}

// rows is the condition on predictions of that time, minutes that on a rollup.
func (x *daySpan) rows() (string, []any) {
	where, args := x.where()
	return where + " AND time >= ? AND time < ?", append(args, x.from, x.to)
}

func (x *daySpan) minutes() (string, []any) {
	where, args := x.where()
	return where + " AND minute >= ? AND minute < ?", append(args, x.from, x.to)
}

func (r *recount) day(ctx context.Context, v *recounted, day time.Time) error {
	if err := r.mend(ctx, &daySpan{v, day, day.Add(wholeDay)}, r.traffic, r.mendTraffic); err != nil {
		return err
	}
	minutes := dayMinutes
	if v.fields > 0 {
		minutes = min(max(sliceCells/(v.fields*slotsOfField), 1), dayMinutes)
	}
	step := time.Duration(minutes) * time.Minute
	for at := day; at.Before(day.Add(wholeDay)); at = at.Add(step) {
		to := at.Add(step)
		if end := day.Add(wholeDay); to.After(end) {
			to = end
		}
		if err := r.mend(ctx, &daySpan{v, at, to}, r.bins, r.mendBins); err != nil {
			return err
		}
	}
	return nil
}

// mend holds one rollup against the rows of a span and counts again what is short,
// twice at most: a second time would have to find nothing.
func (r *recount) mend(ctx context.Context, x *daySpan, look func(context.Context, *daySpan) (*lacking, error), fill func(context.Context, *daySpan, *lacking) error) error {
	return r.w.between(ctx, func() error {
		l, err := look(ctx, x)
		if err != nil || l.empty() {
			return err
		}
		r.note(x, l)
		if !r.cfg.Repair {
			return nil
		}
		if err := r.begin(); err != nil {
			return err
		}
		r.steps++
		if err := fill(ctx, x, l); err != nil {
			return err
		}
		if l, err = look(ctx, x); err != nil {
			return err
		}
		if !l.empty() {
			return errors.New("the server takes what a rollup is short of and does not have it")
		}
		return nil
	})
}

// begin is called before each change.
func (r *recount) begin() error {
	if r.begun || r.cfg.Begin == nil {
		return nil
	}
	r.begun = true
	return r.cfg.Begin()
}

// takeOut takes parts out that cannot be read; goOn is false where they stay.
func (r *recount) takeOut(ctx context.Context) (goOn bool, err error) {
	if r.out.Damaged, err = r.s.DamagedParts(ctx); err != nil || len(r.out.Damaged) == 0 {
		return true, err
	}
	if !r.cfg.Repair {
		return false, nil
	}
	return true, r.w.between(ctx, func() error {
		if err := r.begin(); err != nil {
			return err
		}
		for _, name := range r.out.Damaged {
			table, part, _ := strings.Cut(name, "/")
			// Set aside as the server does it with parts that it cannot load.
			if err := r.s.conn.Exec(ctx, "ALTER TABLE "+table+" DETACH PART '"+part+"'"); err != nil {
				return fmt.Errorf("take damaged part %s out: %w", name, unavailable(err))
			}
		}
		return nil
	})
}

// DamagedParts reads the rollups whole and returns the parts whose bytes are not those
// that were written, as "table/part". A server keeps such a part: only what reads it
// fails. Replicated tables look after themselves; a server that does not let us ask has
// none.
func (s *Store) DamagedParts(ctx context.Context) ([]string, error) {
	if s.cluster.name != "" {
		return nil, nil
	}
	var out []string
	for _, table := range []string{binsRollup.table, trafficRollup.table} {
		rows, err := s.conn.Query(ctx, "CHECK TABLE "+table+" SETTINGS check_query_single_value_result = 0")
		var ex *ch.Exception
		if errors.As(err, &ex) && ex.Code == notAllowed {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("check the parts of %s: %w", table, unavailable(err))
		}
		err = scanAll(rows, func() error {
			var part, message string
			var whole bool
			if err := rows.Scan(&part, &whole, &message); err != nil {
				return fmt.Errorf("scan: %w", err)
			}
			if !whole {
				out = append(out, table+"/"+part)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("check the parts of %s: %w", table, err)
		}
	}
	return out, nil
}

// notAllowed is the server's code for a statement that a user has no right to.
const notAllowed = 497

// lacking is what a rollup is short of in a span.
type lacking struct {
	traffic map[trafficCell]trafficCount
	bins    map[binCell]float64
	binsIDs []string
}

func (l *lacking) empty() bool { return len(l.traffic)+len(l.bins) == 0 }

// note adds what is short to what is told.
func (r *recount) note(x *daySpan, l *lacking) {
	seen := map[shortKey]map[uint32]bool{}
	add := func(k shortKey, minute uint32, missing float64) {
		sh := r.short[k]
		at := time.Unix(int64(minute), 0).UTC()
		if sh == nil {
			sh = &Shortage{Rollup: k.rollup, Tenant: k.tenant, Model: k.model, Version: k.version, BinsID: k.binsID, From: at}
			r.short[k], r.order = sh, append(r.order, k)
		}
		if at.Before(sh.From) {
			sh.From = at
		}
		if end := at.Add(time.Minute); end.After(sh.To) {
			sh.To = end
		}
		sh.Missing += missing
		if seen[k] == nil {
			seen[k] = map[uint32]bool{}
		}
		if !seen[k][minute] {
			seen[k][minute] = true
			sh.Minutes++
		}
	}
	for c, n := range l.traffic {
		add(shortKey{trafficRollup.table, x.tenant, x.model, x.version, ""}, c.minute, float64(n.stored-min(n.kept, n.stored)))
	}
	for c, n := range l.bins {
		add(shortKey{binsRollup.table, x.tenant, x.model, x.version, l.binsIDs[c.id]}, c.minute, n)
	}
}

// trafficCell is a row of traffic_1m within a version.
type trafficCell struct {
	route  string
	class  uint8
	minute uint32
}

// trafficCount is how many rows of a cell are stored and how many its rollup has.
type trafficCount struct{ stored, requests, kept uint64 }

const (
	minuteOf   = "toStartOfMinute(toDateTime(time, 'UTC'))"
	unixMinute = "toUInt32(toUnixTimestamp(" + minuteOf + "))"
)

func (r *recount) traffic(ctx context.Context, x *daySpan) (*lacking, error) {
	if err := r.s.syncReplicas(ctx, trafficRollup.table); err != nil {
		return nil, err
	}
	without, args, err := r.w.without(trafficRollup.insert)
	if err != nil {
		return nil, err
	}
	where, own := x.rows()
	cells := map[trafficCell]trafficCount{}
	if err := r.eachCell(ctx, "SELECT toString(route) AS r, toUInt8(intDiv(status, 100)) AS c, "+unixMinute+" AS m, count(), countIf(row = 0)"+
		" FROM predictions WHERE "+where+" AND "+without+" GROUP BY r, c, m", append(own, args...), func(c trafficCell, rows, requests uint64) {
		cells[c] = trafficCount{stored: rows, requests: requests}
	}); err != nil {
		return nil, err
	}
	where, own = x.minutes()
	err = r.eachCell(ctx, "SELECT toString(route) AS r, status_class AS c, toUnixTimestamp(minute) AS m, sum(rows), sum(requests)"+
		" FROM traffic_1m WHERE "+where+" GROUP BY r, c, m", own, func(c trafficCell, rows, requests uint64) {
		have, ok := cells[c]
		switch {
		case !ok:
		case rows >= have.stored && requests >= have.requests:
			delete(cells, c)
		default:
			have.kept = max(rows, 1) // something of it is there
			cells[c] = have
		}
	})
	return &lacking{traffic: cells}, err
}

func (r *recount) eachCell(ctx context.Context, query string, args []any, do func(c trafficCell, rows, requests uint64)) error {
	rows, err := r.s.conn.Query(ctx, query, args...)
	if err != nil {
		return unavailable(err)
	}
	return scanAll(rows, func() error {
		var c trafficCell
		var n, requests uint64
		if err := rows.Scan(&c.route, &c.class, &c.minute, &n, &requests); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		do(c, n, requests)
		return nil
	})
}

// trafficCells selects cells: at is the minute as a number.
func trafficCells(cells []trafficCell, class, at string) predicate {
	type kind struct {
		route string
		class uint8
	}
	minutes := map[kind][]uint32{}
	for _, c := range cells {
		k := kind{c.route, c.class}
		minutes[k] = append(minutes[k], c.minute)
	}
	var p predicate
	kinds := slices.SortedFunc(stdmaps.Keys(minutes), func(a, b kind) int { return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(a.class, b.class)) })
	for i, k := range kinds {
		if i > 0 {
			p.sql += " OR "
		}
		p.sql += "route = ? AND " + class + " = ? AND " + at + " IN (?)"
		slices.Sort(minutes[k])
		p.args = append(p.args, k.route, k.class, minutes[k])
	}
	p.sql = "(" + p.sql + ")"
	return p
}

func (r *recount) mendTraffic(ctx context.Context, x *daySpan, l *lacking) error {
	var all, rest []trafficCell
	for c, n := range l.traffic {
		all = append(all, c)
		if n.kept > 0 {
			rest = append(rest, c)
		}
	}
	own, ownArgs := x.minutes()
	n := 0
	for some := range slices.Chunk(rest, deletedMinutes) {
		// The mark makes this mutation known among others; it holds for every row.
		mark := fmt.Sprintf("%s%d_%d", r.id, r.steps, n)
		n++
		cells := trafficCells(some, "status_class", "toUnixTimestamp(minute)")
		where := predicate{sql: own + " AND " + cells.sql + " AND '" + mark + "' != ''", args: append(slices.Clone(ownArgs), cells.args...)}
		if err := r.s.mutateArgs(ctx, trafficRollup.table, "", where, mark); err != nil {
			return err
		}
	}
	without, args, err := r.w.without(trafficRollup.insert)
	if err != nil {
		return err
	}
	rows, rowArgs := x.rows()
	for some := range slices.Chunk(all, deletedMinutes) {
		cells := trafficCells(some, "toUInt8(intDiv(status, 100))", unixMinute)
		token := fmt.Sprintf("%s%d:traffic:%d", r.id, r.steps, n)
		n++
		err := r.insert(ctx, func(ctx context.Context) error {
			return r.s.conn.Exec(withToken(ctx, token), "INSERT INTO traffic_1m (tenant, model, version, route, status_class, minute, requests, rows, weight, bytes, last, latency)"+
				trafficOfRows+" WHERE "+rows+" AND "+without+" AND "+cells.sql+" GROUP BY tenant, model, version, route, class_of, minute_of",
				slices.Concat(rowArgs, args, cells.args)...)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// trafficOfRows is what traffic_in_mv makes of the same rows.
const trafficOfRows = " SELECT tenant, model, version, route, toUInt8(intDiv(status, 100)) AS class_of, " + minuteOf + " AS minute_of," +
	" countIf(row = 0), count(), sum(weight), sum(toUInt64(bytes)), max(time), quantilesTDigestIfState(0.5, 0.9, 0.99)(total_ns, row = 0) FROM predictions"

// binCell is a row of bins_1m within a version; id counts the references.
type binCell struct {
	id         int
	minute     uint32
	field, bin uint16
}

func (r *recount) bins(ctx context.Context, x *daySpan) (*lacking, error) {
	if err := r.s.syncReplicas(ctx, binsRollup.table); err != nil {
		return nil, err
	}
	l := &lacking{bins: map[binCell]float64{}}
	known := map[string]int{}
	id := func(binsID string) int {
		i, ok := known[binsID]
		if !ok {
			i = len(l.binsIDs)
			known[binsID], l.binsIDs = i, append(l.binsIDs, binsID)
		}
		return i
	}
	if err := r.ownBins(ctx, x, func(binsID string, c binCell, n float64) {
		c.id = id(binsID)
		l.bins[c] += n
	}); err != nil {
		return nil, err
	}
	for _, ref := range x.refs {
		counts, err := r.filledBins(ctx, x, ref)
		if errors.Is(err, errNoSchema) {
			r.unread(ref.ID)
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, n := range counts.rows() {
			l.bins[binCell{id(ref.ID), uint32(n.minute), n.field, n.bin}] += n.weight
		}
	}
	where, args := x.minutes()
	return l, r.eachBin(ctx, "SELECT toString(bins_id) AS k, toUnixTimestamp(minute) AS m, field, bin, sum(weight) FROM bins_1m WHERE "+where+" GROUP BY k, m, field, bin", args,
		func(binsID string, c binCell, n float64) {
			i, ok := known[binsID]
			if !ok {
				return
			}
			c.id = i
			have, ok := l.bins[c]
			switch {
			case !ok:
			case n >= have*(1-1e-9):
				delete(l.bins, c)
			default:
				l.bins[c] = have - n
			}
		})
}

// ownBins counts the bins that rows were stored with, as the writer does.
func (r *recount) ownBins(ctx context.Context, x *daySpan, do func(binsID string, c binCell, n float64)) error {
	without, args, err := r.w.without(binsRollup.insert)
	if err != nil {
		return err
	}
	where, own := x.rows()
	return r.eachBin(ctx, fmt.Sprintf("SELECT toString(bins_id) AS k, "+unixMinute+" AS m, toUInt16(at - 1) AS f, b, toFloat64(sum("+unitsSQL+")) / %d"+
		" FROM predictions ARRAY JOIN bins AS b, arrayEnumerate(bins) AS at WHERE "+where+" AND "+binsWhere+" AND "+without+" AND b != %d GROUP BY k, m, f, b", weightUnits, stats.BinNone),
		append(own, args...), do)
}

func (r *recount) eachBin(ctx context.Context, query string, args []any, do func(binsID string, c binCell, n float64)) error {
	rows, err := r.s.conn.Query(ctx, query, args...)
	if err != nil {
		return unavailable(err)
	}
	return scanAll(rows, func() error {
		var binsID string
		var c binCell
		var n float64
		if err := rows.Scan(&binsID, &c.minute, &c.field, &c.bin, &n); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		do(binsID, c, n)
		return nil
	})
}

// filledBins counts the rows that were back-filled under a reference, as Backfill does.
func (r *recount) filledBins(ctx context.Context, x *daySpan, ref *stats.Reference) (*binCounts, error) {
	where, args := x.rows()
	own, ownArgs := x.where()
	counts, _, err := r.s.countRows(ctx, ref, x.tenant, x.model, where+" AND bins_id != ?"+
		" AND (insert_batch, toYYYYMM(received_at)) IN (SELECT insert_batch, month FROM backfills WHERE "+own+" AND bins_id = ?)"+
		" AND digest IN (SELECT digest FROM `references` WHERE "+own+" AND bins_id = ?)",
		slices.Concat(args, []any{ref.ID}, ownArgs, []any{ref.ID}, ownArgs, []any{ref.ID})...)
	return counts, err
}

// mendBins adds what each cell is short of, one insert a reference.
func (r *recount) mendBins(ctx context.Context, x *daySpan, l *lacking) error {
	for i, binsID := range l.binsIDs {
		counts := &binCounts{minutes: map[int64][]fieldCounts{}}
		for c, n := range l.bins {
			if c.id == i {
				counts.put(int64(c.minute), c.field, c.bin, n)
			}
		}
		token := fmt.Sprintf("%s%d:bins:%d", r.id, r.steps, i)
		if err := r.insert(ctx, func(ctx context.Context) error {
			return r.s.insertBins(ctx, token, chunk{tenant: x.tenant, model: x.model, version: x.version, binsID: binsID}, counts)
		}); err != nil {
			return err
		}
	}
	return nil
}

// put sets a count.
func (c *binCounts) put(minute int64, field, bin uint16, n float64) {
	fields := c.minutes[minute]
	for len(fields) <= int(field) {
		fields = append(fields, fieldCounts{})
	}
	c.minutes[minute] = fields
	f := &fields[field]
	if bin >= stats.BinNone {
		f.high[bin-stats.BinNone] = n
		return
	}
	for len(f.low) <= int(bin) {
		f.low = append(f.low, 0)
	}
	f.low[bin] = n
}

// insert makes an insert of one token, a few times where its answer is lost: the same
// token counts once.
func (r *recount) insert(ctx context.Context, send func(ctx context.Context) error) error {
	wait := r.w.cfg.Backoff
	for try := 1; ; try++ {
		err := send(ctx)
		if err == nil || try == recountTries || permanent(err) {
			return unavailable(err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait = min(2*wait, r.w.cfg.BackoffMax)
	}
}

// syncReplicas waits until every replica has what was inserted: one that lags would
// count less than there is.
func (s *Store) syncReplicas(ctx context.Context, table string) error {
	if !s.cluster.replicas() {
		return nil
	}
	if err := s.conn.Exec(ctx, "SYSTEM SYNC REPLICA"+s.cluster.on()+" "+s.cluster.database+"."+s.cluster.local(table)); err != nil {
		return fmt.Errorf("wait for the replicas of %s: %w", table, unavailable(err))
	}
	return nil
}

// SetAside returns the parts of rollups that a server, or a recount, has found damaged
// and set aside, as "table/part". Nobody takes them away, so each is named at every start. A server
// that does not let us ask has none.
func (s *Store) SetAside(ctx context.Context) ([]string, error) {
	return s.setAside(ctx, "table IN (?) AND (startsWith(name, 'broken') OR reason = '')")
}

// SetAsideRows is SetAside for all other tables, whose rows nothing brings back but who sends them again,
// as what a full disk cut.
func (s *Store) SetAsideRows(ctx context.Context) ([]string, error) {
	return s.setAside(ctx, "table NOT IN (?) AND startsWith(name, 'broken')")
}

func (s *Store) setAside(ctx context.Context, which string) ([]string, error) {
	rollups := []string{s.cluster.local(binsRollup.table), s.cluster.local(trafficRollup.table)}
	out, err := s.strings(ctx, "SELECT DISTINCT concat(table, '/', name) AS n FROM "+s.cluster.system("detached_parts")+" WHERE database = "+s.cluster.current()+
		" AND "+which+" ORDER BY n", rollups)
	var ex *ch.Exception
	if errors.As(err, &ex) && ex.Code == notAllowed {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask for damaged parts: %w", err)
	}
	for i := range out {
		out[i] = strings.Replace(out[i], localSuffix+"/", "/", 1)
	}
	return out, nil
}
