// Package enginetest is the conformance suite that every kind of engine model
// passes, whatever file it was read from.
//
// It owns what can be said of any model without knowing its numbers: the same
// bits each time, row by row as in a batch, in any number of sessions and
// threads, and a prompt end when the context ends. It never knows what the
// numbers ought to be; the readers' own tests hold them against the libraries.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestModel checks that m behaves as the engine's contracts say. rows is what a
// caller would send: at least one row, in canonical form or any other that
// engine.Bind accepts for m.
func TestModel(t *testing.T, m engine.Model, rows engine.Values) {
	t.Helper()
	in, n, err := engine.Bind(m.Info(), rows)
	if err != nil {
		t.Fatalf("Bind: %v", err)
	}
	want := run(t, m, 1, in)
	t.Run("outputs fit their specs", func(t *testing.T) { checkSpecs(t, m.Info(), want) })
	t.Run("the same bits again", func(t *testing.T) { equal(t, want, run(t, m, 1, in), "a second run") })
	t.Run("threads give the same bits", func(t *testing.T) {
		for _, threads := range []int{2, 3, 8} {
			equal(t, want, run(t, m, threads, in), fmt.Sprintf("%d threads", threads))
		}
	})
	t.Run("inputs are left alone", func(t *testing.T) { inputsKept(t, m, in) })
	t.Run("outputs are the caller's", func(t *testing.T) { outputsKept(t, m, in) })
	t.Run("concurrent sessions", func(t *testing.T) { concurrent(t, m, in, want) })
	t.Run("cancelled context", func(t *testing.T) { cancelled(t, m, in) })
	t.Run("unknown output", func(t *testing.T) { unknownOutput(t, m, in) })
	if n > 0 && batched(m.Info()) {
		t.Run("row by row", func(t *testing.T) { rowByRow(t, m, in, n, want) })
	}
}

// Rows returns rows [from, to) of every tensor.
func Rows(t *testing.T, in engine.Values, from, to int) engine.Values {
	t.Helper()
	out := make(engine.Values, len(in))
	for i := range in {
		out[i] = engine.Named{Name: in[i].Name, Tensor: rowsOf(t, in[i].Tensor, from, to)}
	}
	return out
}

func batched(info *engine.Info) bool {
	for _, s := range append(append([]engine.Spec(nil), info.Inputs...), info.Outputs...) {
		if len(s.Shape) == 0 || s.Shape[0] != -1 {
			return false
		}
	}
	return true
}

func session(t *testing.T, m engine.Model, threads int) engine.Session {
	t.Helper()
	s, err := m.NewSession(engine.SessionOptions{Threads: threads})
	if err != nil {
		t.Fatalf("NewSession: %v", err)
	}
	return s
}

// all names every output, the extra ones too.
func all(info *engine.Info) []string {
	var names []string
	for _, s := range info.Outputs {
		names = append(names, s.Name)
	}
	for _, s := range info.Extra {
		names = append(names, s.Name)
	}
	return names
}

func run(t *testing.T, m engine.Model, threads int, in engine.Values) engine.Values {
	t.Helper()
	out, err := session(t, m, threads).Run(context.Background(), in, all(m.Info()))
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return out
}

func checkSpecs(t *testing.T, info *engine.Info, out engine.Values) {
	specs := append(append([]engine.Spec(nil), info.Outputs...), info.Extra...)
	if len(out) != len(specs) {
		t.Fatalf("%d outputs for %d asked for", len(out), len(specs))
	}
	for i, s := range specs {
		got := out[i]
		if got.Name != s.Name || got.Tensor.DType() != s.DType || len(got.Tensor.Shape()) != len(s.Shape) {
			t.Errorf("output %d is %q %s %v, spec says %q %s %v", i, got.Name, got.Tensor.DType(), got.Tensor.Shape(), s.Name, s.DType, s.Shape)
			continue
		}
		for d, want := range s.Shape {
			if want >= 0 && got.Tensor.Shape()[d] != want {
				t.Errorf("output %q has shape %v, spec says %v", s.Name, got.Tensor.Shape(), s.Shape)
			}
		}
	}
}

func inputsKept(t *testing.T, m engine.Model, in engine.Values) {
	kept := make(engine.Values, len(in))
	for i := range in {
		kept[i] = engine.Named{Name: in[i].Name, Tensor: rowsOf(t, in[i].Tensor, 0, in[i].Tensor.Rows())}
	}
	run(t, m, 2, in)
	equal(t, kept, in, "the inputs after a run")
}

// outputsKept runs a session twice and checks that the second run did not write
// into what the first returned.
func outputsKept(t *testing.T, m engine.Model, in engine.Values) {
	s := session(t, m, 1)
	first, err := s.Run(context.Background(), in, nil)
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	if len(first) != len(m.Info().Outputs) {
		t.Fatalf("%d outputs by default, want %d", len(first), len(m.Info().Outputs))
	}
	want := run(t, m, 1, in)[:len(first)]
	if batched(m.Info()) && in[0].Tensor.Rows() > 1 {
		if _, err := s.Run(context.Background(), Rows(t, in, 1, in[0].Tensor.Rows()), nil); err != nil {
			t.Fatalf("Run: %v", err)
		}
	}
	equal(t, want, first, "outputs after the session ran again")
}

