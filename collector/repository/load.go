package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/stats"
	"github.com/pellucid/pellucid/engine/table"
	"github.com/pellucid/pellucid/engine/tree"
)

// held is a version with what may change about it.
type held struct {
	version *collector.ModelVersion
	// manifest is what the version's digest is of; nil for an upstream's.
	manifest []string
	// inherited is the model.yaml that stands for what it took over, if anything.
	inherited []byte
	// bytes is the size of its model's files, by which memory is bounded.
	bytes int64
	// elsewhere is set where its predictions are made elsewhere and imported, follows where
	// it has no model.yaml and takes over what is private in the others of its model.
	elsewhere, follows bool
	// own is set where it has no model.yaml any more and what that said last stays in force.
	own bool
	// from is how its files were found before they were read.
	from source
	// columns are the names of its columns in their order, where that is known.
	columns []string
	// said is what model.yaml says, or what it took over, without the rules for all models.
	said      collector.ModelConfig
	reference atomic.Pointer[stats.Reference]
}

// load reads, checks and gates the version s and records it in the store. It
// changes nothing that is live. The configuration is what model.yaml says, as far as it
// was read.
func (r *Repository) load(ctx context.Context, s *source) (*held, collector.ModelConfig, error) {
	cfg, err := r.readConfig(s)
	if err == nil {
		err = s.trouble
	}
	if err != nil {
		return nil, cfg, err
	}
	var inherit func(info *engine.Info) (collector.ModelConfig, error)
	var own bool
	if s.text == nil {
		inherit = func(info *engine.Info) (from collector.ModelConfig, err error) {
			from, own, err = r.handOn(*s, info)
			return from, err
		}
	}
	h, err := r.assemble(*s, cfg, inherit)
	if err != nil {
		return nil, cfg, err
	}
	h.own = own
	if err := r.gate(ctx, *s, h.version); err != nil {
		return nil, cfg, err
	}
	if err := asFound(*s, h.manifest); err != nil {
		return nil, cfg, err
	}
	if err := r.keep(*s, h); err != nil {
		return nil, cfg, err
	}
	if cfg.Reference != "" {
		return h, cfg, r.fileReference(ctx, *s, h)
	}
	return h, cfg, r.storedReference(h)
}

// handOn is what is private in a served version without a model.yaml: what is in those beside
// it and what it was under itself, which own says that it said itself.
func (r *Repository) handOn(s source, info *engine.Info) (cfg collector.ModelConfig, own bool, err error) {
	said, own, err := r.keptOn(s)
	if err != nil {
		return cfg, false, fmt.Errorf("it has no model.yaml, and what is private in its model's other versions cannot be read: %w", err)
	}
	if cfg, err = r.takeOver(s, info); err != nil {
		return cfg, false, err
	}
	if len(said.Features) == 0 {
		return cfg, false, nil
	}
	takeStricter(&cfg, said, info)
	cfg = collector.Suited(info, cfg)
	if own {
		r.cfg.Log.Warn("a version has no model.yaml any more: what that said was private stays so until one says otherwise ({} opens it)", "model", s.name, "version", s.version)
	}
	return cfg, own, nil
}

// readConfig reads a version's model.yaml into s.text, once, notes whether anything is
// private, and gives it its keys. Its errors are of rules that are not known.
func (r *Repository) readConfig(s *source) (collector.ModelConfig, error) {
	cfg, err := s.parse()
	if err != nil || cfg.PrivateFeature() != "" {
		r.private.Store(true) // what cannot be read may say so
	}
	if err == nil {
		err = r.WithKey(&cfg)
	}
	return cfg, unknownRules(err)
}

