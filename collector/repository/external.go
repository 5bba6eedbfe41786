package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
	"github.com/pellucid/pellucid/engine"
)

// externalFile is where the store keeps what it knows of a version whose
// predictions are made elsewhere and imported.
const externalFile = ".external.json"

// maxVersions is how many versions there may be before imports make no more:
// whoever sends a new name with each row would fill memory and disk with them.
const maxVersions = 10_000

// keptExternal is that file: Info is what the imported rows say of the model,
// Config what model.yaml said when the version was made.
type keptExternal struct {
	Name    string                `json:"name"`
	Version string                `json:"version"`
	Made    time.Time             `json:"made"`
	Info    *engine.Info          `json:"info"`
	Config  collector.ModelConfig `json:"config"`
	// Follows is set where Config is what the version took over, having no model.yaml.
	Follows bool `json:"follows,omitempty"`
}

// External returns the version that predictions made elsewhere belong to: a live
// one of that name, or a new one of what describe returns, under the model.yaml
// that lies in its folder, if one does. Of an empty version it is the highest, or
// "1". Errors are of collector.ErrNotReady, collector.ErrRefused, or describe's.
func (r *Repository) External(name, version string, describe func() (*engine.Info, error)) (*collector.ModelVersion, error) {
	return r.Imported(name, version, describe, func(*collector.ModelVersion) *engine.Info { return nil })
}

// Imported is External for what somebody else names: once it is known what is private in a
// new version, named returns what it is known by instead, nil for the same.
func (r *Repository) Imported(name, version string, describe func() (*engine.Info, error), named func(*collector.ModelVersion) *engine.Info) (*collector.ModelVersion, error) {
	v, err := r.recorded(name, version)
	if err == nil {
		return v, nil
	}
	if version == "" {
		if err := r.waits(name); err != nil {
			return nil, err
		}
		version = "1"
	}
	if !nameRule.MatchString(name) || !nameRule.MatchString(version) {
		return nil, nameError()
	}
	r.external.Lock() // one at a time makes a version
	defer r.external.Unlock()
	if v, again := r.recorded(name, version); again == nil {
		return v, nil
	}
	own, cfg, err := r.unmade(name, version, err)
	if err != nil {
		return nil, err
	}
	if len(r.Live()) >= maxVersions {
		return nil, fmt.Errorf("there are %d versions already, which is the most that imports may bring about: %w", maxVersions, collector.ErrRefused)
	}
	info, err := describe()
	if err != nil {
		return nil, err
	}
	if !own {
		if cfg, err = r.inherited(name, version, info); err != nil {
			return nil, besideError(name, version, err)
		}
	}
	kept := keptExternal{Name: name, Version: version, Made: time.Now().UTC(), Info: info, Config: cfg, Follows: !own}
	if v, err = r.addNamed(kept, named); err != nil && !own {
		err = r.tookOver(name, version, err)
	}
	return v, err
}

// addNamed makes a version that is known by what named returns of it.
func (r *Repository) addNamed(kept keptExternal, named func(*collector.ModelVersion) *engine.Info) (*collector.ModelVersion, error) {
	v, err := r.externalVersion(kept)
	if err != nil {
		return nil, err
	}
	if info := named(v); info != nil {
		kept.Info = info
	}
	return r.addExternal(kept, true)
}

// declared is what the model.yaml of a version says of which nothing was imported yet. One
// that is in the making is not gone by.
func (r *Repository) declared(s *slot) (collector.ModelConfig, error) {
	from := s.source
	cfg, err := r.readConfig(&from)
	if err != nil {
		return cfg, err
	}
	waits := s.pending.rules != "" || s.source.rules != "" && s.source.rules != digestOfText(from.text, nil)
	r.mu.RLock()
	was, noted := r.inForce[from.name][from.version]
	r.mu.RUnlock()
	if less, _ := changed(was.config(), cfg); noted && less && s.source.rules == "" {
		waits = true // its folder came after the last look
	}
	if waits {
		return cfg, errors.New("its model.yaml has changed and is not in force yet")
	}
	return cfg, nil
}

// recorded finds the version that predictions made elsewhere are recorded of.
func (r *Repository) recorded(name, version string) (*collector.ModelVersion, error) {
	v, err := r.Find(name, version)
	if err != nil {
		if told := r.elsewhere(name, version); told != nil {
			return told, nil
		}
	}
	return v, err
}

