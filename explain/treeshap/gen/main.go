// Command gen writes program_amd64.s, the AVX-512 forms of runGo in package
// treeshap, one for each number of quadrature points up to 8:
//
//	cd explain/treeshap/gen && go run . -out ../program_amd64.s -pkg treeshap
package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	maxPoints = 8
	// rowBytes is what one point of a slot takes: 64 rows.
	rowBytes = 512
	// opBytes and the offsets of an op's fields.
	opBytes                                                         = 32
	kindAt, cAt, toAt, leftAt, rightAt, testAt, beforeAt, featureAt = 0, 4, 8, 12, 16, 20, 24, 28
	// The constants that come before the points'.
	fixed = 3
)

func main() {
	ConstraintExpr("amd64")
	for n := 1; n <= maxPoints; n++ {
		generate(n)
	}
	Generate()
}

// kernel is the state of one function.
type kernel struct {
	used                                int // registers
	n                                   int
	op, consts                          reg.GPVirtual
	c, to, left, right, test, before, g reg.GPVirtual
}

func generate(n int) {
	TEXT(fmt.Sprintf("run%dAVX512", n), NOSPLIT, "func(ops, consts *byte, count int, slots, masks, phi, leaves *byte, groups int)")
	k := &kernel{n: n}
	k.op = Load(Param("ops"), GP64()).(reg.GPVirtual)
	k.consts = Load(Param("consts"), GP64()).(reg.GPVirtual)
	k.c, k.to, k.left, k.right, k.test, k.before = GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	k.g = GP64()
	Label("op")
	k.address(k.c, cAt)
	k.address(k.to, toAt)
	k.plane(k.test, testAt)
	k.plane(k.before, beforeAt)
	XORQ(k.g, k.g)
	CMPL(Mem{Base: k.op, Disp: kindAt}, U8(0))
	JE(LabelRef("down"))
	for kind := 1; kind <= 3; kind++ {
		CMPL(Mem{Base: k.op, Disp: kindAt}, U8(kind))
		JE(LabelRef(fmt.Sprintf("up%d", kind)))
	}
	CMPL(Mem{Base: k.op, Disp: kindAt}, U8(5))
	JE(LabelRef("fork"))
	k.bottom()
	JMP(LabelRef("next"))
	Label("down")
	k.down()
	JMP(LabelRef("next"))
	for kind := 1; kind <= 3; kind++ {
		Label(fmt.Sprintf("up%d", kind))
		k.up(kind)
		JMP(LabelRef("next"))
	}
	Label("fork")
	k.fork()
	Label("next")
	ADDQ(U8(opBytes), k.op)
	ADDQ(U32(8*(fixed+2*n)), k.consts)
	count := NewParamAddr("count", 16)
	DECQ(count)
	JNZ(LabelRef("op"))
	VZEROUPPER()
	RET()
}

// address leaves the address of the slot that the op's field names.
func (k *kernel) address(to reg.GPVirtual, field int) {
	MOVL(Mem{Base: k.op, Disp: field}, to.As32())
	IMUL3Q(U32(k.n*rowBytes), to, to)
	ADDQ(NewParamAddr("slots", 24), to)
}

// plane leaves the address of the plane that the op's field names.
func (k *kernel) plane(to reg.GPVirtual, field int) {
	MOVL(Mem{Base: k.op, Disp: field}, to.As32())
	SHLQ(U8(6), to)
	ADDQ(NewParamAddr("masks", 32), to)
}

// zmm hands out the 32 registers in turn; avo would use only half of them. An op
// begins anew, and so do the temporaries of each point.
func (k *kernel) zmm() reg.VecPhysical {
	k.used++
	return registers[k.used-1]
}

var registers = []reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10,
	reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20,
	reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
}

// loop runs body for each group of eight rows.
func (k *kernel) loop(name string, body func()) {
	Label(name)
	KMOVB(Mem{Base: k.test, Index: k.g, Scale: 1}, reg.K1)
	KMOVB(Mem{Base: k.before, Index: k.g, Scale: 1}, reg.K2)
	body()
	INCQ(k.g)
	CMPQ(k.g, NewParamAddr("groups", 56))
	JLT(LabelRef(name))
}

func (k *kernel) at(base reg.GPVirtual, row reg.GPVirtual, q int) Mem {
	return Mem{Base: base, Index: row, Scale: 1, Disp: q * rowBytes}
}

// row leaves the offset of the group's rows.
func (k *kernel) rows() reg.GPVirtual {
	row := GP64()
	MOVQ(k.g, row)
	SHLQ(U8(6), row)
	return row
}

func (k *kernel) constant(i int) reg.VecPhysical {
	z := k.zmm()
	VBROADCASTSD(Mem{Base: k.consts, Disp: 8 * i}, z)
	return z
}

// points loads the n constants from fixed on, or those after them.
func (k *kernel) points(second int) []reg.VecPhysical {
	out := make([]reg.VecPhysical, k.n)
	for q := range out {
		out[q] = k.constant(fixed + second*k.n + q)
	}
	return out
}

