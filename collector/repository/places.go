package repository

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// handing gathers what a version takes over from the configurations of others.
type handing struct {
	cfg  collector.ModelConfig
	info *engine.Info
	// names are what the version calls its features, numbered those that only number them.
	names    []string
	numbered map[string]place
	// unplaced is set where something is private that is found here neither by its name nor
	// by its place.
	unplaced bool
}

func newHanding(info *engine.Info) *handing {
	info = collector.AllContent(info) // which becomes a feature by what is taken over
	h := &handing{info: info, names: collector.FieldNames(info)}
	h.numbered = numberedIn(h.names)
	return h
}

// take adds what cfg says is private of the features that nobody spoke of before.
func (h *handing) take(cfg collector.ModelConfig) {
	for _, f := range cfg.Features {
		if f.Private != collector.PrivacyNone {
			h.hide(f, h.here(f.Name, cfg.FeatureNames))
		}
	}
	if names := h.here(cfg.Subject, cfg.FeatureNames); len(names) > 0 && h.cfg.Subject == "" {
		h.cfg.Subject = names[0]
	}
}

// takePlaces is take of what has another name here: rules of the server, which hide what has
// theirs themselves.
func (h *handing) takePlaces(cfg collector.ModelConfig) {
	for _, f := range cfg.Features {
		if f.Private != collector.PrivacyNone && !slices.Contains(h.names, f.Name) {
			h.hide(f, h.here(f.Name, cfg.FeatureNames))
		}
	}
}

func (h *handing) hide(f collector.FeatureConfig, names []string) {
	h.unplaced = h.unplaced || len(names) == 0
	for _, name := range names {
		if !slices.ContainsFunc(h.cfg.Features, func(o collector.FeatureConfig) bool { return o.Name == name }) {
			h.cfg.Features = append(h.cfg.Features, collector.FeatureConfig{Name: name, Private: f.Private})
		}
	}
}

// here is what a feature of another version is called in this one: the same; the parts of
// its tensor; or what is in its place among columns, where these are so many as here.
func (h *handing) here(name string, columns []string) (out []string) {
	if name == "" {
		return nil
	}
	if slices.Contains(h.names, name) {
		return []string{name}
	}
	at := slices.Index(columns, name)
	if at >= 0 && h.info.Format != collector.ImportedFormat {
		if len(columns) == len(h.info.Features) {
			return []string{h.info.Features[at].Name}
		}
		return nil
	}
	places := map[string]map[int]string{}
	for _, n := range h.names {
		p, ok := h.numbered[n]
		if !ok {
			continue
		}
		if p.of == name+"[" {
			out = append(out, n)
			continue
		}
		if places[p.of] == nil {
			places[p.of] = map[int]string{}
		}
		places[p.of][p.at] = n
	}
	for _, of := range places {
		if at >= 0 && len(of) == len(columns) && whole(of) {
			out = append(out, of[at])
		}
	}
	return out
}

// whole reports whether places are all from 0 on.
func whole(places map[int]string) bool {
	for i := range len(places) {
		if _, ok := places[i]; !ok {
			return false
		}
	}
	return true
}

// done is what is taken over. Where something private is under no name here, what has no name
// of its own may be it, and is dropped.
func (h *handing) done() collector.ModelConfig {
	if !h.unplaced {
		return h.cfg
	}
	for _, name := range h.names {
		if _, ok := h.numbered[name]; ok {
			h.hide(collector.FeatureConfig{Private: collector.PrivacyDrop}, []string{name})
		}
	}
	return h.cfg
}

// unnamedRule are names that only number what they are of: f0, Column_3, input[2], 7.
var unnamedRule = regexp.MustCompile(`^(?i:([fxvc]|feat|features?|cols?|columns?|inputs?|in|args?|fields?|var|variables?|dim|values?|data|tensor|arr)?[ _.:-]*([0-9]+)|(.*)\[([0-9]+)((?:[\]\[,; ]+[0-9]+)*)\])$`)

