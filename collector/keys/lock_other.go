//go:build !unix && !windows

package keys

import (
	"errors"
	"io"
)

// lock has no implementation here: keys cannot be opened.
func lock(string) (io.Closer, error) {
	return nil, errors.New("locking a folder is not supported on this platform")
}

func syncDir(string) error { return nil }
