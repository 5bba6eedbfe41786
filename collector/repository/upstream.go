package repository

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// besideUpstream is what the model.yaml files say that lie under the name of an upstream, or
// why that is not known. last is what those said that were deleted, before what those did that
// hide less now and wait for a later look.
type besideUpstream struct {
	said, last, before []saidBy
	why                string
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
		found[name] = r.readUpstream(look, name, unseen[name])
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

func (r *Repository) readUpstream(look uint64, name, unseen string) (found besideUpstream) {
	if unseen != "" {
		found.why = r.withoutPlaces(unseen)
		return found
	}
	sources, err := r.beside(name)
	if err != nil {
		found.why = "what lies in its folder cannot be read: " + r.told(err)
		return found
	}
	now := map[string]keptSaid{}
	for _, s := range sources {
		written := r.written(s) // before it is read: what is written in between is found again
		cfg, err := s.parse()
		was := r.lastUnder(s)
		switch {
		case err != nil:
			found.why = cmp.Or(found.why, fmt.Sprintf("%s cannot be read: %s", s.place(), r.told(err)))
			was.Unread, was.Follows = true, false
			now[s.version] = was
			continue
		case !r.upstreamWaits(s, was, cfg, finding{written: written, look: look}):
			k := saidOf(cfg)
			k.Upstream = was.Upstream // what it said as a version here stays
			now[s.version] = k
		case was.Unread:
			found.why = cmp.Or(found.why, s.place()+" could not be read before: it is taken up when a later look finds it the same")
		default:
			found.before = append(found.before, saidBy{version: s.version, cfg: was.config()})
		}
		found.said = append(found.said, saidBy{version: s.version, cfg: cfg})
	}
	r.noteUpstream(name, now)
	if !exists(filepath.Join(r.cfg.Dir, name)) {
		return found
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for version, k := range r.inForce[name] {
		if k.Follows || slices.ContainsFunc(sources, func(s source) bool { return s.version == version }) {
			continue
		}
		if k.Unread {
			found.why = cmp.Or(found.why, source{name: name, version: version}.place()+" could not be read when it was last there, and is gone, which opens nothing")
		}
		found.last = append(found.last, saidBy{version: version, cfg: k.config()})
	}
	slices.SortFunc(found.last, func(a, b saidBy) int { return compareVersions(b.version, a.version) })
	return found
}

// lastUnder is what was noted last of a file under the name of an upstream.
func (r *Repository) lastUnder(s source) keptSaid {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if was, noted := r.inForce[s.name][s.version]; noted {
		return was
	}
	return keptSaid{Upstream: true}
}

// upstreamWaits reports whether what a file says that hides less than it did, or could not be read, is
// to be found again a look's interval later, as of any other: half a file does too.
func (r *Repository) upstreamWaits(s source, was keptSaid, cfg collector.ModelConfig, now finding) bool {
	now.rules, now.ended = digestOfText(s.text, nil), time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	have, waits := r.waiting[s.place()]
	if less, _ := changed(was.config(), cfg); !less && !was.Unread || have.again(now, r.cfg.Poll) {
		delete(r.waiting, s.place())
		return false
	}
	if !waits || have.rules != now.rules || have.written != now.written {
		r.waiting[s.place()] = now
	}
	return true
}

// noteUpstream keeps what the files under the name of an upstream say now: deleting one is no decision
// to publish what it hid. Taking out the folder is, and forgets it.
func (r *Repository) noteUpstream(name string, now map[string]keptSaid) {
	if !exists(filepath.Join(r.cfg.Dir, name)) {
		r.mu.RLock()
		for version, k := range r.inForce[name] {
			if k.Unread = false; k.Upstream {
				k = keptSaid{}
			}
			now[version] = k
		}
		r.mu.RUnlock()
	}
	for version, k := range now {
		if err := r.note(name, version, k); err != nil {
			r.noteUnkept(name, version, k, err)
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
		for _, said := range slices.Concat(found.said, found.before) {
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
				moreHidden(name, found.before, s.live.version, "%s made %q private, which the upstream's configuration does not, until now: it is taken up when a later look finds it the same"),
				moreHidden(name, found.last, s.live.version, "%s made %q private, which the upstream's configuration does not, and is gone, which opens nothing"))
		}
	}
	if found.why != "" {
		why += fmt.Sprintf(": write it so that it can be read ({} says nothing), or take the folder %q out of the models' folder; what is private belongs under features of the upstream %q in the configuration", name, name)
	} else if why != "" {
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
