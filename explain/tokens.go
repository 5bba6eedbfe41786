package explain

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/explain/gradient"
)

// tokens is an input of ids that is explained at the vectors they look up: a vector's
// attributions are added up to the one of its id's position, which leaves their sum
// what it was. Integers that are numbers are explained in the same way at the floats that
// they are made.
type tokens struct {
	input      string
	embeddings []engine.Embedding
	// base holds a row of the vectors of the baseline's ids for each embedding; nil
	// means zeros.
	base [][]float64
	// width is the number of elements of a row's vectors.
	width int
	// other says that other inputs look up vectors too, which stay as they are.
	other bool
	// numbers says that the integers are made floats, and look nothing up.
	numbers bool
}

// chooseTokens takes the ids of an input, or where none is named those with the largest
// table.
func (n *network) chooseTokens(ctx context.Context, rows engine.Values, input string) error {
	d, ok := n.session.(engine.Embedder)
	var known []string
	if ok {
		known = d.EmbeddedInputs()
	}
	switch {
	case len(known) == 0:
		return refuse("%s needs an input of floats, or one of integers that are made floats or look up vectors in a constant table; %q has none", n.method, n.version.Name)
	case input == "":
		input = known[0]
	case !slices.Contains(known, input):
		return refuse("input %q is neither of floats nor of integers that are made floats or look up vectors in a constant table, as those of %s do", clip(input), strings.Join(known, ", "))
	}
	t := &tokens{input: input, other: len(known) > 1}
	var err error
	if t.embeddings, err = d.Embeddings(ctx, rows, input); err != nil {
		return fmt.Errorf("explain %q: %w", n.version.Name, err)
	}
	t.numbers = true
	for i := range t.embeddings {
		t.width += t.embeddings[i].Tensor.RowLen()
		t.numbers = t.numbers && t.embeddings[i].Number
	}
	n.tokens = t
	n.attributed = []int{slices.IndexFunc(rows, func(v engine.Named) bool { return v.Name == input })}
	return nil
}

// chooseBaseline takes zeros, or the vectors of the ids that the request gives.
func (t *tokens) chooseBaseline(ctx context.Context, n *network, rows engine.Values, req collector.ExplainRequest) error {
	if len(req.Background) > 0 {
		return refuse("ids have no background: give the baseline's id, or one for each position")
	}
	if n.baseline = "vectors of zeros"; t.numbers {
		n.baseline = "zeros"
	}
	if len(req.Baseline) == 0 {
		return nil
	}
	width := len(n.elements)
	if len(req.Baseline) != 1 && len(req.Baseline) != width {
		return refuse("baseline of %d ids: give one, or one for each of the %d positions", len(req.Baseline), width)
	}
	ids := make([]int64, width)
	for i := range ids {
		v := req.Baseline[i%len(req.Baseline)]
		if v != math.Trunc(v) || math.Abs(v) > 1<<53 {
			return refuse("a baseline of ids must be whole numbers")
		}
		ids[i] = int64(v)
	}
	one, err := takeRow(rows, 0)
	if err != nil {
		return err
	}
	at := n.attributed[0]
	of, err := engine.Of(ids, one[at].Tensor.Shape()...)
	if err != nil {
		return err
	}
	one = slices.Clone(one)
	one[at].Tensor = of
	// Ids that are not INT64 are checked and converted as a caller's would be.
	if one, _, err = engine.Bind(n.version.Info, one); err != nil {
		return refuse("the baseline's ids do not fit: %v", err)
	}
	vectors, err := n.session.(engine.Embedder).Embeddings(ctx, one, t.input)
	if err != nil {
		return refuse("look up the baseline's ids: %v", err)
	}
	for i := range vectors {
		v, _ := vectors[i].Tensor.Float64s()
		t.base = append(t.base, v)
	}
	n.baseline = "vectors of the ids given in the request"
	if t.numbers {
		n.baseline = "given in the request"
	} else if len(req.Baseline) == 1 {
		n.baseline = fmt.Sprintf("the vector of id %d at every position", ids[0])
	}
	return nil
}

// row adds a row's vectors to its inputs, and its baseline to the options: vectors of
// ids that the model adds itself stay as they are.
func (t *tokens) row(one engine.Values, r int, o gradient.Options) (engine.Values, gradient.Options, error) {
	out := slices.Clone(one)
	base := make([]float64, 0, t.width)
	for i := range t.embeddings {
		e := &t.embeddings[i]
		part, err := takeRow(engine.Values{{Name: e.Name, Tensor: e.Tensor}}, r)
		if err != nil {
			return nil, o, err
		}
		out = append(out, part...)
		own, _ := part[0].Tensor.Float64s()
		for k := range own {
			switch {
			case t.of(e, r, k) < 0:
				base = append(base, own[k])
			case t.base != nil:
				base = append(base, t.base[i][k])
			default:
				base = append(base, 0)
			}
		}
	}
	o.Baseline = base
	return out, o, nil
}

// of is the position in row r whose id looked up element k of the row's vectors, -1
// for none.
func (t *tokens) of(e *engine.Embedding, r, k int) int {
	return e.Of[(r*e.Tensor.RowLen()+k)/e.Width]
}

// sum adds up the attributions of vectors for each of a row's positions.
func (t *tokens) sum(phi []float64, r, positions int) []float64 {
	out := make([]float64, positions)
	for i := range t.embeddings {
		e := &t.embeddings[i]
		n := e.Tensor.RowLen()
		for k, v := range phi[:n] {
			if at := t.of(e, r, k); at >= 0 {
				out[at%positions] += v
			}
		}
		phi = phi[n:]
	}
	return out
}

// describe says where the gradient was taken.
func (t *tokens) describe(method string, c *collector.Certificate) {
	nodes := make([]string, len(t.embeddings))
	for i := range nodes {
		nodes[i] = fmt.Sprintf("%q", t.embeddings[i].Node)
	}
	other := " (other inputs' vectors are held as they are)"
	if t.numbers {
		other = " (other inputs are held as they are)"
		c.BaseDefinition += fmt.Sprintf("; taken at the floats that the integers of %q are made (%s)", t.input, strings.Join(nodes, ", "))
	} else {
		c.BaseDefinition += fmt.Sprintf("; taken at the vectors that the ids of %q look up (%s), added up for each id", t.input, strings.Join(nodes, ", "))
	}
	if method == Saliency {
		return
	}
	if method == InputXGradient && !t.numbers {
		c.Baseline = "vectors of zeros"
	}
	if t.other {
		c.Baseline += other
	}
}
