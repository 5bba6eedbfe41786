package proxy

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
)

// v1Ready answers KServe v1's model status.
func (s *Server) v1Ready(c echo.Context) error {
	return s.modelReady(c)
}

// v1Verb routes POST /v1/models/{model}:predict and :explain. The verb is behind
// the last colon, so a model's name may have one.
func (s *Server) v1Verb(c echo.Context) error {
	path, err := param(c, "model")
	if err != nil {
		return err
	}
	at := strings.LastIndexByte(path, ':')
	if at < 0 {
		c.Response().Header().Set("Allow", http.MethodGet)
		return fail(http.StatusMethodNotAllowed, "POST needs a verb: :predict or :explain")
	}
	model, verb := path[:at], path[at+1:]
	switch verb {
	case "predict":
		return s.call(c, collector.RoutePredict, model, "", (*call).v1Predict)
	case "explain":
		return s.call(c, collector.RouteExplain, model, "", (*call).v1Explain)
	}
	return fail(http.StatusNotFound, "there is no verb %q: use :predict or :explain", clip(verb))
}
