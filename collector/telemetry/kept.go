package telemetry

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// maxFrozen bounds the batches that were offered and not taken; what comes
	// after them waits, to be cut into full ones.
	maxFrozen = 4
	// maxRefused is how often a batch may be refused by a store that then takes
	// another, before the fault is the batch's.
	maxRefused = 10
)

// keptQueue has the spans of requests that failed, were slow or explain until the
// store has them, however long it is away. They have room of their own, which no
// sampled span takes, bounded in bytes: what does not fit is counted as dropped.
//
// One goroutine offers them. It starts in newKeptQueue and ends after shutdown: it
// empties the queue first, unless the context it works under is cancelled.
type keptQueue struct {
	road  road
	every time.Duration
	log   *slog.Logger
	batch int   // spans of a batch
	room  int64 // in bytes, as heldBytes reckons them

	flushes chan chan struct{}
	full    chan struct{}   // a batch is full
	stop    chan struct{}   // closed by shutdown, once
	done    chan struct{}   // closed when the goroutine has ended
	ctx     context.Context //nolint:containedctx // of the writing goroutine, ended by shutdown
	cancel  context.CancelFunc

	frozen []*frozenBatch // the goroutine's own
	logged time.Time      // the goroutine's own

	mu      sync.Mutex // guards what follows
	stopped bool
	spans   []sdktrace.ReadOnlySpan // not in a batch yet
	held    int                     // spans, in batches or not
	bytes   int64                   // of these

	written, dropped, failed atomic.Uint64
}

// frozenBatch was offered and not taken. It stays the same from one attempt to the
// next, so that the store knows it again.
type frozenBatch struct {
	spans   []sdktrace.ReadOnlySpan
	refused int
}

func newKeptQueue(cfg Config, r road) *keptQueue {
	ctx, cancel := context.WithCancel(context.Background())
	q := &keptQueue{
		road: r, every: cfg.FlushEvery, log: cfg.Logger, batch: cfg.BatchSize, room: cfg.KeptBytes,
		flushes: make(chan chan struct{}),
		full:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		ctx:     ctx, cancel: cancel,
	}
	if r.export == nil {
		close(q.done)
		return q
	}
	go q.run()
	return q
}

