package keys

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/collector/vfs"
)

// errLost: there were keys, and they are gone.
var errLost = errors.New("keys of tenants are gone, and nothing that they sealed can be read without them")

// mark names, from outside the folder, the roots that have to be in it.
type mark struct {
	path string
	ids  []keyID
	// damaged: something in it is no id.
	damaged bool
}

// readMark reads a mark. There may be none, and an empty one is none.
func readMark(disk vfs.FS, path string) (mark, error) {
	m := mark{path: path}
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

// remember writes into the mark that the tenants that have keys have them. The caller holds
// mu.
func (r *Ring) remember() error {
	if r.mark == "" {
		return nil
	}
	var lines []string
	for _, t := range r.tenants {
		lines = append(lines, hex.EncodeToString(t.root[:])+"\n")
	}
	slices.Sort(lines)
	f, _, err := replace(r.disk, r.mark, []byte(strings.Join(lines, "")))
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("keep which tenants have keys: %w", err)
	}
	for _, t := range r.tenants {
		t.marked.Store(true)
	}
	return nil
}

// marked notes which tenants the mark has, and adds the others: a crash may have come
// between a tenant's first keys and its line. Where that fails nothing is sealed for those
// until it is done, and their values can be read.
func (r *Ring) marked(m *mark) error {
	if r.mark == "" {
		return nil
	}
	if err := discard(r.disk, filepath.Join(filepath.Dir(r.mark), newPrefix+filepath.Base(r.mark))); err != nil {
		return err
	}
	all := !m.damaged
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
