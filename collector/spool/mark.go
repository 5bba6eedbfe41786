package spool

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"

	"github.com/pellucid/pellucid/collector"
)

// A mark says how far the active segment was acknowledged, so that a start, or verify, after
// the process was killed misses what was cut off its end: no later segment says where this
// one ended. It lies in the file of the head, behind it:
//
//	 32       36  37      40            48        56                 96
//	| "PLMK" | 1 | 0 0 0 | segment u64 | end u64 | boot id, 40 bytes | crc32c of bytes 32 to 95, u32 |
//
// It is written after the group that it counts, at level machine after that one's sync, and
// not synced itself: it may tell of less than there was, never of more. At the other levels
// a power cut may take the records and leave the mark: the boot id says under which run of
// the machine alone it holds. At level machine there is none (zeros).
const (
	markAt     = 32
	markSize   = 68
	markSumAt  = 64
	markBootAt = 24
)

var markMagic = [4]byte{'P', 'L', 'M', 'K'}

// startMarks prepares the mark of this run. A machine that does not tell its runs apart has
// none but at level machine.
func (s *Spool) startMarks() {
	b := s.head.mark[:]
	clear(b)
	copy(b, markMagic[:])
	b[4] = formatVersion
	if s.cfg.Level != LevelMachine {
		copy(b[markBootAt:markSumAt], s.boot)
	}
	s.head.marks = s.cfg.Level == LevelMachine || s.boot != ""
}

// noteEnd writes the mark: all of segment up to end is written, as the level asks.
func (s *Spool) noteEnd(segment uint64, end int64) {
	h := &s.head
	if !h.marks {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil {
		return
	}
	b, le := h.mark[:], binary.LittleEndian
	le.PutUint64(b[8:], segment)
	le.PutUint64(b[16:], uint64(end))
	le.PutUint32(b[markSumAt:], crc32.Checksum(b[:markSumAt], castagnoli))
	if _, err := h.file.WriteAt(b, markAt); err != nil {
		s.giveUpHead(segment, err)
	}
}

// decodeMark reads the mark in a head's file, the zero position where there is none that holds.
func decodeMark(file []byte, boot string) (at collector.Position) {
	if len(file) < markAt+markSize {
		return at
	}
	b, le := file[markAt:markAt+markSize], binary.LittleEndian
	if !bytes.Equal(b[:4], markMagic[:]) || b[4] != formatVersion || crc32.Checksum(b[:markSumAt], castagnoli) != le.Uint32(b[markSumAt:]) {
		return at
	}
	under := strings.TrimRight(string(b[markBootAt:markSumAt]), "\x00")
	if under != "" && under != boot {
		return at
	}
	return collector.Position{Segment: le.Uint64(b[8:]), Offset: int64(le.Uint64(b[16:]))}
}

// forgetMark removes the mark of an earlier run, once what it told is told.
func (s *Spool) forgetMark() {
	h := &s.head
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil || h.marked == (collector.Position{}) {
		return
	}
	h.marked = collector.Position{}
	if _, err := h.file.WriteAt(make([]byte, markSize), markAt); err != nil {
		s.giveUpHead(h.segment, err)
	}
}
