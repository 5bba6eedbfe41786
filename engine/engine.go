// Package engine is the vocabulary of models that compute: tensors in, tensors
// out. It owns Tensor, Model, Session and what a model says of itself (Info),
// and it checks a caller's inputs against that (Bind).
//
// It never reads a clock, a network or a configuration, and it knows nothing of
// requests, storage or users. Readers of model files live in engine/xgboost,
// engine/lightgbm, engine/catboost and engine/onnx; the two kinds of model inside them in
// engine/tree and engine/graph.
//
// Invariants: a Model is immutable after it was read and safe for concurrent
// use; a Session belongs to one goroutine at a time; data trouble is a returned
// error, never a panic and never a silently wrong number.
package engine

import (
	"context"
	"fmt"
)

// Task is what a model is for. It decides which outputs count as a score and
// how performance is measured.
type Task string

// The tasks a model file or model.yaml may name.
const (
	TaskBinary     Task = "binary"
	TaskMulticlass Task = "multiclass"
	TaskRegression Task = "regression"
	TaskRanking    Task = "ranking"
	TaskOther      Task = "other"
)

// Spec describes one input or output: its name, element type and shape, where
// -1 is a dimension that varies from request to request.
type Spec struct {
	Name  string
	DType DType
	Shape []int
	// Unread says that nothing of the model reads this input: NaN in it is no matter.
	Unread bool
}

// Feature is one column of a tabular model, by position.
type Feature struct {
	Name string
	// Categorical marks a feature whose values are categories. Its number in a
	// float matrix is the category's code.
	Categorical bool
	// Categories maps a code to the category's name where the model file keeps
	// the names; nil otherwise.
	Categories []string
}

// Info is what a model says of itself.
type Info struct {
	// Format is "xgboost", "lightgbm", "catboost", "onnx" or "upstream".
	Format  string
	Task    Task
	Classes []string
	Inputs  []Spec
	// Optional lists inputs behind those that may be left out, as a caller of a server
	// always does. Each takes any tensor that the model can use in its place.
	Optional []Spec
	// Outputs lists what Run returns when nothing is asked for by name.
	Outputs []Spec
	// Extra lists outputs that Run returns only when they are named, such as
	// "margin" of a native tree model.
	Extra []Spec
	// Features is set for a tabular model: one whose only input is a float
	// matrix [-1, M], or whose inputs are one column [-1, 1] (or [-1]) a
	// feature. It is nil for any other model.
	Features []Feature
	// Missing says that NaN is a missing value to this model. Where it is
	// false, NaN in an input is refused.
	Missing bool
	// Details are facts for people: objective, number of trees, opset, producer.
	Details []Detail
}

// Detail is one fact about a model, for people.
type Detail struct{ Name, Value string }

// Named is a tensor with the name of the input or output it belongs to.
type Named struct {
	Name   string
	Tensor *Tensor
}

// Values is a set of named tensors, in order.
type Values []Named

// Get returns the tensor of that name, or nil.
func (v Values) Get(name string) *Tensor {
	for i := range v {
		if v[i].Name == name {
			return v[i].Tensor
		}
	}
	return nil
}

// Slice returns rows from (included) to to (excluded) of every tensor, sharing the
// data.
func (v Values) Slice(from, to int) (Values, error) {
	out := make(Values, len(v))
	for i := range v {
		t, err := v[i].Tensor.Slice(from, to)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", v[i].Name, err)
		}
		out[i] = Named{Name: v[i].Name, Tensor: t}
	}
	return out, nil
}

// SessionOptions bound what one session may use. The zero value is one thread
// and the default memory limit.
type SessionOptions struct {
	// Threads is how many cores one Run may use; 0 means 1. Results are the
	// same bits whatever the number.
	Threads int
	// MaxBytes bounds the memory of one Run's intermediate values; 0 means
	// 1 GiB. A run that would need more returns ErrTooLarge.
	MaxBytes int64
}

// Model is a loaded model: immutable and safe for concurrent use.
type Model interface {
	Info() *Info
	// NewSession returns a session, which belongs to one goroutine at a time.
	NewSession(SessionOptions) (Session, error)
}

// Session runs a model. Inputs must be what Bind returned for the model's Info
// (or have exactly the declared names, types and ranks). The returned tensors
// are the caller's to keep.
type Session interface {
	// Run computes the outputs named in want, or all of Info.Outputs when want
	// is empty, in that order. Dimension 0 of every input and output is the row.
	Run(ctx context.Context, in Values, want []string) (Values, error)
}

// Cost is what one run takes.
type Cost struct {
	// Outputs are what it makes.
	Outputs Values
	// Weights is what the model holds as its file has it, Laid what is made of that for
	// kernels; Peak is the most that a run holds beside, its inputs aside. In bytes.
	Weights, Laid, Peak int64
	// Operations of floating point: two for each product that is summed.
	Operations float64
}

// Coster is a Session that tells what a run over some inputs takes, by running it.
type Coster interface {
	Session
	Cost(ctx context.Context, in Values) (*Cost, error)
}

// Target names the scalar that is differentiated for each row: element Index of
// the row of the tensor called Name, which may be an output or any inner float
// tensor of the graph (a logit before the softmax, say).
type Target struct {
	Name  string
	Index int
}

// Gradient is the answer of a Differentiator: Value[r] is the target of row r,
// and Inputs holds, for each input asked for, d target(r) / d input(r, ...) with
// the input's own shape. Rows must not influence each other.
type Gradient struct {
	Value  []float64
	Inputs Values
}

// Differentiator is a Session whose model can be differentiated (reverse mode).
// Where the path from the target to an input is not differentiable the error is
// a *NotDifferentiableError naming the node.
type Differentiator interface {
	Session
	// Gradient differentiates the target by the inputs or inner float tensors named in
	// wrt. Tensors of in that are no inputs of the model are inner ones, taken as they
	// are in the place of those that it would compute.
	Gradient(ctx context.Context, in Values, target Target, wrt []string) (*Gradient, error)
	// Weighted is Gradient for any scalar built from outputs: of each row the sum over
	// the tensors that weights names of their elements times the weights, which are as
	// many as the tensor has elements, or one row of it. With 1 everywhere it is a sum;
	// with the derivatives of a loss by the outputs its Inputs are the loss's gradient.
	Weighted(ctx context.Context, in, weights Values, wrt []string) (*Gradient, error)
	// Logit returns the inner target that feeds out's final softmax or sigmoid,
	// or out itself when there is none. Explanations use it by default, because
	// a saturated softmax has no gradient to speak of.
	Logit(out Target) Target
}

// Embedding is a tensor of vectors that the ids of an input look up in a constant table.
type Embedding struct {
	// Name is the inner tensor, which Gradient takes and differentiates by.
	Name string
	// Node looks them up, in a table of so many Entries.
	Node    string
	Entries int
	// Tensor holds the vectors, each of Width elements, those of a row in that row.
	Tensor *Tensor
	Width  int
	// Number says that the integers are made floats by Node, and look nothing up.
	Number bool
	// Of is for each vector the element of the input whose id looked it up, -1 where
	// the id is the model's own.
	Of []int
}

// Embedder is a Differentiator of a model that takes ids, which have no gradient, but at
// the vectors that they look up.
type Embedder interface {
	Differentiator
	// EmbeddedInputs names the integer inputs whose ids look up vectors, the one with
	// the largest table first; where there are none, those whose integers are made floats.
	EmbeddedInputs() []string
	// Embeddings returns what the ids of one of those inputs look up.
	Embeddings(ctx context.Context, in Values, input string) ([]Embedding, error)
}
