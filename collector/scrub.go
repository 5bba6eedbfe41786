package collector

import (
	"bytes"
	"encoding/json"
	"html"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pellucid/pellucid/collector/reading"
	"golang.org/x/text/unicode/norm"
)

// Scrubber takes values out of texts in which somebody may have repeated them: the
// message of an error, the name of a span. The zero value takes out nothing.
//
// A value is looked for as it is and in the forms in which messages repeat it, within
// what base64 and hexadecimal stand for, and a number however it is rounded and grouped.
type Scrubber struct {
	long    forms           // those of wholeFrom bytes and more, wherever they are
	read    forms           // the same in one case, and their words, for what a text reads as
	words   map[string]bool // shorter ones, as words
	numbers []float64       // magnitudes, in order
	size    int             // bytes that all this takes, about
	whole   bool            // there are too many to look for: nothing is left of a text
}

// maxScrubbed bounds the memory of one Scrubber, formCost is what a form costs beside
// its bytes.
const (
	maxScrubbed = 32 << 20
	formCost    = 64
)

// longText is from which length a value is looked for as it is and as JSON only.
const longText = 1 << 10

// wholeFrom is the length from which a value is taken out of the middle of a word, too:
// a shorter one would be found in what has nothing to do with it. sureFrom is the one
// from which it is taken out of names that programs bear.
const (
	wholeFrom = 4
	sureFrom  = 8
)

// NewScrubber takes out these values, given as JSON or as text. Booleans, missing values
// and single characters are left: what would be taken for them says nothing.
func NewScrubber(raw []json.RawMessage, texts []string) Scrubber {
	s := Scrubber{words: map[string]bool{}}
	seen, done := map[string]bool{}, map[string]bool{}
	var list, read []string
	add := func(t string) bool {
		if !seen[t] {
			seen[t] = true
			s.size += len(t) + formCost
			list = append(list, t)
		}
		return s.size <= maxScrubbed
	}
	value := func(t string) bool {
		if done[t] {
			return true
		}
		done[t] = true
		if f, err := strconv.ParseFloat(t, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			s.numbers = append(s.numbers, math.Abs(f))
			if strings.Trim(t, "0123456789.eE+-") == "" {
				return add(t) && add(strings.ToUpper(t)) // nothing in it is ever escaped
			}
		}
		for _, form := range readForms(t) {
			s.size += len(form) + formCost
			read = append(read, form)
		}
		for _, form := range asRepeated(t) {
			if !add(form) {
				return false
			}
		}
		// What is encoded, and short words, are looked for by their bytes.
		return add(t) && add(norm.NFC.String(t)) && add(norm.NFD.String(t))
	}
	for _, r := range raw {
		for _, t := range scalars(r) {
			if !value(t) {
				return Scrubber{whole: true}
			}
		}
	}
	for _, t := range texts {
		if !value(t) {
			return Scrubber{whole: true}
		}
	}
	list = slices.DeleteFunc(list, func(t string) bool {
		if len(t) < wholeFrom && utf8.RuneCountInString(t) > 1 {
			s.words[folded(reading.Of(t)).S] = true
		}
		return len(t) < wholeFrom
	})
	s.long, s.read = newForms(list), newForms(slices.Compact(sorted(read)))
	slices.Sort(s.numbers)
	s.numbers = slices.Compact(s.numbers)
	return s
}

// NewNameScrubber takes whole values out of names, given as JSON: a word of one may be what
// anything is called.
func NewNameScrubber(raw []json.RawMessage) Scrubber {
	var list, read []string
	size := 0
	for _, r := range raw {
		for _, t := range scalars(r) {
			if t = strings.TrimSpace(t); len(t) >= wholeFrom && len(t) <= longText {
				list = append(list, t)
				if folded := folded(reading.Of(t)).S; len(folded) >= wholeFrom {
					read = append(read, folded)
				}
				size += 2 * (len(t) + formCost)
			}
		}
	}
	if size > maxScrubbed {
		return Scrubber{whole: true}
	}
	return Scrubber{long: newForms(slices.Compact(sorted(list))), read: newForms(slices.Compact(sorted(read))), size: size}
}

