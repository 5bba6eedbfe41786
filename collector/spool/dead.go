package spool

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// DeadConfig says where dead letters are kept and how many. Zero values mean the
// stated defaults.
type DeadConfig struct {
	// Dir is a folder of its own, by custom "dead" in the spool's, whose lock
	// guards it. Required.
	Dir string
	// MaxBytes and MaxLetters bound what is kept: 256 MiB and 65,536. Bury refuses
	// what goes beyond, and the drain waits.
	MaxBytes   int64
	MaxLetters int
	// Ours fails while Dir is not the folder that was opened: nothing is written then. nil
	// means that it always is.
	Ours func() error
	// Logger is told of damage; slog.Default by default.
	Logger *slog.Logger
	// Lost is told of letters that are lost for good, in the same words each time that a
	// start finds them so. nil is told nothing.
	Lost func(what string)
}

// Dead keeps the records that the store refused for what is in them, and what the
// drain must not forget while it looks for them: which inserts it has divided, and
// which letters a batch has brought home. All of it is one file of frames like a
// segment's, synced before a method returns. Its methods may be called at once.
type Dead struct {
	cfg DeadConfig
	fs  vfs.FS

	mu      sync.Mutex // guards everything declared below
	file    vfs.File   // nil until something is written
	batch   string     // the drain is at it, and may still come to store or bury its records
	number  uint64
	newest  uint64 // the highest number that a file may have, where it could not be put in use
	end     int64
	seq     uint64
	broken  bool // a write or sync of file has failed, or it may have been replaced: it is never written again
	letters map[string]*buried
	live    int64 // bytes of frames of letters

	markFile vfs.File // nil until it is written; unmarked says that it could not be
	unmarked bool
	problems []string // what the start found to be lost
	fileGone bool
	damaged  uint64 // bytes of it
	aside    bool   // damaged bytes are kept in the folder, by this start or an earlier one

	// splits are the tokens of divided inserts, home the letters that a batch has
	// stored, by batch.
	splits map[string]map[string]int
	home   map[string]map[string]bool
	// gone are the last letters that are no more, with the batch that has stored each, ""
	// where it was deleted; goneOrder the oldest first.
	gone      map[string]string
	goneOrder []string

	// shown counts letters by model and reason, and those of predictions that are not stored
	// by model and id, under a lock that nobody holds who writes.
	shown struct {
		mu              sync.Mutex
		counts, records map[[2]string]int64
	}
}

// maxGone bounds the letters of which it is remembered that there were such.
const maxGone = 4096

// buried is a letter without its payload, and where its frame lies.
type buried struct {
	collector.DeadLetter
	at   int64
	size int64
}

// The kinds of frame in a file of dead letters.
const (
	deadLetter  = 1 // collector.DeadLetter's byte form
	deadNote    = 2 // JSON of note
	deadVersion = 1
	deadSuffix  = ".dead"
)

// note is a fact about a batch or about letters.
type note struct {
	// Split is the token of an insert of Batch that was divided: around the record Alone, or
	// in halves.
	Batch string `json:"batch,omitempty"`
	Split string `json:"split,omitempty"`
	Alone *int   `json:"alone,omitempty"`
	// Gone are letters that Batch has stored, or that were deleted; Driving those
	// that are on their way, Waiting those that turned out not to be.
	Gone    []string `json:"gone,omitempty"`
	Driving []string `json:"driving,omitempty"`
	Waiting []string `json:"waiting,omitempty"`
}

// OpenDead reads what is kept in cfg.Dir. Nothing is written, nor the folder made,
// before there is something to keep.
func OpenDead(cfg DeadConfig) (*Dead, error) { return openDead(cfg, vfs.OS{}) }

func openDead(cfg DeadConfig, fs vfs.FS) (*Dead, error) {
	if cfg.Dir == "" {
		return nil, errors.New("open dead letters: no folder given")
	}
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, 256<<20)
	cfg.MaxLetters = cmp.Or(cfg.MaxLetters, 1<<16)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	d := newDead(cfg, fs)
	if err := d.load(false); err != nil {
		return nil, fmt.Errorf("open dead letters in %q: %w", cfg.Dir, err)
	}
	for _, what := range d.problems {
		cfg.Logger.Error("dead letters are lost", "dir", cfg.Dir, "what", what)
		if cfg.Lost != nil {
			cfg.Lost("dead letters are lost: " + what)
		}
	}
	if d.fileGone {
		d.setMark(deadMark{number: d.newest}) // it is told, once
	}
	return d, nil
}

