package capture

import (
	"strings"

	"github.com/pellucid/pellucid/collector"
)

// maxEscapes is how often a text may have been escaped, one address or document being in
// another, for what is in it to be found.
const maxEscapes = 3

// inside replaces what the patterns find in s and in the parts of s that are escaped as in
// an address, in JSON or in HTML. A part in which something is found is written as it reads.
func (p *Patterns) inside(s string, id bool, depth int) string {
	if p == nil {
		return s
	}
	s = p.replace(s, id)
	if depth == 0 || strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 && strings.IndexByte(s, '\\') < 0 && strings.IndexByte(s, '&') < 0 {
		return s
	}
	var out strings.Builder
	done := 0
	for i := 0; i < len(s); {
		// In a query a plus is a space.
		plain, n, escaped := unescaped(s[i:], i > 0 && s[i-1] == '=')
		if escaped {
			if clean := p.inside(plain, id, depth-1); clean != plain {
				out.WriteString(s[done:i])
				out.WriteString(clean)
				done = i + n
			}
		}
		i += max(n, 1)
	}
	if done == 0 {
		return s
	}
	out.WriteString(s[done:])
	return out.String()
}

// partEnds reports whether c ends a part of an address or of a document, unless it begins an
// escape.
func partEnds(c byte) bool {
	return c <= ' ' || strings.IndexByte("/?&=#;\"'<>", c) >= 0
}

// unescaped is the part that s begins with as it reads, and its length; escaped says whether
// that is another text.
func unescaped(s string, query bool) (plain string, n int, escaped bool) {
	var b []byte
	done, twice := 0, false // twice: an & was escaped, of another escape perhaps
	for n < len(s) {
		c := s[n]
		if partEnds(c) && c != '&' && !(twice && (c == '#' || c == ';')) || c == '\\' && n+1 < len(s) && partEnds(s[n+1]) {
			break
		}
		if c != '%' && c != '\\' && c != '&' && (c != '+' || !query) {
			n++
			continue
		}
		read, width := collector.Unescape(s[n:], query)
		if width == 0 && c == '&' {
			break
		}
		if width == 0 {
			n++
			continue
		}
		b = append(append(b, s[done:n]...), read...)
		n += width
		done, escaped, twice = n, true, twice || c == '&' && string(read) == "&"
	}
	if !escaped {
		return s[:n], n, false
	}
	return string(append(b, s[done:n]...)), n, true
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
