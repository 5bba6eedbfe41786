package treeshap

import (
	"golang.org/x/sys/cpu"

	"github.com/pellucid/pellucid/engine/tree"
)

// maxKernelPoints is the number of points up to which there are kernels.
const maxKernelPoints = 8

var hasKernels = cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ

var kernels = [maxKernelPoints]func(ops *op, consts *float64, count int, slots *float64, masks *uint64, phi, leaves *float64, groups int){
	run1AVX512, run2AVX512, run3AVX512, run4AVX512, run5AVX512, run6AVX512, run7AVX512, run8AVX512,
}

// runKernel is the plain form's loop over ops, for slots of lanes rows.
func runKernel(n int, ops []op, consts, slots []float64, planes []tree.Plane, word int, phi, leaves []float64, rows int) {
	kernels[n-1](&ops[0], &consts[0], len(ops), &slots[0], &planes[0][word], &phi[0], &leaves[0], (rows+7)/8)
}

//go:noescape
func run1AVX512(ops *op, consts *float64, count int, slots *float64, masks *uint64, phi, leaves *float64, groups int)

//go:noescape
func run2AVX512(ops *op, consts *float64, count int, slots *float64, masks *uint64, phi, leaves *float64, groups int)

//go:noescape
func run3AVX512(ops *op, consts *float64, count int, slots *float64, masks *uint64, phi, leaves *float64, groups int)

//go:noescape
func run4AVX512(ops *op, consts *float64, count int, slots *float64, masks *uint64, phi, leaves *float64, groups int)

//go:noescape
func run5AVX512(ops *op, consts *float64, count int, slots *float64, masks *uint64, phi, leaves *float64, groups int)

//go:noescape
func run6AVX512(ops *op, consts *float64, count int, slots *float64, masks *uint64, phi, leaves *float64, groups int)

//go:noescape
func run7AVX512(ops *op, consts *float64, count int, slots *float64, masks *uint64, phi, leaves *float64, groups int)

//go:noescape
func run8AVX512(ops *op, consts *float64, count int, slots *float64, masks *uint64, phi, leaves *float64, groups int)
