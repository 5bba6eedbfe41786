package collector

import (
	"bytes"
	"cmp"
	"encoding/json"
	"html"
	"math"
	"net/url"
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
	whole bool              // there are too many to look for: nothing is left of a text
}

// maxScrubbed bounds the bytes of all forms of the values of one Scrubber.
const maxScrubbed = 16 << 20

// longText is from which length a value is looked for as it is and as JSON only.
const longText = 1 << 10

// wholeFrom is the length from which a value is taken out of the middle of a word, too:
// a shorter one would be found in what has nothing to do with it.
const wholeFrom = 4

// NewScrubber takes out these values, given as JSON or as text. Booleans, missing values
// and single characters are left: what would be taken for them says nothing.
func NewScrubber(raw []json.RawMessage, texts []string) Scrubber {
	for _, r := range raw {
		texts = append(texts, scalars(r)...)
	}
	size := 0
	for _, t := range texts {
		for _, form := range asRepeated(t) {
			texts = append(texts, form)
			size += len(form)
		}
		if size += len(t); size > maxScrubbed {
			return Scrubber{whole: true}
		}
	}
	var pairs []string
	s := Scrubber{words: map[string]bool{}}
	// The longest first: a value may be the beginning of another.
	slices.SortFunc(texts, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
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
	var out []string
	depth := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			out = append(out, v)
			// What was said to a model is JSON in a string.
			if inner := []byte(v); len(v) > 1 && (v[0] == '[' || v[0] == '{') && depth < 4 && json.Valid(inner) {
				depth++
				walk(decoded(inner))
				depth--
			}
		case json.Number:
			out = append(out, v.String())
			if f, err := v.Float64(); err == nil && !math.IsInf(f, 0) {
				out = append(out, strconv.FormatFloat(f, 'f', -1, 64), strconv.FormatFloat(f, 'g', -1, 64), strconv.FormatFloat(float64(float32(f)), 'g', -1, 32))
			}
		case []any:
			for _, one := range v {
				walk(one)
			}
		case map[string]any:
			for _, one := range v {
				walk(one)
			}
		}
	}
	walk(decoded(raw))
	return out
}

// decoded is JSON with its numbers as they are written, nil where it is none.
func decoded(raw []byte) any {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil
	}
	return v
}

// fewWords is up to how many words each of a value's is taken for it: a name has some, a
// prompt has many.
const fewWords = 4

// asRepeated are the forms in which messages repeat a text: trimmed, escaped for JSON,
// HTML and addresses, in one case, and each of a few words.
func asRepeated(t string) []string {
	quoted, _ := json.Marshal(t) // text always marshals
	if len(t) > longText {
		return []string{string(quoted[1 : len(quoted)-1])}
	}
	trimmed := strings.TrimSpace(t)
	ascii := strconv.QuoteToASCII(t)
	python := strings.NewReplacer(`\"`, `"`).Replace(ascii)
	out := []string{
		trimmed, string(quoted[1 : len(quoted)-1]), ascii[1 : len(ascii)-1], python[1 : len(python)-1], html.EscapeString(t), url.QueryEscape(t), url.PathEscape(t),
		strings.ToUpper(trimmed), strings.ToLower(trimmed),
	}
	if words := strings.Fields(t); len(words) > 1 && len(words) <= fewWords {
		for _, w := range words {
			if len(w) >= wholeFrom {
				out = append(out, w)
			}
		}
	}
	return out
}

// Long is s without the longer values: for what is written by programs, where a short
// one (a status, a port) is most likely something else.
func (x Scrubber) Long(s string) string {
	switch {
	case x.whole && s != "":
		return Masked
	case x.long == nil:
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
