package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// Spool is an open spool folder. Append and Find may be called by any number of
// goroutines; Next and Ack belong to one reader at a time.
type Spool struct {
	cfg  Config
	fs   vfs.FS
	lock vfs.Held
	seed maphash.Seed

	// learn is held, before mu, by who reads a segment whose ids nobody knows.
	learn sync.Mutex

	// mu guards everything declared below it down to the next comment.
	mu      sync.Mutex
	closed  bool
	pending *group // collects appends while another group is written
	spare   *group // a group without followers, for use again
	writing bool   // some goroutine is the leader
	// alone counts the groups in a row that nobody joined, and those written at once then.
	alone    int
	segments []*segment
	indexed  int // records in the segments' indexes together
	known    int // ids in their sets together
	// unread counts what Next has not planned yet; oldest is when the first of
	// it came (monotonic).
	unread  backlog
	oldest  time.Time
	flushed bool // Next need not wait for a batch to fill
	// forget is the first segment that is kept once all of it is acknowledged.
	forget uint64
	// forgotten is the first segment of which the ledger may know something.
	forgotten uint64
	// threshold is what the reader sleeps for; wake tells it.
	threshold backlog

	// The leader's own: only the goroutine that made writing true, or Open and
	// Close, may touch these. Fields of the active segment that others read are
	// changed under mu as well.
	active     *segment
	activeFile vfs.File
	nextNumber uint64
	nextSeq    uint64
	linkedAt   time.Time // when the active file's name was last looked at
	fullSince  time.Time
	refused    int64 // the bytes for which there was no room last

	// head has a lock of its own.
	head head
	// cursorLost says that Open found segments and no cursor.
	cursorLost bool

	// readMu guards the reader's state: the cursor and the batch handed out.
	readMu sync.Mutex
	cursor cursor
	// planned is the token of the cursor's plan, "" for none, read without readMu.
	planned    atomic.Pointer[string]
	cursorFile vfs.File
	current    *collector.Batch
	ledger     *ledger
	unchecked  []acknowledged // to be looked for in the store before Checked
	boot       string         // this run of the machine; set by Open
	remembers  bool           // Open has found a ledger
	readAt     collector.Position
	// received is when the oldest record of the current batch came, or between two batches
	// the newest of the one before, which came no later than what is left; 0 where nothing
	// is left or it does not say. Unix milliseconds, read without readMu.
	received atomic.Int64

	wake  chan struct{} // capacity 1: there is enough to read, or Flush, or Close
	space chan struct{} // capacity 1: a segment was deleted
	kick  chan struct{} // capacity 1: LevelNone has something to write
	stop  chan struct{} // closed by Close
	wg    sync.WaitGroup

	full                                              atomic.Bool
	appended, acked, lost, failures, badBytes, badCut atomic.Uint64
	missing                                           atomic.Uint64
}

// backlog is an amount of records.
type backlog struct {
	bytes int64
	rows  int64
}

// Stats is a snapshot of a spool.
type Stats struct {
	// Segments and Bytes are what stands on disk; Pending the bytes not yet
	// acknowledged.
	Segments       int
	Bytes, Pending int64
	// Kept are the bytes of Bytes that are acknowledged and stay for a while in case of
	// a power cut. They give way to records that need the room.
	Kept int64
	// Doubt says that batches acknowledged before a power cut are still to be looked for.
	Doubt bool
	// Lag is how long ago the oldest record that is not acknowledged came, by its own
	// time of receipt where it is in a batch that was handed out.
	Lag time.Duration
	// Fill is the share that is taken of what the spool may take, by its bound or by
	// what the disk has.
	Fill float64
	// Full says that the last Append found no room, and that there is none since.
	Full bool
	// Appended and Acked count records: those found waiting by Open (counted as
	// appended) and those since. They are equal exactly when nothing waits. Lost
	// counts records that LevelNone had taken and could not write, Failures groups
	// that could not be written.
	Appended, Acked, Lost, Failures uint64
	// BadBytes counts damaged bytes set aside, BadStretches how many runs of them.
	BadBytes, BadStretches uint64
	// Missing counts segments whose file Open found gone, or cut short, with records that
	// were not acknowledged: several that are gone in a row count once.
	Missing uint64
}

// Open opens or creates the spool in cfg.Dir and recovers what is in it. The
// folder is locked until Close; where another process has it the error wraps
// ErrLocked and names the folder and the process.
func Open(cfg Config) (*Spool, error) { return open(cfg, vfs.OS{}) }

func open(cfg Config, fs vfs.FS) (*Spool, error) {
	cfg, err := cfg.applyDefaultsAndValidate()
	if err != nil {
		return nil, err
	}
	if err := fs.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("make spool folder %q: %w", cfg.Dir, err)
	}
	lock, err := fs.Lock(join(cfg.Dir, "LOCK"))
	if err != nil {
		return nil, fmt.Errorf("lock spool folder %q: %w", cfg.Dir, err)
	}
	// The folder's own name, which this process or one before it made: without it a power
	// cut takes all that is synced in it.
	if cfg.Level == LevelMachine {
		if err := fs.SyncDir(filepath.Dir(filepath.Clean(cfg.Dir))); err != nil {
			return nil, errors.Join(fmt.Errorf("sync the folder that spool %q is in: %w", cfg.Dir, err), lock.Close())
		}
	}
	s := &Spool{
		cfg: cfg, fs: fs, lock: lock, seed: maphash.MakeSeed(), pending: &group{},
		wake: make(chan struct{}, 1), space: make(chan struct{}, 1), kick: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open spool %q: %w", cfg.Dir, err), s.closeFiles())
	}
	// Space is reserved now; a full disk is found out by Append, not here.
	if err := s.roll(0); err != nil {
		cfg.Logger.Warn("spool has no room for a segment", "dir", cfg.Dir, "error", err)
	}
	if cfg.Level == LevelNone {
		s.wg.Add(1)
		go s.flushLoop() // ends when Close closes stop
	}
	s.wg.Add(1)
	go s.regainLoop() // ends when Close closes stop
	return s, nil
}

