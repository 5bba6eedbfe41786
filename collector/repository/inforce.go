package repository

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
	"github.com/pellucid/pellucid/engine"
)

// inForceFile is where the store keeps what each version's model.yaml, or what it took over,
// said last of private features: a start holds the files against it, and what is imported
// once the folder of its model has gone takes it over. Imported versions keep their own.
const inForceFile = ".inforce.json"

// keptSaid is what a version said last: only what is of private features.
type keptSaid struct {
	Features     []collector.FeatureConfig `json:"features"`
	FeatureNames []string                  `json:"feature_names,omitempty"`
	Subject      string                    `json:"subject,omitempty"`
	// Follows is set of a version that has no model.yaml and took this over.
	Follows bool `json:"follows,omitempty"`
	// Upstream is set of what was said under an upstream's name alone, and goes with the folder.
	Upstream bool `json:"upstream,omitempty"`
	// Unread is set where it is not known what it hid: an upstream's could not be read when it was last
	// there, or nothing is left that says it of a version that hid something.
	Unread bool `json:"unread,omitempty"`
}

func (k keptSaid) config() collector.ModelConfig {
	return collector.ModelConfig{Features: k.Features, FeatureNames: k.FeatureNames, Subject: k.Subject}
}

// saidOf is what cfg says of private features.
func saidOf(cfg collector.ModelConfig) keptSaid {
	k := keptSaid{FeatureNames: cfg.FeatureNames, Subject: cfg.Subject}
	for _, f := range cfg.Features {
		if f.Private != collector.PrivacyNone {
			k.Features = append(k.Features, collector.FeatureConfig{Name: f.Name, Private: f.Private})
		}
	}
	return k
}

func (k keptSaid) equal(o keptSaid) bool {
	return slices.Equal(k.Features, o.Features) && slices.Equal(k.FeatureNames, o.FeatureNames) && k.Subject == o.Subject && k.Follows == o.Follows && k.Upstream == o.Upstream && k.Unread == o.Unread
}

// allSaid is what versions said last of private features, by name and version.
type allSaid map[string]map[string]keptSaid

// hides reports whether any version hid something.
func (s allSaid) hides() bool {
	for _, of := range s {
		if len(of) > 0 {
			return true
		}
	}
	return false
}

// add takes in what a version said, the stricter of each feature where that is known already.
func (s allSaid) add(name, version string, k keptSaid) {
	if s[name] == nil {
		s[name] = map[string]keptSaid{}
	}
	if have, known := s[name][version]; known && !have.equal(k) {
		k = have.with(k)
	}
	s[name][version] = k
}

// with adds to what a version said what else it said, the stricter of each feature.
func (k keptSaid) with(o keptSaid) keptSaid {
	for _, f := range o.Features {
		i := slices.IndexFunc(k.Features, func(h collector.FeatureConfig) bool { return h.Name == f.Name })
		if i < 0 {
			k.Features = append(slices.Clip(k.Features), f)
			continue
		}
		k.Features = slices.Clone(k.Features)
		k.Features[i].Private = collector.Stricter(k.Features[i].Private, f.Private)
	}
	if len(k.FeatureNames) == 0 {
		k.FeatureNames = o.FeatureNames
	}
	k.Subject = cmp.Or(k.Subject, o.Subject)
	k.Follows = k.Follows && o.Follows
	k.Upstream = k.Upstream && o.Upstream
	k.Unread = k.Unread || o.Unread
	return k
}

// saying is a copy of s in which a version says k, and nothing of one that hides nothing.
func (s allSaid) saying(name, version string, k keptSaid) allSaid {
	next, of := allSaid{}, map[string]keptSaid{}
	maps.Copy(next, s)
	maps.Copy(of, s[name])
	if of[version] = k; k.hidesNothing() {
		delete(of, version)
	}
	next[name] = of
	return next
}

// only is what some of the versions say.
func (s allSaid) only(which map[[2]string]bool) allSaid {
	out := allSaid{}
	for of := range which {
		if k, hides := s[of[0]][of[1]]; hides {
			out.add(of[0], of[1], k)
		}
	}
	return out
}

func (k keptSaid) hidesNothing() bool { return len(k.Features) == 0 && !k.Unread }

func (s allSaid) equal(o allSaid) bool {
	return maps.EqualFunc(s, o, func(a, b map[string]keptSaid) bool { return maps.EqualFunc(a, b, keptSaid.equal) })
}

