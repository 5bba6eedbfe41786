package events

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector/vfs"
)

// list names the halves whose files there must be, so that a start misses those that somebody
// took away while no server ran. It is a file in the room's folder, of places of 64 bytes that
// are overwritten:
//
//	a header over the first 8   what is in it as JSON, blanks, its checksum, a line feed
//	a half each                 its key "." which half, blanks, its checksum, a line feed; blanks where there is none
//
// A half is named after its file is there and before it is acknowledged, and named no more
// before its file goes: whatever a kill of the process interrupts, a half that is named has a
// file, and one that is acknowledged is named. Neither is synced, so that a half costs no sync
// more: what a power cut left may name halves that were recorded, and those that are gone are
// told as such that may have been. A start brings it in line with the files.
type list struct {
	header
	// slots are the places that the file has, the header's included; free those that name nothing.
	slots int
	free  []int
}

// header is what else must outlive the process.
type header struct {
	// Boot is the run of the machine that has written the list, Closed says that all of it has
	// reached the disk since.
	Boot   string `json:"boot"`
	Closed bool   `json:"closed"`
	// Key tells the key that the halves are encrypted under from others.
	Key string `json:"key"`
	// Lately is what was dropped last, At when that ended.
	Lately Dropped   `json:"lately"`
	At     time.Time `json:"at"`
}

const (
	listName   = "waiting.list"
	slotSize   = 64
	sumSize    = 9 // with the line feed
	headSlots  = 8
	headerSize = headSlots * slotSize
)

// line is text in n bytes, with its checksum.
func line(text []byte, n int) []byte {
	b := fmt.Appendf(nil, "%-*s", n-sumSize, text)
	return fmt.Appendf(b, "%08x\n", crc32.ChecksumIEEE(b))
}

// parse is the text of a line, nil where it is not as it was written.
func parse(b []byte) []byte {
	text := b[:len(b)-sumSize]
	if string(b[len(text):]) != fmt.Sprintf("%08x\n", crc32.ChecksumIEEE(text)) {
		return nil
	}
	return bytes.TrimRight(text, " ")
}

// sure reports whether all that was written to the list is in it, under this run of the machine.
func (h header) sure(boot string) bool { return h.Closed || boot != "" && h.Boot == boot }

func (h header) bytes() ([]byte, error) {
	b, err := json.Marshal(h)
	if err == nil && len(b) > headerSize-sumSize {
		err = errors.New("the header of the list of events has no room")
	}
	if err != nil {
		return nil, err
	}
	return line(b, headerSize), nil
}

func (p place) line() []byte { return line([]byte(p.key+"."+string(p.half)), slotSize) }

var blank = append(bytes.Repeat([]byte{' '}, slotSize-1), '\n')

// isBlank is of a place that names nothing, or that a power cut left zeros in.
func isBlank(b []byte) bool { return len(bytes.Trim(b, " \n\x00")) == 0 }

// placeOf is the half of a file's name without its ending.
func placeOf(name string) (p place, ok bool) {
	key, h, _ := strings.Cut(name, ".")
	raw, err := hex.DecodeString(key)
	return place{key, half(h)}, err == nil && len(raw) == keySize && (half(h) == request || half(h) == response)
}

// onList is what a list says.
type onList struct {
	header
	places  map[place]int // where each half is named
	free    []int
	slots   int
	damaged int // places that are neither blank nor as they were written
	// whole is false where the header is not as it was written, or there is none.
	whole bool
}

func readList(disk vfs.FS, path string) (l onList, raw []byte, err error) {
	l = onList{places: map[place]int{}, slots: headSlots}
	raw, err = vfs.ReadFile(disk, path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil, nil
	}
	if err != nil || len(raw) < headerSize {
		return l, raw, err
	}
	l.whole = json.Unmarshal(parse(raw[:headerSize]), &l.header) == nil
	for ; (l.slots+1)*slotSize <= len(raw); l.slots++ {
		b := raw[l.slots*slotSize:][:slotSize]
		p, ok := placeOf(string(parse(b)))
		_, twice := l.places[p]
		switch {
		case isBlank(b) || ok && twice:
			l.free = append(l.free, l.slots)
		case ok:
			l.places[p] = l.slots
		default:
			l.damaged++
			l.free = append(l.free, l.slots)
		}
	}
	return l, raw, nil
}

func (r *Room) listPath() string { return filepath.Join(r.cfg.Dir, listName) }

// compare tells of halves whose files are gone, and brings the list in line with those that are
// there.
func (r *Room) compare() {
	l, raw, err := readList(r.disk, r.listPath())
	if err != nil || !l.whole && len(r.waiting)+len(l.places) > 0 {
		what := "the list of the events that wait for their other half (" + listName + " in the folder events) was gone, emptied or damaged: it is not known whether one of them has gone"
		if err != nil {
			r.cfg.Logger.Warn("the list of waiting events cannot be read", "error", err)
		}
		r.cfg.Lost(what)
	}
	if l.damaged > 0 {
		r.cfg.Logger.Warn("the list of waiting events is damaged: should one that was named there have gone, nobody is told", "places", l.damaged)
	}
	boot := vfs.BootID(r.disk, vfs.BootIDPath)
	r.cfg.Drops.restore(l.Lately, l.At, r.cfg.Now())
	r.list = list{header: l.header, slots: l.slots, free: l.free}
	if missing := r.missing(l); len(missing) > 0 {
		r.miss(missing, l.sure(boot))
	}
	r.list.Boot, r.list.Closed = boot, false
	if err := r.renew(raw, l); err != nil {
		r.cfg.Logger.Warn("the list of waiting events stays as it was: should their files go, the next start may not miss them", "error", err)
	}
}