// parse reads a version's model.yaml.
func (s *source) parse() (cfg collector.ModelConfig, err error) {
	s.text = nil
	dir := s.folder()
	if dir == "" {
		return cfg, nil
	}
	if s.text, err = readYAML(dir); err != nil || s.text == nil {
		return cfg, err
	}
	if blank(s.text) {
		// It may have said what is private.
		return cfg, errors.New("read model.yaml: it is empty, or has comments alone, as a full disk leaves a file; write {} for one that says nothing")
	}
	if cfg, err = ParseConfig(s.text, configFile); err != nil {
		return cfg, err
	}
	for _, f := range []string{cfg.Reference, cfg.Background} {
		if f != "" && s.bare {
			return cfg, fmt.Errorf("read model.yaml: it names the file %q, which the model is to lie beside: move %s into its folder as model%s", f, s.file, filepath.Ext(s.file))
		}
		if f != "" && !filepath.IsLocal(f) {
			return cfg, fmt.Errorf("read model.yaml: %q is outside the version's folder", f)
		}
	}
	return cfg, nil
}

// blank reports whether a YAML text has no document: what is left of one that was cut may
// be its first comment.
func blank(text []byte) bool {
	for line := range bytes.Lines(bytes.TrimPrefix(text, []byte("\ufeff"))) {
		line = bytes.TrimSpace(line)
		if mark := string(line); mark != "" && mark[0] != '#' && mark != "---" && mark != "..." {
			return false
		}
	}
	return true
}

// WithKey gives a configuration the keys that its hashed and sealed fields need.
func (r *Repository) WithKey(cfg *collector.ModelConfig) error {
	var err error
	for _, f := range cfg.Features {
		switch {
		case f.Private == collector.PrivacyHash && r.cfg.HashKey != nil && cfg.HashKey == nil:
			cfg.HashKey, err = r.cfg.HashKey()
		case f.Private == collector.PrivacySeal && r.cfg.Keys != nil && cfg.Keys == nil:
			cfg.Keys, err = r.cfg.Keys()
		}
		if err != nil {
			return &keyError{fmt.Errorf("feature %q: get the key of private: %s: %w", f.Name, f.Private, err)}
		}
	}
	return nil
}

// Protect applies the rules to the configuration of a model and gives it the keys
// that its fields need.
func (r *Repository) Protect(model string, info *engine.Info, cfg *collector.ModelConfig) error {
	collector.ApplyPrivateRules(r.cfg.Rules, model, info, cfg)
	return r.WithKey(cfg)
}

// assemble reads the model and fits the parts of a version together. inherit, if any,
// says what is private in it where no model.yaml does.
func (r *Repository) assemble(s source, cfg collector.ModelConfig, inherit func(*engine.Info) (collector.ModelConfig, error)) (*held, error) {
	m, predict, err := r.open(s)
	if err != nil {
		return nil, err
	}
	info, err := applyConfig(m.Info(), cfg)
	if err != nil {
		return nil, unknownRules(err)
	}
	var inherited []byte
	if inherit != nil {
		from, err := inherit(info)
		if err != nil {
			return nil, unknownRules(err)
		}
		if inherited, err = inheritedYAML(from); err != nil {
			return nil, unknownRules(err)
		}
		cfg.Features, cfg.Subject = from.Features, from.Subject
	}
	said := cfg
	said.Features = slices.Clone(cfg.Features)
	if err := r.Protect(s.name, info, &cfg); err != nil {
		return nil, unknownRules(err)
	}
	schema, err := collector.NewSchema(info, cfg)
	if err != nil {
		return nil, unknownRules(err)
	}
	lines, err := manifest(s, leftOut(s, cfg, m))
	if err != nil {
		return nil, fmt.Errorf("digest the version: %w", err)
	}
	if inherited != nil {
		sum := sha256.Sum256(inherited)
		lines = append(lines, "model.yaml "+hex.EncodeToString(sum[:]))
		slices.Sort(lines)
	}
	h := &held{manifest: lines, inherited: inherited, said: said, bytes: sizeOf(s, lines), from: s}
	h.from.known, h.from.text = nil, nil
	v := &collector.ModelVersion{
		Name: s.name, Version: s.version, Digest: digestOf(lines),
		Info: info, Schema: schema, Config: cfg, Model: m,
		Predict:   predict,
		Reference: h.reference.Load,
	}
	if v.Background, err = background(s, backgroundFile(cfg, m), info); err != nil {
		return nil, err
	}
	h.version, h.columns = v, columnsOf(info)
	return h, nil
}

