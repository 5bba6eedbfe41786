package oip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of any JSON value.
const maxDepth = 64

// RequestError is a fault of the bytes that were decoded. Reason is for whoever
// sent them: it repeats names and numbers of theirs, though no value.
type RequestError struct {
	Reason string
	record string
}

func (e *RequestError) Error() string { return e.Reason }

// Record returns the reason without anything that came with the request, so that
// it may be stored.
func (e *RequestError) Record() string {
	if e.record == "" {
		return e.Reason
	}
	return e.record
}

func refuse(format string, args ...any) error {
	return &RequestError{Reason: fmt.Sprintf(format, args...), record: Record(format, args...)}
}

// clip bounds a name that came with a request before it is put in a message.
func clip(name string) string {
	const limit = 128
	if len(name) <= limit {
		return name
	}
	return name[:limit] + "..."
}

// scanner reads JSON from b at i. It is strict: what encoding/json repairs (bad
// UTF-8, lone surrogates) is an error here, because a repaired string is another
// string.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) fault(what string) error {
	return refuse("malformed JSON at byte %d: %s", Number(s.i), Own(what))
}

// peek returns the next byte that is no white space, or 0 at the end.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte) error {
	if s.peek() != c || s.i >= len(s.b) {
		return s.fault("expected '" + string(c) + "'")
	}
	s.i++
	return nil
}

// end checks that nothing but white space is left.
func (s *scanner) end() error {
	if s.peek(); s.i < len(s.b) {
		return s.fault("data after the end of the value")
	}
	return nil
}

// literal consumes word, whose first byte has been seen.
func (s *scanner) literal(word string) error {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return s.fault(badToken(s.b[s.i]))
	}
	s.i += len(word)
	return nil
}

// null consumes the literal null if it is next.
func (s *scanner) null() (bool, error) {
	if s.peek() != 'n' {
		return false, nil
	}
	return true, s.literal("null")
}

func badToken(c byte) string {
	switch c {
	case 'N', 'I', 'n', 'i':
		return "not a JSON value (NaN and Infinity are not JSON; send null for a missing value)"
	}
	return "not a JSON value"
}

// object calls field with each key; field must consume the value.
func (s *scanner) object(field func(key string) error) error {
	return s.members(func(key []byte) error { return field(known(key)) })
}

// members is object with the bytes of the keys, which may be those of the body.
func (s *scanner) members(field func(key []byte) error) error {
	if err := s.expect('{'); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.i++
		return nil
	}
	for {
		key, err := s.key()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := field(key); err != nil {
			return err
		}
		more, err := s.more('}')
		if err != nil || !more {
			return err
		}
	}
}

// list calls item for each element, which it must consume.
func (s *scanner) list(item func(i int) error) error {
	if err := s.expect('['); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.i++
		return nil
	}
	for i := 0; ; i++ {
		if err := item(i); err != nil {
			return err
		}
		more, err := s.more(']')
		if err != nil || !more {
			return err
		}
	}
}

// more consumes a comma (true) or the closing byte (false).
func (s *scanner) more(closing byte) (bool, error) {
	switch s.peek() {
	case ',':
		s.i++
		return true, nil
	case closing:
		s.i++
		return false, nil
	}
	return false, s.fault("expected ',' or '" + string(closing) + "'")
}

// str reads a string and returns a copy of it.
func (s *scanner) str() (string, error) {
	if s.peek() != '"' {
		return "", s.fault("expected a string")
	}
	s.i++
	start := s.i
	ascii := true
	for s.i < len(s.b) {
		c := s.b[s.i]
		switch {
		case c == '"':
			raw := s.b[start:s.i]
			if !ascii && !utf8.Valid(raw) {
				return "", s.fault("a string is not valid UTF-8")
			}
			s.i++
			return string(raw), nil
		case c == '\\':
			return s.escaped(start)
		case c < 0x20:
			return "", s.fault("a control character in a string")
		case c >= utf8.RuneSelf:
			ascii = false
		}
		s.i++
	}
	return "", s.fault("a string does not end")
}

