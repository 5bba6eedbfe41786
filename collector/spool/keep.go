package spool

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// At LevelMachine a power cut may take from the store what it has confirmed: not all
// that a server calls written is on its disk. So acknowledged segments stay for
// Config.KeepFor, and when the machine was started anew in between, whoever drains
// looks for each of their batches (Unchecked, Kept, Checked) before the next one.

// openLedger reads the ledger, before the cursor, which is made anew from it where it
// is lost.
func (s *Spool) openLedger(exists bool) error {
	s.ledger = &ledger{}
	name := join(s.cfg.Dir, ledgerName)
	if s.cfg.Level != LevelMachine || !exists {
		return nil
	}
	f, err := s.fs.Open(name, false)
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	l, found, damaged, err := readLedger(f)
	if err != nil {
		return errors.Join(fmt.Errorf("read ledger: %w", err), f.Close())
	}
	if damaged > 0 {
		s.badBytes.Add(uint64(damaged) * ledgerEntry)
		s.badCut.Add(uint64(damaged))
		s.cfg.Logger.Error("spool ledger is damaged: batches are not remembered", "dir", s.cfg.Dir, "entries", damaged)
	}
	if found {
		s.ledger, s.remembers = l, true
		return nil
	}
	_ = f.Close()
	aside := fmt.Sprintf("%s.%d.bad", name, s.cfg.Now().UnixNano())
	if err := s.fs.Rename(name, aside); err != nil {
		return fmt.Errorf("set ledger aside: %w", err)
	}
	s.badCut.Add(1)
	s.cfg.Logger.Error("spool ledger cannot be read: no acknowledged batch will be looked for", "dir", s.cfg.Dir, "kept", aside)
	return nil
}

// lostCursor is what the cursor is taken for when it cannot be read. The ledger is
// written before it, so all that is there was confirmed by the store. Without one the
// segments up to number last may hold what was delivered under the lost node id.
func (s *Spool) lostCursor(last uint64) cursor {
	if !s.remembers {
		return cursor{node: newNode(), again: uint32(min(last, math.MaxUint32))}
	}
	return cursor{node: s.ledger.head.node, acked: s.ledger.last()}
}

// startKeeping decides, when cursor and segments are read, which batches have to be
// looked for, and from when on each segment is kept; last is the number of the newest
// segment, 0 where there is none.
func (s *Spool) startKeeping(last uint64) error {
	if s.cfg.Level != LevelMachine {
		err := s.fs.Remove(join(s.cfg.Dir, ledgerName))
		if err != nil && !notExist(err) {
			return fmt.Errorf("remove ledger: %w", err)
		}
		return nil
	}
	l := s.ledger
	if s.remembers && l.head.node != s.cursor.node {
		s.cfg.Logger.Error("spool ledger is of another cursor: no acknowledged batch will be looked for", "dir", s.cfg.Dir)
		l.entries, s.remembers = nil, false
	}
	l.cut(s.cursor.acked)
	h := l.head
	changed := s.remembers && (s.boot == "" || s.boot != h.boot)
	// A disk that lies about its syncs may have brought an older cursor back: what waits, by its
	// word, may be stored, under tokens of batches that will not be cut the same again.
	if again := uint32(min(last, math.MaxUint32)); again > s.cursor.again && (changed || !s.remembers) {
		c := s.cursor
		c.again = again
		if err := s.saveCursor(c); err != nil {
			return fmt.Errorf("note that what waits may be stored: %w", err)
		}
	}
	now := time.Now()
	for i := range l.entries {
		seg := s.segmentNumbered(l.entries[i].segment)
		if seg == nil {
			continue
		}
		// The clock may have been set since; what lies in the future is of now, and
		// what seems old goes early, but not before it was looked for.
		age := max(0, s.cfg.Now().Sub(time.UnixMilli(l.ackedAt(&l.entries[i]))))
		seg.ackedAt = now.Add(-age)
		if seg.doubt = changed; changed {
			s.unchecked = append(s.unchecked, l.entries[i])
		}
	}
	if len(s.unchecked) > 0 {
		s.cfg.Logger.Warn("the machine was started anew: what was acknowledged lately will be looked for in the store", "dir", s.cfg.Dir, "batches", len(s.unchecked))
		return nil // the boot id stays as it was until that is done
	}
	if s.remembers && h.boot == s.boot && s.boot != "" {
		return nil
	}
	h.node, h.boot = s.cursor.node, s.boot
	if err := s.saveLedger(h); err != nil && !vfs.IsFull(err) {
		return err
	} else if err != nil {
		s.cfg.Logger.Warn("spool has no room for its ledger", "dir", s.cfg.Dir, "error", err)
	}
	return nil
}

// saveLedger makes a head durable; a ledger that failed is written anew.
func (s *Spool) saveLedger(h ledgerHead) error {
	if s.ledger.file != nil && !s.ledger.failed {
		err := s.ledger.save(h)
		if err == nil {
			return nil
		}
		s.ledgerFailed(err)
	}
	return s.replaceLedger(h)
}

func (s *Spool) ledgerFailed(err error) {
	s.ledger.failed = true
	s.cfg.Logger.Error("spool ledger failed and is replaced", "dir", s.cfg.Dir, "error", err)
}

