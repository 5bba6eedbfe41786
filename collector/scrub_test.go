package collector

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/pellucid/pellucid/collector/reading"
	"golang.org/x/text/unicode/norm"
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

// TestScrubberFindsOtherAccents: one sign may be written as a letter and its accent.
func TestScrubberFindsOtherAccents(t *testing.T) {
	values := []string{"Zoë Müller", "Ngô Đình Việt", "né", "한국어", "straße Å 7"}
	for form, other := range map[norm.Form]norm.Form{norm.NFC: norm.NFD, norm.NFD: norm.NFC} {
		for _, value := range values {
			x := NewScrubber(nil, []string{form.String(value)})
			for how, say := range escaped {
				if len(value) < sureFrom && how != "as it is" || strings.HasSuffix(how, "UTF-16") {
					continue // short values, and what is beyond ASCII in UTF-16, are not looked for
				}
				for _, said := range []string{other.String(value), form.String(value)} {
					in := "ä̈ is " + say(said) + " é"
					if got := x.Text(in); got != "ä̈ is "+Masked+" é" && got != "ä̈ is \""+Masked+"\" é" && (how == "as it is" || strings.Contains(got, say(said)) || !strings.HasPrefix(got, "ä̈ is ") || !strings.HasSuffix(got, " é")) {
						t.Errorf("%s: %+q becomes %+q", how, in, got)
					}
				}
			}
		}
		x := NewScrubber(nil, []string{form.String("Zoë Müller")})
		for in, want := range map[string]string{
			"so ZOE\u0308 MU\u0308LLER e\u0301":            "so *** e\u0301",
			"so zoe\u0308, or mu\u0308ller\u0308s":         "so ***, or ***s",
			"\xffe\u0301 Zoe\u0308 Mu\u0308ller\xff\u0301": "\xffe\u0301 ***\xff\u0301",
			"Ｚｏë　Mu\u0308ＬＬＥＲ Ｚｏe\u0308":                   "*** ***",
			"Zoe Muller, u\u0308, e\u0308":                 "Zoe Muller, u\u0308, e\u0308",
		} {
			if got := x.Text(in); got != want {
				t.Errorf("%d: %+q becomes %+q, want %+q", form, in, got, want)
			}
		}
		if got := NewNameScrubber([]json.RawMessage{json.RawMessage(`"` + form.String("Zoë Müller") + `"`)}).Text("risk of " + other.String("Zoë MÜLLER")); got != "risk of ***" {
			t.Errorf("a name: %q", got)
		}
	}
}

// TestScrubberFindsWhatIsWrittenAnotherWay: encoded, grouped and rounded values.
func TestScrubberFindsWhatIsWrittenAnotherWay(t *testing.T) {
	x := NewScrubber([]json.RawMessage{json.RawMessage(`"SSN-920-11"`), json.RawMessage(`1234567.5`), json.RawMessage(`-1234.56789`), json.RawMessage(`0.000123456`), json.RawMessage(`52000`), json.RawMessage(`"a1b2"`), json.RawMessage(`2026.31`)}, nil)
	for _, in := range []string{
		base64.StdEncoding.EncodeToString([]byte("SSN-920-11")), base64.RawURLEncoding.EncodeToString([]byte("SSN-920-11")), base64.RawStdEncoding.EncodeToString([]byte("a1b2")),
		base64.StdEncoding.EncodeToString([]byte("ＳＳＮ－９２０－１１")), hex.EncodeToString([]byte("𝐒𝐒𝐍-𝟗𝟐𝟎-𝟏𝟏")), eachByte("%d", ",")("s\u00ads\u00adn‐٩٢٠‐١١"), eachByte("%02x", ":")("ａ１Ｂ２"), hex.EncodeToString([]byte("A1b2")),
		base64.StdEncoding.EncodeToString([]byte("١٢٣٤٥٦٧٫٥")), hex.EncodeToString([]byte("1\u00ad2\u00ad3\u00ad4567.5")), "1\u00ad2\u00ad3\u00ad4567.5",
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
		`gerda wei\xdfkopf`:                                                "gerda",
		`Gerda%20Wei%DFkopf`:                                               "kopf",
		`Gerda Wei\337kopf`:                                                "kopf",
		`gerda\x20wei\xc3\x9fkopf`:                                         "gerda",
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

// eachRune writes every sign of a text in a form of its own.
func eachRune(format string) func(string) string {
	return func(s string) string {
		var b strings.Builder
		for _, c := range s {
			fmt.Fprintf(&b, format, c)
		}
		return b.String()
	}
}

func eachByte(format, between string) func(string) string {
	return func(s string) string {
		var parts []string
		for i := range len(s) {
			parts = append(parts, fmt.Sprintf(format, s[i]))
		}
		return strings.Join(parts, between)
	}
}

// utf16Bytes writes ASCII as UTF-16.
func utf16Bytes(s string) string {
	var b []byte
	for _, c := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return string(b)
}

// escaped are the ways to write a text again that README.md says are read.
var escaped = map[string]func(string) string{
	"as it is":         func(s string) string { return s },
	"query":            url.QueryEscape,
	"path":             url.PathEscape,
	"percent":          eachByte("%%%02x", ""),
	"PERCENT":          eachByte("%%%02X", ""),
	"percent u":        eachRune("%%u%04x"),
	"HTML":             html.EscapeString,
	"decimal entities": eachRune("&#%d;"),
	"entities":         eachRune("&#x%x;"),
	"ENTITIES":         eachRune("&#X%04X;"),
	`\u`:               eachUnit(`\u%04x`),
	`\U`:               eachRune(`\U%08X`),
	`\u{}`:             eachRune(`\u{%x}`),
	`\x`:               eachByte(`\x%02x`, ""),
	`\x of signs`: func(s string) string {
		if strings.ContainsFunc(s, func(c rune) bool { return c > 0xFF }) {
			return s
		}
		return eachRune(`\x%02x`)(s)
	},
	"octal":            eachByte(`\%03o`, ""),
	"JSON":             func(s string) string { b, _ := json.Marshal(s); return string(b) },
	"JSON in JSON":     func(s string) string { b, _ := json.Marshal(s); b, _ = json.Marshal(string(b)); return string(b) },
	"percent twice":    func(s string) string { return eachByte("%%%02x", "")(eachByte("%%%02x", "")(s)) },
	"base64":           func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"base64 in an URL": func(s string) string { return url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("?>" + s))) },
	"base64 twice": func(s string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString([]byte(s))))
	},
	"base64 of hex":     func(s string) string { return base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString([]byte(s)))) },
	"base64 of percent": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(eachByte("%%%02x", "")(s))) },
	"base64 of UTF-16":  func(s string) string { return base64.StdEncoding.EncodeToString([]byte(utf16Bytes(s))) },
	"hex":               func(s string) string { return hex.EncodeToString([]byte(s)) },
	"HEX":               func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
	"0x":                func(s string) string { return "0x" + hex.EncodeToString([]byte(s)) },
	"within hex":        func(s string) string { return "cafe" + hex.EncodeToString([]byte(s)) + "0" },
	"entities of UTF-16": func(s string) string {
		return strings.ReplaceAll(utf16Bytes(s), "\x00", "&#0;")
	},
	"hex of UTF-16": func(s string) string { return hex.EncodeToString([]byte(utf16Bytes(s))) },
	"hex by colons": eachByte("%02X", ":"),
	"hex by spaces": eachByte("%02x", " "),
	"hex by dashes": eachByte("%02x", "-"),
	"Go's bytes":    eachByte("%#02x", ", "),
	"JSON's bytes":  eachByte("%d", ","),
	"bytes":         eachByte("%d", " "),
}

