package catboost

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// columnsName is the inner value that the trees of a model with categories read.
const columnsName = "columns"

// blockRows is how many rows are made ready at once.
const blockRows = 512

// model is a model with categories.
type model struct {
	info         *engine.Info
	ensemble     *tree.Ensemble
	evaluator    *tree.Evaluator
	columns      []column
	features     []int32
	shares       [][]int32
	statistics   []*statistic
	combinations []*combination
	// of is the combination of each statistic.
	of []int
}

var (
	_ tree.Sharer = (*model)(nil)
	_ tree.Sized  = (*model)(nil)
)

func (r *reader) newModel(e *tree.Ensemble, info *engine.Info) (engine.Model, error) {
	tree.SetSpecs(info, engine.Float64, e.Features, e.Outputs, e.Link)
	info.Details = append(info.Details, e.Memory())
	info.Inputs = make([]engine.Spec, len(info.Features))
	for i := range info.Features {
		d := engine.Float64
		if info.Features[i].Categorical {
			d = engine.String
		}
		info.Inputs[i] = engine.Spec{Name: info.Features[i].Name, DType: d, Shape: []int{-1}}
	}
	m := &model{info: info, ensemble: e, evaluator: tree.NewEvaluator(e), columns: r.columns.list, statistics: r.ctrs}
	together := false
	for i := range m.columns {
		f := m.columns[i].features
		m.features, m.shares = append(m.features, f[0]), append(m.shares, f)
		together = together || len(f) > 1
	}
	if !together {
		m.shares = nil
	}
	known := map[*combination]int{}
	for _, s := range m.statistics {
		if _, ok := known[s.of]; !ok {
			known[s.of] = len(m.combinations)
			m.combinations = append(m.combinations, s.of)
		}
		m.of = append(m.of, known[s.of])
	}
	return m, nil
}

// Bytes implements tree.Sized.
func (m *model) Bytes() int64 { return m.ensemble.Bytes() }

func (m *model) Info() *engine.Info { return m.info }

func (m *model) Trees() (*tree.Ensemble, string) { return m.ensemble, tree.OutputName }

func (m *model) Columns() (name string, features []int32) { return columnsName, m.features }

func (m *model) Shares() [][]int32 { return m.shares }

func (m *model) NewSession(opt engine.SessionOptions) (engine.Session, error) {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = 1 << 30
	}
	return &session{model: m, opt: opt}, nil
}

type session struct {
	*model
	opt engine.SessionOptions
}

// inputs are a run's rows.
type inputs struct {
	rows    int
	numbers [][]float64 // nil for a category
	texts   [][]string  // nil for a number
}

// row is one row as statistics are computed of it: the numbers by feature, and the
// hashes of the categories.
type row struct {
	numbers []float64
	hashes  []int32
	// combined are the hashes of the combinations.
	combined []uint64
}

