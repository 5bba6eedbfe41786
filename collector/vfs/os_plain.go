//go:build !unix && !windows

package vfs

import "errors"

// SyncDir does nothing on a platform without synced directories.
func (OS) SyncDir(string) error { return nil }

// Lock has no implementation here: what needs one cannot be opened.
func (OS) Lock(string) (Held, error) {
	return nil, errors.New("locking a folder is not supported on this platform")
}
