package main

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// writeModel makes an XGBoost file of 500 full trees of depth 6 over 30
// features. Its numbers are random: the work of a prediction is not.
func writeModel(dir string) error {
	const trees, depth = 500, 6
	r := rand.New(rand.NewPCG(3, 1))
	list := make([]map[string]any, trees)
	for i := range list {
		list[i] = fullTree(r, i, depth)
	}
	info := make([]int, trees)
	indptr := make([]int, trees+1)
	for i := range indptr {
		indptr[i] = i
	}
	doc := map[string]any{"version": []int{2, 1, 4}, "learner": map[string]any{
		"attributes": map[string]any{}, "feature_names": []string{}, "feature_types": []string{},
		"gradient_booster": map[string]any{"name": "gbtree", "model": map[string]any{
			"gbtree_model_param": map[string]any{"num_parallel_tree": "1", "num_trees": "500"},
			"iteration_indptr":   indptr, "tree_info": info, "trees": list,
		}},
		"learner_model_param": map[string]any{"base_score": "5E-1", "boost_from_average": "1", "num_class": "0", "num_feature": "30", "num_target": "1"},
		"objective":           map[string]any{"name": "binary:logistic", "reg_loss_param": map[string]any{"scale_pos_weight": "1"}},
	}}
	b, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "m.json"), b, 0o600)
}

// fullTree is a complete binary tree, its nodes numbered level by level.
func fullTree(r *rand.Rand, id, depth int) map[string]any {
	n := 1<<(depth+1) - 1
	inner := 1<<depth - 1
	left, right, parents := make([]int, n), make([]int, n), make([]int, n)
	index, kind, byDefault := make([]int, n), make([]int, n), make([]int, n)
	conditions, hessian, change, weights := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
	for i := range n {
		left[i], right[i], parents[i] = -1, -1, (i-1)/2
		conditions[i] = float32(r.NormFloat64() * 0.02)
		hessian[i] = float32(math.Exp2(float64(depth)) / math.Exp2(math.Floor(math.Log2(float64(i+1)))))
		if i < inner {
			left[i], right[i], index[i], change[i] = 2*i+1, 2*i+2, r.IntN(features), 1
			conditions[i] = float32(r.NormFloat64())
		}
	}
	parents[0] = math.MaxInt32
	return map[string]any{
		"id": id, "left_children": left, "right_children": right, "parents": parents, "split_indices": index, "split_type": kind,
		"default_left": byDefault, "split_conditions": conditions, "sum_hessian": hessian, "loss_changes": change, "base_weights": weights,
		"categories": []int{}, "categories_nodes": []int{}, "categories_segments": []int{}, "categories_sizes": []int{},
		"tree_param": map[string]any{"num_deleted": "0", "num_feature": "30", "num_nodes": "127", "size_leaf_vector": "1"},
	}
}
