package clickhouse

// spanBlock is rows of otel_traces being built, in the order of spanColumns.
type spanBlock struct {
	start, duration                                              fixed
	traceID, spanID, parent, state, scope, scopeVersion, message text
	name, kind, service, status                                  lowCardinality
	resource, attributes                                         maps
	eventTimes, linkTraces, linkSpans, linkStates                arrays
	eventNames                                                   lists[*lowCardinality]
	eventAttributes, linkAttributes                              lists[*maps]
}

func newSpanBlock() *spanBlock {
	b := &spanBlock{}
	b.eventNames.values, b.eventAttributes.values, b.linkAttributes.values = &lowCardinality{}, &maps{}, &maps{}
	return b
}

func (b *spanBlock) columns() []builder {
	return []builder{
		&b.start, &b.traceID, &b.spanID, &b.parent, &b.state, &b.name, &b.kind, &b.service, &b.resource, &b.scope, &b.scopeVersion,
		&b.attributes, &b.duration, &b.status, &b.message, &b.eventTimes, &b.eventNames, &b.eventAttributes,
		&b.linkTraces, &b.linkSpans, &b.linkStates, &b.linkAttributes,
	}
}

func (b *spanBlock) add(x *Span) {
	b.start.i64(x.Start.UnixNano())
	b.traceID.add(x.TraceID)
	b.spanID.add(x.SpanID)
	b.parent.add(x.ParentSpanID)
	b.state.add(x.TraceState)
	b.name.add(x.Name)
	b.kind.add(x.Kind)
	b.service.add(x.ServiceName)
	b.resource.add(x.Resource)
	b.scope.add(x.ScopeName)
	b.scopeVersion.add(x.Version)
	b.attributes.add(x.Attributes)
	b.duration.u64(uint64(max(x.Duration, 0)))
	b.status.add(x.StatusCode)
	b.message.add(x.StatusMessage)

	times := make([]int64, len(x.Events))
	for i, e := range x.Events {
		times[i] = e.Time.UnixNano()
		b.eventNames.values.add(e.Name)
		b.eventAttributes.values.add(e.Attributes)
	}
	b.eventTimes.i64(times)
	b.eventNames.end(len(x.Events))
	b.eventAttributes.end(len(x.Events))
	traces, spans, states := make([]string, len(x.Links)), make([]string, len(x.Links)), make([]string, len(x.Links))
	for i, l := range x.Links {
		traces[i], spans[i], states[i] = l.TraceID, l.SpanID, l.TraceState
		b.linkAttributes.values.add(l.Attributes)
	}
	b.linkTraces.str(traces)
	b.linkSpans.str(spans)
	b.linkStates.str(states)
	b.linkAttributes.end(len(x.Links))
}
