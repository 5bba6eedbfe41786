package main

import (
	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
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
	at, left := GP64(), GP64()
	body := func(masked bool) {
		v, w := g.reg(), g.reg()
		in := func(p reg.Register) Mem { return Mem{Base: p, Index: at, Scale: 4} }
		if g.wide {
			VMOVDQU32(in(sums), v)
		} else {
			VMOVDQU(in(sums), v)
		}
		VPADDD(in(whole), v, v)
		VCVTDQ2PS(v, v)
		VMULPS(in(scale), v, v)
		VADDPS(in(shift), v, v)
		keep(v, low, high)
		if floats {
			to := Mem{Base: out, Index: at, Scale: 4}
			if masked {
				VMOVUPS(v, g.mask, to)
			} else {
				VMOVUPS(v, to)
			}
			return
		}
		VCVTPS2DQ(v, w)
		VPADDD(zero, w, w)
		g.write(w, pick, Mem{Base: out, Index: at, Scale: 1}, masked)
	}
	if g.wide {
		n, one := GP64(), GP64()
		MOVQ(cols, n)
		ANDQ(U8(15), n)
		MOVQ(U32(1), one)
		SHLXQ(n, one, one)
		DECQ(one)
		g.mask = K()
		KMOVW(one.As32(), g.mask)
	}
	Label("line")
	XORQ(at, at)
	MOVQ(cols, left)
	Label("loop")
	CMPQ(left, U8(g.lanes()))
	JLT(LabelRef("rest"))
	body(false)
	ADDQ(U8(g.lanes()), at)
	SUBQ(U8(g.lanes()), left)
	JMP(LabelRef("loop"))
	Label("rest")
	if g.wide {
		TESTQ(left, left)
		JZ(LabelRef("done"))
		body(true)
	}
	Label("done")
	ADDQ(Mem{Base: t, Disp: offSumStride}, sums)
	ADDQ(Mem{Base: t, Disp: offOutStride}, out)
	DECQ(lines)
	JNZ(LabelRef("line"))
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

// pair joins two values of bytes as the floats that they stand for, and rounds.
func (g *machine) pair(name string, join func(...Op)) {
	TEXT(name+g.name, NOSPLIT, "func(dst, a, b *byte, p *float32, n int)")
	dst, a, b := Load(Param("dst"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64())
	p, n := Load(Param("p"), GP64()), Load(Param("n"), GP64())
	scale, low, high, zero, pick := g.param(p, 0), g.param(p, 1), g.param(p, 2), g.reg(), g.pick()
	VCVTPS2DQ(g.param(p, 3), zero)
	scaleA, zeroA, scaleB, zeroB := g.param(p, 4), g.param(p, 5), g.param(p, 6), g.param(p, 7)
	g.flat(n, func() {
		v, w := g.widened(Mem{Base: a}, zeroA, scaleA), g.widened(Mem{Base: b}, zeroB, scaleB)
		join(w, v, v)
		VDIVPS(scale, v, v)
		keep(v, low, high)
		VCVTPS2DQ(v, v)
		VPADDD(zero, v, v)
		g.write(v, pick, Mem{Base: dst}, false)
	}, step{dst, g.lanes()}, step{a, g.lanes()}, step{b, g.lanes()})
}

// taps is, for each channel, the sum of the bytes at offsets times a weight each, which
// is a word with zeros above it. n is a whole number of vectors.
func (g *machine) taps() {
	TEXT("sumTaps"+g.name, NOSPLIT, "func(dst *int32, src *byte, weights *int32, offsets *int, taps, n int)")
	dst, src, weights, offsets := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("weights"), GP64()), Load(Param("offsets"), GP64())
	taps, n := Load(Param("taps"), GP64()), Load(Param("n"), GP64())
	t, at, w, step := GP64(), GP64(), GP64(), GP64()
	MOVQ(n, step)
	SHLQ(U8(2), step)
	left := GP64()
	MOVQ(n, left)
	Label("loop")
	acc := g.reg()
	VPXOR(acc.AsX(), acc.AsX(), acc.AsX())
	XORQ(t, t)
	MOVQ(weights, w)
	Label("tap")
	MOVQ(Mem{Base: offsets, Index: t, Scale: 8}, at)
	v := g.reg()
	VPMOVZXBD(Mem{Base: src, Index: at, Scale: 1}, v)
	VPMADDWD(Mem{Base: w}, v, v)
	VPADDD(v, acc, acc)
	ADDQ(step, w)
	INCQ(t)
	CMPQ(t, taps)
	JLT(LabelRef("tap"))
	if g.wide {
		VMOVDQU32(acc, Mem{Base: dst})
	} else {
		VMOVDQU(acc, Mem{Base: dst})
	}
	ADDQ(U8(g.lanes()), src)
	ADDQ(U8(4*g.lanes()), weights)
	ADDQ(U8(4*g.lanes()), dst)
	SUBQ(U8(g.lanes()), left)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
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
