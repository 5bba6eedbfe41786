package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pellucid/pellucid/collector/vfs"
)

// What is sealed by keys that are in memory alone is lost when the process ends, so the
// files are looked for before anything more is sealed, and written again where somebody
// has taken them away.
const (
	// lookPause is how long a file that was in its place is believed to be: to look costs a
	// few microseconds.
	lookPause = 10 * time.Millisecond
	// watchPause is when all files are looked for after a look was spared.
	watchPause = time.Second
)

// look is when a file was last in its place, in time since the ring was opened.
type look struct{ last atomic.Int64 }

// due reports whether a file is to be looked for.
func (l *look) due(r *Ring) bool {
	now := time.Since(r.opened)
	if r.look > 0 && now-time.Duration(l.last.Load()) < r.look {
		if !r.watching.asked.Load() {
			r.watching.in(watchPause, r.watch)
		}
		return false
	}
	l.last.Store(int64(now))
	return true
}

// forget has the next who asks look again.
func (l *look) forget() { l.last.Store(int64(-time.Hour)) }

// watch looks for all files.
func (r *Ring) watch() {
	if err := r.putBack(); err != nil && !errors.Is(err, fs.ErrClosed) {
		r.tell(err)
	}
}

// present sees to it that the file of tenants is in the folder.
func (r *Ring) present() error {
	if !r.seen.due(r) {
		return nil
	}
	r.mu.RLock()
	whole := r.missing == nil && r.inPlace() // not only a part of the files was put back
	r.mu.RUnlock()
	if whole {
		return nil
	}
	return r.putBack()
}

// inPlace reports whether the file of tenants and the lock are in the folder. The caller
// holds mu.
func (r *Ring) inPlace() bool {
	return r.file != nil && r.disk.Linked(filepath.Join(r.dir, tenantsFile), r.file) && r.disk.Linked(filepath.Join(r.dir, lockFile), r.lock)
}

// presentShards sees to it that files of a tenant's subjects are in the folder, one a bit.
func (r *Ring) presentShards(t *tenant, of uint64) error {
	for i := range t.shards {
		s := &t.shards[i]
		if of&(1<<i) == 0 || !s.seen.due(r) {
			continue
		}
		s.mu.Lock()
		whole := s.inPlace()
		s.mu.Unlock()
		if whole {
			continue
		}
		if err := r.putBack(); err != nil {
			s.seen.forget()
			return err
		}
	}
	return nil
}

// inPlace reports whether a file that is open is in the folder. The caller holds mu.
func (s *shard) inPlace() bool {
	return s.file == nil || s.ring.disk.Linked(s.path, s.file)
}

// putBack writes all open files again that are not in the folder, and the folder.
func (r *Ring) putBack() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fs.ErrClosed
	}
	if r.missing != nil && time.Since(r.tried) < r.pause {
		r.seen.forget()
		return r.missing
	}
	gone, err := r.restore()
	r.missing, r.tried = nil, time.Now()
	if err != nil {
		r.missing = fmt.Errorf("put the keys back into their folder: %w", err)
		r.seen.forget() // nothing is sealed until all is there
		return r.missing
	}
	if len(gone) > 0 {
		what := gone[0]
		if len(gone) > 1 {
			what = fmt.Sprintf("%s and %d more files", what, len(gone)-1)
		}
		r.tell(fmt.Errorf("%s of the folder of keys had been taken away while in use: written again", what))
	}
	return nil
}

