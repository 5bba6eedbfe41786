package repository

import (
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
	"syscall"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// configFile is what says of a version what is private, among other things.
const configFile = "model.yaml"

// maxConfig bounds a model.yaml.
const maxConfig = 4 << 20

// rulesError is why it is not known what is private in a version: its model.yaml, or one
// beside a version without, cannot be read or taken up. Older rules are no answer to that:
// the file may hide what they do not.
type rulesError struct{ err error }

func (e *rulesError) Error() string { return e.err.Error() }
func (e *rulesError) Unwrap() error { return e.err }

func unknownRules(err error) error {
	if err == nil {
		return nil
	}
	return &rulesError{err}
}

// keyError is why the keys of private fields cannot be had: they may come without a change
// of any file in the models' folder.
type keyError struct{ err error }

func (e *keyError) Error() string { return e.err.Error() }
func (e *keyError) Unwrap() error { return e.err }

// openRegular opens a file that must be a regular one, once links are followed. A pipe is
// not waited for, also where it takes the file's place between the two looks.
func openRegular(path string) (io.ReadCloser, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a device may do something
		return nil, fmt.Errorf("%q is not a regular file", filepath.Base(path))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a regular file", filepath.Base(path))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return unwaited{f}, nil
}

// unwaited reads a file that is not to be waited for: some that the kernel makes are regular ones,
// and have nothing to read until something happens.
type unwaited struct{ f *os.File }

func (u unwaited) Close() error { return u.f.Close() }

// readYAML reads the model.yaml in a folder whole: nil where there is none, which is not so
// of a link to nothing.
func readYAML(dir string) ([]byte, error) {
	path := filepath.Join(dir, configFile)
	switch _, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, misnamed(dir)
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", configFile, err)
	}
	f, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s: it is a link to nothing", configFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", configFile, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", configFile, err)
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("read %s: it has more than %d bytes", configFile, maxConfig)
	}
	return text, nil
}

// says reports whether a folder has a model.yaml, or what was meant to be one.
func says(dir string) bool { return exists(filepath.Join(dir, configFile)) || misnamed(dir) != nil }

// misnamed is the error of a folder in which somebody meant to write a model.yaml.
func misnamed(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", configFile, err)
	}
	for _, e := range entries {
		if meantForConfig(e.Name()) {
			return fmt.Errorf("read %s: there is %q, which is not read: rename it", configFile, e.Name())
		}
	}
	return nil
}

// noRules stands for a model.yaml that there is not.
const noRules = "none"