// elsewhere returns the version of an unloaded model whose predictions are made elsewhere,
// the highest where version is empty, or nil: unloading stops the answers of this server,
// not what is told of others, and what was private in a version stays so.
func (r *Repository) elsewhere(name, version string) *collector.ModelVersion {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m := r.models[name]
	if m == nil || !m.unloaded || r.unseenBy(name) != "" {
		return nil
	}
	for _, s := range m.versions {
		if s.remote && s.live != nil && s.closed == "" && (version == "" || s.source.version == version) {
			return s.live.version
		}
	}
	return nil
}

// inherited is what a new version without a folder takes over, so that it does not bring into
// the open what is private in the others.
func (r *Repository) inherited(name, version string, info *engine.Info) (collector.ModelConfig, error) {
	sources, err := r.beside(name)
	if err != nil {
		return collector.ModelConfig{}, err
	}
	for _, s := range sources {
		now := digestOfText(readYAML(s.dir))
		r.mu.RLock()
		have := r.slotOf(s.name, s.version)
		changing := have != nil && (have.pending.rules != "" || have.source.rules != "" && have.source.rules != now)
		r.mu.RUnlock()
		if changing {
			return collector.ModelConfig{}, fmt.Errorf("the model.yaml of version %q has changed and is not in force yet", s.version)
		}
	}
	if gone := r.goneSince(name, sources); gone != "" {
		return collector.ModelConfig{}, fmt.Errorf("the model.yaml of version %q has gone, and that is not in force yet", gone)
	}
	return r.handedOn(name, version, sources, r.ownSaid(name, version), info)
}

// goneSince is a version that had a model.yaml at the last look and has none now, as while
// somebody puts another in its place.
func (r *Repository) goneSince(name string, sources []source) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m := r.models[name]
	if m == nil || r.isRemote(name) {
		return ""
	}
	for _, s := range m.versions {
		had := s.source.folder() != "" && s.source.rules != "" && !strings.HasPrefix(s.source.rules, noRules)
		if had && !slices.ContainsFunc(sources, func(now source) bool { return now.version == s.source.version }) {
			return s.source.version
		}
	}
	return ""
}

// newFolder is the slot of a version whose folder has a model.yaml that was not seen yet,
// nil where there is none. One with a model in it is about to be served.
func (r *Repository) newFolder(name, version string) (*slot, error) {
	dir := filepath.Join(r.cfg.Dir, name, version)
	if r.cfg.Dir == "" || !exists(dir) {
		return nil, nil //nolint:nilnil // there is none
	}
	if _, err := isDir(dir); err != nil {
		return nil, closedError(name, version, "its folder cannot be read: "+err.Error())
	}
	file, err := modelFile(dir)
	if err != nil || file != "" {
		return nil, errors.Join(fmt.Errorf("model %q version %q is about to be loaded: %w", name, version, collector.ErrNotReady), err)
	}
	if !says(dir) {
		return nil, nil //nolint:nilnil // it says nothing
	}
	return &slot{source: source{name: name, version: version, dir: dir}}, nil
}

// slotOf returns the slot of a version, or nil. The caller holds mu.
func (r *Repository) slotOf(name, version string) *slot {
	if m := r.models[name]; m != nil {
		for _, s := range m.versions {
			if s.source.version == version {
				return s
			}
		}
	}
	return nil
}

// addExternal makes a version known, and keeps it in the store where keep says so.
func (r *Repository) addExternal(kept keptExternal, keep bool) (*collector.ModelVersion, error) {
	v, err := r.externalVersion(kept)
	if err != nil {
		return nil, err
	}
	if !keep { // rules of the server that are new since have made it another version
		_, err := os.Stat(filepath.Join(r.cfg.Store, v.Digest, externalFile))
		keep = errors.Is(err, fs.ErrNotExist)
	}
	if keep {
		if err := r.keepExternal(kept, v.Digest); err != nil {
			return nil, err
		}
	}
	r.addRemote(&held{version: v, elsewhere: true, follows: kept.Follows, said: kept.Config})
	return v, nil
}

func (r *Repository) keepExternal(kept keptExternal, digest string) error {
	if err := r.cfg.Ours(); err != nil {
		return fmt.Errorf("keep version: %w", err)
	}
	dir := filepath.Join(r.cfg.Store, digest)
	data, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("keep version: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep version: %w", err)
	}
	before := exists(filepath.Join(dir, externalFile))
	if err := vfs.Replace(filepath.Join(dir, externalFile), data); err != nil {
		return fmt.Errorf("keep version: %w", err)
	}
	if !before {
		r.listKept(StoredVersion{kept.Name, kept.Version, digest})
	}
	return nil
}

