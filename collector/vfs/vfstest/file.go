package vfstest

import (
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
)

// file is an open file.
type file struct {
	m        *FS
	i        *inode
	name     string
	readOnly bool
}

// ReadAt implements vfs.File.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if _, err := f.m.step("read", f.name, false); err != nil {
		// What was read before the bad block is there, as read(2) of several pages may say.
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

// WriteAt implements vfs.File. Of one that fails any part may be there.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	m, i := f.m, f.i
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.readOnly {
		return 0, fs.ErrPermission
	}
	if m.down {
		return 0, ErrCrashed
	}
	f.touch("write")
	_, err := m.step("write", f.name, true)
	n := len(p)
	if grow := off + int64(len(p)) - int64(len(i.data)); err != nil {
		n = m.rng.IntN(len(p) + 1)
	} else if m.Capacity > 0 && grow > 0 && m.used()+grow > m.Capacity {
		err, n = syscall.ENOSPC, m.rng.IntN(len(p))
	}
	i.wrote(min(int(off), len(i.data)), int(off)+n)
	if need := int(off) + n; need > len(i.data) {
		i.data = append(i.data, make([]byte, need-len(i.data))...)
	}
	copy(i.data[off:], p[:n])
	for k := int(off); k < min(int(off)+n, len(i.lost)); k++ {
		i.lost[k] = false
	}
	return n, err
}

// touch notes that a file is used after a sync of it failed.
func (f *file) touch(op string) {
	if f.i.failed {
		f.m.touched = append(f.m.touched, op+" "+f.name)
	}
}

// Truncate implements vfs.File.
func (f *file) Truncate(size int64) error {
	return f.m.do("truncate", f.name, true, func() error {
		if i := f.i; size < int64(len(i.data)) {
			i.data = i.data[:size:size]
			i.lost = i.lost[:min(len(i.lost), int(size))]
		}
		return nil
	})
}

// Sync implements vfs.File. One that fails loses what was to be written: later ones say
// yes, and mean nothing.
func (f *file) Sync() error {
	m, i := f.m, f.i
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return ErrCrashed
	}
	f.touch("sync")
	_, err := m.step("sync", f.name, true)
	if m.down {
		return err
	}
	if err == nil && m.Lies != nil && m.Lies(filepath.Base(f.name)) {
		return nil
	}
	if err == nil && len(i.lost) == 0 && !i.failed {
		i.synced = grown(i.synced, len(i.data))
		copy(i.synced[min(i.from, len(i.data)):], i.data[min(i.from, len(i.data)):min(i.to, len(i.data))])
		i.from, i.to = 0, 0
		return nil
	}
	i.wrote(0, len(i.data)) // it is looked at byte by byte from now on
	lost, synced := make([]bool, len(i.data)), make([]byte, len(i.data))
	copy(lost, i.lost)
	copy(synced, i.synced)
	for k := range i.data {
		switch same := k < len(i.synced) && i.synced[k] == i.data[k]; {
		case err != nil && !same:
			lost[k] = true
		case err == nil && !lost[k]:
			synced[k] = i.data[k]
		}
	}
	i.lost, i.failed = lost, i.failed || err != nil
	if err == nil && !(i.failed && m.Unforgiving) {
		i.synced = synced
	}
	return err
}

// grown is b with n bytes, in its own memory where there is room.
func grown(b []byte, n int) []byte {
	b = b[:min(len(b), n)]
	return slices.Grow(b, n-len(b))[:n]
}

// Reserve implements vfs.File.
func (f *file) Reserve(int64) error {
	return f.m.do("reserve", f.name, true, func() error { return nil })
}

// Size implements vfs.File.
func (f *file) Size() (n int64, err error) {
	err = f.m.do("size", f.name, false, func() error {
		n = int64(len(f.i.data))
		return nil
	})
	return n, err
}

// Close implements vfs.File.
func (f *file) Close() error {
	return f.m.do("close", f.name, false, func() error { return nil })
}
