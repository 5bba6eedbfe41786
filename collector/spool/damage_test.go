package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

// smallFolder is a closed spool of n records in one segment. It returns the
// disk, the segment's bytes and the offset at which each record ends.
func smallFolder(t testing.TB, n int) (*vfstest.FS, []byte, []int64) {
	t.Helper()
	disk := newDisk(1)
	s, err := open(smallConfig(LevelProcess), disk)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	for i := range n {
		if err := s.Append(context.Background(), prediction(fmt.Sprintf("id-%d", i), 20)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, s.segments[0].end)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return disk, disk.Data(join("/spool", segmentName(1))), ends
}

// folderWith is the folder with other bytes in a file of it.
func folderWith(disk *vfstest.FS, name string, data []byte) *vfstest.FS {
	c := disk.After(false)
	c.Put(join("/spool", name), data)
	return c
}

// drainIDs opens the folder and returns the ids of everything in it.
func drainIDs(disk *vfstest.FS) (ids []string, st Stats, err error) {
	s, err := open(smallConfig(LevelProcess), disk)
	if err != nil {
		return nil, Stats{}, err
	}
	defer s.Close()
	s.Flush()
	for {
		b, err := nextWaiting(s)
		if b == nil {
			return ids, s.Stats(), err
		}
		for _, r := range b.Records {
			ids = append(ids, r.ID)
		}
		if err := s.Ack(context.Background(), b); err != nil {
			return ids, s.Stats(), err
		}
	}
}

// nextWaiting is the batch to store, nil where nothing waits, or no longer when the reader has
// passed damage.
func nextWaiting(s *Spool) (*collector.Batch, error) {
	if s.Stats().Pending == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	go func() { // ends when Next has returned
		for ctx.Err() == nil {
			if s.Stats().Pending == 0 {
				cancel()
			}
			time.Sleep(50 * time.Microsecond)
		}
	}()
	b, err := s.Next(ctx)
	if errors.Is(err, context.Canceled) {
		return nil, nil
	}
	return b, err
}

// keptBytes is everything that stands in .bad files.
func keptBytes(disk *vfstest.FS) int {
	n := 0
	for _, name := range disk.Names() {
		if strings.HasSuffix(name, ".bad") {
			n += len(disk.Data(name))
		}
	}
	return n
}

func TestTruncationAtEveryByte(t *testing.T) {
	disk, data, ends := smallFolder(t, 6)
	whole := 0
	for cut := range data {
		torn := folderWith(disk, segmentName(1), data[:cut])
		ids, st, err := drainIDs(torn)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		var want []string
		last := int64(headerSize)
		for i, end := range ends {
			if int64(cut) >= end {
				want, last = append(want, fmt.Sprintf("id-%d", i)), end
			}
		}
		if !slices.Equal(ids, want) {
			t.Fatalf("cut at %d: %v, want %v", cut, ids, want)
		}
		if tail := cut - int(last); tail > 0 && (st.BadBytes != uint64(tail) || st.BadStretches != 1) {
			t.Fatalf("cut at %d: %d bytes in %d stretches counted, want %d in 1", cut, st.BadBytes, st.BadStretches, tail)
		}
		if tail := cut - int(last); len(want) > 0 && keptBytes(torn) != max(tail, 0) {
			t.Fatalf("cut at %d: %d bytes kept aside, want %d", cut, keptBytes(torn), tail)
		}
		whole += len(want)
	}
	t.Logf("%d cuts, %d records before them, 0 lost, 0 doubled", len(data), whole)
}

func TestBitFlipAtEveryByte(t *testing.T) {
	disk, data, ends := smallFolder(t, 6)
	flips, whole := 0, 0
	for at := range data {
		for _, bits := range []byte{1, 0x80, 0xff} {
			flipped := slices.Clone(data)
			flipped[at] ^= bits
			bad := folderWith(disk, segmentName(1), flipped)
			ids, st, err := drainIDs(bad)
			if at == 4 && errors.Is(err, ErrVersion) && !errors.Is(err, errBadFrame) {
				continue // a newer format is left alone
			}
			if err != nil {
				t.Fatalf("byte %d: %v", at, err)
			}
			var want []string
			from := int64(headerSize)
			for i, end := range ends {
				if int64(at) < from || int64(at) >= end {
					want = append(want, fmt.Sprintf("id-%d", i))
				}
				from = end
			}
			if !slices.Equal(ids, want) {
				t.Fatalf("byte %d: %v, want %v", at, ids, want)
			}
			if at >= headerSize && (st.BadStretches != 1 || keptBytes(bad) == 0) {
				t.Fatalf("byte %d: %d stretches counted, %d bytes kept", at, st.BadStretches, keptBytes(bad))
			}
			if at >= headerSize && int64(at) < ends[4] && !bad.Has(join("/spool", segmentName(1)+".bad")) {
				t.Fatalf("byte %d: the damaged segment is gone", at)
			}
			flips++
			whole += len(want)
		}
	}
	t.Logf("%d bytes changed, %d records elsewhere, 0 lost, 0 doubled", flips, whole)
}

// Damage in a sealed segment is found when it is read, not at the start.
func TestDamageInAnOlderSegment(t *testing.T) {
	disk := newDisk(1)
	s, err := open(smallConfig(LevelProcess), disk)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	for range 30 {
		if err := w.append(s, 9000); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := segmentName(2)
	data := slices.Clone(disk.Data(join("/spool", name)))
	data[headerSize+9000+500] ^= 4 // in its second record
	bad := folderWith(disk, name, data)
	ids, st, err := drainIDs(bad)
	if err != nil || len(ids) != 29 || st.BadStretches != 1 {
		t.Fatalf("%d records, %+v, %v", len(ids), st, err)
	}
	if kept := bad.Data(join("/spool", name+".bad")); !slices.Equal(kept, data) {
		t.Error("the damaged segment was not kept as it is")
	}
	short := folderWith(disk, name, data[:headerSize+9000])
	if ids, st, err := drainIDs(short); err != nil || len(ids) >= 30 || st.BadBytes == 0 {
		t.Errorf("a segment cut short: %d records, %+v, %v", len(ids), st, err)
	}
}

func TestDamagedPlanKeepsItsToken(t *testing.T) {
	disk := newDisk(1)
	cfg := smallConfig(LevelProcess)
	s, err := open(cfg, disk)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	for range 3 {
		if err := w.append(s, 100); err != nil {
			t.Fatal(err)
		}
	}
	s.Flush()
	b, err := s.Next(t.Context())
	if err != nil || len(b.Records) != 3 {
		t.Fatalf("%+v, %v", b, err)
	}
	_ = s.Close()
	data := slices.Clone(disk.Data(join("/spool", segmentName(1))))
	data[headerSize+60] ^= 1
	s, err = open(cfg, folderWith(disk, segmentName(1), data))
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Next(t.Context())
	if err != nil || again.Token != b.Token || len(again.Records) != 2 {
		t.Fatalf("token %s with %d records, %v; want %s with 2", again.Token, len(again.Records), err, b.Token)
	}
	_ = s.Close()
}

func TestDamagedCursor(t *testing.T) {
	disk, _, _ := smallFolder(t, 5)
	whole := disk.Data(join("/spool", cursorName))
	for at := range whole {
		flipped := slices.Clone(whole)
		flipped[at] ^= 0x40
		bad := folderWith(disk, cursorName, flipped)
		ids, _, err := drainIDs(bad)
		if errors.Is(err, ErrVersion) && at%cursorSlot == 4 {
			continue
		}
		// Only one slot is written so far: it may be read or not, and either way
		// nothing is lost.
		if err != nil || len(ids) != 5 {
			t.Fatalf("byte %d: %d records, %v", at, len(ids), err)
		}
	}
	torn := folderWith(disk, cursorName, []byte("no cursor at all"))
	if ids, st, err := drainIDs(torn); err != nil || len(ids) != 5 || st.BadStretches != 1 || keptBytes(torn) == 0 {
		t.Errorf("%d records, %+v, %v", len(ids), st, err)
	}
}

func TestNewerFormatsAreLeftAlone(t *testing.T) {
	disk, data, _ := smallFolder(t, 2)
	header := slices.Clone(data)
	header[4] = formatVersion + 1
	f, n, err := parseFrame(data[headerSize:])
	if err != nil {
		t.Fatal(err)
	}
	frameOf := slices.Clone(data)
	b := frameOf[headerSize : headerSize+n]
	b[2] = formatVersion + 1
	copy(b[12:16], appendFrame(nil, f.kind, f.version, sumOf(f.payload), nil)[12:16])
	sealFrame(b, f.seq, 0)
	cur := slices.Clone(disk.Data(join("/spool", cursorName)))
	cur[4], cur[cursorSlot+4] = formatVersion+1, formatVersion+1
	for what, c := range map[string]*vfstest.FS{
		"segment": folderWith(disk, segmentName(1), header), "frame": folderWith(disk, segmentName(1), frameOf), "cursor": folderWith(disk, cursorName, cur),
	} {
		before := len(c.Names())
		_, _, err := drainIDs(c)
		if what == "cursor" && len(disk.Data(join("/spool", cursorName))) < 2*cursorSlot {
			t.Fatal("the cursor has one slot only")
		}
		if !errors.Is(err, ErrVersion) || strings.Contains(err.Error(), "corrupt") || len(c.Names()) != before {
			t.Errorf("%s of a newer format: %v, %d files of %d left", what, err, len(c.Names()), before)
		}
	}
}

func sumOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func FuzzRecover(f *testing.F) {
	disk, data, _ := smallFolder(f, 3)
	cur := disk.Data(join("/spool", cursorName))
	f.Add(data, cur[:cursorSize])
	f.Add(data[:len(data)-3], []byte{})
	f.Add([]byte("PLSG"), cur)
	planned := &cursor{acked: collector.Position{Segment: 1, Offset: 48}, plan: &plan{segment: 1, from: 48, to: 1 << 40, sum: 7}}
	f.Add(data, planned.encode())
	f.Fuzz(func(t *testing.T, segment, cursorBytes []byte) {
		m := newDisk(1)
		for name, b := range map[string][]byte{segmentName(1): segment, cursorName: cursorBytes} {
			m.Put(join("/spool", name), b)
		}
		_, _, err := drainIDs(m)
		if err != nil && !errors.Is(err, ErrVersion) {
			t.Fatalf("%v", err)
		}
	})
}

// TestRemovedUnderARunningServer: what is appended after the spool's files were
// removed is refused, or goes to a file that is there; it is never written to
// nowhere and acknowledged.
func TestRemovedUnderARunningServer(t *testing.T) {
	for name, c := range map[string]struct {
		remove  func(dir string) error
		refused bool
	}{
		"the segment": {func(dir string) error {
			files, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
			for _, f := range files {
				err = errors.Join(err, os.Remove(f))
			}
			return err
		}, false},
		"the folder": {os.RemoveAll, true},
	} {
		cfg := realConfig(t)
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Append(t.Context(), prediction("one", 20)); err != nil {
			t.Fatal(err)
		}
		if err := c.remove(cfg.Dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * linkedEvery)
		err = s.Append(t.Context(), prediction("two", 20))
		if c.refused {
			if !errors.Is(err, errNotOurs) || !s.Stats().Full {
				t.Errorf("%s: %v, full %t", name, err, s.Stats().Full)
			}
		} else {
			found, ferr := s.Find("two")
			if err != nil || ferr != nil || len(found) != 1 {
				t.Errorf("%s: %v, found %d (%v)", name, err, len(found), ferr)
			}
		}
		_ = s.Close()
	}
}

// TestLostCursorIsToldOn: what is in the folder when a cursor is lost may have been
// delivered under a node id that nobody knows any more, and that is said of each batch of
// it, also after further starts, and of nothing that comes later.
func TestLostCursorIsToldOn(t *testing.T) {
	disk, _, _ := smallFolder(t, 3)
	lost := folderWith(disk, cursorName, []byte("no cursor at all"))
	s, err := open(smallConfig(LevelProcess), lost)
	if err != nil {
		t.Fatal(err)
	}
	if b := next(t, s); !b.Again || len(b.Records) != 3 {
		t.Errorf("%+v", b)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = open(smallConfig(LevelProcess), lost); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), prediction("later", 20)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		b := next(t, s)
		if b.Again != want {
			t.Errorf("again %t, want %t: %+v", b.Again, want, b)
		}
		if err := s.Ack(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fresh := newDisk(1)
	if s, err = open(smallConfig(LevelProcess), fresh); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), prediction("first", 20)); err != nil {
		t.Fatal(err)
	}
	if b := next(t, s); b.Again {
		t.Error("a new folder has lost nothing")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMendedDamageIsTold: a header or a cursor that is mended at a start is named in the
// log, and a folder that is whole is not.
func TestMendedDamageIsTold(t *testing.T) {
	disk, data, _ := smallFolder(t, 3)
	flip := func(b []byte, at int) []byte {
		b = slices.Clone(b)
		b[at] ^= 0xff
		return b
	}
	cursorData := disk.Data(join("/spool", cursorName))
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{segmentName(1), data, ""},
		{segmentName(1), flip(data, 9), "file=" + segmentName(1)},
		{cursorName, flip(cursorData, 20), "file=" + cursorName},
		{cursorName, flip(cursorData, cursorSlot+20), "kept=" + join("/spool", cursorName)},
	} {
		var log bytes.Buffer
		cfg := smallConfig(LevelProcess)
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s, err := open(cfg, folderWith(disk, c.name, c.data))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if c.want == "" && log.Len() > 0 || !strings.Contains(log.String(), c.want) {
			t.Errorf("%s: the log says %q, want %q", c.name, log.String(), c.want)
		}
	}
}

// TestEachDamageIsTold: three records of a segment are damaged while the spool is open, and
// the reader meets one after the other.
func TestEachDamageIsTold(t *testing.T) {
	var told []string
	cfg := realConfig(t)
	cfg.Lost = func(what string) { told = append(told, what) }
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	for i := range 9 {
		if err := s.Append(t.Context(), prediction(fmt.Sprint("id-", i), 20)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, s.segments[0].end)
	}
	f, err := os.OpenFile(filepath.Join(cfg.Dir, segmentName(1)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range []int{1, 4, 7} {
		if _, err := f.WriteAt([]byte{0xff, 0xff, 0xff}, ends[record]-5); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s.Flush()
	b, err := s.Next(t.Context())
	got := 0
	for ; err == nil && len(b.Records) > 0; b, err = s.Next(t.Context()) {
		got += len(b.Records)
		if err := s.Ack(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if got == 6 {
			break
		}
		s.Flush()
	}
	if err != nil || got != 6 || len(told) != 3 || s.Stats().BadStretches != 3 {
		t.Errorf("%d records, told %q, %d stretches, %v", got, told, s.Stats().BadStretches, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamageAtTheEndIsAcknowledged: where nothing good is behind damage, no batch is either whose
// acknowledgement would pass it. The reader does, once all before it is stored: nothing waits then,
// and a spool that ends there goes on.
func TestDamageAtTheEndIsAcknowledged(t *testing.T) {
	for _, level := range []Level{LevelProcess, LevelMachine} {
		disk, cfg := newDisk(1), smallConfig(level)
		s, err := open(cfg, disk)
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t)
		var ends []int64
		for range 4 {
			if err := w.append(s, 20); err != nil {
				t.Fatal(err)
			}
			ends = append(ends, s.segments[0].end)
		}
		spoil(t, s, ends[1]+frameSize, ends[2]+frameSize) // the last two
		s.Flush()
		b := next(t, s)
		if len(b.Records) != 2 {
			t.Fatalf("%s: %d records before the damage", level, len(b.Records))
		}
		if again := next(t, s); again != b || s.cursor.acked.Offset > b.From.Offset {
			t.Errorf("%s: acknowledged up to %+v with a batch on its way: %+v", level, s.cursor.acked, again)
		}
		killed := disk.After(false)
		w.insert(b)
		if err := s.Ack(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if b, err := nextWaiting(s); b != nil || err != nil {
			t.Fatalf("%s: %+v, %v", level, b, err)
		}
		if st := s.Stats(); st.Pending != 0 || st.Lag != 0 || st.Acked != st.Appended || st.BadStretches != 1 {
			t.Errorf("%s: all is stored, and %+v", level, st)
		}
		passed := disk.After(false)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for what, disk := range map[string]*vfstest.FS{"batch": killed, "damage": passed} {
			s, err := open(cfg, disk)
			if err != nil {
				t.Fatal(err)
			}
			if waits := s.Stats().Pending > 0; waits != (disk == killed) {
				t.Errorf("%s: killed before the %s is acknowledged: %+v", level, what, s.Stats())
			}
			if err := w.drain(s); err != nil {
				t.Fatal(err)
			}
			if len(w.store) != 1 {
				t.Errorf("%s: killed before the %s is acknowledged: %d batches", level, what, len(w.store))
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// spoil changes a byte of the only segment at each offset, as a disk may.
func spoil(t *testing.T, s *Spool, at ...int64) {
	t.Helper()
	f, err := s.fs.Open(s.path(s.segments[0]), false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, o := range at {
		if _, err := f.WriteAt([]byte{0xff}, o); err != nil {
			t.Fatal(err)
		}
	}
}
