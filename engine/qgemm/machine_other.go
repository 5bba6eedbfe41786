//go:build !amd64 || noasm || purego

package qgemm

// kernels are plain ones: there are no others.
var kernels = plain
