package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/pellucid/pellucid/collector"
)

// Stats counts sampled spans by what became of them.
type Stats struct {
	// Written reached the store or the endpoint. Dropped found the queue full or
	// closed. Failed were offered until RetryFor or the shutdown's deadline.
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

// spanQueue is the span processor: a bounded queue and one goroutine that
// empties it in batches. OnEnd never blocks.
//
// The goroutine starts in newSpanQueue and ends after Shutdown closed stop: it
// empties the queue first, unless the context it works under is cancelled.
type spanQueue struct {
	road  road
	every time.Duration
	log   *slog.Logger

	spans   chan sdktrace.ReadOnlySpan
	flushes chan chan struct{}
	stop    chan struct{}   // closed by Shutdown, once
	done    chan struct{}   // closed when the goroutine has ended
	ctx     context.Context //nolint:containedctx // of the writing goroutine, ended by Shutdown
	cancel  context.CancelFunc

	stopOnce sync.Once
	stopped  atomic.Bool
	batch    []sdktrace.ReadOnlySpan // the goroutine's own
	logged   time.Time               // the goroutine's own

	written, dropped, failed atomic.Uint64
}

var _ sdktrace.SpanProcessor = (*spanQueue)(nil)

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

// OnStart does nothing.
func (q *spanQueue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd queues a sampled span, or counts it as dropped.
func (q *spanQueue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
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

// ForceFlush waits until every span queued before it was written or given up.
func (q *spanQueue) ForceFlush(ctx context.Context) error {
	reply := make(chan struct{})
	select {
	case q.flushes <- reply:
	case <-q.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-reply:
		return nil
	case <-q.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Shutdown lets the goroutine empty the queue until ctx ends, then stops it the
// hard way. The error says how many spans were lost by that.
func (q *spanQueue) Shutdown(ctx context.Context) error {
	before := q.failed.Load()
	q.stopOnce.Do(func() {
		q.stopped.Store(true)
		close(q.stop)
	})
	select {
	case <-q.done:
	case <-ctx.Done():
		q.cancel()
		// A writer that ignores its context must not hold up the process.
		select {
		case <-q.done:
		case <-time.After(time.Second):
		}
	}
	q.cancel()
	var errs []error
	if lost := q.failed.Load() - before + q.discard(); lost > 0 {
		errs = append(errs, fmt.Errorf("%d spans were not written in time", lost))
	}
	if q.road.close != nil {
		errs = append(errs, q.road.close(ctx))
	}
	return errors.Join(errs...)
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
		err := q.attempt()
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

// attempt calls the exporter once. A panic in it is an error: it must not end
// the process.
func (q *spanQueue) attempt() (err error) {
	if err := q.ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(q.ctx, attemptTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			kind, stack := collector.Panicked(p)
			err = fmt.Errorf("write spans: panic: %s at %s", kind, stack[0])
		}
	}()
	return q.road.export(ctx, q.batch)
}

func (q *spanQueue) stats() Stats {
	return Stats{Written: q.written.Load(), Dropped: q.dropped.Load(), Failed: q.failed.Load(), Waiting: len(q.spans)}
}
