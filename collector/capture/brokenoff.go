package capture

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pellucid/pellucid/collector/reading"
)

// A text that broke off may end in the midst of what a pattern finds: 15 of a card's digits,
// an address up to its '@'. Such a part has no check digit, length or ending to be known by,
// so what may be the beginning of one goes, whether or not it is.

// BrokenOff is Text for a text that was cut or broke off: without its last word and the groups
// of a number before that.
func (p *Patterns) BrokenOff(s string) string {
	if p == nil {
		return s
	}
	s = p.Text(s) // first, since what is whole is not known by a part of it
	r := plain(reading.Of(s))
	t := r.S
	// What is behind a space is whole, but for the groups of a number.
	word := strings.LastIndexFunc(t, unicode.IsSpace)
	if word >= 0 {
		_, width := utf8.DecodeRuneInString(t[word:])
		word += width
	}
	word = max(word, 0)
	for i := max(0, word-mostBegun); i < word; i++ {
		if p.starts[t[i]] && (i == 0 || !isDigit(t[i]) || !isDigit(t[i-1])) && p.begins(t[i:word]) {
			word = i
			break
		}
	}
	return s[:r.Begin(word)]
}

// mostBegun is how many bytes the groups of a number take: those of the longest IBAN, between
// signs of three bytes.
const mostBegun = 34 + 8*3

// mostDigits are those of the longest number without letters, a card's.
const mostDigits = 19

// begins reports whether s, all of it, may be what a card, a phone or an IBAN begins with, in
// groups.
func (p *Patterns) begins(s string) bool {
	if p.kinds[patternIBAN] && beginsIBAN(s) {
		return true
	}
	if !p.kinds[patternCard] && !p.kinds[patternPhone] {
		return false
	}
	digits := 0
	for i := 0; i < len(s); {
		width := 1
		switch {
		case isDigit(s[i]):
			digits++
		case strings.IndexByte("+()/", s[i]) < 0 || !p.kinds[patternPhone]:
			_, width = cardSign(s, i)
		}
		if width == 0 {
			return false
		}
		i += width
	}
	return digits <= mostDigits
}

// beginsIBAN is begins for an IBAN: four places that a country's begins with, and groups of
// four, of which the last may be less.
func beginsIBAN(s string) bool {
	if len(s) < 4 || !isDigit(s[2]) || !isDigit(s[3]) {
		return false
	}
	want, n := ibanLengths[strings.ToUpper(s[:2])], 0
	for i := 0; i < len(s); {
		if isAlnum(s[i]) {
			n++
			i++
			continue
		}
		_, width := cardSign(s, i)
		if width == 0 || n%4 != 0 && strings.TrimSpace(s[i+width:]) != "" {
			return false
		}
		i += width
	}
	return n <= want
}
