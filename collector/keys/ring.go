package keys

import (
	"context"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// Errors that callers test for.
var (
	// ErrInUse: another process has the keys.
	ErrInUse = errors.New("the keys are in use by another process (a running server?)")
	// ErrWrongKey: the keys were wrapped by another key-encryption key.
	ErrWrongKey = errors.New("the keys were wrapped by another key-encryption key")
	// ErrNoSource: it is not said where the key-encryption key comes from.
	ErrNoSource = errors.New("there is no key-encryption key: name a file, an environment variable or a command in capture.key")
)

const (
	tenantsFile = "tenants.keys"
	lockFile    = "lock"
	// subjectsPrefix begins the names of the files of subjects.
	subjectsPrefix = "subjects-"
	// maxSealed is how many values one data key seals before there is another: random
	// nonces of 96 bits are safe for 2^32.
	maxSealed = 1 << 31
	// maxSubjects bounds the subjects' keys that are kept unwrapped.
	maxSubjects = 1 << 14
)

// Config says where the keys are. Dir and KEK are required.
type Config struct {
	// Dir is the folder of the keys, which Open makes with mode 0700.
	Dir string
	// KEK is the key-encryption key, of 32 bytes.
	KEK []byte
	// Mark is a file outside of Dir that names the tenants' roots, by ids that tell nothing,
	// and how many changes of the folder there were, so that a folder that is gone or an
	// older copy is missed. Without it such a folder is begun anew, or gone on with.
	Mark string
	// Told, if any, is told what somebody may want to read in a log: of files that were
	// taken away and written again, and of what could not be written that nobody waits for.
	// It must not use the ring.
	Told func(error)
}

// Ring is a folder of keys, unwrapped. It is safe for concurrent use.
type Ring struct {
	disk vfs.FS
	dir  string
	kek  cipher.AEAD
	id   keyID
	lock io.Closer
	mark *mark
	tell func(error)
	// opened is when the folder was, and seen when the file of tenants was in its place.
	opened time.Time
	seen   look
	// look is how long a file is believed to be in its place.
	look              time.Duration
	watching, raising later
	counts            counts

	// mu guards what is declared below and the file of tenants.
	mu      sync.RWMutex
	tenants map[string]*tenant
	file    vfs.File
	// content is what of the file was acknowledged.
	content []byte
	// broken is why nothing can be added to the file, but to one in its place.
	broken error
	closed bool
	// whole: Open had no error.
	whole bool
	// missing is why files that somebody took away could not be written again; tried is
	// when that was.
	missing error
	tried   time.Time
	// pause is how long a failure to put a file in another's place is believed.
	pause time.Duration

	subjects cache
}

var _ collector.Keyring = (*Ring)(nil)

// tenant is a tenant's keys.
type tenant struct {
	name string
	root keyID
	// marked: the mark names it, so that something may be sealed by its keys.
	marked atomic.Bool
	// names makes pseudonyms, secret is the tenant's for keyed bins, wrap wraps the
	// keys of subjects.
	names, secret []byte
	wrap          cipher.AEAD
	data          map[keyID]*dataKey // guarded by Ring.mu
	current       atomic.Pointer[dataKey]
	shards        [shardCount]shard
}

type dataKey struct {
	id      keyID
	created time.Time
	aead    cipher.AEAD
	sealed  atomic.Int64
}

// healPause is how long a failure to write a file of subjects anew is believed.
const healPause = time.Second

// Open takes the folder and unwraps what is in it. Its error wraps ErrInUse or
// ErrWrongKey, or says what is damaged.
func Open(cfg Config) (*Ring, error) { return open(cfg, vfs.OS{}) }

func open(cfg Config, disk vfs.FS) (*Ring, error) {
	if len(cfg.KEK) != keySize {
		return nil, fmt.Errorf("open the keys: the key-encryption key has %d bytes, not %d", len(cfg.KEK), keySize)
	}
	if err := missed(cfg, disk); err != nil {
		return nil, fmt.Errorf("open the keys: %w", err)
	}
	if err := disk.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("make the folder of keys: %w", err)
	}
	held, err := lock(disk, cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the keys: %w", err)
	}
	r := &Ring{
		disk: disk, dir: filepath.Clean(cfg.Dir), kek: newAEAD(cfg.KEK), id: kekID(cfg.KEK), lock: held,
		mark: &mark{path: cfg.Mark}, tell: cfg.Told, opened: time.Now(), look: lookPause,
		tenants: map[string]*tenant{}, pause: healPause,
	}
	if r.tell == nil {
		r.tell = func(error) {}
	}
	if err := r.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the keys: %w", err), r.Close())
	}
	r.whole = true
	return r, nil
}

