// Command gen writes kernels_amd64.s, the AVX-512 and AVX2 forms of the loops of
// package vector, and their declarations:
//
//	cd engine/vector/gen && go run . -out ../kernels_amd64.s -stubs ../stubs_amd64.go -pkg vector
package main

import (
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// machine emits instructions for one width.
type machine struct {
	wide bool
	name string
	// known are the constants that stay in registers during a loop.
	known map[float32]reg.VecVirtual
	// mask of the last elements.
	k reg.OpmaskVirtual
	m reg.VecVirtual
}

func (g *machine) bytes() int {
	if g.wide {
		return 64
	}
	return 32
}

func (g *machine) lanes() int { return g.bytes() / 4 }

func (g *machine) reg() reg.VecVirtual {
	if g.wide {
		return ZMM()
	}
	return YMM()
}

var table = map[uint32]int{}
var order []uint32

const tableName = "constants"

func address(bits uint32) Mem {
	at, ok := table[bits]
	if !ok {
		at = 4 * len(order)
		table[bits] = at
		order = append(order, bits)
	}
	return NewDataAddr(Symbol{Name: tableName, Static: true}, at)
}

// c is a constant in all lanes.
func (g *machine) c(v float32) reg.VecVirtual {
	if r, ok := g.known[v]; ok {
		return r
	}
	return g.bits(math.Float32bits(v))
}

func (g *machine) bits(b uint32) reg.VecVirtual {
	r := g.reg()
	VBROADCASTSS(address(b), r)
	return r
}

// keep holds as many of the constants in registers as there is room for.
func (g *machine) keep(values ...float32) {
	room := 6
	if g.wide {
		room = 18
	}
	g.known = map[float32]reg.VecVirtual{}
	for _, v := range values[:min(room, len(values))] {
		g.known[v] = g.bits(math.Float32bits(v))
	}
}

// Comparisons.
const (
	equal     = 0
	less      = 1
	unordered = 3
	notLess   = 5 // NaN too
)

// Directions of rounding; none tells that it was inexact.
const (
	toEven   = 8
	downward = 9
	upward   = 10
)

// pick is yes where a cmp b, else no.
func (g *machine) pick(cmp uint8, a, b, yes, no reg.VecVirtual) reg.VecVirtual {
	out := g.reg()
	if g.wide {
		k := K()
		VCMPPS(U8(cmp), b, a, k)
		VMOVAPS(no, out)
		VMOVAPS(yes, k, out)
		return out
	}
	m := g.reg()
	VCMPPS(U8(cmp), b, a, m)
	VBLENDVPS(m, yes, no, out)
	return out
}

// horner is x's polynomial with the coefficients, the highest first.
func (g *machine) horner(x reg.VecVirtual, coefficients ...float32) reg.VecVirtual {
	acc := g.reg()
	VMOVAPS(g.c(coefficients[0]), acc)
	for _, c := range coefficients[1:] {
		VFMADD213PS(g.c(c), x, acc)
	}
	return acc
}

// ending sets the mask for n elements, fewer than a vector.
func (g *machine) ending(n reg.Register) {
	if g.wide {
		one, count := GP64(), GP64()
		MOVQ(U32(1), one)
		MOVQ(n, count)
		SHLXQ(count, one, one)
		DECQ(one)
		g.k = K()
		KMOVW(one.As32(), g.k)
		return
	}
	t, p := GP64(), GP64()
	MOVQ(U32(8), t)
	SUBQ(n, t)
	LEAQ(NewDataAddr(Symbol{Name: "masks", Static: true}, 0), p)
	g.m = g.reg()
	VMOVUPS(Mem{Base: p, Index: t, Scale: 4}, g.m)
}

func (g *machine) load(m Mem, masked bool) reg.VecVirtual {
	r := g.reg()
	switch {
	case !masked:
		VMOVUPS(m, r)
	case g.wide:
		VMOVUPS_Z(m, g.k, r)
	default:
		VMASKMOVPS(m, g.m, r)
	}
	return r
}

func (g *machine) store(r reg.VecVirtual, m Mem, masked bool) {
	switch {
	case !masked:
		VMOVUPS(r, m)
	case g.wide:
		VMOVUPS(r, g.k, m)
	default:
		VMASKMOVPS(r, g.m, m)
	}
}

// loop is body for whole vectors and then for the rest, and the end of the kernel.
func (g *machine) loop(n reg.GPVirtual, body func(masked bool)) {
	g.each(n, body)
	VZEROUPPER()
	RET()
}

func (g *machine) each(n reg.GPVirtual, body func(masked bool)) {
	Label("loop")
	CMPQ(n, U8(g.lanes()))
	JLT(LabelRef("rest"))
	body(false)
	SUBQ(U8(g.lanes()), n)
	JMP(LabelRef("loop"))
	Label("rest")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	g.ending(n)
	body(true)
	Label("done")
}

// binary is an operation on two slices, each advanced by its step in bytes, 0 for
// one vector that is repeated.
func (g *machine) binary(name string, f func(a, b reg.VecVirtual) reg.VecVirtual) {
	TEXT(name+g.name, NOSPLIT, "func(dst, a, b *float32, n, stepA, stepB int)")
	dst, a, b := Load(Param("dst"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64())
	n := Load(Param("n"), GP64()).(reg.GPVirtual)
	stepA, stepB := Load(Param("stepA"), GP64()), Load(Param("stepB"), GP64())
	g.keep()
	g.loop(n, func(masked bool) {
		// What is repeated is a whole vector, so that masks do not matter to it.
		x, y := g.load(Mem{Base: a}, masked), g.load(Mem{Base: b}, masked)
		g.store(f(x, y), Mem{Base: dst}, masked)
		ADDQ(stepA, a)
		ADDQ(stepB, b)
		ADDQ(U8(g.bytes()), dst)
	})
}

// unary is a function of one element with parameters.
func (g *machine) unary(name string, params int, constants []float32, f func(v reg.VecVirtual, p []reg.VecVirtual) reg.VecVirtual) {
	TEXT(name+g.name, NOSPLIT, "func(dst, src, p *float32, n int)")
	dst, src, p := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("p"), GP64())
	n := Load(Param("n"), GP64()).(reg.GPVirtual)
	given := make([]reg.VecVirtual, params)
	for i := range given {
		given[i] = g.reg()
		VBROADCASTSS(Mem{Base: p, Disp: 4 * i}, given[i])
	}
	g.keep(constants...)
	g.loop(n, func(masked bool) {
		g.store(f(g.load(Mem{Base: src}, masked), given), Mem{Base: dst}, masked)
		ADDQ(U8(g.bytes()), src)
		ADDQ(U8(g.bytes()), dst)
	})
}

const (
	highest, lowest = 89, -105
	log2e           = 1.4426950408889634
	magic           = 1.5 * (1 << 23)
	ln2High, ln2Low = float32(0.693147182464599609375), float32(-1.90465429995776e-9)
)

var expConstants = []float32{highest, lowest, log2e, magic, ln2High, ln2Low, 1, 0.0013950489228591323, 0.008368889801204205, 0.04166620597243309, 0.166665181517601, 0.5}

// exp is 2^n times a polynomial of what is left.
func (g *machine) exp(v reg.VecVirtual) reg.VecVirtual {
	x, n, r := g.reg(), g.reg(), g.reg()
	VMINPS(v, g.c(highest), x) // the second operand where one is NaN
	VMAXPS(x, g.c(lowest), x)
	m := g.c(magic)
	VMOVAPS(m, n)
	VFMADD231PS(g.c(log2e), x, n)
	VSUBPS(m, n, n)
	VMOVAPS(x, r)
	VFNMADD231PS(g.c(ln2High), n, r)
	VFNMADD231PS(g.c(ln2Low), n, r)
	y := g.horner(r, expConstants[7], expConstants[8], expConstants[9], expConstants[10], 0.5, 1, 1)
	if g.wide {
		VSCALEFPS(n, y, y)
		return y
	}
	// In two steps, so that each factor is a number and only the last one rounds.
	whole, half, bias := g.reg(), g.reg(), g.bits(127)
	VCVTPS2DQ(n, whole)
	VPSRAD(U8(1), whole, half)
	VPSUBD(half, whole, whole)
	VPADDD(bias, half, half)
	VPADDD(bias, whole, whole)
	VPSLLD(U8(23), half, half)
	VPSLLD(U8(23), whole, whole)
	VMULPS(half, y, y)
	VMULPS(whole, y, y)
	return y
}

func (g *machine) negative(v reg.VecVirtual) reg.VecVirtual {
	r := g.reg()
	VXORPS(g.bits(1<<31), v, r)
	return r
}

func (g *machine) sigmoid(v reg.VecVirtual) reg.VecVirtual {
	e := g.exp(g.negative(v))
	one := g.c(1)
	VADDPS(one, e, e)
	VDIVPS(e, one, e)
	return e
}

// signed gives magnitude the sign of v.
func (g *machine) signed(magnitude, v reg.VecVirtual) reg.VecVirtual {
	s := g.reg()
	VANDPS(g.bits(1<<31), v, s)
	VORPS(magnitude, s, s)
	return s
}

func (g *machine) absolute(v reg.VecVirtual) reg.VecVirtual {
	a := g.reg()
	VANDPS(g.bits(1<<31-1), v, a)
	return a
}

// tanh is a polynomial near 0, elsewhere 1 - 2/(exp(2v)+1).
func (g *machine) tanh(v reg.VecVirtual) reg.VecVirtual {
	a, twice, z, small := g.absolute(v), g.reg(), g.reg(), g.reg()
	VADDPS(a, a, twice)
	big := g.exp(twice)
	VADDPS(g.c(1), big, big)
	VDIVPS(big, g.c(2), big)
	VSUBPS(big, g.c(1), big)
	VMULPS(v, v, z)
	p := g.horner(z, -0.005528637208044529, 0.020483320578932762, -0.05369297042489052, 0.1333089917898178, -0.3333326280117035)
	VMULPS(z, p, p)
	VMOVAPS(v, small)
	VFMADD231PS(v, p, small)
	return g.pick(less, a, g.c(0.625), small, g.signed(big, v))
}

// erf is a polynomial near 0, elsewhere 1 - exp of one.
func (g *machine) erf(v reg.VecVirtual) reg.VecVirtual {
	a, t, z, small := g.absolute(v), g.reg(), g.reg(), g.reg()
	VMINPS(a, g.c(4), t)
	big := g.exp(g.horner(t, -2.1161906261113472e-05, 0.000435218884376809, -0.004174643196165562, 0.025128625333309174,
		-0.10829394310712814, -0.6333346366882324, -1.1295207738876343, 0.0001758745638653636))
	VSUBPS(big, g.c(1), big)
	VMULPS(v, v, z)
	p := g.horner(z, -0.0005977034452371299, 0.004991013556718826, -0.026765596121549606, 0.11281803995370865, -0.37612494826316833, 0.12837915122509003)
	VMOVAPS(v, small)
	VFMADD231PS(v, p, small)
	return g.pick(less, a, g.c(0.92), small, g.signed(big, v))
}

// softplus is what is above 0 and log(1+u) of u = exp(-|v|): twice the area of u/(u+2).
func (g *machine) softplus(v reg.VecVirtual) reg.VecVirtual {
	u, z, top := g.exp(g.negative(g.absolute(v))), g.reg(), g.reg()
	VADDPS(g.c(2), u, z)
	VDIVPS(z, u, u)
	VMULPS(u, u, z)
	p := g.horner(z, 2.0/15, 2.0/13, 2.0/11, 2.0/9, 2.0/7, 2.0/5, 2.0/3, 2)
	VMAXPS(v, g.c(0), top) // v where it is NaN
	VFMADD213PS(top, u, p)
	return p
}

// elu is a (exp(b v) - 1) below 0, a polynomial near it, and s v elsewhere.
func (g *machine) elu(v, a, b, s reg.VecVirtual) reg.VecVirtual {
	t, square, small, above := g.reg(), g.reg(), g.reg(), g.reg()
	VMULPS(b, v, t)
	big := g.exp(t)
	VSUBPS(g.c(1), big, big)
	VMULPS(t, t, square)
	p := g.horner(t, 1.0/40320, 1.0/5040, 1.0/720, 1.0/120, 1.0/24, 1.0/6, 0.5)
	VMOVAPS(t, small)
	VFMADD231PS(square, p, small)
	below := g.pick(less, g.absolute(t), g.c(0.5), small, big)
	VMULPS(a, below, below)
	VMULPS(s, v, above)
	return g.pick(less, v, g.c(0), below, above)
}

// mish is v times tanh of softplus: w/(w+2) of w = e(e+2), e = exp(v), is 1 from 20 on.
func (g *machine) mish(v reg.VecVirtual) reg.VecVirtual {
	x, w := g.reg(), g.reg()
	VMINPS(v, g.c(20), x) // v where it is NaN
	e := g.exp(x)
	VADDPS(g.c(2), e, w)
	VMULPS(e, w, w)
	VADDPS(g.c(2), w, e)
	VDIVPS(e, w, w)
	VMULPS(v, w, w)
	return w
}

// log is e log(2) plus what a polynomial gives of m - 1, where the argument is 2^e m and m
// is around 1 (Cephes, logf).
func (g *machine) log(v reg.VecVirtual) reg.VecVirtual {
	const leastNormal, half = 0x1p-126, 0x3f3504f3 // the bits of sqrt(1/2)
	up, t, e, s, m, z := g.reg(), g.reg(), g.reg(), g.reg(), g.reg(), g.reg()
	VMULPS(g.c(1<<23), v, up)
	x := g.pick(less, v, g.c(leastNormal), up, v)
	shift := g.pick(less, v, g.c(leastNormal), g.c(-23), g.c(0))
	VPSUBD(g.bits(half), x, t)
	VPSRAD(U8(23), t, e)
	VPSLLD(U8(23), e, s)
	VPSUBD(s, x, m)
	VCVTDQ2PS(e, e)
	VADDPS(shift, e, e)
	VSUBPS(g.c(1), m, m)
	VMULPS(m, m, z)
	p := g.horner(m, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)
	VMULPS(m, p, p)
	VMULPS(z, p, p)
	VFMADD231PS(g.c(-2.12194440e-4), e, p)
	VFMADD231PS(g.c(-0.5), z, p)
	VADDPS(m, p, p)
	VFMADD231PS(g.c(0.693359375), e, p)
	inf := g.c(float32(math.Inf(1)))
	p = g.pick(notLess, v, inf, v, p)
	p = g.pick(less, v, g.c(0), g.bits(0x7fc00000), p)
	return g.pick(equal, v, g.c(0), g.c(float32(math.Inf(-1))), p)
}

// circular is the sine or the cosine of what is at most 2^16: a polynomial of what is left
// of a multiple of pi/2, of which three parts are taken away: the first is exact (Cephes, sinf).
func (g *machine) circular(v reg.VecVirtual, cosine bool) reg.VecVirtual {
	m := g.c(magic)
	n, q, r, z := g.reg(), g.reg(), g.reg(), g.reg()
	VMOVAPS(m, n)
	VFMADD231PS(g.c(2/math.Pi), v, n)
	VMOVAPS(n, q) // its lowest bits are the multiple's
	VSUBPS(m, n, n)
	VMOVAPS(v, r)
	VFNMADD231PS(g.c(1.5707963705062866), n, r)
	VFNMADD231PS(g.c(-4.371138828673793e-08), n, r)
	VFNMADD231PS(g.c(-1.7151245100058819e-15), n, r)
	VMULPS(r, r, z)
	s := g.horner(z, -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
	VMULPS(z, s, s)
	VFMADD213PS(r, r, s)
	c := g.horner(z, 2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
	rest := g.reg()
	VMOVAPS(g.c(1), rest)
	VFNMADD231PS(g.c(0.5), z, rest)
	VMULPS(z, c, c)
	VFMADD213PS(rest, z, c)
	if cosine {
		VPADDD(g.bits(1), q, q)
	}
	odd, sign := g.reg(), g.reg()
	VPSLLD(U8(31), q, odd)
	VPSRAD(U8(31), odd, odd)
	VPSLLD(U8(30), q, sign)
	VANDPS(g.bits(1<<31), sign, sign)
	VANDPS(c, odd, c)
	VANDNPS(s, odd, s)
	VORPS(s, c, c)
	VXORPS(sign, c, c)
	return c
}

// rounded is a whole number, next to v in a direction.
func (g *machine) rounded(v reg.VecVirtual, direction uint8) reg.VecVirtual {
	r := g.reg()
	if g.wide {
		VRNDSCALEPS(U8(direction), v, r)
	} else {
		VROUNDPS(U8(direction), v, r)
	}
	return r
}

func (g *machine) bound(v, low, high reg.VecVirtual) reg.VecVirtual {
	r := g.reg()
	VMAXPS(v, low, r) // v where it is NaN
	VMINPS(r, high, r)
	return r
}

func (g *machine) affine(v, scale, shift reg.VecVirtual) reg.VecVirtual {
	r := g.reg()
	VMOVAPS(v, r)
	VFMADD213PS(shift, scale, r)
	return r
}

func (g *machine) larger(a, b reg.VecVirtual, largest bool) reg.VecVirtual {
	x, y, nan := g.reg(), g.reg(), g.reg()
	if largest { // of zeros the positive one
		VMAXPS(a, b, x)
		VMAXPS(b, a, y)
		VANDPS(x, y, x)
	} else {
		VMINPS(a, b, x)
		VMINPS(b, a, y)
		VORPS(x, y, x)
	}
	VADDPS(a, b, nan)
	return g.pick(unordered, a, b, nan, x)
}

func (g *machine) all() {
	simple := func(f func(...Op)) func(a, b reg.VecVirtual) reg.VecVirtual {
		return func(a, b reg.VecVirtual) reg.VecVirtual {
			f(b, a, a)
			return a
		}
	}
	g.binary("add", simple(VADDPS))
	g.binary("sub", simple(VSUBPS))
	g.binary("mul", simple(VMULPS))
	g.binary("div", simple(VDIVPS))
	g.binary("max", func(a, b reg.VecVirtual) reg.VecVirtual { return g.larger(a, b, true) })
	g.binary("min", func(a, b reg.VecVirtual) reg.VecVirtual { return g.larger(a, b, false) })
	g.binary("prelu", func(a, b reg.VecVirtual) reg.VecVirtual {
		VMULPS(b, a, b)
		zero := g.reg()
		VXORPS(zero, zero, zero)
		return g.pick(less, a, zero, b, a)
	})
	type vec = reg.VecVirtual
	g.unary("relu", 0, []float32{0}, func(v vec, _ []vec) vec {
		VMAXPS(v, g.c(0), v)
		return v
	})
	g.unary("clip", 2, nil, func(v vec, p []vec) vec { return g.bound(v, p[0], p[1]) })
	g.unary("affine", 2, nil, func(v vec, p []vec) vec { return g.affine(v, p[0], p[1]) })
	g.unary("affineClip", 4, nil, func(v vec, p []vec) vec { return g.bound(g.affine(v, p[0], p[1]), p[2], p[3]) })
	g.unary("gate", 5, nil, func(v vec, p []vec) vec {
		r := g.bound(g.affine(v, p[0], p[1]), p[2], p[3])
		VMULPS(p[4], r, r)
		VMULPS(v, r, r)
		return r
	})
	g.unary("snap", 3, []float32{3 << 22}, func(v vec, p []vec) vec {
		r := g.reg()
		VDIVPS(p[0], v, r)
		r = g.bound(r, p[1], p[2])
		VADDPS(g.c(3<<22), r, r) // rounds to the nearest integer, ties to even
		VSUBPS(g.c(3<<22), r, r)
		VMULPS(p[0], r, r)
		return r
	})
	g.unary("exp", 1, expConstants, func(v vec, p []vec) vec {
		VSUBPS(p[0], v, v)
		return g.exp(v)
	})
	g.unary("sigmoid", 0, expConstants, func(v vec, _ []vec) vec { return g.sigmoid(v) })
	g.unary("silu", 0, expConstants, func(v vec, _ []vec) vec {
		s := g.sigmoid(v)
		VMULPS(v, s, s)
		return s
	})
	g.unary("tanh", 0, expConstants, func(v vec, _ []vec) vec { return g.tanh(v) })
	g.unary("erf", 0, expConstants, func(v vec, _ []vec) vec { return g.erf(v) })
	g.unary("gelu", 0, expConstants, func(v vec, _ []vec) vec {
		s := g.reg()
		VMULPS(g.c(math.Sqrt2/2), v, s)
		e := g.erf(s)
		h := g.reg()
		VMULPS(g.c(0.5), v, h)
		VFMADD213PS(h, h, e) // h e + h
		return e
	})
	g.unary("cubicGate", 2, expConstants, func(v vec, p []vec) vec {
		u := g.reg()
		VMULPS(v, v, u)
		VFMADD213PS(p[0], p[1], u)
		VMULPS(v, u, u)
		u = g.sigmoid(u)
		VMULPS(v, u, u)
		return u
	})
	g.unary("leaky", 1, []float32{0}, func(v vec, p []vec) vec {
		r := g.reg()
		VMULPS(p[0], v, r)
		return g.pick(less, v, g.c(0), r, v)
	})
	g.unary("softplus", 0, expConstants, func(v vec, _ []vec) vec { return g.softplus(v) })
	g.unary("elu", 3, expConstants, func(v vec, p []vec) vec { return g.elu(v, p[0], p[1], p[2]) })
	g.unary("mish", 0, expConstants, func(v vec, _ []vec) vec { return g.mish(v) })
	g.unary("absolute", 0, nil, func(v vec, _ []vec) vec { return g.absolute(v) })
	g.unary("sqrt", 0, nil, func(v vec, _ []vec) vec {
		VSQRTPS(v, v)
		return v
	})
	g.unary("reciprocal", 0, []float32{1}, func(v vec, _ []vec) vec {
		VDIVPS(v, g.c(1), v)
		return v
	})
	g.unary("floor", 0, nil, func(v vec, _ []vec) vec { return g.rounded(v, downward) })
	g.unary("ceil", 0, nil, func(v vec, _ []vec) vec { return g.rounded(v, upward) })
	g.unary("round", 0, nil, func(v vec, _ []vec) vec { return g.rounded(v, toEven) })
	g.unary("sign", 0, []float32{0, 1}, func(v vec, _ []vec) vec {
		return g.pick(less, g.c(0), g.absolute(v), g.signed(g.c(1), v), v)
	})
	g.unary("logarithm", 0, []float32{1, 0, 1 << 23, 0x1p-126, -23}, func(v vec, _ []vec) vec { return g.log(v) })
	g.unary("sine", 0, []float32{magic, 2 / math.Pi}, func(v vec, _ []vec) vec { return g.circular(v, false) })
	g.unary("cosine", 0, []float32{magic, 2 / math.Pi}, func(v vec, _ []vec) vec { return g.circular(v, true) })
	g.unary("softsign", 0, []float32{1}, func(v vec, _ []vec) vec {
		a := g.absolute(v)
		VADDPS(g.c(1), a, a)
		VDIVPS(a, v, a)
		return a
	})
	g.unary("above", 1, []float32{0}, func(v vec, p []vec) vec { return g.pick(less, p[0], v, v, g.c(0)) })
	g.norm()
	g.lstm()
	g.gru()
	g.taps("tapsSum", func(acc, v, w vec) { VFMADD231PS(v, w, acc) }, true)
	g.taps("tapsMax", func(acc, v, _ vec) {
		r := g.pick(unordered, v, v, v, acc)
		x := g.reg()
		VMAXPS(r, v, x) // r where one is NaN
		VMOVAPS(x, acc)
	}, false)
	g.blend()
	g.sums()
	g.halves()
	g.columns()
	g.normRows()
	g.fewColumns()
}

// blend is, for each element, the sum of a few of src by weights of its own: tap after
// tap, the weights and places of all n elements.
func (g *machine) blend() {
	TEXT("blend"+g.name, NOSPLIT, "func(dst, src, weights *float32, places *int32, taps, n int)")
	dst, src, weights, places := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("weights"), GP64()), Load(Param("places"), GP64())
	taps, n := Load(Param("taps"), GP64()), Load(Param("n"), GP64()).(reg.GPVirtual)
	pitch, at, t := GP64(), GP64(), GP64()
	MOVQ(n, pitch)
	SHLQ(U8(2), pitch)
	g.loop(n, func(masked bool) {
		label := "taps"
		if masked {
			label = "restTaps"
		}
		acc := g.reg()
		VXORPS(acc, acc, acc)
		XORQ(at, at)
		MOVQ(taps, t)
		Label(label)
		w := g.load(Mem{Base: weights, Index: at, Scale: 1}, masked)
		index := g.load(Mem{Base: places, Index: at, Scale: 1}, masked) // 0 where it is masked
		v := g.reg()
		VXORPS(v, v, v)
		all := Mem{Base: src, Index: index, Scale: 4}
		if g.wide {
			k := K()
			if masked {
				KMOVW(g.k, k)
			} else {
				KXNORW(k, k, k)
			}
			VGATHERDPS(all, k, v)
		} else {
			m := g.reg()
			if masked {
				VMOVAPS(g.m, m)
			} else {
				VPCMPEQD(m, m, m)
			}
			VGATHERDPS(m, all, v)
		}
		VFMADD231PS(v, w, acc)
		ADDQ(pitch, at)
		DECQ(t)
		JNZ(LabelRef(label))
		g.store(acc, Mem{Base: dst}, masked)
		for _, r := range []reg.Register{dst, weights, places} {
			ADDQ(U8(g.bytes()), r)
		}
	})
}

// columns adds a row to sums of columns in float64, or its squared distances from means.
func (g *machine) columns() {
	half := func() reg.VecVirtual {
		if g.wide {
			return YMM()
		}
		return XMM()
	}
	for _, squares := range []bool{false, true} {
		name := "columns"
		if squares {
			name = "columnSquares"
		}
		TEXT(name+g.name, NOSPLIT, "func(to *float64, src *float32, mean *float64, n int)")
		to, src, mean, n := Load(Param("to"), GP64()), Load(Param("src"), GP64()), Load(Param("mean"), GP64()), Load(Param("n"), GP64())
		Label("loop")
		h, v := half(), g.reg()
		VMOVUPS(Mem{Base: src}, h)
		VCVTPS2PD(h, v)
		if squares {
			acc := g.reg()
			VSUBPD(Mem{Base: mean}, v, v)
			VMOVUPD(Mem{Base: to}, acc)
			VFMADD231PD(v, v, acc)
			v = acc
			ADDQ(U8(g.bytes()), mean)
		} else {
			VADDPD(Mem{Base: to}, v, v)
		}
		VMOVUPD(v, Mem{Base: to})
		ADDQ(U8(g.bytes()/2), src)
		ADDQ(U8(g.bytes()), to)
		SUBQ(U8(g.lanes()/2), n)
		JNZ(LabelRef("loop"))
		VZEROUPPER()
		RET()
	}
}

// norm is (v - mean) inv scale + bias.
func (g *machine) norm() {
	TEXT("norm"+g.name, NOSPLIT, "func(dst, src, scale, bias, p *float32, n int)")
	dst, src, scale, bias := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("scale"), GP64()), Load(Param("bias"), GP64())
	p, n := Load(Param("p"), GP64()), Load(Param("n"), GP64()).(reg.GPVirtual)
	mean, inv := g.reg(), g.reg()
	VBROADCASTSS(Mem{Base: p}, mean)
	VBROADCASTSS(Mem{Base: p, Disp: 4}, inv)
	g.loop(n, func(masked bool) {
		v, s, b := g.load(Mem{Base: src}, masked), g.load(Mem{Base: scale}, masked), g.load(Mem{Base: bias}, masked)
		VSUBPS(mean, v, v)
		VMULPS(inv, v, v)
		VFMADD213PS(b, s, v)
		g.store(v, Mem{Base: dst}, masked)
		for _, r := range []reg.Register{dst, src, scale, bias} {
			ADDQ(U8(g.bytes()), r)
		}
	})
}

// lstm is a step of n cells, whose gates lie n apart: input, output, forget, candidate.
func (g *machine) lstm() {
	TEXT("lstm"+g.name, NOSPLIT, "func(gates, c, h *float32, n int)")
	in, c, h := Load(Param("gates"), GP64()), Load(Param("c"), GP64()), Load(Param("h"), GP64())
	n := Load(Param("n"), GP64()).(reg.GPVirtual)
	out, forget, candidate := GP64(), GP64(), GP64()
	LEAQ(Mem{Base: in, Index: n, Scale: 4}, out)
	LEAQ(Mem{Base: in, Index: n, Scale: 8}, forget)
	LEAQ(Mem{Base: out, Index: n, Scale: 8}, candidate)
	g.keep(expConstants...)
	g.loop(n, func(masked bool) {
		added := g.sigmoid(g.load(Mem{Base: in}, masked))
		VMULPS(g.tanh(g.load(Mem{Base: candidate}, masked)), added, added)
		state := g.sigmoid(g.load(Mem{Base: forget}, masked))
		VMULPS(g.load(Mem{Base: c}, masked), state, state)
		VADDPS(added, state, state)
		g.store(state, Mem{Base: c}, masked)
		shown := g.tanh(state)
		VMULPS(g.sigmoid(g.load(Mem{Base: out}, masked)), shown, shown)
		g.store(shown, Mem{Base: h}, masked)
		for _, r := range []reg.Register{in, out, forget, candidate, c, h} {
			ADDQ(U8(g.bytes()), r)
		}
	})
}

// gru is what n cells of a GRU do once its gates are summed, n apart: update, reset,
// candidate without what the state adds, which is inner.
func (g *machine) gru() {
	TEXT("gru"+g.name, NOSPLIT, "func(gates, inner, h *float32, n int)")
	update, inner, h := Load(Param("gates"), GP64()), Load(Param("inner"), GP64()), Load(Param("h"), GP64())
	n := Load(Param("n"), GP64()).(reg.GPVirtual)
	reset, candidate := GP64(), GP64()
	LEAQ(Mem{Base: update, Index: n, Scale: 4}, reset)
	LEAQ(Mem{Base: update, Index: n, Scale: 8}, candidate)
	g.keep(expConstants...)
	g.loop(n, func(masked bool) {
		r := g.sigmoid(g.load(Mem{Base: reset}, masked))
		VFMADD213PS(g.load(Mem{Base: candidate}, masked), g.load(Mem{Base: inner}, masked), r)
		y := g.tanh(r)
		z := g.sigmoid(g.load(Mem{Base: update}, masked))
		was := g.load(Mem{Base: h}, masked)
		VSUBPS(y, was, was)
		VFMADD213PS(y, z, was) // y + z (h - y)
		g.store(was, Mem{Base: h}, masked)
		for _, r := range []reg.Register{update, reset, candidate, inner, h} {
			ADDQ(U8(g.bytes()), r)
		}
	})
}

// taps is, for each element, the start joined with elements at offsets from it.
func (g *machine) taps(name string, join func(acc, v, w reg.VecVirtual), weighted bool) {
	TEXT(name+g.name, NOSPLIT, "func(dst, src, weights *float32, offsets *int, taps, n int, start *float32)")
	dst, src, weights, offsets := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("weights"), GP64()), Load(Param("offsets"), GP64())
	count, n := Load(Param("taps"), GP64()), Load(Param("n"), GP64()).(reg.GPVirtual)
	start, first := Load(Param("start"), GP64()), g.reg()
	VBROADCASTSS(Mem{Base: start}, first)
	t, at := GP64(), GP64()
	block := func(vectors int, label string, masked bool) {
		acc := make([]reg.VecVirtual, vectors)
		for i := range acc {
			acc[i] = g.reg()
			VMOVAPS(first, acc[i])
		}
		XORQ(t, t)
		Label(label)
		MOVQ(Mem{Base: offsets, Index: t, Scale: 8}, at)
		w := g.reg()
		if weighted {
			VBROADCASTSS(Mem{Base: weights, Index: t, Scale: 4}, w)
		}
		for i := range acc {
			join(acc[i], g.load(Mem{Base: src, Index: at, Scale: 4, Disp: i * g.bytes()}, masked), w)
		}
		INCQ(t)
		CMPQ(t, count)
		JLT(LabelRef(label))
		for i := range acc {
			g.store(acc[i], Mem{Base: dst, Disp: i * g.bytes()}, masked)
		}
	}
	const wide = 4
	Label("many")
	CMPQ(n, U8(wide*g.lanes()))
	JLT(LabelRef("loop"))
	block(wide, "manyTaps", false)
	ADDQ(U32(wide*g.bytes()), src)
	ADDQ(U32(wide*g.bytes()), dst)
	SUBQ(U8(wide*g.lanes()), n)
	JMP(LabelRef("many"))
	g.loop(n, func(masked bool) {
		label := "taps"
		if masked {
			label = "restTaps"
		}
		block(1, label, masked)
		ADDQ(U8(g.bytes()), src)
		ADDQ(U8(g.bytes()), dst)
	})
}

