// Package compress makes model files smaller and faster: half-precision, 8-bit
// and pruned weights, hidden units dropped, trees trimmed. A model file goes in, a file of the same
// format comes out, which the library or runtime that reads the first reads too.
//
// It owns the transformations and what each does to a file. It judges nothing:
// what a transformation costs in predictions is explain/audit's to say. Rows, where
// they are given, only tell which parts matter least.
//
// Invariants: a transformation changes what it lists and nothing else; what cannot be
// compressed in the way asked for is refused with the reason (ErrRefused), never
// returned unchanged in silence; the same file and rows give the same bytes; a hostile
// file is an error, never a panic.
package compress

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/catboost"
)

// ErrRefused is wrapped by the error of a transformation that a model does not
// allow.
var ErrRefused = errors.New("cannot be compressed so")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// Kind names a transformation.
type Kind string

// The transformations, in the order they are applied.
const (
	// Trees keeps the first Step.Amount boosting rounds.
	Trees Kind = "trees"
	// Least makes single leaves of the share Step.Amount of the trees that
	// contribute least.
	Least Kind = "least"
	// Leaves joins pairs of leaves that differ by less than Step.Amount.
	Leaves Kind = "leaves"
	// Structured drops the share Step.Amount of each hidden layer's units, of the channels
	// of convolutions and of the heads of attention.
	Structured Kind = "structured"
	// Prune sets the share Step.Amount of each weight matrix's elements to zero.
	Prune Kind = "prune"
	// INT8 keeps weight matrices as 8-bit integers with a scale a channel.
	INT8 Kind = "int8"
	// Full keeps weights and what flows between layers as 8-bit integers.
	Full Kind = "int8:full"
	// FP16 keeps weights in half precision.
	FP16 Kind = "fp16"
)

// order is how steps are applied: what removes parts comes before what rounds them.
var order = []Kind{Trees, Least, Leaves, Structured, Prune, Full, INT8, FP16}

// Step is one transformation with its amount.
type Step struct {
	Kind   Kind
	Amount float64
}

// String returns the step as Parse reads it.
func (s Step) String() string {
	if s.Kind.plain() {
		return string(s.Kind)
	}
	return string(s.Kind) + ":" + strconv.FormatFloat(s.Amount, 'g', -1, 64)
}

// plain reports whether a transformation takes no amount.
func (k Kind) plain() bool { return k == FP16 || k == INT8 || k == Full }

