package main

import (
	. "github.com/mmcloughlin/avo/build" // avo programs read as assembly
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// panelVectors is how many vectors a row of a panel has.
const panelVectors = 2

// row loads what is of each channel of a panel.
func (g *machine) row(name string) (v [panelVectors]reg.VecVirtual) {
	p := Load(Param(name), GP64())
	for i := range v {
		v[i] = g.reg()
		VMOVUPS(Mem{Base: p, Disp: i * g.bytes()}, v[i])
	}
	return v
}

// rows is body for each vector of each row of a panel of floats.
func (g *machine) rows(to reg.Register, body func(i int), more func()) {
	n := Load(Param("rows"), GP64())
	Label("row")
	for i := range panelVectors {
		body(i)
	}
	more()
	ADDQ(I32(panelVectors*g.bytes()), to)
	DECQ(n)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// widen makes rows of floats of bytes: less the zero, times the scale of each channel.
func (g *machine) widen() {
	TEXT("widen"+g.name, NOSPLIT, "func(to *float32, from *int8, scale, zero *float32, rows int)")
	to, from := Load(Param("to"), GP64()), Load(Param("from"), GP64())
	scale, zero := g.row("scale"), g.row("zero")
	g.rows(to, func(i int) {
		x := g.reg()
		VPMOVSXBD(Mem{Base: from, Disp: i * g.bytes() / 4}, x)
		VCVTDQ2PS(x, x)
		VSUBPS(zero[i], x, x)
		VMULPS(scale[i], x, x)
		VMOVUPS(x, Mem{Base: to, Disp: i * g.bytes()})
	}, func() { ADDQ(I32(panelVectors*g.bytes()/4), from) })
}

// scale multiplies rows of floats by the scale of each channel.
func (g *machine) scale() {
	TEXT("scale"+g.name, NOSPLIT, "func(to, scale *float32, rows int)")
	to, scale := Load(Param("to"), GP64()), g.row("scale")
	g.rows(to, func(i int) {
		x := g.reg()
		VMULPS(Mem{Base: to, Disp: i * g.bytes()}, scale[i], x)
		VMOVUPS(x, Mem{Base: to, Disp: i * g.bytes()})
	}, func() {})
}