// eachUnit writes every unit of UTF-16.
func eachUnit(format string) func(string) string {
	return func(s string) string {
		var b strings.Builder
		for _, c := range utf16.Encode([]rune(s)) {
			fmt.Fprintf(&b, format, c)
		}
		return b.String()
	}
}

// TestScrubberReadsNumbers: a number that is escaped or encoded is found as a text is,
// whatever its length, grouped and rounded too.
func TestScrubberReadsNumbers(t *testing.T) {
	x := NewScrubber([]json.RawMessage{json.RawMessage(`2416395.5`), json.RawMessage(`3693.25`), json.RawMessage(`3455.2`), json.RawMessage(`61803`), json.RawMessage(`"Ab-7"`), json.RawMessage(`"Quux12"`)}, nil)
	for _, value := range []string{"2416395.5", "2,416,395.5", "2,416,395.50", "2.416.395,5", "2'416'395.5", "2 416 395.5", "2\u202f416\u00a0395,5", "2\u2009416\u2009395.5", "2\u2019416\u2019395.5", "2416396", "3693.25", "3,693.25", "3693.3", "3455.2", "3,455.2", "61803", "61,803", "61 803", "Ab-7", "Quux12"} {
		for name, escape := range escaped {
			if strings.HasSuffix(name, "UTF-16") && strings.ContainsFunc(value, func(c rune) bool { return c >= utf8.RuneSelf }) {
				continue // read where it is ASCII
			}
			in := escape(value)
			for _, text := range []string{x.Text("amount " + in + " is high"), x.Long(`{"v":"` + in + `"}`)} {
				if rest := strings.Trim(text, `{}"\v:amount ishg*0x`); rest != "" || !strings.Contains(text, Masked) {
					t.Errorf("%s of %s: %q became %q", name, value, in, text)
				}
			}
		}
	}
	for _, text := range []string{
		"٢٤١٦٣٩٥٫٥", "२४१६३९५.५", "２，４１６，３９５．５", "\U0001d7d0\U0001d7d2\U0001d7cf\U0001d7d4\U0001d7d1\U0001d7d7\U0001d7d3.5", "2&comma;416&comma;395&period;5", "2&nbsp;416&thinsp;395.5", "2%2C416%2C395.5", "2&#44;416&#44;395.5", `2\u002c416\u002c395.5`, "%24%32416395.5", "3693%2E25", "2+416+395.5", "value=%242%2C416%2C395.5&x=1",
	} {
		if got := x.Long(text); strings.Contains(got, "39") || strings.Contains(got, "５") || strings.Contains(got, "٥") || strings.Contains(got, "५") || strings.Contains(got, "\U0001d7d0") {
			t.Errorf("%s became %s", text, got)
		}
	}
	if got := NewScrubber([]json.RawMessage{json.RawMessage(`"NO"`), json.RawMessage(`417`)}, nil).Text(`{"a":"x\nNO","b":"%34%31%37", "c": "NOT%20NO%20"}`); got != `{"a":"x\n***","b":"***", "c": "NOT%20***%20"}` {
		t.Errorf("short values: %s", got)
	}
}

