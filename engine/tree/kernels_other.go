//go:build !amd64

package tree

// hasWide says that there are kernels for the wide path; without them walks are
// faster.
func hasWide() bool { return false }

func conditions(planes []plane, bins []byte, tests []test, words int) {
	conditionsGo(planes, bins, tests, words)
}

func exits(s *exitSpace, tests []test, bits, words int) {
	exitsGo(s, tests, bits, words)
}

func numbers(exit *[wideRows]byte, planes []plane, words int) { numbersGo(exit, planes, words) }
