package tree

import (
	"context"
	"errors"
	"fmt"

	"github.com/pellucid/pellucid/engine"
)

// The names of a native tree model's input and outputs.
const (
	InputName  = "input"
	OutputName = "prediction"
	MarginName = "margin"
)

// NewModel returns an engine model over an ensemble that Validate has accepted.
// It fills info's Inputs, Outputs and Extra: `input` [-1, Features] in, the
// predictions as `prediction` out, the margins as `margin` on request, each [-1]
// for one value a row and [-1, K] for more, FP32 for a Float32 ensemble and FP64
// otherwise, and adds to its Details what the ensemble takes. The model is Sized, and a
// Holder unless the ensemble has linear leaves, which have no tree Shapley values.
func NewModel(e *Ensemble, info *engine.Info) engine.Model {
	d := engine.Float64
	if e.Float32 {
		d = engine.Float32
	}
	SetSpecs(info, d, e.Features, e.Outputs, e.Link)
	info.Details = append(info.Details, e.Memory())
	m := &model{ensemble: e, info: info, evaluator: NewEvaluator(e)}
	if e.Linear() {
		return struct {
			engine.Model
			Sized
		}{m, m}
	}
	return m
}

// SetSpecs fills in what a native model takes and returns; see NewModel.
func SetSpecs(info *engine.Info, d engine.DType, features, outputs int, link Link) {
	spec := func(name string, k int) engine.Spec {
		if k == 1 {
			return engine.Spec{Name: name, DType: d, Shape: []int{-1}}
		}
		return engine.Spec{Name: name, DType: d, Shape: []int{-1, k}}
	}
	info.Inputs = []engine.Spec{{Name: InputName, DType: d, Shape: []int{-1, features}}}
	info.Outputs = []engine.Spec{spec(OutputName, link.Width(outputs))}
	info.Extra = []engine.Spec{spec(MarginName, outputs)}
}

// Evaluator computes the margins of an ensemble. It is immutable and safe for
// concurrent use.
type Evaluator struct {
	narrow *program[float32, uint32]
	wide   *program[float64, uint64]
}

// NewEvaluator compiles an ensemble that Validate has accepted.
func NewEvaluator(e *Ensemble) *Evaluator {
	if e.Float32 {
		return &Evaluator{narrow: compile[float32, uint32](e)}
	}
	return &Evaluator{wide: compile[float64, uint64](e)}
}

// Margins asks v for margins in the precision of T: see Marginer.
func Margins[T float32 | float64](ctx context.Context, v *Evaluator, x []T, rows int, out []T, threads int) error {
	switch x := any(x).(type) {
	case []float32:
		narrow, _ := any(out).([]float32)
		return v.Margins32(ctx, x, rows, narrow, threads)
	case []float64:
		wide, _ := any(out).([]float64)
		return v.Margins64(ctx, x, rows, wide, threads)
	}
	return errPrecision
}

type model struct {
	ensemble  *Ensemble
	info      *engine.Info
	evaluator *Evaluator
}

var _ Holder = (*model)(nil)

// Sized is a model that knows about how many bytes its trees take.
type Sized interface{ Bytes() int64 }

// Bytes implements Sized.
func (m *model) Bytes() int64 { return m.ensemble.Bytes() }

func (m *model) Info() *engine.Info { return m.info }

func (m *model) Trees() (*Ensemble, string) { return m.ensemble, OutputName }

func (m *model) NewSession(opt engine.SessionOptions) (engine.Session, error) {
	return NewSession(m.info, m.ensemble.Outputs, m.ensemble.Link, m.ensemble.LinkScale, opt, m.evaluator), nil
}

// NewSession returns a session over anything that computes margins: an
// Evaluator, or another additive model of the same libraries.
func NewSession(info *engine.Info, outputs int, link Link, scale float64, opt engine.SessionOptions, m Marginer) engine.Session {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = 1 << 30
	}
	s := &session{info: info, outputs: outputs, link: link, scale: scale, opt: opt, marginer: m}
	return s
}

