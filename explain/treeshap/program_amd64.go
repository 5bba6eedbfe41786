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
	// gains is loop without forks, which leaves c kappa g of the last op; pairs adds
	// those to the node's pairs, for bytes/8 rows, four times as many at a time; and
	// fewPairs, where there are no more, as many.
	gains           func(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int, gains *float64)
	pairs, fewPairs func(s, gains *float64, entries *pairEntry, count int, masks *uint64, sums *float64, bytes, points int)
}

var avx512 = kernelSet{
	rows:     8,
	unrolled: [...]kernel{run1AVX512, run2AVX512, run3AVX512, run4AVX512, run5AVX512, run6AVX512, run7AVX512, run8AVX512},
	loop:     runAVX512, gains: gainsAVX512, pairs: pairsAVX512, fewPairs: fewPairsAVX512,
}

var avx2 = kernelSet{
	rows:     4,
	unrolled: [...]kernel{run1AVX2, run2AVX2, run3AVX2, run4AVX2, run5AVX2, run6AVX2, run7AVX2, run8AVX2},
	loop:     runAVX2, gains: gainsAVX2, pairs: pairsAVX2, fewPairs: fewPairsAVX2,
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
	k(&p.ops[0], len(p.ops), &p.rates[0], &slots[0], &planes[0][word], &phi[0], &leaves[0], upTo(rows, s.rows)*8, n*8)
}

// upTo is rows as a multiple of n.
func upTo(rows, n int) int { return (rows + n - 1) / n * n }

// runPairs is the plain form's loop over ops and what they add to, for slots of
// lanes rows.
func (s *kernelSet) runPairs(w *pairRun, t *pairTree, sums, leaves []float64, rows int) {
	p, m := &t.program, &w.machine
	at, from := 0, int32(0)
	pairs, wide := s.pairs, 4*s.rows
	if rows <= s.rows {
		pairs, wide = s.fewPairs, s.rows
	}
	step := func(to int) {
		s.gains(&p.ops[at], to-at, &p.rates[0], &m.slots[0], &m.planes[0][0], &sums[0], &leaves[0], upTo(rows, s.rows)*8, t.n*8, &w.gains[0])
		at = to
	}
	for i, end := range t.ends {
		if end == from {
			continue
		}
		step(i + 1)
		pairs(&w.gains[0], &t.gains[0], &t.entries[from], int(end-from), &m.planes[0][0], &sums[0], upTo(rows, wide)*8, t.n*8)
		from = end
	}
	if at < len(p.ops) {
		step(len(p.ops))
	}
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

//go:noescape
func gainsAVX512(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int, gains *float64)

//go:noescape
func pairsAVX512(s, gains *float64, entries *pairEntry, count int, masks *uint64, sums *float64, bytes, points int)

//go:noescape
func gainsAVX2(ops *op, count int, rates, slots *float64, masks *uint64, phi, leaves *float64, bytes, points int, gains *float64)

//go:noescape
func pairsAVX2(s, gains *float64, entries *pairEntry, count int, masks *uint64, sums *float64, bytes, points int)

//go:noescape
func fewPairsAVX512(s, gains *float64, entries *pairEntry, count int, masks *uint64, sums *float64, bytes, points int)

//go:noescape
func fewPairsAVX2(s, gains *float64, entries *pairEntry, count int, masks *uint64, sums *float64, bytes, points int)
