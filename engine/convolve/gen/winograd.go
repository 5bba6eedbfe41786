package main

import (
	"math"
	"slices"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The offsets of square's fields.
const (
	squareSrc      = 0
	squareSrcPixel = 8
	squareSrcLine  = 16
	squareDst      = 24
	squareDstPixel = 32
	squareDstLine  = 40
	squareBias     = 48
	squareAdd      = 56
	squareChannels = 64
	squareScratch  = 72
	squareLow      = 80
	squareHigh     = 84
)

// near and far are the points, beside 0 and infinity, that the transformations stand for,
// each of either sign. The error grows with the powers of points and with the inverses of
// their differences: among the pairs of sixteenths this is one of the best. As all products
// below are of few bits, they are exact.
const near, far = 11.0 / 16, 24.0 / 16

// constants are those of the transformations of elements and windows.
const constants = "factors"

var factors = []float32{near, far, near * near, far * far, near * near * near, far * far * far, near*near + far*far, near * near * far * far}

// factorBytes is that of one, in all lanes.
const factorBytes = 64

// factor is one of the constants: a register, or where there are few, memory.
func (g *machine) factor(v float32) Op {
	m := NewDataAddr(Symbol{Name: constants, Static: true}, factorBytes*slices.Index(factors, v))
	if !g.wide {
		return m
	}
	r := g.reg()
	VMOVUPS(m, r)
	return r
}

func factorTable() {
	GLOBL(constants, attr.RODATA|attr.NOPTR)
	for i, f := range factors {
		for lane := range factorBytes / 4 {
			DATA(factorBytes*i+4*lane, U32(math.Float32bits(f)))
		}
	}
	GLOBL(weightConstants, attr.RODATA|attr.NOPTR)
	for i, f := range weightFactors {
		DATA(8*i, U64(math.Float64bits(f)))
	}
}

// squareFrame is what the transformations share.
type squareFrame struct {
	*machine
	args, scratch, done reg.GPVirtual
}

func (g *machine) square(name string) *squareFrame {
	TEXT(name+g.name, NOSPLIT, "func(s *byte)")
	f := &squareFrame{machine: g, args: GP64(), done: GP64()}
	Load(Param("s"), f.args)
	f.scratch = f.field(squareScratch)
	XORQ(f.done, f.done) // bytes of the channels that are done
	Label("channels")
	return f
}

func (f *squareFrame) field(off int) reg.GPVirtual {
	r := GP64()
	MOVQ(Mem{Base: f.args, Disp: off}, r)
	return r
}

// from is a pointer that the channels have moved.
func (f *squareFrame) from(off int) reg.GPVirtual {
	p := f.field(off)
	ADDQ(f.done, p)
	return p
}

// end goes on with the channels behind those of so many bytes.
func (f *squareFrame) end(bytes int) {
	ADDQ(U8(bytes), f.done)
	SUBQ(U8(bytes/4), Mem{Base: f.args, Disp: squareChannels})
	JGT(LabelRef("channels"))
	VZEROUPPER()
	RET()
}

func (f *squareFrame) load(m Mem) reg.VecVirtual {
	r := f.reg()
	VMOVUPS(m, r)
	return r
}

func (f *squareFrame) copyOf(v reg.VecVirtual) reg.VecVirtual {
	r := f.reg()
	VMOVAPS(v, r)
	return r
}

// place is element (i, j) of six columns of scratch memory.
func (f *squareFrame) place(i, j int) Mem {
	return Mem{Base: f.scratch, Disp: (6*i + j) * f.bytes()}
}

// enter transforms squares of 6 x 6 elements: along one dimension from the image to
// scratch memory, along the other from there to 36 planes, dstPixel apart.
func (g *machine) enter() {
	f := g.square("enter")
	a, b, a2, b2 := g.factor(near), g.factor(far), g.factor(near*near), g.factor(far*far)
	sum, product := g.factor(near*near+far*far), g.factor(near*near*far*far)
	// ends is what belongs to 0 and to infinity, pair what does to two points.
	ends := func(low, middle, high reg.VecVirtual) {
		VFNMADD231PS(sum, middle, high)
		VFMADD231PS(product, low, high)
	}
	pair := func(d []reg.VecVirtual, point, other Op, put func(i int, v reg.VecVirtual), i int) {
		even, odd := f.copyOf(d[4]), f.copyOf(d[3])
		VFNMADD231PS(other, d[2], even)
		VFNMADD231PS(other, d[1], odd)
		t := f.copyOf(even)
		VFMADD231PS(point, odd, t)
		put(i, t)
		VFNMADD231PS(point, odd, even)
		put(i+1, even)
	}
	transform := func(d []reg.VecVirtual, put func(i int, v reg.VecVirtual)) {
		t := f.copyOf(d[4])
		ends(d[0], d[2], t)
		put(0, t)
		pair(d, a, b2, put, 1)
		pair(d, b, a2, put, 3)
		ends(d[1], d[3], d[5])
		put(5, d[5])
	}
	src, line, line3, line5 := f.from(squareSrc), f.field(squareSrcLine), GP64(), GP64()
	LEAQ(Mem{Base: line, Index: line, Scale: 2}, line3)
	LEAQ(Mem{Base: line, Index: line, Scale: 4}, line5)
	pixel := f.field(squareSrcPixel)
	for j := range 6 {
		at := []Mem{
			{Base: src}, {Base: src, Index: line, Scale: 1}, {Base: src, Index: line, Scale: 2}, {Base: src, Index: line3, Scale: 1},
			{Base: src, Index: line, Scale: 4}, {Base: src, Index: line5, Scale: 1},
		}
		var d []reg.VecVirtual
		for _, m := range at {
			d = append(d, f.load(m))
		}
		transform(d, func(i int, v reg.VecVirtual) { VMOVUPS(v, f.place(i, j)) })
		ADDQ(pixel, src)
	}
	dst, plane := f.from(squareDst), f.field(squareDstPixel)
	for i := range 6 {
		var d []reg.VecVirtual
		for j := range 6 {
			d = append(d, f.load(f.place(i, j)))
		}
		transform(d, func(_ int, v reg.VecVirtual) {
			VMOVUPS(v, Mem{Base: dst})
			ADDQ(plane, dst)
		})
	}
	f.end(g.bytes())
}

// leave transforms 36 planes' elements, srcPixel apart, to squares of 4 x 4, to which
// it adds the bias, and what is to be added where there is something.
func (g *machine) leave() {
	f := g.square("leave")
	powers := [3][2]Op{
		{g.factor(near), g.factor(far)}, {g.factor(near * near), g.factor(far * far)}, {g.factor(near * near * near), g.factor(far * far * far)},
	}
	transform := func(m []reg.VecVirtual, put func(i int, v reg.VecVirtual)) {
		s, u := f.reg(), f.reg()
		VADDPS(m[2], m[1], s)
		VSUBPS(m[2], m[1], m[1])
		VADDPS(m[4], m[3], u)
		VSUBPS(m[4], m[3], m[3])
		VADDPS(s, m[0], m[0])
		VADDPS(u, m[0], m[0])
		put(0, m[0])
		t := f.reg()
		VMULPS(powers[0][0], m[1], t)
		VFMADD231PS(powers[0][1], m[3], t)
		put(1, t)
		VMULPS(powers[1][0], s, s)
		VFMADD231PS(powers[1][1], u, s)
		put(2, s)
		VFMADD231PS(powers[2][0], m[1], m[5])
		VFMADD231PS(powers[2][1], m[3], m[5])
		put(3, m[5])
	}
	src, plane := f.from(squareSrc), f.field(squareSrcPixel)
	row := GP64() // from one row of planes to the next
	LEAQ(Mem{Base: plane, Index: plane, Scale: 2}, row)
	ADDQ(row, row)
	for j := range 6 {
		at := GP64()
		MOVQ(src, at)
		var m []reg.VecVirtual
		for range 6 {
			m = append(m, f.load(Mem{Base: at}))
			ADDQ(row, at)
		}
		transform(m, func(i int, v reg.VecVirtual) { VMOVUPS(v, f.place(i, j)) })
		if j < 5 {
			ADDQ(plane, src)
		}
	}
	bias := f.load(Mem{Base: f.from(squareBias)})
	low, high := g.reg(), g.reg()
	VBROADCASTSS(Mem{Base: f.args, Disp: squareLow}, low)
	VBROADCASTSS(Mem{Base: f.args, Disp: squareHigh}, high)
	dst, pixel, line := f.from(squareDst), f.field(squareDstPixel), f.field(squareDstLine)
	add := f.field(squareAdd)
	pixel3 := GP64()
	LEAQ(Mem{Base: pixel, Index: pixel, Scale: 2}, pixel3)
	at := func(p reg.GPVirtual, i int) Mem {
		return []Mem{{Base: p}, {Base: p, Index: pixel, Scale: 1}, {Base: p, Index: pixel, Scale: 2}, {Base: p, Index: pixel3, Scale: 1}}[i]
	}
	write := func(adds bool) {
		if adds {
			ADDQ(f.done, add)
		}
		for i := range 4 {
			var m []reg.VecVirtual
			for j := range 6 {
				m = append(m, f.load(f.place(i, j)))
			}
			transform(m, func(k int, v reg.VecVirtual) {
				VADDPS(bias, v, v)
				if adds {
					VADDPS(at(add, k), v, v)
				}
				VMAXPS(v, low, v) // the second operand where one is NaN
				VMINPS(v, high, v)
				VMOVUPS(v, at(dst, k))
			})
			if i < 3 {
				ADDQ(line, dst)
				if adds {
					ADDQ(line, add)
				}
			}
		}
	}
	TESTQ(add, add)
	JZ(LabelRef("alone"))
	write(true)
	JMP(LabelRef("next"))
	Label("alone")
	write(false)
	Label("next")
	f.end(g.bytes())
}

// The factors of the transformation of weights, in float64.
const (
	zero      = 1 / (near * near * far * far)
	nearScale = 1 / (2 * near * near * (near*near - far*far))
	farScale  = 1 / (2 * far * far * (far*far - near*near))
)

const weightConstants = "weightFactors"

var weightFactors = []float64{zero, nearScale, near * nearScale, near * near, farScale, far * farScale, far * far}

// weigh transforms nine taps, srcPixel apart, to 36 planes, dstPixel apart, in float64:
// half a vector of channels at a time.
func (g *machine) weigh() {
	f := g.square("weigh")
	var k []reg.VecVirtual
	for i := range weightFactors {
		r := g.reg()
		VBROADCASTSD(NewDataAddr(Symbol{Name: weightConstants, Static: true}, 8*i), r)
		k = append(k, r)
	}
	pair := func(t []reg.VecVirtual, k []reg.VecVirtual, put func(i int, v reg.VecVirtual), i int) {
		even, odd, less := f.copyOf(t[0]), f.reg(), f.reg()
		VFMADD231PD(k[2], t[2], even)
		VMULPD(k[0], even, even)
		VMULPD(k[1], t[1], odd)
		VSUBPD(odd, even, less)
		VADDPD(odd, even, even)
		put(i, even)
		put(i+1, less)
	}
	transform := func(t []reg.VecVirtual, put func(i int, v reg.VecVirtual)) {
		pair(t, k[1:4], put, 1)
		pair(t, k[4:7], put, 3)
		VMULPD(k[0], t[0], t[0])
		put(0, t[0])
		put(5, t[2])
	}
	src, tap := f.from(squareSrc), f.field(squareSrcPixel)
	tap3 := GP64()
	LEAQ(Mem{Base: tap, Index: tap, Scale: 2}, tap3)
	for x := range 3 {
		at, t := GP64(), []reg.VecVirtual(nil)
		MOVQ(src, at)
		for range 3 {
			v := g.reg()
			VCVTPS2PD(Mem{Base: at}, v)
			t = append(t, v)
			ADDQ(tap3, at)
		}
		transform(t, func(i int, v reg.VecVirtual) { VMOVUPD(v, f.place(i, x)) })
		ADDQ(tap, src)
	}
	dst, plane := f.from(squareDst), f.field(squareDstPixel)
	for i := range 6 {
		at := make([]reg.GPVirtual, 6)
		t := []reg.VecVirtual{f.load(f.place(i, 0)), f.load(f.place(i, 1)), f.load(f.place(i, 2))}
		for j := range at {
			at[j] = GP64()
			MOVQ(dst, at[j])
			ADDQ(plane, dst)
		}
		transform(t, func(j int, v reg.VecVirtual) {
			if g.wide {
				h := YMM()
				VCVTPD2PS(v, h)
				VMOVUPS(h, Mem{Base: at[j]})
				return
			}
			h := XMM()
			VCVTPD2PSY(v, h)
			VMOVUPS(h, Mem{Base: at[j]})
		})
	}
	f.end(g.bytes() / 2)
}
