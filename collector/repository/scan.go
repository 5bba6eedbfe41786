package repository

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// source is one version found on disk: the folder its files are in and the
// model file itself. A bare models/<name>.<ext> has only that file.
type source struct {
	name, version string
	dir, file     string
	bare          bool
	// file is empty where there is only a model.yaml, which declares a version
	// whose predictions are imported.
	// stamp changes when any file of the version does.
	stamp string
}

var nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

var extensions = []string{".onnx", ".ubj", ".json", ".txt"}

// scan lists the versions below dir. What is not a model is passed over; what
// looks like one but cannot be one is returned with its reason.
func scan(dir string) (found []source, bad map[[2]string]string, err error) {
	bad = map[[2]string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list models: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		folder, err := isDir(filepath.Join(dir, e.Name()))
		if err != nil {
			bad[[2]string{e.Name(), ""}] = err.Error()
			continue
		}
		if !folder {
			if s, ok := bareModel(dir, e.Name()); ok {
				found = append(found, s)
			}
			continue
		}
		if !nameRule.MatchString(e.Name()) {
			bad[[2]string{e.Name(), ""}] = "a model's name has letters, digits, '.', '_' and '-' only"
			continue
		}
		found = append(found, versions(dir, e.Name(), bad)...)
	}
	for i := range found {
		found[i].stamp = stamp(found[i])
		if !declared(found[i]) {
			// What is private in the others is private in it.
			found[i].stamp += stampOfConfigs(filepath.Join(dir, found[i].name))
		}
	}
	return found, bad, nil
}

func bareModel(dir, file string) (source, bool) {
	ext := filepath.Ext(file)
	name := strings.TrimSuffix(file, ext)
	if !slices.Contains(extensions, ext) || !nameRule.MatchString(name) {
		return source{}, false
	}
	return source{name: name, version: "1", dir: dir, file: file, bare: true}, true
}

func versions(dir, name string, bad map[[2]string]string) (found []source) {
	entries, err := os.ReadDir(filepath.Join(dir, name))
	if err != nil {
		bad[[2]string{name, ""}] = err.Error()
		return nil
	}
	for _, e := range entries {
		vdir := filepath.Join(dir, name, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		key := [2]string{name, e.Name()}
		folder, err := isDir(vdir)
		if err != nil {
			bad[key] = err.Error()
		}
		if err != nil || !folder {
			continue
		}
		if !nameRule.MatchString(e.Name()) {
			bad[key] = "a version's name has letters, digits, '.', '_' and '-' only"
			continue
		}
		file, err := modelFile(vdir)
		if file == "" && err == nil && !exists(filepath.Join(vdir, "model.yaml")) {
			err = fmt.Errorf("no model.onnx, model.ubj, model.json or model.txt in it, and no model.yaml that declares an imported model")
		}
		if err != nil {
			bad[key] = err.Error()
			continue
		}
		found = append(found, source{name: name, version: e.Name(), dir: vdir, file: file})
	}
	return found
}

// modelFile returns the name of the model file in dir, "" where there is none.
func modelFile(dir string) (string, error) {
	var got []string
	for _, ext := range extensions {
		_, err := os.Stat(filepath.Join(dir, "model"+ext))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err == nil {
			got = append(got, "model"+ext)
		}
	}
	switch len(got) {
	case 0:
		return "", nil
	case 1:
		return got[0], nil
	}
	return "", fmt.Errorf("more than one model file: %s", strings.Join(got, ", "))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// isDir reports whether path is a folder. An error of the disk is one: a version that
// cannot be looked at has not gone.
func isDir(path string) (bool, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && st.IsDir(), err
}

// stamp joins name, size and time of every file of a version.
func stamp(s source) string {
	var b strings.Builder
	add := func(path string, d fs.DirEntry) {
		if info, err := d.Info(); err == nil {
			fmt.Fprintf(&b, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
		}
	}
	if s.bare {
		if info, err := os.Stat(filepath.Join(s.dir, s.file)); err == nil {
			add(s.file, fs.FileInfoToDirEntry(info))
		}
		return b.String()
	}
	_ = filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			add(path, d)
		}
		return nil // a file that vanishes meanwhile changes the next stamp
	})
	return b.String()
}

// compareVersions sorts integers first, by value, then text.
func compareVersions(a, b string) int {
	na, errA := strconv.ParseUint(a, 10, 63)
	nb, errB := strconv.ParseUint(b, 10, 63)
	switch {
	case errA == nil && errB == nil:
		return cmp.Compare(na, nb)
	case errA == nil:
		return -1
	case errB == nil:
		return 1
	}
	return cmp.Compare(a, b)
}
