//go:build amd64 && !noasm && !purego

package vector

import "testing"

// onEach runs f with each set of kernels that this processor has, and without.
func onEach(t *testing.T, f func(t *testing.T)) {
	was := kernels
	defer func() { kernels = was }()
	for name, k := range map[string]*machine{"go": nil, "avx2": choose(hasAVX2, false), "best": was} {
		kernels = k
		t.Run(name, f)
	}
}
