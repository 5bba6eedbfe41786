package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// moody is a store that is away, or refuses what it is told to.
type moody struct {
	sink
	away    atomic.Bool
	refuses string // the name of a span
}

func (m *moody) write(ctx context.Context, spans []Span) error {
	if m.away.Load() || slices.ContainsFunc(spans, func(s Span) bool { return s.SpanName == m.refuses }) {
		return errors.New("the store is away")
	}
	return m.sink.write(ctx, spans)
}

// names are those of what is stored, sorted.
func (m *moody) names() string {
	var out []string
	for _, s := range m.all() {
		out = append(out, s.SpanName)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// until waits for what a goroutine does.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// request makes the spans of a sampled request of two stages.
func request(t *testing.T, tel *Telemetry, name string, took time.Duration, code codes.Code) {
	t.Helper()
	tracer := tel.TracerProvider().Tracer("test")
	begin := time.Now()
	ctx, root := tracer.Start(t.Context(), name, trace.WithTimestamp(begin))
	for range 2 {
		_, stage := tracer.Start(ctx, name+".stage")
		stage.End()
	}
	root.SetStatus(code, "")
	root.End(trace.WithTimestamp(begin.Add(took)))
}

// late keeps a span of a request that was not sampled.
func late(tel *Telemetry, name string) {
	tel.Keep(Late{Scope: "test", Name: name, Start: time.Now(), End: time.Now(), Own: trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: spanID()})})
}

// TestKeptSpansOutlastAnOutage: the store is away for longer than a sampled span is
// offered; the spans of failed, slow and explained requests, sampled or not, are stored
// when it is back, stages and all.
func TestKeptSpansOutlastAnOutage(t *testing.T) {
	var store moody
	store.away.Store(true)
	tel := start(t, Config{SampleRatio: 1, RetryFor: time.Millisecond, FlushEvery: time.Millisecond, BatchSize: 3, KeepSlower: time.Second, WriteSpans: store.write})
	request(t, tel, "usual", time.Millisecond, codes.Unset)
	request(t, tel, "failed", time.Millisecond, codes.Error)
	request(t, tel, "slow", 2*time.Second, codes.Unset)
	request(t, tel, "explain m", time.Millisecond, codes.Unset)
	for i := range 5 {
		late(tel, fmt.Sprint("late", i))
	}
	until(t, "the usual spans are given up", func() bool { return tel.Stats().Failed >= 3 })
	if s := tel.Stats(); s != (Stats{Failed: 3, Waiting: 14}) {
		t.Errorf("while the store is away: %+v, want 3 failed and 14 waiting", s)
	}
	store.away.Store(false)
	flush(t, tel)
	const want = "explain m explain m.stage explain m.stage failed failed.stage failed.stage late0 late1 late2 late3 late4 slow slow.stage slow.stage"
	if got := store.names(); got != want {
		t.Errorf("stored\n%s, want\n%s", got, want)
	}
	if s := tel.Stats(); s != (Stats{Failed: 3, Written: 14}) {
		t.Errorf("after: %+v, want 3 failed and 14 written", s)
	}
}

// TestSampledSpansTakeNoRoomOfKeptOnes: however many come, and whatever does not fit is
// counted.
func TestSampledSpansTakeNoRoomOfKeptOnes(t *testing.T) {
	var store moody
	store.away.Store(true)
	tel := start(t, Config{SampleRatio: 1, QueueSize: 10, BatchSize: 5, FlushEvery: time.Hour, KeptBytes: 8 << 10, WriteSpans: store.write})
	endSpans(t, tel, 1000)
	for range 100 {
		late(tel, "late")
	}
	waiting, dropped := tel.tails.kept.waiting(), int(tel.tails.kept.dropped.Load())
	// A span of this kind is reckoned at 516 bytes.
	if waiting != 15 || dropped != 85 {
		t.Errorf("%d of 100 spans wait and %d were dropped, want 15 and 85", waiting, dropped)
	}
	store.away.Store(false)
	flush(t, tel)
	late(tel, "later")
	flush(t, tel)
	if got := strings.Count(store.names(), "late"); got != 16 {
		t.Errorf("%d spans are stored, want 15 and one of when there was room again", got)
	}
}

// TestRefusedSpansHoldUpNoOthers: what the store never takes is given up once it has
// often taken others instead.
func TestRefusedSpansHoldUpNoOthers(t *testing.T) {
	store := moody{refuses: "poison"}
	var log bytes.Buffer
	tel := start(t, Config{SampleRatio: 1, BatchSize: 1, FlushEvery: time.Millisecond, WriteSpans: store.write, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	late(tel, "poison")
	for i := range maxRefused {
		late(tel, "good")
		until(t, "the good span is stored", func() bool { return len(store.all()) == i+1 })
	}
	flush(t, tel)
	if s := tel.Stats(); s != (Stats{Failed: 1, Written: maxRefused}) {
		t.Errorf("%+v, want one failed and %d written", s, maxRefused)
	}
	if !strings.Contains(log.String(), "wait for the store") || !strings.Contains(log.String(), "the store is away") {
		t.Errorf("the log says %q", log.String())
	}
}

// TestKeptSpansLeftAtTheStopAreCounted, those that wait as those that are offered.
func TestKeptSpansLeftAtTheStopAreCounted(t *testing.T) {
	var store moody
	store.away.Store(true)
	tel, err := New(t.Context(), Config{BatchSize: 2, FlushEvery: time.Millisecond, WriteSpans: store.write, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for range 7 {
		late(tel, "late")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = tel.Shutdown(ctx)
	if err == nil || !regexp.MustCompile("7 spans were not written in time, 7 of them of failed").MatchString(err.Error()) {
		t.Errorf("error %v does not count the spans", err)
	}
	late(tel, "too late")
	if s := tel.Stats(); s != (Stats{Failed: 7, Dropped: 1}) {
		t.Errorf("%+v, want 7 failed and one dropped", s)
	}
}

// TestStagesOfARequestUnderWayAtTheStop are written, though their request has no span.
func TestStagesOfARequestUnderWayAtTheStop(t *testing.T) {
	var out sink
	tel := start(t, Config{SampleRatio: 1, FlushEvery: time.Hour, WriteSpans: out.write})
	tracer := tel.TracerProvider().Tracer("test")
	ctx, root := tracer.Start(t.Context(), "request")
	_, stage := tracer.Start(ctx, "stage")
	stage.End()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	root.End()
	if got := out.all(); len(got) != 1 || got[0].SpanName != "stage" || tel.Stats() != (Stats{Written: 1}) {
		t.Errorf("stored %v, counted %+v", got, tel.Stats())
	}
}
