package capture

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pellucid/pellucid/collector/reading"
)

// PatternAction is what happens to what a pattern finds in a text.
type PatternAction string

// The actions.
const (
	// PatternMask puts the pattern's name in its place, as in "[card]".
	PatternMask PatternAction = "mask"
	// PatternHash puts a keyed hash beside the name, so that the same stays the same.
	PatternHash PatternAction = "hash"
)

// Patterns finds what is private by its form in texts that nobody marked: free text,
// error messages, ids and labels. A nil one finds nothing and costs nothing.
//
// Each text is passed over once. What a pattern finds is checked as far as it can
// be (a card's and an IBAN's check digits, a country's code and length), since a text
// that only looks like it must stay what it is.
type Patterns struct {
	kinds [patternCount]bool
	hash  [patternCount]bool
	key   []byte
	// starts tells of each byte whether a pattern in use may begin there, or for
	// e-mail lie around it.
	starts [256]bool
}

type pattern int

const (
	patternCard pattern = iota
	patternEmail
	patternIBAN
	patternPhone
	patternToken
	patternCount
)

var patternNames = map[string]pattern{
	"card": patternCard, "email": patternEmail, "iban": patternIBAN, "phone": patternPhone, "token": patternToken,
}

// PatternNames lists the patterns there are.
func PatternNames() []string { return slices.Sorted(maps.Keys(patternNames)) }

// NewPatterns returns the patterns of these names with their actions. key is the
// secret of hashes, of 16 bytes at least; ids are always hashed, as they join rows.
func NewPatterns(use map[string]PatternAction, key []byte) (*Patterns, error) {
	if len(use) == 0 {
		return nil, nil //nolint:nilnil // nil patterns find nothing
	}
	if len(key) < 16 {
		return nil, fmt.Errorf("patterns need a key of at least 16 bytes")
	}
	p := &Patterns{key: key}
	for name, action := range use {
		k, ok := patternNames[name]
		if !ok {
			return nil, fmt.Errorf("pattern %q is none of %s", name, strings.Join(PatternNames(), ", "))
		}
		if action != PatternMask && action != PatternHash {
			return nil, fmt.Errorf("pattern %q: action %q is not mask or hash", name, action)
		}
		p.kinds[k], p.hash[k] = true, action == PatternHash
	}
	for c := range p.starts {
		b := byte(c)
		p.starts[c] = p.kinds[patternCard] && isDigit(b) || p.kinds[patternEmail] && b == '@' || p.kinds[patternPhone] && (b == '+' || b == '(' || isDigit(b)) ||
			p.kinds[patternIBAN] && isLetter(b) || p.kinds[patternToken] && tokenStarts[b]
	}
	return p, nil
}

// Text returns s with what the patterns find replaced.
func (p *Patterns) Text(s string) string { return p.inside(s, false) }

// ID is Text for an id that joins rows: what is found is hashed, so that it still
// does.
func (p *Patterns) ID(s string) string { return p.inside(s, true) }

// replace is s with what is found in a reading of it replaced.
func (p *Patterns) replace(s string, r reading.Text, id bool) string {
	r = plain(r)
	t := r.S
	var out strings.Builder
	done := 0
	for i := 0; i < len(t); {
		if !p.starts[t[i]] {
			i++
			continue
		}
		k, from, to := p.at(t, i, done)
		if to == 0 {
			i = skip(t, i)
			continue
		}
		out.WriteString(s[r.End(done):max(r.End(done), r.Begin(from))])
		p.write(&out, k, t[from:to], id)
		done, i = to, to
	}
	if done == 0 {
		return s
	}
	out.WriteString(s[r.End(done):])
	return out.String()
}

func (p *Patterns) write(out *strings.Builder, k pattern, found string, id bool) {
	out.WriteByte('[')
	out.WriteString(kindNames[k])
	if id || p.hash[k] {
		h := hmac.New(sha256.New, p.key)
		h.Write([]byte("pattern\x00" + kindNames[k] + "\x00" + found))
		out.WriteByte(':')
		out.WriteString(hex.EncodeToString(h.Sum(nil)[:8]))
	}
	out.WriteByte(']')
}

// Replaced reports whether a stored text has the form of one that a pattern took
// something out of.
func Replaced(s string) bool {
	for _, name := range kindNames {
		for rest := s; ; {
			_, after, ok := strings.Cut(rest, "["+name)
			if !ok {
				break
			}
			if rest = after; strings.HasPrefix(rest, "]") {
				return true
			}
			if len(rest) > hashed+1 && rest[0] == ':' && rest[hashed+1] == ']' && strings.Trim(rest[1:hashed+1], "0123456789abcdef") == "" {
				return true
			}
		}
	}
	return false
}

// hashed is how many digits stand for what was found.
const hashed = 16

var kindNames = [patternCount]string{"card", "email", "iban", "phone", "token"}