// Marginer computes margins: those of rows rows of x, row-major, into out, which
// has rows times Outputs elements. Only the method of the model's own precision
// is asked. It stops with the context's error when ctx is done.
type Marginer interface {
	Margins32(ctx context.Context, x []float32, rows int, out []float32, threads int) error
	Margins64(ctx context.Context, x []float64, rows int, out []float64, threads int) error
}

// Margins32 implements Marginer for a Float32 ensemble.
func (v *Evaluator) Margins32(ctx context.Context, x []float32, rows int, out []float32, threads int) error {
	if v.narrow == nil {
		return errPrecision
	}
	return v.narrow.checked(ctx, x, rows, out, threads)
}

// Margins64 implements Marginer for a float64 ensemble.
func (v *Evaluator) Margins64(ctx context.Context, x []float64, rows int, out []float64, threads int) error {
	if v.wide == nil {
		return errPrecision
	}
	return v.wide.checked(ctx, x, rows, out, threads)
}

var errPrecision = errors.New("the ensemble is not of the precision asked for")

func (p *program[T, K]) checked(ctx context.Context, x []T, rows int, out []T, threads int) error {
	if rows < 0 || len(x) != rows*p.features || len(out) != rows*p.outputs {
		return fmt.Errorf("%d values and %d margins do not make %d rows of %d and %d", len(x), len(out), rows, p.features, p.outputs)
	}
	return p.margins(ctx, x, rows, out, threads)
}

type session struct {
	info     *engine.Info
	outputs  int
	link     Link
	scale    float64
	opt      engine.SessionOptions
	marginer Marginer
}

func (s *session) Run(ctx context.Context, in engine.Values, want []string) (engine.Values, error) {
	spec := &s.info.Inputs[0]
	if len(in) != 1 || in[0].Name != spec.Name || in[0].Tensor == nil {
		return nil, &engine.InputError{Input: spec.Name, Reason: "must be the only input"}
	}
	x := in[0].Tensor
	shape := x.Shape()
	if x.DType() != spec.DType || len(shape) != 2 || shape[1] != spec.Shape[1] {
		return nil, &engine.InputError{Input: spec.Name, Reason: fmt.Sprintf("%s %v is not the model's %s %v", x.DType(), shape, spec.DType, spec.Shape)}
	}
	if len(want) == 0 {
		want = []string{OutputName}
	}
	for _, name := range want {
		if name != OutputName && name != MarginName {
			return nil, &engine.InputError{Input: name, Reason: "the model has no such output"}
		}
	}
	if need := int64(shape[0]) * int64(s.outputs) * int64(spec.DType.Size()) * int64(len(want)); need > s.opt.MaxBytes {
		return nil, fmt.Errorf("run %d rows, whose outputs take %d of %d bytes, the limit of a run (limits.memory of a server): %w", shape[0], need, s.opt.MaxBytes, engine.ErrTooLarge)
	}
	if data := engine.Data[float32](x); data != nil || spec.DType == engine.Float32 {
		return run(ctx, s, data, shape[0], want, Marginer.Margins32)
	}
	return run(ctx, s, engine.Data[float64](x), shape[0], want, Marginer.Margins64)
}

func run[T float](ctx context.Context, s *session, x []T, rows int, want []string,
	margins func(Marginer, context.Context, []T, int, []T, int) error,
) (engine.Values, error) {
	computed := make([]T, rows*s.outputs)
	if err := margins(s.marginer, ctx, x, rows, computed, s.opt.Threads); err != nil {
		return nil, err
	}
	out := make(engine.Values, len(want))
	for i, name := range want {
		data := computed
		if i+1 < len(want) {
			// The last output takes the buffer itself; the link works in place.
			data = append([]T(nil), computed...)
		}
		k := s.outputs
		if name == OutputName {
			data = Apply(s.link, s.scale, data, s.outputs)
			k = s.link.Width(k)
		}
		t, err := shaped(data, rows, k)
		if err != nil {
			return nil, fmt.Errorf("shape output %q: %w", name, err)
		}
		out[i] = engine.Named{Name: name, Tensor: t}
	}
	return out, nil
}

func shaped[T float](data []T, rows, k int) (*engine.Tensor, error) {
	if k == 1 {
		return engine.Of(data, rows)
	}
	return engine.Of(data, rows, k)
}
