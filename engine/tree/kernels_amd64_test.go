package tree

import "testing"

// kernelSets are the kernels of this machine; each function takes one for a test.
func kernelSets() map[string]func(*testing.T) {
	sets := map[string]func(*testing.T){"plain": func(t *testing.T) { take(t, false, false) }}
	if hasAVX2 {
		sets["AVX2"] = func(t *testing.T) { take(t, false, true) }
	}
	if hasAVX512 {
		sets["AVX-512"] = func(t *testing.T) { take(t, true, true) }
	}
	return sets
}

func take(t *testing.T, avx512, avx2 bool) {
	was512, was2 := hasAVX512, hasAVX2
	hasAVX512, hasAVX2 = avx512, avx2
	t.Cleanup(func() { hasAVX512, hasAVX2 = was512, was2 })
}
