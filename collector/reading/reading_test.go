package reading

import (
	"strings"
	"testing"
)

// TestRewriting: what is found in a text made of another, and of that again, has its place in the
// first.
func TestRewriting(t *testing.T) {
	upper := func(t Text) Text { // doubles every a
		w := Rewrite(t)
		for i := range len(t.S) {
			if t.S[i] == 'a' {
				w.Add(i, 'A', 'A')
			} else {
				w.Keep(i, 1)
			}
		}
		t, _ = w.Done()
		return t
	}
	without := func(t Text, sign byte) Text {
		w := Rewrite(t)
		for i := range len(t.S) {
			if t.S[i] == sign {
				w.Change(i)
			} else {
				w.Keep(i, 1)
			}
		}
		t, _ = w.Done()
		return t
	}
	const first = "x-a-y-ab"
	r := upper(without(Of(first), '-'))
	if r.S != "xAAyAAb" {
		t.Fatalf("read as %q", r.S)
	}
	for found, want := range map[string]string{"x": "x-", "AA": "a-", "xAA": "x-a-", "yA": "y-a", "Ay": "a-y-", "b": "b", "xAAyAAb": first} {
		i := strings.Index(r.S, found)
		if found == "Ay" {
			i = 2
		}
		p := r.Place(i, i+len(found))
		if got := first[p[0]:p[1]]; got != want {
			t.Errorf("%s is of %q, want %q", found, got, want)
		}
	}
	if got, changed := Rewrite(r).Done(); changed || got.S != r.S {
		t.Errorf("unchanged: %q, %t", got.S, changed)
	}
	if p := Of("abc").Place(1, 1); p != [2]int{1, 1} {
		t.Errorf("nothing is at %v", p)
	}
	if u := r.As(strings.ToLower(r.S)); u.Begin(3) != r.Begin(3) || u.End(3) != r.End(3) {
		t.Error("another writing of each byte has other places")
	}
}
