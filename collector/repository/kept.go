package repository

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/pellucid/pellucid/collector/vfs"
)

// keptList is which versions there must be in the store, in a file beside it: a version that
// somebody has taken out of the store is missed by it. A line is appended for each that is
// kept ("+ digest name version") and for each that Drop takes out ("- digest"), as for each that
// begins to hide something ("! name version") and ends it ("? name version"), so that it is missed
// should all be lost that says what; a start
// writes the file anew where more than that is in it. What cannot be read as a line counts
// for nothing: a version that is in the store is added again by the next start.
type keptList struct {
	path string // "" where nothing is to be missed

	mu   sync.Mutex
	torn bool // the last line may be half of one
}

// add notes that a version is kept.
func (l *keptList) add(v StoredVersion) error {
	return l.append("+ " + v.Digest + " " + v.Name + " " + v.Version + "\n")
}

// remove notes that a version goes by rights, before it does.
func (l *keptList) remove(digest string) error { return l.append("- " + digest + "\n") }

// hides notes that a version hides something from now on, or that it does not.
func (l *keptList) hides(name, version string, does bool) error {
	if !nameRule.MatchString(name) || !nameRule.MatchString(version) {
		return nil // a folder under an upstream's name that is no version's
	}
	if does {
		return l.append("! " + name + " " + version + "\n")
	}
	return l.append("? " + name + " " + version + "\n")
}

func (l *keptList) append(line string) error {
	if l.path == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.torn {
		line = "\n" + line
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("note which versions are kept: %w", err)
	}
	_, err = f.WriteString(line)
	l.torn = err != nil
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("note which versions are kept: %w", err)
	}
	return nil
}

// listKept notes a version that has just been kept.
func (r *Repository) listKept(v StoredVersion) {
	if err := r.kept.add(v); err != nil {
		r.cfg.Log.Warn("a version is kept, and is not missed should it go before the next start", "model", v.Name, "version", v.Version, "error", err)
	}
}

// readKept reads such a file. tidy says that it holds nothing but what is returned.
func readKept(path string) (list []StoredVersion, tidy bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read which versions are kept: %w", err)
	}
	tidy = true
	at := map[string]int{}
	for line := range bytes.Lines(data) {
		text, whole := strings.CutSuffix(string(line), "\n")
		part := strings.Split(text, " ")
		switch {
		case whole && len(part) == 4 && part[0] == "+" && digestRule.MatchString(part[1]) && nameRule.MatchString(part[2]) && nameRule.MatchString(part[3]):
			if _, again := at[part[1]]; again {
				tidy = false
				continue
			}
			at[part[1]] = len(list)
			list = append(list, StoredVersion{part[2], part[3], part[1]})
		case whole && len(part) == 2 && part[0] == "-":
			if i, ok := at[part[1]]; ok {
				list[i].Digest = ""
				delete(at, part[1])
			}
			tidy = false
		case whole && len(part) == 3 && part[0] == "!":
		default:
			tidy = false
		}
	}
	return slices.DeleteFunc(list, func(v StoredVersion) bool { return v.Digest == "" }), tidy, nil
}

// readHid is which versions hid something last by such a file, by name and version, in their order.
func readHid(path string) (hid [][2]string, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which versions hid something: %w", err)
	}
	for line := range bytes.Lines(data) {
		text, whole := strings.CutSuffix(string(line), "\n")
		part := strings.Split(text, " ")
		if !whole || len(part) != 3 || !nameRule.MatchString(part[1]) || !nameRule.MatchString(part[2]) {
			continue
		}
		of := [2]string{part[1], part[2]}
		hid = slices.DeleteFunc(hid, func(h [2]string) bool { return h == of })
		if part[0] == "!" {
			hid = append(hid, of)
		}
	}
	slices.SortFunc(hid, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	return hid, nil
}

