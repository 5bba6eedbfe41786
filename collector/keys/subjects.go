package keys

import (
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/pellucid/pellucid/collector"
)

// shardCount is how many files a tenant's subjects lie in: to forget one, one file is
// written anew.
const shardCount = 64

// shard is one file of subjects' keys: an index in memory, of about 40 bytes a
// subject, and the keys on disk.
type shard struct {
	// syncMu lets one goroutine at a time sync the file, for all who wait. It is taken
	// before mu.
	syncMu sync.Mutex
	synced atomic.Uint64 // how many of appended are on disk

	// mu guards everything below.
	mu       sync.Mutex
	file     *os.File
	index    map[pseudonym]uint32
	records  uint32
	appended uint64
	// broken is why the file can take no more.
	broken error
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
	f, n, err := s.file, s.appended, s.broken
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		// What of it is on disk cannot be known: the next Open finds out.
		s.broken = fmt.Errorf("sync the keys of subjects: %w", err)
		return s.broken
	}
	s.synced.Store(n)
	return nil
}

func (s *shard) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file, s.broken = nil, fs.ErrClosed
	return err
}

func (t *tenant) path(dir string, i int) string {
	return filepath.Join(dir, fmt.Sprintf("subjects-%s-%02x.keys", hex.EncodeToString(t.root[:]), i))
}

func shardOf(who pseudonym) int { return int(who[0]) % shardCount }

// ready opens a shard's file. The caller holds mu.
func (s *shard) ready(path string, root keyID) error {
	if s.broken != nil {
		return s.broken
	}
	if s.file != nil {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := s.load(f, root); err != nil {
		return errors.Join(fmt.Errorf("read %q: %w", path, err), f.Close())
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return errors.Join(err, f.Close())
	}
	s.file = f
	return nil
}

func (s *shard) load(f *os.File, root keyID) error {
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	index, good, err := parseSubjects(b, root)
	if err != nil {
		return err
	}
	if good == 0 {
		if _, err := f.WriteAt(subjectsHeader(root), 0); err != nil {
			return err
		}
		good = headerSize
	}
	if err := f.Truncate(int64(good)); err != nil {
		return err
	}
	s.index, s.records = index, uint32(len(index))
	// Records of an earlier process may not have been synced by it.
	return f.Sync()
}

// subject returns a subject's key, made the first time. It is on disk after
// pending.sync.
func (r *Ring) subject(t *tenant, who pseudonym, p *pending) (*subjectKey, error) {
	s := &t.shards[shardOf(who)]
	if k := r.subjects.get(t.root, who); k != nil {
		p.add(s, k.seq)
		return k, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(t.path(r.dir, shardOf(who)), t.root); err != nil {
		return nil, err
	}
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
	if err := s.ready(t.path(r.dir, shardOf(who)), t.root); err != nil {
		return nil, err
	}
	k, err := s.read(t, who)
	if err == nil {
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
	if _, err := s.file.WriteAt(rec.append(nil), end); err != nil {
		err = fmt.Errorf("write a subject's key: %w", err)
		if cut := s.file.Truncate(end); cut != nil {
			s.broken = errors.Join(err, cut)
		}
		return nil, err
	}
	s.index[who] = s.records
	s.records++
	s.appended++
	return &subjectKey{aead: newAEAD(key), gen: rec.gen, seq: s.appended}, nil
}

// forget takes a subject's record out of its file: a file without it takes the place
// of the old one, of which the record is then overwritten.
func (r *Ring) forget(t *tenant, who pseudonym) (int, error) {
	s := &t.shards[shardOf(who)]
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	path := t.path(r.dir, shardOf(who))
	if err := s.ready(path, t.root); err != nil {
		return 0, err
	}
	i, ok := s.index[who]
	if !ok {
		return 0, nil
	}
	at := headerSize + int64(i)*recordSize
	b := make([]byte, headerSize+int64(s.records)*recordSize)
	if _, err := s.file.ReadAt(b, 0); err != nil {
		return 0, err
	}
	b = append(b[:at], b[at+recordSize:]...)
	index, good, err := parseSubjects(b, t.root)
	if err != nil || good != len(b) {
		return 0, errors.Join(errDamaged, err)
	}
	r.subjects.drop(t.root, who)
	f, err := replace(path, b)
	if err != nil {
		// Whether the new file is in place cannot be known: the next Open finds out.
		s.broken = err
		return 0, err
	}
	old := s.file
	s.file, s.index, s.records = f, index, uint32(len(index))
	s.synced.Store(s.appended)
	_, err = old.WriteAt(make([]byte, recordSize), at)
	return 1, errors.Join(err, old.Sync(), old.Close())
}

// count is how many subjects of a tenant have a key in one file.
func (r *Ring) count(t *tenant, i int) (int, error) {
	s := &t.shards[i]
	path := t.path(r.dir, i)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
	}
	if err := s.ready(path, t.root); err != nil {
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
