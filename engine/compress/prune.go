package compress

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// multiplied tells which inputs of an operator are weights that multiply.
var multiplied = map[string][]int{
	"MatMul": {0, 1}, "Gemm": {0, 1}, "Conv": {1}, "ConvTranspose": {1}, "LSTM": {1, 2}, "GRU": {1, 2}, "RNN": {1, 2},
}

// moves hand a weight on to what multiplies by it.
var moves = map[string]bool{"Identity": true, "Transpose": true, "Reshape": true, "Squeeze": true, "Unsqueeze": true, "Cast": true}

// prune sets the smallest elements of each weight matrix to zero, the same share of
// each. Biases, scales and embeddings stay.
func prune(in Input, share float64) (*Result, error) {
	f, err := onnx.Edit(in.Data, in.Dir)
	if err != nil {
		return nil, err
	}
	graphs, err := f.Graphs()
	if err != nil {
		return nil, err
	}
	r := &Result{}
	targets := map[*onnx.Weight]bool{}
	for i := len(graphs) - 1; i >= 0; i-- { // the inner ones first: what they read is made around them
		matrices(graphs[i], targets)
	}
	for _, g := range graphs {
		for _, w := range g.Weights() {
			if !targets[w] || len(w.Shape) < 2 || w.DType != engine.Float32 && w.DType != engine.Float64 {
				continue
			}
			if err := thinOut(g, w, share, r); err != nil {
				return nil, err
			}
		}
	}
	if len(r.Changes) == 0 {
		return nil, refuse("no MatMul, Gemm, Conv or recurrent node has float weights that are not zero yet")
	}
	r.note("Zeros take as much room as other numbers: the file shrinks when it is packed (gzip), and no runtime here is faster for them. Use structured:SHARE for that.")
	r.Data, err = f.Bytes()
	return r, err
}

// thinOut sets the smallest elements of a weight to zero.
func thinOut(g *onnx.File, w *onnx.Weight, share float64, r *Result) error {
	t, err := w.Value()
	if err != nil {
		return err
	}
	o, zeros, err := zeroed(t, share)
	if err != nil || o == nil {
		return err
	}
	if err := g.Replace(w, o); err != nil {
		return err
	}
	r.change(w.Name, "%d of %d elements are zero", zeros, t.Len())
	return nil
}

// matrices marks the weights that something in a graph multiplies by.
func matrices(f *onnx.File, targets map[*onnx.Weight]bool) {
	out := map[string]bool{}
	nodes := f.Nodes()
	for _, n := range nodes {
		if n.Domain != "" {
			continue
		}
		for _, i := range multiplied[n.Op] {
			if i < len(n.Inputs) {
				out[n.Inputs[i]] = true
			}
		}
	}
	// Backwards through what only moves; nodes stand in an order in which each
	// comes after those it reads from.
	for i := len(nodes) - 1; i >= 0; i-- {
		if n := nodes[i]; n.Domain == "" && moves[n.Op] && len(n.Inputs) > 0 && len(n.Outputs) > 0 && out[n.Outputs[0]] {
			out[n.Inputs[0]] = true
		}
	}
	for name := range out {
		if w := f.Weight(name); w != nil {
			targets[w] = true
		}
	}
}

// zeroed returns t with the share of smallest elements zero, or nil where it has
// as many already.
func zeroed(t *engine.Tensor, share float64) (*engine.Tensor, int, error) {
	v, _ := t.Float64s()
	v = slices.Clone(v)
	n := int(math.Round(share * float64(len(v))))
	at := make([]int, len(v))
	for i := range at {
		at[i] = i
	}
	slices.SortStableFunc(at, func(a, b int) int { return cmp.Compare(math.Abs(v[a]), math.Abs(v[b])) })
	changed := false
	for _, i := range at[:n] {
		changed = changed || v[i] != 0
		v[i] = 0
	}
	if !changed {
		return nil, 0, nil
	}
	o, err := floatsLike(t, v, t.Shape())
	return o, n, err
}

// floatsLike is a tensor of t's element type.
func floatsLike(t *engine.Tensor, v []float64, shape []int) (*engine.Tensor, error) {
	if t.DType() == engine.Float64 {
		return engine.Of(v, shape...)
	}
	narrow := make([]float32, len(v))
	for i := range v {
		narrow[i] = float32(v[i])
	}
	return engine.Of(narrow, shape...)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
