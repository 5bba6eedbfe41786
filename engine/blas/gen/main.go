// Command gen writes kernels_amd64.s, the AVX-512 and AVX2 kernels of package
// blas, their declarations and the tables of them:
//
//	cd engine/blas/gen && go run . -out ../kernels_amd64.s -stubs ../stubs_amd64.go -pkg blas
//
// Every kernel runs over k once, in order, with one fused multiply-add for each
// product, whatever its shape; that is why a result's bits depend neither on the
// kernel that made it nor on the threads.
package main

import (
	"fmt"
	"os"

	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64,!noasm,!purego")
	for _, e := range []elem{{"s", 4}, {"d", 8}} {
		for _, s := range shapes512 {
			kernel512(e, s)
		}
		for _, s := range shapes2 {
			kernel2(e, s)
		}
	}
	copy512()
	copy256()
	transpose512x32()
	transpose512x64()
	transpose256x32()
	transpose256x64()
	widen512()
	widen256()
	widenHalf("widenHalf512", ZMM)
	widenHalf("widenHalf256", YMM)
	peak512()
	peak256()
	reads("reads512", ZMM)
	reads("reads256", YMM)
	transpose4x32()
	if err := tables("../tables_amd64.go"); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
	Generate()
}

// elem is an element type: BLAS' letter for it and its bytes.
type elem struct {
	name string
	size int
}

// shape is how many rows of a and how many vectors of b a kernel has. More than
// two vectors belong to neighbouring panels.
type shape struct{ rows, vecs int }

func (s shape) name(e elem, set int) string {
	return fmt.Sprintf("%sgemm%dr%dv%d", e.name, set, s.rows, s.vecs)
}

var shapes512, shapes2 = func() (wide, narrow []shape) {
	wide = []shape{{1, 8}, {2, 8}, {3, 4}}
	for r := 1; r <= 14; r++ {
		wide = append(wide, shape{r, 2}, shape{r, 1})
	}
	narrow = []shape{{1, 8}, {2, 4}}
	for r := 1; r <= 6; r++ {
		narrow = append(narrow, shape{r, 2}, shape{r, 1})
	}
	return wide, narrow
}()

// The offsets of tile's fields.
const (
	offA     = 0
	offRS    = 8
	offKS    = 16
	offB     = 24
	offBS    = 32
	offBP    = 40
	offC     = 48
	offCS    = 56
	offK     = 64
	offMask  = 72
	offTable = 80
	offPF    = 88
	offPFS   = 96
	offAlpha = 104
)

// frame is what all kernels share: pointers that walk, and strides.
type frame struct {
	e                elem
	s                shape
	args             reg.GPVirtual
	a                []reg.GPVirtual
	rs, rs3, ks      reg.GPVirtual
	b, bs, bp, bp3   reg.GPVirtual
	k, pf, pfs       reg.GPVirtual
	vector           int
	c, cs, cs3, next reg.GPVirtual
}

// rowsPerBase is how many rows one pointer reaches with rs and 3 rs as indices.
const rowsPerBase = 5

func start(set int, e elem, s shape, vector int) *frame {
	TEXT(s.name(e, set), NOSPLIT, "func(t *byte)")
	f := &frame{e: e, s: s, vector: vector, args: GP64()}
	Load(Param("t"), f.args)
	f.rs, f.ks, f.b, f.bs, f.k = GP64(), GP64(), GP64(), GP64(), GP64()
	MOVQ(Mem{Base: f.args, Disp: offRS}, f.rs)
	MOVQ(Mem{Base: f.args, Disp: offKS}, f.ks)
	MOVQ(Mem{Base: f.args, Disp: offB}, f.b)
	MOVQ(Mem{Base: f.args, Disp: offBS}, f.bs)
	for r := 0; r < s.rows; r += rowsPerBase {
		p := GP64()
		if r == 0 {
			MOVQ(Mem{Base: f.args, Disp: offA}, p)
		} else {
			last := f.a[len(f.a)-1]
			LEAQ(Mem{Base: last, Index: f.rs, Scale: 4}, p)
			ADDQ(f.rs, p)
		}
		f.a = append(f.a, p)
	}
	if s.rows > 3 {
		f.rs3 = GP64()
		LEAQ(Mem{Base: f.rs, Index: f.rs, Scale: 2}, f.rs3)
	}
	if s.vecs == 2 {
		f.pf, f.pfs = GP64(), GP64()
		MOVQ(Mem{Base: f.args, Disp: offPF}, f.pf)
		MOVQ(Mem{Base: f.args, Disp: offPFS}, f.pfs)
	}
	if s.vecs > 2 {
		f.bp = GP64()
		MOVQ(Mem{Base: f.args, Disp: offBP}, f.bp)
	}
	if s.vecs > 6 {
		f.bp3 = GP64()
		LEAQ(Mem{Base: f.bp, Index: f.bp, Scale: 2}, f.bp3)
	}
	return f
}