// phiAt leaves the address of the feature's values, of the op that many after
// this.
func (k *kernel) phiAt(after int) reg.GPVirtual {
	f := GP64()
	MOVL(Mem{Base: k.op, Disp: after*opBytes + featureAt}, f.As32())
	SHLQ(U8(9), f)
	ADDQ(NewParamAddr("phi", 40), f)
	return f
}

func (k *kernel) down() {
	k.used = 0
	rho, d1, d0, tau := k.constant(0), k.constant(1), k.constant(2), k.points(0)
	k.loop("downrows", func() {
		row := k.rows()
		d := k.zmm()
		VBLENDMPD(d1, d0, reg.K1, d)
		VMOVAPD_Z(d, reg.K2, d)
		mark := k.used
		for q := range k.n {
			k.used = mark
			f := k.zmm()
			VMOVAPD(rho, f)
			VFMADD231PD(tau[q], d, f)
			VMULPD(k.at(k.c, row, q), f, f)
			VMOVUPD(f, k.at(k.to, row, q))
		}
	})
}

// up has kind 1 where both children are inner nodes, 2 where the left one is a
// leaf, 3 where the right one is.
func (k *kernel) up(kind int) {
	k.used = 0
	rhoL, rhoR, tau, kappa := k.constant(0), k.constant(1), k.points(0), k.points(1)
	var vL, vR reg.VecPhysical
	if kind == 2 {
		vL = k.leaf(leftAt)
	} else {
		k.address(k.left, leftAt)
	}
	if kind == 3 {
		vR = k.leaf(rightAt)
	} else {
		k.address(k.right, rightAt)
	}
	phi := k.phiAt(0)
	k.loop(fmt.Sprintf("up%drows", kind), func() {
		row := k.rows()
		sum := k.zmm()
		mark := k.used
		for q := range k.n {
			k.used = mark
			hL, hR := vL, vR
			if kind != 2 {
				hL = k.zmm()
				VMOVUPD(k.at(k.left, row, q), hL)
			}
			if kind != 3 {
				hR = k.zmm()
				VMOVUPD(k.at(k.right, row, q), hR)
			}
			m, g, t := k.zmm(), k.zmm(), k.zmm()
			VMULPD(rhoL, hL, m)
			VFMADD231PD(rhoR, hR, m)
			VBLENDMPD(hL, hR, reg.K1, g)
			VSUBPD_Z(m, g, reg.K2, g)
			VFMADD231PD(tau[q], g, m)
			VMOVUPD(m, k.at(k.to, row, q))
			VMULPD(k.at(k.c, row, q), kappa[q], t)
			if q == 0 {
				VMULPD(t, g, sum)
			} else {
				VFMADD231PD(t, g, sum)
			}
		}
		VADDPD(Mem{Base: phi, Index: row, Scale: 1}, sum, sum)
		VMOVUPD(sum, Mem{Base: phi, Index: row, Scale: 1})
	})
}

func (k *kernel) leaf(field int) reg.VecPhysical {
	i, leaves, z := GP64(), GP64(), k.zmm()
	Load(Param("leaves"), leaves)
	MOVL(Mem{Base: k.op, Disp: field}, i.As32())
	VBROADCASTSD(Mem{Base: leaves, Index: i, Scale: 8}, z)
	return z
}

// bottomValues leaves what bottom needs of the op that many after this: the mean,
// and what left and right are above it.
func (k *kernel) bottomValues(after int) (mean, g1, g0 reg.VecPhysical) {
	record := after * 8 * (fixed + 2*k.n)
	g1, g0, mean = k.leaf(after*opBytes+leftAt), k.leaf(after*opBytes+rightAt), k.zmm()
	VMULPD_BCST(Mem{Base: k.consts, Disp: record}, g1, mean)
	VFMADD231PD_BCST(Mem{Base: k.consts, Disp: record + 8}, g0, mean)
	VSUBPD(mean, g1, g1)
	VSUBPD(mean, g0, g0)
	return mean, g1, g0
}