// sums are of whole vectors, in float64, and the largest of them.
func (g *machine) sums() {
	half := func() reg.VecVirtual {
		if g.wide {
			return YMM()
		}
		return XMM()
	}
	for _, squares := range []bool{false, true} {
		name, mean := "sum", g.reg()
		if squares {
			name = "squares"
		}
		TEXT(name+g.name, NOSPLIT, "func(src *float32, n int, mean float64, to *float64)")
		src, n, to := Load(Param("src"), GP64()), Load(Param("n"), GP64()), Load(Param("to"), GP64())
		m, acc := XMM(), []reg.VecVirtual{g.reg(), g.reg()}
		Load(Param("mean"), m)
		VBROADCASTSD(m, mean)
		for _, a := range acc {
			VPXOR(a.AsX(), a.AsX(), a.AsX())
		}
		Label("loop")
		for i, a := range acc {
			h, v := half(), g.reg()
			VMOVUPS(Mem{Base: src, Disp: i * g.bytes() / 2}, h)
			VCVTPS2PD(h, v)
			if squares {
				VSUBPD(mean, v, v)
				VFMADD231PD(v, v, a)
			} else {
				VADDPD(v, a, a)
			}
		}
		ADDQ(U8(g.bytes()), src)
		SUBQ(U8(g.lanes()), n)
		JNZ(LabelRef("loop"))
		VADDPD(acc[1], acc[0], acc[0])
		VMOVUPD(acc[0], Mem{Base: to})
		VZEROUPPER()
		RET()
	}
	TEXT("largest"+g.name, NOSPLIT, "func(src *float32, n int, to *float32)")
	src, n, to := Load(Param("src"), GP64()), Load(Param("n"), GP64()).(reg.GPVirtual), Load(Param("to"), GP64())
	none, acc := g.bits(math.Float32bits(float32(math.Inf(-1)))), g.reg()
	VMOVAPS(none, acc)
	g.each(n, func(masked bool) {
		v := g.reg()
		switch {
		case !masked:
			VMOVUPS(Mem{Base: src}, v)
		case g.wide:
			VMOVAPS(none, v)
			VMOVUPS(Mem{Base: src}, g.k, v)
		default:
			VBLENDVPS(g.m, g.load(Mem{Base: src}, true), none, v)
		}
		VMAXPS(acc, v, acc) // acc where v is NaN
		ADDQ(U8(g.bytes()), src)
	})
	lower, x, turned := YMM(), XMM(), XMM()
	if g.wide {
		VEXTRACTF32X8(U8(1), acc, lower)
		VMAXPS(acc.AsY(), lower, lower)
	} else {
		VMOVAPS(acc.AsY(), lower)
	}
	VEXTRACTF128(U8(1), lower, x)
	VMAXPS(lower.AsX(), x, x)
	for _, order := range []int{0x4E, 0xB1} {
		VPSHUFD(U8(order), x, turned)
		VMAXPS(turned, x, x)
	}
	VMOVSS(x, Mem{Base: to})
	VZEROUPPER()
	RET()
}

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!noasm")
	ConstraintExpr("!purego")
	(&machine{wide: true, name: "512"}).all()
	(&machine{name: "256"}).all()
	GLOBL(tableName, attr.RODATA|attr.NOPTR)
	for i, b := range order {
		DATA(4*i, U32(b))
	}
	GLOBL("masks", attr.RODATA|attr.NOPTR)
	for i := range 16 {
		v := U32(0)
		if i < 8 {
			v = math.MaxUint32
		}
		DATA(4*i, v)
	}
	Generate()
}