// at is the element of a in row r.
func (f *frame) at(r int) Mem {
	p := f.a[r/rowsPerBase]
	switch r % rowsPerBase {
	case 0:
		return Mem{Base: p}
	case 3:
		return Mem{Base: p, Index: f.rs3, Scale: 1}
	default:
		return Mem{Base: p, Index: f.rs, Scale: uint8(r % rowsPerBase)}
	}
}

// vec is vector v of b's row.
func (f *frame) vec(v int) Mem {
	disp := v % 2 * f.vector
	switch v / 2 {
	case 0:
		return Mem{Base: f.b, Disp: disp}
	case 3:
		return Mem{Base: f.b, Index: f.bp3, Scale: 1, Disp: disp}
	default:
		return Mem{Base: f.b, Index: f.bp, Scale: uint8(v / 2), Disp: disp}
	}
}

// loop runs body k times, walking a and b. Kernels of one panel fetch another into
// the second level on the way. k is not 0.
func (f *frame) loop(body func()) {
	MOVQ(Mem{Base: f.args, Disp: offK}, f.k)
	Label("loop")
	body()
	for _, p := range f.a {
		ADDQ(f.ks, p)
	}
	ADDQ(f.bs, f.b)
	if f.s.vecs == 2 {
		for at := 0; at < 2*f.vector; at += 64 {
			PREFETCHT1(Mem{Base: f.pf, Disp: at})
		}
		ADDQ(f.pfs, f.pf)
	}
	DECQ(f.k)
	JNZ(LabelRef("loop"))
}

// prefetch fetches the rows of c before the loop, which takes longer.
func (f *frame) prefetch() {
	p, cs := GP64(), GP64()
	MOVQ(Mem{Base: f.args, Disp: offC}, p)
	MOVQ(Mem{Base: f.args, Disp: offCS}, cs)
	for r := range f.s.rows {
		for v := 0; v < min(f.s.vecs, 2)*f.vector; v += 64 {
			PREFETCHT0(Mem{Base: p, Disp: v})
		}
		if r < f.s.rows-1 {
			ADDQ(cs, p)
		}
	}
}

// target is where vector v of c's current row is; the wide kernels' panels of c
// lie side by side.
func (f *frame) target(v int) Mem { return Mem{Base: f.c, Disp: v * f.vector} }

// results scales the sums by alpha and adds c by beta. write is called for each
// row after its sums were scaled, once with beta 0 and once not.
func (f *frame) results(scale func(), write func(r int, add bool)) {
	f.c, f.cs = GP64(), GP64()
	MOVQ(Mem{Base: f.args, Disp: offC}, f.c)
	MOVQ(Mem{Base: f.args, Disp: offCS}, f.cs)
	scale()
	// Plus and minus zero shift to zero.
	beta := GP64()
	if f.e.size == 4 {
		MOVL(Mem{Base: f.args, Disp: offAlpha + 4}, beta.As32())
		SHLL(U8(1), beta.As32())
	} else {
		MOVQ(Mem{Base: f.args, Disp: offAlpha + 8}, beta)
		SHLQ(U8(1), beta)
	}
	JZ(LabelRef("set"))
	f.rowsOfC(func(r int) { write(r, true) })
	VZEROUPPER()
	RET()
	Label("set")
	f.c = GP64()
	MOVQ(Mem{Base: f.args, Disp: offC}, f.c)
	f.rowsOfC(func(r int) { write(r, false) })
	VZEROUPPER()
	RET()
}

