package collector

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestScrubber(t *testing.T) {
	var raw []json.RawMessage
	for _, s := range []string{`"SSN-920"`, `"SSN-9200"`, `41`, `123456.703125`, `1e3`, `"NO"`, `true`, `null`, `"x"`, `7`, `["inner", 55.5]`, `{`} {
		raw = append(raw, json.RawMessage(s))
	}
	x := NewScrubber(raw, []string{"text value"})
	for in, want := range map[string]string{
		"":                                   "",
		"score SSN-920: bad":                 "score ***: bad",
		"idSSN-9200x":                        "id***x",
		"age 41, 410 and 141, (41)":          "age ***, 410 and 141, (***)",
		"123456.703125 is 123456.7":          "*** is ***",
		"1000 or 1e3 of NO, NOT NO_":         "*** or *** of ***, NOT NO_",
		"x is true, null or 7":               "x is true, null or 7",
		"the inner one, 55.5, a text value.": "the *** one, ***, a ***.",
		"\xff NO \xff":                       "\xff *** \xff",
	} {
		if got := x.Text(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	forms := NewScrubber([]json.RawMessage{json.RawMessage(`"Zoë \"Q\" O'Hara & Co"`), json.RawMessage(`"[{\"role\":\"user\",\"content\":\"my secret\"}]"`), json.RawMessage(`"  Smith, Ann "`)}, nil)
	for in, want := range map[string]string{
		`bad Zo\u00eb \"Q\" O'Hara & Co!`:                   "bad ***!",
		"bad Zoë &#34;Q&#34; O&#39;Hara &amp; Co":           "bad ***",
		"GET /x?n=Zo%C3%AB+%22Q%22+O%27Hara+%26+Co HTTP/1":  "GET /x?n=*** HTTP/1",
		"content filter: my secret":                         "content filter: ***",
		"no Smith, Ann here, no SMITH, ANN; and no Smith,x": "no *** here, no ***; and no ***x",
	} {
		if got := forms.Text(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := NewScrubber(nil, []string{strings.Repeat("x", maxScrubbed)}).Text("anything"); got != Masked {
		t.Errorf("too much to look for: %q", got)
	}
	if got := x.Long("NO SSN-920"); got != "NO ***" {
		t.Errorf("long ones only: %q", got)
	}
	if got := (Scrubber{}).Text("a 41"); got != "a 41" {
		t.Errorf("nothing to take out: %q", got)
	}
}

func FuzzScrubber(f *testing.F) {
	f.Add(`"ab"`, "ab cd", "xab")
	f.Fuzz(func(t *testing.T, raw, value, text string) {
		x := NewScrubber([]json.RawMessage{json.RawMessage(raw)}, []string{value})
		if got := x.Text(text); len(value) >= wholeFrom && !strings.Contains(value, "*") && strings.Contains(got, value) {
			t.Errorf("%q became %q, which has %q", text, got, value)
		}
	})
}