// missed fails where the file of tenants is gone, before anything is made in its place, and
// where the folder is an older copy, before anything in it is changed.
func missed(cfg Config, disk vfs.FS) error {
	m, err := readMark(disk, cfg.Mark)
	if err != nil || m.empty() {
		return err
	}
	path := filepath.Join(cfg.Dir, tenantsFile)
	f, err := disk.Open(path, true)
	if errors.Is(err, fs.ErrNotExist) {
		return m.lost(fmt.Sprintf("read %q: there is none", path))
	}
	if err != nil {
		return err
	}
	return errors.Join(m.current(disk, cfg.Dir), f.Close())
}

// Close gives the folder back, with all that was taken out of it meanwhile.
func (r *Ring) Close() error {
	var errs []error
	if r.whole {
		r.mu.Lock()
		r.missing = nil // it is tried once more
		r.mu.Unlock()
		err := r.putBack()
		if err == nil {
			// Where the disk has no room for how many keys there are, they are there all the
			// same, and counted by the next who opens them.
			if err = r.raise(); vfs.IsFull(err) {
				r.tell(err)
				err = nil
			}
		}
		if !errors.Is(err, fs.ErrClosed) {
			errs = append(errs, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	errs = append(errs, r.counts.close())
	r.mark.close()
	for _, t := range r.tenants {
		for i := range t.shards {
			errs = append(errs, t.shards[i].close())
		}
	}
	if r.file != nil {
		errs = append(errs, r.file.Close())
		r.file = nil
	}
	r.tenants = map[string]*tenant{}
	r.closed = true
	if r.lock != nil {
		errs = append(errs, r.lock.Close())
		r.lock = nil
	}
	return errors.Join(errs...)
}

// read opens the file of tenants, cuts off what a crash left of a record and unwraps
// the rest.
func (r *Ring) read() error {
	// What a crash left of a file that was to take another's place may hold keys that
	// were forgotten since.
	sizes, err := sizesIn(r.disk, r.dir)
	if err != nil {
		return err
	}
	for name := range sizes {
		if !strings.HasPrefix(name, newPrefix) {
			continue
		}
		if err := discard(r.disk, filepath.Join(r.dir, name)); err != nil {
			return err
		}
	}
	m, err := readMark(r.disk, r.mark.path)
	if err != nil {
		return err
	}
	r.mark = m
	path := filepath.Join(r.dir, tenantsFile)
	b, err := r.openTenants(path, m, slices.ContainsFunc(slices.Collect(maps.Keys(sizes)), isSubjects))
	if err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	list, good, err := parseTenants(b)
	if err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	for i := range list {
		if err := r.unwrap(&list[i]); err != nil {
			return fmt.Errorf("read %q: %w", path, err)
		}
	}
	for name, t := range r.tenants {
		if t.current.Load() == nil {
			return fmt.Errorf("read %q: tenant %q has no data key: %w", path, name, errDamaged)
		}
	}
	roots := rootsOf(list)
	if err := m.hold(roots); err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	r.content = b[:good:good]
	if err := settle(r.file, r.content, 0); err != nil {
		return fmt.Errorf("sync %q: %w", path, err)
	}
	// The names of the file and of the folder, which this process or one before it made.
	if err := errors.Join(r.disk.SyncDir(r.dir), r.disk.SyncDir(filepath.Dir(r.dir))); err != nil {
		return err
	}
	if err := r.openCounts(roots, sizes); err != nil {
		return err
	}
	return r.marked()
}

// sizesIn are the regular files of a folder.
func sizesIn(disk vfs.FS, dir string) (map[string]int64, error) {
	entries, err := disk.List(dir)
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // gone meanwhile, where another process has the folder
			continue
		}
		if err != nil {
			return nil, err
		}
		sizes[e.Name()] = info.Size()
	}
	return sizes, nil
}

func rootsOf(list []wrapped) map[keyID]bool {
	roots := map[keyID]bool{}
	for i := range list {
		if list[i].kind == kindRoot {
			roots[list[i].id] = true
		}
	}
	return roots
}

// openTenants opens the file of tenants and reads it. A folder that was never used gets one
// that has its header from the start: an empty one was emptied.
func (r *Ring) openTenants(path string, m *mark, subjects bool) ([]byte, error) {
	f, err := r.disk.Open(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		if subjects || !m.empty() {
			return nil, m.lost("there is none, beside keys of subjects or what says that there were some")
		}
		f, _, err = replace(r.disk, path, []byte(tenantsMagic))
	}
	if err != nil {
		return nil, err
	}
	r.file = f
	b, err := vfs.ReadAll(f)
	if err == nil && unmade(b, []byte(tenantsMagic)) {
		err = m.lost("it is empty, or has not even its header")
	}
	return b, err
}

// settle makes what was read of a file durable, from an offset, and cuts off the rest. An
// earlier process may not have synced it, or in vain: after that the system takes its
// pages for written. So the same bytes are written over themselves, which can tear none.
func settle(f vfs.File, b []byte, from int) error {
	if _, err := f.WriteAt(b[from:], int64(from)); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(b))); err != nil {
		return err
	}
	return f.Sync()
}

