//go:build amd64 && !noasm && !purego

package convolve

import "golang.org/x/sys/cpu"

// kernels are those of this processor, nil where it has too little.
var kernels = choose(cpu.X86.HasAVX2 && cpu.X86.HasFMA, cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasBMI2)

func choose(avx2, avx512 bool) *machine {
	switch {
	case avx2 && avx512:
		return &machine{lanes: 16, rows: kernelRows, tiles: &tiles512, sum: sum512, most: most512, slides: &slides512, enter: enter512, leave: leave512, weigh: weigh512, widen: widen512, scale: scale512}
	case avx2:
		return &machine{lanes: 8, rows: 6, tiles: &tiles256, sum: sum256, most: most256, slides: &slides256, enter: enter256, leave: leave256, weigh: weigh256, widen: widen256, scale: scale256}
	}
	return nil
}