func newDead(cfg DeadConfig, fs vfs.FS) *Dead {
	if cfg.Ours == nil {
		cfg.Ours = func() error { return nil }
	}
	d := &Dead{
		cfg: cfg, fs: fs, letters: map[string]*buried{}, splits: map[string]map[string]int{}, home: map[string]map[string]bool{},
		gone: map[string]string{},
	}
	d.shown.counts, d.shown.records = map[[2]string]int64{}, map[[2]string]int64{}
	return d
}

// show counts a letter that came or, by -1, went.
func (d *Dead) show(l *buried, by int64) {
	d.shown.mu.Lock()
	defer d.shown.mu.Unlock()
	add := func(to map[[2]string]int64, k [2]string) {
		if to[k] += by; to[k] == 0 {
			delete(to, k)
		}
	}
	add(d.shown.counts, [2]string{l.Model, l.Reason})
	if l.Insert == "predictions" || l.Insert == "schemas" {
		add(d.shown.records, [2]string{l.Model, l.Record})
	}
}

// Holds reports whether a model's prediction of that id is a letter. It waits for no disk.
func (d *Dead) Holds(model, id string) bool {
	d.shown.mu.Lock()
	defer d.shown.mu.Unlock()
	return d.shown.records[[2]string{model, id}] > 0
}

// ReadDead returns the letters kept in a folder, payloads included, and changes
// nothing: a server may be using it.
func ReadDead(dir string) ([]collector.DeadLetter, error) {
	d := newDead(DeadConfig{Dir: dir, Logger: slog.New(slog.DiscardHandler)}, vfs.OS{})
	if err := d.load(true); err != nil {
		return nil, fmt.Errorf("read dead letters in %q: %w", dir, err)
	}
	defer d.Close() //nolint:errcheck // opened for reading
	list := d.List()
	for i := range list {
		l, err := d.Get(list[i].ID)
		if err != nil {
			return nil, err
		}
		list[i] = *l
	}
	return list, nil
}

// Damaged returns how many bytes of the file the start found damaged or gone, and whether
// damaged ones, of now or before, are kept in the folder.
func (d *Dead) Damaged() (bytes uint64, kept bool) {
	return d.damaged, d.aside // of the start
}

func deadName(n uint64) string { return fmt.Sprintf("%016d", n) + deadSuffix }

// load reads the newest file. An older one beside it was left by a rewriting that
// did not come to its end; a torn tail was acknowledged to nobody.
func (d *Dead) load(readOnly bool) error {
	marked := d.readMark() // before the files: a server may be at them
	names, err := vfs.Files(d.fs, d.cfg.Dir)
	if err != nil && !notExist(err) {
		return err
	}
	if err := d.loadNewest(names, marked, readOnly); err != nil || readOnly {
		return err
	}
	d.newest = max(d.number, marked.number) // a number is used once
	return nil
}