// unwrap takes one record of the file in.
func (r *Ring) unwrap(w *wrapped) error {
	key, err := r.kek.Open(nil, w.nonce[:], w.sealed[:], w.bound())
	if err != nil {
		if w.kek != r.id {
			return fmt.Errorf("%w: %s, and the one given is %s", ErrWrongKey, hex.EncodeToString(w.kek[:]), hex.EncodeToString(r.id[:]))
		}
		return errDamaged
	}
	t := r.tenants[w.tenant]
	switch {
	case w.kind == kindRoot && t == nil:
		r.tenants[w.tenant] = r.newTenant(w.tenant, w.id, key)
	case w.kind == kindData && t != nil:
		t.add(&dataKey{id: w.id, created: w.created, aead: newAEAD(key)})
	default:
		return errDamaged
	}
	return nil
}

func (r *Ring) newTenant(name string, id keyID, root []byte) *tenant {
	t := &tenant{
		name: name, root: id, names: derive(root, "pseudonyms"), secret: derive(root, "bins"),
		wrap: newAEAD(derive(root, "subjects")), data: map[keyID]*dataKey{},
	}
	for i := range t.shards {
		s := &t.shards[i]
		s.ring, s.root, s.number = r, id, i
		s.path = filepath.Join(r.dir, subjectsName(id, i))
	}
	if r.mark.path == "" {
		t.marked.Store(true)
	}
	return t
}

func subjectsName(root keyID, i int) string {
	return fmt.Sprintf(subjectsPrefix+"%s-%02x.keys", hex.EncodeToString(root[:]), i)
}

func (t *tenant) add(d *dataKey) {
	t.data[d.id] = d
	t.current.Store(d)
}

func (t *tenant) pseudonym(subject string) (p pseudonym) {
	h := hmac.New(sha256.New, t.names)
	h.Write([]byte(subject))
	copy(p[:], h.Sum(nil))
	return p
}

