package clickhouse

import (
	"strings"
	"testing"
)

func TestRedactWhereKeepsNamesAndNoValue(t *testing.T) {
	hash := func(s string) string { return "#" + strings.Repeat("x", len(s)) }
	for text, want := range map[string]string{
		`city = 'Oslo' and score > 0.9`:                  `city = #xxxx and score > #xxx`,
		`"na""me" in ('a', 12, TRUE) or not (x is null)`: `"na""me" in ( #x , #xx , #xxxx ) or not ( x is null )`,
		`prediction.external_id != 'O''Hare'`:            `prediction.external_id != #xxxxxx`,
		`city = Oslo`:                                    `city = #xxxx`,
		`city = 'Oslo`:                                   "#" + strings.Repeat("x", len(`city = 'Oslo`)),
		` `:                                              ``,
	} {
		if got := RedactWhere(text, hash); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
