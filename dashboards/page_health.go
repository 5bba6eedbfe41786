package dashboards

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
)

// pageOfLetters is how many dead letters stand on the page, letterRows how many
// rows of one.
const (
	pageOfLetters = 100
	letterRows    = 20
)

// healthPage is how the server itself is doing.
type healthPage struct {
	frame
	Lag, LagLimit, Fill, In, Out, Disk, StoreFor, Said string
	Late, Filling                                      bool
	Letters                                            []collector.DeadLetter
	More                                               int
}

// registerHealth puts the pages about the server itself on ui.
func (s *server) registerHealth(ui *echo.Group) {
	ui.GET("/health", s.health, s.takes("driven", "deleted"))
	if s.Sources.Dead == nil {
		return
	}
	ui.GET("/dead-letters/:id", s.deadLetter, s.takes())
	ui.POST("/dead-letters/drive", func(c echo.Context) error { return s.drive(c, api.DriveRequest{All: true}) }, s.takes())
	ui.POST("/dead-letters/:id/drive", func(c echo.Context) error {
		return s.drive(c, api.DriveRequest{IDs: []string{c.Param("id")}, WithoutFeatures: c.FormValue("without_features") == "true"})
	}, s.takes())
	ui.POST("/dead-letters/:id/delete", s.deleteLetter, s.takes())
}

func (s *server) health(c echo.Context) error {
	page := healthPage{frame: s.frame(c, "Health", "health")}
	st := &page.Status
	page.Lag, page.Late = age(st.Lag), st.LagLimit > 0 && st.Lag > st.LagLimit
	page.LagLimit = age(st.LagLimit)
	page.Fill, page.Filling = percent(st.Fill), st.Fill > 0.8
	page.In, page.Out, page.Disk = rate(st.In), rate(st.Out), size(st.DiskBytes)
	if !st.StoreSince.IsZero() {
		page.StoreFor = age(s.Sources.Now().Sub(st.StoreSince))
	}
	for name, words := range map[string]string{"driven": "on their way to the store", "deleted": "deleted for good"} {
		if n, err := strconv.Atoi(c.QueryParam(name)); err == nil && n >= 0 {
			page.Said = fmt.Sprintf("%s dead letters %s.", number(n), words)
		}
	}
	if s.Sources.Dead != nil {
		page.Letters = s.Sources.Dead.List()
		if page.More = len(page.Letters) - pageOfLetters; page.More > 0 {
			page.Letters = page.Letters[:pageOfLetters]
		}
		page.More = max(0, page.More)
	}
	return s.render(c, http.StatusOK, "health", page)
}

// letterRow is one row of a letter.
type letterRow struct {
	ID                string
	Outputs, Features []pair
}

func (s *server) deadLetter(c echo.Context) error {
	id, err := api.Param(c, "id")
	if err != nil {
		return s.problem(c, err)
	}
	l, err := s.Sources.Dead.Get(c.Request().Context(), id)
	if err != nil {
		return s.problem(c, err)
	}
	page := struct {
		frame
		Letter *api.DeadLetter
		Rows   []letterRow
		More   int
	}{frame: s.frame(c, "Dead letter", "health"), Letter: &l, More: max(0, len(l.Predictions)-letterRows)}
	for _, p := range l.Predictions[:min(len(l.Predictions), letterRows)] {
		page.Rows = append(page.Rows, letterRow{p.ID, pairs(p.Outputs), pairs(p.Features)})
	}
	return s.render(c, http.StatusOK, "deadletter", page)
}

func (s *server) drive(c echo.Context, r api.DriveRequest) error {
	n, err := s.Sources.Dead.Drive(c.Request().Context(), r)
	if err != nil {
		return s.problem(c, err)
	}
	return c.Redirect(http.StatusSeeOther, "/ui/health?driven="+strconv.Itoa(n)+"#dead")
}

func (s *server) deleteLetter(c echo.Context) error {
	id := c.Param("id")
	if sure := c.FormValue("sure"); len(id) < 4 || sure != id[:4] {
		return s.problem(c, api.BadRequest(errors.New("delete a dead letter: the first four letters of its id were not given")))
	}
	n, err := s.Sources.Dead.Delete(c.Request().Context(), api.DriveRequest{IDs: []string{id}})
	if err != nil {
		return s.problem(c, err)
	}
	return c.Redirect(http.StatusSeeOther, "/ui/health?deleted="+strconv.Itoa(n)+"#dead")
}

// age writes a time in the unit that fits it.
func age(d time.Duration) string {
	switch {
	case d <= 0:
		return "none"
	case d < time.Second:
		return "under a second"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + " days"
}

func rate(v float64) string {
	if v > 0 && v < 10 {
		return strconv.FormatFloat(v, 'f', 1, 64) + "/s"
	}
	return number(v) + "/s"
}

func percent(v float64) string {
	if v > 0 && v < 0.001 {
		return "under 0.1 %"
	}
	return strconv.FormatFloat(100*v, 'f', 1, 64) + " %"
}

// size writes bytes in the unit that fits them.
func size(n int64) string {
	v, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, u
	}
	return strconv.FormatFloat(v, 'g', 4, 64) + " " + unit
}