// newNode draws the id that makes this folder's tokens its own.
func newNode() (id [16]byte) {
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails
	return id
}

// Close writes what is pending, makes it durable and releases the folder. It
// waits for appends on their way; later ones get ErrClosed. Closing twice is fine.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for s.writing { // the leader finishes what was handed in before
		s.mu.Unlock()
		time.Sleep(100 * time.Microsecond)
		s.mu.Lock()
	}
	s.writing = true
	rest := len(s.pending.records) > 0
	s.mu.Unlock()
	close(s.stop)
	if rest {
		_ = s.lead() // whoever waits for these records gets the error
	}
	s.wg.Wait()
	err := s.finishActive()
	// A reader inside Next leaves when it sees stop.
	s.readMu.Lock()
	defer s.readMu.Unlock()
	if cerr := s.closeFiles(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("close spool %q: %w", s.cfg.Dir, err)
	}
	return nil
}

// finishActive makes the active segment durable, or removes it when it is empty.
func (s *Spool) finishActive() error {
	if s.active == nil {
		return nil
	}
	f, seg := s.activeFile, s.active
	s.active, s.activeFile = nil, nil
	if err := s.ours(); err != nil { // what has its name is another's
		return errors.Join(err, f.Close())
	}
	if seg.end == headerSize {
		_ = f.Close()
		s.retire(seg.number)
		return s.fs.Remove(s.path(seg))
	}
	if err := f.Truncate(seg.end); err != nil {
		s.cfg.Logger.Warn("spool could not release reserved space", "segment", seg.number, "error", err)
	}
	err := f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		s.setHead(seg.number, seg.end)
	}
	return err
}

func (s *Spool) closeFiles() error {
	var err error
	if s.activeFile != nil {
		err = s.activeFile.Close()
		s.activeFile = nil
	}
	if s.ledger != nil && s.ledger.file != nil {
		if cerr := s.ledger.file.Close(); err == nil {
			err = cerr
		}
		s.ledger.file = nil
	}
	if s.cursorFile != nil {
		if cerr := s.cursorFile.Close(); err == nil {
			err = cerr
		}
		s.cursorFile = nil
	}
	if s.head.file != nil {
		if cerr := s.head.file.Close(); err == nil {
			err = cerr
		}
		s.head.file = nil
	}
	if cerr := s.lock.Close(); err == nil {
		err = cerr
	}
	return err
}

// Stats returns a snapshot.
func (s *Spool) Stats() Stats {
	st := Stats{
		Full: s.full.Load(), Appended: s.appended.Load(), Acked: s.acked.Load(), Lost: s.lost.Load(),
		Failures: s.failures.Load(), BadBytes: s.badBytes.Load(), BadStretches: s.badCut.Load(), Missing: s.missing.Load(),
	}
	used, spare := s.count(&st)
	st.Fill = s.fill(used, spare) // asks the disk, which nobody must wait for
	return st
}

// count fills in what is known under the lock, and returns the bytes in use, and what of the
// disk the spool has beside them: what is merely kept, or reserved, or a segment of which
// all is acknowledged, which ends when its room is wanted.
func (s *Spool) count(st *Stats) (used, spare int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Segments = len(s.segments)
	for _, seg := range s.segments {
		st.Doubt = st.Doubt || seg.doubt
		switch {
		case seg.kept && !seg.doubt:
			st.Kept += seg.end
			spare += seg.end
		case seg.ackedTo >= seg.end && !seg.doubt:
			spare += max(seg.end, seg.capacity)
		default:
			used += seg.end
			spare += max(0, seg.capacity-seg.end)
		}
		st.Bytes += max(seg.end, seg.capacity)
		st.Pending += max(0, seg.end-max(seg.ackedTo, headerSize))
	}
	// Sealed segments of earlier starts are counted by their sequence numbers, so
	// where damage was skipped only the difference is exact.
	if st.Pending == 0 {
		st.Acked = st.Appended
	} else if st.Acked >= st.Appended {
		st.Acked = max(st.Appended, 1) - 1
	}
	if s.unread.bytes > 0 {
		st.Lag = time.Since(s.oldest)
	}
	if ms := s.received.Load(); ms > 0 && st.Pending > 0 {
		st.Lag = max(st.Lag, s.cfg.Now().Sub(time.UnixMilli(ms)))
	}
	return used, spare
}

// fill is the share of used in what may be used. A disk that does not say what it
// has bounds nothing.
func (s *Spool) fill(used, spare int64) float64 {
	if s.full.Load() {
		return 1
	}
	allowed := int64(1) << 62
	if s.cfg.MaxBytes > 0 {
		allowed = s.cfg.MaxBytes
	}
	if free, err := s.fs.Free(s.cfg.Dir); err == nil {
		allowed = min(allowed, used+spare+max(0, int64(min(free, 1<<62))-s.cfg.MinFreeBytes))
	}
	if allowed <= used {
		return 1
	}
	return float64(used) / float64(allowed)
}

func join(dir, name string) string { return filepath.Join(dir, name) }

func (s *Spool) path(seg *segment) string { return join(s.cfg.Dir, segmentName(seg.number)) }

// signal wakes whoever waits on ch, if anybody does.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
