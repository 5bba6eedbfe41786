package keys

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pellucid/pellucid/collector/vfs"
)

// The file of counts is drawn in collector/FORMAT.md.
const (
	countsFile  = "counts"
	countsMagic = "PLDKCNT\x02"
	countsFirst = "PLDKCNT\x01" // without the number of the change
	countsEntry = 8 + 4*shardCount
	// raisePause is how long new subjects may wait until they are counted.
	raisePause = 10 * time.Second
)

// counts says how many records the files of subjects have at least, so that one that was
// cut at a record, emptied or removed is missed. No count is ever higher than what a crash
// leaves: only what is synced counts, and a count is lowered before a record is taken out.
// They also number the changes of the folder, whatever was changed, so that an older copy of
// all of it is known by a lower number than the mark has, which comes after it.
type counts struct {
	// mu is taken last. It guards what is below and the file.
	mu sync.Mutex
	// of are the highest counts that the file may have: of a write that failed it may have
	// the old or the new.
	of map[keyID]*[shardCount]uint32
	// changes is the highest number that the file may have, sure the one that it has at
	// least whatever comes.
	changes, sure uint64

	file   vfs.File // as it lies in the folder, nil before there is one
	dirty  bool     // the file may be without some of it, or there was a change since
	closed bool
}

func (c *counts) at(root keyID, i int) *uint32 {
	of := c.of[root]
	if of == nil {
		of = new([shardCount]uint32)
		c.of[root] = of
	}
	return &of[i]
}

// least is how many records a file has to have.
func (c *counts) least(s *shard) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.at(s.root, s.number)
}

func encodeCounts(changes uint64, of map[keyID]*[shardCount]uint32) []byte {
	b := binary.LittleEndian.AppendUint64([]byte(countsMagic), changes)
	for _, root := range slices.SortedFunc(maps.Keys(of), func(a, b keyID) int { return bytes.Compare(a[:], b[:]) }) {
		b = append(b, root[:]...)
		for _, n := range of[root] {
			b = binary.LittleEndian.AppendUint32(b, n)
		}
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crcTable))
}

func parseCounts(b []byte) (changes uint64, of map[keyID]*[shardCount]uint32, err error) {
	head, numbered := len(countsMagic), bytes.HasPrefix(b, []byte(countsMagic))
	if numbered {
		head += 8
	}
	body := len(b) - head - 4
	if !numbered && !bytes.HasPrefix(b, []byte(countsFirst)) || body < 0 || body%countsEntry != 0 ||
		crc32.Checksum(b[:len(b)-4], crcTable) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return 0, nil, errDamaged
	}
	if numbered {
		changes = binary.LittleEndian.Uint64(b[len(countsMagic):])
	}
	of = map[keyID]*[shardCount]uint32{}
	for p := b[head : len(b)-4]; len(p) > 0; p = p[countsEntry:] {
		list := new([shardCount]uint32)
		for i := range list {
			list[i] = binary.LittleEndian.Uint32(p[8+4*i:])
		}
		of[keyID(p[:8])] = list
	}
	return changes, of, nil
}

// write puts the counts into the folder. The caller holds mu.
func (c *counts) write(r *Ring) error {
	if c.closed {
		return fs.ErrClosed
	}
	c.dirty = true
	c.changes++ // also where this fails: no two files have the same number
	f, _, err := replace(r.disk, filepath.Join(r.dir, countsFile), encodeCounts(c.changes, c.of))
	if err != nil {
		return fmt.Errorf("write how many subjects have keys: %w", err)
	}
	if c.file != nil {
		_ = c.file.Close() // another took its place
	}
	c.file, c.dirty, c.sure = f, false, c.changes
	return nil
}

// lower has a file of subjects need no more than n records.
func (c *counts) lower(s *shard, n uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.at(s.root, s.number)
	was := *at
	if was <= n {
		return nil
	}
	*at = n
	if err := c.write(s.ring); err != nil {
		*at = was
		return err
	}
	return nil
}

func (c *counts) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.file == nil {
		return nil
	}
	err := c.file.Close()
	c.file = nil
	return err
}

// changed has a change of the folder be counted, after a while.
func (r *Ring) changed() {
	r.counts.mu.Lock()
	r.counts.dirty = true
	r.counts.mu.Unlock()
	r.raiseLater()
}

