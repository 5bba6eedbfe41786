// Command gen writes program_amd64.s, the AVX-512 and AVX2 forms of machine.run in
// package treeshap: one for each number of quadrature points up to 8, and one that
// loops over up to 16 points:
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
	// maxPoints is the number of points up to which they are unrolled, loopPoints
	// that of the form that loops over them.
	maxPoints, loopPoints = 8, 16
	// rowBytes is what one point of a slot takes: 64 rows.
	rowBytes = 512
	// opBytes and the offsets of an op's fields.
	opBytes                              = 48
	kindAt, cAt, toAt, leftAt, rightAt   = 0, 2, 4, 8, 12
	testAt, beforeAt, featureAt, ratesAt = 16, 20, 24, 28
	firstAt, secondAt                    = 32, 40
	countParam, ratesParam, slotsParam   = 8, 16, 24
	masksParam, phiParam, leavesParam    = 32, 40, 48
	bytesParam, pointsParam, gainsParam  = 56, 64, 72
)

// one is 1 throughout.
var one = reg.Z31

func main() {
	ConstraintExpr("amd64")
	for n := range maxPoints + 1 {
		generate(n, false)
	}
	generate(0, true)
	pairs("pairs", "AVX512", 4)
	pairs("fewPairs", "AVX512", 1)
	tables()
	for n := range maxPoints + 1 {
		generateNarrow(n, false)
	}
	generateNarrow(0, true)
	pairs("pairs", "AVX2", 4)
	pairs("fewPairs", "AVX2", 1)
	Generate()
}

// signature is what all forms are called with. points is 8 times their number.
const signature = "func(ops *byte, count int, rates, slots, masks, phi, leaves *byte, bytes, points int)"

// pairsSignature has gains beside, where c kappa g of the last op goes.
const pairsSignature = "func(ops *byte, count int, rates, slots, masks, phi, leaves *byte, bytes, points int, gains *byte)"

// kernel is the state of one function.
type kernel struct {
	n    int // points, or 0 where the function loops over them
	used int // registers
	// mask and row go through the rows: the planes' bytes, and 64 times as much.
	op, c, to, test, before, rates, mask, row reg.GPVirtual
	// point and q are the row and the point of a loop over points, in bytes.
	point, q reg.GPVirtual
	// pairs makes the form for interactions, which knows no forks.
	pairs bool
	gains reg.GPVirtual
}

// begin begins the form of n points for a set.
func begin(n int, set string, pairs bool) {
	switch {
	case pairs:
		TEXT("gains"+set, NOSPLIT, pairsSignature)
	case n == 0:
		TEXT("run"+set, NOSPLIT, signature)
	default:
		TEXT(fmt.Sprintf("run%d%s", n, set), NOSPLIT, signature)
	}
}

func generate(n int, pairs bool) {
	begin(n, "AVX512", pairs)
	k := &kernel{n: n, pairs: pairs}
	if pairs {
		k.gains = Load(Param("gains"), GP64()).(reg.GPVirtual)
	}
	k.op = Load(Param("ops"), GP64()).(reg.GPVirtual)
	k.c, k.to, k.test, k.before, k.rates, k.mask, k.row = GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	k.point, k.q = GP64(), GP64()
	bits := GP64()
	MOVQ(U64(math.Float64bits(1)), bits)
	VPBROADCASTQ(bits, one)
	Label("op")
	MOVWQZX(k.field(0, cAt), k.c)
	k.slot(k.c)
	MOVWQZX(k.field(0, toAt), k.to)
	k.slot(k.to)
	MOVL(k.field(0, testAt), k.test.As32())
	MOVL(k.field(0, beforeAt), k.before.As32())
	k.find(k.rates, 0, ratesAt, ratesParam)
	MOVQ(param("masks", masksParam), k.mask)
	XORQ(k.row, k.row)
	dispatch(k)
}

// forms are the operations of one set, which dispatch chooses from.
type forms interface {
	state() *kernel
	down()
	up(kind int)
	fork()
	bottom()
}

func (k *kernel) state() *kernel { return k }

