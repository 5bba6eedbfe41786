package engine

import (
	"errors"
	"math"
	"slices"
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

// TestNarrowIntegers holds what numbers become against onnxruntime 1.32's Cast.
func TestNarrowIntegers(t *testing.T) {
	v := []float64{0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 6.6, 7.4, 7.5, 8, 9, 15, 16, 17, -8, -8.4, -8.6, -9, -17, 100, 0.49}
	signed, err := New(Int4, len(v))
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := New(Uint4, len(v))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(signed.SetNarrow(v, true, ScaleUp), unsigned.SetNarrow(v, true, ScaleUp)); err != nil {
		t.Fatal(err)
	}
	if got, want := Data[int8](signed), []int8{1, 2, 3, -1, -2, -3, 7, 7, -8, -8, -7, -1, 0, 1, -8, -8, 7, 7, -1, 4, 0}; !slices.Equal(got, want) {
		t.Errorf("INT4 %v, want %v", got, want)
	}
	if got, want := Data[uint8](unsigned), []uint8{1, 2, 3, 15, 14, 13, 7, 7, 8, 8, 9, 15, 0, 1, 8, 8, 7, 7, 15, 4, 0}; !slices.Equal(got, want) {
		t.Errorf("UINT4 %v, want %v", got, want)
	}
}