// restore does what putBack says, and names the files that somebody had taken. The caller
// holds mu.
func (r *Ring) restore() (gone []string, err error) {
	shards := r.allShards()
	whole := r.inPlace() && r.counts.inPlace(r)
	for _, s := range shards {
		s.mu.Lock()
		whole = whole && s.inPlace()
		s.mu.Unlock()
	}
	if whole {
		return nil, nil
	}
	if err := r.relock(); err != nil {
		return nil, err
	}
	path := filepath.Join(r.dir, tenantsFile)
	if !r.disk.Linked(path, r.file) {
		if r.broken == nil { // else this may be of an attempt of its own
			gone = append(gone, tenantsFile)
			err = r.strange(path)
		}
		if err == nil {
			_, err = r.renew(r.content)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, s := range shards {
		name, err := s.putBack()
		if err != nil {
			return nil, err
		}
		if name != "" {
			gone = append(gone, name)
		}
	}
	if err := r.counts.putBack(r); err != nil {
		return nil, err
	}
	if len(gone) > 0 && len(r.tenants) > 0 {
		err = r.remember() // the whole data folder may have gone
	}
	return gone, err
}

// relock makes the folder and takes its lock, unless both are there. Where another process
// has taken it nothing is put back.
func (r *Ring) relock() error {
	if err := r.disk.MkdirAll(r.dir); err != nil {
		return err
	}
	above := filepath.Dir(r.dir)
	if err := errors.Join(r.disk.SyncDir(above), r.disk.SyncDir(filepath.Dir(above))); err != nil {
		return err
	}
	path := filepath.Join(r.dir, lockFile)
	if r.disk.Linked(path, r.lock) {
		return nil
	}
	held, err := lock(r.disk, r.dir)
	if err != nil {
		return err
	}
	_ = r.lock.Close() // nobody can come to it any more
	r.lock = held
	return nil
}

func lock(disk vfs.FS, dir string) (io.Closer, error) {
	held, err := disk.Lock(filepath.Join(dir, lockFile))
	if errors.Is(err, vfs.ErrLocked) {
		err = fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return held, err
}

// strange fails where what lies in the place of the file of tenants has keys that this
// process has not: it is not overwritten.
func (r *Ring) strange(path string) error {
	b, err := vfs.ReadFile(r.disk, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	list, _, err := parseTenants(b)
	if err != nil {
		return nil //nolint:nilerr // nothing of it could be read by a start either
	}
	ours := map[keyID]bool{}
	for _, t := range r.tenants {
		ours[t.root] = true
	}
	for i := range list {
		if list[i].kind == kindRoot && !ours[list[i].id] {
			return fmt.Errorf("%q has been replaced by a file with other keys: move that away", path)
		}
	}
	return nil
}

// putBack writes the file again if it is open and not in the folder, and names it if
// somebody had taken it. What was taken is left as it is, and not overwritten as what is
// replaced is: it may have been put elsewhere to be kept.
func (s *shard) putBack() (name string, err error) {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed || s.inPlace():
		return "", nil
	case s.broken != nil: // this may be of an attempt of its own
		return "", s.heal()
	}
	b, err := s.content()
	if err != nil {
		return "", err
	}
	f, placed, err := replace(s.ring.disk, s.path, b)
	if err != nil {
		err = fmt.Errorf("write the keys of subjects anew: %w", err)
		if placed {
			s.broken, s.tried = err, time.Time{}
		}
		return "", err
	}
	old := s.file
	s.adopt(f, s.index)
	return filepath.Base(s.path), old.Close()
}

// inPlace reports whether the counts, if any, are in the folder.
func (c *counts) inPlace(r *Ring) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.file == nil || r.disk.Linked(filepath.Join(r.dir, countsFile), c.file)
}

// putBack writes the counts again if they are not in the folder. A write that failed may
// have put others there.
func (c *counts) putBack(r *Ring) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil || r.disk.Linked(filepath.Join(r.dir, countsFile), c.file) {
		return nil
	}
	return c.write(r)
}

// shards are all files of subjects.
func (r *Ring) shards() []*shard {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.allShards()
}

// allShards is shards. The caller holds mu.
func (r *Ring) allShards() []*shard {
	list := make([]*shard, 0, len(r.tenants)*shardCount)
	for _, t := range r.tenants {
		for i := range t.shards {
			list = append(list, &t.shards[i])
		}
	}
	return list
}

// isSubjects reports whether a file of the folder is one of subjects.
func isSubjects(name string) bool { return strings.HasPrefix(name, subjectsPrefix) }
