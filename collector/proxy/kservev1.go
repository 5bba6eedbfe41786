package proxy

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
)

// verbs are what is asked of a model by a verb.
var verbs = map[string]collector.Route{"predict": collector.RoutePredict, "explain": collector.RouteExplain}

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
	model, verb, ok := cutVerb(path)
	if !ok {
		c.Response().Header().Set("Allow", http.MethodGet)
		return fail(http.StatusMethodNotAllowed, "POST needs a verb: :predict or :explain")
	}
	switch route := verbs[verb]; route {
	case collector.RoutePredict:
		return s.call(c, route, model, "", (*call).v1Predict)
	case collector.RouteExplain:
		return s.call(c, route, model, "", (*call).v1Explain)
	}
	return fail(http.StatusNotFound, "there is no verb %q: use :predict or :explain", clip(verb))
}

func cutVerb(path string) (model, verb string, ok bool) {
	at := strings.LastIndexByte(path, ':')
	if at < 0 {
		return path, "", false
	}
	return path[:at], path[at+1:], true
}
