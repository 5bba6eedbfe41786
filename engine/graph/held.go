package graph

import (
	"fmt"

	"github.com/pellucid/pellucid/engine"
)

// DefaultHeld bounds what a program holds where nothing else is said.
const DefaultHeld = 8 << 30

// held counts what a program and those within it hold. A nil one counts nothing, for
// programs that live as long as a run.
type held struct {
	limit int64
	// constants are in the file's own form, laid those made of them for kernels.
	constants, laid int64
	// counted are constants that are: graphs within a graph share its own.
	counted map[*engine.Tensor]bool
}

// constant counts a constant that is there already, once.
func (h *held) constant(name string, t *engine.Tensor) error {
	if h == nil || h.counted[t] {
		return nil
	}
	if h.counted == nil {
		h.counted = map[*engine.Tensor]bool{}
	}
	h.counted[t] = true
	n := tensorBytes(t)
	if n > h.limit-h.constants-h.laid {
		return fmt.Errorf("constant %q of %d bytes, with %d of %d bytes in use, the limit of a model: %w", name, n, h.constants+h.laid, h.limit, engine.ErrTooLarge)
	}
	h.constants += n
	return nil
}

// trees counts n bytes that an ensemble takes, half of them its compiled form.
func (h *held) trees(n *Node, bytes int64) error {
	if h == nil {
		return nil
	}
	if bytes > h.left() {
		return fmt.Errorf("the trees of node %q (%s) of %d bytes, with %d of %d bytes in use, the limit of a model: %w",
			n.Label(), n.Title(), bytes, h.constants+h.laid, h.limit, engine.ErrTooLarge)
	}
	h.constants, h.laid = h.constants+bytes-bytes/2, h.laid+bytes/2
	return nil
}

// lay counts n bytes that are about to be made of constants; it reports false, and
// counts nothing, where they are too many.
func (h *held) lay(n int64) bool {
	if h == nil {
		return true
	}
	if n < 0 || n > h.limit-h.constants-h.laid {
		return false
	}
	h.laid += n
	return true
}

// give takes back what lay counted and nobody holds any more.
func (h *held) give(n int64) {
	if h != nil {
		h.laid -= n
	}
}

// left is what lay may still be asked for.
func (h *held) left() int64 {
	if h == nil {
		return DefaultHeld
	}
	return h.limit - h.constants - h.laid
}

// Held returns the bytes of the program's constants and trees, and of what was made of them
// for their kernels: folded constants, packed weights, convolutions' filters, compiled trees.
func (p *Program) Held() (constants, laid int64) {
	if p.held == nil {
		return 0, 0
	}
	return p.held.constants, p.held.laid
}
