// Package repository owns model versions: it finds them on disk, gates them,
// loads them, swaps them under traffic, and keeps by digest everything that has
// ever answered, so that any past prediction can be explained.
//
// It never answers a request itself and never writes a prediction. A version
// becomes live only when its files were read whole, its digest is recorded in
// the store and its golden data (test_data_set_*) reproduces; a version that
// fails any of this leaves the one before it serving.
package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// Config says where models are and how they run.
type Config struct {
	// Dir holds the models as people lay them out. Empty means none on disk. One that is not there
	// yet is empty until it is; once it was there all is closed while it is not.
	Dir string
	// Store keeps every version that was ever live, by digest.
	Store string
	// Ours fails while Store is not the folder that was opened: nothing is written to it
	// then. nil means that it always is.
	Ours func() error
	// Kept is a file, outside of Store, that lists what there must be in it, so that what
	// somebody takes out is missed. Empty misses nothing.
	Kept string
	// Private is a file, outside of Store, that says again what Store says was private last,
	// so that it is known still where that was taken out. Empty keeps none.
	Private string
	// Missed is told what somebody has taken out, once.
	Missed func(what []string) error
	// Threads bounds the cores of one run; 0 means 1.
	Threads int
	// MaxBytes bounds the memory of one run; 0 means the engine's default.
	MaxBytes int64
	// MaxModel bounds the memory that one model holds; 0 means the engine's default.
	MaxModel int64
	// MaxIdle bounds the model files, in bytes, of the versions kept in memory that are
	// not live; 0 means 64 MiB. Others are read from the store again when asked for.
	MaxIdle int64
	// Poll is how often Dir is looked at; 0 means 2 seconds.
	Poll time.Duration
	// HashKey returns the secret of fields that are private by hash, making one the
	// first time; nil refuses such versions.
	HashKey func() ([]byte, error)
	// Keys returns the keys of fields that are private by seal; nil refuses such
	// versions.
	Keys func() (collector.Keyring, error)
	// Rules make features of any model private, beside what its model.yaml says.
	Rules []collector.PrivateRule
	// Log takes what happens to versions; nil means slog.Default().
	Log *slog.Logger
	// Remote has the names that upstreams answer for, each with what is configured of it,
	// whose private features every version of that name has: AddRemote brings their
	// versions, and what Dir has under these names is left alone.
	Remote map[string]collector.ModelConfig
	// Live is told of every version that became live; nil means nobody.
	Live func(*collector.ModelVersion)
}

// Repository is the set of versions. It is safe for concurrent use.
type Repository struct {
	cfg Config
	// private is set once a field of any version is, and taken back under mu by a look that
	// took all up and finds none: whoever puts one in place sets it under mu.
	private atomic.Bool

	// mu guards everything below.
	mu     sync.RWMutex
	models map[string]*model
	// archive holds versions by digest: those live now and, within cfg.MaxIdle, those
	// that were or were asked for after they had gone. Of these idle lists the digests,
	// the latest used last.
	archive map[string]*held
	idle    []string

	// loading is read-locked from before a version is kept in the store until it is in
	// place, so that Drop takes none that is about to be.
	loading sync.RWMutex
	// external lets one goroutine at a time make an imported version.
	external sync.Mutex
	// met is set once Dir was there.
	met atomic.Bool
	// looks counts the looks at the folder, of which looked is the latest that said what
	// could not be read: unseen, by model, all under "".
	looks  atomic.Uint64
	looked uint64
	unseen map[string]string
	// doNothing are the notes on files that are read for no version, by model.
	doNothing map[string]string
	// upstreams is what lies in the models' folder under the names of upstreams, of the look
	// upstreamsAt, and shut why nothing of one is recorded because of it.
	upstreams   map[string]besideUpstream
	upstreamsAt uint64
	shut        map[string]string
	// waiting are the files under the names of upstreams that hide less than they did.
	waiting map[string]finding
	// inForce is what versions on disk said last of private features, by name and version; noting
	// lets one goroutine at a time keep it.
	inForce allSaid
	noting  sync.Mutex
	// unkept are the versions of which inForce says what could not be written.
	unkept map[[2]string]bool
	// unrestored are the imported versions of earlier runs that could not be brought back.
	unrestored []keptExternal
	kept       keptList

	// astrayHid are the files that are read for no version and may say what is private, or did when
	// they were last found; judging guards it, since files are read meanwhile.
	astrayHid map[string]finding
	judging   sync.Mutex

	stop context.CancelFunc
	done chan struct{}
}

