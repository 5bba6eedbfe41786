package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"io/fs"
	"runtime"
	"sync"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// segment is one file of the log. Its fields are changed under Spool.mu.
type segment struct {
	number, firstSeq uint64
	// end is the offset behind the last frame that was reported written.
	end int64
	// capacity is what the active segment may grow to, 0 once it is sealed.
	capacity int64
	records  uint64
	ackedTo  int64
	// index has an entry a record from offset indexFrom on; it is dropped where
	// the bound does not allow it.
	index []entry
	whole bool // the index has every record
	// ids are those of all records, nil where they are not known: of a segment that an
	// earlier process wrote, before it was searched, or beyond the bound.
	ids     *idSet
	damaged bool // damage was found inside: never delete the file
	// told has where damage begins, and ends, that is told already.
	told []int64
	// ackedAt is when the last of it was acknowledged, or looked for; zero where the
	// ledger does not know it. kept says that it is all acknowledged and stays for now,
	// doubt that a batch of it is still to be looked for.
	ackedAt     time.Time
	kept, doubt bool
}

// entry finds a record by the hashes of its prediction id and trace id.
type entry struct {
	id, trace uint64
	at        int64
}

// group is the appends that one write carries.
type group struct {
	buf     []byte
	records []entry // at is the offset in buf
	rows    int64
	// followers wait for done or, one of them, for lead; both are made when the
	// first follower comes. Guarded by Spool.mu.
	followers int
	done      chan struct{} // closed when err is set
	lead      chan struct{} // capacity 1: whoever takes it writes the group
	err       error
}

const (
	// maxPending bounds what waits in memory for a slow disk.
	maxPending = 64 << 20
	// keepBuffer is the largest buffer worth keeping for the next group.
	keepBuffer = 4 << 20
)

// Append writes one record. It returns nil when the configured level holds, an
// error wrapping collector.ErrFull when the record could not be written (in
// time), a collector.GoneError, ErrTooLarge, or ErrClosed. Many appends at once share one write.
//
// It does not take the payload: the caller may use it again afterwards. A
// context that is already done stops it; later it waits for the disk, at most
// about twice Config.FullTimeout unless the kernel itself does not return.
func (s *Spool) Append(ctx context.Context, rec collector.Record) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("append record: %w", err)
	}
	if len(rec.Payload) > s.cfg.MaxRecordBytes {
		return fmt.Errorf("append record of %d bytes: %w (the limit is %d)", len(rec.Payload), ErrTooLarge, s.cfg.MaxRecordBytes)
	}
	// Everything that can be done outside the lock is.
	sum := crc32.Checksum(rec.Payload, castagnoli)
	e := entry{id: s.hash(rec.ID), trace: s.hash(rec.TraceID)}
	rows := int64(collector.PayloadRows(rec.Kind, rec.Payload))

	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("append record: %w", ErrClosed)
	}
	g := s.pending
	if len(g.buf) > 0 && len(g.buf)+len(rec.Payload) > maxPending {
		s.mu.Unlock()
		return fmt.Errorf("append record: %w: %d bytes wait for the disk already", collector.ErrFull, len(g.buf))
	}
	e.at = int64(len(g.buf))
	g.buf = appendFrame(g.buf, rec.Kind, rec.Version, sum, rec.Payload)
	g.records = append(g.records, e)
	g.rows += rows
	if s.cfg.Level == LevelNone {
		s.mu.Unlock()
		signal(s.kick)
		return nil
	}
	if !s.writing {
		s.writing = true
		return s.gather(g)
	}
	g.follow()
	s.mu.Unlock()
	return s.await(g)
}

// After aloneAfter groups in a row that nobody joined, aloneFor are written at once.
const (
	aloneAfter = 16
	aloneFor   = 128
)

