package audit

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/pellucid/pellucid/engine"
)

// The size of a batch whose speed is measured, and how long one measurement runs.
const (
	batchRows    = 1000
	batchTime    = time.Second // about; slow models are measured in smaller batches
	measuredTime = 30 * time.Millisecond
)

// Speed compares how fast the models answer, as medians of runs that alternate
// between the two.
type Speed struct {
	// Machine says where that was, Rounds how often each side was measured.
	Machine string `json:"machine"`
	Threads int    `json:"threads"`
	Rounds  int    `json:"rounds"`
	// Batch is the size of a batch. Rows a second in batches, and one by one.
	Batch  int  `json:"batch_rows"`
	InBulk Rate `json:"batch_rows_per_second"`
	Single Rate `json:"single_rows_per_second"`
}

// Rate compares rows a second.
type Rate struct {
	Original   float64 `json:"original"`
	Compressed float64 `json:"compressed"`
	// Ratio is compressed over original: above 1 is faster.
	Ratio float64 `json:"ratio"`
}

// speed measures both models in turns; block is how many rows they can take at a time.
func speed(ctx context.Context, c Config, rows *engine.Rows, block int) (*Speed, error) {
	s := &Speed{
		Machine: fmt.Sprintf("%s/%s, %d cores", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()),
		Threads: max(c.Threads, 1), Rounds: c.Rounds, Batch: 1,
	}
	done := 0
	measure := func(n int, into *Rate) (float64, error) {
		part, err := rows.Slice(0, n)
		if err != nil {
			return 0, err
		}
		a, b, err := alternate(ctx, c, part, func() {
			done++
			c.Step("measure speed", done, 2*c.Rounds)
		})
		if err != nil {
			return 0, err
		}
		into.Original, into.Compressed, into.Ratio = float64(n)/a, float64(n)/b, a/b
		return max(a, b), nil
	}
	one, err := measure(1, &s.Single)
	if err == nil {
		s.Batch = max(1, min(rows.N, block, batchRows, int(batchTime.Seconds()/one)))
		_, err = measure(s.Batch, &s.InBulk)
	}
	if err != nil {
		return nil, fmt.Errorf("audit: measure speed: %w", err)
	}
	return s, nil
}

// alternate returns the median seconds of one run of each model.
func alternate(ctx context.Context, c Config, rows engine.Values, step func()) (a, b float64, err error) {
	var sessions [2]engine.Session
	for i, m := range []Model{c.Original, c.Compressed} {
		if sessions[i], err = m.Version.Model.NewSession(engine.SessionOptions{Threads: max(c.Threads, 1)}); err != nil {
			return 0, 0, err
		}
		// The first run makes what later ones keep.
		if _, err = sessions[i].Run(ctx, rows, nil); err != nil {
			return 0, 0, err
		}
	}
	var times [2][]float64
	for range c.Rounds {
		for i, s := range sessions {
			t, err := timed(ctx, s, rows)
			if err != nil {
				return 0, 0, err
			}
			times[i] = append(times[i], t)
		}
		step()
	}
	return median(times[0]), median(times[1]), nil
}

// timed returns the seconds of a run, over as many as fill the measured time.
func timed(ctx context.Context, s engine.Session, rows engine.Values) (float64, error) {
	start := time.Now()
	for runs := 1; ; runs++ {
		if _, err := s.Run(ctx, rows, nil); err != nil {
			return 0, err
		}
		if d := time.Since(start); d >= measuredTime {
			return d.Seconds() / float64(runs), nil
		}
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	n := len(v)
	return (v[n/2] + v[(n-1)/2]) / 2
}
