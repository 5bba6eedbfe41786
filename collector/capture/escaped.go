package capture

import "strings"

// maxEscapes is how often a text may have been escaped for an address, one address being
// in another, for what is in it to be found.
const maxEscapes = 3

// inside replaces what the patterns find in s and in the parts of s that are escaped as
// in an address. A part in which something is found is written as it reads.
func (p *Patterns) inside(s string, id bool, depth int) string {
	if p == nil {
		return s
	}
	s = p.replace(s, id)
	if depth == 0 || strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	var out strings.Builder
	done := 0
	for i := 0; i < len(s); {
		if addressEnds(s[i]) {
			i++
			continue
		}
		n := spanOf(s, i, len(s), func(c byte) bool { return !addressEnds(c) })
		// In a query a plus is a space.
		if plain, ok := unescaped(s[i:i+n], i > 0 && s[i-1] == '='); ok {
			if clean := p.inside(plain, id, depth-1); clean != plain {
				out.WriteString(s[done:i])
				out.WriteString(clean)
				done = i + n
			}
		}
		i += n
	}
	if done == 0 {
		return s
	}
	out.WriteString(s[done:])
	return out.String()
}

// addressEnds reports whether c ends a part of an address, or the address.
func addressEnds(c byte) bool {
	return c <= ' ' || strings.IndexByte("/?&=#;\"'<>", c) >= 0
}

// unescaped is a part of an address as it reads; ok says whether that is another text.
func unescaped(s string, query bool) (plain string, ok bool) {
	var b []byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '%' && i+2 < len(s) && hexDigit(s[i+1]) < 16 && hexDigit(s[i+2]) < 16:
			c, ok = hexDigit(s[i+1])<<4|hexDigit(s[i+2]), true
			i += 2
		case c == '+' && query:
			c, ok = ' ', true
		}
		b = append(b, c)
	}
	return string(b), ok
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
