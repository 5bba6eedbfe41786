package audit

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// Config says where the log is. Dir and Key are required.
type Config struct {
	Dir string
	// Ours fails where the folder is not the one that was opened: nothing is recorded in
	// another. nil means that nobody looks.
	Ours func() error
	// Key signs the entries: 16 bytes or more that whoever may write the folder
	// should not have.
	Key []byte
	// HeadFile is a file elsewhere that the head is added to; empty means none.
	HeadFile string
	// MaxBytes bounds the folder: beyond it the oldest file is deleted, which is an
	// entry itself. 0 means 1 GiB; a file is a sixteenth of it.
	MaxBytes int64
	// fileBytes is after how much a file is ended; tests set it.
	fileBytes int64
	// HeadEvery is the time between exports of the head; 0 means ten minutes.
	HeadEvery time.Duration
	// Log gets the heads and what goes wrong; nil means slog.Default. Now is the
	// clock of entries; nil means time.Now.
	Log *slog.Logger
	Now func() time.Time
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || len(c.Key) < 16 {
		return c, errors.New("open audit log: a folder and a key of 16 bytes or more are needed")
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 1 << 30
	}
	if c.MaxBytes < MinBytes {
		return c, fmt.Errorf("open audit log: %d bytes are less than the %d it needs", c.MaxBytes, MinBytes)
	}
	if c.fileBytes == 0 {
		c.fileBytes = c.MaxBytes / maxFiles
	}
	if c.HeadEvery == 0 {
		c.HeadEvery = 10 * time.Minute
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Ours == nil {
		c.Ours = func() error { return nil }
	}
	return c, nil
}

// MinBytes is the least that Config.MaxBytes may be; maxFiles how many files it is
// cut in.
const (
	MinBytes = 4 << 20
	maxFiles = 16
)

// syncEvery is how long an entry that is not durable at once may wait for it.
const syncEvery = time.Second

// Log is an open audit log. It is safe for concurrent use.
type Log struct {
	cfg       Config
	key, hash []byte

	mu     sync.Mutex // guards what is declared below it, to closed
	file   *os.File
	number uint64
	size   int64
	seq    uint64
	last   mac
	dirty  bool // there are entries that were not synced
	// torn is set while the file may have more than size bytes: part of an entry
	// that could not be written.
	torn   bool
	closed bool

	// written is seq, and failures what could not be written, for who must not wait for a disk.
	written  atomic.Uint64
	failures atomic.Int64

	stop chan struct{}
	done sync.WaitGroup
}

// Open opens or begins the log in cfg.Dir, looks at its end and exports the head.
func Open(cfg Config) (*Log, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	l := &Log{cfg: cfg, key: derive(cfg.Key, "chain"), hash: derive(cfg.Key, "values"), stop: make(chan struct{})}
	if err := l.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open audit log %q: %w", cfg.Dir, err), l.closeFile())
	}
	// A full disk must not keep predictions from being served: the head is exported
	// again in ten minutes, and what reads is refused meanwhile.
	if err := l.forgiveFull(l.export()); err != nil {
		return nil, errors.Join(err, l.closeFile())
	}
	l.done.Add(1)
	go l.keep() // ends when Close closes stop
	return l, nil
}

// Hash stands for a value that must not be in the log in clear: who knows the value
// and the key can find it, nobody else anything.
func (l *Log) Hash(value string) string { return hashValue(l.hash, value) }

// HashWith is Hash for whoever reads a log that another process writes.
func HashWith(key []byte, value string) string { return hashValue(derive(key, "values"), value) }

func hashValue(key []byte, value string) string {
	m := chain(key, mac{}, []byte(value))
	return "#" + hex.EncodeToString(m[:12])
}

