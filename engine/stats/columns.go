package stats

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// CompareColumns holds raw current columns against raw reference columns by the
// definitions of opt.Profile. The current columns are found by name; those that
// the reference lacks are left out. The pellucid profile cuts, counts and calls
// Compare, so that files and a server's counts give the same numbers.
func CompareColumns(ref, cur []Column, opt Options) (Report, error) {
	opt = opt.withDefaults()
	p, err := prepare(ref, opt)
	if err != nil {
		return Report{}, err
	}
	return p.compare(cur)
}

// CompareChunks is CompareColumns for all current rows, and for each chunk of
// them. times may be nil where chunks are counts of rows.
func CompareChunks(ref, cur []Column, times []time.Time, by ChunkBy, opt Options) (Report, error) {
	opt = opt.withDefaults()
	p, err := prepare(ref, opt)
	if err != nil {
		return Report{}, err
	}
	rep, err := p.compare(cur)
	if err != nil {
		return rep, err
	}
	spans, err := Chunks(times, rep.Rows.Current, by)
	if err != nil {
		return rep, err
	}
	rep.Chunks = make([]Chunk, 0, len(spans))
	for _, s := range spans {
		part := make([]Column, len(cur))
		for i := range cur {
			part[i] = cur[i].Take(s.Rows)
		}
		r, err := p.compare(part)
		if err != nil {
			return rep, err
		}
		c := Chunk{Rows: len(s.Rows), Features: r.Features, Dataset: r.Dataset, State: r.State}
		if times != nil {
			c.Start, c.End = &s.Start, &s.End
		}
		rep.Chunks = append(rep.Chunks, c)
	}
	return rep, nil
}

// prepared is a reference ready for any number of comparisons.
type prepared struct {
	opt  Options
	raw  []Column
	bins *Reference // pellucid only
	// sorted holds the present reference numbers in order, by column (evidently).
	sorted [][]float64
}

func prepare(ref []Column, opt Options) (*prepared, error) {
	p := &prepared{opt: opt, raw: ref}
	switch opt.Profile {
	case ProfilePellucid:
		var err error
		p.bins, err = newReference(ref, "", opt.Threads)
		return p, err
	case ProfileEvidently:
		if slices.Contains(opt.Tests, MissingRate) && len(opt.Tests) != len(Tests) {
			return nil, fmt.Errorf("profile evidently has no test %s: it leaves missing values out", MissingRate)
		}
		p.sorted = make([][]float64, len(ref))
		forEach(len(ref), opt.Threads, func(i int) { p.sorted[i] = sortedPresent(ref[i].Numbers) })
		return p, nil
	case ProfileNannyML:
		return nil, fmt.Errorf("profile %s is not built yet: use pellucid or evidently", opt.Profile)
	}
	return nil, fmt.Errorf("unknown profile %q", opt.Profile)
}

// match returns the current columns in the reference's order.
func (p *prepared) match(cur []Column) ([]*Column, int, error) {
	byName := map[string]*Column{}
	rows := -1
	for i := range cur {
		c := &cur[i]
		byName[c.Name] = c
		if c.Kind == KindNone {
			continue
		}
		if rows >= 0 && c.Len() != rows {
			return nil, 0, fmt.Errorf("compare: column %q has %d rows, others %d", c.Name, c.Len(), rows)
		}
		rows = c.Len()
	}
	out := make([]*Column, len(p.raw))
	for i := range p.raw {
		c := byName[p.raw[i].Name]
		if c == nil && p.raw[i].Kind != KindNone {
			return nil, 0, fmt.Errorf("compare: the current rows have no column %q", p.raw[i].Name)
		}
		out[i] = c
	}
	return out, max(rows, 0), nil
}

func (p *prepared) compare(cur []Column) (Report, error) {
	matched, rows, err := p.match(cur)
	if err != nil {
		return Report{}, err
	}
	if p.bins != nil {
		counts := make([]Counts, len(matched))
		forEach(len(matched), p.opt.Threads, func(i int) {
			if matched[i] != nil {
				counts[i] = matched[i].Count(&p.bins.Fields[i])
			}
		})
		return Compare(p.bins, counts, rows, p.opt), nil
	}
	return p.evidently(matched, rows)
}

// forEach calls f for 0..n-1 from as many goroutines as threads says, and waits.
func forEach(n, threads int, f func(int)) {
	if threads <= 1 || n <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(threads, n) {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

func sortedPresent(values []float64) []float64 {
	s := make([]float64, 0, len(values))
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			s = append(s, v)
		}
	}
	slices.Sort(s)
	return s
}

// KSOfSorted returns the two-sample Kolmogorov-Smirnov statistic of sorted values
// and its p-value, as scipy's ks_2samp with method "auto".
func KSOfSorted(a, b []float64) (d, p float64) {
	if len(a) == 0 || len(b) == 0 {
		return 0, 1
	}
	n, m := float64(len(a)), float64(len(b))
	for i, j := 0, 0; i < len(a) && j < len(b); {
		x := min(a[i], b[j])
		for i < len(a) && a[i] == x {
			i++
		}
		for j < len(b) && b[j] == x {
			j++
		}
		d = max(d, math.Abs(float64(i)/n-float64(j)/m))
	}
	return d, clip01(twoSampleTail(len(a), len(b), d))
}

// WassersteinOfSorted returns the first Wasserstein distance of sorted finite
// values, in their own unit.
func WassersteinOfSorted(a, b []float64) float64 {
	if len(a) == 0 || len(b) == 0 {
		return 0
	}
	n, m := float64(len(a)), float64(len(b))
	var v float64
	last := min(a[0], b[0])
	for i, j := 0, 0; i < len(a) || j < len(b); {
		x := math.Inf(1)
		if i < len(a) {
			x = a[i]
		}
		if j < len(b) {
			x = min(x, b[j])
		}
		v += math.Abs(float64(i)/n-float64(j)/m) * (x - last)
		last = x
		for i < len(a) && a[i] == x {
			i++
		}
		for j < len(b) && b[j] == x {
			j++
		}
	}
	return v
}

// newReference is NewReference on several threads.
func newReference(columns []Column, source string, threads int) (*Reference, error) {
	r := &Reference{Source: source, Fields: make([]FieldBins, len(columns)), Counts: make([]Counts, len(columns))}
	var first *Column
	for i := range columns {
		c := &columns[i]
		if c.Kind == KindNone {
			continue
		}
		first = cmp.Or(first, c)
		if c.Len() != first.Len() {
			return nil, fmt.Errorf("make reference: column %q has %d rows, %q has %d", c.Name, c.Len(), first.Name, first.Len())
		}
		var err error
		if r.Rows, err = c.rows(); err != nil {
			return nil, fmt.Errorf("make reference: column %q: %w", c.Name, err)
		}
	}
	errs := make([]error, len(columns))
	forEach(len(columns), threads, func(i int) {
		r.Fields[i], errs[i] = columns[i].Cut()
		if errs[i] == nil {
			r.Counts[i] = columns[i].Count(&r.Fields[i])
		}
	})
	for _, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("make reference: %w", err)
		}
	}
	return r, r.Seal()
}
