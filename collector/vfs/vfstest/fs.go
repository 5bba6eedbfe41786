// Package vfstest is a file system in memory that goes down at any operation, tears
// writes, forgets what was not synced and returns errors on demand. It is for tests.
package vfstest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pellucid/pellucid/collector/vfs"
)

// ErrCrashed is what every call on a file system that is down returns.
var ErrCrashed = errors.New("the machine is down")

// inode is a file: what programs see, and what is on the disk.
type inode struct {
	data, synced []byte
	// lost tells the bytes that a sync failed to write: the system has them for written
	// until they are written again. failed says that there was such a sync.
	lost   []bool
	failed bool
	// Outside from and to, and with nothing lost, data is as synced has it.
	from, to int
}

func (i *inode) clone() *inode {
	return &inode{bytes.Clone(i.data), bytes.Clone(i.synced), slices.Clone(i.lost), i.failed, i.from, i.to}
}

// wrote notes that bytes may differ from those that were synced.
func (i *inode) wrote(from, to int) {
	if i.from >= i.to {
		i.from, i.to = from, to
		return
	}
	i.from, i.to = min(i.from, from), max(i.to, to)
}

// FS is a file system that counts operations and goes down in the one it is told to.
// After that every call fails; After gives the file system that the next start finds.
// Its fields are set before it is used, or between two uses.
type FS struct {
	// CrashAt is the operation to go down in, from 1; 0 is never. Those that change
	// nothing do not count, as a crash in one of them cannot be told from one in the next
	// that does, unless CountReads.
	CrashAt    int
	CountReads bool
	// Fail may return an error for an operation on a name, of those that change nothing
	// too: whether it was carried out all the same is as chance has it. It must not call
	// the file system.
	Fail func(op, name string) error
	// Refuses has nothing be carried out that Fail fails, but a part of what is written.
	Refuses bool
	// Lies has a sync of a file say yes and do nothing, as disks do whose cache forgets.
	Lies func(name string) bool
	// Capacity bounds the bytes of all files; 0 is no bound.
	Capacity int64
	// Unforgiving has nothing of a file reach the disk after a sync of it failed, also
	// where it is written again.
	Unforgiving bool
	// Journal has a power cut leave one name or the other of a file whose renaming was not
	// synced, as file systems with a journal do; without it, it may leave neither.
	Journal bool
	// ModTime is when all files say they were written.
	ModTime time.Time

	mu           sync.Mutex
	now, durable map[string]*inode // a folder is a nil one
	locked       map[string]*lock
	down         bool
	ops          int
	rng          *rand.Rand
	touched      []string
}

var _ vfs.FS = (*FS)(nil)

// New returns a file system that has these folders, whose dice are seed's.
func New(seed uint64, dirs ...string) *FS {
	m := &FS{now: map[string]*inode{}, durable: map[string]*inode{}, locked: map[string]*lock{}, rng: rand.New(rand.NewPCG(seed, 1))}
	for _, d := range dirs {
		m.folders(d)
	}
	return m
}

// folders makes a folder and those above it, durably.
func (m *FS) folders(dir string) {
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		m.now[dir], m.durable[dir] = nil, nil
	}
}

// Ops returns how many operations there were of those that CrashAt counts.
func (m *FS) Ops() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops
}

// Down reports whether the machine is down.
func (m *FS) Down() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.down
}

// Locked reports whether somebody holds a lock.
func (m *FS) Locked() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.locked) > 0
}

// Touched is what was written or synced after a sync of it had failed: the operations and
// the names.
func (m *FS) Touched() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.touched)
}

// Used returns the bytes of all files.
func (m *FS) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used()
}

func (m *FS) used() int64 {
	n := int64(0)
	for _, i := range m.now {
		if i != nil {
			n += int64(len(i.data))
		}
	}
	return n
}

// Names names all files, in order.
func (m *FS) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, n := range slices.Sorted(maps.Keys(m.now)) {
		if m.now[n] != nil {
			names = append(names, n)
		}
	}
	return names
}

// Has reports whether there is a file.
func (m *FS) Has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now[name] != nil
}

// Data returns what is in a file, nil where there is none.
func (m *FS) Data(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.now[name]; i != nil {
		return bytes.Clone(i.data)
	}
	return nil
}

// Put puts a file onto the disk, in the place of what was there, and its folder with it.
func (m *FS) Put(name string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.folders(filepath.Dir(name))
	i := &inode{data: bytes.Clone(data), synced: bytes.Clone(data)}
	m.now[name], m.durable[name] = i, i
}

// Drop takes a file off the disk, or a folder with all that is in it. Those who have a file
// open have it still; a lock's name leads to it no more.
func (m *FS) Drop(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := func(n string) bool { return n == name || strings.HasPrefix(n, name+string(filepath.Separator)) }
	for _, names := range []map[string]*inode{m.now, m.durable} {
		maps.DeleteFunc(names, func(n string, _ *inode) bool { return in(n) })
	}
	maps.DeleteFunc(m.locked, func(n string, _ *lock) bool { return in(n) })
}

