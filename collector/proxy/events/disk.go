package events

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/pellucid/pellucid/collector/vfs"
)

// writeWhole writes a file under another name first: a crash leaves it whole or not
// there, and so does an error, as far as the disk allows.
func writeWhole(disk vfs.FS, path string, data []byte, sync bool) error {
	fresh := path + unfinished
	f, err := vfs.WriteNew(disk, fresh, data, sync)
	if errors.Is(err, fs.ErrExist) { // of an attempt before, which could not remove it
		if err := vfs.Discard(disk, fresh); err != nil {
			return err
		}
		f, err = vfs.WriteNew(disk, fresh, data, sync)
	}
	if err != nil {
		return err
	}
	err = f.Close()
	if err == nil {
		err = disk.Rename(fresh, path)
	}
	if err != nil {
		return errors.Join(err, vfs.Discard(disk, fresh), vfs.Discard(disk, path))
	}
	if !sync {
		return nil
	}
	if err := disk.SyncDir(filepath.Dir(path)); err != nil {
		return errors.Join(fmt.Errorf("sync its folder: %w", err), vfs.Discard(disk, path))
	}
	return nil
}
