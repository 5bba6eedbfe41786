//go:build !amd64 || noasm || purego

package convolve

// kernels there are none.
var kernels *machine
