package compress

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
)

// Ranges names how the range of a value is taken from what was seen of it.
type Ranges string

// The ways to take a range. What lies outside of it is given its nearest end.
const (
	// MinMax takes all that was seen.
	MinMax Ranges = "minmax"
	// Percentile leaves the outermost tenth of a thousandth out, half on each side.
	Percentile Ranges = "percentile"
	// Entropy takes the range whose 8-bit form tells most of how the values are
	// spread: the least Kullback-Leibler divergence.
	Entropy Ranges = "entropy"
)

// ParseRanges reads the name of one.
func ParseRanges(text string) (Ranges, error) {
	switch r := Ranges(text); r {
	case MinMax, Percentile, Entropy:
		return r, nil
	}
	return "", fmt.Errorf("%q is none of minmax, percentile, entropy", clip(text))
}

const (
	// calibrated is how many rows are run at a time; fewer where they take too much memory.
	calibrated = 16
	histogram  = 2048
	// outside is the share of values that Percentile leaves out.
	outside = 1e-4
	levels  = 255
	// mostBeyond is the share of values that Entropy may cut. The divergence is of the
	// values within a range alone, so a range with nothing but the edge of them inside,
	// all the others in its last bin, seems to tell everything.
	mostBeyond = 0.01
)

// span is what was seen of a value.
type span struct {
	low, high float64
	seen      int
	// bins count the values from low to high, sizes their distance from 0 up to the
	// larger end.
	bins, sizes []float64
	// no says why the value has no range.
	no string
}

// observe runs the rows and returns what it saw of each of the values, 0 within all
// ranges: padding and whatever stands for nothing has to be exact.
func observe(ctx context.Context, m engine.Model, rows engine.Values, names []string, how Ranges) (map[string]*span, error) {
	spans := map[string]*span{}
	for _, name := range names {
		spans[name] = &span{}
	}
	if err := eachBlock(ctx, m, rows, names, func(v engine.Values) { see(spans, v, (*span).widen) }); err != nil {
		return nil, err
	}
	if how == MinMax || how == "" {
		return spans, nil
	}
	for _, s := range spans {
		s.bins, s.sizes = make([]float64, histogram), make([]float64, histogram)
	}
	if err := eachBlock(ctx, m, rows, names, func(v engine.Values) { see(spans, v, (*span).count) }); err != nil {
		return nil, err
	}
	for _, s := range spans {
		if s.no != "" || s.low == s.high {
			continue
		}
		if how == Percentile {
			s.low, s.high = s.middle()
		} else {
			t := s.threshold()
			s.low, s.high = max(s.low, -t), min(s.high, t)
		}
	}
	return spans, nil
}

// eachBlock runs the rows a few at a time and shows what the values were.
func eachBlock(ctx context.Context, m engine.Model, rows engine.Values, names []string, f func(engine.Values)) error {
	session, err := m.NewSession(engine.SessionOptions{Threads: 1})
	if err != nil {
		return err
	}
	all := engine.RowsOf(m.Info(), rows)
	n, block := all.N, calibrated
	for from := 0; from < n; {
		part, err := all.Slice(from, min(from+block, n))
		if err != nil {
			return err
		}
		out, err := session.Run(ctx, part, names)
		if errors.Is(err, engine.ErrTooLarge) && block > 1 {
			block /= 2
			continue
		}
		if err != nil {
			return fmt.Errorf("calibrate with rows %d to %d: %w", from, min(from+block, n)-1, err)
		}
		f(out)
		from += block
	}
	return nil
}

func see(spans map[string]*span, v engine.Values, add func(*span, []float32)) {
	for _, o := range v {
		s := spans[o.Name]
		if o.Tensor.DType() != engine.Float32 {
			s.no = "it is no FP32"
			continue
		}
		add(s, engine.Data[float32](o.Tensor))
	}
}

func (s *span) widen(v []float32) {
	for _, x := range v {
		s.low, s.high = min(s.low, float64(x)), max(s.high, float64(x))
	}
	s.seen += len(v)
	// NaN makes min and max NaN.
	if !(s.high-s.low <= math.MaxFloat32) {
		s.no = "it is no finite number on these rows"
	}
}

func (s *span) count(v []float32) {
	width, size := s.high-s.low, max(s.high, -s.low)
	if s.no != "" || width == 0 {
		return
	}
	for _, x := range v {
		s.bins[min(int((float64(x)-s.low)/width*histogram), histogram-1)]++
		if x != 0 { // which is exact in whatever range
			s.sizes[min(int(math.Abs(float64(x))/size*histogram), histogram-1)]++
		}
	}
}

