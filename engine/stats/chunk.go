package stats

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxChunks bounds how many chunks one comparison may make.
const MaxChunks = 100_000

// ChunkBy says how rows are cut into chunks: every Rows rows, or every Period of
// time. One of them is set.
type ChunkBy struct {
	Rows   int
	Period time.Duration
}

// ParseChunk reads "5000" (rows), "1d", "2w" or a Go duration such as "6h".
func ParseChunk(s string) (ChunkBy, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return ChunkBy{Rows: n}, nil
	}
	d, err := ParseDuration(s)
	if err != nil {
		return ChunkBy{}, fmt.Errorf("read chunk %q: want rows (5000) or a period (1d, 6h)", s)
	}
	return ChunkBy{Period: d}, nil
}

// ParseDuration reads a positive duration of days and weeks ("7d", "2w") or in
// Go's form ("1h30m").
func ParseDuration(s string) (time.Duration, error) {
	unit := map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	for suffix, u := range unit {
		n, err := strconv.Atoi(strings.TrimSuffix(s, suffix))
		if err != nil || !strings.HasSuffix(s, suffix) {
			continue
		}
		if n <= 0 || n > 36_500 {
			return 0, fmt.Errorf("duration %q is not between 1 day and 100 years", s)
		}
		return time.Duration(n) * u, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("duration %q is not positive and like 90m, 6h, 1d or 2w", s)
	}
	return d, nil
}

// FormatDuration writes a duration as ParseDuration reads it and people say it:
// "7d", "36h", "90m".
func FormatDuration(d time.Duration) string {
	for _, u := range []struct {
		suffix string
		unit   time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}} {
		if d >= u.unit && d%u.unit == 0 {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.suffix
		}
	}
	return d.String()
}

// Span is the rows of one chunk: indexes into the columns, in time order.
type Span struct {
	Rows       []int
	Start, End time.Time
}

// Chunks cuts n rows. times may be nil where By.Rows is set; rows are then taken
// as they stand. Periods begin at whole multiples since the Unix epoch (days at
// midnight UTC; weeks on Thursday); periods without rows are left out. The last
// chunk of a count may be short.
func Chunks(times []time.Time, n int, by ChunkBy) ([]Span, error) {
	if times != nil && len(times) != n {
		return nil, fmt.Errorf("cut chunks: %d rows, %d times", n, len(times))
	}
	if by.Rows <= 0 && times == nil {
		return nil, fmt.Errorf("cut chunks: a period needs a time column")
	}
	order := indexes(n)
	if times != nil {
		slices.SortStableFunc(order, func(a, b int) int { return times[a].Compare(times[b]) })
	}
	var spans []Span
	for start := 0; start < n; {
		end := chunkEnd(order, times, start, by)
		s := Span{Rows: order[start:end]}
		if times != nil {
			s.Start, s.End = times[order[start]], times[order[end-1]]
		}
		if spans = append(spans, s); len(spans) > MaxChunks {
			return nil, fmt.Errorf("cut chunks: more than %d chunks", MaxChunks)
		}
		start = end
	}
	return spans, nil
}

func chunkEnd(order []int, times []time.Time, start int, by ChunkBy) int {
	if by.Rows > 0 {
		return min(start+by.Rows, len(order))
	}
	period := func(i int) int64 {
		ns := times[order[i]].UnixMicro()
		p := int64(by.Period / time.Microsecond)
		q := ns / p
		if ns%p < 0 {
			q--
		}
		return q
	}
	first := period(start)
	end := start + 1
	for end < len(order) && period(end) == first {
		end++
	}
	return end
}

// Take returns the column's rows at the given indexes.
func (c *Column) Take(rows []int) Column {
	out := Column{Name: c.Name, Kind: c.Kind, Integer: c.Integer}
	if c.Numbers != nil {
		out.Numbers = make([]float64, len(rows))
		for i, r := range rows {
			out.Numbers[i] = c.Numbers[r]
		}
	}
	if c.Weights != nil {
		out.Weights = make([]float64, len(rows))
		for i, r := range rows {
			out.Weights[i] = c.Weights[r]
		}
	}
	if c.Strings != nil {
		out.Strings = make([]string, len(rows))
		for i, r := range rows {
			out.Strings[i] = c.Strings[r]
		}
	}
	return out
}