func (d *Dead) loadNewest(names []string, marked deadMark, readOnly bool) error {
	var numbers []uint64
	for _, name := range names {
		d.aside = d.aside || strings.HasSuffix(name, ".bad")
		if n, err := strconv.ParseUint(strings.TrimSuffix(name, deadSuffix), 10, 64); err == nil && name == deadName(n) {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	if len(numbers) > 0 {
		d.number = numbers[len(numbers)-1]
	}
	d.lostFile(marked)
	if len(numbers) == 0 {
		return nil
	}
	f, err := d.fs.Open(join(d.cfg.Dir, deadName(d.number)), readOnly)
	if err != nil {
		return err
	}
	d.file = f
	if err := d.read(marked, readOnly); err != nil {
		return errors.Join(err, f.Close())
	}
	if readOnly {
		return nil
	}
	for _, n := range numbers[:len(numbers)-1] {
		if err := d.fs.Remove(join(d.cfg.Dir, deadName(n))); err != nil {
			d.cfg.Logger.Warn("a file of dead letters that was replaced could not be removed", "dir", d.cfg.Dir, "file", deadName(n), "error", err)
		}
	}
	return nil
}

func (d *Dead) read(marked deadMark, readOnly bool) error {
	b, err := readAll(d.file)
	if err != nil {
		return err
	}
	if _, err := decodeHeader(b, d.number); errors.Is(err, ErrVersion) {
		return err
	}
	d.end = headerSize
	var bad []stretch
	if len(b) > headerSize {
		err = scan(b[headerSize:], headerSize, func(st stretch) error {
			if st.bad {
				bad = append(bad, st)
				return nil
			}
			d.end, d.seq = st.to, st.frame.seq
			return d.take(st)
		})
	}
	if err != nil {
		return err
	}
	d.lostBytes(marked, bad, int64(len(b)))
	if readOnly {
		return nil
	}
	for _, st := range bad {
		d.cfg.Logger.Error("a file of dead letters is damaged", "dir", d.cfg.Dir, "file", deadName(d.number), "offset", st.from, "bytes", st.to-st.from,
			"torn tail", st.from >= d.end)
		if err := d.setAside(st.from, b[st.from:st.to]); err != nil {
			return err
		}
	}
	// What is damaged is kept aside; the rest goes to a fresh file, so that nothing
	// is ever written behind bytes that cannot be read.
	d.broken = len(bad) > 0 || d.damaged > 0 || len(b) < headerSize
	return nil
}

func (d *Dead) setAside(at int64, b []byte) error {
	d.aside = true
	f, err := d.fs.Create(join(d.cfg.Dir, fmt.Sprintf("%016d.%d.bad", d.number, at)))
	if errors.Is(err, errExist) {
		return nil // by a start before this one
	}
	if err != nil {
		return fmt.Errorf("set damaged bytes aside: %w", err)
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// take applies one frame that was read.
func (d *Dead) take(st stretch) error {
	switch st.frame.kind {
	case deadLetter:
		l, err := collector.DecodeDeadLetter(st.frame.payload)
		if err != nil {
			return err
		}
		d.add(l, st.from, st.to-st.from)
	case deadNote:
		var n note
		if err := json.Unmarshal(st.frame.payload, &n); err != nil {
			return fmt.Errorf("read a note: %w", err)
		}
		d.apply(&n)
	}
	return nil
}

func (d *Dead) add(l *collector.DeadLetter, at, size int64) {
	if old := d.letters[l.ID]; old != nil {
		d.live -= old.size
		d.show(old, -1)
	}
	if _, was := d.gone[l.ID]; was { // so long ago that it was refused anew
		delete(d.gone, l.ID)
		d.goneOrder = slices.DeleteFunc(d.goneOrder, func(id string) bool { return id == l.ID })
	}
	k := &buried{DeadLetter: *l, at: at, size: size}
	k.Bytes, k.Payload = len(l.Payload), nil
	d.letters[l.ID] = k
	d.live += size
	d.show(k, 1)
}

func (d *Dead) apply(n *note) {
	if n.Split != "" {
		alone := -1
		if n.Alone != nil {
			alone = *n.Alone
		}
		put(d.splits, n.Batch, n.Split, alone)
	}
	for _, id := range n.Gone {
		if n.Batch != "" {
			put(d.home, n.Batch, id, true)
		}
		if _, known := d.gone[id]; !known {
			d.goneOrder = append(d.goneOrder, id)
		}
		d.gone[id] = n.Batch
		if len(d.goneOrder) > maxGone {
			delete(d.gone, d.goneOrder[0])
			d.goneOrder = d.goneOrder[1:]
		}
		if l := d.letters[id]; l != nil {
			d.live -= l.size
			d.show(l, -1)
			delete(d.letters, id)
		}
	}
	for _, id := range n.Driving {
		if l := d.letters[id]; l != nil {
			l.Driving = true
		}
	}
	for _, id := range n.Waiting {
		if l := d.letters[id]; l != nil {
			l.Driving = false
		}
	}
}

func put[V any](m map[string]map[string]V, batch, key string, value V) {
	if m[batch] == nil {
		m[batch] = map[string]V{}
	}
	m[batch][key] = value
}

// Begin says which batch the drain is at: what was noted of others is forgotten,
// and the file is written anew when most of it is of no use any more.
func (d *Dead) Begin(batch string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.batch = batch
	for b := range d.splits {
		if b != batch {
			delete(d.splits, b)
		}
	}
	for b := range d.home {
		if b != batch {
			delete(d.home, b)
		}
	}
	if d.file != nil && (d.broken || d.end-d.live > max(1<<20, d.live)) && d.cfg.Ours() == nil {
		return d.rewrite()
	}
	return nil
}

// Divided reports whether an insert of a batch was divided, and around which record; -1 is
// in halves.
func (d *Dead) Divided(batch, token string) (alone int, divided bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	alone, divided = d.splits[batch][token]
	if !divided {
		alone = -1
	}
	return alone, divided
}

// Divide notes that an insert of a batch is sent in parts from now on, whatever becomes
// of this process: around the record alone, or in halves where that is -1. The first note on an
// insert counts.
func (d *Dead) Divide(batch, token string, alone int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, divided := d.splits[batch][token]; divided {
		return nil
	}
	return d.note(splitNote(batch, token, alone))
}

func splitNote(batch, token string, alone int) note {
	n := note{Batch: batch, Split: token}
	if alone >= 0 {
		n.Alone = &alone
	}
	return n
}

// Bury keeps letters, each once. The error wraps collector.ErrFull when there is
// no room: then none of them is kept.
func (d *Dead) Bury(list []collector.DeadLetter) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var frames []deadFrame
	size := int64(0)
	for i := range list {
		if d.letters[list[i].ID] != nil {
			continue
		}
		b, err := collector.EncodeDeadLetter(&list[i])
		if err != nil {
			return err
		}
		if len(b) > frameLimit {
			return fmt.Errorf("keep dead letter: %w", ErrTooLarge)
		}
		frames = append(frames, deadFrame{deadLetter, b, &list[i]})
		size += int64(frameSize + len(b))
	}
	if d.live+size > d.cfg.MaxBytes || len(d.letters)+len(frames) > d.cfg.MaxLetters {
		return fmt.Errorf("keep %d dead letters: %w: %d letters of %d bytes are kept, the most is %d of %d", len(frames), collector.ErrFull,
			len(d.letters), d.live, d.cfg.MaxLetters, d.cfg.MaxBytes)
	}
	if err := d.append(frames); err != nil || len(frames) == 0 {
		return err
	}
	d.mark()
	return nil
}

// Buried returns the letters of a batch, without payloads.
func (d *Dead) Buried(batch string) []collector.DeadLetter {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []collector.DeadLetter
	for _, l := range d.letters {
		if l.Batch == batch {
			out = append(out, l.DeadLetter)
		}
	}
	return out
}

// Applies reports whether a letter driven in a batch is to be stored by it: it is
// still kept, or this very batch has brought it home.
func (d *Dead) Applies(id, batch string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.letters[id] != nil || d.home[batch][id]
}

// Gone reports whether there was a letter that is no more, and which batch has stored
// it, "" where it was deleted. It knows the last few thousand.
func (d *Dead) Gone(id string) (batch string, gone bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	batch, gone = d.gone[id]
	return batch, gone
}

// Finish says that all of a batch is stored or buried, before it is acknowledged, and
// removes the letters that it brought home.
func (d *Dead) Finish(batch string, ids []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var gone []string
	for _, id := range ids {
		if d.letters[id] != nil {
			gone = append(gone, id)
		}
	}
	if len(gone) > 0 {
		if err := d.note(note{Batch: batch, Gone: gone}); err != nil {
			return err
		}
	}
	d.batch = ""
	return nil
}

// SetDriving notes that letters are on their way to the store once more, or that
// they are not.
func (d *Dead) SetDriving(ids []string, driving bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var n note
	for _, id := range ids {
		l := d.letters[id]
		switch {
		case l == nil || l.Driving == driving:
		case driving:
			n.Driving = append(n.Driving, id)
		default:
			n.Waiting = append(n.Waiting, id)
		}
	}
	if len(n.Driving)+len(n.Waiting) == 0 {
		return nil
	}
	return d.note(n)
}

// Delete removes letters for good and returns how many there were. One that is on
// its way to the store is refused, wrapping collector.ErrRefused.
func (d *Dead) Delete(ids []string) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var gone []string
	for _, id := range ids {
		l := d.letters[id]
		if l == nil || slices.Contains(gone, id) {
			continue
		}
		if l.Batch == d.batch {
			return 0, fmt.Errorf("delete dead letter %s: the rest of its batch is not stored yet: %w", id, collector.ErrNotReady)
		}
		if l.Driving {
			return 0, fmt.Errorf("delete dead letter %s: it is on its way to the store: %w", id, collector.ErrRefused)
		}
		gone = append(gone, id)
	}
	if len(gone) == 0 {
		return 0, nil
	}
	if err := d.note(note{Gone: gone}); err != nil {
		return 0, err
	}
	return len(gone), nil
}

// Erase is Delete that also leaves no byte of them in the folder, nor of letters that
// went before.
func (d *Dead) Erase(ids []string) (int, error) {
	n, err := d.Delete(ids)
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil || d.end-headerSize == d.live {
		return n, nil
	}
	old := d.number
	if err := d.rewrite(); err != nil {
		return n, err
	}
	if err := d.removeFiles(old, d.number); err != nil {
		return n, fmt.Errorf("erase dead letters: %w", err)
	}
	if err := d.fs.SyncDir(d.cfg.Dir); err != nil {
		return n, fmt.Errorf("erase dead letters: %w", err)
	}
	return n, nil
}

// Expire is Erase that leaves letters alone which are on their way to the store, or of
// the batch that the drain is at: their time comes again.
func (d *Dead) Expire(ids []string) (int, error) {
	d.mu.Lock()
	free := slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		l := d.letters[id]
		return l == nil || l.Driving || l.Batch == d.batch
	})
	d.mu.Unlock()
	if len(free) == 0 {
		return 0, nil
	}
	n, err := d.Erase(free)
	if errors.Is(err, collector.ErrNotReady) || errors.Is(err, collector.ErrRefused) {
		return 0, nil // one is since
	}
	return n, err
}

