//go:build unix

package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// SyncDir implements FS.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrInvalid) {
		err = nil // a file system that has no such thing
	}
	return errors.Join(err, d.Close())
}

// Lock holds a flock, which the kernel releases when the process dies.
func (OS) Lock(name string) (Held, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		pid := make([]byte, 20)
		n, _ := f.ReadAt(pid, 0) // the pid is a hint; without it the message says "unknown"
		holder := strings.TrimSpace(string(pid[:n]))
		if holder == "" {
			holder = "unknown"
		}
		return nil, errors.Join(fmt.Errorf("%w: by process %s", ErrLocked, holder), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %q: %w", name, err), f.Close())
	}
	if err := f.Truncate(0); err == nil {
		// On a full disk the pid cannot be written; the lock holds all the same.
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return heldFile{f, name}, nil
}
