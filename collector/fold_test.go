package collector

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/pellucid/pellucid/collector/reading"
	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/width"
)

// rewritten are the ways in which programs write the same letters: those of x/text map one
// sign to several where Unicode does, as Python and browsers do, those of strings do not.
var rewritten = map[string]func(string) string{
	"UPPER":         cases.Upper(language.Und).String,
	"lower":         cases.Lower(language.Und).String,
	"Title":         cases.Title(language.Und).String,
	"casefold":      cases.Fold().String,
	"Turkish UPPER": cases.Upper(language.Turkish).String,
	"Turkish lower": cases.Lower(language.Turkish).String,
	"Go's UPPER":    strings.ToUpper,
	"Go's lower":    strings.ToLower,
	"NFC":           norm.NFC.String,
	"NFD":           norm.NFD.String,
	"NFKC":          norm.NFKC.String,
	"NFKD":          norm.NFKD.String,
	"wide":          width.Widen.String,
	"narrow":        width.Narrow.String,
	"one width":     width.Fold.String,
	"soft hyphens":  func(s string) string { return strings.Join(strings.Split(s, ""), "\u00ad") },
	"no width":      func(s string) string { return strings.Join(strings.Split(s, ""), "\u200b\u2060") },
}

// encodings are the ways in which what is in a text is no text.
var encodings = map[string]func(string) string{
	"base64": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"hex":    func(s string) string { return hex.EncodeToString([]byte(s)) },
	"bytes":  eachByte("%d", ", "),
	"0x":     eachByte("0x%02X", " "),
}

// letters are those of several scripts, with all that has a case mapping of its own.
var letters = func() (list []rune) {
	list = []rune("ßẞŉǰıİſﬁﬂﬀﬃﬄﬅﬆΣσςΐΰϐϑϕϖϰϱϵϲϴᾳᾼᾴῃῳǆǅǄǳǲµKÅΩẖẗẘẙẚẛՙևﬓꭰᏎაᲐᲀⅣⅷⒶ𝐀𝒵ªº™Ｅéｶガ한국ㄱｱ中文あ' -.’“”–„»‹―\u00a0\u00adＺ")
	for _, t := range []struct{ from, to rune }{{'a', 'z'}, {'A', 'Z'}, {'À', 'ʯ'}, {'Ά', 'Ͽ'}, {'Ѐ', 'ԯ'}, {'Ա', 'ֆ'}, {'Ḁ', 'ỿ'}, {'ἀ', 'ῼ'}, {'א', 'ת'}, {'ء', 'ي'}, {'अ', 'ह'}, {'０', 'ｚ'}} {
		for c := t.from; c <= t.to; c++ {
			if unicode.IsLetter(c) || unicode.IsDigit(c) {
				list = append(list, c)
			}
		}
	}
	return list
}()

// accents that stand apart; a dot above is the lower case of İ.
var accents = []rune("\u0300\u0301\u0303\u0307\u0308\u030a\u030c\u0323\u0327\u0328")

func someText(r *rand.Rand) string {
	var b strings.Builder
	for range 6 + r.IntN(8) {
		// Those with mappings of their own, and ASCII, as often as all others.
		n := []int{len(letters), 90}[r.IntN(2)]
		b.WriteRune(letters[r.IntN(n)])
		// Behind a letter with an iota below, capitals have the accent on the iota.
		if last, _ := utf8.DecodeLastRuneInString(norm.NFD.String(strings.TrimRight(b.String(), "\u00ad"))); last != '\u0345' && r.IntN(4) == 0 {
			b.WriteRune(accents[r.IntN(len(accents))])
		}
	}
	return strings.Trim(norm.NFC.String(b.String()), " \u00a0\u00ad")
}

