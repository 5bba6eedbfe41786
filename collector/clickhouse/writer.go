package clickhouse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// Source hands out frozen batches and is told when one is stored for good. The
// spool is one. Next blocks until a batch is due; after a restart it returns the
// same batch, with the same token, until that is acknowledged. Either may be called again
// after any error but one that wraps fs.ErrClosed.
type Source interface {
	Next(ctx context.Context) (*collector.Batch, error)
	Ack(ctx context.Context, b *collector.Batch) error
}

// WriterConfig says what a Writer drains and what it tells. Source is required.
type WriterConfig struct {
	Source Source
	// Reference returns the reference in force of the version of that digest,
	// or nil; rows are stored with their bins under it. nil means none.
	Reference func(digest string) *stats.Reference
	// Schema returns the schema of that id where it is known in memory; the
	// writer falls back on the batch's own schema records and on the table. nil
	// means that.
	Schema func(id string) *collector.Schema
	// Doubt reports that what was inserted since a time may be damaged although it
	// succeeded: the disk was nearly full. nil means never.
	Doubt func(since time.Time) bool
	// Full reports that the server begins no insert for want of room on its disk: the drain
	// looks again within half a second once it no longer does. nil means never.
	Full func() bool
	// Dead takes the records that the server refuses for what is in them. nil means
	// that the writer waits on them for ever.
	Dead DeadLetters
	// Kept is asked at the start for batches that a power cut may have taken from the
	// server after it had confirmed them. nil means none.
	Kept Kept
	// Recounted says that the rollups may have been counted from rows of the batch that comes
	// first: its spool was away, and what it had stored of that was held against them.
	Recounted bool
	// Uncounted is called when the rollups are short of rows that are stored and that the
	// batch under way does not account for; nil means none.
	Uncounted func()
	// Backoff is the first wait after a failed attempt, doubled up to
	// BackoffMax; 0 means 100 ms and 15 s.
	Backoff, BackoffMax time.Duration
	// Log gets failures, once a second at most; nil means slog.Default.
	Log *slog.Logger
	// OnBatch is called after each batch that was stored; nil means none.
	OnBatch func(BatchStats)
}

// BatchStats says what one stored batch was.
type BatchStats struct {
	Records, Rows, Undecodable int
	// Dead counts the records, or their parts in rollups, that became dead letters.
	Dead int
	// Attempts counts the inserts that were sent, Inserts those needed.
	Attempts, Inserts int
	Took              time.Duration
	// Lag is the age of the batch's newest prediction.
	Lag time.Duration
}

// Health is what a Writer says of itself.
type Health struct {
	// Err is why the present batch is not stored yet, nil when all is well.
	Err error
	// Since is when Err began; Permanent that it is the server's own refusal,
	// which waiting alone will not mend.
	Since     time.Time
	Permanent bool
	// Counters since the start.
	Batches, Rows, Retries, Undecodable, Dead uint64
	// Restored counts the records, and their parts in rollups, that a power cut had
	// taken from the server and that were sent again.
	Restored uint64
	// Duplicates counts predictions made elsewhere that were accepted and of which another
	// with the same id is stored.
	Duplicates uint64
}

// Writer drains a Source into the tables, for ever: a ClickHouse that is away or
// refuses costs time, never a record.
type Writer struct {
	store *Store
	cfg   WriterConfig

	block   predictionBlock // reused; Run is one goroutine
	decoder collector.Decoder
	// doubt says that the present batch may have been attempted by an earlier
	// process: it is the first of this one.
	doubt bool
	// unknown says beside that the server may have lost the list of what it has: each insert
	// is looked for before it is sent.
	unknown bool
	// look is how long kept waits between two of its looks.
	look time.Duration
	// roomEvery is how often a waiting drain asks whether a full disk has room again.
	roomEvery time.Duration
	// sync waits until every replica of a table has what was inserted; nil without replicas.
	sync func(ctx context.Context, table string) error
	// turn is held by whoever stores a batch or needs that none is partly stored; even,
	// which it guards, says that none is, begun that this process has stored one, or tried,
	// checked that it has stored again what a power cut took.
	turn                 chan struct{}
	even, begun, checked bool

	mu     sync.Mutex // guards health
	health Health
}

