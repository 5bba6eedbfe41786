package graph

import (
	"errors"
	"fmt"
	"math/bits"
	"regexp"
	"regexp/syntax"
	"slices"
	"unicode/utf8"

	"github.com/pellucid/pellucid/engine"
)

// The marks that Tokenizer puts before and behind the tokens of a text.
const (
	startOfText = "\x02"
	endOfText   = "\x03"
)

// maxLookedAround bounds a text that is cut by an expression that depends on what is around
// a match: it is searched in one go, which may take a time that grows with the square.
const maxLookedAround = 16 << 10

// tokenizer is a node of onnxruntime's Tokenizer, by which skl2onnx cuts texts: into
// characters, at separators, or into what an expression matches.
type tokenizer struct {
	pad        string
	mark       bool
	shortest   int
	separators []*regexp.Regexp
	token      *regexp.Regexp
	// whole says that token has to see all of a text.
	whole bool
}

func buildTokenizer(b *builder) (Kernel, error) {
	t := &tokenizer{pad: b.attrs.string("pad_value", ""), mark: b.attrs.int("mark", 0) != 0, shortest: b.attrs.int("mincharnum", 1)}
	separators, token := b.attrs.strings("separators"), b.attrs.string("tokenexp", "")
	var err error
	switch {
	case t.shortest < 1:
		return nil, b.node.corrupt("mincharnum %d", t.shortest)
	case b.attrs.has("separators") && len(separators) == 1 && separators[0] == "", !b.attrs.has("separators") && token == ".":
		if t.shortest > 1 {
			return nil, b.node.corrupt("characters of at least %d", t.shortest)
		}
	case len(separators) > 0:
		for _, s := range separators {
			re, around, err := longest(s)
			if err == nil && around {
				err = errors.New("an expression that matches nothing, or by what is around it")
			}
			if err != nil {
				return nil, b.node.unsupported("separator: %v", err)
			}
			t.separators = append(t.separators, re)
		}
	case token == "":
		return nil, b.node.corrupt("neither separators nor tokenexp")
	default:
		if t.token, t.whole, err = longest(token); err == nil && t.whole && t.shortest > 1 {
			err = errors.New("an expression that matches nothing, or by what is around it, where tokens of one character are none")
		}
		if err != nil {
			return nil, b.node.unsupported("tokenexp: %v", err)
		}
	}
	return t.run, nil
}

// longest compiles an expression of RE2, whose syntax Go's is, that matches the most it can.
// around says that it depends on what is around a match, or matches nothing; others may be
// looked for in what is left of a text.
func longest(pattern string) (re *regexp.Regexp, around bool, err error) {
	if len(pattern) > 1<<16 {
		return nil, false, fmt.Errorf("an expression of %d bytes", len(pattern))
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, false, err
	}
	if re, err = regexp.Compile(pattern); err != nil {
		return nil, false, err
	}
	re.Longest()
	return re, looksAround(tree) || re.MatchString(""), nil
}

func looksAround(t *syntax.Regexp) bool {
	switch t.Op {
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return true
	}
	for _, s := range t.Sub {
		if looksAround(s) {
			return true
		}
	}
	return false
}

// run adds a last dimension of tokens, padded to the most that a text has.
func (t *tokenizer) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	shape := in[0].Shape()
	if len(shape) != 1 && len(shape) != 2 {
		return nil, fmt.Errorf("texts of shape %v", shape)
	}
	texts := engine.Data[string](in[0])
	rows, width := make([][]string, len(texts)), 0
	for i, s := range texts {
		if !utf8.ValidString(s) {
			return nil, fmt.Errorf("text %d is no UTF-8", i)
		}
		// At most a token a byte, and one more.
		if err := x.reserve(engine.String, len(s)+1); err != nil {
			return nil, err
		}
		var err error
		if rows[i], err = t.cut(x, s); err != nil {
			return nil, err
		}
		width = max(width, len(rows[i]))
	}
	if width > 0 && t.mark {
		width += 2
	}
	o, out, err := newOf[string](x, append(append([]int{}, shape...), width)...)
	if err != nil || width == 0 {
		return []*engine.Tensor{o}, err
	}
	for i, row := range rows {
		line := out[i*width : (i+1)*width]
		if t.mark {
			line[0] = startOfText
			line = line[1:]
		}
		line = line[copy(line, row):]
		if t.mark {
			line[0] = endOfText
			line = line[1:]
		}
		for j := range line {
			line[j] = t.pad
		}
	}
	return x.one(o, nil)
}

