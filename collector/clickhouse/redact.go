package clickhouse

import "strings"

// RedactWhere returns a filter's text with every literal replaced by what hash makes
// of it, so that it can be kept: which names and comparisons were asked about stays,
// about whom does not. Numbers go too, as they may be a private feature's. Text that
// is no filter is one literal.
func RedactWhere(text string, hash func(string) string) string {
	if strings.TrimSpace(text) == "" {
		return ""
	}
	if len(text) > maxWhereBytes {
		return hash(text)
	}
	tokens, err := lexWhere(text)
	if err != nil {
		return hash(text)
	}
	out := make([]string, 0, len(tokens))
	for i, t := range tokens {
		switch {
		case t.kind == tokEnd:
		case t.kind == tokQuoted:
			out = append(out, `"`+strings.ReplaceAll(t.text, `"`, `""`)+`"`)
		case t.kind == tokSymbol, t.kind == tokName && !afterComparison(tokens, i):
			out = append(out, t.text)
		default:
			out = append(out, hash(t.text))
		}
	}
	return strings.Join(out, " ")
}

// afterComparison reports whether a word stands where a value does: true and false
// are words.
func afterComparison(tokens []whereToken, i int) bool {
	t := tokens[i]
	if strings.EqualFold(t.text, "true") || strings.EqualFold(t.text, "false") {
		return true
	}
	return i > 0 && tokens[i-1].kind == tokSymbol && strings.Trim(tokens[i-1].text, "=<>!") == ""
}
