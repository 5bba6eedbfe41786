// Package audit tells what a changed model costs: it runs an original and a
// compressed model (or an older and a newer version) over the same rows and
// compares size, speed, accuracy, decisions, the distribution of scores and the explanations.
//
// It owns the comparison and the limits a change may be held to. It changes no model
// (engine/compress does) and draws nothing (dashboards/report does).
//
// Invariants: both models see the same rows in the same order; what could not be
// judged is said with the reason and fails a limit that asks for it; a report holds
// scores and row numbers, never a feature's value.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// worstRows is how many of the rows that changed most a report names.
const worstRows = 10

// Model is one side of the comparison.
type Model struct {
	// Name is the file's.
	Name string
	// Version answers and is explained.
	Version *collector.ModelVersion
	// FileBytes is the file's size with its external data, MemoryBytes what the
	// loaded model takes; 0 where it was not measured.
	FileBytes, MemoryBytes int64
}

// Config says what to compare. Rows and both models are needed.
type Config struct {
	Original, Compressed Model
	// Rows are canonical inputs, which both models must take.
	Rows engine.Values
	// Labels is the truth of each row as text, or nil. Of a regression they are
	// numbers. An empty one is missing.
	Labels []string
	// ExplainRows is how many rows are explained, spread over all; 0 means 200,
	// a negative number none. ExplainTime is how long that may take: rows that are
	// explained by then are compared; 0 means two minutes, a negative time as long as it takes.
	ExplainRows int
	ExplainTime time.Duration
	// Rounds is how often speed is measured on each side; 0 means 7, a negative
	// number not at all.
	Rounds int
	// Threads each run may use; 0 means 1.
	Threads int
	// Step is told how far a part of the work has come (rows answered, rows explained,
	// rounds of speed); may be nil.
	Step func(part string, done, total int)
}

// The defaults of Config.
const (
	defaultExplainRows = 200
	defaultExplainTime = 2 * time.Minute
	defaultRounds      = 7
)

// Number is a number that may be none, which JSON writes as null.
type Number float64