// TestScrubberFindsWhatIsFolded: a text is found in whatever case, width and normal form, and
// in one of another, it is repeated.
func TestScrubberFindsWhatIsFolded(t *testing.T) {
	for value, said := range map[string][]string{
		"Éloïse Müller":     {"ÉLOÏSE MÜLLER", "Ｅ\u0301ｌｏｉ\u0308ｓｅ　Ｍｕ\u0308ｌｌｅｒ", "Ｅ\u0301ＬＯＩ\u0308ＳＥ ＭＵ\u0308ＬＬＥＲ"},
		"İzmirli Işık":      {"i\u0307zmirli ışık", "İZMİRLİ IŞIK", "izmirli işik", "i\u0307zmirli is\u0327ik"},
		"Groß Straßfurt":    {"GROSS STRASSFURT", "gross strassfurt", "GROẞ STRAẞFURT", "ＧＲＯＳＳ ＳＴＲＡＳＳＦＵＲＴ"},
		"ﬁnal oﬃce":         {"FINAL OFFICE", "final office", "Final Office"},
		"Οδυσσεύς Σοφός":    {"ΟΔΥΣΣΕΎΣ ΣΟΦΌΣ", "οδυσσεύσ σοφόσ", "ΟΔΥΣΣΕΥ\u0301Σ ΣΟΦΟ\u0301Σ"},
		"ᾳδης of ǰon":       {"ΑΙΔΗΣ OF J\u030cON", "αιδησ of ǰon"},
		"ŉ boer Januſ":      {"ʼN BOER JANUS", "'n boer janus"},
		"O'Hara-Smith":      {"O’Hara‑Smith", "o’hara–smith", "O&rsquo;Hara&#8209;Smith", `O\u2019Hara\u2011Smith`, "O%E2%80%99Hara-Smith"},
		"Donau\u00adschiff": {"Donauschiff", "DONAU&shy;SCHIFF"},
		`a „quote" — so`:    {"a “quote” ― so", "a »quote« ‒ so", "A «QUOTE» - SO", "a «quote» − so"},
		"it's ‚one'":        {"it’s ‘one’", "it′s ›one‹", "it's ‹one›"},
		"ガーデン 東京":           {"ｶﾞｰﾃﾞﾝ 東京", "カ\u3099ーテ\u3099ン\u3000東京"},
	} {
		x := NewScrubber(nil, []string{value})
		for _, s := range append(said, value) {
			if got := x.Text("é it is " + s + ", é"); got != "é it is ***, é" {
				t.Errorf("%s: %q becomes %q", value, s, got)
			}
		}
	}
	// What gets shorter as it is folded.
	if got := NewNameScrubber([]json.RawMessage{json.RawMessage(`"Ａ１"`), json.RawMessage(`"Ｅ\u0301"`)}).Text("risk of Ａ１"); got != "risk of ***" {
		t.Errorf("a short name: %q", got)
	}
}

// TestScrubberFindsAnyFolding: of random texts, through chains of up to three ways to write
// them again.
func TestScrubberFindsAnyFolding(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	ways := slices.Sorted(maps.Keys(rewritten))
	missed, n := 0, 0
	for range 20000 {
		value := someText(r)
		said := value
		var chain []string
		for range 1 + r.IntN(3) {
			how := ways[r.IntN(len(ways))]
			chain, said = append(chain, how), rewritten[how](said)
		}
		if len(folded(reading.Of(value)).S) < sureFrom || said == "" {
			continue
		}
		n++
		x := NewScrubber(nil, []string{value})
		for how, encoded := range encodings {
			if got := x.Text("it is " + encoded(said) + " x"); got != "it is *** x" {
				if missed++; missed < 20 {
					t.Errorf("%q is not found as %v in %s: %q becomes %q", value, chain, how, said, got)
				}
			}
		}
		for _, in := range []string{"é it is " + said + ", é", "it is " + asJSON(said)} {
			got := x.Text(in)
			if strings.Contains(got, said) || !strings.Contains(got, Masked) || strings.ContainsFunc(strings.Trim(got, "éitsUu ,*\"03a"), func(c rune) bool { return c >= utf8.RuneSelf }) {
				if missed++; missed < 20 {
					t.Errorf("%q is not found as %v: %q becomes %q", value, chain, in, got)
				}
			}
		}
	}
	t.Logf("%d of %d missed", missed, n)
	if n < 15000 {
		t.Errorf("only %d tried", n)
	}
}