// gather writes g, but first lets the requests that are ready to run go on as far as
// their own records: what they append goes with g's write, and their answers go out
// together, which wakes whoever reads them less often. Where nobody comes it is not
// waited for: to let go of a core wakes another that has nothing to do. Spool.mu is
// held, and given back.
func (s *Spool) gather(g *group) error {
	if s.alone >= aloneAfter {
		if s.alone++; s.alone == aloneAfter+aloneFor {
			s.alone = 0
		}
		s.mu.Unlock()
		return s.lead()
	}
	s.mu.Unlock()
	runtime.Gosched()
	s.mu.Lock()
	s.alone++
	if len(g.records) > 1 {
		s.alone = 0
	}
	s.mu.Unlock()
	return s.lead()
}

func (s *Spool) hash(key string) uint64 {
	if key == "" {
		return 0
	}
	return maphash.String(s.seed, key) | 1
}

func (g *group) follow() {
	if g.done == nil {
		g.done, g.lead = make(chan struct{}), make(chan struct{}, 1)
	}
	g.followers++
}

var timers = sync.Pool{New: func() any { return time.NewTimer(time.Hour) }}

// await waits until g is written by another, or writes it when told to. A disk that does not
// answer is not waited for, but that the process stood still is not the disk's.
func (s *Spool) await(g *group) error {
	t := timers.Get().(*time.Timer)
	defer timers.Put(t)
	defer t.Stop()
	patience := 2 * s.cfg.FullTimeout
	for late := false; !late; {
		began := time.Now() // before the timer runs: it may stand still between the two as well
		t.Reset(patience)
		select {
		case <-g.done:
			return g.err
		case <-g.lead:
			return s.lead()
		case <-t.C:
			late = time.Since(began) < patience+s.cfg.FullTimeout
		}
	}
	// Late. Leadership may have come at this very moment, and if it was meant
	// for nobody else it must not be lost.
	s.mu.Lock()
	select {
	case <-g.done:
		s.mu.Unlock()
		return g.err
	case <-g.lead:
		s.mu.Unlock()
		return s.lead()
	default:
	}
	g.followers--
	s.mu.Unlock()
	return fmt.Errorf("append record: %w: the disk has not answered in %s", collector.ErrFull, 2*s.cfg.FullTimeout)
}

// lead writes the pending group, then hands leadership to a follower of the
// next group, goes on itself where that one has no followers left, or gives
// leadership up. It returns the first group's error.
func (s *Spool) lead() error {
	var first error
	for round := 0; ; round++ {
		s.mu.Lock()
		g := s.pending
		s.pending = s.spare
		s.spare = nil
		if s.pending == nil {
			s.pending = &group{}
		}
		s.mu.Unlock()

		err := s.commit(g)
		if round == 0 {
			first = err
		}
		s.mu.Lock()
		s.publish(g, err)
		next := s.pending
		switch {
		case len(next.records) == 0:
			s.writing = false
			s.mu.Unlock()
			return first
		case next.followers > 0:
			next.lead <- struct{}{}
			s.mu.Unlock()
			return first
		}
		s.mu.Unlock()
	}
}

// publish makes a written group visible to readers and wakes its followers.
// Spool.mu is held.
func (s *Spool) publish(g *group, err error) {
	n := uint64(len(g.records))
	switch {
	case err == nil:
		s.appended.Add(n)
		s.addRecords(s.active, g)
	case s.cfg.Level == LevelNone:
		s.lost.Add(n)
		s.failures.Add(1)
	default:
		s.failures.Add(1)
	}
	if g.done != nil {
		g.err = err
		close(g.done)
		if cap(g.buf) <= keepBuffer && s.spare == nil {
			s.spare = &group{buf: g.buf[:0], records: g.records[:0]}
		}
		return
	}
	if cap(g.buf) <= keepBuffer {
		*g = group{buf: g.buf[:0], records: g.records[:0]}
		s.spare = g
	}
}

func (s *Spool) addRecords(seg *segment, g *group) {
	if s.unread.bytes == 0 {
		s.oldest = time.Now()
	}
	s.unread.bytes += int64(len(g.buf))
	s.unread.rows += g.rows
	for _, e := range g.records {
		e.at += seg.end
		seg.index = append(seg.index, e)
		if seg.ids != nil && seg.ids.add(e.id) {
			s.known++
		}
	}
	s.indexed += len(g.records)
	seg.records += uint64(len(g.records))
	seg.end += int64(len(g.buf))
	s.trimIndex()
	if s.threshold != (backlog{}) && (s.unread.bytes >= s.threshold.bytes || s.unread.rows >= s.threshold.rows) {
		s.threshold = backlog{}
		signal(s.wake)
	}
}

