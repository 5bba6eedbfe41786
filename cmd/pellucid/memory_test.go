package main

import "testing"

func TestGCPercentBoundsGarbage(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 300}, {10 << 20, 300}, {64 << 20, 200}, {128 << 20, 100}, {4 << 30, 100}} {
		if got := gcPercent(c.live); got != c.want {
			t.Errorf("%d bytes in use: %d %%, not %d", c.live, got, c.want)
		}
	}
}
