// Package dashboards shows: the pages under /ui/, rendered on the server from
// embedded templates, with htmx for the parts that load on demand and uPlot for
// charts. Every chart has its numbers in a table below it, and every page reads
// without script.
//
// It keeps no state, computes no statistic and stores nothing: it asks
// api.Sources. Nothing on a page comes from anywhere but this server, which its
// content security policy enforces.
package dashboards

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
)

//go:embed static templates
var files embed.FS

// policy lets a page load from this server only. Style attributes are allowed
// for the figures drawn as SVG.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; " +
	"img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Config joins the pages to what they show.
type Config struct {
	Sources *api.Sources
	// Rules is how many alert rules are in force.
	Rules func() int
	// Methods lists the explanation methods that work for a version.
	Methods func(*collector.ModelVersion) []string
	// Build is the product's version, for the foot of the page.
	Build string
}

type server struct {
	Config
	pages  map[string]*template.Template
	assets map[string]asset
}

type asset struct {
	url, kind string
	data      []byte
}

// Register parses the templates and puts the pages on e.
func Register(e *echo.Echo, cfg Config) error {
	s := &server{Config: cfg, pages: map[string]*template.Template{}, assets: map[string]asset{}}
	if err := s.loadAssets(); err != nil {
		return err
	}
	if err := s.loadPages(); err != nil {
		return err
	}
	ui := e.Group("/ui", protect)
	ui.GET("", func(c echo.Context) error { return c.Redirect(http.StatusFound, "/ui/") })
	ui.GET("/", s.overview, s.takes())
	ui.GET("/models/:model", s.model, s.takes("version", "from", "to", "step", "feature"))
	ui.GET("/predictions", s.predictions)
	ui.GET("/find", s.find, s.takes("id"))
	ui.GET("/predictions/:id", s.prediction, s.takes("row", "model"))
	ui.POST("/predictions/:id/explain", s.explain, s.takes("model"))
	ui.GET("/predictions/:id/report", s.report, s.takes("method", "model"))
	ui.GET("/alerts", s.alerts)
	ui.GET("/rules", s.rules, s.takes())
	s.registerHealth(ui)
	ui.GET("/static/:name", s.static)
	// Browsers ask for it wherever a page names no icon: a report, JSON.
	e.GET("/favicon.ico", func(c echo.Context) error {
		a := s.assets["icon.svg"]
		c.Response().Header().Set("Cache-Control", "public, max-age=86400")
		return c.Blob(http.StatusOK, a.kind, a.data)
	}, protect)
	ui.GET("/*", func(c echo.Context) error {
		return s.problem(c, fmt.Errorf("page %q: %w", c.Request().URL.Path, collector.ErrNotFound))
	})
	return nil
}

// protect sets the headers every page carries, and refuses what another site's
// page posts: an explanation is work, and is recorded.
func protect(next echo.HandlerFunc) echo.HandlerFunc {
	origin := http.NewCrossOriginProtection()
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		if err := origin.Check(c.Request()); err != nil {
			return c.JSON(http.StatusForbidden, map[string]string{"error": "refuse request: " + err.Error()})
		}
		return next(c)
	}
}

// takes refuses a query that has other parameters than these. Pages that show
// their own form with what is wrong in it look for themselves.
func (s *server) takes(names ...string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if err := api.Known(c, names...); err != nil {
				return s.problem(c, err)
			}
			return next(c)
		}
	}
}

// loadAssets names each static file by its content, so that browsers may keep
// it for ever.
func (s *server) loadAssets() error {
	return fs.WalkDir(files, "static", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := files.ReadFile(p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		name, ext := path.Base(p), path.Ext(p)
		hashed := strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:6]) + ext
		a := asset{url: "/ui/static/" + hashed, kind: mime.TypeByExtension(ext), data: data}
		s.assets[name], s.assets[hashed] = a, a
		return nil
	})
}

func (s *server) static(c echo.Context) error {
	a, ok := s.assets[c.Param("name")]
	if !ok {
		return s.problem(c, fmt.Errorf("file %q: %w", c.Param("name"), collector.ErrNotFound))
	}
	c.Response().Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	return c.Blob(http.StatusOK, a.kind, a.data)
}

func (s *server) loadPages() error {
	funcs := formats()
	funcs["asset"] = func(name string) (string, error) {
		a, ok := s.assets[name]
		if !ok {
			return "", fmt.Errorf("no static file %q", name)
		}
		return a.url, nil
	}
	shared, err := template.New("").Funcs(funcs).ParseFS(files, "templates/layout.html", "templates/parts.html", "templates/explanation.html")
	if err != nil {
		return fmt.Errorf("parse templates: %w", err)
	}
	for _, name := range []string{"overview", "model", "predictions", "prediction", "alerts", "rules", "health", "deadletter", "problem"} {
		t, err := shared.Clone()
		if err != nil {
			return fmt.Errorf("parse templates: %w", err)
		}
		if s.pages[name], err = t.ParseFS(files, "templates/"+name+".html"); err != nil {
			return fmt.Errorf("parse templates: %w", err)
		}
	}
	return nil
}

// frame is what the layout shows around every page.
type frame struct {
	Title, Page, Build string
	Firing             int
	Status             api.Status
}

func (s *server) frame(c echo.Context, title, page string) frame {
	f := frame{Title: title, Page: page, Build: s.Build, Status: s.Sources.Status(c.Request().Context())}
	for _, a := range s.Sources.Alerts() {
		if a.State == alerts.Firing {
			f.Firing++
		}
	}
	return f
}

// render writes a page only when all of it could be made.
func (s *server) render(c echo.Context, status int, page string, data any) error {
	var b bytes.Buffer
	if err := s.pages[page].ExecuteTemplate(&b, "layout", data); err != nil {
		return fmt.Errorf("render %s: %w", page, err)
	}
	return c.HTMLBlob(status, b.Bytes())
}

// problem shows an error as a page.
func (s *server) problem(c echo.Context, err error) error {
	status := api.StatusOf(err)
	title := http.StatusText(status)
	if status == http.StatusConflict {
		title = "Not ready" // it is the server's state, not what was asked, that has to change
	}
	return s.render(c, status, "problem", struct {
		frame
		Problem string
	}{s.frame(c, title, ""), err.Error()})
}
