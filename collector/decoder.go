package collector

import (
	"encoding/hex"
	"time"
	"unsafe"
)

// Decoder decodes many predictions with few allocations: what they have in common
// (tenant, model, version, digest, ...) is one string for all of them, and the rest is cut
// from slabs. A slab lives as long as anything cut from it, so what is to outlive its
// batch is better decoded by DecodePrediction. The zero value is ready; it is for one
// goroutine.
type Decoder struct {
	words       map[string]string // by their encoded form
	letters     []byte
	f32         []float32
	f64         []float64
	bins        []uint16
	texts       []string
	times       []time.Time
	predictions []Prediction
}

const (
	// maxWords and maxWord bound the strings in common: a model's names, not
	// whatever comes.
	maxWords = 4096
	maxWord  = 256
	// slab is how many numbers, letters and times are made at once, and rowSlab
	// how many predictions.
	slab    = 4096
	rowSlab = 64
)

// Prediction is DecodePrediction.
func (d *Decoder) Prediction(b []byte) (*Prediction, error) {
	return decodePrediction(&reader{b: b, d: d})
}

// cutFrom takes n things off a slab, which is made anew where it is too small.
func cutFrom[T any](from *[]T, n, slab int) []T {
	if n > slab/4 {
		return make([]T, n)
	}
	if n > len(*from) {
		*from = make([]T, slab)
	}
	out := (*from)[:n:n]
	*from = (*from)[n:]
	return out
}

// cut takes n things off a slab of the decoder, or makes them.
func cut[T any](r *reader, of func(*Decoder) *[]T, n int) []T {
	if r.d == nil {
		return make([]T, n)
	}
	return cutFrom(of(r.d), n, slab)
}

// prediction is an empty one.
func (r *reader) prediction() *Prediction {
	if r.d == nil {
		return &Prediction{}
	}
	return &cutFrom(&r.d.predictions, 1, rowSlab)[0]
}

func slabF32(d *Decoder) *[]float32     { return &d.f32 }
func slabF64(d *Decoder) *[]float64     { return &d.f64 }
func slabBins(d *Decoder) *[]uint16     { return &d.bins }
func slabTexts(d *Decoder) *[]string    { return &d.texts }
func slabTimes(d *Decoder) *[]time.Time { return &d.times }
func slabLetters(d *Decoder) *[]byte    { return &d.letters }

// word reads a string that many predictions have in common.
func (r *reader) word() string {
	if r.d == nil {
		return r.string()
	}
	before := r.b
	head, n := uvarintOf(before)
	if n <= 0 || head>>2 > maxWord || uint64(len(before)-n) < head>>2 {
		return r.string()
	}
	raw := before[:n+int(head>>2)]
	if s, ok := r.d.words[string(raw)]; ok {
		r.b = before[len(raw):]
		return s
	}
	// It outlives the slabs.
	d := r.d
	r.d = nil
	s := r.string()
	r.d = d
	if r.err != nil {
		return ""
	}
	if d.words == nil || len(d.words) >= maxWords {
		d.words = make(map[string]string, 16)
	}
	d.words[string(raw)] = s
	return s
}

// text makes a string of n bytes that fill writes.
func (r *reader) text(n int, fill func(dst []byte)) string {
	if n == 0 {
		return ""
	}
	b := cut(r, slabLetters, n)
	fill(b)
	// Nobody writes to these bytes again.
	return unsafe.String(&b[0], n)
}

func fillUUID(s, b []byte) {
	hex.Encode(s[0:8], b[0:4])
	s[8] = '-'
	hex.Encode(s[9:13], b[4:6])
	s[13] = '-'
	hex.Encode(s[14:18], b[6:8])
	s[18] = '-'
	hex.Encode(s[19:23], b[8:10])
	s[23] = '-'
	hex.Encode(s[24:36], b[10:16])
}
