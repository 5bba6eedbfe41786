package collector

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"strconv"
	"sync"

	"github.com/pellucid/pellucid/engine/stats"
)

// keyedBins are the bins of a sealed field. They are kept sealed inside the
// reference, which otherwise says only how many rows fell in bin number so and so.
// Bin numbers are in an order that a key makes, and categories are known by keyed
// hashes: what is opened still holds none of anybody's texts.
type keyedBins struct {
	// Edges are the coarse edges of a number; Categories and Others as in FieldBins.
	Edges      []float64 `json:"edges,omitempty"`
	Categories []string  `json:"categories,omitempty"`
	Others     []string  `json:"others,omitempty"`
	// Order is the number of each bin: intervals, or categories and then the others.
	Order []uint16 `json:"order"`

	numeric bool
	secret  []byte
	index   map[string]uint16
}

// Binner computes the bins of rows, opening sealed values where it must. A nil one
// does so without keys. It is safe for concurrent use.
type Binner struct {
	// Keys returns the keys, or why there are none.
	Keys func() (Keyring, error)
	// Failed is told of a sealed value that could not be binned; its row counts in no
	// bin of that feature.
	Failed func(feature string, err error)

	mu   sync.Mutex
	bins map[string]*keyedBins // by what they were sealed as
}

// maxKeyedBins bounds the opened bins that a Binner keeps.
const maxKeyedBins = 4096

// Row is BinRow for schemas whose features may be sealed.
func (b *Binner) Row(ref *stats.Reference, s *Schema, p *Prediction, row int, dst []uint16) []uint16 {
	from := len(dst)
	dst = BinRow(ref, s, p, row, dst)
	if b == nil || ref == nil {
		return dst
	}
	for i := range s.Features {
		if s.Features[i].Private != PrivacySeal || i >= len(ref.Fields) || !ref.Fields[i].Keyed() {
			continue
		}
		bin, err := b.sealed(&ref.Fields[i], s, i, p, row)
		switch {
		case err == nil:
			dst[from+i] = bin
		case b.Failed != nil && !errors.Is(err, ErrForgotten):
			b.Failed(s.Features[i].Name, err)
		}
	}
	return dst
}

// sealed returns the bin of one sealed value.
func (b *Binner) sealed(f *stats.FieldBins, s *Schema, i int, p *Prediction, row int) (uint16, error) {
	array, at, ok := FieldPosition(s.Features, i)
	features := p.Features.Row(row, p.Rows)
	if !ok || array != "Str" || at >= len(features.Str) {
		return stats.BinNone, nil
	}
	if features.Str[at] == "" {
		return stats.BinMissing, nil
	}
	keys, err := b.Keys()
	if err != nil {
		return stats.BinNone, err
	}
	scope, name := Scope{p.Tenant, p.Model}, s.Features[i].Name
	v, err := openValue(keys, scope, name, features.Str[at])
	if err != nil {
		return stats.BinNone, err
	}
	k, err := b.open(keys, f, ReferenceScope(p.Model))
	if err != nil {
		return stats.BinNone, err
	}
	return k.bin(scope.Model, name, v), nil
}

// open reads the bins that a reference keeps sealed, once.
func (b *Binner) open(keys Keyring, f *stats.FieldBins, at Scope) (*keyedBins, error) {
	b.mu.Lock()
	k := b.bins[f.Sealed]
	b.mu.Unlock()
	if k != nil {
		return k, nil
	}
	k, err := openBins(keys, f, at)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bins == nil || len(b.bins) >= maxKeyedBins {
		b.bins = map[string]*keyedBins{}
	}
	b.bins[f.Sealed] = k
	return k, nil
}

// ReferenceScope is what the references of a model are sealed for: a version has one
// for the rows of all tenants.
func ReferenceScope(model string) Scope { return Scope{DefaultTenant, model} }

// binsField is the name that the bins of a field are sealed under, which no value of
// a field is.
func binsField(name string) string { return "bins\x00" + name }

func openBins(keys Keyring, f *stats.FieldBins, at Scope) (*keyedBins, error) {
	doc, err := keys.Open(at, binsField(f.Name), f.Sealed)
	if err != nil {
		return nil, fmt.Errorf("open the bins of feature %q: %w", f.Name, err)
	}
	k := &keyedBins{numeric: f.Kind == stats.KindNumeric, index: map[string]uint16{}}
	if err := json.Unmarshal(doc, k); err != nil {
		return nil, fmt.Errorf("read the bins of feature %q: %w", f.Name, err)
	}
	want := len(k.Edges) + 1
	if !k.numeric {
		if want = len(k.Categories); len(k.Others) > 0 {
			want++
		}
	}
	if len(k.Order) != want {
		return nil, fmt.Errorf("read the bins of feature %q: %d bins in an order of %d", f.Name, want, len(k.Order))
	}
	if k.secret, err = keys.Secret(at.Tenant); err != nil {
		return nil, err
	}
	for _, name := range k.Others {
		k.index[name] = k.Order[len(k.Order)-1]
	}
	for i, name := range k.Categories {
		k.index[name] = k.Order[i]
	}
	return k, nil
}

