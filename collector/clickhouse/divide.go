package clickhouse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// An insert that the server refuses for what is in it would stop the drain for
// ever. It is divided instead, until the records at fault stand alone; those become
// dead letters and all others are stored. Where the server names the row it is set
// apart at once, else the insert is halved.
//
// What keeps that exact: parts have tokens made of the insert's own and of the
// range, and how an insert was divided is on disk before its first part is sent.
// So however often the batch is offered again, by whatever process, and even where
// the server would take the whole by then, the same ranges go under the same
// tokens. A letter is on disk before the next insert begins, and a record with a
// letter is not sent again by this batch; rollups count what is stored only.

// DeadLetters keeps what the store refuses; the spool's Dead is one. What its
// methods have noted survives the process.
type DeadLetters interface {
	// Begin says which batch the writer is at, Finish that all of it is stored or
	// buried and that these letters, driven in it, are home.
	Begin(batch string) error
	Finish(batch string, home []string) error
	// Divide notes that an insert is sent in parts from now on: a record by itself, those
	// before it and those behind it, or halves where alone is -1. Divided asks.
	Divide(batch, token string, alone int) error
	Divided(batch, token string) (alone int, divided bool)
	// Bury keeps letters, each once; Buried returns those of a batch.
	Bury(list []collector.DeadLetter) error
	Buried(batch string) []collector.DeadLetter
	// Applies reports whether a letter driven in a batch is still to be stored by it.
	Applies(id, batch string) bool
	// Gone reports whether there was a letter, and which batch has stored it, "" where it
	// was deleted.
	Gone(id string) (batch string, gone bool)
	// List returns all letters without payloads, Get one with it.
	List() []collector.DeadLetter
	Get(id string) (*collector.DeadLetter, error)
}

const (
	// fewDead is how many records of an insert may be dead letters whatever its size.
	// Beyond that, more than three quarters of it are taken for a fault of the server,
	// as are probes records from all over it of which none is taken: the drain waits.
	fewDead = 8
	probes  = 16
)

// errServerFault says why a batch is held though its data is refused.
var errServerFault = errors.New("most of an insert is refused, which is taken for a fault of the server: nothing is set aside and the drain waits")

// insert is one statement of a batch over n records: the token it counts once
// under, how to run it over some of them, and how to tell whether those are stored.
type insert struct {
	name, token string
	n           int
	run         func(ctx context.Context, token string, lo, hi int) error
	// record says whose row one of the statement is, where that runs from lo on: the server
	// tells which row it refuses. nil where a row is not one record's.
	record func(lo, row int) int
	// stored reports whether the records from lo to hi are there; open tells of the
	// others which are not known to be. nil where nothing rests on it.
	stored func(ctx context.Context, lo, hi int, open func(i int) bool) (bool, error)
	// buried reports whether record i has a letter, bury is told that it has one now,
	// and letter makes it. letter is nil where the insert cannot be divided.
	// here looks which of the records are there, of whatever batch, and how many of them
	// only in part. nil for rollups.
	here   func(ctx context.Context) (found func(i int) bool, part int, err error)
	buried func(i int) bool
	bury   func(i int)
	// driven reports whether record i was a letter before: that it is refused tells nothing new.
	driven func(i int) bool
	letter func(i int) collector.DeadLetter
}

// division is what is known of an insert while it is being stored.
type division struct {
	insert
	batch    string
	attempts int
	// done are the ranges that are stored, out the records that were refused alone; misled
	// says that the server took a record which it had named.
	done   map[string]bool
	kept   map[int]bool
	out    map[int]*refusal
	misled bool
}

// place sends one insert until all of it is stored or buried, or ctx is done.
func (w *Writer) place(ctx context.Context, batch string, in insert) (attempts, dead int, err error) {
	d := &division{insert: in, batch: batch, done: map[string]bool{}, kept: map[int]bool{}}
	for {
		d.out = map[int]*refusal{}
		if err := w.divide(ctx, d, 0, in.n); err != nil {
			return d.attempts, 0, err
		}
		if len(d.out) == 0 {
			return d.attempts, 0, nil
		}
		if d.hopeless() {
			if err := w.hold(ctx, batch, fmt.Errorf("insert %s: %w: %w", in.name, errServerFault, d.any())); err != nil {
				return d.attempts, 0, err
			}
			continue
		}
		if err := w.confirm(ctx, d); err != nil {
			return d.attempts, 0, err
		}
		if err := w.buryAll(ctx, d); err != nil {
			return d.attempts, 0, err
		}
		return d.attempts, len(d.out), nil
	}
}

