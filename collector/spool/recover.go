package spool

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// recover reads the cursor and the segments of the folder. Only the newest
// segment is read whole; of the others the next one's header says where they
// end, and damage inside them is found when they are read.
func (s *Spool) recover() error {
	names, err := vfs.Files(s.fs, s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	var numbers []uint64
	for _, name := range names {
		if n, ok := segmentNumber(name); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	if err := s.openLedger(slices.Contains(names, ledgerName)); err != nil {
		return err
	}
	last := uint64(0)
	if len(numbers) > 0 {
		last = numbers[len(numbers)-1]
	}
	if err := s.openCursor(slices.Contains(names, cursorName), last); err != nil {
		return err
	}
	s.nextSeq = max(s.cursor.nextSeq, 1)
	s.nextNumber = s.cursor.acked.Segment
	if p := s.cursor.plan; p != nil {
		s.nextNumber = max(s.nextNumber, p.segment)
	}
	s.nextNumber = max(s.nextNumber, last)
	s.boot = vfs.BootID(s.fs, s.cfg.BootIDPath)
	s.openHead(slices.Contains(names, headName))
	if err := s.miss(numbers); err != nil {
		return fmt.Errorf("look for the newest segment: %w", err)
	}
	if err := s.recoverSegments(numbers, names); err != nil {
		return err
	}
	s.forgetMark()
	s.startMarks()
	if err := s.startKeeping(last); err != nil {
		return err
	}
	return s.startReader()
}

// openCursor reads the cursor, or makes one; last is the number of the newest segment, 0
// where there is none. A cursor of which nothing can be read is set aside and everything
// on disk is delivered again, but for what the ledger knows to be acknowledged: twice is
// mended downstream, never is not.
func (s *Spool) openCursor(exists bool, last uint64) error {
	name := join(s.cfg.Dir, cursorName)
	if exists {
		f, err := s.fs.Open(name, false)
		if err != nil {
			return fmt.Errorf("open cursor: %w", err)
		}
		c, damaged, err := readCursor(f)
		if err != nil {
			_ = f.Close()
			return fmt.Errorf("read cursor: %w", err)
		}
		if c != nil {
			if damaged {
				s.cfg.Logger.Warn("spool cursor is damaged in one of its two places: the other counts", "dir", s.cfg.Dir, "file", cursorName)
			}
			s.cursorFile = f
			s.setCursor(*c)
			return nil
		}
		_ = f.Close() // also where nothing is in it: it was made with something
		aside := fmt.Sprintf("%s.%d.bad", name, s.cfg.Now().UnixNano())
		if err := s.fs.Rename(name, aside); err != nil {
			return fmt.Errorf("set cursor aside: %w", err)
		}
		s.badBytes.Add(cursorFileSize)
		s.badCut.Add(1)
		s.cfg.Logger.Error("spool cursor is damaged: all segments will be delivered again", "dir", s.cfg.Dir, "kept", aside)
	} else if last > 0 {
		s.cfg.Logger.Warn("spool has segments but no cursor: all of them will be delivered", "dir", s.cfg.Dir)
	}
	s.cursor, s.cursorLost = s.lostCursor(last), true
	return s.replaceCursor()
}

// replaceCursor writes the cursor as a new file under its name: at the start,
// and when the old file failed to be written or synced.
func (s *Spool) replaceCursor() error {
	name := join(s.cfg.Dir, cursorName)
	fresh := name + ".new"
	if err := s.fs.Remove(fresh); err != nil && !notExist(err) {
		return fmt.Errorf("remove old cursor: %w", err)
	}
	f, err := s.fs.Create(fresh)
	if err != nil {
		return fmt.Errorf("create cursor: %w", err)
	}
	c, err := s.fillCursor(f)
	if err == nil {
		err = s.fs.Rename(fresh, name)
	}
	if err == nil {
		err = s.fs.SyncDir(s.cfg.Dir)
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("write new cursor: %w", err)
	}
	if s.cursorFile != nil {
		_ = s.cursorFile.Close() // it has failed already
	}
	s.cursorFile = f
	s.setCursor(c)
	return nil
}

// fillCursor writes both slots, so that later writes need no new block.
func (s *Spool) fillCursor(f vfs.File) (cursor, error) {
	if _, err := f.WriteAt(make([]byte, cursorFileSize), 0); err != nil {
		return cursor{}, err
	}
	return writeCursor(f, s.cursor)
}

// setCursor makes c the cursor in force.
func (s *Spool) setCursor(c cursor) {
	s.cursor = c
	token := ""
	if c.plan != nil {
		token = s.token(c.plan)
	}
	s.planned.Store(&token)
}

// saveCursor makes c durable and the cursor in force.
func (s *Spool) saveCursor(c cursor) error {
	saved, err := writeCursor(s.cursorFile, c)
	if err == nil {
		s.setCursor(saved)
		return nil
	}
	s.cfg.Logger.Error("spool cursor failed and is replaced", "dir", s.cfg.Dir, "error", err)
	before := s.cursor
	s.setCursor(saved)
	if rerr := s.replaceCursor(); rerr != nil {
		s.setCursor(before)
		return errors.Join(err, rerr)
	}
	return nil
}

func (s *Spool) recoverSegments(numbers []uint64, names []string) error {
	headers := make([]*header, len(numbers))
	for i, n := range numbers {
		h, err := s.readHeader(n)
		if err != nil {
			return err
		}
		headers[i] = h
	}
	s.missBetween(numbers, headers)
	newest := len(numbers) - 1
	for newest > 0 && headers[newest] == nil {
		newest--
	}
	for i, n := range numbers {
		seg := &segment{number: n, told: damageOf(names, n)}
		seg.damaged = headers[i] == nil || len(seg.told) > 0
		if headers[i] != nil {
			seg.firstSeq = headers[i].firstSeq
			s.nextSeq = max(s.nextSeq, seg.firstSeq)
		}
		keep := true
		var err error
		if i+1 < len(numbers) && headers[i+1] != nil && headers[i+1].prevSegment == n {
			err = s.recoverSealed(seg, headers[i+1])
		} else {
			keep, err = s.recoverLast(seg, headers[i] != nil, i == newest)
		}
		if err != nil {
			return fmt.Errorf("recover segment %q: %w", segmentName(n), err)
		}
		if keep {
			if headers[i] == nil {
				s.cfg.Logger.Warn("spool segment has a damaged header: its records are read all the same", "dir", s.cfg.Dir, "file", segmentName(n))
			}
			s.segments = append(s.segments, seg)
		}
	}
	return nil
}

// damageOf returns the offsets of bytes of the segment that were set aside before. A torn
// tail does not count: nothing behind it was lost.
func damageOf(names []string, number uint64) (at []int64) {
	prefix := strings.TrimSuffix(segmentName(number), segmentSuffix) + "."
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok || !strings.HasSuffix(rest, ".bad") || strings.Contains(rest, "tail") {
			continue
		}
		offset, _, _ := strings.Cut(rest, ".")
		if n, err := strconv.ParseInt(offset, 10, 64); err == nil { // else the segment's own
			at = append(at, n)
		}
	}
	return at
}

// readHeader returns nil where the header is damaged.
func (s *Spool) readHeader(number uint64) (*header, error) {
	f, err := s.fs.Open(join(s.cfg.Dir, segmentName(number)), true)
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	defer f.Close()
	b := make([]byte, headerSize)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read header of %q: %w", segmentName(number), err)
	}
	h, err := decodeHeader(b, number)
	if errors.Is(err, ErrVersion) {
		return nil, fmt.Errorf("read header of %q: %w", segmentName(number), err)
	}
	if err != nil {
		return nil, nil //nolint:nilnil // damage is a finding, not a failure
	}
	return &h, nil
}

