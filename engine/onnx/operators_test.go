package onnx

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/autodiff"
	"github.com/pellucid/pellucid/engine/graph"
)

// odd are numbers that shapes, indices and sizes should not be.
var odd = []float64{0, 1, -1, 2, 3, 7, -7, 0.5, 1e9, -1e9, 1 << 40, -(1 << 40), math.Inf(1), math.Inf(-1), math.NaN()}

// spoilt returns a tensor like t whose shape or elements may be changed.
func spoilt(r *rand.Rand, t *engine.Tensor) *engine.Tensor {
	if t.DType().IsList() {
		items := slices.Clone(t.Items())
		for i := range items {
			items[i] = spoilt(r, items[i])
		}
		return engine.NewSequence(items)
	}
	shape := slices.Clone(t.Shape())
	switch r.IntN(4) {
	case 0:
		if len(shape) > 0 {
			shape[r.IntN(len(shape))] = r.IntN(4)
		}
	case 1:
		if len(shape) > 0 {
			at := r.IntN(len(shape))
			shape = slices.Delete(shape, at, at+1)
		}
	case 2:
		shape = slices.Insert(shape, r.IntN(len(shape)+1), 1+r.IntN(2))
	}
	o, err := engine.New(t.DType(), shape...)
	if err != nil || o.Len() == 0 || o.Len() > 1<<16 {
		return t
	}
	if t.DType() == engine.String {
		return o
	}
	v, _ := t.Float64s()
	out := make([]float64, o.Len())
	for i := range out {
		if len(v) > 0 {
			out[i] = v[i%len(v)]
		}
		if r.IntN(8) == 0 {
			out[i] = odd[r.IntN(len(odd))]
		}
	}
	wide, err := engine.Of(out, shape...)
	if err != nil {
		return t
	}
	o, err = graph.Cast(wide, t.DType())
	if err != nil {
		return t
	}
	return o
}

// spoil runs a case of the suite on inputs that are not what it is for, and
// differentiates it: it may fail, but not panic, and not run on and on.
func spoil(t *testing.T, files map[string][]byte, seed uint64) {
	p, err := decodeModel(files["model.onnx"])
	if err != nil {
		t.Fatal(err)
	}
	g, err := p.convert("")
	if err != nil {
		return
	}
	r := rand.New(rand.NewPCG(seed, 1))
	var in engine.Values
	var wrt []string
	for i := range g.Inputs {
		s := &g.Inputs[i]
		_, v, err := ReadValue(files[fmt.Sprintf("input_%d.pb", i)], s.DType)
		if err != nil {
			t.Fatal(err)
		}
		s.Shape = nil
		if r.IntN(2) == 0 {
			v = spoilt(r, v)
		}
		if v.DType().IsFloat() {
			wrt = append(wrt, s.Name)
		}
		in = append(in, engine.Named{Name: s.Name, Tensor: v})
	}
	program, err := graph.Compile(g)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	opt := graph.Options{MaxBytes: 1 << 22}
	run, err := program.Run(ctx, opt, in, g.Outputs)
	if err != nil {
		return
	}
	for _, name := range g.Outputs {
		if o := run.Value(name); o.DType().IsFloat() && o.Len() > 0 && len(o.Shape()) > 0 && o.RowLen() > 0 {
			_, _ = autodiff.Gradient(ctx, program, opt, in, engine.Target{Name: name}, wrt)
		}
	}
}

// TestSpoilt gives every operator of the suite inputs that do not fit it.
func TestSpoilt(t *testing.T) {
	cases := nodeArchive(t)
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(4) {
				spoil(t, cases[name], seed)
			}
		})
	}
}

func FuzzOperators(f *testing.F) {
	cases := nodeArchive(f)
	names := slices.Sorted(maps.Keys(cases))
	for i := 0; i < len(names); i += 50 {
		f.Add(uint16(i), uint64(9))
	}
	f.Fuzz(func(t *testing.T, i uint16, seed uint64) { spoil(t, cases[names[int(i)%len(names)]], seed) })
}
