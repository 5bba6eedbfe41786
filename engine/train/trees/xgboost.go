package trees

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// noParent is the parent of a root in XGBoost's files.
const noParent = 1<<31 - 1

// XGBoost writes the model as XGBoost saves its own as JSON: 3.2, or 3.4 where
// categories have names, which earlier ones cut in the wrong places.
func (m *Model) XGBoost() ([]byte, error) {
	kinds := make([]string, m.features)
	for f := range kinds {
		kinds[f] = "float"
		if m.categorical[f] {
			kinds[f] = "c"
		}
	}
	names, err := json.Marshal(m.names)
	if err != nil {
		return nil, fmt.Errorf("write feature names: %w", err)
	}
	types, err := json.Marshal(kinds)
	if err != nil {
		return nil, fmt.Errorf("write feature types: %w", err)
	}
	b := append([]byte(`{"learner":{"attributes":{},"feature_names":`), names...)
	b = append(append(b, `,"feature_types":`...), types...)
	b = append(b, `,"gradient_booster":{"model":{"cats":`...)
	b = m.encodings(b)
	b = append(b, `,"gbtree_model_param":{"num_parallel_tree":"1","num_trees":`...)
	b = append(strconv.AppendQuote(b, strconv.Itoa(len(m.trees))), `},"iteration_indptr":`...)
	b = numbers(b, m.Rounds()+1, func(b []byte, i int) []byte { return strconv.AppendInt(b, int64(i*m.Outputs()), 10) })
	b = append(b, `,"tree_info":`...)
	b = numbers(b, len(m.trees), func(b []byte, i int) []byte { return strconv.AppendInt(b, int64(i%m.Outputs()), 10) })
	b = append(b, `,"trees":`...)
	b = numbers(b, len(m.trees), m.tree)
	b = append(b, `},"name":"gbtree"},"learner_model_param":{"base_score":"`...)
	b = numbers(b, len(m.stored), func(b []byte, i int) []byte { return decimal(b, m.stored[i]) })
	b = append(b, `","boost_from_average":"0","num_class":`...)
	classes := 0
	if m.opt.Loss == Softmax {
		classes = m.opt.Classes
	}
	b = strconv.AppendQuote(b, strconv.Itoa(classes))
	b = append(b, `,"num_feature":`...)
	b = strconv.AppendQuote(b, strconv.Itoa(m.features))
	b = append(b, `,"num_target":"1"},"objective":`...)
	b = append(b, m.objective()...)
	if m.named() {
		return append(b, `},"version":[3,4,0]}`...), nil
	}
	return append(b, `},"version":[3,2,0]}`...), nil
}

// named reports whether categories have names.
func (m *Model) named() bool {
	return slices.ContainsFunc(m.categories, func(names []string) bool { return names != nil })
}

// encodings writes the names of categories: of each feature their bytes after each
// other and where each begins, then where features begin among all names, and the
// order of each one's names.
func (m *Model) encodings(b []byte) []byte {
	if !m.named() {
		return append(b, `{"enc":[],"feature_segments":[],"sorted_idx":[]}`...)
	}
	var order []int
	segments := []int{0}
	integer := func(v []int) func([]byte, int) []byte {
		return func(b []byte, i int) []byte { return strconv.AppendInt(b, int64(v[i]), 10) }
	}
	b = append(b, `{"enc":`...)
	b = numbers(b, m.features, func(b []byte, f int) []byte {
		names := m.categories[f]
		var offsets, bytes []int
		for _, s := range names {
			if len(offsets) == 0 {
				offsets = append(offsets, 0)
			}
			for i := range len(s) {
				bytes = append(bytes, int(int8(s[i])))
			}
			offsets = append(offsets, len(bytes))
		}
		places := make([]int, len(names))
		for i := range places {
			places[i] = i
		}
		slices.SortStableFunc(places, func(i, j int) int { return cmp.Compare(names[i], names[j]) })
		order, segments = append(order, places...), append(segments, len(order)+len(places))
		b = numbers(append(b, `{"offsets":`...), len(offsets), integer(offsets))
		b = numbers(append(b, `,"values":`...), len(bytes), integer(bytes))
		return append(b, '}')
	})
	b = numbers(append(b, `,"feature_segments":`...), len(segments), integer(segments))
	b = numbers(append(b, `,"sorted_idx":`...), len(order), integer(order))
	return append(b, '}')
}

