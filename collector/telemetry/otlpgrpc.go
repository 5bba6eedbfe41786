package telemetry

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Register adds OTLP's TraceService to a gRPC server. UNAVAILABLE says when to try
// again; nothing else is to be sent again.
func (in *Intake) Register(s *grpc.Server) {
	ptraceotlp.RegisterGRPCServer(s, &traceServer{in: in})
}

type traceServer struct {
	ptraceotlp.UnimplementedGRPCServer
	in *Intake
}

// Export implements ptraceotlp.GRPCServer.
func (t *traceServer) Export(ctx context.Context, req ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	res, refused := t.in.take(ctx, req)
	switch {
	case refused == nil:
		return res, nil
	case refused.status != http.StatusServiceUnavailable:
		return ptraceotlp.NewExportResponse(), status.Error(codes.InvalidArgument, refused.message)
	}
	st := status.New(codes.Unavailable, refused.message)
	if with, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)}); err == nil {
		st = with
	}
	return ptraceotlp.NewExportResponse(), st.Err()
}