// Join takes out what either of two takes out.
func (x Scrubber) Join(y Scrubber) Scrubber {
	switch {
	case x.whole || y.whole || x.size+y.size > maxScrubbed:
		return Scrubber{whole: true}
	case x.Empty():
		return y
	case y.Empty():
		return x
	}
	list := sorted(append(slices.Clone(x.long.list), y.long.list...))
	read := sorted(append(slices.Clone(x.read.list), y.read.list...))
	out := Scrubber{long: newForms(slices.Compact(list)), read: newForms(slices.Compact(read)), words: maps.Clone(x.words), numbers: append(slices.Clone(x.numbers), y.numbers...)}
	maps.Copy(out.words, y.words)
	slices.Sort(out.numbers)
	out.numbers = slices.Compact(out.numbers)
	for _, list := range [][]string{out.long.list, out.read.list} {
		for _, t := range list {
			out.size += len(t) + formCost
		}
	}
	out.size += len(out.words)*2*formCost + len(out.numbers)*8
	return out
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// Empty reports whether it takes out nothing, Full whether it leaves nothing.
func (x Scrubber) Empty() bool { return !x.whole && len(x.long.list)+len(x.words) == 0 }

// Full reports whether there is too much to look for, so that nothing is left of a text.
func (x Scrubber) Full() bool { return x.whole }

// Size is about how many bytes of memory it takes.
func (x Scrubber) Size() int { return x.size }

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
	bare := &bytes.Buffer{}
	enc := json.NewEncoder(bare)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(t) // as above
	asJSON := []string{string(quoted[1 : len(quoted)-1]), strings.TrimSuffix(bare.String(), "\"\n")[1:]}
	if len(t) > longText {
		return asJSON
	}
	trimmed := strings.TrimSpace(t)
	ascii := strconv.QuoteToASCII(t)
	python := strings.NewReplacer(`\"`, `"`).Replace(ascii)
	out := append(slices.Clone(asJSON),
		trimmed, ascii[1:len(ascii)-1], python[1:len(python)-1], html.EscapeString(t), url.QueryEscape(t), url.PathEscape(t),
		strings.ToUpper(trimmed), strings.ToLower(trimmed),
	)
	if words := strings.Fields(t); len(words) > 1 && len(words) <= fewWords {
		for _, w := range words {
			if len(w) >= wholeFrom {
				out = append(out, w)
			}
		}
	}
	return out
}

// Long is s without the longer values: for what is written by programs or answered by models,
// where a short one is most likely something else.
func (x Scrubber) Long(s string) string { return x.without(s, wholeFrom) }

// Sure is s without values of some length: for names that programs bear, parts of which
// may be what a category is called.
func (x Scrubber) Sure(s string) string { return x.without(s, sureFrom) }

func (x Scrubber) without(s string, least int) string {
	switch {
	case x.whole && s != "":
		return Masked
	case len(s) < wholeFrom || len(x.long.list) == 0:
		return s
	}
	q := search{x: &x, least: least, w: stepsFor(s)}
	return q.without(s)
}

// Bytes reports whether bytes may hold a value: one of them, or what is no text, so that
// nobody can tell.
func (x Scrubber) Bytes(b []byte) bool {
	if x.Empty() || len(b) == 0 {
		return false
	}
	s := string(b)
	return x.whole || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && !unicode.IsSpace(r) }) || x.Text(s) != s
}

// Text is s without the values: for what is written to be read.
func (x Scrubber) Text(s string) string {
	switch {
	case x.whole && s != "":
		return Masked
	case s == "" || x.Empty():
		return s
	}
	q := search{x: &x, least: wholeFrom, words: true, w: stepsFor(s)}
	return q.without(s)
}
