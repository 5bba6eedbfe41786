package repository

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// Policies says what of a row's features is private in a version whose predictions are made
// elsewhere, as External would record them now, also where that would make the version. Its
// errors are External's: nothing of such a row is to be taken while there is one.
func (r *Repository) Policies(name, version string, features []string) (map[string]collector.Privacy, error) {
	v, err := r.recorded(name, version)
	if err == nil {
		return policiesOf(v.Config, features, collector.FieldNames(v.Info)), nil
	}
	if !nameRule.MatchString(name) || !nameRule.MatchString(version) {
		return nil, nameError()
	}
	own, cfg, err := r.unmade(name, version, err)
	if err != nil {
		return nil, err
	}
	info := &engine.Info{Format: collector.ImportedFormat, Features: make([]engine.Feature, len(features))}
	for i, f := range features {
		info.Features[i].Name = f
	}
	if !own {
		if cfg, err = r.inherited(name, version, info); err != nil {
			return nil, besideError(name, version, err)
		}
	}
	if err := r.Protect(name, info, &cfg); err != nil {
		return nil, closedError(name, version, err.Error())
	}
	if own {
		return policiesOf(cfg, features, nil), nil
	}
	return cfg.Policies(), nil
}

// OutputNamed returns which of the outputs of a version that imports are about to make has the name
// of what is private in it or in another version of its model, or is called like it; "" is none.
// Its errors are those of Policies.
func (r *Repository) OutputNamed(name, version string, outputs []string) (string, error) {
	version = cmp.Or(version, "1")
	if !nameRule.MatchString(name) || !nameRule.MatchString(version) {
		return "", nameError()
	}
	own, cfg, err := r.unmade(name, version, collector.ErrNotReady)
	if err != nil {
		return "", err
	}
	info := &engine.Info{Format: collector.ImportedFormat}
	for _, o := range outputs {
		info.Features = append(info.Features, engine.Feature{Name: o})
	}
	if !own {
		sources, err := r.beside(name)
		if err != nil {
			return "", besideError(name, version, err)
		}
		h := newHanding(info)
		h.byName = true
		if err := r.gather(h, name, version, sources, r.ownSaid(name, version)); err != nil {
			return "", besideError(name, version, err)
		}
		cfg = h.cfg
	}
	if err := r.Protect(name, info, &cfg); err != nil {
		return "", closedError(name, version, err.Error())
	}
	for _, o := range outputs {
		if cfg.Policy(o) != collector.PrivacyNone || cfg.PrivateAlike(o) != collector.PrivacyNone {
			return o, nil
		}
	}
	return "", nil
}

// policiesOf are the policies of a version with those of a row's features that are called like a
// private one. Those that the version knows are what it says; where it is not known yet, what is
// called alike is another feature in a row that has the private one too.
func policiesOf(cfg collector.ModelConfig, features, known []string) map[string]collector.Privacy {
	out := cfg.Policies()
	like := collector.ModelConfig{Features: slices.DeleteFunc(slices.Clone(cfg.Features), func(f collector.FeatureConfig) bool {
		return slices.Contains(features, f.Name) && !slices.Contains(known, f.Name)
	})}
	for _, name := range features {
		says := slices.ContainsFunc(cfg.Features, func(f collector.FeatureConfig) bool { return f.Name == name })
		if says || slices.Contains(known, name) {
			continue
		}
		if how := like.PrivateAlike(name); how != collector.PrivacyNone {
			out[name] = how
		}
	}
	return out
}

// unmade is what a model.yaml says, if one does, of a version that imports have not made yet;
// its error is why they may not make it, unknown why it was not found.
func (r *Repository) unmade(name, version string, unknown error) (own bool, cfg collector.ModelConfig, err error) {
	r.mu.RLock()
	s := r.slotOf(name, version)
	if s != nil {
		as := *s // it may change meanwhile
		s = &as
	}
	why := r.unseenBy(name)
	r.mu.RUnlock()
	if why != "" {
		return false, cfg, r.unseenError(name, why)
	}
	if s != nil && (s.source.file != "" || s.closed != "" || s.source.trouble != nil) {
		return false, cfg, unknown // it is on disk and did not load: that is to be mended first
	}
	if s != nil && s.source.dir == "" {
		s = nil // known by its predictions only: nothing of it is on disk
	}
	if s == nil && !r.isRemote(name) {
		// Its folder may have come since the models were last looked at.
		if s, err = r.newFolder(name, version); err != nil {
			return false, cfg, err
		}
	}
	if s == nil {
		return false, cfg, nil
	}
	if cfg, err = r.declared(s); err != nil {
		return false, cfg, closedError(name, version, err.Error())
	}
	return true, cfg, nil
}

func nameError() error {
	return fmt.Errorf("a model's and a version's name have letters, digits, '.', '_' and '-' only, 128 at most: %w", collector.ErrRefused)
}

func besideError(name, version string, err error) error {
	return closedError(name, version, "what is private in its model's other versions cannot be read: "+err.Error())
}