// escaped finishes a string that began at start and has an escape at s.i.
func (s *scanner) escaped(start int) (string, error) {
	out := append([]byte(nil), s.b[start:s.i]...)
	for s.i < len(s.b) {
		c := s.b[s.i]
		switch {
		case c == '"':
			s.i++
			if !utf8.Valid(out) {
				return "", s.fault("a string is not valid UTF-8")
			}
			return string(out), nil
		case c < 0x20:
			return "", s.fault("a control character in a string")
		case c != '\\':
			out = append(out, c)
			s.i++
			continue
		}
		var err error
		if out, err = s.escape(out); err != nil {
			return "", err
		}
	}
	return "", s.fault("a string does not end")
}

// escape decodes the escape at s.i onto out.
func (s *scanner) escape(out []byte) ([]byte, error) {
	s.i++
	if s.i >= len(s.b) {
		return nil, s.fault("a string does not end")
	}
	c := s.b[s.i]
	s.i++
	switch c {
	case '"', '\\', '/':
		return append(out, c), nil
	case 'b':
		return append(out, '\b'), nil
	case 'f':
		return append(out, '\f'), nil
	case 'n':
		return append(out, '\n'), nil
	case 'r':
		return append(out, '\r'), nil
	case 't':
		return append(out, '\t'), nil
	case 'u':
		r, err := s.unicode()
		if err != nil {
			return nil, err
		}
		return utf8.AppendRune(out, r), nil
	}
	return nil, s.fault("unknown escape in a string")
}

// unicode decodes four hexadecimal digits, and the second half of a surrogate
// pair where the first asks for it.
func (s *scanner) unicode() (rune, error) {
	r, err := s.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if len(s.b)-s.i < 6 || s.b[s.i] != '\\' || s.b[s.i+1] != 'u' {
		return 0, s.fault("half a surrogate pair in a string")
	}
	s.i += 2
	low, err := s.hex4()
	if err != nil {
		return 0, err
	}
	pair := utf16.DecodeRune(r, low)
	if pair == utf8.RuneError {
		return 0, s.fault("half a surrogate pair in a string")
	}
	return pair, nil
}

func (s *scanner) hex4() (rune, error) {
	if len(s.b)-s.i < 4 {
		return 0, s.fault("a string does not end")
	}
	var r rune
	for _, c := range s.b[s.i : s.i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, s.fault("bad hexadecimal digit in a string")
		}
		r = r<<4 | rune(c)
	}
	s.i += 4
	return r, nil
}

// boolean reads true or false.
func (s *scanner) boolean() (bool, error) {
	switch s.peek() {
	case 't':
		return true, s.literal("true")
	case 'f':
		return false, s.literal("false")
	}
	return false, s.fault("expected true or false")
}