// confirm sends what was refused alone once more: the server may have been mended in
// between.
func (w *Writer) confirm(ctx context.Context, d *division) error {
	for i := range d.n {
		if d.out[i] == nil {
			continue
		}
		r, err := w.whole(ctx, d, d.part(i, i+1), i, i+1)
		if err != nil {
			return err
		}
		if d.out[i] = r; r == nil {
			delete(d.out, i)
			d.settle(d.part(i, i+1), i, i+1)
		}
	}
	return nil
}

// hopeless reports whether too much is refused to be the data's fault, of what was no letter
// before.
func (d *division) hopeless() bool {
	out := len(d.out)
	for i := range d.out {
		if d.known(i) {
			out--
		}
	}
	if out <= fewDead {
		return false
	}
	n := d.n
	for i := range d.n {
		if d.known(i) {
			n--
		}
	}
	return n > 2*probes && len(d.kept) == 0 && out >= probes || out > max(fewDead, 3*n/4)
}

func (d *division) known(i int) bool { return d.driven != nil && d.driven(i) }

// any is one of the refusals, the same each time.
func (d *division) any() error {
	for i := range d.n {
		if r := d.out[i]; r != nil {
			return r
		}
	}
	return nil
}

func (d *division) part(lo, hi int) string {
	if lo == 0 && hi == d.n {
		return d.token
	}
	return d.token + ":" + strconv.Itoa(lo) + "-" + strconv.Itoa(hi)
}

// divide stores the records from lo to hi, whole or in parts.
func (w *Writer) divide(ctx context.Context, d *division, lo, hi int) error {
	token := d.part(lo, hi)
	if d.done[token] || d.hopeless() {
		return nil
	}
	if hi-lo == 1 && (d.out[lo] != nil || d.buried != nil && d.buried(lo)) {
		return nil
	}
	alone, divided := d.divided(w, token)
	named := false
	if !divided {
		r, err := w.whole(ctx, d, token, lo, hi)
		if err != nil {
			return err
		}
		if r == nil {
			if lo > 0 || hi < d.n { // the whole needs no remembering
				d.settle(token, lo, hi)
			}
			return nil
		}
		if hi-lo == 1 {
			d.out[lo] = r
			return nil
		}
		alone = d.named(r, lo, hi)
		named = alone >= 0
		if err := w.noteDivided(ctx, d, token, alone); err != nil {
			return err
		}
	}
	for i, p := range partsOf(lo, hi, alone) {
		if lo == 0 && hi == d.n && d.n > 2*probes && (i > 0 || alone < 0) {
			if err := w.probe(ctx, d); err != nil {
				return err
			}
		}
		if err := w.divide(ctx, d, p[0], p[1]); err != nil {
			return err
		}
		d.misled = d.misled || named && d.kept[alone]
	}
	return nil
}

// partsOf are the ranges that one from lo to hi is sent in: around alone, or the halves.
func partsOf(lo, hi, alone int) (out [][2]int) {
	ends := []int{lo, lo + (hi-lo)/2, hi}
	if alone >= lo && alone < hi {
		ends = []int{lo, alone, alone + 1, hi}
	}
	for i := range len(ends) - 1 {
		if ends[i] < ends[i+1] {
			out = append(out, [2]int{ends[i], ends[i+1]})
		}
	}
	return out
}

// named is the record whose row the server named when it refused those from lo to hi, -1 where
// it named none, or has named one that it took.
func (d *division) named(r *refusal, lo, hi int) int {
	if r.row == 0 || d.record == nil || d.misled {
		return -1
	}
	if i := d.record(lo, r.row-1); i >= lo && i < hi {
		return i
	}
	return -1
}

func (d *division) divided(w *Writer, token string) (alone int, divided bool) {
	if w.cfg.Dead == nil {
		return -1, false
	}
	return w.cfg.Dead.Divided(d.batch, token)
}

func (d *division) settle(token string, lo, hi int) {
	d.done[token] = true
	for i := lo; i < hi; i++ {
		d.kept[i] = true
	}
}