// model is one name. Versions are kept in falling order.
type model struct {
	versions []*slot
	// unloaded is set by Unload and cleared by Load: the poll leaves it alone.
	unloaded bool
}

// slot is one version of a model: live, or with the reason why not.
type slot struct {
	source source
	live   *held
	reason string
	// unloaded is the digest of what Unload took out of memory, which is not for Drop:
	// Load brings it back.
	unloaded string
	// remote is set for a version whose model is not here, which no scan removes.
	remote bool
	// tries counts how often the version could not be taken up for want of something that
	// may come without a change of its files, such as room on the disk; again is when it is
	// looked at next.
	tries int
	again time.Time
	// closed says why nothing is to be recorded of the version: its model.yaml on disk may
	// hide what this one does not, and is not in force. untold says, live or not, why it is
	// not known what should be private.
	closed, untold string
	// toRead is the stamp of the files because of which it is closed until they are read.
	toRead string
	// pending is what hides less than the live version, and is taken up when it is found again.
	pending finding
}

// finding is what hides less than what was in force, as a look found it.
type finding struct {
	// rules are source.rules, "" of none, and written tells the files that say so from what they
	// are once they are written again.
	rules, written string
	look           uint64
	// ended is when it had been found.
	ended time.Time
}

// again reports whether what later finds is the same for as long as there is between two looks:
// these may follow each other at once, and whoever writes the file takes his time.
func (f finding) again(later finding, poll time.Duration) bool {
	return f.rules == later.rules && f.written == later.written && f.look < later.look && later.ended.Sub(f.ended) >= poll
}

// Open loads every version below cfg.Dir once, then watches it until Close.
// Versions that cannot be loaded do not fail Open; Index tells about them.
func Open(ctx context.Context, cfg Config) (*Repository, error) {
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	cfg.Poll = cmp.Or(cfg.Poll, 2*time.Second)
	cfg.MaxIdle = cmp.Or(cfg.MaxIdle, 64<<20)
	if cfg.Missed == nil {
		cfg.Missed = func([]string) error { return nil }
	}
	if cfg.Ours == nil {
		cfg.Ours = func() error { return nil }
	}
	if cfg.Live == nil {
		cfg.Live = func(*collector.ModelVersion) {}
	}
	if err := os.MkdirAll(cfg.Store, 0o700); err != nil {
		return nil, fmt.Errorf("make the model store: %w", err)
	}
	r := &Repository{
		cfg: cfg, models: map[string]*model{}, archive: map[string]*held{},
		unseen: map[string]string{}, shut: map[string]string{}, waiting: map[string]finding{}, astrayHid: map[string]finding{}, done: make(chan struct{}),
		kept: keptList{path: cfg.Kept},
	}
	watching, stop := context.WithCancel(context.Background())
	r.stop = stop
	if err := errors.Join(r.readInForce(), r.restoreExternals()); err != nil {
		stop()
		return nil, fmt.Errorf("read the model store: %w", err)
	}
	if err := r.refresh(ctx); err != nil {
		stop()
		return nil, err
	}
	// After the first look, which keeps what is served again.
	if err := r.missKept(); err != nil {
		cfg.Log.Warn("it is not noted which versions are kept: the next start may not miss one", "file", cfg.Kept, "error", err)
	}
	go r.watch(watching)
	return r, nil
}

// Private reports whether a field of any version is private: of one that is served, that
// imported predictions have or would take over, or that cannot be served but declares it, and
// of one of which that is not known. A rule says so of models that may yet come.
func (r *Repository) Private() bool { return len(r.cfg.Rules) > 0 || r.private.Load() }

// Close stops watching. Versions already handed out go on working.
func (r *Repository) Close() {
	r.stop()
	<-r.done
}

