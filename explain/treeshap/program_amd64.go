package treeshap

import (
	"golang.org/x/sys/cpu"

	"github.com/pellucid/pellucid/engine/tree"
)

var (
	hasAVX512 = cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ
	hasAVX2   = cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasBMI2
)

// kernel adds to phi what ops give for bytes/8 rows; points is 8 times their number.
type kernel = func(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

// kernelSet is the machine's form for one kind of processor.
type kernelSet struct {
	// rows is the number that a kernel takes at a time.
	rows     int
	unrolled [unrolledPoints]kernel
	// loop takes up to keptPoints points.
	loop kernel
}

var avx512 = kernelSet{
	rows:     8,
	unrolled: [...]kernel{run1AVX512, run2AVX512, run3AVX512, run4AVX512, run5AVX512, run6AVX512, run7AVX512, run8AVX512},
	loop:     runAVX512,
}

var avx2 = kernelSet{
	rows:     4,
	unrolled: [...]kernel{run1AVX2, run2AVX2, run3AVX2, run4AVX2, run5AVX2, run6AVX2, run7AVX2, run8AVX2},
	loop:     runAVX2,
}

// bestKernels returns nil where there are none for the processor.
func bestKernels() *kernelSet {
	switch {
	case hasAVX512:
		return &avx512
	case hasAVX2:
		return &avx2
	}
	return nil
}

// run is the plain form's loop over ops, for slots of lanes rows.
func (s *kernelSet) run(n int, p *program, slots []float64, planes []tree.Plane, word int, phi, leaves []float64, rows int) {
	k := s.loop
	if n <= unrolledPoints {
		k = s.unrolled[n-1]
	}
	rows = (rows + s.rows - 1) / s.rows * s.rows
	k(&p.ops[0], len(p.ops), &p.rates[0], &slots[0], &planes[0][word], &phi[0], &leaves[0], rows*8, n*8)
}

//go:noescape
func run1AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run2AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run3AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run4AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run5AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run6AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run7AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run8AVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func runAVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run1AVX2(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run2AVX2(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run3AVX2(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run4AVX2(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run5AVX2(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run6AVX2(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run7AVX2(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func run8AVX2(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)

//go:noescape
func runAVX2(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int)
