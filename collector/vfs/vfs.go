// Package vfs is what the collector's rooms need of a file system when what they write has
// to survive: one small interface, the operating system's implementation, and the words
// for a folder that another has and a disk that is full. Package vfstest has one in memory
// that crashes at any operation, for tests.
package vfs

import (
	"errors"
	"io"
	"io/fs"
)

// ErrLocked is in the error of a Lock that another process holds.
var ErrLocked = errors.New("folder is in use")

// FS is a file system. Files and folders that it makes are their owner's alone.
type FS interface {
	// MkdirAll makes a folder, and those above it, where they are not there.
	MkdirAll(dir string) error
	// Create makes a file that must not exist; its name is durable after SyncDir.
	Create(name string) (File, error)
	// Open opens an existing file for reading and, unless readOnly, writing.
	Open(name string, readOnly bool) (File, error)
	// List lists what is in a folder, by name.
	List(dir string) ([]fs.DirEntry, error)
	Remove(name string) error
	// Rename gives a file another name, in the place of the file that has it.
	Rename(from, to string) error
	// Link gives a file a second name, which must not exist.
	Link(from, to string) error
	// Linked reports whether name still leads to f, an open File or what Lock returned: a
	// file that was removed takes writes as if nothing were wrong.
	Linked(name string, f io.Closer) bool
	// SyncDir makes the names in a folder durable, where the platform can.
	SyncDir(dir string) error
	// Free returns the bytes a user may still write in dir.
	Free(dir string) (uint64, error)
	// Lock takes an exclusive lock on name, creating it, for as long as the process lives
	// or until closed. It fails at once, with an error that wraps ErrLocked, if another
	// holds it.
	Lock(name string) (Held, error)
}

// Held is a lock that was taken; Close gives it back.
type Held interface {
	io.Closer
	// Linked reports whether the lock's name still leads to it. Else its folder was removed
	// or another was put in its place, which somebody else may have locked.
	Linked() bool
}

// File is an open file. Its methods may be called at once by several goroutines, but a
// range is never read while it is written.
type File interface {
	io.ReaderAt
	// WriteAt is one write(2); after an error any part of p may be in the file.
	io.WriterAt
	io.Closer
	Size() (int64, error)
	// Truncate cuts a file off.
	Truncate(size int64) error
	// Sync makes everything written durable. After an error nothing written since the last
	// success may be relied on, whatever later calls say: the system may have the pages
	// still, and take them for written.
	Sync() error
	// Reserve sets blocks aside for the first n bytes without changing the size. It does
	// nothing where the platform cannot.
	Reserve(n int64) error
}

// ReadFile reads all of a file.
func ReadFile(disk FS, name string) ([]byte, error) {
	f, err := disk.Open(name, true)
	if err != nil {
		return nil, err
	}
	b, err := ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return b, nil
}

// ReadAll reads all of an open file.
func ReadAll(f File) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return b, nil
}

// WriteNew makes a file with something in it, and with sync has that reach the disk; the
// caller closes it. Where that fails the file is removed again, as far as the disk allows.
func WriteNew(disk FS, name string, data []byte, sync bool) (File, error) {
	f, err := disk.Create(name)
	if errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err != nil { // it may come after the name
		return nil, errors.Join(err, Discard(disk, name))
	}
	if _, err = f.WriteAt(data, 0); err == nil && sync {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), Discard(disk, name))
	}
	return f, nil
}

// Discard removes a file that may not be there.
func Discard(disk FS, name string) error {
	if err := disk.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Files names the regular files of a folder.
func Files(disk FS, dir string) ([]string, error) {
	entries, err := disk.List(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
