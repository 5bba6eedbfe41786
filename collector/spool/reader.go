package spool

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

var errExist = fs.ErrExist

// Next returns the batch to store: the one that is not yet acknowledged, if
// there is one, else a new one as soon as it is due (full, old enough, or
// asked for by Flush). A new batch is frozen on disk before it is returned. It
// returns the context's error, ErrClosed, or what kept it from reading; it may
// be called again after any error but ErrClosed.
func (s *Spool) Next(ctx context.Context) (*collector.Batch, error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	for {
		select {
		case <-s.stop:
			return nil, ErrClosed
		default:
		}
		if s.current != nil {
			return s.current, nil
		}
		if s.cursor.plan == nil {
			v, err := s.waitDue(ctx)
			if err != nil {
				return nil, err
			}
			if err = s.ours(); err == nil {
				err = s.freeze(v)
			}
			if err != nil {
				return nil, fmt.Errorf("plan batch: %w", err)
			}
			continue
		}
		if err := s.ours(); err != nil {
			return nil, fmt.Errorf("load batch: %w", err)
		}
		b, err := s.loadPlan()
		if err != nil {
			return nil, fmt.Errorf("load batch: %w", err)
		}
		if len(b.Records) > 0 {
			s.current = b
			s.received.Store(firstReceived(b.Records))
			continue
		}
		// Nothing of it can be read any more; the loss is counted and logged.
		if err := s.finish(b); err != nil {
			return nil, err
		}
	}
}

// lastReceived is when the last record that says so was received.
func lastReceived(records []collector.Record) int64 {
	for i := range slices.Backward(records) {
		if at := collector.PayloadReceived(records[i].Kind, records[i].Payload); !at.IsZero() {
			return at.UnixMilli()
		}
	}
	return 0
}

// firstReceived is when the first record that says so was received.
func firstReceived(records []collector.Record) int64 {
	for i := range records {
		if at := collector.PayloadReceived(records[i].Kind, records[i].Payload); !at.IsZero() {
			return at.UnixMilli()
		}
	}
	return 0
}

// Flush makes Next hand out what there is without waiting for a batch to fill,
// until everything is handed out.
func (s *Spool) Flush() {
	s.mu.Lock()
	s.flushed = true
	s.mu.Unlock()
	signal(s.wake)
}

// Ack says that b is stored. The cursor is durable before any segment goes.
func (s *Spool) Ack(ctx context.Context, b *collector.Batch) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("acknowledge batch: %w", err)
	}
	s.readMu.Lock()
	defer s.readMu.Unlock()
	if s.cursorFile == nil {
		return fmt.Errorf("acknowledge batch: %w", ErrClosed)
	}
	if s.current == nil || s.current.Token != b.Token {
		return fmt.Errorf("acknowledge batch %s: it is not the one that was handed out", b.Token)
	}
	return s.finish(s.current)
}

func (s *Spool) finish(b *collector.Batch) error {
	if err := s.ours(); err != nil {
		return fmt.Errorf("acknowledge batch %s: %w", b.Token, err)
	}
	if err := s.remember(b); err != nil {
		return fmt.Errorf("acknowledge batch %s: %w", b.Token, err)
	}
	if err := s.saveAcked(b.To); err != nil {
		return fmt.Errorf("acknowledge batch %s: %w", b.Token, err)
	}
	s.current = nil
	s.mu.Lock()
	left := s.unread.bytes > 0
	s.mu.Unlock()
	if last := lastReceived(b.Records); left && last > 0 {
		s.received.Store(last)
	} else {
		s.received.Store(0)
	}
	s.acked.Add(uint64(len(b.Records)))
	s.mu.Lock()
	s.acknowledge(b.To, time.Now())
	s.mu.Unlock()
	s.dropFinished()
	return nil
}

// saveAcked makes it durable that all is acknowledged up to to, and that no batch is on its way.
func (s *Spool) saveAcked(to collector.Position) error {
	c := s.cursor
	c.acked, c.plan = to, nil
	s.mu.Lock()
	if k := len(s.segments); k > 0 {
		c.nextSeq = max(c.nextSeq, s.segments[k-1].firstSeq+s.segments[k-1].records)
	}
	s.mu.Unlock()
	return s.saveCursor(c)
}