// List returns all letters without their payloads, the oldest first.
func (d *Dead) List() []collector.DeadLetter {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]collector.DeadLetter, 0, len(d.letters))
	for _, l := range d.letters {
		out = append(out, l.DeadLetter)
	}
	slices.SortFunc(out, func(a, b collector.DeadLetter) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Batch, b.Batch), cmp.Compare(a.Position, b.Position), cmp.Compare(a.Insert, b.Insert))
	})
	return out
}

// Len returns how many letters there are.
func (d *Dead) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.letters)
}

// Get returns one letter with its payload.
func (d *Dead) Get(id string) (*collector.DeadLetter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.letters[id]
	if l == nil {
		return nil, fmt.Errorf("dead letter %q: %w", id, collector.ErrNotFound)
	}
	return d.whole(l)
}

func (d *Dead) whole(l *buried) (*collector.DeadLetter, error) {
	b, err := readRange(d.file, l.at, l.at+l.size)
	if err != nil {
		return nil, err
	}
	f, _, err := parseFrame(b)
	if err != nil {
		return nil, fmt.Errorf("dead letter %q: %w: its frame is damaged", l.ID, err)
	}
	out, err := collector.DecodeDeadLetter(f.payload)
	if err != nil {
		return nil, err
	}
	out.Bytes, out.Driving = len(out.Payload), l.Driving
	return out, nil
}