// NewWriter returns a writer; Run makes it work.
func NewWriter(s *Store, cfg WriterConfig) (*Writer, error) {
	if cfg.Source == nil {
		return nil, errors.New("make writer: no source given")
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = 100 * time.Millisecond
	}
	if cfg.BackoffMax == 0 {
		cfg.BackoffMax = 15 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Reference == nil {
		cfg.Reference = func(string) *stats.Reference { return nil }
	}
	if cfg.Doubt == nil {
		cfg.Doubt = func(time.Time) bool { return false }
	}
	if cfg.Full == nil {
		cfg.Full = func() bool { return false }
	}
	if cfg.Schema == nil {
		cfg.Schema = func(string) *collector.Schema { return nil }
	}
	w := &Writer{store: s, cfg: cfg, doubt: true, look: 200 * time.Millisecond, roomEvery: 500 * time.Millisecond, turn: make(chan struct{}, 1)}
	if s.cluster.replicas() {
		w.sync = s.syncReplicas
	}
	return w, nil
}

// Health returns how the writer is doing.
func (w *Writer) Health() Health {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.health
}

// Run drains the source until ctx is done (then it returns nil) or the source
// is closed. A batch in flight at the end is not acknowledged and comes again.
func (w *Writer) Run(ctx context.Context) error {
	if err := w.recheck(ctx); err != nil {
		return nil //nolint:nilerr // it fails only when ctx is done
	}
	w.startEven()
	for {
		b, err := w.cfg.Source.Next(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end was asked for
		}
		if errors.Is(err, fs.ErrClosed) {
			return fmt.Errorf("drain the spool: %w", err)
		}
		if err != nil { // of the disk: it may pass, and nobody else would go on
			if w.hold(ctx, "", fmt.Errorf("drain the spool: %w", err)) != nil {
				return nil //nolint:nilerr // the end was asked for
			}
			continue
		}
		if ended, err := w.storeBatch(ctx, b); ended {
			return err
		}
	}
}

// Write stores one batch, retrying until it is stored or ctx is done.
func (w *Writer) Write(ctx context.Context, b *collector.Batch) error {
	began := time.Now()
	if w.cfg.Dead != nil {
		if err := w.insist(ctx, b.Token, func() error { return w.cfg.Dead.Begin(b.Token) }); err != nil {
			return err
		}
	}
	// A power cut may take the list of tokens, which the server does not sync, and leave the rows.
	w.unknown = w.doubt && b.Again
	p := w.sort(b)
	if err := w.dropStored(ctx, p); err != nil {
		return err
	}
	p.labels()
	w.bin(ctx, p)
	st := BatchStats{Records: len(b.Records), Undecodable: len(p.undecodable)}
	// Rollups are of the rows that the first inserts have stored.
	for _, inserts := range []func(*plan) []insert{w.rowInserts, w.newRollupInserts, w.otherInserts} {
		for _, in := range inserts(p) {
			st.Inserts++
			n, dead, err := w.place(ctx, b.Token, in)
			st.Attempts += n
			st.Dead += dead
			if err != nil {
				return err
			}
		}
	}
	st.Rows = p.liveRows()
	if w.cfg.Dead != nil {
		if err := w.insist(ctx, b.Token, func() error { return w.cfg.Dead.Finish(b.Token, p.homeLetters()) }); err != nil {
			return err
		}
	}
	// What another spool's batch has stored it may have died before it was counted.
	if b.Again && p.dropped && w.cfg.Uncounted != nil {
		w.cfg.Uncounted()
	}
	w.doubt, w.unknown = false, false
	st.Took = time.Since(began)
	if !p.newest.IsZero() {
		st.Lag = time.Since(p.newest)
	}
	w.mu.Lock()
	w.health.Batches++
	w.health.Rows += uint64(st.Rows)
	w.health.Undecodable += uint64(st.Undecodable)
	w.health.Duplicates += uint64(p.duplicates)
	w.mu.Unlock()
	if w.cfg.OnBatch != nil {
		w.cfg.OnBatch(st)
	}
	return nil
}

// attempt is one statement as it is sent: the token it counts once under, how to
// run it, and how to tell whether it is stored (nil where nothing rests on it).
// refusable says that being refused for its data is an answer; where a constraint of table
// itself refuses it, nothing of it is there. root says that an earlier process may have sent the same.
type attempt struct {
	name, token string
	root        bool
	refusable   bool
	table       string
	run         func(ctx context.Context, token string) error
	stored      func(ctx context.Context) (bool, error)
}

// retry sends one statement until it is stored or, as a *refusal, its data is
// refused. The token makes the attempts count
// once, whether or not the server kept an attempt that seemed to fail. A server
// that is killed may have noted a token whose rows it then lost, and take every
// further attempt for a repeat: so what may have been attempted before is looked
// for, and sent under another token where it is not there.
func (w *Writer) retry(ctx context.Context, batch string, in attempt) (attempts int, err error) {
	wait := w.cfg.Backoff
	var logged time.Time
	token := in.token
	unsure := false
	for lost := 0; ; {
		attempts++
		began := time.Now()
		err := w.send(ctx, in, token)
		if err == nil && in.stored != nil && (attempts > 1 || w.doubt || w.cfg.Doubt(began)) {
			var kept bool
			if kept, err = w.kept(ctx, in, true); err == nil && !kept {
				lost++
				token = in.token + ":again" + strconv.Itoa(lost)
				w.cfg.Log.Error("clickhouse took an insert for a repeat and has lost its rows: sending them under another token",
					"batch", batch, "insert", in.name, "token", token)
				if lost <= maxLost {
					continue
				}
				err = errors.New("the server takes inserts and does not have their rows")
			}
		}
		if err == nil {
			w.settle(nil)
			return attempts, nil
		}
		if ctx.Err() != nil {
			return attempts, ctx.Err()
		}
		if r := refused(err); r != nil {
			err = r
			if in.refusable && r.table != "" && r.table == in.table && !unsure && !w.doubt {
				w.settle(nil) // one block, which is checked before any of it is written
				return attempts, r
			}
			if in.refusable {
				kept, kerr := w.refusedYetKept(ctx, in, unsure)
				if kerr == nil {
					w.settle(nil)
					return attempts, keptOr(kept, r)
				}
				err = kerr
			}
		} else {
			unsure = true
		}
		w.settle(err)
		if time.Since(logged) > time.Second {
			logged = time.Now()
			w.cfg.Log.Error("insert into clickhouse failed: trying again", "batch", batch, "insert", in.name,
				"attempt", attempts, "permanent", permanent(err), "error", err)
		}
		room, err := w.pause(ctx, wait/2+rand.N(wait))
		if err != nil {
			return attempts, err
		}
		if wait = min(2*wait, w.cfg.BackoffMax); room {
			wait = w.cfg.Backoff // the server may yet have to start again
		}
	}
}

// send runs a statement, but one under its own token that is there, where that may be known to
// nobody else.
func (w *Writer) send(ctx context.Context, in attempt, token string) error {
	if w.unknown && in.stored != nil && token == in.token {
		if kept, err := in.stored(ctx); kept || err != nil {
			return err
		}
	}
	return in.run(ctx, token)
}

// pause waits between two attempts, and no longer than until the disk has room again where
// it was full.
func (w *Writer) pause(ctx context.Context, wait time.Duration) (room bool, err error) {
	end := time.NewTimer(wait)
	defer end.Stop()
	look := time.NewTicker(w.roomEvery)
	defer look.Stop()
	for full := w.cfg.Full(); ; {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-end.C:
			return false, nil
		case <-look.C:
		}
		was := full
		if full = w.cfg.Full(); was && !full {
			return true, nil
		}
	}
}

