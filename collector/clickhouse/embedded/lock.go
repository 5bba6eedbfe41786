package embedded

import (
	"errors"

	"github.com/pellucid/pellucid/collector/vfs"
)

// lockFile takes an exclusive lock that ends with the process, or returns
// ErrLocked at once.
func lockFile(path string) (unlock func(), err error) {
	lock, err := vfs.OS{}.Lock(path)
	if errors.Is(err, vfs.ErrLocked) {
		return nil, ErrLocked
	}
	if err != nil {
		return nil, err
	}
	return func() { lock.Close() }, nil
}
