package embedded

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Bounds of the space that ClickHouse leaves free: a twentieth of the disk, within
// these.
const (
	leastFree = 16 << 20
	mostFree  = 256 << 20
)

const (
	// pressureEvery is how often the disk is looked at.
	pressureEvery = 250 * time.Millisecond
	// pressureMost is how long a full disk is waited out before the child is started
	// again all the same: well below the time that merged parts stay.
	pressureMost = 2 * time.Minute
)

// KeepFree is how much of the disk under dir ClickHouse leaves free: it begins no
// insert and no merge that would need it. Whoever else writes to that disk should
// leave more than that, or the engine cannot work it off.
func KeepFree(dir string) int64 {
	size, _ := disk(dir)
	return max(leastFree, min(mostFree, size/20))
}

// roomToBegin refuses a first start on a nearly full disk: tables are made then, and
// one whose definition did not fit is empty and keeps the server from ever starting.
// A folder that has been used is started on any disk.
func roomToBegin(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "data", "store")); err == nil {
		return nil
	}
	if size, free := disk(dir); size > 0 && free < leastFree {
		return fmt.Errorf("the disk of %q has %d bytes free, and a new ClickHouse needs %d to make its tables", dir, free, int64(leastFree))
	}
	return nil
}

// replacing begins the names that the engine has for tables that take another's name when they
// are filled.
const replacing = "_tmp_replace_"

// dropCut removes the definitions of tables that may go and that a full disk cut: the
// engine ends each by a line feed. It removes what is left of their rows itself.
func (e *Engine) dropCut() error {
	files, err := filepath.Glob(filepath.Join(e.cfg.Dir, "data", "store", "*", "*", "*.sql"))
	if err != nil {
		return fmt.Errorf("list the engine's tables: %w", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".sql")
		if !strings.HasPrefix(name, replacing) && (e.cfg.Spare == nil || !e.cfg.Spare(name)) {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read a table's definition: %w", err)
		}
		if bytes.HasSuffix(text, []byte("\n")) {
			continue
		}
		e.cfg.Log.Warn("a table that was needed for a moment only was not written whole and is removed", "file", file, "bytes", len(text))
		if err := removed(file); err != nil {
			return err
		}
	}
	return nil
}

// watchDisk sends on full once a disk that was full has room again, or has been
// full for long: parts written meanwhile may be damaged, which the server finds out
// only when it starts. It ends with stop.
func (e *Engine) watchDisk(full chan<- struct{}) {
	dir, stop := e.cfg.Dir, e.stop
	low := KeepFree(dir) / 4
	tick := time.NewTicker(pressureEvery)
	defer tick.Stop()
	var since time.Time
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		size, free := disk(dir)
		if size > 0 && free < 4*low {
			e.nearlyFull.Store(time.Now().UnixNano())
		}
		switch {
		case size == 0: // it cannot be told
		case free < low && since.IsZero():
			since = time.Now()
		case !since.IsZero() && (free > 2*low || time.Since(since) > pressureMost):
			since = time.Time{}
			select {
			case full <- struct{}{}:
			case <-stop:
				return
			}
		}
	}
}

// NearlyFull reports whether the disk was seen nearly full after a time: what was
// written since may be damaged.
func (e *Engine) NearlyFull(after time.Time) bool {
	return e.nearlyFull.Load() > after.Add(-2*pressureEvery).UnixNano()
}