// remember notes a batch in the ledger before the cursor says that it is acknowledged.
// On a full disk that is left out, as else nothing would ever free it.
func (s *Spool) remember(b *collector.Batch) error {
	p := s.cursor.plan
	if s.cfg.Level != LevelMachine || p == nil || len(b.Records) == 0 {
		return nil
	}
	l, now := s.ledger, s.cfg.Now()
	if k := len(l.entries); k > 0 && l.entries[k-1].plan == *p {
		return nil // the cursor failed after it
	}
	if l.file != nil && !l.failed {
		err := l.add(*p, now)
		if err == nil {
			return nil
		}
		s.ledgerFailed(err)
	}
	h := l.head
	if l.file == nil {
		h.node, h.boot = s.cursor.node, s.boot
	}
	err := s.replaceLedger(h, acknowledged{plan: *p, number: l.next, at: now.UnixMilli()})
	if err != nil && vfs.IsFull(err) {
		s.cfg.Logger.Error("spool ledger has no room: a batch will not be looked for after a power cut", "dir", s.cfg.Dir, "batch", b.Token, "error", err)
		return nil
	}
	return err
}

// Unchecked returns the tokens of acknowledged batches that a power cut may have taken
// from the store, the oldest first. Until Checked they are offered at every start.
func (s *Spool) Unchecked() []string {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	out := make([]string, len(s.unchecked))
	for i := range s.unchecked {
		out[i] = s.token(&s.unchecked[i].plan)
	}
	return out
}

// Planned returns the token of the batch that is frozen and not acknowledged, "" where
// there is none.
func (s *Spool) Planned() string {
	if token := s.planned.Load(); token != nil { // Next holds readMu while it waits
		return *token
	}
	return ""
}

// Kept returns one of the batches that Unchecked names.
func (s *Spool) Kept(token string) (*collector.Batch, error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	for i := range s.unchecked {
		if p := &s.unchecked[i].plan; s.token(p) == token {
			b, err := s.load(p)
			if err != nil {
				return nil, fmt.Errorf("load kept batch %s: %w", token, err)
			}
			return b, nil
		}
	}
	return nil, fmt.Errorf("load kept batch %s: %w", token, collector.ErrNotFound)
}

// Checked says that the store has everything of the batches that Unchecked names. They
// are kept for as long once more: what was sent again may be lost again.
func (s *Spool) Checked() error {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	if s.cursorFile == nil {
		return fmt.Errorf("note what was looked for: %w", ErrClosed)
	}
	if len(s.unchecked) == 0 {
		return nil
	}
	now := time.Now()
	h := s.ledger.head
	h.boot, h.looked, h.lookedAt = s.boot, s.ledger.next, s.cfg.Now().UnixMilli()
	if err := s.saveLedger(h); err != nil {
		return fmt.Errorf("note what was looked for: %w", err)
	}
	s.unchecked = nil
	s.mu.Lock()
	for _, seg := range s.segments {
		if seg.doubt {
			seg.doubt, seg.ackedAt = false, now
		}
	}
	s.mu.Unlock()
	s.dropFinished()
	return nil
}

// keeps reports whether a segment of which all is acknowledged stays for now. Spool.mu
// is held.
func (s *Spool) keeps(seg *segment, now time.Time) bool {
	if seg.doubt {
		return true
	}
	return seg.number >= s.forget && !seg.ackedAt.IsZero() && now.Sub(seg.ackedAt) < s.cfg.KeepFor
}

// acknowledge notes how far the segments are acknowledged, and gives up what only
// finds records that are not. Spool.mu is held.
func (s *Spool) acknowledge(to collector.Position, now time.Time) {
	for _, seg := range s.segments {
		switch {
		case seg.number > to.Segment:
			return
		case seg.number < to.Segment:
			seg.ackedTo = max(seg.ackedTo, seg.end)
		default:
			seg.ackedTo = to.Offset
			if s.cfg.Level == LevelMachine && !now.IsZero() {
				seg.ackedAt = now
			}
		}
		if seg.capacity == 0 && seg.ackedTo >= seg.end {
			s.indexed -= len(seg.index)
			seg.index = nil
			s.setIDs(seg, nil)
		}
	}
}

// forgetBelow makes the ledger forget what an erasure must not find again after a
// power cut, before the files go.
func (s *Spool) forgetBelow(number uint64) error {
	if s.cfg.Level == LevelMachine {
		h := s.ledger.head
		h.forgotten = max(h.forgotten, number)
		if err := s.saveLedger(h); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.forgotten = number
	s.mu.Unlock()
	return nil
}

// dropKept deletes the oldest segment that is merely kept, to make room, and reports
// whether there was one.
func (s *Spool) dropKept() bool {
	s.mu.Lock()
	i := slices.IndexFunc(s.segments, func(seg *segment) bool { return seg.kept && !seg.doubt && seg.number >= s.forget })
	var seg *segment
	if i >= 0 {
		seg = s.segments[i]
	}
	s.mu.Unlock()
	if seg == nil || !s.remove(seg) {
		return false
	}
	s.cfg.Logger.Warn("spool needs room: a segment that was kept for a power cut goes early", "dir", s.cfg.Dir, "segment", seg.number)
	s.removed(map[*segment]bool{seg: true})
	return true
}

// expiry is how long the first segment is still kept, 0 where none is.
func (s *Spool) expiry() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		if seg.kept && !seg.doubt {
			if left := s.cfg.KeepFor - time.Since(seg.ackedAt); left > 0 {
				return left + time.Millisecond
			}
			return time.Second // it could not be removed
		}
	}
	return 0
}
