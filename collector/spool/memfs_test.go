package spool

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
)

var errCrashed = errors.New("the machine is down")

// inode is a file: what programs see, and what would survive a power cut.
type inode struct {
	data, synced []byte
	failed       bool // a sync has failed: nothing written since is ever durable
}

// memFS is a file system in memory that counts operations and crashes at the
// one it is told to. After a crash every call fails; afterCrash gives the file
// system the next start finds.
type memFS struct {
	mu      sync.Mutex
	now     map[string]*inode
	durable map[string]*inode
	locked  bool
	down    bool

	ops     int
	crashAt int // 0: never
	rng     *rand.Rand
	// fail may return an error for an operation on a name instead of doing it: for
	// those that only read, and for locking and closing, as well.
	fail   func(op, name string) error
	failed string // the operation and name that failAt had fail
	// capacity bounds the bytes of all files; 0 for none.
	capacity int64
	// afterFailure lists names that were written or synced after a failed sync.
	afterFailure []string
}

func newMemFS(seed uint64) *memFS {
	return &memFS{now: map[string]*inode{}, durable: map[string]*inode{}, rng: rand.New(rand.NewPCG(seed, 1))}
}

// step counts an operation that changes something. It reports whether the
// machine goes down in the middle of it.
func (m *memFS) step(op, name string) (crash bool, err error) {
	if m.down {
		return false, errCrashed
	}
	m.ops++
	if m.ops == m.crashAt {
		m.down = true
		return true, errCrashed
	}
	if m.fail != nil {
		return false, m.fail(op, filepath.Base(name))
	}
	return false, nil
}

// look asks for the error of an operation that changes nothing: nothing can be told
// apart by a crash in the middle of it, so it is not counted.
func (m *memFS) look(op, name string) error {
	if m.down {
		return errCrashed
	}
	if m.fail != nil {
		return m.fail(op, filepath.Base(name))
	}
	return nil
}

func (m *memFS) used() int64 {
	n := int64(0)
	for _, i := range m.now {
		n += int64(len(i.data))
	}
	return n
}

func (m *memFS) MkdirAll(string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.look("mkdir", "")
}

func (m *memFS) Create(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	crash, err := m.step("create", name)
	if err != nil && (!crash || m.rng.IntN(2) == 0) {
		return nil, err
	}
	if _, ok := m.now[name]; ok {
		return nil, fs.ErrExist
	}
	i := &inode{}
	m.now[name] = i
	return &memFile{m, i, name, false}, err
}

func (m *memFS) Open(name string, readOnly bool) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.look("open", name); err != nil {
		return nil, err
	}
	i, ok := m.now[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return &memFile{m, i, name, readOnly}, nil
}

func (m *memFS) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.look("list", dir); err != nil {
		return nil, err
	}
	var names []string
	for n := range m.now {
		names = append(names, filepath.Base(n))
	}
	return names, nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	crash, err := m.step("remove", name)
	if err != nil && (!crash || m.rng.IntN(2) == 0) {
		return err
	}
	if _, ok := m.now[name]; !ok {
		return fs.ErrNotExist
	}
	delete(m.now, name)
	return err
}

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	crash, err := m.step("rename", from)
	if err != nil && (!crash || m.rng.IntN(2) == 0) {
		return err
	}
	i, ok := m.now[from]
	if !ok {
		return fs.ErrNotExist
	}
	delete(m.now, from)
	m.now[to] = i
	return err
}

func (m *memFS) SyncDir(string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step("syncdir", ""); err != nil {
		return err
	}
	m.durable = map[string]*inode{}
	for n, i := range m.now {
		m.durable[n] = i
	}
	return nil
}

func (m *memFS) Free(dir string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.look("free", dir); err != nil {
		return 0, err
	}
	if m.capacity == 0 {
		return 1 << 40, nil
	}
	return uint64(max(0, m.capacity-m.used())), nil
}

type memLock struct{ m *memFS }

func (l memLock) Close() error {
	l.m.mu.Lock()
	l.m.locked = false
	l.m.mu.Unlock()
	return nil
}

