package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/pellucid/pellucid/collector/vfs"
)

// Found is what Check saw of a folder of keys.
type Found struct {
	Tenants, Subjects int
	// Marked: the mark is there; Counted: the counts are.
	Marked, Counted bool
}

// Check holds what lies in a folder of keys against what says what has to be there, without
// the key-encryption key. It changes nothing, and another process may have the folder. Of
// cfg it wants Dir and Mark.
func Check(cfg Config) (Found, error) { return check(cfg, vfs.OS{}) }

func check(cfg Config, disk vfs.FS) (f Found, err error) {
	// Whoever has the folder may change one file between two looks at others.
	for range 3 {
		if f, err = checkOnce(cfg, disk); err == nil {
			break
		}
	}
	if err != nil {
		return f, fmt.Errorf("check the keys: %w", err)
	}
	return f, nil
}

func checkOnce(cfg Config, disk vfs.FS) (f Found, err error) {
	// First the mark: roots and changes are in the folder before they are in it.
	m, err := readMark(disk, cfg.Mark)
	if err != nil {
		return f, err
	}
	f.Marked = !m.empty()
	path := filepath.Join(cfg.Dir, tenantsFile)
	b, err := vfs.ReadFile(disk, path)
	none := errors.Is(err, fs.ErrNotExist)
	switch {
	case none && f.Marked:
		return f, m.lost(fmt.Sprintf("read %q: there is none", path))
	case err != nil && !none:
		return f, err
	}
	if err := m.current(disk, cfg.Dir); err != nil {
		return f, err
	}
	roots := map[keyID]bool{}
	if !none {
		list, _, err := parseTenants(b)
		if err != nil {
			return f, fmt.Errorf("read %q: %w", path, err)
		}
		roots = rootsOf(list)
	}
	f.Tenants = len(roots)
	if err := m.hold(roots); err != nil {
		return f, fmt.Errorf("read %q: %w", path, err)
	}
	return f, f.subjects(cfg.Dir, disk, roots)
}

// subjects reads the files of subjects and holds them against the counts. Those are read
// before and after the files' sizes, and the lower ones hold: they are lowered before a file
// is and raised after it has grown.
func (f *Found) subjects(dir string, disk vfs.FS, roots map[keyID]bool) error {
	_, before, err := readCounts(disk, dir)
	if err != nil {
		return err
	}
	sizes, err := sizesIn(disk, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, after, err := readCounts(disk, dir)
	if err != nil {
		return err
	}
	f.Counted = after != nil
	for root, of := range after {
		for i := range of {
			was := before[root]
			if was == nil {
				was = new([shardCount]uint32)
			}
			of[i] = min(of[i], was[i])
		}
	}
	for name, size := range sizes {
		if n := max(0, size-headerSize) / recordSize; isSubjects(name) && len(roots) == 0 && n > 0 {
			return fmt.Errorf("read %q: it has keys of %d subjects, and there are none of tenants: %w", name, n, errLost)
		}
	}
	if err := holdSizes(after, roots, sizes); err != nil {
		return err
	}
	var errs []error
	for root := range roots {
		for i := range shardCount {
			least := uint32(0)
			if of := after[root]; of != nil {
				least = of[i]
			}
			n, err := countIn(disk, filepath.Join(dir, subjectsName(root, i)), root, least)
			if err != nil {
				errs = append(errs, err)
			}
			f.Subjects += n
		}
	}
	return first(errs)
}

// countIn reads a file of subjects, which may not be there, and counts its keys.
func countIn(disk vfs.FS, path string, root keyID, least uint32) (int, error) {
	b, err := vfs.ReadFile(disk, path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var index map[pseudonym]uint32
	if err == nil {
		index, _, _, err = parseWhole(b, root, least)
	}
	if err != nil {
		return 0, fmt.Errorf("read %q: %w", path, err)
	}
	return len(index), nil
}

// readCounts reads the counts; of is nil where there are none.
func readCounts(disk vfs.FS, dir string) (changes uint64, of map[keyID]*[shardCount]uint32, err error) {
	path := filepath.Join(dir, countsFile)
	b, err := vfs.ReadFile(disk, path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	if changes, of, err = parseCounts(b); err != nil {
		return 0, nil, fmt.Errorf("read %q: %w", path, err)
	}
	return changes, of, nil
}

// CheckSecret holds a key that KeepSecret keeps against what tells it from others, and
// changes nothing. there says that either is there.
func CheckSecret(path string) (there bool, err error) {
	id, err := vfs.ReadFile(vfs.OS{}, path+".id")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	key, err := ReadSecret(path)
	switch want := string(bytes.TrimSpace(id)); {
	case errors.Is(err, fs.ErrNotExist) && want == "":
		return false, nil
	case want != "" && err == nil && secretID(key) != want:
		return true, otherSecret(path, errors.New("it is another key"))
	case want != "" && err != nil:
		return true, otherSecret(path, err)
	}
	return true, err
}
