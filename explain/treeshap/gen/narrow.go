package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The AVX2 forms take four rows at a time. They have no registers of masks and half
// as many of numbers, so a table turns four bits of a plane into the mask of four
// rows, rates are read where they are used and what an op keeps is on the stack.

const (
	// groupBytes is what four rows of a point take.
	groupBytes = 32
	masksName  = "masks"
	onesName   = "ones"
)

// tables has the masks of four bits, and a vector of ones.
func tables() {
	GLOBL(masksName, attr.RODATA|attr.NOPTR)
	for bits := range 16 {
		for row := range 4 {
			DATA(bits*groupBytes+8*row, U64(-uint64(bits>>row&1)))
		}
	}
	GLOBL(onesName, attr.RODATA|attr.NOPTR)
	for row := range 4 {
		DATA(8*row, U64(math.Float64bits(1)))
	}
}

var ones = NewDataAddr(Symbol{Name: onesName, Static: true}, 0)

// narrow is the state of one function. k.mask is the number of the first row's bit.
type narrow struct {
	kernel
	table reg.GPVirtual
	// kept are vectors on the stack.
	kept [6]Mem
}

func generateNarrow(n int, pairs bool) {
	begin(n, "AVX2", pairs)
	k := &narrow{kernel: kernel{n: n, pairs: pairs}}
	if pairs {
		k.gains = Load(Param("gains"), GP64()).(reg.GPVirtual)
	} else {
		for i := range k.kept {
			k.kept[i] = AllocLocal(groupBytes)
		}
	}
	k.op = Load(Param("ops"), GP64()).(reg.GPVirtual)
	k.c, k.to, k.rates, k.mask, k.row, k.table = GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	k.point, k.q = GP64(), GP64()
	LEAQ(NewDataAddr(Symbol{Name: masksName, Static: true}, 0), k.table)
	Label("op")
	MOVWQZX(k.field(0, cAt), k.c)
	k.slot(k.c)
	MOVWQZX(k.field(0, toAt), k.to)
	k.slot(k.to)
	k.find(k.rates, 0, ratesAt, ratesParam)
	XORQ(k.mask, k.mask)
	XORQ(k.row, k.row)
	dispatch(k)
}

// ymm hands out the registers in turn.
func (k *narrow) ymm() reg.VecPhysical {
	k.used++
	return narrowRegisters[k.used-1]
}

func (k *narrow) ymms(n int) []reg.VecPhysical {
	out := make([]reg.VecPhysical, n)
	for i := range out {
		out[i] = k.ymm()
	}
	return out
}

var narrowRegisters = []reg.VecPhysical{
	reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7,
	reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
}

// loop runs body for each group of four rows.
func (k *narrow) loop(name string, body func()) {
	mark := k.used
	Label(name)
	body()
	k.used = mark
	ADDQ(U8(4), k.mask)
	ADDQ(U8(groupBytes), k.row)
	CMPQ(k.row, param("bytes", bytesParam))
	JLT(LabelRef(name))
}

// rows is the mask of the group's rows in a plane that the op that many after this
// names.
func (k *narrow) rows(after, at int) Mem {
	offset, masks := GP64(), GP64()
	MOVL(k.field(after, at), offset.As32())
	MOVQ(param("masks", masksParam), masks)
	SHRXQ(k.mask, Mem{Base: masks, Index: offset, Scale: 1}, offset)
	ANDL(U8(15), offset.As32())
	SHLL(U8(5), offset.As32())
	return Mem{Base: k.table, Index: offset, Scale: 1}
}

func (k *narrow) constant(at int) reg.VecPhysical {
	y := k.ymm()
	VBROADCASTSD(k.field(0, at), y)
	return y
}

func (k *narrow) leaf(after, at int, y reg.VecPhysical) {
	i, leaves := GP64(), GP64()
	MOVQ(param("leaves", leavesParam), leaves)
	MOVL(k.field(after, at), i.As32())
	VBROADCASTSD(Mem{Base: leaves, Index: i, Scale: 8}, y)
}

