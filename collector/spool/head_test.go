package spool

import (
	"context"
	"fmt"
	"slices"
	"testing"
)

// TestNewestSegmentIsMissed: the only segment of a spool is deleted, or cut where a record
// ends, while nobody has it open.
func TestNewestSegmentIsMissed(t *testing.T) {
	for _, c := range []struct {
		name                 string
		records, acked       int
		closed, keep, missed bool
	}{
		{name: "all of it is lost", records: 5, closed: true, missed: true},
		{name: "of a process that was killed", records: 5, missed: true},
		{name: "a part of it is lost", records: 5, acked: 3, closed: true, missed: true},
		{name: "its last records are cut off", records: 5, closed: true, keep: true, missed: true},
		{name: "all of it is stored", records: 5, acked: 5, closed: true},
		{name: "nothing was in it", closed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := newDisk(1)
			s, err := open(smallConfig(LevelProcess), disk)
			if err != nil {
				t.Fatal(err)
			}
			second := int64(0)
			for i := range c.records {
				if err := s.Append(context.Background(), prediction(fmt.Sprint("id-", i), 20)); err != nil {
					t.Fatal(err)
				}
				if i == 1 {
					second = s.segments[0].end
				}
				if i+1 == c.acked {
					if err := newWorld(t).drain(s); err != nil {
						t.Fatal(err)
					}
				}
			}
			if c.closed {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			disk = disk.After(false)
			name := join("/spool", segmentName(1))
			if c.keep {
				disk.Put(name, disk.Data(name)[:second])
			} else {
				disk.Drop(name)
			}
			for start, want := range []bool{c.missed, false} { // it is told once
				s, err := open(smallConfig(LevelProcess), disk)
				if err != nil {
					t.Fatal(err)
				}
				if got := s.Stats().Missing > 0; got != want {
					t.Errorf("start %d: missed %t, want %t", start, got, want)
				}
				if start == 0 && c.records > 0 && s.active.number < 2 {
					t.Error("the number of a segment is used again")
				}
				if err := s.Append(context.Background(), prediction(fmt.Sprint("after-", start), 20)); err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			ids, _, err := drainIDs(disk)
			want := []string{"after-0", "after-1"}
			if c.keep {
				want = slices.Insert(want, 0, "id-0", "id-1")
			}
			if err != nil || !slices.Equal(ids, want) {
				t.Errorf("%v, want %v (%v)", ids, want, err)
			}
		})
	}
}

func TestDamagedHead(t *testing.T) {
	disk, _, _ := smallFolder(t, 3)
	whole := disk.Data(join("/spool", headName))
	for at := range whole {
		flipped := slices.Clone(whole)
		flipped[at] ^= 1
		ids, st, err := drainIDs(folderWith(disk, headName, flipped))
		if err != nil || len(ids) != 3 || st.Missing != 0 {
			t.Fatalf("byte %d: %v, %d missed, %v", at, ids, st.Missing, err)
		}
	}
}
