package spool

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pellucid/pellucid/collector/vfs"
)

// Level says what has happened when Append returns nil.
type Level string

// The levels.
const (
	// LevelProcess: written to the file with one write(2). It survives the death
	// of any process, not of the machine.
	LevelProcess Level = "process"
	// LevelMachine: fdatasync done, shared by all that wait (group commit). It
	// survives a power cut.
	LevelMachine Level = "machine"
	// LevelNone: in memory; written within about 50 ms.
	LevelNone Level = "none"
)

// Config says where a spool lives and how much it may take. Zero values mean
// the stated defaults.
type Config struct {
	// Dir is the folder, made if need be. Required.
	Dir string
	// Level is LevelProcess by default.
	Level Level
	// SegmentBytes is the size of a segment, 64 MiB by default. A smaller one
	// is made when the disk has no room for that, and a quarter of MaxBytes is the
	// most: a segment's room is free when all of it is acknowledged, and a full spool is
	// to go on while it is drained.
	SegmentBytes int64
	// MaxBytes bounds the segments together; 0 means only by the disk.
	MaxBytes int64
	// MinFreeBytes is left free on the disk, 16 MiB by default; negative for none.
	MinFreeBytes int64
	// MaxRecordBytes bounds one payload, 64 MiB by default, 256 MiB at most.
	MaxRecordBytes int
	// FullTimeout is how long Append waits for room, or for a disk that does not
	// answer, before collector.ErrFull: 250 ms by default. Once the spool has
	// been full for that long Append fails at once.
	FullTimeout time.Duration
	// A batch is cut at BatchBytes (16 MiB by default), BatchRows (50,000) or
	// when its first record has waited BatchAge (1 s), and at the end of a segment.
	BatchBytes int
	BatchRows  int
	BatchAge   time.Duration
	// KeepFor is how long LevelMachine keeps a segment of which all is acknowledged, for
	// the case of a power cut: 15 minutes by default, negative for not at all.
	KeepFor time.Duration
	// BootIDPath is the file that tells one run of the machine from another,
	// /proc/sys/kernel/random/boot_id by default. Where it cannot be read every start
	// counts as one after a power cut.
	BootIDPath string
	// Now is the clock on the wall, time.Now by default: of what is written down, and of
	// what is compared with that. It may be set at any time, so what is measured inside
	// one process does not rest on it.
	Now func() time.Time
	// IndexRecords bounds the index of records that are not yet acknowledged, at 24 bytes
	// each: 1,048,576 by default. Of 8 times as many the ids are known, at 5 to 11 bytes: a
	// segment beyond the index is read when it has the one that is looked for. Find reads
	// whatever is beyond that too.
	IndexRecords int
	// Logger is told of damage and failures; slog.Default by default.
	Logger *slog.Logger
	// Lost is told of records that are lost for good, in the same words each time that a
	// start finds them so. It must not use the spool. nil tells nobody.
	Lost func(what string)
}

// Smallest useful sizes.
const minSegment = 64 << 10

func (c Config) applyDefaultsAndValidate() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("spool: no folder given")
	}
	if c.Level == "" {
		c.Level = LevelProcess
	}
	if c.Level != LevelProcess && c.Level != LevelMachine && c.Level != LevelNone {
		return c, fmt.Errorf("spool: unknown durability level %q (process, machine or none)", c.Level)
	}
	setDefault(&c.SegmentBytes, 64<<20)
	setDefault(&c.MinFreeBytes, 16<<20)
	c.MinFreeBytes = max(c.MinFreeBytes, 0)
	setDefault(&c.MaxRecordBytes, 64<<20)
	setDefault(&c.FullTimeout, 250*time.Millisecond)
	setDefault(&c.BatchBytes, 16<<20)
	setDefault(&c.BatchRows, 50_000)
	setDefault(&c.BatchAge, time.Second)
	setDefault(&c.IndexRecords, 1<<20)
	setDefault(&c.KeepFor, 15*time.Minute)
	c.BootIDPath = cmp.Or(c.BootIDPath, vfs.BootIDPath)
	if c.MaxBytes >= minSegment && c.SegmentBytes >= minSegment {
		c.SegmentBytes = min(c.SegmentBytes, max(c.MaxBytes/4, minSegment))
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Lost == nil {
		c.Lost = func(string) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case c.SegmentBytes < minSegment || c.SegmentBytes > 1<<31:
		return c, fmt.Errorf("spool: segment of %d bytes is not between 64 KiB and 2 GiB", c.SegmentBytes)
	case c.MaxBytes < 0 || c.MaxBytes > 0 && c.MaxBytes < minSegment:
		return c, fmt.Errorf("spool: maximum of %d bytes is below one segment of 64 KiB", c.MaxBytes)
	case c.MaxRecordBytes < 0 || c.MaxRecordBytes > frameLimit:
		return c, fmt.Errorf("spool: record limit of %d bytes is not between 0 and 256 MiB", c.MaxRecordBytes)
	case c.FullTimeout < 0 || c.BatchBytes < 0 || c.BatchRows < 0 || c.BatchAge < 0 || c.IndexRecords < 0:
		return c, errors.New("spool: negative limit")
	}
	return c, nil
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
