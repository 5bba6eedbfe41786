package main

import (
	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// doubles are the elements of v as float64: the lower ones and the upper.
func (g *machine) doubles(v reg.VecVirtual) [2]reg.VecVirtual {
	low, high := g.reg(), g.reg()
	if g.wide {
		h := YMM()
		VEXTRACTF64X4(U8(1), v, h)
		VCVTPS2PD(v.AsY(), low)
		VCVTPS2PD(h, high)
	} else {
		h := XMM()
		VEXTRACTF128(U8(1), v, h)
		VCVTPS2PD(v.AsX(), low)
		VCVTPS2PD(h, high)
	}
	return [2]reg.VecVirtual{low, high}
}

// across is the sum of the float64 of a and b.
func (g *machine) across(a, b reg.VecVirtual) reg.VecVirtual {
	VADDPD(b, a, a)
	y := a.AsY()
	if g.wide {
		h := YMM()
		VEXTRACTF64X4(U8(1), a, h)
		VADDPD(h, y, y)
	}
	x, h := XMM(), XMM()
	VEXTRACTF128(U8(1), y, h)
	VADDPD(h, y.(reg.VecVirtual).AsX(), x)
	VUNPCKHPD(x, x, h)
	VADDSD(h, x, x)
	return x
}

// normRows is norm of rows of n neighbours each, by moments of their own: p holds n, what
// is added to the variance, and 1.
func (g *machine) normRows() {
	TEXT("normRows"+g.name, NOSPLIT, "func(dst, src, scale, bias *float32, p *float64, means, invs *float32, step, n, rows int)")
	dst, src, scale, bias := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("scale"), GP64()), Load(Param("bias"), GP64())
	p, means, invs, step := Load(Param("p"), GP64()), Load(Param("means"), GP64()), Load(Param("invs"), GP64()), Load(Param("step"), GP64())
	whole, rows := Load(Param("n"), GP64()), Load(Param("rows"), GP64())
	// whole is the bytes of the whole vectors of a row, rest the elements after them.
	rest, at := GP64(), GP64()
	MOVQ(whole, rest)
	ANDQ(U8(g.lanes()-1), rest)
	SUBQ(rest, whole)
	SHLQ(U8(2), whole)
	g.ending(rest)
	upper, masks := K(), [2]reg.VecVirtual{}
	if g.wide {
		KSHIFTRW(U8(8), g.k, upper)
	} else {
		h := XMM()
		masks = [2]reg.VecVirtual{g.reg(), g.reg()}
		VPMOVSXDQ(g.m.AsX(), masks[0])
		VEXTRACTF128(U8(1), g.m, h)
		VPMOVSXDQ(h, masks[1])
	}
	each := func(label string, body func(masked bool)) {
		XORQ(at, at)
		Label(label)
		CMPQ(at, whole)
		JGE(LabelRef(label + "Rest"))
		body(false)
		ADDQ(U8(g.bytes()), at)
		JMP(LabelRef(label))
		Label(label + "Rest")
		TESTQ(rest, rest)
		JZ(LabelRef(label + "Done"))
		body(true)
		Label(label + "Done")
	}
	cleared := func() [2]reg.VecVirtual {
		acc := [2]reg.VecVirtual{g.reg(), g.reg()}
		for _, a := range acc {
			VPXOR(a.AsX(), a.AsX(), a.AsX())
		}
		return acc
	}
	element := func(m reg.Register, masked bool) reg.VecVirtual {
		return g.load(Mem{Base: m, Index: at, Scale: 1}, masked)
	}
	Label("row")
	acc := cleared()
	each("sum", func(masked bool) {
		for i, v := range g.doubles(element(src, masked)) {
			VADDPD(v, acc[i], acc[i])
		}
	})
	mean, centre := g.across(acc[0], acc[1]), g.reg()
	VDIVSD(Mem{Base: p}, mean, mean)
	VBROADCASTSD(mean, centre)
	squares := cleared()
	each("square", func(masked bool) {
		for i, v := range g.doubles(element(src, masked)) {
			switch {
			case masked && g.wide && i == 0:
				VSUBPD_Z(centre, v, g.k, v)
			case masked && g.wide:
				VSUBPD_Z(centre, v, upper, v)
			default:
				VSUBPD(centre, v, v)
			}
			if masked && !g.wide {
				VANDPD(masks[i], v, v)
			}
			VFMADD231PD(v, v, squares[i])
		}
	})
	variance, one := g.across(squares[0], squares[1]), XMM()
	VDIVSD(Mem{Base: p}, variance, variance)
	VADDSD(Mem{Base: p, Disp: 8}, variance, variance)
	VSQRTSD(variance, variance, variance)
	VMOVSD(Mem{Base: p, Disp: 16}, one)
	VDIVSD(variance, one, variance)
	VCVTSD2SS(mean, mean, mean)
	VCVTSD2SS(variance, variance, variance)
	VMOVSS(mean, Mem{Base: means})
	VMOVSS(variance, Mem{Base: invs})
	m, inv := g.reg(), g.reg()
	VBROADCASTSS(mean, m)
	VBROADCASTSS(variance, inv)
	each("norm", func(masked bool) {
		v, s, b := element(src, masked), element(scale, masked), element(bias, masked)
		VSUBPS(m, v, v)
		VMULPS(inv, v, v)
		VFMADD213PS(b, s, v)
		g.store(v, Mem{Base: dst, Index: at, Scale: 1}, masked)
	})
	LEAQ(Mem{Base: src, Index: rest, Scale: 4}, src)
	ADDQ(whole, src)
	LEAQ(Mem{Base: dst, Index: rest, Scale: 4}, dst)
	ADDQ(whole, dst)
	ADDQ(step, means)
	ADDQ(step, invs)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// fewColumns is groups of rows times a small matrix: tables holds what is added, then for
// each of k terms the places in a group that its lanes read and what they are weighed by.
func (g *machine) fewColumns() {
	TEXT("fewColumns"+g.name, NOSPLIT, "func(dst, src, tables *float32, k, groups, in, out int)")
	dst, src, tables, k := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("tables"), GP64()), Load(Param("k"), GP64())
	groups, in, out := Load(Param("groups"), GP64()), Load(Param("in"), GP64()), Load(Param("out"), GP64())
	// Elements read and written of a vector have a mask each.
	reading, writing := *g, *g
	reading.ending(in)
	writing.ending(out)
	bias, at, left := g.reg(), GP64(), GP64()
	VMOVUPS(Mem{Base: tables}, bias)
	ADDQ(U8(g.bytes()), tables)
	SHLQ(U8(2), in)
	SHLQ(U8(2), out)
	block := func(count int, label string) {
		v, acc := make([]reg.VecVirtual, count), make([]reg.VecVirtual, count)
		for i := range v {
			v[i], acc[i] = reading.load(Mem{Base: src}, true), g.reg()
			VPXOR(acc[i].AsX(), acc[i].AsX(), acc[i].AsX())
			ADDQ(in, src)
		}
		MOVQ(tables, at)
		MOVQ(k, left)
		Label(label)
		places := g.reg()
		VMOVUPS(Mem{Base: at}, places)
		weights := g.reg()
		VMOVUPS(Mem{Base: at, Disp: g.bytes()}, weights)
		for i := range v {
			x := g.reg()
			VPERMPS(v[i], places, x)
			VFMADD231PS(weights, x, acc[i])
		}
		ADDQ(U32(2*g.bytes()), at)
		DECQ(left)
		JNZ(LabelRef(label))
		for i := range acc {
			VADDPS(bias, acc[i], acc[i])
			writing.store(acc[i], Mem{Base: dst}, true)
			ADDQ(out, dst)
		}
	}
	const many = 4
	Label("many")
	CMPQ(groups, U8(many))
	JLT(LabelRef("each"))
	block(many, "manyTerms")
	SUBQ(U8(many), groups)
	JMP(LabelRef("many"))
	Label("each")
	TESTQ(groups, groups)
	JZ(LabelRef("done"))
	block(1, "terms")
	DECQ(groups)
	JMP(LabelRef("each"))
	Label("done")
	VZEROUPPER()
	RET()
}