func (s *session) Run(ctx context.Context, in engine.Values, want []string) (engine.Values, error) {
	x, err := s.inputs(in)
	if err != nil {
		return nil, err
	}
	if len(want) == 0 {
		want = []string{tree.OutputName}
	}
	width := 0
	for _, name := range want {
		switch name {
		case tree.OutputName, tree.MarginName:
			width += s.ensemble.Outputs
		case columnsName:
			width += len(s.columns)
		default:
			return nil, &engine.InputError{Input: name, Reason: "the model has no such output"}
		}
	}
	block := min(x.rows, blockRows) * max(1, s.opt.Threads)
	if need := (int64(x.rows)*int64(width) + int64(block)*int64(len(s.columns))) * 8; need > s.opt.MaxBytes {
		return nil, fmt.Errorf("run %d rows, which take %d of %d bytes, the limit of a run (limits.memory of a server): %w", x.rows, need, s.opt.MaxBytes, engine.ErrTooLarge)
	}
	out := make(engine.Values, len(want))
	for i, name := range want {
		if out[i], err = s.output(ctx, x, name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *session) inputs(in engine.Values) (*inputs, error) {
	specs := s.info.Inputs
	if len(in) != len(specs) {
		return nil, &engine.InputError{Reason: fmt.Sprintf("%d inputs, the model takes %d", len(in), len(specs))}
	}
	x := &inputs{numbers: make([][]float64, len(in)), texts: make([][]string, len(in))}
	for i := range in {
		t := in[i].Tensor
		if in[i].Name != specs[i].Name || t == nil || t.DType() != specs[i].DType || len(t.Shape()) != 1 {
			return nil, &engine.InputError{Input: specs[i].Name, Reason: fmt.Sprintf("must be input %d, of type %s and shape [-1]", i, specs[i].DType)}
		}
		if i > 0 && t.Rows() != x.rows {
			return nil, &engine.InputError{Input: specs[i].Name, Reason: fmt.Sprintf("has %d rows where %q has %d", t.Rows(), specs[0].Name, x.rows)}
		}
		x.rows = t.Rows()
		x.numbers[i], x.texts[i] = engine.Data[float64](t), engine.Data[string](t)
	}
	return x, nil
}

// output computes one output of all rows.
func (s *session) output(ctx context.Context, x *inputs, name string) (engine.Named, error) {
	k := s.ensemble.Outputs
	if name == columnsName {
		k = len(s.columns)
	}
	data := make([]float64, x.rows*k)
	err := s.blocks(ctx, x.rows, func(r *row, scratch []float64, first, n int) error {
		if name == columnsName {
			s.fill(r, x, first, data[first*k:(first+n)*k])
			return nil
		}
		filled := scratch[:n*len(s.columns)]
		s.fill(r, x, first, filled)
		return s.evaluator.Margins64(ctx, filled, n, data[first*k:(first+n)*k], 1)
	})
	if err != nil {
		return engine.Named{}, err
	}
	if name == tree.OutputName {
		data = tree.Apply(s.ensemble.Link, s.ensemble.LinkScale, data, k)
	}
	shape := []int{x.rows, k}
	if k == 1 && name != columnsName {
		shape = shape[:1]
	}
	t, err := engine.Of(data, shape...)
	return engine.Named{Name: name, Tensor: t}, err
}

// blocks has work done on blocks of rows, by as many goroutines as the session
// may use, which end before it returns.
func (s *session) blocks(ctx context.Context, rows int, work func(r *row, scratch []float64, first, n int) error) error {
	blocks := (rows + blockRows - 1) / blockRows
	threads := min(max(1, s.opt.Threads), max(1, blocks))
	errs := make([]error, threads)
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			r := &row{numbers: make([]float64, len(s.info.Features)), hashes: make([]int32, len(s.info.Features)), combined: make([]uint64, len(s.combinations))}
			scratch := make([]float64, min(rows, blockRows)*len(s.columns))
			for errs[i] == nil && ctx.Err() == nil {
				first := (int(next.Add(1)) - 1) * blockRows
				if first >= rows {
					return
				}
				errs[i] = work(r, scratch, first, min(blockRows, rows-first))
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// fill computes the columns of rows from first on, as many as to has room for.
func (s *session) fill(r *row, x *inputs, first int, to []float64) {
	width := len(s.columns)
	for i := 0; (i+1)*width <= len(to); i++ {
		for f := range r.numbers {
			if texts := x.texts[f]; texts != nil {
				r.hashes[f] = categoryHash(texts[first+i])
			} else {
				r.numbers[f] = x.numbers[f][first+i]
			}
		}
		for j, c := range s.combinations {
			r.combined[j] = c.hash(r)
		}
		out := to[i*width : (i+1)*width]
		for j := range s.columns {
			out[j] = s.value(&s.columns[j], r)
		}
	}
}

func (s *session) value(c *column, r *row) float64 {
	switch c.kind {
	case kindFloat:
		return r.numbers[c.item]
	case kindStatistic:
		return float64(s.statistics[c.item].value(r.combined[s.of[c.item]]))
	}
	if r.hashes[c.item] == c.hash {
		return 1
	}
	return 0
}
