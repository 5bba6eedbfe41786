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
	"github.com/pellucid/pellucid/collector/vfs"
)

// Report is what Verify found.
type Report struct {
	// Segments are in order.
	Segments []SegmentReport
	// Acked is up to where the folder's records are acknowledged; Planned says
	// that a batch is frozen beyond it.
	Acked   collector.Position
	Planned bool
	// CursorDamaged says that no cursor can be read though there is a file; CursorGone that
	// there is none, which is made before the first segment.
	CursorDamaged, CursorGone bool
	// BadFiles are the names of what earlier starts set aside.
	BadFiles []string
	// Remembered counts the batches in the ledger; LedgerDamaged says that no ledger can
	// be read though there is a file.
	Remembered    int
	LedgerDamaged bool
	// Missing are segments that are gone although not all of them is acknowledged.
	Missing []MissingSegment
	// Dead says what is damaged or gone of the dead letters.
	Dead []string
}

// SegmentReport is what Verify found in one segment.
type SegmentReport struct {
	Number            uint64
	FirstSeq, LastSeq uint64
	Records           int
	Bytes             int64
	// HeaderDamaged, Damaged: the header, or bytes that were frames, cannot be read.
	HeaderDamaged bool
	Damaged       int64
	// Short is how much shorter the file is than it was when the next segment was begun or
	// the spool closed, or than the cursor points; Gone counts records that it had, by
	// sequence numbers that are not there.
	Short int64
	Gone  uint64
	// Tail are bytes behind the last frame that were acknowledged to nobody: in the newest
	// segment a write on its way or one that a crash has torn, in another one what a failed
	// write left behind the end that the next segment names. Where the newest was not
	// closed and the cursor does not point beyond, nothing tells a cut from a crash.
	Tail int64

	header *header // nil where it is damaged
}

// OK reports whether nothing acknowledged to a client is damaged or gone.
func (r *Report) OK() bool { return len(r.Problems()) == 0 }

// Problems says what is damaged or gone.
func (r *Report) Problems() (out []string) {
	if r.CursorDamaged {
		out = append(out, "the cursor cannot be read")
	}
	if r.CursorGone {
		out = append(out, "the cursor is gone")
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
	for _, what := range r.Dead {
		out = append(out, "of dead letters "+what)
	}
	return out
}

func (r *SegmentReport) problems() (out []string) {
	if r.HeaderDamaged {
		out = append(out, fmt.Sprintf("the header of segment %d cannot be read", r.Number))
	}
	if r.Damaged > 0 {
		out = append(out, fmt.Sprintf("%d bytes of segment %d are damaged", r.Damaged, r.Number))
	}
	if r.Short > 0 {
		out = append(out, fmt.Sprintf("segment %d is %d bytes shorter than it was", r.Number, r.Short))
	}
	if r.Gone > 0 {
		out = append(out, fmt.Sprintf("%d records of segment %d are gone", r.Gone, r.Number))
	}
	return out
}

// Verify reads every frame of the folder and changes nothing; it takes no lock,
// so that it may run while a server uses the folder.
func Verify(dir string) (*Report, error) { return walk(vfs.OS{}, dir, nil) }

// Dump writes one line for the cursor, each segment and each record to w: where
// it is, its kind, size and ids, but no value.
func Dump(w io.Writer, dir string) error {
	_, err := walk(vfs.OS{}, dir, w)
	return err
}

var kindNames = map[collector.Kind]string{
	collector.KindPrediction: "prediction", collector.KindFeedback: "feedback", collector.KindExplanation: "explanation",
	collector.KindImported: "imported", collector.KindRefused: "refused", collector.KindSchema: "schema", collector.KindDriven: "driven",
}

// walk reads all there is. A server may have the folder: what says where records are to be
// is read before the segments, and what says that they may be gone after them.
func walk(fs vfs.FS, dir string, w io.Writer) (*Report, error) {
	if w == nil {
		w = io.Discard
	}
	newest, marked, err := lookAtHead(fs, dir)
	if err != nil {
		return nil, err
	}
	names, err := vfs.Files(fs, dir)
	if err != nil {
		return nil, fmt.Errorf("list spool %q: %w", dir, err)
	}
	r := &Report{}
	slices.Sort(names)
	var c *cursor
	if slices.Contains(names, cursorName) {
		if c, err = reportCursor(fs, dir, r, w); err != nil {
			return nil, err
		}
	}
	if slices.Contains(names, ledgerName) {
		if err := reportLedger(fs, dir, r, w); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".bad") {
			r.BadFiles = append(r.BadFiles, name)
			fmt.Fprintf(w, "kept aside %s\n", name)
		}
	}
	known, err := bounds(fs, dir, names, newest, marked, c)
	if err != nil {
		return nil, err
	}
	for _, b := range known {
		s, err := reportSegment(fs, join(dir, segmentName(b.number)), b, w)
		if notExist(err) {
			continue // acknowledged and deleted meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read segment %q: %w", join(dir, segmentName(b.number)), err)
		}
		r.Segments = append(r.Segments, s)
	}
	if r.Dead, err = deadProblems(fs, join(dir, "dead")); err != nil {
		return nil, err
	}
	r.CursorGone = len(r.Segments) > 0 && !slices.Contains(names, cursorName)
	return r, reportMissing(fs, dir, newest, r, w)
}

