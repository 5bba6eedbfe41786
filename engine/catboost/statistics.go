package catboost

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-faster/city"

	"github.com/pellucid/pellucid/engine"
)

// statistic is a CTR: a number that stands for a category, or for several hashed
// together, made of how often training rows of it had which target.
type statistic struct {
	of     *combination
	table  *table
	kind   string
	target int
	num    float32
	denom  float32
	shift  float32
	scale  float32
	empty  float32 // what a category that no row had gets
}

// combination is what is hashed for a statistic.
type combination struct {
	cats   []int32 // places among the columns a caller sends
	floats []floatTest
	exact  []exactTest
}

type floatTest struct {
	flat        int32
	border, nan float32
}

type exactTest struct {
	flat, value int32
}

// table holds the numbers of each hash, width of them from index[hash] on.
type table struct {
	index   map[uint64]int32
	width   int
	numbers []float64
	total   float32
}

// The kinds of statistic, as the file calls them.
const (
	ctrBorders   = "Borders"
	ctrBuckets   = "Buckets"
	ctrMean      = "BinarizedTargetMeanValue"
	ctrFloatMean = "FloatTargetMeanValue"
	ctrCounter   = "Counter"
	ctrFrequency = "FeatureFreq"
)

func (r *reader) readStatistics() error {
	tables := make(map[string]*table, len(r.doc.Tables))
	for name, v := range r.doc.Tables {
		t, err := newTable(&v)
		if err != nil {
			return fmt.Errorf("table %s: %w", strconv.Quote(short(name)), err)
		}
		tables[name] = t
	}
	r.doc.Tables = nil // the maps are all that is needed of them
	combinations := map[string]*combination{}
	for i := range r.doc.Features.CTRs {
		f := &r.doc.Features.CTRs[i]
		s, err := r.newStatistic(f, tables[f.Identifier])
		if err != nil {
			return fmt.Errorf("ctr %d: %w", i, err)
		}
		// Several statistics are made of the same combination, which is then
		// hashed once.
		key := fmt.Sprint(*s.of)
		if c := combinations[key]; c != nil {
			s.of = c
		}
		combinations[key] = s.of
		r.ctrs = append(r.ctrs, s)
	}
	return r.oneTarget()
}

// multiTarget are the losses of several targets, each of which has statistics.
var multiTarget = []string{"MultiRMSE", "MultiRMSEWithMissingValues", "MultiLogloss", "MultiCrossEntropy"}

// oneTarget refuses statistics of one kind and combination of several targets, or
// of a target divided in several ways. The file has one table under one name for
// them all, and the library itself reads other numbers out of it than it saved.
func (r *reader) oneTarget() error {
	refused := &engine.UnsupportedError{What: "category statistics of several targets", Reason: "CatBoost's JSON keeps the table of one only"}
	used := map[string]bool{}
	seen := map[string]bool{}
	for i := range r.doc.Features.CTRs {
		f := &r.doc.Features.CTRs[i]
		used[f.Type] = true
		key := fmt.Sprint(f.Identifier, f.Target, f.PriorNum, f.PriorDenom, f.Shift, f.Scale)
		if seen[key] {
			return refused
		}
		seen[key] = true
	}
	p := r.doc.Info.Params
	if p == nil {
		return nil
	}
	name, _, _ := strings.Cut(p.Loss.Type, ":")
	if slices.Contains(multiTarget, name) && (used[ctrBorders] || used[ctrBuckets] || used[ctrMean] || used[ctrFloatMean]) {
		return refused
	}
	for _, list := range append(slices.Collect(maps.Values(p.CTRs.PerFeature)), p.CTRs.Simple, p.CTRs.Combinations) {
		targets := map[string]string{}
		for _, c := range list {
			if t, ok := targets[c.Type]; ok && t != string(c.Target) && used[c.Type] {
				return refused
			}
			targets[c.Type] = string(c.Target)
		}
	}
	return nil
}

func newTable(v *tableValue) (*table, error) {
	n := len(v.Map.hashes)
	t := &table{index: make(map[uint64]int32, n), total: float32(v.Denominator), numbers: v.Map.counts}
	if n == 0 {
		return t, nil
	}
	t.width = v.Stride - 1
	if t.width < 1 || len(t.numbers) != n*t.width {
		return nil, corruptf("%d numbers for %d hashes and a stride of %d", len(t.numbers), n, v.Stride)
	}
	for i, h := range v.Map.hashes {
		if int(v.Map.at[i]) != i*t.width {
			return nil, corruptf("hash %d has not %d numbers behind it", i, t.width)
		}
		// This hash marks the free places of the library's own table, which it
		// writes out with the numbers of the first.
		if h != math.MaxUint64 {
			t.index[h] = v.Map.at[i]
		}
	}
	return t, nil
}

func (r *reader) newStatistic(f *ctrFeature, t *table) (*statistic, error) {
	s := &statistic{table: t, kind: f.Type, target: f.Target, num: f.PriorNum, denom: f.PriorDenom, shift: f.Shift, scale: f.Scale}
	if t == nil {
		return nil, corruptf("ctr_data has no table %s", strconv.Quote(short(f.Identifier)))
	}
	width := 0
	switch s.kind {
	case ctrBorders, ctrBuckets:
		if t.width != 0 && (t.width < 2 || f.Target < 0 || f.Target >= t.width) {
			return nil, corruptf("target_border_idx %d of %d classes", f.Target, t.width)
		}
		width = t.width
	case ctrMean, ctrFloatMean:
		width = 2
	case ctrCounter, ctrFrequency:
		width = 1
	default:
		return nil, &engine.UnsupportedError{What: "ctr_type " + strconv.Quote(short(s.kind))}
	}
	if t.width != 0 && t.width != width {
		return nil, corruptf("%d numbers a hash for a %s", t.width, s.kind)
	}
	total := float32(0)
	if s.kind == ctrCounter || s.kind == ctrFrequency {
		total = t.total
	}
	s.empty = s.of32(0, total)
	var err error
	s.of, err = r.newCombination(f.Elements)
	return s, err
}