// A set of ids is an eighth to a half of an index, and saves reading a whole segment.
const idsPerIndex = 8

// trimIndex drops whole indexes, and sets of ids, oldest first, until the bounds hold.
func (s *Spool) trimIndex() {
	for _, seg := range s.segments {
		few, known := s.indexed <= s.cfg.IndexRecords, s.known <= idsPerIndex*s.cfg.IndexRecords
		if few && known {
			return
		}
		if !few {
			s.indexed -= len(seg.index)
			seg.index, seg.whole = nil, seg.records == 0
		}
		if !known {
			s.setIDs(seg, nil)
		}
	}
}

// setIDs gives a segment another set of ids.
func (s *Spool) setIDs(seg *segment, ids *idSet) {
	if seg.ids != nil {
		s.known -= seg.ids.n
	}
	if seg.ids = ids; ids != nil {
		s.known += ids.n
	}
}

// commit writes g to the active segment, as the level asks. After an error the
// segment is sealed where it stood before g.
func (s *Spool) commit(g *group) error {
	s.checkLinked()
	if err := s.makeRoom(int64(len(g.buf))); errors.Is(err, errNotOurs) {
		return fmt.Errorf("append record: %w", err)
	} else if err != nil {
		return fmt.Errorf("append to spool %q: %w: %w", s.cfg.Dir, collector.ErrFull, err)
	}
	for i := range g.records {
		place := 0
		if s.cfg.Level == LevelMachine {
			place = i
		}
		sealFrame(g.buf[g.records[i].at:], s.nextSeq+uint64(i), place)
	}
	_, err := s.activeFile.WriteAt(g.buf, s.active.end)
	if err == nil && s.cfg.Level == LevelMachine {
		err = s.activeFile.Sync()
	}
	if err != nil {
		name := segmentName(s.active.number)
		s.abandon(err)
		return fmt.Errorf("append to segment %q: %w: %w", join(s.cfg.Dir, name), collector.ErrFull, err)
	}
	s.nextSeq += uint64(len(g.records))
	s.noteEnd(s.active.number, s.active.end+int64(len(g.buf)))
	if s.full.Load() {
		s.full.Store(false)
	}
	return nil
}

// linkedEvery is how often the active file's name is looked at: what is written to
// a file that has none reaches nobody.
const linkedEvery = 10 * time.Millisecond

// checkLinked gives up the active segment when its file is no longer in the folder.
func (s *Spool) checkLinked() {
	if now := time.Now(); s.active == nil || now.Sub(s.linkedAt) < linkedEvery {
		return
	} else if s.linkedAt = now; s.fs.Linked(s.path(s.active), s.activeFile) {
		return
	}
	st := s.Stats()
	s.cfg.Logger.Error("the spool's file was removed while it was written: records that were acknowledged are lost", "dir", s.cfg.Dir,
		"segment", s.active.number, "at most", st.Appended-st.Acked)
	s.abandon(errUnlinked)
}

var errUnlinked = errors.New("the file was removed")

// abandon seals the active segment after a failed write or sync. It is never
// written or synced again; the next segment's header says where it ends.
func (s *Spool) abandon(cause error) {
	seg, f := s.active, s.activeFile
	s.active, s.activeFile = nil, nil
	s.cfg.Logger.Error("spool segment failed and was sealed", "dir", s.cfg.Dir, "segment", seg.number, "end", seg.end, "error", cause)
	// What of the group reached the file was acknowledged to nobody. Cutting it
	// off is tidiness only: the next header's prev end has the last word.
	if err := f.Truncate(seg.end); err != nil {
		s.cfg.Logger.Warn("spool could not cut a failed segment", "segment", seg.number, "error", err)
	}
	if err := f.Close(); err != nil {
		s.cfg.Logger.Warn("spool could not close a failed segment", "segment", seg.number, "error", err)
	}
	s.mu.Lock()
	seg.capacity = 0
	if vfs.IsFull(cause) {
		s.full.Store(true)
	}
	s.mu.Unlock()
}

