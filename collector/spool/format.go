package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// Errors of reading what is on disk.
var (
	// ErrVersion: the folder was written by a newer Pellucid.
	ErrVersion = errors.New("unsupported version")
	// ErrLocked: another process has the folder.
	ErrLocked = vfs.ErrLocked
	// ErrClosed: the spool was closed.
	ErrClosed = fmt.Errorf("spool: %w", fs.ErrClosed)
	// ErrTooLarge: the record is larger than Config.MaxRecordBytes.
	ErrTooLarge = errors.New("record too large")

	errBadFrame = errors.New("bad frame")
)

// Sizes and versions of the format.
const (
	formatVersion = 1
	headerSize    = 48
	frameSize     = collector.FrameBytes
	// frameLimit bounds a payload's length whatever the configuration: a longer
	// one on disk is damage.
	frameLimit = 1 << 28
)

var (
	segmentMagic = [4]byte{'P', 'L', 'S', 'G'}
	frameMagic   = [2]byte{'P', 'F'}
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

// header begins a segment:
//
//	 0       4   5        8               16              24              32              40    44
//	| "PLSG" | 1 | 0 0 0 | segment u64 LE | first seq u64 | prev seg u64 | prev end u64 | crc32c | 0 |  = 48 bytes
//
// first seq is the sequence number of its first frame. prev end is where the
// segment before, prev seg, ends by the writer's word: what lies behind that
// offset was never acknowledged to anyone. prev seg is 0 for none. The CRC is of
// bytes 0 to 39.
type header struct {
	segment, firstSeq uint64
	prevSegment       uint64
	prevEnd           int64
}

func (h *header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, segmentMagic[:])
	b[4] = formatVersion
	binary.LittleEndian.PutUint64(b[8:], h.segment)
	binary.LittleEndian.PutUint64(b[16:], h.firstSeq)
	binary.LittleEndian.PutUint64(b[24:], h.prevSegment)
	binary.LittleEndian.PutUint64(b[32:], uint64(h.prevEnd))
	binary.LittleEndian.PutUint32(b[40:], crc32.Checksum(b[:40], castagnoli))
	return b
}

// decodeHeader reads the header of segment number. The version is judged
// before the checksum, whose place a newer version may have moved.
func decodeHeader(b []byte, number uint64) (header, error) {
	if len(b) < headerSize || !bytes.Equal(b[:4], segmentMagic[:]) {
		return header{}, errBadFrame
	}
	if b[4] > formatVersion {
		return header{}, fmt.Errorf("%w: segment format %d (this program knows %d)", ErrVersion, b[4], formatVersion)
	}
	if crc32.Checksum(b[:40], castagnoli) != binary.LittleEndian.Uint32(b[40:]) {
		return header{}, errBadFrame
	}
	h := header{
		segment: binary.LittleEndian.Uint64(b[8:]), firstSeq: binary.LittleEndian.Uint64(b[16:]),
		prevSegment: binary.LittleEndian.Uint64(b[24:]), prevEnd: int64(binary.LittleEndian.Uint64(b[32:])),
	}
	if h.segment != number {
		return header{}, errBadFrame
	}
	return h, nil
}

// frame is one record in a segment:
//
//	 0      2   3      4         5       8           12       16        24
//	| "PF" | 1 | kind | version | place | length u32 | crc32c | seq u64 | payload |
//
// version is that of the payload's own format. place, three bytes, is how many frames were before it
// in the write that it was part of, where that was synced (level machine), else 0. Numbers are little-endian. The
// CRC is of the payload, then bytes 0 to 11, then the sequence number: a writer
// can sum the payload before it knows the sequence number.
type frame struct {
	kind    collector.Kind
	version uint8
	seq     uint64
	place   uint32
	payload []byte
}