// digestOfText tells one reading of a model.yaml from another.
func digestOfText(text []byte, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case text == nil:
		return noRules
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// rulesOf changes whenever what is said of a version's private fields does: the content of
// its model.yaml, which a size and a time do not tell, or of those beside a version without.
func rulesOf(s source, beside func() string) string {
	if dir := s.folder(); dir != "" {
		if said := digestOfText(readYAML(dir)); said != noRules {
			return said
		}
	}
	return noRules + "\n" + beside()
}

// rulesBeside is that of all the model.yaml of a model.
func rulesBeside(folder string) string {
	dirs, err := configs(folder)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, dir := range dirs {
		fmt.Fprintf(&b, "%s %s\n", filepath.Base(dir), digestOfText(readYAML(dir)))
	}
	return b.String()
}

// hidesMore reports whether a configuration makes a feature private that is not so, or in
// another way, in a version; or may do so, since it calls them or their rows' subject otherwise.
func hidesMore(cfg collector.ModelConfig, v *collector.ModelVersion) bool {
	if cfg.PrivateFeature() == "" {
		return false
	}
	if cfg.Subject != v.Config.Subject || !slices.Equal(cfg.FeatureNames, v.Config.FeatureNames) {
		return true
	}
	return slices.ContainsFunc(cfg.Features, func(f collector.FeatureConfig) bool {
		return f.Private != collector.PrivacyNone && policyIn(v.Config, f.Name) != f.Private
	})
}

func policyIn(cfg collector.ModelConfig, feature string) collector.Privacy {
	for _, f := range cfg.Features {
		if f.Name == feature && f.Private != collector.PrivacyNone {
			return f.Private
		}
	}
	return collector.PrivacyNone
}

// changed tells how what is private differs: less where something tells more of its value
// than it did, more where something tells less.
func changed(was, is collector.ModelConfig) (less, more bool) {
	for _, f := range slices.Concat(was.Features, is.Features) {
		a, b := policyIn(was, f.Name), policyIn(is, f.Name)
		less = less || a != b && collector.Stricter(a, b) == a
		more = more || a != b && collector.Stricter(a, b) == b
	}
	if was.Subject != is.Subject && was.PrivateFeature() != "" && is.PrivateFeature() != "" {
		less = true // a person's rows are sealed by another key
	}
	return less, more
}

// written changes whenever a file is written by which source.rules of s go, also with the same text.
func (r *Repository) written(s source) string {
	if dir := s.folder(); dir != "" && says(dir) {
		stamp, _ := stampOf(filepath.Join(dir, configFile))
		return stamp
	}
	if r.cfg.Dir == "" {
		return ""
	}
	dirs, err := configs(filepath.Join(r.cfg.Dir, s.name))
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, dir := range dirs {
		stamp, _ := stampOf(filepath.Join(dir, configFile))
		fmt.Fprintf(&b, "%s %s\n", filepath.Base(dir), stamp)
	}
	return b.String()
}

// unsure reports whether cfg, read of s, is to wait for a later look: it hides less than what
// is in force, or was last, which half a file does too, so the same must be found twice. Of a
// version that hides more as well nothing is recorded meanwhile.
func (r *Repository) unsure(s source, cfg collector.ModelConfig, forced bool) bool {
	r.mu.RLock()
	have := r.slotOf(s.name, s.version)
	live := have != nil && have.live != nil
	var less, more bool
	if live {
		less, more = changed(have.live.version.Config, cfg)
	} else if was, noted := r.inForce[s.name][s.version]; noted {
		less, _ = changed(was.config(), cfg)
	}
	r.mu.RUnlock()
	if !less || forced {
		return false
	}
	now := finding{written: r.written(s), look: s.look}                          // before it is read again, which is after it was written
	still := rulesOf(s, func() string { return r.besideNow(s.name) }) == s.rules // it may be in the making
	r.mu.Lock()
	defer r.mu.Unlock()
	have = r.slotOf(s.name, s.version)
	if live && (have == nil || have.live == nil) || overtaken(have, s) {
		return true // a later look is about to settle it
	}
	if have != nil && have.pending.rules != "" && have.pending.look >= s.look {
		return true // the same look, or one that began later
	}
	if now.rules, now.ended = "in the making", time.Now(); still {
		now.rules = s.rules
	}
	if still && have != nil && have.pending.rules == now.rules && have.pending.written == now.written {
		return !have.pending.again(now, r.cfg.Poll)
	}
	if !live {
		r.cfg.Log.Warn("a model.yaml hides less than when its version was last here: it is taken up when the next look finds it the same", "model", s.name, "version", s.version)
		r.put(s, nil, "")
		have = r.slotOf(s.name, s.version)
	}
	have.pending = now
	have.reason = "a changed model.yaml hides less: it is taken up when the next look finds it the same"
	if more {
		have.closed = "a changed model.yaml hides more of one field and less of another: it is taken up when the next look finds it the same"
	}
	return true
}

// untaken reports whether the rules in force for v are not to be gone by while s cannot be
// taken up because of err: it is not known what they should be, or they hide less than cfg,
// which is what s itself says.
func (r *Repository) untaken(s source, cfg collector.ModelConfig, v *collector.ModelVersion, err error) bool {
	var unknown *rulesError
	if errors.As(err, &unknown) {
		return true
	}
	if s.text == nil && (v.Model != nil || s.file != "") {
		sources, err := r.beside(s.name)
		if err == nil {
			cfg, err = r.handedOn(s.name, s.version, sources, r.ownSaid(s.name, s.version), v.Info)
		}
		if err != nil {
			return true
		}
	}
	collector.ApplyPrivateRules(r.cfg.Rules, s.name, v.Info, &cfg)
	if s.text == nil {
		cfg.FeatureNames = v.Config.FeatureNames // nothing says so
	}
	return hidesMore(cfg, v)
}

// unseenBy says why what lies in the folder of a model, or in all, is not known: that cannot be
// read, so any of its versions may hide more by now. Of an upstream's it says what hides more
// than its configuration. The caller holds mu.
func (r *Repository) unseenBy(name string) string {
	if r.isRemote(name) {
		return r.shut[name]
	}
	if why := r.unseen[""]; why != "" {
		return why
	}
	return r.unseen[name]
}

// saw puts what could not be read in place of what an earlier look could not.
func (r *Repository) saw(look uint64, unseen map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if look < r.looked {
		return
	}
	for name, why := range unseen {
		if r.unseen[name] != why {
			r.cfg.Log.Error("what cannot be read is not served, nor is anything imported under it: make it readable, and it opens by itself", "model", name, "error", why)
		}
	}
	if len(unseen) > 0 {
		r.private.Store(true) // what cannot be read may say so
	}
	r.looked, r.unseen = look, unseen
}

const beingRead = "its changed model.yaml is being put in force"

// glance is the part of a look that is never long, for while another one loads models: what
// is imported goes by what is there now, and what is served is closed that may hide more,
// until it is loaded.
func (r *Repository) glance() {
	if r.cfg.Dir == "" {
		return
	}
	look := r.looks.Add(1)
	l, err := r.list()
	if err != nil {
		r.saw(look, map[string]string{"": "the models' folder cannot be read: " + r.told(err)})
		return
	}
	r.saw(look, l.unseen)
	r.holdUpstreams(look, l.unseen)
	r.hear(l)
	r.follow(look, "", false)
	todo := r.changedSince(look, l, "", false)
	r.closeUnread(todo)
	for _, s := range todo {
		if s.file == "" && s.trouble == nil {
			r.declare(s, false)
		}
	}
	r.follow(look, "", false)
}

// hear notes what the changed model.yaml of unloaded versions hide: their imported siblings go
// by that, also once the folder has gone.
func (r *Repository) hear(l *listing) {
	for _, s := range l.found {
		r.mu.RLock()
		m := r.models[s.name]
		have := r.slotOf(s.name, s.version)
		news := m != nil && m.unloaded && s.file != "" && have != nil && have.source.rules != s.rules
		r.mu.RUnlock()
		if !news {
			continue
		}
		if cfg, err := s.parse(); err == nil {
			r.noteUntaken(s, cfg)
		}
		r.mu.Lock()
		if have := r.slotOf(s.name, s.version); have != nil && have.live == nil {
			have.source.rules = s.rules
		}
		r.mu.Unlock()
	}
}

// mayHideMore reports whether s, whose rules are not those in force for the live version, may
// hide more than that does, and keeps what it says then: it may be gone before it is read again.
func (r *Repository) mayHideMore(s source) bool {
	r.mu.RLock()
	have := r.slotOf(s.name, s.version)
	var live *collector.ModelVersion
	if have != nil && have.live != nil && have.source.rules != s.rules {
		live = have.live.version
	}
	r.mu.RUnlock()
	if live == nil {
		return false
	}
	cfg, err := s.parse()
	more := r.untaken(s, cfg, live, unknownRules(err))
	if more && err == nil {
		r.noteUntaken(s, cfg)
	}
	return more
}

// closeUnread closes, before any of them is loaded and in one step, the live versions among
// those found that may hide more than they do, those without a model.yaml with the one whose
// rules they follow.
func (r *Repository) closeUnread(found []source) {
	var more []source
	for _, s := range found {
		if r.mayHideMore(s) {
			more = append(more, s)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range more {
		have := r.slotOf(s.name, s.version)
		if have != nil && have.live != nil && have.source.look <= s.look && have.source.rules != s.rules {
			have.source.look, have.closed, have.toRead = s.look, beingRead, s.stamp
		}
	}
}

// overtaken reports whether a look later than that of s has found the version otherwise. One
// that only closed it, because of the very files that s is of, has not.
func overtaken(have *slot, s source) bool {
	return have != nil && have.source.look > s.look && (have.closed != beingRead || have.toRead != s.stamp)
}
