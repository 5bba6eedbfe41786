package tree

import "golang.org/x/sys/cpu"

// hasWide says that the wide path's kernels are there; without them walks are faster.
var hasWide = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL

func conditions(planes []plane, bins []byte, tests []test, words int) {
	if !hasWide {
		conditionsGo(planes, bins, tests, words)
		return
	}
	if len(tests) == 0 {
		return
	}
	_ = planes[len(tests)-1]
	conditionsAVX512(&planes[0], &bins[0], &tests[0], len(tests), words)
}

func exits(exit *[wideRows]byte, s *exitSpace, tests []test, bits, words int) {
	if !hasWide {
		exitsGo(exit, s, tests, bits, words)
		return
	}
	exitsAVX512(&exit[0], s, &tests[0], len(tests), bits, words)
}

// conditionsAVX512 is conditionsGo. n and words are not 0.
//
//go:noescape
func conditionsAVX512(planes *plane, bins *byte, tests *test, n, words int)

// exitsAVX512 is exitsGo. n, bits and words are not 0.
//
//go:noescape
func exitsAVX512(exit *byte, s *exitSpace, tests *test, n, bits, words int)
