//go:build linux || darwin

package repository

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// identity tells a file, or what a link leads to, from another of the same size and time:
// which one it is, and when anything about it changed, which nobody can set.
func identity(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err.Error() // gone just now: not what it was
	}
	return fmt.Sprintf("%d %d", st.Ino, st.Ctim.Nano())
}
