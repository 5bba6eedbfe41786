package lightgbm

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// innerKeys and leafKeys are the lists of a tree that have an element for each split,
// or for each leaf.
var (
	innerKeys = map[string]bool{
		"split_feature": true, "split_gain": true, "threshold": true, "decision_type": true, "left_child": true, "right_child": true,
		"internal_value": true, "internal_weight": true, "internal_count": true,
	}
	leafKeys = map[string]bool{"leaf_value": true, "leaf_weight": true, "leaf_count": true}
)

// Cut writes the file in data with less in it: trees from the end left out, and
// subtrees become leaves. What stays, stays as it was written, but for the list of
// the trees' sizes. The file must be one that Read takes, and cut fit the ensemble it
// makes; a model with linear leaves, which is no ensemble of constants, can only lose
// whole trees.
func Cut(data []byte, cut tree.Cut) ([]byte, error) {
	m, err := Read(data)
	if err != nil {
		return nil, err
	}
	scale := 1.0
	if e, ok := tree.Held(m); ok {
		if err := cut.Check(e); err != nil {
			return nil, err
		}
	} else if len(cut.Leaves) > 0 {
		return nil, &engine.UnsupportedError{What: "cutting trees with linear leaves"}
	}
	head, blocks, tail, err := split(data)
	if err != nil {
		return nil, err
	}
	p := &parser{data: head}
	p.line()
	f := p.block(nil)
	per, err := f.count("num_tree_per_iteration", 1, tree.MaxOutputs)
	if err != nil {
		return nil, err
	}
	if cut.Keep < 1 || cut.Keep > len(blocks) || cut.Keep%per != 0 {
		return nil, fmt.Errorf("%d trees are no whole number of iterations of %d, of %d trees", cut.Keep, per, len(blocks))
	}
	if _, average := f["average_output"]; average {
		// The reader divided the leaves by the iterations.
		scale = float64(len(blocks) / per)
	}
	blocks = blocks[:cut.Keep]
	for i := range blocks {
		leaves := cut.Of(i)
		if len(leaves) == 0 {
			continue
		}
		if blocks[i], err = cutTree(blocks[i], leaves, scale); err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
	}
	out := sized(head, blocks)
	for _, b := range blocks {
		out = append(out, b...)
	}
	return append(out, tail...), nil
}

// split takes a file apart: up to the first tree, each tree with what is behind it,
// and from what ends the trees on. It goes from block to block as the reader does, for
// which "Tree=" within a block begins none.
func split(data []byte) (head []byte, blocks [][]byte, tail []byte, err error) {
	p := &parser{data: data}
	p.line()
	version := string(p.block(nil)["version"])
	from, in := 0, false
	for !p.done() {
		at := p.pos
		line := bytes.TrimSpace(p.line())
		end := endsTrees(line, version)
		if !end && !bytes.HasPrefix(line, []byte("Tree=")) {
			continue
		}
		if in {
			blocks = append(blocks, data[from:at:at])
		} else {
			head = data[:at:at]
		}
		from, in = at, true
		if end {
			return head, blocks, data[at:], nil
		}
		p.block(nil)
	}
	return nil, nil, nil, corruptf("the file ends before \"end of trees\"")
}

// sized writes the head with the sizes of the trees that follow, by which LightGBM
// finds them.
func sized(head []byte, blocks [][]byte) []byte {
	var out []byte
	p := &parser{data: head}
	for !p.done() {
		from := p.pos
		line := p.line()
		if !bytes.HasPrefix(line, []byte("tree_sizes=")) {
			out = append(out, head[from:p.pos]...)
			continue
		}
		out = append(out, "tree_sizes="...)
		for i, b := range blocks {
			if i > 0 {
				out = append(out, ' ')
			}
			out = strconv.AppendInt(out, int64(len(b)), 10)
		}
		out = append(out, head[from+len(line):p.pos]...)
	}
	return out
}

// blockCut is one tree on its way to fewer nodes.
type blockCut struct {
	a *treeFields
	f fields
	// inner and leaves list what the file calls the nodes that stay, in their new
	// order: below 0 a leaf's complement, else a split, which as a leaf has a value.
	inner, leaves []int32
	left, right   map[int32]int32
	value         map[int32]float64
}

