package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/oip"
)

// Bounds of one feedback request.
const (
	// MaxLabels bounds the labels of one request.
	MaxLabels = 100_000
	maxLabel  = 1024
)

// Label is one label as a client gives it.
type Label struct {
	PredictionID string          `json:"prediction_id"`
	ExternalID   string          `json:"external_id"`
	Model        string          `json:"model"`
	Label        json.RawMessage `json:"label"`
	ObservedAt   string          `json:"observed_at"`
}

// labelResult is what became of one label.
type labelResult struct {
	Status string `json:"status"` // "accepted" or "refused"
	Error  string `json:"error,omitempty"`
}

// labelResults is the answer to a list of labels. Error is set where none was
// accepted.
type labelResults struct {
	Accepted int           `json:"accepted"`
	Refused  int           `json:"refused"`
	Results  []labelResult `json:"results"`
	Error    string        `json:"error,omitempty"`
}

// feedback takes one label or a list. It answers when the labels it accepts are
// recorded; one that is refused does not hold up the others.
func (s *Server) feedback(c echo.Context) error {
	items, err := s.jsonList(c, "labels", MaxLabels)
	if err != nil {
		return err
	}
	labels := make([]*Label, len(items))
	refused := make([]error, len(items))
	for i, raw := range items {
		labels[i] = &Label{}
		refused[i] = decodeJSON(raw, labels[i], true)
	}
	if err := s.RecordFeedback(c.Request().Context(), labels, refused); err != nil {
		return err
	}
	out := labelResults{Results: make([]labelResult, len(items))}
	for i, err := range refused {
		if err == nil {
			out.Results[i] = labelResult{Status: "accepted"}
			out.Accepted++
			continue
		}
		out.Results[i] = labelResult{Status: "refused", Error: asFailure(err).message}
		out.Refused++
	}
	if out.Accepted == 0 {
		out.Error = out.Results[0].Error
		return c.JSON(http.StatusBadRequest, out)
	}
	return s.reply(c, out)
}

// RecordFeedback records labels. refused has an entry for each: where it is nil and
// the label cannot be taken it is set to the reason, where it is set the label is
// left out. After an error none may be recorded, and all may be sent again.
func (s *Server) RecordFeedback(ctx context.Context, labels []*Label, refused []error) error {
	if s.cfg.Feedback == nil {
		return fail(http.StatusNotImplemented, "feedback is not configured")
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	good := make([]collector.Feedback, 0, len(labels))
	bad := int64(0)
	for i, l := range labels {
		var f collector.Feedback
		if refused[i] == nil {
			f, refused[i] = s.label(l, now)
		}
		if refused[i] != nil {
			bad++
			continue
		}
		good = append(good, f)
	}
	s.metrics.feedbackBad.Add(ctx, bad)
	if len(good) == 0 {
		return nil
	}
	if err := s.cfg.Feedback(context.WithoutCancel(ctx), good); err != nil {
		return err
	}
	s.metrics.feedbackTaken.Add(ctx, int64(len(good)))
	return nil
}

// jsonList splits a body that is one object, or a list of at most limit, into its
// entries, not yet decoded.
func (s *Server) jsonList(c echo.Context, what string, limit int) ([]json.RawMessage, error) {
	buf, err := s.readBody(c)
	if err != nil {
		return nil, err
	}
	defer putBuffer(buf)
	body := bytes.TrimSpace(buf.Bytes())
	if len(body) == 0 {
		return nil, fail(http.StatusBadRequest, "the body is empty")
	}
	if err := oip.Check(body); err != nil {
		return nil, err
	}
	if body[0] != '[' {
		return []json.RawMessage{bytes.Clone(body)}, nil
	}
	var items []json.RawMessage
	if err := json.Unmarshal(body, &items); err != nil {
		return nil, fail(http.StatusBadRequest, "the body is not a list of %s", what)
	}
	if len(items) == 0 || len(items) > limit {
		return nil, fail(http.StatusBadRequest, "the list has %d %s: 1 to %d are taken at once", len(items), what, limit)
	}
	return items, nil
}

// label checks one label.
func (s *Server) label(l *Label, now time.Time) (collector.Feedback, error) {
	var f collector.Feedback
	switch {
	case (l.PredictionID == "") == (l.ExternalID == ""):
		return f, fail(http.StatusBadRequest, "give either prediction_id or external_id")
	case len(l.PredictionID) > maxID || len(l.ExternalID) > maxExternalID:
		return f, fail(http.StatusBadRequest, "the id is longer than %d bytes", maxID)
	case len(l.Model) > maxID:
		return f, fail(http.StatusBadRequest, "the model's name is longer than %d bytes", maxID)
	case strings.HasPrefix(l.PredictionID, "trace:"):
		return f, fail(http.StatusBadRequest, "a trace is no prediction: give the prediction's id")
	}
	if err := s.labelled(l.PredictionID); err != nil {
		return f, err
	}
	text, err := labelText(l.Label)
	if err != nil {
		return f, err
	}
	f = collector.Feedback{
		PredictionID: l.PredictionID, ExternalID: l.ExternalID, Model: l.Model, Tenant: collector.DefaultTenant,
		Label: text, ObservedAt: now, ReceivedAt: now, Arrival: s.arrivals.Next(time.Now()),
	}
	if l.ObservedAt != "" {
		if f.ObservedAt, err = s.eventTime("observed_at", l.ObservedAt); err != nil {
			return f, err
		}
	}
	return f, nil
}

// labelled refuses an id that can be known to name no prediction. Ids that are not
// ours are opaque, and a dot in them is theirs.
func (s *Server) labelled(id string) error {
	const length = 36
	if len(id) < length || !ownID(id[:length]) {
		return nil
	}
	batch := id[:length]
	rows, known := s.batches.rows(batch)
	if !known && s.cfg.BatchRows != nil {
		rows, known = s.cfg.BatchRows(batch)
	}
	if len(id) == length {
		if known && rows > 1 {
			return fail(http.StatusBadRequest, "prediction_id names a batch: add the row, as in <id>.0")
		}
		return nil
	}
	if id[length] != '.' {
		return nil
	}
	switch request, row, ok := collector.SplitID(id); {
	case !ok || request != batch || row >= collector.MaxRows:
		return fail(http.StatusBadRequest, "prediction_id does not end in the number of a row, as in <id>.0")
	case known && row >= rows:
		return fail(http.StatusBadRequest, "prediction_id names row %d, the request has %d", row, rows)
	}
	return nil
}

// ownID reports whether an id has the form of those that this server makes.
func ownID(id string) bool {
	u, err := uuid.Parse(id)
	return err == nil && u.Version() == 7 && u.String() == id
}

// labelText returns a label as its client wrote it: a string's text, a number's
// digits, true or false.
func labelText(raw json.RawMessage) (string, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || raw[0] == 'n' {
		return "", fail(http.StatusBadRequest, "label is missing")
	}
	text := string(raw)
	switch raw[0] {
	case '{', '[':
		return "", fail(http.StatusBadRequest, "label must be a number, a string or a boolean")
	case '"':
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", fail(http.StatusBadRequest, "label is not a valid string")
		}
	}
	if text == "" || len(text) > maxLabel {
		return "", fail(http.StatusBadRequest, "label is empty or longer than %d bytes", maxLabel)
	}
	return text, nil
}