func (f *frame) rowsOfC(row func(r int)) {
	for r := range f.s.rows {
		row(r)
		if r < f.s.rows-1 {
			ADDQ(f.cs, f.c)
		}
	}
}

func kernel512(e elem, s shape) {
	f := start(512, e, s, 64)
	single := e.size == 4
	masks := make([]reg.OpmaskVirtual, min(s.vecs, 2))
	if s.vecs <= 2 {
		for v := range masks {
			bits := GP64()
			MOVQ(Mem{Base: f.args, Disp: offMask}, bits)
			if v > 0 {
				SHRQ(U8(64/e.size), bits)
			}
			masks[v] = K()
			KMOVW(bits.As32(), masks[v])
		}
	}
	f.prefetch()
	acc := make([][]reg.VecVirtual, s.rows)
	for r := range acc {
		for range s.vecs {
			z := ZMM()
			VPXORD(z, z, z)
			acc[r] = append(acc[r], z)
		}
	}
	f.loop(func() {
		b := make([]reg.VecVirtual, s.vecs)
		for v := range b {
			b[v] = ZMM()
			switch {
			case s.vecs > 2 && single:
				VMOVUPS(f.vec(v), b[v])
			case s.vecs > 2:
				VMOVUPD(f.vec(v), b[v])
			case single:
				VMOVUPS_Z(f.vec(v), masks[v], b[v])
			default:
				VMOVUPD_Z(f.vec(v), masks[v], b[v])
			}
		}
		for r := range acc {
			madd512(f, b, acc[r], r)
		}
	})
	beta := ZMM()
	f.results(func() {
		alpha := ZMM()
		if single {
			VBROADCASTSS(Mem{Base: f.args, Disp: offAlpha}, alpha)
			VBROADCASTSS(Mem{Base: f.args, Disp: offAlpha + 4}, beta)
		} else {
			VBROADCASTSD(Mem{Base: f.args, Disp: offAlpha}, alpha)
			VBROADCASTSD(Mem{Base: f.args, Disp: offAlpha + 8}, beta)
		}
		for _, row := range acc {
			for _, z := range row {
				if single {
					VMULPS(alpha, z, z)
				} else {
					VMULPD(alpha, z, z)
				}
			}
		}
	}, func(r int, add bool) {
		for v, z := range acc[r] {
			write512(f, masks, v, z, beta, add)
		}
	})
}

func madd512(f *frame, b, acc []reg.VecVirtual, r int) {
	single := f.e.size == 4
	if f.s.vecs > 1 {
		// One load a row: two loads a cycle are all there are.
		x := ZMM()
		if single {
			VBROADCASTSS(f.at(r), x)
		} else {
			VBROADCASTSD(f.at(r), x)
		}
		for v := range acc {
			if single {
				VFMADD231PS(b[v], x, acc[v])
			} else {
				VFMADD231PD(b[v], x, acc[v])
			}
		}
		return
	}
	for v := range acc {
		if single {
			VFMADD231PS_BCST(f.at(r), b[v], acc[v])
		} else {
			VFMADD231PD_BCST(f.at(r), b[v], acc[v])
		}
	}
}

func write512(f *frame, masks []reg.OpmaskVirtual, v int, z, beta reg.VecVirtual, add bool) {
	single, to := f.e.size == 4, f.target(v)
	masked := f.s.vecs <= 2
	switch {
	case masked && single:
		if add {
			VFMADD231PS(to, beta, masks[v], z)
		}
		VMOVUPS(z, masks[v], to)
	case masked:
		if add {
			VFMADD231PD(to, beta, masks[v], z)
		}
		VMOVUPD(z, masks[v], to)
	case single:
		if add {
			VFMADD231PS(to, beta, z)
		}
		VMOVUPS(z, to)
	default:
		if add {
			VFMADD231PD(to, beta, z)
		}
		VMOVUPD(z, to)
	}
}