// makeRoom sees to it that the active segment takes n more bytes. A full spool
// is given FullTimeout to get room, once; while it stays full later calls fail
// at once.
func (s *Spool) makeRoom(n int64) error {
	for {
		if s.active != nil && s.active.end+n <= s.active.capacity {
			s.fullSince = time.Time{}
			return nil
		}
		err := s.roll(n)
		if err == nil {
			s.fullSince = time.Time{}
			return nil
		}
		full := vfs.IsFull(err) || errors.Is(err, errNoRoom)
		if full && (s.dropDrained() || s.dropKept()) {
			continue
		}
		s.refused = n
		s.full.Store(true)
		if !full {
			return err
		}
		if s.fullSince.IsZero() {
			s.fullSince = time.Now()
		}
		left := s.cfg.FullTimeout - time.Since(s.fullSince)
		if left <= 0 {
			return err
		}
		select {
		case <-s.space:
		case <-s.stop:
			return err
		case <-time.After(min(left, 20*time.Millisecond)):
		}
	}
}

var errNoRoom = errors.New("no room for a segment")

// dropDrained ends the active segment and deletes it, to make room, where all of it is
// acknowledged, and reports whether it did. Nothing else would: what ends a segment is the
// next, for which there is no room while this one stands. Its number is not used again, and
// what the cursor says of it makes a start go on behind it.
func (s *Spool) dropDrained() bool {
	seg, f := s.active, s.activeFile
	if seg == nil {
		return false
	}
	s.mu.Lock()
	drained := seg.end > headerSize && seg.ackedTo >= seg.end
	if drained {
		seg.capacity = 0
	}
	s.mu.Unlock()
	if !drained {
		return false
	}
	s.active, s.activeFile = nil, nil
	// The disk has the room back when no name and no open file has it any more.
	if err := f.Close(); err != nil {
		s.cfg.Logger.Warn("spool could not close a segment of which all is acknowledged", "dir", s.cfg.Dir, "segment", seg.number, "error", err)
	}
	if !s.remove(seg) {
		signal(s.wake) // the reader tries it again
		return false
	}
	s.removed(map[*segment]bool{seg: true})
	return true
}

// regainEvery is how often a spool that found no room looks for some by itself.
const regainEvery = time.Second

// regainLoop has a full spool find out that there is room again although nobody appends:
// a server that says that it is not ready gets no requests.
func (s *Spool) regainLoop() {
	defer s.wg.Done()
	every := time.NewTicker(regainEvery)
	defer every.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-every.C:
			if s.full.Load() {
				s.regain()
			}
		}
	}
}

