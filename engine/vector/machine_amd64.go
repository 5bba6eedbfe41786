//go:build amd64 && !noasm && !purego

package vector

import "golang.org/x/sys/cpu"

// hasAVX2 is what processors with AVX2 have, conversions of half precision among it.
var hasAVX2 = cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasF16C

// kernels are those of this processor, nil where it has too little.
var kernels = choose(hasAVX2, cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasBMI2)

func choose(avx2, avx512 bool) *machine {
	switch {
	case avx2 && avx512:
		return &machine{
			lanes:  16,
			binary: [...]func(dst, a, b *float32, n, stepA, stepB int){add512, sub512, mul512, div512, max512, min512, prelu512},
			unary: [...]func(dst, src, p *float32, n int){
				relu512, clip512, affine512, affineClip512, gate512, snap512, exp512, sigmoid512, silu512, tanh512, erf512, gelu512, toHalf512, toBrain512, cubicGate512,
				leaky512, softplus512, elu512, mish512, absolute512, sqrt512, reciprocal512, floor512, ceil512, round512, sign512, logarithm512, sine512, cosine512, softsign512, above512,
			},
			norm: norm512, lstm: lstm512, gru: gru512, halves: [...]halves{{widenHalf512, narrowHalf512}, {widenBrain512, narrowBrain512}}, sum: sum512, squares: squares512, largest: largest512, tapSum: tapsSum512, tapMost: tapsMax512, blend: blend512,
			columns: columns512, columnSquares: columnSquares512,
			normRows: normRows512, fewColumns: fewColumns512,
		}
	case avx2:
		return &machine{
			lanes:  8,
			binary: [...]func(dst, a, b *float32, n, stepA, stepB int){add256, sub256, mul256, div256, max256, min256, prelu256},
			unary: [...]func(dst, src, p *float32, n int){
				relu256, clip256, affine256, affineClip256, gate256, snap256, exp256, sigmoid256, silu256, tanh256, erf256, gelu256, toHalf256, toBrain256, cubicGate256,
				leaky256, softplus256, elu256, mish256, absolute256, sqrt256, reciprocal256, floor256, ceil256, round256, sign256, logarithm256, sine256, cosine256, softsign256, above256,
			},
			norm: norm256, lstm: lstm256, gru: gru256, halves: [...]halves{{widenHalf256, narrowHalf256}, {widenBrain256, narrowBrain256}}, sum: sum256, squares: squares256, largest: largest256, tapSum: tapsSum256, tapMost: tapsMax256, blend: blend256,
			columns: columns256, columnSquares: columnSquares256,
			normRows: normRows256, fewColumns: fewColumns256,
		}
	}
	return nil
}
