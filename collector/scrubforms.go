package collector

import (
	"encoding/binary"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pellucid/pellucid/collector/reading"
)

// forms finds the longest of many texts that stands at a place. It takes little more
// memory than they do, and a look at a place at which none begins costs the same for
// any number of them.
type forms struct {
	list []string // in order, each of wholeFrom bytes and more
	// parent is for each the longest other one that it begins with, -1 for none: what a
	// text begins with is the last of the list that is not after it, or a parent of that.
	parent []int32
	// heads are the first and the end in the list of those that begin with four bytes.
	heads map[uint32][2]int32
}

func head(s string) uint32 { return binary.LittleEndian.Uint32([]byte(s[:wholeFrom])) }

func newForms(list []string) forms {
	slices.Sort(list)
	f := forms{list: list, parent: make([]int32, len(list)), heads: map[uint32][2]int32{}}
	for i, t := range list {
		p := int32(i) - 1
		for p >= 0 && !strings.HasPrefix(t, list[p]) {
			p = f.parent[p]
		}
		f.parent[i] = p
		h, ok := f.heads[head(t)]
		if !ok {
			h[0] = int32(i)
		}
		h[1] = int32(i) + 1
		f.heads[head(t)] = h
	}
	return f
}

// steps bounds the work on one text: values that share long beginnings with each other
// and with the text would have each of its bytes looked at as often as they are long.
type steps struct{ left int }

// Steps that a text may take, for each of its bytes and beside that. Ordinary texts take
// one or two a byte.
const (
	stepsPerByte = 64
	stepsBeside  = 1 << 20
)

func stepsFor(s string) *steps { return &steps{left: stepsPerByte*len(s) + stepsBeside} }

// gone reports whether there are none left.
func (w *steps) gone() bool { return w.left < 0 }

// common is how many bytes a and b have in common, which they have up to from.
func (w *steps) common(a, b string, from int) int {
	n := from
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	w.left -= 1 + n - from
	return n
}

// at is the length of the longest form that s begins with, 0 where that is below least
// or no steps are left.
func (f *forms) at(s string, least int, w *steps) int {
	if len(s) < wholeFrom {
		return 0
	}
	h, ok := f.heads[head(s)]
	if !ok || w.gone() {
		return 0
	}
	// The first after s is in (low, high]; both sides' common beginnings with s are known,
	// and so is that of all between them.
	low, high := h[0]-1, h[1]
	ofLow, ofHigh := wholeFrom, wholeFrom
	for high-low > 1 {
		mid := low + (high-low)/2
		t := f.list[mid]
		n := w.common(t, s, min(ofLow, ofHigh))
		if n == len(t) || n < len(s) && t[n] < s[n] {
			low, ofLow = mid, n
		} else {
			high, ofHigh = mid, n
		}
	}
	i := low
	if i < h[0] {
		return 0
	}
	for i >= 0 && len(f.list[i]) > ofLow {
		i = f.parent[i]
		w.left--
	}
	if i < 0 || len(f.list[i]) < least {
		return 0
	}
	return len(f.list[i])
}

// alphabet is a way to encode bytes by digits of so many bits each.
type alphabet struct {
	digits   [256]byte // noDigit for what is none
	bits     uint
	offsets  int // a byte begins at one of so many digits
	shortest int // run of digits that may stand for a value
}

const noDigit = 0xFF

var base64Digits, hexDigits = func() (b, h alphabet) {
	b, h = alphabet{bits: 6, offsets: 4, shortest: minBase64}, alphabet{bits: 4, offsets: 2, shortest: 2 * wholeFrom}
	for c := range b.digits {
		b.digits[c], h.digits[c] = noDigit, noDigit
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		b.digits[c] = byte(i)
	}
	b.digits['-'], b.digits['_'] = 62, 63
	for i, c := range []byte("0123456789abcdef") {
		h.digits[c] = byte(i)
	}
	for i, c := range []byte("ABCDEF") {
		h.digits[c] = byte(10 + i)
	}
	return b, h
}()

// minBase64 is how many digits of base64 a value of wholeFrom bytes has.
const minBase64 = 6

