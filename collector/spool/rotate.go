package spool

import (
	"fmt"
	"time"
)

// Rotate ends the active segment and returns the number of the next: every record
// that Append took before is in a segment of a lower number, and goes from the disk
// when those are acknowledged: none is kept for a power cut, and the ledger forgets
// them first, so that what is erased afterwards is never sent again. It wants room for a
// segment, like Append.
func (s *Spool) Rotate() (uint64, error) {
	if err := s.takeLead(); err != nil {
		return 0, fmt.Errorf("rotate spool %q: %w", s.cfg.Dir, err)
	}
	var err error
	if s.active == nil || s.active.end > headerSize {
		err = s.roll(0)
	}
	number := s.nextNumber
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