// dispatch does the op at hand by its kind, goes on to the next and ends after the last.
func dispatch(f forms) {
	k := f.state()
	kind := GP32()
	MOVWLZX(k.field(0, kindAt), kind)
	for i, name := range []string{"down", "up1", "up2", "up3", "bottom"} {
		CMPL(kind, U8(i))
		JE(LabelRef(name))
	}
	if !k.pairs {
		f.fork()
		JMP(LabelRef("next"))
	}
	Label("bottom")
	f.bottom()
	JMP(LabelRef("next"))
	Label("down")
	f.down()
	JMP(LabelRef("next"))
	for kind := 1; kind <= 3; kind++ {
		Label(fmt.Sprintf("up%d", kind))
		f.up(kind)
		if kind < 3 {
			JMP(LabelRef("next"))
		}
	}
	Label("next")
	ADDQ(U8(opBytes), k.op)
	DECQ(param("count", countParam))
	JNZ(LabelRef("op"))
	VZEROUPPER()
	RET()
}

func param(name string, at int) Mem { return NewParamAddr(name, at) }

// field is a field of the op that many after this.
func (k *kernel) field(after, at int) Mem {
	return Mem{Base: k.op, Disp: after*opBytes + at}
}

// slot turns a slot into its address.
func (k *kernel) slot(r reg.GPVirtual) {
	if k.n > 0 {
		IMUL3Q(U32(k.n*rowBytes), r, r)
	} else {
		IMULQ(param("points", pointsParam), r)
		SHLQ(U8(6), r)
	}
	ADDQ(param("slots", slotsParam), r)
}

// find leaves the address of what a field's offset finds in a parameter.
func (k *kernel) find(to reg.GPVirtual, after, at, parameter int) {
	MOVL(k.field(after, at), to.As32())
	ADDQ(param(map[int]string{ratesParam: "rates", phiParam: "phi"}[parameter], parameter), to)
}

// zmm hands out all registers but one's in turn; avo would use only half of them. An op
// begins anew, and so do the temporaries of each point.
func (k *kernel) zmm() reg.VecPhysical {
	k.used++
	return registers[k.used-1]
}

var registers = []reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10,
	reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20,
	reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30,
}

// loop runs body for each group of eight rows, whose masks are in K1 and K2.
func (k *kernel) loop(name string, body func()) {
	mark := k.used
	Label(name)
	KMOVB(Mem{Base: k.test, Index: k.mask, Scale: 1}, reg.K1)
	KMOVB(Mem{Base: k.before, Index: k.mask, Scale: 1}, reg.K2)
	body()
	k.used = mark
	INCQ(k.mask)
	ADDQ(U8(64), k.row)
	CMPQ(k.row, param("bytes", bytesParam))
	JLT(LabelRef(name))
}

// each runs body for every point, which knows that it is the first one only where
// they are unrolled.
func (k *kernel) each(name string, body func(q int)) {
	if k.n > 0 {
		for q := range k.n {
			body(q)
		}
		return
	}
	MOVQ(k.row, k.point)
	XORQ(k.q, k.q)
	Label(name)
	body(0)
	ADDQ(U32(rowBytes), k.point)
	ADDQ(U8(8), k.q)
	CMPQ(k.q, param("points", pointsParam))
	JLT(LabelRef(name))
}

// at is a point of a slot, and of the rows of the turn.
func (k *kernel) at(base reg.GPVirtual, q int) Mem {
	if k.n == 0 {
		return Mem{Base: base, Index: k.point, Scale: 1}
	}
	return Mem{Base: base, Index: k.row, Scale: 1, Disp: q * rowBytes}
}

// here is at where there are no points.
func (k *kernel) here(base reg.GPVirtual) Mem {
	return Mem{Base: base, Index: k.row, Scale: 1}
}

// constant broadcasts a field of the op.
func (k *kernel) constant(at int) reg.VecPhysical {
	z := k.zmm()
	VBROADCASTSD(k.field(0, at), z)
	return z
}

// tau and kappa are in the op's rates.
func (k *kernel) tau(rates reg.GPVirtual, q int) Mem { return k.rate(rates, q) }

func (k *kernel) kappa(rates reg.GPVirtual, q int) Mem {
	if k.n == 0 {
		return k.rate(rates, loopPoints)
	}
	return k.rate(rates, k.n+q)
}

func (k *kernel) rate(rates reg.GPVirtual, i int) Mem {
	if k.n == 0 {
		return Mem{Base: rates, Index: k.q, Scale: 1, Disp: 8 * i}
	}
	return Mem{Base: rates, Disp: 8 * i}
}

// points are rates of which those that are unrolled are in registers.
func (k *kernel) points(rate func(reg.GPVirtual, int) Mem) func(q int) reg.VecPhysical {
	kept := make([]reg.VecPhysical, k.n)
	for q := range kept {
		kept[q] = k.zmm()
		VBROADCASTSD(rate(k.rates, q), kept[q])
	}
	return func(q int) reg.VecPhysical {
		if k.n > 0 {
			return kept[q]
		}
		z := k.zmm()
		VBROADCASTSD(rate(k.rates, q), z)
		return z
	}
}

