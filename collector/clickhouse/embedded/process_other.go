//go:build !linux

package embedded

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// launch starts the child; exited gets its end, once. Only Linux has the pseudo
// terminal that the library needs, and the parent-death signal: elsewhere a
// server binary is stopped by Stop, or by its owner after a crash of ours.
func launch(cmd *exec.Cmd, pty bool) (master *os.File, exited <-chan error, err error) {
	if pty {
		return nil, nil, errors.New("the embedded library runs on Linux only")
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start %q: %w", cmd.Path, err)
	}
	end := make(chan error, 1)
	go func() { end <- cmd.Wait() }() // ends with the child
	return nil, end, nil
}
