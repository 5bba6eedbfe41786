package blas

import "unsafe"

// groupPanels is a matrix of codes of 4 or 8 bits whose columns have a scale and a zero
// for every group of rows. Codes of 4 bits stay two in a byte until their panel is read.
type groupPanels struct {
	panels []byte
	// scale and zero are by group, then by column up to a whole panel.
	scale, zero  []float32
	group, all   int
	width, codes int // columns of a panel, codes in a byte
}

// PackBlocks lays out the k x n matrix of elements (code - zero) scale whose codes of 4
// bits (0 to 15) or 8 (-128 to 127) column writes, and whose scales and zeros are one for
// each group rows of a column: those of column j begin at j times the number of groups.
// Its products have the bits of those of the float32 matrix. It is nil where the processor
// has no kernels.
func PackBlocks(k, n, bits, group int, column func(j int, to []int8), scale, zero []float32) *Packed[float32] {
	groups := (k + group - 1) / group
	if bits != 4 && bits != 8 || group < 1 || len(scale) != n*groups || len(zero) != n*groups {
		panic("blas: codes of strange size, or not as many scales and zeros as groups")
	}
	s := machine[float32]()
	if s == nil {
		return nil
	}
	width := s.width()
	all := (n + width - 1) / width * width
	g := &groupPanels{scale: make([]float32, groups*all), zero: make([]float32, groups*all), group: group, all: all, width: width, codes: 8 / bits}
	g.panels = make([]byte, k*all/g.codes)
	codes := make([]int8, k)
	for j := range n {
		for i := range groups {
			g.scale[i*all+j], g.zero[i*all+j] = scale[j*groups+i], zero[j*groups+i]
		}
		column(j, codes)
		for down := (span{0, k}); down.len() > 0; {
			var block span
			block, down = down.next(depth)
			panel := g.panels[(block.from*all+(j-j%width)*block.len())/g.codes:]
			for l := range block.len() {
				g.put(panel, l, j%width, codes[block.from+l])
			}
		}
	}
	return &Packed[float32]{k: k, n: n, bytes: &bytePanels{width: width, groups: g}}
}

// put writes the code of a row and column of a panel. Of 4 bits, a byte has those of two
// columns half a panel apart.
func (g *groupPanels) put(panel []byte, row, column int, code int8) {
	if g.codes == 1 {
		panel[row*g.width+column] = byte(code)
		return
	}
	half := g.width / 2
	panel[row*half+column%half] |= byte(code) & 15 << (column / half * 4)
}

// widen makes floats of the panel of a block that begins at a column.
func (g *groupPanels) widen(s *arch, to *byte, block span, column int) {
	kernel := s.widen
	if g.codes == 2 {
		kernel = s.widenHalf
	}
	panel := g.panels[(block.from*g.all+column*block.len())/g.codes:][:g.width*block.len()/g.codes]
	for row := block.from; row < block.to; {
		i := row / g.group
		end := min((i+1)*g.group, block.to)
		at := unsafe.Add(unsafe.Pointer(to), 4*(row-block.from)*g.width)
		kernel((*byte)(at), &panel[(row-block.from)*g.width/g.codes], bytes(g.scale[i*g.all+column:]), bytes(g.zero[i*g.all+column:]), end-row)
		row = end
	}
}
