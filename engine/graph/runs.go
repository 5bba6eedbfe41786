package graph

import (
	"cmp"
	"fmt"

	"github.com/pellucid/pellucid/engine"
)

// run computes elements of two operands that follow each other: steps are 1, or 0 for one
// that is repeated. A loop for each operator: a call for each element would take several
// times what it computes.
type run[T, R engine.Element] func(dst []R, a, b []T, stepA, stepB int)

// runsOf is a function of two operands that broadcast, run by run.
func runsOf[T, R engine.Element](f run[T, R]) zipped {
	return func(x *Exec, a, b *engine.Tensor) (*engine.Tensor, error) {
		shape, err := x.broadcast(a.Shape(), b.Shape())
		if err != nil {
			return nil, err
		}
		if a.DType() != b.DType() {
			return nil, fmt.Errorf("operands of types %s and %s", a.DType(), b.DType())
		}
		t, out, err := rawOf[R](x, shape...)
		if err != nil {
			return nil, err
		}
		da, db := engine.Data[T](a), engine.Data[T](b)
		pairWalk(shape, a.Shape(), b.Shape(), func(o, ia, ib, n, sa, sb int) { f(out[o:o+n], da[ia:], db[ib:], sa, sb) })
		return t, nil
	}
}

func addRun[T number](dst, a, b []T, stepA, stepB int) {
	if stepA == 1 && stepB == 1 {
		a, b = a[:len(dst)], b[:len(dst)]
		for i := range dst {
			dst[i] = a[i] + b[i]
		}
		return
	}
	for i := range dst {
		dst[i] = a[i*stepA] + b[i*stepB]
	}
}

func subRun[T number](dst, a, b []T, stepA, stepB int) {
	if stepA == 1 && stepB == 1 {
		a, b = a[:len(dst)], b[:len(dst)]
		for i := range dst {
			dst[i] = a[i] - b[i]
		}
		return
	}
	for i := range dst {
		dst[i] = a[i*stepA] - b[i*stepB]
	}
}

func mulRun[T number](dst, a, b []T, stepA, stepB int) {
	if stepA == 1 && stepB == 1 {
		a, b = a[:len(dst)], b[:len(dst)]
		for i := range dst {
			dst[i] = a[i] * b[i]
		}
		return
	}
	for i := range dst {
		dst[i] = a[i*stepA] * b[i*stepB]
	}
}

func lessRun[T cmp.Ordered](dst []bool, a, b []T, stepA, stepB int) {
	switch {
	case stepA == 1 && stepB == 1:
		a, b = a[:len(dst)], b[:len(dst)]
		for i := range dst {
			dst[i] = a[i] < b[i]
		}
	case stepA == 1:
		one := b[0]
		for i, v := range a[:len(dst)] {
			dst[i] = v < one
		}
	default:
		one := a[0]
		for i := range dst {
			dst[i] = one < b[i*stepB]
		}
	}
}

func atMostRun[T cmp.Ordered](dst []bool, a, b []T, stepA, stepB int) {
	switch {
	case stepA == 1 && stepB == 1:
		a, b = a[:len(dst)], b[:len(dst)]
		for i := range dst {
			dst[i] = a[i] <= b[i]
		}
	case stepA == 1:
		one := b[0]
		for i, v := range a[:len(dst)] {
			dst[i] = v <= one
		}
	default:
		one := a[0]
		for i := range dst {
			dst[i] = one <= b[i*stepB]
		}
	}
}

func equalRun[T engine.Element](dst []bool, a, b []T, stepA, stepB int) {
	switch {
	case stepA == 1 && stepB == 1:
		a, b = a[:len(dst)], b[:len(dst)]
		for i := range dst {
			dst[i] = a[i] == b[i]
		}
	case stepA == 1:
		one := b[0]
		for i, v := range a[:len(dst)] {
			dst[i] = v == one
		}
	default:
		one := a[0]
		for i := range dst {
			dst[i] = one == b[i*stepB]
		}
	}
}

// swapped is f of the operands the other way round.
func swapped[T, R engine.Element](f run[T, R]) run[T, R] {
	return func(dst []R, a, b []T, stepA, stepB int) { f(dst, b, a, stepB, stepA) }
}

// comparison is the run of a comparison of numbers.
func comparison[T interface {
	cmp.Ordered
	engine.Element
}](op string) zipped {
	switch op {
	case "Less":
		return runsOf(lessRun[T])
	case "LessOrEqual":
		return runsOf(atMostRun[T])
	case "Greater":
		return runsOf(swapped(lessRun[T]))
	case "GreaterOrEqual":
		return runsOf(swapped(atMostRun[T]))
	}
	return runsOf(equalRun[T])
}

// sums are Add, Sub and Mul, which loops are better for than calls; nil is another's.
func sums[T number](op arithmetic) zipped {
	switch op {
	case opAdd:
		return runsOf(addRun[T])
	case opSub:
		return runsOf(subRun[T])
	case opMul:
		return runsOf(mulRun[T])
	}
	return nil
}

func andRun(dst, a, b []bool, stepA, stepB int) {
	if stepA == 1 && stepB == 1 {
		a, b = a[:len(dst)], b[:len(dst)]
		for i := range dst {
			u, v := a[i], b[i]
			dst[i] = u && v
		}
		return
	}
	for i := range dst {
		u, v := a[i*stepA], b[i*stepB]
		dst[i] = u && v
	}
}

func orRun(dst, a, b []bool, stepA, stepB int) {
	for i := range dst {
		u, v := a[i*stepA], b[i*stepB]
		dst[i] = u || v
	}
}

func xorRun(dst, a, b []bool, stepA, stepB int) {
	for i := range dst {
		dst[i] = a[i*stepA] != b[i*stepB]
	}
}
