package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The offsets of the fields of a line that only these kernels read. Of the others, the
// step of the source is from one element to the next here, and the offsets are of the
// windows' rows.
const (
	stripLines   = 104
	stripSrcLine = 112
	stripBefore  = 120
	stripAfter   = 128
	stripEdges   = 136
	stripFirst   = 144
	stripLeft    = 152
	stripEdge    = 160
	// The fields of an edge.
	edgeSrc     = 0
	edgeWeights = 8
	edgeTaps    = 16
	edgeSkip    = 24
	edgeBytes   = 32
)

// slideBlock is how many windows are summed at once. Where at least again are left, but
// fewer than those, some before them are summed anew, if the line has as many.
type slideBlock struct{ windows, again int }

// slideBlocks are of the kernels with AVX-512 or without: a line of 14, 28 or 56 windows has
// 12 beside its edges or behind others of 14, one of 7 has 5. Sums of few wait for each other.
var slideBlocks = map[bool][]slideBlock{
	true:  {{14, 13}, {12, 10}, {7, 6}, {5, 4}, {3, 2}, {1, 1}},
	false: {{7, 6}, {5, 4}, {3, 2}, {1, 1}},
}

// slide is a kernel over lines of windows that sum each channel by itself, of so many
// taps a row, so many elements apart: an element that windows share is loaded once for
// all of them, a row at a time. A vector's channels of all lines come before the next,
// so that rows that lines share come out of the first level of the cache.
func (g *machine) slide(taps, stride int) {
	TEXT(fmt.Sprintf("slide%s_%d_%d", g.name, taps, stride), NOSPLIT, "func(s *byte)")
	args := GP64()
	Load(Param("s"), args)
	s := &slideFrame{eachFrame: &eachFrame{machine: g, args: args, low: nil}, taps: taps, stride: stride}
	s.step, s.step3 = s.field(stripSrcStep), GP64()
	LEAQ(Mem{Base: s.step, Index: s.step, Scale: 2}, s.step3)
	s.wStep, s.wStep3 = s.field(stripWStep), GP64()
	LEAQ(Mem{Base: s.wStep, Index: s.wStep, Scale: 2}, s.wStep3)
	s.done = GP64()
	XORQ(s.done, s.done)
	lanes := g.bytes() / 4
	Label("channels")
	CMPQ(Mem{Base: args, Disp: stripChannels}, U8(lanes))
	JLT(LabelRef("rest"))
	s.vector()
	JMP(LabelRef("channels"))
	Label("rest")
	CMPQ(Mem{Base: args, Disp: stripChannels}, U8(0))
	JLE(LabelRef("end"))
	s.name = "rest"
	if g.wide {
		one := GP64()
		count := s.field(stripChannels)
		MOVQ(U32(1), one)
		SHLXQ(count, one, one)
		DECQ(one)
		s.k = K()
		KMOVW(one.As32(), s.k)
	} else {
		s.m = YMM()
		VMOVUPS(Mem{Base: s.field(stripTable)}, s.m)
	}
	s.vector()
	Label("end")
	VZEROUPPER()
	RET()
}

// slideFrame is what the blocks of a kernel share.
type slideFrame struct {
	*eachFrame
	taps, stride  int
	wStep, wStep3 reg.GPVirtual
}

func (s *slideFrame) field(off int) reg.GPVirtual {
	r := GP64()
	MOVQ(Mem{Base: s.args, Disp: off}, r)
	return r
}

// load and store take the mask of the rest only there: one in every instruction costs.
func (s *slideFrame) load(m Mem, to reg.VecVirtual) {
	if s.name == "" {
		VMOVUPS(m, to)
		return
	}
	s.eachFrame.load(m, to)
}

func (s *slideFrame) store(from reg.VecVirtual, m Mem) {
	if s.name == "" {
		VMOVUPS(from, m)
		return
	}
	s.eachFrame.store(from, m)
}

