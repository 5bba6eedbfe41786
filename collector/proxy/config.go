package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/events"
	"github.com/pellucid/pellucid/engine"
)

// Models is where served models are found. Implementations are safe for
// concurrent use.
type Models interface {
	// Find returns the version that answers now; an empty version means the
	// newest. The error wraps collector.ErrNotFound or collector.ErrNotReady.
	Find(model, version string) (*collector.ModelVersion, error)
	// Index lists every version of every model, ready or not.
	Index(ctx context.Context) []collector.ModelState
	// Load makes a model's newest versions answer; Unload makes it stop.
	Load(ctx context.Context, model string) error
	Unload(ctx context.Context, model string) error
}

// Config is what a Server needs. Models is required; every func field may be
// nil, and the routes that need it then answer 501.
type Config struct {
	Models Models
	// Upstreams are models that other servers answer. Their names win over those
	// of Models.
	Upstreams []*Upstream

	// Capture returns once the prediction is as durable as configured. It may set
	// the prediction's Capture field, which the answer reports. in holds the
	// model's canonical inputs and out its declared outputs; out is nil for a failed
	// prediction, and in where it did not get as far as inputs that fit the model. An error wrapping collector.ErrFull refuses the request.
	// When the field is nil nothing is captured and every answer says so.
	Capture func(ctx context.Context, p *collector.Prediction, v *collector.ModelVersion, in, out engine.Values) error
	// External finds the version that predictions made elsewhere are recorded
	// under: a served one, one known from an earlier import, or a new one of what
	// describe returns, under the version's model.yaml, with the names that named gives
	// what the new version is known by (nil leaves them). describe's error is returned
	// as it is.
	External func(model, version string, describe func() (*engine.Info, error), named func(*collector.ModelVersion) *engine.Info) (*collector.ModelVersion, error)
	// OutputNamed returns which output of a version that is about to be made so is called like
	// something private in its model, "" for none.
	OutputNamed func(model, version string, outputs []string) (string, error)
	// Name is the name of a field that somebody else gave without what patterns find in it.
	// Where it is nil names stay as they are but for private values.
	Name func(string) string
	// Events takes one CloudEvent of a payload logger and says what became of it; a
	// *events.Refusal is the sender's fault.
	Events func(ctx context.Context, e events.Event) (events.Outcome, error)
	// Recorded reports whether a prediction of that id is known to be recorded, as
	// far as can be told without asking the store.
	Recorded func(model, id string) bool
	// KnownError reports whether the error of an imported prediction repeats nothing. Of a
	// model with private fields no other is recorded; where this is nil, what it repeats of
	// them is looked for and taken out of it.
	KnownError func(text string) bool
	// Said is told the private values of imported predictions that name a trace, by its
	// id, before they are answered. nil means that nobody needs to know.
	Said func(ctx context.Context, traces map[string][]json.RawMessage)
	// BatchRows returns how many rows the request of that id has, where that is
	// known without asking the store. Labels for rows it does not have are refused.
	BatchRows func(id string) (rows int, known bool)
	// Feedback returns once the labels are as durable as configured.
	Feedback func(ctx context.Context, labels []collector.Feedback) error
	// Explain explains rows brought along (canonical inputs): row by row, the
	// same number of explanations for each.
	Explain func(ctx context.Context, v *collector.ModelVersion, rows engine.Values, req collector.ExplainRequest) ([]collector.Explanation, error)
	// ExplainStored explains a stored prediction by its id.
	ExplainStored func(ctx context.Context, ref collector.Ref, req collector.ExplainRequest) ([]collector.Explanation, error)
	// ReadPrediction returns the rows stored under an id (ID, ID.i or
	// trace:<trace id>), or an error wrapping collector.ErrNotFound.
	ReadPrediction func(ctx context.Context, ref collector.Ref) ([]collector.StoredPrediction, error)
	// RecordExplanations keeps explanations that were given.
	RecordExplanations func(ctx context.Context, explanations []collector.Explanation) error
	// Ready says why the server cannot serve, or nil. A nil field means always
	// ready.
	Ready func() error

	// Keep keeps a span that TracerProvider's sampler did not choose: of any request
	// that failed by a fault of the server's, of one that was refused, of a call that
	// took longer than KeepSlower (0: none for that). Of refused ones it is KeepRefused
	// a second for each status, so that a flood of nonsense fills no store; 0 means 10,
	// negative none.
	Keep        func(LateSpan)
	KeepSlower  time.Duration
	KeepRefused int

	// TracerProvider and MeterProvider default to the global ones, Logger to
	// slog.Default.
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider
	Logger         *slog.Logger

	// MaxBody bounds a request's body in bytes, before and after decompression;
	// 0 means 64 MiB.
	MaxBody int64
	// MaxRows bounds the rows of one request; 0 means 100,000.
	MaxRows int
	// Timeout bounds the reading of a body, and one inference with it;
	// ExplainTimeout bounds one explanation. 0 means one minute and five minutes.
	Timeout, ExplainTimeout time.Duration
	// MaxInFlight bounds the inferences and explanations under way; more are
	// answered 503 with Retry-After. 0 means 1,024. A request is under way when its
	// body has come.
	MaxInFlight int
	// MaxReading bounds the bodies being read at once, MaxReadingBytes the bytes
	// they have come to; beyond, the one that has been read for longest is answered
	// 408. 0 means eight times MaxInFlight and four times MaxBody, but at least 256
	// MiB.
	MaxReading      int
	MaxReadingBytes int64
	// AllowNonLoopback takes requests whose Host is not a loopback address. It is
	// for a server with authentication or a proxy before it.
	AllowNonLoopback bool
	// UI is where GET / sends a browser; empty means nowhere.
	UI string
	// Version is the product's version in the server's metadata; empty means
	// "dev".
	Version string
	// Now is the clock that event times are held against; nil means time.Now.
	Now func() time.Time
}

// withDefaults checks the configuration and fills in what is not set.
func (c Config) withDefaults() (Config, error) {
	if c.Models == nil {
		return c, errors.New("configure proxy: Models is not set")
	}
	if c.MaxBody < 0 || c.MaxRows < 0 || c.Timeout < 0 || c.ExplainTimeout < 0 || c.MaxInFlight < 0 || c.MaxReading < 0 || c.MaxReadingBytes < 0 {
		return c, errors.New("configure proxy: a limit is negative")
	}
	names := map[string]bool{}
	for _, u := range c.Upstreams {
		if names[u.cfg.Name] {
			return c, fmt.Errorf("configure proxy: two upstreams are called %q", u.cfg.Name)
		}
		names[u.cfg.Name] = true
	}
	if c.TracerProvider == nil {
		c.TracerProvider = otel.GetTracerProvider()
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	c.KeepRefused = or(c.KeepRefused, 10)
	c.MaxBody = or(c.MaxBody, 64<<20)
	c.MaxRows = or(c.MaxRows, 100_000)
	c.MaxInFlight = or(c.MaxInFlight, 1024)
	c.MaxReading = or(c.MaxReading, 8*c.MaxInFlight)
	c.MaxReadingBytes = or(c.MaxReadingBytes, max(256<<20, 4*c.MaxBody))
	c.Timeout = or(c.Timeout, time.Minute)
	c.ExplainTimeout = or(c.ExplainTimeout, 5*time.Minute)
	return c, nil
}

func or[T int | int64 | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}
