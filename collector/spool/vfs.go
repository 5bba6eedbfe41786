package spool

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// filesystem is what the spool needs of a file system. The real one is osFS;
// tests have one in memory that crashes at the k-th operation, tears writes,
// forgets what was not synced and returns errors on demand.
type filesystem interface {
	MkdirAll(dir string) error
	// Create makes a file that must not exist; its name is durable after SyncDir.
	Create(name string) (file, error)
	// Open opens an existing file for reading and, unless readOnly, writing.
	Open(name string, readOnly bool) (file, error)
	List(dir string) ([]string, error)
	Remove(name string) error
	Rename(from, to string) error
	SyncDir(dir string) error
	// Free returns the bytes a user may still write in dir.
	Free(dir string) (uint64, error)
	// Lock takes an exclusive lock on name, creating it, for as long as the
	// process lives or until closed. It fails at once if another holds it.
	Lock(name string) (io.Closer, error)
}

// file is an open file. Its methods may be called at once by several
// goroutines, but a range is never read while it is written.
type file interface {
	io.ReaderAt
	// WriteAt is one write(2); after an error any part of p may be in the file.
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	// Sync makes everything written durable (fdatasync). After an error nothing
	// written since the last success may be relied on, whatever later calls say.
	Sync() error
	// Reserve sets blocks aside for the first n bytes without changing the size.
	// It does nothing where the platform cannot.
	Reserve(n int64) error
}

type osFS struct{}

func (osFS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

func (osFS) Create(name string) (file, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Open(name string, readOnly bool) (file, error) {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(name, mode, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type()&fs.ModeType == 0 {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Linked reports whether name still leads to f: a file that was removed takes
// writes as if nothing were wrong.
func (osFS) Linked(name string, f file) bool {
	open, ok := f.(osFile)
	if !ok {
		return true
	}
	there, err1 := os.Stat(name)
	ours, err2 := open.Stat()
	return err1 == nil && err2 == nil && os.SameFile(there, ours)
}

func (osFS) Remove(name string) error     { return os.Remove(name) }
func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func join(dir, name string) string { return filepath.Join(dir, name) }
