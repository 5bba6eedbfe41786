package graph

import (
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// opDef is one definition of an operator: the versions it holds for, what it
// takes, and how its kernel is built.
type opDef struct {
	// since and until are operator set versions, inclusive; until 0 is open.
	since, until         int
	minIn, maxIn, maxOut int
	// optional counts the first inputs that may be left out though others follow.
	optional int
	accept   typeSet
	result   resultType
	// half marks an operator that computes: half precision runs in float32.
	half bool
	// view marks an operator whose output shares its first input's memory.
	view bool
	// lists marks an operator that takes sequences and optional values too.
	lists bool
	// branches marks one of those that runs one inner graph once, and gives its results.
	branches bool
	build    func(b *builder) (Kernel, error)
	// compose is set where the operator is one that others define, means where it has a
	// kernel of its own and a gradient takes the others that define it.
	compose, means func(b *builder) (composer, error)
}

// typeSet is the element types an operator's first input may have.
type typeSet uint8

const (
	anyType typeSet = iota
	floatTypes
	// numericTypes are floats and integers.
	numericTypes
	boolType
	// signedTypes are floats and signed integers.
	signedTypes
	intTypes
	stringType
	mlTypes // what ai.onnx.ml's numeric operators take
)

func (s typeSet) has(d engine.DType) bool {
	if d == engine.Invalid {
		return true
	}
	switch s {
	case floatTypes:
		return d.IsFloat()
	case numericTypes:
		return d.IsFloat() || d.IsInteger()
	case boolType:
		return d == engine.Bool
	case intTypes:
		return d.IsInteger()
	case stringType:
		return d == engine.String
	case signedTypes:
		return d.IsFloat() || (d >= engine.Int8 && d <= engine.Int64)
	case mlTypes:
		return d == engine.Float32 || d == engine.Float64 || d == engine.Int64 || d == engine.Int32
	}
	return true
}

// resultType says how the type of an operator's outputs follows.
type resultType uint8

const (
	sameAsFirst resultType = iota
	sameAsSecond
	isBool
	isInt64
	isFloat32
	// firstThenInt64 is TopK's: values, then indices.
	firstThenInt64
	// fromBuilder takes what the builder set in builder.result.
	fromBuilder
)

// builder is what a kernel is built from.
type builder struct {
	node  *Node
	attrs *attrReader
	// inputs are the inputs' element types, Invalid where not known;
	// constants the inputs that are constants.
	inputs    []engine.DType
	constants []*engine.Tensor
	// held counts what kernels keep, nil in a run.
	held *held
	// result holds the outputs' types for fromBuilder.
	result []engine.DType
	// plain says of a node whose operator takes lists that there are none here.
	plain bool
	// trees are those of a TreeScores.
	trees *TreeScores
	// packs are shared by all kernels of a model, nil where they need not be.
	packs packs
}

func (b *builder) version() int { return b.node.Version }

func (b *builder) inType(i int) engine.DType {
	if i < len(b.inputs) {
		return b.inputs[i]
	}
	return engine.Invalid
}

func (b *builder) outType(op *opDef, i int) engine.DType {
	switch op.result {
	case sameAsFirst:
		return b.inType(0)
	case sameAsSecond:
		return b.inType(1)
	case isBool:
		return engine.Bool
	case isInt64:
		return engine.Int64
	case isFloat32:
		return engine.Float32
	case firstThenInt64:
		if i > 0 {
			return engine.Int64
		}
		return b.inType(0)
	}
	if i < len(b.result) {
		return b.result[i]
	}
	return engine.Invalid
}

func checkTypes(b *builder, op *opDef) error {
	if len(b.inputs) > 0 && !op.accept.has(b.inputs[0]) {
		return b.node.unsupported("element type %s", b.inputs[0])
	}
	for _, d := range b.inputs[:len(b.inputs)-b.node.Captured] {
		if d.IsList() && !op.lists {
			return b.node.unsupported("a %s where a tensor is needed", d)
		}
	}
	return nil
}

type opKey struct{ domain, name string }

// operators is filled once by the tables of the files beside this one.
var operators = map[opKey][]opDef{}

func register(domain string, defs map[string]opDef) {
	for name, d := range defs {
		key := opKey{domain, name}
		operators[key] = append(operators[key], d)
	}
}

// lookup finds the definition for a node.
func lookup(n *Node) (*opDef, error) {
	defs, ok := operators[opKey{n.Domain, n.Op}]
	if !ok {
		return nil, n.unsupported("the engine has no such operator")
	}
	for i := range defs {
		if n.Version >= defs[i].since && (defs[i].until == 0 || n.Version <= defs[i].until) {
			return &defs[i], nil
		}
	}
	return nil, n.unsupported("the engine has other versions of it only")
}

// Domains lists the domains that the engine has operators of.
func Domains() []string {
	var names []string
	for k := range operators {
		names = append(names, k.domain)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Defined reports whether the engine has a node's operator in the version of its set.
func Defined(n *Node) bool {
	_, err := lookup(n)
	return err == nil
}

// MostInputs is how many inputs a node's operator takes at most.
func MostInputs(n *Node) int {
	op, err := lookup(n)
	if err != nil {
		return 0
	}
	return op.maxIn
}

// Operators lists the operators of a domain, for people.
func Operators(domain string) []string {
	var names []string
	for k := range operators {
		if k.domain == domain {
			names = append(names, k.name)
		}
	}
	slices.Sort(names)
	return names
}

// normAxis turns a possibly negative axis into one of rank dimensions.
func normAxis(axis, rank int) (int, error) {
	a := axis
	if a < 0 {
		a += rank
	}
	if a < 0 || a >= rank {
		return 0, misfit("an axis that a tensor of %d dimensions does not have", rank)
	}
	return a, nil
}

// intsOf returns the elements of an integer tensor, which tells a kernel a shape,
// axes or repeats.
func intsOf(t *engine.Tensor) ([]int, error) {
	switch t.DType() {
	case engine.Int64:
		return toInts(engine.Data[int64](t)), nil
	case engine.Int32:
		return toInts(engine.Data[int32](t)), nil
	}
	return nil, fmt.Errorf("expected a tensor of integers, got %s", t.DType())
}

func toInts[T int32 | int64](v []T) []int {
	out := make([]int, len(v))
	for i, e := range v {
		out[i] = int(e)
	}
	return out
}

func one(t *engine.Tensor, err error) ([]*engine.Tensor, error) {
	if err != nil {
		return nil, err
	}
	return []*engine.Tensor{t}, nil
}

func typeError(t *engine.Tensor) error {
	return fmt.Errorf("element type %s is not supported here", t.DType())
}

// arg returns input i, or nil where it was left out.
func arg(in []*engine.Tensor, i int) *engine.Tensor {
	if i < len(in) {
		return in[i]
	}
	return nil
}