func concurrent(t *testing.T, m engine.Model, in, want engine.Values) {
	const sessions, runs = 4, 3
	errs := make(chan error, sessions)
	var wg sync.WaitGroup
	for range sessions {
		s := session(t, m, 1)
		wg.Go(func() {
			for range runs {
				out, err := s.Run(context.Background(), in, all(m.Info()))
				if err == nil {
					err = differ(want, out)
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

func cancelled(t *testing.T, m engine.Model, in engine.Values) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, threads := range []int{1, 2} {
		if _, err := session(t, m, threads).Run(ctx, in, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%d threads: Run after cancel: %v, want %v", threads, err, context.Canceled)
		}
	}
}

func unknownOutput(t *testing.T, m engine.Model, in engine.Values) {
	out, err := session(t, m, 1).Run(context.Background(), in, []string{"no such output"})
	if err == nil {
		t.Errorf("an output that is not there was answered with %d tensors", len(out))
	}
}

func rowByRow(t *testing.T, m engine.Model, in engine.Values, n int, want engine.Values) {
	s := session(t, m, 1)
	for r := range n {
		got, err := s.Run(context.Background(), Rows(t, in, r, r+1), all(m.Info()))
		if err != nil {
			t.Fatalf("row %d: %v", r, err)
		}
		if err := differ(Rows(t, want, r, r+1), got); err != nil {
			t.Fatalf("row %d alone and in the batch: %v", r, err)
		}
	}
}

func equal(t *testing.T, want, got engine.Values, what string) {
	t.Helper()
	if err := differ(want, got); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// differ compares to the bit; NaN equals NaN.
func differ(want, got engine.Values) error {
	if len(want) != len(got) {
		return fmt.Errorf("%d tensors, want %d", len(got), len(want))
	}
	for i := range want {
		a, b := want[i].Tensor, got[i].Tensor
		if a.DType() != b.DType() || fmt.Sprint(a.Shape()) != fmt.Sprint(b.Shape()) {
			return fmt.Errorf("%q is %s %v, want %s %v", want[i].Name, b.DType(), b.Shape(), a.DType(), a.Shape())
		}
		if e := firstDifference(a, b); e >= 0 {
			return fmt.Errorf("%q differs at element %d", want[i].Name, e)
		}
	}
	return nil
}

// firstDifference returns the first element of which a and b, of one type and
// length, hold different bits, or -1.
func firstDifference(a, b *engine.Tensor) int {
	if x := engine.Data[float32](a); x != nil {
		y := engine.Data[float32](b)
		return first(len(x), func(i int) bool { return math.Float32bits(x[i]) != math.Float32bits(y[i]) })
	}
	if x := engine.Data[float64](a); x != nil {
		y := engine.Data[float64](b)
		return first(len(x), func(i int) bool { return math.Float64bits(x[i]) != math.Float64bits(y[i]) })
	}
	for _, f := range []func(a, b *engine.Tensor) int{
		firstOf[bool], firstOf[string], firstOf[uint8], firstOf[uint16], firstOf[uint32], firstOf[uint64],
		firstOf[int8], firstOf[int16], firstOf[int32], firstOf[int64],
	} {
		if i := f(a, b); i >= 0 {
			return i
		}
	}
	return -1
}

func firstOf[T engine.Element](a, b *engine.Tensor) int {
	x, y := engine.Data[T](a), engine.Data[T](b)
	return first(len(x), func(i int) bool { return x[i] != y[i] })
}

func first(n int, differs func(int) bool) int {
	for i := range n {
		if differs(i) {
			return i
		}
	}
	return -1
}

// rowsOf copies rows [from, to) of a tensor.
func rowsOf(t *testing.T, x *engine.Tensor, from, to int) *engine.Tensor {
	t.Helper()
	for _, f := range []func(*engine.Tensor, int, int) (*engine.Tensor, error){
		slice[float32], slice[float64], slice[bool], slice[string], slice[uint8], slice[uint16], slice[uint32],
		slice[uint64], slice[int8], slice[int16], slice[int32], slice[int64],
	} {
		out, err := f(x, from, to)
		if err != nil {
			t.Fatalf("take rows %d to %d: %v", from, to, err)
		}
		if out != nil {
			return out
		}
	}
	t.Fatalf("rows of a tensor of %s", x.DType())
	return nil
}

// slice is nil without an error where x is not of type T.
func slice[T engine.Element](x *engine.Tensor, from, to int) (*engine.Tensor, error) {
	data := engine.Data[T](x)
	if data == nil {
		return nil, nil
	}
	shape := append([]int(nil), x.Shape()...)
	if len(shape) > 0 {
		shape[0] = to - from
	}
	part := append([]T{}, data[from*x.RowLen():to*x.RowLen()]...)
	if d := x.DType(); d == engine.Float16 || d == engine.BFloat16 {
		half, _ := any(part).([]uint16)
		return engine.OfBits(d, half, shape...)
	}
	return engine.Of(part, shape...)
}