// fork is down and bottom of both children, and up, without a slot in between.
func (k *kernel) fork() {
	k.used = 0
	one, rhoL, rhoR := k.zmm(), k.constant(0), k.constant(1)
	bits := GP64()
	MOVQ(U64(math.Float64bits(1)), bits)
	VPBROADCASTQ(bits, one)
	meanL, upL, downL := k.bottomValues(1)
	meanR, upR, downR := k.bottomValues(2)
	testL, beforeL, testR, beforeR := GP64(), GP64(), GP64(), GP64()
	k.plane(testL, opBytes+testAt)
	k.plane(beforeL, opBytes+beforeAt)
	k.plane(testR, 2*opBytes+testAt)
	k.plane(beforeR, 2*opBytes+beforeAt)
	mark := k.used
	k.loop("forkrows", func() {
		KMOVB(Mem{Base: testL, Index: k.g, Scale: 1}, reg.K3)
		KMOVB(Mem{Base: beforeL, Index: k.g, Scale: 1}, reg.K4)
		KMOVB(Mem{Base: testR, Index: k.g, Scale: 1}, reg.K5)
		KMOVB(Mem{Base: beforeR, Index: k.g, Scale: 1}, reg.K6)
		row := k.rows()
		k.used = mark
		dL, dR, gL, gR := k.zmm(), k.zmm(), k.zmm(), k.zmm()
		sumL, sumR, sum := k.zmm(), k.zmm(), k.zmm()
		VMOVAPD_Z(one, reg.K1, dL)
		VSUBPD(dL, one, dR)
		VSUBPD_Z(rhoL, dL, reg.K2, dL)
		VSUBPD_Z(rhoR, dR, reg.K2, dR)
		VBLENDMPD(upL, downL, reg.K3, gL)
		VMOVAPD_Z(gL, reg.K4, gL)
		VBLENDMPD(upR, downR, reg.K5, gR)
		VMOVAPD_Z(gR, reg.K6, gR)
		c, cL, cR, hL, hR, m := k.zmm(), k.zmm(), k.zmm(), k.zmm(), k.zmm(), k.zmm()
		for q := range k.n {
			tau := Mem{Base: k.consts, Disp: 8 * (fixed + q)}
			kappa := Mem{Base: k.consts, Disp: 8 * (fixed + k.n + q)}
			left, right := 8*(fixed+2*k.n), 16*(fixed+2*k.n)
			VMOVUPD(k.at(k.c, row, q), c)
			VMOVAPD(rhoL, cL)
			VFMADD231PD_BCST(tau, dL, cL)
			VMULPD(c, cL, cL)
			VMOVAPD(rhoR, cR)
			VFMADD231PD_BCST(tau, dR, cR)
			VMULPD(c, cR, cR)
			VMOVAPD(meanL, hL)
			VFMADD231PD_BCST(tau.Offset(left), gL, hL)
			VMOVAPD(meanR, hR)
			VFMADD231PD_BCST(tau.Offset(right), gR, hR)
			if q == 0 {
				VMULPD_BCST(kappa.Offset(left), cL, sumL)
				VMULPD_BCST(kappa.Offset(right), cR, sumR)
			} else {
				VFMADD231PD_BCST(kappa.Offset(left), cL, sumL)
				VFMADD231PD_BCST(kappa.Offset(right), cR, sumR)
			}
			VMULPD(rhoL, hL, m)
			VFMADD231PD(rhoR, hR, m)
			VBLENDMPD(hL, hR, reg.K1, hL)
			VSUBPD_Z(m, hL, reg.K2, hL)
			VFMADD231PD_BCST(tau, hL, m)
			VMOVUPD(m, k.at(k.to, row, q))
			VMULPD_BCST(kappa, c, c)
			if q == 0 {
				VMULPD(c, hL, sum)
			} else {
				VFMADD231PD(c, hL, sum)
			}
		}
		for i, g := range []reg.VecPhysical{gL, gR} {
			phi := k.phiAt(i + 1)
			VMOVUPD(Mem{Base: phi, Index: row, Scale: 1}, c)
			VFMADD231PD(g, []reg.VecPhysical{sumL, sumR}[i], c)
			VMOVUPD(c, Mem{Base: phi, Index: row, Scale: 1})
		}
		phi := k.phiAt(0)
		VADDPD(Mem{Base: phi, Index: row, Scale: 1}, sum, sum)
		VMOVUPD(sum, Mem{Base: phi, Index: row, Scale: 1})
	})
	// The children's ops are done, too.
	ADDQ(U8(2*opBytes), k.op)
	ADDQ(U32(16*(fixed+2*k.n)), k.consts)
	SUBQ(U8(2), NewParamAddr("count", 16))
}

// bottom is up where both children are leaves.
func (k *kernel) bottom() {
	k.used = 0
	rhoL, rhoR, tau, kappa := k.constant(0), k.constant(1), k.points(0), k.points(1)
	g1, g0, mean := k.leaf(leftAt), k.leaf(rightAt), k.zmm()
	VMULPD(rhoL, g1, mean)
	VFMADD231PD(rhoR, g0, mean)
	VSUBPD(mean, g1, g1)
	VSUBPD(mean, g0, g0)
	phi := k.phiAt(0)
	k.loop("bottomrows", func() {
		row := k.rows()
		g, sum, p := k.zmm(), k.zmm(), k.zmm()
		VBLENDMPD(g1, g0, reg.K1, g)
		VMOVAPD_Z(g, reg.K2, g)
		mark := k.used
		for q := range k.n {
			k.used = mark
			h := k.zmm()
			VMOVAPD(mean, h)
			VFMADD231PD(tau[q], g, h)
			VMOVUPD(h, k.at(k.to, row, q))
			if q == 0 {
				VMULPD(k.at(k.c, row, q), kappa[q], sum)
			} else {
				VFMADD231PD(k.at(k.c, row, q), kappa[q], sum)
			}
		}
		VMOVUPD(Mem{Base: phi, Index: row, Scale: 1}, p)
		VFMADD231PD(g, sum, p)
		VMOVUPD(p, Mem{Base: phi, Index: row, Scale: 1})
	})
}
