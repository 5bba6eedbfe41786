package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector/proxy/events"
	"github.com/pellucid/pellucid/collector/proxy/oip"
)

// EventLabels records labels that came as CloudEvents, as RecordFeedback does.
func (s *Server) EventLabels(ctx context.Context, list []events.Label) ([]error, error) {
	labels, refused := make([]*Label, len(list)), make([]error, len(list))
	for i, l := range list {
		labels[i] = &Label{PredictionID: l.ID, Model: l.Model, Label: l.Label, ObservedAt: l.Time}
	}
	err := s.RecordFeedback(ctx, labels, refused)
	for i := range refused {
		if refused[i] != nil {
			refused[i] = errors.New(asFailure(refused[i]).message)
		}
	}
	return refused, err
}

// eventResult is what became of one CloudEvent.
type eventResult struct {
	ID     string `json:"id"`
	Status string `json:"status"` // "waiting", "recorded", "duplicate" or "refused"
	Error  string `json:"error,omitempty"`
	// Capture says how much of a recorded one is stored where it is not all, as for rows of
	// POST /api/v1/predictions; of several rows it is that of the first.
	Capture string `json:"capture,omitempty"`
}

// eventResults is the answer to CloudEvents. Error is set where all were refused.
type eventResults struct {
	Accepted  int           `json:"accepted"`
	Duplicate int           `json:"duplicate"`
	Refused   int           `json:"refused"`
	Results   []eventResult `json:"results"`
	Error     string        `json:"error,omitempty"`
}

// cloudEvents takes what payload loggers send, one event or a batch. It answers
// when those it accepts are kept or recorded; after a 503 all may be sent again.
func (s *Server) cloudEvents(c echo.Context) error {
	if s.cfg.Events == nil {
		return fail(http.StatusNotImplemented, "CloudEvents are not configured")
	}
	buf, err := s.readBody(c)
	if err != nil {
		return err
	}
	defer putBuffer(buf)
	list, err := events.Read(c.Request().Header, buf.Bytes())
	if err != nil {
		return eventError(err)
	}
	out := eventResults{Results: make([]eventResult, len(list))}
	ctx := context.WithoutCancel(c.Request().Context())
	for i := range list {
		r := &out.Results[i]
		r.ID = list[i].ID
		got, err := s.cfg.Events(ctx, list[i])
		if err == nil {
			r.Capture = got.Capture
			if r.Status = got.Status; got.Status == events.Duplicate {
				out.Duplicate++
			} else {
				out.Accepted++
			}
			if got.Refused > 0 {
				r.Error = fmt.Sprintf("%d rows are not recorded, of which %s", got.Refused, got.Reason)
			}
			continue
		}
		f := asFailure(eventError(err))
		if f.status >= http.StatusInternalServerError {
			return f
		}
		r.Status, r.Error = "refused", f.message
		out.Refused++
	}
	if out.Refused == len(list) {
		out.Error = out.Results[0].Error
		return c.JSON(http.StatusBadRequest, out)
	}
	return s.reply(c, out)
}

func eventError(err error) error {
	var refused *events.Refusal
	if errors.As(err, &refused) {
		return fail(http.StatusBadRequest, "%s", oip.Own(refused.Reason))
	}
	return err
}
