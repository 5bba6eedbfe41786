package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// OS is the operating system's file system.
type OS struct{}

var _ FS = OS{}

// MkdirAll implements FS.
func (OS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

// Create implements FS.
func (OS) Create(name string) (File, error) {
	return opened(os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600))
}

// Open implements FS.
func (OS) Open(name string, readOnly bool) (File, error) {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	return opened(os.OpenFile(name, mode, 0))
}

func opened(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err // not a nil file in an interface
	}
	return osFile{f}, nil
}

// List implements FS.
func (OS) List(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Link implements FS.
func (OS) Link(from, to string) error { return os.Link(from, to) }

// Linked implements FS.
func (OS) Linked(name string, f io.Closer) bool {
	open, ok := f.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		return false
	}
	return linked(name, open)
}

func linked(name string, f interface{ Stat() (fs.FileInfo, error) }) bool {
	there, err1 := os.Stat(name)
	ours, err2 := f.Stat()
	return err1 == nil && err2 == nil && os.SameFile(there, ours)
}

// heldFile is a lock on an open file, which ends with it.
type heldFile struct {
	*os.File
	name string
}

// Linked implements Held.
func (l heldFile) Linked() bool { return linked(l.name, l.File) }

type osFile struct{ *os.File }

// Size implements File.
func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Replace puts a file of the owner's in the place of the one at path in one step, so that a
// crash leaves the old or the new one, with its bytes on disk.
func Replace(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
