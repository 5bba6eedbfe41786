package main

import (
	"fmt"
	"math"
	"sync"

	"github.com/pellucid/pellucid/engine/blas"
)

// printPeaks prints what one thread reaches, and two at once, that do nothing but
// multiply-adds, or nothing but to read as many bytes over and over, each its own: the
// most of the rounds.
func printPeaks(rounds int) {
	fmt.Printf("%-32s %10s %10s\n", "what the machine can do", "1 thread", "2 threads")
	row := func(name string, f func(thread int) int) {
		fmt.Printf("%-32s", name)
		for threads := 1; threads <= 2; threads++ {
			best := 0.0
			for range rounds {
				best = max(best, together(threads, f))
			}
			fmt.Printf(" %10.0f", best/1e9)
		}
		fmt.Println()
	}
	row("GFLOPS, multiply-adds", func(int) int { return blas.Peak(1_000_000) })
	const all = 512 << 20
	room := make([]byte, all)
	for i := range room {
		room[i] = byte(i) // so that it is memory
	}
	for _, size := range []int{16 << 10, 256 << 10, 8 << 20, all / 2} {
		row(fmt.Sprintf("GB/s, reads of %d KiB", size>>10), func(thread int) int {
			read := 0
			for range max(1, all/size/8) {
				read += blas.Reads(room[thread*size : (thread+1)*size])
			}
			return read
		})
	}
}

// together is how much f counts a second on so many threads at once, NaN where there are
// no kernels of ours.
func together(threads int, f func(thread int) int) float64 {
	counts := make([]int, threads)
	s := seconds(func() {
		var wait sync.WaitGroup
		for i := range threads {
			wait.Go(func() { counts[i] = f(i) })
		}
		wait.Wait()
	})
	sum := 0
	for _, n := range counts {
		sum += n
	}
	if sum == 0 {
		return math.NaN()
	}
	return float64(sum) / s
}
