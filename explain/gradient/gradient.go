// Package gradient attributes a differentiable model's output to its inputs:
// saliency, input times gradient, and integrated gradients whose completeness
// is measured on every answer.
//
// It owns the quadrature along the path, its convergence and the batching. It
// differentiates nothing itself (engine.Differentiator does), chooses no output
// and no baseline, and knows no feature name.
//
// Invariants: only inputs of floats are attributed to (all of them, or those
// that Options.Attributed names), all others are held as they are; in half precision points
// on the way are those that it has; a batch never holds more than Options.MaxElements input
// elements; Delta is measured, never assumed.
package gradient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/integrate/quad"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// ErrNotFinite is wrapped by the error of a row whose value, or whose gradient
// anywhere on the way to it, is no finite number.
var ErrNotFinite = errors.New("the value or its gradient is not finite")

// Options shape a computation. The zero value is the default.
type Options struct {
	// Signed keeps the sign of saliency; by default its absolute value is
	// returned, as captum does.
	Signed bool
	// Attributed names the inputs that are attributed to; nil means all that Inputs
	// returns. They may be inner tensors that the model takes in place of its own.
	Attributed []string
	// Baseline is one row of the attributed inputs, end to end in their order in the
	// values; nil is zeros.
	Baseline []float64
	// Steps fixes the number of quadrature points of integrated gradients; 0
	// doubles them from 8 until the completeness gap is within Tolerance, and no attribution is
	// estimated to be off by more than ten times that of the largest.
	Steps int
	// Tolerance of |delta| relative to |F(x) - F(baseline)|; 0 means 1e-3.
	Tolerance float64
	// MaxSteps bounds the doubling (and Steps); 0 means 1024.
	MaxSteps int
	// MaxElements bounds the input elements of one batch; 0 means 1 Mi.
	MaxElements int
}

func (o Options) withDefaults() (Options, error) {
	if o.Tolerance == 0 {
		o.Tolerance = 1e-3
	}
	if o.MaxSteps == 0 {
		o.MaxSteps = 1024
	}
	if o.MaxElements == 0 {
		o.MaxElements = 1 << 20
	}
	if o.Steps < 0 || o.Steps > o.MaxSteps {
		return o, fmt.Errorf("%d steps: between 1 and %d, or 0 for as many as needed", o.Steps, o.MaxSteps)
	}
	if !(o.Tolerance > 0) || o.MaxElements < 0 || o.MaxSteps < 0 {
		return o, errors.New("tolerance and limits of a gradient method must be positive")
	}
	return o, nil
}

// Result is one row's attribution.
type Result struct {
	// Phi are the attributions of all elements of the attributed inputs, end to
	// end in the order of Inputs.
	Phi []float64
	// Value is the target at the row, Base at the baseline (0 for Saliency,
	// which has none).
	Value, Base float64
	// Points is the number of gradients taken along the path.
	Points int
	// Delta is sum(Phi) - (Value - Base).
	Delta float64
	// Errors estimate how far each of Phi is off by the points that were taken alone; nil where
	// nothing is integrated. They add up to no less than Delta where the value does not jump.
	Errors []float64
	// Miss is set where the value jumps, or Delta of integrated gradients is beyond ten times the
	// tolerance of the difference and of the largest attribution: 1 %, where the paper asks for 5;
	// or where one of Errors is beyond that of the largest attribution.
	Miss *Miss
}

// Miss says why the attributions of a row do not add up.
type Miss struct {
	// Tried is the most points that were taken.
	Tried int
	// Jumps is between how many neighbouring points of the finest quadrature the value
	// changes by more than the gradients there explain, where that makes up the gap: more
	// points would not close it. 0 otherwise.
	Jumps int
	// Jump is the largest such change, and At where it is: 0 at the baseline, 1 at the row.
	Jump, At float64
}

// Inputs returns the indexes of the inputs that are attributed to.
func Inputs(in engine.Values) []int {
	var at []int
	for i := range in {
		if in[i].Tensor.DType().IsFloat() {
			at = append(at, i)
		}
	}
	return at
}

// Saliency returns the gradient of the target at each row of in: its absolute
// value, or with Options.Signed the gradient itself.
func Saliency(ctx context.Context, d engine.Differentiator, in engine.Values, target engine.Target, o Options) ([]Result, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return pointwise(ctx, d, in, target, o, func(res *Result, _, g []float64) {
		for i, v := range g {
			if !o.Signed {
				v = math.Abs(v)
			}
			res.Phi[i] = v
		}
	})
}