func (r *Repository) watch(ctx context.Context) {
	defer close(r.done)
	tick := time.NewTicker(r.cfg.Poll)
	defer tick.Stop()
	var loading sync.WaitGroup
	defer loading.Wait()
	// While one look loads large models another takes up what is small, and where that is long
	// too (its golden data may be) what may hide more is closed all the same.
	all, small := make(chan struct{}, 1), make(chan struct{}, 1)
	all <- struct{}{}
	small <- struct{}{}
	goes := func(most int64, free chan struct{}) {
		loading.Go(func() {
			_ = r.look(ctx, "", false, most) // saw has told what could not be read, once
			free <- struct{}{}
		})
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case <-all:
			goes(math.MaxInt64, all)
			continue
		default:
		}
		select {
		case <-small:
			goes(smallModel, small)
		default:
			r.glance()
		}
	}
}

// smallModel is how many bytes a version has at most that is not to wait for large ones.
const smallModel = 16 << 20

// refresh brings the set in line with the folder: new and changed versions are
// loaded beside the old ones and swapped in when they pass.
func (r *Repository) refresh(ctx context.Context) error {
	return r.look(ctx, "", false, math.MaxInt64)
}

// look does that for one model, or for all where only is empty, and loads what has so many
// bytes at most. What is forced is read again though its files seem to be what they were, and
// taken up at once also where it hides less.
func (r *Repository) look(ctx context.Context, only string, forced bool, most int64) error {
	look := r.looks.Add(1)
	r.keepUnkept()
	if r.cfg.Dir == "" {
		r.restoreAgain(look, forced)
		r.follow(look, only, forced)
		return nil
	}
	l, err := r.list()
	if err != nil {
		r.saw(look, map[string]string{"": "the models' folder cannot be read: " + r.told(err)})
		return err
	}
	for name, why := range l.unseen {
		l.unseen[name] = r.withoutPlaces(why)
	}
	r.saw(look, l.unseen)
	r.sawAstray(l)
	r.holdUpstreams(look, l.unseen)
	r.restoreAgain(look, forced)
	r.hear(l)
	r.follow(look, only, forced)
	todo := r.changedSince(look, l, only, forced)
	r.closeUnread(todo)
	before := r.inMemory()
	defer func() { giveBack(before, r.inMemory()) }()
	whole := only == ""
	for i, weight := range inLoadOrder(todo) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if weight > most {
			whole = false
			break
		}
		r.install(ctx, todo[i], forced)
	}
	r.takeOut(look, only, l)
	r.follow(look, only, forced)
	if whole {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.private.Store(r.private.Load() && r.hides())
	}
	return nil
}

// hides reports whether something is private, or it is not known. The caller holds mu.
func (r *Repository) hides() bool {
	if len(r.unseen) > 0 || r.upstreamsHide() {
		return true
	}
	for _, said := range r.inForce {
		for _, k := range said {
			if len(k.Features) > 0 {
				return true
			}
		}
	}
	for _, m := range r.models {
		for _, s := range m.versions {
			if s.closed != "" || s.untold != "" || s.pending.rules != "" || s.live != nil && s.live.version.Config.PrivateFeature() != "" {
				return true
			}
		}
	}
	return false
}

// changedSince are the versions that a look is to take up again.
func (r *Repository) changedSince(look uint64, l *listing, only string, forced bool) []source {
	var todo []source
	for _, s := range l.found {
		if s.look = look; !r.isRemote(s.name) && (only == "" || s.name == only) && (forced || !r.current(s)) {
			todo = append(todo, s)
		}
	}
	return todo
}

// list lists what lies in the models' folder. A folder with nothing in it is none of a version
// that imports know of.
func (r *Repository) list() (*listing, error) {
	l, err := scan(r.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) && !r.met.Load() && !exists(r.cfg.Dir) {
		return newListing(), nil
	}
	if err != nil {
		return nil, err
	}
	r.met.Store(true)
	r.mu.RLock()
	defer r.mu.RUnlock()
	r.judgeAstray(l)
	l.found = slices.DeleteFunc(l.found, func(s source) bool {
		have := r.slotOf(s.name, s.version)
		return errors.Is(s.trouble, errNothing) && have != nil && have.live != nil && have.live.elsewhere
	})
	return l, nil
}

