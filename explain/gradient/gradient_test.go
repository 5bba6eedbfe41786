package gradient_test

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/explain/gradient"
)

// analytic is a differentiable model with a closed form, F = f(x0, x1) + shift,
// whose shift is an integer input. It counts the rows it was asked for at once.
type analytic struct {
	f       func(a, b float64) (value, da, db float64)
	largest int
}

func (m *analytic) Run(context.Context, engine.Values, []string) (engine.Values, error) {
	return nil, nil
}

func (m *analytic) Logit(out engine.Target) engine.Target { return out }

func (m *analytic) Gradient(_ context.Context, in engine.Values, _ engine.Target, _ []string) (*engine.Gradient, error) {
	x, shift := engine.Data[float64](in[0].Tensor), engine.Data[int64](in[1].Tensor)
	n := in[0].Tensor.Rows()
	m.largest = max(m.largest, n)
	g := &engine.Gradient{Value: make([]float64, n)}
	d := make([]float64, 2*n)
	for r := range n {
		g.Value[r], d[2*r], d[2*r+1] = m.f(x[2*r], x[2*r+1])
		g.Value[r] += float64(shift[r])
	}
	t, err := engine.Of(d, n, 2)
	g.Inputs = engine.Values{{Name: "x", Tensor: t}}
	return g, err
}

func (m *analytic) Weighted(context.Context, engine.Values, engine.Values, []string) (*engine.Gradient, error) {
	return nil, errors.New("nothing here weighs")
}

func input(t *testing.T, rows ...float64) engine.Values {
	t.Helper()
	n := len(rows) / 2
	x, err := engine.Of(rows, n, 2)
	if err != nil {
		t.Fatal(err)
	}
	shift := make([]int64, n)
	for i := range shift {
		shift[i] = int64(10 * i)
	}
	s, err := engine.Of(shift, n)
	if err != nil {
		t.Fatal(err)
	}
	return engine.Values{{Name: "x", Tensor: x}, {Name: "shift", Tensor: s}}
}

// product is a b: integrated gradients from zeros give each half of it.
func product(a, b float64) (float64, float64, float64) { return a * b, b, a }

// kink is |a + b - 1|, whose gradient jumps along the path.
func kink(a, b float64) (float64, float64, float64) {
	s := math.Copysign(1, a+b-1)
	return math.Abs(a + b - 1), s, s
}

