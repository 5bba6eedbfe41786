package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// machine emits the loops beside the products, for one width.
type machine struct {
	wide bool
	name string
	mask reg.OpmaskVirtual
}

func (g *machine) lanes() int {
	if g.wide {
		return 16
	}
	return 8
}

func (g *machine) reg() reg.VecVirtual {
	if g.wide {
		return ZMM()
	}
	return YMM()
}

func (g *machine) param(p reg.Register, i int) reg.VecVirtual {
	r := g.reg()
	VBROADCASTSS(Mem{Base: p, Disp: 4 * i}, r)
	return r
}

// keep bounds v; what is no number becomes low.
func keep(v, low, high reg.VecVirtual) {
	VMAXPS(low, v, v)
	VMINPS(high, v, v)
}

// write stores the lowest bytes of v's double words.
func (g *machine) write(v, pick reg.VecVirtual, to Mem, masked bool) {
	low := XMM()
	switch {
	case g.wide && masked:
		VPMOVDB(v, low)
		VMOVDQU8(low, g.mask, to)
	case g.wide:
		VPMOVDB(v, low)
		VMOVDQU(low, to)
	default:
		high := XMM()
		VPSHUFB(pick, v, v)
		VEXTRACTI128(U8(1), v, high)
		VMOVD(v.AsX(), to)
		to.Disp += 4
		VMOVD(high, to)
	}
}

// pick is what write needs.
func (g *machine) pick() reg.VecVirtual {
	r := g.reg()
	if !g.wide {
		VBROADCASTI128(NewDataAddr(Symbol{Name: "lowest", Static: true}, 0), r)
	}
	return r
}

// The offsets of block's fields.
const (
	offSums      = 0
	offSumStride = 8
	offWhole     = 16
	offScale     = 24
	offShift     = 32
	offOut       = 40
	offOutStride = 48
	offLines     = 56
	offCols      = 64
	offLow       = 72
	offHigh      = 76
	offZero      = 80
)

// finish makes of a block of sums (sum + whole) scale + shift between low and high, and
// bytes of that. AVX2 leaves what is not a whole vector of columns.
func (g *machine) finish(floats bool) {
	name := "finishBytes"
	if floats {
		name = "finishFloats"
	}
	TEXT(name+g.name, NOSPLIT, "func(t *byte)")
	t := Load(Param("t"), GP64())
	field := func(off int) reg.GPVirtual {
		r := GP64()
		MOVQ(Mem{Base: t, Disp: off}, r)
		return r
	}
	sums, whole, scale, shift, out := field(offSums), field(offWhole), field(offScale), field(offShift), field(offOut)
	lines, cols := field(offLines), field(offCols)
	low, high := g.param(t, offLow/4), g.param(t, offHigh/4)
	zero, pick := g.reg(), g.reg()
	if !floats {
		VPBROADCASTD(Mem{Base: t, Disp: offZero}, zero)
		pick = g.pick()
	}
	params := [3]reg.VecVirtual{g.reg(), g.reg(), g.reg()}
	body := func(from, to reg.Register, masked bool) {
		v, w := g.reg(), g.reg()
		VPADDD(Mem{Base: from}, params[0], v)
		VCVTDQ2PS(v, v)
		VMULPS(params[1], v, v)
		VADDPS(params[2], v, v)
		keep(v, low, high)
		switch {
		case floats && masked:
			VMOVUPS(v, g.mask, Mem{Base: to})
		case floats:
			VMOVUPS(v, Mem{Base: to})
		default:
			VCVTPS2DQ(v, w)
			VPADDD(zero, w, w)
			g.write(w, pick, Mem{Base: to}, masked)
		}
	}
	sumStride, outStride := field(offSumStride), field(offOutStride)
	size := 1
	if floats {
		size = 4
	}
	// A vector of columns at a time, so that what belongs to them stays in registers.
	column := func(name string, masked bool) {
		for i, p := range []reg.Register{whole, scale, shift} {
			VMOVUPS(Mem{Base: p}, params[i])
			ADDQ(U8(4*g.lanes()), p)
		}
		from, to, left := GP64(), GP64(), GP64()
		MOVQ(sums, from)
		MOVQ(out, to)
		MOVQ(lines, left)
		Label(name)
		body(from, to, masked)
		ADDQ(sumStride, from)
		ADDQ(outStride, to)
		DECQ(left)
		JNZ(LabelRef(name))
	}
	Label("loop")
	CMPQ(cols, U8(g.lanes()))
	JLT(LabelRef("rest"))
	column("line", false)
	ADDQ(U8(4*g.lanes()), sums)
	ADDQ(U8(size*g.lanes()), out)
	SUBQ(U8(g.lanes()), cols)
	JMP(LabelRef("loop"))
	Label("rest")
	if g.wide {
		TESTQ(cols, cols)
		JZ(LabelRef("done"))
		one := GP64()
		MOVQ(U32(1), one)
		SHLXQ(cols, one, one)
		DECQ(one)
		g.mask = K()
		KMOVW(one.As32(), g.mask)
		column("last", true)
		Label("done")
	}
	VZEROUPPER()
	RET()
}

