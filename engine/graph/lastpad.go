package graph

import (
	"maps"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// deferred is a Pad before a convolution, and the slot of its widths. Exporters of networks
// that pad as TensorFlow does compute those from an image's shape: they are known in a run only.
type deferred struct {
	step   *step
	widths int
}

// defers holds back a Pad of zeros whose result one convolution of engine/convolve alone reads,
// which takes its widths for its own.
func (l *laster) defers(s *step) bool {
	n := s.node
	if n.Domain != DomainONNX || n.Op != "Pad" || s.op == functionOp || len(s.in) == 0 || s.in[0] < 0 || s.out[0] < 0 {
		return false
	}
	reader := l.f.only(s.out[0])
	if reader < 0 {
		return false
	}
	c := &l.f.p.steps[reader]
	if c.in[0] != s.out[0] || c.node.Op != "Conv" || !l.suits(c) {
		return false
	}
	widths := l.widths(s, len(l.f.filterWeights(c).Shape()))
	if widths < 0 {
		return false
	}
	switch c.node.Attrs["auto_pad"].String {
	case "", "NOTSET", "VALID":
		l.deferred[s.out[0]] = deferred{s, widths}
		return true
	}
	return false
}

// widths is the slot of how wide a Pad of that many dimensions pads, -1 where it pads
// something else than lines and columns of an image with zeros, or may as far as is known.
func (l *laster) widths(s *step, rank int) int {
	constants := l.f.p.constants
	if mode := s.node.Attrs["mode"].String; mode != "" && mode != "constant" || s.node.Attrs["value"].Float != 0 {
		return -1
	}
	if len(s.in) > 3 && s.in[3] >= 0 || !l.fits(s.in[0], rank) {
		return -1
	}
	if len(s.in) > 2 && s.in[2] >= 0 {
		if v, ok := l.f.number(s.in[2]); !ok || v != 0 {
			return -1
		}
	}
	if s.node.Version < 11 {
		t, err := engine.Of(s.node.Attrs["pads"].Ints, len(s.node.Attrs["pads"].Ints))
		if err != nil || !padsImages(t, rank) {
			return -1
		}
		return l.f.constant(t)
	}
	if len(s.in) < 2 || s.in[1] < 0 || l.f.p.typeOf(s.in[1]) != engine.Int64 || constants[s.in[1]] != nil && !padsImages(constants[s.in[1]], rank) {
		return -1
	}
	return s.in[1]
}

// padsImages reports whether widths are of so many dimensions, of which batch and channels
// have none, and cut nothing.
func padsImages(t *engine.Tensor, rank int) bool {
	v := engine.Data[int64](t)
	if len(v) != 2*rank || v[0] != 0 || v[1] != 0 || v[rank] != 0 || v[rank+1] != 0 {
		return false
	}
	return slices.Min(v) >= 0 && slices.Max(v) < mostWidth
}

// mostWidth bounds the widths that a convolution takes for its own.
const mostWidth = 1 << 16

// withPads is a convolution's node over images with widths of a Pad added to its own.
func withPads(n *Node, widths []int64) *Node {
	p := *n
	p.Attrs = maps.Clone(n.Attrs)
	all := make([]int64, 4)
	if len(n.Attrs["pads"].Ints) == 4 && n.Attrs["auto_pad"].String != "VALID" {
		copy(all, n.Attrs["pads"].Ints)
	}
	if rank := len(widths) / 2; rank == 3 {
		widths = []int64{0, 0, 0, widths[2], 0, 0, 0, widths[5]}
	}
	for i := range 2 {
		all[i] += widths[2+i]
		all[2+i] += widths[6+i]
	}
	delete(p.Attrs, "auto_pad")
	p.Attrs["pads"] = Attr{Kind: AttrInts, Ints: all}
	return &p
}
