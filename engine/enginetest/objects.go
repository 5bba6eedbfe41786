package enginetest

import (
	"math"
	"runtime"
)

// SharedObjects is how many objects a call makes that shares its work, in whole ones;
// testing.AllocsPerRun has it on one processor. It is asked again where they are more than what
// they should be: a helper that comes late fills pools, and each processor has pools of its own.
func SharedObjects(most float64, call func()) float64 {
	const calls, rounds = 4, 100
	count := math.Inf(1)
	for i := 0; i < rounds && count > most; i++ {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range calls {
			call()
		}
		runtime.ReadMemStats(&after)
		count = float64((after.Mallocs - before.Mallocs) / calls)
	}
	return count
}