// externalVersion is the version of what is known of an imported model.
func (r *Repository) externalVersion(kept keptExternal) (*collector.ModelVersion, error) {
	if kept.Config.Reference != "" || kept.Config.Background != "" {
		return nil, fmt.Errorf("model %q version %q: its model is not here to run over a file of rows: name a window, reference: {from, to}: %w", kept.Name, kept.Version, collector.ErrRefused)
	}
	cfg := kept.Config // what is kept is what model.yaml said: rules may change
	collector.ApplyPrivateRules(r.cfg.Rules, kept.Name, collector.AllContent(kept.Info), &cfg)
	info, err := applyConfig(collector.WithContent(kept.Info, cfg), kept.Config)
	if err != nil {
		return nil, fmt.Errorf("model %q version %q: %w: %w", kept.Name, kept.Version, collector.ErrRefused, err)
	}
	if err := r.Protect(kept.Name, info, &cfg); err != nil {
		return nil, unknownRules(fmt.Errorf("%w: %w", collector.ErrNotReady, err))
	}
	schema, err := collector.NewSchema(info, cfg)
	if err != nil {
		return nil, fmt.Errorf("model %q version %q: %w: %w", kept.Name, kept.Version, collector.ErrRefused, err)
	}
	v := &collector.ModelVersion{
		Name: kept.Name, Version: kept.Version,
		Digest: digestOf([]string{"external", kept.Name, kept.Version, string(info.Task), fmt.Sprint(info.Classes), schema.ID}),
		Info:   info, Schema: schema, Config: cfg,
		Background: func() (engine.Values, string, bool) { return nil, "", false },
	}
	v.Predict = func(context.Context, engine.Values, []string) (engine.Values, error) {
		return nil, fmt.Errorf("the predictions of model %q are made elsewhere and imported: %w", v.Name, collector.ErrRefused)
	}
	return v, nil
}

// restoreExternals makes the versions of earlier imports known again: of each
// name and version the one made last.
func (r *Repository) restoreExternals() error {
	paths, err := filepath.Glob(filepath.Join(r.cfg.Store, "*", externalFile))
	if err != nil {
		return err
	}
	last := map[[2]string]keptExternal{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		var kept keptExternal
		if err := json.Unmarshal(data, &kept); err != nil || kept.Info == nil {
			r.cfg.Log.Error("an imported model's description cannot be read", "path", path, "error", err)
			continue
		}
		key := [2]string{kept.Name, kept.Version}
		if have, ok := last[key]; !ok || kept.Made.After(have.Made) {
			last[key] = kept
		}
	}
	for _, kept := range last {
		if _, err := r.addExternal(kept, false); err != nil {
			r.cfg.Log.Error("an imported model cannot be brought back", "model", kept.Name, "version", kept.Version, "error", err)
			if kept.Follows {
				err = r.tookOver(kept.Name, kept.Version, err)
			}
			r.closeExternal(kept, err)
			r.unrestored = append(r.unrestored, kept)
		}
	}
	return nil
}

// closeExternal puts a version that was not brought back in its place as closed: a new one
// would not know what is private in it.
func (r *Repository) closeExternal(kept keptExternal, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(source{name: kept.Name, version: kept.Version}, nil, err.Error())
	s := r.slotOf(kept.Name, kept.Version)
	s.remote, s.closed = true, "it cannot be brought back: "+err.Error()
	if kept.Config.PrivateFeature() != "" {
		r.private.Store(true)
	}
}

