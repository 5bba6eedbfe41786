package spool

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pellucid/pellucid/collector/vfs"
)

// countingFS counts the writes to segments.
type countingFS struct {
	vfs.FS
	writes *atomic.Int64
}

func (c countingFS) Create(name string) (vfs.File, error) {
	f, err := c.FS.Create(name)
	return countingFile{f, c.writes}, err
}

type countingFile struct {
	vfs.File
	writes *atomic.Int64
}

func (c countingFile) WriteAt(p []byte, off int64) (int, error) {
	c.writes.Add(1)
	return c.File.WriteAt(p, off)
}

// TestAppendsThatAreReadyShareAWrite has one processor: without waiting for company each
// record would have a write of its own.
func TestAppendsThatAreReadyShareAWrite(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var writes atomic.Int64
	s, err := open(realConfig(t), countingFS{vfs.OS{}, &writes})
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 8, 500
	var wg sync.WaitGroup
	for g := range writers {
		wg.Go(func() {
			for i := range each {
				if err := s.Append(t.Context(), prediction(fmt.Sprintf("w%d-%d", g, i), i)); err != nil {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if n := s.Stats().Appended; n != writers*each {
		t.Errorf("%d records of %d", n, writers*each)
	}
	if writes.Load() > writers*each/2 {
		t.Errorf("%d writes for %d records", writes.Load(), writers*each)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