// Close closes the file.
func (d *Dead) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	for _, f := range []*vfs.File{&d.file, &d.markFile} {
		if *f != nil {
			err = errors.Join(err, (*f).Close())
			*f = nil
		}
	}
	return err
}

// deadFrame is one frame to be written; letter is set where it is one.
type deadFrame struct {
	kind    collector.Kind
	payload []byte
	letter  *collector.DeadLetter
}

func (d *Dead) note(n note) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("keep a note on dead letters: %w", err)
	}
	if err := d.append([]deadFrame{{kind: deadNote, payload: b}}); err != nil {
		return err
	}
	d.apply(&n)
	d.mark()
	return nil
}

// append writes frames and syncs them. After a failure the file is never written
// again: the next call begins another.
func (d *Dead) append(frames []deadFrame) error {
	if len(frames) == 0 {
		return nil
	}
	if d.file == nil || d.broken {
		if err := d.rewrite(); err != nil {
			return err
		}
	}
	if err := d.cfg.Ours(); err != nil {
		return fmt.Errorf("write dead letters: %w", err)
	}
	buf, at := seal(frames, d.seq)
	_, err := d.file.WriteAt(buf, d.end)
	if err == nil {
		err = d.file.Sync()
	}
	if err == nil {
		err = d.cfg.Ours() // or it was taken meanwhile
	}
	if err != nil {
		d.broken = true
		return fmt.Errorf("write dead letters: %w", err)
	}
	for i := range frames {
		if l := frames[i].letter; l != nil {
			d.add(l, d.end+at[i], at[i+1]-at[i])
		}
	}
	d.seq += uint64(len(frames))
	d.end += int64(len(buf))
	return nil
}

// seal lays frames out one after the other, numbered from seq+1 on, and says where
// each begins and the last ends.
func seal(frames []deadFrame, seq uint64) (buf []byte, at []int64) {
	at = append(at, 0)
	for i, f := range frames {
		buf = appendFrame(buf, f.kind, deadVersion, crc32.Checksum(f.payload, castagnoli), f.payload)
		sealFrame(buf[at[i]:], seq+uint64(i)+1, 0)
		at = append(at, int64(len(buf)))
	}
	return buf, at
}