// encoded appends where in a reading base64, hexadecimal or bytes that are listed hold a
// value.
func (q *search) encoded(found [][2]int, r reading.Text, depth int) [][2]int {
	return q.lists(q.runs(q.runs(found, r, depth, &base64Digits), r, depth, &hexDigits), r, depth)
}

// runs appends where runs of digits hold a value.
func (q *search) runs(found [][2]int, r reading.Text, depth int, a *alphabet) [][2]int {
	for i := 0; i < len(r.S); {
		end := i
		for end < len(r.S) && a.digits[r.S[end]] != noDigit {
			end++
		}
		if end-i >= a.shortest && q.run(r.S[i:end], depth, a) {
			for end < len(r.S) && r.S[end] == '=' {
				end++
			}
			found = append(found, r.Place(i, end))
		}
		i = max(end, i+1)
	}
	return found
}

// run reports whether a run holds a value: nobody knows where in it what is encoded begins.
func (q *search) run(s string, depth int, a *alphabet) bool {
	for from := 0; from < a.offsets && len(s)-from >= a.shortest; from++ {
		if q.buf = a.decode(q.buf[:0], s[from:]); q.holds(depth) {
			return true
		}
	}
	return false
}

// decode appends the whole bytes that digits make.
func (a *alphabet) decode(to []byte, s string) []byte {
	var acc, have uint
	for i := range len(s) {
		acc, have = acc<<a.bits|uint(a.digits[s[i]]), have+a.bits
		if have >= 8 {
			have -= 8
			to = append(to, byte(acc>>have))
		}
	}
	return to
}

// lists appends where bytes that are listed one by one, as in 53:53:4e, 0x53, 0x53 or
// [83 83 78], hold a value.
func (q *search) lists(found [][2]int, r reading.Text, depth int) [][2]int {
	for _, base := range []int{16, 10} {
		for i := 0; i < len(r.S); {
			if int(hexDigits.digits[r.S[i]]) >= base || i > 0 && isAlnum(r.S[i-1]) {
				i++
				continue
			}
			var last, end int
			q.buf, last, end = listed(q.buf[:0], r.S, i, base)
			switch {
			case len(q.buf) < wholeFrom:
				i++
			case q.holds(depth):
				found = append(found, r.Place(i, end))
				i = end
			default:
				i = max(i+1, last) // another list may begin there, parted by another sign
			}
		}
	}
	return found
}

// listed appends the bytes of the list that s has at a place, and returns where the last
// of them begins and ends. They are of two digits in base 16, of up to three in base 10,
// and parted by the same.
func listed(to []byte, s string, i, base int) (list []byte, last, end int) {
	most, between := 2, ""
	if base == 10 {
		most = 3
	} else if len(s) > i+2 && hexDigits.digits[s[i+2]] != noDigit && s[i+1]|0x20 != 'x' {
		return to, i, i // most often a word
	}
	for last, end = i, i; ; {
		begin := i
		if base == 16 && len(s) > i+1 && s[i] == '0' && s[i+1]|0x20 == 'x' {
			i += 2
		}
		n := i
		for n < min(len(s), i+most) && int(hexDigits.digits[s[n]]) < base {
			n++
		}
		v, ok := byteOf(s[i:n], base)
		if !ok || base == 16 && n < i+most || n < len(s) && isAlnum(s[n]) {
			return to, last, end
		}
		to, last, end = append(to, v), begin, n
		part := n
		for part < min(len(s), n+2) && strings.IndexByte(" ,:-", s[part]) >= 0 {
			part++
		}
		if part == n || between != "" && between != s[n:part] {
			return to, last, end
		}
		i, between = part, s[n:part]
	}
}

// byteOf is the byte that digits stand for.
func byteOf(s string, base int) (byte, bool) {
	v := 0
	for i := range len(s) {
		v = v*base + int(hexDigits.digits[s[i]])
	}
	return byte(v), s != "" && v <= 0xFF
}

// holds reports whether one of the longer values is in what was decoded, which is in buf,
// or in what that reads as.
func (q *search) holds(depth int) bool {
	q.w.left -= len(q.buf)
	if q.plainly(string(q.buf)) || q.folded() {
		return true
	}
	if depth == 0 || !readable(q.buf) || q.w.gone() {
		return false
	}
	inner := *q
	inner.words = false
	return len(inner.places(nil, string(q.buf), depth-1)) > 0
}