// Append writes an entry; durable waits until it is on the disk. An error means
// that the act is not recorded, and wraps collector.ErrUnavailable: what is being
// recorded must not be done then.
func (l *Log) Append(ctx context.Context, e Entry, durable bool) error {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() && e.TraceID == "" {
		e.TraceID = sc.TraceID().String()
	}
	if e.Actor == "" {
		e.Actor = collector.ActorOf(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.append(&e)
	if err == nil && durable {
		err = l.sync()
	}
	if err != nil {
		l.failures.Add(1)
		return fmt.Errorf("%w: record the act in the audit log: %w", collector.ErrUnavailable, err)
	}
	return nil
}

// append writes one entry; mu is held.
func (l *Log) append(e *Entry) error {
	if l.closed {
		return errors.New("the log is closed")
	}
	if err := l.cfg.Ours(); err != nil {
		return err
	}
	if l.file != nil && l.size >= l.cfg.fileBytes {
		if err := l.roll(); err != nil {
			return err
		}
	}
	if l.file == nil {
		if err := l.begin(); err != nil {
			return err
		}
	}
	return l.write(e)
}

// write adds an entry to the present file. What could not be written whole is taken
// away again, now or before the next one.
func (l *Log) write(e *Entry) error {
	if l.torn {
		if err := l.file.Truncate(l.size); err != nil {
			return err
		}
		l.torn = false
	}
	e.Seq, e.Time = l.seq+1, l.cfg.Now().UTC().Truncate(time.Microsecond)
	line, m, err := encode(l.key, l.last, e)
	if err != nil {
		return err
	}
	if _, err := l.file.WriteAt(line, l.size); err != nil {
		l.torn = l.file.Truncate(l.size) != nil
		return err
	}
	l.size += int64(len(line))
	l.seq, l.last, l.dirty = e.Seq, m, true
	l.written.Store(l.seq)
	return nil
}

// sync makes what was written durable. A file whose sync failed may have lost any
// of it, and a further sync would not say so: the next entry begins another file.
func (l *Log) sync() error {
	if !l.dirty {
		return nil
	}
	if err := l.file.Sync(); err != nil {
		l.cfg.Log.Error("the audit log could not be synced: a new file is begun", "error", err)
		return errors.Join(err, l.closeFile())
	}
	l.dirty = false
	return nil
}

// roll ends the present file; the next entry begins another.
func (l *Log) roll() error {
	if err := l.sync(); err != nil {
		return err
	}
	return l.closeFile()
}

func (l *Log) closeFile() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file, l.dirty, l.torn = nil, false, false
	return err
}

// begin makes the next file and its first entry, and makes room for it.
func (l *Log) begin() error {
	names, err := fileNames(l.cfg.Dir)
	if err != nil {
		return err
	}
	next := l.number + 1
	if len(names) > 0 {
		next = max(next, names[len(names)-1]+1)
	}
	f, err := os.OpenFile(filepath.Join(l.cfg.Dir, fileName(next)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	l.file, l.number, l.size, l.torn = f, next, 0, false
	if err := l.write(&Entry{Actor: collector.OwnActor, Action: actionFile, Object: fileName(next), Prev: l.last.String()}); err != nil {
		l.number = next - 1
		return errors.Join(err, l.closeFile(), os.Remove(f.Name()))
	}
	if err := errors.Join(l.sync(), vfs.OS{}.SyncDir(l.cfg.Dir)); err != nil {
		return err
	}
	return l.drop(names)
}

// drop deletes the oldest files, when there are too many and an entry says so durably.
func (l *Log) drop(names []uint64) error {
	for len(names) > maxFiles-1 {
		e := Entry{Actor: collector.OwnActor, Action: actionDrop, Object: fileName(names[0])}
		if err := l.write(&e); err != nil {
			return err
		}
		if err := l.sync(); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(l.cfg.Dir, fileName(names[0]))); err != nil {
			return err
		}
		names = names[1:]
	}
	return nil
}

// recover finds the chain's end.
func (l *Log) recover() error {
	names, err := fileNames(l.cfg.Dir)
	if err != nil {
		return err
	}
	var found []Entry
	for i := len(names) - 1; i >= 0 && l.seq == 0; i-- {
		e, err := l.recoverFile(names[i], i == len(names)-1)
		if err != nil {
			return err
		}
		found = append(found, e...)
	}
	// The folder's own head shows a tail that is gone altogether.
	heads, err := ReadHeads(filepath.Join(l.cfg.Dir, headName))
	switch {
	case err != nil:
		found = append(found, Entry{Action: actionDamage, Object: "the head cannot be read"})
	case len(heads) == 0 && l.seq > 1:
		found = append(found, Entry{Action: actionDamage, Object: "the head is missing"})
	case len(heads) > 0 && heads[0].Seq > l.seq:
		found = append(found, Entry{Action: actionDamage, Object: fmt.Sprintf("entries after %d are missing: there was an entry %d", l.seq, heads[0].Seq)})
	}
	for i := range found {
		found[i].Actor = collector.OwnActor
		l.cfg.Log.Warn("audit log", "action", found[i].Action, "what", found[i].Object)
		if err := l.append(&found[i]); err != nil {
			return err
		}
	}
	if l.seq == 0 {
		if err := l.begin(); err != nil {
			return err
		}
	}
	return l.sync()
}

// recoverFile follows one file to the last entry that fits. It is gone on with
// where nothing else is behind that but a torn entry, which is cut.
func (l *Log) recoverFile(number uint64, newest bool) ([]Entry, error) {
	f, err := os.OpenFile(filepath.Join(l.cfg.Dir, fileName(number)), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	seq, last, good, torn, damaged, err := l.follow(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if seq > 0 {
		l.seq, l.last = seq, last
		l.written.Store(seq)
	}
	var found []Entry
	if damaged {
		found = append(found, Entry{Action: actionDamage, Object: fmt.Sprintf("%s does not fit the chain after byte %d", fileName(number), good)})
	}
	if damaged || !newest {
		return found, f.Close()
	}
	if torn > 0 {
		if err := errors.Join(f.Truncate(good), f.Sync()); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		found = append(found, Entry{Action: actionCut, Object: fmt.Sprintf("%d bytes at the end of %s", torn, fileName(number))})
	}
	if good == 0 {
		// Its very first entry was torn: it never began.
		return found, errors.Join(f.Close(), os.Remove(f.Name()))
	}
	l.file, l.number, l.size = f, number, good
	return found, nil
}

// follow reads a file's entries: the last that fits, where it ends, how many bytes
// without a line's end are behind it, and whether there is anything else.
func (l *Log) follow(f *os.File) (seq uint64, last mac, good, torn int64, damaged bool, err error) {
	r := bufio.NewReaderSize(f, maxLine)
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return seq, last, good, int64(len(line)), false, nil
		case errors.Is(err, bufio.ErrBufferFull):
			return seq, last, good, 0, true, nil
		case err != nil:
			return seq, last, good, 0, false, err
		}
		e, m, err := decode(l.key, last, line)
		if err != nil || seq > 0 && e.Seq != seq+1 || (e.Action == actionFile) != (good == 0) {
			return seq, last, good, 0, true, nil
		}
		seq, last, good = e.Seq, m, good+int64(len(line))
	}
}

// keep syncs what was written and exports the head, until Close.
func (l *Log) keep() {
	defer l.done.Done()
	soon, late := time.NewTicker(syncEvery), time.NewTicker(l.cfg.HeadEvery)
	defer soon.Stop()
	defer late.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-soon.C:
			l.mu.Lock()
			if err := l.sync(); err != nil {
				l.failures.Add(1)
			}
			l.mu.Unlock()
		case <-late.C:
			if err := l.export(); err != nil {
				l.cfg.Log.Error("the audit log's head could not be exported", "error", err)
			}
		}
	}
}