// restoreAgain tries again what could not be brought back, also under what hides it now, so that
// a key that is no longer needed keeps nothing closed.
func (r *Repository) restoreAgain(look uint64, forced bool) {
	r.external.Lock()
	defer r.external.Unlock()
	left := slices.DeleteFunc(slices.Clone(r.unrestored), func(kept keptExternal) bool {
		r.mu.RLock()
		s := r.slotOf(kept.Name, kept.Version)
		settled := s == nil || s.live != nil
		r.mu.RUnlock()
		if settled {
			return true
		}
		if _, err := r.addExternal(kept, false); err == nil {
			return true
		}
		cfg, own, err := r.saidNow(kept)
		less, more := changed(kept.Config, cfg)
		if err != nil || !own && !less && !more || !own && less && !forced && !r.foundAgain(kept, look) {
			return false
		}
		kept.Made, kept.Config, kept.Follows = time.Now().UTC(), cfg, !own
		_, err = r.addExternal(kept, true)
		return err == nil
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unrestored = left
}

// saidNow is what hides a version that was not brought back now: its own model.yaml once that is
// in force, or the others.
func (r *Repository) saidNow(kept keptExternal) (cfg collector.ModelConfig, own bool, err error) {
	if !r.saysItself(source{name: kept.Name, version: kept.Version}) {
		cfg, err = r.takenOver(kept.Name, kept.Version, kept)
		return cfg, false, err
	}
	r.mu.RLock()
	s := *r.slotOf(kept.Name, kept.Version)
	r.mu.RUnlock()
	if s.reason != awaitsImport {
		return cfg, true, errors.New("its model.yaml is not in force yet")
	}
	cfg, err = r.declared(&s)
	return cfg, true, err
}

// foundAgain reports whether the model.yaml beside a version that was not brought back, which hide
// less than it did, are those that an earlier look found.
func (r *Repository) foundAgain(kept keptExternal, look uint64) bool {
	now := finding{written: r.written(source{name: kept.Name}), rules: noRules + "\n" + r.besideNow(kept.Name), look: look, ended: time.Now()}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slotOf(kept.Name, kept.Version)
	if s.pending.rules != now.rules || s.pending.written != now.written {
		s.pending = now
	}
	return s.pending.again(now, r.cfg.Poll)
}

// declare takes the folder of a version without a model file: its model.yaml says
// what imported predictions of it mean. An edited one holds for what is imported
// from now on.
func (r *Repository) declare(s source, forced bool) {
	r.mu.RLock()
	have := r.slotOf(s.name, s.version)
	live := have != nil && have.live != nil && have.live.elsewhere
	served := have != nil && have.live != nil && !live
	r.mu.RUnlock()
	cfg, err := r.readConfig(&s)
	waits := false
	switch {
	case err == nil && live:
		waits, err = r.redeclare(s, cfg, forced)
	case err == nil:
		waits = r.unsure(s, cfg, forced)
	}
	if err == nil && !waits {
		err = r.noteInForce(s.name, s.version, cfg, false)
	}
	if err != nil {
		r.failed(s, "a model.yaml is not in force", cfg, err)
		return
	}
	if waits {
		return
	}
	if served { // its model has been taken away
		r.retire(s)
	}
	reason := ""
	if !live {
		reason = awaitsImport
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if have := r.slotOf(s.name, s.version); have == nil || have.source.look <= s.look {
		r.put(s, nil, reason)
	}
}

// retire takes a served version out of its place, whose folder has no model any more.
func (r *Repository) retire(s source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if have := r.slotOf(s.name, s.version); have != nil && have.live != nil && !have.live.elsewhere && have.source.look <= s.look {
		r.cfg.Log.Info("a version's model has gone", "model", s.name, "version", s.version)
		have.live = nil
	}
}

// redeclare puts a changed model.yaml in force for a version that is known, or says that
// it waits for the next look.
func (r *Repository) redeclare(s source, cfg collector.ModelConfig, forced bool) (waits bool, err error) {
	r.external.Lock()
	defer r.external.Unlock()
	r.mu.RLock()
	have := r.slotOf(s.name, s.version)
	if have == nil || have.live == nil {
		r.mu.RUnlock()
		return false, fmt.Errorf("model %q version %q: %w", s.name, s.version, collector.ErrNotFound)
	}
	digest, later := have.live.version.Digest, have.source.look > s.look
	r.mu.RUnlock()
	if later {
		return true, nil // a later look has read it again
	}
	kept, err := r.keptOf(digest)
	if err != nil {
		return false, err
	}
	kept.Made, kept.Config, kept.Follows = time.Now().UTC(), cfg, false
	v, err := r.externalVersion(kept)
	if err != nil {
		return false, unknownRules(err)
	}
	if r.unsure(s, v.Config, forced) {
		return true, nil
	}
	if err := r.keepExternal(kept, v.Digest); err != nil {
		return false, err
	}
	r.addRemote(&held{version: v, elsewhere: true, said: kept.Config})
	r.cfg.Log.Info("a model.yaml is in force", "model", s.name, "version", s.version, "private", privateFields(v))
	return false, nil
}
