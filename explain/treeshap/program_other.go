//go:build !amd64

package treeshap

import "github.com/pellucid/pellucid/engine/tree"

const (
	maxKernelPoints = 0
	hasKernels      = false
)

func runKernel(int, *program, []float64, []tree.Plane, int, []float64, []float64, int) {}