// bound is what is known of a segment from elsewhere.
type bound struct {
	number uint64
	header *header // nil where it cannot be read
	// begun says that its header was written: head or cursor name it, bytes follow, or
	// another segment does.
	begun bool
	// newest says that it is the last with records; torn, that a crash may have torn its
	// tail.
	newest, torn bool
	// end is where it ends, by the header of the next or by the head of a spool that was
	// closed; 0 where nobody knows. least is how far cursor or mark say that there were frames.
	end, least int64
	// nextSeq is a sequence number that all of its records are below, and that is one above
	// the last's, or less; 0 where nobody knows.
	nextSeq uint64
}

// bounds gathers what head, mark, cursor (nil where it cannot be read) and headers say of
// the segments among names.
func bounds(fs vfs.FS, dir string, names []string, newest, marked collector.Position, c *cursor) ([]bound, error) {
	var out []bound
	for _, name := range names {
		number, ok := segmentNumber(name)
		if !ok {
			continue
		}
		b, err := boundOf(fs, join(dir, name), number)
		if notExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read segment %q: %w", join(dir, name), err)
		}
		b.begun = b.begun || number == newest.Segment || number == marked.Segment
		out = append(out, b)
	}
	last := len(out) - 1
	for ; last > 0; last-- { // those behind were about to be begun
		if out[last].pointed(c); out[last].begun {
			break
		}
	}
	for i := range out {
		b := &out[i]
		if i+1 < len(out) {
			switch h := out[i+1].header; {
			case h == nil:
				b.begun = b.begun || i < last
			case h.prevSegment == b.number:
				b.begun = true
				b.end = max(h.prevEnd, headerSize)
				// Where numbers between are not there, what they had may have gone by rights.
				if out[i+1].number == b.number+1 || c != nil && c.acked.Segment <= b.number {
					b.nextSeq = h.firstSeq
				}
			default: // removed before the next was begun, and brought back by a power cut
				b.torn = true
			}
		}
		if i == last {
			b.newest, b.torn = true, true
			if newest.Segment == b.number {
				b.end = newest.Offset
			}
		}
		b.pointed(c)
		if b.newest && marked.Segment == b.number && (c == nil || before(c.acked, b.number, marked.Offset)) {
			b.least = max(b.least, marked.Offset)
		}
	}
	return out, nil
}

// pointed notes what the cursor says of a segment.
func (b *bound) pointed(c *cursor) {
	if c == nil {
		return
	}
	if c.acked.Segment == b.number {
		b.least, b.begun = c.acked.Offset, true
	}
	if p := c.plan; p != nil && p.segment == b.number {
		b.least, b.begun = max(b.least, p.to), true
	}
	// Of what was appended after all of it was acknowledged some may be gone by rights.
	if b.newest && b.nextSeq == 0 && c.acked.Segment <= b.number {
		b.nextSeq = c.nextSeq
	}
}

func boundOf(fs vfs.FS, name string, number uint64) (bound, error) {
	b := bound{number: number}
	f, err := fs.Open(name, true)
	if err != nil {
		return b, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return b, err
	}
	head, err := readRange(f, 0, min(size, headerSize))
	if err != nil {
		return b, err
	}
	b.begun = size > headerSize
	h, err := decodeHeader(head, number)
	if errors.Is(err, ErrVersion) {
		return b, err
	}
	if err == nil {
		b.header, b.begun = &h, true
	}
	return b, nil
}

// lookAtHead reads what head and mark say, nothing where they cannot be read.
func lookAtHead(fs vfs.FS, dir string) (at, marked collector.Position, err error) {
	b, err := readFile(fs, join(dir, headName))
	if notExist(err) {
		return at, marked, nil
	}
	if err != nil {
		return at, marked, fmt.Errorf("read head in %q: %w", dir, err)
	}
	at.Segment, at.Offset, _ = decodeHead(b)
	return at, decodeMark(b, vfs.BootID(fs, vfs.BootIDPath)), nil
}

