package keys

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"sync"
)

var errCrashed = errors.New("the machine is down")

// inode is a file: what programs see, and what is on the disk.
type inode struct {
	data, synced []byte
	// lost tells the bytes that a sync failed to write: the system has them for written
	// until they are written again.
	lost []bool
}

func (i *inode) clone() *inode {
	return &inode{append([]byte(nil), i.data...), append([]byte(nil), i.synced...), append([]bool(nil), i.lost...)}
}

// memFS is a file system in memory that counts operations and crashes at the one it is
// told to. After a crash every call fails; next gives the one that the next start finds.
type memFS struct {
	mu           sync.Mutex
	now, durable map[string]*inode // a folder is a nil one
	locked, down bool
	ops, crashAt int // 0: never
	rng          *rand.Rand
	// fail may return an error for an operation instead of doing it.
	fail func(op, name string) error
}

func newMemFS(seed uint64) *memFS {
	return &memFS{now: map[string]*inode{"/data": nil}, durable: map[string]*inode{"/data": nil}, rng: rand.New(rand.NewPCG(seed, 1))}
}

// step counts an operation. did says whether one that fails is to be done all the same.
func (m *memFS) step(op, name string) (did bool, err error) {
	if m.down {
		return false, errCrashed
	}
	m.ops++
	if m.ops == m.crashAt {
		m.down = true
		return m.rng.IntN(2) == 0, errCrashed
	}
	if m.fail != nil {
		if err := m.fail(op, filepath.Base(name)); err != nil {
			return m.rng.IntN(2) == 0, err
		}
	}
	return true, nil
}

// names does an operation on names.
func (m *memFS) names(op, name string, do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	did, err := m.step(op, name)
	if did {
		err = errors.Join(do(), err)
	}
	return err
}

func (m *memFS) MkdirAll(dir string) error {
	return m.names("mkdir", dir, func() error {
		m.now[dir] = nil
		return nil
	})
}

