package spool

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/collector"
)

// Report is what Verify found.
type Report struct {
	// Segments are in order.
	Segments []SegmentReport
	// Acked is up to where the folder's records are acknowledged; Planned says
	// that a batch is frozen beyond it.
	Acked   collector.Position
	Planned bool
	// CursorDamaged says that no cursor can be read though there is a file.
	CursorDamaged bool
	// BadFiles are the names of what earlier starts set aside.
	BadFiles []string
	// Remembered counts the batches in the ledger; LedgerDamaged says that no ledger can
	// be read though there is a file.
	Remembered    int
	LedgerDamaged bool
	// Missing are segments that are gone although not all of them is acknowledged.
	Missing []MissingSegment
}

// SegmentReport is what Verify found in one segment.
type SegmentReport struct {
	Number            uint64
	FirstSeq, LastSeq uint64
	Records           int
	Bytes             int64
	// HeaderDamaged, Damaged (bytes before the end that are no frame) and Tail
	// (bytes behind the last frame). A tail in the newest segment may be a write
	// on its way; in another one it is what a failed write left.
	HeaderDamaged bool
	Damaged, Tail int64

	header *header // nil where it is damaged
}

// OK reports whether nothing acknowledged to a client is damaged or gone.
func (r *Report) OK() bool { return len(r.Problems()) == 0 }

// Problems says what is damaged or gone.
func (r *Report) Problems() (out []string) {
	if r.CursorDamaged {
		out = append(out, "the cursor cannot be read")
	}
	if r.LedgerDamaged {
		out = append(out, "the ledger cannot be read")
	}
	for _, m := range r.Missing {
		out = append(out, m.String())
	}
	for i := range r.Segments {
		out = append(out, r.Segments[i].problems()...)
	}
	return out
}

func (s *SegmentReport) problems() (out []string) {
	if s.HeaderDamaged {
		out = append(out, fmt.Sprintf("the header of segment %d cannot be read", s.Number))
	}
	if s.Damaged > 0 {
		out = append(out, fmt.Sprintf("%d bytes of segment %d are damaged", s.Damaged, s.Number))
	}
	return out
}

// Verify reads every frame of the folder and changes nothing; it takes no lock,
// so that it may run while a server uses the folder.
func Verify(dir string) (*Report, error) { return walk(osFS{}, dir, nil) }

// Dump writes one line for the cursor, each segment and each record to w: where
// it is, its kind, size and ids, but no value.
func Dump(w io.Writer, dir string) error {
	_, err := walk(osFS{}, dir, w)
	return err
}

var kindNames = map[collector.Kind]string{
	collector.KindPrediction: "prediction", collector.KindFeedback: "feedback", collector.KindExplanation: "explanation",
	collector.KindImported: "imported", collector.KindRefused: "refused", collector.KindSchema: "schema", collector.KindDriven: "driven",
}

// walk reads all there is. A server may have the folder: what says where records are to be
// is read before the segments, and what says that they may be gone after them.
func walk(fs filesystem, dir string, w io.Writer) (*Report, error) {
	if w == nil {
		w = io.Discard
	}
	newest, err := lookAtHead(fs, dir)
	if err != nil {
		return nil, err
	}
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list spool %q: %w", dir, err)
	}
	r := &Report{}
	slices.Sort(names)
	if slices.Contains(names, cursorName) {
		if err := reportCursor(fs, dir, r, w); err != nil {
			return nil, err
		}
	}
	if slices.Contains(names, ledgerName) {
		if err := reportLedger(fs, dir, r, w); err != nil {
			return nil, err
		}
	}
	if err := reportSegments(fs, dir, names, r, w); err != nil {
		return nil, err
	}
	return r, reportMissing(fs, dir, newest, r, w)
}

func reportSegments(fs filesystem, dir string, names []string, r *Report, w io.Writer) error {
	for _, name := range names {
		if strings.HasSuffix(name, ".bad") {
			r.BadFiles = append(r.BadFiles, name)
			fmt.Fprintf(w, "kept aside %s\n", name)
		}
		number, ok := segmentNumber(name)
		if !ok {
			continue
		}
		s, err := reportSegment(fs, join(dir, name), number, w)
		if notExist(err) {
			continue // acknowledged and deleted meanwhile
		}
		if err != nil {
			return fmt.Errorf("read segment %q: %w", join(dir, name), err)
		}
		r.Segments = append(r.Segments, s)
	}
	return nil
}

// lookAtHead reads what the head says, nothing where it cannot be read.
func lookAtHead(fs filesystem, dir string) (at collector.Position, err error) {
	b, err := readFile(fs, join(dir, headName))
	if notExist(err) {
		return at, nil
	}
	if err != nil {
		return at, fmt.Errorf("read head in %q: %w", dir, err)
	}
	at.Segment, at.Offset, _ = decodeHead(b)
	return at, nil
}

