package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"

	"github.com/pellucid/pellucid/collector/vfs"
)

// deadMark says, beside the folder of dead letters, which file of theirs counts, how far
// it was written and synced, and how many letters it has: what was cut off it, or took
// it, leaves nothing else that tells.
//
//	 0        4   5       8            16        24            32      36
//	| "PLDM" | 1 | 0 0 0 | number u64 | end i64 | letters u64 | crc32c |
//
// It is written after what it counts is durable, and not synced itself: it may tell of
// less than there was, never of more. The CRC is of bytes 0 to 31.
type deadMark struct {
	number  uint64 // 0: nothing is known
	end     int64
	letters uint64
}

const (
	deadMarkSuffix = ".mark"
	deadMarkSize   = 36
	deadMarkSumAt  = 32
)

var deadMarkMagic = [4]byte{'P', 'L', 'D', 'M'}

func (m deadMark) encode() []byte {
	b := make([]byte, deadMarkSize)
	copy(b, deadMarkMagic[:])
	b[4] = formatVersion
	le := binary.LittleEndian
	le.PutUint64(b[8:], m.number)
	le.PutUint64(b[16:], uint64(m.end))
	le.PutUint64(b[24:], m.letters)
	le.PutUint32(b[deadMarkSumAt:], crc32.Checksum(b[:deadMarkSumAt], castagnoli))
	return b
}

func decodeDeadMark(b []byte) (m deadMark) {
	le := binary.LittleEndian
	if len(b) < deadMarkSize || !bytes.Equal(b[:4], deadMarkMagic[:]) || b[4] != formatVersion ||
		crc32.Checksum(b[:deadMarkSumAt], castagnoli) != le.Uint32(b[deadMarkSumAt:]) {
		return m
	}
	return deadMark{le.Uint64(b[8:]), int64(le.Uint64(b[16:])), le.Uint64(b[24:])}
}

// readMark reads the mark of an earlier run. One that cannot be read tells nothing.
func (d *Dead) readMark() deadMark {
	b, err := vfs.ReadFile(d.fs, d.cfg.Dir+deadMarkSuffix)
	if err != nil {
		return deadMark{}
	}
	return decodeDeadMark(b)
}

// setMark notes what is durable now. That it cannot is not worth failing for: a mark that
// stays behind tells of less.
func (d *Dead) setMark(m deadMark) {
	err := d.writeMark(m)
	if err != nil && !d.unmarked {
		d.cfg.Logger.Warn("what the dead letters are could not be noted beside them: damage to them may not be told", "dir", d.cfg.Dir, "error", err)
	}
	d.unmarked = err != nil
}

func (d *Dead) writeMark(m deadMark) (err error) {
	if d.markFile == nil {
		name := d.cfg.Dir + deadMarkSuffix
		d.markFile, err = d.fs.Open(name, false)
		if notExist(err) {
			d.markFile, err = d.fs.Create(name)
		}
		if err != nil {
			d.markFile = nil
			return err
		}
	}
	_, err = d.markFile.WriteAt(m.encode(), 0)
	return err
}

// mark notes the file as it is.
func (d *Dead) mark() {
	d.setMark(deadMark{d.number, d.end, uint64(len(d.letters))})
}

// lostFile says what is lost where the file that counts is gone.
func (d *Dead) lostFile(m deadMark) {
	if m.number > d.number && m.letters > 0 {
		d.fileGone = true
		d.problems = append(d.problems, fmt.Sprintf("%s is gone, with %d dead letters", deadName(m.number), m.letters))
	}
}

// lostBytes says what is lost of the file that was read: damaged frames that others
// follow or that were durable, and what is not there any more.
func (d *Dead) lostBytes(m deadMark, bad []stretch, size int64) {
	end := d.end // of what was durable
	if m.number == d.number {
		end = max(end, m.end)
	}
	for _, st := range bad {
		if st.from < end {
			d.damaged += uint64(min(st.to, end) - st.from) //nolint:gosec // it lies before the end
		}
	}
	if size < end {
		d.damaged += uint64(end - size) //nolint:gosec // as above
	}
	if d.damaged == 0 {
		return
	}
	what := fmt.Sprintf("%d bytes of %s are damaged or gone", d.damaged, deadName(d.number))
	if m.number == d.number && m.end >= d.end && m.letters > uint64(len(d.letters)) {
		what += fmt.Sprintf(", with %d of %d dead letters", m.letters-uint64(len(d.letters)), m.letters)
	}
	d.problems = append(d.problems, what)
}

// deadProblems says what is damaged or gone of the letters in a folder, which a server may
// be writing.
func deadProblems(fs vfs.FS, dir string) ([]string, error) {
	const tries = 5
	for try := 1; ; try++ {
		d := newDead(DeadConfig{Dir: dir, Logger: slog.New(slog.DiscardHandler)}, fs)
		err := errors.Join(d.load(true), d.Close())
		if notExist(err) && try < tries {
			continue // replaced meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read dead letters in %q: %w", dir, err)
		}
		return d.problems, nil
	}
}
