package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Stats counts spans by what became of them.
type Stats struct {
	// Written reached the store or the endpoint. Dropped found their queue full or
	// closed. Failed were offered until RetryFor (those sampled by chance) or the
	// shutdown's deadline, or are what the store refuses while it takes others.
	Written, Dropped, Failed uint64
	// Waiting are still in the queue.
	Waiting int
}

const (
	attemptTimeout = 10 * time.Second
	firstBackoff   = 100 * time.Millisecond
	maxBackoff     = 5 * time.Second
	// logEvery keeps an outage from filling the log.
	logEvery = time.Minute
)

// spanQueue has the spans that were sampled by chance: a bounded queue and one
// goroutine that empties it in batches.
//
// The goroutine starts in newSpanQueue and ends after shutdown closed stop: it
// empties the queue first, unless the context it works under is cancelled.
type spanQueue struct {
	road  road
	every time.Duration
	log   *slog.Logger

	spans   chan sdktrace.ReadOnlySpan
	flushes chan chan struct{}
	stop    chan struct{}   // closed by shutdown, once
	done    chan struct{}   // closed when the goroutine has ended
	ctx     context.Context //nolint:containedctx // of the writing goroutine, ended by shutdown
	cancel  context.CancelFunc

	stopOnce sync.Once
	stopped  atomic.Bool
	batch    []sdktrace.ReadOnlySpan // the goroutine's own
	logged   time.Time               // the goroutine's own

	written, dropped, failed atomic.Uint64
}

func newSpanQueue(cfg Config, r road) *spanQueue {
	ctx, cancel := context.WithCancel(context.Background())
	q := &spanQueue{
		road: r, every: cfg.FlushEvery, log: cfg.Logger,
		spans:   make(chan sdktrace.ReadOnlySpan, cfg.QueueSize),
		flushes: make(chan chan struct{}),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		ctx:     ctx, cancel: cancel,
		batch: make([]sdktrace.ReadOnlySpan, 0, min(cfg.BatchSize, cfg.QueueSize)),
	}
	if r.export == nil {
		close(q.done)
		return q
	}
	go q.run()
	return q
}

// put queues a span, or counts it as dropped. It never blocks.
func (q *spanQueue) put(s sdktrace.ReadOnlySpan) {
	if q.stopped.Load() {
		q.dropped.Add(1)
		return
	}
	select {
	case q.spans <- s:
	default:
		q.dropped.Add(1)
	}
}

// flush waits until every span queued before it was written or given up.
func (q *spanQueue) flush(ctx context.Context) error { return asked(ctx, q.flushes, q.done) }

// asked waits for the answer to a flush by a goroutine that may have ended.
func asked(ctx context.Context, flushes chan<- chan struct{}, done <-chan struct{}) error {
	reply := make(chan struct{})
	select {
	case flushes <- reply:
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-reply:
		return nil
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// shutdown lets the goroutine empty the queue until ctx ends, then stops it the
// hard way. It returns how many spans were lost by that.
func (q *spanQueue) shutdown(ctx context.Context) (lost int) {
	before := q.failed.Load()
	q.stopOnce.Do(func() {
		q.stopped.Store(true)
		close(q.stop)
	})
	ended(ctx, q.done, q.cancel)
	return int(q.failed.Load() - before + q.discard())
}

// ended waits for a goroutine that was told to end, and cancels it with ctx.
func ended(ctx context.Context, done <-chan struct{}, cancel func()) {
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
		cancel()
		// A writer that ignores its context must not hold up the process.
		select {
		case <-done:
		case <-time.After(time.Second):
		}
	}
}

// discard counts what is still queued as dropped.
func (q *spanQueue) discard() uint64 {
	var n uint64
	for {
		select {
		case <-q.spans:
			n++
			q.dropped.Add(1)
		default:
			return n
		}
	}
}

func (q *spanQueue) run() {
	defer close(q.done)
	tick := time.NewTicker(q.every)
	defer tick.Stop()
	for {
		select {
		case s := <-q.spans:
			q.add(s)
		case <-tick.C:
			q.send()
		case reply := <-q.flushes:
			q.drain()
			close(reply)
		case <-q.stop:
			q.drain()
			return
		}
	}
}

func (q *spanQueue) add(s sdktrace.ReadOnlySpan) {
	q.batch = append(q.batch, s)
	if len(q.batch) == cap(q.batch) {
		q.send()
	}
}

// drain writes what is queued now; spans that come meanwhile may wait.
func (q *spanQueue) drain() {
	for n := len(q.spans); n > 0; n-- {
		q.add(<-q.spans)
	}
	q.send()
}

// send offers the batch until it is taken, RetryFor is over or the queue is
// stopped the hard way. The batch stays the same from one attempt to the next.
func (q *spanQueue) send() {
	n := uint64(len(q.batch))
	if n == 0 {
		return
	}
	err := q.offer()
	clear(q.batch)
	q.batch = q.batch[:0]
	if err == nil {
		q.written.Add(n)
		return
	}
	q.failed.Add(n)
	if now := time.Now(); now.Sub(q.logged) >= logEvery {
		q.logged = now
		q.log.Warn("spans given up", "spans", n, "total", q.failed.Load(), "error", err)
	}
}

func (q *spanQueue) offer() error {
	deadline := time.Now().Add(q.road.retryFor)
	for pause := firstBackoff; ; pause = min(2*pause, maxBackoff) {
		err := q.road.attempt(q.ctx, q.batch)
		if err == nil || time.Now().Add(pause).After(deadline) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-q.ctx.Done():
			return err
		}
	}
}

func (q *spanQueue) stats() Stats {
	return Stats{Written: q.written.Load(), Dropped: q.dropped.Load(), Failed: q.failed.Load(), Waiting: len(q.spans)}
}