// pass has what the reader has passed be acknowledged where it is at the end of what there is:
// nothing but damage lies between, as no batch is on its way, and none comes that would have
// it be acknowledged.
func (s *Spool) pass() error {
	to := s.readAt
	if !before(s.cursor.acked, to.Segment, to.Offset) {
		return nil
	}
	if err := s.ours(); err != nil {
		return err
	}
	if err := s.saveAcked(to); err != nil {
		return err
	}
	s.received.Store(0)
	s.mu.Lock()
	s.acknowledge(to, time.Now())
	s.mu.Unlock()
	s.dropFinished()
	return nil
}

// dropFinished deletes the segments of which everything is acknowledged and that are
// not kept, and keeps those with damage under another name. What cannot be deleted is
// tried again next time.
func (s *Spool) dropFinished() {
	if s.ours() != nil { // Next and Ack tell
		return
	}
	finished, forgotten := s.finished()
	if forgotten > 0 {
		if err := s.forgetBelow(forgotten); err != nil {
			s.cfg.Logger.Error("spool cannot forget acknowledged batches: their segments stay", "dir", s.cfg.Dir, "error", err)
			return
		}
	}
	gone := make(map[*segment]bool, len(finished))
	for _, seg := range finished {
		if s.remove(seg) {
			gone[seg] = true
		}
	}
	s.removed(gone)
	if forgotten > 0 && s.cfg.Level == LevelMachine {
		if err := s.fs.SyncDir(s.cfg.Dir); err != nil {
			s.cfg.Logger.Warn("spool could not sync its folder", "dir", s.cfg.Dir, "error", err)
		}
	}
}

// finished are the segments to delete; forgotten, where it is not 0, is the first of
// which the ledger is to know anything afterwards: of a file that was deleted earlier a
// power cut may bring back the name.
func (s *Spool) finished() (out []*segment, forgotten uint64) {
	acked, now := s.cursor.acked, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	forgotten = s.forget
	for _, seg := range s.segments {
		done := seg.number < acked.Segment || seg.number == acked.Segment && acked.Offset >= seg.end
		done = done && seg.capacity == 0
		if seg.kept = done && s.keeps(seg, now); done && !seg.kept {
			out = append(out, seg)
			continue
		}
		forgotten = min(forgotten, seg.number)
	}
	if forgotten <= s.forgotten {
		forgotten = 0
	}
	return out, forgotten
}

func (s *Spool) remove(seg *segment) bool {
	var err error
	s.retire(seg.number)
	if seg.damaged {
		err = s.fs.Rename(s.path(seg), s.path(seg)+".bad")
	} else {
		err = s.fs.Remove(s.path(seg))
	}
	if err != nil && !notExist(err) {
		s.cfg.Logger.Warn("spool could not remove a segment", "dir", s.cfg.Dir, "segment", seg.number, "error", err)
		return false
	}
	return true
}

// removed takes segments whose files are gone off the list.
func (s *Spool) removed(gone map[*segment]bool) {
	if len(gone) == 0 {
		return
	}
	s.mu.Lock()
	var left []*segment
	for _, seg := range s.segments {
		if gone[seg] {
			s.indexed -= len(seg.index)
			s.setIDs(seg, nil)
			continue
		}
		left = append(left, seg)
	}
	s.segments = left
	s.mu.Unlock()
	signal(s.space)
}

// view is what the reader knows of a segment with unread bytes.
type view struct {
	seg       *segment
	number    uint64
	from, end int64
}

// unreadFrom is where the unread part of seg begins.
func (s *Spool) unreadFrom(seg *segment) int64 {
	switch {
	case seg.number < s.readAt.Segment:
		return seg.end
	case seg.number == s.readAt.Segment:
		return max(s.readAt.Offset, headerSize)
	}
	return headerSize
}

// waitDue sleeps until a batch is due and says where it begins.
func (s *Spool) waitDue(ctx context.Context) (view, error) {
	for {
		v, wait := s.due()
		if v.seg != nil && wait <= 0 {
			return v, nil
		}
		if v.seg == nil {
			if err := s.pass(); err != nil {
				return v, fmt.Errorf("acknowledge what cannot be read: %w", err)
			}
		}
		var late <-chan time.Time
		if v.seg != nil {
			late = time.After(wait)
		}
		var expired <-chan time.Time
		if d := s.expiry(); d > 0 {
			expired = time.After(d)
		}
		select {
		case <-ctx.Done():
			return view{}, ctx.Err()
		case <-s.stop:
			return view{}, ErrClosed
		case <-s.wake:
			s.dropFinished() // Rotate may have ended a segment of which all is acknowledged
		case <-expired:
			s.dropFinished()
		case <-late:
		}
	}
}