// raise counts the records that have come since, and then has the mark say how many changes
// there were.
func (r *Ring) raise() error {
	c := &r.counts
	for _, s := range r.shards() {
		s.mu.Lock()
		// What a file has that is to have another in its place cannot be known.
		if s.file != nil && s.broken == nil {
			c.mu.Lock()
			if at, n := c.at(s.root, s.number), s.durable(); n > *at {
				*at, c.dirty = n, true
			}
			c.mu.Unlock()
		}
		s.mu.Unlock()
	}
	sure, err := c.settled(r)
	if err != nil {
		return err
	}
	return r.mark.raise(r.disk, sure)
}

// settled writes what is not written and returns the number of the last change that no crash
// takes back.
func (c *counts) settled(r *Ring) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if c.dirty {
		err = c.write(r)
	}
	return c.sure, err
}

// raiseLater raises the counts after a while.
func (r *Ring) raiseLater() {
	r.raising.in(raisePause, func() {
		if err := r.raise(); err != nil && !errors.Is(err, fs.ErrClosed) {
			r.tell(err)
			r.raiseLater()
		}
	})
}

// durable is how many of a file's records a crash leaves. The caller holds mu.
func (s *shard) durable() uint32 { return s.records - uint32(len(s.unsynced)/recordSize) }

// errFewer: there were more keys of subjects than there are.
var errFewer = errors.New("put the file back from a backup; to go on without them, after which nothing that they sealed can ever be read, " +
	"remove the file " + countsFile + " beside it while no server runs")

func fewer(n, least uint32) error {
	return fmt.Errorf("keys of %d subjects are gone of the %d or more that were in it: %w", least-n, least, errFewer)
}

// holdSizes fails where a file of subjects is too short for its count. sizes are those of
// the files in the folder.
func holdSizes(of map[keyID]*[shardCount]uint32, roots map[keyID]bool, sizes map[string]int64) error {
	var errs []error
	for root, list := range of {
		for i, least := range list {
			name := subjectsName(root, i)
			if n := uint32(max(0, sizes[name]-headerSize) / recordSize); roots[root] && n < least {
				errs = append(errs, fmt.Errorf("read %q: %w", name, fewer(n, least)))
			}
		}
	}
	return first(errs)
}

// first is the first of many errors by their texts, and how many more there are.
func first(errs []error) error {
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return fmt.Errorf("%w (and so are %d others)", errs[0], len(errs)-1)
}

// openCounts reads the counts and holds the files against them. Where there are none, or
// they are damaged, beside files of subjects, they are what those have now.
func (r *Ring) openCounts(roots map[keyID]bool, sizes map[string]int64) error {
	c := &r.counts
	c.of, c.changes = map[keyID]*[shardCount]uint32{}, r.mark.changes
	f, err := r.disk.Open(filepath.Join(r.dir, countsFile), false)
	if err == nil {
		c.file = f
		var b []byte
		if b, err = vfs.ReadAll(f); err != nil {
			return fmt.Errorf("read %q: %w", countsFile, err)
		}
		var changes uint64
		var of map[keyID]*[shardCount]uint32
		if changes, of, err = parseCounts(b); err == nil {
			c.of, c.changes, c.sure = of, changes, changes
			if err := holdSizes(of, roots, sizes); err != nil || changes > 0 {
				return err
			}
			return r.renumber()
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	n := 0
	for _, t := range r.tenants {
		for i := range t.shards {
			s := &t.shards[i]
			if _, there := sizes[filepath.Base(s.path)]; !there {
				continue
			}
			n++
			s.mu.Lock()
			// One that cannot be read says so to those who need it.
			_ = s.ready()
			s.mu.Unlock()
		}
	}
	if n > 0 {
		r.tell(fmt.Errorf("read %q: %w: the subjects that have keys are counted anew, and one that was taken out of %d files before is not missed", countsFile, err, n))
	}
	return r.renumber()
}

// renumber writes counts that have a number.
func (r *Ring) renumber() error {
	r.counts.mu.Lock()
	r.counts.dirty = true
	r.counts.mu.Unlock()
	if err := r.raise(); err != nil {
		r.tell(err)
		r.raiseLater()
	}
	return nil
}

// later does something once, however often it is asked to meanwhile.
type later struct{ asked atomic.Bool }

func (l *later) in(d time.Duration, do func()) {
	if l.asked.CompareAndSwap(false, true) {
		time.AfterFunc(d, func() {
			l.asked.Store(false)
			do()
		})
	}
}
