package graph

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/pellucid/pellucid/engine"
)

// reserveText counts the bytes of strings that a kernel makes.
func (x *Exec) reserveText(n int) error { return x.reserve(engine.Uint8, n) }

func buildStringConcat(*builder) (Kernel, error) {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		var failed error
		t, err := zip(x, in[0], in[1], func(a, b string) string {
			if failed == nil {
				failed = x.reserveText(len(a) + len(b))
			}
			if failed != nil {
				return ""
			}
			return a + b
		})
		if failed != nil {
			return nil, failed
		}
		return x.one(t, err)
	}, nil
}

// buildRegexFullMatch: the operator's patterns are RE2's, which Go's are.
func buildRegexFullMatch(b *builder) (Kernel, error) {
	pattern := b.attrs.string("pattern", "")
	if len(pattern) > 1<<16 {
		return nil, b.node.unsupported("a pattern of %d bytes", len(pattern))
	}
	re, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
	if err != nil {
		return nil, b.node.unsupported("pattern: %v", err)
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		return x.one(apply(x, in[0], re.MatchString))
	}, nil
}

// buildStringSplit adds a last dimension of pieces, padded with empty strings.
func buildStringSplit(b *builder) (Kernel, error) {
	delimiter, most := b.attrs.string("delimiter", ""), b.attrs.int("maxsplit", -1)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		text := engine.Data[string](in[0])
		counts, n, err := newOf[int64](x, in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		widest := int64(0)
		for i, s := range text {
			// At most one piece a byte, and one more.
			if err := x.reserve(engine.String, len(s)+1); err != nil {
				return nil, err
			}
			splitText(s, delimiter, most, func(string) { n[i]++ })
			widest = max(widest, n[i])
		}
		shape := x.ints(len(in[0].Shape()) + 1)
		shape[copy(shape, in[0].Shape())] = int(widest)
		o, out, err := newOf[string](x, shape...)
		if err != nil {
			return nil, err
		}
		for i, s := range text {
			row := out[i*int(widest):]
			splitText(s, delimiter, most, func(piece string) { row[0], row = piece, row[1:] })
		}
		return x.pair(o, counts), nil
	}, nil
}

// splitText splits at a delimiter, or at runs of white space where there is none;
// most < 0 is no bound on the splits.
func splitText(s, delimiter string, most int, give func(piece string)) {
	if delimiter == "" {
		splitWords(s, most, give)
		return
	}
	for n := 0; most < 0 || n < most; n++ {
		at := strings.Index(s, delimiter)
		if at < 0 {
			break
		}
		give(s[:at])
		s = s[at+len(delimiter):]
	}
	give(s)
}

func splitWords(s string, most int, give func(piece string)) {
	s = strings.TrimSpace(s)
	for n := 0; s != ""; n++ {
		at := strings.IndexFunc(s, unicode.IsSpace)
		if at < 0 || most >= 0 && n == most {
			give(s)
			return
		}
		give(s[:at])
		s = strings.TrimLeftFunc(s[at:], unicode.IsSpace)
	}
}

// buildStringNormalizer drops stop words and changes case. Case follows Unicode, not
// the locale.
func buildStringNormalizer(b *builder) (Kernel, error) {
	b.attrs.ignore("locale")
	sensitive := b.attrs.int("is_case_sensitive", 0) == 1
	fold := strings.ToLower
	change := func(s string) string { return s }
	switch action := b.attrs.string("case_change_action", "NONE"); action {
	case "NONE":
	case "LOWER":
		change = strings.ToLower
	case "UPPER":
		change = strings.ToUpper
	default:
		return nil, b.node.corrupt("case_change_action %q", action)
	}
	if sensitive {
		fold = func(s string) string { return s }
	}
	stop := map[string]bool{}
	for _, w := range b.attrs.strings("stopwords") {
		stop[fold(w)] = true
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := in[0].Shape()
		if len(shape) != 1 && (len(shape) != 2 || shape[0] != 1) {
			return nil, fmt.Errorf("text of shape %v", shape)
		}
		text := engine.Data[string](in[0])
		drop, n := x.flags(len(text)), 0
		for i, s := range text {
			if drop[i] = stop[fold(s)]; drop[i] {
				continue
			}
			if err := x.reserveText(2 * len(s)); err != nil {
				return nil, err
			}
			n++
		}
		final := x.shaped(shape)
		final[len(final)-1] = max(n, 1) // an empty text where none is left
		o, kept, err := newOf[string](x, final...)
		if err != nil {
			return nil, err
		}
		for i, s := range text {
			if !drop[i] {
				kept[0], kept = change(s), kept[1:]
			}
		}
		return x.one(o, nil)
	}, nil
}

// gram is a node of the tree of known n-grams: where it counts, -1 where it is only
// the beginning of longer ones.
type gram struct {
	at   int
	next map[any]*gram
}

// tfidf is a TfIdfVectorizer's parameters.
type tfidf struct {
	root                     *gram
	shortest, longest, skips int
	width                    int
	mode                     string
	// weights are by place, where they are given.
	weights map[int]float64
}

func (f *tfidf) weight(place int) float64 {
	if w, ok := f.weights[place]; ok {
		return w
	}
	return 1
}