// fresh makes a key and its record.
func (r *Ring) fresh(kind byte, tenant string) (*wrapped, []byte) {
	w := &wrapped{kind: kind, created: time.Now().UTC().Truncate(time.Millisecond), kek: r.id, tenant: tenant}
	key := make([]byte, keySize)
	random(key)
	random(w.id[:])
	random(w.nonce[:])
	copy(w.sealed[:], r.kek.Seal(nil, w.nonce[:], key, w.bound()))
	return w, key
}

// write appends records to the file of tenants and syncs it. The caller holds mu.
func (r *Ring) write(list ...*wrapped) error {
	if r.closed {
		return fs.ErrClosed
	}
	b := slices.Clip(r.content)
	for _, w := range list {
		b = w.append(b)
	}
	if r.broken == nil {
		_, err := r.file.WriteAt(b[len(r.content):], int64(len(r.content)))
		if err == nil {
			err = r.file.Sync()
		}
		if err == nil {
			r.content = b
			r.changed()
			return nil
		}
		r.broken = fmt.Errorf("write %q: %w", tenantsFile, err)
	}
	// What of it is on disk cannot be known: another file takes its place, now or the
	// next time.
	if _, err := r.renew(b); err != nil {
		return errors.Join(r.broken, err)
	}
	return nil
}

// renew puts another file in the place of that of tenants. Where that fails nothing is
// added to the old one any more if placed, as the name may not lead to it. The caller
// holds mu.
func (r *Ring) renew(b []byte) (placed bool, err error) {
	f, placed, err := replace(r.disk, filepath.Join(r.dir, tenantsFile), b)
	if err != nil {
		err = fmt.Errorf("write %q anew: %w", tenantsFile, err)
		if placed {
			r.broken = err
		}
		return placed, err
	}
	_ = r.file.Close() // nothing of it is needed any more
	r.file, r.content, r.broken = f, b, nil
	r.changed()
	return true, nil
}

func (r *Ring) known(name string) *tenant {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.tenants[name]
}

