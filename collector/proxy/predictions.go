package proxy

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
)

// maxID bounds an id: foreign ids are opaque strings.
const maxID = 1024

// predictionRef reads the id of a path, and of which model it is where the query says so.
// Another parameter is refused, so that a misspelt one is not another answer.
func predictionRef(c echo.Context) (collector.Ref, error) {
	ref := collector.Ref{Tenant: collector.DefaultTenant}
	var err error
	if ref.ID, err = param(c, "id"); err != nil {
		return ref, err
	}
	if ref.ID == "" || len(ref.ID) > maxID {
		return ref, fail(http.StatusBadRequest, "the prediction id is empty or longer than %d bytes", maxID)
	}
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return ref, fail(http.StatusBadRequest, "read the query: %s", err)
	}
	for name, values := range query {
		if name != "model" || len(values) > 1 {
			return ref, fail(http.StatusBadRequest, "parameter %q is not known here, or there twice", clip(name))
		}
		ref.Model = values[0]
	}
	return ref, nil
}

// readPrediction answers one stored prediction, or the list of them where the id
// is a batch's or a trace's, or one in several models.
func (s *Server) readPrediction(c echo.Context) error {
	if s.cfg.ReadPrediction == nil {
		return fail(http.StatusNotImplemented, "reading predictions is not configured")
	}
	ref, err := predictionRef(c)
	if err != nil {
		return err
	}
	rows, err := s.cfg.ReadPrediction(c.Request().Context(), ref)
	switch {
	case err != nil:
		return err
	case len(rows) == 0:
		return fail(http.StatusNotFound, "there is no prediction %q", clip(ref.ID))
	}
	traced := strings.HasPrefix(ref.ID, collector.TracePrefix)
	alone := len(rows) == 1 && (rows[0].ID == ref.ID || rows[0].ID+".0" == ref.ID)
	if traced || !alone {
		return s.reply(c, collector.Page{Predictions: rows})
	}
	return s.reply(c, rows[0])
}
