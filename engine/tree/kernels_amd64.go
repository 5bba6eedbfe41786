package tree

import "golang.org/x/sys/cpu"

// hasAVX512 and hasAVX2 say which kernels there are.
var (
	hasAVX512 = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL
	hasAVX2   = cpu.X86.HasAVX2
)

// hasWide says that there are kernels for the wide path; without them walks are
// faster.
func hasWide() bool { return hasAVX512 || hasAVX2 }

func conditions(planes []plane, bins []byte, tests []test, words int) {
	if len(tests) == 0 {
		return
	}
	_ = planes[len(tests)-1]
	switch {
	case hasAVX512:
		conditionsAVX512(&planes[0], &bins[0], &tests[0], len(tests), words)
	case hasAVX2:
		conditionsAVX2(&planes[0], &bins[0], &tests[0], len(tests), words)
	default:
		conditionsGo(planes, bins, tests, words)
	}
}

func exits(s *exitSpace, tests []test, bits int) {
	switch {
	case hasAVX512:
		exitsAVX512(s, &tests[0], len(tests), bits)
	case hasAVX2:
		exitsAVX2(s, &tests[0], len(tests), bits)
	default:
		exitsGo(s, tests, bits)
	}
}

func numbers(exit *[wideRows]byte, planes []plane, words int) {
	switch {
	case hasAVX512:
		numbersAVX512(&exit[0], &planes[0], len(planes), words)
	case hasAVX2:
		numbersAVX2(&exit[0], &planes[0], len(planes), words)
	default:
		numbersGo(exit, planes, words)
	}
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

// conditionsAVX2 is conditionsGo. n and words are not 0.
//
//go:noescape
func conditionsAVX2(planes *plane, bins *byte, tests *test, n, words int)

// exitsAVX2 is exitsGo. n and bits are not 0.
//
//go:noescape
func exitsAVX2(s *exitSpace, tests *test, n, bits int)

// numbersAVX2 is numbersGo. bits and words are not 0.
//
//go:noescape
func numbersAVX2(exit *byte, planes *plane, bits, words int)
