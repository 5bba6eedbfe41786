package dashboards

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/dashboards/api"
)

// itself is what an alert is about that is about no model.
const itself = "Pellucid itself"

// pageOfAlerts is how many past alerts stand on one page.
const pageOfAlerts = 50

type alertsPage struct {
	frame
	Rules int
	// Now is what rules say at this moment, what fires first.
	Now []alertRow
	// The rest is the history and the form that narrows it.
	Models, States      []string
	Query               api.AlertQuery
	From, To            string
	Problem             string
	Past                []pastRow
	Filtered, Paged     bool
	NewestURL, OlderURL string
	Lanes               []lane
	Ticks               []string
	// reached is how far rules have been evaluated, in event time.
	reached time.Time
	// upTo is that of each rule that has an alert now.
	upTo map[string]time.Time
}

// alertRow is one alert as it stands now.
type alertRow struct {
	State                           alerts.State
	Rule, Severity, Model, ModelURL string
	Summary                         string
	Since                           time.Time
	Held                            string
	Samples                         []string
}

// pastRow is one alert of the history.
type pastRow struct {
	api.PastAlert
	ModelURL, Lasted, What, Last string
}

// lane is one rule's line of the timeline.
type lane struct {
	Rule string
	Bars []bar
}

// bar is one alert on its lane; X and W are in thousandths of the whole.
type bar struct {
	X, W         int
	State, Title string
}

func (s *server) alerts(c echo.Context) error {
	page := alertsPage{
		frame: s.frame(c, "Alerts", "alerts"), Rules: s.Rules(), From: c.QueryParam("from"), To: c.QueryParam("to"),
		States: []string{string(alerts.Firing), string(alerts.Resolved)},
	}
	now := s.Sources.Alerts()
	page.upTo = map[string]time.Time{}
	for i := range now {
		page.Now = append(page.Now, rowOf(&now[i]))
		page.upTo[now[i].Rule] = now[i].UpdatedAt
		if now[i].UpdatedAt.After(page.reached) {
			page.reached = now[i].UpdatedAt
		}
	}
	order := []alerts.State{alerts.Firing, alerts.Pending, alerts.Silenced, alerts.Resolved}
	slices.SortStableFunc(page.Now, func(a, b alertRow) int {
		return cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State))
	})
	for _, v := range s.Sources.Models() {
		if !slices.Contains(page.Models, v.Name) {
			page.Models = append(page.Models, v.Name)
		}
	}
	status := http.StatusOK
	if err := s.history(c, &page); err != nil {
		status, page.Problem = api.StatusOf(err), err.Error()
	}
	return s.render(c, status, "alerts", page)
}

// ruleRow is one rule as the page lists it.
type ruleRow struct {
	api.Rule
	ModelURL, HistoryURL string
}

func (s *server) rules(c echo.Context) error {
	page := struct {
		frame
		Rules []ruleRow
	}{frame: s.frame(c, "Alert rules", "alerts")}
	for _, r := range s.Sources.Rules() {
		row := ruleRow{Rule: r, ModelURL: modelURL(r.Model, "", time.Time{}, time.Time{})}
		row.HistoryURL = "/ui/alerts?" + url.Values{"rule": {r.Name}}.Encode() + "#history"
		row.Model = cmp.Or(r.Model, itself)
		page.Rules = append(page.Rules, row)
	}
	return s.render(c, http.StatusOK, "rules", page)
}

// history fills in what fired and what became of it.
func (s *server) history(c echo.Context, page *alertsPage) error {
	q, err := api.ParseAlertQuery(c)
	q.Limit = min(q.Limit, pageOfAlerts)
	page.Query, page.Paged = q, q.Cursor != ""
	page.Filtered = q.Model != "" || q.State != "" || q.Rule != "" || page.From != "" || page.To != ""
	if err != nil {
		return err
	}
	found, err := s.Sources.PastAlerts(c.Request().Context(), q)
	if err != nil {
		return err
	}
	page.OlderURL, page.NewestURL = older(c.Request().URL, found.Next), newest(c.Request().URL)
	for i := range found.Alerts {
		now, ok := page.upTo[found.Alerts[i].Rule]
		if !ok {
			now = page.reached
		}
		page.Past = append(page.Past, pastOf(&found.Alerts[i], now))
	}
	page.timeline(found.Alerts)
	return nil
}

// older leads to the next page of a listing; "" where there is none.
func older(here *url.URL, cursor string) string {
	if cursor == "" {
		return ""
	}
	q := here.Query()
	q.Set("cursor", cursor)
	return here.Path + "?" + q.Encode()
}

// newest leads back to the first page of a listing.
func newest(here *url.URL) string {
	q := here.Query()
	q.Del("cursor")
	return here.Path + "?" + q.Encode()
}

// rowOf shows an alert; its model link opens the very window it is about.
func rowOf(a *alerts.Alert) alertRow {
	feature := ""
	if len(a.Findings) > 0 {
		feature = a.Findings[0].Feature
	}
	text := saying(a.Annotations["summary"], a.Annotations["features"])
	r := alertRow{
		State: a.State, Rule: a.Rule, Severity: a.Severity, Model: cmp.Or(a.Model, itself),
		ModelURL: modelURL(a.Model, feature, a.From, a.To), Summary: text, Since: a.StartsAt, Samples: a.Samples,
	}
	end := a.EndsAt
	if end.IsZero() {
		end = a.UpdatedAt
	}
	r.Held = lasted(a.StartsAt, end)
	return r
}