func TestIntegratedGradients(t *testing.T) {
	m := &analytic{f: product}
	got, err := gradient.IntegratedGradients(t.Context(), m, input(t, 3, 5, -2, 7), engine.Target{}, gradient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for r, want := range []float64{7.5, -7} {
		for _, phi := range got[r].Phi {
			if math.Abs(phi-want) > 1e-12 {
				t.Errorf("row %d: phi %v, want %v", r, got[r].Phi, want)
			}
		}
		if got[r].Base != float64(10*r) || math.Abs(got[r].Delta) > 1e-12 || got[r].Points != 8 {
			t.Errorf("row %d: %+v", r, got[r])
		}
	}
	got, err = gradient.IntegratedGradients(t.Context(), m, input(t, 3, 5), engine.Target{}, gradient.Options{Baseline: []float64{1, 1}, Steps: 3})
	// From (1, 1): phi_a = 2 (1 + 2), phi_b = 4 (1 + 1).
	if err != nil || math.Abs(got[0].Phi[0]-6) > 1e-12 || math.Abs(got[0].Phi[1]-8) > 1e-12 || got[0].Points != 3 || got[0].Base != 1 {
		t.Errorf("with a baseline: %+v, %v", got, err)
	}
}

func TestStepsGrowUntilTolerance(t *testing.T) {
	m := &analytic{f: kink}
	loose, err := gradient.IntegratedGradients(t.Context(), m, input(t, 2, 1.7), engine.Target{}, gradient.Options{Tolerance: 0.2})
	if err != nil {
		t.Fatal(err)
	}
	tight, err := gradient.IntegratedGradients(t.Context(), m, input(t, 2, 1.7), engine.Target{}, gradient.Options{Tolerance: 1e-3, MaxElements: 48})
	if err != nil {
		t.Fatal(err)
	}
	if tight[0].Points <= loose[0].Points || math.Abs(tight[0].Delta) > math.Abs(loose[0].Delta) {
		t.Errorf("loose %+v, tight %+v", loose[0], tight[0])
	}
	last, err := gradient.IntegratedGradients(t.Context(), m, input(t, 2, 1.7), engine.Target{}, gradient.Options{Tolerance: 1e-15, MaxSteps: 64})
	if err != nil || last[0].Points > 64 {
		t.Errorf("beyond the largest number of steps: %+v, %v", last, err)
	}
	m.largest = 0
	if _, err := gradient.IntegratedGradients(t.Context(), m, input(t, 2, 1.7), engine.Target{}, gradient.Options{Steps: 100, MaxElements: 30}); err != nil || m.largest > 10 {
		t.Errorf("batches of %d rows of 3 elements, at most 30 were allowed (%v)", m.largest, err)
	}
}

// jumps is a + b with a jump of 2 where they pass 1, which no gradient shows.
func jumps(a, b float64) (float64, float64, float64) {
	v := a + b
	if v > 1 {
		v += 2
	}
	return v, 1, 1
}

// stairs only jump: 0.1 at every tenth, and bend between them.
func stairs(a, b float64) (float64, float64, float64) {
	s := a + b
	return math.Floor(10*s)/10 + math.Sin(s), math.Cos(s), math.Cos(s)
}

// TestJump: what no number of points settles is said, with the jumps that are why, and
// the finest answer is the one given.
func TestJump(t *testing.T) {
	for _, c := range []struct {
		f           func(a, b float64) (float64, float64, float64)
		jumps       int
		size, where float64
	}{{jumps, 1, 2, 1 / 3.7}, {stairs, 37, 0.1, -1}} {
		got, err := gradient.IntegratedGradients(t.Context(), &analytic{f: c.f}, input(t, 2, 1.7), engine.Target{}, gradient.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r, miss := got[0], got[0].Miss
		if miss == nil || r.Points != 1024 || miss.Tried != 1024 || miss.Jumps != c.jumps {
			t.Fatalf("%+v, miss %+v: want all 1024 points and %d jumps", r, miss, c.jumps)
		}
		if math.Abs(math.Abs(miss.Jump)-c.size) > 0.01 || c.where >= 0 && math.Abs(miss.At-c.where) > 0.01 {
			t.Errorf("the largest jump %+v, want %v at %v", miss, c.size, c.where)
		}
		if want := float64(c.jumps) * c.size; math.Abs(r.Delta+want) > 0.01 {
			t.Errorf("a gap of %v, want %v", r.Delta, -want)
		}
	}
}

// TestUnsettled: what more points would settle is no jump, and what is settled is no miss.
func TestUnsettled(t *testing.T) {
	for _, o := range []gradient.Options{{Tolerance: 1e-9, MaxSteps: 64}, {Tolerance: 1e-9, Steps: 100}} {
		got, err := gradient.IntegratedGradients(t.Context(), &analytic{f: kink}, input(t, 2, 1.7), engine.Target{}, o)
		if err != nil {
			t.Fatal(err)
		}
		if miss := got[0].Miss; miss == nil || miss.Tried != max(o.MaxSteps, o.Steps) || miss.Jumps != 0 {
			t.Errorf("%+v: miss %+v, want one without jumps", o, miss)
		}
	}
	got, err := gradient.IntegratedGradients(t.Context(), &analytic{f: kink}, input(t, 2, 1.7), engine.Target{}, gradient.Options{})
	if err != nil || got[0].Miss != nil {
		t.Errorf("%+v, miss %+v, %v", got, got[0].Miss, err)
	}
}

// cancels bends in a, and b takes nearly all of it back.
func cancels(a, b float64) (float64, float64, float64) {
	const c = 100*(2-0.3141)/1.7 - 0.005
	if a < 0.3141 {
		return -c * b, 0, -c
	}
	return 100*(a-0.3141) - c*b, 100, -c
}

// TestSmallDifference: where large attributions cancel, what they miss of the small difference
// is told where it is much beside one of them only.
func TestSmallDifference(t *testing.T) {
	got, err := gradient.IntegratedGradients(t.Context(), &analytic{f: cancels}, input(t, 2, 1.7), engine.Target{}, gradient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := got[0]
	if missed := math.Abs(r.Delta); missed <= 1e-3*math.Abs(r.Value-r.Base) || missed > 0.168 || r.Miss != nil || r.Points < 512 {
		t.Errorf("%+v, miss %+v", r, r.Miss)
	}
}

func TestPointwise(t *testing.T) {
	m := &analytic{f: product}
	in := input(t, -3, 5)
	abs, err := gradient.Saliency(t.Context(), m, in, engine.Target{}, gradient.Options{})
	if err != nil || abs[0].Phi[0] != 5 || abs[0].Phi[1] != 3 {
		t.Errorf("saliency %+v, %v", abs, err)
	}
	signed, err := gradient.Saliency(t.Context(), m, in, engine.Target{}, gradient.Options{Signed: true})
	if err != nil || signed[0].Phi[1] != -3 {
		t.Errorf("signed saliency %+v, %v", signed, err)
	}
	times, err := gradient.InputXGradient(t.Context(), m, in, engine.Target{}, gradient.Options{})
	if err != nil || times[0].Phi[0] != -15 || times[0].Phi[1] != -15 || times[0].Delta != -15 {
		t.Errorf("input x gradient %+v, %v", times, err)
	}
}

// TestInputXGradientOfARoot: its gradient where all inputs are zero, which is infinite, is not asked
// for, but the value there is.
func TestInputXGradientOfARoot(t *testing.T) {
	root := &analytic{f: func(a, b float64) (float64, float64, float64) {
		return math.Sqrt(a) + b, 0.5 / math.Sqrt(a), 1
	}}
	got, err := gradient.InputXGradient(t.Context(), root, input(t, 4, 3), engine.Target{}, gradient.Options{})
	if err != nil || got[0].Phi[0] != 1 || got[0].Phi[1] != 3 || got[0].Base != 0 || got[0].Delta != -1 {
		t.Errorf("%+v, %v", got, err)
	}
	log := &analytic{f: func(a, _ float64) (float64, float64, float64) { return math.Log(a), 1 / a, 0 }}
	if got, err := gradient.InputXGradient(t.Context(), log, input(t, 4, 3), engine.Target{}, gradient.Options{}); !errors.Is(err, gradient.ErrNotFinite) {
		t.Errorf("without a value at zero: %+v, %v", got, err)
	}
}

func TestRefusals(t *testing.T) {
	bad := &analytic{f: func(a, _ float64) (float64, float64, float64) { return math.Log(a), 1 / a, 0 }}
	if got, err := gradient.IntegratedGradients(t.Context(), bad, input(t, 2, 1), engine.Target{}, gradient.Options{}); err == nil {
		t.Errorf("a path through infinity gave %+v", got)
	}
	m := &analytic{f: product}
	for _, o := range []gradient.Options{{Steps: -1}, {Steps: 5000}, {Tolerance: -1}, {Baseline: []float64{1}}} {
		if _, err := gradient.IntegratedGradients(t.Context(), m, input(t, 2, 1), engine.Target{}, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	if _, err := gradient.Saliency(t.Context(), m, input(t, 2, 1)[1:], engine.Target{}, gradient.Options{}); err == nil {
		t.Error("a gradient was taken with respect to integers")
	}
}
