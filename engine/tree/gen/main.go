// Command gen writes wide_amd64.s, the AVX-512 and AVX2 forms of the loops of
// package tree that kernels.go has in plain Go:
//
//	cd engine/tree/gen && go run . -out ../wide_amd64.s -pkg tree
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
)

func main() {
	ConstraintExpr("amd64")
	conditions()
	numbers()
	conditions2()
	exits(32)
	exits(64)
	numbers2()
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

// conditions2 is conditions for 32 rows at once: AVX2 compares only signed bytes,
// so bin >= bound is max(bin, bound) == bin.
func conditions2() {
	TEXT("conditionsAVX2", NOSPLIT, "func(planes, bins, tests *byte, n, words int)")
	planes := Load(Param("planes"), GP64())
	bins := Load(Param("bins"), GP64())
	tests := Load(Param("tests"), GP64())
	n := Load(Param("n"), GP64())
	words := Load(Param("words"), GP64())
	bound, low, high, larger := YMM(), YMM(), YMM(), YMM()
	column, w, a, b := GP64(), GP64(), GP32(), GP32()
	Label("test")
	MOVL(Mem{Base: tests}, column.As32())
	VPBROADCASTB(Mem{Base: tests, Disp: 4}, bound)
	ADDQ(bins, column)
	XORQ(w, w)
	Label("word")
	VMOVDQU(Mem{Base: column}, low)
	VMOVDQU(Mem{Base: column, Disp: 32}, high)
	VPMAXUB(low, bound, larger)
	VPCMPEQB(larger, low, low)
	VPMAXUB(high, bound, larger)
	VPCMPEQB(larger, high, high)
	VPMOVMSKB(low, a)
	VPMOVMSKB(high, b)
	NOTL(a)
	NOTL(b)
	MOVL(a, Mem{Base: planes, Index: w, Scale: 8})
	MOVL(b, Mem{Base: planes, Index: w, Scale: 8, Disp: 4})
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

// exits follows the rows of the first bytes of planes down the tree, one bit a row.
// A 512-bit load of what narrower stores have just written would wait for them,
// which made an AVX-512 form of this slower.
func exits(bytes int) {
	TEXT(fmt.Sprintf("exits%dAVX2", 8*bytes), NOSPLIT, "func(s, tests *byte, n, bits int)")
	space := Load(Param("s"), GP64())
	tests := Load(Param("tests"), GP64())
	n := Load(Param("n"), GP64())
	count := Load(Param("bits"), GP64())
	reach, planes, here, left, right := GP64(), GP64(), GP64(), GP64(), GP64()
	LEAQ(Mem{Base: space, Disp: reachAt}, reach)
	MOVQ(space, planes)
	r, c, a, b := YMM(), YMM(), YMM(), YMM()
	VPCMPEQD(r, r, r)
	VMOVDQU(r, Mem{Base: reach})
	if bytes > 32 {
		VMOVDQU(r, Mem{Base: reach, Disp: 32})
	}
	MOVQ(reach, here)
	// reach is where the rows at a node are kept, planes where the conditions.
	Label("node")
	MOVWQZX(Mem{Base: tests, Disp: 6}, left)
	MOVWQZX(Mem{Base: tests, Disp: 8}, right)
	SHLQ(U8(6), left)
	SHLQ(U8(6), right)
	for half := 0; half < bytes; half += 32 {
		VMOVDQU(Mem{Base: here, Disp: half}, r)
		VMOVDQU(Mem{Base: planes, Disp: half}, c)
		VPAND(r, c, a)
		VPANDN(r, c, b)
		VMOVDQU(a, Mem{Base: reach, Index: left, Scale: 1, Disp: half})
		VMOVDQU(b, Mem{Base: reach, Index: right, Scale: 1, Disp: half})
	}
	ADDQ(U8(64), here)
	ADDQ(U8(64), planes)
	ADDQ(U8(testBytes), tests)
	DECQ(n)
	JNZ(LabelRef("node"))

	// The leaves' rows are or-ed in pairs, so that bit by bit the leaf's number
	// comes out: its lowest bit is set for the rows of all odd leaves.
	leaves, plane, pairs, shift := GP64(), GP64(), GP64(), GP64()
	LEAQ(Mem{Base: space, Disp: reachAt + maxExits*64}, leaves)
	MOVQ(space, plane)
	MOVQ(U32(1), pairs)
	MOVQ(count, shift)
	Label("double")
	DECQ(shift)
	JZ(LabelRef("bit"))
	SHLQ(U8(1), pairs)
	JMP(LabelRef("double"))
	Label("bit")
	low, high, even, odd := YMM(), YMM(), YMM(), YMM()
	VPXOR(low, low, low)
	VPXOR(high, high, high)
	from, to, j := GP64(), GP64(), GP64()
	MOVQ(leaves, from)
	MOVQ(leaves, to)
	MOVQ(pairs, j)
	Label("pair")
	for half := 0; half < bytes; half += 32 {
		acc := low
		if half > 0 {
			acc = high
		}
		VMOVDQU(Mem{Base: from, Disp: half}, even)
		VMOVDQU(Mem{Base: from, Disp: 64 + half}, odd)
		VPOR(odd, acc, acc)
		VPOR(odd, even, even)
		VMOVDQU(even, Mem{Base: to, Disp: half})
	}
	ADDQ(U8(128), from)
	ADDQ(U8(64), to)
	DECQ(j)
	JNZ(LabelRef("pair"))
	VMOVDQU(low, Mem{Base: plane})
	if bytes > 32 {
		VMOVDQU(high, Mem{Base: plane, Disp: 32})
	}
	ADDQ(U8(64), plane)
	SHRQ(U8(1), pairs)
	DECQ(count)
	JNZ(LabelRef("bit"))
	VZEROUPPER()
	RET()
}

// numbers2 spreads 32 bits over 32 bytes and tests each byte's own bit.
func numbers2() {
	bytes := GLOBL("spread", RODATA|NOPTR)
	for i, v := range []uint64{0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303} {
		DATA(8*i, U64(v))
	}
	TEXT("numbersAVX2", NOSPLIT, "func(exit, planes *byte, bits, words int)")
	exit := Load(Param("exit"), GP64())
	plane := Load(Param("planes"), GP64())
	count := Load(Param("bits"), GP64())
	words := Load(Param("words"), GP64())
	spread, own, one, t := YMM(), YMM(), YMM(), GP64()
	VMOVDQU(bytes, spread)
	MOVQ(U64(0x8040201008040201), t)
	MOVQ(t, own.AsX())
	VPBROADCASTQ(own.AsX(), own)
	MOVQ(U64(0x0101010101010101), t)
	MOVQ(t, one.AsX())
	VPBROADCASTQ(one.AsX(), one)
	// Two times 32 rows a word.
	ADDQ(words, words)
	Label("rows")
	number, bit, mask := YMM(), YMM(), YMM()
	VPXOR(number, number, number)
	VMOVDQA(one, bit)
	p, left := GP64(), GP64()
	MOVQ(plane, p)
	MOVQ(count, left)
	Label("gather")
	VPBROADCASTD(Mem{Base: p}, mask)
	VPSHUFB(spread, mask, mask)
	VPAND(own, mask, mask)
	VPCMPEQB(own, mask, mask)
	VPAND(bit, mask, mask)
	VPOR(mask, number, number)
	VPADDB(bit, bit, bit)
	ADDQ(U8(64), p)
	DECQ(left)
	JNZ(LabelRef("gather"))
	VMOVDQU(number, Mem{Base: exit})
	ADDQ(U8(32), exit)
	ADDQ(U8(4), plane)
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
