//go:build !amd64

package tree

import "testing"

// kernelSets are the kernels of this machine; each function takes one for a test.
func kernelSets() map[string]func(*testing.T) {
	return map[string]func(*testing.T){"plain": func(*testing.T) {}}
}