// due returns the first unread bytes, if any, and how long they may still wait.
func (s *Spool) due() (view, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var v view
	for _, seg := range s.segments {
		if from := s.unreadFrom(seg); from < seg.end {
			v = view{seg: seg, number: seg.number, from: from, end: seg.end}
			break
		}
	}
	if v.seg == nil {
		s.flushed, s.unread = false, backlog{}
		s.threshold = backlog{bytes: 1, rows: 1}
		return v, 0
	}
	if v.seg.capacity == 0 { // it grows no more, and a batch is of one segment
		return v, 0
	}
	if s.flushed || s.unread.bytes >= int64(s.cfg.BatchBytes) || s.unread.rows >= int64(s.cfg.BatchRows) {
		return v, 0
	}
	s.threshold = backlog{bytes: int64(s.cfg.BatchBytes), rows: int64(s.cfg.BatchRows)}
	return v, s.cfg.BatchAge - time.Since(s.oldest)
}

// freeze chooses the end of the next batch, beginning at v, and writes the plan.
// Damage at the start is set aside instead and nothing is planned.
func (s *Spool) freeze(v view) error {
	f, err := s.fs.Open(s.path(v.seg), true)
	if err != nil {
		if notExist(err) {
			s.skip(v, v.end, "the segment is gone")
			return nil
		}
		return err
	}
	defer f.Close()
	b, err := readRange(f, v.from, min(v.end, v.from+int64(s.cfg.BatchBytes)))
	if err != nil {
		return err
	}
	n, rows, err := s.cut(b)
	if err != nil {
		return err
	}
	if need := frameLength(b); n == 0 && need > int64(len(b)) && need <= v.end-v.from {
		// One record larger than a batch.
		if b, err = readRange(f, v.from, v.from+need); err != nil {
			return err
		}
		if n, rows, err = s.cut(b); err != nil {
			return err
		}
	}
	if n == 0 {
		return s.skipDamage(f, v)
	}
	c := s.cursor
	c.plan = &plan{segment: v.number, from: v.from, to: v.from + int64(n), sum: crc32.Checksum(b[:n], castagnoli)}
	if err := s.saveCursor(c); err != nil {
		return err
	}
	s.advance(v, c.plan.to, rows)
	return nil
}

// frameLength is the size that the frame header at the start of b states, 0
// where there is none.
func frameLength(b []byte) int64 {
	if len(b) < frameSize || b[0] != frameMagic[0] || b[1] != frameMagic[1] || payloadLength(b) > frameLimit {
		return 0
	}
	return frameSize + payloadLength(b)
}

// cut returns how many bytes of whole frames at the start of b make a batch.
func (s *Spool) cut(b []byte) (n int, rows int64, err error) {
	for n < len(b) {
		f, size, err := parseFrame(b[n:])
		if errors.Is(err, ErrVersion) {
			return 0, 0, err
		}
		if err != nil {
			break
		}
		more := int64(collector.PayloadRows(f.kind, f.payload))
		if n > 0 && rows+more > int64(s.cfg.BatchRows) {
			break
		}
		rows += more
		n += size
	}
	return n, rows, nil
}

// skipDamage sets the damaged bytes at v aside and puts the reader behind them.
func (s *Spool) skipDamage(f vfs.File, v view) error {
	b, err := readRange(f, v.from, v.end)
	if err != nil {
		return err
	}
	if len(b) == 0 {
		s.skip(v, v.end, "the segment is shorter than it was")
		return nil
	}
	next := resync(b, 1, 0)
	if err := s.setAside(v.number, v.from, "", b[:next]); err != nil {
		return err
	}
	s.skip(v, v.from+int64(next), "damage before the tail")
	return nil
}

func (s *Spool) skip(v view, to int64, what string) {
	s.found(v.seg, v.from, to-v.from, what)
	s.advance(v, to, 0)
}

// found is damage that the reader has met, which a start may have counted and told.
func (s *Spool) found(seg *segment, at, n int64, what string) {
	s.mu.Lock()
	known := slices.ContainsFunc(seg.told, func(o int64) bool { return at <= o && o <= at+n })
	s.mu.Unlock()
	if known {
		s.cfg.Logger.Warn("spool skips damage", "dir", s.cfg.Dir, "segment", seg.number, "offset", at, "bytes", n)
		return
	}
	s.damage(seg, at, n, what)
}

