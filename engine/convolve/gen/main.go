// Command gen writes kernels_amd64.s, the AVX-512 and AVX2 kernels of package
// convolve, their declarations and the tables of them:
//
//	cd engine/convolve/gen && go run . -out ../kernels_amd64.s -stubs ../stubs_amd64.go -pkg convolve
//
// Every kernel sums over the taps and, within one, over the channels in order, with
// one fused multiply-add for each product, whatever its shape: that is why a result's
// bits depend neither on the kernel that made it nor on the threads.
package main

import (
	"fmt"
	"go/format"
	"os"
	"strings"

	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// machine emits instructions for one width.
type machine struct {
	wide bool
	name string
	// shapes are the rows and vectors of the tiles.
	shapes []shape
}

// shape is how many windows and how many vectors of channels a tile has. More than
// two vectors belong to neighbouring panels.
type shape struct{ rows, vecs int }

func (g *machine) bytes() int {
	if g.wide {
		return 64
	}
	return 32
}

func (g *machine) reg() reg.VecVirtual {
	if g.wide {
		return ZMM()
	}
	return YMM()
}

func (g *machine) zero(r reg.VecVirtual) {
	if g.wide {
		VPXORD(r, r, r)
		return
	}
	VXORPS(r, r, r)
}

// The offsets of tile's fields.
const (
	offA      = 0
	offRS     = 8
	offDeltas = 16
	offTaps   = 24
	offK      = 32
	offB      = 40
	offBP     = 48
	offC      = 56
	offCS     = 64
	offBias   = 72
	offAdd    = 80
	offAS     = 88
	offMask   = 96
	offTable  = 104
	offPF     = 112
	offPFS    = 120
	offLow    = 128
	offHigh   = 132
)

// rowsPerBase is how many rows one pointer reaches with rs and 3 rs as indices.
const rowsPerBase = 5

// tile is the kernel of one shape.
func (g *machine) tile(s shape) {
	TEXT(fmt.Sprintf("tile%sr%dv%d", g.name, s.rows, s.vecs), NOSPLIT, "func(t *byte)")
	args := GP64()
	Load(Param("t"), args)
	field := func(off int) reg.GPVirtual {
		r := GP64()
		MOVQ(Mem{Base: args, Disp: off}, r)
		return r
	}
	rs, b := field(offRS), field(offB)
	bases := []reg.GPVirtual{field(offA)}
	for r := rowsPerBase; r < s.rows; r += rowsPerBase {
		p := GP64()
		LEAQ(Mem{Base: bases[len(bases)-1], Index: rs, Scale: 4}, p)
		ADDQ(rs, p)
		bases = append(bases, p)
	}
	var rs3, bp, bp3, pf, pfs reg.GPVirtual
	if s.rows > 3 {
		rs3 = GP64()
		LEAQ(Mem{Base: rs, Index: rs, Scale: 2}, rs3)
	}
	if s.vecs > 2 {
		bp = field(offBP)
	}
	if s.vecs > 6 {
		bp3 = GP64()
		LEAQ(Mem{Base: bp, Index: bp, Scale: 2}, bp3)
	}
	if s.vecs == 2 {
		pf, pfs = field(offPF), field(offPFS)
	}
	at := func(r int) Mem {
		m := Mem{Base: bases[r/rowsPerBase]}
		switch i := r % rowsPerBase; i {
		case 0:
		case 3:
			m.Index, m.Scale = rs3, 1
		default:
			m.Index, m.Scale = rs, uint8(i)
		}
		return m
	}
	acc := g.sums(s, args)
	taps, deltas, k := field(offTaps), field(offDeltas), GP64()
	Label("tap")
	MOVQ(Mem{Base: args, Disp: offK}, k)
	Label("loop")
	v := make([]reg.VecVirtual, s.vecs)
	for i := range v {
		v[i] = g.reg()
		m := Mem{Base: b, Disp: i % 2 * g.bytes()}
		switch i / 2 {
		case 0:
		case 3:
			m.Index, m.Scale = bp3, 1
		default:
			m.Index, m.Scale = bp, uint8(i/2)
		}
		VMOVUPS(m, v[i])
	}
	for r := range acc {
		g.multiply(at(r), v, acc[r])
	}
	for _, p := range bases {
		ADDQ(U8(4), p)
	}
	// A panel has two vectors a row, whether or not both are wanted.
	ADDQ(I32(2*g.bytes()), b)
	if s.vecs == 2 {
		PREFETCHT1(Mem{Base: pf})
		ADDQ(pfs, pf)
	}
	DECQ(k)
	JNZ(LabelRef("loop"))
	delta := GP64()
	MOVQ(Mem{Base: deltas}, delta)
	for _, p := range bases {
		ADDQ(delta, p)
	}
	ADDQ(U8(8), deltas)
	DECQ(taps)
	JNZ(LabelRef("tap"))
	g.finish(s, args, acc)
}

// sums are the accumulators, which begin with the channels' biases.
func (g *machine) sums(s shape, args reg.GPVirtual) [][]reg.VecVirtual {
	bias := GP64()
	MOVQ(Mem{Base: args, Disp: offBias}, bias)
	acc := make([][]reg.VecVirtual, s.rows)
	for r := range acc {
		for i := range s.vecs {
			z := g.reg()
			if r == 0 {
				VMOVUPS(Mem{Base: bias, Disp: i * g.bytes()}, z)
			} else {
				VMOVAPS(acc[0][i], z)
			}
			acc[r] = append(acc[r], z)
		}
	}
	return acc
}

// multiply adds to a row's sums the element at x times the channels' weights.
func (g *machine) multiply(x Mem, v, acc []reg.VecVirtual) {
	if g.wide && len(acc) == 1 {
		VFMADD231PS_BCST(x, v[0], acc[0])
		return
	}
	e := g.reg()
	VBROADCASTSS(x, e)
	for i := range acc {
		VFMADD231PS(v[i], e, acc[i])
	}
}

// finish adds what is to be added, bounds the sums and writes them.
func (g *machine) finish(s shape, args reg.GPVirtual, acc [][]reg.VecVirtual) {
	var masks []reg.Register
	if s.vecs <= 2 {
		for i := range s.vecs {
			masks = append(masks, g.mask(args, i))
		}
	}
	add, step := GP64(), GP64()
	MOVQ(Mem{Base: args, Disp: offAdd}, add)
	MOVQ(Mem{Base: args, Disp: offAS}, step)
	TESTQ(add, add)
	JZ(LabelRef("bound"))
	for r := range acc {
		for i, z := range acc[r] {
			m := Mem{Base: add, Disp: i * g.bytes()}
			switch {
			case masks == nil:
				VADDPS(m, z, z)
			case g.wide:
				VADDPS(m, z, masks[i], z)
			default:
				x := g.reg()
				VMASKMOVPS(m, masks[i], x)
				VADDPS(x, z, z)
			}
		}
		ADDQ(step, add)
	}
	Label("bound")
	low, high := g.reg(), g.reg()
	VBROADCASTSS(Mem{Base: args, Disp: offLow}, low)
	VBROADCASTSS(Mem{Base: args, Disp: offHigh}, high)
	c, cs := GP64(), GP64()
	MOVQ(Mem{Base: args, Disp: offC}, c)
	MOVQ(Mem{Base: args, Disp: offCS}, cs)
	for r := range acc {
		for i, z := range acc[r] {
			VMAXPS(z, low, z) // the second operand where one is NaN
			VMINPS(z, high, z)
			m := Mem{Base: c, Disp: i * g.bytes()}
			switch {
			case masks == nil:
				VMOVUPS(z, m)
			case g.wide:
				VMOVUPS(z, masks[i], m)
			default:
				VMASKMOVPS(z, masks[i], m)
			}
		}
		ADDQ(cs, c)
	}
	VZEROUPPER()
	RET()
}

// mask is of the channels of vector i that there are.
func (g *machine) mask(args reg.GPVirtual, i int) reg.Register {
	if g.wide {
		bits, k := GP64(), K()
		MOVQ(Mem{Base: args, Disp: offMask}, bits)
		if i > 0 {
			SHRQ(U8(16*i), bits)
		}
		KMOVW(bits.As32(), k)
		return k
	}
	table, m := GP64(), YMM()
	MOVQ(Mem{Base: args, Disp: offTable}, table)
	VMOVUPS(Mem{Base: table, Disp: 32 * i}, m)
	return m
}

func main() {
	ConstraintExpr("amd64,!noasm,!purego")
	wide := &machine{wide: true, name: "512", shapes: []shape{{1, 8}, {2, 8}, {3, 4}}}
	for r := 1; r <= 14; r++ {
		wide.shapes = append(wide.shapes, shape{r, 2}, shape{r, 1})
	}
	narrow := &machine{name: "256", shapes: []shape{{1, 8}, {2, 4}}}
	for r := 1; r <= 6; r++ {
		narrow.shapes = append(narrow.shapes, shape{r, 2}, shape{r, 1})
	}
	machines := []*machine{wide, narrow}
	for _, g := range machines {
		for _, s := range g.shapes {
			g.tile(s)
		}
		g.each("sum", false)
		g.each("most", true)
		for _, taps := range slideTaps {
			for _, stride := range slideStrides {
				g.slide(taps, stride)
			}
		}
		g.enter()
		g.leave()
		g.weigh()
		g.widen()
		g.scale()
	}
	if err := tables("../tables_amd64.go", machines); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
	factorTable()
	Generate()
}

// tables writes the kernels by rows and vectors.
func tables(path string, machines []*machine) error {
	var b strings.Builder
	b.WriteString("// Code generated by command gen. DO NOT EDIT.\n\n//go:build amd64 && !noasm && !purego\n\npackage convolve\n")
	for _, g := range machines {
		fmt.Fprintf(&b, "\nvar tiles%s = tileKernels{\n", g.name)
		by := map[int][]string{}
		for _, s := range g.shapes {
			by[s.rows] = append(by[s.rows], fmt.Sprintf("%d: tile%sr%dv%d", s.vecs, g.name, s.rows, s.vecs))
		}
		for r := range mostRows + 1 {
			if len(by[r]) > 0 {
				fmt.Fprintf(&b, "\t%d: {%s},\n", r, strings.Join(by[r], ", "))
			}
		}
		b.WriteString("}\n")
		fmt.Fprintf(&b, "\nvar slides%s = slideKernels{\n", g.name)
		for _, taps := range slideTaps {
			fmt.Fprintf(&b, "\t%d: {", taps)
			for _, stride := range slideStrides {
				fmt.Fprintf(&b, "%d: slide%s_%d_%d, ", stride, g.name, taps, stride)
			}
			b.WriteString("},\n")
		}
		b.WriteString("}\n")
	}
	out, err := format.Source([]byte(b.String()))
	if err != nil {
		return err
	}
	return os.WriteFile(path, out, 0o644)
}

const mostRows = 14

// slideTaps and slideStrides are the forms of windows that have kernels of their own.
var slideTaps, slideStrides = []int{3, 5, 7}, []int{1, 2}
