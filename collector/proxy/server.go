package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/trace"

	"github.com/pellucid/pellucid/collector"
)

// Server answers the data plane's routes. It is safe for concurrent use and
// starts no goroutine.
type Server struct {
	cfg       Config
	log       *slog.Logger
	tracer    trace.Tracer
	metrics   *instruments
	upstreams map[string]*Upstream
	inFlight  atomic.Int64
	batches   batchIDs
	reading   reading
	refusals  refusals
	arrivals  collector.Arrivals
}

// New returns a Server. Register makes it answer.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:       cfg,
		log:       cfg.Logger,
		tracer:    cfg.TracerProvider.Tracer("github.com/pellucid/pellucid/collector/proxy"),
		upstreams: make(map[string]*Upstream, len(cfg.Upstreams)),
		reading:   reading{maxBodies: cfg.MaxReading, maxBytes: cfg.MaxReadingBytes},
	}
	s.refusals.limit(s.cfg.KeepRefused)
	if s.metrics, err = newInstruments(cfg.MeterProvider); err != nil {
		return nil, err
	}
	for _, u := range cfg.Upstreams {
		s.upstreams[u.cfg.Name] = u
	}
	return s, nil
}

// Register adds the routes, the loopback rule and the panic guard to e, which
// may be shared: errors of other packages' routes keep the handler e had.
func (s *Server) Register(e *echo.Echo) {
	before := e.HTTPErrorHandler
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		if ours(c.Request().URL.Path) {
			s.answer(c, err)
			return
		}
		before(err, c)
	}
	e.Use(s.guard)

	e.GET("/", s.root)
	e.GET("/healthz", s.healthz)
	e.GET("/readyz", s.readyz)

	for _, p := range []string{"/v2", "/v2/"} {
		e.GET(p, s.serverMetadata)
	}
	e.GET("/v2/health/live", s.live)
	e.GET("/v2/health/ready", s.ready)
	e.GET("/v2/models", s.listModels)
	for _, p := range []string{"/v2/models/:model", "/v2/models/:model/versions/:version"} {
		e.GET(p, s.modelMetadata)
		e.GET(p+"/ready", s.modelReady)
		e.POST(p+"/infer", s.byPath(collector.RouteInfer, (*call).infer))
		e.POST(p+"/generate", s.byPath(collector.RouteInfer, (*call).generate))
		e.POST(p+"/generate_stream", s.byPath(collector.RouteInfer, (*call).generateStream))
		e.POST(p+"/explain", s.byPath(collector.RouteExplain, (*call).explain))
	}
	e.POST("/v2/repository/index", s.index)
	e.POST("/v2/repository/models/:model/load", s.load)
	e.POST("/v2/repository/models/:model/unload", s.unload)

	e.GET("/v1/models", s.listModels)
	e.GET("/v1/models/:model", s.v1Ready)
	e.POST("/v1/models/:model", s.v1Verb)

	e.POST("/api/v1/predictions", s.importPredictions)
	e.POST("/api/v1/cloudevents", s.cloudEvents)
	e.GET("/api/v1/predictions/:id", s.readPrediction)
	e.POST("/api/v1/predictions/:id/explain", s.explainStored)
	e.POST("/api/v1/feedback", s.feedback)
}

// ours reports whether errors under path take the protocol's form.
func ours(path string) bool {
	for _, p := range [...]string{"/v1", "/v2", "/api/v1"} {
		if rest, ok := strings.CutPrefix(path, p); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return path == "/" || path == "/healthz" || path == "/readyz"
}

// answer sends an error and logs it where it is our own fault.
func (s *Server) answer(c echo.Context, err error) {
	f := asFailure(err)
	if f.cause != nil {
		s.log.ErrorContext(c.Request().Context(), "request failed", "path", c.Path(), "error", f.cause)
	}
	writeFailure(c, f)
}

// param returns a path parameter as the client meant it. Echo matches the
// escaped path where it differs from the plain one, and leaves it escaped.
func param(c echo.Context, name string) (string, error) {
	v := c.Param(name)
	if c.Request().URL.RawPath == "" {
		return v, nil
	}
	plain, err := url.PathUnescape(v)
	if err != nil {
		return "", fail(http.StatusBadRequest, "the path is not properly escaped")
	}
	return plain, nil
}

// find returns the version that answers for a name, upstreams first.
func (s *Server) find(ctx context.Context, model, version string) (*collector.ModelVersion, error) {
	u := s.upstreams[model]
	if u == nil {
		return s.cfg.Models.Find(model, version)
	}
	v, err := u.Version(ctx)
	if err != nil {
		return nil, err
	}
	if version != "" && version != v.Version {
		return nil, fail(http.StatusNotFound, "model %q has no version %q here", clip(model), clip(version))
	}
	return v, nil
}

// known is the version that answers for a name, or nil. Nobody waits for an upstream that has
// not described itself: it is for requests that go no further.
func (s *Server) known(model, version string) *collector.ModelVersion {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	v, err := s.find(ctx, model, version)
	if err != nil {
		return nil
	}
	return v
}

// clip bounds a name out of a request before it is put in a message.
func clip(name string) string {
	const limit = 128
	if len(name) <= limit {
		return name
	}
	return name[:limit] + "..."
}
