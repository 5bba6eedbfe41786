package keys

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/pellucid/pellucid/collector/vfs"
)

// newPrefix begins the names of files that are to take another's place.
const newPrefix = ".new-"

// replace puts a file in another's place in one step and returns it open. placed says
// that the name may lead to the new file by now, also where there is an error: nothing
// can be added to the old one then. The new one's name is always the same, so that what
// an attempt that failed has left, and could not remove, is gone with the next.
func replace(disk vfs.FS, path string, b []byte) (f vfs.File, placed bool, err error) {
	dir, base := filepath.Split(path)
	dir = filepath.Clean(dir)
	fresh := filepath.Join(dir, newPrefix+base)
	if err := discard(disk, fresh); err != nil {
		return nil, false, err
	}
	if f, err = vfs.WriteNew(disk, fresh, b, true); err != nil {
		return nil, false, err
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
func discard(disk vfs.FS, name string) error {
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
func wipe(f vfs.File) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, size), 0); err != nil {
		return err
	}
	return f.Sync()
}
