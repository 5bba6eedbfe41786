package engine

import (
	"math"
	"testing"
)

// TestNarrowFloats: every code's value becomes the code again, and what lies between
// two becomes the nearer one.
func TestNarrowFloats(t *testing.T) {
	for d, f := range narrowFloats {
		values := narrowValues[d]
		codes := 1 << (f.exp + f.man + 1)
		for c := range codes {
			v := values[c]
			if v != v {
				continue
			}
			if got := f.encode(v, false); int(got) != c && values[got] != v {
				t.Errorf("%s: code %#x is %v, which becomes %#x", d, c, v, got)
			}
		}
		for c := range codes/2 - 1 {
			a, b := values[c], values[c+1]
			if !(a < b) || math.IsInf(b, 0) {
				continue
			}
			if got := values[f.encode(a+(b-a)*0.49, true)]; got != a {
				t.Errorf("%s: what is nearer %v than %v becomes %v", d, a, b, got)
			}
			if got := values[f.encode((a+b)/2, true)]; got != values[c+c%2] {
				t.Errorf("%s: the middle of %v and %v becomes %v", d, a, b, got)
			}
		}
		if got := values[f.encode(1e30, true)]; got != f.largest {
			t.Errorf("%s: 1e30 saturates to %v, want %v", d, got, f.largest)
		}
	}
}
