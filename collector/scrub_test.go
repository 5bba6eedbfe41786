package collector

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
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

// TestScrubberFindsWhatIsWrittenAnotherWay: encoded, grouped and rounded values.
func TestScrubberFindsWhatIsWrittenAnotherWay(t *testing.T) {
	x := NewScrubber([]json.RawMessage{json.RawMessage(`"SSN-920-11"`), json.RawMessage(`1234567.5`), json.RawMessage(`-1234.56789`), json.RawMessage(`0.000123456`), json.RawMessage(`52000`), json.RawMessage(`"a1b2"`), json.RawMessage(`2026.31`)}, nil)
	for _, in := range []string{
		base64.StdEncoding.EncodeToString([]byte("SSN-920-11")), base64.RawURLEncoding.EncodeToString([]byte("SSN-920-11")), base64.RawStdEncoding.EncodeToString([]byte("a1b2")),
		base64.StdEncoding.EncodeToString([]byte(`{"n":"SSN-920-11"}`)), base64.URLEncoding.EncodeToString([]byte("\xff\xfe\xfdx SSN-920-11 of 1,234,567.5")),
		"/x" + base64.StdEncoding.EncodeToString([]byte("SSN-920-11")), "ab/" + base64.StdEncoding.EncodeToString([]byte("SSN-920-11")),
		hex.EncodeToString([]byte("SSN-920-11")), strings.ToUpper(hex.EncodeToString([]byte("id SSN-920-11 x"))), "0x" + hex.EncodeToString([]byte("SSN-920-11")), "f" + hex.EncodeToString([]byte("SSN-920-11")),
		"1,234,567.5", "1_234_567.5", "1'234'567.5", "1.234.567,5", "1,234,567.50", "1234567.50", "1234567.500", "1234567.5000", "1234567.500000", "1.234568e+06", "1.2345675e+06", "1.2345675E6", "1.23457e+06", "1234568",
		"-1234.57", "1234.568", "1234.5679", "1234.567890", "1,234.57", "-1.234568e+03", "1234.57", "1.235e3", "1.234560e-04", "0.00012346", "1.23456e-4", "52,000", "52_000.00", "52000.00",
		"[9,1234.57,8]", "(1234.57)", "x=1234.57;", "2026.3",
	} {
		got := x.Long("the " + in + " of")
		if rest := strings.Trim(strings.TrimSuffix(strings.TrimPrefix(got, "the "), " of"), "*-[](),;=x890."); rest != "" || got == "the "+in+" of" {
			t.Errorf("%q became %q", in, got)
		}
	}
	for _, in := range []string{
		"at 2026-05-01T12:00:00.123Z", "year 2026, port 1235, 1234 rows", "10.0.0.1:8080", "1,235 rows", "0.00 of 0.0001", "12.34 ms", "1.2.3", "v1.23", "1234.5.67", "1233.57", "1234.561", "1,234,568.5", "52,001", "520,00", "5,2000",
		"da39a3ee5e6b4b0d3255bfef95601890afd80709", "5b8efff798038103d269b633813fc60c", "transaction authorization", "c29tZXRoaW5nIGVsc2UgZW50aXJlbHk=", "https://example.org/path/to/things?x=1", "a1b", "A1B_2", "SSN-921-11",
	} {
		if got := x.Text(in); got != in {
			t.Errorf("%q became %q", in, got)
		}
	}
	for in, want := range map[string]bool{"": false, "hello\n": false, "no SSN-920-11": true, "\x00\x01": true, "\xff": true, "é": false} {
		if x.Bytes([]byte(in)) != want || (Scrubber{}).Bytes([]byte(in)) {
			t.Errorf("bytes %q", in)
		}
	}
	if got := NewScrubber(nil, []string{"shop", "QXCANARYQX"}).Sure("webshop QXCANARYQX"); got != "webshop ***" {
		t.Errorf("a program's name: %q", got)
	}
}