// readSaid reads a file of what was private last, nil where there is none.
func readSaid(path string) (s allSaid, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err == nil && len(s) == 0 { // nor is {} ever written
		err = errors.New("it holds nothing")
	}
	if err != nil {
		return nil, err // not the half that could be read
	}
	return s, nil
}

// readTwice reads what was private last from the store and from its copy, if it has one. One of them
// may be damaged where the other is whole: that tells it.
func readTwice(store, private string) (own, copied allSaid, wrongOwn, wrongCopy, err error) {
	path := filepath.Join(store, inForceFile)
	own, wrongOwn = readSaid(path)
	if private != "" {
		copied, wrongCopy = readSaid(private)
	}
	if wrongOwn == nil || copied != nil {
		return own, copied, wrongOwn, wrongCopy, nil
	}
	what := fmt.Sprintf("%s: %v", path, wrongOwn)
	switch {
	case wrongCopy != nil:
		what += fmt.Sprintf("; nor can its copy, %s: %v", private, wrongCopy)
	case private != "":
		what += fmt.Sprintf("; its copy, %s, is gone", private)
	}
	return nil, nil, wrongOwn, wrongCopy, fmt.Errorf("what was private last cannot be read: %s: put one back from a backup; or, where there is none, take away what cannot be read: what the stored versions ever hid is taken for it then, the strictest of each", what)
}

// readInForce reads what was in force when the store was last used: from the store, from the
// copy outside of it and, where neither is there, from the files of the versions in the store.
// A version that has no model.yaml any more would be open without.
func (r *Repository) readInForce() error {
	own, copied, wrongOwn, wrongCopy, err := readTwice(r.cfg.Store, r.cfg.Private)
	if err != nil {
		return err
	}
	r.inForce = allSaid{}
	for _, s := range []allSaid{own, copied} {
		for name, of := range s {
			if r.inForce[name] == nil {
				r.inForce[name] = map[string]keptSaid{}
			}
			for version, k := range of {
				r.inForce.add(name, version, k)
			}
		}
	}
	if own == nil && copied == nil {
		if r.inForce, err = saidWithout(r.cfg.Store, r.cfg.Kept); err != nil {
			return err
		}
	}
	if what := r.missSaid(own, wrongOwn, wrongCopy); what != "" {
		r.cfg.Log.Error(what, "store", r.cfg.Store, "file", r.cfg.Private)
		if err := r.cfg.Missed([]string{what}); err != nil {
			r.cfg.Log.Warn("it is not noted that what was private last is gone", "error", err)
		}
	}
	r.readSpare()
	if own.equal(r.inForce) && (r.cfg.Private == "" || copied.equal(r.inForce)) {
		r.keptNow(r.inForce)
		return nil // a full disk has no room for more
	}
	if err := r.writeInForce(r.inForce); err != nil {
		r.cfg.Log.Warn("what was private last is known, and not written where it was gone: the next start may not know it", "error", err)
		return nil
	}
	r.keptNow(r.inForce)
	return nil
}

// readSpare takes in what could not be kept otherwise when the store was last used.
func (r *Repository) readSpare() {
	if r.cfg.Private == "" {
		return
	}
	spare, err := readSpare(r.spare())
	if err != nil {
		what := "what versions hid that could not be kept for want of room could not be read: " + filepath.Base(r.spare()) + " in the data folder is made anew"
		r.cfg.Log.Error(what, "file", r.spare(), "error", err)
		if err := r.cfg.Missed([]string{what}); err != nil {
			r.cfg.Log.Warn("that is not noted", "error", err)
		}
	}
	for name, of := range spare {
		for version, k := range of {
			r.inForce.add(name, version, k)
			r.setUnkept(name, version)
		}
	}
}

// spare is the file of what could not be kept otherwise.
func (r *Repository) spare() string { return r.cfg.Private + ".spare" }

// missSaid says which file of what was private last has gone, "" where none has, given what
// the store's says and what is wrong with that and with the copy.
func (r *Repository) missSaid(own allSaid, wrongOwn, wrongCopy error) string {
	switch {
	case wrongOwn != nil:
		return "what was private last could not be read: the file " + inForceFile + " of the folder models is written anew from its copy, " + filepath.Base(r.cfg.Private) + " in the data folder"
	case own == nil && r.inForce.hides():
		return missedSaid
	case wrongCopy != nil:
		return "the copy of what was private last could not be read: " + filepath.Base(r.cfg.Private) + " in the data folder is written anew from the file " + inForceFile + " of the folder models"
	}
	return ""
}