// InputXGradient returns each row's elements times their gradients. The base is
// the target where all attributed inputs are zero.
func InputXGradient(ctx context.Context, d engine.Differentiator, in engine.Values, target engine.Target, o Options) ([]Result, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	results, err := pointwise(ctx, d, in, target, o, func(res *Result, x, g []float64) {
		for i, v := range g {
			if !math.IsNaN(x[i]) {
				res.Phi[i] = v * x[i]
			}
		}
	})
	if err != nil {
		return nil, err
	}
	p, err := newPath(d, in, target, o)
	if err != nil {
		return nil, err
	}
	for r := range results {
		zero, err := p.take(ctx, r, [][]float64{held(make([]float64, p.width), p.row(r))})
		if err == nil && bad(zero.values[0]) { // its gradient there is not asked for
			err = fmt.Errorf("run %q where all inputs are zero: %w", target.Name, ErrNotFinite)
		}
		if err != nil {
			return nil, err
		}
		results[r].Base = zero.values[0]
		results[r].Delta = gap(&results[r])
	}
	return results, nil
}

func gap(r *Result) float64 {
	sum := 0.0
	for _, v := range r.Phi {
		sum += v
	}
	return sum - (r.Value - r.Base)
}

// pointwise takes one gradient at each row and lets use fill the result.
func pointwise(ctx context.Context, d engine.Differentiator, in engine.Values, target engine.Target, o Options, use func(res *Result, x, g []float64)) ([]Result, error) {
	p, err := newPath(d, in, target, o)
	if err != nil {
		return nil, err
	}
	results := make([]Result, p.rows)
	for r := range results {
		x := p.row(r)
		e, err := p.evaluate(ctx, r, [][]float64{x})
		if err != nil {
			return nil, err
		}
		results[r] = Result{Phi: make([]float64, p.width), Value: e.values[0], Points: 1}
		use(&results[r], x, e.gradients[0])
		results[r].Delta = gap(&results[r])
	}
	return results, nil
}

