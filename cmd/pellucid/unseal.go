package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/capture"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine"
)

// caller is who asks, as far as it can be known without authentication.
type caller struct {
	// loopback says that the request came from this machine, and through nobody.
	loopback bool
	// unseal says that it asks for sealed values (?unseal=true).
	unseal bool
}

type callerKey struct{}

// mayUnseal decides who may see sealed values and what explains them: until there is
// authentication, who asks from this machine. A context that came by another way than
// HTTP is nobody's.
func mayUnseal(ctx context.Context) bool {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c.loopback
}

// asksUnseal reports whether the request says that sealed values are wanted.
func asksUnseal(ctx context.Context) bool {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c.unseal
}

var errMayNotUnseal = fmt.Errorf("%w: sealed values are shown to callers on this machine only", collector.ErrRefused)

// identify puts the caller into the request's context. The parameter unseal, of
// requests about predictions, is taken out of the query: what handles them does not
// know it.
func identify(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if strings.HasSuffix(r.URL.Path, "/infer") || strings.HasSuffix(r.URL.Path, ":predict") {
			return next(c) // it opens nothing, whoever asks
		}
		who := caller{loopback: direct(r)}
		if strings.Contains(r.URL.Path, "/predictions") && strings.Contains(r.URL.RawQuery, "unseal") {
			query := r.URL.Query()
			switch list := query["unseal"]; {
			case len(list) == 0:
			case len(list) > 1 || list[0] != "true" && list[0] != "false":
				return c.JSON(http.StatusBadRequest, map[string]string{"error": "unseal is neither true nor false"})
			default:
				who.unseal = list[0] == "true"
				query.Del("unseal")
				r.URL.RawQuery = query.Encode()
			}
		}
		c.SetRequest(r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
		return next(c)
	}
}

// unkept has nobody keep what /api and /ui show, which a browser would write to its disk;
// static files say otherwise themselves.
func unkept(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if path := c.Request().URL.Path; strings.HasPrefix(path, "/api") || strings.HasPrefix(path, "/ui") {
			c.Response().Header().Set("Cache-Control", "no-store")
		}
		return next(c)
	}
}

// direct reports whether a request came from this machine itself: not through a proxy
// on it, and not from a page elsewhere that has its name point here.
func direct(r *http.Request) bool {
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Envoy-") || proxies[name] {
			return false
		}
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || !loopback(u.Hostname()) {
			return false
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && loopback(host) && loopback((&url.URL{Host: r.Host}).Hostname())
}

// proxies are headers that proxies add, beside X-Forwarded-* and X-Envoy-*.
var proxies = map[string]bool{
	"Forwarded": true, "Via": true, "X-Real-Ip": true, "X-Client-Ip": true, "X-Cluster-Client-Ip": true, "X-Original-Forwarded-For": true, "X-Original-Host": true,
	"True-Client-Ip": true, "Cf-Connecting-Ip": true, "Cf-Ray": true, "Fastly-Client-Ip": true, "Fly-Client-Ip": true, "X-Appengine-User-Ip": true, "X-Azure-Clientip": true,
}

// shown opens the sealed values of rows for a caller who asks for them and may see
// them. Without being asked for they stay as they are read: masked.
func (s *server) shown(ctx context.Context, tenant string, rows []collector.StoredPrediction) error {
	if !asksUnseal(ctx) {
		return nil
	}
	if !mayUnseal(ctx) {
		return errMayNotUnseal
	}
	for i := range rows {
		p := &rows[i]
		v, err := s.versionOf(p)
		if errors.Is(err, collector.ErrNotFound) {
			continue // nothing of a version that is not known can be sealed here
		}
		if err != nil {
			return err
		}
		if len(v.Schema.Sealed()) == 0 {
			continue
		}
		if same, err := s.sameFeatures(ctx, p, v); errors.Is(err, collector.ErrNotFound) || err == nil && !same {
			continue
		} else if err != nil {
			return err
		}
		row, err := collector.OpenRow(collector.Scope{Tenant: tenant, Model: p.Model}, v.Schema, p.Raw)
		if errors.Is(err, collector.ErrForgotten) {
			continue // it stays masked, for ever
		}
		if err != nil {
			return fmt.Errorf("show prediction %s: %w", p.ID, err)
		}
		open, _ := v.Unsealed()
		p.Features, _ = collector.RowMaps(open.Schema, row)
	}
	return nil
}

// privacy says what of a row is private, for whoever asks.
func (s *server) privacy(ctx context.Context, p *collector.StoredPrediction) (api.Privacy, error) {
	out := api.Privacy{MayUnseal: mayUnseal(ctx)}
	if p.Raw.SchemaID == "" {
		return out, nil
	}
	schema := s.schemaOf(p.Raw.SchemaID)
	if schema == nil {
		var err error
		if schema, err = s.store.Schema(ctx, p.Raw.SchemaID); err != nil && !errors.Is(err, collector.ErrNotFound) {
			return out, err
		}
		if schema == nil {
			return out, nil // nothing is shown of a row whose schema nobody knows
		}
	}
	out.Features = privateFields(schema.Features, p.Features, p.Capture == collector.CaptureRedacted)
	out.Outputs = privateFields(schema.Outputs, p.Outputs, true)
	for i := range schema.Features {
		out.Sealed = out.Sealed || schema.Features[i].Private == collector.PrivacySeal
	}
	out.Unsealed = out.Sealed && asksUnseal(ctx)
	return out, nil
}

// privateFields names the fields of a row that are private with what is done to them.
// patterns says that patterns may have changed it.
func privateFields(fields []collector.Field, row map[string]any, patterns bool) map[string]string {
	out := map[string]string{}
	for i := range fields {
		f := &fields[i]
		text, isText := row[f.Name].(string)
		switch {
		case f.Private != collector.PrivacyNone:
			out[f.Name] = string(f.Private)
		case patterns && isText && capture.Replaced(text):
			out[f.Name] = "pattern"
		}
	}
	return out
}

// explain explains rows that were brought along. Sealed features are explained for who
// may unseal: the rows are his own, but their parts of the answer are not.
func (s *server) explain(ctx context.Context, v *collector.ModelVersion, in engine.Values, req collector.ExplainRequest) ([]collector.Explanation, error) {
	open, sealed := v.Unsealed()
	if len(sealed) > 0 && !mayUnseal(ctx) {
		return nil, fmt.Errorf("feature %q is sealed: %w", sealed[0], errMayNotUnseal)
	}
	list, err := s.explainer.Explain(ctx, open, in, req)
	for i := range list {
		list[i].Sealed = sealed
	}
	return list, err
}

// binFailure logs that sealed values could not be counted in their bins, at most once a
// minute.
func (s *server) binFailure(feature string, err error) {
	now := time.Now().Unix() / 60
	if s.binsFailed.Swap(now) != now {
		s.log.Error("sealed values count in no bin: their key cannot be used", "feature", feature, "error", err)
	}
}
