package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sync"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// head remembers which segment is the newest, so that a start misses it where its file is
// gone: the one before it may be gone too, being acknowledged, and then nothing in the folder
// tells of it. It names no segment (0) while the newest may be gone by rights: it was
// empty, or all of it is acknowledged.
//
// The file is written in place, at level machine synced. A head that cannot be read or
// written misses nothing, and keeps nobody from appending.
//
//	 0       4   5       8             16        24
//	| "PLHD" | 1 | 0 0 0 | segment u64 | end i64 | crc32c of bytes 0 to 23, u32 |   = 28 bytes
//
// end is where the segment ended when the spool was closed, 0 while it is open; how far it
// has come by then says the mark (mark.go).
type head struct {
	mu      sync.Mutex
	file    vfs.File
	segment uint64
	end     int64
	// marks says that ends are noted; mark is the buffer. marked is the mark that Open found.
	marks  bool
	mark   [markSize]byte
	marked collector.Position
	told   bool // miss has told of the newest segment
}

const (
	headName  = "head"
	headSize  = 28
	headSumAt = 24
)

var headMagic = [4]byte{'P', 'L', 'H', 'D'}

func encodeHead(segment uint64, end int64) []byte {
	b := make([]byte, headSize)
	copy(b, headMagic[:])
	b[4] = formatVersion
	le := binary.LittleEndian
	le.PutUint64(b[8:], segment)
	le.PutUint64(b[16:], uint64(end))
	le.PutUint32(b[headSumAt:], crc32.Checksum(b[:headSumAt], castagnoli))
	return b
}

func decodeHead(b []byte) (segment uint64, end int64, ok bool) {
	le := binary.LittleEndian
	if len(b) < headSize || !bytes.Equal(b[:4], headMagic[:]) || b[4] != formatVersion || crc32.Checksum(b[:headSumAt], castagnoli) != le.Uint32(b[headSumAt:]) {
		return 0, 0, false
	}
	return le.Uint64(b[8:]), int64(le.Uint64(b[16:])), true
}

// openHead reads the head, or makes one. What it would tell is not worth refusing to start.
func (s *Spool) openHead(exists bool) {
	f, err := s.openHeadFile(exists)
	if err != nil {
		s.cfg.Logger.Warn("spool cannot tell whether its newest segment is there", "dir", s.cfg.Dir, "error", err)
		return
	}
	s.head.file = f
}

func (s *Spool) openHeadFile(exists bool) (vfs.File, error) {
	name := join(s.cfg.Dir, headName)
	if !exists {
		return s.fs.Create(name)
	}
	f, err := s.fs.Open(name, false)
	if err != nil {
		return nil, err
	}
	b := make([]byte, markAt+markSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, f.Close())
	}
	s.head.segment, s.head.end, _ = decodeHead(b[:n])
	s.head.marked = decodeMark(b[:n], s.boot)
	return f, nil
}

// setHead notes the newest segment, or 0 where it may go.
func (s *Spool) setHead(segment uint64, end int64) {
	h := &s.head
	h.mu.Lock()
	defer h.mu.Unlock()
	s.writeHead(segment, end)
}

func (s *Spool) writeHead(segment uint64, end int64) {
	h := &s.head
	if h.file == nil {
		return
	}
	_, err := h.file.WriteAt(encodeHead(segment, end), 0)
	if err == nil && s.cfg.Level == LevelMachine {
		err = h.file.Sync()
	}
	if err != nil {
		s.giveUpHead(segment, err)
		return
	}
	h.segment, h.end = segment, end
}

// giveUpHead removes a head that could not be written, or a start would believe it.
func (s *Spool) giveUpHead(segment uint64, cause error) {
	h := &s.head
	s.cfg.Logger.Warn("spool could not note which segment is its newest: until the next start none is missed", "dir", s.cfg.Dir, "segment", segment, "error", cause)
	_ = h.file.Close()
	h.file, h.segment = nil, 0
	if err := s.fs.Remove(join(s.cfg.Dir, headName)); err != nil {
		s.cfg.Logger.Warn("spool could not remove its head", "dir", s.cfg.Dir, "error", err)
	}
}

// knownEnd is where the newest segment ended, or how far it had come, as far as that is
// known: 0 where it is not.
func (h *head) knownEnd(segment uint64) (end int64) {
	if h.segment == segment {
		end = h.end
	}
	if h.marked.Segment == segment {
		end = max(end, h.marked.Offset)
	}
	return end
}

// retire is called before the file of a segment goes by rights.
func (s *Spool) retire(segment uint64) {
	h := &s.head
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.segment == segment {
		s.writeHead(0, 0)
	}
}

// miss tells of records that were appended and not acknowledged and whose segment is not
// there, or is shorter than it was by head and mark. Where the cursor is lost
// nobody knows what was acknowledged.
func (s *Spool) miss(numbers []uint64) error {
	segment := s.head.segment
	end := s.head.knownEnd(segment)
	newer := len(numbers) > 0 && numbers[len(numbers)-1] > segment // made just before a crash
	s.nextNumber = max(s.nextNumber, segment)
	if segment == 0 || newer || s.cursorLost {
		return nil
	}
	size := int64(headerSize)
	if slices.Contains(numbers, segment) {
		var err error
		if size, err = s.sizeOf(segment); err != nil || end == 0 || size >= end {
			return err
		}
	}
	from := size
	if at := s.cursor.acked; at.Segment > segment {
		return nil
	} else if at.Segment == segment {
		from = max(from, at.Offset)
	}
	if end > 0 && from >= end {
		return nil
	}
	s.head.told = true
	s.missing.Add(1)
	what := "the spool's newest segment is gone: all in it that was not in the store yet is lost"
	if size > headerSize {
		what = "the spool's newest segment is shorter than it was: what it lacks is lost"
	}
	s.cfg.Logger.Error(what, "dir", s.cfg.Dir, "segment", segment, "from", from, "to", end, "end known", end > 0)
	s.cfg.Lost(fmt.Sprintf("records of the spool are lost: its newest segment, %d, is gone or shorter than it was, from %d on", segment, from))
	return nil
}

func (s *Spool) sizeOf(segment uint64) (int64, error) {
	f, err := s.fs.Open(join(s.cfg.Dir, segmentName(segment)), true)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Size()
}