// vector is all lines of a vector of channels.
func (s *slideFrame) vector() {
	line := s.name + "line"
	next := GP64()
	MOVQ(Mem{Base: s.args, Disp: stripLines}, next)
	MOVQ(next, Mem{Base: s.args, Disp: stripLeft})
	// The lines' windows follow each other where they are written.
	s.dst = s.field(stripDst)
	ADDQ(s.done, s.dst)
	next = s.field(stripSrc)
	ADDQ(s.done, next)
	Label(line)
	edges := s.field(stripEdges)
	s.src = next
	s.edge("before", stripBefore, edges)
	MOVQ(edges, Mem{Base: s.args, Disp: stripEdge})
	s.src, s.left = GP64(), s.field(stripWindows)
	MOVQ(next, s.src)
	ADDQ(Mem{Base: s.args, Disp: stripFirst}, s.src)
	for _, b := range slideBlocks[s.wide] {
		s.block(b.windows, b.again)
	}
	edges = s.field(stripEdge)
	s.src = next
	s.edge("after", stripAfter, edges)
	ADDQ(Mem{Base: s.args, Disp: stripSrcLine}, next)
	DECQ(Mem{Base: s.args, Disp: stripLeft})
	JNZ(LabelRef(line))
	ADDQ(U8(s.bytes()), s.done)
	SUBQ(U8(s.bytes()/4), Mem{Base: s.args, Disp: stripChannels})
}

// edge is the windows of a line that meet the image's edge, each by itself, of as many as
// a field says: their taps beyond it are left out.
func (s *slideFrame) edge(name string, count int, edges reg.GPVirtual) {
	label := func(of string) string { return s.name + name + of }
	left := s.field(count)
	Label(label("window"))
	DECQ(left)
	JLT(LabelRef(label("end")))
	acc, weight, element := s.reg(), s.reg(), s.reg()
	s.load(Mem{Base: s.field(stripBias), Index: s.done, Scale: 1}, acc)
	w, offsets, rows := s.field(stripWeights), s.field(stripOffsets), s.field(stripTaps)
	ADDQ(s.done, w)
	ADDQ(Mem{Base: edges, Disp: edgeWeights}, w)
	Label(label("row"))
	at, taps := GP64(), GP64()
	MOVQ(Mem{Base: offsets}, at)
	ADDQ(s.src, at)
	ADDQ(Mem{Base: edges, Disp: edgeSrc}, at)
	MOVQ(Mem{Base: edges, Disp: edgeTaps}, taps)
	Label(label("tap"))
	s.load(Mem{Base: w}, weight)
	s.load(Mem{Base: at}, element)
	VFMADD231PS(element, weight, acc)
	ADDQ(s.step, at)
	ADDQ(s.wStep, w)
	DECQ(taps)
	JNZ(LabelRef(label("tap")))
	ADDQ(Mem{Base: edges, Disp: edgeSkip}, w)
	ADDQ(U8(8), offsets)
	DECQ(rows)
	JNZ(LabelRef(label("row")))
	s.finish([]reg.VecVirtual{acc})
	ADDQ(U8(edgeBytes), edges)
	JMP(LabelRef(label("window")))
	Label(label("end"))
}

// finish bounds sums and writes them.
func (s *slideFrame) finish(acc []reg.VecVirtual) {
	low, high := s.reg(), s.reg()
	VBROADCASTSS(Mem{Base: s.args, Disp: stripLow}, low)
	VBROADCASTSS(Mem{Base: s.args, Disp: stripHigh}, high)
	for _, a := range acc {
		VMAXPS(a, low, a) // the second operand where one is NaN
		VMINPS(a, high, a)
		s.store(a, Mem{Base: s.dst})
		ADDQ(Mem{Base: s.args, Disp: stripDstStep}, s.dst)
	}
}