// missing are the halves that are named and have no file.
func (r *Room) missing(l onList) (out []place) {
	for p := range l.places {
		if _, ok := r.waiting[p]; !ok {
			out = append(out, p)
		}
	}
	return out
}

// miss tells of halves that are gone, once: the list that no longer names them says how many
// they were.
func (r *Room) miss(all []place, sure bool) {
	var names []string
	var n Dropped
	for _, p := range all {
		if r.there(r.named(p, suffix) + aside) { // a kill came after it was set aside
			n.Damaged++
			continue
		}
		n.Gone++
		names = append(names, filepath.Base(r.named(p, suffix)))
	}
	slices.Sort(names)
	about := []any{"halves", n.Gone, "files", names[:min(len(names), 5)]}
	switch {
	case n.Gone == 0:
	case sure:
		r.cfg.Logger.Error("the files of halves of predictions that waited were taken away: the halves are lost unless they are sent again", about...)
	default:
		r.cfg.Logger.Warn("after the machine went down files of halves of predictions that waited are not there: the halves may be lost, or were recorded just before", about...)
		n.Gone = 0
	}
	r.list.Lately, r.list.At = r.cfg.Drops.add(n, r.cfg.Now())
}

// renew writes the list of what waits as a whole where it is not that already. raw is what the
// file has, as l says.
func (r *Room) renew(raw []byte, l onList) error {
	same := len(l.places) == len(r.waiting) && l.damaged == 0 && l.whole
	for p, e := range r.waiting {
		at, ok := l.places[p]
		if same = same && ok; ok {
			e.slot = at
			r.waiting[p] = e
		}
	}
	head, err := r.list.bytes()
	if err != nil || same && bytes.Equal(head, raw[:headerSize]) {
		return err
	}
	old := r.list
	r.list.slots, r.list.free = headSlots, nil
	fresh := make(map[place]entry, len(r.waiting))
	for p, e := range r.waiting {
		e.slot = r.list.slots
		fresh[p] = e
		r.list.slots++
	}
	if err := writeWhole(r.disk, r.listPath(), r.whole(head, fresh), true); err != nil {
		r.list.slots, r.list.free = old.slots, old.free
		return errors.Join(err, r.write(0, head)) // which may need no room
	}
	r.waiting = fresh
	return nil
}

// whole is the list as a file, with these halves.
func (r *Room) whole(head []byte, of map[place]entry) []byte {
	b := append(slices.Clip(head), bytes.Repeat(blank, r.list.slots-headSlots)...)
	for p, e := range of {
		if e.slot > 0 {
			copy(b[e.slot*slotSize:], p.line())
		}
	}
	return b
}

// write writes a part of the list in place. One that was deleted meanwhile is made anew.
func (r *Room) write(slot int, data []byte) error {
	f, err := r.disk.Open(r.listPath(), false)
	if errors.Is(err, fs.ErrNotExist) && r.cfg.Ours() == nil {
		return r.rewrite(slot, data)
	}
	if err == nil {
		_, err = f.WriteAt(data, int64(slot*slotSize))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("write the list of waiting events: %w", err)
	}
	return nil
}

func (r *Room) rewrite(slot int, data []byte) error {
	r.cfg.Logger.Warn("the list of waiting events was deleted: it is made anew")
	head, err := r.list.bytes()
	if err != nil {
		return err
	}
	all := r.whole(head, r.waiting)
	for len(all) < slot*slotSize+len(data) {
		all = append(all, blank...)
	}
	copy(all[slot*slotSize:], data)
	if err := writeWhole(r.disk, r.listPath(), all, r.cfg.Sync); err != nil {
		return fmt.Errorf("write the list of waiting events: %w", err)
	}
	return nil
}

// enlist names a half whose file is there, and returns where.
func (r *Room) enlist(p place) (int, error) {
	slot := r.list.slots
	if n := len(r.list.free); n > 0 {
		slot = r.list.free[n-1]
	}
	if err := r.write(slot, p.line()); err != nil {
		return 0, errors.Join(err, r.write(slot, blank)) // it may have been written
	}
	if n := len(r.list.free); n > 0 {
		r.list.free = r.list.free[:n-1]
	} else {
		r.list.slots++
	}
	return slot, nil
}

// unlist names a half no more, whose file is about to go.
func (r *Room) unlist(p place) error {
	e, ok := r.waiting[p]
	if !ok || e.slot == 0 {
		return nil
	}
	if err := r.write(e.slot, blank); err != nil {
		return err
	}
	r.list.free = append(r.list.free, e.slot)
	e.slot = 0
	r.waiting[p] = e
	return nil
}

// count counts what is dropped, for the next start too.
func (r *Room) count(n Dropped) {
	r.list.Lately, r.list.At = r.cfg.Drops.add(n, r.cfg.Now())
	if err := r.writeHeader(); err != nil {
		r.cfg.Logger.Warn("what was dropped is not written down: the next start does not know of it", "error", err)
	}
}

func (r *Room) writeHeader() error {
	head, err := r.list.bytes()
	if err == nil {
		err = r.write(0, head)
	}
	return err
}

// closeList says that all of the list is on the disk.
func (r *Room) closeList() error {
	if r.cfg.Ours() != nil {
		return nil // it is not there, or somebody else's
	}
	if err := r.syncList(); err != nil {
		return err
	}
	r.list.Closed = true
	if err := r.writeHeader(); err != nil {
		return err
	}
	return r.syncList()
}

func (r *Room) syncList() error {
	f, err := r.disk.Open(r.listPath(), false)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
