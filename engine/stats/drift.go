package stats

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// State is what is known of a signal.
type State string

// The states of a signal.
const (
	StateOK          State = "ok"
	StateDrifted     State = "drifted"
	StateNoData      State = "no_data"
	StateNoReference State = "no_reference"
	StateError       State = "error"
)

// Profile says whose definitions hold.
type Profile string

// The profiles.
const (
	ProfilePellucid  Profile = "pellucid"
	ProfileEvidently Profile = "evidently"
	ProfileNannyML   Profile = "nannyml"
)

// Test names a drift statistic.
type Test string

// The tests.
const (
	PSI               Test = "psi"
	JensenShannon     Test = "jensen_shannon"
	KolmogorovSmirnov Test = "kolmogorov_smirnov"
	ChiSquare         Test = "chi_square"
	Wasserstein       Test = "wasserstein"
	Hellinger         Test = "hellinger"
	MissingRate       Test = "missing_rate"
)

// Tests lists every test, the one that decides by default first.
var Tests = []Test{PSI, JensenShannon, KolmogorovSmirnov, ChiSquare, Wasserstein, Hellinger, MissingRate}

// ParseTests reads a comma-separated list of tests.
func ParseTests(list string) ([]Test, error) {
	var out []Test
	for name := range strings.SplitSeq(list, ",") {
		t := Test(strings.TrimSpace(name))
		if !slices.Contains(Tests, t) {
			return nil, fmt.Errorf("unknown test %q: the tests are %s", t, join(Tests))
		}
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out, nil
}

// ParseProfile reads the name of a profile; "" is pellucid.
func ParseProfile(name string) (Profile, error) {
	p := cmp.Or(Profile(name), ProfilePellucid)
	if !slices.Contains([]Profile{ProfilePellucid, ProfileEvidently, ProfileNannyML}, p) {
		return "", fmt.Errorf("unknown profile %q: the profiles are pellucid, evidently, nannyml", name)
	}
	return p, nil
}

func join[T ~string](list []T) string {
	s := make([]string, len(list))
	for i, v := range list {
		s[i] = string(v)
	}
	return strings.Join(s, ", ")
}

// TestResult is one test of one field.
type TestResult struct {
	// Value is the effect size (pellucid), or what the profile's library holds
	// against its threshold.
	Value  float64  `json:"value"`
	PValue *float64 `json:"p_value"`
	// Threshold is what Value is held against. In the pellucid profile it is
	// the effect that matters plus what sampling noise alone gives on average
	// for these numbers of rows.
	Threshold float64 `json:"threshold"`
	Drifted   bool    `json:"drifted"`
	// Statistic is the classical statistic where Value is another number.
	Statistic *float64 `json:"statistic,omitempty"`
	// Bins is the number of bins the value rests on (B).
	Bins int `json:"bins,omitempty"`
	// Bound limits what binning cost: the value of the raw rows lies within
	// Bound of Value.
	Bound *float64 `json:"bound,omitempty"`
}

// FieldDrift is the drift of one field.
type FieldDrift struct {
	Name  string              `json:"name"`
	Kind  Kind                `json:"kind"`
	Tests map[Test]TestResult `json:"tests"`
	// State follows the deciding test: the first of the tests asked for that the
	// field's kind has.
	State State `json:"state"`
	// Decides is the deciding test.
	Decides Test `json:"decides,omitempty"`
	// Reason explains the states no_data and error.
	Reason string `json:"reason,omitempty"`
	// MissingReference and MissingCurrent are the shares of missing values.
	MissingReference float64 `json:"missing_reference"`
	MissingCurrent   float64 `json:"missing_current"`
}

// RowCounts are how many rows a Report rests on.
type RowCounts struct {
	Reference int `json:"reference"`
	Current   int `json:"current"`
}

// Dataset is the verdict over all fields: the share of judged fields that
// drifted.
type Dataset struct {
	Share   float64 `json:"share"`
	Drifted bool    `json:"drifted"`
}

// Report is the answer of a comparison.
type Report struct {
	Profile  Profile      `json:"profile"`
	Rows     RowCounts    `json:"rows"`
	Features []FieldDrift `json:"features"`
	Dataset  Dataset      `json:"dataset"`
	State    State        `json:"state"`
	Reason   string       `json:"reason,omitempty"`
	// ReferenceID names the reference; Provisional says it was made of the
	// version's own first rows.
	ReferenceID string  `json:"reference_id,omitempty"`
	Provisional bool    `json:"provisional,omitempty"`
	Chunks      []Chunk `json:"chunks,omitempty"`
}

// Chunk is the comparison of one part of the current rows. Start and End are the
// times of its first and last row, or zero where rows have no time.
type Chunk struct {
	Start    *time.Time   `json:"start"`
	End      *time.Time   `json:"end"`
	Rows     int          `json:"rows"`
	Features []FieldDrift `json:"features"`
	Dataset  Dataset      `json:"dataset"`
	State    State        `json:"state"`
}

// Options tune a comparison. The zero value is the profile's defaults.
type Options struct {
	Profile Profile
	// Tests to compute, the deciding one first; empty means all of them.
	Tests []Test
	// MinRows is how many current rows a verdict needs (pellucid); 0 means 500.
	MinRows int
	// Thresholds replace a test's default threshold: the effect that matters.
	Thresholds map[Test]float64
	// Share is the share of drifted fields from which the data set counts as
	// drifted; 0 means 0.5.
	Share float64
	// Threads is how many columns are worked on at a time; 0 means 1.
	Threads int
}

// DefaultMinRows is how many rows a verdict of the pellucid profile needs.
const DefaultMinRows = 500

func (o Options) withDefaults() Options {
	o.Profile = cmp.Or(o.Profile, ProfilePellucid)
	o.MinRows = cmp.Or(o.MinRows, DefaultMinRows)
	o.Share = cmp.Or(o.Share, 0.5)
	o.Threads = max(o.Threads, 1)
	if len(o.Tests) == 0 {
		o.Tests = Tests
	}
	return o
}

// Compare holds current counts against a reference, by the definitions of the
// pellucid profile. cur[i] belongs to ref.Fields[i]; rows is how many rows were
// counted (cur may be weighted). Fields without bins are left out.
func Compare(ref *Reference, cur []Counts, rows int, opt Options) Report {
	opt = opt.withDefaults()
	r := Report{Profile: ProfilePellucid, Features: []FieldDrift{}, Rows: RowCounts{Current: rows}}
	if ref == nil {
		r.State, r.Reason = StateNoReference, "no reference yet"
		return r
	}
	r.Rows.Reference, r.ReferenceID, r.Provisional = ref.Rows, ref.ID, ref.Provisional
	if len(cur) != len(ref.Fields) || len(ref.Counts) != len(ref.Fields) {
		r.State = StateError
		r.Reason = fmt.Sprintf("the reference has %d fields and counts of %d, the current rows of %d", len(ref.Fields), len(ref.Counts), len(cur))
		return r
	}
	for i := range ref.Fields {
		if ref.Fields[i].Kind == KindNone {
			continue
		}
		r.Features = append(r.Features, CompareField(&ref.Fields[i], ref.Counts[i], cur[i], ref.Rows, rows, opt))
	}
	r.Dataset, r.State = summarise(r.Features, opt.Share)
	return r
}

// CompareField is Compare for one field; refRows and rows are how many rows each
// side's counts rest on.
func CompareField(f *FieldBins, ref, cur Counts, refRows, rows int, opt Options) FieldDrift {
	opt = opt.withDefaults()
	d := FieldDrift{Name: f.Name, Kind: f.Kind, Tests: map[Test]TestResult{}, State: StateNoData}
	p, err := newPair(f, ref, cur, refRows, rows)
	if err != nil {
		d.State, d.Reason = StateError, err.Error()
		return d
	}
	if refRows <= 0 || p.refTotal <= 0 {
		d.State, d.Reason = StateNoReference, "no rows in the reference"
		return d
	}
	if rows <= 0 || p.curTotal <= 0 {
		d.Reason = "no rows"
		return d
	}
	d.MissingReference, d.MissingCurrent = p.refMissing(), p.curMissing()
	for _, t := range opt.Tests {
		res, ok := p.run(t, opt)
		if !ok {
			continue
		}
		d.Decides = cmp.Or(d.Decides, t)
		res.Drifted = rows >= opt.MinRows && res.Value > res.Threshold
		d.Tests[t] = res
	}
	switch {
	case rows < opt.MinRows:
		d.Reason = fmt.Sprintf("%d rows, a verdict needs %d", rows, opt.MinRows)
	case d.Decides == "" && f.Keyed():
		d.Reason = "no test asked for applies to this field: its values are sealed, so its bins are in no order"
	case d.Decides == "":
		d.Reason = "no test asked for applies to this field"
	case d.Tests[d.Decides].Drifted:
		d.State = StateDrifted
	default:
		d.State = StateOK
	}
	return d
}

// summarise gives the verdict over fields: drifted where the share is reached,
// else the first of no_reference, error and no_data that holds of all, else ok.
func summarise(fields []FieldDrift, share float64) (Dataset, State) {
	n := map[State]int{}
	for i := range fields {
		n[fields[i].State]++
	}
	judged := n[StateOK] + n[StateDrifted]
	if judged == 0 {
		for _, s := range []State{StateError, StateNoReference} {
			if n[s] > 0 {
				return Dataset{}, s
			}
		}
		return Dataset{}, StateNoData
	}
	d := Dataset{Share: float64(n[StateDrifted]) / float64(judged)}
	d.Drifted = d.Share >= share
	if d.Drifted {
		return d, StateDrifted
	}
	return d, StateOK
}

// The effect that matters, by test. PSI 0.1 is the field's own habit; the others
// are the numbers whose second-order expansion is of that order (see run).
var defaultThresholds = map[Test]float64{
	PSI:               0.1,
	JensenShannon:     0.1,
	KolmogorovSmirnov: 0.1,
	ChiSquare:         math.Sqrt(0.1),
	Wasserstein:       0.1,
	Hellinger:         0.1,
	MissingRate:       0.05,
}

func (o *Options) threshold(t Test) float64 {
	if v, ok := o.Thresholds[t]; ok {
		return v
	}
	return defaultThresholds[t]
}
