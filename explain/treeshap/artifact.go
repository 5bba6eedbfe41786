package treeshap

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// artifactMagic opens a stored background; its last byte is the version.
const artifactMagic = "pellucid-background\x01"

// maxDigest bounds the name of a set.
const maxDigest = 256

// ErrOtherModel is wrapped by ReadBackground's error for an artifact that was
// made for another ensemble.
var ErrOtherModel = errors.New("the background was prepared for another model")

// Fingerprint returns a digest of all of e that a background depends on.
func Fingerprint(e *tree.Ensemble) [sha256.Size]byte {
	h := sha256.New()
	var buf []byte
	put := func(v uint64) { buf = binary.LittleEndian.AppendUint64(buf, v) }
	put(uint64(e.Features))
	put(uint64(e.Outputs))
	put(uint64(len(e.Trees)))
	put(flag(e.Float32))
	for _, v := range e.Base {
		put(math.Float64bits(v))
	}
	for i := range e.Trees {
		t := &e.Trees[i]
		put(uint64(t.Output))
		put(uint64(len(t.Nodes)))
		put(uint64(len(t.Sets)))
		for j := range t.Nodes {
			n := &t.Nodes[j]
			put(uint64(uint32(n.Left)) | uint64(uint32(n.Right))<<32)
			put(uint64(uint32(n.Feature)) | uint64(uint32(n.Set))<<32)
			put(uint64(n.Rule) | uint64(n.Missing)<<8 | flag(n.DefaultLeft)<<16)
			put(math.Float64bits(n.Threshold))
		}
		for _, v := range t.Values {
			put(math.Float64bits(v))
		}
		for _, s := range t.Sets {
			put(uint64(len(s)))
			for _, w := range s {
				put(w)
			}
		}
		h.Write(buf)
		buf = buf[:0]
	}
	h.Write(buf)
	return [sha256.Size]byte(h.Sum(nil))
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// AppendBinary appends b as it is stored. It holds patterns and counts, no row.
func (b *Background) AppendBinary(dst []byte) ([]byte, error) {
	if len(b.digest) > maxDigest {
		return nil, fmt.Errorf("background digest of %d bytes: at most %d", len(b.digest), maxDigest)
	}
	dst = append(dst, artifactMagic...)
	print := Fingerprint(b.ensemble)
	dst = append(dst, print[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(b.digest)))
	dst = append(dst, b.digest...)
	dst = binary.AppendUvarint(dst, uint64(b.rows))
	for i := range b.trees {
		for l := range b.trees[i].leaves {
			dst = b.trees[i].leaves[l].append(dst)
		}
	}
	sum := sha256.Sum256(dst)
	return append(dst, sum[:8]...), nil
}

func (h *histogram) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(h.counts)))
	for _, p := range h.patterns {
		dst = binary.AppendUvarint(dst, p)
	}
	for _, c := range h.counts {
		dst = binary.AppendUvarint(dst, uint64(c))
	}
	return dst
}

// ReadBackground reads what AppendBinary wrote, for the same ensemble. The error
// wraps ErrOtherModel when it was made for another one and engine.ErrCorrupt
// when it is damaged.
func ReadBackground(e *tree.Ensemble, data []byte) (*Background, error) {
	b, err := layBackground(e, "")
	if err != nil {
		return nil, err
	}
	head := len(artifactMagic) + sha256.Size
	if len(data) < head+8 || string(data[:len(artifactMagic)]) != artifactMagic {
		return nil, fmt.Errorf("read background: no background of this version: %w", engine.ErrCorrupt)
	}
	body := data[:len(data)-8]
	if sum := sha256.Sum256(body); string(sum[:8]) != string(data[len(body):]) {
		return nil, fmt.Errorf("read background: checksum differs: %w", engine.ErrCorrupt)
	}
	if print := Fingerprint(e); string(print[:]) != string(data[len(artifactMagic):head]) {
		return nil, fmt.Errorf("read background: %w", ErrOtherModel)
	}
	if err := b.read(body[head:]); err != nil {
		return nil, fmt.Errorf("read background: %w: %w", err, engine.ErrCorrupt)
	}
	b.finish()
	return b, nil
}

func (b *Background) read(data []byte) error {
	r := &reader{data: data}
	b.digest = string(r.bytes(r.number(maxDigest)))
	b.rows = int(r.number(math.MaxUint32))
	if r.err == nil && b.rows == 0 {
		return errors.New("no rows")
	}
	room := maxPatterns
	for i := range b.trees {
		t := &b.trees[i]
		for l := range t.leaves {
			h := &t.leaves[l]
			if err := h.read(r, int(t.nodes[t.leafAt[l]].distinct), b.rows); err != nil {
				return fmt.Errorf("tree %d leaf %d: %w", i, l, err)
			}
			if room -= len(h.patterns); room < 0 {
				return engine.ErrTooLarge
			}
		}
	}
	if r.err == nil && len(r.data) > 0 {
		return fmt.Errorf("%d bytes left over", len(r.data))
	}
	return r.err
}

// read fills h with patterns of d features, ascending, whose counts sum to rows.
func (h *histogram) read(r *reader, d, rows int) error {
	// Every pattern takes a byte a word and one for its count.
	n := int(r.number(uint64(len(r.data) / (h.width + 1))))
	h.patterns, h.counts = make([]uint64, n*h.width), make([]float64, n)
	for i := range h.patterns {
		h.patterns[i] = r.number(math.MaxUint64)
	}
	total := uint64(0)
	for i := range h.counts {
		c := r.number(uint64(rows))
		h.counts[i] = float64(c)
		total += c
		p := h.patterns[i*h.width : (i+1)*h.width]
		if unused := h.width*64 - d; unused > 0 && bits.LeadingZeros64(p[h.width-1]) < unused && d > 0 {
			return errors.New("a pattern has more features than the path")
		}
		if i > 0 && !less(h.patterns[(i-1)*h.width:i*h.width], p) || c == 0 && r.err == nil {
			return errors.New("patterns do not ascend or are not counted")
		}
	}
	if r.err != nil {
		return r.err
	}
	if total != uint64(rows) {
		return fmt.Errorf("counts sum to %d of %d rows", total, rows)
	}
	return nil
}

// less compares patterns as numbers, the last word the most significant.
func less(a, b []uint64) bool {
	for i := len(a) - 1; i >= 0; i-- {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// reader takes bounded numbers off data; after the first error it gives zeros.
type reader struct {
	data []byte
	err  error
}

func (r *reader) number(limit uint64) uint64 {
	v, n := binary.Uvarint(r.data)
	if r.err == nil && (n <= 0 || v > limit) {
		r.err = errors.New("number cut short or out of range")
	}
	if r.err != nil {
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *reader) bytes(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.data)) {
		r.err = errors.New("text cut short")
	}
	if r.err != nil {
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}