// takeOut takes out the versions that a look did not see, and names what cannot be one.
func (r *Repository) takeOut(look uint64, only string, l *listing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[[2]string]bool{}
	for _, s := range l.found {
		seen[[2]string{s.name, s.version}] = true
	}
	for key, reason := range l.bad {
		seen[key] = true
		if !r.isRemote(key[0]) && (only == "" || key[0] == only) {
			r.put(source{name: key[0], version: key[1], look: look}, nil, r.withoutPlaces(reason))
		}
	}
	for name, m := range r.models {
		if only == "" || name == only {
			r.forget(name, m, look, seen)
		}
	}
	r.trim()
}

// forget takes out the versions of a model that a look did not see. One whose predictions
// are imported stays, under what its model.yaml said last, and follow opens it where that was
// closed: it says nothing else any more. The caller holds mu.
func (r *Repository) forget(name string, m *model, look uint64, seen map[[2]string]bool) {
	if r.unseen[name] != "" {
		return
	}
	m.versions = slices.DeleteFunc(m.versions, func(s *slot) bool {
		if seen[[2]string{name, s.source.version}] || s.source.look > look {
			return false
		}
		if s.remote {
			if s.live == nil { // not brought back, and no folder says any more what it hides
				s.closed = cmp.Or(s.closed, "it cannot be brought back: "+s.reason)
			} else if s.source.dir != "" {
				s.source = source{name: name, version: s.source.version, look: look}
				s.untold, s.reason = "", ""
				s.pending = finding{}
			}
			return false
		}
		r.cfg.Log.Info("version gone", "model", name, "version", s.source.version)
		return true
	})
	if len(m.versions) == 0 {
		delete(r.models, name)
	}
}

func (r *Repository) isRemote(name string) bool {
	_, ok := r.cfg.Remote[name]
	return ok
}

// current reports whether s was looked at already, as it is on disk now.
func (r *Repository) current(s source) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m := r.models[s.name]
	if m == nil {
		return false
	}
	if m.unloaded && s.file != "" {
		return true // until Load reads it again; what is imported goes on
	}
	for _, have := range m.versions {
		if have.source.version == s.version {
			if have.live != nil && have.live.inherited != nil && have.source.orders != m.orders(s.version) {
				return false
			}
			return have.source.stamp == s.stamp && have.pending.rules == "" && have.closed != beingRead && (have.again.IsZero() || time.Now().Before(have.again))
		}
	}
	return false
}