const missedSaid = "what was private last was gone from the folder models (" + inForceFile + "): it is taken from what else tells it, and a version without a model.yaml stays under the strictest of that until it has one ({} opens it); one that hid something of which nothing tells what is closed until then"

// saidIn is what the versions in a store say themselves: of each all that it ever hid, since
// nothing tells which of its files were the last.
func saidIn(store string) (allSaid, error) {
	entries, err := os.ReadDir(store)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the model store: %w", err)
	}
	out := allSaid{}
	for _, e := range entries {
		dir := filepath.Join(store, e.Name())
		if !digestRule.MatchString(e.Name()) || !exists(filepath.Join(dir, versionFile)) {
			continue // those of imported versions tell it to the start themselves
		}
		name, version, ok := namedIn(dir)
		if !ok {
			continue // damaged, which its check tells
		}
		text, err := readYAML(dir)
		if err != nil {
			return nil, fmt.Errorf("read what was private in stored version %s: %w", e.Name(), err)
		}
		if text == nil {
			continue
		}
		cfg, err := ParseConfig(text, configFile)
		if err != nil {
			return nil, fmt.Errorf("read what was private in stored version %s: %w", e.Name(), err)
		}
		if k := saidOf(cfg); len(k.Features) > 0 {
			k.Follows = bytes.HasPrefix(text, []byte(inheritedText))
			out.add(name, version, k)
		}
	}
	return out, nil
}

// saidWithout is what was private last where both files that say it have gone: what the versions in
// the store say, and of those that hid something by the list of kept versions, and of which nothing
// says what, that it is not known.
func saidWithout(store, list string) (allSaid, error) {
	out, err := saidIn(store)
	if err != nil || list == "" {
		return out, err
	}
	hid, err := readHid(list)
	if err != nil {
		return nil, err
	}
	for _, of := range hid {
		_, known := out[of[0]][of[1]]
		if known {
			continue
		}
		if known, err = importedSays(store, of); err != nil {
			return nil, err
		}
		if !known {
			out.add(of[0], of[1], keptSaid{Unread: true})
		}
	}
	return out, nil
}

// importedSays reports whether the store has an imported version that says itself what it hides.
func importedSays(store string, of [2]string) (bool, error) {
	paths, err := filepath.Glob(filepath.Join(store, "*", externalFile))
	if err != nil {
		return false, err
	}
	for _, path := range paths {
		var kept keptExternal
		data, err := os.ReadFile(path)
		if err == nil && json.Unmarshal(data, &kept) == nil && kept.Name == of[0] && kept.Version == of[1] && kept.Config.PrivateFeature() != "" {
			return true, nil
		}
	}
	return false, nil
}

// knownBeside fails where it is not known what a version of a model hid that has no model.yaml now,
// one not in sources.
func (r *Repository) knownBeside(name string, sources []source) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, version := range slices.SortedFunc(maps.Keys(r.inForce[name]), compareVersions) {
		if r.inForce[name][version].Unread && !slices.ContainsFunc(sources, func(s source) bool { return s.version == version }) {
			return fmt.Errorf("version %q hid something, and nothing is left that says what: write %s ({} says that it hides nothing), or put %s back from a backup", version, source{name: name, version: version}.place(), inForceFile)
		}
	}
	return nil
}

// CheckSaid holds what was private last, in a store, against its copy outside of it or, where both
// are gone, against what else tells it, and changes nothing.
func CheckSaid(store, private, list string) error {
	own, copied, wrongOwn, wrongCopy, err := readTwice(store, private)
	switch {
	case err != nil:
		return err
	case wrongOwn != nil:
		return fmt.Errorf("what was private last cannot be read: the next start writes %s anew from its copy, %s: %w", inForceFile, filepath.Base(private), wrongOwn)
	case wrongCopy != nil:
		return fmt.Errorf("the copy of what was private last cannot be read: %s: %w", filepath.Base(private), wrongCopy)
	}
	from := copied
	if own == nil && copied == nil {
		if from, err = saidWithout(store, list); err != nil {
			return err
		}
	}
	switch {
	case own == nil && from.hides():
		return errors.New(missedSaid)
	case own.hides() && copied == nil:
		return fmt.Errorf("the copy of what was private last is gone: the next start writes %s again", filepath.Base(private))
	}
	return nil
}

