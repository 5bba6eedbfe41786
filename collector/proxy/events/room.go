package events

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// Config is what a Room needs. Dir, Key, Record and Names are required.
type Config struct {
	// Dir has the halves that wait, and nothing else.
	Dir string
	// Key is the secret that they are encrypted under; it must stay the same. It is
	// asked for when there is a half.
	Key func() ([]byte, error)
	// Ours fails while Dir is not the folder that was opened: nothing is written then, and
	// what waits is not given up for gone. nil means that it always is.
	Ours func() error
	// Sync has a half reach the disk before it is acknowledged, where the durability
	// is machine.
	Sync bool
	// Record records predictions, each id once. An error means that they may be sent
	// again, all of them.
	Record func(ctx context.Context, rows []*collector.Imported) ([]collector.ImportResult, error)
	// Label records what was true of predictions and says which labels it refuses, and why. An
	// error means that all may be sent again. Where it is nil feedback is not taken.
	Label func(ctx context.Context, labels []Label) (refused []error, err error)
	// Names are the features of a version, in their order; nil where it is not known.
	Names func(model, version string) []string
	// Private says what of a row's features is private in a version now, known or not. An
	// error means that this is not known: nothing of it is taken or recorded meanwhile. nil
	// means that nothing ever is.
	Private func(model, version string, features []string) (map[string]collector.Privacy, error)
	// Wait is how long a half waits for the other; 0 means five minutes. GiveUp is
	// how long one is kept that cannot be recorded alone, since no pair of its model
	// has told yet what its rows are; 0 means a day.
	Wait, GiveUp time.Duration
	// MaxHalves and MaxBytes bound what waits; beyond, events are to be sent again
	// later. 0 means 100,000 and 1 GiB.
	MaxHalves int
	MaxBytes  int64
	// Drops counts what is never recorded; nil means that nobody else asks.
	Drops *Drops
	// Lost is told where it is not known whether halves have gone; nil means that it is logged.
	Lost func(what string)
	// MeterProvider defaults to the global one, Logger and Now to slog.Default and
	// time.Now.
	MeterProvider metric.MeterProvider
	Logger        *slog.Logger
	// LogID is an event's id as it may be logged; nil takes it as it is.
	LogID func(id string) string
	Now   func() time.Time
}

