package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
)

// Subject names whose rows are meant: one of ExternalID, PredictionID and Where is
// given. Where is the filter grammar and needs a model.
type Subject struct {
	ExternalID   string `json:"external_id,omitempty"`
	PredictionID string `json:"prediction_id,omitempty"`
	Model        string `json:"model,omitempty"`
	Where        string `json:"where,omitempty"`
}

// ErasureRequest asks for a subject's rows to be deleted.
type ErasureRequest struct {
	Subject
	// DryRun only counts.
	DryRun bool `json:"dry_run,omitempty"`
	// Forget is the subject as the feature has it that model.yaml names so: the key that
	// its sealed values were sealed with goes too, and with it what copies there are.
	Forget string `json:"forget,omitempty"`
	// Expect, if given, is how many predictions there have to be, or none is deleted.
	Expect *int64 `json:"expect,omitempty"`
}

// Erasure is the proof of an erasure: rows by table, dead letters and waiting halves of
// predictions, before it and after.
type Erasure struct {
	DryRun bool `json:"dry_run"`
	// Pending says that records are on their way to the store that might be the
	// subject's, and that therefore nothing was deleted.
	Pending bool             `json:"pending"`
	Before  map[string]int64 `json:"before"`
	After   map[string]int64 `json:"after,omitempty"`
	// Keys is how many of the subject's keys were deleted.
	Keys int `json:"keys,omitempty"`
	// FilesGoneBy is when the files that the rows were in have left the disk of the
	// store.
	FilesGoneBy *time.Time `json:"files_gone_by,omitempty"`
	// Unsearched counts what might be the subject's and cannot be known to be, UnsearchedIn
	// by where that is: records that nobody understands; where a filter asks for a
	// feature, what has none stored, or not in a form that can be compared.
	Unsearched   int64            `json:"unsearched"`
	UnsearchedIn map[string]int64 `json:"unsearched_in,omitempty"`
	// Stays says what of a subject an erasure does not reach.
	Stays []string `json:"stays"`
}

// ExportRequest says which rows of a model are about to be taken out of the store past the
// server, as pellucid export does. From and To are zero where there is no bound.
type ExportRequest struct {
	Model   string    `json:"model"`
	Version string    `json:"version,omitempty"`
	From    time.Time `json:"from,omitzero"`
	To      time.Time `json:"to,omitzero"`
	Where   string    `json:"where,omitempty"`
}

// Subjects are what is done about one subject's rows, and what is recorded of exports. All
// are required.
type Subjects struct {
	Erase func(ctx context.Context, r ErasureRequest) (Erasure, error)
	// Export writes JSON lines to w: first the counts, then each thing.
	Export func(ctx context.Context, x Subject, w io.Writer) error
	// Exported records an export of a model's rows before it begins, and counts them.
	Exported func(ctx context.Context, r ExportRequest) (uint64, error)
}

// maxSubject bounds the body of a question about a subject.
const maxSubject = 64 << 10

// RegisterSubjects puts the routes on e.
func RegisterSubjects(e *echo.Echo, s Subjects) {
	registerExports(e, s)
	e.POST("/api/v1/subjects/erase", func(c echo.Context) error {
		var r ErasureRequest
		if err := decodeSubject(c, &r); err != nil {
			return answer(c, nil, err)
		}
		got, err := s.Erase(c.Request().Context(), r)
		if err == nil && got.Pending && !r.DryRun {
			return c.JSON(http.StatusAccepted, got)
		}
		return answer(c, got, err)
	}, sameOrigin)
	e.POST("/api/v1/subjects/export", func(c echo.Context) error {
		var x Subject
		if err := decodeSubject(c, &x); err != nil {
			return answer(c, nil, err)
		}
		w := newLines(c)
		err := s.Export(c.Request().Context(), x, w)
		if err == nil || !c.Response().Committed {
			return answerUnless(c, err)
		}
		// The status is sent: the last line says that this is not all.
		return json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
	}, sameOrigin)
}

// registerExports has clients say what they are about to take out.
func registerExports(e *echo.Echo, s Subjects) {
	e.POST("/api/v1/exports", func(c echo.Context) error {
		var r ExportRequest
		if err := decodeSubject(c, &r); err != nil {
			return answer(c, nil, err)
		}
		if r.Model == "" {
			return answer(c, nil, BadRequest(errors.New("the model is missing")))
		}
		n, err := s.Exported(c.Request().Context(), r)
		return answer(c, map[string]uint64{"predictions": n}, err)
	}, sameOrigin)
}

// answerUnless sends an error, if there is one.
func answerUnless(c echo.Context, err error) error {
	if err == nil {
		return nil
	}
	return answer(c, nil, err)
}

// lineTime bounds how long a client may take for one line: the store is being read.
const lineTime = 30 * time.Second

// linesWriter begins the answer with its first line.
type linesWriter struct {
	*echo.Response
	conn *http.ResponseController
}

func newLines(c echo.Context) *linesWriter {
	return &linesWriter{c.Response(), http.NewResponseController(c.Response())}
}

// Write sends a line.
func (w *linesWriter) Write(b []byte) (int, error) {
	if !w.Committed {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusOK)
	}
	// A test's answer has no connection to wait for.
	_ = w.conn.SetWriteDeadline(time.Now().Add(lineTime))
	n, err := w.Response.Write(b)
	_ = w.conn.SetWriteDeadline(time.Time{})
	return n, err
}

// sameOrigin refuses what a page of another origin posts: what is done here cannot
// be undone.
func sameOrigin(next echo.HandlerFunc) echo.HandlerFunc {
	origin := http.NewCrossOriginProtection()
	return func(c echo.Context) error {
		if err := origin.Check(c.Request()); err != nil {
			return c.JSON(http.StatusForbidden, map[string]string{"error": "refuse request: " + err.Error()})
		}
		return next(c)
	}
}

// decodeSubject reads one JSON object that has no other keys than v: a misspelt one
// would be another subject. No error of it repeats a value.
func decodeSubject(c echo.Context, v any) error {
	if err := Known(c); err != nil {
		return err
	}
	d := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, maxSubject))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one JSON object")
		}
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return badRequest{fmt.Errorf("the body is larger than %d bytes", maxSubject)}
	case errors.Is(err, io.EOF):
		return badRequest{errors.New("a JSON object is wanted")}
	case err != nil:
		return badRequest{fmt.Errorf("read the body: %s", strings.TrimPrefix(err.Error(), "json: "))}
	}
	return nil
}

// ErrPending is what an erasure waits for: records on their way to the store.
var ErrPending = fmt.Errorf("records are on their way to the store: %w", collector.ErrUnavailable)