// kernel2 has no masks in its loop: where b is narrower than the vectors the
// caller gives it with zeros. Only c is masked, where mask is not 0.
func kernel2(e elem, s shape) {
	f := start(256, e, s, 32)
	single := e.size == 4
	f.prefetch()
	acc := make([][]reg.VecVirtual, s.rows)
	for r := range acc {
		for range s.vecs {
			y := YMM()
			VXORPS(y, y, y)
			acc[r] = append(acc[r], y)
		}
	}
	f.loop(func() {
		// A single row takes b from memory; more rows take it once.
		b := make([]reg.VecVirtual, s.vecs)
		for v := range b {
			if s.rows == 1 {
				break
			}
			b[v] = YMM()
			if single {
				VMOVUPS(f.vec(v), b[v])
			} else {
				VMOVUPD(f.vec(v), b[v])
			}
		}
		for r := range acc {
			x := YMM()
			if single {
				VBROADCASTSS(f.at(r), x)
			} else {
				VBROADCASTSD(f.at(r), x)
			}
			for v := range acc[r] {
				var from Op = f.vec(v)
				if b[v] != nil {
					from = b[v]
				}
				if single {
					VFMADD231PS(from, x, acc[r][v])
				} else {
					VFMADD231PD(from, x, acc[r][v])
				}
			}
		}
	})
	beta, masks := YMM(), []reg.VecVirtual{}
	f.results(func() {
		alpha := YMM()
		if single {
			VBROADCASTSS(Mem{Base: f.args, Disp: offAlpha}, alpha)
			VBROADCASTSS(Mem{Base: f.args, Disp: offAlpha + 4}, beta)
		} else {
			VBROADCASTSD(Mem{Base: f.args, Disp: offAlpha}, alpha)
			VBROADCASTSD(Mem{Base: f.args, Disp: offAlpha + 8}, beta)
		}
		for _, row := range acc {
			for _, y := range row {
				if single {
					VMULPS(alpha, y, y)
				} else {
					VMULPD(alpha, y, y)
				}
			}
		}
		if s.vecs > 2 {
			return
		}
		table := GP64()
		MOVQ(Mem{Base: f.args, Disp: offTable}, table)
		TESTQ(table, table)
		JZ(LabelRef("whole"))
		for v := range s.vecs {
			m := YMM()
			VMOVUPS(Mem{Base: table, Disp: v * 32}, m)
			masks = append(masks, m)
		}
		maskedRows(f, acc, masks, beta)
		Label("whole")
	}, func(r int, add bool) {
		for v, y := range acc[r] {
			to := f.target(v)
			switch {
			case single:
				if add {
					VFMADD231PS(to, beta, y)
				}
				VMOVUPS(y, to)
			default:
				if add {
					VFMADD231PD(to, beta, y)
				}
				VMOVUPD(y, to)
			}
		}
	})
}

// maskedRows writes the rows of c through masks. With beta 0, c is read as zeros.
func maskedRows(f *frame, acc [][]reg.VecVirtual, masks []reg.VecVirtual, beta reg.VecVirtual) {
	single := f.e.size == 4
	bits := GP64()
	if single {
		MOVL(Mem{Base: f.args, Disp: offAlpha + 4}, bits.As32())
		SHLL(U8(1), bits.As32())
	} else {
		MOVQ(Mem{Base: f.args, Disp: offAlpha + 8}, bits)
		SHLQ(U8(1), bits)
	}
	c := GP64()
	MOVQ(f.c, c)
	JZ(LabelRef("setmasked"))
	for _, row := range acc {
		for v, y := range row {
			// A new register a time: only one is live.
			old := YMM()
			if single {
				VMASKMOVPS(Mem{Base: c, Disp: v * 32}, masks[v], old)
				VFMADD231PS(old, beta, y)
			} else {
				VMASKMOVPD(Mem{Base: c, Disp: v * 32}, masks[v], old)
				VFMADD231PD(old, beta, y)
			}
		}
		ADDQ(f.cs, c)
	}
	MOVQ(f.c, c)
	Label("setmasked")
	for _, row := range acc {
		for v, y := range row {
			if single {
				VMASKMOVPS(y, masks[v], Mem{Base: c, Disp: v * 32})
			} else {
				VMASKMOVPD(y, masks[v], Mem{Base: c, Disp: v * 32})
			}
		}
		ADDQ(f.cs, c)
	}
	VZEROUPPER()
	RET()
}
