package rpc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/pellucid/pellucid/collector/proxy"
	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
)

// gRPC reads a message before it asks an interceptor, and answers by itself where it cannot,
// as INTERNAL where the message is malformed. So the codec takes any message, and notes which
// were none, for guard to refuse; calls that ended without guard are counted when they are over.

// errMalformed is what a malformed message is answered with.
var errMalformed = proxy.Refuse("the message is not valid protobuf")

// takingCodec decodes messages and notes those that cannot be. A decoder that panics on bytes
// of a stranger's must not take the process with it: there is no interceptor yet to recover.
type takingCodec struct {
	encoding.CodecV2
	malformed *sync.Map // messages
}

// Unmarshal implements encoding.CodecV2. What could be read of a malformed message stays in v.
func (c takingCodec) Unmarshal(data mem.BufferSlice, v any) error {
	taken := false
	defer func() {
		if recover() != nil || !taken {
			c.malformed.Store(v, nil)
		}
	}()
	taken = c.CodecV2.Unmarshal(data, v) == nil
	return nil
}

// watcher is the stats.Handler that sees every call of a method that there is.
type watcher struct{ s *Server }

// TagRPC implements stats.Handler.
func (watcher) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements stats.Handler.
func (watcher) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (watcher) HandleConn(context.Context, stats.ConnStats) {}

// HandleRPC implements stats.Handler.
func (w watcher) HandleRPC(ctx context.Context, e stats.RPCStats) {
	switch e := e.(type) {
	case *stats.InPayload: // right after Unmarshal
		x := arrivalOf(ctx)
		_, x.malformed = w.s.malformed.LoadAndDelete(e.Payload)
		if !x.guarded {
			x.message = e.Payload
		}
	case *stats.End:
		x := arrivalOf(ctx)
		if e.Error == nil || x.guarded {
			return
		}
		// A second message that there must not be may have been noted too.
		w.s.malformed.Delete(x.message)
		w.s.unread(ctx, x.method, x.start, x.unreadStatus(e.Error))
	}
}

// unread counts a call whose message no handler sees, by a method that is served or "".
func (s *Server) unread(ctx context.Context, method string, start time.Time, httpStatus int) {
	md, _ := metadata.FromIncomingContext(ctx)
	infers := method == inference.GRPCInferenceService_ModelInfer_FullMethodName ||
		// Of a stream that stands still, or that its client leaves, no message is under way.
		method == inference.GRPCInferenceService_ModelStreamInfer_FullMethodName && httpStatus != http.StatusRequestTimeout && httpStatus != statusClientGone
	s.cfg.Proxy.Unread(proxy.Unread{Carrier: carrier(md), Method: method, Infers: infers, Start: start, Status: httpStatus})
}

// unreadStatus is HTTP's status for a message that could not be read: whatever gRPC calls it,
// it is its sender's doing.
func (x *arrival) unreadStatus(err error) int {
	switch code := status.Code(err); {
	case x.late.Load(), code == codes.DeadlineExceeded:
		return http.StatusRequestTimeout
	case code == codes.ResourceExhausted:
		return http.StatusRequestEntityTooLarge
	case code == codes.Unimplemented:
		return http.StatusUnsupportedMediaType // the encoding
	case code == codes.Canceled, code == codes.Unavailable:
		return statusClientGone
	}
	return http.StatusBadRequest
}

// messages notes when a stream's messages cannot be read.
type messages struct {
	grpc.ServerStream
	of *arrival
}

// RecvMsg implements grpc.ServerStream.
func (m messages) RecvMsg(v any) error {
	err := m.ServerStream.RecvMsg(v)
	m.of.unread = err != nil && !errors.Is(err, io.EOF)
	return err
}
