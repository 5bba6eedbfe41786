//go:build !amd64 || noasm || purego

package blas

import "testing"

// eachMachine runs f with every set of kernels that this machine has.
func eachMachine(t *testing.T, f func(*testing.T)) { t.Run("gonum", f) }

func withAVX2(*testing.T, func()) {}
