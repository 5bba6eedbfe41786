package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// ledger remembers at LevelMachine which batches were acknowledged lately, and under
// which boot of the machine, so that after a power cut each can be looked for in the
// store. Like the cursor it is written in place: it has all of its blocks from the
// start, and acknowledging needs none on a full disk.
//
// Two slots for the head, at 0 and 4096, written in turn; the readable one of the
// higher generation counts:
//
//	 0        4   5       8                16             24           32              40       56        96      100
//	| "PLLG" | 1 | 0 0 0 | generation u64 | forgotten u64 | looked u64 | looked at i64 | node id | boot id | crc32c |
//
// Entries below segment "forgotten" do not count. Those below number "looked" were
// looked for at "looked at". Times are Unix milliseconds. The CRC is of bytes 0 to 95.
//
// Entry number n has 64 bytes at 8192 + 64 * (n modulo 8192):
//
//	 0        4   5       8           16           24        32      40              48            52
//	| "PLLE" | 1 | 0 0 0 | number u64 | segment u64 | from u64 | to u64 | acked at i64 | plan crc u32 | crc32c | 0 |
//
// The CRC is of bytes 0 to 51.
type ledger struct {
	file    vfs.File
	head    ledgerHead
	entries []acknowledged // in order; at most ledgerEntries
	next    uint64         // the number of the next entry
	failed  bool           // a write or sync has failed: the file is never written again
}

type ledgerHead struct {
	generation uint64
	// forgotten is the first segment whose entries count.
	forgotten uint64
	looked    uint64
	lookedAt  int64
	node      [16]byte
	boot      string
}

// acknowledged is a batch that the store has confirmed, and when.
type acknowledged struct {
	plan
	number uint64
	at     int64
}

const (
	ledgerName      = "ledger"
	ledgerSlot      = 4096
	ledgerHeadSize  = 100
	ledgerHeadSumAt = 96
	ledgerBootAt    = 56
	ledgerEntriesAt = 2 * ledgerSlot
	ledgerEntry     = 64
	ledgerEntrySum  = 52
	ledgerEntries   = 8192
	ledgerFileSize  = ledgerEntriesAt + ledgerEntries*ledgerEntry
)

var (
	ledgerMagic = [4]byte{'P', 'L', 'L', 'G'}
	entryMagic  = [4]byte{'P', 'L', 'L', 'E'}
)

func (h *ledgerHead) encode() []byte {
	b := make([]byte, ledgerHeadSize)
	copy(b, ledgerMagic[:])
	b[4] = formatVersion
	le := binary.LittleEndian
	le.PutUint64(b[8:], h.generation)
	le.PutUint64(b[16:], h.forgotten)
	le.PutUint64(b[24:], h.looked)
	le.PutUint64(b[32:], uint64(h.lookedAt))
	copy(b[40:], h.node[:])
	copy(b[ledgerBootAt:ledgerHeadSumAt], h.boot)
	le.PutUint32(b[ledgerHeadSumAt:], crc32.Checksum(b[:ledgerHeadSumAt], castagnoli))
	return b
}

func decodeLedgerHead(b []byte) (ledgerHead, error) {
	var h ledgerHead
	if len(b) < ledgerHeadSize || !bytes.Equal(b[:4], ledgerMagic[:]) {
		return h, errBadFrame
	}
	if b[4] > formatVersion {
		return h, fmt.Errorf("%w: ledger format %d (this program knows %d)", ErrVersion, b[4], formatVersion)
	}
	le := binary.LittleEndian
	if crc32.Checksum(b[:ledgerHeadSumAt], castagnoli) != le.Uint32(b[ledgerHeadSumAt:]) {
		return h, errBadFrame
	}
	h.generation, h.forgotten, h.looked, h.lookedAt = le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:]), int64(le.Uint64(b[32:]))
	copy(h.node[:], b[40:])
	h.boot = string(bytes.TrimRight(b[ledgerBootAt:ledgerHeadSumAt], "\x00"))
	return h, nil
}

func (a *acknowledged) encode() []byte {
	b := make([]byte, ledgerEntry)
	copy(b, entryMagic[:])
	b[4] = formatVersion
	le := binary.LittleEndian
	le.PutUint64(b[8:], a.number)
	le.PutUint64(b[16:], a.segment)
	le.PutUint64(b[24:], uint64(a.from))
	le.PutUint64(b[32:], uint64(a.to))
	le.PutUint64(b[40:], uint64(a.at))
	le.PutUint32(b[48:], a.sum)
	le.PutUint32(b[ledgerEntrySum:], crc32.Checksum(b[:ledgerEntrySum], castagnoli))
	return b
}

func decodeAcknowledged(b []byte) (acknowledged, error) {
	var a acknowledged
	if len(b) < ledgerEntry || !bytes.Equal(b[:4], entryMagic[:]) {
		return a, errBadFrame
	}
	if b[4] > formatVersion {
		return a, fmt.Errorf("%w: ledger entry format %d (this program knows %d)", ErrVersion, b[4], formatVersion)
	}
	le := binary.LittleEndian
	if crc32.Checksum(b[:ledgerEntrySum], castagnoli) != le.Uint32(b[ledgerEntrySum:]) {
		return a, errBadFrame
	}
	a.number, a.segment, a.sum, a.at = le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint32(b[48:]), int64(le.Uint64(b[40:]))
	a.from, a.to = int64(le.Uint64(b[24:])), int64(le.Uint64(b[32:]))
	if a.from < headerSize || a.to <= a.from {
		return a, errBadFrame
	}
	return a, nil
}