// advance puts the reader at to.
func (s *Spool) advance(v view, to, rows int64) {
	s.mu.Lock()
	s.readAt = collector.Position{Segment: v.number, Offset: to}
	s.unread.bytes = max(0, s.unread.bytes-(to-v.from))
	s.unread.rows = max(0, s.unread.rows-rows)
	s.oldest = time.Now()
	// A flush ends with the last record there is, not with the next look.
	if k := len(s.segments); k == 0 || s.unreadFrom(s.segments[k-1]) >= s.segments[k-1].end {
		s.flushed = false
	}
	s.mu.Unlock()
}

// readRange returns the bytes from from to to, fewer where the file is shorter.
func readRange(f vfs.File, from, to int64) ([]byte, error) {
	b := make([]byte, to-from)
	n, err := f.ReadAt(b, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read segment: %w", err)
	}
	return b[:n], nil
}

// loadPlan reads the frozen batch. Where its bytes are no longer what they
// were, the frames that survive are handed out under the same token: had the
// batch been stored before, that token makes them count once.
func (s *Spool) loadPlan() (*collector.Batch, error) {
	return s.load(s.cursor.plan)
}

func (s *Spool) load(p *plan) (*collector.Batch, error) {
	b := &collector.Batch{
		From:  collector.Position{Segment: p.segment, Offset: p.from},
		To:    collector.Position{Segment: p.segment, Offset: p.to},
		Token: s.token(p),
		Again: p.segment <= uint64(s.cursor.again),
	}
	seg := s.segmentNumbered(p.segment)
	if seg == nil {
		seg = &segment{number: p.segment}
	}
	data, err := s.readPlanned(seg, p)
	if err != nil {
		return nil, err
	}
	intact := int64(len(data)) == p.to-p.from && crc32.Checksum(data, castagnoli) == p.sum
	if !intact {
		s.found(seg, p.from, p.to-p.from, "a planned batch is not what it was")
		if len(data) > 0 {
			if err := s.setAside(p.segment, p.from, "", data); err != nil {
				return nil, err
			}
		}
	}
	err = scan(data, p.from, func(st stretch) error {
		if st.bad {
			return nil
		}
		rec := collector.Record{Kind: st.frame.kind, Version: st.frame.version, Payload: st.frame.payload}
		rec.ID, rec.TraceID = collector.PayloadKeys(rec.Kind, rec.Payload)
		b.Records = append(b.Records, rec)
		return nil
	})
	return b, err
}

func (s *Spool) readPlanned(seg *segment, p *plan) ([]byte, error) {
	f, err := s.fs.Open(s.path(seg), true)
	if notExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	return readRange(f, min(p.from, size), min(p.to, size))
}

func (s *Spool) segmentNumbered(n uint64) *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		if seg.number == n {
			return seg
		}
	}
	return nil
}

// token names a batch: the SHA-256 of the node, the range and its CRC.
func (s *Spool) token(p *plan) string {
	b := make([]byte, 0, 48)
	b = append(b, s.cursor.node[:]...)
	b = binary.LittleEndian.AppendUint64(b, p.segment)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.from))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.to))
	b = binary.LittleEndian.AppendUint32(b, p.sum)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Find returns the records that are not yet acknowledged and belong to a
// prediction id, or to a trace ("trace:<id>"). The id of a batch's row
// ("<id>.<i>") finds the batch.
func (s *Spool) Find(id string) ([]collector.Record, error) {
	trace, byTrace := strings.CutPrefix(id, "trace:")
	if byTrace {
		return s.find(trace, true)
	}
	found, err := s.find(id, false)
	if at := strings.LastIndexByte(id, '.'); err == nil && at > 0 {
		more, err := s.find(id[:at], false)
		return append(more, found...), err
	}
	return found, err
}

// lookup is where in one segment to look: at the records of index that have a hash, or
// everywhere.
type lookup struct {
	seg       *segment
	from, end int64
	whole     bool
	index     []entry
	// unknown says that nobody knows its ids.
	unknown bool
}

func (s *Spool) find(key string, byTrace bool) ([]collector.Record, error) {
	if key == "" {
		return nil, nil
	}
	match := func(f frame) (collector.Record, bool) {
		rec := collector.Record{Kind: f.kind, Version: f.version, Payload: f.payload}
		rec.ID, rec.TraceID = collector.PayloadKeys(rec.Kind, rec.Payload)
		return rec, byTrace && rec.TraceID == key || !byTrace && rec.ID == key
	}
	hash := s.hash(key)
	if err := s.learnIDs(hash, byTrace); err != nil {
		return nil, err
	}
	var found []collector.Record
	for _, l := range s.lookups(hash, byTrace) {
		recs, err := s.findIn(l, l.offsets(hash, byTrace), match)
		if err != nil && !notExist(err) { // acknowledged and deleted meanwhile
			return nil, fmt.Errorf("find in segment %q: %w", segmentName(l.seg.number), err)
		}
		found = append(found, recs...)
	}
	return found, nil
}

