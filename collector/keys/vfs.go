package keys

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// filesystem is what the keys need of a file system. The real one is osFS; tests have
// one in memory that crashes at the k-th operation, tears writes, forgets what was not
// synced and returns errors on demand.
type filesystem interface {
	MkdirAll(dir string) error
	// Create makes a file that must not exist, for its owner alone; its name is durable
	// after SyncDir.
	Create(name string) (file, error)
	// Open opens an existing file for reading and, unless readOnly, writing.
	Open(name string, readOnly bool) (file, error)
	List(dir string) ([]string, error)
	Remove(name string) error
	Rename(from, to string) error
	// Link gives a file a second name, which must not exist.
	Link(from, to string) error
	SyncDir(dir string) error
	// Lock holds name, made if need be, for as long as the process lives or until it is
	// closed. Its error wraps ErrInUse where another has it.
	Lock(name string) (io.Closer, error)
}

// file is an open file.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	// Sync makes everything written durable. After an error nothing written since the
	// last success may be relied on: the system may have the pages still, and take them
	// for written.
	Sync() error
}

type osFS struct{}

func (osFS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

func (osFS) Create(name string) (file, error) {
	return opened(os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600))
}

func (osFS) Open(name string, readOnly bool) (file, error) {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	return opened(os.OpenFile(name, mode, 0))
}

func opened(f *os.File, err error) (file, error) {
	if err != nil {
		return nil, err // not a nil file in an interface
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
		names = append(names, e.Name())
	}
	return names, nil
}

func (osFS) Remove(name string) error            { return os.Remove(name) }
func (osFS) Rename(from, to string) error        { return os.Rename(from, to) }
func (osFS) Link(from, to string) error          { return os.Link(from, to) }
func (osFS) SyncDir(dir string) error            { return syncDir(dir) }
func (osFS) Lock(name string) (io.Closer, error) { return lock(name) }

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// readWhole reads all of a file.
func readWhole(f file) ([]byte, error) {
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

// openOrCreate opens a file, made if need be.
func openOrCreate(disk filesystem, name string) (file, error) {
	f, err := disk.Open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return disk.Create(name)
	}
	return f, err
}

// newPrefix begins the names of files that are to take another's place.
const newPrefix = ".new-"

// replace puts a file in another's place in one step and returns it open. placed says
// that the name may lead to the new file by now, also where there is an error: nothing
// can be added to the old one then. The new one's name is always the same, so that what
// an attempt that failed has left, and could not remove, is gone with the next.
func replace(disk filesystem, path string, b []byte) (f file, placed bool, err error) {
	dir, base := filepath.Split(path)
	dir = filepath.Clean(dir)
	fresh := filepath.Join(dir, newPrefix+base)
	if err := discard(disk, fresh); err != nil {
		return nil, false, err
	}
	if f, err = disk.Create(fresh); err != nil {
		return nil, false, err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, false, errors.Join(err, f.Close(), disk.Remove(fresh))
	}
	if err := disk.Rename(fresh, path); err != nil {
		return nil, true, errors.Join(err, f.Close())
	}
	if err := disk.SyncDir(dir); err != nil {
		return nil, true, errors.Join(err, f.Close())
	}
	return f, true, nil
}

// discard overwrites and removes what may be left of a file: it may hold keys that are
// forgotten since, or will be. Where it could only be removed that is said once.
func discard(disk filesystem, name string) error {
	f, err := disk.Open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(wipe(f), f.Close(), disk.Remove(name))
}

// wipe overwrites a file.
func wipe(f file) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, size), 0); err != nil {
		return err
	}
	return f.Sync()
}
