package spool

import (
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/collector"
)

// MissingSegment is a segment whose file is gone although not all of it is acknowledged.
type MissingSegment struct {
	// Segment is the last one that is gone, by the header of Next, the one that comes after
	// it, or, where Next is 0, by the head. Those between After, the one before that is
	// there, and Segment may be gone too; After is 0 where there is none.
	After, Segment, Next uint64
	// From and To are its bytes that are not acknowledged; To is 0 where nobody knows.
	From, To int64
}

// String says what is gone.
func (m MissingSegment) String() string {
	what := fmt.Sprintf("segment %d is gone", m.Segment)
	if m.Segment-m.After > 1 && m.After > 0 {
		what += fmt.Sprintf(", and all others after segment %d", m.After)
	}
	if m.To > 0 {
		return fmt.Sprintf("%s, with %d bytes that are not acknowledged", what, m.To-m.From)
	}
	return what
}

// gaps finds what is missing before segments that are there: each one's header names the
// segment before it and where that ends. It may be gone only when all of it is
// acknowledged; numbers alone tell nothing, as one whose file could not be made is not
// used again. A nil header is one that cannot be read, and tells nothing.
func gaps(numbers []uint64, headers []*header, acked collector.Position) (out []MissingSegment) {
	for i, h := range headers {
		if h == nil || h.prevSegment == 0 || h.prevEnd <= headerSize {
			continue
		}
		if _, there := slices.BinarySearch(numbers, h.prevSegment); there || !before(acked, h.prevSegment, h.prevEnd) {
			continue
		}
		m := MissingSegment{Segment: h.prevSegment, Next: numbers[i], From: headerSize, To: h.prevEnd}
		if acked.Segment == m.Segment {
			m.From = max(m.From, acked.Offset)
		}
		if i > 0 {
			m.After = numbers[i-1]
		}
		out = append(out, m)
	}
	return out
}

// before reports whether what is acknowledged ends before an offset of a segment.
func before(acked collector.Position, segment uint64, offset int64) bool {
	return acked.Segment < segment || acked.Segment == segment && acked.Offset < offset
}

// missBetween tells of segments that are gone before others that are there. It is told at
// every start until what is left behind them is stored. Where the cursor is lost nobody
// knows what was acknowledged.
func (s *Spool) missBetween(numbers []uint64, headers []*header) {
	if s.cursorLost {
		return
	}
	for _, m := range gaps(numbers, headers, s.cursor.acked) {
		s.missing.Add(1)
		s.cfg.Logger.Error("a segment of the spool is gone: all in it that was not in the store yet is lost", "dir", s.cfg.Dir,
			"segment", m.Segment, "from", m.From, "to", m.To, "after", m.After, "before", m.Next)
		s.cfg.Lost("records of the spool are lost: " + m.String())
	}
}

// missCut tells of the newest segment when it has fewer records than the cursor, or less
// than head and mark, say were appended to it, and some of them were not acknowledged. next
// is one above the last record found in it, 0 where that is not known.
func (s *Spool) missCut(seg *segment, next uint64) {
	acked, end := s.cursor.acked, s.head.knownEnd(seg.number)
	if s.head.told || s.cursorLost || acked.Segment > seg.number {
		return
	}
	if end > seg.end && before(acked, seg.number, end) {
		s.missing.Add(1)
		from := seg.end
		if acked.Segment == seg.number {
			from = max(from, acked.Offset)
		}
		s.cfg.Logger.Error("the spool's newest segment is shorter than it was: what it lacks is lost", "dir", s.cfg.Dir, "segment", seg.number, "from", from, "to", end)
		s.cfg.Lost(fmt.Sprintf("records of the spool are lost: %d bytes of segment %d from %d on are gone or cannot be read", end-from, seg.number, from))
		return
	}
	closed := s.head.segment == seg.number && s.head.end > 0
	if closed || next == 0 || s.cursor.nextSeq <= next {
		return
	}
	s.missing.Add(1)
	s.cfg.Logger.Error("the spool's newest segment is shorter than it was: what it lacks is lost", "dir", s.cfg.Dir, "segment", seg.number,
		"from", seg.end, "records", s.cursor.nextSeq-next, "some may be stored", acked.Segment == seg.number && acked.Offset > seg.end)
	s.cfg.Lost(fmt.Sprintf("records of the spool are lost: segment %d is shorter than it was, by %d records", seg.number, s.cursor.nextSeq-next))
}
