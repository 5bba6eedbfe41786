package tree

import "golang.org/x/sys/cpu"

// hasAVX2 and hasAVX512, which needs it, say which kernels there are.
var (
	hasAVX2   = cpu.X86.HasAVX2
	hasAVX512 = hasAVX2 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW
)

// hasWide says that there are kernels for the wide path; without them walks are
// faster.
func hasWide() bool { return hasAVX2 }

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

func exits(s *exitSpace, tests []test, bits, words int) {
	switch {
	case !hasAVX2:
		exitsGo(s, tests, bits, words)
	case words > 4:
		exits512AVX2(s, &tests[0], len(tests), bits)
	default:
		exits256AVX2(s, &tests[0], len(tests), bits)
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

// numbersAVX512 is numbersGo. bits and words are not 0.
//
//go:noescape
func numbersAVX512(exit *byte, planes *plane, bits, words int)

// conditionsAVX2 is conditionsGo. n and words are not 0.
//
//go:noescape
func conditionsAVX2(planes *plane, bins *byte, tests *test, n, words int)

// exits256AVX2 is exitsGo for four words. n and bits are not 0.
//
//go:noescape
func exits256AVX2(s *exitSpace, tests *test, n, bits int)

// exits512AVX2 is exitsGo for eight words. n and bits are not 0.
//
//go:noescape
func exits512AVX2(s *exitSpace, tests *test, n, bits int)

// numbersAVX2 is numbersGo. bits and words are not 0.
//
//go:noescape
func numbersAVX2(exit *byte, planes *plane, bits, words int)