func (m *Model) objective() string {
	switch m.opt.Loss {
	case Logistic:
		return `{"name":"binary:logistic","reg_loss_param":{"scale_pos_weight":"1"}}`
	case Softmax:
		return fmt.Sprintf(`{"name":"multi:softprob","softmax_multiclass_param":{"num_class":"%d"}}`, m.opt.Classes)
	case Poisson:
		return fmt.Sprintf(`{"name":"count:poisson","poisson_regression_param":{"max_delta_step":"%v"}}`, poissonStep)
	case Quantile:
		return fmt.Sprintf(`{"name":"reg:quantileerror","quantile_loss_param":{"quantile_alpha":"[%s]"}}`, decimal(nil, float32(m.opt.Quantile)))
	}
	return `{"name":"reg:squarederror","reg_loss_param":{"scale_pos_weight":"1"}}`
}

// numbers writes an array of n elements.
func numbers(b []byte, n int, element func(b []byte, i int) []byte) []byte {
	b = append(b, '[')
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = element(b, i)
	}
	return append(b, ']')
}

// tree writes one tree.
func (m *Model) tree(b []byte, at int) []byte {
	nodes := m.trees[at]
	parents := make([]int, len(nodes))
	parents[0] = noParent
	for i := range nodes {
		if nodes[i].left != 0 {
			parents[nodes[i].left], parents[nodes[i].right] = i, i
		}
	}
	whole := func(v int) func([]byte) []byte {
		return func(b []byte) []byte { return strconv.AppendInt(b, int64(v), 10) }
	}
	real := func(v float32) func([]byte) []byte { return func(b []byte) []byte { return decimal(b, v) } }
	flag := func(v bool) func([]byte) []byte {
		if v {
			return whole(1)
		}
		return whole(0)
	}
	child := func(n *fitted, v int32) func([]byte) []byte {
		if n.left == 0 {
			return whole(-1)
		}
		return whole(int(v))
	}
	list := func(b []byte, key string, of func(i int, n *fitted) func([]byte) []byte) []byte {
		b = append(append(append(b, '"'), key...), `":`...)
		b = numbers(b, len(nodes), func(b []byte, i int) []byte { return of(i, &nodes[i])(b) })
		return append(b, ',')
	}
	b = list(append(b, '{'), "base_weights", func(_ int, n *fitted) func([]byte) []byte { return real(n.value) })
	b = categories(b, nodes)
	b = list(b, "default_left", func(_ int, n *fitted) func([]byte) []byte { return flag(n.missingLeft) })
	b = append(append(append(b, `"id":`...), strconv.Itoa(at)...), ',')
	b = list(b, "left_children", func(_ int, n *fitted) func([]byte) []byte { return child(n, n.left) })
	b = list(b, "loss_changes", func(_ int, n *fitted) func([]byte) []byte { return real(n.gain) })
	b = list(b, "parents", func(i int, _ *fitted) func([]byte) []byte { return whole(parents[i]) })
	b = list(b, "right_children", func(_ int, n *fitted) func([]byte) []byte { return child(n, n.right) })
	b = list(b, "split_conditions", func(_ int, n *fitted) func([]byte) []byte {
		if n.left == 0 {
			return real(n.value)
		}
		return real(n.threshold)
	})
	b = list(b, "split_indices", func(_ int, n *fitted) func([]byte) []byte { return whole(int(n.feature)) })
	b = list(b, "split_type", func(_ int, n *fitted) func([]byte) []byte { return flag(n.categorical) })
	b = list(b, "sum_hessian", func(_ int, n *fitted) func([]byte) []byte { return real(n.cover) })
	return fmt.Appendf(b, `"tree_param":{"num_deleted":"0","num_feature":"%d","num_nodes":"%d","size_leaf_vector":"1"}}`, m.features, len(nodes))
}

// categories writes the sets of the splits of categories, one after the other.
func categories(b []byte, nodes []fitted) []byte {
	var all, at, begin, size []int
	for i := range nodes {
		if !nodes[i].categorical {
			continue
		}
		at, begin, size = append(at, i), append(begin, len(all)), append(size, len(nodes[i].set))
		for _, c := range nodes[i].set {
			all = append(all, int(c))
		}
	}
	for _, l := range []struct {
		key    string
		values []int
	}{{"categories", all}, {"categories_nodes", at}, {"categories_segments", begin}, {"categories_sizes", size}} {
		b = append(append(append(b, '"'), l.key...), `":`...)
		b = numbers(b, len(l.values), func(b []byte, i int) []byte { return strconv.AppendInt(b, int64(l.values[i]), 10) })
		b = append(b, ',')
	}
	return b
}