// probe sends single records from all over an insert that was refused, until one is
// taken: if none is, dividing further would only find that out slowly. Which ones is drawn
// by the token: what is at fault may come at regular distances.
func (w *Writer) probe(ctx context.Context, d *division) error {
	draw := rand.New(rand.NewPCG(crc64.Checksum([]byte(d.token), probeTable), probes))
	for k := range probes {
		from := k * d.n / probes
		at := from + draw.IntN((k+1)*d.n/probes-from)
		if len(d.kept) > 0 || d.hopeless() {
			return nil
		}
		lo, hi := 0, d.n
		for hi-lo > 1 {
			var err error
			if lo, hi, err = w.closer(ctx, d, lo, hi, at); err != nil {
				return err
			}
		}
		if err := w.divide(ctx, d, lo, hi); err != nil {
			return err
		}
	}
	return nil
}

var probeTable = crc64.MakeTable(crc64.ECMA)

// closer is the part of a range that has the record at, which is set apart in it where the range
// was not divided before.
func (w *Writer) closer(ctx context.Context, d *division, lo, hi, at int) (int, int, error) {
	alone, divided := d.divided(w, d.part(lo, hi))
	if !divided {
		alone = at
		if err := w.noteDivided(ctx, d, d.part(lo, hi), at); err != nil {
			return lo, hi, err
		}
	}
	for _, p := range partsOf(lo, hi, alone) {
		if p[0] <= at && at < p[1] {
			lo, hi = p[0], p[1]
			break
		}
	}
	return lo, hi, nil
}

// whole sends a range until it is stored or refused for what is in it.
func (w *Writer) whole(ctx context.Context, d *division, token string, lo, hi int) (*refusal, error) {
	a := attempt{name: d.name, token: token, root: lo == 0 && hi == d.n, run: func(ctx context.Context, token string) error { return d.run(ctx, token, lo, hi) }}
	a.refusable = d.letter != nil && w.cfg.Dead != nil
	if d.record != nil && w.store.cluster.name == "" { // a cluster's shards check for themselves
		a.table = tableOf(d.name)
	}
	if d.stored != nil {
		open := func(i int) bool { return (i < lo || i >= hi) && !d.kept[i] }
		a.stored = func(ctx context.Context) (bool, error) { return d.stored(ctx, lo, hi, open) }
	}
	n, err := w.retry(ctx, d.batch, a)
	d.attempts += n
	var r *refusal
	if err != nil && ctx.Err() == nil && errors.As(err, &r) {
		return r, nil
	}
	return nil, err
}

func (w *Writer) noteDivided(ctx context.Context, d *division, token string, alone int) error {
	return w.insist(ctx, d.batch, func() error { return w.cfg.Dead.Divide(d.batch, token, alone) })
}

// buryAll makes dead letters of what was refused.
func (w *Writer) buryAll(ctx context.Context, d *division) error {
	if len(d.out) == 0 {
		return nil
	}
	var list []collector.DeadLetter
	for i := range d.n {
		r := d.out[i]
		if r == nil {
			continue
		}
		l := d.letter(i)
		l.Code, l.Reason, l.Detail, l.At = r.code, r.name, r.detail, time.Now().UTC()
		l.Tries++
		if list = append(list, l); len(list) <= fewDead {
			w.cfg.Log.Error("record set aside as a dead letter: the store refuses what is in it", "batch", d.batch, "insert", d.name, "position", l.Position,
				"letter", l.ID, "model", l.Model, "reason", r.name, "constraint", r.detail)
		}
	}
	if len(list) > fewDead {
		w.cfg.Log.Error("more records set aside as dead letters", "batch", d.batch, "insert", d.name, "letters", len(list)-fewDead, "of", d.n)
	}
	if err := w.insist(ctx, d.batch, func() error { return w.cfg.Dead.Bury(list) }); err != nil {
		return err
	}
	for i := range d.out {
		d.bury(i)
	}
	w.mu.Lock()
	w.health.Dead += uint64(len(list))
	w.mu.Unlock()
	return nil
}

// insist does something on the spool's disk until it succeeds: the drain must not
// go on without it.
func (w *Writer) insist(ctx context.Context, batch string, do func() error) error {
	for {
		err := do()
		if err == nil {
			w.settle(nil)
			return nil
		}
		if err := w.hold(ctx, batch, err); err != nil {
			return err
		}
	}
}

