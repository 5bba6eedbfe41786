//go:build unix

package spool

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

// ownTogether appends to a folder from many goroutines until it is killed, syncing each group,
// and prints what is refused and, now and then, how far they are. The disk is memory: a real one
// may truly have no time for them.
func ownTogether(cfg Config) int {
	disk := vfstest.New(1, cfg.Dir)
	disk.Fail = func(op, _ string) error {
		if op == "sync" {
			time.Sleep(2 * time.Millisecond)
		}
		return nil
	}
	cfg.Level, cfg.FullTimeout, cfg.KeepFor = LevelMachine, 400*time.Millisecond, time.Nanosecond
	s, err := open(cfg, disk)
	if err != nil {
		fmt.Println("refused:", err)
		return 1
	}
	for range 16 {
		go func() {
			for i := 0; ; i++ {
				if err := s.Append(context.Background(), prediction("id", 20)); err != nil {
					fmt.Println("refused:", err)
				} else if i%100 == 0 {
					fmt.Println("on")
				}
			}
		}()
	}
	select {}
}

// TestStandstill: a process that stood still (SIGSTOP, a machine that slept) takes no record for
// one that the disk had no time for: it would be refused, and stored when its turn comes.
func TestStandstill(t *testing.T) {
	t.Setenv(ownerWriters, "16")
	o := startOwner(t, t.TempDir(), "a")
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for {
			line, err := o.out.ReadString('\n')
			if err != nil {
				return
			}
			lines <- line
		}
	}()
	for range 6 {
		for n := 0; n < 3; {
			line, ok := <-lines
			switch {
			case !ok:
				t.Fatal("it has ended")
			case strings.HasPrefix(line, "refused"):
				t.Fatal(line)
			}
			n++
		}
		if err := o.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		if err := o.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.cmd.Process.Signal(os.Kill); err != nil {
		t.Fatal(err)
	}
	for line := range lines {
		if strings.HasPrefix(line, "refused") {
			t.Error(line)
		}
	}
	_ = o.cmd.Wait() // it was killed
}