// MarshalJSON implements json.Marshaler.
func (n Number) MarshalJSON() ([]byte, error) {
	if v := float64(n); math.IsNaN(v) || math.IsInf(v, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// Size compares bytes.
type Size struct {
	Original   int64 `json:"original"`
	Compressed int64 `json:"compressed"`
	// Ratio is compressed over original.
	Ratio float64 `json:"ratio"`
}

// Report is what was found.
type Report struct {
	Original   string `json:"original"`
	Compressed string `json:"compressed"`
	// Digests name the files' bytes.
	OriginalDigest   string `json:"original_digest"`
	CompressedDigest string `json:"compressed_digest"`
	Rows             int    `json:"rows"`
	// Applied lists what was done to the original, where the caller told.
	Applied []Applied `json:"applied,omitempty"`
	Notes   []string  `json:"notes,omitempty"`
	// Warnings are what the caller has against the change beside its limits.
	Warnings []string `json:"warnings,omitempty"`
	File     Size     `json:"file_bytes"`
	Memory   *Size    `json:"memory_bytes,omitempty"`
	// Speed was measured on this machine at the time of the report.
	Speed *Speed `json:"speed,omitempty"`
	// Scores compares every number the models put out.
	Scores Scores `json:"scores"`
	// Distribution compares the scores as one set with the other.
	Distribution Distribution `json:"distribution"`
	// Decisions is nil where the model decides nothing (a regression).
	Decisions *Decisions `json:"decisions,omitempty"`
	// Accuracy is nil where no labels were given.
	Accuracy *Accuracy `json:"accuracy,omitempty"`
	// Explanations is nil where none were asked for.
	Explanations *Explanations `json:"explanations,omitempty"`
	// Worst are the rows whose scores changed most.
	Worst []Row `json:"worst_rows"`
	// Verdict holds the limits asked for; nil where there were none.
	Verdict *Verdict `json:"verdict,omitempty"`
}

// Applied is one thing that was done to the original.
type Applied struct {
	Part string `json:"part"`
	What string `json:"what"`
}

// Scores are differences between the models' float outputs, element by element.
type Scores struct {
	MaxDifference  Number  `json:"max_difference"`
	MeanDifference float64 `json:"mean_difference"`
	// NotFinite counts elements that are a number on one side only.
	NotFinite int `json:"not_finite"`
}

// Distribution holds the compressed model's scores against the original's.
type Distribution struct {
	// Of says what the score of a row is.
	Of                string  `json:"of"`
	PSI               float64 `json:"psi"`
	KolmogorovSmirnov float64 `json:"kolmogorov_smirnov"`
	PValue            float64 `json:"p_value"`
	Wasserstein       float64 `json:"wasserstein"`
	// Reason says why there are none.
	Reason string `json:"reason,omitempty"`
}

// Decisions compares what the models decide.
type Decisions struct {
	Rows   int `json:"rows"`
	Differ int `json:"differ"`
	// Disagreement is the share of rows decided otherwise.
	Disagreement float64 `json:"disagreement"`
	// Flips counts changed decisions by pair, most frequent first.
	Flips []Flip `json:"flips,omitempty"`
}

// Flip is a change of decision and how often it happened.
type Flip struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Count int    `json:"count"`
}

// Accuracy compares both models with the labels.
type Accuracy struct {
	Rows       int                      `json:"rows"`
	Original   map[stats.Metric]float64 `json:"original"`
	Compressed map[stats.Metric]float64 `json:"compressed"`
	// Loss is the deciding metric's: how much accuracy is lost, or by what share
	// the RMSE of a regression grew. Negative is a gain.
	Metric stats.Metric `json:"metric"`
	Loss   float64      `json:"loss"`
	Reason string       `json:"reason,omitempty"`
}

// Row is a row with both models' answers.
type Row struct {
	// Row counts from 0 in the file.
	Row        int    `json:"row"`
	Difference Number `json:"difference"`
	// Output is the element that differs most.
	Output          string `json:"output"`
	Original        Number `json:"original"`
	Compressed      Number `json:"compressed"`
	OriginalDecided string `json:"original_decision,omitempty"`
	NewDecided      string `json:"compressed_decision,omitempty"`
	Label           string `json:"label,omitempty"`
}

// Run compares the models.
func Run(ctx context.Context, c Config) (*Report, error) {
	rows, err := c.check()
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	r := &Report{
		Original: c.Original.Name, Compressed: c.Compressed.Name, Rows: rows.N,
		OriginalDigest: c.Original.Version.Digest, CompressedDigest: c.Compressed.Version.Digest,
		File: size(c.Original.FileBytes, c.Compressed.FileBytes),
	}
	if c.Original.MemoryBytes > 0 && c.Compressed.MemoryBytes > 0 {
		m := size(c.Original.MemoryBytes, c.Compressed.MemoryBytes)
		r.Memory = &m
	}
	answered := 0
	step := func(n int) {
		answered += n
		c.Step("answer", answered, 2*rows.N)
	}
	a, err := answers(ctx, c.Original, rows, c.Threads, step)
	if err != nil {
		return nil, err
	}
	b, err := answers(ctx, c.Compressed, rows, c.Threads, step)
	if err != nil {
		return nil, err
	}
	if err := r.compare(a, b, c.Labels); err != nil {
		return nil, err
	}
	if !rows.Apart() {
		r.Notes = append(r.Notes, "the inputs are no rows that the model takes apart: its one answer to all of them is compared")
	}
	for _, name := range a.apart {
		r.Notes = append(r.Notes, fmt.Sprintf("output %q has no part of its own for each row, and is not compared", name))
	}
	if c.ExplainRows > 0 {
		if r.Explanations, err = explanations(ctx, c, rows); err != nil {
			return nil, err
		}
	}
	if c.Rounds > 0 {
		if r.Speed, err = speed(ctx, c, rows, min(a.block, b.block)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// check fills in the defaults and finds the rows.
func (c *Config) check() (*engine.Rows, error) {
	for _, m := range []Model{c.Original, c.Compressed} {
		if m.Version == nil || m.Version.Model == nil || m.Version.Info == nil {
			return nil, errors.New("a model is missing")
		}
	}
	if c.Step == nil {
		c.Step = func(string, int, int) {}
	}
	if c.ExplainTime == 0 {
		c.ExplainTime = defaultExplainTime
	}
	if c.ExplainRows == 0 {
		c.ExplainRows = defaultExplainRows
	}
	if c.Rounds == 0 {
		c.Rounds = defaultRounds
	}
	if err := same(c.Original.Version.Info, c.Compressed.Version.Info); err != nil {
		return nil, err
	}
	if len(c.Rows) == 0 {
		return nil, errors.New("no rows, so there is nothing to compare")
	}
	// A compressed file may say less of what is open; the original's word counts.
	rows := engine.RowsOf(c.Original.Version.Info, c.Rows)
	if rows.N == 0 {
		return nil, errors.New("no rows")
	}
	if c.Labels != nil && len(c.Labels) != rows.N {
		return nil, fmt.Errorf("%d labels for %d rows", len(c.Labels), rows.N)
	}
	return rows, nil
}

// same refuses models of different inputs or outputs.
func same(a, b *engine.Info) error {
	spec := func(s engine.Spec) string { return fmt.Sprintf("%s %s %v", s.Name, s.DType, s.Shape) }
	for _, x := range []struct {
		what string
		a, b []engine.Spec
	}{{"input", a.Inputs, b.Inputs}, {"output", a.Outputs, b.Outputs}} {
		if len(x.a) != len(x.b) {
			return fmt.Errorf("%d and %d %ss", len(x.a), len(x.b), x.what)
		}
		for i := range x.a {
			if x.a[i].Name != x.b[i].Name || x.a[i].DType != x.b[i].DType {
				return fmt.Errorf("%s %s of one model is %s of the other", x.what, spec(x.a[i]), spec(x.b[i]))
			}
		}
	}
	return nil
}

func size(a, b int64) Size {
	s := Size{Original: a, Compressed: b}
	if a > 0 {
		s.Ratio = float64(b) / float64(a)
	}
	return s
}

// compare fills in what follows from both models' answers.
func (r *Report) compare(a, b *answer, labels []string) error {
	if err := r.differences(a, b, labels); err != nil {
		return err
	}
	r.distribution(a, b)
	if a.decided != nil && b.decided != nil {
		r.Decisions = decisions(a.decided, b.decided)
	}
	if labels != nil {
		r.Accuracy = accuracy(a, b, labels)
	}
	return nil
}

// differences compares every element and finds the rows that changed most.
func (r *Report) differences(a, b *answer, labels []string) error {
	if len(a.values) != len(b.values) || a.rows != b.rows {
		return fmt.Errorf("audit: the models answer %d and %d numbers for %d rows", len(a.values), len(b.values), a.rows)
	}
	width := a.width()
	sum, compared := 0.0, 0
	worst := make([]Row, 0, a.rows)
	for i := range a.rows {
		w := Row{Row: i, Difference: -1}
		for k := range width {
			x, y := a.values[i*width+k], b.values[i*width+k]
			d := math.Abs(x - y)
			if x == y || x != x && y != y {
				d = 0
			} else if math.IsNaN(d) || math.IsInf(d, 0) {
				r.Scores.NotFinite++
				d = math.Inf(1)
			}
			if !math.IsInf(d, 0) {
				sum += d
				compared++
			}
			if d > float64(w.Difference) {
				w.Difference, w.Original, w.Compressed, w.Output = Number(d), Number(x), Number(y), a.names[k]
			}
		}
		if a.decided != nil && b.decided != nil {
			w.OriginalDecided, w.NewDecided = a.decided[i], b.decided[i]
		}
		if labels != nil {
			w.Label = labels[i]
		}
		worst = append(worst, w)
	}
	slices.SortStableFunc(worst, func(x, y Row) int {
		switch {
		case x.Difference > y.Difference:
			return -1
		case x.Difference < y.Difference:
			return 1
		}
		return 0
	})
	if width > 0 {
		r.Scores.MaxDifference = worst[0].Difference
		r.Scores.MeanDifference = sum / float64(max(compared, 1))
		r.Worst = worst[:min(worstRows, len(worst))]
	}
	return nil
}

func decisions(a, b []string) *Decisions {
	d := &Decisions{Rows: len(a)}
	flips := map[[2]string]int{}
	for i := range a {
		if a[i] != b[i] {
			d.Differ++
			flips[[2]string{a[i], b[i]}]++
		}
	}
	d.Disagreement = float64(d.Differ) / float64(max(len(a), 1))
	for pair, n := range flips {
		d.Flips = append(d.Flips, Flip{From: pair[0], To: pair[1], Count: n})
	}
	slices.SortFunc(d.Flips, func(x, y Flip) int {
		if x.Count != y.Count {
			return y.Count - x.Count
		}
		if x.From != y.From {
			return compareText(x.From, y.From)
		}
		return compareText(x.To, y.To)
	})
	d.Flips = d.Flips[:min(len(d.Flips), worstRows)]
	return d
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