func (m *memFS) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.look("lock", name); err != nil {
		return nil, err
	}
	if m.locked {
		return nil, ErrLocked
	}
	m.locked = true
	return memLock{m}, nil
}

// afterCrash returns what the next start finds. After the death of a process
// that is everything written; after a power cut it is what was synced, and any
// part of the rest.
func (m *memFS) afterCrash(power bool) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := newMemFS(m.rng.Uint64())
	next.capacity = m.capacity
	names := m.now
	if power {
		names = map[string]*inode{}
		for n, i := range m.durable {
			if m.now[n] == i || m.rng.IntN(2) == 0 { // a removal may not have got there
				names[n] = i
			}
		}
		for n, i := range m.now {
			if names[n] == nil && m.rng.IntN(2) == 0 {
				names[n] = i
			}
		}
	}
	for n, i := range names {
		data := i.data
		if power {
			data = m.survived(i)
		}
		c := &inode{data: append([]byte(nil), data...), synced: append([]byte(nil), data...)}
		next.now[n], next.durable[n] = c, c
	}
	return next
}

// survived is what a power cut leaves of a file: the synced bytes, some
// unsynced blocks, others as zeros or not at all.
func (m *memFS) survived(i *inode) []byte {
	out := append([]byte(nil), i.data...)
	const block = 512
	for at := 0; at < len(out); at += block {
		if m.rng.IntN(2) == 0 {
			continue // this block was written back in time
		}
		for k := at; k < min(at+block, len(out)); k++ {
			out[k] = 0
			if k < len(i.synced) {
				out[k] = i.synced[k]
			}
		}
	}
	if len(out) < len(i.synced) {
		if m.rng.IntN(2) == 0 {
			return append([]byte(nil), i.synced...)
		}
		return out
	}
	return out[:len(i.synced)+m.rng.IntN(len(out)-len(i.synced)+1)]
}

type memFile struct {
	m        *memFS
	i        *inode
	name     string
	readOnly bool
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.look("read", f.name); err != nil {
		// What was read before the bad block is there, as read(2) of several pages may say.
		n := 0
		if off < int64(len(f.i.data)) && len(p) > 0 && f.m.rng.IntN(2) == 0 {
			n = copy(p[:f.m.rng.IntN(len(p))], f.i.data[off:])
		}
		return n, err
	}
	if off >= int64(len(f.i.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.i.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	m := f.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.readOnly {
		return 0, fs.ErrPermission
	}
	_, err := m.step("write", f.name)
	if f.i.failed && filepath.Base(f.name) != cursorName {
		m.afterFailure = append(m.afterFailure, f.name)
	}
	if err != nil && m.ops > m.crashAt && m.crashAt != 0 {
		return 0, err
	}
	n := len(p)
	if err != nil { // torn: any part may be there
		n = m.rng.IntN(len(p) + 1)
	} else if grow := off + int64(len(p)) - int64(len(f.i.data)); m.capacity > 0 && grow > 0 && m.used()+grow > m.capacity {
		err, n = syscall.ENOSPC, m.rng.IntN(len(p))
	}
	if need := int(off) + n; need > len(f.i.data) {
		f.i.data = append(f.i.data, make([]byte, need-len(f.i.data))...)
	}
	copy(f.i.data[off:], p[:n])
	return n, err
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if _, err := f.m.step("truncate", f.name); err != nil {
		return err
	}
	if size < int64(len(f.i.data)) {
		f.i.data = f.i.data[:size:size]
	}
	return nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.i.failed {
		f.m.afterFailure = append(f.m.afterFailure, f.name)
	}
	if _, err := f.m.step("sync", f.name); err != nil {
		f.i.failed = true
		return err
	}
	if !f.i.failed { // after a failure the kernel says yes and means nothing
		f.i.synced = append([]byte(nil), f.i.data...)
	}
	return nil
}

func (f *memFile) Reserve(int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	_, err := f.m.step("reserve", f.name)
	return err
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.look("size", f.name); err != nil {
		return 0, err
	}
	return int64(len(f.i.data)), nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.m.look("close", f.name)
}
