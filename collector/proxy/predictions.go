package proxy

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
)

// maxID bounds an id: foreign ids are opaque strings.
const maxID = 1024

// predictionID reads the id of a path.
func predictionID(c echo.Context) (string, error) {
	id, err := param(c, "id")
	if err != nil {
		return "", err
	}
	if id == "" || len(id) > maxID {
		return "", fail(http.StatusBadRequest, "the prediction id is empty or longer than %d bytes", maxID)
	}
	return id, nil
}

// readPrediction answers one stored prediction, or the list of them where the id
// is a batch's or a trace's.
func (s *Server) readPrediction(c echo.Context) error {
	if s.cfg.ReadPrediction == nil {
		return fail(http.StatusNotImplemented, "reading predictions is not configured")
	}
	id, err := predictionID(c)
	if err != nil {
		return err
	}
	rows, err := s.cfg.ReadPrediction(c.Request().Context(), collector.DefaultTenant, id)
	switch {
	case err != nil:
		return err
	case len(rows) == 0:
		return fail(http.StatusNotFound, "there is no prediction %q", clip(id))
	}
	traced := strings.HasPrefix(id, "trace:")
	alone := len(rows) == 1 && (rows[0].ID == id || rows[0].ID+".0" == id)
	if traced || !alone {
		return s.reply(c, collector.Page{Predictions: rows})
	}
	return s.reply(c, rows[0])
}
