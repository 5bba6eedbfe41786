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

func exits(s *exitSpace, tests []test, bits int) {
	if !hasWide {
		exitsGo(s, tests, bits)
		return
	}
	exitsAVX512(s, &tests[0], len(tests), bits)
}

func numbers(exit *[wideRows]byte, planes []plane, words int) {
	if !hasWide {
		numbersGo(exit, planes, words)
		return
	}
	numbersAVX512(&exit[0], &planes[0], len(planes), words)
}

// conditionsAVX512 is conditionsGo. n and words are not 0.
//
//go:noescape
func conditionsAVX512(planes *plane, bins *byte, tests *test, n, words int)

// exitsAVX512 is exitsGo. n and bits are not 0.
//
//go:noescape
func exitsAVX512(s *exitSpace, tests *test, n, bits int)

// numbersAVX512 is numbersGo. bits and words are not 0.
//
//go:noescape
func numbersAVX512(exit *byte, planes *plane, bits, words int)
