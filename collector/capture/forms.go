package capture

import (
	"slices"
	"strings"
)

// The forms that Patterns knows. Each function looks at a bounded part of the text, or
// at a part that no other call looks at again.

// cardGroups are the lengths of the groups that cards are printed in.
var cardGroups = [][]int{{4, 4, 4, 4}, {4, 6, 5}, {4, 6, 4}, {6, 6, 4}, {4, 4, 4, 4, 3}, {4, 4, 4, 1}}

// findCard returns the end of a card number that begins at i, or 0: 13 to 19 digits of
// an issuer, with a right check digit, in one run or in the groups of a card. Letters may
// stand beside it. More than one sign (cardSeparator) parts groups of four, unless there are
// more of these than a card has: a table.
func findCard(s string, i int) int {
	if i > 1 && strings.IndexByte(".-+", s[i-1]) >= 0 && isDigit(s[i-2]) || afterDash(s, i) {
		return 0 // of a number, a date, a longer code
	}
	if i > 3 && s[i-1] == ')' && s[i-4:i-2] == "(0" {
		return 0 // an article's number on a label: (01)
	}
	var (
		space  [20]byte
		lens   [5]int
		ends   [5]int
		digits = space[:0]
		groups = 0
		loose  [5]bool // more than a sign stands before the group
		sep    byte
	)
	for at := i; groups < len(lens); {
		n := spanOf(s, at, 20, isDigit)
		if n == 0 || len(digits)+n > 19 {
			break
		}
		digits, lens[groups] = append(digits, s[at:at+n]...), n
		at += n
		ends[groups] = at
		groups++
		if groups == 1 && n != 4 && n != 6 || groups == len(lens) {
			break // one run of digits
		}
		next, width, wide := cardSeparator(s, at)
		if width == 0 || sep != 0 && next != sep {
			break // the last group
		}
		sep, loose[groups] = next, wide
		at += width
	}
	// What follows a card may be digits too: a date, a house's number.
	for ; groups > 0; groups-- {
		end := ends[groups-1]
		apart := slices.Contains(loose[1:groups], true)
		if !cardEnds(s, end) || !grouped(lens[:groups]) || !issued(digits) || !luhn(digits) || !besideLetters(s, i, end) ||
			apart && (groups != 4 || lens[1] != 4 || inTable(s, i, end, sep)) {
			digits = digits[:len(digits)-lens[groups-1]]
			continue
		}
		return end
	}
	return 0
}

// mostBetween is how many signs part two groups of a card at most.
const mostBetween = 3

// cardSeparator is what parts the groups of a card at i, and its length: up to three signs of
// white space, or a dash, a dot or a slash with white space beside it. Its kind is that sign,
// or ' '; wide says that it is another than separator's.
func cardSeparator(s string, i int) (kind byte, width int, wide bool) {
	kind, width = cardSign(s, i)
	if width == 0 {
		return 0, 0, false
	}
	wide = s[i] < ' ' || s[i] == '/'
	for range mostBetween - 1 {
		next, more := cardSign(s, i+width)
		if more == 0 || next != ' ' && kind != ' ' {
			break
		}
		kind, width, wide = max(kind, next), width+more, true
	}
	return kind, width, wide
}

// cardSign is separator with tabs, ends of lines and slashes.
func cardSign(s string, i int) (kind byte, width int) {
	if i >= len(s) || isDigit(s[i]) {
		return 0, 0
	}
	switch c := s[i]; {
	case c == '\r' && strings.HasPrefix(s[i+1:], "\n"):
		return ' ', 2
	case c >= '\t' && c <= '\r':
		return ' ', 1
	case c == '/':
		return c, 1
	}
	return separator(s, i)
}

// inTable reports whether four digits parted by white space stand before i, or behind end, or
// any digits where another sign parts the groups, or what those come to.
func inTable(s string, i, end int, sep byte) bool {
	n := func(kind byte, digits int) bool { return digits == 4 || digits > 0 && sep != ' ' && kind == sep }
	if kind, width, _ := cardSeparator(s, end); width > 0 && n(kind, spanOf(s, end+width, 5, isDigit)) {
		return true
	}
	if sep != ' ' && strings.HasPrefix(strings.TrimLeft(s[end:min(len(s), end+mostBetween)], " "), "=") {
		return true
	}
	kind, from := byte(' '), i
	for range mostBetween {
		next, width := cardSignBefore(s, from)
		if width == 0 {
			break
		}
		kind, from = max(kind, next), from-width
	}
	digits := 0
	for digits < min(from, 5) && isDigit(s[from-1-digits]) {
		digits++
	}
	return from < i && n(kind, digits)
}

