package repository

import (
	"cmp"
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
	// names are what the version calls its features, numbered those that only number them, and
	// columns all in their order, where that is known.
	names, columns []string
	numbered       map[string]place
	// unplaced is set where something is private that is found here neither by its name nor
	// by its place, anywhere where that was only numbered: any column may be it.
	unplaced, anywhere bool
	// byName has places not count.
	byName bool
}

func newHanding(info *engine.Info) *handing {
	info = collector.AllContent(info) // which becomes a feature by what is taken over
	h := &handing{info: info, names: collector.FieldNames(info), columns: columnsOf(info)}
	h.numbered = numberedIn(h.names)
	return h
}

// take adds what cfg says is private of the features that nobody spoke of before. known are what
// the version that says so calls its own features, as far as that is known.
func (h *handing) take(cfg collector.ModelConfig, known []string) {
	h.each(cfg, h.here(cfg, known), func(have, how collector.Privacy) collector.Privacy { return cmp.Or(have, how) })
}

// takeStricter is take of what is said of this very version, which counts beside what others say as
// far as it tells less. What it calls alike is another feature.
func (h *handing) takeStricter(cfg collector.ModelConfig) {
	here := h.here(cfg, nil)
	h.each(cfg, func(name string) []string {
		if slices.Contains(h.names, name) {
			return []string{name}
		}
		return here(name)
	}, collector.Stricter)
}

// here tells what a feature of another version is called in this one: the same, or like it; or what
// is in its place.
func (h *handing) here(cfg collector.ModelConfig, known []string) func(name string) []string {
	return func(name string) []string {
		if like := h.like(name, known, cfg); len(like) > 0 || name == "" || h.byName {
			return like
		}
		return h.byPlace(name, cfg.FeatureNames)
	}
}

func (h *handing) each(cfg collector.ModelConfig, here func(name string) []string, of func(have, how collector.Privacy) collector.Privacy) {
	for _, f := range cfg.Features {
		if f.Private == collector.PrivacyNone {
			continue
		}
		names := here(f.Name)
		if len(names) == 0 {
			h.unplaced, h.anywhere = true, h.anywhere || onlyNumbers(f.Name, cfg.FeatureNames)
		}
		for _, name := range names {
			h.hide(name, f.Private, of)
		}
	}
	if names := here(cfg.Subject); len(names) > 0 && h.cfg.Subject == "" {
		h.cfg.Subject = names[0]
	}
}

// hide makes a feature private in the one of two ways that of chooses.
func (h *handing) hide(name string, how collector.Privacy, of func(have, how collector.Privacy) collector.Privacy) {
	i := slices.IndexFunc(h.cfg.Features, func(f collector.FeatureConfig) bool { return f.Name == name })
	if i < 0 {
		h.cfg.Features = append(h.cfg.Features, collector.FeatureConfig{Name: name, Private: how})
		return
	}
	h.cfg.Features[i].Private = of(h.cfg.Features[i].Private, how)
}

// like are the features called as one of another version is, the very same first, and like it where
// that version knows no such feature.
func (h *handing) like(name string, known []string, cfg collector.ModelConfig) (out []string) {
	for _, n := range h.names {
		switch {
		case n == name:
			out = slices.Insert(out, 0, n)
		case !collector.Alike(n, name) || slices.Contains(known, n) || slices.Contains(cfg.FeatureNames, n):
		case !slices.ContainsFunc(cfg.Features, func(f collector.FeatureConfig) bool { return f.Name == n }):
			out = append(out, n)
		}
	}
	return out
}

