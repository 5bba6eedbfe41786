//go:build !amd64

package treeshap

import "github.com/pellucid/pellucid/engine/tree"

// kernelSet has no values: there are no kernels for this processor.
type kernelSet struct{}

func bestKernels() *kernelSet { return nil }

func (*kernelSet) run(int, *program, []float64, []tree.Plane, int, []float64, []float64, int) {}

func (*kernelSet) runPairs(*pairRun, *pairTree, []float64, []float64, int) {}