// recoverSealed takes a segment's end from the header that follows it.
func (s *Spool) recoverSealed(seg *segment, next *header) error {
	f, err := s.fs.Open(s.path(seg), true)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	seg.end = max(next.prevEnd, headerSize)
	if next.firstSeq > seg.firstSeq {
		seg.records = next.firstSeq - seg.firstSeq
	}
	if size < seg.end {
		s.damage(seg, size, seg.end-size, "the segment is shorter than it was")
		seg.end = max(size, headerSize)
	}
	return nil
}

// recoverLast reads the newest segment (or one whose successor's header is
// lost), cuts a torn tail and indexes what is good. keep is false where nothing
// is in it and the file is gone.
func (s *Spool) recoverLast(seg *segment, headerOK, newest bool) (keep bool, err error) {
	f, err := s.fs.Open(s.path(seg), false)
	if err != nil {
		return false, err
	}
	defer f.Close()
	b, err := readAll(f)
	if err != nil {
		return false, err
	}
	limit := int64(len(b))
	if newest {
		if limit, err = tornAt(b, s.syncedTo(seg.number), s.cursor.nextSeq, seg.firstSeq); err != nil {
			return false, err
		}
	}
	seg.end, seg.whole, seg.ids = headerSize, true, &idSet{}
	var bad []stretch
	next := seg.firstSeq
	if limit > headerSize {
		err = scan(b[headerSize:limit], headerSize, func(st stretch) error {
			if st.bad {
				bad = append(bad, st)
				return nil
			}
			seg.end = st.to
			seg.records++
			next = st.frame.seq + 1
			s.nextSeq = max(s.nextSeq, next)
			id, trace := collector.PayloadKeys(st.frame.kind, st.frame.payload)
			e := entry{id: s.hash(id), trace: s.hash(trace), at: st.from}
			seg.index = append(seg.index, e)
			seg.ids.add(e.id)
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	for _, st := range bad {
		if st.from >= seg.end {
			continue // the tail, below
		}
		s.damage(seg, st.from, st.to-st.from, "damage before the tail")
		if err := s.setAside(seg.number, st.from, "", b[st.from:st.to]); err != nil {
			return false, err
		}
	}
	if !newest {
		next = 0
	}
	s.missCut(seg, next)
	s.indexed += len(seg.index)
	s.known += seg.ids.n
	if seg.records == 0 {
		return false, s.removeEmpty(seg, b, headerOK)
	}
	return true, s.cutTail(seg, f, b)
}

// syncedTo is how far the newest segment is known to have been written and synced.
func (s *Spool) syncedTo(segment uint64) int64 {
	to := s.head.knownEnd(segment)
	if s.cursor.acked.Segment == segment {
		to = max(to, s.cursor.acked.Offset)
	}
	if p := s.cursor.plan; p != nil && p.segment == segment {
		to = max(to, p.to)
	}
	return to
}

// removeEmpty removes a segment without a single frame, keeping whatever else
// is in it.
func (s *Spool) removeEmpty(seg *segment, b []byte, headerOK bool) error {
	rest := b
	if headerOK {
		rest = b[min(headerSize, len(b)):] // the header itself may be torn behind its checksum
	}
	s.retire(seg.number)
	if len(rest) == 0 || allZero(rest) {
		return s.fs.Remove(s.path(seg))
	}
	s.badBytes.Add(uint64(len(rest)))
	s.badCut.Add(1)
	s.cfg.Logger.Warn("spool set a segment without a valid record aside", "dir", s.cfg.Dir, "segment", seg.number, "bytes", len(rest))
	return s.fs.Rename(s.path(seg), s.path(seg)+".bad")
}

// cutTail keeps what lies behind the last valid frame in a file of its own and
// cuts it off. Where there is no room to keep it, it stays where it is: the next
// segment's header says that it does not count.
func (s *Spool) cutTail(seg *segment, f vfs.File, b []byte) error {
	keep, tail := false, b[min(seg.end, int64(len(b))):]
	if len(tail) > 0 {
		s.badBytes.Add(uint64(len(tail)))
		s.badCut.Add(1)
		s.cfg.Logger.Warn("spool cut a torn tail", "dir", s.cfg.Dir, "segment", seg.number, "offset", seg.end, "bytes", len(tail))
		err := s.setAside(seg.number, seg.end, ".tail", tail)
		if err != nil && !vfs.IsFull(err) {
			return err
		}
		keep = err != nil
	}
	// What was reserved behind the end goes back to the disk, too: a process that was
	// killed did not give it back.
	if !keep {
		if err := f.Truncate(seg.end); err != nil {
			return err
		}
	}
	if s.cfg.Level != LevelMachine {
		return nil
	}
	// What was recovered may so far be in the page cache only, and, where a sync of an earlier
	// process failed, count as written there: it is written again.
	if _, err := f.WriteAt(b[:min(seg.end, int64(len(b)))], 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return s.fs.SyncDir(s.cfg.Dir)
}

// damage notes that bytes of seg are lost. The file is kept for good.
func (s *Spool) damage(seg *segment, at, n int64, what string) {
	s.mu.Lock()
	seg.damaged = true
	seg.told = append(seg.told, at, at+n)
	s.mu.Unlock()
	s.badBytes.Add(uint64(n))
	s.badCut.Add(1)
	s.cfg.Logger.Error("spool segment is damaged", "dir", s.cfg.Dir, "segment", seg.number, "offset", at, "bytes", n, "reason", what)
	s.cfg.Lost(fmt.Sprintf("records of the spool are lost: %d bytes of segment %d from %d on cannot be read (%s)", n, seg.number, at, what))
}

// setAside copies damaged bytes to a file named after where they were. What an
// earlier start kept already is left as it is.
func (s *Spool) setAside(number uint64, at int64, kind string, b []byte) error {
	name := join(s.cfg.Dir, fmt.Sprintf("%016d.%d%s.bad", number, at, kind))
	f, err := s.fs.Create(name)
	if errors.Is(err, errExist) {
		name = fmt.Sprintf("%s.%d.bad", strings.TrimSuffix(name, ".bad"), s.cfg.Now().UnixNano())
		f, err = s.fs.Create(name)
	}
	if err != nil {
		return fmt.Errorf("set damaged bytes aside: %w", err)
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = s.fs.Remove(name) // a partial copy helps nobody
		return fmt.Errorf("set damaged bytes aside in %q: %w", name, err)
	}
	return nil
}

func readAll(f vfs.File) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

// startReader puts the reader behind what was acknowledged, removes what a
// crash kept from being removed, and counts what is to be read.
func (s *Spool) startReader() error {
	s.readAt = s.cursor.acked
	s.acknowledge(s.readAt, time.Time{})
	if p := s.cursor.plan; p != nil {
		s.readAt = collector.Position{Segment: p.segment, Offset: p.to}
	}
	s.dropFinished()
	for _, seg := range s.segments {
		if from := s.unreadFrom(seg); from < seg.end {
			s.unread.bytes += seg.end - from
		}
		if seg.ackedTo < seg.end {
			s.appended.Add(seg.records)
		}
	}
	s.oldest = time.Now()
	s.trimIndex()
	return nil
}
