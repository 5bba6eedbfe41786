package main

import (
	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// narrowReg returns a register of half the width.
func (g *machine) narrowReg() reg.VecVirtual {
	if g.wide {
		return YMM()
	}
	return XMM()
}

// halves are conversions from and to 16 bits of whole vectors, and the functions that
// round to what those hold.
func (g *machine) halves() {
	g.convert("widenHalf", true, func(src, dst Mem) {
		v := g.reg()
		VCVTPH2PS(src, v)
		VMOVUPS(v, dst)
	})
	g.convert("narrowHalf", false, func(src, dst Mem) {
		v := g.reg()
		VMOVUPS(src, v)
		VCVTPS2PH(U8(0), v, dst)
	})
	g.convert("widenBrain", true, func(src, dst Mem) {
		v := g.reg()
		VPMOVZXWD(src, v)
		VPSLLD(U8(16), v, v)
		VMOVUPS(v, dst)
	})
	g.convert("narrowBrain", false, func(src, dst Mem) {
		v := g.reg()
		VMOVUPS(src, v)
		v = g.brain(v)
		VPSRLD(U8(16), v, v)
		if g.wide {
			VPMOVDW(v, dst)
			return
		}
		VPACKUSDW(v, v, v) // of each half by itself
		VPERMQ(U8(8), v, v)
		VMOVUPS(v.AsX(), dst)
	})
	g.unary("toHalf", 0, nil, func(v reg.VecVirtual, _ []reg.VecVirtual) reg.VecVirtual {
		h := g.narrowReg()
		VCVTPS2PH(U8(0), v, h)
		VCVTPH2PS(h, v)
		return v
	})
	g.unary("toBrain", 0, nil, func(v reg.VecVirtual, _ []reg.VecVirtual) reg.VecVirtual { return g.brain(v) })
}

// brain is v rounded to its upper 16 bits.
func (g *machine) brain(v reg.VecVirtual) reg.VecVirtual {
	odd, r, quiet := g.reg(), g.reg(), g.reg()
	VPSRLD(U8(16), v, odd)
	VANDPS(g.bits(1), odd, odd)
	VPADDD(g.bits(0x7fff), v, r)
	VPADDD(odd, r, r)
	VORPS(g.bits(0x400000), v, quiet)
	r = g.pick(unordered, v, v, quiet, r)
	VANDPS(g.bits(0xffff0000), r, r)
	return r
}

// convert is a loop over whole vectors; widen says that the source is in 16 bits.
func (g *machine) convert(name string, widen bool, f func(src, dst Mem)) {
	from, to, signature := g.bytes(), g.bytes()/2, "func(dst *uint16, src *float32, n int)"
	if widen {
		from, to, signature = to, from, "func(dst *float32, src *uint16, n int)"
	}
	TEXT(name+g.name, NOSPLIT, signature)
	dst, src, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	Label("loop")
	f(Mem{Base: src}, Mem{Base: dst})
	ADDQ(U8(from), src)
	ADDQ(U8(to), dst)
	SUBQ(U8(g.lanes()), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