// pastOf shows an alert of the history; now is how far its rule has been evaluated.
func pastOf(a *api.PastAlert, now time.Time) pastRow {
	name, _, _ := strings.Cut(a.Features, "=")
	if a.Kind != string(alerts.KindDrift) {
		name = "" // a metric, which is no feature of the model
	}
	r := pastRow{PastAlert: *a, ModelURL: modelURL(a.Model, name, a.From, a.To), What: saying(a.Summary, a.Features)}
	r.Model = cmp.Or(a.Model, itself)
	if a.LastFeatures != a.Features {
		r.Last = a.LastFeatures
	}
	switch {
	case !a.EndsAt.IsZero():
		r.Lasted = lasted(a.StartsAt, a.EndsAt)
	case a.State == string(alerts.Firing):
		if d := lasted(a.StartsAt, now); d != "" {
			r.Lasted = d + " so far"
		}
	}
	return r
}

// saying adds the numbers at fault ("temp=3.1, dewp=1.5") to a summary that does
// not name them itself.
func saying(summary, features string) string {
	if summary == "" {
		return features
	}
	for part := range strings.SplitSeq(features, ", ") {
		if _, v, ok := strings.Cut(part, "="); ok && !strings.Contains(summary, v) {
			return summary + " (" + features + ")"
		}
	}
	return summary
}

// modelURL leads to a model's page of a window, with a feature's bins open.
func modelURL(model, feature string, from, to time.Time) string {
	if model == "" { // an alert about the server itself
		return "/ui/health"
	}
	q := url.Values{}
	if !from.IsZero() && !to.IsZero() {
		q.Set("from", stamp(from))
		q.Set("to", stamp(to))
	}
	if feature != "" {
		q.Set("feature", feature)
	}
	u := "/ui/models/" + url.PathEscape(model)
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	return u
}

// lasted writes how long something held, in its two largest units; "" where one
// of the ends is not known.
func lasted(from, to time.Time) string {
	if from.IsZero() || to.IsZero() || to.Before(from) {
		return ""
	}
	minutes := int(to.Sub(from) / time.Minute)
	parts := []struct {
		n    int
		unit string
	}{{minutes / (24 * 60), " d"}, {minutes / 60 % 24, " h"}, {minutes % 60, " min"}}
	var out []string
	for _, p := range parts {
		if p.n > 0 {
			out = append(out, strconv.Itoa(p.n)+p.unit)
		}
	}
	if len(out) == 0 {
		return "under a minute"
	}
	return strings.Join(out[:min(len(out), 2)], " ")
}

// timeline puts the alerts of the page on one line a rule.
func (p *alertsPage) timeline(list []api.PastAlert) {
	from, to := p.Query.From, p.Query.To
	if to.IsZero() {
		to = p.reached
	}
	for i := range list {
		a := &list[i]
		if !a.StartsAt.IsZero() && p.Query.From.IsZero() && (from.IsZero() || a.StartsAt.Before(from)) {
			from = a.StartsAt
		}
		for _, t := range []time.Time{a.StartsAt, a.EndsAt} {
			if p.Query.To.IsZero() && t.After(to) {
				to = t
			}
		}
	}
	if from.IsZero() || !from.Before(to) {
		return
	}
	at := map[string]int{}
	for i := range list {
		a := &list[i]
		k, ok := at[a.Rule]
		if !ok {
			k = len(p.Lanes)
			at[a.Rule] = k
			p.Lanes = append(p.Lanes, lane{Rule: a.Rule})
		}
		if b, ok := barOf(a, from, to); ok {
			p.Lanes[k].Bars = append(p.Lanes[k].Bars, b)
		}
	}
	slices.SortFunc(p.Lanes, func(a, b lane) int { return cmp.Compare(a.Rule, b.Rule) })
	p.Ticks = ticks(from, to)
}

func barOf(a *api.PastAlert, from, to time.Time) (bar, bool) {
	start, end := a.StartsAt, a.EndsAt
	if start.IsZero() || start.Before(from) {
		start = from
	}
	if end.IsZero() || end.After(to) {
		end = to
	}
	if !start.Before(to) || end.Before(start) {
		return bar{}, false
	}
	place := func(t time.Time) int { return int(1000 * t.Sub(from).Seconds() / to.Sub(from).Seconds()) }
	b := bar{X: min(place(start), 996), State: a.State}
	b.W = max(4, place(end)-b.X)
	ended := "not resolved"
	if !a.EndsAt.IsZero() {
		ended = when(a.EndsAt)
	}
	b.Title = a.Rule + ": " + when(a.StartsAt) + " to " + ended
	return b, true
}

// ticks are the dates under the timeline, evenly apart.
func ticks(from, to time.Time) []string {
	const parts = 4
	layout := time.DateOnly
	if to.Sub(from) < parts*24*time.Hour {
		layout = "01-02 15:04"
	}
	var out []string
	for i := range parts + 1 {
		out = append(out, from.Add(to.Sub(from)/parts*time.Duration(i)).UTC().Format(layout))
	}
	return out
}
