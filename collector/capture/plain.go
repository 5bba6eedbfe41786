package capture

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/pellucid/pellucid/collector"
)

// plain is a text with digits of any script and full-width signs in ASCII, by which the forms
// know it, and where in the text each byte of that stood and, last, where it ends; at is nil
// where both are the same.
func plain(s string) (t string, at []int) {
	first := ascii(s)
	for first < len(s) {
		c, n := utf8.DecodeRuneInString(s[first:])
		if c >= utf8.RuneSelf && collector.InASCII(c) != 0 {
			break
		}
		first += n
	}
	if first == len(s) {
		return s, nil
	}
	b := append(make([]byte, 0, len(s)), s[:first]...)
	at = make([]int, first, len(s)+1)
	for i := range at {
		at[i] = i
	}
	for i := first; i < len(s); {
		c, n := utf8.DecodeRuneInString(s[i:])
		if sign := collector.InASCII(c); sign != 0 {
			b, at = append(b, sign), append(at, i)
			i += n
			continue
		}
		for range n {
			b, at = append(b, s[i]), append(at, i)
			i++
		}
	}
	return string(b), append(at, len(s))
}

// place is where in the text i of its plain form stood.
func place(at []int, i int) int {
	if at == nil {
		return i
	}
	return at[i]
}

// ascii is how many bytes at least, in eights, s begins with that are ASCII, all of them where
// it has no others.
func ascii(s string) int {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		if binary.LittleEndian.Uint64([]byte(s[i:i+8]))&0x8080808080808080 != 0 {
			return i
		}
	}
	for k := i; k < len(s); k++ {
		if s[k] >= utf8.RuneSelf {
			return i
		}
	}
	return len(s)
}
