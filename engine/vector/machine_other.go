//go:build !amd64 || noasm || purego

package vector

// kernels is nil: there are none.
var kernels *machine
