package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// cursor is what the spool remembers beside its segments: up to where records
// were acknowledged, and the frozen batch, if one is on its way.
//
// The file has two slots of 4096 bytes, written in turn and in place, so that a
// torn write leaves the one before, and so that acknowledging (which frees
// space) needs none on a full disk. The valid slot of the higher generation
// counts.
//
//	 0       4   5       8              16             24            32             40              48          56             60
//	| "PLCU" | 1 | flags | generation u64 | acked seg u64 | acked off u64 | plan seg u64 | plan from u64 | plan to u64 | plan crc u32 | again u32 |
//	 64         72                88
//	| next seq u64 | node id, 16 bytes | crc32c of bytes 0 to 87, u32 |   = 92 bytes
//
// Bit 0 of the flags at byte 5 says that there is a plan. Segments up to the number again
// were there when a cursor was lost: what is in them may have been delivered before.
type cursor struct {
	generation uint64
	acked      collector.Position
	plan       *plan
	nextSeq    uint64
	again      uint32
	node       [16]byte
}

// plan is a frozen batch: a range of whole frames of one segment, and the CRC of
// its bytes.
type plan struct {
	segment  uint64
	from, to int64
	sum      uint32
}

const (
	cursorName     = "cursor"
	cursorSlot     = 4096
	cursorSize     = 92
	cursorSumAt    = 88
	cursorHasPlan  = 1
	cursorFileSize = 2 * cursorSlot
)

var cursorMagic = [4]byte{'P', 'L', 'C', 'U'}

func (c *cursor) encode() []byte {
	b := make([]byte, cursorSize)
	copy(b, cursorMagic[:])
	b[4] = formatVersion
	le := binary.LittleEndian
	le.PutUint64(b[8:], c.generation)
	le.PutUint64(b[16:], c.acked.Segment)
	le.PutUint64(b[24:], uint64(c.acked.Offset))
	if p := c.plan; p != nil {
		b[5] = cursorHasPlan
		le.PutUint64(b[32:], p.segment)
		le.PutUint64(b[40:], uint64(p.from))
		le.PutUint64(b[48:], uint64(p.to))
		le.PutUint32(b[56:], p.sum)
	}
	le.PutUint32(b[60:], c.again)
	le.PutUint64(b[64:], c.nextSeq)
	copy(b[72:], c.node[:])
	le.PutUint32(b[cursorSumAt:], crc32.Checksum(b[:cursorSumAt], castagnoli))
	return b
}

func decodeCursor(b []byte) (*cursor, error) {
	if len(b) < cursorSize || !bytes.Equal(b[:4], cursorMagic[:]) {
		return nil, errBadFrame
	}
	if b[4] > formatVersion {
		return nil, fmt.Errorf("%w: cursor format %d (this program knows %d)", ErrVersion, b[4], formatVersion)
	}
	le := binary.LittleEndian
	if crc32.Checksum(b[:cursorSumAt], castagnoli) != le.Uint32(b[cursorSumAt:]) {
		return nil, errBadFrame
	}
	c := &cursor{
		generation: le.Uint64(b[8:]),
		acked:      collector.Position{Segment: le.Uint64(b[16:]), Offset: int64(le.Uint64(b[24:]))},
		nextSeq:    le.Uint64(b[64:]),
		again:      le.Uint32(b[60:]),
	}
	copy(c.node[:], b[72:])
	if b[5]&cursorHasPlan != 0 {
		c.plan = &plan{segment: le.Uint64(b[32:]), from: int64(le.Uint64(b[40:])), to: int64(le.Uint64(b[48:])), sum: le.Uint32(b[56:])}
		if c.plan.from < headerSize || c.plan.to <= c.plan.from {
			return nil, errBadFrame
		}
	}
	return c, nil
}

// readCursor returns the newest valid slot, nil where the file holds none, and damaged
// where a slot that was written is not valid. A disk that does not give the bytes is an
// error and not damage: they may be there the next time, and a folder that is taken for
// one without a cursor delivers what it keeps under new tokens.
func readCursor(f vfs.File) (c *cursor, damaged bool, err error) {
	b := make([]byte, cursorFileSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	b = b[:n]
	for slot := range 2 {
		if len(b) <= slot*cursorSlot {
			break
		}
		s := b[slot*cursorSlot:]
		s = s[:min(len(s), cursorSlot)]
		got, err := decodeCursor(s)
		if errors.Is(err, ErrVersion) {
			return nil, false, err
		}
		if err != nil {
			damaged = damaged || !allZero(s)
			continue
		}
		if c == nil || got.generation > c.generation {
			c = got
		}
	}
	return c, damaged, nil
}

func allZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// writeCursor makes the next generation of c durable and returns it. After an
// error the generation before still stands in the other slot.
func writeCursor(f vfs.File, c cursor) (cursor, error) {
	c.generation++
	if _, err := f.WriteAt(c.encode(), int64(c.generation%2)*cursorSlot); err != nil {
		return c, fmt.Errorf("write cursor: %w", err)
	}
	if err := f.Sync(); err != nil {
		return c, fmt.Errorf("sync cursor: %w", err)
	}
	return c, nil
}

func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
