package spool

import (
	"slices"
	"testing"
)

// TestDamageInASyncedWrite is told as damage also where all that lies behind it was written with it:
// the mark tells that it was synced, and so does a later write.
func TestDamageInASyncedWrite(t *testing.T) {
	for _, c := range []struct {
		name         string
		writes       int
		marked, told bool
	}{
		{"marked", 1, true, true},
		{"a later write", 2, false, true},
		{"nothing tells it from a write that was torn", 1, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			disk := newDisk(1)
			thisBoot(disk, "boot-0")
			cfg := smallConfig(LevelMachine)
			cfg.FullTimeout = 1 << 40 // nobody comes late
			s, err := open(cfg, disk)
			if err != nil {
				t.Fatal(err)
			}
			for range c.writes {
				if err := w.appendTogether(s, []int{700, 800, 900, 1000}); err != nil {
					t.Fatal(err)
				}
			}
			disk = disk.After(false) // killed
			data := slices.Clone(disk.Data(join("/spool", segmentName(1))))
			data[headerSize+frameSize+10] ^= 1
			disk = folderWith(disk, segmentName(1), data)
			thisBoot(disk, "boot-0")
			if !c.marked {
				head := slices.Clone(disk.Data(join("/spool", headName)))
				clear(head[markAt:])
				disk = folderWith(disk, headName, head)
				thisBoot(disk, "boot-0")
			}
			if r, err := walk(disk, "/spool", nil); err != nil || r.OK() == c.told {
				t.Errorf("verify says %q (%v)", r.Problems(), err)
			}
			var told []string
			cfg.Lost = func(what string) { told = append(told, what) }
			if s, err = open(cfg, disk); err != nil {
				t.Fatal(err)
			}
			if (len(told) > 0) != c.told {
				t.Errorf("told is %q", told)
			}
			w.acked = map[string]bool{} // but for the damaged one and, where it counts as torn, those behind it
			if err := w.drain(s); err != nil {
				t.Fatal(err)
			}
			w.check()
			stored := 0
			for _, ids := range w.store {
				stored += len(ids)
			}
			if want := map[bool]int{true: 4*c.writes - 1, false: 0}[c.told]; stored != want {
				t.Errorf("%d records are stored, want %d", stored, want)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