// zero begins a sum that a loop adds to.
func (k *kernel) zero(sums ...reg.VecPhysical) {
	for _, z := range sums {
		if k.n == 0 {
			VXORPD(z, z, z)
		}
	}
}

func (k *kernel) leaf(after, at int) reg.VecPhysical {
	i, leaves, z := GP64(), GP64(), k.zmm()
	Load(Param("leaves"), leaves)
	MOVL(k.field(after, at), i.As32())
	VBROADCASTSD(Mem{Base: leaves, Index: i, Scale: 8}, z)
	return z
}

func (k *kernel) down() {
	k.used = 0
	rho, d1, d0, taus := k.constant(firstAt), k.constant(secondAt), k.zmm(), k.points(k.tau)
	VSUBPD(d1, one, d0)
	VSUBPD(rho, d1, d1)
	VSUBPD(rho, d0, d0)
	k.loop("downrows", func() {
		d := k.zmm()
		VBLENDMPD(d1, d0, reg.K1, d)
		VMOVAPD_Z(d, reg.K2, d)
		f := k.zmm()
		mark := k.used
		k.each("downpoints", func(q int) {
			k.used = mark
			VMOVAPD(rho, f)
			VFMADD231PD(taus(q), d, f)
			VMULPD(k.at(k.c, q), f, f)
			VMOVUPD(f, k.at(k.to, q))
		})
	})
}

// up has kind 1 where both children are inner nodes, 2 where the left one is a
// leaf, 3 where the right one is.
func (k *kernel) up(kind int) {
	k.used = 0
	rhoL, rhoR, taus, kappas := k.constant(firstAt), k.constant(secondAt), k.points(k.tau), k.points(k.kappa)
	left, right := GP64(), GP64()
	var vL, vR reg.VecPhysical
	if kind == 2 {
		vL = k.leaf(0, leftAt)
	} else {
		MOVL(k.field(0, leftAt), left.As32())
		k.slot(left)
	}
	if kind == 3 {
		vR = k.leaf(0, rightAt)
	} else {
		MOVL(k.field(0, rightAt), right.As32())
		k.slot(right)
	}
	phi := GP64()
	k.find(phi, 0, featureAt, phiParam)
	k.loop(fmt.Sprintf("up%drows", kind), func() {
		sum := k.zmm()
		k.zero(sum)
		mark := k.used
		k.each(fmt.Sprintf("up%dpoints", kind), func(q int) {
			k.used = mark
			hL, hR := vL, vR
			if kind != 2 {
				hL = k.zmm()
				VMOVUPD(k.at(left, q), hL)
			}
			if kind != 3 {
				hR = k.zmm()
				VMOVUPD(k.at(right, q), hR)
			}
			m, g, t := k.zmm(), k.zmm(), k.zmm()
			VMULPD(rhoL, hL, m)
			VFMADD231PD(rhoR, hR, m)
			VBLENDMPD(hL, hR, reg.K1, g)
			VSUBPD_Z(m, g, reg.K2, g)
			VFMADD231PD(taus(q), g, m)
			VMOVUPD(m, k.at(k.to, q))
			VMULPD(k.at(k.c, q), kappas(q), t)
			if q == 0 && k.n > 0 {
				VMULPD(t, g, sum)
			} else {
				VFMADD231PD(t, g, sum)
			}
			if k.pairs {
				VMULPD(t, g, t)
				VMOVUPD(t, k.at(k.gains, q))
			}
		})
		VADDPD(k.here(phi), sum, sum)
		VMOVUPD(sum, k.here(phi))
	})
}

// bottomValues leaves what bottom needs of the op that many after this: the mean,
// and what left and right are above it.
func (k *kernel) bottomValues(after int) (mean, g1, g0 reg.VecPhysical) {
	g1, g0, mean = k.leaf(after, leftAt), k.leaf(after, rightAt), k.zmm()
	VMULPD_BCST(k.field(after, firstAt), g1, mean)
	VFMADD231PD_BCST(k.field(after, secondAt), g0, mean)
	VSUBPD(mean, g1, g1)
	VSUBPD(mean, g0, g0)
	return mean, g1, g0
}