// appendFrame appends a frame whose sequence number is still to be set by seal.
func appendFrame(dst []byte, kind collector.Kind, version uint8, payloadSum uint32, payload []byte) []byte {
	var h [frameSize]byte
	copy(h[:], frameMagic[:])
	h[2] = formatVersion
	h[3] = byte(kind)
	h[4] = version
	binary.LittleEndian.PutUint32(h[8:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(h[12:], payloadSum)
	dst = append(dst, h[:]...)
	return append(dst, payload...)
}

// sealFrame sets place and sequence number and turns the payload's sum into the frame's.
func sealFrame(h []byte, seq uint64, place int) {
	if place < 1<<24 { // else it is none's, and damage beside it is never taken for a tear
		h[5], h[6], h[7] = byte(place), byte(place>>8), byte(place>>16)
	}
	binary.LittleEndian.PutUint64(h[16:], seq)
	sum := frameSum(binary.LittleEndian.Uint32(h[12:]), h)
	binary.LittleEndian.PutUint32(h[12:], sum)
}

func frameSum(payloadSum uint32, h []byte) uint32 {
	return crc32.Update(crc32.Update(payloadSum, castagnoli, h[:12]), castagnoli, h[16:24])
}

// parseFrame reads the frame at the start of b, sharing its memory, and returns
// its whole size.
func parseFrame(b []byte) (frame, int, error) {
	if len(b) < frameSize || b[0] != frameMagic[0] || b[1] != frameMagic[1] {
		return frame{}, 0, errBadFrame
	}
	n := binary.LittleEndian.Uint32(b[8:])
	if n > frameLimit || int(n) > len(b)-frameSize {
		return frame{}, 0, errBadFrame
	}
	size := frameSize + int(n)
	payload := b[frameSize:size:size]
	if frameSum(crc32.Checksum(payload, castagnoli), b) != binary.LittleEndian.Uint32(b[12:]) {
		return frame{}, 0, errBadFrame
	}
	if b[2] > formatVersion {
		return frame{}, 0, fmt.Errorf("%w: frame format %d (this program knows %d)", ErrVersion, b[2], formatVersion)
	}
	return frame{
		kind: collector.Kind(b[3]), version: b[4], seq: binary.LittleEndian.Uint64(b[16:]),
		place: uint32(b[5]) | uint32(b[6])<<8 | uint32(b[7])<<16, payload: payload,
	}, size, nil
}

// stretch is a run of bytes of a segment: one good frame, or damage.
type stretch struct {
	from, to int64
	frame    frame
	bad      bool
}

// scan walks b, the bytes of a segment from offset base on, and calls visit for
// every frame and for every stretch of damage, which ends at the next valid
// frame whose sequence number is above all before it. It stops at an error of
// visit, or at a frame of a newer format.
func scan(b []byte, base int64, visit func(stretch) error) error {
	at, lastSeq := 0, uint64(0)
	for at < len(b) {
		f, n, err := parseFrame(b[at:])
		if err == nil && f.seq > lastSeq {
			lastSeq = f.seq
			if err := visit(stretch{from: base + int64(at), to: base + int64(at+n), frame: f}); err != nil {
				return err
			}
			at += n
			continue
		}
		if errors.Is(err, ErrVersion) {
			return err
		}
		next := resync(b, at+1, lastSeq)
		if err := visit(stretch{from: base + int64(at), to: base + int64(next), bad: true}); err != nil {
			return err
		}
		at = next
	}
	return nil
}

// tornAt returns where a write that was never synced is torn in b, the bytes of the newest segment,
// len(b) where none is: a power cut keeps any of its pages, so frames of it may be whole behind others
// that are not. Its frames alone lie behind the tear, and of an earlier write none may be in it.
// known is how far it is known that all was synced, nextSeq one above a frame that was, firstSeq
// that of the segment's first (0: not known).
func tornAt(b []byte, known int64, nextSeq, firstSeq uint64) (int64, error) {
	none := int64(len(b))
	if none <= headerSize || firstSeq == 0 {
		return none, nil
	}
	at, next, write := none, firstSeq, uint64(0)
	whole := none
	err := scan(b[headerSize:], headerSize, func(st stretch) error {
		first := st.frame.seq - uint64(st.frame.place) // of the write
		switch {
		case st.bad && at == none:
			at, write = st.from, 0
		case st.bad:
		case at == none:
			next = st.frame.seq + 1
		case st.frame.place > 0 && first <= next && (write == 0 || write == first):
			write, whole = first, at
		default: // of a later write: what is bad before was synced
			at, whole, next = none, none, st.frame.seq+1
		}
		return nil
	})
	if whole < known || next < nextSeq {
		return none, err
	}
	return whole, err
}

// resync returns the offset of the next valid frame in b from at on, or len(b).
func resync(b []byte, at int, lastSeq uint64) int {
	// Damage that looks like frame headers could make each candidate a long sum;
	// the work is bounded and what lies beyond counts as damage.
	budget := int64(8*len(b)) + 1<<20
	for at < len(b) {
		i := bytes.Index(b[at:], frameMagic[:])
		if i < 0 || budget < 0 {
			return len(b)
		}
		at += i
		if len(b)-at >= frameSize {
			if n := binary.LittleEndian.Uint32(b[at+8:]); int64(n) <= int64(len(b)-at-frameSize) {
				budget -= int64(n)
			}
		}
		if f, _, err := parseFrame(b[at:]); err == nil && f.seq > lastSeq {
			return at
		}
		at++
	}
	return len(b)
}

const segmentSuffix = ".seg"

func segmentName(number uint64) string { return fmt.Sprintf("%016d%s", number, segmentSuffix) }

func segmentNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n > 0
}
