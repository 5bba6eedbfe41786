package stats

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// Counts are weighted counts by bin id of one field over one set of rows. The
// weight is 1 a row unless rows were sampled.
type Counts map[uint16]float64

// Reference is what drift is measured against: the bins and, field by field,
// how many reference rows fell in each. It holds no row.
type Reference struct {
	// ID names this set of bins; every stored row says by which set its bins
	// were computed.
	ID string `json:"id"`
	// Fields are the model's features then its outputs, by position, as in the
	// version's schema.
	Fields []FieldBins `json:"fields"`
	// Counts[i] belongs to Fields[i].
	Counts []Counts `json:"counts"`
	Rows   int      `json:"rows"`
	// Provisional marks a reference made of a version's own first rows.
	Provisional bool `json:"provisional,omitempty"`
	// Source says for people where it came from: a file's name or a window.
	Source string `json:"source,omitempty"`
}

// Column is one field's raw values, by row: Numbers (NaN is missing) or Strings
// (empty is missing). A categorical column may hold either.
type Column struct {
	Name    string
	Kind    Kind
	Numbers []float64
	Strings []string
	// Weights say how many rows each row stands for, above 0; nil is 1 each. Only
	// references are made of weighted columns.
	Weights []float64
	// Integer says that the numbers are of an integer type, which numpy's
	// histograms (profile evidently) take into account.
	Integer bool
}

// Len returns the number of rows.
func (c *Column) Len() int { return max(len(c.Numbers), len(c.Strings)) }

// Cut returns the bins of the column.
func (c *Column) Cut() (FieldBins, error) {
	switch {
	case c.Kind == KindNone:
		return FieldBins{Name: c.Name, Kind: KindNone}, nil
	case c.Kind == KindNumeric && c.Strings == nil:
		return cutNumeric(c.Name, c.Numbers, c.Weights), nil
	case c.Kind == KindCategorical && c.Strings == nil:
		return cutCategorical(c.Name, codeNames(c.Numbers), c.Weights, 0), nil
	case c.Kind == KindCategorical:
		return cutCategorical(c.Name, c.Strings, c.Weights, 0), nil
	}
	return FieldBins{}, fmt.Errorf("cut bins of %q: text cannot be %s", c.Name, cmp.Or(c.Kind, "of no kind"))
}

// Count returns how many rows of the column fall in each bin of f.
func (c *Column) Count(f *FieldBins) Counts {
	switch {
	case f.Kind == KindNone:
		return Counts{}
	case c.Weights != nil:
		return c.weigh(f)
	case c.Strings != nil && f.Kind == KindNumeric:
		// Text where the reference had numbers: nothing there is a number.
		return Counts{BinMissing: float64(len(c.Strings))}
	case c.Strings != nil:
		return f.CountStrings(c.Strings)
	}
	return f.CountNumbers(c.Numbers)
}

// weigh is Count where rows have weights.
func (c *Column) weigh(f *FieldBins) Counts {
	out := Counts{}
	for i, w := range c.Weights {
		switch {
		case c.Strings != nil && f.Kind == KindNumeric:
			out[BinMissing] += w
		case c.Strings != nil:
			out[f.BinString(c.Strings[i])] += w
		case f.Kind == KindNumeric:
			out[f.Bin(c.Numbers[i])] += w
		default:
			out[f.BinCode(c.Numbers[i])] += w
		}
	}
	return out
}

// rows is how many rows the column's stand for.
func (c *Column) rows() (int, error) {
	if c.Weights == nil {
		return c.Len(), nil
	}
	if err := checkWeights(c.Weights, c.Len()); err != nil {
		return 0, err
	}
	var sum float64
	for _, w := range c.Weights {
		sum += w
	}
	return int(min(math.Round(sum), 1<<53)), nil
}

// NewReference cuts bins from columns of equal length and counts them.
func NewReference(columns []Column, source string) (*Reference, error) {
	return newReference(columns, source, 1)
}

// Seal computes the reference's ID: the SHA-256 of its bins and counts. The same
// rows give the same ID.
func (r *Reference) Seal() error {
	if err := r.Validate(); err != nil {
		return err
	}
	// encoding/json writes map keys in order, so the bytes are canonical.
	b, err := json.Marshal(struct {
		Fields []FieldBins
		Counts []Counts
		Rows   int
	}{r.Fields, r.Counts, r.Rows})
	if err != nil {
		return fmt.Errorf("seal reference: %w", err)
	}
	sum := sha256.Sum256(b)
	r.ID = hex.EncodeToString(sum[:])
	return nil
}

// Validate reports what is wrong with a reference that came from outside.
func (r *Reference) Validate() error {
	if len(r.Counts) != len(r.Fields) {
		return fmt.Errorf("check reference: %d fields, %d counts", len(r.Fields), len(r.Counts))
	}
	if r.Rows < 0 {
		return fmt.Errorf("check reference: %d rows", r.Rows)
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if err := f.Validate(); err != nil {
			return fmt.Errorf("check reference: %w", err)
		}
		if f.Kind == KindNone {
			continue
		}
		if _, err := f.Fold(r.Counts[i]); err != nil {
			return fmt.Errorf("check reference: %w", err)
		}
	}
	return nil
}

// sortedBins returns the bin ids of c in order, so that sums come out the same
// bits each time.
func sortedBins(c Counts) []uint16 {
	bins := make([]uint16, 0, len(c))
	for b := range c {
		bins = append(bins, b)
	}
	slices.Sort(bins)
	return bins
}
