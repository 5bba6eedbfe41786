package telemetry

import (
	"container/list"
	"context"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/pellucid/pellucid/collector"
)

// For how long the values of a trace's predictions are taken out of its later spans, and
// how much memory that may take; a trace costs traceCost beside its values.
const (
	saidFor   = 10 * time.Minute
	maxSaid   = 64 << 20
	traceCost = 256
)

// traceValues remembers what the predictions of recent traces are made of: an SDK sends
// the spans of one trace in several requests. The zero value remembers nothing.
type traceValues struct {
	mu    sync.Mutex // guards everything below
	most  int
	keep  time.Duration
	bytes int
	by    map[pcommon.TraceID]*list.Element // of *traceEntry
	order *list.List                        // the one that was spoken of last at the back
}

type traceEntry struct {
	id   pcommon.TraceID
	x    collector.Scrubber
	last time.Time
}

func (m *traceValues) limit(most int, keep time.Duration) {
	m.most, m.keep, m.by, m.order = most, keep, map[pcommon.TraceID]*list.Element{}, list.New()
}

// with returns x together with what is remembered of its trace, remembers that, and says
// how many traces were forgotten before their time for it.
func (m *traceValues) with(id pcommon.TraceID, x collector.Scrubber, now time.Time) (all collector.Scrubber, forgotten int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := m.order.Front(); e != nil && now.Sub(e.Value.(*traceEntry).last) > m.keep; e = m.order.Front() {
		m.drop(e)
	}
	all = x
	have, ok := m.by[id]
	if ok {
		before := have.Value.(*traceEntry).x
		if x.Empty() {
			return before, 0
		}
		all = before.Join(x)
	}
	if x.Empty() {
		return all, 0
	}
	if all.Full() && !x.Full() {
		all, forgotten = x, 1 // too much for one trace: what came first is not looked for any more
	}
	if ok {
		m.drop(have)
	}
	m.by[id] = m.order.PushBack(&traceEntry{id, all, now})
	m.bytes += all.Size() + traceCost
	for m.bytes > m.most {
		m.drop(m.order.Front())
		forgotten++
	}
	return all, forgotten
}

func (m *traceValues) drop(e *list.Element) {
	t := m.order.Remove(e).(*traceEntry)
	delete(m.by, t.id)
	m.bytes -= t.x.Size() + traceCost
}

// scrubbers take the values of predictions out of what else is said in their traces: a
// name, an error's message, the attributes of an event. They know of the predictions of
// this request and of those before.
func (in *Intake) scrubbers(ctx context.Context, traces ptrace.Traces) map[pcommon.TraceID]collector.Scrubber {
	in.building <- struct{}{}
	defer func() { <-in.building }()
	values := map[pcommon.TraceID][]json.RawMessage{}
	for _, rs := range traces.ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			for _, s := range ss.Spans().All() {
				list := appendValues(values[s.TraceID()], s.Attributes(), value)
				for _, e := range s.Events().All() {
					list = appendValues(list, e.Attributes(), func(key string) bool {
						return value(key) || spoken(e.Name(), key) && !slices.Contains(turns, key)
					})
				}
				values[s.TraceID()] = list
			}
		}
	}
	by := make(map[pcommon.TraceID]collector.Scrubber, len(values))
	now, forgotten := time.Now(), int64(0)
	for id, list := range values {
		var x collector.Scrubber
		if len(list) > 0 {
			x = collector.NewScrubber(list, nil)
		}
		x, n := in.said.with(id, x, now)
		if forgotten += n; !x.Empty() {
			by[id] = x
		}
	}
	if forgotten > 0 {
		in.forgotten.Add(ctx, forgotten)
	}
	return by
}

// Said notes private values of predictions that did not come as spans, by their trace's
// id: what spans of those traces say of them later is taken out as well.
func (in *Intake) Said(ctx context.Context, traces map[string][]json.RawMessage) {
	if in.private() {
		return // nothing is searched
	}
	in.building <- struct{}{}
	defer func() { <-in.building }()
	now, forgotten := time.Now(), int64(0)
	for text, list := range traces {
		var id pcommon.TraceID
		if n, err := hex.Decode(id[:], []byte(text)); err != nil || n != len(id) {
			continue // no span can have it
		}
		_, n := in.said.with(id, collector.NewScrubber(list, nil), now)
		forgotten += n
	}
	if forgotten > 0 {
		in.forgotten.Add(ctx, forgotten)
	}
}

// turns are attributes of events of what was said that say who speaks, not what.
var turns = []string{"role", "id", "index", "finish_reason"}

func appendValues(to []json.RawMessage, attributes pcommon.Map, value func(key string) bool) []json.RawMessage {
	for k, v := range attributes.All() {
		if value(k) {
			to = append(to, rawValues(v)...)
		}
	}
	return to
}

// rawValues are an attribute's values as JSON, also where it is a string that holds it.
func rawValues(v pcommon.Value) []json.RawMessage {
	switch v.Type() {
	case pcommon.ValueTypeMap:
		var out []json.RawMessage
		for _, one := range v.Map().All() {
			out = append(out, rawValues(one)...)
		}
		return out
	case pcommon.ValueTypeSlice:
		var out []json.RawMessage
		for _, one := range v.Slice().All() {
			out = append(out, rawValues(one)...)
		}
		return out
	case pcommon.ValueTypeBytes:
		inside, _ := json.Marshal(string(v.Bytes().AsRaw())) // text always marshals
		outside, _ := json.Marshal(v.AsString())
		return []json.RawMessage{inside, outside}
	case pcommon.ValueTypeStr:
		var all map[string]json.RawMessage
		if len(v.Str()) <= maxSpanJSON && json.Unmarshal([]byte(v.Str()), &all) == nil {
			return slices.Collect(maps.Values(all))
		}
		raw, _ := json.Marshal(v.Str()) // text always marshals
		return []json.RawMessage{raw}
	}
	raw, err := rawOf(v, true)
	if err != nil {
		return nil // no prediction has it: it is infinite
	}
	return []json.RawMessage{raw}
}
