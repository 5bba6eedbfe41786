//go:build amd64 && !noasm && !purego

package qgemm

import "golang.org/x/sys/cpu"

// kernels are those of this processor.
var kernels = choose(cpu.X86.HasAVX2, cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512VNNI && cpu.X86.HasBMI2)

func choose(avx2, vnni bool) *machine {
	switch {
	case avx2 && vnni:
		m := &machine{
			lanes: 16, rows: 6, vecs: 4, masked: true, dots: &dots512, finishBytes: finishBytes512, finishFloats: finishFloats512,
			toBytes: toBytes512, toFloats: toFloats512, add: addBytes512, mul: mulBytes512, pairs: pairKernels{pairs512w1, pairs512w4, pairs512w8}, pairUp: pairUp512, quads: pairKernels{quads512w1, quads512w4, quads512w8}, quadUp: quadUp512, columns: columns512, largest: largest128, span: span512,
		}
		if cpu.X86.HasAVX512VBMI {
			m.table = table512
		}
		return m
	case avx2:
		return &machine{
			lanes: 8, rows: 4, vecs: 2, dots: &dots256, finishBytes: finishBytes256, finishFloats: finishFloats256,
			toBytes: toBytes256, toFloats: toFloats256, add: addBytes256, mul: mulBytes256, pairs: pairKernels{pairs256w1, pairs256w4, pairs256w8}, pairUp: pairUp256, columns: columns256, largest: largest128, span: span256,
		}
	}
	return plain
}