// plainly reports whether one of the longer values is in s as it is, or as a number. Most
// of what is decoded was never encoded: nothing is allocated for it.
func (q *search) plainly(s string) bool {
	for i := range len(s) {
		if q.x.long.at(s[i:], q.least, q.w) > 0 {
			return true
		}
	}
	for i := 0; i < len(s) && len(q.x.numbers) > 0; {
		from, to := q.x.number(s, i)
		if to-from >= q.least {
			return true
		}
		i = max(i+1, to)
	}
	return false
}

// folded reports whether one of the longer values is in text in buf in another case, script,
// width or form. All that is readable is looked through elsewhere.
func (q *search) folded() bool {
	if len(q.x.read.list)+len(q.x.numbers) == 0 {
		return false
	}
	for i := 0; i < len(q.buf); {
		n, wide := text(q.buf[i:])
		if wide && n > wholeFrom+1 || !wide && n >= wholeFrom && n < minBase64 {
			r := reading.Of(string(q.buf[i : i+n]))
			folded := folded(r)
			if len(q.forms(nil, &q.x.read, folded)) > 0 || len(q.named(nil, r, folded)) > 0 {
				return true
			}
		}
		i += max(n, 1)
	}
	return false
}

// text is how many bytes of text s begins with; wide says that some are beyond ASCII.
func text(s []byte) (n int, wide bool) {
	for n < len(s) {
		c, size := utf8.DecodeRune(s[n:])
		if c < ' ' || c == 0x7F || c == utf8.RuneError && size == 1 {
			break
		}
		n, wide = n+size, wide || size > 1
	}
	return n, wide
}

// readable reports whether so much of what was decoded is ASCII that it may be an escape
// or be encoded again, which bytes that were never encoded seldom are.
func readable(s []byte) bool {
	n := 0
	for i := range len(s) {
		if s[i] != 0 && (s[i] < ' ' || s[i] > '~') {
			n = 0
		} else if n++; n == minBase64 {
			return true
		}
	}
	return false
}

// What is taken for a number that was rounded: so many significant digits, and more where
// none of them is behind the point, since ports, years and ids are such numbers.
const (
	minDigits    = 4
	minIntDigits = 6
	maxNumber    = 128 // bytes; the longer ones are no numbers
)

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// number finds the next number in s that one of the values may be written as, grouped or
// not, rounded or not. from is where to go on where there is none.
func (x Scrubber) number(s string, i int) (from, to int) {
	for i < len(s) && !isDigit(s[i]) {
		i++
	}
	if to := x.spaced(s, i); to > 0 {
		return i, to
	}
	end := i
	for end < min(len(s), i+maxNumber) && (isDigit(s[end]) || end > i && strings.IndexByte(".,_'", s[end]) >= 0 && isDigit(s[end-1]) && end+1 < len(s) && isDigit(s[end+1])) {
		end++
	}
	if n := strings.LastIndexByte(s[i:end], ','); end == i+maxNumber && n > 0 {
		end = i + n // a long list
	}
	if exp := exponent(s[end:]); exp > 0 {
		if t := s[i : end+exp]; x.means(t, end-i, ".", ",_'") || x.means(t, end-i, ",", "._'") {
			return i, end + exp
		}
	}
	if t := s[i:end]; x.means(t, len(t), ".", ",_'") || x.means(t, len(t), ",", "._'") {
		return i, end
	}
	// The numbers of a list, one by one.
	for from = i; from < end; {
		n := strings.IndexByte(s[from:end], ',')
		if n < 0 {
			n = end - from
		}
		if n < end-i && x.means(s[from:from+n], n, ".", "_'") {
			return from, from + n
		}
		from += n + 1
	}
	return end, end
}

// groupSpaces are signs of more than a byte, or a space, that part the groups of a number.
var groupSpaces = []string{" ", "\u00a0", "\u2007", "\u2009", "\u202f", "\u2019"}