// block is as many times n windows as there are, and once more for at least again.
func (s *slideFrame) block(n, again int) {
	name := func(of string) string { return fmt.Sprintf("%s%s%d", s.name, of, n) }
	Label(name("block"))
	CMPQ(s.left, U8(n))
	if again == n {
		JLT(LabelRef(name("end")))
	} else {
		JGE(LabelRef(name("whole")))
		CMPQ(s.left, U8(again))
		JLT(LabelRef(name("end")))
		CMPQ(Mem{Base: s.args, Disp: stripWindows}, U8(n))
		JLT(LabelRef(name("end")))
		back, by := GP64(), GP64()
		MOVQ(s.left, back)
		SUBQ(U8(n), back)
		MOVQ(s.step, by)
		IMULQ(back, by)
		for range s.stride {
			ADDQ(by, s.src)
		}
		IMULQ(Mem{Base: s.args, Disp: stripDstStep}, back)
		ADDQ(back, s.dst)
		MOVQ(U32(n), s.left)
		Label(name("whole"))
	}
	at := s.field(stripBias)
	acc := make([]reg.VecVirtual, n)
	for i := range acc {
		acc[i] = s.reg()
		if i == 0 {
			s.load(Mem{Base: at, Index: s.done, Scale: 1}, acc[0])
		} else {
			VMOVAPS(acc[0], acc[i])
		}
	}
	w, offsets, rows := s.field(stripWeights), s.field(stripOffsets), s.field(stripTaps)
	ADDQ(s.done, w)
	Label(name("row"))
	s.row(w, offsets, acc)
	ADDQ(U8(8), offsets)
	DECQ(rows)
	JNZ(LabelRef(name("row")))
	s.finish(acc)
	by := GP64()
	IMUL3Q(U8(n*s.stride), s.step, by)
	ADDQ(by, s.src)
	SUBQ(U8(n), s.left)
	JMP(LabelRef(name("block")))
	Label(name("end"))
}

// row takes a row of the windows into the sums, each of which has the row's products in
// order.
func (s *slideFrame) row(w, offsets reg.GPVirtual, acc []reg.VecVirtual) {
	weights := make([]reg.VecVirtual, s.taps)
	for i := range weights {
		if i > 0 && i%4 == 0 {
			LEAQ(Mem{Base: w, Index: s.wStep, Scale: 4}, w)
		}
		weights[i] = s.reg()
		m := Mem{Base: w}
		switch i := i % 4; i {
		case 0:
		case 3:
			m.Index, m.Scale = s.wStep3, 1
		default:
			m.Index, m.Scale = s.wStep, uint8(i)
		}
		s.load(m, weights[i])
	}
	if s.taps%4 == 1 {
		ADDQ(s.wStep, w)
	} else {
		ADDQ(s.wStep3, w)
	}
	at := GP64()
	MOVQ(Mem{Base: offsets}, at)
	ADDQ(s.src, at)
	elements := (len(acc)-1)*s.stride + s.taps
	v := make([]reg.VecVirtual, elements)
	element := func(j int) reg.VecVirtual {
		for have := 0; have <= j; have++ {
			if v[have] != nil {
				continue
			}
			if have > 0 && have%4 == 0 {
				LEAQ(Mem{Base: at, Index: s.step, Scale: 4}, at)
			}
			m := Mem{Base: at}
			switch i := have % 4; i {
			case 0:
			case 3:
				m.Index, m.Scale = s.step3, 1
			default:
				m.Index, m.Scale = s.step, uint8(i)
			}
			v[have] = s.reg()
			s.load(m, v[have])
		}
		return v[j]
	}
	if chunk := s.chunk(); chunk > 0 {
		for from := 0; from < len(acc); from += chunk {
			for t := range s.taps {
				for i := from; i < min(from+chunk, len(acc)); i++ {
					VFMADD231PS(element(i*s.stride+t), weights[t], acc[i])
				}
			}
		}
		return
	}
	for j := range elements {
		for t := range s.taps {
			if i := (j - t) / s.stride; j >= t && (j-t)%s.stride == 0 && i < len(acc) {
				VFMADD231PS(element(j), weights[t], acc[i])
			}
		}
	}
}

// chunk is of how many windows a tap's products follow each other, 0 for those of one
// element: with registers for more elements sums wait less for each other. Elements of seven
// taps are in as many sums.
func (s *slideFrame) chunk() int {
	if !s.wide || s.taps == 7 {
		return 0
	}
	if s.stride == 1 {
		return 7
	}
	return 4
}
