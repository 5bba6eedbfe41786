package treeshap

import (
	"golang.org/x/sys/cpu"

	"github.com/pellucid/pellucid/engine/tree"
)

// maxKernelPoints is the number of points up to which there are kernels.
const maxKernelPoints = 8

var hasKernels = cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ

// kernel adds to phi what ops give for bytes/8 rows, a multiple of eight.
type kernel = func(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes int)

var kernels = [maxKernelPoints]kernel{
	run1AVX512, run2AVX512, run3AVX512, run4AVX512, run5AVX512, run6AVX512, run7AVX512, run8AVX512,
}

// runKernel is the plain form's loop over ops, for slots of lanes rows.
func runKernel(n int, p *program, slots []float64, planes []tree.Plane, word int, phi, leaves []float64, rows int) {
	kernels[n-1](&p.ops[0], len(p.ops), &p.rates[0], &slots[0], &planes[0][word], &phi[0], &leaves[0], (rows+7)/8*64)
}

//go:noescape
func run1AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes int)

//go:noescape
func run2AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes int)

//go:noescape
func run3AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes int)

//go:noescape
func run4AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes int)

//go:noescape
func run5AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes int)

//go:noescape
func run6AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes int)

//go:noescape
func run7AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes int)

//go:noescape
func run8AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes int)