func entryAt(number uint64) int64 { return ledgerEntriesAt + int64(number%ledgerEntries)*ledgerEntry }

// readLedger returns what a ledger's file says. found is false where no head can be
// valid: then nothing is known of what was forgotten, and no entry may count. As with
// the cursor a disk that does not give the bytes is an error.
func readLedger(f vfs.File) (l *ledger, found bool, damaged int, err error) {
	b := make([]byte, ledgerFileSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, 0, err
	}
	b = b[:n]
	l = &ledger{file: f}
	for slot := range 2 {
		at := min(slot*ledgerSlot, len(b))
		h, err := decodeLedgerHead(b[at:min(at+ledgerSlot, len(b))])
		if errors.Is(err, ErrVersion) {
			return nil, false, 0, err
		}
		if err == nil && (!found || h.generation > l.head.generation) {
			l.head, found = h, true
		}
	}
	for at := ledgerEntriesAt; at+ledgerEntry <= len(b); at += ledgerEntry {
		a, err := decodeAcknowledged(b[at : at+ledgerEntry])
		if errors.Is(err, ErrVersion) {
			return nil, false, 0, err
		}
		if err != nil || entryAt(a.number) != int64(at) {
			if !allZero(b[at : at+ledgerEntry]) {
				damaged++
			}
			continue
		}
		l.next = max(l.next, a.number+1)
		if a.segment >= l.head.forgotten {
			l.entries = append(l.entries, a)
		}
	}
	slices.SortFunc(l.entries, func(a, b acknowledged) int { return int(int64(a.number - b.number)) })
	return l, found, damaged, nil
}

// cut forgets entries that are not acknowledged after all: a crash came between the
// ledger and the cursor.
func (l *ledger) cut(acked collector.Position) {
	for k := len(l.entries); k > 0; k-- {
		e := &l.entries[k-1]
		if e.segment < acked.Segment || e.segment == acked.Segment && e.to <= acked.Offset {
			return
		}
		l.entries, l.next = l.entries[:k-1], e.number
	}
}

// last is where the newest entry ends.
func (l *ledger) last() collector.Position {
	var p collector.Position
	if k := len(l.entries); k > 0 {
		p = collector.Position{Segment: l.entries[k-1].segment, Offset: l.entries[k-1].to}
	}
	return p
}

// ackedAt is when an entry was acknowledged or looked for, in Unix milliseconds.
func (l *ledger) ackedAt(a *acknowledged) int64 {
	if a.number < l.head.looked {
		return max(a.at, l.head.lookedAt)
	}
	return a.at
}

// add makes an entry durable. After an error the file must not be written again.
func (l *ledger) add(p plan, at time.Time) error {
	a := acknowledged{plan: p, number: l.next, at: at.UnixMilli()}
	if _, err := l.file.WriteAt(a.encode(), entryAt(a.number)); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("sync ledger: %w", err)
	}
	l.keep(a)
	return nil
}

func (l *ledger) keep(a acknowledged) {
	if l.entries = append(l.entries, a); len(l.entries) > ledgerEntries {
		l.entries = slices.Delete(l.entries, 0, len(l.entries)-ledgerEntries)
	}
	l.next = a.number + 1
}

// save makes a head durable and puts it in force. After an error the file must not be
// written again.
func (l *ledger) save(h ledgerHead) error {
	h.generation++
	if _, err := l.file.WriteAt(h.encode(), int64(h.generation%2)*ledgerSlot); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("sync ledger: %w", err)
	}
	l.take(h)
	return nil
}

func (l *ledger) take(h ledgerHead) {
	l.head = h
	l.entries = slices.DeleteFunc(l.entries, func(a acknowledged) bool { return a.segment < h.forgotten })
}

// replaceLedger writes what counts to a new file under the ledger's name: at the
// start, and when the old file failed to be written or synced.
func (s *Spool) replaceLedger(h ledgerHead, more ...acknowledged) error {
	name := join(s.cfg.Dir, ledgerName)
	fresh := name + ".new"
	if err := s.fs.Remove(fresh); err != nil && !notExist(err) {
		return fmt.Errorf("remove old ledger: %w", err)
	}
	f, err := s.fs.Create(fresh)
	if err != nil {
		return fmt.Errorf("create ledger: %w", err)
	}
	l := &ledger{file: f, entries: slices.Clone(s.ledger.entries), next: s.ledger.next}
	for _, a := range more {
		l.keep(a)
	}
	l.take(h)
	b := make([]byte, ledgerFileSize) // every block, so that later writes need none
	for i := range l.entries {
		copy(b[entryAt(l.entries[i].number):], l.entries[i].encode())
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = l.save(h)
	}
	if err == nil {
		err = s.fs.Rename(fresh, name)
	}
	if err == nil {
		err = s.fs.SyncDir(s.cfg.Dir)
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("write new ledger: %w", err)
	}
	if s.ledger.file != nil {
		_ = s.ledger.file.Close() // it has failed, or was set aside
	}
	s.ledger = l
	return nil
}
