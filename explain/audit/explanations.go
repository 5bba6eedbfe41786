package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/explain"
)

// topFeatures is how many of a row's strongest features are held against each other.
const topFeatures = 5

// backgroundRows is how many of the rows Shapley values are taken against where a
// model's file has nothing of the kind.
const backgroundRows = 100

// Explanations compares what both models say mattered, row by row.
type Explanations struct {
	// Method explained both sides; empty where there is none, with the Reason.
	Method string `json:"method,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Background says against which rows, where the method needs some.
	Background string `json:"background,omitempty"`
	Rows       int    `json:"rows"`
	// Asked is how many rows were to be explained; Note says why fewer were, or why by
	// another method than the model's own.
	Asked int    `json:"rows_asked"`
	Note  string `json:"note,omitempty"`
	// Compared counts explanations, one a row and output.
	Compared int `json:"compared"`
	// Features is how many numbers each has.
	Features int `json:"features"`
	// Spearman and Kendall (tau-b) are rank correlations of the effects, over the
	// features of one explanation; the mean and the lowest of all.
	Spearman       float64 `json:"mean_spearman"`
	LowestSpearman float64 `json:"lowest_spearman"`
	Kendall        float64 `json:"mean_kendall"`
	LowestKendall  float64 `json:"lowest_kendall"`
	// Top is how many features TopOverlap looks at: the mean share of the
	// strongest features that are among the strongest of both.
	Top        int     `json:"top"`
	TopOverlap float64 `json:"top_overlap"`
	// Change is the mean over explanations of sum|a-b| / sum|a|.
	Change float64 `json:"mean_relative_change"`
}

// explanations explains a sample of the rows by both models and compares.
func explanations(ctx context.Context, c Config, rows *engine.Rows) (*Explanations, error) {
	p, err := newPair(c, rows)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if p.out.Reason != "" {
		return p.out, nil
	}
	bounded, cancel := ctx, func() {}
	if p.time > 0 {
		bounded, cancel = context.WithTimeout(ctx, p.time)
	}
	defer cancel()
	err = p.run(ctx, bounded)
	if errors.Is(err, collector.ErrRefused) {
		return &Explanations{Top: topFeatures, Asked: p.rows.N, Reason: err.Error()}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return p.out, nil
}

// newPair chooses the method and the rows, or says in its result's Reason why there are none.
func newPair(c Config, rows *engine.Rows) (*pair, error) {
	a, b := *c.Original.Version, *c.Compressed.Version
	p := &pair{a: &a, b: &b, rows: rows, out: &Explanations{Top: topFeatures}, time: c.ExplainTime, first: c.ExplainTime / trial, step: c.Step}
	if !first(rows) {
		p.out.Reason = "a row is explained where it is the first dimension of every input, and here it is not"
		return p, nil
	}
	methods := common(&a, &b)
	if len(methods) == 0 {
		// Shapley values of trees without covers stand against rows.
		few, err := rows.Spread(backgroundRows)
		if err != nil {
			return nil, fmt.Errorf("choose background rows: %w", err)
		}
		ground := func() (engine.Values, string, bool) { return few.Values, "rows of the audit", true }
		if a.Background == nil {
			a.Background = ground
		}
		if b.Background == nil {
			b.Background = ground
		}
		if methods = common(&a, &b); len(methods) > 0 {
			p.out.Background = fmt.Sprintf("%d of the audit's rows", few.N)
			p.req.Background = []byte(`"default"`)
		}
	}
	if len(methods) == 0 {
		p.out.Reason = "no method explains both models"
		return p, nil
	}
	p.req.Method = methods[0]
	if methods[0] != explain.Saliency && slices.Contains(methods, explain.Saliency) {
		p.cheaper = explain.Saliency
	}
	var err error
	if rows.Apart() {
		if p.rows, err = rows.Take(scattered(rows.N, c.ExplainRows)); err != nil {
			return nil, fmt.Errorf("choose rows to explain: %w", err)
		}
	}
	p.out.Asked = p.rows.N
	p.x, err = explain.New(explain.Config{Engine: "pellucid", Deadline: 24 * time.Hour, MaxCost: 1 << 60, MaxValues: 1 << 26})
	return p, err
}

// first reports whether rows are the first dimension of every input, also where there is
// but one and the file says so.
func first(rows *engine.Rows) bool {
	return rows.First() || !rows.Apart() && !slices.ContainsFunc(rows.Values, func(v engine.Named) bool {
		return len(v.Tensor.Shape()) == 0 || v.Tensor.Rows() != 1
	})
}

// scattered are at most k places of n at even distances, in an order whose every
// beginning is spread over all.
func scattered(n, k int) []int {
	k = min(n, k)
	width := bits.Len(uint(max(k-1, 0)))
	at := make([]int, 0, k)
	for i := range 1 << width {
		if r := int(bits.Reverse64(uint64(i)) >> (64 - width)); r < k { //nolint:gosec // i is not negative
			at = append(at, int(int64(r)*int64(n)/int64(k)))
		}
	}
	return at
}

// pair explains rows by two models, in turn, and adds up how they compare.
type pair struct {
	x    *explain.Explainer
	a, b *collector.ModelVersion
	rows *engine.Rows
	req  collector.ExplainRequest
	// cheaper is the method for networks whose own takes too long, if there is one.
	cheaper string
	out     *Explanations
	// time is how long all may take, first the first row by another method than the cheaper
	// one; not above 0 for as long as it takes.
	time, first time.Duration
	step        func(part string, done, total int)
}

// maxElements bounds the numbers of the explanations that are in memory at once.
const maxElements = 1 << 19

// trial is the share of the time that the first row may take by the model's own method.
const trial = 10

// run explains rows until the time is over, which ends the context bounded.
func (p *pair) run(ctx, bounded context.Context) error {
	start, n, done := time.Now(), p.rows.N, 0
	for block := 1; done < n; {
		to := min(done+block, n)
		err := p.explain(bounded, done, to)
		if err != nil && bounded.Err() != nil && ctx.Err() == nil {
			break // the time is over
		}
		if errors.Is(err, errSlow) {
			p.out.Note = fmt.Sprintf("one row took more than %s by %s", p.first, p.req.Method)
			p.req.Method, p.cheaper = p.cheaper, ""
			continue
		}
		if err != nil {
			return err
		}
		done = to
		p.step("explain", done, n)
		block = p.next(block, time.Since(start), done)
	}
	p.out.Method, p.out.Rows = p.req.Method, done
	if done == 0 {
		p.out.Reason = fmt.Sprintf("no row was explained by both models within %s", p.time)
		return nil
	}
	if done < n {
		p.out.note(fmt.Sprintf("%d of %d rows, for the time of %s was over", done, n, p.time))
	}
	p.out.finish()
	return nil
}

func (e *Explanations) note(text string) {
	if e.Note != "" {
		text = e.Note + "; " + text
	}
	e.Note = text
}

// next is how many rows are explained at once after so many took so long: twice as many as
// before, if they fit in memory and in half of the time that is left.
func (p *pair) next(block int, took time.Duration, done int) int {
	block = min(2*block, max(1, maxElements/max(p.out.Features, 1)))
	if p.time > 0 {
		each := max(took/time.Duration(done), 1)
		block = min(block, int((p.time-took)/2/each))
	}
	return max(block, 1)
}

// errSlow says that the first row takes too long by the model's own method.
var errSlow = errors.New("the method is slow")

// explain explains rows by both models and takes in how they compare.
func (p *pair) explain(ctx context.Context, from, to int) error {
	rows, err := p.rows.Slice(from, to)
	if err != nil {
		return err
	}
	outer, cancel := ctx, func() {}
	if p.cheaper != "" && from == 0 && p.first > 0 {
		ctx, cancel = context.WithTimeout(ctx, p.first)
	}
	defer cancel()
	was, err := p.x.Explain(ctx, p.a, rows, p.req)
	var is []collector.Explanation
	if err == nil {
		// A network's default output is the one decided for; both sides explain
		// the original's.
		is, err = again(ctx, p.x, p.b, rows, p.req, was)
	}
	if err != nil && ctx.Err() != nil && outer.Err() == nil {
		return errSlow
	}
	if err != nil {
		return err
	}
	return p.out.add(was, is)
}

// again explains by the second model the outputs that were explained by the first.
func again(ctx context.Context, x *explain.Explainer, v *collector.ModelVersion, rows engine.Values, req collector.ExplainRequest, was []collector.Explanation) ([]collector.Explanation, error) {
	is, err := x.Explain(ctx, v, rows, req)
	if err != nil || len(is) != len(was) {
		return is, err
	}
	per := len(was) / max(rows[0].Tensor.Rows(), 1)
	for i := range was {
		if was[i].Output == is[i].Output || per != 1 {
			continue
		}
		one, err := rows.Slice(i, i+1)
		if err != nil {
			return nil, err
		}
		req.Output = was[i].Output
		e, err := x.Explain(ctx, v, one, req)
		if err != nil {
			return nil, err
		}
		if len(e) == 1 {
			is[i] = e[0]
		}
	}
	return is, nil
}

// common are the methods that explain both, the first model's own first.
func common(a, b *collector.ModelVersion) []string {
	other := explain.Methods(b)
	return slices.DeleteFunc(explain.Methods(a), func(m string) bool { return !slices.Contains(other, m) })
}

// add takes in explanations; the figures are sums until finish.
func (e *Explanations) add(was, is []collector.Explanation) error {
	if len(was) != len(is) || len(was) == 0 {
		return fmt.Errorf("%d and %d explanations of the same rows", len(was), len(is))
	}
	if e.Compared == 0 {
		e.LowestSpearman, e.LowestKendall = 1, 1
	}
	for i := range was {
		a, b := phis(&was[i]), phis(&is[i])
		if was[i].Output != is[i].Output || len(a) != len(b) {
			return fmt.Errorf("explanations of %q and %q, of %d and %d features", was[i].Output, is[i].Output, len(a), len(b))
		}
		e.Features = len(a)
		rho, tau := Spearman(a, b), Kendall(a, b)
		e.Spearman += rho
		e.Kendall += tau
		e.LowestSpearman, e.LowestKendall = min(e.LowestSpearman, rho), min(e.LowestKendall, tau)
		e.TopOverlap += overlap(a, b, topFeatures)
		e.Change += relativeChange(a, b)
	}
	e.Compared += len(was)
	return nil
}

// finish makes means of the sums.
func (e *Explanations) finish() {
	n := float64(e.Compared)
	e.Spearman, e.Kendall, e.TopOverlap, e.Change = e.Spearman/n, e.Kendall/n, e.TopOverlap/n, e.Change/n
	e.Top = min(topFeatures, e.Features)
}

func phis(e *collector.Explanation) []float64 {
	out := make([]float64, len(e.Attributions))
	for i := range e.Attributions {
		out[i] = e.Attributions[i].Phi
	}
	return out
}

// relativeChange is sum|a-b| / sum|a|; 1 where all of a is zero and b is not.
func relativeChange(a, b []float64) float64 {
	var d, s float64
	for i := range a {
		d += math.Abs(a[i] - b[i])
		s += math.Abs(a[i])
	}
	switch {
	case d == 0:
		return 0
	case s == 0:
		return 1
	}
	return d / s
}

// overlap is the share of the k strongest features of a that are among the k
// strongest of b. Where features are tied for the last places, those that come first.
func overlap(a, b []float64, k int) float64 {
	k = min(k, len(a))
	if k == 0 {
		return 1
	}
	strongest := func(v []float64) []int {
		at := make([]int, len(v))
		for i := range at {
			at[i] = i
		}
		slices.SortStableFunc(at, func(i, j int) int { return cmp.Compare(math.Abs(v[j]), math.Abs(v[i])) })
		return at[:k]
	}
	both := 0
	other := strongest(b)
	for _, i := range strongest(a) {
		if slices.Contains(other, i) {
			both++
		}
	}
	return float64(both) / float64(k)
}

// Spearman is the rank correlation of a and b, tied values sharing their mean rank.
// Where all of one side is tied there is no order to agree on: 1 where all of the
// other is too, else 0.
func Spearman(a, b []float64) float64 {
	x, y := ranks(a), ranks(b)
	n := float64(len(x))
	mean := (n + 1) / 2
	var xy, xx, yy float64
	for i := range x {
		dx, dy := x[i]-mean, y[i]-mean
		xy += dx * dy
		xx += dx * dx
		yy += dy * dy
	}
	if xx == 0 || yy == 0 {
		return tied(xx, yy)
	}
	return max(-1, min(1, xy/math.Sqrt(xx*yy)))
}

func tied(x, y float64) float64 {
	if x == 0 && y == 0 {
		return 1
	}
	return 0
}

// ranks numbers values from 1, equal ones by the mean of their places.
func ranks(v []float64) []float64 {
	at := ordered(v)
	out := make([]float64, len(v))
	for i := 0; i < len(at); {
		j := i
		for j < len(at) && v[at[j]] == v[at[i]] {
			j++
		}
		for k := i; k < j; k++ {
			out[at[k]] = float64(i+j+1) / 2
		}
		i = j
	}
	return out
}

func ordered(v []float64) []int {
	at := make([]int, len(v))
	for i := range at {
		at[i] = i
	}
	slices.SortStableFunc(at, func(i, j int) int { return cmp.Compare(v[i], v[j]) })
	return at
}

// Kendall is tau-b of a and b, by Knight's method in n log n. Of all-tied sides as
// Spearman.
func Kendall(a, b []float64) float64 {
	n := len(a)
	at := make([]int, n)
	for i := range at {
		at[i] = i
	}
	slices.SortStableFunc(at, func(i, j int) int {
		if c := cmp.Compare(a[i], a[j]); c != 0 {
			return c
		}
		return cmp.Compare(b[i], b[j])
	})
	y := make([]float64, n)
	for i, j := range at {
		y[i] = b[j]
	}
	tiesA := runs(n, func(i, j int) bool { return a[at[i]] == a[at[j]] })
	tiesBoth := runs(n, func(i, j int) bool { return a[at[i]] == a[at[j]] && b[at[i]] == b[at[j]] })
	swaps := inversions(y, make([]float64, n))
	tiesB := runs(n, func(i, j int) bool { return y[i] == y[j] }) // y is sorted now
	pairs := float64(n) * float64(n-1) / 2
	x0, y0 := pairs-tiesA, pairs-tiesB
	if x0 == 0 || y0 == 0 {
		return tied(x0, y0)
	}
	return max(-1, min(1, (pairs-tiesA-tiesB+tiesBoth-2*swaps)/math.Sqrt(x0*y0)))
}

// runs counts the pairs within runs of neighbours that are alike.
func runs(n int, alike func(i, j int) bool) float64 {
	total, from := 0.0, 0
	for i := 1; i <= n; i++ {
		if i < n && alike(from, i) {
			continue
		}
		k := float64(i - from)
		total += k * (k - 1) / 2
		from = i
	}
	return total
}

// inversions sorts v and counts the pairs that stood in the wrong order.
func inversions(v, spare []float64) float64 {
	n := len(v)
	if n < 2 {
		return 0
	}
	half := n / 2
	count := inversions(v[:half], spare[:half]) + inversions(v[half:], spare[half:])
	i, j := 0, half
	for k := range n {
		if j == n || i < half && v[i] <= v[j] {
			spare[k] = v[i]
			i++
			continue
		}
		count += float64(half - i)
		spare[k] = v[j]
		j++
	}
	copy(v, spare)
	return count
}
