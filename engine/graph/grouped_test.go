package graph

import (
	"context"
	"errors"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// groupedNode runs GroupQueryAttention of two heads over zeros: lengths and the total are
// what a caller says.
func groupedNode(t *testing.T, steps, past int, lengths []int32, total int32, places []int64) error {
	t.Helper()
	zeros := func(shape ...int) *engine.Tensor {
		z, err := engine.New(engine.Float32, shape...)
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	of := func(z *engine.Tensor, err error) *engine.Tensor {
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	batch := len(lengths)
	in := []*engine.Tensor{
		zeros(batch, steps, 8), zeros(batch, steps, 8), zeros(batch, steps, 8), zeros(batch, 2, past, 4), zeros(batch, 2, past, 4),
		of(engine.Of(lengths, batch)), of(engine.Of([]int32{total})), zeros(9, 2), zeros(9, 2), of(engine.Of(places, batch, steps)),
	}
	g := &Graph{Constants: map[string]*engine.Tensor{}, Outputs: []string{"y", "k"}}
	n := &Node{Domain: DomainContrib, Op: "GroupQueryAttention", Version: 1, Outputs: []string{"y", "k"}, Attrs: Attrs{
		"num_heads": {Kind: AttrInt, Int: 2}, "kv_num_heads": {Kind: AttrInt, Int: 2}, "do_rotary": {Kind: AttrInt, Int: 1},
	}}
	for i, v := range in {
		n.Inputs = append(n.Inputs, bodyInput(i))
		g.Inputs = append(g.Inputs, engine.Spec{Name: bodyInput(i), DType: v.DType(), Shape: v.Shape()})
	}
	g.Nodes = []*Node{n}
	p, err := Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Run(context.Background(), Options{MaxBytes: 1 << 20}, bodyValues(in), g.Outputs)
	return err
}

// TestGroupedLengths: lengths come with a request, so what they say is held against the
// shapes before anything is read or made by them.
func TestGroupedLengths(t *testing.T) {
	at := []int64{0, 1, 2}
	if err := groupedNode(t, 3, 4, []int32{6}, 7, at); err != nil {
		t.Errorf("a step behind a past: %v", err)
	}
	if err := groupedNode(t, 3, 4, []int32{1}, 3, at); err != nil {
		t.Errorf("a prompt of a shorter row: %v", err)
	}
	for name, c := range map[string]struct {
		length, total int32
		places        []int64
	}{
		"more than there is":        {6, 8, at},
		"a total that is vast":      {6, 1 << 30, at},
		"less than the steps":       {1, 2, at},
		"a total below none":        {6, -1, at},
		"a row that is too long":    {7, 7, at},
		"a row that ends too early": {1, 5, at},
		"a row below none":          {-3, 3, at},
		"a row of nothing":          {-1, 3, at},
		"the largest":               {1<<31 - 1, 7, at},
		"a place beyond the angles": {6, 7, []int64{0, 9, 1}},
	} {
		if err := groupedNode(t, 3, 4, []int32{c.length}, c.total, c.places); err == nil || errors.Is(err, engine.ErrTooLarge) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
