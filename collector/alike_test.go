package collector

import "testing"

// TestAlike: what counts as the same name of a private feature, and what does not.
func TestAlike(t *testing.T) {
	for name, want := range map[string]bool{
		"income": true, "INCOME": true, " income\t": true, "in.income": true, "in/INCOME": true, "a.b/ income": true, ".income": true, "INCOME ": true,
		"income2": false, "incomes": false, "net_income": false, "in-income": false, "gross income": false, "income.tax": false, "in.come": false, "": false, ".": false, "come": false,
	} {
		if Alike("income", name) != want || Alike(name, "income") != want {
			t.Errorf("income and %q: alike %t", name, !want)
		}
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"net_income", "NET-INCOME", true},
		{"net_income", "in.net income", true},
		{"net_income", "in:net:income", true},
		{"income", "in\u200bcome", true},
		{"income", "income\ufe0f", true},
		{"net_income", "ＮＥＴ＿ｉｎｃｏｍｅ", true},
		{"net_income", "ｎｅｔ－ｉｎｃｏｍｅ", true},
		{"income", "ｉｎ．ｉｎｃｏｍｅ", true},
		{"größe", "gro\u0308ße", true},
		{"ファイル", "ﾌｧｲﾙ", true},
		{"income", "\ufeffincome", true},
		{"net_income", "netincome", false},
		{"user.ssn", "user_ssn", true},
		{"user.ssn", "req/user-ssn", true},
		{"user/ssn", "USER SSN", true},
		{"user_ssn", "user.ssn", true},
		{"user_ssn", "req.user/ssn", true},
		{"user_ssn", "user.x.ssn", false},
		{"user.ssn", "userssn", false},
		{"income", "in\x00come\x7f", true},
		{"income", "income[0]", true},
		{"income", "IN.Income[0,1] ", true},
		{"income", "income[0][1]", true},
		{"income[0]", "income", true},
		{"income[0]", "income[1]", false},
		{"income", "income[tax]", false},
		{"income", "income[0]x", false},
		{"income", "[0]", false},
		{"", "[0]", false},
		{"user.name", "product.name", false},
		{"user.name", "NAME", true},
		{"straße", "STRASSE", true},
		{"größe", "GRÖSSE", true},
		{"größe", "GRÖßE", true},
		{"", "", false},
		{" ", "", false},
	} {
		if Alike(c.a, c.b) != c.want {
			t.Errorf("%q and %q: alike %t", c.a, c.b, !c.want)
		}
	}
	cfg := ModelConfig{Features: []FeatureConfig{{Name: "income", Private: PrivacyBucket}, {Name: "in.income", Private: PrivacyMask}, {Name: "age"}}}
	for name, want := range map[string]Privacy{"INCOME": PrivacyMask, "x.in.income": PrivacyMask, "x.income": PrivacyBucket, "AGE": PrivacyNone} {
		if got := cfg.PrivateAlike(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
