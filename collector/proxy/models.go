package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/oip"
)

// The content types of answers.
const (
	contentJSON   = "application/json"
	contentBinary = "application/octet-stream"
)

// contentTypes are their header values, shared by all answers: net/http does not
// write to them.
var contentTypes = map[string][]string{contentJSON: {contentJSON}, contentBinary: {contentBinary}}

// extensions are what the server's metadata promises.
var extensions = []string{"binary_tensor_data", "model_repository", "explain"}

// reply sends v as JSON with status 200.
func (s *Server) reply(c echo.Context, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return send(c, contentJSON, body)
}

// root is KServe v1's liveness, or the way to the pages for a browser.
func (s *Server) root(c echo.Context) error {
	if s.cfg.UI != "" && strings.Contains(c.Request().Header.Get("Accept"), "text/html") {
		return c.Redirect(http.StatusFound, s.cfg.UI)
	}
	return s.reply(c, map[string]string{"status": "alive"})
}

func (s *Server) healthz(c echo.Context) error {
	return s.reply(c, map[string]string{"status": "ok"})
}

// Unready says why the server should get no traffic, or nil.
func (s *Server) Unready() error {
	if s.cfg.Ready == nil {
		return nil
	}
	return s.cfg.Ready()
}

func (s *Server) readyz(c echo.Context) error {
	if err := s.Unready(); err != nil {
		return fail(http.StatusServiceUnavailable, "not ready: %s", err)
	}
	return s.reply(c, map[string]string{"status": "ready"})
}

func (s *Server) live(c echo.Context) error {
	return s.reply(c, map[string]bool{"live": true})
}

func (s *Server) ready(c echo.Context) error {
	ready := s.Unready() == nil
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	return c.JSON(status, map[string]bool{"live": true, "ready": ready})
}

func (s *Server) serverMetadata(c echo.Context) error {
	return s.reply(c, s.Metadata(extensions...))
}

// Metadata describes the server, with what of the protocol's extensions it has.
func (s *Server) Metadata(extensions ...string) oip.ServerMetadata {
	return oip.ServerMetadata{Name: "pellucid", Version: s.cfg.Version, Extensions: extensions}
}

