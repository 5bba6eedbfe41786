package telemetry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// tails decides which of the sampled spans are kept whatever happens, and has both
// queues: whether a request failed or was slow is known when it is over, and its spans
// go the same way. They are held until then.
type tails struct {
	kept    *keptQueue
	sampled *spanQueue
	slower  time.Duration // 0 for none
	close   func(context.Context) error

	mu   sync.Mutex // guards what follows
	open map[trace.SpanID]*tail
}

// tail is what a request's spans under way have in common. Its root is the span that
// nothing of this process is above.
type tail struct {
	root  trace.SpanID
	ended []sdktrace.ReadOnlySpan // below the root, while that is under way
	over  bool
	keep  bool // known when it is over
}

// maxHeld bounds the spans that one request has held; more are sampled ones.
const maxHeld = 1024

var _ sdktrace.SpanProcessor = (*tails)(nil)

func newTails(cfg Config, r road) *tails {
	return &tails{
		kept: newKeptQueue(cfg, r), sampled: newSpanQueue(cfg, r), slower: cfg.KeepSlower, close: r.close, open: map[trace.SpanID]*tail{},
	}
}

// OnStart notes which request a span is of.
func (t *tails) OnStart(_ context.Context, s sdktrace.ReadWriteSpan) {
	id, parent := s.SpanContext().SpanID(), s.Parent()
	t.mu.Lock()
	defer t.mu.Unlock()
	if parent.IsValid() && !parent.IsRemote() {
		if of := t.open[parent.SpanID()]; of != nil {
			t.open[id] = of
			return
		}
	}
	t.open[id] = &tail{root: id, ended: make([]sdktrace.ReadOnlySpan, 0, 4)}
}

// OnEnd holds a span until its request is over.
func (t *tails) OnEnd(s sdktrace.ReadOnlySpan) {
	id := s.SpanContext().SpanID()
	t.mu.Lock()
	of := t.open[id]
	delete(t.open, id)
	if of == nil {
		of = &tail{root: id} // stopped meanwhile
	}
	if id != of.root {
		held, keep := !of.over && len(of.ended) < maxHeld, of.keep
		if held {
			of.ended = append(of.ended, s)
		}
		t.mu.Unlock()
		if !held {
			t.put(keep, s)
		}
		return
	}
	of.ended = append(of.ended, s)
	spans := of.ended
	of.ended, of.over, of.keep = nil, true, t.worth(s)
	t.mu.Unlock()
	t.put(of.keep, spans...)
}

func (t *tails) put(keep bool, spans ...sdktrace.ReadOnlySpan) {
	if keep {
		t.kept.put(spans...)
		return
	}
	for _, s := range spans {
		t.sampled.put(s)
	}
}

// worth reports whether the spans of a request are kept by what its root says.
func (t *tails) worth(root sdktrace.ReadOnlySpan) bool {
	return root.Status().Code == codes.Error || explains(root.Name()) || t.slower > 0 && root.EndTime().Sub(root.StartTime()) > t.slower
}

// ForceFlush waits until every span queued before it was written or given up.
func (t *tails) ForceFlush(ctx context.Context) error {
	return errors.Join(t.sampled.flush(ctx), t.kept.flush(ctx))
}

// Shutdown empties both queues until ctx ends. The error says how many spans were lost.
func (t *tails) Shutdown(ctx context.Context) error {
	t.mu.Lock()
	for _, of := range t.open {
		t.put(false, of.ended...)
		of.ended = nil
	}
	t.open = map[trace.SpanID]*tail{}
	t.mu.Unlock()
	var (
		both          sync.WaitGroup
		kept, sampled int
		errs          []error
	)
	both.Go(func() { kept = t.kept.shutdown(ctx) })
	both.Go(func() { sampled = t.sampled.shutdown(ctx) })
	both.Wait()
	if kept+sampled > 0 {
		errs = append(errs, fmt.Errorf("%d spans were not written in time, %d of them of failed, slow and explained requests", kept+sampled, kept))
	}
	if t.close != nil {
		errs = append(errs, t.close(ctx))
	}
	return errors.Join(errs...)
}

// lateTails takes the spans that Keep makes.
type lateTails struct{ *tails }

// OnStart does nothing.
func (lateTails) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd has a span kept.
func (t lateTails) OnEnd(s sdktrace.ReadOnlySpan) { t.kept.put(s) }