func (c Config) withDefaults() (Config, error) {
	if c.Private == nil {
		c.Private = func(string, string, []string) (map[string]collector.Privacy, error) { return nil, nil }
	}
	if c.Ours == nil {
		c.Ours = func() error { return nil }
	}
	if c.Dir == "" || c.Key == nil || c.Record == nil || c.Names == nil {
		return c, errors.New("configure events: Dir, Key, Record or Names is not set")
	}
	if c.Wait < 0 || c.GiveUp < 0 || c.MaxHalves < 0 || c.MaxBytes < 0 {
		return c, errors.New("configure events: a limit is negative")
	}
	if c.Wait == 0 {
		c.Wait = 5 * time.Minute
	}
	if c.GiveUp == 0 {
		c.GiveUp = 24 * time.Hour
	}
	if c.MaxHalves == 0 {
		c.MaxHalves = 100_000
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 1 << 30
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	if c.Drops == nil {
		c.Drops = &Drops{}
	}
	if c.LogID == nil {
		c.LogID = func(id string) string { return id }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Lost == nil {
		log := c.Logger
		c.Lost = func(what string) { log.Error(what) }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

// Outcome is what became of an event.
type Outcome struct {
	Status string // one of the constants below
	// Refused are rows that could not be recorded beside the others, and Reason is why the
	// first of them could not.
	Refused int
	Reason  string
	// Capture says how much of the first row that is not stored whole is: ImportResult.Capture.
	Capture string
}

// What becomes of an event.
const (
	Waiting   = "waiting"                 // for its other half, in a file
	Recorded  = "recorded"                // both are predictions
	Duplicate = collector.ImportDuplicate // its rows were recorded before, of both halves or of one alone: nothing changed
)

// Room joins halves. It is safe for concurrent use; Close ends its goroutine.
type Room struct {
	cfg  Config
	disk vfs.FS
	stop context.CancelFunc
	over chan struct{}
	// watched is what publishes the metrics.
	watched metric.Registration
	// shown is how many halves wait, and their bytes, when mu was last given back.
	shown struct{ halves, bytes atomic.Int64 }

	// mu guards everything below, and the files: one event at a time is taken. unlock gives it back.
	mu      sync.Mutex
	waiting map[place]entry
	bytes   int64
	// list is where the halves are named whose files there must be.
	list list
	// sealer encrypts the files, nil until there was one. otherKey says that there are halves
	// under another key than its own.
	sealer   *sealer
	otherKey bool
	// done are the latest keys that are recorded, by their place in ring: a half of
	// them that comes again, or too late, need not wait for nothing.
	done map[string]bool
	ring []string
	next int
}

// rememberDone is how many of them are remembered.
const rememberDone = 1 << 14

// place is a half by what it is a half of.
type place struct {
	key  string // hash of model, version and id; a file's name
	half half
}

func (p place) other() place { return place{p.key, p.half.other()} }

type entry struct {
	since time.Time
	size  int64
	slot  int // where the list names it, 0 if it does not
	// due is when to record it alone; told is set once it has been said that it
	// cannot be.
	due  time.Time
	told bool
	// held says that somebody is about to delete it: it is not recorded meanwhile.
	held bool
	// alone says, in the file's name, that its rows are being recorded without the
	// other half: should it come now, it is too late. unsynced says that a power cut may
	// bring the name before back.
	alone, unsynced bool
}

// kept is what a file holds.
type kept struct {
	Model   string    `json:"model"`
	Version string    `json:"version"`
	ID      string    `json:"id"`
	Time    string    `json:"time"`
	Trace   string    `json:"trace"`
	Span    string    `json:"span"`
	Half    half      `json:"half"`
	Since   time.Time `json:"since"`
	Data    []byte    `json:"data"`
	// Private is what was private of a request's features when it came, by the Names they
	// had then: what was taken in under stricter rules is not recorded under others.
	Private map[string]collector.Privacy `json:"private,omitempty"`
	Names   []string                     `json:"names,omitempty"`
}

// rowsOf are the rows of a half, by the names that it had or has.
func (r *Room) rowsOf(k *kept) ([]row, error) {
	names := k.Names
	if len(names) == 0 {
		names = r.cfg.Names(k.Model, k.Version)
	}
	return rowsOf(k.Half, k.Data, names)
}

// hide takes out of a request's rows what was private when it came and is less so now, and
// returns it, row by row.
func (k *kept) hide(rows []row, now map[string]collector.Privacy) [][]json.RawMessage {
	hidden := make([][]json.RawMessage, len(rows))
	for name, how := range k.Private {
		if collector.Stricter(how, now[name]) == now[name] {
			continue
		}
		for i, one := range rows {
			if raw, ok := one[name]; ok {
				hidden[i] = append(hidden[i], raw)
				one[name] = json.RawMessage("null")
			}
		}
	}
	return hidden
}

// policies are what is private now of a request's features.
func (r *Room) policies(k *kept, rows []row) (map[string]collector.Privacy, error) {
	return r.cfg.Private(k.Model, k.Version, namesIn(rows))
}

// namesIn are the features that rows have.
func namesIn(rows []row) []string {
	all := map[string]bool{}
	for _, one := range rows {
		for name := range one {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Open takes up the halves that wait in the folder. Pairs that a crash interrupted are
// recorded at once, in the background.
func Open(cfg Config) (*Room, error) {
	r, err := open(cfg, vfs.OS{})
	if err != nil {
		return nil, err
	}
	if err := r.observe(); err != nil {
		return nil, fmt.Errorf("observe events: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() {
		defer close(r.over)
		every := time.NewTicker(max(min(r.cfg.Wait/10, 10*time.Second), time.Millisecond))
		defer every.Stop()
		for {
			r.sweep(ctx)
			select {
			case <-ctx.Done():
				return
			case <-every.C:
			}
		}
	}()
	return r, nil
}

// open is Open but for what goes on by itself.
func open(cfg Config, disk vfs.FS) (*Room, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := disk.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("make the folder of events: %w", err)
	}
	// The folder's own name, which this process or one before it made.
	if cfg.Sync {
		if err := disk.SyncDir(filepath.Dir(filepath.Clean(cfg.Dir))); err != nil {
			return nil, fmt.Errorf("sync the folder that events are in: %w", err)
		}
	}
	r := &Room{cfg: cfg, disk: disk, waiting: map[place]entry{}, done: map[string]bool{}, ring: make([]string, rememberDone), over: make(chan struct{})}
	if err := r.find(); err != nil {
		return nil, fmt.Errorf("open the folder of events: %w", err)
	}
	r.compare()
	r.show()
	return r, nil
}

// Close leaves what waits to the next Open.
func (r *Room) Close() {
	r.stop()
	<-r.over
	r.mu.Lock()
	err := r.closeList()
	r.unlock()
	if err != nil {
		r.cfg.Logger.Warn("the list of waiting events may not be on the disk: what is gone by the next start may not be known for sure", "error", err)
	}
	if err := r.watched.Unregister(); err != nil {
		r.cfg.Logger.Warn("events go on being observed", "error", err)
	}
}

// Waiting returns how many halves wait, and their bytes. It does not wait for who works with
// them, who may wait for a disk.
func (r *Room) Waiting() (halves int, bytes int64) {
	return int(r.shown.halves.Load()), r.shown.bytes.Load()
}

// unlock gives mu back and shows what waits now.
func (r *Room) unlock() {
	r.show()
	r.mu.Unlock()
}

func (r *Room) show() {
	r.shown.halves.Store(int64(len(r.waiting)))
	r.shown.bytes.Store(r.bytes)
}

// Endings of the files' names.
const (
	suffix      = ".half"
	suffixAlone = ".alone"
	unfinished  = ".new"
	aside       = ".damaged" // behind one of the others
)

// keySize is how much of a hash a key is.
const keySize = 16

// find lists the files of an earlier process.
func (r *Room) find() error {
	entries, err := r.disk.List(r.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		f, err := e.Info()
		if err != nil {
			return err
		}
		p, ending, ok := halfFile(f.Name())
		if !ok {
			if strings.HasSuffix(f.Name(), unfinished) { // it was not acknowledged
				if err := r.disk.Remove(filepath.Join(r.cfg.Dir, f.Name())); err != nil {
					return err
				}
			}
			continue
		}
		e := entry{since: f.ModTime(), due: f.ModTime().Add(r.cfg.Wait), size: f.Size(), alone: ending == suffixAlone}
		if e.alone {
			e.due = time.Time{} // what was begun is finished first
		}
		r.waiting[p] = e
		r.bytes += f.Size()
	}
	for p, e := range r.waiting {
		if _, whole := r.waiting[p.other()]; whole {
			e.due = time.Time{}
			r.waiting[p] = e
		}
	}
	if len(r.waiting) > 0 && r.cfg.Sync { // the names that the last process left
		return r.disk.SyncDir(r.cfg.Dir)
	}
	return nil
}

func (r *Room) path(p place) string {
	if r.waiting[p].alone {
		return r.named(p, suffixAlone)
	}
	return r.named(p, suffix)
}

func (r *Room) named(p place, ending string) string {
	return filepath.Join(r.cfg.Dir, p.key+"."+string(p.half)+ending)
}

// Take takes one event. When it returns nil the event is in a file (Waiting), or its
// rows or labels are recorded. A *Refusal must not be sent again; after any other error the event
// may be.
func (r *Room) Take(ctx context.Context, e Event) (Outcome, error) {
	if e.Type == feedbackType && r.cfg.Label != nil {
		return r.label(ctx, e)
	}
	k, err := r.read(e)
	if err != nil {
		return Outcome{}, err
	}
	p := place{keyOf(k), k.Half}
	r.mu.Lock()
	defer r.unlock()
	if r.done[p.key] {
		return Outcome{Status: Duplicate}, nil
	}
	if err := r.cfg.Ours(); err != nil {
		return Outcome{}, fmt.Errorf("keep an event: %w", err)
	}
	for _, p := range []place{p, p.other()} {
		r.lookAgain(p)
		if err := r.setAside(p); err != nil {
			return Outcome{}, err
		}
	}
	if _, ok := r.waiting[p.other()]; ok {
		return r.join(ctx, p, k)
	}
	if _, ok := r.waiting[p]; ok {
		return Outcome{Status: Waiting}, nil // it came before
	}
	return Outcome{Status: Waiting}, r.keep(p, k, 0)
}

// read checks an event, its payload included, so that what waits can be used.
func (r *Room) read(e Event) (*kept, error) {
	h, ok := halves[e.Type]
	if !ok {
		return nil, refuse("events of this type are not taken: requests and responses of KServe's and Seldon's loggers are, and Seldon's feedback")
	}
	k := &kept{ID: e.ID, Half: h, Time: e.Time, Since: r.cfg.Now().UTC(), Data: e.Data}
	x := e.Extensions
	if id := x["requestid"]; id != "" {
		k.ID = id
	}
	const longest = 128 // of names here
	if k.Model = modelOf(x); k.Model == "" || len(k.Model) > longest || len(k.ID) > maxAttribute-len(".10000") {
		return nil, refuse("the extension inferenceservicename is missing, or it or the id is too long")
	}
	if k.Version = collector.ModelName(x["endpoint"]); k.Version == "" || k.Version == "default" {
		k.Version = "1"
	}
	if _, err := time.Parse(time.RFC3339Nano, e.Time); err != nil {
		k.Time = ""
	}
	if part := strings.Split(x["traceparent"], "-"); len(part) >= 4 && len(part[1]) == 32 && len(part[2]) == 16 && strings.Trim(part[1]+part[2], "0123456789abcdef") == "" {
		k.Trace, k.Span = part[1], part[2]
	}
	rows, err := r.rowsOf(k)
	if err != nil {
		return k, err
	}
	if h == response { // has no features
		rows = nil
	}
	// While that is not known a half is not to wait: a request would not say what is private,
	// and a response would be recorded alone, its request having been refused.
	now, err := r.policies(k, rows)
	if err != nil || h == response || len(now) == 0 {
		return k, err
	}
	k.Private, k.Names = now, r.cfg.Names(k.Model, k.Version)
	return k, nil
}

// modelOf names the model that an event is about (see the package's comment).
func modelOf(x map[string]string) string {
	name := x["inferenceservicename"]
	if name == "" {
		return ""
	}
	if ns := x["namespace"]; ns != "" && ns != "default" {
		name = ns + "." + name
	}
	if id := x["modelid"]; id != "" {
		name += "." + id
	} else if c := x["component"]; c != "" && c != "predictor" {
		name += "-" + c
	}
	return collector.ModelName(name)
}

func keyOf(k *kept) string {
	sum := sha256.Sum256([]byte(k.Model + "\x00" + k.Version + "\x00" + k.ID))
	return hex.EncodeToString(sum[:keySize])
}

// rows makes predictions of two halves, or of one.
func (r *Room) rows(req, res *kept) ([]*collector.Imported, error) {
	any := req
	if any == nil {
		any = res
	}
	var features, outputs []row
	var hidden [][]json.RawMessage
	var err error
	if req != nil {
		if features, err = r.rowsOf(req); err != nil {
			return nil, err
		}
		now, err := r.policies(req, features)
		if err != nil {
			return nil, err
		}
		hidden = req.hide(features, now)
	}
	if res != nil {
		if outputs, err = r.rowsOf(res); err != nil {
			return nil, err
		}
	}
	if req != nil && res != nil && len(features) != len(outputs) {
		return nil, refuse("the request has " + strconv.Itoa(len(features)) + " rows, the response " + strconv.Itoa(len(outputs)))
	}
	n := max(len(features), len(outputs))
	rows := make([]*collector.Imported, n)
	for i := range rows {
		p := &collector.Imported{ID: collector.RowID(any.ID, i, n), Model: any.Model, Version: any.Version, Time: any.Time, TraceID: any.Trace, SpanID: any.Span}
		if req != nil {
			p.Features, p.Hidden = features[i], hidden[i]
		} else {
			p.Error, p.OwnError, p.Alone = "no request event came within "+r.cfg.Wait.String(), true, true
		}
		if res != nil {
			p.Outputs = outputs[i]
		} else {
			p.Status, p.Error, p.OwnError = http.StatusGatewayTimeout, "no response event came within "+r.cfg.Wait.String(), true
		}
		rows[i] = p
	}
	return rows, nil
}

// setAside takes a half out of the room whose file is not what was written: the one that
// comes is not answered by it. The file stays, under another name.
func (r *Room) setAside(p place) error {
	e, ok := r.waiting[p]
	if !ok || e.held {
		return nil
	}
	_, err := r.load(p)
	if !errors.Is(err, errDamaged) {
		return nil // another error is told by whoever needs it
	}
	path := r.path(p)
	to := r.named(p, suffix) + aside
	if err := r.disk.Rename(path, to); err != nil && r.there(path) {
		return fmt.Errorf("set a damaged event aside: %w: %w", collector.ErrFull, err)
	}
	r.count(Dropped{Damaged: 1})
	r.cfg.Logger.Error("half of a prediction that waited is damaged: it is set aside, and is lost unless it is sent again", "file", filepath.Base(to), "error", err)
	r.unlistGone(p)
	r.bytes -= e.size
	delete(r.waiting, p)
	return nil
}

// errDamaged is of a file that is not what was written.
var errDamaged = errors.New("the file is damaged")

// keep puts a half into a file, whole or not at all. beyond is by how much, as a part of
// them, the bounds may be passed: one in beyond.
func (r *Room) keep(p place, k *kept, beyond int) error {
	halves, bytes := r.cfg.MaxHalves, r.cfg.MaxBytes
	if beyond > 0 {
		halves, bytes = halves+1+halves/beyond, bytes+bytes/int64(beyond)
	}
	if len(r.waiting) >= halves || r.bytes+int64(len(k.Data)) > bytes {
		return fmt.Errorf("%d events of %d bytes wait for their other half: %w", len(r.waiting), r.bytes, collector.ErrFull)
	}
	plain, err := json.Marshal(k)
	if err != nil {
		return err
	}
	s, err := r.seal()
	if err != nil {
		return fmt.Errorf("keep an event: %w", err)
	}
	data := s.seal(plain, []byte(p.key+string(p.half)))
	if err := writeWhole(r.disk, r.path(p), data, r.cfg.Sync); err != nil {
		return fmt.Errorf("keep an event: %w: %w", collector.ErrFull, err)
	}
	if err := r.cfg.Ours(); err != nil { // it was taken meanwhile, perhaps with the file
		return fmt.Errorf("keep an event: %w", err)
	}
	slot, err := r.enlist(p)
	if err != nil {
		return fmt.Errorf("keep an event: %w: %w", collector.ErrFull, errors.Join(err, vfs.Discard(r.disk, r.path(p))))
	}
	r.waiting[p] = entry{since: k.Since, due: k.Since.Add(r.cfg.Wait), size: int64(len(data)), slot: slot}
	r.bytes += int64(len(data))
	return nil
}

// seal is what the files are encrypted by. That its key cannot be had is not kept: it may
// come back.
func (r *Room) seal() (*sealer, error) {
	if r.sealer == nil {
		s, err := newSealer(r.cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("get the key of waiting events: %w: %w", collector.ErrUnavailable, err)
		}
		if err := r.useKey(s.id); err != nil {
			return nil, err
		}
		r.sealer = s
	}
	return r.sealer, nil
}

// useKey has the list say which key the halves are under, and notes where those that wait are
// under another.
func (r *Room) useKey(id string) error {
	if r.list.Key == id {
		return nil
	}
	if r.list.Key != "" && len(r.waiting) > 0 {
		r.otherKey = true
		return nil
	}
	r.list.Key = id
	if err := r.writeHeader(); err != nil {
		return fmt.Errorf("%w: %w", collector.ErrFull, err)
	}
	return nil
}

func (r *Room) load(p place) (*kept, error) {
	data, err := vfs.ReadFile(r.disk, r.path(p))
	if err != nil {
		return nil, fmt.Errorf("read an event: %w", err)
	}
	s, err := r.seal()
	if err != nil {
		return nil, fmt.Errorf("read an event: %w", err)
	}
	plain, err := s.open(data, []byte(p.key+string(p.half)))
	if err != nil && r.otherKey {
		return nil, fmt.Errorf("read an event: %w: it was kept under another key than the one of now", collector.ErrUnavailable)
	}
	if err != nil {
		return nil, fmt.Errorf("read an event: %w: %w", errDamaged, err)
	}
	k := &kept{}
	if err := json.Unmarshal(plain, k); err != nil {
		return nil, fmt.Errorf("read an event: %w: %w", errDamaged, err)
	}
	return k, nil
}

// there reports whether there is a file, or may be: an error of the disk is no answer.
func (r *Room) there(path string) bool {
	f, err := r.disk.Open(path, true)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	_ = f.Close() // nothing was written
	return true
}

// lookAgain finds a half whose file has not the name that it should have: a rename may have
// happened although it failed. One without a file, which somebody has taken out of the
// folder, waits no more; where the whole folder was taken that is not known.
func (r *Room) lookAgain(p place) {
	e, ok := r.waiting[p]
	if !ok || r.there(r.path(p)) || r.cfg.Ours() != nil {
		return
	}
	other := e
	other.alone, other.unsynced = !e.alone, r.cfg.Sync
	if r.waiting[p] = other; r.there(r.path(p)) {
		return
	}
	if r.cfg.Ours() != nil { // since
		r.waiting[p] = e
		return
	}
	r.count(Dropped{Gone: 1})
	r.unlistGone(p)
	delete(r.waiting, p)
	r.bytes -= e.size
	r.cfg.Logger.Error("the file of half a prediction that waited is gone: the half is lost unless it is sent again", "file", filepath.Base(r.named(p, suffix)))
}

// drop deletes a half's file. Where that fails the half stays, and what it is
// recorded as later is a duplicate.
func (r *Room) drop(p place) {
	if err := r.discard(p); err != nil {
		r.cfg.Logger.Error("the file of an event that is recorded cannot be deleted", "error", err)
		r.later(p)
		return
	}
	r.bytes -= r.waiting[p].size
	delete(r.waiting, p)
}

// discard deletes a half's file, which is named no more before.
func (r *Room) discard(p place) error {
	if err := r.cfg.Ours(); err != nil {
		return err
	}
	if err := r.unlist(p); err != nil {
		return err
	}
	err := vfs.Discard(r.disk, r.path(p))
	if err == nil || !r.there(r.path(p)) {
		return nil
	}
	e, ok := r.waiting[p]
	if !ok {
		return err
	}
	slot, again := r.enlist(p)
	e.slot = slot
	r.waiting[p] = e
	return errors.Join(err, again)
}

// unlistGone is unlist of a half whose going is told.
func (r *Room) unlistGone(p place) {
	if err := r.unlist(p); err != nil {
		r.cfg.Logger.Warn("half of a prediction that is gone is told once more by the next start", "error", err)
	}
}
