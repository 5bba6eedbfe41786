//go:build !amd64 || noasm || purego

package blas

// machine returns the kernels for T, or nil where gonum's are to be used.
func machine[T Float]() *arch { return nil }

// Peak returns 0: there are no kernels to hold against a peak.
func Peak(int) int { return 0 }

// Reads returns 0, as Peak does.
func Reads([]byte) int { return 0 }
