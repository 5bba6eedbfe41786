// Package tree is the form every tree ensemble takes inside the engine,
// whatever library trained it: nodes, leaves, categorical sets and the
// conventions (comparison, precision, missing values, covers) that make its
// numbers those of its library.
//
// It owns the structure, its validation and its evaluation. It reads no files
// (see engine/xgboost, engine/lightgbm, engine/onnx) and attributes nothing
// (see explain/treeshap, which walks the structure declared here).
//
// A model is an Ensemble with its Info (NewModel): a session compiles nothing and
// gives the same bits for a row whatever the batch and the number of threads.
//
// Invariants, checked by Ensemble.Validate: a tree's node 0 is its root, every
// child index is larger than its parent's, every node but the root has exactly
// one parent, and thresholds are not NaN.
package tree

import (
	"fmt"
	"unsafe"

	"github.com/pellucid/pellucid/engine"
)

// Rule is how an inner node decides whether a present value goes left.
type Rule uint8

// The rules. Less and LessEqual compare with the threshold; InSet goes left
// when the value's category is in the node's set.
const (
	Less         Rule = iota // x <  t goes left (XGBoost)
	LessEqual                // x <= t goes left (LightGBM, scikit-learn)
	Greater                  // x >  t goes left (ONNX BRANCH_GT)
	GreaterEqual             // x >= t goes left (ONNX BRANCH_GTE)
	Equal                    // x == t goes left (ONNX BRANCH_EQ)
	NotEqual                 // x != t goes left (ONNX BRANCH_NEQ)
	InSet                    // category of x in the set goes left
)

// Missing is what counts as a missing value at a node, and Node.DefaultLeft is
// where it goes.
type Missing uint8

// The conventions for missing values.
const (
	MissingNaN  Missing = iota // NaN is missing
	MissingNone                // nothing is: NaN is taken as 0 and compared (LightGBM)
	MissingZero                // NaN and |x| <= ZeroThreshold are missing (LightGBM)
)

// ZeroThreshold is the largest magnitude that MissingZero takes for zero: the
// float32 nearest 1e-35, as in LightGBM.
const ZeroThreshold = float64(float32(1e-35))

// Node is one node of a tree. A leaf has Left == 0 and Right == 0.
type Node struct {
	// Feature is the column tested.
	Feature int32
	// Left and Right are indexes into Tree.Nodes.
	Left, Right int32
	// Set is an index into Tree.Sets for InSet.
	Set         int32
	Rule        Rule
	Missing     Missing
	DefaultLeft bool
	// Threshold is compared with the value. In a Float32 ensemble it is a
	// float32 widened.
	Threshold float64
	// Cover is the node's weight in training (see Ensemble.Covers); 0 where the
	// file has none.
	Cover float64
}

// IsLeaf reports whether n is a leaf.
func (n *Node) IsLeaf() bool { return n.Left == 0 && n.Right == 0 }

// Bitset holds categories: category c is in it when bit c%64 of word c/64 is set.
type Bitset []uint64

// Has reports whether category c is in the set.
func (s Bitset) Has(c int) bool {
	return c >= 0 && c>>6 < len(s) && s[c>>6]>>(c&63)&1 == 1
}

// Tree is one tree. The value of leaf i is Values[i*K : i*K+K] where K is the
// number of values a leaf of this tree: 1, added to output Output, or (a vector
// leaf) Ensemble.Outputs, added to every output. Inner nodes hold zeros there.
// Weights (XGBoost's DART) and averaging are already folded into Values.
type Tree struct {
	Nodes  []Node
	Values []float64
	Sets   []Bitset
	// Output is the margin this tree adds to; -1 for vector leaves.
	Output int
	// Linear has one element a node, or none: where a leaf's element has
	// features, the leaf is a linear model (LightGBM's linear_tree).
	Linear []LinearLeaf
}

// LinearLeaf is a leaf's linear model: Const + sum of Coefs times the values of
// Features. Where one of these is NaN the leaf's constant in Tree.Values is
// taken instead. A leaf with no features has the value in Tree.Values.
type LinearLeaf struct {
	Const    float64
	Features []int32
	Coefs    []float64
}

// Cover says what Node.Cover counts.
type Cover string

// The kinds of cover. CoverNone means path-dependent Shapley values cannot be
// computed for this ensemble.
const (
	CoverHessian Cover = "hessian" // XGBoost: sum of hessians
	CoverCount   Cover = "count"   // LightGBM, scikit-learn: rows
	CoverWeight  Cover = "weight"  // CatBoost: sum of the rows' weights
	CoverNone    Cover = "none"    // ONNX exports carry none
)

// HasCovers reports whether path-dependent Shapley values have a basis.
func (e *Ensemble) HasCovers() bool { return e.Covers != CoverNone && e.Covers != "" }

// Link turns margins into predictions.
type Link string

