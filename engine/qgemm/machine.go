package qgemm

// dots are kernels of products by rows and vectors.
type dots [7][5]func(*byte)

// machine is what a processor has. Kernels that there are none of are nil.
type machine struct {
	// lanes is the sums of a register; a kernel has so many rows and vectors at most.
	lanes, rows, vecs int
	// masked says that results need not be whole vectors of columns.
	masked                    bool
	dots                      *dots
	finishBytes, finishFloats func(*byte)
	toBytes                   func(dst *byte, src, p *float32, n int)
	toFloats                  func(dst *float32, src *byte, p *float32, n int)
	add, mul                  func(dst, a, b *byte, p *float32, n int)
	// pairs sum taps by twos, quads by fours; pairUp and quadUp lay out what they read.
	pairs, quads pairKernels
	quadUp       func(dst *int32, src *byte, n, step int)
	pairUp       func(dst *int32, src *byte, n, step, ahead int)
	// columns sums those of 16 bytes over rows, step bytes apart.
	columns func(dst *int32, src *byte, rows, step int)
	largest func(dst, src *byte, offsets *int, taps, n int)
	span    func(src *float32, n int, to *float32)
	table   func(dst, src, of *byte, n int)
}

// width is how many columns a panel has.
func (m *machine) width() int { return m.lanes * m.vecs }

// rounded is n rounded up to whole vectors.
func (m *machine) rounded(n int) int { return (n + m.lanes - 1) / m.lanes * m.lanes }

// plain is any processor.
var plain = &machine{lanes: 8, rows: 4, vecs: 2}