func asJSON(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// TestScrubberLeavesWhatLooksAlike: letters of another script, without their accents or with
// others, and parts, are other texts.
func TestScrubberLeavesWhatLooksAlike(t *testing.T) {
	for value, others := range map[string][]string{
		"Éloïse Müller": {"Eloise Muller", "ＥＬＯＩＳＥ ＭＵＬＬＥＲ", "Elo\u0301ise Mueller", "Éloîse, Mùller", "É loïs", "éloïs\u00e9", "mulle\u0308r"},
		"Zoe Cope":      {"zoé", "ZOE\u0301, Copé", "ＺＯＥ\u0308", "Ζοе Соре"},
		"Straßfurt":     {"Strasfurt", "Straβfurt"},
		"Αθηνα":         {"Aθηνα", "Αθηνά", "Αθην"},
		"İzmir":         {"Ízmir", "ízmir", "ïzmir"},
		"Å ngström":     {"A ngstrom", "A\u0308 ngstro\u030am"},
		"2416395.5":     {"2416495.5", "²⁴¹⁶³⁹⁵", "24163\u00b9"},
		"한국어 말":         {"한구어", "하국어 말", "한국\u110b\u1165\u11ab 말"},
	} {
		x := NewScrubber([]json.RawMessage{json.RawMessage(asJSON(value))}, []string{value})
		for _, in := range others {
			if got := x.Text(in); got != in {
				t.Errorf("%s: %q becomes %q", value, in, got)
			}
		}
	}
	// A footnote beside a number is none of its digits.
	if got := NewScrubber([]json.RawMessage{json.RawMessage(`2416395.5`)}, nil).Text("of é 2416395.5² in all, ２４１６３９５．５¹"); got != "of é ***² in all, ***¹" {
		t.Errorf("a footnote: %q", got)
	}
	// Random texts, of which one letter or accent is another.
	r := rand.New(rand.NewPCG(9, 10))
	wrong := 0
	const n = 20000
	for range n {
		value := someText(r)
		signs := []rune(folded(reading.Of(value)).S)
		at := r.IntN(len(signs))
		signs[at] = letters[r.IntN(len(letters))]
		other := string(signs)
		want := folded(reading.Of(value)).S
		if len(want) < sureFrom || strings.ContainsRune(want, ' ') || strings.Contains(folded(reading.Of(other)).S, want) {
			continue
		}
		if NewScrubber(nil, []string{value}).Text(other) != other {
			if wrong++; wrong < 20 {
				t.Errorf("%q becomes %q for %q", other, NewScrubber(nil, []string{value}).Text(other), value)
			}
		}
	}
}

// FuzzFolded: each byte of what a text is folded to has its place in the text, and the fold of
// each of its normal forms is the same.
func FuzzFolded(f *testing.F) {
	r := rand.New(rand.NewPCG(13, 14))
	for range 40 {
		f.Add(someText(r))
	}
	f.Add("a\xff\u0301\u0301\xcc i\u0316\u0307 \u1100\u1161")
	f.Fuzz(func(t *testing.T, s string) {
		got := folded(reading.Of(s))
		for i := range len(got.S) {
			if got.Begin(i) > got.Begin(i+1) {
				t.Fatalf("%q is folded to %q, byte %d at %d, the next at %d", s, got.S, i, got.Begin(i), got.Begin(i+1))
			}
		}
		if end := got.Begin(len(got.S)); end != len(s) {
			t.Fatalf("%q is folded to %q, which ends at %d", s, got.S, end)
		}
		// Normal forms part what has more accents than 30.
		if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsMark) && utf8.RuneCountInString(s) > 30 {
			return
		}
		for _, form := range []norm.Form{norm.NFC, norm.NFD, norm.NFKC, norm.NFKD} {
			if other := folded(reading.Of(form.String(s))).S; other != got.S {
				t.Errorf("%+q is folded to %+q, %+q to %+q", s, got.S, form.String(s), other)
			}
		}
	})
}
