package spool

import (
	"fmt"
	"io"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// Lock takes the lock of a spool's folder, which is there, without opening the spool:
// for work on what the lock guards besides while no server has it. Where another
// process has it the error wraps ErrLocked.
func Lock(dir string) (io.Closer, error) {
	lock, err := vfs.OS{}.Lock(join(dir, "LOCK"))
	if err != nil {
		return nil, fmt.Errorf("lock spool folder %q: %w", dir, err)
	}
	return lock, nil
}

// errNotOurs: the folder was removed while it was open, or another was put in its place,
// which another process may have opened: nothing in it is ours to write, read or remove.
var errNotOurs = &collector.GoneError{Folder: "spool"}

// ours fails where the folder is not the one that was opened.
func (s *Spool) ours() error {
	if !s.lock.Linked() {
		return errNotOurs
	}
	return nil
}
