// Package catboost reads the models that CatBoost saves as JSON: oblivious trees
// and those of the other grow policies, numbers, one-hot categories and the
// statistics of categories (CTRs), alone and combined.
//
// It owns the decoder and the translation into engine/tree, with CatBoost's
// conventions: a value is rounded to float32 before it is held against a border,
// x > border goes right, leaves are summed in float64, NaN is the smallest or the
// largest value as the file says for each feature, a category is the CityHash of
// its text, row weights are the covers. It never trains and never explains, and
// does not cut a model: CatBoost itself saves only the trees up to the best one.
//
// A model without categorical features takes a matrix; one with them takes a
// column a feature, text for a category. A category need not be known: what is in
// no table has the statistics of no rows, as in the library.
//
// Invariants: a file is data from a stranger; memory is bounded by a small
// multiple of its length, and damage is an error that wraps engine.ErrCorrupt.
// What the engine does not have is refused by name (*engine.UnsupportedError).
package catboost

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// Format is what Info.Format says of these models.
const Format = "catboost"

const (
	// maxObjects bounds the objects of a file, the least text that becomes a
	// structure.
	maxObjects = 1 << 26
	// maxTrees bounds the number of trees.
	maxTrees = 1 << 22
)

// keys are the names that a file has at its top.
var keys = []string{"ctr_data", "features_info", "model_info", "oblivious_trees", "scale_and_bias", "trees"}

// Is reports whether data begins as a CatBoost JSON file does. Other libraries
// write JSON too.
func Is(data []byte) bool {
	rest := bytes.TrimLeft(data, " \t\r\n")
	for _, c := range []byte(`{"`) {
		if len(rest) == 0 || rest[0] != c {
			return false
		}
		rest = bytes.TrimLeft(rest[1:], " \t\r\n")
	}
	for _, k := range keys {
		if len(rest) > len(k) && string(rest[:len(k)]) == k && rest[len(k)] == '"' {
			return true
		}
	}
	return false
}

// Read returns the model in data.
func Read(data []byte) (engine.Model, error) {
	if n := bytes.Count(data, []byte("{")); n > maxObjects {
		return nil, fmt.Errorf("more than %d objects: %w", maxObjects, engine.ErrTooLarge)
	}
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("decode JSON: %w: %w", engine.ErrCorrupt, err)
	}
	r := &reader{doc: &d}
	if err := r.readFeatures(); err != nil {
		return nil, err
	}
	if err := r.readStatistics(); err != nil {
		return nil, err
	}
	e, err := r.readEnsemble()
	if err != nil {
		return nil, err
	}
	info, err := r.readInfo(e)
	if err != nil {
		return nil, err
	}
	if err := e.Validate(); err != nil {
		return nil, err
	}
	if len(r.categorical) == 0 {
		return tree.NewModel(e, info), nil
	}
	return r.newModel(e, info)
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

// reader turns a document into a model.
type reader struct {
	doc *document
	// features are in the order of the columns a caller sends; numeric and
	// categorical name their places by the library's own count of each kind.
	features    []engine.Feature
	numeric     map[int]*numeric
	categorical map[int]*categorical
	// bins are what a split's split_index counts, in the file's order.
	bins binIndex
	// columns are what the trees read, made as splits ask for them.
	columns columns
	ctrs    []*statistic
}

// numeric is a feature of numbers, categorical one of categories; flat is its
// place among the columns a caller sends.
type numeric struct {
	flat    int
	nan     float32 // what NaN is taken for; NaN where it is itself
	borders []float32
}

type categorical struct {
	flat   int
	values []int32 // the hashes that one-hot splits ask for
}