// byPlace is what a feature of another version is called in this one that has another name: what is
// in its place among columns, where these are so many as here, or the parts of its tensor.
func (h *handing) byPlace(name string, columns []string) (out []string) {
	at := slices.Index(columns, name)
	if at >= 0 && len(columns) == len(h.columns) {
		return []string{h.columns[at]}
	}
	if at >= 0 && h.info.Format != collector.ImportedFormat {
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
// of its own may be it, and is dropped; where that has none itself all is.
func (h *handing) done() collector.ModelConfig {
	if !h.unplaced {
		return h.cfg
	}
	for _, name := range h.names {
		if _, ok := h.numbered[name]; ok || h.anywhere {
			h.hide(name, collector.PrivacyDrop, func(have, how collector.Privacy) collector.Privacy { return cmp.Or(have, how) })
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

// onlyNumbers reports whether a feature of a version only numbers its column: its name does, and so
// do those of its columns, where they are known.
func onlyNumbers(name string, columns []string) bool {
	if len(columns) > 0 {
		return len(numberedIn(columns)) == len(columns)
	}
	_, _, ok := unnamed(name)
	return ok
}

// columnsOf are the names of a model's columns in their order: of one that is known by imported rows
// alone where they are numbered.
func columnsOf(info *engine.Info) []string {
	names := collector.FieldNames(info)
	if info.Features == nil {
		return nil
	}
	if info.Format != collector.ImportedFormat {
		return names
	}
	numbered := numberedIn(names)
	columns := make([]string, len(names))
	for name, p := range numbered {
		if p.at < 0 || p.at >= len(names) || columns[p.at] != "" || p.of != numbered[names[0]].of {
			return nil
		}
		columns[p.at] = name
	}
	if len(numbered) < len(names) {
		return nil
	}
	return columns
}

// Columns are the names of a version's columns in their order, nil where it is not known. That of
// one that is known by rows with names is that of the served versions that have the same names, if
// these agree.
func (r *Repository) Columns(name, version string) []string {
	v, err := r.Known(name, version)
	if err != nil {
		return nil
	}
	return r.order(name, v.Info)
}

// order is Columns of a version of a model that is known by info.
func (r *Repository) order(name string, info *engine.Info) (columns []string) {
	if columns = columnsOf(info); columns != nil || info.Features == nil {
		return columns
	}
	names := slices.Sorted(slices.Values(collector.FieldNames(info)))
	r.mu.RLock()
	defer r.mu.RUnlock()
	orders := map[string][]string{} // of versions that are served, or were
	for version, said := range r.inForce[name] {
		orders[version] = said.FeatureNames
	}
	if m := r.models[name]; m != nil {
		for _, s := range m.versions {
			if s.live != nil && !s.live.elsewhere {
				orders[s.source.version] = s.live.columns
			}
		}
	}
	for _, have := range orders {
		switch {
		case !slices.Equal(slices.Sorted(slices.Values(have)), names):
		case columns != nil && !slices.Equal(columns, have):
			return nil
		default:
			columns = have
		}
	}
	return columns
}

// inOrder gives what a version says, or an upstream where version is empty, the names of the
// model's columns, where it has none, and tells what it calls its features, as far as that is known.
func (r *Repository) inOrder(name, version string, cfg collector.ModelConfig) (ordered collector.ModelConfig, known []string) {
	if len(cfg.FeatureNames) > 0 {
		return cfg, nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	columns := r.inForce[name][version].FeatureNames
	if m := r.models[name]; m != nil {
		for _, s := range m.versions {
			if s.live != nil && (s.source.version == version || version == "" && !s.live.elsewhere) {
				columns, known = s.live.columns, collector.FieldNames(s.live.version.Info)
				break
			}
		}
	}
	cfg.FeatureNames = columns
	return cfg, known
}

// orders tells what is known of the order of a model's columns, by which what its versions hide is
// found in those whose columns have other names: all of it or, for a served version, that of those
// that it may take something over from. The caller holds mu.
func (m *model) orders(served string) string {
	var b strings.Builder
	for _, s := range m.versions {
		if s.live == nil || s.live.columns == nil || served != "" && (s.source.version == served || s.live.inherited != nil && !s.live.own) {
			continue
		}
		fmt.Fprintf(&b, "%s %q\n", s.source.version, s.live.columns)
	}
	return b.String()
}

func (r *Repository) orders(name, served string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m := r.models[name]; m != nil {
		return m.orders(served)
	}
	return ""
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
			cfg := collector.ModelConfig{FeatureNames: s.live.columns}
			collector.ApplyPrivateRules(r.cfg.Rules, name, v.Info, &cfg)
			of := collector.FieldNames(v.Info)
			known = append(known, of...)
			cfg.Features = slices.DeleteFunc(cfg.Features, func(f collector.FeatureConfig) bool {
				return slices.Contains(h.names, f.Name) // which the rules hide themselves
			})
			h.each(cfg, h.here(cfg, of), collector.Stricter)
		}
	}
	for _, rule := range r.cfg.Rules {
		feature, of := strings.CutPrefix(rule.Pattern, name+".")
		if of && h.info.Format == collector.ImportedFormat && !strings.Contains(feature, "*") && !slices.Contains(known, feature) {
			h.unplaced = true
		}
	}
}