// tenant returns a tenant's keys, made the first time, which lie in the folder and are
// missed without it.
func (r *Ring) tenant(name string) (*tenant, error) {
	if err := r.present(); err != nil {
		return nil, err
	}
	if t := r.known(name); t != nil && t.marked.Load() {
		return t, nil
	}
	if name == "" || len(name) > maxTenant {
		return nil, fmt.Errorf("a tenant's name has 1 to %d bytes", maxTenant)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tenants[name]
	if t == nil {
		var err error
		if t, err = r.newKeys(name); err != nil {
			return nil, err
		}
	}
	if !t.marked.Load() {
		if err := r.remember(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// newKeys makes a tenant's root and data key. The caller holds mu.
func (r *Ring) newKeys(name string) (*tenant, error) {
	root, rootKey := r.fresh(kindRoot, name)
	data, key := r.fresh(kindData, name)
	if err := r.write(root, data); err != nil {
		return nil, err
	}
	t := r.newTenant(name, root.id, rootKey)
	t.add(&dataKey{id: data.id, created: data.created, aead: newAEAD(key)})
	r.tenants[name] = t
	return t, nil
}

// Rotate makes a new data key for what a tenant's rows seal from now on. What the
// older ones sealed stays readable.
func (r *Ring) Rotate(name string) error {
	t, err := r.tenant(name)
	if err != nil {
		return fmt.Errorf("rotate the data key: %w", err)
	}
	if err := r.rotate(t, t.current.Load()); err != nil {
		return fmt.Errorf("rotate the data key: %w", err)
	}
	return nil
}

// rotate replaces the data key old, unless another has already.
func (r *Ring) rotate(t *tenant, old *dataKey) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.current.Load() != old {
		return nil
	}
	w, key := r.fresh(kindData, t.name)
	if err := r.write(w); err != nil {
		return err
	}
	t.add(&dataKey{id: w.id, created: w.created, aead: newAEAD(key)})
	return nil
}

// Rewrap wraps all keys of tenants with another key-encryption key, in one step: the
// old one opens nothing of the file from then on. Keys of subjects are wrapped by
// their tenant's and stay as they are.
func (r *Ring) Rewrap(kek []byte) error {
	if len(kek) != keySize {
		return fmt.Errorf("wrap the keys again: the key-encryption key has %d bytes, not %d", len(kek), keySize)
	}
	if err := r.present(); err != nil {
		return fmt.Errorf("wrap the keys again: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.rewrap(newAEAD(kek), kekID(kek)); err != nil {
		return fmt.Errorf("wrap the keys again: %w", err)
	}
	return nil
}

func (r *Ring) rewrap(kek cipher.AEAD, id keyID) error {
	if r.closed {
		return fs.ErrClosed
	}
	list, good, err := parseTenants(r.content)
	if err != nil || good != len(r.content) {
		return errors.Join(errDamaged, err)
	}
	b := []byte(tenantsMagic)
	for i := range list {
		w := &list[i]
		key, err := r.kek.Open(nil, w.nonce[:], w.sealed[:], w.bound())
		if err != nil {
			return errDamaged
		}
		w.kek = id
		random(w.nonce[:])
		copy(w.sealed[:], kek.Seal(nil, w.nonce[:], key, w.bound()))
		b = w.append(b)
	}
	if placed, err := r.renew(b); err != nil {
		if placed {
			return fmt.Errorf("the next start may need either key-encryption key: %w", err)
		}
		return err
	}
	r.kek, r.id = kek, id
	return nil
}

// Sealers implements collector.Keyring.
func (r *Ring) Sealers(name string, subjects []string) ([]collector.Sealer, error) {
	t, err := r.tenant(name)
	if err != nil {
		return nil, err
	}
	d := t.current.Load()
	if d.sealed.Load() >= maxSealed {
		if err := r.rotate(t, d); err != nil {
			return nil, err
		}
		d = t.current.Load()
	}
	out := make([]collector.Sealer, len(subjects))
	var pending pending
	var used uint64 // a bit for each file of subjects
	for i, s := range subjects {
		if s == "" {
			out[i] = &sealer{tenant: t.name, aead: d.aead, id: append([]byte{byTenant}, d.id[:]...), data: d}
			continue
		}
		who := t.pseudonym(s)
		k, err := r.subject(t, who, &pending)
		if err != nil {
			return nil, err
		}
		used |= 1 << shardOf(who)
		id := append([]byte{bySubject}, who[:]...)
		out[i] = &sealer{tenant: t.name, aead: k.aead, id: append(id, k.gen[:]...)}
	}
	if err := pending.sync(); err != nil {
		return nil, err
	}
	if err := r.presentShards(t, used); err != nil {
		return nil, err
	}
	return out, nil
}

// sealer seals under one key.
type sealer struct {
	tenant string
	aead   cipher.AEAD
	id     []byte // what the key is known by in a sealed value
	data   *dataKey
}

// Seal implements collector.Sealer.
func (s *sealer) Seal(model, field string, value []byte) (string, error) {
	if s.data != nil {
		s.data.sealed.Add(1)
	}
	w := scratch.Get().(*buffers) //nolint:forcetypeassert // the pool's own New
	w.bound = place(w.bound[:0], s.id, s.tenant, model, field)
	b := slices.Grow(append(w.box[:0], s.id...), nonceSize+len(value)+s.aead.Overhead())
	n := len(b)
	b = b[:n+nonceSize]
	random(b[n:])
	w.box = s.aead.Seal(b, b[n:], value, w.bound)
	w.text = base64.RawURLEncoding.AppendEncode(append(w.text[:0], sealedPrefix...), w.box)
	out := string(w.text)
	if cap(w.text) <= maxScratch {
		scratch.Put(w)
	}
	return out, nil
}

// buffers are what sealing a value needs beside what it returns. None holds the value.
type buffers struct{ bound, box, text []byte }

// maxScratch is the largest buffer worth keeping.
const maxScratch = 64 << 10

var scratch = sync.Pool{New: func() any { return new(buffers) }}

// Open implements collector.Keyring.
func (r *Ring) Open(at collector.Scope, field, sealed string) ([]byte, error) {
	b, err := parseBlob(sealed)
	if err != nil {
		return nil, err
	}
	t := r.known(at.Tenant)
	if t == nil {
		return nil, errors.New("the tenant has no keys here")
	}
	var aead cipher.AEAD
	var id []byte
	switch b.by {
	case byTenant:
		r.mu.RLock()
		d := t.data[b.data]
		r.mu.RUnlock()
		if d == nil {
			return nil, errors.New("the folder of keys has not the key that it was sealed with")
		}
		aead, id = d.aead, append([]byte{byTenant}, b.data[:]...)
	default:
		k, err := r.find(t, b.who)
		if err != nil {
			return nil, err
		}
		if k.gen != b.gen {
			return nil, collector.ErrForgotten
		}
		aead, id = k.aead, append(append([]byte{bySubject}, b.who[:]...), b.gen[:]...)
	}
	value, err := aead.Open(nil, b.nonce, b.box, place(nil, id, at.Tenant, at.Model, field))
	if err != nil {
		return nil, errors.New("it was not sealed for this tenant, model and feature, or was changed")
	}
	return value, nil
}

// Secret implements collector.Keyring.
func (r *Ring) Secret(name string) ([]byte, error) {
	t, err := r.tenant(name)
	if err != nil {
		return nil, err
	}
	return t.secret, nil
}

// Forget deletes the key of a subject of a tenant and returns how many there were, 0 or
// 1. What it sealed is gone for ever; rows of the same subject that come later get
// another key. The key is no more in its file when Forget returns; a copy of the file
// made before has it still.
func (r *Ring) Forget(ctx context.Context, tenant, subject string) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	t := r.known(tenant)
	if t == nil || subject == "" {
		return 0, nil
	}
	who := t.pseudonym(subject)
	err := r.present()
	if err == nil {
		err = r.presentShards(t, 1<<shardOf(who))
	}
	n := 0
	if err == nil {
		n, err = r.forget(t, who)
	}
	if err != nil {
		return n, fmt.Errorf("forget a subject: %w", err)
	}
	return n, nil
}

// TenantKeys is what can be told of a tenant's keys.
type TenantKeys struct {
	Tenant   string
	Data     []DataKey // the oldest first; the last one seals
	Subjects int
}

// DataKey is what can be told of a data key.
type DataKey struct {
	ID      string
	Created time.Time
}

// List tells of all tenants' keys, by name.
func (r *Ring) List() ([]TenantKeys, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []TenantKeys
	for name, t := range r.tenants {
		k := TenantKeys{Tenant: name}
		for _, d := range t.data {
			k.Data = append(k.Data, DataKey{hex.EncodeToString(d.id[:]), d.created})
		}
		last := hex.EncodeToString(t.current.Load().id[:])
		slices.SortFunc(k.Data, func(a, b DataKey) int {
			if c := a.Created.Compare(b.Created); c != 0 {
				return c
			}
			if a.ID == last {
				return 1
			}
			return -1
		})
		for i := range t.shards {
			n, err := r.count(t, i)
			if err != nil {
				return nil, err
			}
			k.Subjects += n
		}
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b TenantKeys) int {
		if a.Tenant < b.Tenant {
			return -1
		}
		return 1
	})
	return out, nil
}

// KEKID names the key-encryption key in use, without telling it.
func (r *Ring) KEKID() string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return hex.EncodeToString(r.id[:])
}