func readFile(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name, true)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

// reportMissing finds what is gone by the headers, by the cursor as it is now (what goes by
// rights goes after it was written), and by the head, which is set before its segment goes.
func reportMissing(fs vfs.FS, dir string, newest collector.Position, r *Report, w io.Writer) error {
	c, err := lookAtCursor(fs, dir)
	if err != nil || c == nil {
		return err
	}
	acked := c.acked
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
	now, _, err := lookAtHead(fs, dir)
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

// lookAtCursor reads the cursor, nil where there is none or it cannot be read.
func lookAtCursor(fs vfs.FS, dir string) (*cursor, error) {
	f, err := fs.Open(join(dir, cursorName), true)
	if notExist(err) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("open cursor in %q: %w", dir, err)
	}
	defer f.Close()
	c, _, err := readCursor(f)
	if err != nil {
		return nil, fmt.Errorf("read cursor in %q: %w", dir, err)
	}
	return c, nil
}

func reportCursor(fs vfs.FS, dir string, r *Report, w io.Writer) (*cursor, error) {
	c, err := lookAtCursor(fs, dir)
	if err != nil {
		return nil, err
	}
	if c == nil {
		r.CursorDamaged = true // it is made with something in it
		fmt.Fprintln(w, "cursor cannot be read")
		return nil, nil //nolint:nilnil // damage is a finding, not a failure
	}
	r.Acked, r.Planned = c.acked, c.plan != nil
	fmt.Fprintf(w, "cursor node=%s generation=%d acked=%d:%d", hex.EncodeToString(c.node[:]), c.generation, c.acked.Segment, c.acked.Offset)
	if p := c.plan; p != nil {
		fmt.Fprintf(w, " planned=%d:%d-%d crc=%08x", p.segment, p.from, p.to, p.sum)
	}
	fmt.Fprintln(w)
	return c, nil
}

func reportLedger(fs vfs.FS, dir string, r *Report, w io.Writer) error {
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

func reportSegment(fs vfs.FS, name string, of bound, w io.Writer) (SegmentReport, error) {
	b, err := readFile(fs, name)
	if err != nil {
		return SegmentReport{}, err
	}
	size := int64(len(b))
	r := SegmentReport{Number: of.number, Bytes: size, header: of.header, HeaderDamaged: of.header == nil && of.begun}
	if of.header != nil {
		r.FirstSeq = of.header.firstSeq
		fmt.Fprintf(w, "segment %d bytes=%d first_seq=%d previous=%d:%d header_ok=true\n", of.number, size, r.FirstSeq, of.header.prevSegment, of.header.prevEnd)
	} else {
		fmt.Fprintf(w, "segment %d bytes=%d header_ok=false\n", of.number, size)
	}
	if !of.begun {
		r.Tail = size
		return r, nil
	}
	limit := size
	switch {
	case of.end > 0:
		limit = min(limit, of.end)
	case of.torn:
		if limit, err = tornAt(b, of.least, of.nextSeq, r.FirstSeq); err != nil {
			return r, err
		}
	}
	good, expected := int64(headerSize), r.FirstSeq
	if limit > headerSize {
		err = scan(b[headerSize:limit], headerSize, func(st stretch) error {
			if st.bad {
				fmt.Fprintf(w, "  %d bad bytes=%d\n", st.from, st.to-st.from)
				return nil
			}
			r.Damaged += st.from - good
			if expected > 0 {
				r.Gone += max(st.frame.seq, expected) - expected
			}
			good, expected = st.to, st.frame.seq+1
			r.Records++
			r.LastSeq = st.frame.seq
			return dumpFrame(w, st)
		})
	}
	r.judgeEnd(&of, good, expected)
	if r.Short > 0 || r.Gone > 0 {
		fmt.Fprintf(w, "  short bytes=%d records=%d\n", r.Short, r.Gone)
	}
	return r, err
}

// judgeEnd tells a torn tail from a loss: good is where the last frame ends, expected the
// sequence number of the next, 0 where nothing tells it.
func (r *SegmentReport) judgeEnd(of *bound, good int64, expected uint64) {
	if expected > 0 {
		r.Gone += max(of.nextSeq, expected) - expected
	}
	r.Short = max(0, of.end-r.Bytes, of.least-r.Bytes)
	end := max(r.Bytes, good)
	if of.end > 0 {
		end = max(min(end, of.end), good)
	}
	switch torn := end - good; {
	case of.end > 0 || !of.torn || of.least > good || of.nextSeq > expected && expected > 0:
		r.Damaged += torn
	default:
		r.Tail = torn
	}
	r.Tail += max(r.Bytes, good) - end
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