// step is how far a pointer goes with each vector.
type step struct {
	of    reg.Register
	bytes int
}

// flat is body for n elements, a whole number of vectors.
func (g *machine) flat(n reg.Register, body func(), steps ...step) {
	Label("loop")
	body()
	for _, s := range steps {
		ADDQ(U8(s.bytes), s.of)
	}
	SUBQ(U8(g.lanes()), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// toBytes rounds floats: by p's scale, between its bounds, from its zero.
func (g *machine) toBytes() {
	TEXT("toBytes"+g.name, NOSPLIT, "func(dst *byte, src, p *float32, n int)")
	dst, src, p, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("p"), GP64()), Load(Param("n"), GP64())
	scale, low, high, zero, pick := g.param(p, 0), g.param(p, 1), g.param(p, 2), g.reg(), g.pick()
	VCVTPS2DQ(g.param(p, 3), zero)
	g.flat(n, func() {
		v := g.reg()
		VMOVUPS(Mem{Base: src}, v)
		VDIVPS(scale, v, v)
		keep(v, low, high)
		VCVTPS2DQ(v, v)
		VPADDD(zero, v, v)
		g.write(v, pick, Mem{Base: dst}, false)
	}, step{dst, g.lanes()}, step{src, 4 * g.lanes()})
}

// widened is lanes bytes less a zero, times a scale.
func (g *machine) widened(from Mem, zero, scale reg.VecVirtual) reg.VecVirtual {
	v := g.reg()
	VPMOVZXBD(from, v)
	VCVTDQ2PS(v, v)
	VSUBPS(zero, v, v)
	VMULPS(scale, v, v)
	return v
}

func (g *machine) toFloats() {
	TEXT("toFloats"+g.name, NOSPLIT, "func(dst *float32, src *byte, p *float32, n int)")
	dst, src, p, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("p"), GP64()), Load(Param("n"), GP64())
	scale, zero := g.param(p, 0), g.param(p, 1)
	g.flat(n, func() { VMOVUPS(g.widened(Mem{Base: src}, zero, scale), Mem{Base: dst}) }, step{dst, 4 * g.lanes()}, step{src, g.lanes()})
}

