package tree

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// randomTests is a random tree of the wide path.
func randomTests(r *rand.Rand, leaves, columns int) []test {
	type open struct{ test, side int }
	tests := []test{{}}
	free := []open{{0, 0}, {0, 1}}
	set := func(o open, slot int) {
		if o.side == 0 {
			tests[o.test].below = uint16(slot)
		} else {
			tests[o.test].above = uint16(slot)
		}
	}
	for len(tests) < leaves-1 {
		i := r.IntN(len(free))
		o := free[i]
		free[i] = free[len(free)-1]
		free = free[:len(free)-1]
		set(o, len(tests))
		free = append(free, open{len(tests), 0}, open{len(tests), 1})
		tests = append(tests, test{})
	}
	for i, o := range free {
		set(o, maxExits+i)
	}
	for i := range tests {
		tests[i].column, tests[i].bound = uint32(r.IntN(columns)*wideRows), uint8(r.IntN(256))
	}
	return tests
}

// TestKernels holds the kernels of this machine to the plain ones.
func TestKernels(t *testing.T) {
	for name, use := range kernelSets() {
		t.Run(name, func(t *testing.T) {
			use(t)
			testKernels(t)
		})
	}
}

func testKernels(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		leaves, columns, words := 2+r.IntN(maxExits-1), 1+r.IntN(5), 1+r.IntN(len(plane{}))
		tests := randomTests(r, leaves, columns)
		bins := make([]byte, columns*wideRows)
		for i := range bins {
			bins[i] = byte(r.IntN(256))
		}
		bits := 1
		for leaves > 1<<bits {
			bits++
		}
		got, want := &exitSpace{}, &exitSpace{}
		conditions(got.conditions[:], bins, tests, words)
		conditionsGo(want.conditions[:], bins, tests, words)
		if *got != *want {
			t.Fatalf("conditions of %d tests over %d words differ", len(tests), words)
		}
		*want = *got
		exits(got, tests, bits, words)
		exitsGo(want, tests, bits, words)
		for b := range bits {
			if !slices.Equal(got.conditions[b][:words], want.conditions[b][:words]) {
				t.Fatalf("%d leaves: bit %d of their numbers differs", leaves, b)
			}
		}
		var gotExit, wantExit [wideRows]byte
		numbers(&gotExit, got.conditions[:min(bits, 8)], words)
		numbersGo(&wantExit, got.conditions[:min(bits, 8)], words)
		if gotExit != wantExit {
			t.Fatalf("%d leaves: numbers differ", leaves)
		}
	}
}