// IntegratedGradients integrates the gradient along the straight line from the
// baseline to each row by Gauss-Legendre quadrature. Without fixed steps their
// number doubles until the completeness gap is within tolerance, and the errors of single
// attributions are, which may cancel in it; or they are as
// many as may be: what is still beyond it then has a Miss. The gap does not always
// shrink with more points, so the best answer is kept, whose Points, Delta and Errors say
// what it is worth; where the value jumps on the way, which no gradient shows, the
// finest: a smaller gap is made there by chance.
func IntegratedGradients(ctx context.Context, d engine.Differentiator, in engine.Values, target engine.Target, o Options) ([]Result, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	p, err := newPath(d, in, target, o)
	if err != nil {
		return nil, err
	}
	base := o.Baseline
	if base == nil {
		base = make([]float64, p.width)
	}
	if len(base) != p.width {
		return nil, fmt.Errorf("baseline of %d values for a row of %d", len(base), p.width)
	}
	results := make([]Result, p.rows)
	for r := range results {
		if results[r], err = p.integrate(ctx, r, base); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func (p *path) integrate(ctx context.Context, r int, base []float64) (Result, error) {
	x := p.row(r)
	base, err := p.rounded(held(base, x))
	if err != nil {
		return Result{}, err
	}
	ends, err := p.ends(ctx, r, base, x)
	if err != nil {
		return Result{}, err
	}
	start, value := ends[0].value, ends[1].value
	// What rounding alone leaves of the gap is not worth more points.
	enough := max(p.opt.Tolerance*math.Abs(value-start), p.epsilon*max(math.Abs(value), math.Abs(start)))
	n, last := p.opt.Steps, p.opt.Steps
	if n == 0 {
		n, last = min(8, p.opt.MaxSteps), p.opt.MaxSteps
	}
	var best Result
	least := math.Inf(1)
	for {
		res, way, err := p.quadrature(ctx, r, x, base, n)
		if err != nil {
			return Result{}, err
		}
		res.Value, res.Base = value, start
		res.Delta = gap(&res)
		// Where attributions cancel the difference says nothing of the gap, and of many small ones
		// nothing of how far a single one is off.
		single := max(p.opt.Tolerance*largest(res.Phi), p.epsilon*max(math.Abs(value), math.Abs(start)))
		off := max(of(math.Abs(res.Delta), slack*max(enough, single)), of(largest(res.Errors), slack*single))
		if best.Phi == nil || off < least {
			best, least = res, off
		}
		if math.Abs(best.Delta) <= enough && least <= 1 {
			return best, nil
		}
		if 2*n > last {
			m := miss(slices.Concat(ends[:1], way, ends[1:]), res.Delta, enough)
			switch {
			case m.Jumps > 0:
				best = res
			case least <= 1:
				return best, nil
			}
			m.Tried, best.Miss = n, m
			return best, nil
		}
		n *= 2
	}
}

// slack is how many times the tolerance may be missed before there is a Miss.
const slack = 10

// of is v as a part of what is allowed.
func of(v, allowed float64) float64 {
	if v == 0 {
		return 0
	}
	return v / allowed
}

func largest(phi []float64) float64 {
	most := 0.0
	for _, v := range phi {
		most = max(most, math.Abs(v))
	}
	return most
}

// step is what one point on the way has: where it is, its value and the value's slope
// along the way.
type step struct{ at, value, slope float64 }

// ends are the first and the last point of the way.
func (p *path) ends(ctx context.Context, r int, base, x []float64) ([]step, error) {
	var list []step
	for chunk := range slices.Chunk([][]float64{base, x}, p.chunk()) {
		e, err := p.evaluate(ctx, r, chunk)
		if err != nil {
			return nil, err
		}
		for q, g := range e.gradients {
			list = append(list, step{at: float64(len(list)), value: e.values[q], slope: along(g, base, x)})
		}
	}
	return list, nil
}

// along is the slope of the way from base to x where the gradient is g.
func along(g, base, x []float64) float64 {
	slope := 0.0
	for i, v := range g {
		if !math.IsNaN(x[i]) {
			slope += v * (x[i] - base[i])
		}
	}
	return slope
}

// miss looks for the jumps that a gap is made of: a value that only bends between two
// points changes by no more than the slopes there, which differ, leave open. What is
// less than enough by itself may be rounding.
func miss(way []step, delta, enough float64) *Miss {
	m, missed := &Miss{}, 0.0
	for i, b := range way[1:] {
		a := way[i]
		width := b.at - a.at
		jump := b.value - a.value - width*(a.slope+b.slope)/2
		if math.Abs(jump) <= width*math.Abs(a.slope-b.slope)+enough {
			continue
		}
		m.Jumps++
		missed += jump
		if math.Abs(jump) > math.Abs(m.Jump) {
			m.Jump, m.At = jump, (a.at+b.at)/2
		}
	}
	if math.Abs(delta+missed) > math.Abs(delta)/2 {
		return &Miss{}
	}
	return m
}

func (p *path) quadrature(ctx context.Context, r int, x, base []float64, n int) (Result, []step, error) {
	at, weight := make([]float64, n), make([]float64, n)
	quad.Legendre{}.FixedLocations(at, weight, 0, 1)
	null := newNullRules(at, weight, p.width)
	res, way := Result{Phi: make([]float64, p.width), Points: n}, make([]step, 0, n)
	chunk := p.chunk()
	for from := 0; from < n; from += chunk {
		to := min(n, from+chunk)
		points := make([][]float64, 0, to-from)
		for _, a := range at[from:to] {
			point := make([]float64, p.width)
			for i := range point {
				point[i] = base[i] + a*(x[i]-base[i])
			}
			points = append(points, point)
		}
		e, err := p.evaluate(ctx, r, points)
		if err != nil {
			return Result{}, nil, err
		}
		for q, g := range e.gradients {
			way = append(way, step{at: at[from+q], value: e.values[q], slope: along(g, base, x)})
			for i, v := range g {
				res.Phi[i] += weight[from+q] * v
			}
			null.add(from+q, g)
		}
	}
	res.Errors = null.errors()
	for i := range res.Phi {
		if math.IsNaN(x[i]) {
			res.Phi[i], res.Errors[i] = 0, 0
			continue
		}
		res.Phi[i] *= x[i] - base[i]
		res.Errors[i] *= math.Abs(x[i] - base[i])
	}
	slices.SortFunc(way, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	return res, way, nil
}

// held returns base with a row's missing values in it: what is missing stays
// missing all along the path, so it has no effect of its own.
func held(base, x []float64) []float64 {
	out := slices.Clone(base)
	for i, v := range x {
		if math.IsNaN(v) {
			out[i] = v
		}
	}
	return out
}

// path evaluates a model at points that share a row's fixed inputs.
type path struct {
	d      engine.Differentiator
	in     engine.Values
	target engine.Target
	opt    Options
	// attributed are indexes into in, names theirs, data their elements.
	attributed []int
	names      []string
	data       [][]float64
	rows       int
	width      int
	// epsilon is what rounding leaves of a value of 1, which several of it made.
	epsilon float64
}

func newPath(d engine.Differentiator, in engine.Values, target engine.Target, o Options) (*path, error) {
	p := &path{d: d, in: in, target: target, opt: o, attributed: Inputs(in), epsilon: 1e-7}
	if o.Attributed != nil {
		p.attributed = slices.DeleteFunc(p.attributed, func(i int) bool { return !slices.Contains(o.Attributed, in[i].Name) })
	}
	if len(p.attributed) == 0 {
		return nil, errors.New("no input of floats: a gradient method has nothing to attribute to")
	}
	p.rows = in[0].Tensor.Rows()
	for i := range in {
		if t := in[i].Tensor; len(t.Shape()) == 0 || t.Rows() != p.rows {
			return nil, fmt.Errorf("input %q of shape %v: need %d rows like the first input", in[i].Name, t.Shape(), p.rows)
		}
	}
	for _, i := range p.attributed {
		data, ok := in[i].Tensor.Float64s()
		if !ok {
			return nil, fmt.Errorf("input %q is not numeric", in[i].Name)
		}
		p.names = append(p.names, in[i].Name)
		p.data = append(p.data, data)
		p.width += in[i].Tensor.RowLen()
		switch in[i].Tensor.DType() {
		case engine.Float16:
			p.epsilon = max(p.epsilon, 1.0/(1<<9))
		case engine.BFloat16:
			p.epsilon = max(p.epsilon, 1.0/(1<<6))
		}
	}
	return p, nil
}

// rounded is a point as the inputs' types have it, which is where the model is evaluated.
func (p *path) rounded(x []float64) ([]float64, error) {
	out := make([]float64, 0, len(x))
	for _, i := range p.attributed {
		t := p.in[i].Tensor
		n := t.RowLen()
		r, err := ofType(t.DType(), x[:n], n)
		if err != nil {
			return nil, err
		}
		v, _ := r.Float64s()
		out, x = append(out, v...), x[n:]
	}
	return out, nil
}

// ofType makes a tensor of floats of some type.
func ofType(d engine.DType, v []float64, shape ...int) (*engine.Tensor, error) {
	if d == engine.Float64 {
		return engine.Of(slices.Clone(v), shape...)
	}
	data := make([]float32, len(v))
	for i, e := range v {
		data[i] = float32(e)
	}
	t, err := engine.Of(data, shape...)
	if err != nil || d == engine.Float32 {
		return t, err
	}
	return graph.Cast(t, d)
}

// chunk is how many points go in one batch.
func (p *path) chunk() int {
	perPoint := 0
	for i := range p.in {
		perPoint += p.in[i].Tensor.RowLen()
	}
	return max(1, p.opt.MaxElements/max(1, perPoint))
}

// row returns row r of the attributed inputs, end to end.
func (p *path) row(r int) []float64 {
	x := make([]float64, 0, p.width)
	for j, i := range p.attributed {
		n := p.in[i].Tensor.RowLen()
		x = append(x, p.data[j][r*n:(r+1)*n]...)
	}
	return x
}

type evaluation struct {
	values    []float64
	gradients [][]float64
}

// evaluate takes value and gradient at points, with row r's other inputs; both must be finite.
func (p *path) evaluate(ctx context.Context, r int, points [][]float64) (*evaluation, error) {
	e, err := p.take(ctx, r, points)
	if err != nil {
		return nil, err
	}
	for q := range points {
		if bad(e.values[q]) || slices.ContainsFunc(e.gradients[q], bad) {
			return nil, fmt.Errorf("differentiate %q: %w", p.target.Name, ErrNotFinite)
		}
	}
	return e, nil
}

func (p *path) take(ctx context.Context, r int, points [][]float64) (*evaluation, error) {
	in, err := p.batch(r, points)
	if err != nil {
		return nil, err
	}
	g, err := p.d.Gradient(ctx, in, p.target, p.names)
	if err != nil {
		return nil, fmt.Errorf("differentiate %q: %w", p.target.Name, err)
	}
	if len(g.Value) != len(points) || len(g.Inputs) != len(p.names) {
		return nil, fmt.Errorf("differentiate %q: %d values and %d gradients for %d rows and %d inputs", p.target.Name, len(g.Value), len(g.Inputs), len(points), len(p.names))
	}
	e := &evaluation{values: g.Value, gradients: make([][]float64, len(points))}
	for j, i := range p.attributed {
		data, ok := g.Inputs[j].Tensor.Float64s()
		n := p.in[i].Tensor.RowLen()
		if !ok || len(data) != n*len(points) {
			return nil, fmt.Errorf("differentiate %q: gradient of %q has the wrong size", p.target.Name, p.names[j])
		}
		for q := range points {
			e.gradients[q] = append(e.gradients[q], data[q*n:(q+1)*n]...)
		}
	}
	return e, nil
}

func bad(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }

// batch builds the model's inputs for points.
func (p *path) batch(r int, points [][]float64) (engine.Values, error) {
	out := make(engine.Values, len(p.in))
	offset := 0
	for i := range p.in {
		t := p.in[i].Tensor
		shape := slices.Clone(t.Shape())
		shape[0] = len(points)
		var b *engine.Tensor
		var err error
		n := t.RowLen()
		switch {
		case !slices.Contains(p.attributed, i):
			b, err = repeat(t, r, len(points), shape)
		default:
			data := make([]float64, 0, n*len(points))
			for _, x := range points {
				data = append(data, x[offset:offset+n]...)
			}
			offset += n
			b, err = ofType(t.DType(), data, shape...)
		}
		if err != nil {
			return nil, fmt.Errorf("build batch of input %q: %w", p.in[i].Name, err)
		}
		out[i] = engine.Named{Name: p.in[i].Name, Tensor: b}
	}
	return out, nil
}

// repeat returns row r of t n times.
func repeat(t *engine.Tensor, r, n int, shape []int) (*engine.Tensor, error) {
	switch t.DType() {
	case engine.Float32:
		return repeatRow[float32](t, r, n, shape)
	case engine.Float64:
		return repeatRow[float64](t, r, n, shape)
	case engine.Bool:
		return repeatRow[bool](t, r, n, shape)
	case engine.Uint8:
		return repeatRow[uint8](t, r, n, shape)
	case engine.Uint16:
		return repeatRow[uint16](t, r, n, shape)
	case engine.Float16, engine.BFloat16:
		b, err := repeatRow[uint16](t, r, n, shape)
		if err != nil {
			return nil, err
		}
		return engine.OfBits(t.DType(), engine.Data[uint16](b), shape...)
	case engine.Uint32:
		return repeatRow[uint32](t, r, n, shape)
	case engine.Uint64:
		return repeatRow[uint64](t, r, n, shape)
	case engine.Int8:
		return repeatRow[int8](t, r, n, shape)
	case engine.Int16:
		return repeatRow[int16](t, r, n, shape)
	case engine.Int32:
		return repeatRow[int32](t, r, n, shape)
	case engine.Int64:
		return repeatRow[int64](t, r, n, shape)
	case engine.String:
		return repeatRow[string](t, r, n, shape)
	}
	return nil, fmt.Errorf("no tensor of type %s", t.DType())
}

func repeatRow[T engine.Element](t *engine.Tensor, r, n int, shape []int) (*engine.Tensor, error) {
	width := t.RowLen()
	return engine.Of(slices.Repeat(engine.Data[T](t)[r*width:(r+1)*width], n), shape...)
}

// Row returns row r of every input, as a batch of one.
func Row(in engine.Values, r int) (engine.Values, error) {
	out := make(engine.Values, len(in))
	for i := range in {
		t := in[i].Tensor
		if len(t.Shape()) == 0 || r < 0 || r >= t.Rows() {
			return nil, fmt.Errorf("input %q of shape %v has no row %d", in[i].Name, t.Shape(), r)
		}
		shape := slices.Clone(t.Shape())
		shape[0] = 1
		b, err := repeat(t, r, 1, shape)
		if err != nil {
			return nil, fmt.Errorf("take row %d of input %q: %w", r, in[i].Name, err)
		}
		out[i] = engine.Named{Name: in[i].Name, Tensor: b}
	}
	return out, nil
}
