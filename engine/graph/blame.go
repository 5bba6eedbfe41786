package graph

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pellucid/pellucid/engine"
)

// misfit is why a node cannot take what it is given. Like engine.InputError it holds none
// of the caller's values, as no error of a kernel may.
func misfit(format string, args ...any) error { return fmt.Errorf(format, args...) }

// outsideAxis is the error of an index that an axis of n does not have.
func outsideAxis(n int) error { return misfit("an index is outside an axis of %d", n) }

// nodeError is why a node could not be run.
type nodeError struct {
	node *Node
	err  error
}

func (e *nodeError) Error() string {
	return fmt.Sprintf("run node %q (%s): %v", e.node.Label(), e.node.Title(), e.err)
}

func (e *nodeError) Unwrap() error { return e.err }

// wrapNode adds the node to an error that does not name it yet: of nodes within nodes it
// is the innermost.
func wrapNode(n *Node, err error) error {
	var u *engine.UnsupportedError
	var e *nodeError
	if errors.As(err, &u) || errors.As(err, &e) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &nodeError{n, err}
}

// blame makes an error of the caller's inputs out of one of a node of step i that works on
// what they are: a model that was compiled runs over inputs that fit it. What follows from
// constants alone is the model's fault.
func (p *Program) blame(i int, err error) error {
	var e *nodeError
	if !errors.As(err, &e) || errors.Is(err, engine.ErrTooLarge) || errors.Is(err, errUnfused) {
		return err
	}
	names := p.inputsOf(i)
	if len(names) == 0 {
		return err
	}
	what := "it"
	if len(names) > 1 {
		what = "it together with"
		for k, name := range names[1:] {
			if k == maxBlamed {
				what += fmt.Sprintf(" and %d more", len(names)-1-k)
				break
			}
			what += fmt.Sprintf(" %q", strings.ToValidUTF8(name[:min(len(name), maxBlamedName)], ""))
		}
	}
	return &engine.InputError{Input: names[0], Reason: fmt.Sprintf("the model cannot take %s: node %q (%s): %s", what, e.node.Label(), e.node.Title(), e.err)}
}

// maxBlamed bounds the names of an error, maxBlamedName each of those after the first.
const maxBlamed, maxBlamedName = 7, 80

// inputsOf are the inputs of the graph that step i works on, in the graph's order.
func (p *Program) inputsOf(i int) []string {
	seen := make([]bool, len(p.names))
	todo := p.steps[i].in
	for len(todo) > 0 {
		slot := todo[0]
		todo = todo[1:]
		if slot < 0 || seen[slot] || p.constants[slot] != nil {
			continue
		}
		seen[slot] = true
		if by := p.producer[slot]; by >= 0 {
			todo = append(todo[:len(todo):len(todo)], p.steps[by].in...)
		}
	}
	var names []string
	for _, in := range p.graph.Inputs {
		if seen[p.slots[in.Name]] {
			names = append(names, in.Name)
		}
	}
	return names
}