// export makes the chain's end known to the log, to the folder and elsewhere.
func (l *Log) export() error {
	l.mu.Lock()
	err := l.sync()
	h := Head{Seq: l.seq, MAC: l.last.String(), Time: l.cfg.Now().UTC().Truncate(time.Millisecond)}
	l.mu.Unlock()
	if err != nil {
		return fmt.Errorf("export the audit head: %w", err)
	}
	l.cfg.Log.Info("audit head", "seq", h.Seq, "mac", h.MAC)
	err = writeHead(filepath.Join(l.cfg.Dir, headName), h)
	if l.cfg.HeadFile != "" {
		err = errors.Join(err, appendHead(l.cfg.HeadFile, h))
	}
	return err
}

// Head returns the chain's end.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Head{Seq: l.seq, MAC: l.last.String(), Time: l.cfg.Now().UTC()}
}

// forgiveFull tells of a head that had no room on the disk, and makes no failure of it.
func (l *Log) forgiveFull(err error) error {
	if !vfs.IsFull(err) {
		return err
	}
	l.cfg.Log.Warn("the head of the audit log could not be exported: the disk is full", "error", err)
	return nil
}

// Close exports the head and closes the log. Closing twice is fine. It fails where an
// entry may be lost; a head that a full disk has no room for is exported by the next Open.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.stop)
	l.done.Wait()
	l.mu.Lock()
	err := l.sync()
	l.mu.Unlock()
	if err == nil { // what is left to fail is the head
		err = l.forgiveFull(l.export())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(err, l.closeFile())
}

// Observe makes m tell how long the log is and how often it failed.
func (l *Log) Observe(p metric.MeterProvider) error {
	m := p.Meter("github.com/pellucid/pellucid/collector/audit")
	entries, err1 := m.Int64ObservableGauge("pellucid.audit.seq", metric.WithUnit("{entry}"),
		metric.WithDescription("Number of the audit log's last entry."))
	failures, err2 := m.Int64ObservableCounter("pellucid.audit.failures", metric.WithUnit("{entry}"),
		metric.WithDescription("Acts that were refused because they could not be recorded, and syncs that failed."))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(entries, int64(l.written.Load()))
		o.ObserveInt64(failures, l.failures.Load())
		return nil
	}, entries, failures)
	return err
}
