package capture

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/pellucid/pellucid/collector"
)

const (
	// refusedEvery and refusedBurst bound the rows of requests that were refused
	// before their model saw them: ten a second for each cause.
	refusedEvery = 100 * time.Millisecond
	refusedBurst = 10
	// refusedShare is the part of the spool that their frames may take.
	refusedShare = 100
	// maxRefusedWeight bounds what one row stands for.
	maxRefusedWeight = 100_000
	// tooMany is the status of what was refused because too many were under way.
	tooMany = 503
	// maxCauses bounds the causes told apart; models are ours to name, so they are
	// few.
	maxCauses = 10_000
)

// cause is what refused requests have in common.
type cause struct {
	model, version string
	status         int
}

// refused samples the rows of requests that were refused before their model saw
// them, so that a flood of nonsense fills neither the spool nor the tables. A row
// stands for those since the one before, by its weight.
type refused struct {
	max     int64 // bytes; 0 is no bound
	backlog func() (appended, acked uint64)

	mu      sync.Mutex // guards what follows
	causes  map[cause]*refusals
	coming  int64   // bytes that are being appended
	recent  stretch // being added to
	earlier stretch // waits for its records to leave the spool
}

type refusals struct {
	limit   *rate.Limiter
	skipped int
}

// stretch is the bytes of refused rows' frames up to a record of the spool.
type stretch struct {
	bytes int64
	upTo  uint64
}

// newRefused bounds refused rows by a part of the spool's bytes. Which of the bytes that
// wait at the start are of such rows only a reading of all would tell: they count as such,
// until all of them have left.
func newRefused(spoolBytes, waiting int64, backlog func() (appended, acked uint64)) *refused {
	r := &refused{max: spoolBytes / refusedShare, backlog: backlog}
	if backlog != nil {
		r.earlier.bytes = waiting
		r.earlier.upTo, _ = backlog()
	}
	return r
}

// isRefused reports whether p is a request that was refused before its model saw it:
// as the caller's fault, or because too many were under way.
func isRefused(p *collector.Prediction) bool {
	return (p.Status/100 == 4 || p.Status == tooMany) &&
		p.Latency.Decode == 0 && p.Route != collector.RouteImported
}

// take decides whether a refused request becomes a row, and if so what it weighs.
func (r *refused) take(p *collector.Prediction, now time.Time) (weight float64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.causes == nil {
		r.causes = map[cause]*refusals{}
	}
	c := cause{p.Model, p.Version, p.Status}
	one := r.causes[c]
	if one == nil {
		if len(r.causes) >= maxCauses {
			return 0, false
		}
		one = &refusals{limit: rate.NewLimiter(rate.Every(refusedEvery), refusedBurst)}
		r.causes[c] = one
	}
	if r.full() || !one.limit.AllowN(now, 1) {
		one.skipped++
		return 0, false
	}
	weight = float64(1 + min(one.skipped, maxRefusedWeight-1))
	one.skipped = 0
	return weight, true
}

// full reports whether what may still wait in the spool of refused rows is all that
// may. mu is held.
func (r *refused) full() bool {
	if !r.bounded() {
		return false
	}
	appended, acked := r.backlog()
	if acked >= r.earlier.upTo {
		r.earlier, r.recent = r.recent, stretch{}
		r.earlier.upTo = appended
	}
	return r.room() <= 0
}

func (r *refused) bounded() bool { return r.max > 0 && r.backlog != nil }

// room is how many bytes more may wait. mu is held.
func (r *refused) room() int64 { return r.max - r.earlier.bytes - r.recent.bytes - r.coming }

// reserve sees to it that a row that was taken, of so many bytes of payload, has room in the
// share. One that has none is skipped after all: the next of its cause stands for it and for
// what it stood for.
func (r *refused) reserve(p *collector.Prediction, payload int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if bytes := int64(payload + collector.FrameBytes); !r.bounded() || bytes <= r.room() {
		r.coming += bytes
		return true
	}
	r.causes[cause{p.Model, p.Version, p.Status}].skipped += int(p.Weight)
	return false
}

// settle ends what reserve began.
func (r *refused) settle(payload int, appended bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	bytes := int64(payload + collector.FrameBytes)
	r.coming -= bytes
	if appended {
		r.recent.bytes += bytes
	}
}
