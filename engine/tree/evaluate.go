package tree

import (
	"context"
	"sync"
	"sync/atomic"
	"unsafe"
)

// lanes is how many walks one kernel call interleaves. Each walk is a chain of
// dependent loads; eight of them hide one another's latency.
const lanes = 8

// blockRows is how many rows are taken through all trees together: enough to
// use each tree while it is in the first-level cache, few enough for the rows
// to stay there too, and the grain at which a run notices that it is cancelled.
const blockRows = 128

// Trees of more than largeTree bytes come out of the third-level cache for every block:
// there a block has up to largeRows rows, in as much room as half of the second level.
const (
	largeTree, largeRows = 64 << 10, 2048
	largeRoom            = 512 << 10
)

// margins computes the margins of rows rows of x into out. The sum of a row
// starts at the base and takes the trees in order, so its bits do not depend on
// the batch or on threads.
func (p *program[T, K]) margins(ctx context.Context, x []T, rows int, out []T, threads int) error {
	size := p.blockSize(rows, threads)
	blocks := (rows + size - 1) / size
	threads = min(max(threads, 1), blocks)
	if threads <= 1 {
		for b := range blocks {
			if err := ctx.Err(); err != nil {
				return err
			}
			p.block(x, b*size, min(size, rows-b*size), out)
		}
		return ctx.Err()
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			for ctx.Err() == nil {
				b := int(next.Add(1)) - 1
				if b >= blocks {
					return
				}
				p.block(x, b*size, min(size, rows-b*size), out)
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

func (p *program[T, K]) blockSize(rows, threads int) int {
	if p.wide != nil && rows >= p.wide.least {
		return wideRows
	}
	var k K
	var s split[K]
	if len(p.splits)/max(1, len(p.trees)) < largeTree/int(unsafe.Sizeof(s)) {
		return blockRows
	}
	room := largeRoom / (max(1, p.features) * int(unsafe.Sizeof(k)))
	// Several blocks a thread, so that none waits long for another.
	share := rows / (4 * max(1, threads))
	return max(blockRows, min(largeRows, room, share)/lanes*lanes)
}

// block computes n rows from first on.
func (p *program[T, K]) block(x []T, first, n int, out []T) {
	x = x[first*p.features : (first+n)*p.features]
	out = out[first*p.outputs : (first+n)*p.outputs]
	for r := range n {
		copy(out[r*p.outputs:], p.base)
	}
	if p.wide != nil && n >= p.wide.least {
		p.wideBlock(x, n, out)
		return
	}
	scratch := p.keySpace(len(x))
	keys := (*scratch)[:len(x)]
	missing := fillKeys(keys, x)
	whole := n - n%lanes
	if whole > 0 {
		for t := range p.trees {
			p.treeOverRows(&p.trees[t], t, x, keys, whole, out, missing)
		}
	}
	for r := whole; r < n; r++ {
		at, end := r*p.features, (r+1)*p.features
		p.rowOverTrees(x[at:end], keys[at:end], out[r*p.outputs:(r+1)*p.outputs], missing)
	}
	p.keys.Put(scratch)
}

// keySpace returns a buffer of n keys or more, to be put back into p.keys.
func (p *program[T, K]) keySpace(n int) *[]K {
	scratch, _ := p.keys.Get().(*[]K)
	if scratch == nil || cap(*scratch) < n {
		scratch = new([]K)
		*scratch = make([]K, n)
	}
	return scratch
}

// treeOverRows adds one tree's leaves to n rows, a multiple of lanes.
func (p *program[T, K]) treeOverRows(c *compiledTree, tree int, x []T, keys []K, n int, out []T, missing bool) {
	if !c.plain {
		for r := range n {
			p.general(tree, x[r*p.features:(r+1)*p.features], out[r*p.outputs:(r+1)*p.outputs])
		}
		return
	}
	var at, base [lanes]int32
	for r := 0; r < n; r += lanes {
		for l := range lanes {
			at[l] = c.root
			base[l] = int32(l * p.features)
		}
		group := keys[r*p.features : (r+lanes)*p.features]
		if missing {
			walkMissing(p.splits, group, &base, &at, c.depth)
		} else {
			walk(p.splits, group, &base, &at, c.depth)
		}
		if c.output < 0 {
			for l := range lanes {
				p.addVector(at[l], out[(r+l)*p.outputs:])
			}
			continue
		}
		o := r*p.outputs + int(c.output)
		for l := range lanes {
			out[o+l*p.outputs] += p.leaves[at[l]]
		}
	}
}

// rowOverTrees adds the leaves of all trees to one row, several trees at a time.
func (p *program[T, K]) rowOverTrees(x []T, keys []K, out []T, missing bool) {
	var at, base [lanes]int32
	for t := 0; t < len(p.trees); t += lanes {
		group := p.trees[t:min(t+lanes, len(p.trees))]
		depth, plain := int32(0), true
		for l := range lanes {
			c := &group[min(l, len(group)-1)]
			at[l] = c.root
			depth = max(depth, c.depth)
			plain = plain && c.plain
		}
		if !plain {
			for l := range group {
				p.treeOverRow(&group[l], t+l, x, keys, out)
			}
			continue
		}
		if missing {
			walkMissing(p.splits, keys, &base, &at, depth)
		} else {
			walk(p.splits, keys, &base, &at, depth)
		}
		for l := range group {
			p.add(&group[l], at[l], out)
		}
	}
}

// treeOverRow adds one tree's leaf to one row, in a group that has both kinds.
func (p *program[T, K]) treeOverRow(c *compiledTree, tree int, x []T, keys []K, out []T) {
	if !c.plain {
		p.general(tree, x, out)
		return
	}
	i := c.root
	for p.splits[i].next != i {
		i = nextMissing(p.splits, keys, 0, i)
	}
	p.add(c, i, out)
}

func (p *program[T, K]) add(c *compiledTree, leaf int32, out []T) {
	if c.output < 0 {
		p.addVector(leaf, out)
		return
	}
	out[c.output] += p.leaves[leaf]
}

func (p *program[T, K]) addVector(leaf int32, out []T) {
	v := p.values[p.vectorAt[leaf]:][:p.outputs]
	for k := range v {
		out[k] += v[k]
	}
}

// general walks a tree in its source form: category sets, equality, zeros that
// count as missing, linear leaves.
func (p *program[T, K]) general(tree int, x, out []T) {
	t := &p.source.Trees[tree]
	i := int32(0)
	for {
		n := &t.Nodes[i]
		if n.IsLeaf() {
			break
		}
		if t.Left(n, float64(x[n.Feature])) {
			i = n.Left
		} else {
			i = n.Right
		}
	}
	if t.Output < 0 {
		for k, v := range t.Values[int(i)*p.outputs:][:p.outputs] {
			out[k] += T(v)
		}
		return
	}
	out[t.Output] += leafValue(t, i, x)
}

func leafValue[T float](t *Tree, leaf int32, x []T) T {
	if t.Linear == nil || len(t.Linear[leaf].Features) == 0 {
		return T(t.Values[leaf])
	}
	l := &t.Linear[leaf]
	sum := l.Const
	for i, f := range l.Features {
		v := float64(x[f])
		if v != v {
			return T(t.Values[leaf])
		}
		// The conversion keeps compilers from fusing the product into the sum.
		sum += float64(l.Coefs[i] * v)
	}
	return T(sum)
}

// fillKeys writes the keys of x and reports whether there is a NaN.
func fillKeys[T float, K key](keys []K, x []T) (missing bool) {
	for i, v := range x {
		keys[i] = K(keyOf(v))
		missing = missing || v != v
	}
	return missing
}
