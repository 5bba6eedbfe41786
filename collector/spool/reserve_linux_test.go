package spool

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReserveOfAKilledProcess: what a process that was killed had reserved behind the
// end of its segment goes back to the disk at the next start.
func TestReserveOfAKilledProcess(t *testing.T) {
	cfg := realConfig(t)
	s := mustOpen(t, cfg)
	if err := s.Append(context.Background(), prediction("id-1", 20)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.Dir, segmentName(1))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	blocks := func() int64 {
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			t.Fatalf("%T", info.Sys())
		}
		return st.Blocks * 512
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 8<<20); err != nil {
		t.Skipf("this disk reserves nothing: %v", err)
	}
	if blocks() < 8<<20 {
		t.Skipf("this disk tells of no reserve: %d bytes", blocks())
	}
	s = mustOpen(t, cfg)
	if got := blocks(); got > 1<<20 {
		t.Errorf("%d bytes are still reserved", got)
	}
	if b := next(t, s); len(b.Records) != 1 {
		t.Errorf("%d records", len(b.Records))
	}
}
