package main

import (
	"math"

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

// constants are those of the transformations.
const constants = "factors"

var factors = []float32{2, 4, 5, 8}

func (g *machine) factor(v float32) reg.VecVirtual {
	r := g.reg()
	for i, f := range factors {
		if f == v {
			VBROADCASTSS(NewDataAddr(Symbol{Name: constants, Static: true}, 4*i), r)
		}
	}
	return r
}

func factorTable() {
	GLOBL(constants, attr.RODATA|attr.NOPTR)
	for i, f := range factors {
		DATA(4*i, U32(math.Float32bits(f)))
	}
}

// squareFrame is what the two transformations share.
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

func (f *squareFrame) end() {
	ADDQ(U8(f.bytes()), f.done)
	SUBQ(U8(f.bytes()/4), Mem{Base: f.args, Disp: squareChannels})
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
	two, four, five := g.factor(2), g.factor(4), g.factor(5)
	transform := func(d []reg.VecVirtual, put func(i int, v reg.VecVirtual)) {
		t := f.copyOf(d[4])
		VFNMADD231PS(five, d[2], t)
		VFMADD231PS(four, d[0], t)
		put(0, t)
		a, b := f.copyOf(d[4]), f.copyOf(d[3])
		VFNMADD231PS(four, d[2], a)
		VFNMADD231PS(four, d[1], b)
		t = f.reg()
		VADDPS(b, a, t)
		put(1, t)
		VSUBPS(b, a, a)
		put(2, a)
		c, e := f.reg(), f.reg()
		VSUBPS(d[2], d[4], c)
		VSUBPS(d[1], d[3], e)
		t = f.copyOf(c)
		VFMADD231PS(two, e, t)
		put(3, t)
		VFNMADD231PS(two, e, c)
		put(4, c)
		VFNMADD231PS(five, d[3], d[5])
		VFMADD231PS(four, d[1], d[5])
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
	f.end()
}

// leave transforms 36 planes' elements, srcPixel apart, to squares of 4 x 4, to which
// it adds the bias, and what is to be added where there is something.
func (g *machine) leave() {
	f := g.square("leave")
	two, four, eight := g.factor(2), g.factor(4), g.factor(8)
	transform := func(m []reg.VecVirtual, put func(i int, v reg.VecVirtual)) {
		s, u := f.reg(), f.reg()
		VADDPS(m[2], m[1], s)
		VSUBPS(m[2], m[1], m[1])
		VADDPS(m[4], m[3], u)
		VSUBPS(m[4], m[3], m[3])
		VADDPS(s, m[0], m[0])
		VADDPS(u, m[0], m[0])
		put(0, m[0])
		t := f.copyOf(m[1])
		VFMADD231PS(two, m[3], t)
		put(1, t)
		VFMADD231PS(four, u, s)
		put(2, s)
		VFMADD231PS(eight, m[3], m[1])
		VADDPS(m[5], m[1], m[1])
		put(3, m[1])
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
	f.end()
}