// refusedYetKept reports whether what is refused now is there: by an attempt of before, whose
// answer was lost, or by this one, where somebody's view of the table throws, which it does when
// the rows are in.
func (w *Writer) refusedYetKept(ctx context.Context, in attempt, unsure bool) (bool, error) {
	switch {
	case in.stored == nil:
		return false, nil
	case !unsure && !w.doubt:
		return in.stored(ctx)
	}
	return w.kept(ctx, in, unsure || in.root)
}

func keptOr(kept bool, r *refusal) error {
	if kept {
		return nil
	}
	return r
}

// maxLost bounds how often in a row an insert is sent under another token before
// the server is given time.
const maxLost = 3

// kept looks for an insert's rows, with wait for a moment: an attempt of before may
// be about to commit. Before they are said to be gone every replica must have what any has:
// the one that answers may lag.
func (w *Writer) kept(ctx context.Context, in attempt, wait bool) (bool, error) {
	const tries = 10
	for try := 0; ; try++ {
		ok, err := in.stored(ctx)
		if ok || err != nil {
			return ok, err
		}
		if try >= tries || !wait {
			if w.sync == nil {
				return false, nil
			}
			if err := w.sync(ctx, tableOf(in.name)); err != nil {
				return false, err
			}
			return in.stored(ctx)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(w.look):
		}
	}
}

