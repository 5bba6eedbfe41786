package keys

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/pellucid/pellucid/collector/vfs"
)

// errLost: there were keys, and they are gone.
var errLost = errors.New("keys of tenants are gone, and nothing that they sealed can be read without them")

// errOlder: the folder is an older copy of the one that there was.
var errOlder = errors.New("the folder is an older copy: keys that were made since are not in it, and those that were forgotten may be")

// changesPrefix begins what of a mark is no id.
const changesPrefix = "changes="

// mark names, from outside the folder, the roots that have to be in it, and says how many
// changes it has seen at least: it comes after the folder's own number (counts) and so is
// never ahead of it.
type mark struct {
	path string

	// mu is taken last, by a ring that is in use. It guards what is below and the file.
	mu      sync.Mutex
	ids     []keyID
	changes uint64 // 0: it does not say
	// damaged: something in it is neither an id nor the changes.
	damaged bool
	closed  bool
}

// readMark reads a mark. There may be none, and an empty one is none.
func readMark(disk vfs.FS, path string) (*mark, error) {
	m := &mark{path: path}
	if path == "" {
		return m, nil
	}
	b, err := vfs.ReadFile(disk, path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("read what keys there have to be: %w", err)
	}
	for line := range bytes.FieldsSeq(b) {
		if n, ok := bytes.CutPrefix(line, []byte(changesPrefix)); ok {
			if m.changes, err = strconv.ParseUint(string(n), 10, 64); err != nil {
				m.changes, m.damaged = 0, true
			}
			continue
		}
		var id keyID
		if n, err := hex.Decode(id[:], line[:min(len(line), 2*len(id))]); err != nil || n != len(id) || len(line) != 2*len(id) {
			m.damaged = true
			continue
		}
		m.ids = append(m.ids, id)
	}
	return m, nil
}

// empty reports whether no key has to be there.
func (m *mark) empty() bool { return len(m.ids) == 0 && !m.damaged }

// hold fails where a root is not there that has to be. A mark that cannot be read says no
// more than that there were some.
func (m *mark) hold(roots map[keyID]bool) error {
	var gone []string
	for _, id := range m.ids {
		if !roots[id] {
			gone = append(gone, hex.EncodeToString(id[:]))
		}
	}
	switch {
	case len(gone) > 0:
		return m.lost(fmt.Sprintf("%d of %d roots are not there (%s)", len(gone), len(m.ids), gone[0]))
	case m.damaged && len(roots) == 0:
		return m.lost("no root is there")
	}
	return nil
}

// lost says what is missing and what to do.
func (m *mark) lost(what string) error {
	if m.path == "" {
		return fmt.Errorf("%s: %w: put the file back from a backup, or move the whole folder away if nothing was ever sealed", what, errLost)
	}
	return fmt.Errorf("%s: %w: put the file back from a backup; to go on without them for ever, remove %s (%s says that they were there) and, where the file is gone, move the folder away",
		what, errLost, m.path, filepath.Base(m.path))
}

// current fails where the folder has seen fewer changes than the mark knows of. Of counts
// that are gone or cannot be read that cannot be told; who opens them says so.
func (m *mark) current(disk vfs.FS, dir string) error {
	changes, of, err := readCounts(disk, dir)
	switch {
	case errors.Is(err, errDamaged) || err == nil && (of == nil || changes >= m.changes):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("read %q: it has seen %d changes of the %d that there were: %w: put the newer one back; to go on with this one, after which nothing that the newer keys sealed can ever be read, remove %s while no server runs (%s says how many there were)",
		dir, changes, m.changes, errOlder, m.path, filepath.Base(m.path))
}

// write puts what the mark says into its file. The caller holds mu.
func (m *mark) write(disk vfs.FS, ids []keyID, changes uint64) error {
	if m.closed {
		return fs.ErrClosed
	}
	var b bytes.Buffer
	for _, id := range ids {
		fmt.Fprintf(&b, "%x\n", id)
	}
	if changes > 0 {
		fmt.Fprintf(&b, changesPrefix+"%d\n", changes)
	}
	f, _, err := replace(disk, m.path, b.Bytes())
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("keep which tenants have keys: %w", err)
	}
	m.ids, m.changes, m.damaged = ids, changes, false
	return nil
}

// raise has the mark of a folder that has keys say how many changes there were.
func (m *mark) raise(disk vfs.FS, changes uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ids) == 0 || changes <= m.changes {
		return nil
	}
	return m.write(disk, m.ids, changes)
}

// close has nothing be written any more.
func (m *mark) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
}

// remember writes into the mark that the tenants that have keys have them. The caller holds
// mu.
func (r *Ring) remember() error {
	m := r.mark
	if m.path == "" {
		return nil
	}
	var ids []keyID
	for _, t := range r.tenants {
		ids = append(ids, t.root)
	}
	slices.SortFunc(ids, func(a, b keyID) int { return bytes.Compare(a[:], b[:]) })
	r.counts.mu.Lock()
	sure := r.counts.sure
	r.counts.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.write(r.disk, ids, max(sure, m.changes)); err != nil {
		return err
	}
	for _, t := range r.tenants {
		t.marked.Store(true)
	}
	return nil
}

// marked notes which tenants the mark has, and adds the others and the changes: a crash may
// have come between a tenant's first keys and its line. Where that fails nothing is sealed
// for those until it is done, and their values can be read.
func (r *Ring) marked() error {
	m := r.mark
	if m.path == "" {
		return nil
	}
	if err := discard(r.disk, filepath.Join(filepath.Dir(m.path), newPrefix+filepath.Base(m.path))); err != nil {
		return err
	}
	all := !m.damaged && (len(r.tenants) == 0 || m.changes >= r.counts.sure)
	for _, t := range r.tenants {
		there := slices.Contains(m.ids, t.root)
		t.marked.Store(there)
		all = all && there
	}
	if all {
		return nil
	}
	if err := r.remember(); err != nil {
		r.tell(err)
	}
	return nil
}
