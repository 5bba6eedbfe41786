package graph

import "slices"

// onnxruntime keeps for each output of a row whether a leaf voted for it: one that no
// leaf voted for gets no base value, wins no label, and a second class is then made of
// the first. A file in which that depends on the row is refused by name, since nobody
// can mean it; what follows from the file alone is done as onnxruntime does it.

// vote says which rows have a leaf that votes for an output.
type vote uint8

const (
	voteNever vote = iota
	voteSome
	voteAlways
)

// votes tells for each output whether its leaves are reached: always, where all the
// leaves of some tree vote for it. Ids out of range are reported elsewhere.
func (a *treeAttrs) votes() []vote {
	leaves := map[int64]int{}
	for i, mode := range a.modes {
		if mode == "LEAF" {
			leaves[a.treeIDs[i]]++
		}
	}
	type ballot struct{ tree, node, out int64 }
	cast := make(map[ballot]bool, len(a.leafID))
	count := map[nodeKey]int{} // by tree and output
	out := make([]vote, a.outputs)
	for i, id := range a.leafID {
		b := ballot{a.leafTree[i], a.leafNode[i], id}
		if id < 0 || id >= int64(a.outputs) || cast[b] {
			continue
		}
		cast[b] = true
		out[id] = max(out[id], voteSome)
		key := nodeKey{b.tree, id}
		if count[key]++; count[key] == leaves[b.tree] {
			out[id] = voteAlways
		}
	}
	return out
}

// settleVotes refuses what depends on the votes of a row, and takes the base value of
// a target that none votes for.
func (a *treeAttrs) settleVotes(s *TreeScores) error {
	if s.Aggregate == "MIN" || s.Aggregate == "MAX" {
		if err := a.wholeBallots(); err != nil {
			return err
		}
	}
	if a.n.Attrs["classifier"].Int == 1 {
		return a.settleClasses()
	}
	if len(a.base) != a.outputs || a.outputs == 1 {
		return nil
	}
	for i, v := range a.votes() {
		if a.base[i] == 0 || v == voteAlways {
			continue
		}
		if v == voteSome {
			return a.n.unsupported("a base value of target %d, for which only some leaves have a weight", i)
		}
		a.base = slices.Clone(a.base) // a tensor's may be the file's
		a.base[i] = 0
	}
	return nil
}

func (a *treeAttrs) settleClasses() error {
	if a.outputs == 2 && a.votes()[1] == voteSome {
		return a.n.unsupported("two classes of which the second has weights in some leaves only")
	}
	if a.outputs < 3 || len(a.base) > 0 || a.positive() {
		return nil
	}
	for i, v := range a.votes() {
		if v != voteAlways {
			return a.n.unsupported("weights below 0 and a class %d for which not all leaves have a weight", i)
		}
	}
	return nil
}

// wholeBallots refuses an extreme over trees whose leaves vote for different outputs, or
// for none: such a leaf is not among those the extreme is of.
func (a *treeAttrs) wholeBallots() error {
	if a.oneTarget() {
		return nil
	}
	single := a.singleOutputs()
	votes := map[nodeKey]map[int64]bool{}
	for i, id := range a.leafNode {
		key := nodeKey{a.leafTree[i], id}
		if votes[key] == nil {
			votes[key] = map[int64]bool{}
		}
		votes[key][a.leafID[i]] = true
	}
	for i, mode := range a.modes {
		whole := a.outputs
		if single[a.treeIDs[i]] >= 0 {
			whole = 1
		}
		if mode == "LEAF" && len(votes[nodeKey{a.treeIDs[i], a.nodeIDs[i]}]) != whole {
			return a.n.unsupported("MIN or MAX of leaves that have weights for different outputs")
		}
	}
	return nil
}

// positive reports whether no weight is below 0.
func (a *treeAttrs) positive() bool {
	for _, w := range a.leafWeight {
		if w < 0 {
			return false
		}
	}
	return true
}
