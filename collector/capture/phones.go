package capture

import (
	"slices"
	"strings"
)

// Phones are known by a country's code behind a '+' or 00, or by a form in which some
// country writes its own and hardly anybody writes something else. What has no check
// digit and no form, a run of digits or one with spaces only, stays.

// callingCodes2 are the country codes of two digits; 1 and 7 have one, all others
// three.
var callingCodes2 = []int{
	20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58, 60, 61, 62, 63, 64, 65, 66, 81, 82, 84, 86,
	90, 91, 92, 93, 94, 95, 98,
}

// callingCodes3 are the first two digits of country codes of three.
var callingCodes3 = []int{21, 22, 23, 24, 25, 26, 29, 35, 37, 38, 42, 50, 59, 67, 68, 69, 80, 85, 87, 88, 96, 97, 99}

// findPhone returns the end of a phone number whose '+' is at i, or 0: a country's code
// and as many digits as E.164 allows, with single separators. A bracket may stand before it,
// or behind the '+', and is closed in it.
func findPhone(s string, i int) int {
	digits := make([]byte, 0, 16)
	end, dots, groups, seps, dotted, dashed := i+1, 0, 1, 0, false, false
	open := i > 0 && (s[i-1] == '(' || s[i-1] == '[')
	for at := i + 1; at < len(s); {
		c, width := s[at], 1
		switch {
		case isDigit(c):
			if len(digits) == 15 {
				return 0
			}
			digits = append(digits, c)
			if seps > 0 {
				groups++
			}
			at++
			end, seps, dashed = at, 0, false
			continue
		case (c == '(') != open && strings.IndexByte("()]", c) >= 0:
			open = c == '('
			at++
			continue
		case c == '/':
		default:
			sep, n := separator(s, at)
			if sep == '.' {
				dots++
			}
			// After a first dot, dots: a decimal number may stand before another.
			if sep == 0 || dotted && sep != '.' {
				return phoneEnd(s, digits, end, dots, groups)
			}
			dotted = dotted || groups == 1 && sep == '.'
			width = n
			dashed = dashed || sep == '-'
		}
		if seps >= 3 || seps == 2 && !dashed {
			break // more than two separators in a row: another text
		}
		seps++
		at += width
	}
	return phoneEnd(s, digits, end, dots, groups)
}

// closes reports whether what stands at i is a bracket that findPhone has closed before to.
func closes(s string, i, to int) bool {
	k := strings.IndexAny(s[i+1:to], "()]")
	return (s[i] == '(' || s[i] == '[') && k >= 0 && s[i+1+k] != '('
}

func phoneEnd(s string, digits []byte, end, dots, groups int) int {
	n := len(digits)
	if wordAt(s, end) && s[end] != '_' || n < 8 || digits[0] == '0' {
		return 0
	}
	if end+1 < len(s) && (s[end] == '.' || s[end] == ',') && isDigit(s[end+1]) {
		return 0
	}
	if dots > 0 && groups < 3 || groups == 1 && n < 10 {
		return 0 // a number with its sign
	}
	switch callingCode(digits) {
	case 0:
		return 0
	case 1:
		if n != 11 {
			return 0
		}
	default:
		if n < 9 {
			return 0
		}
	}
	return end
}

// callingCode is how many of the digits, two at least, are a country's code, 0 where they
// begin with none.
func callingCode(digits []byte) int {
	two := int(digits[0]-'0')*10 + int(digits[1]-'0')
	switch {
	case digits[0] == '1' || digits[0] == '7':
		return 1
	case slices.Contains(callingCodes2, two):
		return 2
	case slices.Contains(callingCodes3, two):
		return 3
	}
	return 0
}

// maxNational are the digits that a phone without a country's code has at most.
const maxNational = 12

// findNational returns the end of a phone number without a '+' that begins at i with a
// digit or '(', or 0.
func findNational(s string, i int) int {
	c, n := s[i], 0
	for n < 6 && i+n < len(s) && isDigit(s[i+n]) {
		n++
	}
	// Nearly all numbers end here.
	if i+n >= len(s) || c == '1' && n != 1 || c > '1' && n != 3 || c == '0' && (n < 2 || n > 5) {
		return 0
	}
	if i > 0 && strings.IndexByte("./-+#$\\", s[i-1]) >= 0 || i > 1 && (s[i-1] == ',' || s[i-1] == ':') && isDigit(s[i-2]) || afterDash(s, i) {
		return 0 // of a path, a number, a time, a longer code
	}
	switch {
	case c == '(':
		return findBracketed(s, i, groupBefore(s, i))
	case c == '1':
		sep, width := separator(s, i+1)
		if at := i + 1 + width; sep == ' ' && at < len(s) && s[at] == '(' && !groupBefore(s, i) {
			return findBracketed(s, at, false)
		} else if sep == '-' || sep == '.' {
			return findAreaCode(s, at)
		}
		return 0
	case c > '1':
		return findAreaCode(s, i)
	case s[i+1] == '0':
		if n == 2 || groupBefore(s, i) {
			return 0
		}
		return findDoubleZero(s, i, n)
	case s[i+n] == '/' || s[i+n] == ' ' && i+n+1 < len(s) && s[i+n+1] == '/':
		return findSlashed(s, i, n)
	}
	return findHyphened(s, i, n)
}

// groupBefore reports whether digits and a space stand before i: a list of numbers, the
// volume of a journal.
func groupBefore(s string, i int) bool {
	return i > 1 && s[i-1] == ' ' && isDigit(s[i-2])
}

