// Package lightgbm reads the text models that LightGBM saves, format v2 (LightGBM 2.0 to 2.2), v3 and v4,
// which differ in nothing that prediction needs.
//
// It owns the parser and the translation into engine/tree, with LightGBM's
// conventions: float64 throughout, x <= threshold goes left, three kinds of
// missing value a split, category sets that go left, row counts as covers, no
// base besides what the first trees hold. It never trains and never explains.
// It uses all trees of the file; LightGBM itself saves only those up to
// best_iteration.
//
// Invariants: a file is data from a stranger; memory is bounded by a small
// multiple of its length, and damage is an error that wraps engine.ErrCorrupt.
// What the engine does not have is refused by name (*engine.UnsupportedError).
package lightgbm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// Format is what Info.Format says of these models.
const Format = "lightgbm"

// maxTrees bounds the number of trees.
const maxTrees = 1 << 22

// Read returns the model in data.
func Read(data []byte) (engine.Model, error) {
	p := &parser{data: data}
	if first := p.line(); string(first) != "tree" {
		return nil, corruptf("not a LightGBM text model: the first line is not \"tree\"")
	}
	head := p.block(nil)
	h, err := readHeader(head)
	if err != nil {
		return nil, err
	}
	e := &tree.Ensemble{
		Features: len(h.features), Outputs: h.outputs, Base: make([]float64, h.outputs),
		Covers: tree.CoverCount, Link: h.objective.link, LinkScale: h.objective.scale,
	}
	if err := readTrees(p, h, e); err != nil {
		return nil, err
	}
	if h.average {
		average(e, len(e.Trees)/h.outputs)
	}
	if err := e.Validate(); err != nil {
		return nil, err
	}
	if err := h.readTail(p); err != nil {
		return nil, err
	}
	h.markCategorical(e)
	return tree.NewModel(e, h.info(len(e.Trees))), nil
}

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", engine.ErrCorrupt, fmt.Sprintf(format, args...))
}

// short bounds what an error repeats of a file's text.
func short(s string) string {
	if len(s) <= 64 {
		return s
	}
	return s[:64] + "..."
}

// average folds a forest's division by its iterations into the leaves.
func average(e *tree.Ensemble, iterations int) {
	n := float64(max(iterations, 1))
	for i := range e.Trees {
		t := &e.Trees[i]
		for j := range t.Values {
			t.Values[j] /= n
		}
		for j := range t.Linear {
			t.Linear[j].Const /= n
			for c := range t.Linear[j].Coefs {
				t.Linear[j].Coefs[c] /= n
			}
		}
	}
}

// header is what the head and the tail of a file say.
type header struct {
	version   string
	outputs   int
	trees     int // as announced by tree_sizes; -1 where it is absent
	average   bool
	objective objective
	features  []engine.Feature
	codes     []int // one more than the largest category code of each feature
	boosting  string
}

func readHeader(head fields) (*header, error) {
	h := &header{version: string(head["version"]), trees: -1}
	if h.version != "v2" && h.version != "v3" && h.version != "v4" {
		return nil, &engine.UnsupportedError{What: "LightGBM text format", Version: short(h.version), Reason: "only v2, v3 and v4 are read"}
	}
	var err error
	if h.outputs, err = head.count("num_tree_per_iteration", 1, tree.MaxOutputs); err != nil {
		return nil, err
	}
	last, err := head.count("max_feature_idx", 0, tree.MaxFeatures-1)
	if err != nil {
		return nil, err
	}
	_, h.average = head["average_output"]
	if h.objective, err = readObjective(string(head["objective"])); err != nil {
		return nil, err
	}
	if sizes, ok := head["tree_sizes"]; ok {
		h.trees = len(bytes.Fields(sizes))
	}
	names := strings.Fields(string(head["feature_names"]))
	infos := strings.Fields(string(head["feature_infos"]))
	if len(names) != last+1 || len(infos) != 0 && len(infos) != last+1 {
		return nil, corruptf("%d feature names and %d feature infos for %d features", len(names), len(infos), last+1)
	}
	h.features, h.codes = make([]engine.Feature, last+1), make([]int, last+1)
	for i := range h.features {
		h.features[i].Name = names[i]
		// "[low:high]" is numeric, "none" constant, "0:2:1" a list of categories.
		h.features[i].Categorical = len(infos) > 0 && infos[i] != "none" && !strings.HasPrefix(infos[i], "[")
		if h.features[i].Categorical {
			h.codes[i] = codesOf(infos[i])
		}
	}
	return h, nil
}

