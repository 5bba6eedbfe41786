package repository

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"

	"github.com/pellucid/pellucid/collector/vfs"
)

// A full disk takes no new file, and a model.yaml that was read then may be gone before there is room,
// and the process too. So what versions hide that could not be kept otherwise is written over a file
// whose blocks the disk has given already (one that copies on write, btrfs or ZFS, may refuse that
// too). It has two slots, written by turns, so that a write that is cut leaves the one before.
//
// A slot is, little-endian: crc32 (Castagnoli) of what follows up to the end of the text, length of the text,
// a number that grows with each write, the text: JSON. A slot that begins with 16 zeros is empty.
const (
	spareSlot   = 256 << 10
	spareHeader = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errSpareCut is that of a spare file of which no slot is whole, and one is begun.
var errSpareCut = errors.New("no slot of it is whole")

// makeSpare makes the file, empty, where there is none of its size.
func makeSpare(path string) error {
	if st, err := os.Stat(path); err == nil && st.Size() == 2*spareSlot {
		return nil
	}
	return vfs.Replace(path, make([]byte, 2*spareSlot))
}

// spareText is the text of a slot and its number: nil and no error of an empty one.
func spareText(slot []byte) (text []byte, turn uint64, err error) {
	length := binary.LittleEndian.Uint32(slot[4:])
	turn = binary.LittleEndian.Uint64(slot[8:])
	if length == 0 && turn == 0 {
		return nil, 0, nil
	}
	if length > spareSlot-spareHeader || binary.LittleEndian.Uint32(slot) != crc32.Checksum(slot[4:spareHeader+length], castagnoli) {
		return nil, 0, errSpareCut
	}
	return slot[spareHeader : spareHeader+length], turn, nil
}

// newestSpare is the latest slot that is whole, with its number and place, nil where both are empty.
func newestSpare(file []byte) (text []byte, turn uint64, at int, err error) {
	if len(file) != 2*spareSlot {
		return nil, 0, 0, fmt.Errorf("it has %d bytes, not %d", len(file), 2*spareSlot)
	}
	a, turnA, errA := spareText(file[:spareSlot])
	b, turnB, errB := spareText(file[spareSlot:])
	switch {
	case b != nil && turnB > turnA:
		return b, turnB, 1, nil
	case a != nil:
		return a, turnA, 0, nil
	}
	return nil, 0, 1, errors.Join(errA, errB)
}

// readSpare is what was written over the spare file and not kept otherwise since, nil where nothing was.
func readSpare(path string) (s allSaid, err error) {
	file, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, _, _, err := newestSpare(file)
	if err != nil || text == nil {
		return nil, err
	}
	return s, json.Unmarshal(text, &s)
}

// writeSpare writes s over the spare file, which is there, and syncs it.
func writeSpare(path string, s allSaid) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if len(text) > spareSlot-spareHeader {
		return fmt.Errorf("the spare file has room for %d bytes, not %d", spareSlot-spareHeader, len(text))
	}
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, turn, at, err := newestSpare(file)
	if err != nil && !errors.Is(err, errSpareCut) {
		return err
	}
	slot := make([]byte, spareHeader, spareHeader+len(text))
	binary.LittleEndian.PutUint32(slot[4:], uint32(len(text)))
	binary.LittleEndian.PutUint64(slot[8:], turn+1)
	slot = append(slot, text...)
	binary.LittleEndian.PutUint32(slot, crc32.Checksum(slot[4:], castagnoli))
	return overwrite(path, slot, int64(1-at)*spareSlot)
}

// clearSpare empties both slots, the older one first so that a crash between leaves the newer.
func clearSpare(path string) error {
	file, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	text, _, at, err := newestSpare(file)
	if err == nil && text == nil {
		return nil
	}
	empty := make([]byte, spareHeader)
	return errors.Join(
		overwrite(path, empty, int64(1-at)*spareSlot),
		overwrite(path, empty, int64(at)*spareSlot))
}

func overwrite(path string, data []byte, at int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, at)
	return errors.Join(err, f.Sync(), f.Close())
}
