package collector

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/engine"
)

// PrivateRule makes features private whose "model.feature" a pattern matches, in which
// * stands for any text. Names may have dots, so a pattern may match more than was
// meant, never less.
type PrivateRule struct {
	Pattern string
	Private Privacy
}

// strictness orders policies by how little is left of a value, the least first.
var strictness = []Privacy{PrivacyDrop, PrivacyMask, PrivacySeal, PrivacyHash, PrivacyBucket}

// ParsePrivateRules reads rules by pattern. One that cannot be meant is refused: what
// should be private must not be stored because of it.
func ParsePrivateRules(rules map[string]string) ([]PrivateRule, error) {
	var out []PrivateRule
	for pattern, policy := range rules {
		p := Privacy(policy)
		if policy == "true" {
			p = PrivacyDrop
		}
		switch {
		case !p.Known():
			return nil, fmt.Errorf("%q: %q is not a policy (drop, mask, hash, bucket, seal)", pattern, policy)
		case !strings.Contains(pattern, "."):
			return nil, fmt.Errorf("%q is not of the form model.feature, as in loans.income or *.email", pattern)
		case strings.HasPrefix(pattern, ".") || strings.HasSuffix(pattern, "."):
			return nil, fmt.Errorf("%q names no model before its dot, or no feature behind it, and would meet none: write * for any", pattern)
		case spaced(pattern):
			return nil, fmt.Errorf("%q has white space at an end or beside a dot and would meet no feature: take it out, or write * for that of a name that has it", pattern)
		}
		out = append(out, PrivateRule{pattern, p})
	}
	slices.SortFunc(out, func(a, b PrivateRule) int { return strings.Compare(a.Pattern, b.Pattern) })
	return out, nil
}

// spaced reports whether a pattern has white space where a name's would be a slip.
func spaced(pattern string) bool {
	return slices.ContainsFunc(strings.Split(pattern, "."), func(part string) bool { return strings.TrimSpace(part) != part })
}

// ApplyPrivateRules adds to a configuration what the rules say of a model's features.
// Of several policies of one feature the one that leaves the least holds.
func ApplyPrivateRules(rules []PrivateRule, model string, info *engine.Info, cfg *ModelConfig) {
	if len(rules) == 0 {
		return
	}
	cfg.Features = slices.Clone(cfg.Features)
	for _, name := range FieldNames(info) {
		how := ruleFor(rules, model+"."+name)
		if how == PrivacyNone {
			continue
		}
		i := slices.IndexFunc(cfg.Features, func(f FeatureConfig) bool { return f.Name == name })
		if i < 0 {
			cfg.Features = append(cfg.Features, FeatureConfig{Name: name, Private: how})
			continue
		}
		cfg.Features[i].Private = Stricter(cfg.Features[i].Private, how)
	}
}

// Meets reports whether the rule speaks of a feature of a version.
func (r PrivateRule) Meets(v *ModelVersion) bool {
	return slices.ContainsFunc(FieldNames(v.Info), func(name string) bool { return matches(r.Pattern, v.Name+"."+name) })
}

// FieldNames are the names of the features of a model or, where it has only tensors, its inputs.
func FieldNames(info *engine.Info) (names []string) {
	for _, f := range info.Features {
		names = append(names, f.Name)
	}
	if info.Features == nil {
		for _, in := range info.Inputs {
			names = append(names, in.Name)
		}
	}
	return names
}

func ruleFor(rules []PrivateRule, name string) (how Privacy) {
	for _, r := range rules {
		if matches(r.Pattern, name) {
			how = Stricter(how, r.Private)
		}
	}
	return how
}

// Stricter is the one of two policies that tells less.
func Stricter(a, b Privacy) Privacy {
	for _, p := range strictness {
		if a == p || b == p {
			return p
		}
	}
	return PrivacyNone
}

// matches reports whether name is pattern, in which * stands for any text, however either is
// written in Unicode.
func matches(pattern, name string) bool {
	pattern, name = seen(pattern), seen(name)
	parts := strings.Split(pattern, "*")
	rest, ok := strings.CutPrefix(name, parts[0])
	if len(parts) == 1 || !ok {
		return ok && rest == ""
	}
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, p)
		if i < 0 {
			return false
		}
		rest = rest[i+len(p):]
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}