// codesOf is one more than the largest code of a list like "0:2:1".
func codesOf(info string) int {
	n := 0
	for part := range strings.SplitSeq(info, ":") {
		if c, err := strconv.Atoi(part); err == nil {
			n = max(n, min(c, tree.MaxNodes)+1)
		}
	}
	return n
}

// readTail reads what follows the trees: the parameters and, from Python, the
// names of pandas categories.
func (h *header) readTail(p *parser) error {
	var categorical []int
	for !p.done() {
		line := p.line()
		if rest, ok := bytes.CutPrefix(line, []byte("[boosting: ")); ok {
			h.boosting = string(bytes.TrimSuffix(rest, []byte("]")))
		}
		if rest, ok := bytes.CutPrefix(line, []byte("[categorical_feature: ")); ok {
			categorical = indexes(string(bytes.TrimSuffix(rest, []byte("]"))), len(h.features))
		}
		rest, ok := bytes.CutPrefix(line, []byte("pandas_categorical:"))
		if !ok {
			continue
		}
		var lists [][]any
		d := json.NewDecoder(bytes.NewReader(rest))
		d.UseNumber()
		if err := d.Decode(&lists); err != nil {
			return corruptf("pandas_categorical is not a list of lists")
		}
		h.nameCategories(categorical, lists)
	}
	return nil
}

// indexes parses "0,3"; nil where that is not a list of feature indexes.
func indexes(list string, n int) []int {
	var out []int
	for part := range strings.SplitSeq(list, ",") {
		i, err := strconv.Atoi(part)
		if err != nil || i < 0 || i >= n || len(out) == n {
			return nil
		}
		out = append(out, i)
	}
	return out
}

// nameCategories gives the categorical features the names that pandas had. The
// file holds one list for each pandas column of that kind, in order, but not
// which columns those were. The parameter categorical_feature tells, unless
// ordered columns, which count as numeric, had lists too: then the numbers
// differ and the names stay unknown, for a wrong name would be worse. Nor are names
// taken where a feature has more codes than its list has names: the lists are then
// of other columns.
func (h *header) nameCategories(columns []int, lists [][]any) {
	if len(columns) != len(lists) {
		columns = nil
		for i := range h.features {
			if h.features[i].Categorical {
				columns = append(columns, i)
			}
		}
	}
	if len(columns) != len(lists) {
		return
	}
	for i, f := range columns {
		if h.codes[f] > len(lists[i]) {
			return
		}
	}
	for i, f := range columns {
		h.features[f].Categorical = true
		names := make([]string, len(lists[i]))
		for j, v := range lists[i] {
			names[j] = fmt.Sprint(v)
			if b, ok := v.(bool); ok {
				names[j] = map[bool]string{true: "True", false: "False"}[b] // as Python writes it
			}
		}
		h.features[f].Categories = names
	}
}

func (h *header) markCategorical(e *tree.Ensemble) {
	for i := range e.Trees {
		for j := range e.Trees[i].Nodes {
			if n := &e.Trees[i].Nodes[j]; !n.IsLeaf() && n.Rule == tree.InSet {
				h.features[n.Feature].Categorical = true
			}
		}
	}
}

func (h *header) info(trees int) *engine.Info {
	boosting := h.boosting
	if boosting == "" {
		boosting = "unknown"
	}
	return &engine.Info{
		Format: Format, Task: h.objective.task, Features: h.features, Missing: true,
		Details: []engine.Detail{
			{Name: "producer", Value: "LightGBM, text format " + h.version},
			{Name: "booster", Value: short(boosting)},
			{Name: "objective", Value: short(h.objective.name)},
			{Name: "trees", Value: strconv.Itoa(trees)},
		},
	}
}