// regain looks for the room that was refused last, or for a small segment's where it was
// more than that.
func (s *Spool) regain() {
	s.mu.Lock()
	if s.closed || s.writing || len(s.pending.records) > 0 { // who appends finds out
		s.mu.Unlock()
		return
	}
	s.writing = true
	s.mu.Unlock()
	if s.makeRoom(min(s.refused, minSegment-headerSize)) == nil {
		s.full.Store(false)
	}
	s.mu.Lock()
	if len(s.pending.records) == 0 {
		s.writing = false
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	_ = s.lead() // whoever appended meanwhile gets the error
}

// roll seals the active segment and begins one with room for n bytes. After an
// error the active segment stands as it was.
func (s *Spool) roll(n int64) error {
	if err := s.ours(); err != nil {
		return err
	}
	capacity, err := s.capacity(n)
	if err != nil {
		return err
	}
	s.nextNumber++
	h := header{segment: s.nextNumber, firstSeq: s.nextSeq}
	s.mu.Lock()
	if k := len(s.segments); k > 0 {
		h.prevSegment, h.prevEnd = s.segments[k-1].number, s.segments[k-1].end
	}
	s.mu.Unlock()
	f, err := s.createSegment(h, capacity)
	if err != nil {
		return err
	}
	s.setHead(h.segment, 0)
	old, oldFile := s.active, s.activeFile
	s.active = &segment{number: h.segment, firstSeq: h.firstSeq, end: headerSize, capacity: capacity, whole: true, ids: &idSet{}}
	s.activeFile = f
	s.mu.Lock()
	if old != nil {
		old.capacity = 0
	}
	s.segments = append(s.segments, s.active)
	s.mu.Unlock()
	if old != nil {
		s.wg.Add(1)
		go s.seal(old, oldFile)
		signal(s.wake) // all of it may be acknowledged
	}
	return nil
}

// capacity decides how large the next segment may be: as configured, or what
// the maximum and the disk allow if that is still a useful size.
func (s *Spool) capacity(n int64) (int64, error) {
	need := max(n+headerSize, minSegment)
	want := max(s.cfg.SegmentBytes, need)
	room, err := s.room(want)
	for err == nil && room < want && s.dropKept() {
		room, err = s.room(want)
	}
	if err != nil {
		return 0, err
	}
	if room < need {
		return 0, fmt.Errorf("%w: %d bytes needed, %d allowed", errNoRoom, need, max(room, 0))
	}
	return room, nil
}

// room is how much of want bytes the maximum and the disk allow.
func (s *Spool) room(want int64) (int64, error) {
	free, err := s.fs.Free(s.cfg.Dir)
	if err != nil {
		return 0, fmt.Errorf("ask for free space: %w", err)
	}
	room := min(int64(min(free, 1<<62))-s.cfg.MinFreeBytes, want)
	if s.cfg.MaxBytes > 0 {
		used := int64(0)
		s.mu.Lock()
		for _, seg := range s.segments {
			used += seg.end
		}
		s.mu.Unlock()
		room = min(room, s.cfg.MaxBytes-used)
	}
	return room, nil
}

// createSegment makes the file of a segment with its space reserved and its
// header written. At LevelMachine file and name are durable when it returns.
func (s *Spool) createSegment(h header, capacity int64) (vfs.File, error) {
	name := join(s.cfg.Dir, segmentName(h.segment))
	f, err := s.fs.Create(name)
	if err != nil {
		if !errors.Is(err, fs.ErrExist) {
			_ = s.fs.Remove(name) // an error may come after the name: see below
		}
		return nil, fmt.Errorf("create segment %q: %w", name, err)
	}
	err = f.Reserve(capacity)
	if err == nil {
		_, err = f.WriteAt(h.encode(), 0)
	}
	if err == nil && s.cfg.Level == LevelMachine {
		if err = f.Sync(); err == nil {
			err = s.fs.SyncDir(s.cfg.Dir)
		}
	}
	if err == nil {
		return f, nil
	}
	// A segment left behind without a frame is tidied up by recovery.
	_ = f.Close()
	_ = s.fs.Remove(name)
	return nil, fmt.Errorf("create segment %q: %w", name, err)
}

// seal finishes a full segment in the background: its reserve goes back to the
// disk and its bytes are made durable. It ends by itself; Close waits for it.
func (s *Spool) seal(seg *segment, f vfs.File) {
	defer s.wg.Done()
	err := f.Truncate(seg.end)
	if err == nil && s.cfg.Level == LevelProcess {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		s.cfg.Logger.Warn("spool could not finish a segment", "dir", s.cfg.Dir, "segment", seg.number, "error", err)
	}
}

// flushLoop writes what LevelNone has taken, a little later.
func (s *Spool) flushLoop() {
	defer s.wg.Done()
	for {
		select {
		case <-s.stop:
			return
		case <-s.kick:
		}
		select {
		case <-s.stop: // Close writes the rest
			return
		case <-time.After(50 * time.Millisecond):
		}
		s.mu.Lock()
		idle := !s.writing && !s.closed && len(s.pending.records) > 0
		if idle {
			s.writing = true
		}
		s.mu.Unlock()
		if !idle {
			continue
		}
		if err := s.lead(); err != nil {
			s.cfg.Logger.Error("spool lost records", "dir", s.cfg.Dir, "error", err)
		}
	}
}

// payloadLength reads the length a frame's header states.
func payloadLength(h []byte) int64 { return int64(binary.LittleEndian.Uint32(h[8:])) }