// install loads s outside the lock and puts it in place.
func (r *Repository) install(ctx context.Context, s source, forced bool) {
	if s.file == "" && s.trouble == nil {
		r.declare(s, forced)
		return
	}
	start := time.Now()
	s.orders = r.orders(s.name, s.version)
	if !forced {
		s.known = r.inForceOf(s)
	}
	r.loading.RLock()
	defer r.loading.RUnlock()
	h, cfg, err := r.load(ctx, &s)
	if err != nil {
		r.failed(s, "load version", cfg, err)
		return
	}
	if r.unsure(s, h.version.Config, forced) {
		return
	}
	if err := r.noteServed(s, h); err != nil {
		r.failed(s, "load version", cfg, err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.models[s.name]; m != nil && m.unloaded {
		return // meanwhile: Load reads it again
	}
	was := r.slotOf(s.name, s.version)
	if overtaken(was, s) && was.closed != beingRead {
		return // a later look has read it again
	}
	var later slot // which has closed it since
	if overtaken(was, s) {
		later = *was
	}
	if was != nil && was.live != nil {
		r.tellShown(was.live.version, h.version)
	}
	r.put(s, h, "")
	is := r.slotOf(s.name, s.version)
	is.remote = false // it may have been imported before
	if later.closed != "" {
		// The files have changed again: it stays closed, and what they are now is put in force
		// without a model that was read in vain, however often they change.
		is.closed, is.toRead, is.source.look = later.closed, later.toRead, later.source.look
	}
	r.archive[h.version.Digest] = h
	r.trim()
	r.cfg.Live(h.version)
	r.cfg.Log.Info("version live", "model", s.name, "version", s.version, "digest", h.version.Digest[:12], "private", privateFields(h.version), "took", time.Since(start).Round(time.Millisecond))
}

// told is an error as it is told to whoever asks: files are named from the models' folder,
// or the store's, on. Where those lie is the operator's to know, whom the log tells.
func (r *Repository) told(err error) string { return r.withoutPlaces(err.Error()) }

func (r *Repository) withoutPlaces(text string) string {
	for _, dir := range []string{r.cfg.Dir, r.cfg.Store} {
		if dir == "" || dir == "." || filepath.Dir(dir) == dir {
			continue
		}
		dir = filepath.Clean(dir)
		text = strings.ReplaceAll(text, dir+string(filepath.Separator), "")
		text = strings.ReplaceAll(text, dir, filepath.Base(dir))
	}
	return text
}

// failed records that s could not be taken up. It is tried again where that may be for
// want of something that comes back; and nothing is recorded meanwhile by rules that s may
// make stricter. cfg is what its model.yaml says, as far as it was read.
func (r *Repository) failed(s source, what string, cfg collector.ModelConfig, err error) {
	r.mu.RLock()
	have := r.slotOf(s.name, s.version)
	var live *collector.ModelVersion
	if have != nil && have.live != nil {
		live = have.live.version
	}
	r.mu.RUnlock()
	closes := live != nil && r.untaken(s, cfg, live, err)
	r.noteUntaken(s, cfg)
	r.mu.Lock()
	defer r.mu.Unlock()
	have = r.slotOf(s.name, s.version)
	if overtaken(have, s) {
		return // a later look has read it again
	}
	tries := 0
	if have != nil && have.source.stamp == s.stamp {
		tries = have.tries
	}
	if have == nil || have.reason != r.told(err) {
		r.cfg.Log.Error(what, "model", s.name, "version", s.version, "error", err)
	}
	r.put(s, nil, r.told(err))
	have = r.slotOf(s.name, s.version)
	var of syscall.Errno
	var key *keyError
	var gone *collector.GoneError
	switch {
	case errors.As(err, &key), errors.As(err, &gone), errors.Is(err, errReplaced):
		have.again = time.Now().Add(r.cfg.Poll)
	case errors.As(err, &of):
		const longest = 5 // doublings: a minute
		have.tries, have.again = tries+1, time.Now().Add(r.cfg.Poll<<min(tries, longest))
	}
	var unknown *rulesError
	if errors.As(err, &unknown) {
		have.untold = r.told(err)
		r.private.Store(true)
	}
	if have.live != nil && closes {
		have.closed = "its model.yaml is not in force: " + r.told(err)
	}
}

// tellShown says that what a version hid is no longer private in the one in its place.
func (r *Repository) tellShown(was, is *collector.ModelVersion) {
	if hidesMore(was.Config, is) {
		r.cfg.Log.Warn("a changed model.yaml makes less private, or in another way", "model", is.Name, "version", is.Version)
	}
}

// privateFields is what is private in a version, for the log.
func privateFields(v *collector.ModelVersion) []string {
	out := []string{}
	for _, f := range v.Config.Features {
		if f.Private != collector.PrivacyNone {
			out = append(out, f.Name+": "+string(f.Private))
		}
	}
	return out
}

// put records the outcome of looking at s. A failed load keeps the version that
// was live under the same number. The caller holds mu.
func (r *Repository) put(s source, h *held, reason string) {
	s.text, s.known = nil, nil // it was taken up, or is read again
	if h != nil && h.version.Config.PrivateFeature() != "" {
		r.private.Store(true)
	}
	m := r.models[s.name]
	if m == nil {
		m = &model{}
		r.models[s.name] = m
	}
	for _, have := range m.versions {
		if have.source.version != s.version {
			continue
		}
		have.source, have.reason, have.unloaded = s, reason, ""
		have.tries, have.again = 0, time.Time{}
		have.closed, have.untold, have.pending = "", "", finding{}
		if h != nil {
			have.live = h
		}
		return
	}
	m.versions = append(m.versions, &slot{source: s, live: h, reason: reason})
	slices.SortFunc(m.versions, func(a, b *slot) int { return compareVersions(b.source.version, a.source.version) })
}

// AddRemote makes a version known whose model is not here: an upstream's, under a
// name of Config.Remote, or one whose predictions are imported. It is listed,
// found and watched like those on disk. v must not be in use yet.
func (r *Repository) AddRemote(v *collector.ModelVersion) { r.addRemote(&held{version: v}) }

func (r *Repository) addRemote(h *held) {
	v := h.version
	v.Reference, h.columns = h.reference.Load, columnsOf(v.Info)
	if err := r.storedReference(h); err != nil {
		r.cfg.Log.Error("read the reference of an upstream's version", "model", v.Name, "version", v.Version, "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := source{name: v.Name, version: v.Version}
	if have := r.slotOf(v.Name, v.Version); have != nil {
		s = have.source // a folder that declares it
		if have.live != nil {
			r.tellShown(have.live.version, v)
		}
	}
	r.put(s, h, "")
	r.slotOf(v.Name, v.Version).remote = true
	r.archive[v.Digest] = h
	if !h.elsewhere {
		r.judgeUpstream(v.Name)
	}
	r.cfg.Live(v)
}

// isTold reports whether predictions of a version are made elsewhere, be it that it could not be
// brought back.
func (s *slot) isTold() bool { return s.remote && (s.live == nil || s.live.elsewhere) }

// waits is why a version that is to be served is not yet, whose model.yaml a start is to find twice.
func (s *slot) waits() error {
	if s.live != nil || s.pending.rules == "" || s.source.file == "" {
		return nil
	}
	return fmt.Errorf("model %q version %q: %s: %w", s.source.name, s.source.version, s.reason, collector.ErrNotReady)
}

// waits is that of any version of a model.
func (r *Repository) waits(name string) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m := r.models[name]; m != nil {
		for _, s := range m.versions {
			if err := s.waits(); err != nil {
				return err
			}
		}
	}
	return nil
}

// inTurn are the versions in the order in which they are asked for one that answers.
func (m *model) inTurn(version string) []*slot {
	if version != "" || !slices.ContainsFunc(m.versions, (*slot).isTold) {
		return m.versions
	}
	var answers, told []*slot
	for _, s := range m.versions {
		if s.isTold() {
			told = append(told, s)
		} else {
			answers = append(answers, s)
		}
	}
	return append(answers, told...)
}

// Find returns a live version: the named one, or the highest when version is
// empty; those whose predictions are made elsewhere come after all that answer, or would.
// The error wraps collector.ErrNotFound or collector.ErrNotReady.
func (r *Repository) Find(name, version string) (*collector.ModelVersion, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m := r.models[name]
	if m == nil {
		return nil, fmt.Errorf("model %q: %w", name, collector.ErrNotFound)
	}
	if why := r.unseenBy(name); why != "" {
		return nil, r.unseenError(name, why)
	}
	if m.unloaded {
		return nil, fmt.Errorf("model %q is unloaded: %w", name, collector.ErrNotReady)
	}
	var waits error
	for _, s := range m.inTurn(version) {
		if version != "" && s.source.version != version {
			continue
		}
		if version == "" && s.isTold() && waits != nil {
			return nil, waits // it is not what is asked for
		}
		waits = cmp.Or(waits, s.waits())
		if s.closed != "" {
			return nil, closedError(name, s.source.version, s.closed)
		}
		if s.live != nil {
			return s.live.version, nil
		}
		if version != "" {
			return nil, fmt.Errorf("model %q version %q: %s: %w", name, version, s.reason, collector.ErrNotReady)
		}
	}
	if version != "" {
		return nil, fmt.Errorf("model %q version %q: %w", name, version, collector.ErrNotFound)
	}
	reason := ""
	if len(m.versions) > 0 {
		reason = ": version " + m.versions[0].source.version + ": " + m.versions[0].reason
	}
	return nil, fmt.Errorf("model %q has no version that answers%s: %w", name, reason, collector.ErrNotReady)
}

// ByDigest returns a version that is live or was, reading it back from the
// store where need be.
func (r *Repository) ByDigest(digest string) (*collector.ModelVersion, error) {
	h, err := r.byDigest(digest)
	if err != nil {
		return nil, err
	}
	return h.version, nil
}

func (r *Repository) byDigest(digest string) (*held, error) {
	r.mu.RLock()
	h, idle := r.archive[digest], slices.Contains(r.idle, digest)
	r.mu.RUnlock()
	if h != nil {
		if idle {
			r.used(digest)
		}
		return h, nil
	}
	h, err := r.fromStore(digest)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if have := r.archive[digest]; have != nil {
		return have, nil
	}
	r.archive[digest] = h
	r.trim()
	return h, nil
}

// used puts an idle version last among those to be forgotten.
func (r *Repository) used(digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.idle, digest); i >= 0 {
		r.idle = append(slices.Delete(r.idle, i, i+1), digest)
	}
}

// trim forgets versions that are not live, the least lately used first, until the
// rest are within cfg.MaxIdle. Those without a model of their own are few bytes, and
// not in the store. The caller holds mu.
func (r *Repository) trim() {
	live := map[*held]bool{}
	for _, m := range r.models {
		for _, s := range m.versions {
			if s.live != nil {
				live[s.live] = true
			}
		}
	}
	for h := range live {
		if have := r.archive[h.version.Digest]; !live[have] {
			r.archive[h.version.Digest] = h // the same files under another name
		}
	}
	idle := func(digest string) bool {
		h := r.archive[digest]
		return h != nil && h.version.Model != nil && !live[h]
	}
	r.idle = slices.DeleteFunc(r.idle, func(digest string) bool { return !idle(digest) })
	total := int64(0)
	for digest, h := range r.archive {
		if !idle(digest) {
			continue
		}
		total += h.bytes
		if !slices.Contains(r.idle, digest) {
			r.idle = append(r.idle, digest)
		}
	}
	for len(r.idle) > 0 && total > r.cfg.MaxIdle {
		total -= r.archive[r.idle[0]].bytes
		delete(r.archive, r.idle[0])
		r.idle = r.idle[1:]
	}
}

// Reference returns the reference in force for a version, live or not, or nil. It
// is known even of an upstream's version that this process has not met yet.
func (r *Repository) Reference(digest string) *stats.Reference {
	r.mu.RLock()
	h := r.archive[digest]
	r.mu.RUnlock()
	if h != nil {
		return h.reference.Load()
	}
	if !digestRule.MatchString(digest) {
		return nil
	}
	kept, err := readReference(filepath.Join(r.cfg.Store, digest))
	if err != nil {
		return nil
	}
	return kept.Reference
}

// Index lists every version found, live or not, by name then version.
func (r *Repository) Index(context.Context) []collector.ModelState {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := []collector.ModelState{}
	for name, m := range r.models {
		for _, s := range slices.Backward(m.versions) {
			st := collector.ModelState{Name: name, Version: s.source.version, State: "READY", Reason: s.reason}
			if s.live == nil || s.closed != "" {
				st.State, st.Reason = "UNAVAILABLE", cmp.Or(s.closed, s.reason)
			}
			if s.live != nil {
				st.Private = s.live.version.Config.Policies()
			}
			st.Reason = cmp.Or(st.Reason, r.doNothing[name])
			if why := r.unseenBy(name); why != "" {
				st.State, st.Reason = "UNAVAILABLE", why
			}
			if m.unloaded {
				st.State, st.Reason = "UNAVAILABLE", "unloaded"
			}
			out = append(out, st)
		}
	}
	slices.SortStableFunc(out, func(a, b collector.ModelState) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Live returns every live version, by name then version.
func (r *Repository) Live() []*collector.ModelVersion {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []*collector.ModelVersion
	for _, m := range r.models {
		for _, s := range slices.Backward(m.versions) {
			if s.live != nil && !m.unloaded {
				out = append(out, s.live.version)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *collector.ModelVersion) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// awaitsImport is the reason of a version that is taken up, and of which nothing came yet.
const awaitsImport = "nothing has been imported yet: send predictions with pellucid import or POST /api/v1/predictions"

// awaits reports whether all there is of a model is taken up, and only waits for the first
// import of its predictions.
func (r *Repository) awaits(name string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m := r.models[name]
	if m == nil || m.unloaded || len(m.versions) == 0 || r.unseenBy(name) != "" {
		return false
	}
	return !slices.ContainsFunc(m.versions, func(s *slot) bool {
		return s.live != nil || s.reason != awaitsImport || s.closed != "" || s.untold != ""
	})
}

// Load reads a model's versions again, whatever their files look like, and makes it
// answer; one whose predictions are made elsewhere is ready to take the first. It fails
// with the reason when none of them could be loaded, or when what one of them says is
// private could not be taken up.
func (r *Repository) Load(ctx context.Context, name string) error {
	r.mu.Lock()
	if m := r.models[name]; m != nil {
		m.unloaded = false
	}
	r.mu.Unlock()
	if err := r.look(ctx, name, true, math.MaxInt64); err != nil {
		return fmt.Errorf("%w: %s", collector.ErrNotReady, r.told(err))
	}
	if _, err := r.Find(name, ""); err != nil {
		if r.awaits(name) {
			return nil
		}
		return err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m := r.models[name]; m != nil {
		for _, s := range m.versions {
			if why := cmp.Or(s.closed, s.untold); why != "" {
				return closedError(name, s.source.version, why)
			}
		}
	}
	return nil
}

// Known returns a version as Find does, and where that is closed what it was before: it
// answers nothing and nothing is recorded of it, but what is stored of it can be read.
func (r *Repository) Known(name, version string) (*collector.ModelVersion, error) {
	v, err := r.Find(name, version)
	if !errors.Is(err, collector.ErrNotReady) {
		return v, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m := r.models[name]; m != nil && !m.unloaded {
		for _, s := range m.versions {
			if s.live != nil && (version == "" || s.source.version == version) {
				return s.live.version, nil
			}
		}
	}
	return nil, err
}

func (r *Repository) unseenError(name, why string) error {
	if r.isRemote(name) {
		return fmt.Errorf("model %q: %s: it opens by itself within seconds of that: %w", name, why, collector.ErrNotReady)
	}
	return fmt.Errorf("model %q: %s: it opens by itself once that can be read: %w", name, why, collector.ErrNotReady)
}

// closedError says why a version is closed, and what opens it.
func closedError(name, version, why string) error {
	return fmt.Errorf("model %q version %q: %s: it opens by itself once that is mended, at once by /v2/repository/models/%s/load: %w", name, version, why, name, collector.ErrNotReady)
}

// Unload makes a model stop answering. Requests under way finish; its past
// predictions can still be explained.
func (r *Repository) Unload(_ context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.models[name]
	if m == nil {
		return fmt.Errorf("model %q: %w", name, collector.ErrNotFound)
	}
	m.unloaded = true
	before := r.largeModels()
	defer func() { giveBack(before, r.largeModels()) }()
	for _, s := range m.versions {
		if s.live != nil && s.live.version.Model != nil {
			// Nothing of it may answer again but what Load reads.
			s.unloaded, s.live, s.source.stamp = s.live.version.Digest, nil, ""
		}
	}
	r.trim()
	return nil
}

// SetReference puts a reference in force for the version of that digest and
// keeps it in the store, so that it survives a restart.
func (r *Repository) SetReference(digest string, ref *stats.Reference) error {
	h, err := r.byDigest(digest)
	if err != nil {
		return err
	}
	if err := r.cfg.Ours(); err != nil {
		return fmt.Errorf("keep the reference: %w", err)
	}
	dir := filepath.Join(r.cfg.Store, digest)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep the reference: %w", err)
	}
	if err := writeReference(dir, h.version.Schema.ID, ref); err != nil {
		return err
	}
	h.reference.Store(ref)
	return nil
}