// cardSignBefore is cardSign for what ends at i.
func cardSignBefore(s string, i int) (kind byte, width int) {
	for n := min(3, i); n > 0; n-- {
		if kind, width = cardSign(s, i-n); width == n {
			return kind, n
		}
	}
	return 0, 0
}

// cardEnds reports whether a card may end at end: not in a decimal number or a longer code.
func cardEnds(s string, end int) bool {
	sep, width := separator(s, end)
	return sep != '.' && sep != '-' || end+width == len(s) || !isDigit(s[end+width])
}

// besideLetters reports whether the code that s[i:end] is part of has nothing but letters in
// front of it and behind it, and is no hash: hexadecimal digits, as many as make whole words
// of four bytes. Other scripts have no codes, and some no spaces.
func besideLetters(s string, i, end int) bool {
	from, to := i, end
	for ; from > 0 && (isLetter(s[from-1]) || s[from-1] == '_'); from-- {
	}
	for ; to < len(s) && (isLetter(s[to]) || s[to] == '_'); to++ {
	}
	if from > 0 && isDigit(s[from-1]) || to < len(s) && isDigit(s[to]) {
		return false
	}
	hash := from < i || to > end
	for k := from; hash && k < to; k++ {
		hash = hexDigit(s[k]) < 16
	}
	return !hash || (to-from)%8 != 0
}

func grouped(lens []int) bool {
	return len(lens) == 1 || slices.ContainsFunc(cardGroups, func(g []int) bool { return slices.Equal(g, lens) })
}

// issued reports whether a card's issuer gives out numbers that begin so and are so
// long.
func issued(d []byte) bool {
	n := len(d)
	if n < 13 {
		return false
	}
	two := int(d[0]-'0')*10 + int(d[1]-'0')
	three := two*10 + int(d[2]-'0')
	four := three*10 + int(d[3]-'0')
	switch {
	case d[0] == '4':
		return n == 13 || n == 16 || n == 19
	case two >= 51 && two <= 55 || four >= 2221 && four <= 2720:
		return n == 16
	case two == 34 || two == 37:
		return n == 15
	case three >= 300 && three <= 305 || two == 36 || two == 38 || two == 39:
		return n == 14 || n == 16 || n == 19
	case four == 6011 || two == 65 || three >= 644 && three <= 649 || four >= 3528 && four <= 3589 || two == 62 || two == 60 || two == 81 || two == 82:
		return n >= 16
	case four == 5018 || four == 5020 || four == 5038 || four == 5893 || four == 6304 || four == 6759 || four >= 6761 && four <= 6763:
		return n >= 13
	case four >= 2200 && four <= 2204:
		return n >= 16
	}
	return false
}

