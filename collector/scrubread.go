package collector

import (
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A text in which a value is repeated may escape it in any of many ways. It is read
// instead: what is escaped in it is made out, up to readDepth times over, and each of the
// texts that come of it is looked through in one case. Where a value is found, what it was
// read from is masked.

// readDepth bounds how often a text is read: JSON within JSON within an address.
const readDepth = 3

// reading is a text that was made of another, with where in that each of its bytes begins
// and, last, where it ends.
type reading struct {
	s  []byte
	at []int
}

func asRead(s string) reading {
	r := reading{s: []byte(s), at: make([]int, len(s)+1)}
	for i := range r.at {
		r.at[i] = i
	}
	return r
}

// add appends bytes that stand for what begins at a place.
func (r *reading) add(at int, b ...byte) {
	for range b {
		r.at = append(r.at, at)
	}
	r.s = append(r.s, b...)
}

// unescaped is r with each escape of JSON, of programming languages, of SQL, HTML and
// addresses made out; plus says that a + is a space, as in forms. changed is false where
// there is none.
func (r reading) unescaped(plus bool) (out reading, changed bool) {
	s := string(r.s)
	for i := 0; i < len(s); {
		b, n := unescape(s[i:], plus)
		if n == 0 {
			out.add(r.at[i], s[i])
			i++
			continue
		}
		changed = true
		out.add(r.at[i], b...)
		i += n
	}
	out.at = append(out.at, r.at[len(s)])
	return out, changed
}

// unescape returns what the escape that s begins with stands for and how long it is, 0
// where it begins with none.
func unescape(s string, plus bool) ([]byte, int) {
	switch s[0] {
	case '%':
		if v, ok := hexOf(s, 1, 2); ok {
			return []byte{byte(v)}, 3
		}
	case '+':
		if plus {
			return []byte{' '}, 1
		}
	case '\'':
		if strings.HasPrefix(s, "''") {
			return []byte{'\''}, 2
		}
	case '&':
		// It may lack its semicolon, and the next one is then another's.
		const longest = 32
		n := 1
		for n < min(len(s), longest) && (n == 1 && s[n] == '#' || isAlnum(s[n])) {
			n++
		}
		if n < len(s) && s[n] == ';' {
			n++
		}
		if t := html.UnescapeString(s[:n]); t != s[:n] {
			return []byte(t), n
		}
	case '\\':
		return unescapeBackslash(s)
	}
	return nil, 0
}

func isAlnum(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' }

func unescapeBackslash(s string) ([]byte, int) {
	if len(s) < 2 {
		return nil, 0
	}
	if at := strings.IndexByte(`"'/\ntrbf`, s[1]); at >= 0 {
		return []byte{"\"'/\\\n\t\r\b\f"[at]}, 2
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[1]]
	v, ok := hexOf(s, 2, digits)
	switch {
	case !ok:
		return nil, 0
	case digits == 2:
		return []byte{byte(v)}, 4
	case digits == 4 && v >= 0xD800 && v < 0xDC00 && strings.HasPrefix(s[6:], `\u`):
		if low, ok := hexOf(s, 8, 4); ok && low >= 0xDC00 && low < 0xE000 {
			return utf8.AppendRune(nil, rune((v-0xD800)<<10+(low-0xDC00)+0x10000)), 12
		}
	}
	return utf8.AppendRune(nil, rune(min(v, unicode.MaxRune+1))), 2 + digits
}

// hexOf reads n hexadecimal digits at a place; n of 0 are none.
func hexOf(s string, at, n int) (uint64, bool) {
	if n == 0 || len(s) < at+n {
		return 0, false
	}
	v, err := strconv.ParseUint(s[at:at+n], 16, 32)
	return v, err == nil
}

// folded is r in one case.
func (r reading) folded() reading {
	var out reading
	for i := 0; i < len(r.s); {
		c, n := utf8.DecodeRune(r.s[i:])
		if c == utf8.RuneError && n == 1 {
			out.add(r.at[i], r.s[i])
		} else {
			out.add(r.at[i], foldRune(c)...)
		}
		i += n
	}
	out.at = append(out.at, r.at[len(r.s)])
	return out
}

func fold(s string) string { return string(asRead(s).folded().s) }

func foldRune(c rune) []byte {
	if c == 'ß' || c == 'ẞ' {
		return []byte("ss") // what it is in capitals
	}
	return utf8.AppendRune(nil, unicode.ToLower(unicode.ToUpper(c)))
}

// readForms are what a value is looked for as in what was read: all of it and, where it
// has few words, each of them.
func readForms(t string) []string {
	t = fold(strings.TrimSpace(t))
	out := []string{t}
	if words := strings.Fields(t); len(words) > 1 && len(words) <= fewWords {
		out = append(out, words...)
	}
	return slices.DeleteFunc(out, func(t string) bool { return len(t) < wholeFrom })
}

// unread is s without the values that are found in what it reads as.
func (x Scrubber) unread(s string, least int, w *steps) string {
	if len(x.read.list) == 0 {
		return s
	}
	var found [][2]int
	for _, plus := range []bool{false, true} {
		if plus && strings.IndexByte(s, '+') < 0 {
			continue
		}
		r := asRead(s)
		for depth := 0; ; depth++ {
			if depth > 0 || !plus {
				found = x.findIn(found, r.folded(), least, w)
			}
			next, changed := r.unescaped(plus && depth == 0)
			if !changed || depth == readDepth || w.gone() {
				break
			}
			r = next
		}
	}
	if len(found) == 0 {
		return s
	}
	slices.SortFunc(found, func(a, b [2]int) int { return a[0] - b[0] })
	return masked(s, func(_ string, i int) (from, to int) {
		for len(found) > 0 && found[0][1] <= i {
			found = found[1:]
		}
		if len(found) == 0 {
			return len(s), len(s)
		}
		from, to = max(found[0][0], i), found[0][1]
		// Those that overlap it are one with it.
		for found = found[1:]; len(found) > 0 && found[0][0] < to; found = found[1:] {
			to = max(to, found[0][1])
		}
		return from, to
	})
}

// findIn appends where in the text that was read the values stand.
func (x Scrubber) findIn(found [][2]int, r reading, least int, w *steps) [][2]int {
	s := string(r.s)
	for i := 0; i < len(s); {
		n := x.read.at(s[i:], least, w)
		if n == 0 {
			i++
			continue
		}
		end := i + n
		for end < len(s) && r.at[end] == r.at[end-1] {
			end++ // the rest of what one sign was read as
		}
		found = append(found, [2]int{r.at[i], r.at[end]})
		i = end
	}
	return found
}
