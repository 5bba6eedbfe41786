package collector

import (
	"reflect"
	"strings"
	"testing"
)

func TestPrivateRules(t *testing.T) {
	rules, err := ParsePrivateRules(map[string]string{"*.age": "hash", "loans.*": "bucket", "loans.inc*e": "seal", "*.ssn": "true", "other.x": "mask"})
	if err != nil || len(rules) != 5 {
		t.Fatal(rules, err)
	}
	cfg := ModelConfig{Features: []FeatureConfig{{Name: "age", Kind: "numeric", Private: PrivacyMask}, {Name: "city", Private: PrivacyNone}}}
	before := cfg.Features[0]
	got := cfg
	ApplyPrivateRules(rules, "loans", privateInfo(false), &got)
	want := []FeatureConfig{{Name: "age", Kind: "numeric", Private: PrivacyMask}, {Name: "city", Private: PrivacyBucket}, {Name: "income", Private: PrivacySeal}}
	if !reflect.DeepEqual(got.Features, want) || cfg.Features[0] != before || cfg.Features[1].Private != PrivacyNone {
		t.Errorf("%+v, before %+v", got.Features, cfg.Features)
	}
	got = ModelConfig{}
	ApplyPrivateRules(rules, "risk", privateInfo(true), &got)
	if !reflect.DeepEqual(got.Features, []FeatureConfig{{Name: "age", Private: PrivacyHash}}) {
		t.Errorf("%+v", got.Features)
	}
	if ApplyPrivateRules(nil, "risk", privateInfo(true), &cfg); len(cfg.Features) != 2 {
		t.Errorf("%+v", cfg.Features)
	}
	for _, pattern := range []string{" a.email", "a.email ", "a. email", "a .email", "*. email", "\ta.email", "a.email\u00a0", "a.b .email"} {
		if _, err := ParsePrivateRules(map[string]string{pattern: "hash"}); err == nil || !strings.Contains(err.Error(), "white space") {
			t.Errorf("%q: %v", pattern, err)
		}
	}
	if _, err := ParsePrivateRules(map[string]string{"a.home address": "hash", "a.*email": "drop"}); err != nil {
		t.Errorf("a name of two words: %v", err)
	}
	for pattern, policy := range map[string]string{"*.a": "hide", "*.b": "", "*.c": "false", "email": "drop", "*.d": "Seal", ".income": "drop", "imp.": "mask"} {
		if _, err := ParsePrivateRules(map[string]string{pattern: policy}); err == nil || !strings.Contains(err.Error(), pattern) {
			t.Errorf("%s: %s: %v", pattern, policy, err)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a.b", "a.b", true},
		{"a.b", "a.bc", false},
		{"*.größe", "a.gro\u0308ße", true},
		{"*.gro\u0308ße", "a.größe", true},
		{"*.income", "a.ｉｎｃｏｍｅ", true},
		{"*.income", "a.in\u00adcome", true},
		{"*.income", "a.INCOME", false},
		{"*.b", "a.b", true},
		{"*.b", "a.x.b", true},
		{"*.b", ".b", true},
		{"*.b", "a.bb", false},
		{"a.*", "a.anything.at.all", true},
		{"a.*", "b.a.x", false},
		{"*", "x", true},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"*.*mail*", "m.email_home", true},
		{"*ab*ab*", "ab", false},
		{"*ab*ab*", "xabyabz", true},
		{"a.*b*c", "a.bc", true},
		{"a.*b*c", "a.cb", false},
	} {
		if matches(c.pattern, c.name) != c.want {
			t.Errorf("%q and %q", c.pattern, c.name)
		}
	}
}