func luhn(d []byte) bool {
	sum, all := 0, byte(0)
	for k := range d {
		v := int(d[len(d)-1-k] - '0')
		all |= byte(v)
		if k%2 == 1 {
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return sum%10 == 0 && all != 0
}

func isLocal(c byte) bool {
	return isWord(c) || strings.IndexByte(".%+-'!#$&*/=?^`{|}~", c) >= 0
}

func isDomain(c byte) bool { return isAlnum(c) || c == '.' || c == '-' || c >= 0x80 }

// findEmail returns the address around the '@' at i that begins at done or later.
func findEmail(s string, i, done int) (from, to int) {
	from = i
	for from > done && i-from < 64 && isLocal(s[from-1]) {
		from--
	}
	for from < i && strings.IndexByte("./'=?&|", s[from]) >= 0 {
		from++ // of the text around it
	}
	// What stands before the last of these is a parameter's name, a path, a quote.
	if k := strings.LastIndexAny(s[from:i], "=?&|/"); k >= 0 {
		from += k + 1
	}
	if from == i || s[i-1] == '.' {
		return 0, 0
	}
	end := i + 1 + spanOf(s, i+1, 255, isDomain)
	domain := hostOf(strings.TrimRight(s[i+1:end], ".-"))
	end = i + 1 + len(domain)
	labels := strings.Split(domain, ".")
	if len(labels) < 2 {
		return 0, 0
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return 0, 0
		}
	}
	return from, end
}

// hostOf is what of a domain ends in a top level, "" for none: what follows may be of the text
// around it, as in ann@example.org-2024.
func hostOf(domain string) string {
	for domain != "" {
		at := strings.LastIndexByte(domain, '.')
		top := domain[at+1:]
		if strings.HasPrefix(top, "xn--") || len(top) > 1 && allLetters(top) {
			return domain
		}
		if k := strings.IndexByte(top, '-'); k > 1 && allLetters(top[:k]) {
			return domain[:at+1+k]
		}
		domain = domain[:max(at, 0)]
	}
	return ""
}

func allLetters(s string) bool {
	for i := range len(s) {
		if !isLetter(s[i]) && s[i] < 0x80 {
			return false
		}
	}
	return true
}

// ibanLengths are the lengths of the countries that have IBANs.
var ibanLengths = map[string]int{
	"AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29, "BY": 28, "CH": 21, "CR": 22,
	"CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22,
	"GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30,
	"KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20,
	"MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22,
	"RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26,
	"UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}

// ibanNumeric are the countries whose IBANs have nothing but digits after their code:
// without this some hashes in hexadecimal would be IBANs.
const ibanNumeric = "AE AT BA BE BI CR CZ DE DJ DK EE EG ES FI FO GL HR HU IL IS LT LY ME MN MR NO PL PT RS SD SE SI SK SO TL TN VA XK"

// findIBAN returns the end of an IBAN that begins at i, or 0: of a country's length,
// with right check digits, in one run or in groups of four that one kind of sign parts.
func findIBAN(s string, i int) int {
	if len(s)-i < 15 || !isLetter(s[i+1]) || !isDigit(s[i+2]) || !isDigit(s[i+3]) || isUpper(s[i]) != isUpper(s[i+1]) {
		return 0
	}
	country := strings.ToUpper(s[i : i+2])
	want := ibanLengths[country]
	if want == 0 {
		return 0
	}
	digits := 4 // up to where there are digits only
	switch {
	case country == "AD":
		digits = 12
	case strings.Contains(ibanNumeric, country):
		digits = want
	}
	sep, _ := separator(s, i+4)
	n, end, rest, lead, parted := 0, i, 0, 0, 0
	for n < want && end < len(s) {
		c := s[end]
		if sep != 0 && n > parted && n%4 == 0 && !isAlnum(c) {
			next, width := separator(s, end)
			if next != sep {
				return 0
			}
			parted = n
			end += width
			continue
		}
		if !isAlnum(c) || isLetter(c) && (isUpper(c) != isUpper(s[i]) || n >= 4 && n < digits) {
			return 0
		}
		// Mod 97 of the number whose first four places stand at its end.
		if n < 4 {
			lead = ibanMod(lead, c)
		} else {
			rest = ibanMod(rest, c)
		}
		n++
		end++
	}
	if n < want || wordAt(s, end) && s[end] != '_' {
		return 0
	}
	for _, c := range []byte(s[i : i+4]) {
		rest = ibanMod(rest, c)
	}
	if rest != 1 {
		return 0
	}
	return end
}

func ibanMod(m int, c byte) int {
	if isDigit(c) {
		return (m*10 + int(c-'0')) % 97
	}
	return (m*100 + int(c|0x20-'a') + 10) % 97
}

// tokenForm is a kind of token that is known by how it begins.
type tokenForm struct {
	prefix string
	// of are the bytes that follow, least and most how many of them.
	of          func(byte) bool
	least, most int
}

func isKey(c byte) bool    { return isAlnum(c) || c == '_' || c == '-' }
func isAWS(c byte) bool    { return isUpper(c) || c >= '2' && c <= '7' }
func isToken(c byte) bool  { return isKey(c) || strings.IndexByte(".~+/", c) >= 0 }
func isGitHub(c byte) bool { return isAlnum(c) || c == '_' }

var tokenForms = []tokenForm{
	{"AKIA", isAWS, 16, 16},
	{"ASIA", isAWS, 16, 16},
	{"ABIA", isAWS, 16, 16},
	{"ACCA", isAWS, 16, 16},
	{"ghp_", isAlnum, 36, 255},
	{"gho_", isAlnum, 36, 255},
	{"ghu_", isAlnum, 36, 255},
	{"ghs_", isAlnum, 36, 255},
	{"ghr_", isAlnum, 36, 255},
	{"github_pat_", isGitHub, 22, 255},
	{"glpat-", isKey, 20, 255},
	{"AIza", isKey, 35, 35},
	{"xoxb-", isKey, 20, 255},
	{"xoxp-", isKey, 20, 255},
	{"xoxa-", isKey, 20, 255},
	{"xoxr-", isKey, 20, 255},
	{"xoxs-", isKey, 20, 255},
	{"sk_live_", isAlnum, 16, 255},
	{"rk_live_", isAlnum, 16, 255},
	{"sk_test_", isAlnum, 16, 255},
	{"sk-", isKey, 32, 255},
}

// secretNames are names of what holds a secret, before = or :.
var secretNames = []string{"api_key", "apikey", "api-key", "access_token", "auth_token", "secret_access_key", "secret_key", "client_secret", "refresh_token"}

// secretWords are the names, and the word bearer, by their first byte in either case,
// with the signs that may follow; formsBy are the forms by their first byte.
var (
	secretWords [256][]secretWord
	formsBy     [256][]tokenForm
	// tokenStarts are the bytes that a token, or the word before it, begins with.
	tokenStarts [256]bool
)

type secretWord struct{ name, signs string }

func init() {
	add := func(w secretWord) {
		c := w.name[0]
		for _, first := range []byte{c, c - 'a' + 'A'} {
			secretWords[first] = append(secretWords[first], w)
			tokenStarts[first] = true
		}
	}
	add(secretWord{"bearer", " "})
	for _, name := range secretNames {
		add(secretWord{name, "=:"})
		add(secretWord{"aws_" + name, "=:"})
	}
	for _, f := range tokenForms {
		formsBy[f.prefix[0]] = append(formsBy[f.prefix[0]], f)
		tokenStarts[f.prefix[0]] = true
	}
	tokenStarts['e'] = true // of a JSON web token
}

// findToken returns the token that begins at i, or after the word at i.
func findToken(s string, i int) (from, to int) {
	for k := range formsBy[s[i]] {
		f := &formsBy[s[i]][k]
		if !strings.HasPrefix(s[i:], f.prefix) {
			continue
		}
		at := i + len(f.prefix)
		n := spanOf(s, at, f.most+1, f.of)
		if n >= f.least && n <= f.most && (!wordAt(s, at+n) || s[at+n] == '_') && !plainWords(s[at:at+n]) {
			return i, at + n
		}
	}
	if strings.HasPrefix(s[i:], "eyJ") && (i == 0 || s[i-1] != '.' && s[i-1] != '-') {
		return i, findJWT(s, i)
	}
	for _, w := range secretWords[s[i]] {
		// The second letter tells most words apart.
		if len(s)-i > len(w.name) && s[i+1]|0x20 == w.name[1] && strings.EqualFold(s[i:i+len(w.name)], w.name) {
			return secretAfter(s, i+len(w.name), w.signs)
		}
	}
	return 0, 0
}

// plainWords reports whether a text has neither digits nor letters of both cases, as
// words joined by '-' have, and no random text of this length.
func plainWords(s string) bool {
	digit, upper, lower := false, false, false
	for i := range len(s) {
		digit, upper, lower = digit || isDigit(s[i]), upper || isUpper(s[i]), lower || s[i] >= 'a' && s[i] <= 'z'
	}
	return !digit && !(upper && lower) && lower
}

// findJWT returns the end of a JSON web token that begins at i, or 0: two JSON objects
// in base64url and a signature, which may be empty.
func findJWT(s string, i int) int {
	a := i + spanOf(s, i, len(s), isKey)
	if a-i < 12 || a+4 >= len(s) || s[a] != '.' || !strings.HasPrefix(s[a+1:], "eyJ") {
		return 0
	}
	b := a + 1 + spanOf(s, a+1, len(s), isKey)
	if b-a < 6 || b >= len(s) || s[b] != '.' {
		return 0
	}
	return b + 1 + spanOf(s, b+1, len(s), isKey)
}

// secretAfter returns the secret that follows a name, one of the signs and perhaps a
// quote and spaces.
func secretAfter(s string, i int, signs string) (from, to int) {
	end := min(len(s), i+8)
	at := i
	for at < end && (s[at] == '"' || s[at] == '\'' || s[at] == ' ') && strings.IndexByte(signs, s[at]) < 0 {
		at++
	}
	if at >= end || strings.IndexByte(signs, s[at]) < 0 {
		return 0, 0
	}
	for at++; at < end && (s[at] == ' ' || s[at] == '"' || s[at] == '\''); {
		at++
	}
	n := spanOf(s, at, len(s), isToken)
	digits := spanOf(s, at, n, func(c byte) bool { return !isDigit(c) }) < n
	if n < 16 || !digits {
		return 0, 0
	}
	for n += spanOf(s, at+n, 2, func(c byte) bool { return c == '=' }); s[at+n-1] == '.'; n-- {
	}
	return at, at + n
}