// tableOf is the table that an insert of that name goes to.
func tableOf(insert string) string {
	name, _, _ := strings.Cut(insert, ":") // a month and a block follow
	if name == "traffic" {
		return trafficRollup.table
	}
	return name
}

func (w *Writer) settle(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.health.Err, w.health.Since, w.health.Permanent = nil, time.Time{}, false
		return
	}
	if w.health.Err == nil {
		w.health.Since = time.Now()
	}
	w.health.Err, w.health.Permanent = err, permanent(err)
	w.health.Retries++
}

// permanent reports whether the server refused the insert itself, as opposed to
// being away, busy or short of something.
func permanent(err error) bool {
	var r *refusal
	if errors.As(err, &r) {
		return true
	}
	var ex *ch.Exception
	return errors.As(err, &ex) && !busy(ex.Code)
}

// plan is a batch sorted by what its records are.
type plan struct {
	token string
	// again says that predictions may be stored under other tokens.
	again bool
	// kept says that the batch was acknowledged before: it is looked for, not stored.
	kept    bool
	decoder *collector.Decoder
	records []collector.Record
	months  map[int][]decoded
	// parts are driven letters of rows that are stored: only a rollup lacks them.
	parts      []decoded
	feedback   []*collector.Feedback
	feedbackAt []int // positions of feedback's records
	// feedbackKeys tell a batch's labels apart in the table.
	feedbackKeys []uint32
	explanations []storedExplanation
	schemas      map[string][]byte
	schemaAt     map[string]int
	parsed       map[string]*collector.Schema
	undecodable  []undecodable
	newest       time.Time
	// buried are the records of this batch that have letters, home the letters that
	// are driven in it.
	buried map[burial]bool
	home   map[string]bool
	// imported are the ids of predictions made elsewhere, by tenant and model.
	imported map[owner][]string
	known    map[owner]map[string]bool
	// dropped says that some of them were stored by other batches, and duplicates counts those
	// that somebody has sent twice.
	dropped    bool
	duplicates int
}

// burial is a record of a batch and the insert that refused it.
type burial struct {
	position int
	insert   string
}

// decoded is a prediction with the bins of its rows under binsID, one after the
// other; both are empty where there is no reference. They are computed once, so
// that every attempt stores the same.
type decoded struct {
	p        *collector.Prediction
	size     int
	position int
	// only names the rollup that a driven letter is of.
	only string
	// imported predictions have ids of somebody else's making, which may repeat.
	imported bool

	binsID string
	bins   []uint16
}

type storedExplanation struct {
	e        *collector.Explanation
	doc      []byte
	position int
}

type undecodable struct {
	position int
	record   collector.Record
	err      error
}

func (w *Writer) sort(b *collector.Batch) *plan { return w.sortAs(b, false) }

func (w *Writer) sortAs(b *collector.Batch, kept bool) *plan {
	p := &plan{
		kept: kept, again: b.Again,
		token: b.Token, decoder: &w.decoder, records: b.Records, months: map[int][]decoded{}, schemas: map[string][]byte{}, schemaAt: map[string]int{},
		parsed: map[string]*collector.Schema{}, buried: map[burial]bool{}, home: map[string]bool{},
	}
	if w.cfg.Dead != nil {
		for _, l := range w.cfg.Dead.Buried(b.Token) {
			p.buried[burial{l.Position, l.Insert}] = true
		}
	}
	for i := range b.Records {
		if err := w.take(p, i); err != nil {
			p.undecodable = append(p.undecodable, undecodable{i, b.Records[i], err})
			w.cfg.Log.Error("record set aside: no decoder understands it", "batch", b.Token, "position", i,
				"kind", b.Records[i].Kind, "version", b.Records[i].Version, "error", err)
		}
	}
	return p
}

// take sorts one record in, a driven letter as the record that is in it.
func (w *Writer) take(p *plan, position int) error {
	r := p.records[position]
	if r.Kind != collector.KindDriven {
		return p.take(position, &r, "")
	}
	r, l, err := w.driven(p, position)
	if err != nil || l == nil {
		return err
	}
	if !l.Rollup() {
		return p.take(position, &r, l.Insert)
	}
	v, err := collector.DecodePrediction(r.Payload)
	if err != nil {
		return err
	}
	d := decoded{p: v, size: len(r.Payload), position: position, only: l.Insert}
	d.setBins(l)
	p.parts = append(p.parts, d)
	return nil
}

