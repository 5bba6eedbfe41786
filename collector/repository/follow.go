package repository

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// follow holds the imported versions that have no model.yaml, or none any more, against those
// beside them: what they take over changes with these, and where one of these cannot be
// taken up nothing is recorded of them. It runs before what has changed is loaded, which may
// be long, and after, when it is known whether that fits.
func (r *Repository) follow(look uint64, only string, forced bool) {
	r.external.Lock()
	defer r.external.Unlock()
	beside, orders := map[string]string{}, map[string]string{}
	for _, f := range r.followers(only) {
		name := f.source.name
		if _, ok := beside[name]; !ok {
			beside[name], orders[name] = r.besideNow(name), r.orders(name, "")
		}
		s := source{name: name, version: f.source.version, bare: true, rules: noRules + "\n" + beside[name], orders: orders[name], look: look}
		if !forced && f.settled && f.source.rules == s.rules && f.source.orders == s.orders || r.saysItself(s) || r.hasModel(s) {
			continue
		}
		if err := r.followOne(s, f.digest, forced); err != nil {
			r.astray(s, err)
		}
	}
}

// follower is an imported version without a folder, be it that it never had one.
type follower struct {
	source source
	digest string
	// settled is unset where the version waits, is closed or stands beside one that cannot
	// be taken up.
	settled bool
}

func (r *Repository) followers(only string) []follower {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []follower
	for name, m := range r.models {
		if only != "" && name != only || r.unseenBy(name) != "" {
			continue
		}
		troubled := slices.ContainsFunc(m.versions, func(s *slot) bool { return s.untold != "" })
		for _, s := range m.versions {
			if s.live != nil && s.live.elsewhere && s.source.dir == "" {
				out = append(out, follower{s.source, s.live.version.Digest, !troubled && s.closed == "" && s.pending.rules == ""})
			}
		}
	}
	return out
}

// saysItself reports whether a version has a model.yaml, which is about to be read.
func (r *Repository) saysItself(s source) bool {
	return r.cfg.Dir != "" && !r.isRemote(s.name) && says(filepath.Join(r.cfg.Dir, s.name, s.version))
}

// hasModel reports whether there is a model of a version on disk, which is about to be served.
func (r *Repository) hasModel(s source) bool {
	if r.cfg.Dir == "" || r.isRemote(s.name) {
		return false
	}
	if file, err := modelFile(filepath.Join(r.cfg.Dir, s.name, s.version)); file != "" || err != nil {
		return true
	}
	return s.version == bareVersion && slices.ContainsFunc(extensions, func(ext string) bool { return exists(filepath.Join(r.cfg.Dir, s.name+ext)) })
}

// besideNow is what the model.yaml of a model's versions say, as it is on disk.
func (r *Repository) besideNow(name string) string {
	if r.cfg.Dir == "" {
		return ""
	}
	return rulesBeside(filepath.Join(r.cfg.Dir, name))
}

// followOne gives an imported version what it takes over now, or lets it wait where that
// hides less. The caller holds external.
func (r *Repository) followOne(s source, digest string, forced bool) error {
	kept, err := r.keptOf(digest)
	if err != nil {
		return err
	}
	cfg, err := r.takenOver(s.name, s.version, kept)
	if err != nil {
		return err
	}
	if less, more := changed(kept.Config, cfg); !less && !more && cfg.Subject == kept.Config.Subject {
		r.settle(s)
		return nil
	}
	if !kept.Follows { // its own model.yaml has gone
		if err := r.note(s.name, s.version, r.saidOfOwn(kept)); err != nil {
			return err
		}
	}
	kept.Made, kept.Config, kept.Follows = time.Now().UTC(), cfg, true
	v, err := r.externalVersion(kept)
	if err != nil {
		return err
	}
	if r.unsure(s, v.Config, forced) {
		return nil
	}
	if err := r.keepExternal(kept, v.Digest); err != nil {
		return err
	}
	r.addRemote(&held{version: v, elsewhere: true, follows: true, said: kept.Config})
	r.settle(s)
	r.cfg.Log.Info("what is private in a model's other versions is in force", "model", s.name, "version", s.version, "private", privateFields(v))
	return nil
}

