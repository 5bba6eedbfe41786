// Package explaintest holds what tests of explanations compare with: Shapley
// values and interactions by enumerating every subset of features, and random
// tree ensembles that use every rule a tree may have.
//
// It is for tests only. It owns no algorithm that the product runs: everything
// here is the definition, spelled out and slow, and guarded to MaxFeatures.
package explaintest

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"

	"github.com/pellucid/pellucid/engine/tree"
)

// MaxFeatures is the largest number of features whose subsets are enumerated.
const MaxFeatures = 12

// Game gives a coalition's worth; bit i of s is set when feature i is in it.
type Game func(s uint) float64

// Margin returns output k's margin of e for row x, summed in float64.
func Margin(e *tree.Ensemble, x []float64, k int) float64 {
	x = rounded(e, x)
	sum := e.Base[k]
	for i := range e.Trees {
		t := &e.Trees[i]
		at := int32(0)
		for n := &t.Nodes[at]; !n.IsLeaf(); n = &t.Nodes[at] {
			at = n.Right
			if t.Left(n, x[n.Feature]) {
				at = n.Left
			}
		}
		sum += leafValue(e, t, at, k)
	}
	return sum
}

// PathGame is the path-dependent game of e at row x for output k, without
// e.Base: a split on an absent feature takes both branches, weighted by cover.
func PathGame(e *tree.Ensemble, x []float64, k int) Game {
	x = rounded(e, x)
	return func(s uint) float64 {
		sum := 0.0
		for i := range e.Trees {
			sum += pathValue(e, &e.Trees[i], 0, x, s, k)
		}
		return sum
	}
}

func pathValue(e *tree.Ensemble, t *tree.Tree, i int32, x []float64, s uint, k int) float64 {
	n := &t.Nodes[i]
	if n.IsLeaf() {
		return leafValue(e, t, i, k)
	}
	if s>>n.Feature&1 == 1 {
		if t.Left(n, x[n.Feature]) {
			return pathValue(e, t, n.Left, x, s, k)
		}
		return pathValue(e, t, n.Right, x, s, k)
	}
	l, r := 0.5, 0.5
	if n.Cover > 0 {
		l, r = t.Nodes[n.Left].Cover/n.Cover, t.Nodes[n.Right].Cover/n.Cover
	}
	return l*pathValue(e, t, n.Left, x, s, k) + r*pathValue(e, t, n.Right, x, s, k)
}

func leafValue(e *tree.Ensemble, t *tree.Tree, i int32, k int) float64 {
	if t.Output < 0 {
		return t.Values[int(i)*e.Outputs+k]
	}
	if t.Output == k {
		return t.Values[i]
	}
	return 0
}

// BackgroundGame is the game of e at row x for output k against background rows
// (row-major), without e.Base: absent features take a background row's values.
func BackgroundGame(e *tree.Ensemble, x, background []float64, k int) Game {
	m := e.Features
	n := len(background) / m
	return func(s uint) float64 {
		sum := 0.0
		mixed := make([]float64, m)
		for row := range n {
			copy(mixed, background[row*m:(row+1)*m])
			for j := range m {
				if s>>j&1 == 1 {
					mixed[j] = x[j]
				}
			}
			sum += Margin(e, mixed, k) - e.Base[k]
		}
		return sum / float64(n)
	}
}

func rounded(e *tree.Ensemble, x []float64) []float64 {
	out := append([]float64(nil), x...)
	if e.Float32 {
		for i, v := range out {
			out[i] = float64(float32(v))
		}
	}
	return out
}

// Shapley returns the Shapley values of a game of m players.
func Shapley(g Game, m int) ([]float64, error) {
	v, err := worths(g, m)
	if err != nil {
		return nil, err
	}
	phi := make([]float64, m)
	for s := range uint(1) << m {
		for i := range m {
			if s>>i&1 == 1 {
				continue
			}
			size := bits.OnesCount(s)
			phi[i] += (v[s|1<<i] - v[s]) * coalitionWeight(size, m-size-1)
		}
	}
	return phi, nil
}

// Interactions returns the Shapley interaction index of every pair of a game of
// m players, halved on either side of the diagonal; the diagonal holds each
// player's Shapley value less its half interactions.
func Interactions(g Game, m int) ([]float64, error) {
	v, err := worths(g, m)
	if err != nil {
		return nil, err
	}
	phi, err := Shapley(g, m)
	if err != nil {
		return nil, err
	}
	out := make([]float64, m*m)
	for i := range m {
		out[i*m+i] = phi[i]
		for j := range m {
			if j == i {
				continue
			}
			half := 0.0
			for s := range uint(1) << m {
				if s>>i&1 == 1 || s>>j&1 == 1 {
					continue
				}
				size := bits.OnesCount(s)
				delta := v[s|1<<i|1<<j] - v[s|1<<i] - v[s|1<<j] + v[s]
				half += delta * coalitionWeight(size, m-size-2) / 2
			}
			out[i*m+j] = half
		}
	}
	for i := range m {
		for j := range m {
			if j != i {
				out[i*m+i] -= out[i*m+j]
			}
		}
	}
	return out, nil
}

