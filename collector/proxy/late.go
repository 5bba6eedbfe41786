package proxy

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// LateSpan is a span that is made when it is over: whether a call failed or was slow
// is known only then, and most calls are neither.
type LateSpan struct {
	// Own is what the span is known by already; Parent is invalid for a root.
	Own, Parent trace.SpanContext
	Name        string
	Kind        trace.SpanKind
	Start, End  time.Time
	Attributes  []attribute.KeyValue
	Code        codes.Code
	Description string
}

// keepLate has the spans of a call kept that the sampler did not choose but that
// failed by a fault of the server's or took too long. Their stages are where the
// record of the call has them.
func (k *call) keepLate(status int, f *failure) {
	took := time.Since(k.start)
	if k.s.cfg.Keep == nil || k.span.IsRecording() || status < http.StatusInternalServerError && (k.s.cfg.KeepSlower <= 0 || took <= k.s.cfg.KeepSlower) {
		return
	}
	root := LateSpan{
		Own: k.sc, Parent: k.caller, Name: k.name(), Kind: trace.SpanKindServer, Start: k.start, End: k.start.Add(took),
		Attributes: []attribute.KeyValue{attrPredictionID.String(k.id), attrHTTPStatus.Int(status)},
	}
	if k.c != nil {
		r := k.c.Request()
		root.Attributes = append(root.Attributes, attrHTTPMethod.String(r.Method), attrHTTPRoute.String(k.c.Path()), attrURLPath.String(r.URL.Path))
	}
	if k.v != nil {
		root.Attributes = append(root.Attributes, k.modelAttributes()...)
	}
	if f != nil {
		root.Attributes = append(root.Attributes, attrErrorType.String(strconv.Itoa(status)))
		if status >= http.StatusInternalServerError {
			root.Code, root.Description = codes.Error, f.recorded()
		}
	}
	k.s.cfg.Keep(root)
	if k.v == nil {
		return
	}
	at := k.start.Add(time.Duration(k.stages.Decode))
	for _, stage := range [...]struct {
		name string
		took int64
	}{{"model.run", k.stages.Model}, {"capture", k.stages.Capture}} {
		if stage.took == 0 {
			continue
		}
		end := at.Add(time.Duration(stage.took))
		k.s.cfg.Keep(LateSpan{
			Own: k.sc.WithSpanID(newSpanID()), Parent: k.sc, Name: stage.name, Kind: trace.SpanKindInternal, Start: at, End: end, Attributes: k.modelAttributes(),
		})
		at = end.Add(time.Duration(k.stages.Encode))
	}
}

func newSpanID() (id trace.SpanID) {
	putUint64(id[:], rand.Uint64()|1)
	return id
}
