package spool

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/collector/vfs"
	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

// thisBoot says which run of the machine it is, where a start and verify look by default.
func thisBoot(disk *vfstest.FS, id string) { disk.Put(vfs.BootIDPath, []byte(id+"\n")) }

// killedWith returns the disk of a process that appended n records and was killed, and where
// each ends.
func killedWith(t *testing.T, level Level, n int) (disk *vfstest.FS, ends []int64) {
	t.Helper()
	disk = newDisk(3)
	thisBoot(disk, "boot-0")
	s, err := open(smallConfig(level), disk)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := s.Append(context.Background(), prediction(fmt.Sprint("id-", i), 20)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, s.segments[0].end)
	}
	return disk.After(false), ends
}

// missedAt opens the folder and returns what is missed of it, and what is told for good.
func missedAt(t *testing.T, level Level, disk *vfstest.FS) (missed uint64, told []string) {
	t.Helper()
	cfg := smallConfig(level)
	cfg.Lost = func(what string) { told = append(told, what) }
	s, err := open(cfg, disk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.Stats().Missing, told
}

// TestCutAfterKillIsMissed: the newest segment of a process that was killed is cut at every
// byte, or garbled from there on. Nothing was closed, and the cursor knows of nothing.
func TestCutAfterKillIsMissed(t *testing.T) {
	for _, level := range []Level{LevelProcess, LevelMachine} {
		disk, ends := killedWith(t, level, 4)
		name := segmentName(1)
		data := disk.Data(join("/spool", name))
		for cut := 0; cut <= len(data); cut++ {
			zeroed := slices.Clone(data)
			clear(zeroed[cut:])
			for what, damaged := range map[string][]byte{"cut": data[:cut], "zeroed": zeroed} {
				found := folderWith(disk, name, damaged)
				want := int64(cut) < ends[3]
				if slices.Equal(damaged, data) { // the last bytes are zeros
					want = false
				}
				if r := verifyOn(t, found); r.OK() == want {
					t.Errorf("%s, %s at %d: verify says %q", level, what, cut, r.Problems())
				}
				missed, told := missedAt(t, level, found)
				if (missed == 1) != want || (len(told) > 0) != want {
					t.Errorf("%s, %s at %d: %d missed, told %q", level, what, cut, missed, told)
				}
				if missed, told = missedAt(t, level, found); missed > 0 || len(told) > 0 {
					t.Errorf("%s, %s at %d: told again: %q", level, what, cut, told)
				}
			}
		}
	}
}

// TestMarkAfterPowerCut: what a power cut took at level process was never promised; what it
// left at level machine, and somebody cuts off, is missed.
func TestMarkAfterPowerCut(t *testing.T) {
	for _, c := range []struct {
		level  Level
		missed bool
	}{{LevelProcess, false}, {LevelMachine, true}} {
		disk, ends := killedWith(t, c.level, 4)
		thisBoot(disk, "boot-1")
		name := segmentName(1)
		cut := folderWith(disk, name, disk.Data(join("/spool", name))[:ends[1]])
		if r := verifyOn(t, cut); r.OK() == c.missed {
			t.Errorf("%s: verify says %q", c.level, r.Problems())
		}
		if missed, told := missedAt(t, c.level, cut); (missed > 0) != c.missed {
			t.Errorf("%s: %d missed, %q", c.level, missed, told)
		}
	}
}

// TestDamagedMark: one that cannot be read tells nothing.
func TestDamagedMark(t *testing.T) {
	disk, ends := killedWith(t, LevelProcess, 4)
	whole, name := disk.Data(join("/spool", headName)), segmentName(1)
	if len(whole) != markAt+markSize {
		t.Fatalf("a head of %d bytes", len(whole))
	}
	cut := folderWith(disk, name, disk.Data(join("/spool", name))[:ends[1]])
	for at := markAt; at < len(whole); at++ {
		flipped := slices.Clone(whole)
		flipped[at] ^= 1
		if missed, told := missedAt(t, LevelProcess, folderWith(cut, headName, flipped)); missed > 0 {
			t.Fatalf("byte %d: %q", at, told)
		}
		if missed, told := missedAt(t, LevelProcess, folderWith(cut, headName, whole[:at])); missed > 0 {
			t.Fatalf("cut at %d: %q", at, told)
		}
	}
}

// TestNotedEnd: a mark of level process holds under its own boot alone.
func TestNotedEnd(t *testing.T) {
	disk := newDisk(1)
	thisBoot(disk, "boot-0")
	s, err := open(smallConfig(LevelProcess), disk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.noteEnd(1, 100)
	if at := decodeMark(disk.Data(join("/spool", headName)), "boot-0"); at.Segment != 1 || at.Offset != 100 {
		t.Errorf("noted %+v", at)
	}
	if at := decodeMark(disk.Data(join("/spool", headName)), "boot-1"); at.Segment != 0 {
		t.Errorf("under another boot %+v", at)
	}
}