func (r *reader) readFeatures() error {
	f := &r.doc.Features
	if len(f.Text) > 0 {
		return &engine.UnsupportedError{What: "text features"}
	}
	if len(f.Embedding) > 0 {
		return &engine.UnsupportedError{What: "embedding features"}
	}
	n := len(f.Float) + len(f.Categorical)
	if n == 0 {
		return corruptf("no features")
	}
	if n > tree.MaxFeatures {
		return fmt.Errorf("%d features: %w", n, engine.ErrTooLarge)
	}
	r.features = make([]engine.Feature, n)
	r.numeric, r.categorical = make(map[int]*numeric, len(f.Float)), make(map[int]*categorical, len(f.Categorical))
	taken := make([]bool, n)
	take := func(p *position, twice bool) error {
		if twice {
			return corruptf("feature_index %d is given twice", p.Index)
		}
		if p.Flat < 0 || p.Flat >= n || taken[p.Flat] {
			return corruptf("the flat_feature_index of %d features are not 0 to %d, each once", n, n-1)
		}
		taken[p.Flat] = true
		r.features[p.Flat].Name = p.name()
		return nil
	}
	for i := range f.Float {
		v := &f.Float[i]
		if err := take(&v.position, r.numeric[v.Index] != nil); err != nil {
			return err
		}
		nan, ok := nanValues[v.NaN]
		if !ok {
			return &engine.UnsupportedError{What: "nan_value_treatment " + strconv.Quote(short(v.NaN))}
		}
		r.numeric[v.Index] = &numeric{flat: v.Flat, nan: nan, borders: v.Borders}
		r.bins.add(kindFloat, v.Index, len(v.Borders))
	}
	for i := range f.Categorical {
		v := &f.Categorical[i]
		if err := take(&v.position, r.categorical[v.Index] != nil); err != nil {
			return err
		}
		r.categorical[v.Index] = &categorical{flat: v.Flat, values: v.Values}
		r.features[v.Flat].Categorical = true
		r.bins.add(kindOneHot, v.Index, len(v.Values))
	}
	for i := range f.CTRs {
		r.bins.add(kindStatistic, i, len(f.CTRs[i].Borders))
	}
	return r.distinctNames()
}

// distinctNames refuses names that two features share where a caller has to send
// columns by name.
func (r *reader) distinctNames() error {
	if len(r.categorical) == 0 {
		return nil
	}
	seen := make(map[string]bool, len(r.features))
	for i := range r.features {
		name := r.features[i].Name
		if seen[name] {
			return corruptf("two features are called %s", strconv.Quote(short(name)))
		}
		seen[name] = true
	}
	return nil
}

func (r *reader) readInfo(e *tree.Ensemble) (*engine.Info, error) {
	info := &engine.Info{Format: Format, Features: r.features, Missing: true}
	l, err := r.readLoss(e)
	if err != nil {
		return nil, err
	}
	info.Task, e.Link = l.task, l.link
	if info.Classes, err = r.readClasses(e, l); err != nil {
		return nil, err
	}
	policy := "oblivious trees"
	if len(r.doc.Trees) > 0 {
		policy = "non-symmetric trees"
	}
	info.Details = []engine.Detail{
		{Name: "producer", Value: producer(r.doc.Info.Version)},
		{Name: "booster", Value: policy},
		{Name: "objective", Value: l.name},
		{Name: "trees", Value: strconv.Itoa(len(e.Trees))},
	}
	if len(r.ctrs) > 0 {
		info.Details = append(info.Details, engine.Detail{Name: "category statistics", Value: strconv.Itoa(len(r.ctrs))})
	}
	return info, nil
}

// producer finds the release in what the library says of its build.
func producer(text string) string {
	if _, after, ok := strings.Cut(text, "CatBoost release "); ok {
		end := strings.IndexFunc(after, func(c rune) bool { return c != '.' && (c < '0' || c > '9') })
		if end < 0 {
			end = len(after)
		}
		if v := strings.TrimRight(after[:end], "."); v != "" {
			return "CatBoost " + short(v)
		}
	}
	return "CatBoost"
}

// readClasses returns the classes' names. Where the caller told how many classes
// there are, those that training had no row of are outputs too, with a margin of
// minus infinity, as in the library.
func (r *reader) readClasses(e *tree.Ensemble, l loss) ([]string, error) {
	p := r.doc.Info.Classes
	if p == nil {
		p = r.doc.Info.Multiclass
	}
	if p == nil || !l.classes {
		return nil, nil
	}
	learned := e.Outputs
	if l.link == tree.LinkSigmoid {
		learned = 2
	}
	if l.link != tree.LinkSigmoid && len(p.Labels) == e.Outputs && p.Count > e.Outputs {
		if err := spread(e, p); err != nil {
			return nil, err
		}
		learned = e.Outputs
	}
	names := p.Names
	switch {
	case len(names) > 0:
	case p.Count > 0 && p.Count == learned:
		for i := range learned {
			names = append(names, number(strconv.Itoa(i)))
		}
	default:
		names = p.Labels
	}
	if len(names) != learned {
		return nil, corruptf("%d classes for %d outputs", len(names), learned)
	}
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = string(n)
	}
	if slices.Contains(out, "") {
		return nil, corruptf("a class has no name")
	}
	return out, nil
}
