package collector

import (
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pellucid/pellucid/collector/reading"
)

// A text in which a value is repeated may escape it in any of many ways. It is read
// instead: what is escaped in it is made out, up to readDepth times over, and each of the
// texts that come of it is looked through as the first one is. Where a value is found,
// what it was read from is masked.

// readDepth bounds how often a text is read: JSON within JSON within an address, or
// base64 within base64.
const readDepth = 3

// unescaped is r with each escape of JSON, of programming languages, of SQL, HTML and
// addresses made out; plus says that a + is a space, as in forms. changed is false where
// there is none.
func unescaped(r reading.Text, plus bool) (out reading.Text, changed bool) {
	w := reading.Rewrite(r)
	for i := 0; i < len(r.S); {
		n := 0
		var b []byte
		if escapes[r.S[i]] {
			b, n = Unescape(r.S[i:], plus)
		}
		if n > 0 {
			w.Add(i, b...)
			i += n
			continue
		}
		w.Keep(i, 1)
		i++
	}
	return w.Done()
}

// escapes are the bytes that an escape may begin with.
var escapes = func() (is [256]bool) {
	for _, c := range []byte("\x00%+'&\\") {
		is[c] = true
	}
	return is
}()

// Unescape returns what the escape that s begins with stands for and how long it is, 0
// where it begins with none: those of JSON, of programming languages, of SQL, HTML and
// addresses. plus says that a + is a space, as in forms.
func Unescape(s string, plus bool) ([]byte, int) {
	switch s[0] {
	case 0:
		return nil, 1 // half a sign of UTF-16
	case '%':
		if v, ok := percentOf(s); ok {
			return unescapedByte(s, v, 3, percentOf)
		}
		if v, ok := hexOf(s, 2, 4); ok && s[1]|0x20 == 'u' {
			return utf8.AppendRune(nil, rune(v)), 6
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
		switch numberOf(s[:n]) {
		case 0:
			return nil, n // as above
		case nextLine: // which HTML takes for another's dots, and XML does not
			return []byte("\u0085"), n
		}
		if t := html.UnescapeString(s[:n]); t != s[:n] {
			return []byte(t), n
		}
	case '\\':
		return unescapeBackslash(s)
	}
	return nil, 0
}

const nextLine = 0x85

// numberOf is the number of &#N; or &#xN;, -1 of what is neither.
func numberOf(s string) int64 {
	digits, ok := strings.CutPrefix(strings.TrimSuffix(s, ";"), "&#")
	if !ok {
		return -1
	}
	base := 10
	if digits != "" && digits[0]|0x20 == 'x' {
		digits, base = digits[1:], 16
	}
	v, err := strconv.ParseUint(digits, base, 32)
	if err != nil {
		return -1
	}
	return int64(v)
}

// InASCII is ASCII's sign for a digit of another script or a full-width sign, 0 for any other.
func InASCII(c rune) byte {
	const firstDigit = '٠'                      // but for ASCII's
	const noneFrom, noneTo = '\u1C5A', '\uA61F' // Chinese and Japanese, most of all
	const wide, wideEnd, shift = '！', '～', '！' - '!'
	switch {
	case c < firstDigit || c >= noneFrom && c <= noneTo:
		return 0
	case c >= wide && c <= wideEnd:
		return byte(c - shift)
	case unicode.IsDigit(c):
		return digitOf(c)
	}
	return 0
}

// plainSign is ASCII's digit for one of another script, its letter for a full-width one,
// and the point or comma that stands among such digits; 0 for any other.
func plainSign(c rune, next string) byte {
	switch c {
	case '٫':
		return '.'
	case '٬':
		return ','
	case '，':
		// An ordinary comma of Chinese, unless a digit follows.
		if after, _ := utf8.DecodeRuneInString(next); !unicode.IsDigit(after) {
			return 0
		}
	}
	if b := InASCII(c); isAlnum(b) || b == '.' || b == ',' {
		return lowerByte(b)
	}
	return 0
}

func lowerByte(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		b += 'a' - 'A'
	}
	return b
}

