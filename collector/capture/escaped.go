package capture

import (
	"strings"

	"github.com/pellucid/pellucid/collector"
)

// maxEscapes is how often a text may have been escaped, one address or document being in
// another, for what is in it to be found.
const maxEscapes = 3

// inside replaces what the patterns find in s as it is and as it reads where it is escaped as
// in an address, in JSON or in HTML, up to maxEscapes times over. The rest stays as it is.
func (p *Patterns) inside(s string, id bool) string {
	if p == nil {
		return s
	}
	s, spaced := p.look(s, id, false)
	if spaced {
		s, _ = p.look(s, id, true)
	}
	return s
}

// zeroWidth is a space that is not seen: it may part words, or stand in one.
const zeroWidth = "\u200b"

// look is inside with spaces of no width, or without; spaced says that there are some.
func (p *Patterns) look(s string, id, without bool) (clean string, spaced bool) {
	read := func(level int) (r reading, more bool) {
		r, more = reading{s: s}, true
		for range level {
			r, more = r.unescaped()
		}
		return r, more
	}
	for level := 0; level <= maxEscapes; level++ {
		r, more := read(level)
		if !more {
			break
		}
		if strings.Contains(r.s, zeroWidth) {
			if spaced = true; without {
				r = r.without(zeroWidth)
			}
		}
		s = p.replace(s, r, id)
	}
	return s, spaced
}

// reading is a text that was made of another, with where in that each of its bytes begins and,
// last, where it ends; at is nil where both are the same.
type reading struct {
	s  string
	at []int
}

// begin is where in the first text the byte at i was read.
func (r reading) begin(i int) int {
	if r.at == nil {
		return i
	}
	return r.at[i]
}

// end is where in the first text what ends at i was read to.
func (r reading) end(i int) int {
	for r.at != nil && i > 0 && i < len(r.s) && r.at[i] == r.at[i-1] {
		i++ // the rest of what one sign was read as
	}
	return r.begin(i)
}

// rewriting makes a reading of another, once it has changed something.
type rewriting struct {
	of reading
	s  []byte
	at []int // nil until then
}

// change goes on after what stays as it is up to i.
func (w *rewriting) change(i int) {
	if w.at != nil {
		return
	}
	w.s, w.at = append(make([]byte, 0, len(w.of.s)), w.of.s[:i]...), make([]int, i, len(w.of.s)+1)
	for k := range w.at {
		w.at[k] = w.of.begin(k)
	}
}

// add appends bytes that stand for what begins at i.
func (w *rewriting) add(i int, b ...byte) {
	w.change(i)
	for range b {
		w.at = append(w.at, w.of.begin(i))
	}
	w.s = append(w.s, b...)
}

// keep appends n bytes at i, as they are.
func (w *rewriting) keep(i, n int) {
	for k := i; k < i+n && w.at != nil; k++ {
		w.add(k, w.of.s[k])
	}
}

func (w *rewriting) done() (r reading, changed bool) {
	if w.at == nil {
		return w.of, false
	}
	return reading{string(w.s), append(w.at, w.of.begin(len(w.of.s)))}, true
}

// without is r without a sign.
func (r reading) without(sign string) reading {
	w := rewriting{of: r}
	for i := 0; i < len(r.s); {
		if strings.HasPrefix(r.s[i:], sign) {
			w.change(i)
			i += len(sign)
			continue
		}
		w.keep(i, 1)
		i++
	}
	r, _ = w.done()
	return r
}

// unescaped is r with each escape made out; escaped is false where there is none.
func (r reading) unescaped() (out reading, escaped bool) {
	if strings.IndexByte(r.s, '%') < 0 && strings.IndexByte(r.s, '+') < 0 && strings.IndexByte(r.s, '\\') < 0 && strings.IndexByte(r.s, '&') < 0 {
		return r, false
	}
	w := rewriting{of: r}
	query := false // behind the = of a query a plus is a space
	for i := 0; i < len(r.s); {
		c := r.s[i]
		var plain []byte
		n := 0
		if c == '%' || c == '\\' || c == '&' || c == '+' && query {
			plain, n = collector.Unescape(r.s[i:], query)
		}
		query = c == '=' || query && c > ' ' && strings.IndexByte("/?&#;\"'<>", c) < 0
		if n > 0 {
			w.add(i, plain...)
		} else {
			n = 1
			w.keep(i, n)
		}
		i += n
	}
	return w.done()
}

// hexDigit is what a hexadecimal digit stands for, 16 for what is none.
func hexDigit(c byte) byte {
	switch {
	case isDigit(c):
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 16
}