// lookups is which segments may have a record.
func (s *Spool) lookups(hash uint64, byTrace bool) []lookup {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []lookup
	for _, seg := range s.segments {
		if from := max(seg.ackedTo, headerSize); from < seg.end && (byTrace || seg.ids == nil || seg.ids.has(hash)) {
			// What is appended to the index from now on is behind end.
			out = append(out, lookup{seg: seg, from: from, end: seg.end, whole: seg.whole, index: seg.index, unknown: seg.ids == nil && seg.capacity == 0})
		}
	}
	return out
}

// offsets is where the records of a lookup's index lie that have a hash.
func (l *lookup) offsets(hash uint64, byTrace bool) (at []int64) {
	for _, e := range l.index {
		if e.at >= l.from && (byTrace && e.trace == hash || !byTrace && e.id == hash) {
			at = append(at, e.at)
		}
	}
	return at
}

// learnIDs reads the segments whose ids nobody knows, such as those of an earlier process, as
// far as the bounds allow: who looks for the next id need not.
func (s *Spool) learnIDs(hash uint64, byTrace bool) error {
	unknown := func() []lookup {
		return slices.DeleteFunc(s.lookups(hash, byTrace), func(l lookup) bool { return !l.unknown })
	}
	if len(unknown()) == 0 {
		return nil
	}
	s.learn.Lock()
	defer s.learn.Unlock()
	for _, l := range slices.Backward(unknown()) { // those are kept longest that go last
		if !s.mayLearn() {
			return nil
		}
		ids, index, err := s.readIDs(l)
		if err != nil && !notExist(err) {
			return fmt.Errorf("read the ids of segment %q: %w", segmentName(l.seg.number), err)
		}
		if err == nil {
			s.learnt(l.seg, ids, index)
		}
	}
	return nil
}

func (s *Spool) mayLearn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known < idsPerIndex*s.cfg.IndexRecords
}

// readIDs reads all ids of a segment.
func (s *Spool) readIDs(l lookup) (*idSet, []entry, error) {
	f, err := s.fs.Open(s.path(l.seg), true)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	b, err := readRange(f, l.from, l.end)
	if err != nil {
		return nil, nil, err
	}
	ids, index := &idSet{}, []entry(nil)
	err = scan(b, l.from, func(st stretch) error {
		if !st.bad {
			id, trace := collector.PayloadKeys(st.frame.kind, st.frame.payload)
			e := entry{id: s.hash(id), trace: s.hash(trace), at: st.from}
			ids.add(e.id)
			index = append(index, e)
		}
		return nil
	})
	return ids, index, err
}

// learnt has a segment's ids be known, and where they are as well while there is room for that.
func (s *Spool) learnt(seg *segment, ids *idSet, index []entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.segments, seg) || seg.ids != nil {
		return // acknowledged and deleted meanwhile
	}
	s.setIDs(seg, ids)
	if !seg.whole && len(seg.index) == 0 && s.indexed+len(index) <= s.cfg.IndexRecords {
		seg.index, seg.whole = index, true
		s.indexed += len(index)
	}
	s.trimIndex()
}

func (s *Spool) findIn(l lookup, offsets []int64, match func(frame) (collector.Record, bool)) ([]collector.Record, error) {
	if l.whole && len(offsets) == 0 {
		return nil, nil
	}
	f, err := s.fs.Open(s.path(l.seg), true)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []collector.Record
	if !l.whole {
		b, err := readRange(f, l.from, l.end)
		if err != nil {
			return nil, err
		}
		err = scan(b, l.from, func(st stretch) error {
			if rec, ok := match(st.frame); ok && !st.bad {
				rec.Payload = append([]byte(nil), rec.Payload...) // not the whole segment
				found = append(found, rec)
			}
			return nil
		})
		return found, err
	}
	for _, at := range offsets {
		h, err := readRange(f, at, min(at+frameSize, l.end))
		if err != nil {
			return nil, err
		}
		b, err := readRange(f, at, min(at+max(frameLength(h), 0), l.end))
		if err != nil {
			return nil, err
		}
		fr, _, err := parseFrame(b)
		if err != nil {
			continue // damaged since: the reader will set it aside
		}
		if rec, ok := match(fr); ok {
			found = append(found, rec)
		}
	}
	return found, nil
}
