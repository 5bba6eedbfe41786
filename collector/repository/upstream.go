package repository

import (
	"fmt"
	"path/filepath"

	"github.com/pellucid/pellucid/collector"
)

// besideUpstream is what the model.yaml files say that lie under the name of an upstream, or
// why that is not known.
type besideUpstream struct {
	said []saidBy
	why  string
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
	return found
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
			for _, said := range found.said {
				if f := hiddenBeyond(said.cfg, s.live.version); f != "" && why == "" {
					why = fmt.Sprintf("%s makes %q private, which the upstream's configuration does not", source{name: name, version: said.version}.place(), f)
				}
			}
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
