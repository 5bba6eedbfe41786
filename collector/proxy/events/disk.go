package events

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// filesystem is what a Room needs of a file system. The real one is osFS; tests have
// one in memory that crashes at the k-th operation and returns errors on demand.
type filesystem interface {
	MkdirAll(dir string) error
	List(dir string) ([]fs.FileInfo, error)
	Read(name string) ([]byte, error)
	// Write makes a file or replaces what is in it, and with sync has it reach the
	// disk. After an error any part of it may be there.
	Write(name string, data []byte, sync bool) error
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes names durable, where the platform can.
	SyncDir(dir string) error
}

type osFS struct{}

func (osFS) MkdirAll(dir string) error        { return os.MkdirAll(dir, 0o700) }
func (osFS) Read(name string) ([]byte, error) { return os.ReadFile(name) }
func (osFS) Rename(from, to string) error     { return os.Rename(from, to) }
func (osFS) Remove(name string) error         { return os.Remove(name) }

func (osFS) List(dir string) ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make([]fs.FileInfo, len(entries))
	for i, e := range entries {
		if out[i], err = e.Info(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (osFS) Write(name string, data []byte, sync bool) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (osFS) SyncDir(dir string) error {
	if runtime.GOOS == "windows" { // where a folder cannot be synced
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeWhole writes a file under another name first: a crash leaves it whole or not
// there, and so does an error, as far as the disk allows.
func writeWhole(disk filesystem, path string, data []byte, sync bool) error {
	fresh := path + unfinished
	if err := disk.Write(fresh, data, sync); err != nil {
		return errors.Join(err, removed(disk, fresh))
	}
	if err := disk.Rename(fresh, path); err != nil {
		return errors.Join(err, removed(disk, fresh))
	}
	if !sync {
		return nil
	}
	if err := disk.SyncDir(filepath.Dir(path)); err != nil {
		return errors.Join(fmt.Errorf("sync its folder: %w", err), removed(disk, path))
	}
	return nil
}

// removed removes a file that may not be there.
func removed(disk filesystem, path string) error {
	if err := disk.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
