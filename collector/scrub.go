package collector

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Scrubber takes values out of texts in which somebody may have repeated them: the
// message of an error, the name of a span. The zero value takes out nothing.
type Scrubber struct {
	long  *strings.Replacer // those of wholeFrom bytes and more, wherever they are
	words map[string]bool   // shorter ones, as words
}

// wholeFrom is the length from which a value is taken out of the middle of a word, too:
// a shorter one would be found in what has nothing to do with it.
const wholeFrom = 4

// NewScrubber takes out these values, given as JSON or as text. Booleans, missing values
// and single characters are left: what would be taken for them says nothing.
func NewScrubber(raw []json.RawMessage, texts []string) Scrubber {
	for _, r := range raw {
		texts = append(texts, scalars(r)...)
	}
	var pairs []string
	s := Scrubber{words: map[string]bool{}}
	// The longest first: a value may be the beginning of another.
	slices.SortFunc(texts, func(a, b string) int { return len(b) - len(a) })
	for _, t := range slices.Compact(texts) {
		switch {
		case len(t) >= wholeFrom:
			pairs = append(pairs, t, Masked)
		case utf8.RuneCountInString(t) > 1:
			s.words[t] = true
		}
	}
	if len(pairs) > 0 {
		s.long = strings.NewReplacer(pairs...)
	}
	return s
}

// scalars are the texts of a JSON value, numbers as they are written and as float32 and
// float64 print.
func scalars(raw json.RawMessage) []string {
	var v any
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil
	}
	var out []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			out = append(out, v)
		case json.Number:
			out = append(out, v.String())
			if f, err := v.Float64(); err == nil && !math.IsInf(f, 0) {
				out = append(out, strconv.FormatFloat(f, 'f', -1, 64), strconv.FormatFloat(f, 'g', -1, 64), strconv.FormatFloat(float64(float32(f)), 'g', -1, 32))
			}
		case []any:
			for _, one := range v {
				walk(one)
			}
		}
	}
	walk(v)
	return out
}

// Long is s without the longer values: for what is written by programs, where a short
// one (a status, a port) is most likely something else.
func (x Scrubber) Long(s string) string {
	if x.long == nil {
		return s
	}
	return x.long.Replace(s)
}

// Text is s without the values: for what is written to be read.
func (x Scrubber) Text(s string) string {
	s = x.Long(s)
	if len(x.words) == 0 || s == "" {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		inWord := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' }
		n := strings.IndexFunc(s, func(r rune) bool { return !inWord(r) })
		if n < 0 {
			n = len(s)
		}
		if x.words[s[:n]] {
			b.WriteString(Masked)
		} else {
			b.WriteString(s[:n])
		}
		if s = s[n:]; s == "" {
			break
		}
		_, size := utf8.DecodeRuneInString(s)
		b.WriteString(s[:size])
		s = s[size:]
	}
	return b.String()
}