// Parse reads a list of steps, such as "structured:0.3,fp16". The result is in the
// order in which Apply takes them.
func Parse(list string) ([]Step, error) {
	var steps []Step
	for part := range strings.SplitSeq(list, ",") {
		s, err := parseStep(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(steps, func(o Step) bool { return o.Kind == s.Kind }) {
			return nil, fmt.Errorf("%q is given twice", s.Kind)
		}
		steps = append(steps, s)
	}
	slices.SortFunc(steps, func(a, b Step) int { return slices.Index(order, a.Kind) - slices.Index(order, b.Kind) })
	return steps, nil
}

func parseStep(text string) (Step, error) {
	if Kind(text) == Full {
		return Step{Kind: Full}, nil
	}
	name, amount, given := strings.Cut(text, ":")
	s := Step{Kind: Kind(name)}
	if !slices.Contains(order, s.Kind) {
		return s, fmt.Errorf("%q is none of fp16, int8, int8:full, prune:SHARE, structured:SHARE, trees:N, least:SHARE, leaves:EPSILON", clip(text))
	}
	if s.Kind == FP16 || s.Kind == INT8 {
		if given && s.Kind == INT8 {
			return s, fmt.Errorf("int8:%s is neither int8 nor int8:full", clip(amount))
		}
		if given {
			return s, fmt.Errorf("%s takes no amount", s.Kind)
		}
		return s, nil
	}
	v, err := strconv.ParseFloat(amount, 64)
	switch {
	case err != nil:
		return s, fmt.Errorf("%s needs a number behind a colon, such as %s", s.Kind, examples[s.Kind])
	case s.Kind == Trees && (v < 1 || v != float64(int(v)) || v > 1<<22):
		return s, fmt.Errorf("trees:%s is not a number of boosting rounds", clip(amount))
	case s.Kind == Leaves && !(v > 0 && v < 1e30):
		return s, fmt.Errorf("leaves:%s is not a difference above 0", clip(amount))
	case s.Kind != Trees && s.Kind != Leaves && !(v > 0 && v < 1):
		return s, fmt.Errorf("%s:%s is not a share between 0 and 1", s.Kind, clip(amount))
	}
	s.Amount = v
	return s, nil
}

var examples = map[Kind]string{Trees: "trees:100", Least: "least:0.5", Leaves: "leaves:0.001", Structured: "structured:0.5", Prune: "prune:0.5"}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

// Input is the model to be compressed.
type Input struct {
	// Name is the file's; its extension says what it is. Dir holds the external
	// data of an ONNX file.
	Name, Dir string
	Data      []byte
	// Rows are canonical inputs of the model, or nil. With them the parts that
	// matter least are measured, without they are guessed from the weights.
	Rows engine.Values
	// Calibration are the rows that Full finds ranges by; nil means Rows.
	Calibration engine.Values
	// Ranges says how Full takes them from what was seen; empty means MinMax.
	Ranges Ranges
}

// Change is one thing that was done to a file.
type Change struct {
	// Part is what was changed: a weight, a layer, the trees.
	Part string `json:"part"`
	// What was done, in words.
	What string `json:"what"`
}

// Result is a compressed model.
type Result struct {
	Data    []byte
	Changes []Change
	// Notes say what the user should know: weights left as they are, and why.
	Notes []string
}

func (r *Result) change(part, format string, args ...any) {
	r.Changes = append(r.Changes, Change{Part: part, What: fmt.Sprintf(format, args...)})
}

func (r *Result) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// maxRows bounds the rows by which parts are measured.
const maxRows = 2000

// Apply takes the steps one after the other. Each must change something, else it is
// refused.
func Apply(ctx context.Context, in Input, steps []Step) (*Result, error) {
	if len(steps) == 0 {
		return nil, errors.New("compress: nothing to do")
	}
	all := &Result{Data: in.Data}
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r, err := apply(ctx, in, s)
		if err != nil {
			return nil, fmt.Errorf("compress %s to %s: %w", filepath.Base(in.Name), s, err)
		}
		if len(r.Changes) == 0 {
			return nil, fmt.Errorf("compress %s to %s: %w", filepath.Base(in.Name), s, refuse("nothing in the file would change"))
		}
		all.Data = r.Data
		all.Changes = append(all.Changes, r.Changes...)
		all.Notes = append(all.Notes, r.Notes...)
		in.Data = r.Data
	}
	return all, nil
}

func apply(ctx context.Context, in Input, s Step) (*Result, error) {
	onnx := strings.EqualFold(filepath.Ext(in.Name), ".onnx")
	if !onnx && catboost.Is(in.Data) {
		return nil, refuse("files of CatBoost are not written: train a smaller model (iterations, depth), or save it as ONNX (save_model(..., format=\"onnx\")) and compress that")
	}
	switch s.Kind {
	case Trees, Least, Leaves:
		return trim(ctx, in, s)
	case FP16, INT8, Full, Prune, Structured:
		if !onnx {
			return nil, refuse("%s concerns the weights of a network, and this file holds trees: use trees:N, least:SHARE or leaves:EPSILON", s.Kind)
		}
	}
	switch s.Kind {
	case FP16:
		return fp16(in)
	case INT8:
		return int8Weights(in)
	case Full:
		return int8Full(ctx, in)
	case Prune:
		return prune(in, s.Amount)
	}
	return structured(ctx, in, s.Amount)
}
