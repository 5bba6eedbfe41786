package tree

import (
	"math/rand/v2"
	"testing"
)

// TestRouter holds a router's decisions to Tree.Left.
func TestRouter(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for turn := range 120 {
		e := randomEnsemble(r, turn%2 == 0, turn%3 == 0, 1+turn%2)
		router := NewRouter(e)
		in := router.NewInput()
		rows := []int{1, 5, 64, 100, 511, RouterRows}[turn%6]
		x := make([]float64, rows*e.Features)
		for i := range x {
			x[i] = round(e, r.NormFloat64())
			if r.IntN(2) == 0 {
				x[i] = round(e, specials[r.IntN(len(specials))])
			}
		}
		router.Fill(in, x)
		for i := range e.Trees {
			checkRouter(t, e, router, in, i, x, rows)
		}
	}
}

func checkRouter(t *testing.T, e *Ensemble, router *Router, in *RouterInput, tree int, x []float64, rows int) {
	t.Helper()
	tr := &e.Trees[tree]
	planes := make([]Plane, len(tr.Nodes))
	router.Left(in, tree, planes)
	inner := 0
	for j := range tr.Nodes {
		n := &tr.Nodes[j]
		if n.IsLeaf() {
			continue
		}
		for row := range rows {
			got, want := planes[inner][row/64]>>(row%64)&1 == 1, tr.Left(n, x[row*e.Features+int(n.Feature)])
			if got != want {
				t.Fatalf("tree %d node %d (%+v) value %v: left is %v, want %v", tree, j, *n, x[row*e.Features+int(n.Feature)], got, want)
			}
		}
		inner++
	}
}