func buildTfIdf(b *builder) (Kernel, error) {
	f := &tfidf{
		root: &gram{at: -1}, mode: b.attrs.string("mode", ""),
		shortest: b.attrs.int("min_gram_length", 0), longest: b.attrs.int("max_gram_length", 0), skips: b.attrs.int("max_skip_count", 0),
	}
	var pool []any
	for _, v := range b.attrs.ints("pool_int64s") {
		pool = append(pool, v)
	}
	for _, v := range b.attrs.strings("pool_strings") {
		pool = append(pool, v)
	}
	if f.mode != "TF" && f.mode != "IDF" && f.mode != "TFIDF" || f.shortest < 1 || f.longest < f.shortest || f.skips < 0 || f.skips > 1<<16 {
		return nil, b.node.corrupt("mode %q, grams of %d to %d with %d skips", f.mode, f.shortest, f.longest, f.skips)
	}
	places := toInts(b.attrs.ints("ngram_indexes"))
	for _, p := range places {
		if p < 0 || p > 1<<24 {
			return nil, b.node.corrupt("ngram_indexes holds %d", p)
		}
		f.width = max(f.width, p+1)
	}
	if err := f.plant(b.node, pool, toInts(b.attrs.ints("ngram_counts")), places); err != nil {
		return nil, err
	}
	weights := b.attrs.floats("weights")
	if len(weights) > 0 && len(weights) != len(places) {
		return nil, b.node.corrupt("%d weights of %d n-grams", len(weights), len(places))
	}
	f.weights = make(map[int]float64, len(weights))
	for i, w := range weights {
		f.weights[places[i]] = float64(w)
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) { return f.run(x, in[0]) }, nil
}

// plant grows the tree of n-grams: starts[n-1] is where those of n words begin in
// the pool.
func (f *tfidf) plant(n *Node, pool []any, starts, places []int) error {
	id := 0
	for i, start := range starts {
		end := len(pool)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		if start < 0 || end < start || end > len(pool) || (end-start)%(i+1) != 0 {
			return n.corrupt("ngram_counts %v of a pool of %d", starts, len(pool))
		}
		for at := start; at < end; at += i + 1 {
			if id >= len(places) {
				return n.corrupt("more n-grams than the %d ngram_indexes", len(places))
			}
			f.add(pool[at:at+i+1], places[id])
			id++
		}
	}
	return nil
}

func (f *tfidf) add(words []any, place int) {
	if len(words) < f.shortest || len(words) > f.longest {
		return
	}
	g := f.root
	for _, w := range words {
		if g.next == nil {
			g.next = map[any]*gram{}
		}
		if g.next[w] == nil {
			g.next[w] = &gram{at: -1}
		}
		g = g.next[w]
	}
	g.at = place
}

func (f *tfidf) run(x *Exec, t *engine.Tensor) ([]*engine.Tensor, error) {
	shape := t.Shape()
	if len(shape) > 2 {
		return nil, fmt.Errorf("words of shape %v", shape)
	}
	rows, words := 1, t.Len()
	if len(shape) == 2 {
		rows, words = shape[0], shape[1]
	}
	final := x.shaped(shape)
	if len(shape) == 0 {
		final = x.ints(1)
	}
	final[len(final)-1] = f.width
	o, out, err := newOf[float32](x, final...)
	if err != nil {
		return nil, err
	}
	if err := x.reserve(engine.String, t.Len()); err != nil {
		return nil, err
	}
	if v := x.integers(t); v != nil {
		countGrams(f, v, out, rows, words)
		return x.one(o, nil)
	}
	text := engine.Data[string](t)
	if len(text) != t.Len() {
		return nil, typeError(t)
	}
	countGrams(f, text, out, rows, words)
	return x.one(o, nil)
}

func countGrams[T string | int64](f *tfidf, all []T, out []float32, rows, words int) {
	for r := range rows {
		row := out[r*f.width : (r+1)*f.width]
		countRow(f, all[r*words:(r+1)*words], row)
		for i, n := range row {
			switch {
			case n == 0:
			case f.mode == "IDF":
				row[i] = float32(f.weight(i))
			case f.mode == "TFIDF":
				row[i] = float32(float64(n) * f.weight(i))
			}
		}
	}
}

// countRow counts the n-grams of a row whose words stand step apart, for every step.
// Single words are counted once.
func countRow[T string | int64](f *tfidf, words []T, out []float32) {
	for step := 1; step <= f.skips+1; step++ {
		shortest := f.shortest
		if step > 1 {
			shortest = max(shortest, 2)
		}
		for start := 0; start+step*(shortest-1) < len(words); start++ {
			g := f.root
			for n, at := 1, start; n <= f.longest && at < len(words); n, at = n+1, at+step {
				if g = g.next[words[at]]; g == nil {
					break
				}
				if n >= shortest && g.at >= 0 {
					out[g.at]++
				}
			}
		}
	}
}

func init() {
	register(DomainONNX, map[string]opDef{
		"StringConcat":     {since: 20, minIn: 2, maxIn: 2, maxOut: 1, accept: stringType, build: buildStringConcat},
		"StringSplit":      {since: 20, minIn: 1, maxIn: 1, maxOut: 2, accept: stringType, result: firstThenInt64, build: buildStringSplit},
		"StringNormalizer": {since: 10, minIn: 1, maxIn: 1, maxOut: 1, accept: stringType, build: buildStringNormalizer},
		"RegexFullMatch":   {since: 20, minIn: 1, maxIn: 1, maxOut: 1, accept: stringType, result: isBool, build: buildRegexFullMatch},
		"TfIdfVectorizer":  {since: 9, minIn: 1, maxIn: 1, maxOut: 1, result: isFloat32, build: buildTfIdf},
	})
}
