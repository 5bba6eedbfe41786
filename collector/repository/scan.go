package repository

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	// says is the folder of a bare file's model.yaml, empty where it has none.
	says string
	// file is empty where there is only a model.yaml, which declares a version
	// whose predictions are imported.
	// stamp changes when any file of the version does, rules when what is said of its
	// private fields does.
	stamp, rules string
	// orders is what was known of the order of the other versions' columns when it took over.
	orders string
	// files tells each of its files from another by the path in its folder, and bytes is
	// what they have together.
	files map[string]string
	bytes int64
	// known is a version in force of whose model the files are the same ones, if there is one.
	known *held
	// text is the model.yaml as load read it, nil where there is none.
	text []byte
	// trouble is why its folder is no version, whatever its model.yaml says.
	trouble error
	// look is in which order versions were looked for: what was found later stands.
	look uint64
}

var nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// bareVersion is the version of a model that lies in the models' folder itself.
const bareVersion = "1"

var extensions = []string{".onnx", ".ubj", ".json", ".txt"}

// listing is what lies in the models' folder: versions, what looks like one and cannot be
// one with its reason, and the models whose folder cannot be read.
type listing struct {
	found  []source
	bad    map[[2]string]string
	unseen map[string]string
	// astray are files, by model, that were meant for a model.yaml and lie where none is read.
	astray map[string][]string
}

var errNothing = errors.New("no model.onnx, model.ubj, model.json or model.txt in it, and no model.yaml that declares an imported model")

func newListing() *listing {
	return &listing{bad: map[[2]string]string{}, unseen: map[string]string{}, astray: map[string][]string{}}
}

// scan lists the versions below dir. What is not a model is passed over.
func scan(dir string) (*listing, error) {
	l := newListing()
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) && exists(dir) {
		return nil, fmt.Errorf("list models: %s is a link to nothing: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("list models: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		folder, err := isDir(filepath.Join(dir, e.Name()))
		if err != nil {
			l.cannot(e.Name(), err)
			continue
		}
		if !folder {
			if s, ok := bareModel(dir, e.Name()); ok {
				l.found = append(l.found, s)
			} else if isModel(e.Name()) {
				l.bad[[2]string{e.Name(), ""}] = "a model's name has letters, digits, '.', '_' and '-' only"
			}
			if name, ok := strings.CutSuffix(e.Name(), filepath.Ext(e.Name())); ok && isYAML(e.Name()) {
				l.astray[name] = append(l.astray[name], e.Name())
			}
			continue
		}
		if !nameRule.MatchString(e.Name()) {
			l.bad[[2]string{e.Name(), ""}] = "a model's name has letters, digits, '.', '_' and '-' only"
			continue
		}
		l.versions(dir, e.Name())
	}
	l.found = joined(l.found)
	besides := map[string]string{} // of each model read once, however many versions take it over
	for i := range l.found {
		s := &l.found[i]
		s.rules = rulesOf(*s, func() string {
			if _, ok := besides[s.name]; !ok {
				besides[s.name] = rulesBeside(filepath.Join(dir, s.name))
			}
			return besides[s.name]
		})
		s.stampFiles()
		s.stamp += "private " + s.rules
	}
	// What is taken over is looked at before what takes it over.
	slices.SortStableFunc(l.found, func(a, b source) int { return cmp.Compare(silent(a), silent(b)) })
	return l, nil
}

// joined makes one of what is of the same version: of a bare file and the folder of its
// version, which may hold its model.yaml. Two models are no version.
func joined(found []source) []source {
	at := map[[2]string]int{}
	var out []source
	for _, s := range found {
		i, twice := at[[2]string{s.name, s.version}]
		if !twice {
			at[[2]string{s.name, s.version}] = len(out)
			out = append(out, s)
			continue
		}
		folder, file := out[i], s
		if folder.bare && !file.bare {
			folder, file = file, folder
		}
		var unknown *rulesError
		switch {
		case folder.file != "":
			folder.trouble = fmt.Errorf("more than one model file: %s beside the folder, or beside another", file.file)
			file = folder
		case errors.As(folder.trouble, &unknown):
			file.trouble = folder.trouble
		case says(folder.dir):
			file.says = folder.dir
		}
		out[i] = file
	}
	return out
}

// folder is where a version's model.yaml lies, empty where it can have none.
func (s source) folder() string {
	if s.bare {
		return s.says
	}
	return s.dir
}

// silent is 1 of a version that has no model.yaml.
func silent(s source) int {
	if strings.HasPrefix(s.rules, noRules) {
		return 1
	}
	return 0
}

// cannot notes a model whose folder cannot be read.
func (l *listing) cannot(name string, err error) {
	why := fmt.Sprintf("the folder of model %q cannot be read: %v", name, err)
	l.bad[[2]string{name, ""}], l.unseen[name] = why, why
}

func bareModel(dir, file string) (source, bool) {
	ext := filepath.Ext(file)
	name := strings.TrimSuffix(file, ext)
	if !slices.Contains(extensions, ext) || !nameRule.MatchString(name) {
		return source{}, false
	}
	return source{name: name, version: bareVersion, dir: dir, file: file, bare: true}, true
}