// takenOver is the configuration of a version that is known, with what it takes over now.
// Where no other has a model.yaml any more it keeps what it has beside that.
func (r *Repository) takenOver(name, version string, kept keptExternal) (collector.ModelConfig, error) {
	cfg := kept.Config
	cfg.Features = slices.Clone(cfg.Features)
	sources, err := r.beside(name)
	if err != nil {
		return cfg, err
	}
	if err := r.knownBeside(name, sources); err != nil {
		return cfg, err
	}
	if len(sources) == 0 {
		h := newHanding(kept.Info)
		h.columns = r.order(name, kept.Info)
		if remote, ok := r.cfg.Remote[name]; ok {
			remote, known := r.inOrder(name, "", remote)
			h.take(remote, known)
		}
		for _, said := range r.lastSaid(name, version, nil) {
			if !said.follows {
				h.take(said.cfg, said.known)
			}
		}
		h.takeStricter(r.saidOfOwn(kept).config())
		takeStricter(&cfg, h.done(), kept.Info)
		return collector.Suited(collector.WithContent(kept.Info, cfg), cfg), nil
	}
	from, err := r.handedOn(name, version, sources, r.saidOfOwn(kept).config(), kept.Info)
	if err != nil {
		return cfg, err
	}
	for i := range cfg.Features {
		cfg.Features[i].Private = collector.PrivacyNone
	}
	cfg.Features = slices.DeleteFunc(cfg.Features, func(f collector.FeatureConfig) bool { return f.Kind == "" })
	cfg.Subject = from.Subject
	for _, f := range from.Features {
		if i := slices.IndexFunc(cfg.Features, func(have collector.FeatureConfig) bool { return have.Name == f.Name }); i >= 0 {
			cfg.Features[i].Private = f.Private
		} else {
			cfg.Features = append(cfg.Features, f)
		}
	}
	return collector.Suited(collector.WithContent(kept.Info, cfg), cfg), nil
}

// saidOfOwn is what the model.yaml of an imported version said last that has none now, be it that it
// never came into force; nothing where it had none.
func (r *Repository) saidOfOwn(kept keptExternal) keptSaid {
	own := saidOf(r.ownSaid(kept.Name, kept.Version))
	if kept.Follows {
		return own
	}
	return own.with(saidOf(kept.Config))
}

// handedOn is what a version without a folder takes over from the configurations of the others
// of its model, on disk or as they were last, and from that of an upstream of that name. What
// its own model.yaml said last counts beside them, the stricter of each feature.
func (r *Repository) handedOn(name, version string, sources []source, own collector.ModelConfig, info *engine.Info) (collector.ModelConfig, error) {
	h := newHanding(info)
	h.columns = r.order(name, info)
	if err := r.gather(h, name, version, sources, own); err != nil {
		return h.cfg, err
	}
	return collector.Suited(h.info, h.done()), nil
}

func (r *Repository) gather(h *handing, name, version string, sources []source, own collector.ModelConfig) error {
	if err := r.knownBeside(name, sources); err != nil {
		return err
	}
	if err := r.takeFrom(h, sources); err != nil {
		return err
	}
	if cfg, ok := r.cfg.Remote[name]; ok {
		cfg, known := r.inOrder(name, "", cfg)
		h.take(cfg, known)
	}
	for _, said := range r.lastSaid(name, version, sources) {
		h.take(said.cfg, said.known)
	}
	h.takeStricter(own)
	r.byRules(h, name, version)
	return nil
}

// takeStricter adds to out what cfg says is private, the stricter of each feature of which both
// speak.
func takeStricter(out *collector.ModelConfig, cfg collector.ModelConfig, info *engine.Info) {
	h := newHanding(info)
	h.cfg = *out
	h.cfg.Features = slices.Clone(out.Features)
	h.takeStricter(cfg)
	*out = h.done()
}

// keptOn is what a served version said last that has no model.yaml any more, be it that this was
// deleted or that its folder came back without: deleting a file is no decision to publish, so that
// stays so until a model.yaml says otherwise. own is unset of what it took over from the others
// itself, which is kept where none of these says anything any more.
func (r *Repository) keptOn(s source) (said collector.ModelConfig, own bool, err error) {
	sources, err := r.beside(s.name)
	r.mu.RLock()
	defer r.mu.RUnlock()
	was, noted := r.inForce[s.name][s.version]
	if !noted || was.Follows && len(sources) > 0 {
		return said, false, err
	}
	return was.config(), !was.Follows, err
}

// keptOf reads what the store knows of an imported version.
func (r *Repository) keptOf(digest string) (kept keptExternal, err error) {
	data, err := os.ReadFile(filepath.Join(r.cfg.Store, digest, externalFile))
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err == nil && kept.Info == nil {
		err = errors.New("it says nothing of the model")
	}
	if err != nil {
		return kept, fmt.Errorf("read what is known of it: %w", err)
	}
	return kept, nil
}

// settle notes that a version is under what it takes over from the others as s found them.
func (r *Repository) settle(s source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if have := r.slotOf(s.name, s.version); have != nil && have.live != nil && have.source.look <= s.look {
		have.source = s
		have.closed, have.pending, have.reason = "", finding{}, ""
	}
}

// astray closes a version of which it is not known what it takes over.
func (r *Repository) astray(s source, err error) {
	err = r.tookOver(s.name, s.version, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.slotOf(s.name, s.version)
	if have == nil || have.live == nil || have.source.look > s.look {
		return
	}
	why := "what is private in its model's other versions cannot be taken over: " + err.Error()
	if have.closed != why {
		r.cfg.Log.Error("an imported version is closed", "model", s.name, "version", s.version, "error", why)
	}
	have.source, have.closed, have.pending = s, why, finding{}
}