// States lists every model, upstreams among them, by name. It waits for no
// upstream: one that was not reached yet is UNAVAILABLE or LOADING.
func (s *Server) States(ctx context.Context) []collector.ModelState {
	out := s.cfg.Models.Index(ctx)
	if len(s.upstreams) == 0 {
		return out
	}
	out = slices.DeleteFunc(slices.Clone(out), func(m collector.ModelState) bool { return s.upstreams[m.Name] != nil })
	for _, u := range s.cfg.Upstreams {
		out = append(out, u.state())
	}
	slices.SortStableFunc(out, func(a, b collector.ModelState) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (s *Server) listModels(c echo.Context) error {
	names := []string{}
	for _, m := range s.States(c.Request().Context()) {
		if !slices.Contains(names, m.Name) {
			names = append(names, m.Name)
		}
	}
	return s.reply(c, map[string][]string{"models": names})
}

// names returns the model and version a path asks for.
func names(c echo.Context) (model, version string, err error) {
	if model, err = param(c, "model"); err != nil {
		return "", "", err
	}
	if version, err = param(c, "version"); err != nil {
		return "", "", err
	}
	// Without a version the newest would answer, which is not what was asked for.
	if version == "" && strings.Contains(c.Path(), "/versions/") {
		return "", "", fail(http.StatusNotFound, "the path names no version")
	}
	return model, version, nil
}

func (s *Server) modelMetadata(c echo.Context) error {
	model, version, err := names(c)
	if err != nil {
		return err
	}
	meta, err := s.ModelMetadata(c.Request().Context(), model, version)
	if err != nil {
		return err
	}
	return s.reply(c, meta)
}

// ModelMetadata describes a version of a model, the newest where version is empty.
func (s *Server) ModelMetadata(ctx context.Context, model, version string) (*oip.ModelMetadata, error) {
	v, err := s.find(ctx, model, version)
	if err != nil {
		return nil, err
	}
	meta := &oip.ModelMetadata{
		Name:     v.Name,
		Platform: v.Info.Format,
		Inputs:   oip.Describe(v.Info.Inputs),
		Outputs:  oip.Describe(v.Info.Outputs),
		Properties: map[string]string{
			"digest": v.Digest,
			"task":   string(v.Info.Task),
		},
	}
	for _, extra := range v.Info.Extra {
		meta.Properties["output_on_request:"+extra.Name] = extra.DType.String()
	}
	for _, m := range s.States(ctx) {
		if m.Name == v.Name && m.State == "READY" && !slices.Contains(meta.Versions, m.Version) {
			meta.Versions = append(meta.Versions, m.Version)
		}
	}
	return meta, nil
}

// readiness is a model's name and whether it answers now.
type readiness struct {
	Name  string `json:"name"`
	Ready bool   `json:"ready"`
}

func (s *Server) modelReady(c echo.Context) error {
	model, version, err := names(c)
	if err != nil {
		return err
	}
	ready, err := s.ModelReady(c.Request().Context(), model, version)
	if err != nil {
		return err
	}
	if !ready {
		return c.JSON(http.StatusServiceUnavailable, readiness{Name: model})
	}
	return s.reply(c, readiness{Name: model, Ready: true})
}

// ModelReady reports whether a version of a model answers now.
func (s *Server) ModelReady(ctx context.Context, model, version string) (bool, error) {
	_, err := s.find(ctx, model, version)
	if errors.Is(err, collector.ErrNotReady) {
		return false, nil
	}
	return err == nil, err
}

func (s *Server) index(c echo.Context) error {
	var only struct {
		Ready bool `json:"ready"`
	}
	if err := s.control(c, &only); err != nil {
		return err
	}
	out := []collector.ModelState{}
	for _, m := range s.States(c.Request().Context()) {
		if !only.Ready || m.State == "READY" {
			out = append(out, m)
		}
	}
	return s.reply(c, out)
}

func (s *Server) load(c echo.Context) error {
	return s.change(c, s.cfg.Models.Load)
}

func (s *Server) unload(c echo.Context) error {
	return s.change(c, s.cfg.Models.Unload)
}

// change loads or unloads a model. What a request would change about how it is
// loaded is refused: a version is what its folder says.
func (s *Server) change(c echo.Context, change func(context.Context, string) error) error {
	var body struct {
		Parameters map[string]json.RawMessage `json:"parameters"`
	}
	if err := s.control(c, &body); err != nil {
		return err
	}
	for name := range body.Parameters {
		if name != "unload_dependents" {
			return fail(http.StatusBadRequest, "parameter %q is not supported: a model is loaded as its folder describes it", clip(name))
		}
	}
	model, err := param(c, "model")
	if err != nil {
		return err
	}
	if s.upstreams[model] != nil {
		return fail(http.StatusBadRequest, "model %q is an upstream's and is loaded there", clip(model))
	}
	if err := change(c.Request().Context(), model); err != nil {
		if errors.Is(err, collector.ErrNotFound) || errors.Is(err, collector.ErrUnavailable) {
			return err
		}
		return fail(http.StatusBadRequest, "%s", err)
	}
	return s.reply(c, struct{}{})
}

// control reads the optional JSON body of a control request into v.
func (s *Server) control(c echo.Context, v any) error {
	buf, err := s.readBody(c)
	if err != nil {
		return err
	}
	defer putBuffer(buf)
	return decodeJSON(buf.Bytes(), v, false)
}

// decodeJSON decodes one JSON value into v; an empty body leaves v as it is. No key
// may be there twice. strict refuses keys that v does not have, and those that it
// has in other letters.
func decodeJSON(body []byte, v any, strict bool) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := oip.CheckUnique(body); err != nil {
		return err
	}
	if strict {
		if err := exactKeys(body, reflect.TypeOf(v).Elem()); err != nil {
			return err
		}
	}
	err := json.Unmarshal(body, v)
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind) && kind.Field == "":
		return fail(http.StatusBadRequest, "%s expected", oip.Own(wordFor(kind.Type)))
	case errors.As(err, &kind):
		return fail(http.StatusBadRequest, "the field %q has the wrong type: %s expected", clip(kind.Field), oip.Own(wordFor(kind.Type)))
	case err != nil:
		return fail(http.StatusBadRequest, "%s", strings.TrimPrefix(clip(err.Error()), "json: "))
	}
	return nil
}

// exactKeys refuses keys of an object that a struct of type t does not have in
// just those letters: encoding/json takes them in any.
func exactKeys(body []byte, t reflect.Type) error {
	if t.Kind() != reflect.Struct {
		return nil
	}
	_, err := oip.Object(body, func(key string, value []byte) error {
		for i := range t.NumField() {
			f := t.Field(i)
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name == key && name != "" && name != "-" {
				return exactKeys(value, f.Type)
			}
		}
		return fail(http.StatusBadRequest, "unknown field %q", clip(key))
	})
	return err
}

// wordFor names what a client has to write for a Go type.
func wordFor(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Pointer:
		return wordFor(t.Elem())
	}
	return "a whole number"
}
