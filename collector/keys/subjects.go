package keys

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// shardCount is how many files a tenant's subjects lie in: to forget one, one file is
// written anew.
const shardCount = 64

// shard is one file of subjects' keys: an index in memory, of about 40 bytes a
// subject, and the keys on disk.
type shard struct {
	ring   *Ring
	root   keyID
	number int
	path   string
	seen   look

	// syncMu lets one goroutine at a time sync the file, or put another in its place, for
	// all who wait. It is taken before mu.
	syncMu sync.Mutex
	synced atomic.Uint64 // how many of appended are on disk

	// mu guards everything below.
	mu       sync.Mutex
	file     vfs.File
	index    map[pseudonym]uint32
	records  uint32
	appended uint64
	// unsynced are the records appended since the last sync: when one fails they are
	// written from here, as the file may say what the disk has not.
	unsynced []byte
	// broken is why nothing can be added to the file, but to one in its place; tried is
	// when there was last to be one.
	broken error
	tried  time.Time
	closed bool
}

// subjectKey is a subject's key, unwrapped. It is on disk once its shard has synced
// as many records as seq.
type subjectKey struct {
	aead cipher.AEAD
	gen  generation
	seq  uint64
}

// pending are the shards that have to be synced before a row may be sealed.
type pending struct {
	of map[*shard]uint64
}

func (p *pending) add(s *shard, seq uint64) {
	if s.synced.Load() >= seq {
		return
	}
	if p.of == nil {
		p.of = map[*shard]uint64{}
	}
	p.of[s] = max(p.of[s], seq)
}

func (p *pending) sync() error {
	for s, seq := range p.of {
		if err := s.sync(seq); err != nil {
			return err
		}
	}
	return nil
}

// sync returns when the first seq records appended by this process are on disk.
func (s *shard) sync(seq uint64) error {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if s.synced.Load() >= seq {
		return nil
	}
	s.mu.Lock()
	f, n, usable := s.file, s.appended, !s.closed && s.broken == nil
	s.mu.Unlock()
	var failed error
	if usable {
		failed = f.Sync()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return fs.ErrClosed
	case failed != nil:
		s.broken, s.tried = fmt.Errorf("sync the keys of subjects: %w", failed), time.Time{}
		return s.heal()
	case !usable:
		return s.heal()
	}
	s.unsynced = append([]byte(nil), s.unsynced[(n-s.synced.Load())*recordSize:]...)
	s.synced.Store(n)
	s.ring.raiseLater()
	return nil
}

// heal puts another file in the place of one that can take no more: what of that is on
// disk cannot be known. The caller holds syncMu and mu.
func (s *shard) heal() error {
	switch {
	case s.closed:
		return fs.ErrClosed
	case s.broken == nil:
		return nil
	case time.Since(s.tried) < s.ring.pause:
		return s.broken
	}
	s.tried = time.Now()
	b, err := s.content()
	if err != nil {
		return errors.Join(s.broken, err)
	}
	f, _, err := replace(s.ring.disk, s.path, b)
	if err != nil {
		s.broken = fmt.Errorf("write the keys of subjects anew: %w", err)
		return s.broken
	}
	return s.replaced(f, s.index)
}

// replaced goes on with a file that took the old one's place, which is overwritten: it may
// hold keys that will be forgotten. The caller holds syncMu and mu.
func (s *shard) replaced(f vfs.File, index map[pseudonym]uint32) error {
	old := s.file
	s.adopt(f, index)
	return errors.Join(wipe(old), old.Close())
}

// adopt goes on with a file. The caller holds syncMu and mu.
func (s *shard) adopt(f vfs.File, index map[pseudonym]uint32) {
	s.file, s.index, s.records, s.unsynced, s.broken = f, index, uint32(len(index)), nil, nil
	s.synced.Store(s.appended)
	s.ring.changed()
}