func (m *memFS) Create(name string) (f file, err error) {
	err = m.names("create", name, func() error {
		if _, ok := m.now[name]; ok {
			return fs.ErrExist
		}
		m.now[name] = &inode{}
		f = &memFile{m, m.now[name], name, false}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (m *memFS) Open(name string, readOnly bool) (f file, err error) {
	err = m.names("open", name, func() error {
		i := m.now[name]
		if i == nil {
			return fs.ErrNotExist
		}
		f = &memFile{m, i, name, readOnly}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (m *memFS) List(dir string) (names []string, err error) {
	err = m.names("list", dir, func() error {
		for n := range m.now {
			if filepath.Dir(n) == dir {
				names = append(names, filepath.Base(n))
			}
		}
		return nil
	})
	return names, err
}

func (m *memFS) Remove(name string) error {
	return m.names("remove", name, func() error {
		if m.now[name] == nil {
			return fs.ErrNotExist
		}
		delete(m.now, name)
		return nil
	})
}

func (m *memFS) Rename(from, to string) error {
	return m.names("rename", from, func() error {
		if m.now[from] == nil {
			return fs.ErrNotExist
		}
		m.now[to] = m.now[from]
		delete(m.now, from)
		return nil
	})
}

func (m *memFS) Link(from, to string) error {
	return m.names("link", from, func() error {
		if m.now[to] != nil {
			return fs.ErrExist
		}
		if m.now[from] == nil {
			return fs.ErrNotExist
		}
		m.now[to] = m.now[from]
		return nil
	})
}

func (m *memFS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step("syncdir", dir); err != nil {
		return err // nothing of it is sure
	}
	in := func(n string, _ *inode) bool { return filepath.Dir(n) == dir }
	maps.DeleteFunc(m.durable, in)
	for n, i := range m.now {
		if in(n, i) {
			m.durable[n] = i
		}
	}
	return nil
}

type memLock struct{ m *memFS }

func (l memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.locked = false
	return nil
}

func (m *memFS) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step("lock", name); err != nil {
		return nil, err
	}
	if m.locked {
		return nil, ErrInUse
	}
	m.locked = true
	return memLock{m}, nil
}

// next returns what the next start finds. After the death of a process that is everything
// written, synced or not; after a power cut it is what was synced, and any part of the rest.
func (m *memFS) next(power bool) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := newMemFS(m.rng.Uint64())
	copies := map[*inode]*inode{nil: nil}
	keep := func(to map[string]*inode, n string, i *inode) {
		if _, ok := copies[i]; !ok {
			c := i.clone()
			if power {
				c.data = m.survived(i)
				c.synced, c.lost = append([]byte(nil), c.data...), nil
			}
			copies[i] = c
		}
		to[n] = copies[i]
	}
	if !power {
		for n, i := range m.now {
			keep(next.now, n, i)
		}
		for n, i := range m.durable {
			keep(next.durable, n, i)
		}
		return next
	}
	names := map[string]*inode{}
	for n, i := range m.durable {
		at, ok := m.now[n]
		switch {
		case ok && at != i && m.rng.IntN(2) == 0:
			names[n] = at // a rename is all done or not at all
		case ok || m.rng.IntN(2) == 0:
			names[n] = i
		}
	}
	for n, i := range m.now {
		if _, ok := m.durable[n]; !ok && m.rng.IntN(2) == 0 {
			names[n] = i
		}
	}
	for n, i := range names {
		there := true
		for dir := filepath.Dir(n); dir != "/"; dir = filepath.Dir(dir) {
			_, ok := names[dir]
			there = there && ok
		}
		if there {
			keep(next.now, n, i)
			keep(next.durable, n, i)
		}
	}
	return next
}

// survived is what a power cut leaves of a file: the synced bytes, some blocks that were
// not, others as zeros or not at all.
func (m *memFS) survived(i *inode) []byte {
	out := append([]byte(nil), i.data...)
	const block = 512
	for at := 0; at < len(out); at += block {
		written := m.rng.IntN(2) == 0
		for k := at; k < min(at+block, len(out)); k++ {
			if written && (k >= len(i.lost) || !i.lost[k]) {
				continue
			}
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
	if _, err := f.m.step("read", f.name); err != nil {
		n := 0
		if off < int64(len(f.i.data)) && len(p) > 0 {
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
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.readOnly {
		return 0, fs.ErrPermission
	}
	_, err := f.m.step("write", f.name)
	n := len(p)
	switch {
	case f.m.down && f.m.ops != f.m.crashAt:
		return 0, err
	case err != nil: // torn: any part may be there
		n = f.m.rng.IntN(len(p) + 1)
	}
	i := f.i
	if need := int(off) + n; need > len(i.data) {
		i.data = append(i.data, make([]byte, need-len(i.data))...)
	}
	copy(i.data[off:], p[:n])
	for k := int(off); k < min(int(off)+n, len(i.lost)); k++ {
		i.lost[k] = false
	}
	return n, err
}

func (f *memFile) Truncate(size int64) error {
	return f.m.names("truncate", f.name, func() error {
		if size < int64(len(f.i.data)) {
			f.i.data = f.i.data[:size:size]
			f.i.lost = f.i.lost[:min(len(f.i.lost), int(size))]
		}
		return nil
	})
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	i := f.i
	_, err := f.m.step("sync", f.name)
	if f.m.down {
		return err
	}
	lost := make([]bool, len(i.data))
	copy(lost, i.lost)
	synced := make([]byte, len(i.data))
	copy(synced, i.synced)
	for k := range i.data {
		switch same := k < len(i.synced) && i.synced[k] == i.data[k]; {
		case err != nil && !same:
			lost[k] = true
		case err == nil && !lost[k]:
			synced[k] = i.data[k]
		}
	}
	i.lost = lost
	if err == nil {
		i.synced = synced
	}
	return err
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	_, err := f.m.step("size", f.name)
	return int64(len(f.i.data)), err
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	_, err := f.m.step("close", f.name)
	return err
}
