package collector

import (
	"encoding/binary"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
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

// Shortest runs of digits of base64 and hexadecimal that may stand for a value.
const (
	minBase64 = 6
	minHex    = 2 * sureFrom
)

// sixBits are the digits of base64 in both of its alphabets, 64 for what is none;
// fourBits those of hexadecimal, 16 for what is none.
var sixBits, fourBits = func() (six, four [256]byte) {
	for c := range six {
		six[c], four[c] = 64, 16
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		six[c] = byte(i)
	}
	six['-'], six['_'] = 62, 63
	for i, c := range []byte("0123456789abcdef") {
		four[c] = byte(i)
	}
	for i, c := range []byte("ABCDEF") {
		four[c] = byte(10 + i)
	}
	return six, four
}()

// encoded is s without the runs of base64 or hexadecimal digits that hold a value.
func (x Scrubber) encoded(s string, least int, w *steps) string {
	var buf []byte
	// One of so many offsets is where a byte begins.
	run := func(digits *[256]byte, bits, offsets, shortest, least int) func(s string, i int) (int, int) {
		none := byte(1) << bits
		return func(s string, i int) (int, int) {
			end := i
			for end < len(s) && digits[s[end]] != none {
				end++
			}
			if end-i < shortest {
				return end, end
			}
			// Nobody knows where in the run what is encoded begins.
			for from := i; from < i+offsets && end-from >= shortest; from++ {
				if buf = decodeRun(buf[:0], s[from:end], digits, uint(bits)); x.holds(string(buf), least, w) {
					for end < len(s) && s[end] == '=' {
						end++
					}
					return i, end
				}
			}
			return end, end
		}
	}
	s = masked(s, run(&sixBits, 6, 4, minBase64, least))
	return masked(s, run(&fourBits, 4, 2, minHex, sureFrom))
}

// decodeRun appends the whole bytes that digits of so many bits each make.
func decodeRun(to []byte, s string, digits *[256]byte, bits uint) []byte {
	var acc, have uint
	for i := range len(s) {
		acc, have = acc<<bits|uint(digits[s[i]]), have+bits
		if have >= 8 {
			have -= 8
			to = append(to, byte(acc>>have))
		}
	}
	return to
}

// holds reports whether one of the longer values is in what was decoded.
func (x Scrubber) holds(s string, least int, w *steps) bool {
	for i := range len(s) {
		if x.long.at(s[i:], least, w) > 0 {
			return true
		}
	}
	for i := 0; i < len(s) && len(x.numbers) > 0; {
		from, to := x.number(s, i)
		if to > from {
			return true
		}
		i = max(i+1, from)
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
	whole, fraction, _ := strings.Cut(t[:n], point)
	if strings.Trim(fraction, "0123456789") != "" || strings.ContainsAny(fraction, signs) {
		return false
	}
	groups := strings.FieldsFunc(whole, func(r rune) bool { return strings.ContainsRune(signs, r) })
	for k, g := range groups {
		if strings.Trim(g, "0123456789") != "" || len(groups) > 1 && (len(g) > 3 || k > 0 && len(g) != 3) {
			return false
		}
	}
	whole = strings.Join(groups, "")
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

// near reports whether a value is f, or is it when rounded or cut to whole units.
func (x Scrubber) near(f, unit float64) bool {
	by := f * 1e-14
	i := sort.SearchFloat64s(x.numbers, f-unit/2-by)
	return i < len(x.numbers) && x.numbers[i] <= f+unit+by
}
