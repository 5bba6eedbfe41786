// Command gen writes wide_amd64.s, the AVX-512 forms of the loops of
// package tree that kernels.go has in plain Go:
//
//	cd engine/tree/gen && go run . -out ../wide_amd64.s -pkg tree
package main

import (
	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
)

func main() {
	ConstraintExpr("amd64")
	conditions()
	exits()
	numbers()
	Generate()
}

// conditions holds 64 rows of a column against a threshold in one comparison.
func conditions() {
	TEXT("conditionsAVX512", NOSPLIT, "func(planes, bins, tests *byte, n, words int)")
	planes := Load(Param("planes"), GP64())
	bins := Load(Param("bins"), GP64())
	tests := Load(Param("tests"), GP64())
	n := Load(Param("n"), GP64())
	words := Load(Param("words"), GP64())
	bound := ZMM()
	column, w := GP64(), GP64()
	Label("test")
	MOVL(Mem{Base: tests}, column.As32())
	VPBROADCASTB(Mem{Base: tests, Disp: 4}, bound)
	ADDQ(bins, column)
	XORQ(w, w)
	Label("word")
	k := K()
	VPCMPUB(U8(6), Mem{Base: column}, bound, k) // bound > bin
	KMOVQ(k, Mem{Base: planes, Index: w, Scale: 8})
	ADDQ(U8(64), column)
	INCQ(w)
	CMPQ(w, words)
	JLT(LabelRef("word"))
	ADDQ(U8(64), planes)
	ADDQ(U8(testBytes), tests)
	DECQ(n)
	JNZ(LabelRef("test"))
	VZEROUPPER()
	RET()
}

// exits follows all rows down the tree at once, one bit a row.
func exits() {
	TEXT("exitsAVX512", NOSPLIT, "func(s, tests *byte, n, bits int)")
	space := Load(Param("s"), GP64())
	tests := Load(Param("tests"), GP64())
	n := Load(Param("n"), GP64())
	count := Load(Param("bits"), GP64())

	// reach is where the rows at a node are kept, planes where the conditions.
	reach, planes := GP64(), GP64()
	LEAQ(Mem{Base: space, Disp: reachAt}, reach)
	MOVQ(space, planes)
	ones := ZMM()
	VPTERNLOGD(U8(0xff), ones, ones, ones)
	VMOVDQU64(ones, Mem{Base: reach})
	left, right := GP64(), GP64()
	here := GP64()
	MOVQ(reach, here)
	Label("node")
	r, c, a, b := ZMM(), ZMM(), ZMM(), ZMM()
	VMOVDQU64(Mem{Base: here}, r)
	VMOVDQU64(Mem{Base: planes}, c)
	MOVWQZX(Mem{Base: tests, Disp: 6}, left)
	MOVWQZX(Mem{Base: tests, Disp: 8}, right)
	SHLQ(U8(6), left)
	SHLQ(U8(6), right)
	VPANDQ(r, c, a)
	VPANDNQ(r, c, b)
	VMOVDQU64(a, Mem{Base: reach, Index: left, Scale: 1})
	VMOVDQU64(b, Mem{Base: reach, Index: right, Scale: 1})
	ADDQ(U8(64), here)
	ADDQ(U8(64), planes)
	ADDQ(U8(testBytes), tests)
	DECQ(n)
	JNZ(LabelRef("node"))

	// The leaves' rows are or-ed in pairs, so that bit by bit the exit's number
	// comes out: its lowest bit is set for the rows of all odd leaves.
	leaves, plane := GP64(), GP64()
	LEAQ(Mem{Base: space, Disp: reachAt + maxExits*64}, leaves)
	MOVQ(space, plane)
	pairs := GP64()
	MOVQ(U32(1), pairs)
	shift := GP64()
	MOVQ(count, shift)
	// pairs = 1 << (bits-1)
	Label("double")
	DECQ(shift)
	JZ(LabelRef("doubled"))
	SHLQ(U8(1), pairs)
	JMP(LabelRef("double"))
	Label("doubled")
	left = GP64()
	MOVQ(count, left)
	Label("bit")
	acc := ZMM()
	VPXORQ(acc, acc, acc)
	from, to, j := GP64(), GP64(), GP64()
	MOVQ(leaves, from)
	MOVQ(leaves, to)
	MOVQ(pairs, j)
	Label("pair")
	even, odd := ZMM(), ZMM()
	VMOVDQU64(Mem{Base: from}, even)
	VMOVDQU64(Mem{Base: from, Disp: 64}, odd)
	VPORQ(odd, acc, acc)
	VPORQ(odd, even, even)
	VMOVDQU64(even, Mem{Base: to})
	ADDQ(U8(128), from)
	ADDQ(U8(64), to)
	DECQ(j)
	JNZ(LabelRef("pair"))
	VMOVDQU64(acc, Mem{Base: plane})
	ADDQ(U8(64), plane)
	SHRQ(U8(1), pairs)
	DECQ(left)
	JNZ(LabelRef("bit"))

	VZEROUPPER()
	RET()
}

// numbers turns planes of bits into bytes.
func numbers() {
	TEXT("numbersAVX512", NOSPLIT, "func(exit, planes *byte, bits, words int)")
	exit := Load(Param("exit"), GP64())
	plane := Load(Param("planes"), GP64())
	count := Load(Param("bits"), GP64())
	words := Load(Param("words"), GP64())
	left := GP64()
	one := ZMM()
	t := GP32()
	MOVL(U32(1), t)
	VPBROADCASTB(t, one)
	Label("rows")
	number, bit := ZMM(), ZMM()
	VPXORQ(number, number, number)
	VMOVDQA64(one, bit)
	p := GP64()
	MOVQ(plane, p)
	MOVQ(count, left)
	Label("gather")
	k := K()
	KMOVQ(Mem{Base: p}, k)
	VPADDB(bit, number, k, number)
	VPADDB(bit, bit, bit)
	ADDQ(U8(64), p)
	DECQ(left)
	JNZ(LabelRef("gather"))
	VMOVDQU64(number, Mem{Base: exit})
	ADDQ(U8(64), exit)
	ADDQ(U8(8), plane)
	DECQ(words)
	JNZ(LabelRef("rows"))
	VZEROUPPER()
	RET()
}

const (
	testBytes = 12
	maxExits  = 1024
	reachAt   = maxExits * 64
)
