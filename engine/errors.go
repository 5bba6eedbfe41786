package engine

import (
	"errors"
	"fmt"
)

// ErrTooLarge is wrapped by the error of a model or a run that would exceed a limit on
// its memory, or on its size or steps.
var ErrTooLarge = errors.New("limit on memory, size or steps exceeded")

// ErrCorrupt is wrapped by the error of a reader whose file is damaged,
// truncated or contradicts itself.
var ErrCorrupt = errors.New("corrupt model file")

// InputError says which input of a request does not fit the model, and why. The
// reason never holds a value from the request: values may be private.
type InputError struct {
	// Input is the tensor's name, Feature the column's where one is to blame.
	Input, Feature string
	Reason         string
}

func (e *InputError) Error() string {
	switch {
	case e.Feature != "" && e.Feature != e.Input:
		return fmt.Sprintf("input %q: feature %q: %s", e.Input, e.Feature, e.Reason)
	case e.Input != "":
		return fmt.Sprintf("input %q: %s", e.Input, e.Reason)
	}
	return e.Reason
}

// UnsupportedError is a reader's refusal of a model that uses something the
// engine does not have. It names the operator (or objective, or field), its
// version and the node where there is one.
type UnsupportedError struct {
	What, Version, Node, Reason string
}

func (e *UnsupportedError) Error() string {
	s := "not supported: " + e.What
	if e.Version != "" {
		s += " version " + e.Version
	}
	if e.Node != "" {
		s += fmt.Sprintf(" (node %q)", e.Node)
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// NotDifferentiableError says where the path from a target to an input breaks, why,
// and which method, output or model to use instead.
type NotDifferentiableError struct {
	Node, Op, Reason, Instead string
}

func (e *NotDifferentiableError) Error() string {
	s := fmt.Sprintf("not differentiable at node %q (%s)", e.Node, e.Op)
	if e.Reason != "" {
		s += ", " + e.Reason
	}
	if e.Instead != "" {
		s += ": use " + e.Instead + " instead"
	}
	return s
}