func (t *tokenizer) cut(x *Exec, s string) ([]string, error) {
	switch {
	case t.token != nil && t.whole:
		if len(s) > maxLookedAround {
			return nil, fmt.Errorf("a text of %d bytes, where the expression allows for %d", len(s), maxLookedAround)
		}
		return slices.DeleteFunc(t.token.FindAllString(s, -1), func(s string) bool { return s == "" }), nil
	case t.token != nil:
		return t.matches(x, s)
	case t.separators != nil:
		row := []string{s}
		for _, sep := range t.separators {
			var next []string
			for _, piece := range row {
				var err error
				if next, err = t.between(x, next, sep, piece); err != nil {
					return nil, err
				}
			}
			row = next
		}
		return row, nil
	}
	out := make([]string, 0, utf8.RuneCountInString(s))
	for len(s) > 0 {
		_, n := utf8.DecodeRuneInString(s)
		out, s = append(out, s[:n]), s[n:]
	}
	return out, nil
}

// next finds an expression, as long as the run may go on: each search may read all that is
// left of a text.
func (t *tokenizer) next(x *Exec, re *regexp.Regexp, s string) ([]int, error) {
	if x.ctx != nil && x.ctx.Err() != nil {
		return nil, x.ctx.Err()
	}
	return re.FindStringIndex(s), nil
}

// matches are the tokens of enough characters; after one of too few the search goes on a
// character behind its beginning.
func (t *tokenizer) matches(x *Exec, s string) (out []string, err error) {
	for {
		at, err := t.next(x, t.token, s)
		if err != nil || at == nil {
			return out, err
		}
		if m := s[at[0]:at[1]]; utf8.RuneCountInString(m) >= t.shortest {
			out, s = append(out, m), s[at[1]:]
			continue
		}
		_, n := utf8.DecodeRuneInString(s[at[0]:])
		s = s[at[0]+n:]
	}
}

// between appends what is between separators, and has enough characters.
func (t *tokenizer) between(x *Exec, out []string, sep *regexp.Regexp, s string) ([]string, error) {
	add := func(piece string) {
		if utf8.RuneCountInString(piece) >= t.shortest {
			out = append(out, piece)
		}
	}
	for {
		at, err := t.next(x, sep, s)
		if err != nil {
			return nil, err
		}
		if at == nil {
			add(s)
			return out, nil
		}
		add(s[:at[0]])
		s = s[at[1]:]
	}
}

// buildMurmur hashes texts by MurmurHash3 in 32 bits, as scikit-learn's FeatureHasher does.
func buildMurmur(b *builder) (Kernel, error) {
	seed := uint32(b.attrs.int("seed", 0))
	d := engine.Uint32
	if b.attrs.int("positive", 1) != 1 {
		d = engine.Int32
	}
	b.result = []engine.DType{d}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		o, err := x.New(d, in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		for i, s := range engine.Data[string](in[0]) {
			h := murmur3(s, seed)
			if d == engine.Int32 {
				engine.Data[int32](o)[i] = int32(h)
			} else {
				engine.Data[uint32](o)[i] = h
			}
		}
		return x.one(o, nil)
	}, nil
}

// murmur3 is MurmurHash3_x86_32 of Austin Appleby, who put it into the public domain.
func murmur3(s string, seed uint32) uint32 {
	mix := func(k uint32) uint32 { return bits.RotateLeft32(k*0xcc9e2d51, 15) * 0x1b873593 }
	h, n := seed, uint32(len(s))
	for ; len(s) >= 4; s = s[4:] {
		k := uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
		h = bits.RotateLeft32(h^mix(k), 13)*5 + 0xe6546b64
	}
	var k uint32
	for i := range len(s) {
		k |= uint32(s[i]) << (8 * i)
	}
	h ^= mix(k) ^ n
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}

func init() {
	register(DomainContrib, map[string]opDef{
		"Tokenizer":   {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: stringType, build: buildTokenizer},
		"MurmurHash3": {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: stringType, result: fromBuilder, build: buildMurmur},
	})
}
