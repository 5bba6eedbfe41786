package treeshap

import (
	"unsafe"

	"github.com/pellucid/pellucid/engine/tree"
)

// bytesOf is what the elements of a slice take.
func bytesOf[T any](s []T) int64 {
	var e T
	return int64(cap(s)) * int64(unsafe.Sizeof(e))
}

// ensembleBytes is what the trees that a Path or a Background holds on to take, which
// outlive their model in a cache.
func ensembleBytes(e *tree.Ensemble) int64 {
	n := bytesOf(e.Trees)
	for i := range e.Trees {
		t := &e.Trees[i]
		n += bytesOf(t.Nodes) + bytesOf(t.Values) + bytesOf(t.Linear) + bytesOf(t.Sets)
		for _, s := range t.Sets {
			n += bytesOf(s)
		}
	}
	return n
}

func (t *pathTree) bytes() int64 {
	return bytesOf(t.nodes) + bytesOf(t.rho) + bytesOf(t.before) + bytesOf(t.after) + t.program.bytes()
}

func (p *program) bytes() int64 {
	return bytesOf(p.ops) + bytesOf(p.sats) + bytesOf(p.leaves) + bytesOf(p.products) + bytesOf(p.rates)
}

func (p *pairPlan) bytes() int64 {
	n := bytesOf(p.pairs) + bytesOf(p.trees)
	for i := range p.trees {
		t := &p.trees[i] // its layout and weights are those of the path's tree
		n += t.program.bytes() + bytesOf(t.entries) + bytesOf(t.ends) + bytesOf(t.gains)
	}
	return n
}

// Bytes is about what p holds. It grows once, when interactions are first asked for.
func (p *Path) Bytes() int64 { return p.held.Load() }

// count says what p holds when it is prepared.
func (p *Path) count() {
	n := ensembleBytes(p.ensemble) + p.router.Bytes() + bytesOf(p.trees) + bytesOf(p.base) + bytesOf(p.columns)
	for i := range p.trees {
		n += p.trees[i].bytes()
	}
	p.held.Store(n)
}

// Bytes is about what b holds.
func (b *Background) Bytes() int64 {
	n := ensembleBytes(b.ensemble) + bytesOf(b.trees) + bytesOf(b.base)
	for i := range b.trees {
		t := &b.trees[i]
		n += bytesOf(t.nodes) + bytesOf(t.leafAt) + bytesOf(t.leaves)
		for k := range t.leaves {
			n += bytesOf(t.leaves[k].patterns) + bytesOf(t.leaves[k].counts)
		}
	}
	return n
}