// TestScrubberLeavesNumbers: what is escaped, listed or grouped by spaces and no value
// stays as it is.
func TestScrubberLeavesNumbers(t *testing.T) {
	x := NewScrubber([]json.RawMessage{json.RawMessage(`2416395.5`), json.RawMessage(`417`), json.RawMessage(`7400`), json.RawMessage(`55.5`), json.RawMessage(`"Zoe"`)}, nil)
	for _, text := range []string{
		"rows 2 416 of 395", "ports 416 395, 2 418 000", "10%2C418.5 and 4%2E18", "7%2C400%2C000", `"a\n7\t400"`, "5&#53;.6", "the mac is aa:bb:cc:dd:ee:ff at 12:00:00-07:00", "[1 2 3 4 5 6] and 1, 2, 3, 4", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"1732680000000 418000", "a 7 401 b", "55,5%, 100%25", "deadbeef cafebabe 0xdeadbeef", "４１８ is wide, ２，４１９", "中文，标点，四", "UUID 123e4567-e89b-12d3-a456-426614173000", `Zoedeer &Zoedeer; \u{zz} \u{} %u12 \x{`, "\\417x",
	} {
		if got := x.Text(text); got != text {
			t.Errorf("%s became %s", text, got)
		}
	}
	// Lists of numbers are as often near a value as their parts are.
	r := rand.New(rand.NewPCG(5, 6))
	wrong := 0
	const n = 20000
	for range n {
		for _, s := range []string{fmt.Sprintf("%d %d %d", r.IntN(1000), r.IntN(1000), r.IntN(1000)), fmt.Sprint(r.Perm(8)), fmt.Sprintf("% x", r.Uint64()), fmt.Sprintf("a%%2C%d%%2C%d", r.IntN(1e4), r.IntN(1000)), fmt.Sprintf("%x", r.Uint32()), fmt.Sprintf("%016x", r.Uint64())} {
			if x.Text(s) != s && !strings.Contains(s, "417") && !strings.Contains(s, "7400") {
				wrong++
			}
		}
	}
	if wrong > n/1000 {
		t.Errorf("%d of %d are taken for values", wrong, 6*n)
	}
}

// TestScrubberPrecision: what is no value stays, of thousands of numbers and hashes.
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
		(&search{x: &x, least: wholeFrom, w: w}).encoded(nil, reading.Of(c.text), 0)
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

// FuzzScrubberEscaped: a value of eight bytes and more is found in whatever way that is
// promised it is written again, whatever stands beside it.
func FuzzScrubberEscaped(f *testing.F) {
	ways := slices.Sorted(maps.Keys(escaped))
	for i := range ways {
		f.Add("SSN-920-11", "1 2 3", `53 \u`, uint8(i))
		f.Add("2416395.5", "%2", "%2C416", uint8(i))
		f.Add("Zoë \"Q\" <O'Hara> & Co + 1", "&#4", "", uint8(i))
	}
	f.Fuzz(func(t *testing.T, value, before, after string, how uint8) {
		way := ways[int(how)%len(ways)]
		value = strings.TrimSpace(value)
		strange := func(c rune) bool {
			return !unicode.IsPrint(c) || c == '*' || c >= utf8.RuneSelf && strings.HasSuffix(way, "UTF-16")
		}
		if len(value) < sureFrom || !utf8.ValidString(value) || strings.ContainsFunc(value, strange) {
			return
		}
		in := escaped[way](value)
		text := before + " " + in + " " + after
		for _, x := range []Scrubber{NewScrubber(nil, []string{value}), NewScrubber(nil, []string{value, "12345.5", "name " + before})} {
			for _, got := range []string{x.Text(text), x.Long(text), x.Sure(text)} {
				if strings.Contains(got, in) {
					t.Errorf("%s: %q became %q, which has %q", way, text, got, in)
				}
			}
		}
	})
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

// TestShortWordsAreFolded: words of two and three bytes are found however they are written.
func TestShortWordsAreFolded(t *testing.T) {
	x := NewScrubber(nil, []string{"Kq", "Jö", "ßq", "İx", "41"})
	for in, want := range map[string]string{
		"Kq kQ KQ zzKqww zz.Kq": "*** *** *** zzKqww zz.***",
		"Jö JÖ Ｊö ＪÖ Ｊo\u0308":  "*** *** *** *** ***",
		"ßq SSQ ssq":            "*** *** ***",
		"İx i\u0307x":           "*** ***",
		"４１ ٤١ 4\u00ad1 410":    "*** *** *** 410",
	} {
		if got := x.Text(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
