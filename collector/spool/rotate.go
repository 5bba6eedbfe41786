package spool

import (
	"errors"
	"fmt"
	"time"

	"github.com/pellucid/pellucid/collector/vfs"
)

// Rotate ends the active segment and returns the number of the next: every record
// that Append took before is in a segment of a lower number, and goes from the disk
// when those are acknowledged: none is kept for a power cut, and the ledger forgets
// them first, so that what is erased afterwards is never sent again. Where the disk has no
// room for the next segment there is none until it has: what Rotate is for frees some.
func (s *Spool) Rotate() (uint64, error) {
	if err := s.takeLead(); err != nil {
		return 0, fmt.Errorf("rotate spool %q: %w", s.cfg.Dir, err)
	}
	var err error
	number := s.nextNumber
	if s.active == nil || s.active.end > headerSize {
		if err = s.roll(0); errors.Is(err, errNoRoom) || vfs.IsFull(err) {
			s.endActive()
			number, err = s.nextNumber+1, nil
		} else {
			number = s.nextNumber
		}
	}
	if err == nil {
		s.mu.Lock()
		s.forget = number
		s.mu.Unlock()
	}
	// Whoever appended meanwhile waits for a leader; they get their own errors.
	_ = s.lead()
	// The reader deletes what was acknowledged before.
	signal(s.wake)
	if err != nil {
		return 0, fmt.Errorf("rotate spool %q: %w", s.cfg.Dir, err)
	}
	return number, nil
}

// endActive ends the active segment without another: the next Append begins one.
func (s *Spool) endActive() {
	if s.active == nil {
		return
	}
	s.mu.Lock()
	s.active.capacity = 0
	s.mu.Unlock()
	s.wg.Add(1)
	go s.seal(s.active, s.activeFile)
	s.active, s.activeFile = nil, nil
}

// takeLead makes the caller the leader, when everything that was handed in before is
// written.
func (s *Spool) takeLead() error {
	s.mu.Lock()
	for !s.closed && (s.writing || len(s.pending.records) > 0) {
		if s.writing { // as in Close
			s.mu.Unlock()
			time.Sleep(100 * time.Microsecond)
			s.mu.Lock()
			continue
		}
		s.writing = true // of LevelNone: nobody waits for these
		s.mu.Unlock()
		if err := s.lead(); err != nil {
			return err
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.writing = true
	return nil
}

// Before reports whether there are segments of a lower number: records that are not
// acknowledged or still to be looked for in the store, or whose file is still
// there, or whose batches the ledger still knows.
func (s *Spool) Before(number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		if seg.number < number {
			return true
		}
	}
	return s.cfg.Level == LevelMachine && s.forgotten < number
}
