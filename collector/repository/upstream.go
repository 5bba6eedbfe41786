package repository

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/pellucid/pellucid/collector"
)

// besideUpstream is what the model.yaml files say that lie under the name of an upstream, or
// why that is not known. last is what those said that were deleted.
type besideUpstream struct {
	said, last []saidBy
	why        string
}

// Shut says why nothing is to be asked of an upstream or recorded of it: a model.yaml in the models'
// folder under its name cannot be read, or hides what its configuration does not. What such a
// file says is in force for no prediction of an upstream, whose configuration is its model.yaml;
// but whoever wrote it meant something to be private. It is nil where there is no such file; an
// error wraps collector.ErrNotReady.
func (r *Repository) Shut(name string) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if why := r.shut[name]; why != "" {
		return r.unseenError(name, why)
	}
	return nil
}

// holdUpstreams holds what lies in the models' folder under the names of upstreams against what
// is configured of them.
func (r *Repository) holdUpstreams(look uint64, unseen map[string]string) {
	found := map[string]besideUpstream{}
	for name := range r.cfg.Remote {
		found[name] = r.readUpstream(name, unseen[name])
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if look < r.upstreamsAt {
		return
	}
	r.upstreams, r.upstreamsAt = found, look
	if r.upstreamsHide() {
		r.private.Store(true)
	}
	for name := range found {
		r.judgeUpstream(name)
	}
}

func (r *Repository) readUpstream(name, unseen string) (found besideUpstream) {
	if unseen != "" {
		found.why = r.withoutPlaces(unseen)
		return found
	}
	sources, err := r.beside(name)
	if err != nil {
		found.why = "what lies in its folder cannot be read: " + r.told(err)
		return found
	}
	for _, s := range sources {
		cfg, err := s.parse()
		if err != nil {
			found.why = fmt.Sprintf("%s cannot be read: %s", s.place(), r.told(err))
			return found
		}
		found.said = append(found.said, saidBy{version: s.version, cfg: cfg})
	}
	r.noteUpstream(name, found.said)
	if !exists(filepath.Join(r.cfg.Dir, name)) {
		return found
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for version, k := range r.inForce[name] {
		if !k.Follows && !slices.ContainsFunc(sources, func(s source) bool { return s.version == version }) {
			found.last = append(found.last, saidBy{version: version, cfg: k.config()})
		}
	}
	slices.SortFunc(found.last, func(a, b saidBy) int { return compareVersions(b.version, a.version) })
	return found
}

// noteUpstream keeps what the files under the name of an upstream say: deleting one is no decision
// to publish what it hid. Taking out the folder is, and forgets it.
func (r *Repository) noteUpstream(name string, said []saidBy) {
	now := map[string]keptSaid{}
	r.mu.RLock()
	for _, by := range said {
		k := saidOf(by.cfg)
		was, noted := r.inForce[name][by.version]
		k.Upstream = !noted || was.Upstream // what it said as a version here stays
		now[by.version] = k
	}
	if !exists(filepath.Join(r.cfg.Dir, name)) {
		for version, k := range r.inForce[name] {
			if k.Upstream {
				now[version] = keptSaid{}
			}
		}
	}
	r.mu.RUnlock()
	for version, k := range now {
		if err := r.note(name, version, k); err != nil {
			r.cfg.Log.Error("what lies under an upstream's name is not kept: it is not known once it is deleted", "model", name, "version", version, "error", err)
		}
	}
}

// upstreamsHide reports whether something is private by what is configured of an upstream or
// lies under its name, or cannot be read. The caller holds mu.
func (r *Repository) upstreamsHide() bool {
	for name, cfg := range r.cfg.Remote {
		found := r.upstreams[name]
		if found.why != "" || cfg.PrivateFeature() != "" {
			return true
		}
		for _, said := range found.said {
			if said.cfg.PrivateFeature() != "" {
				return true
			}
		}
	}
	return false
}

// place is where the model.yaml of a version lies, from the models' folder on.
func (s source) place() string { return filepath.Join(s.name, s.version, configFile) }

// judgeUpstream decides whether an upstream is shut. Each file is held against each version that
// the upstream is known to have: it is not known which of them somebody had in mind. The caller
// holds mu.
func (r *Repository) judgeUpstream(name string) {
	found := r.upstreams[name]
	why := found.why
	if m := r.models[name]; m != nil && why == "" {
		for _, s := range m.versions {
			if s.live == nil || s.live.elsewhere {
				continue
			}
			why = cmp.Or(why, moreHidden(name, found.said, s.live.version, "%s makes %q private, which the upstream's configuration does not"),
				moreHidden(name, found.last, s.live.version, "%s made %q private, which the upstream's configuration does not, and is gone, which opens nothing"))
		}
	}
	if why != "" {
		why += fmt.Sprintf(": say what is private under features of the upstream %q in the configuration and start again, or take the folder %q out of the models' folder", name, name)
	}
	if why != "" && r.shut[name] != why {
		r.cfg.Log.Error("an upstream is closed: nothing is asked of it, nor recorded", "model", name, "error", why)
	}
	if why == "" && r.shut[name] != "" {
		r.cfg.Log.Info("an upstream is open again", "model", name)
	}
	r.shut[name] = why
}

// moreHidden says in words of which file and feature one of the files under an upstream's name hides
// more than its version v, "" where none does.
func moreHidden(name string, said []saidBy, v *collector.ModelVersion, words string) string {
	for _, by := range said {
		if f := hiddenBeyond(by.cfg, v); f != "" {
			return fmt.Sprintf(words, source{name: name, version: by.version}.place(), f)
		}
	}
	return ""
}

// hiddenBeyond is a feature that cfg makes private in v, and v does not or tells more of; or
// whose values another person's key would seal. It is empty where v hides as much.
func hiddenBeyond(cfg collector.ModelConfig, v *collector.ModelVersion) string {
	h := newHanding(v.Info)
	h.takeStricter(cfg)
	here := h.done()
	for _, f := range here.Features {
		has := policyIn(v.Config, f.Name)
		if has != f.Private && collector.Stricter(has, f.Private) == f.Private {
			return f.Name
		}
		if f.Private == collector.PrivacySeal && has == f.Private && here.Subject != "" && here.Subject != v.Config.Subject {
			return f.Name
		}
	}
	return ""
}
