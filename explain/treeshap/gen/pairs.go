package main

import (
	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	// entryBytes and the offsets of a pairEntry's fields.
	entryBytes                = 12
	planeAt, gainAt, columnAt = 0, 4, 8
)

// pairs writes what adds a node's s to its pairs, for bytes/8 rows of which chunk
// vectors are summed at a time.
func pairs(name, set string, chunk int) {
	wide := set == "AVX512"
	vector, vectors, rows := 32, narrowRegisters, uint8(4)
	if wide {
		vector, vectors, rows = 64, registers, 8
	}
	TEXT(name+set, NOSPLIT, "func(s, gains, entries *byte, count int, masks, sums *byte, bytes, points int)")
	s, gains := Load(Param("s"), GP64()), Load(Param("gains"), GP64())
	masks, sums, points := Load(Param("masks"), GP64()), Load(Param("sums"), GP64()), Load(Param("points"), GP64())
	row, at, entry, left, gain, from, q := GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	acc, not, factor, mask := vectors[:chunk], vectors[chunk:2*chunk], vectors[2*chunk], vectors[2*chunk+1]
	sum := func(name string, gain reg.Register, to []reg.VecPhysical) {
		for _, v := range to {
			VXORPD(v, v, v)
		}
		LEAQ(Mem{Base: s, Index: row, Scale: 1}, from)
		XORQ(q, q)
		Label(name)
		VBROADCASTSD(Mem{Base: gain, Index: q, Scale: 1}, factor)
		for i, v := range to {
			VFMADD231PD(Mem{Base: from, Disp: i * vector}, factor, v)
		}
		ADDQ(U32(rowBytes), from)
		ADDQ(U8(8), q)
		CMPQ(q, points)
		JLT(LabelRef(name))
	}
	XORQ(row, row)
	Label("rows")
	sum("not", gains, not)
	Load(Param("entries"), entry)
	Load(Param("count"), left)
	Label("entry")
	MOVL(Mem{Base: entry, Disp: gainAt}, gain.As32())
	ADDQ(gains, gain)
	sum("points", gain, acc)
	MOVL(Mem{Base: entry, Disp: planeAt}, at.As32())
	MOVQ(Mem{Base: masks, Index: at, Scale: 1}, at)
	MOVQ(row, q)
	SHRQ(U8(3), q)
	SHRXQ(q, at, at)
	MOVL(Mem{Base: entry, Disp: columnAt}, gain.As32())
	ADDQ(sums, gain)
	ADDQ(row, gain)
	if !wide {
		LEAQ(NewDataAddr(Symbol{Name: masksName, Static: true}, 0), from)
	}
	for i, v := range acc {
		if wide {
			KMOVB(at.As32(), reg.K1)
			VBLENDMPD(v, not[i], reg.K1, v)
		} else {
			MOVL(at.As32(), q.As32())
			ANDL(U8(15), q.As32())
			SHLL(U8(5), q.As32())
			VMOVUPD(Mem{Base: from, Index: q, Scale: 1}, mask)
			VBLENDVPD(mask, v, not[i], v)
		}
		SHRQ(U8(rows), at)
		sums := Mem{Base: gain, Disp: i * vector}
		VADDPD(sums, v, v)
		VMOVUPD(v, sums)
	}
	ADDQ(U8(entryBytes), entry)
	DECQ(left)
	JNZ(LabelRef("entry"))
	ADDQ(U32(uint32(chunk*vector)), row)
	CMPQ(row, NewParamAddr("bytes", 48))
	JLT(LabelRef("rows"))
	VZEROUPPER()
	RET()
}
