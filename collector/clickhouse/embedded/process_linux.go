package embedded

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// launch starts the child with a pty on its stdin (nil master when pty is
// false) and returns once it runs. exited gets the child's end, once.
//
// The parent-death signal is tied to the thread that started the child, not to
// the process, so that thread is kept for as long as the child lives.
func launch(cmd *exec.Cmd, pty bool) (master *os.File, exited <-chan error, err error) {
	var slave *os.File
	if pty {
		if master, slave, err = openPTY(); err != nil {
			return nil, nil, err
		}
		cmd.Stdin = slave
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	end := make(chan error, 1)
	go func() { // ends with the child
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if slave != nil {
			slave.Close()
		}
		started <- err
		if err == nil {
			end <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		if master != nil {
			master.Close()
		}
		return nil, nil, fmt.Errorf("start %q: %w", cmd.Path, err)
	}
	return master, end, nil
}

// openPTY opens a pseudo terminal. The engine must find one on its stdin: with a
// pipe it counts as non-interactive and installs a handler that ends the process
// for any error leaving a connection, such as one wrong password.
func openPTY() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open a pseudo terminal: %w", err)
	}
	defer func() {
		if err != nil {
			master.Close()
		}
	}()
	fd := int(master.Fd())
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("unlock pseudo terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, fmt.Errorf("number pseudo terminal: %w", err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open pseudo terminal: %w", err)
	}
	return master, slave, nil
}