// fork is down and bottom of both children, and up, without a slot in between.
func (k *kernel) fork() {
	k.used = 0
	rhoL, rhoR := k.constant(firstAt), k.constant(secondAt)
	meanL, upL, downL := k.bottomValues(1)
	meanR, upR, downR := k.bottomValues(2)
	left, right, phi, offset := GP64(), GP64(), GP64(), GP64()
	k.find(left, 1, ratesAt, ratesParam)
	k.find(right, 2, ratesAt, ratesParam)
	MOVQ(param("phi", phiParam), phi)
	k.loop("forkrows", func() {
		for i := range 2 {
			MOVL(k.field(i+1, testAt), offset.As32())
			KMOVB(Mem{Base: offset, Index: k.mask, Scale: 1}, []reg.OpmaskPhysical{reg.K3, reg.K5}[i])
			MOVL(k.field(i+1, beforeAt), offset.As32())
			KMOVB(Mem{Base: offset, Index: k.mask, Scale: 1}, []reg.OpmaskPhysical{reg.K4, reg.K6}[i])
		}
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
		k.zero(sumL, sumR, sum)
		k.each("forkpoints", func(q int) {
			VMOVUPD(k.at(k.c, q), c)
			VMOVAPD(rhoL, cL)
			VFMADD231PD_BCST(k.tau(k.rates, q), dL, cL)
			VMULPD(c, cL, cL)
			VMOVAPD(rhoR, cR)
			VFMADD231PD_BCST(k.tau(k.rates, q), dR, cR)
			VMULPD(c, cR, cR)
			VMOVAPD(meanL, hL)
			VFMADD231PD_BCST(k.tau(left, q), gL, hL)
			VMOVAPD(meanR, hR)
			VFMADD231PD_BCST(k.tau(right, q), gR, hR)
			if q == 0 && k.n > 0 {
				VMULPD_BCST(k.kappa(left, q), cL, sumL)
				VMULPD_BCST(k.kappa(right, q), cR, sumR)
			} else {
				VFMADD231PD_BCST(k.kappa(left, q), cL, sumL)
				VFMADD231PD_BCST(k.kappa(right, q), cR, sumR)
			}
			VMULPD(rhoL, hL, m)
			VFMADD231PD(rhoR, hR, m)
			VBLENDMPD(hL, hR, reg.K1, hL)
			VSUBPD_Z(m, hL, reg.K2, hL)
			VFMADD231PD_BCST(k.tau(k.rates, q), hL, m)
			VMOVUPD(m, k.at(k.to, q))
			VMULPD_BCST(k.kappa(k.rates, q), c, c)
			if q == 0 && k.n > 0 {
				VMULPD(c, hL, sum)
			} else {
				VFMADD231PD(c, hL, sum)
			}
		})
		value := Mem{Base: offset, Index: phi, Scale: 1}
		for i, g := range []reg.VecPhysical{gL, gR} {
			MOVL(k.field(i+1, featureAt), offset.As32())
			VMOVUPD(value, c)
			VFMADD231PD(g, []reg.VecPhysical{sumL, sumR}[i], c)
			VMOVUPD(c, value)
		}
		MOVL(k.field(0, featureAt), offset.As32())
		VADDPD(value, sum, sum)
		VMOVUPD(sum, value)
		ADDQ(U8(64), phi)
	})
	// The children's ops are done, too.
	ADDQ(U8(2*opBytes), k.op)
	SUBQ(U8(2), param("count", countParam))
}

// bottom is up where both children are leaves.
func (k *kernel) bottom() {
	k.used = 0
	taus, kappas := k.points(k.tau), k.points(k.kappa)
	mean, g1, g0 := k.bottomValues(0)
	phi := GP64()
	k.find(phi, 0, featureAt, phiParam)
	k.loop("bottomrows", func() {
		g, sum, h := k.zmm(), k.zmm(), k.zmm()
		VBLENDMPD(g1, g0, reg.K1, g)
		VMOVAPD_Z(g, reg.K2, g)
		k.zero(sum)
		mark := k.used
		k.each("bottompoints", func(q int) {
			k.used = mark
			VMOVAPD(mean, h)
			VFMADD231PD(taus(q), g, h)
			VMOVUPD(h, k.at(k.to, q))
			if q == 0 && k.n > 0 {
				VMULPD(k.at(k.c, q), kappas(q), sum)
			} else {
				VFMADD231PD(k.at(k.c, q), kappas(q), sum)
			}
			if k.pairs {
				VMULPD(k.at(k.c, q), kappas(q), h)
				VMULPD(g, h, h)
				VMOVUPD(h, k.at(k.gains, q))
			}
		})
		VMOVUPD(k.here(phi), h)
		VFMADD231PD(g, sum, h)
		VMOVUPD(h, k.here(phi))
	})
}