// hold says why nothing goes on, and waits.
func (w *Writer) hold(ctx context.Context, batch string, err error) error {
	w.settle(err)
	w.cfg.Log.Error("the drain waits", "batch", batch, "error", err)
	_, err = w.pause(ctx, w.cfg.BackoffMax)
	return err
}

// letter begins the dead letter of a record of the plan's batch.
func (p *plan) letter(position int, name string) collector.DeadLetter {
	l := collector.DeadLetter{Batch: p.token, Position: position, Insert: name, ID: collector.DeadLetterID(p.token, position, name), Rows: 1}
	r := p.records[position]
	if r.Kind == collector.KindDriven {
		if before, err := collector.DecodeDeadLetter(r.Payload); err == nil {
			l.Tries, r.Kind, r.Version, r.Payload = before.Tries, before.Kind, before.Version, before.Payload
		} else {
			r.Kind = 0 // of no kind: a letter is never in a letter
		}
	}
	l.Kind, l.Version, l.Payload = r.Kind, r.Version, r.Payload
	l.Record, _ = collector.PayloadKeys(r.Kind, r.Payload)
	return l
}

// predictionLetter is letter for a prediction, or its part in a rollup.
func (p *plan) predictionLetter(d *decoded, name string) collector.DeadLetter {
	l := p.letter(d.position, name)
	l.Tenant, l.Model, l.Rows = d.p.Tenant, d.p.Model, max(d.p.Rows, 1)
	if name == collector.InsertBins {
		l.BinsID, l.Bins = d.binsID, make([]byte, 0, 2*len(d.bins))
		for _, b := range d.bins {
			l.Bins = binary.LittleEndian.AppendUint16(l.Bins, b)
		}
	}
	return l
}

// driven unpacks a dead letter that is on its way once more. ok is false where it
// is not to be stored by this batch.
func (w *Writer) driven(p *plan, position int) (r collector.Record, l *collector.DeadLetter, err error) {
	r = p.records[position]
	if l, err = collector.DecodeDeadLetter(r.Payload); err != nil {
		return r, nil, err
	}
	r.Kind, r.Version, r.Payload = l.Kind, l.Version, l.Payload
	known := w.cfg.Dead == nil || w.cfg.Dead.Applies(l.ID, p.token) || p.kept && w.broughtHome(l.ID, p.token)
	twice := p.home[l.ID]
	p.home[l.ID] = true
	switch {
	case twice:
		return r, nil, nil
	case known:
		return r, l, nil
	}
	if _, gone := w.cfg.Dead.Gone(l.ID); gone {
		return r, nil, nil // an earlier batch has stored it or made another letter of it, or it was deleted
	}
	if l.Insert == collector.InsertPredictions {
		// The file of its letter is lost: the store itself knows whether it has the id.
		return r, l, nil
	}
	w.cfg.Log.Warn("a dead letter that nobody knows any more is left out", "batch", p.token, "letter", l.ID, "insert", l.Insert)
	return r, nil, nil
}

// homeLetters are the letters that are driven in the batch.
func (p *plan) homeLetters() []string {
	out := make([]string, 0, len(p.home))
	for id := range p.home {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// uncounted are the rows whose part in a rollup is a dead letter, but for those that
// the plan itself brings.
func (w *Writer) uncounted(name string, p *plan) ([]decoded, error) {
	if w.cfg.Dead == nil {
		return nil, nil
	}
	var out []decoded
	for _, l := range w.cfg.Dead.List() {
		if l.Insert != name || p.home[l.ID] {
			continue
		}
		whole, err := w.cfg.Dead.Get(l.ID)
		if errors.Is(err, collector.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v, err := collector.DecodePrediction(whole.Payload)
		if err != nil {
			return nil, err
		}
		d := decoded{p: v}
		d.setBins(whole)
		out = append(out, d)
	}
	return out, nil
}

func (d *decoded) setBins(l *collector.DeadLetter) {
	d.binsID, d.bins = l.BinsID, make([]uint16, len(l.Bins)/2)
	for i := range d.bins {
		d.bins[i] = binary.LittleEndian.Uint16(l.Bins[2*i:])
	}
}
