package main

import (
	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// copy512 copies k rows of 128 bytes from a matrix to a panel.
func copy512() {
	TEXT("copy512", NOSPLIT, "func(to, from *byte, stride, k int)")
	copyRows(4, func(src, dst Op) { VMOVDQU8(src, dst) }, ZMM)
}

func copy256() {
	TEXT("copy256", NOSPLIT, "func(to, from *byte, stride, k int)")
	copyRows(4, func(src, dst Op) { VMOVDQU(src, dst) }, YMM)
}

// copyRows has two vectors a row.
func copyRows(unroll int, move func(src, dst Op), register func() reg.VecVirtual) {
	to, from := Load(Param("to"), GP64()), Load(Param("from"), GP64())
	stride, k := Load(Param("stride"), GP64()), Load(Param("k"), GP64())
	vector := int(register().Size())
	Label("four")
	CMPQ(k, U8(unroll))
	JLT(LabelRef("rest"))
	for u := range unroll {
		for v := range 2 {
			x := register()
			move(Mem{Base: from, Disp: v * vector}, x)
			move(x, Mem{Base: to, Disp: (2*u + v) * vector})
		}
		ADDQ(stride, from)
	}
	ADDQ(I32(2*unroll*vector), to)
	SUBQ(U8(unroll), k)
	JMP(LabelRef("four"))
	Label("rest")
	TESTQ(k, k)
	JZ(LabelRef("end"))
	for v := range 2 {
		x := register()
		move(Mem{Base: from, Disp: v * vector}, x)
		move(x, Mem{Base: to, Disp: v * vector})
	}
	ADDQ(stride, from)
	ADDQ(I32(2*vector), to)
	DECQ(k)
	JMP(LabelRef("rest"))
	Label("end")
	VZEROUPPER()
	RET()
}

// transposed sets up a kernel that turns n rows, stride apart, into n columns
// that lie columns apart, blocks of n x n one after the other along the rows.
func transposed(name string, n, size int, block func(src func(i int) Mem, dst func(i int) Mem)) {
	TEXT(name, NOSPLIT, "func(to, from *byte, columns, stride, blocks int)")
	to, from := Load(Param("to"), GP64()), Load(Param("from"), GP64())
	columns, stride := Load(Param("columns"), GP64()), Load(Param("stride"), GP64())
	blocks := Load(Param("blocks"), GP64())
	stride3 := GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	// Four rows a pointer.
	bases := []reg.Register{from}
	for i := 4; i < n; i += 4 {
		p := GP64()
		LEAQ(Mem{Base: bases[len(bases)-1], Index: stride, Scale: 4}, p)
		bases = append(bases, p)
	}
	Label("block")
	block(func(i int) Mem {
		m := Mem{Base: bases[i/4]}
		switch i % 4 {
		case 1, 2:
			m.Index, m.Scale = stride, uint8(i%4)
		case 3:
			m.Index, m.Scale = stride3, 1
		}
		return m
	}, func(i int) Mem {
		// Called in order: the pointer walks.
		if i > 0 {
			ADDQ(columns, to)
		}
		return Mem{Base: to}
	})
	ADDQ(columns, to)
	for _, p := range bases {
		ADDQ(I32(n*size), p)
	}
	DECQ(blocks)
	JNZ(LabelRef("block"))
	VZEROUPPER()
	RET()
}

func transpose512x32() {
	transposed("transpose512x32", 16, 4, func(src, dst func(int) Mem) {
		x := make([]reg.VecVirtual, 16)
		for i := range x {
			x[i] = ZMM()
			VMOVUPS(src(i), x[i])
		}
		// Pairs, then quads within lanes of 128 bits, then the lanes themselves.
		pair := func(i, j int) {
			lo := ZMM()
			VUNPCKLPS(x[j], x[i], lo)
			VUNPCKHPS(x[j], x[i], x[j])
			x[i] = lo
		}
		quad := func(i, j int) {
			lo := ZMM()
			VUNPCKLPD(x[j], x[i], lo)
			VUNPCKHPD(x[j], x[i], x[j])
			x[i] = lo
		}
		for i := 0; i < 16; i += 4 {
			pair(i, i+1)
			pair(i+2, i+3)
			quad(i, i+2)
			quad(i+1, i+3)
			x[i+1], x[i+2] = x[i+2], x[i+1]
		}
		// x[4g+c] holds column c+4l of rows 4g..4g+3 in lane l.
		lanes := func(i, j int, even, odd uint8) {
			lo := ZMM()
			VSHUFF32X4(U8(even), x[j], x[i], lo)
			VSHUFF32X4(U8(odd), x[j], x[i], x[j])
			x[i] = lo
		}
		for c := range 4 {
			lanes(c, 4+c, 0x88, 0xdd)
			lanes(8+c, 12+c, 0x88, 0xdd)
			lanes(c, 8+c, 0x88, 0xdd)
			lanes(4+c, 12+c, 0x88, 0xdd)
			// Lane l of all groups, which is column c+4l, is now in 4l+c.
		}
		order := []int{0, 4, 8, 12}
		for i := range 16 {
			VMOVUPS(x[order[i/4]+i%4], dst(i))
		}
	})
}

func transpose512x64() {
	transposed("transpose512x64", 8, 8, func(src, dst func(int) Mem) {
		x := make([]reg.VecVirtual, 8)
		for i := range x {
			x[i] = ZMM()
			VMOVUPD(src(i), x[i])
		}
		for i := 0; i < 8; i += 2 {
			lo := ZMM()
			VUNPCKLPD(x[i+1], x[i], lo)
			VUNPCKHPD(x[i+1], x[i], x[i+1])
			x[i] = lo
		}
		// x[2g+c] holds column c+2l of rows 2g, 2g+1 in lane l.
		lanes := func(i, j int) {
			lo := ZMM()
			VSHUFF64X2(U8(0x88), x[j], x[i], lo)
			VSHUFF64X2(U8(0xdd), x[j], x[i], x[j])
			x[i] = lo
		}
		for c := range 2 {
			lanes(c, 2+c)
			lanes(4+c, 6+c)
			lanes(c, 4+c)
			lanes(2+c, 6+c)
		}
		order := []int{0, 2, 4, 6}
		for i := range 8 {
			VMOVUPD(x[order[i/2]+i%2], dst(i))
		}
	})
}

func transpose256x32() {
	transposed("transpose256x32", 8, 4, func(src, dst func(int) Mem) {
		x := make([]reg.VecVirtual, 8)
		for i := range x {
			x[i] = YMM()
			VMOVUPS(src(i), x[i])
		}
		for i := 0; i < 8; i += 4 {
			for _, p := range [][2]int{{i, i + 1}, {i + 2, i + 3}} {
				lo := YMM()
				VUNPCKLPS(x[p[1]], x[p[0]], lo)
				VUNPCKHPS(x[p[1]], x[p[0]], x[p[1]])
				x[p[0]] = lo
			}
			for _, p := range [][2]int{{i, i + 2}, {i + 1, i + 3}} {
				lo := YMM()
				VUNPCKLPD(x[p[1]], x[p[0]], lo)
				VUNPCKHPD(x[p[1]], x[p[0]], x[p[1]])
				x[p[0]] = lo
			}
			x[i+1], x[i+2] = x[i+2], x[i+1]
		}
		halves(x, dst)
	})
}

func transpose256x64() {
	transposed("transpose256x64", 4, 8, func(src, dst func(int) Mem) {
		x := make([]reg.VecVirtual, 4)
		for i := range x {
			x[i] = YMM()
			VMOVUPD(src(i), x[i])
		}
		for i := 0; i < 4; i += 2 {
			lo := YMM()
			VUNPCKLPD(x[i+1], x[i], lo)
			VUNPCKHPD(x[i+1], x[i], x[i+1])
			x[i] = lo
		}
		halves(x, dst)
	})
}

// halves puts the 128-bit halves of the first half of x and of the second
// together, and stores them.
func halves(x []reg.VecVirtual, dst func(int) Mem) {
	n := len(x) / 2
	for c := range n {
		lo := YMM()
		VPERM2F128(U8(0x20), x[n+c], x[c], lo)
		VPERM2F128(U8(0x31), x[n+c], x[c], x[n+c])
		x[c] = lo
	}
	for i := range x {
		VMOVUPS(x[i], dst(i))
	}
}

// peak512 and peak256 do nothing but fused multiply-adds: 24 vectors n times. It
// is what bench/blas holds the kernels' speed against.
func peak512() { peak("peak512", 24, ZMM, func(x reg.VecVirtual) { VFMADD231PS(x, x, x) }) }

func peak256() { peak("peak256", 12, YMM, func(x reg.VecVirtual) { VFMADD231PS(x, x, x) }) }

func peak(name string, vectors int, register func() reg.VecVirtual, madd func(reg.VecVirtual)) {
	TEXT(name, NOSPLIT, "func(n int)")
	n := Load(Param("n"), GP64())
	x := make([]reg.VecVirtual, vectors)
	for i := range x {
		x[i] = register()
		if vectors == 24 {
			VPXORD(x[i], x[i], x[i])
		} else {
			VXORPS(x[i], x[i], x[i])
		}
	}
	Label("loop")
	for range 24 / vectors {
		for _, v := range x {
			madd(v)
		}
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// readAtOnce is what a round of reads reads; Reads in machine_amd64.go knows it.
const readAtOnce = 512

// reads loads n times readAtOnce bytes and does nothing with them.
func reads(name string, register func() reg.VecVirtual) {
	TEXT(name, NOSPLIT, "func(from *byte, n int)")
	from, n := Load(Param("from"), GP64()), Load(Param("n"), GP64())
	x := register()
	Label("loop")
	for at := 0; at < readAtOnce; at += int(x.Size()) {
		VMOVUPS(Mem{Base: from, Disp: at}, x)
	}
	ADDQ(U32(readAtOnce), from)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func widen512() { widen("widen512", ZMM) }
func widen256() { widen("widen256", YMM) }

// widen makes k rows of two vectors out of as many bytes: less the zero, times the scale
// of each column.
func widen(name string, register func() reg.VecVirtual) {
	TEXT(name, NOSPLIT, "func(to, from, scale, zero *byte, k int)")
	to, from, k, factors := widening(register)
	vector := int(register().Size())
	Label("row")
	for v := range 2 {
		x := register()
		VPMOVSXBD(Mem{Base: from, Disp: v * vector / 4}, x)
		VCVTDQ2PS(x, x)
		VSUBPS(factors[1][v], x, x)
		VMULPS(factors[0][v], x, x)
		VMOVUPS(x, Mem{Base: to, Disp: v * vector})
	}
	ADDQ(I32(2*vector/4), from)
	ADDQ(I32(2*vector), to)
	DECQ(k)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// widening loads what kernels that widen begin with; factors are two vectors of scales, then of
// zeros.
func widening(register func() reg.VecVirtual) (to, from, k reg.Register, factors [2][2]reg.VecVirtual) {
	to, from, k = Load(Param("to"), GP64()), Load(Param("from"), GP64()), Load(Param("k"), GP64())
	vector := int(register().Size())
	for i, name := range []string{"scale", "zero"} {
		p := Load(Param(name), GP64())
		for v := range 2 {
			factors[i][v] = register()
			VMOVUPS(Mem{Base: p, Disp: v * vector}, factors[i][v])
		}
	}
	return to, from, k, factors
}

// widenHalf makes k rows of two vectors out of half as many bytes, whose low four bits are of
// the first vector: less the zero, times the scale of each column.
func widenHalf(name string, register func() reg.VecVirtual) {
	TEXT(name, NOSPLIT, "func(to, from, scale, zero *byte, k int)")
	to, from, k, factors := widening(register)
	vector := int(register().Size())
	four, low := XMM(), register()
	bits := GP32()
	MOVL(U32(15), bits)
	VMOVD(bits, four)
	VPBROADCASTD(four, low)
	Label("row")
	x := [2]reg.VecVirtual{register(), register()}
	VPMOVZXBD(Mem{Base: from}, x[1])
	if vector == 64 {
		VPANDD(low, x[1], x[0])
	} else {
		VPAND(low, x[1], x[0])
	}
	VPSRLD(U8(4), x[1], x[1])
	for v := range 2 {
		VCVTDQ2PS(x[v], x[v])
		VSUBPS(factors[1][v], x[v], x[v])
		VMULPS(factors[0][v], x[v], x[v])
		VMOVUPS(x[v], Mem{Base: to, Disp: v * vector})
	}
	ADDQ(I32(vector/4), from)
	ADDQ(I32(2*vector), to)
	DECQ(k)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// transpose4x32 turns blocks of 4 x 4, for what squares of whole vectors leave over.
func transpose4x32() {
	TEXT("transpose4x32", NOSPLIT, "func(to, from *byte, toStride, fromStride, toStep, fromStep, blocks int)")
	to, from := Load(Param("to"), GP64()), Load(Param("from"), GP64())
	toStride, fromStride := Load(Param("toStride"), GP64()), Load(Param("fromStride"), GP64())
	toStep, fromStep := Load(Param("toStep"), GP64()), Load(Param("fromStep"), GP64())
	blocks := Load(Param("blocks"), GP64())
	to3, from3 := GP64(), GP64()
	LEAQ(Mem{Base: toStride, Index: toStride, Scale: 2}, to3)
	LEAQ(Mem{Base: fromStride, Index: fromStride, Scale: 2}, from3)
	four := func(base, stride, stride3 reg.Register) []Mem {
		return []Mem{{Base: base}, {Base: base, Index: stride, Scale: 1}, {Base: base, Index: stride, Scale: 2}, {Base: base, Index: stride3, Scale: 1}}
	}
	src, dst := four(from, fromStride, from3), four(to, toStride, to3)
	Label("block")
	x, pairs, out := make([]reg.VecVirtual, 4), make([]reg.VecVirtual, 4), make([]reg.VecVirtual, 4)
	for i := range x {
		x[i], pairs[i], out[i] = XMM(), XMM(), XMM()
		VMOVUPS(src[i], x[i])
	}
	for i := range 2 {
		VUNPCKLPS(x[2*i+1], x[2*i], pairs[2*i])
		VUNPCKHPS(x[2*i+1], x[2*i], pairs[2*i+1])
	}
	for i := range 2 {
		VUNPCKLPD(pairs[2+i], pairs[i], out[2*i])
		VUNPCKHPD(pairs[2+i], pairs[i], out[2*i+1])
	}
	for i, v := range out {
		VMOVUPS(v, dst[i])
	}
	ADDQ(fromStep, from)
	ADDQ(toStep, to)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	RET()
}