// spaced is where a number ends that s has at a place, grouped by spaces, 0 where there
// is none that means a value.
func (x Scrubber) spaced(s string, i int) (to int) {
	const most = 8 // groups
	var b [3 * most]byte
	var ends [most]int
	digits := i
	for digits < min(len(s), i+4) && isDigit(s[digits]) {
		digits++
	}
	if digits == i || digits == i+4 || spaceAt(s[digits:]) == 0 {
		return 0
	}
	t := append(b[:0], s[i:digits]...)
	first, n := len(t), 0
	for at := digits; n < most-1; n++ {
		at += spaceAt(s[at:])
		if len(s) < at+3 || !isDigit(s[at]) || !isDigit(s[at+1]) || !isDigit(s[at+2]) || len(s) > at+3 && isDigit(s[at+3]) || isDigit(s[at-1]) {
			break
		}
		t = append(t, s[at:at+3]...)
		at += 3
		ends[n] = at
	}
	// The longest: what follows may be another number.
	for ; n > 0; n-- {
		whole, end := string(t[:first+3*n]), ends[n-1]
		fraction := end
		if len(s) > end && (s[end] == '.' || s[end] == ',') {
			for fraction++; fraction < min(len(s), end+maxNumber) && isDigit(s[fraction]); fraction++ {
			}
		}
		if f := whole + "." + s[min(end+1, fraction):fraction]; x.means(f, len(f), ".", "") {
			return fraction
		}
		if x.means(whole, len(whole), ".", "") {
			return end
		}
	}
	return 0
}

func spaceAt(s string) int {
	if s == "" || s[0] != ' ' && s[0] != groupSpaces[1][0] && s[0] != groupSpaces[2][0] {
		return 0
	}
	for _, sign := range groupSpaces {
		if strings.HasPrefix(s, sign) {
			return len(sign)
		}
	}
	return 0
}

// exponent is the length of the exponent that s begins with.
func exponent(s string) int {
	i := 1
	if len(s) > i && (s[i] == '+' || s[i] == '-') {
		i++
	}
	from := i
	for i < len(s) && i < from+3 && isDigit(s[i]) {
		i++
	}
	if i == from || s[0]|0x20 != 'e' {
		return 0
	}
	return i
}

// means reports whether t, of whose bytes the first n are no exponent, is one of the
// values under this point and these signs between groups of three digits.
func (x Scrubber) means(t string, n int, point, signs string) bool {
	if n < minDigits {
		return false
	}
	whole, fraction, _ := strings.Cut(t[:n], point)
	if strings.Trim(fraction, "0123456789") != "" {
		return false
	}
	if strings.Trim(whole, "0123456789") != "" {
		if whole = ungrouped(whole, signs); whole == "" {
			return false
		}
	}
	all := len(strings.TrimLeft(whole+fraction, "0"))
	significant := len(strings.Trim(whole+fraction, "0"))
	if all < minDigits {
		return false
	}
	f, err := strconv.ParseFloat(whole+"."+fraction+"0"+t[n:], 64)
	if err != nil {
		return false
	}
	unit := 0.0
	if significant >= minDigits && (fraction != "" || n < len(t) || significant >= minIntDigits) {
		e, _ := strconv.Atoi(strings.TrimLeft(t[n:], "eE+"))
		unit = math.Pow10(e - len(fraction))
	}
	return x.near(f, unit)
}

// ungrouped is a whole number without the signs between its groups of three digits, ""
// where it is not grouped so.
func ungrouped(s, signs string) string {
	digits := make([]byte, 0, maxNumber)
	last := -1 // the sign before
	for i := range len(s) {
		switch {
		case isDigit(s[i]):
			digits = append(digits, s[i])
		case strings.IndexByte(signs, s[i]) < 0, last < 0 && (i == 0 || i > 3), last >= 0 && i-last != 4:
			return ""
		default:
			last = i
		}
	}
	if last >= 0 && len(s)-last != 4 {
		return ""
	}
	return string(digits)
}

// near reports whether a value is f, or is it when rounded or cut to whole units.
func (x Scrubber) near(f, unit float64) bool {
	by := f * 1e-14
	i := sort.SearchFloat64s(x.numbers, f-unit/2-by)
	return i < len(x.numbers) && x.numbers[i] <= f+unit+by
}