// TestScrubberPrecision: what is no value stays, of thousands of numbers and hashes.
// TestScrubberReads: what a stranger found in clear, and its like.
func TestScrubberReads(t *testing.T) {
	long := "Lindenthalqx " + strings.Repeat("z", 1500)
	s := NewScrubber([]json.RawMessage{json.RawMessage(`918273645.75`)}, []string{
		"O'Brian Quux1", "d'Q4kqab", "Qtmnc/2", `Qone/x?y, Ulm; (z) & "N" <b>`, "‹Qangle›", long, "Gerda Weißkopf", "Anna Zimmerhagen", "Doro O'Tannhauser", "Emil d'Ambrosetti", "Zoë😀x",
	})
	for text, leak := range map[string]string{
		`bad name O&#x27;Brian Quux1 given`: "Brian",
		`bad name d&#x27;Q4kqab`:            "Q4kqab",
		`bad name d&apos;Q4kqab`:            "Q4kqab",
		`{"v":"Qtmnc\/2"}`:                  "Qtmnc",
		`in /p/Qone/x%3Fy%2C%20Ulm%3B%20%28z%29%20%26%20%22N%22%20%3Cb%3E`: "Qone",
		`in /p/Qone%2Fx%3Fy%2c%20Ulm%3b%20(z)%20%26%20%22N%22%20%3cb%3e`:   "Qone",
		`in /p?v=Qone%2Fx%3Fy%2C+Ulm%3B+%28z%29+%26+%22N%22+%3Cb%3E`:       "Qone",
		`%e2%80%b9Qangle%e2%80%ba`:                                         "Qangle",
		`\u2039Qangle\u203A`:                                               "Qangle",
		`no Lindenthalqx there`:                                            "Lindenthalqx",
		`no GERDA WEISSKOPF there`:                                         "WEISSKOPF",
		`no zimmerhagen there`:                                             "zimmerhagen",
		`O&#39;Tannhauser`:                                                 "Tannhauser",
		`O&#39Tannhauser &lt;x&gt;`:                                        "Tannhauser",
		`WHERE name = 'd''Ambrosetti'`:                                     "Ambrosetti",
		`'O\'Tannhauser'`:                                                  "Tannhauser",
		`int 918273645 there`:                                              "918273645",
		`{"a":"{\"b\":\"O\\u0027Brian Quux1\"}"}`:                          "Brian",
		`"Zo\u00EB\ud83d\ude00X"`:                                          "ud83d",
		`%25C3%259F gerda%2520wei%25C3%259Fkopf`:                           "gerda",
	} {
		if got := s.Text(text); strings.Contains(got, leak) {
			t.Errorf("%s: %s", text, got)
		}
	}
	for _, text := range []string{"a plain message, 12 % of it", "100%25 of &amp; and \\n", "SELECT 'x''y'", "brianson is not a name here", "port 8080, id 918273", "&;%zz\\u12\\x&#;"} {
		if got := s.Text(text); got != text {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func TestScrubberPrecision(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var raw []json.RawMessage
	for i := range 15 {
		raw = append(raw, json.RawMessage(fmt.Sprint(r.Float64()*1e6)), json.RawMessage(fmt.Sprintf(`"name %x"`, r.Uint32()+uint32(i))))
	}
	x := NewScrubber(raw, nil)
	const n = 20000
	wrong := 0
	for range n {
		for _, s := range []string{fmt.Sprintf("took %.2f ms", r.Float64()*1e4), fmt.Sprint(r.Uint64()), fmt.Sprintf("%032x", r.Uint64()), fmt.Sprintf("%d rows", r.IntN(1e6)), fmt.Sprintf("%.6g", r.Float64()*1e6), base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%d", r.Uint64()))} {
			if got := x.Text(s); got != s {
				wrong++
			}
		}
	}
	// A number of six digits is near one of fifteen values by chance.
	if wrong > n/1000 {
		t.Errorf("%d of %d are taken for values", wrong, 6*n)
	}
}

func TestScrubbersJoin(t *testing.T) {
	a, b := NewScrubber([]json.RawMessage{json.RawMessage(`"first one"`), json.RawMessage(`"NO"`)}, nil), NewScrubber([]json.RawMessage{json.RawMessage(`1234.5678`), json.RawMessage(`"first"`)}, nil)
	both := a.Join(b)
	if got := both.Text("the first one of NO at 1,234.57, first"); got != "the *** of *** at ***, ***" {
		t.Errorf("joined: %q", got)
	}
	if a.Text("1234.57") != "1234.57" || b.Text("NO") != "NO" || !(Scrubber{}).Empty() || (Scrubber{}).Join(a).Text("first one") != Masked || both.Size() < a.Size()/2 {
		t.Error("the parts have changed")
	}
	if full := NewScrubber(nil, []string{strings.Repeat("x", maxScrubbed)}); !full.Join(a).Full() || !a.Join(full).Full() {
		t.Error("too much is not too much with more")
	}
}

// TestScrubbingIsBounded: values and texts that share long beginnings take no more steps
// than a text of that length may, and a text that would is masked whole.
func TestScrubbingIsBounded(t *testing.T) {
	long := strings.Repeat("ab", 32<<10)
	var values, nested []string
	for i := range 64 {
		values = append(values, long[:len(long)-200+2*i]+fmt.Sprintf("x%d", i))
	}
	for i := range 2000 {
		nested = append(nested, strings.Repeat("ab", 2+i))
	}
	for name, c := range map[string]struct {
		values []string
		text   string
	}{
		"common beginnings": {values, long + "y"},
		"one beginning":     {values[:1], strings.Repeat("ab", 64<<10)},
		"in base64":         {values, base64.StdEncoding.EncodeToString([]byte(long + "y"))},
		"no value, shorter": {nested[1990:], strings.Repeat(strings.Repeat("ab", 1980)+"y", 16)},
	} {
		x := NewScrubber(nil, c.values)
		w := stepsFor(c.text)
		budget := w.left
		x.encoded(c.text, wholeFrom, w)
		for i := range c.text {
			x.long.at(c.text[i:], wholeFrom, w)
		}
		// The last look may go beyond by itself, and no other does anything.
		if used := budget - w.left; used > budget+8*len(long) {
			t.Errorf("%s: %d steps of %d", name, used, budget)
		}
		if got := x.Long(c.text); got != Masked && name != "no value, shorter" {
			t.Errorf("%s: %d bytes are left", name, len(got))
		}
	}
	// What repeats a long value is found in it, as is a part of others'.
	x := NewScrubber(nil, append(slices.Clone(values), nested...))
	if got := x.Long("it said " + values[7] + "."); got != "it said ***." {
		t.Errorf("a long value: %.100q", got)
	}
	w := stepsFor("")
	if n := x.long.at(nested[100]+"z", wholeFrom, w); n != len(nested[100]) || stepsFor("").left-w.left > 8192 {
		t.Errorf("%d bytes found, %d steps", n, stepsFor("").left-w.left)
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
