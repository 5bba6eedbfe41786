package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pellucid/pellucid/collector/proxy"
	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
	"github.com/pellucid/pellucid/collector/proxy/rpc/pellucidv1"
)

// Registration adds a service of another room.
type Registration = func(*grpc.Server)

// Config is what a Server needs. Proxy is required.
type Config struct {
	Proxy    *proxy.Server
	Register []Registration
	// MaxBody bounds a message in bytes, also what it decompresses to; 0 means 64
	// MiB.
	MaxBody int
	// Timeout bounds a call from its first byte to its last, or the time between two
	// messages of a stream; 0 means one minute.
	Timeout time.Duration
	// MaxCalls bounds the calls under way, those whose message is still coming
	// among them; more are refused with UNAVAILABLE. 0 means 1,024.
	MaxCalls int
	// MaxArriving bounds the bytes of messages that are still coming; beyond, the call
	// whose message has been coming for longest is ended. 0 means four times MaxBody, but
	// at least 256 MiB.
	MaxArriving int64
	// AllowNonLoopback takes calls whose authority is not a loopback address.
	AllowNonLoopback bool
}

// Server answers gRPC. It is safe for concurrent use.
type Server struct {
	cfg       Config
	grpc      *grpc.Server
	infer     *inferer
	methods   []string // in order
	calls     atomic.Int64
	coming    *arriving
	malformed sync.Map // messages that could not be decoded, until it is known whose they are
}

// New returns a Server. Serve makes it answer.
func New(cfg Config) (*Server, error) {
	if cfg.Proxy == nil {
		return nil, errors.New("configure gRPC: Proxy is not set")
	}
	if cfg.MaxBody < 0 || cfg.Timeout < 0 || cfg.MaxCalls < 0 || cfg.MaxArriving < 0 {
		return nil, errors.New("configure gRPC: a limit is negative")
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 64 << 20
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.MaxCalls == 0 {
		cfg.MaxCalls = 1024
	}
	if cfg.MaxArriving == 0 {
		cfg.MaxArriving = max(256<<20, 4*int64(cfg.MaxBody))
	}
	s := &Server{cfg: cfg, infer: &inferer{proxy: cfg.Proxy}, coming: newArriving(cfg.MaxArriving)}
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(cfg.MaxBody), grpc.MaxHeaderListSize(64<<10), grpc.MaxConcurrentStreams(256),
		grpc.ConnectionTimeout(10*time.Second), grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 2 * time.Minute, Time: time.Minute}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.InTapHandle(s.tap), experimental.BufferPool(s.coming), grpc.UnaryInterceptor(s.guard), grpc.StreamInterceptor(s.guardStream),
		grpc.StatsHandler(watcher{s}), grpc.ForceServerCodecV2(takingCodec{encoding.GetCodecV2(proto.Name), &s.malformed}),
	)
	inference.RegisterGRPCInferenceServiceServer(s.grpc, s.infer)
	pellucidv1.RegisterRecorderServer(s.grpc, &recorder{proxy: cfg.Proxy})
	grpc_health_v1.RegisterHealthServer(s.grpc, &health{proxy: cfg.Proxy, known: s.grpc.GetServiceInfo})
	for _, register := range cfg.Register {
		register(s.grpc)
	}
	for service, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			s.methods = append(s.methods, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(s.methods)
	return s, nil
}

// Serve answers on l until Stop.
func (s *Server) Serve(l net.Listener) error { return s.grpc.Serve(l) }

// Methods are the full names of all methods that are answered, in order.
func (s *Server) Methods() []string { return slices.Clone(s.methods) }

// Stop takes no more calls and waits for those under way, which are cut off when
// ctx ends.
func (s *Server) Stop(ctx context.Context) error {
	done := make(chan struct{})
	go func() { s.grpc.GracefulStop(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.grpc.Stop()
		<-done
		return fmt.Errorf("calls that did not end in time are cut off: %w", ctx.Err())
	}
}

// tap sees a call before its message is read: it bounds how many there are, and
// the time each may take, the reading of its message included.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	start := time.Now()
	if _, ok := slices.BinarySearch(s.methods, info.FullMethodName); !ok {
		s.unread(ctx, "", start, http.StatusNotFound)
		return ctx, status.Error(codes.Unimplemented, "there is no such method")
	}
	if ctx.Err() != nil {
		s.unread(ctx, info.FullMethodName, start, http.StatusRequestTimeout)
		return ctx, status.FromContextError(ctx.Err()).Err()
	}
	if s.calls.Add(1) > int64(s.cfg.MaxCalls) {
		s.calls.Add(-1)
		s.unread(ctx, info.FullMethodName, start, http.StatusServiceUnavailable)
		return ctx, errorOf(http.StatusServiceUnavailable, "too many calls are under way", 1)
	}
	x := &arrival{of: s.coming, method: info.FullMethodName, start: start}
	if info.FullMethodName == inference.GRPCInferenceService_ModelStreamInfer_FullMethodName {
		// A stream lasts as long as there is something in it.
		ctx, x.cancel = context.WithCancel(ctx)
		ctx = context.WithValue(ctx, idleKey{}, &idle{time.AfterFunc(s.cfg.Timeout, func() { x.late.Store(true); x.cancel() }), s.cfg.Timeout})
	} else {
		ctx, x.cancel = context.WithTimeout(ctx, s.cfg.Timeout)
	}
	s.coming.begin(x)
	ctx = context.WithValue(ctx, arrivalKey{}, x)
	// The call's own context ends with the call, and this one with it.
	context.AfterFunc(ctx, func() { x.cancel(); s.coming.end(x); s.calls.Add(-1) })
	return ctx, nil
}

