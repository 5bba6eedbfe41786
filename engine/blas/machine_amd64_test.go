//go:build amd64 && !noasm && !purego

package blas

import "testing"

// eachMachine runs f with every set of kernels that this machine has.
func eachMachine(t *testing.T, f func(*testing.T)) {
	was512, was2 := hasAVX512, hasAVX2
	defer func() { hasAVX512, hasAVX2 = was512, was2 }()
	if was512 {
		t.Run("AVX-512", f)
	}
	hasAVX512 = false
	if was2 {
		t.Run("AVX2", f)
	}
	hasAVX2 = false
	t.Run("gonum", f)
}

// withAVX2 runs f without the kernels for AVX-512, where there are others.
func withAVX2(t *testing.T, f func()) {
	t.Helper()
	was := hasAVX512
	defer func() { hasAVX512 = was }()
	hasAVX512 = false
	if hasAVX2 {
		f()
	}
}