func cutTree(block []byte, leaves map[int32][]float64, scale float64) ([]byte, error) {
	p := &parser{data: block}
	p.line()
	f := p.block(nil)
	a, err := parseTree(f)
	if err != nil {
		return nil, err
	}
	c := &blockCut{a: a, f: f, left: map[int32]int32{}, right: map[int32]int32{}, value: map[int32]float64{}}
	// As readTree numbers them: breadth first.
	refs := []int32{0}
	for i := 0; i < len(refs); i++ {
		if v, ok := leaves[int32(i)]; ok {
			c.value[refs[i]] = v[0] * scale
		}
		if refs[i] >= 0 {
			refs = append(refs, a.left[refs[i]], a.right[refs[i]])
		}
	}
	c.number()
	return c.write(block)
}

// number gives what stays its numbers, breadth first from the root.
func (c *blockCut) number() {
	name := func(ref int32) int32 {
		if _, cut := c.value[ref]; cut || ref < 0 {
			c.leaves = append(c.leaves, ref)
			return ^int32(len(c.leaves) - 1)
		}
		c.inner = append(c.inner, ref)
		return int32(len(c.inner) - 1)
	}
	name(0)
	for i := 0; i < len(c.inner); i++ {
		ref := c.inner[i]
		c.left[ref] = name(c.a.left[ref])
		c.right[ref] = name(c.a.right[ref])
	}
}

// write writes the block anew, line by line.
func (c *blockCut) write(block []byte) ([]byte, error) {
	var out []byte
	p := &parser{data: block}
	for !p.done() {
		from := p.pos
		line := p.line()
		end := block[from+len(line) : p.pos]
		key, value, _ := bytes.Cut(line, []byte("="))
		words := bytes.Fields(value)
		switch name := string(key); {
		case name == "num_leaves":
			line = fmt.Appendf(nil, "num_leaves=%d", len(c.leaves))
		case innerKeys[name] && len(words) > 0:
			if len(words) != c.a.leaves-1 {
				return nil, corruptf("%q has %d elements for %d splits", name, len(words), c.a.leaves-1)
			}
			line = c.list(name, c.inner, words)
		case leafKeys[name] && len(words) > 0:
			if len(words) != c.a.leaves {
				return nil, corruptf("%q has %d elements for %d leaves", name, len(words), c.a.leaves)
			}
			line = c.list(name, c.leaves, words)
		}
		out = append(append(out, line...), end...)
	}
	return out, nil
}

// list writes one list of the nodes in refs.
func (c *blockCut) list(name string, refs []int32, words [][]byte) []byte {
	out := append([]byte(name), '=')
	for i, ref := range refs {
		if i > 0 {
			out = append(out, ' ')
		}
		value, cut := c.value[ref]
		switch {
		case name == "left_child":
			out = strconv.AppendInt(out, int64(c.left[ref]), 10)
		case name == "right_child":
			out = strconv.AppendInt(out, int64(c.right[ref]), 10)
		case name == "leaf_value" && cut:
			out = strconv.AppendFloat(out, value, 'g', -1, 64)
		case leafKeys[name] && cut:
			out = append(out, c.inside(name, int(ref))...)
		case leafKeys[name]:
			out = append(out, words[^ref]...)
		default:
			out = append(out, words[ref]...)
		}
	}
	return out
}

// inside is what a split that becomes a leaf weighed or counted.
func (c *blockCut) inside(name string, split int) []byte {
	key := map[string]string{"leaf_weight": "internal_weight", "leaf_count": "internal_count"}[name]
	if words := bytes.Fields(c.f[key]); split < len(words) {
		return words[split]
	}
	return []byte("0")
}

// Count returns how many trees the file in data holds.
func Count(data []byte) (int, error) {
	_, blocks, _, err := split(data)
	return len(blocks), err
}

// Round returns how many trees of the file in data are one iteration.
func Round(data []byte) (int, error) {
	p := &parser{data: data}
	p.line()
	return p.block(nil).count("num_tree_per_iteration", 1, tree.MaxOutputs)
}