// bin computes the bins of every row.
func (w *Writer) bin(ctx context.Context, p *plan) {
	refs := map[string]*stats.Reference{} // one answer a batch
	for _, list := range p.months {
		for i := range list {
			d := &list[i]
			ref, asked := refs[d.p.Digest]
			if !asked {
				ref = w.cfg.Reference(d.p.Digest)
				refs[d.p.Digest] = ref
			}
			if !d.sampled() {
				if ref == nil {
					continue
				}
				schema := w.schema(ctx, p, d.p.SchemaID)
				if schema == nil {
					continue
				}
				d.binRows(w.store.bins, ref, schema)
			}
		}
	}
}

// sampled takes over the bins of a prediction whose features were sampled out. They
// may be those of a reference that has just been replaced: then the rows count under
// it and not under the new one, whose token the rest of the batch uses up.
func (d *decoded) sampled() bool {
	rows := max(d.p.Rows, 1)
	if d.p.BinsID == "" || len(d.p.Bins) == 0 || len(d.p.Bins)%rows != 0 {
		return false
	}
	d.binsID, d.bins = d.p.BinsID, d.p.Bins
	return true
}

func (d *decoded) binRows(bins func(*stats.Reference, *collector.Schema, *collector.Prediction, int, []uint16) []uint16, ref *stats.Reference, schema *collector.Schema) {
	d.binsID = ref.ID
	rows := max(d.p.Rows, 1)
	d.bins = make([]uint16, 0, rows*(len(schema.Features)+1))
	for r := range rows {
		d.bins = bins(ref, schema, d.p, r, d.bins)
	}
}

func (d *decoded) count(c *binCounts) {
	rows := max(d.p.Rows, 1)
	for r := range rows {
		// Rows without features have their bins, so features too count by the row's weight.
		c.add(d.time(r), d.row(r), weightOf(d.p), weightOf(d.p))
	}
}

// time is the event time of row r.
func (d *decoded) time(r int) time.Time {
	if len(d.p.Times) > 0 {
		return pick(d.p.Times, r)
	}
	return d.p.ReceivedAt
}

// row returns the bins of row r.
func (d *decoded) row(r int) []uint16 {
	n := len(d.bins) / max(d.p.Rows, 1)
	return d.bins[r*n : (r+1)*n]
}

// take sorts one record in; driven is the insert that refused it before, if it is a
// letter.
func (p *plan) take(position int, r *collector.Record, driven string) error {
	switch r.Kind {
	case collector.KindPrediction, collector.KindImported, collector.KindRefused:
		v, err := p.decoder.Prediction(r.Payload)
		if err != nil {
			return err
		}
		if driven == "feedback" {
			p.addFeedback(labelOf(v), position, labelKey(position))
			return nil
		}
		// A letter may have been stored after all, like an id made elsewhere, or what was
		// delivered before the spool lost its cursor.
		imported := r.Kind == collector.KindImported || driven != "" || p.again
		if imported && !p.first(v) {
			p.twice(position)
			return nil
		}
		month := monthOf(v)
		p.months[month] = append(p.months[month], decoded{p: v, size: len(r.Payload), position: position, imported: imported})
		if at := v.ReceivedAt.UTC(); at.After(p.newest) && driven == "" {
			p.newest = at
		}
		return nil
	case collector.KindFeedback:
		v, err := collector.DecodeFeedback(r.Payload)
		if err != nil {
			return err
		}
		p.addFeedback(v, position, uint32(len(p.feedback)))
		return nil
	case collector.KindExplanation:
		v, err := collector.DecodeExplanation(r.Payload)
		if err != nil {
			return err
		}
		p.explanations = append(p.explanations, storedExplanation{v, r.Payload, position})
		return nil
	case collector.KindSchema:
		v, err := collector.DecodeSchema(r.Payload)
		if err != nil {
			return err
		}
		p.schemas[v.ID], p.parsed[v.ID], p.schemaAt[v.ID] = r.Payload, v, position
		return nil
	}
	return fmt.Errorf("unknown kind %d", r.Kind)
}

func (p *plan) addFeedback(f *collector.Feedback, position int, key uint32) {
	p.feedback, p.feedbackAt, p.feedbackKeys = append(p.feedback, f), append(p.feedbackAt, position), append(p.feedbackKeys, key)
}

// labelOf is the label that came with a prediction made elsewhere.
func labelOf(v *collector.Prediction) *collector.Feedback {
	return &collector.Feedback{
		PredictionID: v.ID, Tenant: v.Tenant, Model: v.Model, Label: v.Label, ObservedAt: v.LabelObservedAt, ReceivedAt: v.ReceivedAt,
		Arrival: v.LabelArrival,
	}
}