// skip consumes one value of any kind, checking it.
func (s *scanner) skip(depth int) error {
	if depth > maxDepth {
		return s.fault("nested too deep")
	}
	switch s.peek() {
	case '{':
		return s.members(func([]byte) error { return s.skip(depth + 1) })
	case '[':
		return s.list(func(int) error { return s.skip(depth + 1) })
	case '"':
		_, err := s.key()
		return err
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	_, err := s.number()
	return err
}

// raw consumes one value and returns its bytes, not a copy.
func (s *scanner) raw() ([]byte, error) {
	s.peek()
	start := s.i
	if err := s.skip(0); err != nil {
		return nil, err
	}
	return s.b[start:s.i], nil
}

// scalar reads a parameter: string, bool, int64, uint64 or float64, or the JSON
// itself for anything else.
func (s *scanner) scalar() (any, error) {
	switch s.peek() {
	case '"':
		return s.str()
	case 't', 'f':
		return s.boolean()
	case '{', '[', 'n':
		raw, err := s.raw()
		return json.RawMessage(bytes.Clone(raw)), err
	}
	num, err := s.number()
	if err != nil {
		return nil, err
	}
	if v, err := num.signed(64); err == nil && num.integer {
		return v, nil
	}
	if v, err := num.unsigned(64); err == nil && num.integer {
		return v, nil
	}
	v, ok := num.float64()
	if !ok {
		return nil, s.fault("a number is out of range")
	}
	return v, nil
}

// number is a JSON number that has been checked but not converted. Its value is
// mant * 10^exp where exact is set.
type number struct {
	tok                 []byte
	mant                uint64
	exp                 int
	neg, integer, exact bool
}

// number reads a JSON number.
func (s *scanner) number() (number, error) {
	s.peek()
	b, start := s.b, s.i
	n := number{integer: true, exact: true}
	i := start
	if i < len(b) && b[i] == '-' {
		n.neg = true
		i++
	}
	first := i
	for i < len(b) && b[i]-'0' <= 9 {
		n.mant = n.mant*10 + uint64(b[i]-'0')
		i++
	}
	if i == first {
		if i < len(b) {
			return n, s.fault(badToken(b[i]))
		}
		return n, s.fault("unexpected end")
	}
	if b[first] == '0' && i-first > 1 {
		return n, s.fault("a number with a leading zero")
	}
	digits := i - first
	if i < len(b) && b[i] == '.' {
		i++
		frac := i
		for i < len(b) && b[i]-'0' <= 9 {
			n.mant = n.mant*10 + uint64(b[i]-'0')
			i++
		}
		if i == frac {
			return n, s.fault("a number ends in its point")
		}
		n.integer, n.exp = false, frac-i
		digits += i - frac
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		var ok bool
		if i, ok = n.exponent(b, i+1); !ok {
			return n, s.fault("a number has a bad exponent")
		}
	}
	// 19 digits always fit a uint64; more may have wrapped.
	n.exact = n.exact && digits <= 19
	n.tok = b[start:i]
	s.i = i
	return n, nil
}

// exponent reads the digits of an exponent from b at i.
func (n *number) exponent(b []byte, i int) (int, bool) {
	n.integer = false
	neg := false
	if i < len(b) && (b[i] == '+' || b[i] == '-') {
		neg = b[i] == '-'
		i++
	}
	first, e := i, 0
	for i < len(b) && b[i]-'0' <= 9 {
		if e < 1e6 {
			e = e*10 + int(b[i]-'0')
		}
		i++
	}
	if neg {
		e = -e
	}
	n.exp += e
	return i, i > first
}

var (
	errRange    = &RequestError{Reason: "a number is out of the type's range"}
	errFraction = &RequestError{Reason: "a number is not an integer"}
)

// whole returns the magnitude of an integral number, however it is written (1,
// 1.0, 1e2).
func (n *number) whole() (uint64, error) {
	if n.integer {
		if n.exact {
			return n.mant, nil
		}
		tok := n.tok
		if n.neg {
			tok = tok[1:]
		}
		v, err := strconv.ParseUint(string(tok), 10, 64)
		if err != nil {
			return 0, errRange
		}
		return v, nil
	}
	f, ok := n.float64()
	if !ok {
		return 0, errRange
	}
	if n.neg {
		f = -f
	}
	// Beyond 2^53 a float is no longer the exact integer that was written.
	if f > 1<<53 {
		return 0, errRange
	}
	v := uint64(f)
	if float64(v) != f {
		return 0, errFraction
	}
	return v, nil
}

// signed returns the number as a signed integer of that many bits.
func (n *number) signed(bits uint) (int64, error) {
	v, err := n.whole()
	if err != nil {
		return 0, err
	}
	limit := uint64(1) << (bits - 1)
	switch {
	case n.neg && v <= limit:
		return -int64(v), nil
	case !n.neg && v < limit:
		return int64(v), nil
	}
	return 0, errRange
}

// unsigned returns the number as an unsigned integer of that many bits.
func (n *number) unsigned(bits uint) (uint64, error) {
	v, err := n.whole()
	if err != nil {
		return 0, err
	}
	if n.neg && v != 0 || bits < 64 && v>>bits != 0 {
		return 0, errRange
	}
	return v, nil
}

// Check checks that body is one JSON value, nested within bounds.
func Check(body []byte) error {
	s := scanner{b: body}
	if err := s.skip(0); err != nil {
		return err
	}
	return s.end()
}