func (l *listing) versions(dir, name string) {
	entries, err := os.ReadDir(filepath.Join(dir, name))
	if err != nil {
		l.cannot(name, err)
		return
	}
	bare, folders := "", false // a model's file that lies here, where only folders of versions do
	for _, e := range entries {
		vdir := filepath.Join(dir, name, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		folder, err := isDir(vdir)
		if err == nil && !folder {
			if meantForConfig(e.Name()) {
				l.astray[name] = append(l.astray[name], filepath.Join(name, e.Name()))
			}
			if isModel(e.Name()) {
				bare = e.Name()
			}
			continue
		}
		if !nameRule.MatchString(e.Name()) {
			l.bad[[2]string{name, e.Name()}] = "a version's name has letters, digits, '.', '_' and '-' only"
			continue
		}
		s := source{name: name, version: e.Name(), dir: vdir, trouble: unknownRules(err)}
		if err == nil {
			s.file, s.trouble = modelFile(vdir)
			if s.file == "" && s.trouble == nil && !says(vdir) {
				s.trouble = errNothing
			}
		}
		l.found, folders = append(l.found, s), true
	}
	if bare != "" && !folders {
		l.bad[[2]string{name, bare}] = fmt.Sprintf("a version is a folder: put the file into %s/1/model%s", name, filepath.Ext(bare))
	}
}

// isModel reports whether a file is a model by its name alone.
func isModel(file string) bool {
	ext := filepath.Ext(file)
	return ext == ".onnx" || ext == ".ubj" || slices.Contains(extensions, ext) && strings.TrimSuffix(file, ext) == "model"
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

// exists reports whether anything may lie at path: a link to nothing does, and what cannot
// be looked at may.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// isDir reports whether path is a folder. An error of the disk is one: a version that
// cannot be looked at has not gone. So is a link to nothing.
func isDir(path string) (bool, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && !exists(path) {
		return false, nil
	}
	return err == nil && st.IsDir(), err
}

// stampOf tells a file from another, of a link what it leads to, and how many bytes it has.
func stampOf(path string) (stamp string, size int64) {
	info, err := os.Stat(path)
	if err != nil {
		return err.Error(), 0
	}
	return fmt.Sprintf("%d %d %s", info.Size(), info.ModTime().UnixNano(), identity(path)), info.Size()
}

// stampFiles notes name, size, time and identity of every file of a version, of links of what
// they lead to.
func (s *source) stampFiles() {
	s.files, s.bytes = map[string]string{}, 0
	add := func(path, rel string) {
		stamp, size := stampOf(path)
		s.files[rel] = stamp
		s.bytes += size
	}
	if s.bare {
		add(filepath.Join(s.dir, s.file), s.file)
		if s.says != "" {
			add(filepath.Join(s.says, configFile), configFile)
		}
	} else {
		root, err := filepath.EvalSymlinks(s.dir) // a walk does not go through a link
		if err != nil {
			root = s.dir
		}
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			rel := strings.TrimPrefix(path, root)
			switch {
			case err != nil:
				s.files[rel] = err.Error()
			case !d.IsDir():
				add(path, strings.TrimPrefix(rel, string(filepath.Separator)))
			}
			return nil // a file that vanishes meanwhile changes the next stamp
		})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", filepath.Join(s.dir, s.file))
	for _, rel := range slices.Sorted(maps.Keys(s.files)) {
		fmt.Fprintf(&b, "%s %s\n", rel, s.files[rel])
	}
	s.stamp = b.String()
}

// sameModel reports whether two findings of a version are of one model file and of the same
// files beside it, whatever their model.yaml says: only its own name and what editors put
// beside it may differ.
func sameModel(a, b *source) bool {
	if a.dir != b.dir || a.file != b.file || a.files[a.file] == "" || a.files[a.file] != b.files[b.file] {
		return false
	}
	own := func(files map[string]string) map[string]string {
		files = maps.Clone(files)
		maps.DeleteFunc(files, func(rel, _ string) bool { return strings.Contains(filepath.Base(rel), configFile) })
		return files
	}
	return maps.Equal(own(a.files), own(b.files))
}

// inLoadOrder sorts what is to be loaded by size, so that nothing small waits for a large
// model that it has nothing to do with; what is taken over comes before what takes it over.
// It returns what each waits for, in bytes.
func inLoadOrder(todo []source) []int64 {
	most := map[string]int64{} // of each model, among the versions that have a model.yaml
	for _, s := range todo {
		if silent(s) == 0 {
			most[s.name] = max(most[s.name], s.bytes)
		}
	}
	weight := func(s source) int64 {
		if silent(s) == 1 {
			return max(s.bytes, most[s.name])
		}
		return s.bytes
	}
	slices.SortStableFunc(todo, func(a, b source) int {
		return cmp.Or(cmp.Compare(weight(a), weight(b)), cmp.Compare(silent(a), silent(b)))
	})
	weights := make([]int64, len(todo))
	for i, s := range todo {
		weights[i] = weight(s)
	}
	return weights
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