// middle is the range without the outermost values.
func (s *span) middle() (low, high float64) {
	width := (s.high - s.low) / histogram
	cut := float64(s.seen) * outside / 2
	from, to := 0, histogram
	for sum := s.bins[0]; from < histogram-1 && sum <= cut; sum += s.bins[from] {
		from++
	}
	for sum := s.bins[to-1]; to > from+1 && sum <= cut; sum += s.bins[to-1] {
		to--
	}
	return min(0, s.low+float64(from)*width), max(0, s.low+float64(to)*width)
}

// threshold is the size beyond which the least is lost where values are cut.
func (s *span) threshold() float64 {
	size := max(s.high, -s.low)
	coarse := levels
	if s.low < 0 && s.high > 0 {
		coarse = (levels + 1) / 2
	}
	sizes := smooth(s.sizes)
	best, at := math.Inf(1), histogram
	beyond, total := 0.0, 0.0
	for _, n := range sizes {
		total += n
	}
	for i := histogram; i >= coarse; i-- {
		if i < histogram {
			if beyond += sizes[i]; beyond > mostBeyond*total {
				break
			}
		}
		if d := divergence(sizes[:i], beyond, coarse); d < best {
			best, at = d, i
		}
	}
	return size * float64(at) / histogram
}

// smoothed is how many values stand behind each bin of a smooth histogram.
const smoothed = 200

// smooth spreads a histogram of few values: their chance gaps are not what a range
// should be chosen by.
func smooth(bins []float64) []float64 {
	total := 0.0
	for _, n := range bins {
		total += n
	}
	reach := int(min(smoothed*float64(len(bins))/max(total, 1), float64(len(bins))) / 2)
	if reach == 0 {
		return bins
	}
	sums := make([]float64, len(bins)+1)
	for i, n := range bins {
		sums[i+1] = sums[i] + n
	}
	out := make([]float64, len(bins))
	for i := range out {
		from, to := max(i-reach, 0), min(i+reach+1, len(bins))
		out[i] = (sums[to] - sums[from]) / float64(to-from)
	}
	return out
}

// divergence is Kullback and Leibler's, of a histogram whose last bin takes what is
// beyond it too, from its form in so many levels.
func divergence(bins []float64, beyond float64, coarse int) float64 {
	total, kept := beyond, 0.0
	for _, n := range bins {
		kept += n
	}
	if total += kept; kept == 0 {
		return math.Inf(1)
	}
	d := 0.0
	for level := range coarse {
		from, to := level*len(bins)/coarse, (level+1)*len(bins)/coarse
		sum, filled := 0.0, 0
		for _, n := range bins[from:to] {
			if sum += n; n > 0 {
				filled++
			}
		}
		for i := from; i < to; i++ {
			p := bins[i]
			if i == len(bins)-1 {
				p += beyond
			}
			if p == 0 {
				continue
			}
			if bins[i] == 0 {
				return math.Inf(1) // the form has nothing where the values have some
			}
			q := sum / float64(filled) / kept
			d += p / total * math.Log(p/total/q)
		}
	}
	return d
}

// parameters are the scale and the zero point of 8 bits without a sign over the range.
func (s *span) parameters() (scale float32, zero uint8) {
	scale = float32((s.high - s.low) / levels)
	if scale < math.SmallestNonzeroFloat32*(1<<24) { // nothing but zeros, or next to it
		return 1, 0
	}
	return scale, uint8(max(0, min(levels, math.RoundToEven(-s.low*levels/(s.high-s.low)))))
}

// calibration are the rows that ranges are found by, or none.
func (in *Input) calibration() engine.Values {
	if in.Calibration != nil {
		return in.Calibration
	}
	return in.Rows
}

// calibrate reads the model anew, in the form that is about to be quantised.
func calibrate(ctx context.Context, in Input, data []byte, names []string) (map[string]*span, int, error) {
	rows := in.calibration()
	if len(rows) == 0 || rows[0].Tensor.Rows() == 0 {
		return nil, 0, refuse("ranges are found by rows, and none were given to calibrate with")
	}
	m, err := modelfile.Read(in.Name, data, in.Dir)
	if err != nil {
		return nil, 0, err
	}
	some, err := engine.RowsOf(m.Info(), rows).Spread(maxRows)
	if err != nil {
		return nil, 0, err
	}
	spans, err := observe(ctx, m, some.Values, names, in.Ranges)
	return spans, some.N, err
}
