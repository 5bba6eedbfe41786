package spool

import (
	"fmt"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

// manySegments is a spool of three records in each of n segments, as kills leave it, of which
// the first acked records are acknowledged. It is closed where the last process ended well.
func manySegments(t testing.TB, n, acked int, closed bool) *vfstest.FS {
	t.Helper()
	disk := newDisk(1)
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
		disk = disk.After(false)
	}
	return disk
}

func verifyOn(t testing.TB, disk *vfstest.FS) *Report {
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
					if !disk.Has(name) {
						t.Fatalf("segment %d is not there to be lost", n)
					}
					disk.Drop(name)
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
	disk.Drop(join("/spool", segmentName(3)))
	if r := verifyOn(t, disk); r.OK() || len(r.Missing) != 1 || r.Missing[0].Segment != 3 {
		t.Errorf("%+v, %q", r.Missing, r.Problems())
	}
	disk = manySegments(t, 1, 3, true)
	if r := verifyOn(t, disk); !r.OK() {
		t.Errorf("an empty spool: %q", r.Problems())
	}
}

// frameEnds are the places of a segment where a frame ends, its header's end first.
func frameEnds(t testing.TB, data []byte) []int {
	t.Helper()
	ends := []int{headerSize}
	err := scan(data[headerSize:], headerSize, func(st stretch) error {
		ends = append(ends, int(st.to))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ends
}

// TestCutIsNotATornTail cuts segments at every byte, and frames out of their middle. What a
// crash can have made is a tail, all else is damage.
func TestCutIsNotATornTail(t *testing.T) {
	for _, c := range []struct {
		name    string
		number  uint64
		closed  bool
		acked   int
		unknown int // cuts at this record's end and behind it are nobody's to tell from a crash
	}{
		{name: "sealed", number: 2, unknown: 3},
		{name: "closed", number: 3, closed: true, unknown: 3},
		{name: "the newest of a process that was killed", number: 3, unknown: 0},
		{name: "of which two records are stored", number: 3, acked: 8, unknown: 3}, // the cursor knows that the third was there
		{name: "of which the first is sent", number: 3, acked: 6, unknown: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := manySegments(t, 3, c.acked, c.closed)
			if c.name == "of which the first is sent" {
				disk = manySegments(t, 2, 0, false)
				cfg := smallConfig(LevelProcess)
				cfg.BatchRows = 1
				s, err := open(cfg, disk)
				if err != nil {
					t.Fatal(err)
				}
				w := newWorld(t)
				if err := w.drain(s); err != nil {
					t.Fatal(err)
				}
				if err := w.append(s, 20); err != nil {
					t.Fatal(err)
				}
				next(t, s)
				for range 2 {
					if err := w.append(s, 20); err != nil {
						t.Fatal(err)
					}
				}
				disk = disk.After(false)
			}
			name := segmentName(c.number)
			data := disk.Data(join("/spool", name))
			ends := frameEnds(t, data)
			if len(ends) != 4 || ends[3] != len(data) {
				t.Fatalf("frames end at %v of %d bytes", ends, len(data))
			}
			if r := verifyOn(t, disk); !r.OK() {
				t.Fatalf("whole: %q", r.Problems())
			}
			for cut := range data {
				r := verifyOn(t, folderWith(disk, name, data[:cut]))
				mine := r.Segments[len(r.Segments)-1]
				if c.number == 2 {
					mine = r.Segments[1]
				}
				if want := cut >= headerSize && cut >= ends[c.unknown]; r.OK() != want {
					t.Errorf("cut at %d of %v: ok %t, want %t: %q", cut, ends, r.OK(), want, r.Problems())
				}
				if r.OK() {
					good := ends[0]
					for _, end := range ends {
						if end <= cut {
							good = end
						}
					}
					if mine.Tail != int64(cut-good) {
						t.Errorf("cut at %d: a tail of %d", cut, mine.Tail)
					}
				} else if mine.Tail != 0 {
					t.Errorf("cut at %d: damage, and a tail of %d", cut, mine.Tail)
				}
			}
			for i := 1; i < 3; i++ { // frames gone, and a half of one
				for _, to := range []int{ends[i], (ends[i] + ends[i-1]) / 2} {
					if r := verifyOn(t, folderWith(disk, name, append(slices.Clone(data[:ends[i-1]]), data[to:]...))); r.OK() {
						t.Errorf("bytes %d to %d are gone, and all is well", ends[i-1], to)
					}
				}
			}
		})
	}
}

// TestCutOfOpenSegmentIsMissed: nobody closed the spool, and the cursor knows of records that
// the newest segment has no more.
func TestCutOfOpenSegmentIsMissed(t *testing.T) {
	disk := manySegments(t, 3, 7, false) // of the last segment the first is stored
	name := segmentName(3)
	data := disk.Data(join("/spool", name))
	ends := frameEnds(t, data)
	for cut := ends[0]; cut <= len(data); cut++ {
		ids, st, err := drainIDs(folderWith(disk, name, data[:cut]))
		var want []string
		for i := 7; i < 9 && ends[i-5] <= cut; i++ {
			want = append(want, fmt.Sprintf("id-%d", i))
		}
		if err != nil || !slices.Equal(ids, want) || (st.Missing == 1) != (cut < len(data)) {
			t.Errorf("cut at %d: %v, %d missed, %v", cut, ids, st.Missing, err)
		}
	}
}
