//go:build !amd64

package tree

// hasWide says that the wide path's kernels are there; without them walks are faster.
const hasWide = false

func conditions(planes []plane, bins []byte, tests []test, words int) {
	conditionsGo(planes, bins, tests, words)
}

func exits(s *exitSpace, tests []test, bits int) { exitsGo(s, tests, bits) }

func numbers(exit *[wideRows]byte, planes []plane, words int) { numbersGo(exit, planes, words) }