func (r *reader) newCombination(elements []element) (*combination, error) {
	c := &combination{}
	for i := range elements {
		e := &elements[i]
		switch e.Kind {
		case "cat_feature_value", "cat_feature_exact_value":
			f := r.categorical[e.Cat]
			if f == nil {
				return nil, corruptf("a combination is made of categorical feature %d, which there is not", e.Cat)
			}
			if e.Kind == "cat_feature_value" {
				c.cats = append(c.cats, int32(f.flat))
				continue
			}
			c.exact = append(c.exact, exactTest{int32(f.flat), e.Value})
		case "float_feature":
			f := r.numeric[e.Float]
			if f == nil {
				return nil, corruptf("a combination is made of float feature %d, which there is not", e.Float)
			}
			c.floats = append(c.floats, floatTest{int32(f.flat), e.Border, f.nan})
		default:
			return nil, &engine.UnsupportedError{What: "combination_element " + strconv.Quote(short(e.Kind))}
		}
	}
	if len(c.cats) == 0 {
		return nil, corruptf("a combination has no category")
	}
	return c, nil
}

// categoryHash is what the library knows a category by.
func categoryHash(text string) int32 { return int32(uint32(city.CH64([]byte(text)))) }

// mix is the library's way to hash several hashes together.
func mix(a, b uint64) uint64 {
	const magic = 0x4906ba494954cb65
	return magic * (a + magic*b)
}

// hash returns the hash of a row of the combination.
func (c *combination) hash(row *row) uint64 {
	h := uint64(0)
	for _, f := range c.cats {
		h = mix(h, uint64(int64(row.hashes[f])))
	}
	bit := func(b bool) {
		if b {
			h = mix(h, 1)
		} else {
			h = mix(h, 0)
		}
	}
	for _, t := range c.floats {
		v := float32(row.numbers[t.flat])
		if v != v {
			v = t.nan
		}
		bit(v > t.border)
	}
	for _, t := range c.exact {
		bit(row.hashes[t.flat] == t.value)
	}
	return h
}

// of32 computes in float32, as the library does.
func (s *statistic) of32(good, total float32) float32 {
	return ((good+s.num)/(total+s.denom) + s.shift) * s.scale
}

// value returns the statistic of a hash.
func (s *statistic) value(hash uint64) float32 {
	at, ok := s.table.index[hash]
	if !ok {
		return s.empty
	}
	n := s.table.numbers[at:][:s.table.width]
	switch s.kind {
	case ctrMean, ctrFloatMean:
		return s.of32(float32(n[0]), float32(n[1]))
	case ctrCounter, ctrFrequency:
		return s.of32(float32(n[0]), s.table.total)
	}
	total := 0.0
	for _, v := range n {
		total += v
	}
	switch {
	case s.kind == ctrBuckets:
		return s.of32(float32(n[s.target]), float32(total))
	case len(n) == 2:
		return s.of32(float32(n[1]), float32(total))
	}
	good := 0.0
	for _, v := range n[s.target+1:] {
		good += v
	}
	return s.of32(float32(good), float32(total))
}

// columns are what the trees of a model with categories read.
type columns struct {
	list  []column
	known map[columnKey]int32
}

// column is a number as it came, whether a category is a certain one, or a
// statistic. features are whose it is: several for a combination.
type column struct {
	columnKey
	features []int32
}

type columnKey struct {
	kind string
	item int32 // the feature's place, or the statistic
	hash int32 // the category asked for
}

func (c *columns) at(key columnKey, features ...int32) int32 {
	if i, ok := c.known[key]; ok {
		return i
	}
	if c.known == nil {
		c.known = map[columnKey]int32{}
	}
	i := int32(len(c.list))
	c.known[key] = i
	c.list = append(c.list, column{key, features})
	return i
}

// groups names for each column the first that is of the same features.
func (c *columns) groups() []int32 {
	first := map[string]int32{}
	out := make([]int32, len(c.list))
	for i := range c.list {
		key := fmt.Sprint(c.list[i].features)
		if _, ok := first[key]; !ok {
			first[key] = int32(i)
		}
		out[i] = first[key]
	}
	return out
}

// number returns the column of a numeric feature: its own where the trees read
// what a caller sends.
func (r *reader) number(f *numeric) int32 {
	flat := int32(f.flat)
	if len(r.categorical) == 0 {
		return flat
	}
	return r.columns.at(columnKey{kind: kindFloat, item: flat}, flat)
}

func (r *reader) oneHot(feature int, value int32) int32 {
	flat := int32(r.categorical[feature].flat)
	return r.columns.at(columnKey{kind: kindOneHot, item: flat, hash: value}, flat)
}

// statistic returns the column of a CTR. It is, in the library's Shapley values,
// its categories': what else is hashed into a combination has no part.
func (r *reader) statistic(i int) int32 {
	return r.columns.at(columnKey{kind: kindStatistic, item: int32(i)}, r.ctrs[i].of.cats...)
}

// atLeastOne gives trees without a split a column to read.
func (r *reader) atLeastOne() {
	if len(r.columns.list) > 0 {
		return
	}
	flat := int32(slices.IndexFunc(r.features, func(f engine.Feature) bool { return f.Categorical }))
	r.columns.at(columnKey{kind: kindOneHot, item: flat}, flat)
}