// digitOf is a decimal digit's in ASCII. Unicode has those of a script in order, and the
// ranges of its table begin with a nought.
func digitOf(c rune) byte {
	for _, t := range unicode.Nd.R16 {
		if c >= rune(t.Lo) && c <= rune(t.Hi) {
			return '0' + byte((c-rune(t.Lo))%10)
		}
	}
	for _, t := range unicode.Nd.R32 {
		if c >= rune(t.Lo) && c <= rune(t.Hi) {
			return '0' + byte((c-rune(t.Lo))%10)
		}
	}
	return 0
}

func isAlnum(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' }

func unescapeBackslash(s string) ([]byte, int) {
	if len(s) < 2 {
		return nil, 0
	}
	if at := strings.IndexByte(`"'/\ntrbfva`, s[1]); at >= 0 {
		return []byte{"\"'/\\\n\t\r\b\f\v\a"[at]}, 2
	}
	if v, ok := octalOf(s); ok {
		return unescapedByte(s, v, 4, octalOf)
	}
	if end := strings.IndexByte(s[:min(len(s), len(`\u{10ffff}`))], '}'); end > 3 && (s[1] == 'u' || s[1] == 'x') && s[2] == '{' {
		if v, ok := hexOf(s, 3, end-3); ok {
			return utf8.AppendRune(nil, rune(min(v, unicode.MaxRune+1))), end + 1
		}
	}
	digits := 0
	switch s[1] {
	case 'x':
		digits = 2
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	}
	v, ok := hexOf(s, 2, digits)
	switch {
	case !ok:
		return nil, 0
	case digits == 2:
		return unescapedByte(s, byte(v), 4, escapedByte)
	case digits == 4 && v >= 0xD800 && v < 0xDC00 && strings.HasPrefix(s[6:], `\u`):
		if low, ok := hexOf(s, 8, 4); ok && low >= 0xDC00 && low < 0xE000 {
			return utf8.AppendRune(nil, rune((v-0xD800)<<10+(low-0xDC00)+0x10000)), 12
		}
	}
	return utf8.AppendRune(nil, rune(min(v, unicode.MaxRune+1))), 2 + digits
}

// percentOf reads %eb, escapedByte \xeb, octalOf \353.
func percentOf(s string) (byte, bool) {
	if s == "" || s[0] != '%' {
		return 0, false
	}
	v, ok := hexOf(s, 1, 2)
	return byte(v), ok
}

func escapedByte(s string) (byte, bool) {
	if len(s) < 4 || s[0] != '\\' || s[1] != 'x' {
		return 0, false
	}
	v, ok := hexOf(s, 2, 2)
	return byte(v), ok
}

func octalOf(s string) (byte, bool) {
	if len(s) < 4 || s[0] != '\\' || s[1] < '0' || s[1] > '3' {
		return 0, false
	}
	v, err := strconv.ParseUint(s[1:4], 8, 8)
	return byte(v), err == nil
}

// unescapedByte is what s begins with, of which the first byte is read already: a byte of UTF-8,
// as Go and C write it, with the others of its sign, or else the sign of that number, as Python
// and JavaScript do. Each escape is width bytes long.
func unescapedByte(s string, first byte, width int, of func(string) (byte, bool)) ([]byte, int) {
	if first < utf8.RuneSelf {
		return []byte{first}, width
	}
	b := []byte{first}
	for ok := true; ok && len(b) < utf8.UTFMax && !utf8.FullRune(b); {
		var next byte
		if next, ok = of(s[len(b)*width:]); ok {
			b = append(b, next)
		}
	}
	if c, n := utf8.DecodeRune(b); c != utf8.RuneError && n > 1 {
		return b[:n], n * width
	}
	return utf8.AppendRune(nil, rune(first)), width
}

// hexOf reads n hexadecimal digits at a place; n of 0 are none.
func hexOf(s string, at, n int) (uint64, bool) {
	if n == 0 || len(s) < at+n {
		return 0, false
	}
	v, err := strconv.ParseUint(s[at:at+n], 16, 32)
	return v, err == nil
}

// readForms are what a value is looked for as in what was read: all of it and, where it
// has few words, each of them. What looks like an escape in it is made out with the others.
func readForms(t string) []string {
	var out []string
	r := reading.Of(strings.TrimSpace(t))
	for depth, changed := 0, true; changed && depth <= readDepth; depth++ {
		t := folded(r).S
		out = append(out, t)
		if words := strings.Fields(t); len(words) > 1 && len(words) <= fewWords {
			out = append(out, words...)
		}
		r, changed = unescaped(r, false)
	}
	return slices.DeleteFunc(out, func(t string) bool { return len(t) < wholeFrom })
}

// search is one look through a text for the values of a Scrubber.
type search struct {
	x     *Scrubber
	least int  // bytes of the values that are looked for
	words bool // and the shorter ones as words
	w     *steps
	buf   []byte
}

// without is s without what is found.
func (q *search) without(s string) string {
	found := q.places(nil, s, readDepth)
	if q.w.gone() {
		return Masked // made to take long; what is in it is not known
	}
	if len(found) == 0 {
		return s
	}
	s = maskedAt(s, found)
	// What stood beside a value is a number or a word of its own now.
	r := reading.Of(s)
	if found = q.named(nil, r, folded(r)); len(found) > 0 {
		s = maskedAt(s, found)
	}
	return s
}

// maskedAt is s with what is at these places masked, those that overlap as one.
func maskedAt(s string, found [][2]int) string {
	slices.SortFunc(found, func(a, b [2]int) int { return a[0] - b[0] })
	var b strings.Builder
	done := 0
	for i := 0; i < len(found); {
		from, to := found[i][0], found[i][1]
		for i++; i < len(found) && found[i][0] < to; i++ {
			to = max(to, found[i][1])
		}
		b.WriteString(s[done:from])
		b.WriteString(Masked)
		done = to
	}
	b.WriteString(s[done:])
	return b.String()
}

// places appends where in s values are, as it is and as it reads so many times over.
func (q *search) places(found [][2]int, s string, depth int) [][2]int {
	found = q.in(found, reading.Of(s), depth)
	for _, plus := range []bool{false, true} {
		if plus && strings.IndexByte(s, '+') < 0 {
			continue
		}
		r := reading.Of(s)
		for left := depth; left > 0 && !q.w.gone(); left-- {
			var changed bool
			if r, changed = unescaped(r, plus && left == depth); !changed {
				break
			}
			q.w.left -= len(r.S)
			found = q.in(found, r, left-1)
		}
	}
	return found
}

// longestWord bounds the bytes of a word that is a value of fewer than wholeFrom, folded.
const longestWord = 8

// in appends where in a reading values are: encoded, as they are, folded, and as numbers
// and words.
func (q *search) in(found [][2]int, r reading.Text, depth int) [][2]int {
	found = q.encoded(found, r, depth)
	found = q.forms(found, &q.x.long, r)
	folded := folded(r)
	found = q.forms(found, &q.x.read, folded)
	return q.named(found, r, folded)
}

// forms appends where in a reading some of the forms are.
func (q *search) forms(found [][2]int, f *forms, r reading.Text) [][2]int {
	for i := 0; i < len(r.S) && len(f.list) > 0; {
		n := f.at(r.S[i:], q.least, q.w)
		if n > 0 {
			found = append(found, r.Place(i, i+n))
		}
		i += max(n, 1)
	}
	return found
}

// named appends where in a reading numbers and, where it is folded, words are that mean values.
func (q *search) named(found [][2]int, r, folded reading.Text) [][2]int {
	words := q.words && len(q.x.words) > 0
	if !words && len(q.x.numbers) == 0 {
		return found
	}
	figures := figures(bare(r))
	for i := 0; i < len(figures.S) && len(q.x.numbers) > 0; {
		from, to := q.x.number(figures.S, i)
		if to-from >= q.least {
			found = append(found, figures.Place(from, to))
		}
		i = max(i+1, to)
	}
	if !words {
		return found
	}
	r = folded
	inWord := func(c rune) bool { return unicode.IsLetter(c) || unicode.IsDigit(c) || c == '_' }
	for i := 0; i < len(r.S); {
		n := strings.IndexFunc(r.S[i:], func(c rune) bool { return !inWord(c) })
		if n < 0 {
			n = len(r.S) - i
		}
		if n > 0 && n <= longestWord && q.x.words[r.S[i:i+n]] {
			found = append(found, r.Place(i, i+n))
		}
		if i += n; i < len(r.S) {
			_, size := utf8.DecodeRuneInString(r.S[i:])
			i += size
		}
	}
	return found
}