func (k *narrow) down() {
	k.used = 0
	rho, d1, d0 := k.constant(firstAt), k.constant(secondAt), k.ymm()
	VMOVUPD(ones, d0)
	VSUBPD(d1, d0, d0)
	VSUBPD(rho, d1, d1)
	VSUBPD(rho, d0, d0)
	k.loop("downrows", func() {
		d, f := k.ymm(), k.ymm()
		VMOVUPD(k.rows(0, testAt), d)
		VBLENDVPD(d, d1, d0, d)
		VANDPD(k.rows(0, beforeAt), d, d)
		k.each("downpoints", func(q int) {
			VBROADCASTSD(k.tau(k.rates, q), f)
			VFMADD213PD(rho, d, f)
			VMULPD(k.at(k.c, q), f, f)
			VMOVUPD(f, k.at(k.to, q))
		})
	})
}

// add adds t times g to sum, or begins it.
func (k *narrow) add(q int, t, g, sum reg.VecPhysical) {
	if q == 0 && k.n > 0 {
		VMULPD(t, g, sum)
	} else {
		VFMADD231PD(t, g, sum)
	}
}

// up has the kinds of kernel.up.
func (k *narrow) up(kind int) {
	k.used = 0
	rhoL, rhoR, v := k.constant(firstAt), k.constant(secondAt), k.ymm()
	left, right, phi := GP64(), GP64(), GP64()
	if kind == 2 {
		k.leaf(0, leftAt, v)
	} else {
		MOVL(k.field(0, leftAt), left.As32())
		k.slot(left)
	}
	if kind == 3 {
		k.leaf(0, rightAt, v)
	} else {
		MOVL(k.field(0, rightAt), right.As32())
		k.slot(right)
	}
	k.find(phi, 0, featureAt, phiParam)
	k.loop(fmt.Sprintf("up%drows", kind), func() {
		sum, test, before, hL, hR, m := k.ymm(), k.ymm(), k.ymm(), k.ymm(), k.ymm(), k.ymm()
		t, other := k.ymm(), k.ymm()
		if kind == 2 {
			hL = v
		}
		if kind == 3 {
			hR = v
		}
		VMOVUPD(k.rows(0, testAt), test)
		VMOVUPD(k.rows(0, beforeAt), before)
		k.zero(sum)
		k.each(fmt.Sprintf("up%dpoints", kind), func(q int) {
			if kind != 2 {
				VMOVUPD(k.at(left, q), hL)
			}
			if kind != 3 {
				VMOVUPD(k.at(right, q), hR)
			}
			VMULPD(rhoL, hL, m)
			VFMADD231PD(rhoR, hR, m)
			VBLENDVPD(test, hL, hR, t)
			VSUBPD(m, t, t)
			VANDPD(before, t, t)
			VBROADCASTSD(k.tau(k.rates, q), other)
			VFMADD231PD(other, t, m)
			VMOVUPD(m, k.at(k.to, q))
			VBROADCASTSD(k.kappa(k.rates, q), other)
			VMULPD(k.at(k.c, q), other, other)
			k.add(q, other, t, sum)
			if k.pairs {
				VMULPD(other, t, t)
				VMOVUPD(t, k.at(k.gains, q))
			}
		})
		VADDPD(k.here(phi), sum, sum)
		VMOVUPD(sum, k.here(phi))
	})
}

// bottomValues is kernel.bottomValues.
func (k *narrow) bottomValues(after int, mean, g1, g0 reg.VecPhysical) {
	t := k.ymm()
	k.leaf(after, leftAt, g1)
	k.leaf(after, rightAt, g0)
	VBROADCASTSD(k.field(after, firstAt), t)
	VMULPD(t, g1, mean)
	VBROADCASTSD(k.field(after, secondAt), t)
	VFMADD231PD(t, g0, mean)
	VSUBPD(mean, g1, g1)
	VSUBPD(mean, g0, g0)
	k.used--
}