// idle ends a stream in which no message came for a time.
type idle struct {
	timer *time.Timer
	limit time.Duration
}

type idleKey struct{}

// awaited notes that a further message of a stream may be coming.
func awaited(ctx context.Context) {
	x := arrivalOf(ctx)
	x.of.begin(x)
}

// came notes that it has.
func came(ctx context.Context) {
	x := arrivalOf(ctx)
	x.of.end(x)
	if i, ok := ctx.Value(idleKey{}).(*idle); ok {
		i.timer.Reset(i.limit)
	}
}

// guardStream is guard for streams.
func (s *Server) guardStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	_, err := s.guard(stream.Context(), nil, &grpc.UnaryServerInfo{FullMethod: info.FullMethod}, func(context.Context, any) (any, error) {
		return nil, next(srv, messages{stream, arrivalOf(stream.Context())})
	})
	return err
}

// guard holds every call to the loopback rule, as proxy does for HTTP, and turns a
// panic into INTERNAL.
func (s *Server) guard(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (res any, err error) {
	x, answered := arrivalOf(ctx), false
	x.guarded, x.message = true, nil
	defer func() {
		if p := recover(); p != nil {
			res, err = nil, failed(s.cfg.Proxy.Panicked(ctx, p))
		}
		switch {
		case err == nil:
		case x.unread:
			s.unread(ctx, info.FullMethod, x.start, x.unreadStatus(err))
		default:
			// Inference that got as far as proxy has seen to its spans.
			s.ended(ctx, info.FullMethod, x.start, httpOf(status.Code(err)), answered && info.FullMethod == inference.GRPCInferenceService_ModelInfer_FullMethodName)
		}
	}()
	if req != nil { // of a stream they are still to come
		came(ctx)
	}
	var refusal error
	switch {
	case !s.cfg.AllowNonLoopback && info.FullMethod != grpc_health_v1.Health_Check_FullMethodName && !local(ctx):
		refusal = proxy.Forbid("authority")
	case x.malformed:
		refusal = errMalformed
	}
	if m, ok := req.(*inference.ModelInferRequest); ok && refusal != nil {
		_, err = s.infer.answer(ctx, m, refusal) // of a model's that it may still name
		answered = true
		return nil, err
	}
	if refusal != nil {
		return nil, failed(refusal)
	}
	res, err = next(ctx, req)
	answered = true
	return res, err
}

// ended counts a call that failed, and keeps a span of it where it has none.
func (s *Server) ended(ctx context.Context, method string, start time.Time, httpStatus int, hasSpan bool) {
	s.cfg.Proxy.Refused(ctx, method, httpStatus)
	if !hasSpan {
		md, _ := metadata.FromIncomingContext(ctx)
		s.cfg.Proxy.KeepFailed(carrier(md), strings.TrimPrefix(method, "/"), start, httpStatus)
	}
}

func local(ctx context.Context) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, authority := range md.Get(":authority") {
		if !proxy.Loopback(authority) {
			return false
		}
	}
	return len(md.Get(":authority")) > 0
}

// failed is an error of proxy as gRPC answers it.
func failed(err error) error {
	httpStatus, message, retryAfter := proxy.Failure(err)
	return errorOf(httpStatus, message, retryAfter)
}

// statusClientGone is HTTP's for a client that left, as proxy has it.
const statusClientGone = 499

// errorOf turns HTTP's status into gRPC's; retryAfter is in seconds, 0 for never.
func errorOf(httpStatus int, message string, retryAfter int, details ...protoadapt.MessageV1) error {
	st := status.New(codeOf(httpStatus), message)
	if retryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Duration(retryAfter) * time.Second)})
	}
	if with, err := st.WithDetails(details...); err == nil && len(details) > 0 {
		st = with
	}
	return st.Err()
}

func codeOf(httpStatus int) codes.Code {
	switch httpStatus {
	case http.StatusForbidden, http.StatusUnauthorized:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusUnprocessableEntity:
		return codes.FailedPrecondition
	case http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return codes.Unavailable
	case statusClientGone:
		return codes.Canceled
	}
	if httpStatus >= 400 && httpStatus < 500 {
		return codes.InvalidArgument
	}
	return codes.Internal
}

// httpOf is the status that a code has in HTTP.
func httpOf(c codes.Code) int {
	switch c {
	case codes.OK:
		return http.StatusOK
	case codes.Canceled:
		return statusClientGone
	case codes.InvalidArgument, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.FailedPrecondition:
		return http.StatusUnprocessableEntity
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.ResourceExhausted: // nothing else here is answered so
		return http.StatusRequestEntityTooLarge
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// health answers grpc.health.v1.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	proxy *proxy.Server
	known func() map[string]grpc.ServiceInfo
}

// Check implements grpc_health_v1.HealthServer.
func (h *health) Check(_ context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if _, ok := h.known()[req.GetService()]; !ok && req.GetService() != "" {
		return nil, status.Error(codes.NotFound, "there is no such service")
	}
	res := &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}
	if h.proxy.Unready() != nil {
		res.Status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return res, nil
}
