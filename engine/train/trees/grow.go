package trees

import (
	"container/heap"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// node is a node of a tree being grown; a leaf has no left child.
type node struct {
	left, right int32
	depth       int
	from, to    int // its rows
	sum         sum
	bounds      bounds
	split       split
	goesRight   *[256]uint8 // by bin, of an inner node
	value       float32     // of a leaf; of an inner node what it would be as one
}

// candidate is a leaf that may be split.
type candidate struct {
	node  int32
	depth int
	split split
	hist  []sum // nil where there was no room for it
}

// candidates is a heap of them, the next to be split first.
type candidates struct {
	list     []candidate
	leafWise bool
}

func (c *candidates) Len() int      { return len(c.list) }
func (c *candidates) Swap(i, j int) { c.list[i], c.list[j] = c.list[j], c.list[i] }
func (c *candidates) Push(v any)    { c.list = append(c.list, v.(candidate)) }

func (c *candidates) Less(i, j int) bool {
	a, b := &c.list[i], &c.list[j]
	if c.leafWise && a.split.gain != b.split.gain {
		return a.split.gain > b.split.gain
	}
	if !c.leafWise && a.depth != b.depth {
		return a.depth < b.depth
	}
	return a.node < b.node
}

func (c *candidates) Pop() any {
	last := c.list[len(c.list)-1]
	c.list[len(c.list)-1] = candidate{}
	c.list = c.list[:len(c.list)-1]
	return last
}

// grower grows one tree after the other over the same bins.
type grower struct {
	opt *Options
	// bounded says that leaves have bounds.
	bounded bool
	bins    *binned
	locals  []*local
	packed  []int64 // gradients of each row
	scale   scale
	rows    []int32 // of the tree, by node
	temp    []int32
	// features are those that the tree may use, in order; blocks says which blocks of
	// them have any.
	features []int
	blocks   []bool
	// levels are those that each depth may use, drawn from stream as it is reached.
	levels [][]int
	stream uint64
	nodes  []node
	free   [][]sum // histograms not in use
	made   int     // histograms there are
	most   int     // histograms there may be
}

func newGrower(o *Options, b *binned, most int) *grower {
	t := &grower{opt: o, bounded: o.Monotone != nil || o.Loss == Poisson, bins: b, most: most, blocks: make([]bool, b.stride/block)}
	t.packed = make([]int64, b.rows)
	t.temp = make([]int32, b.rows)
	for range o.Threads {
		t.locals = append(t.locals, newLocal(b))
	}
	return t
}

func (t *grower) used(at int) bool { return t.blocks[at/block] }

// histogram returns one to be filled, nil where there is no room.
func (t *grower) histogram() []sum {
	if n := len(t.free); n > 0 {
		h := t.free[n-1]
		t.free = t.free[:n-1]
		return h
	}
	if t.made >= t.most {
		return nil
	}
	t.made++
	return make([]sum, t.bins.width(t.opt))
}

func (t *grower) release(h []sum) {
	if h != nil {
		t.free = append(t.free, h)
	}
}

// grow grows a tree over t.rows with the features t.features.
func (t *grower) grow(ctx context.Context) error {
	clear(t.blocks)
	t.levels = t.levels[:0]
	for _, f := range t.features {
		t.blocks[f/block] = true
	}
	t.nodes = append(t.nodes[:0], node{to: len(t.rows), bounds: t.opt.rootBounds()})
	queue := &candidates{leafWise: t.opt.Growth == LeafWise}
	defer func() {
		for _, c := range queue.list {
			t.release(c.hist)
		}
	}()
	root := t.histogram()
	t.build(root, t.rows)
	c := &t.bins.cut[t.features[0]]
	for _, v := range root[c.first : c.first+c.values+1] {
		t.nodes[0].sum = t.nodes[0].sum.plus(v)
	}
	t.offer(queue, 0, root)
	for leaves := 1; leaves < t.opt.MaxLeaves && queue.Len() > 0; leaves++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, _ := heap.Pop(queue).(candidate)
		t.part(&c)
		if t.nodes[c.node].depth+1 >= t.opt.MaxDepth || leaves+1 >= t.opt.MaxLeaves {
			t.release(c.hist)
			continue
		}
		t.descend(queue, &c)
	}
	return nil
}

// level returns the features that splits of leaves at a depth may use.
func (t *grower) level(depth int) []int {
	if t.opt.LevelShare >= 1 {
		return t.features
	}
	for d := len(t.levels); d <= depth; d++ {
		t.levels = append(t.levels, pick(t.features, t.opt.LevelShare, rand.New(rand.NewPCG(t.stream, uint64(d)))))
	}
	return t.levels[depth]
}

// pick draws a share of features, at least one, and keeps their order.
func pick(features []int, share float64, random *rand.Rand) []int {
	picked := slices.Clone(features)
	random.Shuffle(len(picked), func(i, j int) { picked[i], picked[j] = picked[j], picked[i] })
	picked = picked[:max(int(math.Ceil(share*float64(len(picked)))), 1)]
	slices.Sort(picked)
	return picked
}