// open reads the model of s, or takes that of the version in force which is the same.
func (r *Repository) open(s source) (engine.Model, func(context.Context, engine.Values, []string) (engine.Values, error), error) {
	if s.known != nil {
		return s.known.version.Model, s.known.version.Predict, nil
	}
	m, err := modelfile.OpenWithin(filepath.Join(s.dir, s.file), r.cfg.MaxModel)
	if errors.Is(err, engine.ErrTooLarge) {
		return nil, nil, fmt.Errorf("%w (limits.model raises what a model may hold)", err)
	}
	if err != nil {
		return nil, nil, err
	}
	return m, r.predictor(m), nil
}

// inForceOf is the version in force under the name and number of s where its model was read
// of the same files, nil where there is none: a change of what is said of a model does not
// need the model twice.
func (r *Repository) inForceOf(s source) *held {
	r.mu.RLock()
	defer r.mu.RUnlock()
	have := r.slotOf(s.name, s.version)
	if have == nil || have.live == nil || have.live.version.Model == nil || !sameModel(&have.live.from, &s) {
		return nil
	}
	return have.live
}

// applyConfig returns what the model says of itself with what model.yaml adds.
func applyConfig(from *engine.Info, cfg collector.ModelConfig) (*engine.Info, error) {
	info := *from
	if cfg.Task != "" {
		info.Task = cfg.Task
	}
	if len(cfg.Classes) > 0 {
		info.Classes = cfg.Classes
	}
	info.Features = slices.Clone(from.Features)
	if names := cfg.FeatureNames; len(names) > 0 {
		if len(names) != len(info.Features) || len(info.Inputs) != 1 {
			return nil, fmt.Errorf("model.yaml: %d feature_names for a model of %d features and %d inputs: they name the columns of one matrix", len(names), len(info.Features), len(info.Inputs))
		}
		for i := range info.Features {
			info.Features[i].Name = names[i]
		}
	}
	for _, fc := range cfg.Features {
		for i := range info.Features {
			if info.Features[i].Name == fc.Name && fc.Kind != "" {
				info.Features[i].Categorical = fc.Kind == "categorical"
			}
		}
	}
	return &info, nil
}

// predictor answers with pooled sessions, so that a run costs no set-up.
func (r *Repository) predictor(m engine.Model) func(context.Context, engine.Values, []string) (engine.Values, error) {
	var pool sync.Pool
	opts := engine.SessionOptions{Threads: r.cfg.Threads, MaxBytes: r.cfg.MaxBytes}
	return func(ctx context.Context, in engine.Values, want []string) (engine.Values, error) {
		s, ok := pool.Get().(engine.Session)
		if !ok {
			var err error
			if s, err = m.NewSession(opts); err != nil {
				return nil, err
			}
		}
		out, err := s.Run(ctx, in, want)
		if err == nil {
			pool.Put(s) // a session that failed is not trusted with the next request
		}
		return out, err
	}
}

// backgroundFile is the rows that explanations are taken against: those model.yaml
// names or, for a model that has no basis of its own (its trees have no covers, or
// it is a network), its reference. A version with private features has none: it
// cannot be explained, so their values need not be kept.
func backgroundFile(cfg collector.ModelConfig, m engine.Model) string {
	switch {
	case cfg.PrivateFeature() != "":
		return ""
	case cfg.Background != "":
		return cfg.Background
	}
	if h, ok := m.(tree.Holder); ok {
		if e, _ := h.Trees(); e != nil && e.HasCovers() {
			return ""
		}
	}
	return cfg.Reference
}

// background reads the rows of a file that Shapley values and baselines are taken
// against.
func background(s source, file string, info *engine.Info) (func() (engine.Values, string, bool), error) {
	if file == "" {
		return func() (engine.Values, string, bool) { return nil, "", false }, nil
	}
	path := filepath.Join(s.dir, file)
	rows, err := readRows(path, info)
	if err != nil {
		return nil, fmt.Errorf("read background %q: %w", file, err)
	}
	digest, err := fileDigest(path)
	if err != nil {
		return nil, err
	}
	return func() (engine.Values, string, bool) { return rows, digest, true }, nil
}