// content is all that has to be in the file. The caller holds syncMu and mu.
func (s *shard) content() ([]byte, error) {
	b := make([]byte, headerSize+int(s.records)*recordSize)
	durable := b[:len(b)-len(s.unsynced)]
	if n, err := s.file.ReadAt(durable, 0); n < len(durable) {
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	copy(b[len(durable):], s.unsynced)
	index, good, holes, err := parseSubjects(b, s.root)
	if err != nil || holes > 0 || len(index) != int(s.records) || s.records > 0 && good != len(b) {
		return nil, errors.Join(errDamaged, err)
	}
	return b, nil
}

func (s *shard) close() error {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

func shardOf(who pseudonym) int { return int(who[0]) % shardCount }

// ready opens a shard's file, made if need be. The caller holds mu.
func (s *shard) ready() error {
	if s.closed {
		return fs.ErrClosed
	}
	if s.file != nil {
		return nil
	}
	least := s.ring.counts.least(s)
	f, err := s.ring.disk.Open(s.path, false)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
	case least > 0:
		return fmt.Errorf("read %q: %w", s.path, fewer(0, least))
	default:
		f, err = s.ring.disk.Create(s.path)
	}
	if err != nil {
		return err
	}
	if f, err = s.load(f, least); err != nil {
		return fmt.Errorf("read %q: %w", s.path, err)
	}
	s.file = f
	return nil
}

// load reads a file, or closes it, which it is left as where it has less than it must.
func (s *shard) load(f vfs.File, least uint32) (vfs.File, error) {
	b, err := vfs.ReadAll(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	index, good, holes, err := parseWhole(b, s.root, least)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	b = b[:good]
	if good == 0 {
		b = subjectsHeader(s.root)
	}
	if holes > 0 {
		if b, index, err = closeUp(b, s.root, len(index)); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		whole, _, err := replace(s.ring.disk, s.path, b)
		err = errors.Join(err, f.Close())
		if err != nil {
			return nil, err
		}
		f = whole
	} else {
		err := settle(f, b, max(0, len(b)-maxUnsynced*recordSize))
		if err == nil {
			err = s.ring.disk.SyncDir(s.ring.dir)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	s.index, s.records = index, uint32(len(index))
	if s.records > least {
		s.ring.raiseLater()
	}
	return f, nil
}

// parseWhole is parseSubjects of a file that has to have a number of records at least.
func parseWhole(b []byte, root keyID, least uint32) (index map[pseudonym]uint32, good, holes int, err error) {
	index, good, holes, err = parseSubjects(b, root)
	n := uint32(len(index))
	switch {
	case err != nil:
		err = fmt.Errorf("%w: put it back from a backup", err)
	case n >= least:
	case uint32(max(0, len(b)-headerSize)/recordSize) >= least: // what a crash leaves of a record looks the same
		err = fmt.Errorf("%w: %w", errDamaged, fewer(n, least))
	default:
		err = fewer(n, least)
	}
	return index, good, holes, err
}

// closeUp is a file's content without the records that are none.
func closeUp(b []byte, root keyID, want int) ([]byte, map[pseudonym]uint32, error) {
	out := subjectsHeader(root)
	for at := headerSize; at < len(b); at += recordSize {
		if _, ok := parseRecord(b[at : at+recordSize]); ok {
			out = append(out, b[at:at+recordSize]...)
		}
	}
	index, good, holes, err := parseSubjects(out, root)
	if err != nil || holes > 0 || len(index) != want || good != len(out) {
		return nil, nil, errors.Join(errDamaged, err)
	}
	return out, index, nil
}

// enter takes mu of a shard that a key can be added to. Where it fails mu is not held.
func (s *shard) enter() error {
	s.mu.Lock()
	for s.broken != nil || s.appended-s.synced.Load() >= maxUnsynced {
		s.mu.Unlock()
		s.syncMu.Lock()
		s.mu.Lock()
		err := s.heal()
		s.syncMu.Unlock()
		seq := s.appended
		if err == nil && seq-s.synced.Load() < maxUnsynced {
			continue
		}
		s.mu.Unlock()
		if err == nil {
			err = s.sync(seq)
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
	}
	if err := s.ready(); err != nil {
		s.mu.Unlock()
		return err
	}
	return nil
}

// subject returns a subject's key, made the first time. It is on disk after
// pending.sync.
func (r *Ring) subject(t *tenant, who pseudonym, p *pending) (*subjectKey, error) {
	s := &t.shards[shardOf(who)]
	if k := r.subjects.get(t.root, who); k != nil {
		p.add(s, k.seq)
		return k, nil
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	k, err := s.read(t, who)
	if errors.Is(err, collector.ErrForgotten) {
		k, err = s.make(t, who)
	}
	if err != nil {
		return nil, err
	}
	// Under mu, so that Forget cannot come between.
	r.subjects.put(t.root, who, k)
	p.add(s, k.seq)
	return k, nil
}

// find returns a subject's key, or collector.ErrForgotten.
func (r *Ring) find(t *tenant, who pseudonym) (*subjectKey, error) {
	if k := r.subjects.get(t.root, who); k != nil {
		return k, nil
	}
	s := &t.shards[shardOf(who)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(); err != nil {
		return nil, err
	}
	k, err := s.read(t, who)
	if err == nil && s.broken == nil {
		// Nothing is to be sealed with a key that an attempt to forget may have taken out.
		r.subjects.put(t.root, who, k)
	}
	return k, err
}

// read reads and unwraps a subject's record. The caller holds mu.
func (s *shard) read(t *tenant, who pseudonym) (*subjectKey, error) {
	i, ok := s.index[who]
	if !ok {
		return nil, collector.ErrForgotten
	}
	b := make([]byte, recordSize)
	if _, err := s.file.ReadAt(b, headerSize+int64(i)*recordSize); err != nil {
		return nil, fmt.Errorf("read a subject's key: %w", err)
	}
	rec, ok := parseRecord(b)
	if !ok || rec.who != who {
		return nil, fmt.Errorf("read a subject's key: %w", errDamaged)
	}
	key, err := t.wrap.Open(nil, rec.nonce[:], rec.sealed[:], rec.bound())
	if err != nil {
		return nil, fmt.Errorf("read a subject's key: %w", errDamaged)
	}
	// It may be one of this process's own that is not synced yet.
	return &subjectKey{aead: newAEAD(key), gen: rec.gen, seq: s.appended}, nil
}

// make appends a new key for a subject. The caller holds mu.
func (s *shard) make(t *tenant, who pseudonym) (*subjectKey, error) {
	rec := record{who: who}
	key := make([]byte, keySize)
	random(key)
	random(rec.gen[:])
	random(rec.nonce[:])
	copy(rec.sealed[:], t.wrap.Seal(nil, rec.nonce[:], key, rec.bound()))
	end := headerSize + int64(s.records)*recordSize
	b := rec.append(nil)
	if _, err := s.file.WriteAt(b, end); err != nil {
		err = fmt.Errorf("write a subject's key: %w", err)
		if cut := s.file.Truncate(end); cut != nil {
			s.broken, s.tried = errors.Join(err, cut), time.Time{}
		}
		return nil, err
	}
	s.unsynced = append(s.unsynced, b...)
	s.index[who] = s.records
	s.records++
	s.appended++
	return &subjectKey{aead: newAEAD(key), gen: rec.gen, seq: s.appended}, nil
}

// forget takes a subject's record out of its file: a file without it takes the place
// of the old one, which is then overwritten.
func (r *Ring) forget(t *tenant, who pseudonym) (int, error) {
	s := &t.shards[shardOf(who)]
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(); err != nil {
		return 0, err
	}
	i, ok := s.index[who]
	if !ok {
		return 0, nil
	}
	b, err := s.content()
	if err != nil {
		return 0, err
	}
	at := headerSize + int(i)*recordSize
	b = append(b[:at], b[at+recordSize:]...)
	index, good, holes, err := parseSubjects(b, t.root)
	if err != nil || good != len(b) || holes > 0 {
		return 0, errors.Join(errDamaged, err)
	}
	// Which of the two files a crash leaves cannot be known.
	if err := r.counts.lower(s, min(s.durable(), s.records-1)); err != nil {
		return 0, err
	}
	r.subjects.drop(t.root, who)
	f, placed, err := replace(r.disk, s.path, b)
	if err != nil {
		if placed {
			// Which file the disk has cannot be known: another takes their place, with the
			// key, as it was not said to be forgotten.
			s.broken, s.tried = err, time.Time{}
		}
		return 0, err
	}
	return 1, s.replaced(f, index)
}

// count is how many subjects of a tenant have a key in one file.
func (r *Ring) count(t *tenant, i int) (int, error) {
	s := &t.shards[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		f, err := r.disk.Open(s.path, true)
		if errors.Is(err, fs.ErrNotExist) && r.counts.least(s) > 0 {
			return 0, s.ready()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return 0, err
		}
	}
	if err := s.ready(); err != nil {
		return 0, err
	}
	return len(s.index), nil
}

// cache keeps the keys of the subjects that were last asked for: between maxSubjects
// and twice as many.
type cache struct {
	mu       sync.RWMutex
	now, old map[cacheKey]*subjectKey
}

type cacheKey struct {
	root keyID
	who  pseudonym
}

func (c *cache) get(root keyID, who pseudonym) *subjectKey {
	key := cacheKey{root, who}
	c.mu.RLock()
	k := c.now[key]
	old := c.old[key]
	c.mu.RUnlock()
	if k != nil || old == nil {
		return k
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old = c.old[key]; old != nil { // not dropped meanwhile
		c.set(key, old)
	}
	return old
}

func (c *cache) put(root keyID, who pseudonym, k *subjectKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(cacheKey{root, who}, k)
}

func (c *cache) set(key cacheKey, k *subjectKey) {
	if c.now == nil || len(c.now) >= maxSubjects {
		c.now, c.old = make(map[cacheKey]*subjectKey, 64), c.now
	}
	c.now[key] = k
}

func (c *cache) drop(root keyID, who pseudonym) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.now, cacheKey{root, who})
	delete(c.old, cacheKey{root, who})
}