// nationalEnds reports whether a phone may end at end: not in a word, a list of numbers, a
// path or a longer code.
func nationalEnds(s string, end int) bool {
	if end == len(s) {
		return true
	}
	if wordAt(s, end) {
		return false
	}
	sep, width := separator(s, end)
	switch next := end + max(width, 1); {
	case next == len(s):
		return true
	case sep == '-' || s[end] == '/':
		return !isWord(s[next])
	case sep == '.' || s[end] == ',' || s[end] == ':':
		return !isDigit(s[next])
	}
	return true
}

// group is the end of a group of n digits and no more at i, or 0.
func group(s string, i, n int) int {
	if spanOf(s, i, n+1, isDigit) != n {
		return 0
	}
	return i + n
}

// year reports whether the digits at i begin like a year of our time.
func year(s string, i int) bool {
	return i+4 <= len(s) && (s[i] == '1' && s[i+1] == '9' || s[i] == '2' && s[i+1] == '0') && isDigit(s[i+2]) && isDigit(s[i+3])
}

// findAreaCode returns the end of 202-555-0173 at i, or 0: North America's three, three and
// four digits between two hyphens. Between dots, as versions and amounts are written too,
// both groups of three must begin as they do there.
func findAreaCode(s string, i int) int {
	at := group(s, i, 3)
	if at == 0 || s[i] < '2' {
		return 0
	}
	sep, width := separator(s, at)
	if sep != '-' && sep != '.' {
		return 0
	}
	exchange := at + width
	at = group(s, exchange, 3)
	if at == 0 || sep == '.' && (s[exchange] < '2' || s[i+1] == '9') {
		return 0
	}
	if next, width := separator(s, at); next == sep {
		if end := group(s, at+width, 4); end > 0 && nationalEnds(s, end) {
			return end
		}
	}
	return 0
}

// findBracketed returns the end of (202) 555-0173 or (030) 901820 at i, or 0. listed says
// that digits stand before it, as in the reference of an article, (7) being its issue.
func findBracketed(s string, i int, listed bool) int {
	n := spanOf(s, i+1, 6, isDigit)
	at := i + 1 + n
	if listed || n < 2 || n > 5 || at >= len(s) || s[at] != ')' || s[i+1] == '1' || s[i+1] == '0' && s[i+2] == '0' {
		return 0
	}
	at++
	if sep, width := separator(s, at); sep == ' ' || sep == '-' {
		at += width
	}
	if s[i+1] == '0' {
		return findSubscriber(s, at, n, n == 2)
	}
	mid := group(s, at, 3)
	if n != 3 || mid == 0 {
		return 0
	}
	_, width := separator(s, mid)
	if end := group(s, mid+width, 4); end > 0 && nationalEnds(s, end) {
		return end
	}
	return 0
}

// findSlashed returns the end of 030/901820 at i, whose first n digits stand before the
// slash, or 0.
func findSlashed(s string, i, n int) int {
	at := i + n
	if s[at] == ' ' {
		at++
	}
	if at++; at < len(s) && s[at] == ' ' {
		at++
	}
	if n < 3 {
		return 0 // a date
	}
	return findSubscriber(s, at, n, false)
}

// findSubscriber returns the end of what follows an area code of n digits that begins with
// 0, or 0: six digits or more in groups of two at least, but for an extension behind a
// hyphen. grouped says that one run of digits is not enough.
func findSubscriber(s string, i, n int, grouped bool) int {
	if year(s, i) {
		return 0 // the number of a file, a date
	}
	digits, groups, end := 0, 0, 0
	for at, sep := i, byte(0); ; {
		k := spanOf(s, at, maxNational+1, isDigit)
		if k < 2 && (k == 0 || sep != '-') || n+digits+k > maxNational {
			break // another text, or another number
		}
		digits += k
		groups++
		at += k
		end = at
		next, width := separator(s, at)
		if next != ' ' && next != '-' {
			break
		}
		at += width
		sep = next
	}
	if digits < 6 || grouped && (groups < 2 || digits < 8) || !nationalEnds(s, end) {
		return 0
	}
	return end
}

// findHyphened returns the end of 03-1234-5678 at i, or 0: an area code of n digits that
// begins with 0, three or four digits, and four.
func findHyphened(s string, i, n int) int {
	if n > 3 {
		return 0
	}
	sep, width := separator(s, i+n)
	if sep != '-' {
		return 0
	}
	from := i + n + width
	mid := from + spanOf(s, from, 5, isDigit)
	if mid-from < 3 || mid-from > 4 || year(s, from) {
		return 0
	}
	if sep, width = separator(s, mid); sep != '-' {
		return 0
	}
	if end := group(s, mid+width, 4); end > 0 && nationalEnds(s, end) {
		return end
	}
	return 0
}

// findDoubleZero returns the end of 0049 30 901820 at i, whose first group has n digits, or
// 0: that group is 00 and a country's code and nothing else, and what follows is no list of
// numbers with leading zeros.
func findDoubleZero(s string, i, n int) int {
	if s[i+2] == '0' {
		return 0
	}
	code := []byte{s[i+2], '0'}
	if n > 3 {
		code[1] = s[i+3]
	}
	if callingCode(code) != n-2 {
		return 0
	}
	at := i + n
	sep, width := separator(s, at)
	if sep == '.' || sep == 0 && s[at] != '/' {
		return 0
	}
	at += max(width, 1)
	if at < len(s) && (s[at] == '0' || year(s, at)) {
		return 0
	}
	// What is behind a '+' is what is behind the two zeros.
	end := findPhone(s, i+1)
	if end == 0 || !nationalEnds(s, end) {
		return 0
	}
	if run := spanOf(s, at, 16, isDigit); at+run == end && run < 9 {
		return 0 // a number and a date, two amounts
	}
	return end
}
