package spool

import (
	"fmt"
	"slices"
	"testing"
)

// manySegments is a spool of three records in each of n segments, as kills leave it, of which
// the first acked records are acknowledged. It is closed where the last process ended well.
func manySegments(t testing.TB, n, acked int, closed bool) *memFS {
	t.Helper()
	disk := newMemFS(1)
	cfg := smallConfig(LevelProcess)
	cfg.BatchRows = 1
	for i := range n {
		s, err := open(cfg, disk)
		if err != nil {
			t.Fatal(err)
		}
		for k := range 3 {
			if err := s.Append(t.Context(), prediction(fmt.Sprintf("id-%d", 3*i+k), 20)); err != nil {
				t.Fatal(err)
			}
		}
		for k := 0; i+1 == n && k < acked; k++ {
			if err := s.Ack(t.Context(), next(t, s)); err != nil {
				t.Fatal(err)
			}
		}
		if closed {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		disk = disk.afterCrash(false)
	}
	return disk
}

func verifyOn(t testing.TB, disk *memFS) *Report {
	t.Helper()
	r, err := walk(disk, "/spool", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestMissingInTheMiddle: segments are deleted between others, or before them.
func TestMissingInTheMiddle(t *testing.T) {
	for _, c := range []struct {
		name   string
		acked  int
		gone   []uint64
		missed int
	}{
		{name: "none", gone: nil},
		{name: "one", gone: []uint64{3}, missed: 1},
		{name: "two in a row", gone: []uint64{2, 3}, missed: 1},
		{name: "two apart", gone: []uint64{2, 4}, missed: 2},
		{name: "the first", gone: []uint64{1}, missed: 1},
		{name: "the first, a part of which is stored", acked: 2, gone: []uint64{1}, missed: 1},
		{name: "stored by rights", acked: 7},
		{name: "the rest of one", acked: 7, gone: []uint64{3}, missed: 1},
	} {
		for _, closed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/closed=%t", c.name, closed), func(t *testing.T) {
				disk := manySegments(t, 5, c.acked, closed)
				want := []string{}
				for i := c.acked; i < 15; i++ {
					if !slices.Contains(c.gone, uint64(i/3+1)) {
						want = append(want, fmt.Sprintf("id-%d", i))
					}
				}
				for _, n := range c.gone {
					name := join("/spool", segmentName(n))
					if disk.now[name] == nil {
						t.Fatalf("segment %d is not there to be lost", n)
					}
					delete(disk.now, name)
				}
				r := verifyOn(t, disk)
				if len(r.Missing) != c.missed || r.OK() != (c.missed == 0) {
					t.Errorf("verify: %d missing, %q", len(r.Missing), r.Problems())
				}
				ids, st, err := drainIDs(disk)
				if err != nil || !slices.Equal(ids, want) {
					t.Errorf("%v, want %v (%v)", ids, want, err)
				}
				if st.Missing != uint64(c.missed) {
					t.Errorf("%d missed, want %d", st.Missing, c.missed)
				}
				if ids, st, err = drainIDs(disk); err != nil || len(ids) > 0 || st.Missing != 0 {
					t.Errorf("once they are stored: %v, %d missed, %v", ids, st.Missing, err)
				}
				if r := verifyOn(t, disk); !r.OK() {
					t.Errorf("once they are stored: %q", r.Problems())
				}
			})
		}
	}
}

// TestMissingNewestIsVerified: what a start would tell, verify tells before it.
func TestMissingNewestIsVerified(t *testing.T) {
	disk := manySegments(t, 3, 0, true)
	delete(disk.now, join("/spool", segmentName(3)))
	if r := verifyOn(t, disk); r.OK() || len(r.Missing) != 1 || r.Missing[0].Segment != 3 {
		t.Errorf("%+v, %q", r.Missing, r.Problems())
	}
	disk = manySegments(t, 1, 3, true)
	if r := verifyOn(t, disk); !r.OK() {
		t.Errorf("an empty spool: %q", r.Problems())
	}
}