// put queues spans, all or none, and never blocks.
func (q *keptQueue) put(spans ...sdktrace.ReadOnlySpan) {
	size := int64(0)
	for _, s := range spans {
		size += heldBytes(s)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped || q.bytes+size > q.room {
		q.dropped.Add(uint64(len(spans)))
		return
	}
	q.spans = append(q.spans, spans...)
	q.held += len(spans)
	q.bytes += size
	if len(q.spans) >= q.batch {
		select {
		case q.full <- struct{}{}:
		default:
		}
	}
}

// heldBytes reckons the memory that a span takes.
func heldBytes(s sdktrace.ReadOnlySpan) int64 {
	const span, item = 512, 128
	n := span + len(s.Name()) + len(s.Status().Description) + attributeBytes(s.Attributes())
	for _, e := range s.Events() {
		n += item + len(e.Name) + attributeBytes(e.Attributes)
	}
	for _, l := range s.Links() {
		n += item + attributeBytes(l.Attributes)
	}
	return int64(n)
}

func attributeBytes(list []attribute.KeyValue) int {
	const pair = 64
	n := pair * len(list)
	for _, kv := range list {
		switch kv.Value.Type() {
		case attribute.BOOL, attribute.INT64, attribute.FLOAT64:
		default:
			n += len(kv.Value.String())
		}
	}
	return n
}

func (q *keptQueue) run() {
	defer close(q.done)
	tick := time.NewTicker(q.every)
	defer tick.Stop()
	for running := true; running; {
		var reply chan struct{}
		select {
		case <-tick.C:
		case <-q.full:
		case reply = <-q.flushes:
		case <-q.stop:
			running = false
		}
		if !q.settle() {
			return
		}
		if reply != nil {
			close(reply)
		}
	}
}

// settle offers what waits until all of it is taken. It returns false when the queue
// was stopped the hard way before that.
func (q *keptQueue) settle() bool {
	pause := firstBackoff
	for {
		before := q.written.Load()
		if q.round() {
			return true
		}
		if q.written.Load() > before {
			pause = firstBackoff
		}
		select {
		case <-time.After(pause):
		case <-q.ctx.Done():
			return false
		}
		pause = min(2*pause, maxBackoff)
	}
}

// round offers once what waits when it begins, and reports whether all of it was settled.
func (q *keptQueue) round() bool {
	var (
		last   error
		failed []*frozenBatch
		passed int // over how many of failed the store has taken a later one
		todo   = q.waiting()
	)
	for todo > 0 {
		fresh := len(q.frozen) == 0
		if fresh {
			if len(failed) == maxFrozen {
				break
			}
			q.frozen = append(q.frozen, q.cut())
		}
		b := q.frozen[0]
		q.frozen = q.frozen[1:]
		todo -= len(b.spans)
		if err := q.road.attempt(q.ctx, b.spans); err != nil {
			last, failed = err, append(failed, b)
			if fresh && q.road.retryFor > 0 {
				break // the store is away, as a rule
			}
			continue
		}
		q.settled(b, &q.written)
		passed = len(failed)
	}
	q.frozen = append(q.judge(failed, passed, last), q.frozen...)
	if len(q.frozen) > 0 {
		q.tell("spans of failed, slow and explained requests wait for the store", last)
	}
	return todo <= 0 && len(q.frozen) == 0
}

// judge gives up batches that are not worth another attempt, and returns the others. The
// store has passed over the first of them.
func (q *keptQueue) judge(failed []*frozenBatch, passed int, why error) (again []*frozenBatch) {
	for i, b := range failed {
		if i < passed {
			b.refused++
		}
		if b.refused < maxRefused && q.road.retryFor > 0 {
			again = append(again, b)
			continue
		}
		q.settled(b, &q.failed)
		q.tell("spans of failed, slow and explained requests given up", why)
	}
	return again
}

// waiting returns how many spans have not been settled.
func (q *keptQueue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held
}

// cut makes a batch of the oldest spans.
func (q *keptQueue) cut() *frozenBatch {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.spans), q.batch)
	b := &frozenBatch{spans: slices.Clone(q.spans[:n])}
	clear(q.spans[:n])
	if q.spans = q.spans[n:]; len(q.spans) == 0 {
		q.spans = nil
	}
	return b
}

// settled takes a batch out of the count of what waits and adds it to another, unless
// shutdown has given up on it.
func (q *keptQueue) settled(b *frozenBatch, as *atomic.Uint64) {
	size := int64(0)
	for _, s := range b.spans {
		size += heldBytes(s)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held == 0 {
		return
	}
	q.held -= len(b.spans)
	q.bytes -= size
	as.Add(uint64(len(b.spans)))
}

// tell logs what became of spans, now and then.
func (q *keptQueue) tell(what string, err error) {
	now := time.Now()
	if now.Sub(q.logged) < logEvery {
		return
	}
	q.logged = now
	s := q.stats()
	q.log.Warn(what, "waiting", s.Waiting, "dropped", s.Dropped, "failed", s.Failed, "error", err)
}

// flush waits until every span queued before it was written or given up.
func (q *keptQueue) flush(ctx context.Context) error { return asked(ctx, q.flushes, q.done) }

// shutdown lets the goroutine empty the queue until ctx ends, then stops it the hard
// way. It returns how many spans were lost by that.
func (q *keptQueue) shutdown(ctx context.Context) (lost int) {
	before := q.failed.Load()
	q.mu.Lock()
	if !q.stopped {
		q.stopped = true
		close(q.stop)
	}
	q.mu.Unlock()
	ended(ctx, q.done, q.cancel)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failed.Add(uint64(q.held))
	q.spans, q.held, q.bytes = nil, 0, 0
	return int(q.failed.Load() - before)
}

func (q *keptQueue) stats() Stats {
	return Stats{Written: q.written.Load(), Dropped: q.dropped.Load(), Failed: q.failed.Load(), Waiting: q.waiting()}
}