// Step counts an operation of something else as one of the file system's. did says whether
// it is carried out, which of one that fails is as chance has it.
func (m *FS) Step(op, name string) (did bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.step(op, name, true)
}

// step is Step; changes is false for what changes nothing.
func (m *FS) step(op, name string, changes bool) (did bool, err error) {
	if m.down {
		return false, ErrCrashed
	}
	if changes || m.CountReads {
		m.ops++
		if m.ops == m.CrashAt {
			m.down = true
			return m.rng.IntN(2) == 0, ErrCrashed
		}
	}
	if m.Fail != nil {
		if err := m.Fail(op, filepath.Base(name)); err != nil {
			return !m.Refuses && m.rng.IntN(2) == 0, err
		}
	}
	return true, nil
}

// do does an operation on names.
func (m *FS) do(op, name string, changes bool, do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	did, err := m.step(op, name, changes)
	if did {
		err = errors.Join(do(), err)
	}
	return err
}

// inFolder fails where a name's folder is not there.
func (m *FS) inFolder(name string) error {
	dir := filepath.Dir(name)
	if i, ok := m.now[dir]; dir != filepath.Dir(dir) && (!ok || i != nil) {
		return fs.ErrNotExist
	}
	return nil
}

// MkdirAll implements vfs.FS.
func (m *FS) MkdirAll(dir string) error {
	return m.do("mkdir", dir, true, func() error {
		for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			m.now[dir] = nil
		}
		return nil
	})
}

// Create implements vfs.FS.
func (m *FS) Create(name string) (f vfs.File, err error) {
	err = m.do("create", name, true, func() error {
		if _, ok := m.now[name]; ok {
			return fs.ErrExist
		}
		if err := m.inFolder(name); err != nil {
			return err
		}
		m.now[name] = &inode{}
		f = &file{m, m.now[name], name, false}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Open implements vfs.FS.
func (m *FS) Open(name string, readOnly bool) (f vfs.File, err error) {
	err = m.do("open", name, false, func() error {
		i := m.now[name]
		if i == nil {
			return fs.ErrNotExist
		}
		f = &file{m, i, name, readOnly}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// info is a file or a folder as List tells it.
type info struct {
	name string
	size int64
	mode fs.FileMode
	mod  time.Time
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return i.mod }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (info) Sys() any             { return nil }

// List implements vfs.FS.
func (m *FS) List(dir string) (out []fs.DirEntry, err error) {
	err = m.do("list", dir, false, func() error {
		for _, n := range slices.Sorted(maps.Keys(m.now)) {
			if filepath.Dir(n) != dir {
				continue
			}
			e := info{filepath.Base(n), 0, fs.ModeDir | 0o700, m.ModTime}
			if i := m.now[n]; i != nil {
				e.size, e.mode = int64(len(i.data)), 0o600
			}
			out = append(out, fs.FileInfoToDirEntry(e))
		}
		return nil
	})
	return out, err
}

// Remove implements vfs.FS.
func (m *FS) Remove(name string) error {
	return m.do("remove", name, true, func() error {
		if m.now[name] == nil {
			return fs.ErrNotExist
		}
		delete(m.now, name)
		return nil
	})
}

// Rename implements vfs.FS.
func (m *FS) Rename(from, to string) error {
	return m.do("rename", from, true, func() error {
		if m.now[from] == nil {
			return fs.ErrNotExist
		}
		m.now[to] = m.now[from]
		delete(m.now, from)
		return nil
	})
}

// Link implements vfs.FS.
func (m *FS) Link(from, to string) error {
	return m.do("link", from, true, func() error {
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

// Linked implements vfs.FS. It does not fail.
func (m *FS) Linked(name string, f io.Closer) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch open := f.(type) {
	case *file:
		return m.now[name] == open.i
	case *lock:
		return m.locked[name] == open
	}
	return false
}

// SyncDir implements vfs.FS.
func (m *FS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step("syncdir", dir, true); err != nil {
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

// Free implements vfs.FS.
func (m *FS) Free(dir string) (free uint64, err error) {
	err = m.do("free", dir, false, func() error {
		free = 1 << 40
		if m.Capacity > 0 {
			free = uint64(max(0, m.Capacity-m.used()))
		}
		return nil
	})
	return free, err
}

type lock struct {
	m    *FS
	name string
}

func (l *lock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.locked[l.name] == l {
		delete(l.m.locked, l.name)
	}
	return nil
}

// Linked implements vfs.Held: folders are never removed here.
func (l lock) Linked() bool { return true }

// Lock implements vfs.FS. It makes no file.
func (m *FS) Lock(name string) (vfs.Held, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step("lock", name, false); err != nil {
		return nil, err
	}
	if m.locked[name] != nil {
		return nil, vfs.ErrLocked
	}
	m.locked[name] = &lock{m, name}
	return m.locked[name], nil
}