// rewrite begins a new file with what still counts. The one before goes when the
// new one is durable under its name.
func (d *Dead) rewrite() error {
	err := d.cfg.Ours()
	if err == nil {
		err = d.fs.MkdirAll(d.cfg.Dir)
	}
	if err == nil {
		err = d.fs.SyncDir(filepath.Dir(filepath.Clean(d.cfg.Dir))) // its own name
	}
	if err != nil {
		return fmt.Errorf("make the folder of dead letters: %w", err)
	}
	fresh := join(d.cfg.Dir, "next"+deadSuffix)
	if err := d.fs.Remove(fresh); err != nil && !notExist(err) {
		return fmt.Errorf("rewrite dead letters: %w", err)
	}
	f, err := d.fs.Create(fresh)
	if err != nil {
		return fmt.Errorf("rewrite dead letters: %w", err)
	}
	h := header{segment: max(d.number, d.newest) + 1}
	_, err = f.WriteAt(h.encode(), 0)
	moved := map[string]*buried{}
	end, seq := int64(headerSize), uint64(0)
	if err == nil {
		end, seq, err = d.copyTo(f, moved)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		// From here on the next start may take the new file for the newest, whatever is
		// answered: nothing may be added to the one before any more.
		d.newest, d.broken = h.segment, true
		err = d.fs.Rename(fresh, join(d.cfg.Dir, deadName(h.segment)))
	}
	if err == nil {
		err = d.fs.SyncDir(d.cfg.Dir)
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("rewrite dead letters: %w", err)
	}
	if d.file != nil {
		_ = d.file.Close() // everything in it that counts is in the new one
	}
	if err := d.removeFiles(d.number, h.segment); err != nil {
		d.cfg.Logger.Warn("a file of dead letters that was replaced could not be removed", "dir", d.cfg.Dir, "error", err)
	}
	d.file, d.number, d.end, d.seq, d.broken = f, h.segment, end, seq, false
	d.letters, d.live = moved, 0
	for _, l := range moved {
		d.live += l.size
	}
	d.mark()
	return nil
}

// removeFiles removes the files from number first to the one before end.
func (d *Dead) removeFiles(first, end uint64) error {
	for n := max(first, 1); n < end; n++ {
		if err := d.fs.Remove(join(d.cfg.Dir, deadName(n))); err != nil && !notExist(err) {
			return err
		}
	}
	return nil
}

// copyTo writes everything that counts to f, letter by letter.
func (d *Dead) copyTo(f vfs.File, moved map[string]*buried) (end int64, seq uint64, err error) {
	end = headerSize
	write := func(fr deadFrame) (int64, error) {
		buf, _ := seal([]deadFrame{fr}, seq)
		_, err := f.WriteAt(buf, end)
		seq++
		end += int64(len(buf))
		return int64(len(buf)), err
	}
	for id, l := range d.letters {
		out, err := d.whole(l)
		if err != nil {
			return end, seq, err
		}
		b, err := collector.EncodeDeadLetter(out)
		if err != nil {
			return end, seq, err
		}
		at := end
		n, err := write(deadFrame{kind: deadLetter, payload: b})
		if err != nil {
			return end, seq, err
		}
		moved[id] = &buried{DeadLetter: l.DeadLetter, at: at, size: n}
	}
	for _, n := range d.notes() {
		b, err := json.Marshal(n)
		if err != nil {
			return end, seq, err
		}
		if _, err := write(deadFrame{kind: deadNote, payload: b}); err != nil {
			return end, seq, err
		}
	}
	return end, seq, nil
}

// notes are the notes that still count.
func (d *Dead) notes() []note {
	var out []note
	for batch, tokens := range d.splits {
		for t, alone := range tokens {
			out = append(out, splitNote(batch, t, alone))
		}
	}
	for batch, ids := range d.home {
		n := note{Batch: batch}
		for id := range ids {
			n.Gone = append(n.Gone, id)
		}
		out = append(out, n)
	}
	for i, id := range d.goneOrder {
		batch := d.gone[id]
		if i > 0 && d.gone[d.goneOrder[i-1]] == batch {
			out[len(out)-1].Gone = append(out[len(out)-1].Gone, id)
			continue
		}
		out = append(out, note{Batch: batch, Gone: []string{id}})
	}
	return out
}