// labelKey tells such a label from all others of its batch, whichever of the
// predictions are stored.
func labelKey(position int) uint32 { return 1<<31 | uint32(position) }

// labels adds the labels that came with predictions made elsewhere and are new: those
// of predictions that are stored already were stored with them.
func (p *plan) labels() {
	for _, month := range p.sortedMonths() {
		for i := range p.months[month] {
			if d := &p.months[month][i]; d.imported && d.p.Label != "" && p.records[d.position].Kind == collector.KindImported {
				p.addFeedback(labelOf(d.p), d.position, labelKey(d.position))
			}
		}
	}
}

// maxBlockRows keeps one insert one block, which the token needs: the server
// cuts at 1,048,449 rows.
const maxBlockRows = 500_000

func (p *plan) sortedMonths() []int {
	months := make([]int, 0, len(p.months))
	for m := range p.months {
		months = append(months, m)
	}
	sort.Ints(months)
	return months
}

// blocks cuts predictions into lists of one insert each, in the same way at every
// attempt.
func blocks(list []decoded) (out [][]decoded) {
	for len(list) > 0 {
		n, rows := 0, 0
		for n < len(list) && (n == 0 || rows+max(list[n].p.Rows, 1) <= maxBlockRows) {
			rows += max(list[n].p.Rows, 1)
			n++
		}
		out = append(out, list[:n])
		list = list[n:]
	}
	return out
}

// schema finds a schema; a row whose schema is nowhere is stored without bins,
// and back-filled when it is.
func (w *Writer) schema(ctx context.Context, p *plan, id string) *collector.Schema {
	if s := w.cfg.Schema(id); s != nil {
		return s
	}
	if s := p.parsed[id]; s != nil {
		return s
	}
	s, err := w.store.Schema(ctx, id)
	if err != nil {
		return nil
	}
	return s
}

// rowTargetID and rowTargetRow are target_id and target_row of what is about a row of
// predictions: its own, or splitRowID of its id where another system sent the rows of a
// request one by one.
const (
	sentAlone = "row = 0 AND length(id) > 37 AND substring(id, 37, 1) = '.' AND countSubstrings(substring(id, 1, 36), '-') = 4" +
		" AND toUInt32OrNull(substring(id, 38)) IS NOT NULL"
	rowTargetID  = "if(" + sentAlone + ", substring(id, 1, 36), id)"
	rowTargetRow = "if(" + sentAlone + ", toUInt32OrZero(substring(id, 38)), row)"
	rowTarget    = rowTargetID + ", " + rowTargetRow
)

// splitRowID takes the id of one row apart. Only our own ids (UUIDs) are rows of
// a batch by their ".i": a foreign id is opaque and may well end like that.
func splitRowID(id string) (request string, row uint32) {
	const uuidLen = 36
	if len(id) > uuidLen+1 && id[uuidLen] == '.' && strings.Count(id[:uuidLen], "-") == 4 {
		if n, err := strconv.ParseUint(id[uuidLen+1:], 10, 32); err == nil {
			return id[:uuidLen], uint32(n)
		}
	}
	return id, 0
}

// Schema returns the schema of that id, from memory or from the table.
func (s *Store) Schema(ctx context.Context, id string) (*collector.Schema, error) {
	s.mu.Lock()
	found := s.schemas[id]
	s.mu.Unlock()
	if found != nil {
		return found, nil
	}
	docs, err := s.strings(ctx, "SELECT doc FROM schemas WHERE id = ? LIMIT 1", id)
	if err != nil {
		return nil, fmt.Errorf("read schema %q: %w", id, err)
	}
	if len(docs) == 0 {
		return nil, fmt.Errorf("read schema %q: %w", id, collector.ErrNotFound)
	}
	schema, err := collector.DecodeSchema([]byte(docs[0]))
	if err != nil {
		return nil, fmt.Errorf("read schema %q: %w", id, err)
	}
	s.mu.Lock()
	s.schemas[id] = schema
	s.mu.Unlock()
	return schema, nil
}

// strings runs a query of one text column.
func (s *Store) strings(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := s.conn.Query(ctx, query, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, fmt.Errorf("scan: %w", err)
		}
		out = append(out, v)
	}
	return out, unavailable(rows.Err())
}

// encodeJSON is for documents of our own types, which always encode.
func encodeJSON(what string, v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode %s: %w", what, err)
	}
	return string(b), nil
}