// bin returns the number of the bin that a value falls in.
func (k *keyedBins) bin(model, field string, v opened) uint16 {
	x, isNumber := v.number()
	if k.numeric {
		if !isNumber || math.IsNaN(x) {
			return stats.BinMissing
		}
		return k.Order[sort.SearchFloat64s(k.Edges, x)]
	}
	name := v.text
	if isNumber {
		name = stats.CategoryName(x)
	}
	if name == "" {
		return stats.BinMissing
	}
	if b, ok := k.index[categoryMark(k.secret, model, field, name)]; ok {
		return b
	}
	return stats.BinUnseen
}

// mark is a keyed hash of parts, each told apart from the next.
func mark(secret []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, secret)
	for _, p := range parts {
		h.Write(binary.AppendUvarint(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

func categoryMark(secret []byte, model, field, name string) string {
	return hex.EncodeToString(mark(secret, "category", model, field, name)[:12])
}

// SealReference puts keyed bins in the place of those of the schema's sealed
// features, which must be the clear ones of s.Unsealed(). Without such features it
// changes nothing.
func SealReference(model string, s *Schema, ref *stats.Reference) error {
	at := ReferenceScope(model)
	if len(s.Sealed()) == 0 {
		return nil
	}
	// The tenant's own key: a reference is nobody's.
	list, err := sealersFor(at, s.Features, []string{""})
	if err != nil {
		return fmt.Errorf("seal the reference: %w", err)
	}
	secret, err := keyringOf(s.Features).Secret(at.Tenant)
	if err != nil {
		return fmt.Errorf("seal the reference: %w", err)
	}
	for i := range s.Features {
		if s.Features[i].Private != PrivacySeal || i >= len(ref.Fields) || ref.Fields[i].Kind == stats.KindNone {
			continue
		}
		if err := sealBins(at, list[0], secret, ref, i); err != nil {
			return fmt.Errorf("seal the bins of feature %q: %w", ref.Fields[i].Name, err)
		}
	}
	return ref.Seal()
}

// sealBins replaces the bins of field i, and moves its counts.
func sealBins(at Scope, seal Sealer, secret []byte, ref *stats.Reference, i int) error {
	clear := &ref.Fields[i]
	counts, err := clear.Fold(ref.Counts[i])
	if err != nil {
		return err
	}
	k := &keyedBins{}
	f := stats.FieldBins{Name: clear.Name, Kind: clear.Kind}
	n := len(clear.Coarse) + 1
	if clear.Kind == stats.KindNumeric {
		for j, e := range clear.Coarse {
			k.Edges = append(k.Edges, clear.Edges[e])
			f.Edges, f.Coarse = append(f.Edges, float64(j+1)), append(f.Coarse, j)
		}
	} else {
		for _, c := range clear.Categories {
			k.Categories = append(k.Categories, categoryMark(secret, at.Model, clear.Name, c))
		}
		for _, c := range clear.Others {
			k.Others = append(k.Others, categoryMark(secret, at.Model, clear.Name, c))
		}
		if n = len(clear.Categories); len(clear.Others) > 0 {
			n++
		}
		for j := range n {
			f.Categories = append(f.Categories, "sealed "+strconv.Itoa(j+1))
		}
	}
	k.Order = keyedOrder(secret, at.Model, clear.Name, n)
	doc, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if f.Sealed, err = seal.Seal(at.Model, binsField(clear.Name), doc); err != nil {
		return err
	}
	moved := stats.Counts{}
	for j, c := range counts[:n] {
		if c > 0 {
			moved[k.Order[j]] += c
		}
	}
	for _, b := range []uint16{stats.BinMissing, stats.BinUnseen} {
		if c := ref.Counts[i][b]; c > 0 {
			moved[b] = c
		}
	}
	ref.Fields[i], ref.Counts[i] = f, moved
	return f.Validate()
}

// keyedOrder is the order that the key gives to n bins of a field.
func keyedOrder(secret []byte, model, field string, n int) []uint16 {
	var seed [32]byte
	copy(seed[:], mark(secret, "order", model, field))
	out := make([]uint16, n)
	for i, j := range rand.New(rand.NewChaCha8(seed)).Perm(n) { //nolint:gosec // the seed is the secret
		out[i] = uint16(j)
	}
	return out
}
