package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"html/template"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
)

// The values that must be nowhere but in the request: a text, whose letters no escape of a
// protocol changes, and a number. A page that writes the number with four digits or more
// writes an exponent, so that no count or time is met that has the same digits by chance.
const (
	canaryText   = "QXCANARYQX"
	canaryNumber = 7318492.5 // a float32 whose digits are its own
	canaryDigits = "7318492.5"
)

// digits writes a number as requests have it.
func digits(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// form is one way to write a canary.
type form struct {
	what string
	b    []byte
	// alone is a number that may be part of another one: it counts where it stands alone.
	alone bool
}

// canaryForms are all ways to write a canary that are looked for: folded where capitals and
// small letters are alike, and exact.
func canaryForms() (folded, exact []form) {
	add := func(what, text string) { folded = append(folded, form{what: what, b: []byte(strings.ToLower(text))}) }
	texts := append([]string{canaryText}, numberTexts()...)
	for _, text := range texts {
		add("plain", text)
		wide := utf16.Encode([]rune(text))
		var little []byte
		for _, unit := range wide {
			little = binary.LittleEndian.AppendUint16(little, unit)
		}
		add("UTF-16", string(little[:len(little)-1])) // which the other order holds, too
		for what, one := range map[string]string{"hexadecimal": "%02x", "bytes in hexadecimal": " %02x", "escaped by \\x": `\x%02x`, "escaped by %": "%%%02x", "escaped twice": "%%25%02x", "escaped by \\u": `\u%04x`, "HTML": "&#%d;", "HTML in hexadecimal": "&#x%x;", "a list": " %d", "a list with commas": ",%d"} {
			var all strings.Builder
			for _, b := range []byte(text) {
				fmt.Fprintf(&all, one, b)
			}
			add(what, strings.TrimLeft(all.String(), " ,"))
		}
		once := url.QueryEscape(text)
		for what, escaped := range map[string]string{"URL": once, "URL twice": url.QueryEscape(once), "HTML": strings.ReplaceAll(template.HTMLEscapeString(text), "+", "&#43;"), "JSON": strings.ReplaceAll(text, "+", `\u002b`)} {
			if escaped != text {
				add(what, escaped)
			}
		}
		exact = append(exact, inBase64([]byte(text))...)
	}
	for _, whole := range []float64{math.Floor(canaryNumber), math.Ceil(canaryNumber)} {
		folded = append(folded, form{"rounded", []byte(digits(whole)), true})
	}
	single, double := math.Float32bits(canaryNumber), math.Float64bits(canaryNumber)
	add("bits of float32", strconv.FormatUint(uint64(single), 10))
	add("bits of float64", strconv.FormatUint(double, 10))
	for what, raw := range map[string][]byte{
		"float32": binary.LittleEndian.AppendUint32(nil, single), "float32, big end first": binary.BigEndian.AppendUint32(nil, single),
		"float64": binary.LittleEndian.AppendUint64(nil, double), "float64, big end first": binary.BigEndian.AppendUint64(nil, double),
	} {
		exact = append(exact, form{what: what, b: raw})
		add(what+" in hexadecimal", hex.EncodeToString(raw))
		if len(raw) == 8 { // of four bytes there would be four letters, which are met by chance
			exact = append(exact, inBase64(raw)...)
		}
	}
	return folded, exact
}

// numberTexts are the number in digits, up to where they are its own.
func numberTexts() []string {
	out := []string{canaryDigits}
	for _, whole := range []string{"7%s318%s492", "7%s318%s493"} {
		for _, sep := range []string{",", " ", "'", "_", "\u202f", "\u00a0", "."} {
			out = append(out, fmt.Sprintf(whole, sep, sep))
		}
	}
	for _, size := range []int{32, 64} {
		for _, precision := range []int{-1, 8, 7, 6, 5, 4} {
			mantissa, _, _ := strings.Cut(strconv.FormatFloat(canaryNumber, 'e', max(precision-1, -1), size), "e")
			for _, exponent := range []string{"e+06", "e6", "e06"} {
				out = append(out, mantissa+exponent)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// inBase64 are bytes at each of the offsets at which they can stand in base64, without the
// letters that say something of their neighbours.
func inBase64(raw []byte) (out []form) {
	for offset := range 3 {
		padded := append(make([]byte, offset), raw...)
		from, to := (8*offset+5)/6, 8*len(padded)/6
		for what, as := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64 for URLs": base64.RawURLEncoding} {
			out = append(out, form{what: what, b: []byte(as.EncodeToString(padded)[from:to])})
		}
	}
	return out
}

// finder has forms by their first two bytes.
type finder [1 << 16][]form

func newFinder(forms []form) *finder {
	f := &finder{}
	for _, x := range forms {
		at := binary.LittleEndian.Uint16(x.b)
		if !slices.ContainsFunc(f[at], func(y form) bool { return bytes.Equal(x.b, y.b) }) {
			f[at] = append(f[at], x)
		}
	}
	return f
}

// find returns the first of the forms that b holds, and where.
func (f *finder) find(b []byte) (found string, at int) {
	for i := range max(len(b)-1, 0) {
		for _, x := range f[binary.LittleEndian.Uint16(b[i:])] {
			if bytes.HasPrefix(b[i:], x.b) && !(x.alone && (i > 0 && partOfNumber(b[i-1]) || i+len(x.b) < len(b) && partOfNumber(b[i+len(x.b)]))) {
				return fmt.Sprintf("%s %q", x.what, x.b), i
			}
		}
	}
	return "", 0
}

// partOfNumber reports whether a byte beside digits makes them part of something else.
func partOfNumber(c byte) bool {
	return c == '.' || c == '-' || c == '_' || c >= 0x80 || c-'0' < 10 || c|0x20-'a' < 26
}

var foldedForms, exactForms = func() (a, b *finder) {
	folded, exact := canaryForms()
	return newFinder(folded), newFinder(exact)
}()

// leaks returns what of the canaries is in b.
func leaks(b []byte) string {
	found, _ := leaksAt(b)
	return found
}

// leaksAt also returns where it is.
func leaksAt(b []byte) (found string, at int) {
	if found, at = exactForms.find(b); found != "" {
		return found, at
	}
	small := bytes.Clone(b)
	for i, c := range small {
		if c-'A' < 26 {
			small[i] = c | 0x20
		}
	}
	return foldedForms.find(small)
}

// TestLeaksAreSeen in whatever form they have, and nothing else is taken for one.
func TestLeaksAreSeen(t *testing.T) {
	var little, big []byte
	for _, unit := range utf16.Encode([]rune("a " + canaryText)) {
		little, big = binary.LittleEndian.AppendUint16(little, unit), binary.BigEndian.AppendUint16(big, unit)
	}
	single, double := math.Float32bits(canaryNumber), math.Float64bits(canaryNumber)
	seen := []string{
		canaryText, "x" + canaryText + "y", strings.ToLower(canaryText), "Qxcanaryqx", canaryMail, string(little), string(big),
		hex.EncodeToString([]byte("a" + canaryText)), strings.ToUpper(hex.EncodeToString([]byte(canaryText))), fmt.Sprintf("% x", canaryText), fmt.Sprintf("%d", []byte(canaryText)),
		`\u0051\u0058\u0043\u0041\u004e\u0041\u0052\u0059\u0051\u0058`, "%51%58%43%41%4E%41%52%59%51%58", "%2551%2558%2543%2541%254e%2541%2552%2559%2551%2558",
		"temp 7318492.500", "7.3184925e+06", "7.3184925E6", "7.31849e+06", "7.3185e+06", "7.318e+06", "7,318,492.50", "7\u202f318\u202f493", "7 318 492", "a=7318492 ", "[7318493]", "e=7.3184925e%2B06", "7.3184925e%252B06", "7%2C318%2C492.5", "7.31849e&#43;06", `7.31849e\u002b06`,
		string(binary.LittleEndian.AppendUint32([]byte("x"), single)), string(binary.BigEndian.AppendUint32([]byte("x"), single)), string(binary.LittleEndian.AppendUint64([]byte("x"), double)), string(binary.BigEndian.AppendUint64([]byte("x"), double)),
		fmt.Sprintf("%x", single), fmt.Sprintf("%X", double), fmt.Sprint(single), fmt.Sprint(double),
	}
	for _, format := range []string{"%v", "%g", "%.7g", "%.6g", "%.5g", "%.4g", "%e", "%f", "%.0f", "%.1f", "%.4f"} {
		seen = append(seen, fmt.Sprintf(format, canaryNumber), fmt.Sprintf(format, float32(canaryNumber)))
	}
	for _, b := range [][]byte{[]byte(canaryText), []byte(canaryDigits), binary.LittleEndian.AppendUint64(nil, double)} {
		for offset := range 3 {
			padded := append(append(bytes.Repeat([]byte{0xfb}, offset), b...), "xyz"...)
			seen = append(seen, base64.StdEncoding.EncodeToString(padded), base64.URLEncoding.EncodeToString(padded))
		}
	}
	for _, text := range seen {
		if leaks([]byte(text)) == "" {
			t.Errorf("%q would not be seen", text)
		}
	}
	for _, text := range []string{"", "7", "QXCANARY", "17318492", "0.7318493", "7318492000", "12.7318493", "a7318492f", "7318492-1", "7.31e+06", "7.32e+06", "7.31849", "7.3185e-05", "7e+06"} {
		if found := leaks([]byte(text)); found != "" {
			t.Errorf("%q is taken for %s", text, found)
		}
	}
}
