//go:build !unix && !windows

package spool

import (
	"errors"
	"io"
)

// SyncDir does nothing on a platform without synced directories.
func (osFS) SyncDir(string) error { return nil }

// Lock has no implementation here: a spool cannot be opened.
func (osFS) Lock(string) (io.Closer, error) {
	return nil, errors.New("locking a folder is not supported on this platform")
}