// offer puts a leaf into the queue where it has a split. It takes hist.
func (t *grower) offer(queue *candidates, at int32, hist []sum) {
	n := &t.nodes[at]
	s := t.find(hist, n)
	if s.gain <= 0 {
		t.release(hist)
		return
	}
	if len(t.free)+t.most-t.made < 2 {
		t.release(hist) // the next to be split needs two
		hist = nil
	}
	heap.Push(queue, candidate{node: at, depth: n.depth, split: s, hist: hist})
}

// part splits a leaf.
func (t *grower) part(c *candidate) {
	n := t.nodes[c.node]
	n.split = c.split
	n.goesRight = t.bins.table(&n.split)
	n.left, n.right = int32(len(t.nodes)), int32(len(t.nodes)+1)
	middle := t.partition(n.from, n.to, n.split.feature, n.goesRight)
	left := node{depth: n.depth + 1, from: n.from, to: middle, sum: n.split.left, bounds: n.bounds}
	right := node{depth: n.depth + 1, from: middle, to: n.to, sum: n.split.right, bounds: n.bounds}
	if m := t.opt.Monotone; m != nil && m[n.split.feature] != 0 {
		gl, hl := t.scale.values(left.sum)
		gr, hr := t.scale.values(right.sum)
		between := (t.weight(gl, hl, n.bounds) + t.weight(gr, hr, n.bounds)) / 2
		if m[n.split.feature] > 0 {
			left.bounds.high, right.bounds.low = between, between
		} else {
			left.bounds.low, right.bounds.high = between, between
		}
	}
	t.nodes[c.node] = n
	t.nodes = append(t.nodes, left, right)
}

// table says of each bin whether it goes right.
func (b *binned) table(s *split) *[256]uint8 {
	var out [256]uint8
	c := &b.cut[s.feature]
	if c.categorical {
		for _, bin := range s.set {
			out[bin] = 1
		}
	} else {
		for bin := s.bin; bin < c.values; bin++ {
			out[bin] = 1
		}
	}
	if !s.missingLeft {
		out[c.values] = 1
	}
	return &out
}

// partition puts the rows from..to that go left before those that go right, each in
// their order, and returns where these begin.
func (t *grower) partition(from, to, f int, goesRight *[256]uint8) int {
	column := t.bins.byColumn[f*t.bins.rows : (f+1)*t.bins.rows]
	type share struct{ from, left, right int }
	shares := make([]share, len(t.locals))
	spread(to-from, len(t.locals), 4*packRows, func(p, a, b int) {
		rows, right := t.rows[from+a:from+b], t.temp[from+a:from+b]
		nl, nr := 0, 0
		for _, r := range rows {
			rows[nl], right[nr] = r, r
			g := int(goesRight[column[r]])
			nr += g
			nl += 1 - g
		}
		shares[p] = share{from + a, nl, nr}
	})
	at := from
	for _, s := range shares {
		at += copy(t.rows[at:], t.rows[s.from:s.from+s.left])
	}
	middle := at
	for _, s := range shares {
		at += copy(t.rows[at:], t.temp[s.from:s.from+s.right])
	}
	return middle
}

// descend finds the splits of the two leaves that c was split into: the histogram of
// the smaller is summed, that of the other is what is left of their parent's.
func (t *grower) descend(queue *candidates, c *candidate) {
	n := &t.nodes[c.node]
	small, large := n.left, n.right
	if t.size(small) > t.size(large) {
		small, large = large, small
	}
	hist := t.histogram()
	t.build(hist, t.rows[t.nodes[small].from:t.nodes[small].to])
	rest := c.hist
	if rest == nil {
		rest = t.histogram()
		t.build(rest, t.rows[t.nodes[large].from:t.nodes[large].to])
	} else {
		for i, v := range hist {
			rest[i] = rest[i].minus(v)
		}
	}
	t.offer(queue, small, hist)
	t.offer(queue, large, rest)
}

func (t *grower) size(at int32) int { return t.nodes[at].to - t.nodes[at].from }

// leafOf returns the leaf that a row of bins reaches.
func leafOf(nodes []node, bins []uint8) *node {
	n := &nodes[0]
	for n.left != 0 {
		if n.goesRight[bins[n.split.feature]] == 0 {
			n = &nodes[n.left]
		} else {
			n = &nodes[n.right]
		}
	}
	return n
}

// histograms is how many there may be within bytes.
func histograms(o *Options, b *binned, bytes int64) (int, error) {
	const least = 4
	each := int64(b.width(o)) * 16
	n := (bytes - int64(o.Threads)*(each+int64(b.stride)*256*8)) / each
	if n < least {
		return 0, fmt.Errorf("histograms of %d bins: %w", b.total, engine.ErrTooLarge)
	}
	return int(min(n, math.MaxInt32)), nil
}
