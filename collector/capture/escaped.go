package capture

import (
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/reading"
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
	read := func(level int) (r reading.Text, more bool) {
		r, more = reading.Of(s), true
		for range level {
			r, more = unescaped(r)
		}
		return r, more
	}
	for level := 0; level <= maxEscapes; level++ {
		r, more := read(level)
		if !more {
			break
		}
		if strings.Contains(r.S, zeroWidth) {
			if spaced = true; without {
				r = withoutSign(r, zeroWidth)
			}
		}
		s = p.replace(s, r, id)
	}
	return s, spaced
}

// withoutSign is r without a sign.
func withoutSign(r reading.Text, sign string) reading.Text {
	w := reading.Rewrite(r)
	for i := 0; i < len(r.S); {
		if strings.HasPrefix(r.S[i:], sign) {
			w.Change(i)
			i += len(sign)
			continue
		}
		w.Keep(i, 1)
		i++
	}
	r, _ = w.Done()
	return r
}

// unescaped is r with each escape made out; escaped is false where there is none.
func unescaped(r reading.Text) (out reading.Text, escaped bool) {
	if strings.IndexByte(r.S, '%') < 0 && strings.IndexByte(r.S, '+') < 0 && strings.IndexByte(r.S, '\\') < 0 && strings.IndexByte(r.S, '&') < 0 {
		return r, false
	}
	w := reading.Rewrite(r)
	query := false // behind the = of a query a plus is a space
	for i := 0; i < len(r.S); {
		c := r.S[i]
		var plain []byte
		n := 0
		if c == '%' || c == '\\' || c == '&' || c == '+' && query {
			plain, n = collector.Unescape(r.S[i:], query)
		}
		query = c == '=' || query && c > ' ' && strings.IndexByte("/?&#;\"'<>", c) < 0
		if n > 0 {
			w.Add(i, plain...)
		} else {
			n = 1
			w.Keep(i, n)
		}
		i += n
	}
	return w.Done()
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
