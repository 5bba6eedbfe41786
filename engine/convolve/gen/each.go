package main

import (
	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The offsets of strip's fields.
const (
	stripDst      = 0
	stripDstStep  = 8
	stripSrc      = 16
	stripSrcStep  = 24
	stripWeights  = 32
	stripWStep    = 40
	stripOffsets  = 48
	stripTaps     = 56
	stripWindows  = 64
	stripChannels = 72
	stripBias     = 80
	stripLow      = 88
	stripHigh     = 92
	stripTable    = 96
)

// each is a kernel over windows that join the elements of each channel by itself: the
// sum of their products with the channel's weights, or the largest of them.
func (g *machine) each(name string, most bool) {
	TEXT(name+g.name, NOSPLIT, "func(s *byte)")
	args := GP64()
	Load(Param("s"), args)
	field := func(off int) reg.GPVirtual {
		r := GP64()
		MOVQ(Mem{Base: args, Disp: off}, r)
		return r
	}
	e := &eachFrame{machine: g, args: args, most: most, low: g.reg(), high: g.reg(), bias: g.reg()}
	VBROADCASTSS(Mem{Base: args, Disp: stripLow}, e.low)
	VBROADCASTSS(Mem{Base: args, Disp: stripHigh}, e.high)
	e.step = field(stripSrcStep)
	e.step3 = GP64()
	LEAQ(Mem{Base: e.step, Index: e.step, Scale: 2}, e.step3)
	e.src, e.dst, e.left = GP64(), GP64(), GP64()
	e.done = GP64() // bytes of the channels that are done
	XORQ(e.done, e.done)
	Label("channels")
	if g.wide {
		// The channels that are left, at most a vector of them.
		one, count, most := GP64(), field(stripChannels), GP64()
		MOVQ(U32(16), most)
		CMPQ(count, most)
		CMOVQGT(most, count)
		MOVQ(U32(1), one)
		SHLXQ(count, one, one)
		DECQ(one)
		e.k = K()
		KMOVW(one.As32(), e.k)
		e.vector(field)
		JGT(LabelRef("channels"))
	} else {
		CMPQ(Mem{Base: args, Disp: stripChannels}, U8(8))
		JLT(LabelRef("rest"))
		e.vector(field)
		JMP(LabelRef("channels"))
		Label("rest")
		CMPQ(Mem{Base: args, Disp: stripChannels}, U8(0))
		JLE(LabelRef("end"))
		table := field(stripTable)
		e.m = YMM()
		VMOVUPS(Mem{Base: table}, e.m)
		e.name = "rest"
		e.vector(field)
		Label("end")
	}
	VZEROUPPER()
	RET()
}

// vector is all windows for a vector of channels; it compares what is left with 0.
func (e *eachFrame) vector(field func(off int) reg.GPVirtual) {
	for _, p := range []struct {
		off int
		to  reg.GPVirtual
	}{{stripSrc, e.src}, {stripDst, e.dst}} {
		MOVQ(Mem{Base: e.args, Disp: p.off}, p.to)
		ADDQ(e.done, p.to)
	}
	at := field(stripBias)
	ADDQ(e.done, at)
	e.load(Mem{Base: at}, e.bias)
	MOVQ(Mem{Base: e.args, Disp: stripWindows}, e.left)
	for _, n := range []int{8, 4, 2, 1} {
		e.block(n)
	}
	ADDQ(U8(e.bytes()), e.done)
	SUBQ(U8(e.bytes()/4), Mem{Base: e.args, Disp: stripChannels})
}

// eachFrame is what the blocks of a kernel share.
type eachFrame struct {
	*machine
	most           bool
	args           reg.GPVirtual
	src, dst, left reg.GPVirtual
	done           reg.GPVirtual
	// name tells the labels of a second form apart, m is its mask for AVX2.
	name            string
	m               reg.VecVirtual
	step, step3     reg.GPVirtual
	k               reg.OpmaskVirtual
	low, high, bias reg.VecVirtual
}

func (e *eachFrame) load(m Mem, to reg.VecVirtual) {
	if e.wide {
		VMOVUPS_Z(m, e.k, to)
		return
	}
	if e.m != nil {
		VMASKMOVPS(m, e.m, to)
		return
	}
	VMOVUPS(m, to)
}

func (e *eachFrame) store(from reg.VecVirtual, m Mem) {
	switch {
	case e.wide:
		VMOVUPS(from, e.k, m)
	case e.m != nil:
		VMASKMOVPS(from, e.m, m)
	default:
		VMOVUPS(from, m)
	}
}

// block is as many times n windows as there are.
func (e *eachFrame) block(n int) {
	name := func(s string) string { return e.name + s + string(rune('0'+n)) }
	Label(name("block"))
	CMPQ(e.left, U8(n))
	JLT(LabelRef(name("end")))
	acc := make([]reg.VecVirtual, n)
	for i := range acc {
		acc[i] = e.reg()
		VMOVAPS(e.bias, acc[i])
	}
	w, offsets, taps := GP64(), GP64(), GP64()
	MOVQ(Mem{Base: e.args, Disp: stripWeights}, w)
	ADDQ(e.done, w)
	MOVQ(Mem{Base: e.args, Disp: stripOffsets}, offsets)
	MOVQ(Mem{Base: e.args, Disp: stripTaps}, taps)
	Label(name("tap"))
	at, far := GP64(), GP64()
	MOVQ(Mem{Base: offsets}, at)
	ADDQ(e.src, at)
	if n > 4 {
		LEAQ(Mem{Base: at, Index: e.step, Scale: 4}, far)
	}
	weight := e.reg()
	if !e.most {
		e.load(Mem{Base: w}, weight)
		ADDQ(Mem{Base: e.args, Disp: stripWStep}, w)
	}
	for i := range acc {
		m := Mem{Base: at}
		if i >= 4 {
			m.Base = far
		}
		switch i % 4 {
		case 0:
		case 3:
			m.Index, m.Scale = e.step3, 1
		default:
			m.Index, m.Scale = e.step, uint8(i%4)
		}
		e.join(m, weight, acc[i])
	}
	ADDQ(U8(8), offsets)
	DECQ(taps)
	JNZ(LabelRef(name("tap")))
	for _, a := range acc {
		VMAXPS(a, e.low, a) // the second operand where one is NaN
		VMINPS(a, e.high, a)
		e.store(a, Mem{Base: e.dst})
		ADDQ(Mem{Base: e.args, Disp: stripDstStep}, e.dst)
	}
	if n == 8 {
		LEAQ(Mem{Base: e.src, Index: e.step, Scale: 8}, e.src)
	} else {
		for range n {
			ADDQ(e.step, e.src)
		}
	}
	SUBQ(U8(n), e.left)
	JMP(LabelRef(name("block")))
	Label(name("end"))
}

// join takes the element at m into acc.
func (e *eachFrame) join(m Mem, weight, acc reg.VecVirtual) {
	if !e.most {
		if e.wide {
			VFMADD231PS(m, weight, e.k, acc)
			return
		}
		v := e.reg()
		e.load(m, v)
		VFMADD231PS(v, weight, acc)
		return
	}
	v := e.reg()
	e.load(m, v)
	const unordered = 3
	if e.wide {
		k := K()
		VCMPPS(U8(unordered), v, v, k)
		VMOVAPS(v, k, acc)
		VMAXPS(acc, v, acc) // acc where one is NaN
		return
	}
	nan := e.reg()
	VCMPPS(U8(unordered), v, v, nan)
	VBLENDVPS(nan, v, acc, acc)
	VMAXPS(acc, v, acc)
}