// fork is kernel.fork.
func (k *narrow) fork() {
	k.used = 0
	rhoL, rhoR := k.constant(firstAt), k.constant(secondAt)
	values := k.ymms(3)
	for child := range 2 {
		k.bottomValues(child+1, values[0], values[1], values[2])
		for i, y := range values {
			VMOVUPD(y, k.kept[3*child+i])
		}
	}
	k.used -= 3
	left, right := GP64(), GP64()
	k.find(left, 1, ratesAt, ratesParam)
	k.find(right, 2, ratesAt, ratesParam)
	k.loop("forkrows", func() {
		dL, dR, test := k.ymm(), k.ymm(), k.ymm()
		g, sums, sum := k.ymms(2), k.ymms(2), k.ymm()
		for i := range 2 {
			VMOVUPD(k.rows(i+1, testAt), test)
			VMOVUPD(k.kept[3*i+2], g[i])
			VBLENDVPD(test, k.kept[3*i+1], g[i], g[i])
			VANDPD(k.rows(i+1, beforeAt), g[i], g[i])
		}
		VMOVUPD(k.rows(0, testAt), test)
		VMOVUPD(ones, dR)
		VANDPD(test, dR, dL)
		VSUBPD(dL, dR, dR)
		VSUBPD(rhoL, dL, dL)
		VSUBPD(rhoR, dR, dR)
		before := k.rows(0, beforeAt)
		VANDPD(before, dL, dL)
		VANDPD(before, dR, dR)
		k.zero(sums[0], sums[1], sum)
		a, b, m, t := k.ymm(), k.ymm(), k.ymm(), k.ymm()
		c, tau := k.ymm(), k.ymm()
		k.each("forkpoints", func(q int) {
			VMOVUPD(k.at(k.c, q), c)
			VBROADCASTSD(k.tau(k.rates, q), tau)
			for i, side := range []struct{ d, rho reg.VecPhysical }{{dL, rhoL}, {dR, rhoR}} {
				VMOVAPD(side.rho, a)
				VFMADD231PD(tau, side.d, a)
				VMULPD(c, a, a)
				VBROADCASTSD(k.kappa([]reg.GPVirtual{left, right}[i], q), t)
				k.add(q, t, a, sums[i])
			}
			VBROADCASTSD(k.tau(left, q), a)
			VFMADD213PD(k.kept[0], g[0], a)
			VBROADCASTSD(k.tau(right, q), b)
			VFMADD213PD(k.kept[3], g[1], b)
			VMULPD(rhoL, a, m)
			VFMADD231PD(rhoR, b, m)
			VBLENDVPD(test, a, b, t)
			VSUBPD(m, t, t)
			VANDPD(before, t, t)
			VFMADD231PD(tau, t, m)
			VMOVUPD(m, k.at(k.to, q))
			VBROADCASTSD(k.kappa(k.rates, q), a)
			VMULPD(c, a, a)
			k.add(q, a, t, sum)
		})
		phi, offset := GP64(), GP64()
		MOVQ(param("phi", phiParam), phi)
		ADDQ(k.row, phi)
		value := Mem{Base: phi, Index: offset, Scale: 1}
		for i := range 2 {
			MOVL(k.field(i+1, featureAt), offset.As32())
			VMOVUPD(value, a)
			VFMADD231PD(g[i], sums[i], a)
			VMOVUPD(a, value)
		}
		MOVL(k.field(0, featureAt), offset.As32())
		VADDPD(value, sum, sum)
		VMOVUPD(sum, value)
	})
	// The children's ops are done, too.
	ADDQ(U8(2*opBytes), k.op)
	SUBQ(U8(2), param("count", countParam))
}

// bottom is up where both children are leaves.
func (k *narrow) bottom() {
	k.used = 0
	mean, g1, g0 := k.ymm(), k.ymm(), k.ymm()
	k.bottomValues(0, mean, g1, g0)
	phi := GP64()
	k.find(phi, 0, featureAt, phiParam)
	k.loop("bottomrows", func() {
		g, sum, t := k.ymm(), k.ymm(), k.ymm()
		VMOVUPD(k.rows(0, testAt), g)
		VBLENDVPD(g, g1, g0, g)
		VANDPD(k.rows(0, beforeAt), g, g)
		k.zero(sum)
		k.each("bottompoints", func(q int) {
			VBROADCASTSD(k.tau(k.rates, q), t)
			VFMADD213PD(mean, g, t)
			VMOVUPD(t, k.at(k.to, q))
			VBROADCASTSD(k.kappa(k.rates, q), t)
			if q == 0 && k.n > 0 {
				VMULPD(k.at(k.c, q), t, sum)
			} else {
				VFMADD231PD(k.at(k.c, q), t, sum)
			}
			if k.pairs {
				VMULPD(k.at(k.c, q), t, t)
				VMULPD(g, t, t)
				VMOVUPD(t, k.at(k.gains, q))
			}
		})
		VMOVUPD(k.here(phi), t)
		VFMADD231PD(g, sum, t)
		VMOVUPD(t, k.here(phi))
	})
}