func readRows(path string, info *engine.Info) (engine.Values, error) {
	t, err := table.Open(path)
	if err != nil {
		return nil, err
	}
	in, err := t.Inputs(info)
	if err != nil {
		return nil, err
	}
	canonical, _, err := engine.Bind(info, in)
	return canonical, err
}

// weightFiles are the extensions that exporters give an ONNX model's external data.
var weightFiles = []string{".data", ".onnx_data", ".bin", ".weights"}

// leftOut tells which files of a version's folder are not part of it: the
// reference, unless it serves as the background too, since it does not change what
// the version answers; and where a feature is private everything but the model, its
// external data and its model.yaml, for any other file may hold rows.
func leftOut(s source, cfg collector.ModelConfig, m engine.Model) func(rel string) bool {
	background := backgroundFile(cfg, m)
	hidden := cfg.PrivateFeature() != ""
	return func(rel string) bool {
		if hidden {
			return rel != s.file && rel != "model.yaml" && !slices.Contains(weightFiles, strings.ToLower(filepath.Ext(rel)))
		}
		return rel == filepath.Clean(cfg.Reference) && rel != filepath.Clean(background)
	}
}

// manifest lists the files a version's digest covers, with their digests, in
// order: everything but the golden data, hidden files and what is left out. A link to a
// file is that file.
func manifest(s source, leave func(rel string) bool) ([]string, error) {
	if s.bare {
		sum, err := s.digestOfFile(filepath.Join(s.dir, s.file), s.file, "model"+filepath.Ext(s.file))
		lines := []string{"model" + filepath.Ext(s.file) + " " + sum}
		if s.text != nil {
			lines = append(lines, configFile+" "+digestOfText(s.text, nil))
			slices.Sort(lines)
		}
		return lines, err
	}
	var lines []string
	root, err := filepath.EvalSymlinks(s.dir) // a walk does not go through a link
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), "test_data_set_") || strings.HasPrefix(d.Name(), ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if rel == configFile && s.text != nil {
			// What was read, which may be another file by now, or lie behind a link.
			lines = append(lines, rel+" "+digestOfText(s.text, nil))
			return nil
		}
		if strings.HasPrefix(d.Name(), ".") || leave(rel) || !isFile(path, d) {
			return nil
		}
		sum, err := s.digestOfFile(path, rel, filepath.ToSlash(rel))
		lines = append(lines, filepath.ToSlash(rel)+" "+sum)
		return err
	})
	slices.Sort(lines)
	return lines, err
}

// digestOfFile is that of a file of s, which the manifest of the version in force has where
// it is the same file.
func (s source) digestOfFile(path, rel, inManifest string) (string, error) {
	if s.known != nil && s.files[rel] != "" && s.known.from.files[rel] == s.files[rel] {
		for _, line := range s.known.manifest {
			if fileOf(line) == inManifest {
				return line[len(inManifest)+1:], nil
			}
		}
	}
	return fileDigest(path)
}

// isFile reports whether an entry is a regular file, or a link to one, as deployments and
// mounted volumes have them.
func isFile(path string, d fs.DirEntry) bool {
	if d.Type()&fs.ModeSymlink == 0 {
		return d.Type().IsRegular()
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// sizeOf adds up the files of a version. One that has gone meanwhile counts nothing:
// the version is refused for it, or was read before.
func sizeOf(s source, lines []string) (n int64) {
	for _, line := range lines {
		rel := fileOf(line)
		if s.bare && rel != configFile {
			rel = s.file
		}
		if info, err := os.Stat(filepath.Join(s.dir, filepath.FromSlash(rel))); err == nil {
			n += info.Size()
		}
	}
	return n
}

// digestOf is the digest of a version whose files are lines.
func digestOf(lines []string) string {
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:])
}

func fileDigest(path string) (string, error) {
	f, err := openRegular(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %q: %w", filepath.Base(path), err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
