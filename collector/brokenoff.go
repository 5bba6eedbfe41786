package collector

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pellucid/pellucid/collector/reading"
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
	for i := range private {
		private[i] = folded(reading.Of(private[i])).S
	}
	for i, s := range texts {
		r := folded(reading.Of(s))
		begins := len(r.S)
		last, n := utf8.DecodeLastRuneInString(r.S)
		for _, value := range private {
			begins = min(begins, len(r.S)-begun(r.S, value))
			// The last letter may lack its accent.
			if most := begun(r.S[:len(r.S)-n], value); most > 0 && !unicode.IsSpace(last) {
				begins = min(begins, len(r.S)-n-most)
			}
		}
		s = s[:r.Place(begins, begins)[0]]
		texts[i] = strings.TrimRightFunc(s, func(r rune) bool { return !unicode.IsSpace(r) })
	}
}

// begun is how many bytes at the end of s are the beginning of value, both folded.
func begun(s, value string) int {
	s = s[max(0, len(s)-len(value)):]
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