func worths(g Game, m int) ([]float64, error) {
	if m > MaxFeatures {
		return nil, fmt.Errorf("enumerate %d features: at most %d", m, MaxFeatures)
	}
	v := make([]float64, 1<<m)
	for s := range v {
		v[s] = g(uint(s))
	}
	return v, nil
}

// coalitionWeight returns a! b! / (a+b+1)!.
func coalitionWeight(a, b int) float64 {
	w := 1 / float64(a+b+1)
	for i := 1; i <= a; i++ {
		w *= float64(i) / float64(b+i)
	}
	return w
}

// Options shape a random ensemble. Zero fields mean the defaults noted.
type Options struct {
	Features, Outputs int // 5 and 1
	Trees, Depth      int // 4 and 4
	// Vector makes vector leaves; Float32 rounds as XGBoost does.
	Vector, Float32 bool
	// Plain keeps to numeric Less splits.
	Plain bool
	// ZeroCovers leaves some subtrees without cover.
	ZeroCovers bool
}

// Ensemble returns a random ensemble of every rule and missing convention, with
// covers, whose features repeat on paths.
func Ensemble(rng *rand.Rand, o Options) *tree.Ensemble {
	o.Features, o.Outputs = orDefault(o.Features, 5), orDefault(o.Outputs, 1)
	o.Trees, o.Depth = orDefault(o.Trees, 4), orDefault(o.Depth, 4)
	e := &tree.Ensemble{
		Features: o.Features, Outputs: o.Outputs, Base: make([]float64, o.Outputs),
		Float32: o.Float32, Covers: tree.CoverCount, Link: tree.LinkIdentity,
	}
	for k := range e.Base {
		e.Base[k] = rng.NormFloat64()
	}
	for i := range o.Trees {
		t := tree.Tree{Output: i % o.Outputs}
		if o.Vector {
			t.Output = -1
		}
		grow(rng, &t, o, 0, float64(100+rng.IntN(900)))
		stride := 1
		if o.Vector {
			stride = o.Outputs
		}
		t.Values = make([]float64, len(t.Nodes)*stride)
		for j := range t.Nodes {
			if !t.Nodes[j].IsLeaf() {
				continue
			}
			for k := range stride {
				t.Values[j*stride+k] = rng.NormFloat64()
			}
		}
		e.Trees = append(e.Trees, t)
	}
	return e
}

func orDefault(v, d int) int {
	if v == 0 {
		return d
	}
	return v
}

func grow(rng *rand.Rand, t *tree.Tree, o Options, depth int, cover float64) int32 {
	at := int32(len(t.Nodes))
	t.Nodes = append(t.Nodes, tree.Node{Cover: cover})
	if depth == o.Depth || depth > 0 && rng.IntN(5) == 0 {
		return at
	}
	n := tree.Node{Cover: cover, Feature: int32(rng.IntN(o.Features)), Threshold: float64(float32(rng.NormFloat64())), DefaultLeft: rng.IntN(2) == 0}
	if !o.Plain {
		n.Rule, n.Missing = tree.Rule(rng.IntN(7)), tree.Missing(rng.IntN(3))
		if n.Rule == tree.Equal || n.Rule == tree.NotEqual || rng.IntN(3) == 0 {
			n.Threshold = float64(rng.IntN(4))
		}
		if n.Rule == tree.InSet {
			n.Set = int32(len(t.Sets))
			t.Sets = append(t.Sets, tree.Bitset{rng.Uint64() & 0xff})
		}
	}
	share := 0.05 + 0.9*rng.Float64()
	if o.ZeroCovers && rng.IntN(4) == 0 {
		share = 0
	}
	n.Left = grow(rng, t, o, depth+1, cover*share)
	n.Right = grow(rng, t, o, depth+1, cover*(1-share))
	t.Nodes[at] = n
	return at
}

// Rows returns n random rows of m features: normal numbers, small whole numbers
// that hit categories and equalities, zeros, and missing values.
func Rows(rng *rand.Rand, n, m int, missing float64) []float64 {
	rows := make([]float64, n*m)
	for i := range rows {
		switch rng.IntN(3) {
		case 0:
			rows[i] = float64(rng.IntN(8))
		default:
			rows[i] = rng.NormFloat64() * 1.5
		}
		if rng.Float64() < missing {
			rows[i] = math.NaN()
		}
	}
	return rows
}