// at looks for a pattern that begins at i or, for e-mail, lies around it, though not
// before done. to is 0 where there is none.
func (p *Patterns) at(s string, i, done int) (k pattern, from, to int) {
	c := s[i]
	switch {
	case c == '@':
		if p.kinds[patternEmail] {
			from, to = findEmail(s, i, done)
		}
		return patternEmail, from, to
	case c == '+':
		if p.kinds[patternPhone] && (i == 0 || s[i-1] == '_' || !wordBefore(s, i) && s[i-1] != '+') {
			to = findPhone(s, i)
		}
		if i > done && to > 0 && closes(s, i-1, to) {
			i-- // the bracket that is closed in it
		}
		return patternPhone, i, to
	case i > done && s[i-1] == '_' && isLetter(c):
		// Names of files and parameters have these behind it.
		return p.joined(s, i)
	case i > done && wordBefore(s, i):
		// In the midst of a word; a card may be the only digits that it has.
		if p.kinds[patternCard] && isDigit(c) && !isDigit(s[i-1]) {
			to = findCard(s, i)
		}
		return patternCard, i, to
	}
	if isLetter(c) {
		return p.joined(s, i)
	}
	if p.kinds[patternCard] && isDigit(c) {
		if to = findCard(s, i); to > 0 {
			return patternCard, i, to
		}
	}
	if p.kinds[patternPhone] && (isDigit(c) || c == '(') {
		return patternPhone, i, findNational(s, i)
	}
	return 0, 0, 0
}

// joined looks for what is known by its first letters at i.
func (p *Patterns) joined(s string, i int) (k pattern, from, to int) {
	if p.kinds[patternToken] {
		if from, to = findToken(s, i); to > 0 {
			return patternToken, from, to
		}
	}
	if p.kinds[patternIBAN] {
		to = findIBAN(s, i)
	}
	return patternIBAN, i, to
}

// skip goes on after i: past the word, in which nothing begins but what may be a card, and
// behind '_' more, but to an '@' or '+'.
func skip(s string, i int) int {
	if c := s[i]; c == '(' || c == '+' || c == '@' {
		return i + 1
	}
	digit := isDigit(s[i])
	for i++; digit && i < len(s) && isDigit(s[i]); i++ {
	}
	for i < len(s) {
		c := s[i]
		if !wordBytes[c] {
			break
		}
		n := 1
		if c == '_' {
			return i + 1
		}
		if c >= utf8.RuneSelf {
			var of rune
			if of, n = utf8.DecodeRuneInString(s[i:]); !inWord(of, n) {
				break
			}
		} else if c <= '9' { // a digit
			if n = spanOf(s, i, len(s), isDigit); n == 4 || n == 6 || n >= 13 && n < 20 {
				break
			}
		}
		i += n
	}
	return i
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isUpper(c byte) bool  { return c >= 'A' && c <= 'Z' }
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isAlnum(c byte) bool  { return isDigit(c) || isLetter(c) }

// isWord reports whether c is of a word: a letter, a digit, '_'. What it takes for a letter
// beyond ASCII may be a sign, which wordAt and wordBefore know.
func isWord(c byte) bool { return wordBytes[c] }

var wordBytes = func() (in [256]bool) {
	for c := range in {
		b := byte(c)
		in[c] = isAlnum(b) || b == '_' || b >= utf8.RuneSelf
	}
	return in
}()

// wordAt reports whether what stands at i is of a word; nothing does at the end.
func wordAt(s string, i int) bool {
	return i < len(s) && isWord(s[i]) && (s[i] < utf8.RuneSelf || sign(s, i) == 0)
}

// wordBefore reports whether what stands before i, which is not the beginning, is.
func wordBefore(s string, i int) bool {
	if s[i-1] < utf8.RuneSelf {
		return isWord(s[i-1])
	}
	c, n := utf8.DecodeLastRuneInString(s[:i])
	return inWord(c, n)
}

// sign is the length of what stands at i, beyond ASCII, and is of no word; 0 where it is of one.
func sign(s string, i int) int {
	c, n := utf8.DecodeRuneInString(s[i:])
	if inWord(c, n) {
		return 0
	}
	return n
}

// inWord reports whether a sign beyond ASCII, of n bytes, goes on a word of ASCII's letters and
// digits: a Latin letter, or a mark on one. Other scripts' letters part words from them, as all
// that is no letter does, and bytes that are no sign at all.
func inWord(c rune, n int) bool {
	const latin, cjk, cjkEnd = 'À', 0x2E80, 0xA4CF
	switch {
	case c == utf8.RuneError && n < 2, c >= cjk && c <= cjkEnd:
		return false
	case c < latin:
		return c == 'ª' || c == 'µ' || c == 'º'
	}
	return unicode.Is(unicode.Latin, c) || unicode.Is(unicode.M, c)
}

// separator is the kind of what may part the groups of a number at i (' ', '-' or '.') and
// its length, 0 and 0 for anything else: all dashes are hyphens.
func separator(s string, i int) (kind byte, width int) {
	if i >= len(s) {
		return 0, 0
	}
	switch c := s[i]; {
	case c == ' ' || c == '-' || c == '.':
		return c, 1
	case c < 0xC2:
		return 0, 0
	}
	if i+2 >= len(s) || s[i] != 0xE2 {
		return 0, 0
	}
	switch s[i+1] {
	case 0x80:
		if s[i+2] < 0x90 || s[i+2] > 0x95 {
			return 0, 0
		}
	case 0x81: // the hyphen of lists
		if s[i+2] != 0x83 {
			return 0, 0
		}
	case 0x88: // the minus
		if s[i+2] != 0x92 {
			return 0, 0
		}
	default:
		return 0, 0
	}
	return '-', 3
}

// afterDash reports whether a dash beyond ASCII stands before i, and a digit before it.
func afterDash(s string, i int) bool {
	if i < 4 || s[i-3] != 0xE2 || !isDigit(s[i-4]) {
		return false
	}
	kind, width := separator(s, i-3)
	return kind == '-' && width == 3
}

// spanOf is how many bytes of s from i on, at most limit, are in a set.
func spanOf(s string, i, limit int, in func(byte) bool) int {
	n := 0
	for n < limit && i+n < len(s) && in(s[i+n]) {
		n++
	}
	return n
}