// pair joins two values of bytes by p's shares and bounds, as qgemm.Add and Mul have it.
func (g *machine) pair(name string, product bool) {
	TEXT(name+g.name, NOSPLIT, "func(dst, a, b *byte, p *float32, n int)")
	dst, a, b := Load(Param("dst"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64())
	p, n := Load(Param("p"), GP64()), Load(Param("n"), GP64())
	ofA, ofB, more, low, high, pick := g.param(p, 0), g.param(p, 1), g.param(p, 2), g.param(p, 3), g.param(p, 4), g.pick()
	zeroA, zeroB := g.param(p, 5), g.param(p, 6)
	g.flat(n, func() {
		v, w, sum := g.reg(), g.reg(), g.reg()
		VPMOVZXBD(Mem{Base: a}, v)
		VPMOVZXBD(Mem{Base: b}, w)
		VCVTDQ2PS(v, v)
		VCVTDQ2PS(w, w)
		VMOVAPS(more, sum)
		if product {
			VSUBPS(zeroA, v, v)
			VSUBPS(zeroB, w, w)
			VMULPS(w, v, v)
			VMULPS(ofA, v, v)
			VADDPS(v, sum, sum)
		} else {
			VFMADD231PS(ofA, v, sum)
			VFMADD231PS(ofB, w, sum)
		}
		keep(sum, low, high)
		VCVTPS2DQ(sum, sum)
		g.write(sum, pick, Mem{Base: dst}, false)
	}, step{dst, g.lanes()}, step{a, g.lanes()}, step{b, g.lanes()})
}

// eachLanes is how many channels a filter of each by itself computes together.
const eachLanes = 16

// pairUp makes of each of n elements of 16 channels, step bytes apart, words of its bytes and
// of those that lie so far ahead.
func (g *machine) pairUp() {
	TEXT("pairUp"+g.name, NOSPLIT, "func(dst *int32, src *byte, n, step, ahead int)")
	dst, src, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	step, ahead := Load(Param("step"), GP64()), Load(Param("ahead"), GP64())
	Label("loop")
	for at := 0; at < eachLanes; at += g.lanes() {
		v, w := g.reg(), g.reg()
		VPMOVZXBD(Mem{Base: src, Disp: at}, v)
		VPMOVZXBD(Mem{Base: src, Disp: at, Index: ahead, Scale: 1}, w)
		VPSLLD(U8(16), w, w)
		if g.wide {
			VPORD(v, w, w)
			VMOVDQU32(w, Mem{Base: dst, Disp: 4 * at})
		} else {
			VPOR(v, w, w)
			VMOVDQU(w, Mem{Base: dst, Disp: 4 * at})
		}
	}
	ADDQ(step, src)
	ADDQ(U8(4*eachLanes), dst)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// quadUp512 makes of each of n elements of 16 channels, step bytes apart, the bytes of it and
// of the three behind it.
func quadUp512() {
	TEXT("quadUp512", NOSPLIT, "func(dst *int32, src *byte, n, step int)")
	dst, src, n, step := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64()), Load(Param("step"), GP64())
	four := ZMM()
	slide := func() {
		v := ZMM()
		VPMOVZXBD(Mem{Base: src}, v)
		VPSLLD(U8(24), v, v)
		VPSRLD(U8(8), four, four)
		VPORD(v, four, four)
		ADDQ(step, src)
	}
	VPXORD(four, four, four)
	for range 3 {
		slide()
	}
	Label("loop")
	slide()
	VMOVDQU32(four, Mem{Base: dst})
	ADDQ(U8(4*eachLanes), dst)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// columns sums those of 16 bytes over rows, step bytes apart.
func (g *machine) columns() {
	TEXT("columns"+g.name, NOSPLIT, "func(dst *int32, src *byte, rows, step int)")
	dst, src, rows, step := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("rows"), GP64()), Load(Param("step"), GP64())
	var acc []reg.VecVirtual
	for range eachLanes / g.lanes() {
		v := g.reg()
		VPXOR(v.AsX(), v.AsX(), v.AsX())
		acc = append(acc, v)
	}
	Label("loop")
	for i, a := range acc {
		v := g.reg()
		VPMOVZXBD(Mem{Base: src, Disp: i * g.lanes()}, v)
		VPADDD(v, a, a)
	}
	ADDQ(step, src)
	DECQ(rows)
	JNZ(LabelRef("loop"))
	for i, a := range acc {
		if g.wide {
			VMOVDQU32(a, Mem{Base: dst})
		} else {
			VMOVDQU(a, Mem{Base: dst, Disp: 4 * i * g.lanes()})
		}
	}
	VZEROUPPER()
	RET()
}

// The offsets of pairTile's fields.
const (
	offPairSrc     = 0
	offPairStep    = 8
	offPairWeights = 16
	offPairOffsets = 24
	offPairTaps    = 32
	offPairDst     = 40
	offPairBlocks  = 48
	offPairBegin   = 56
)

// pairs sums the products of pairs of words, or of four bytes each, for so many windows of 16
// channels at once.
func (g *machine) pairs(windows int, quads bool) {
	name := "pairs"
	if quads {
		name = "quads"
	}
	TEXT(fmt.Sprintf("%s%sw%d", name, g.name, windows), NOSPLIT, "func(t *byte)")
	t := Load(Param("t"), GP64())
	field := func(off int) reg.GPVirtual {
		r := GP64()
		MOVQ(Mem{Base: t, Disp: off}, r)
		return r
	}
	src, step, dst, blocks := field(offPairSrc), field(offPairStep), field(offPairDst), field(offPairBlocks)
	taps := field(offPairTaps)
	three, offset, weights, left, at := GP64(), GP64(), GP64(), GP64(), GP64()
	LEAQ(Mem{Base: step, Index: step, Scale: 2}, three)
	half := func(first int) { // of the channels, in registers
		acc := make([]reg.VecVirtual, windows)
		MOVQ(Mem{Base: t, Disp: offPairBegin}, at)
		for i := range acc {
			acc[i] = g.reg()
			VMOVUPS(Mem{Base: at, Disp: 4 * first}, acc[i])
		}
		MOVQ(Mem{Base: t, Disp: offPairOffsets}, offset)
		MOVQ(taps, left)
		tap := fmt.Sprintf("tap%d", first)
		Label(tap)
		MOVQ(Mem{Base: t, Disp: offPairWeights}, weights)
		MOVQ(Mem{Base: offset}, at)
		ADDQ(src, at)
		ADDQ(Mem{Base: offset, Disp: 8}, weights)
		w := g.reg()
		if g.wide {
			VMOVDQU32(Mem{Base: weights, Disp: 4 * first}, w)
		} else {
			VMOVDQU(Mem{Base: weights, Disp: 4 * first}, w)
		}
		for i := range acc {
			if i == 4 {
				LEAQ(Mem{Base: at, Index: step, Scale: 4}, at)
			}
			from := Mem{Base: at, Disp: 4 * first}
			switch i % 4 {
			case 1:
				from.Index, from.Scale = step, 1
			case 2:
				from.Index, from.Scale = step, 2
			case 3:
				from.Index, from.Scale = three, 1
			}
			switch {
			case quads:
				v := g.reg()
				VMOVDQU32(from, v)
				vpdpbusd(w, v, acc[i])
			case g.wide:
				vpdpwssd(from, w, acc[i])
			default:
				v := g.reg()
				VPMADDWD(from, w, v)
				VPADDD(v, acc[i], acc[i])
			}
		}
		ADDQ(U8(16), offset)
		DECQ(left)
		JNZ(LabelRef(tap))
		for i := range acc {
			to := Mem{Base: dst, Disp: 4 * (eachLanes*i + first)}
			if g.wide {
				VMOVDQU32(acc[i], to)
			} else {
				VMOVDQU(acc[i], to)
			}
		}
	}
	Label("block")
	for first := 0; first < eachLanes; first += g.lanes() {
		half(first)
	}
	ADDQ(U32(4*eachLanes*windows), dst)
	IMUL3Q(U8(windows), step, at)
	ADDQ(at, src)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	VZEROUPPER()
	RET()
}

// vpdpwssd adds to each of acc's double words the two products of a's and b's words; this
// version of avo does not know it.
func vpdpwssd(b Op, a, acc reg.VecVirtual) {
	Instruction(&ir.Instruction{Opcode: "VPDPWSSD", Operands: []Op{b, a, acc}, Inputs: []Op{b, a, acc}, Outputs: []Op{acc}, ISA: []string{"AVX512VNNI"}})
}

// largest is, for each of n bytes, a whole number of 16, the largest at the offsets.
func largest() {
	TEXT("largest128", NOSPLIT, "func(dst, src *byte, offsets *int, taps, n int)")
	dst, src, offsets := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("offsets"), GP64())
	taps, n := Load(Param("taps"), GP64()), Load(Param("n"), GP64())
	t, at := GP64(), GP64()
	Label("loop")
	acc := XMM()
	VPXOR(acc, acc, acc)
	XORQ(t, t)
	Label("tap")
	MOVQ(Mem{Base: offsets, Index: t, Scale: 8}, at)
	VPMAXUB(Mem{Base: src, Index: at, Scale: 1}, acc, acc)
	INCQ(t)
	CMPQ(t, taps)
	JLT(LabelRef("tap"))
	VMOVDQU(acc, Mem{Base: dst})
	ADDQ(U8(16), src)
	ADDQ(U8(16), dst)
	SUBQ(U8(16), n)
	JNZ(LabelRef("loop"))
	RET()
}

