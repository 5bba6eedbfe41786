//go:build unix

package repository

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Read asks the system itself: os.File would wait for what says that there is nothing yet.
func (u unwaited) Read(p []byte) (n int, err error) {
	conn, err := u.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	asked := conn.Read(func(fd uintptr) bool {
		for {
			if n, err = unix.Read(int(fd), p); !errors.Is(err, unix.EINTR) {
				return true
			}
		}
	})
	switch {
	case asked != nil:
		return 0, asked
	case errors.Is(err, unix.EAGAIN):
		return 0, fmt.Errorf("it has nothing to read yet, which is not waited for: %w", err)
	case err != nil:
		return 0, err
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}
