//go:build amd64 && !noasm && !purego

package blas

import "golang.org/x/sys/cpu"

// hasAVX2 and hasAVX512, which needs it, say which kernels there are.
var (
	hasAVX2   = cpu.X86.HasAVX2 && cpu.X86.HasFMA
	hasAVX512 = hasAVX2 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW
)

var (
	single512 = &arch{vector: 16, rows: 14, kernels: &sgemm512, masked: true, copyRows: copy512, transpose: transpose512x32, transpose4: transpose4x32, widen: widen512, widenHalf: widenHalf512}
	double512 = &arch{vector: 8, rows: 14, kernels: &dgemm512, masked: true, copyRows: copy512, transpose: transpose512x64}
	single256 = &arch{vector: 8, rows: 6, kernels: &sgemm256, copyRows: copy256, transpose: transpose256x32, transpose4: transpose4x32, widen: widen256, widenHalf: widenHalf256}
	double256 = &arch{vector: 4, rows: 6, kernels: &dgemm256, copyRows: copy256, transpose: transpose256x64}
)

// machine returns the kernels for T, or nil where gonum's are to be used.
func machine[T Float]() *arch {
	double := size[T]() == 8
	switch {
	case hasAVX512 && double:
		return double512
	case hasAVX512:
		return single512
	case hasAVX2 && double:
		return double256
	case hasAVX2:
		return single256
	}
	return nil
}

// Peak computes nothing for n rounds but independent fused multiply-adds of
// float32, and returns how many floating-point operations those were: what speed
// can be held against. It returns 0 where there are no kernels.
func Peak(n int) int {
	switch {
	case n <= 0:
		return 0
	case hasAVX512:
		peak512(n)
		return n * 24 * 16 * 2
	case hasAVX2:
		peak256(n)
		return n * 24 * 8 * 2
	}
	return 0
}

// Reads does nothing with b but to read it, and returns how many bytes those were: what
// speed can be held against where memory bounds it. It returns 0 where there are no
// kernels.
func Reads(b []byte) int {
	const atOnce = 512
	n := len(b) / atOnce
	switch {
	case n == 0:
		return 0
	case hasAVX512:
		reads512(&b[0], n)
	case hasAVX2:
		reads256(&b[0], n)
	default:
		return 0
	}
	return n * atOnce
}
