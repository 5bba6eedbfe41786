package capture

import (
	"encoding/binary"
	"unicode"
	"unicode/utf8"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/reading"
)

// plain is r with digits of any script, full-width signs and white space in ASCII, and without
// what is not seen before letters and digits of that, white space and the signs of groups:
// by which the forms know it.
func plain(r reading.Text) reading.Text {
	w := reading.Rewrite(r)
	for i := ascii(r.S); i < len(r.S); {
		c, n := utf8.DecodeRuneInString(r.S[i:])
		hidden := 0
		if c >= utf8.RuneSelf {
			hidden = unseen(r.S[i:])
		}
		switch sign := inASCII(c); {
		case hidden > 0: // all of them: they are looked at once
			n = hidden
			switch next := signAt(r.S, i+n); {
			case next == '+' || next == '(': // a number begins, also right behind a word
				w.Add(i, ' ')
			case ofGroups(next):
				w.Change(i)
			default:
				w.Keep(i, n)
			}
		case sign != 0:
			w.Add(i, sign)
		default:
			w.Keep(i, n)
		}
		i += n
	}
	r, _ = w.Done()
	return r
}

// ofGroups reports whether c is of a number in groups or of what parts these.
func ofGroups(c byte) bool {
	return isAlnum(c) || c == ' ' || c >= '\t' && c <= '\r' || c == '-' || c == '.' || c == '/' || c == ')'
}

// inASCII is collector.InASCII with white space, of which U+200B has no width.
func inASCII(c rune) byte {
	switch {
	case c < utf8.RuneSelf:
		return 0
	case c == '\u0085' || c == '\u2028' || c == '\u2029':
		return '\n'
	case c == '\ufe58' || c == '\ufe63':
		return '-'
	case c == '\u200b' || unicode.IsSpace(c):
		return ' '
	}
	return collector.InASCII(c)
}

// unseen is how many bytes of signs that are not seen s begins with.
func unseen(s string) int {
	for i, c := range s {
		if c < utf8.RuneSelf || inASCII(c) != 0 || !collector.Ignorable(c) {
			return i
		}
	}
	return len(s)
}

// signAt is ASCII's sign at i, or what stands for one; 0 for any other.
func signAt(s string, i int) byte {
	c, _ := utf8.DecodeRuneInString(s[i:])
	if c < utf8.RuneSelf && i < len(s) {
		return byte(c)
	}
	return inASCII(c)
}

// ascii is how many bytes at least, in eights, s begins with that are ASCII, all of them where
// it has no others.
func ascii(s string) int {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		if binary.LittleEndian.Uint64([]byte(s[i:i+8]))&0x8080808080808080 != 0 {
			return i
		}
	}
	for k := i; k < len(s); k++ {
		if s[k] >= utf8.RuneSelf {
			return i
		}
	}
	return len(s)
}