// The links. LinkSigmoid has the slope Ensemble.LinkScale (LightGBM's sigmoid).
const (
	LinkIdentity Link = "identity"
	LinkSigmoid  Link = "sigmoid"
	LinkSoftmax  Link = "softmax"
	LinkExp      Link = "exp"
	LinkProbit   Link = "probit"
	// LinkArgmax gives the index of the largest margin (multi:softmax).
	LinkArgmax Link = "argmax"
	// LinkStep gives 1 where the margin is above 0 (binary:hinge).
	LinkStep Link = "step"
	// LinkLog1pExp gives log(1+exp(x)) (LightGBM cross_entropy_lambda).
	LinkLog1pExp Link = "log1p_exp"
	// LinkSquare gives sign(x) x^2 (LightGBM reg_sqrt).
	LinkSquare Link = "square"
	// LinkSigmoidEach applies the sigmoid to every output (multi-label, OVA).
	LinkSigmoidEach Link = "sigmoid_each"
	// LinkSorted puts a row's margins in ascending order, so that quantiles do
	// not cross (XGBoost's reg:quantileerror since 3.4).
	LinkSorted Link = "sorted"
	// LinkSoftplusSum adds to each prediction the softplus of the next margin
	// and StepFloor (XGBoost's reg:expectileerror with more than one alpha).
	LinkSoftplusSum Link = "softplus_sum"
	// LinkMeanVariance is for two margins, a mean and the logarithm of a standard
	// deviation, which becomes the variance (CatBoost's RMSEWithUncertainty).
	LinkMeanVariance Link = "mean_variance"
)

// StepFloor is the least step between neighbours under LinkSoftplusSum.
const StepFloor = 1e-6

// Ensemble is a whole model of trees: margin[k] = Base[k] + sum of the leaves
// reached, then Link.
type Ensemble struct {
	// Features is the number of columns, Outputs of margins.
	Features, Outputs int
	Trees             []Tree
	// Base is added to each margin; it has Outputs elements. Expected values
	// (the base of an explanation) include it.
	Base []float64
	// Float32 says that values and thresholds are compared and leaves are
	// summed in float32, as XGBoost does.
	Float32 bool
	Covers  Cover
	// Groups names, where it is not nil, for each column the first one that belongs
	// to the same input feature; what is attributed to a group stands there.
	Groups    []int32
	Link      Link
	LinkScale float64
}

// Bytes is about what an ensemble and its compiled form take, which is as much again.
func (e *Ensemble) Bytes() (n int64) {
	for i := range e.Trees {
		t := &e.Trees[i]
		n += int64(cap(t.Nodes))*int64(unsafe.Sizeof(Node{})) + 8*int64(cap(t.Values)) + int64(cap(t.Linear))*int64(unsafe.Sizeof(LinearLeaf{}))
		for _, s := range t.Sets {
			n += 8 * int64(cap(s))
		}
		for _, l := range t.Linear {
			n += 4*int64(cap(l.Features)) + 8*int64(cap(l.Coefs))
		}
	}
	return 2 * n
}

// Memory tells of Bytes.
func (e *Ensemble) Memory() engine.Detail {
	n := e.Bytes()
	return engine.Detail{Name: "memory", Value: fmt.Sprintf("%d bytes: %d of trees, %d of them compiled", n, n-n/2, n/2)}
}

// Left reports whether value x goes left at inner node n of t. x must already
// be float32-rounded in a Float32 ensemble.
//
// Categories: x is truncated towards zero, as the libraries do; a negative or
// unseen category is not in the set. A NaN at an InSet node follows DefaultLeft
// when Missing is MissingNaN (XGBoost), else goes right (LightGBM). A value
// between -1 and 0 is category 0 to LightGBM and negative to XGBoost.
func (t *Tree) Left(n *Node, x float64) bool {
	if x != x {
		if n.Missing != MissingNone {
			return n.DefaultLeft
		}
		if n.Rule == InSet {
			return false
		}
		x = 0
	} else if n.Missing == MissingZero && x <= ZeroThreshold && x >= -ZeroThreshold && n.Rule != InSet {
		return n.DefaultLeft
	}
	switch n.Rule {
	case Less:
		return x < n.Threshold
	case LessEqual:
		return x <= n.Threshold
	case Greater:
		return x > n.Threshold
	case GreaterEqual:
		return x >= n.Threshold
	case Equal:
		return x == n.Threshold
	case NotEqual:
		return x != n.Threshold
	}
	if x < 0 && (n.Missing == MissingNaN || x <= -1) {
		return false
	}
	return x < 1<<31 && t.Sets[n.Set].Has(int(x))
}

// Holder is implemented by engine models that are one tree ensemble over their
// feature matrix; explain/treeshap asks for it.
type Holder interface {
	// Trees returns the ensemble and the name of the output its margins feed.
	Trees() (ensemble *Ensemble, output string)
}

// Preparer is a Holder whose trees read columns that the model makes of its
// inputs', each of one feature alone (a scaler, an imputer, the categories of an
// encoder), so that what is attributed to the columns is the feature's.
type Preparer interface {
	Holder
	// Columns names the inner value the trees read, [-1, Features], which a session
	// computes on request, and tells the feature of each of its columns. The name is
	// "" where the trees read the input itself.
	Columns() (name string, features []int32)
}

// Sharer is a Preparer that has columns made of several features together (a
// statistic of combined categories). What is attributed to such a column is one
// player's, whose part its features share.
type Sharer interface {
	Preparer
	// Shares tells the features of each column; nil where each has but one.
	Shares() [][]int32
}