func readFile(fs filesystem, name string) ([]byte, error) {
	f, err := fs.Open(name, true)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

// reportMissing finds what is gone by the headers, by the cursor as it is now (what goes by
// rights goes after it was written), and by the head, which is set before its segment goes.
func reportMissing(fs filesystem, dir string, newest collector.Position, r *Report, w io.Writer) error {
	acked, known, err := lookAtCursor(fs, dir)
	if err != nil || !known {
		return err
	}
	var numbers []uint64
	var headers []*header
	for i := range r.Segments {
		numbers, headers = append(numbers, r.Segments[i].Number), append(headers, r.Segments[i].header)
	}
	r.Missing = gaps(numbers, headers, acked)
	last := uint64(0)
	if len(numbers) > 0 {
		last = numbers[len(numbers)-1]
	}
	now, err := lookAtHead(fs, dir)
	if err != nil {
		return err
	}
	end := now.Offset
	if end == 0 {
		end = math.MaxInt64
	}
	if newest.Segment > last && now.Segment == newest.Segment && before(acked, newest.Segment, end) {
		m := MissingSegment{After: last, Segment: newest.Segment, From: headerSize, To: now.Offset}
		if acked.Segment == m.Segment {
			m.From = max(m.From, acked.Offset)
		}
		r.Missing = append(r.Missing, m)
	}
	for _, m := range r.Missing {
		fmt.Fprintln(w, m)
	}
	return nil
}

// lookAtCursor is what is acknowledged now; known is false where no cursor says so.
func lookAtCursor(fs filesystem, dir string) (acked collector.Position, known bool, err error) {
	f, err := fs.Open(join(dir, cursorName), true)
	if notExist(err) {
		return acked, false, nil
	}
	if err != nil {
		return acked, false, fmt.Errorf("open cursor in %q: %w", dir, err)
	}
	defer f.Close()
	c, _, err := readCursor(f)
	if err != nil {
		return acked, false, fmt.Errorf("read cursor in %q: %w", dir, err)
	}
	if c == nil {
		return acked, false, nil
	}
	return c.acked, true, nil
}

func reportCursor(fs filesystem, dir string, r *Report, w io.Writer) error {
	f, err := fs.Open(join(dir, cursorName), true)
	if err != nil {
		return fmt.Errorf("open cursor in %q: %w", dir, err)
	}
	defer f.Close()
	c, damaged, err := readCursor(f)
	if err != nil {
		return fmt.Errorf("read cursor in %q: %w", dir, err)
	}
	if c == nil {
		r.CursorDamaged = damaged
		fmt.Fprintln(w, "cursor cannot be read")
		return nil
	}
	r.Acked, r.Planned = c.acked, c.plan != nil
	fmt.Fprintf(w, "cursor node=%s generation=%d acked=%d:%d", hex.EncodeToString(c.node[:]), c.generation, c.acked.Segment, c.acked.Offset)
	if p := c.plan; p != nil {
		fmt.Fprintf(w, " planned=%d:%d-%d crc=%08x", p.segment, p.from, p.to, p.sum)
	}
	fmt.Fprintln(w)
	return nil
}

func reportLedger(fs filesystem, dir string, r *Report, w io.Writer) error {
	f, err := fs.Open(join(dir, ledgerName), true)
	if err != nil {
		return fmt.Errorf("open ledger in %q: %w", dir, err)
	}
	defer f.Close()
	l, found, _, err := readLedger(f)
	if err != nil {
		return fmt.Errorf("read ledger in %q: %w", dir, err)
	}
	if !found {
		r.LedgerDamaged = true
		fmt.Fprintln(w, "ledger cannot be read")
		return nil
	}
	r.Remembered = len(l.entries)
	_, err = fmt.Fprintf(w, "ledger generation=%d batches=%d forgotten=%d boot=%q\n", l.head.generation, len(l.entries), l.head.forgotten, l.head.boot)
	return err
}

func reportSegment(fs filesystem, name string, number uint64, w io.Writer) (SegmentReport, error) {
	f, err := fs.Open(name, true)
	if err != nil {
		return SegmentReport{}, err
	}
	defer f.Close()
	b, err := readAll(f)
	if err != nil {
		return SegmentReport{}, err
	}
	r := SegmentReport{Number: number, Bytes: int64(len(b))}
	h, err := decodeHeader(b, number)
	if errors.Is(err, ErrVersion) {
		return r, err
	}
	if r.HeaderDamaged, r.FirstSeq = err != nil, h.firstSeq; err == nil {
		r.header = &h
	}
	fmt.Fprintf(w, "segment %d bytes=%d first_seq=%d previous=%d:%d header_ok=%t\n", number, len(b), h.firstSeq, h.prevSegment, h.prevEnd, err == nil)
	if len(b) <= headerSize {
		return r, nil
	}
	return r, scan(b[headerSize:], headerSize, func(st stretch) error {
		if st.bad {
			r.Tail = st.to - st.from
			fmt.Fprintf(w, "  %d bad bytes=%d\n", st.from, st.to-st.from)
			return nil
		}
		r.Damaged += r.Tail // what looked like a tail has a frame behind it
		r.Tail = 0
		r.Records++
		r.LastSeq = st.frame.seq
		return dumpFrame(w, st)
	})
}

func dumpFrame(w io.Writer, st stretch) error {
	kind, ok := kindNames[st.frame.kind]
	if !ok {
		kind = fmt.Sprintf("kind%d", st.frame.kind)
	}
	id, trace := collector.PayloadKeys(st.frame.kind, st.frame.payload)
	_, err := fmt.Fprintf(w, "  %d seq=%d %s v%d bytes=%d rows=%d id=%q trace=%q\n", st.from, st.frame.seq, kind,
		st.frame.version, len(st.frame.payload), collector.PayloadRows(st.frame.kind, st.frame.payload), id, trace)
	return err
}