// span writes the smallest and the largest of n floats and 0, a whole number of vectors,
// lane by lane.
func (g *machine) span() {
	TEXT("span"+g.name, NOSPLIT, "func(src *float32, n int, to *float32)")
	src, n, to := Load(Param("src"), GP64()), Load(Param("n"), GP64()), Load(Param("to"), GP64())
	low, high := g.reg(), g.reg()
	VXORPS(low.AsX(), low.AsX(), low.AsX())
	VXORPS(high.AsX(), high.AsX(), high.AsX())
	Label("loop")
	v := g.reg()
	VMOVUPS(Mem{Base: src}, v)
	VMINPS(low, v, low) // low where v is no number
	VMAXPS(high, v, high)
	ADDQ(U8(4*g.lanes()), src)
	SUBQ(U8(g.lanes()), n)
	JNZ(LabelRef("loop"))
	VMOVUPS(low, Mem{Base: to})
	VMOVUPS(high, Mem{Base: to, Disp: 4 * g.lanes()})
	VZEROUPPER()
	RET()
}

// table512 replaces each of n bytes, a whole number of 64, by that of a table: by the one
// half and the other, of which the highest bit chooses.
func table512() {
	TEXT("table512", NOSPLIT, "func(dst, src, of *byte, n int)")
	dst, src, of, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("of"), GP64()), Load(Param("n"), GP64())
	var parts [4]reg.VecVirtual
	for i := range parts {
		parts[i] = ZMM()
		VMOVDQU8(Mem{Base: of, Disp: 64 * i}, parts[i])
	}
	Label("loop")
	v, low, high, k := ZMM(), ZMM(), ZMM(), K()
	VMOVDQU8(Mem{Base: src}, v)
	VPMOVB2M(v, k)
	VMOVDQA64(v, low)
	VMOVDQA64(v, high)
	VPERMI2B(parts[1], parts[0], low)
	VPERMI2B(parts[3], parts[2], high)
	VPBLENDMB(high, low, k, low)
	VMOVDQU8(low, Mem{Base: dst})
	ADDQ(U8(64), src)
	ADDQ(U8(64), dst)
	SUBQ(U8(64), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
