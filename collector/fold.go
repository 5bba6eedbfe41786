package collector

import (
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/pellucid/pellucid/collector/reading"
	"golang.org/x/text/unicode/norm"
)

// folded is r as all ways to write the same letters read: whatever their case, width and
// ligatures, whether an accent stands apart, of whatever script the digits are, and without
// what is not seen. It is nearly what Unicode calls NFKC_Casefold, which is why the order of
// the steps matters: letters are taken apart (NFKD), each is put into one case, and they are
// composed again (NFC). A fold that composes first does not find the accent of what has another
// width or case yet, nor one that a sign which is not seen parts from its letter.
func folded(r reading.Text) reading.Text {
	r = bare(r)
	if isASCII(r.S) {
		return r.As(strings.ToLower(r.S))
	}
	w := reading.Rewrite(r)
	w.Change(0)
	var f folding
	for i := 0; i < len(r.S); {
		n := plainBytes(r.S[i:])
		for k := range n {
			w.Add(i+k, lowerByte(r.S[i+k]))
		}
		if i += n; i == len(r.S) {
			break
		}
		_, n = utf8.DecodeRuneInString(r.S[i:])
		if next, _ := utf8.DecodeRuneInString(r.S[i+n:]); next >= firstAccent && next != utf8.RuneError {
			n = norm.NFKC.NextBoundaryInString(r.S[i:], true)
		}
		if n == 1 {
			w.Add(i, lowerByte(r.S[i])) // or no text at all
		} else {
			w.Add(i, f.sign(r.S[i:i+n])...)
		}
		i += n
	}
	r, _ = w.Done()
	return r
}

// firstAccent is the first sign that what stands before it is not complete without.
const firstAccent = '\u0300'

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// plainBytes is how many bytes s begins with that are ASCII and have no accent behind them.
func plainBytes(s string) int {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return max(0, i-1)
		}
	}
	return len(s)
}

// folding has room for one sign and its accents.
type folding struct {
	norm       norm.Iter
	one, cased []byte
}

// sign is what a sign and its accents are folded to, up to the next call.
func (f *folding) sign(s string) []byte {
	c, n := utf8.DecodeRuneInString(s)
	if n < len(s) {
		f.norm.InitString(norm.NFC, s)
		f.one = f.appendTo(f.one[:0])
		if c, n = utf8.DecodeRune(f.one); n < len(f.one) {
			return f.slowly(s)
		}
	} else {
		f.one = append(f.one[:0], s...)
	}
	switch {
	case n == 1:
		f.one[0] = lowerByte(f.one[0]) // or no text at all
		return f.one
	case c < manyFolded:
		f.one = append(f.one[:0], foldedOnce()[c]...)
		return f.one
	case norm.NFKD.Properties(f.one).Decomposition() == nil:
		f.one = append(f.one[:0], foldRune(c)...)
		return f.one
	}
	return f.slowly(s)
}

// manyFolded are the signs of Latin, Greek and Cyrillic, of which a text has many: what each
// is folded to by itself is kept.
const manyFolded = 0x600

var foldedOnce = sync.OnceValue(func() *[manyFolded]string {
	var f folding
	var list [manyFolded]string
	for c := range list {
		list[c] = string(f.slowly(string(rune(c))))
	}
	return &list
})

func (f *folding) slowly(s string) []byte {
	f.norm.InitString(norm.NFKD, s)
	f.one, f.cased = f.appendTo(f.one[:0]), f.cased[:0]
	dotted := false // the letter has a dot of its own
	for i := 0; i < len(f.one); {
		c, n := utf8.DecodeRune(f.one[i:])
		switch {
		case n == 1:
			c := lowerByte(f.one[i])
			f.cased = append(f.cased, c)
			dotted = c == 'i' || c == 'j'
		case c == dotAbove && dotted:
		default:
			f.cased = append(f.cased, foldRune(c)...)
			dotted = dotted && unicode.Is(unicode.Mn, c) || c == 'ı'
		}
		i += n
	}
	f.norm.Init(norm.NFC, f.cased)
	f.one = f.appendTo(f.one[:0])
	return f.one
}

// appendTo appends what is being normalised.
func (f *folding) appendTo(to []byte) []byte {
	for !f.norm.Done() {
		to = append(to, f.norm.Next()...)
	}
	return to
}

// foldRune is a sign beyond ASCII that has nothing more to take apart.
func foldRune(c rune) []byte {
	switch c {
	case 'ß', 'ẞ':
		return []byte("ss") // what it is in capitals
	case '‘', '’', '‚', '‛', '‹', '›', 'ʼ', '′': // as typography, and a model, write what was typed
		return []byte{'\''}
	case '“', '”', '„', '‟', '«', '»':
		return []byte{'"'}
	case '‐', '‒', '–', '—', '―', '⁃', '−':
		return []byte{'-'}
	}
	if plain := plainSign(c, ""); plain != 0 {
		return []byte{plain}
	}
	return utf8.AppendRune(nil, unicode.ToLower(unicode.ToUpper(c)))
}

// dotAbove is what the lower case of İ keeps of it.
const dotAbove = '\u0307'

// Ignorable reports whether a sign is not seen: soft hyphens, marks of direction, joiners.
func Ignorable(c rune) bool {
	const softHyphen, firstOther = '\u00ad', '\u034f'
	const noneFrom, noneTo = '\u3165', '\ufdff' // Chinese, Japanese, Korean
	if c < firstOther || c >= noneFrom && c <= noneTo {
		return c == softHyphen
	}
	return unicode.In(c, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// bare is r without the signs that are not seen.
func bare(r reading.Text) reading.Text {
	w := reading.Rewrite(r)
	for i := plainBytes(r.S); i < len(r.S); {
		c, n := utf8.DecodeRuneInString(r.S[i:])
		if Ignorable(c) {
			w.Change(i)
		} else {
			w.Keep(i, n)
		}
		i += n
	}
	r, _ = w.Done()
	return r
}

// figures is r with the digits of any script, full-width signs and the points and commas among
// them in ASCII, for numbers: other signs that stand for a digit, as ² and ½, are none of it.
func figures(r reading.Text) reading.Text {
	if isASCII(r.S) {
		return r
	}
	w := reading.Rewrite(r)
	for i := 0; i < len(r.S); {
		c, n := utf8.DecodeRuneInString(r.S[i:])
		plain := byte(0)
		if c >= utf8.RuneSelf {
			plain = plainSign(c, r.S[i+n:])
		}
		if plain != 0 {
			w.Add(i, plain)
		} else {
			w.Keep(i, n)
		}
		i += n
	}
	r, _ = w.Done()
	return r
}
