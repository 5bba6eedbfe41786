package dashboards

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/alerts"
)

// alertGroup is the alerts of one state.
type alertGroup struct {
	Name   alerts.State
	Alerts []alertRow
}

type alertRow struct {
	State                           alerts.State
	Rule, Severity, Model, ModelURL string
	Summary                         string
	Since, Until                    time.Time
	Samples                         []string
}

func (s *server) alerts(c echo.Context) error {
	page := struct {
		frame
		Groups []alertGroup
		Rules  int
	}{frame: s.frame(c, "Alerts", "alerts"), Rules: s.Rules()}
	by := map[alerts.State][]alertRow{}
	for _, a := range s.Sources.Alerts() {
		by[a.State] = append(by[a.State], rowOf(&a))
	}
	for _, state := range []alerts.State{alerts.Firing, alerts.Pending, alerts.Silenced, alerts.Resolved} {
		if len(by[state]) > 0 {
			page.Groups = append(page.Groups, alertGroup{state, by[state]})
		}
	}
	return s.render(c, http.StatusOK, "alerts", page)
}

// rowOf shows an alert; its model link opens the very window it is about.
func rowOf(a *alerts.Alert) alertRow {
	q := url.Values{"from": {stamp(a.From)}, "to": {stamp(a.To)}}
	if len(a.Findings) > 0 && a.Findings[0].Feature != "" {
		q.Set("feature", a.Findings[0].Feature)
	}
	text := a.Annotations["summary"]
	if f := a.Annotations["features"]; !strings.Contains(text, f) {
		text += " (" + f + ")"
	}
	return alertRow{
		State: a.State, Rule: a.Rule, Severity: a.Severity, Model: a.Model,
		ModelURL: "/ui/models/" + url.PathEscape(a.Model) + "?" + q.Encode(),
		Summary:  text, Since: a.StartsAt, Until: a.EndsAt, Samples: a.Samples,
	}
}
