package collector

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/pellucid/pellucid/engine"
)

// WithoutEnds takes off the ends of texts that broke off where a feature is private: the
// last word, and before it what a value of one begins with. A value that is half said is
// not found by who looks for whole ones (WithoutInputs).
func WithoutEnds(v *ModelVersion, in engine.Values, texts []string) {
	private := privateTexts(v.Schema.Features, in)
	if len(private) == 0 {
		return
	}
	for i, s := range texts {
		s = norm.NFC.String(s)
		most := 0
		for _, value := range private {
			most = max(most, begun(s, value))
		}
		s = s[:len(s)-most]
		texts[i] = strings.TrimRightFunc(s, func(r rune) bool { return !unicode.IsSpace(r) })
	}
}

// begun is how many bytes at the end of s, which is composed, are the beginning of value, in
// whatever case of ASCII.
func begun(s, value string) int {
	value = lower(norm.NFC.String(value))
	s = lower(s[max(0, len(s)-len(value)):])
	// border[i] is the longest beginning of value that value[:i+1] ends with.
	border := make([]int, len(value))
	step := func(n int, c byte) int {
		for n > 0 && (n == len(value) || value[n] != c) {
			n = border[n-1]
		}
		if n < len(value) && value[n] == c {
			n++
		}
		return n
	}
	for i := 1; i < len(value); i++ {
		border[i] = step(border[i-1], value[i])
	}
	n := 0
	for i := range len(s) {
		n = step(n, s[i])
	}
	return n
}

func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
