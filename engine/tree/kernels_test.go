package tree

import (
	"math/rand/v2"
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
	if !hasWide {
		t.Log("this machine has the plain ones only")
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
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
		var got, want exitSpace
		conditions(got.conditions[:], bins, tests, words)
		conditionsGo(want.conditions[:], bins, tests, words)
		if got != want {
			t.Fatalf("conditions of %d tests over %d words differ", len(tests), words)
		}
		var gotExit, wantExit [wideRows]byte
		exits(&gotExit, &got, tests, bits, words)
		exitsGo(&wantExit, &want, tests, bits, words)
		for i := range words * 64 {
			if gotExit[i] != wantExit[i] {
				t.Fatalf("%d leaves: row %d leaves by %d, want %d", leaves, i, gotExit[i], wantExit[i])
			}
		}
	}
}
