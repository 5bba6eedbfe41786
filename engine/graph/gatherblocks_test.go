package graph

import (
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestGatherBlocksRefuses inputs that do not fit together.
func TestGatherBlocksRefuses(t *testing.T) {
	of := func(x *engine.Tensor, err error) *engine.Tensor {
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	codes, scales, index := of(engine.Of(make([]uint8, 7*8), 7, 8)), of(engine.Of(make([]float32, 7), 7, 1)), of(engine.Of([]int64{6}, 1))
	for name, in := range map[string][]*engine.Tensor{
		"codes of floats":      {of(engine.Of(make([]float32, 56), 7, 8)), index, scales},
		"one axis":             {of(engine.Of(make([]uint8, 8), 8)), index, scales},
		"scales of other rows": {codes, index, of(engine.Of(make([]float32, 6), 6, 1))},
		"more blocks":          {codes, index, of(engine.Of(make([]float32, 14), 7, 2))},
		"scales of integers":   {codes, index, of(engine.Of(make([]int64, 7), 7, 1))},
		"zeros of two blocks":  {codes, index, scales, of(engine.Of(make([]uint8, 14), 7, 2))},
		"signed zeros":         {codes, index, scales, of(engine.Of(make([]int8, 7), 7, 1))},
		"an index outside":     {codes, of(engine.Of([]int64{7}, 1)), scales},
		"indices of floats":    {codes, of(engine.Of([]float32{1}, 1)), scales},
	} {
		g := &gatherBlocks{block: 16, bits: 4, last: 1}
		if out, err := g.run(&Exec{limit: 1 << 20}, in); err == nil {
			t.Errorf("%s: %v", name, out[0].Shape())
		}
	}
	g := &gatherBlocks{block: 16, bits: 4, last: 1}
	if out, err := g.run(&Exec{limit: 1 << 20}, []*engine.Tensor{codes, index, scales}); err != nil || len(out[0].Shape()) != 2 || out[0].Len() != 16 {
		t.Errorf("as they fit: %v, %v", out, err)
	}
}