// noteInForce keeps what a version says from now on, or takes over where it follows. One
// that never hid anything is not noted.
func (r *Repository) noteInForce(name, version string, cfg collector.ModelConfig, follows bool) error {
	now := saidOf(cfg)
	now.Follows = follows
	return r.note(name, version, now)
}

func (r *Repository) note(name, version string, now keptSaid) error {
	r.noting.Lock()
	defer r.noting.Unlock()
	r.mu.RLock()
	was, noted := r.inForce[name][version]
	next := r.inForce.saying(name, version, now)
	r.mu.RUnlock()
	nothing := now.hidesNothing()
	if len(r.unkept) == 0 && (noted && was.equal(now) || !noted && nothing) {
		return nil
	}
	if err := r.writeInForce(next); err != nil {
		return err
	}
	r.keptNow(next)
	if noted == nothing { // it hides now and did not, or did and does not
		if err := r.kept.hides(name, version, !nothing); err != nil {
			r.cfg.Log.Warn("that a version hides something is not listed: it is not known should all be lost that says so", "model", name, "version", version, "error", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inForce = next
	if !nothing {
		r.private.Store(true)
	}
	return nil
}

// noteServed is noteInForce of a version that is about to be served. What it said itself stays as
// it is where its model.yaml has gone: what it took over beside that is the others'.
func (r *Repository) noteServed(s source, h *held) error {
	if h.own {
		return nil
	}
	return r.noteInForce(s.name, s.version, inColumns(h.said, h.columns), h.inherited != nil)
}

// saidBy is what a version says or said, or took over.
type saidBy struct {
	version string
	cfg     collector.ModelConfig
	follows bool
	// known are what it calls its features, where that is known.
	known []string
}

// writeInForce keeps what is private: in the store, and outside of it.
func (r *Repository) writeInForce(s allSaid) error {
	data, err := json.Marshal(s)
	if err == nil {
		err = r.cfg.Ours()
	}
	if err == nil {
		err = vfs.Replace(filepath.Join(r.cfg.Store, inForceFile), data)
	}
	if err == nil && r.cfg.Private != "" {
		err = vfs.Replace(r.cfg.Private, data)
	}
	if err != nil {
		return fmt.Errorf("keep what is private: %w", err)
	}
	return nil
}

// ownSaid is what the model.yaml of a version said last that has none now.
func (r *Repository) ownSaid(name, version string) collector.ModelConfig {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if said := r.inForce[name][version]; !said.Follows {
		return said.config()
	}
	return collector.ModelConfig{}
}

// lastSaid is what the versions of a model that have no model.yaml now, those not in sources,
// said last, but for one of them and the highest first: their folders may come back, and a
// version that says nothing must not bring into the open what they hid. Where no version has
// a model.yaml those count too, and last, that took over what they hide.
func (r *Repository) lastSaid(name, but string, sources []source) []saidBy {
	alone := len(sources) == 0
	var out, took []saidBy
	columns, infos := map[string][]string{}, map[string]*engine.Info{}
	add := func(version string, cfg collector.ModelConfig, follows bool) {
		by := saidBy{version: version, cfg: inColumns(cfg, columns[version]), follows: follows}
		if infos[version] != nil {
			by.known = collector.FieldNames(infos[version])
		}
		switch {
		case version == but || slices.ContainsFunc(sources, func(s source) bool { return s.version == version }):
		case !follows:
			out = append(out, by)
		case alone:
			took = append(took, by)
		}
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m := r.models[name]; m != nil {
		for _, s := range m.versions {
			if s.live != nil && s.live.elsewhere {
				columns[s.source.version], infos[s.source.version] = s.live.columns, s.live.version.Info
				add(s.source.version, s.live.said, s.live.follows)
			}
		}
	}
	for _, kept := range r.unrestored {
		if kept.Name == name {
			columns[kept.Version], infos[kept.Version] = columnsOf(kept.Info), kept.Info
			add(kept.Version, kept.Config, kept.Follows)
		}
	}
	versions := slices.SortedFunc(maps.Keys(r.inForce[name]), func(a, b string) int { return compareVersions(b, a) })
	for _, version := range versions {
		said := r.inForce[name][version]
		add(version, said.config(), said.Follows)
	}
	return append(out, took...)
}

// inColumns gives a configuration that has none the names of a model's columns.
func inColumns(cfg collector.ModelConfig, columns []string) collector.ModelConfig {
	if len(cfg.FeatureNames) == 0 {
		cfg.FeatureNames = columns
	}
	return cfg
}

// speakers are the versions of a model, but for one, from which that takes over what they hide.
func (r *Repository) speakers(name, but string) ([]string, error) {
	sources, err := r.beside(name)
	if err != nil {
		return nil, err
	}
	said := r.lastSaid(name, but, sources)
	for _, s := range sources {
		cfg, err := s.parse()
		if err != nil {
			return nil, err
		}
		said = append(said, saidBy{version: s.version, cfg: cfg})
	}
	var out []string
	for _, s := range said {
		if s.cfg.PrivateFeature() != "" && !slices.Contains(out, s.version) {
			out = append(out, s.version)
		}
	}
	slices.SortFunc(out, compareVersions)
	return out, nil
}

// tookOver adds to why a version without a model.yaml cannot have what it takes over, where that
// is from and what is to be done. A model.yaml that cannot be read is named already.
func (r *Repository) tookOver(name, version string, err error) error {
	from, unread := r.speakers(name, version)
	if unread != nil || len(from) == 0 || r.isRemote(name) {
		return err
	}
	return fmt.Errorf("%w (taken over from version \"%s\"; %s, a model.yaml of its own, would say what is private instead)",
		err, strings.Join(from, `", "`), source{name: name, version: version}.place())
}

// noteUntaken keeps what the model.yaml of a version says that could not be taken up, unless
// it hides less than what it said before.
func (r *Repository) noteUntaken(s source, cfg collector.ModelConfig) {
	if s.text == nil || cfg.PrivateFeature() == "" {
		return
	}
	r.mu.RLock()
	was := r.inForce[s.name][s.version]
	r.mu.RUnlock()
	if less, _ := changed(was.config(), cfg); less {
		return
	}
	if err := r.noteInForce(s.name, s.version, cfg, false); err != nil {
		r.noteUnkept(s.name, s.version, saidOf(cfg), err)
	}
}

// noteUnkept has what a version hides in force though nothing could be written because of err, as on
// a full disk: its model.yaml may go before there is room. The spare file tells it to a start.
func (r *Repository) noteUnkept(name, version string, now keptSaid, err error) {
	r.noting.Lock()
	defer r.noting.Unlock()
	r.mu.Lock()
	if was, known := r.inForce[name][version]; known && was.equal(now) && r.unkept[[2]string{name, version}] {
		r.mu.Unlock()
		return // an earlier look said so
	}
	r.inForce = r.inForce.saying(name, version, now)
	r.private.Store(true)
	spare := r.inForce.only(r.setUnkept(name, version))
	r.mu.Unlock()
	log := r.cfg.Log.With("model", name, "version", version, "error", err)
	wrong := errors.New("there is no data folder")
	if r.cfg.Private != "" {
		wrong = writeSpare(r.spare(), spare)
	}
	if wrong != nil {
		log.Error("what a version hides is not kept yet: until it is, a start does not know of it once it is deleted", "spare", wrong)
		return
	}
	log.Warn("what a version hides is kept in the spare file until there is room", "file", r.spare())
}

// setUnkept notes that what a version hides could not be kept, and is all that could not.
func (r *Repository) setUnkept(name, version string) map[[2]string]bool {
	if r.unkept == nil {
		r.unkept = map[[2]string]bool{}
	}
	r.unkept[[2]string{name, version}] = true
	return r.unkept
}

// keepUnkept writes what could not be written before.
func (r *Repository) keepUnkept() {
	r.noting.Lock()
	defer r.noting.Unlock()
	if len(r.unkept) == 0 {
		return
	}
	r.mu.RLock()
	said := r.inForce
	r.mu.RUnlock()
	if r.writeInForce(said) == nil { // else with the next look
		r.keptNow(said)
	}
}

// keptNow empties the spare file, and lists which of the versions whose words have just reached the
// disk hide something. The caller holds noting.
func (r *Repository) keptNow(said allSaid) {
	if r.cfg.Private != "" {
		if err := errors.Join(clearSpare(r.spare()), makeSpare(r.spare())); err != nil {
			r.cfg.Log.Warn("there is no spare file: what versions hide that are read on a full disk is not known to a start until there is room", "file", r.spare(), "error", err)
		}
	}
	for of := range r.unkept {
		_, hides := said[of[0]][of[1]]
		if err := r.kept.hides(of[0], of[1], hides); err != nil {
			r.cfg.Log.Warn("that a version hides something is not listed: it is not known should all be lost that says so", "model", of[0], "version", of[1], "error", err)
		}
	}
	r.unkept = nil
}
