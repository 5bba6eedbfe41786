package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/oip"
	"github.com/pellucid/pellucid/engine"
)

// statusClientGone is what nginx made customary for a client that left before
// its answer; it is recorded, nobody reads it.
const statusClientGone = 499

// failure is an error with its answer.
type failure struct {
	status int
	// message is sent. record is stored and put on spans in its place, because what
	// the message repeats of the request may be private; empty means that the
	// message is all ours.
	message, record string
	// retryAfter is in seconds; 0 sends no header.
	retryAfter int
	// cause is logged; it is set for our own faults only.
	cause error
	// field and value are those of an imported row that the message is about, for its
	// sender. The value is empty where it may be private.
	field, value string
	// noRow says that no failed row is captured.
	noRow bool
	// shed says that too many were under way.
	shed bool
}

func (f *failure) Error() string { return f.message }

func (f *failure) Unwrap() error { return f.cause }

// recorded returns the text that may be stored.
func (f *failure) recorded() string {
	if f.record != "" {
		return f.record
	}
	return f.message
}

// fail makes a failure. Of args only those of oip.Own and oip.Number are stored.
func fail(status int, format string, args ...any) *failure {
	f := &failure{status: status, message: fmt.Sprintf(format, args...), record: oip.Record(format, args...)}
	if strings.Trim(f.record, ".") == "" {
		f.record = http.StatusText(status)
	}
	return f
}

func tooMany() *failure {
	return &failure{status: http.StatusServiceUnavailable, message: "too many requests are under way", retryAfter: 1, shed: true}
}

// asFailure maps an error to its answer. What is not known by type is our own
// fault: the client learns nothing of it, the log everything.
func asFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	if status := callersFault(err); status != 0 {
		return &failure{status: status, message: err.Error(), record: callersRecord(err)}
	}
	var up *UpstreamError
	if errors.As(err, &up) {
		return up.failure()
	}
	var gone *collector.GoneError
	var keys *collector.KeysError
	switch {
	case errors.As(err, &gone):
		return &failure{status: http.StatusServiceUnavailable, message: gone.Error(), retryAfter: 1, noRow: true}
	case errors.Is(err, collector.ErrNotReady):
		return &failure{status: http.StatusServiceUnavailable, message: err.Error(), record: collector.ErrNotReady.Error(), retryAfter: 1}
	case errors.Is(err, collector.ErrUnavailable):
		return &failure{status: http.StatusServiceUnavailable, message: err.Error(), record: collector.ErrUnavailable.Error(), retryAfter: 1}
	case errors.Is(err, collector.ErrFull):
		return &failure{
			status: http.StatusServiceUnavailable, message: "the prediction could not be recorded in time: the spool is full, or its disk does not answer",
			retryAfter: 1, noRow: true,
		}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &failure{
			status: http.StatusServiceUnavailable, message: "the server's disk is full: free space and try again", record: "disk full",
			retryAfter: 1, noRow: true, cause: err,
		}
	case errors.As(err, &keys):
		return &failure{
			status: http.StatusServiceUnavailable, message: "the prediction could not be recorded: " + keys.Error(), record: "no keys of sealed fields",
			retryAfter: 1, noRow: true, cause: err,
		}
	case errors.Is(err, context.DeadlineExceeded):
		return fail(http.StatusGatewayTimeout, "the request took longer than its time limit")
	case errors.Is(err, context.Canceled):
		return fail(statusClientGone, "the client closed the connection")
	}
	var he *echo.HTTPError
	if errors.As(err, &he) {
		return fail(he.Code, "%v", he.Message)
	}
	return &failure{status: http.StatusInternalServerError, message: "internal error", cause: err}
}

// Failure is how an error of this package is answered: HTTP's status, a message, and
// after how many seconds to try again, 0 for never.
func Failure(err error) (status int, message string, retryAfter int) {
	f := asFailure(err)
	return f.status, f.message, f.retryAfter
}

// Recorded is err as it may be stored and logged: what it repeats of a request, or an
// upstream's answer, is left out.
func Recorded(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(asFailure(err).recorded())
}

// callersFault returns the status of an error that the request itself caused,
// or 0.
func callersFault(err error) int {
	var (
		request     *oip.RequestError
		input       *engine.InputError
		gradient    *engine.NotDifferentiableError
		unsupported *engine.UnsupportedError
	)
	switch {
	case errors.As(err, &request), errors.As(err, &input):
		return http.StatusBadRequest
	case errors.Is(err, collector.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, collector.ErrRefused), errors.As(err, &gradient), errors.As(err, &unsupported):
		return http.StatusUnprocessableEntity
	case errors.Is(err, engine.ErrTooLarge):
		return http.StatusRequestEntityTooLarge
	}
	return 0
}

// callersRecord says what was wrong with a request without anything out of it.
func callersRecord(err error) string {
	var (
		request *oip.RequestError
		input   *engine.InputError
	)
	switch {
	case errors.As(err, &request):
		return request.Record()
	case errors.As(err, &input):
		return "an input does not fit the model"
	case errors.Is(err, collector.ErrNotFound):
		return collector.ErrNotFound.Error()
	case errors.Is(err, engine.ErrTooLarge):
		return engine.ErrTooLarge.Error()
	case errors.Is(err, collector.ErrRefused):
		return collector.ErrRefused.Error()
	}
	return "the model cannot do what was asked"
}

// writeFailure sends a failure, unless an answer has begun.
func writeFailure(c echo.Context, f *failure) {
	res := c.Response()
	if res.Committed {
		return
	}
	if f.retryAfter > 0 {
		res.Header().Set("Retry-After", strconv.Itoa(f.retryAfter))
	}
	body := oip.AppendError(nil, f.message)
	res.Header().Set("Content-Type", "application/json")
	res.Header().Set("Content-Length", strconv.Itoa(len(body)))
	res.WriteHeader(f.status)
	if c.Request().Method != http.MethodHead {
		// A client that has gone cannot be told so.
		_, _ = res.Write(body)
	}
}

// Refuse is an error of a request that is the caller's fault.
func Refuse(message string) error { return fail(http.StatusBadRequest, "%s", oip.Own(message)) }

// Forbid is an error of a request that came from where none may. What is wrong is named, and
// nothing of what it was.
func Forbid(what string) error {
	return fail(http.StatusForbidden, "the %s is not a loopback address, and no authentication is configured", oip.Own(what))
}