// place is what a name says that only numbers: a place in what.
type place struct {
	of string
	at int
}

// digits are the numbers in a name, in any script.
var digits = regexp.MustCompile(`[\p{Nd}\p{No}\p{Nl}]+`)

// numberedIn finds the names that only number: those of a known form, and all that differ in
// nothing but their numbers, whatever they are called otherwise.
func numberedIn(names []string) map[string]place {
	out, alike := map[string]place{}, map[string]int{}
	for _, name := range names {
		alike[digits.ReplaceAllString(name, "0")]++
	}
	for _, name := range names {
		form := digits.ReplaceAllString(name, "0")
		if of, at, ok := unnamed(name); ok {
			out[name] = place{of, at}
		} else if alike[form] > 1 && digits.MatchString(name) {
			at := -1
			if all := digits.FindAllString(name, -1); len(all) == 1 {
				if n, err := strconv.Atoi(all[0]); err == nil {
					at = n
				}
			}
			out[name] = place{form, at}
		}
	}
	return out
}

// unnamed takes a name apart that only says a place: what it is a place in, and the place, -1
// where that has several numbers.
func unnamed(name string) (stem string, at int, ok bool) {
	m := unnamedRule.FindStringSubmatch(name)
	if m == nil {
		return "", 0, false
	}
	number := m[2]
	if stem = strings.ToLower(m[1]); number == "" {
		stem, number = m[3]+"[", m[4]
	}
	at, err := strconv.Atoi(number)
	if err != nil || m[5] != "" {
		at = -1
	}
	return stem, at, true
}

// columnsOf are the names of the columns of a version whose model is known, in their order.
func columnsOf(v *collector.ModelVersion) []string {
	if v.Info.Format == collector.ImportedFormat || v.Info.Features == nil {
		return nil
	}
	return collector.FieldNames(v.Info)
}

// inOrder gives what a version says, or an upstream where version is empty, the names of the
// model's columns, where it has none.
func (r *Repository) inOrder(name, version string, cfg collector.ModelConfig) collector.ModelConfig {
	if len(cfg.FeatureNames) > 0 {
		return cfg
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	cfg.FeatureNames = r.inForce[name][version].FeatureNames
	if m := r.models[name]; m != nil {
		for _, s := range m.versions {
			if s.live != nil && !s.live.elsewhere && (version == "" || s.source.version == version) {
				cfg.FeatureNames = columnsOf(s.live.version)
				break
			}
		}
	}
	return cfg
}

// orders tells what is known of the order of a model's columns, by which what its versions
// hide is found in those whose columns have no names.
func (r *Repository) orders(name string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m := r.models[name]
	if m == nil {
		return ""
	}
	var b strings.Builder
	for _, s := range m.versions {
		if s.live != nil && !s.live.elsewhere {
			fmt.Fprintf(&b, "%s %q\n", s.source.version, columnsOf(s.live.version))
		}
	}
	return b.String()
}

// byRules adds to h what the server's rules hide in the other versions of a model, and what
// one names of it that none of them has.
func (r *Repository) byRules(h *handing, name, but string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	known := slices.Clone(h.names)
	if m := r.models[name]; m != nil {
		for _, s := range m.versions {
			if s.live == nil || s.source.version == but {
				continue
			}
			v := s.live.version
			cfg := collector.ModelConfig{FeatureNames: columnsOf(v)}
			collector.ApplyPrivateRules(r.cfg.Rules, name, v.Info, &cfg)
			known = append(known, collector.FieldNames(v.Info)...)
			h.takePlaces(cfg)
		}
	}
	for _, rule := range r.cfg.Rules {
		feature, of := strings.CutPrefix(rule.Pattern, name+".")
		if of && h.info.Format == collector.ImportedFormat && !strings.Contains(feature, "*") && !slices.Contains(known, feature) {
			h.unplaced = true
		}
	}
}
