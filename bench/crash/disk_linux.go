package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// errNoMount says that the trial could not be made here.
var errNoMount = errors.New("no file system can be mounted here, neither by this user nor in a name space of its own")

// inNamespace marks the process that mayMount starts.
const inNamespace = "PELLUCID_CRASH_MAY_MOUNT"

// mayMount finds out whether this process may mount. Where it may not, the whole command
// runs once more in a name space of users and mounts in which it may, and ended says that
// it has.
func mayMount() (ended bool, err error) {
	dir, err := os.MkdirTemp("", "pellucid-mount-")
	if err != nil {
		return false, err
	}
	defer os.Remove(dir)
	if err := mount(dir, 1); err == nil {
		return false, unmount(dir)
	} else if os.Getenv(inNamespace) != "" || !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES) {
		return false, fmt.Errorf("%w: %w", errNoMount, err)
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("%w: %w", errNoMount, err)
	}
	return true, cmd.Wait()
}

func mount(dir string, mib int) error {
	if err := syscall.Mount("pellucid-crash", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", mib)); err != nil {
		return fmt.Errorf("mount %d MiB at %q: %w", mib, dir, err)
	}
	return nil
}

// unmount takes the file system away, also from under a process that still ends.
func unmount(dir string) error {
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %q: %w", dir, err)
	}
	return nil
}

// fillAndFree takes all there is of the disk, keeps it for some seconds and gives it back,
// until ctx ends.
func (t *trial) fillAndFree(ctx context.Context) {
	name := filepath.Join(t.dir, "data", "ballast")
	pause := func(least, most time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(least + rand.N(most-least)):
		}
	}
	for block := make([]byte, 1<<20); ctx.Err() == nil; {
		pause(time.Second, 4*time.Second)
		if ctx.Err() != nil {
			return
		}
		f, err := os.Create(name)
		if err != nil {
			continue
		}
		for size := len(block); size > 0; {
			if _, err := f.Write(block[:size]); err != nil {
				size /= 2 // to the last byte
			}
		}
		t.fills.Add(1)
		// What others free meanwhile is taken too.
		for until := time.Now().Add(time.Second + rand.N(4*time.Second)); time.Now().Before(until) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			_, _ = f.Write(block) // mostly fails, as it should
		}
		_ = f.Close()
		_ = os.Remove(name)
	}
}