// hiding are the versions that hide something now, as such a file names them.
func (r *Repository) hiding() (out [][2]string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for name, of := range r.inForce {
		for version := range of {
			if nameRule.MatchString(name) && nameRule.MatchString(version) {
				out = append(out, [2]string{name, version})
			}
		}
	}
	slices.SortFunc(out, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	return out
}

// MissingVersions are those that a list of kept versions names and that are not in the store.
func MissingVersions(list, store string) ([]StoredVersion, error) {
	kept, _, err := readKept(list)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(kept, func(v StoredVersion) bool { return inStore(store, v.Digest) }), nil
}

// UnlistedVersions are those that are in the store and that no line of a list of kept
// versions names.
func UnlistedVersions(list, store string) ([]StoredVersion, error) {
	listed, _, err := readKept(list)
	if err != nil {
		return nil, err
	}
	there, err := keptIn(store)
	return slices.DeleteFunc(there, func(v StoredVersion) bool {
		return slices.ContainsFunc(listed, func(l StoredVersion) bool { return l.Digest == v.Digest })
	}), err
}

// inStore reports whether a version is in the store, or may be: one that cannot be looked at
// has not gone.
func inStore(store, digest string) bool {
	return exists(filepath.Join(store, digest, versionFile)) || exists(filepath.Join(store, digest, externalFile))
}

// missKept tells of the versions that have gone from the store, and has the list name those
// that are there.
func (r *Repository) missKept() error {
	if r.kept.path == "" {
		return nil
	}
	listed, tidy, err := readKept(r.kept.path)
	if err != nil {
		return err
	}
	gone, err := MissingVersions(r.kept.path, r.cfg.Store)
	if err != nil {
		return err
	}
	lines := make([]string, len(gone))
	for i, v := range gone {
		lines[i] = v.Gone()
		r.cfg.Log.Error("a kept version is gone from the store: its past predictions cannot be explained, unless its files are put back", "model", v.Name, "version", v.Version, "digest", v.Digest)
	}
	if len(gone) > 0 {
		// The list names them until they are told of where the operator looks.
		if err := r.cfg.Missed(lines); err != nil {
			return fmt.Errorf("tell which versions have gone: %w", err)
		}
	}
	there, err := keptIn(r.cfg.Store)
	if err != nil {
		return err
	}
	if len(listed) == 0 && len(there) > 0 {
		what := "the list of the versions that there must be in the folder models (" + filepath.Base(r.kept.path) + ") was gone or emptied: it is not known whether one of them has gone"
		r.cfg.Log.Error(what, "file", r.kept.path)
		if err := r.cfg.Missed([]string{what}); err != nil {
			return fmt.Errorf("tell that the list of kept versions has gone: %w", err)
		}
	}
	for _, v := range there {
		if tidy && !slices.ContainsFunc(listed, func(l StoredVersion) bool { return l.Digest == v.Digest }) {
			tidy = false
		}
	}
	hid, err := readHid(r.kept.path)
	if err != nil {
		return err
	}
	hiding := r.hiding()
	if tidy && len(gone) == 0 && slices.Equal(hid, hiding) {
		return nil // a full disk has no room for more
	}
	var b strings.Builder
	for _, v := range there {
		fmt.Fprintf(&b, "+ %s %s %s\n", v.Digest, v.Name, v.Version)
	}
	for _, of := range hiding {
		fmt.Fprintf(&b, "! %s %s\n", of[0], of[1])
	}
	if err := vfs.Replace(r.kept.path, []byte(b.String())); err != nil {
		return fmt.Errorf("note which versions are kept: %w", err)
	}
	return nil
}

// keptIn lists what is in a store, imported models among it.
func keptIn(store string) (out []StoredVersion, err error) {
	entries, err := os.ReadDir(store)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the model store: %w", err)
	}
	for _, e := range entries {
		if !digestRule.MatchString(e.Name()) {
			continue
		}
		name, version, ok := namedIn(filepath.Join(store, e.Name()))
		if ok && nameRule.MatchString(name) && nameRule.MatchString(version) {
			out = append(out, StoredVersion{name, version, e.Name()})
		}
	}
	return out, nil
}

// namedIn is which version a folder of the store is of.
func namedIn(dir string) (name, version string, ok bool) {
	for _, file := range []string{versionFile, externalFile} {
		var meta struct{ Name, Version string }
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err == nil && json.Unmarshal(data, &meta) == nil && meta.Name != "" {
			return meta.Name, meta.Version, true
		}
	}
	return "", "", false
}
