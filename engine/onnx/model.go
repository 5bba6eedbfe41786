package onnx

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/autodiff"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/tree"
)

// model is an ONNX model that was read.
type model struct {
	info    *engine.Info
	program *graph.Program
	keys    map[string][]string
}

// treeModel is a model whose graph is one tree ensemble over its inputs, or over
// columns made of one of them each.
type treeModel struct {
	*model
	ensemble        *tree.Ensemble
	output, columns string
	features        []int32
}

var _ tree.Preparer = (*treeModel)(nil)

// Columns implements tree.Preparer.
func (m *treeModel) Columns() (string, []int32) { return m.columns, m.features }

// Trees implements tree.Holder. Where the ensemble has one margin and the output
// two columns, the margin is of the second class.
func (m *treeModel) Trees() (*tree.Ensemble, string) { return m.ensemble, m.output }

func (m *model) Info() *engine.Info { return m.info }

func (m *model) NewSession(opt engine.SessionOptions) (engine.Session, error) {
	return &session{model: m, opt: graph.Options{MaxBytes: opt.MaxBytes, Threads: opt.Threads, Arena: &graph.Arena{}}}, nil
}

type session struct {
	model *model
	opt   graph.Options
}

// Run implements engine.Session.
func (s *session) Run(ctx context.Context, in engine.Values, want []string) (engine.Values, error) {
	if len(want) == 0 {
		want = s.model.program.Graph().Outputs
	}
	out, err := s.model.program.Outputs(ctx, s.opt, in, want)
	if err != nil {
		return nil, err
	}
	for i := range out {
		if out[i].Tensor, err = owned(out[i].Tensor, in, s.model.program); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Cost implements engine.Coster. It runs twice: as a caller's runs do, and as the file has
// it, which is what has operations.
func (s *session) Cost(ctx context.Context, in engine.Values) (*engine.Cost, error) {
	p, opt := s.model.program, s.opt
	opt.Arena = nil
	var run, written graph.Cost
	opt.Cost = &run
	r, err := p.Run(ctx, opt, in, p.Graph().Outputs)
	if err != nil {
		return nil, err
	}
	c := &engine.Cost{Peak: run.Peak}
	for _, name := range p.Graph().Outputs {
		c.Outputs = append(c.Outputs, engine.Named{Name: name, Tensor: r.Value(name)})
	}
	written.AsWritten, opt.Cost = true, &written
	if _, err := p.Run(ctx, opt, in, p.Graph().Outputs); err != nil {
		return nil, err
	}
	c.Weights, c.Laid = p.Held()
	c.Operations = written.Operations
	return c, nil
}

// Gradient implements engine.Differentiator.
func (s *session) Gradient(ctx context.Context, in engine.Values, target engine.Target, wrt []string) (*engine.Gradient, error) {
	return autodiff.Gradient(ctx, s.model.program, s.opt, in, target, wrt)
}

// Weighted implements engine.Differentiator.
func (s *session) Weighted(ctx context.Context, in, weights engine.Values, wrt []string) (*engine.Gradient, error) {
	return autodiff.Weighted(ctx, s.model.program, s.opt, in, weights, wrt)
}

// EmbeddedInputs implements engine.Embedder.
func (s *session) EmbeddedInputs() []string { return autodiff.EmbeddedInputs(s.model.program) }

// Embeddings implements engine.Embedder.
func (s *session) Embeddings(ctx context.Context, in engine.Values, input string) ([]engine.Embedding, error) {
	return autodiff.Embeddings(ctx, s.model.program, s.opt, in, input)
}

// Logit implements engine.Differentiator.
func (s *session) Logit(out engine.Target) engine.Target {
	return autodiff.Logit(s.model.program, out)
}

// owned copies a result that shares the memory of an input or of the model, whole or as
// a view, because results are the caller's to keep.
func owned(t *engine.Tensor, in engine.Values, program *graph.Program) (*engine.Tensor, error) {
	shared := t.DType() == engine.Sequence || program.Owns(t) // a list's values may be anyone's
	for i := range in {
		shared = shared || in[i].Tensor == t || graph.SameMemory(in[i].Tensor, t)
	}
	if !shared {
		return t, nil
	}
	return graph.Clone(t)
}

func newModel(p *modelProto, g *graph.Graph, program *graph.Program) (engine.Model, error) {
	info := &engine.Info{Format: "onnx", Inputs: slices.Clone(g.Inputs)}
	for n := len(info.Inputs) - 1; n > 0 && info.Inputs[n].DType == engine.Nothing; n-- {
		info.Inputs, info.Optional = info.Inputs[:n], info.Inputs[n:]
	}
	m := &model{info: info, program: program, keys: p.keysOf(program)}
	for _, v := range p.graph.outputs {
		d, _ := program.Type(v.name)
		if t := graph.TypeOfONNX(v.dtype); v.kind == "tensor" && t != engine.Invalid {
			if d != engine.Invalid && d != t {
				return nil, corrupt("output %q is declared %s, its node makes %s", v.name, t, d)
			}
			d = t
		}
		shape := v.shape
		switch v.kind {
		case "tensor":
		case "sequence":
			shape = []int{-1}
			if p.zipped(v.name) {
				shape = []int{-1, -1}
			} else {
				d = engine.Sequence
			}
		case "optional":
			d, shape = engine.Nothing, nil
		default:
			shape = []int{-1, -1}
		}
		info.Outputs = append(info.Outputs, engine.Spec{Name: v.name, DType: d, Shape: shape})
	}
	settleShapes(info, program)
	w := &walker{program: program}
	if len(p.split) == 0 { // else there are several classifiers
		info.Classes = w.classes(g.Outputs)
	}
	for i := range info.Outputs {
		if s := info.Outputs[i].Shape; len(s) == 2 && s[1] == -1 && len(info.Classes) > 0 && info.Outputs[i].DType.IsFloat() {
			info.Outputs[i].Shape = []int{s[0], len(info.Classes)}
		}
	}
	info.Task = taskOf(info)
	if !p.apart() {
		info.Features = features(info.Inputs, p.metadata)
	}
	if len(info.Inputs) == 1 && info.Features != nil {
		for i, k := range p.keys[info.Inputs[0].Name] {
			info.Features[i].Name = k
		}
	}
	info.Missing = w.missing(g, p.producer)
	markUnread(info, g)
	info.Details = append(append(details(p, g), keyDetails(p, g.Inputs)...), memoryOf(program))
	for _, n := range g.Nodes {
		if n.Domain == graph.DomainLocal && strings.HasSuffix(n.Outputs[0], MarginSuffix) {
			d, _ := program.Type(n.Outputs[0])
			info.Extra = append(info.Extra, engine.Spec{Name: n.Outputs[0], DType: d, Shape: []int{-1, -1}})
		}
	}
	if t, ok := w.ensemble(g, info); ok {
		t.model = m
		return t, nil
	}
	return m, nil
}

func taskOf(info *engine.Info) engine.Task {
	switch n := len(info.Classes); {
	case n == 2:
		return engine.TaskBinary
	case n > 2:
		return engine.TaskMulticlass
	}
	if len(info.Outputs) != 1 || !info.Outputs[0].DType.IsFloat() {
		return engine.TaskOther
	}
	s := info.Outputs[0].Shape
	if len(s) == 1 || len(s) == 2 && s[1] == 1 {
		return engine.TaskRegression
	}
	return engine.TaskOther
}

// apart reports whether the file says that flat inputs differ in length, as the nodes and the
// edges of a graph do: they are no columns of a table. Names that tf2onnx makes up say nothing.
func (p *modelProto) apart() bool {
	first := ""
	for _, v := range p.graph.inputs {
		if len(v.shape) != 1 || v.batch == "" || strings.HasPrefix(v.batch, "unk__") {
			continue
		}
		if first == "" {
			first = v.batch
		}
		if v.batch != first {
			return true
		}
	}
	return false
}

// features names the columns of a tabular model: one float matrix [N, M], or one
// column [N, 1] or [N] an input.
func features(in []engine.Spec, metadata map[string]string) []engine.Feature {
	for _, s := range in {
		if s.DType > engine.String {
			return nil // no type of a column
		}
		if len(s.Shape) > 0 && s.Shape[0] != -1 && s.Shape[0] != 1 {
			return nil // a fixed batch is one request, so its columns have no one value
		}
	}
	if len(in) == 1 && len(in[0].Shape) == 2 && in[0].DType.IsFloat() {
		m := in[0].Shape[1]
		if m < 0 || m > 1<<20 {
			return nil
		}
		names := featureNames(metadata, m)
		if m == 1 && names == nil {
			names = []string{in[0].Name}
		}
		out := make([]engine.Feature, m)
		for i := range out {
			out[i].Name = "f" + strconv.Itoa(i)
			if names != nil {
				out[i].Name = names[i]
			}
		}
		return out
	}
	var out []engine.Feature
	for _, s := range in {
		if len(s.Shape) != 1 && (len(s.Shape) != 2 || s.Shape[1] != 1) {
			return nil
		}
		out = append(out, engine.Feature{Name: s.Name, Categorical: s.DType == engine.String})
	}
	return out
}

// featureNames reads the names from the file's metadata: a JSON list, or words
// between commas.
func featureNames(metadata map[string]string, m int) []string {
	for _, key := range []string{"feature_names", "feature_names_in", "features", "input_features"} {
		text, ok := metadata[key]
		if !ok {
			continue
		}
		var names []string
		if err := json.Unmarshal([]byte(text), &names); err != nil {
			names = strings.Split(text, ",")
		}
		for i := range names {
			names[i] = strings.TrimSpace(names[i])
		}
		sorted := slices.Clone(names)
		slices.Sort(sorted)
		if len(names) == m && len(slices.Compact(sorted)) == m && !slices.Contains(names, "") {
			return names
		}
	}
	return nil
}

// memoryOf says what the program holds.
func memoryOf(program *graph.Program) engine.Detail {
	constants, laid := program.Held()
	return engine.Detail{Name: "memory", Value: fmt.Sprintf("%d bytes: %d of constants and trees, %d of them laid out for kernels", constants+laid, constants, laid)}
}

func details(p *modelProto, g *graph.Graph) []engine.Detail {
	d := []engine.Detail{{Name: "producer", Value: strings.TrimSpace(p.producer + " " + p.producerVersion)}}
	if v, ok := p.opsets[graph.DomainONNX]; ok {
		d = append(d, engine.Detail{Name: "opset", Value: strconv.Itoa(v)})
	}
	if v, ok := p.opsets[graph.DomainML]; ok {
		d = append(d, engine.Detail{Name: "opset ai.onnx.ml", Value: strconv.Itoa(v)})
	}
	count := map[string]int{}
	for _, n := range p.graph.nodes {
		count[n.op]++
	}
	ops := make([]string, 0, len(count))
	for op, n := range count {
		ops = append(ops, fmt.Sprintf("%s x %d", op, n))
	}
	slices.Sort(ops)
	return append(d, engine.Detail{Name: "nodes", Value: strconv.Itoa(len(p.graph.nodes))},
		engine.Detail{Name: "operators", Value: strings.Join(ops, ", ")})
}
