package pages_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

const explainButton = `form[hx-post] button`

// explain clicks the button and waits for the answer, which htmx puts in place.
func explain(t *testing.T, b *browser) {
	t.Helper()
	b.do(t, chromedp.Click(chromedp.CSS(explainButton)))
	b.until(t, `document.querySelector("#explanation svg") || document.querySelector("#explanation .bad")`)
	b.settle(t)
}

// aPrediction is the newest prediction of a model in July.
func aPrediction(t *testing.T, model string) string {
	t.Helper()
	return sql(t, "SELECT if(rows > 1, concat(id, '.', toString(row)), id) "+july.rows(model)+" ORDER BY time DESC, id DESC, row DESC LIMIT 1")
}

// aTraced is a prediction of July whose spans were sampled.
func aTraced(t *testing.T) string {
	t.Helper()
	return sql(t, "SELECT if(rows > 1, concat(id, '.', toString(row)), id) "+july.rows("flights_gbm")+" AND trace_id IN (SELECT TraceId FROM otel_traces) ORDER BY time DESC, id DESC, row DESC LIMIT 1")
}

// Every page, on a desk and on a phone, light and dark: nothing is written to the
// console, nobody else is asked, nothing is wider than the window.
func TestPagesInEveryLight(t *testing.T) {
	b := open(t, setting(t, "PELLUCID_URL"))
	one := "/ui/predictions/" + aPrediction(t, "flights_gbm")
	for _, page := range []struct{ name, path, shows string }{
		{"overview", "/ui/", `.card[data-model=flights_gbm]`},
		{"model", "/ui/models/flights_gbm?from=2013-04-01&to=2014-01-01&step=7d&feature=temp", `table.heat tr[data-feature=temp]`},
		{"network", "/ui/models/flights_mlp?from=2013-07-01&to=2013-08-01&step=1d", `.plot canvas`},
		{"predictions", "/ui/predictions?model=flights_mlp", `#rows tr[data-id]`},
		{"prediction", one, `#explanation`},
		{"traced", "/ui/predictions/" + aTraced(t), `table.trace rect`},
		{"explained", one, `#explanation svg`},
		{"report", one + "/report", `figure svg`},
		{"alerts", "/ui/alerts", `#past tr[data-past]`},
		{"rules", "/ui/rules", `#rules tr[data-rule=PellucidLagging]`},
		{"one point", "/ui/models/flights_gbm?from=2013-07-01&to=2013-07-02&step=1d", `.plot canvas`},
		{"health", "/ui/health", `#spool [data-figure=lag]`},
		{"problem", "/ui/predictions/nothing", `[role=alert]`},
	} {
		for _, width := range []int64{1440, 390} {
			grounds := map[string]string{}
			for _, scheme := range []string{"light", "dark"} {
				where := fmt.Sprintf("%s at %d, %s", page.name, width, scheme)
				b.as(t, width, scheme)
				b.look(t, page.path)
				if page.name == "explained" {
					explain(t, b)
				}
				for _, c := range b.heard() {
					if page.name == "problem" && strings.Contains(c, "404") {
						continue // the page itself, which Chromium counts as a failed load
					}
					t.Errorf("%s: %s", where, c)
				}
				if !eval[bool](t, b, fmt.Sprintf("Boolean(document.querySelector(%q))", page.shows)) {
					t.Errorf("%s does not show %s", where, page.shows)
				}
				if wide := eval[int64](t, b, "document.documentElement.scrollWidth"); wide > width {
					t.Errorf("%s is %d pixels wide", where, wide)
				}
				grounds[scheme] = eval[string](t, b, "getComputedStyle(document.body).backgroundColor")
				keep(t, b, fmt.Sprintf("%s-%d-%s", page.name, width, scheme))
			}
			if grounds["light"] == grounds["dark"] {
				t.Errorf("%s at %d is as light in the dark: %s", page.name, width, grounds["dark"])
			}
		}
	}
	if b.requests == 0 {
		t.Error("no request was seen: the watch is blind")
	}
}

// TestOnePointIsShown: a chart of one point has it in the middle, and room for half a date
// beyond the last.
func TestOnePointIsShown(t *testing.T) {
	b := open(t, setting(t, "PELLUCID_URL"))
	for _, width := range []int64{1440, 390} {
		b.as(t, width, "light")
		b.look(t, "/ui/models/flights_gbm?from=2013-07-01&to=2013-07-02&step=1d")
		const js = `[...document.querySelectorAll(".plot")].map(n => n._plot).filter(p => {
			const wide = p.bbox.width / devicePixelRatio, right = p.width - p.bbox.left / devicePixelRatio - wide;
			return p.data[0].length !== 1 || Math.abs(p.valToPos(p.data[0][0], "x") - wide / 2) > 2 || right < 35;
		}).length`
		if n := eval[int](t, b, `document.querySelectorAll(".plot").length`); n < 3 {
			t.Errorf("at %d there are %d charts", width, n)
		}
		if n := eval[int](t, b, js); n > 0 {
			t.Errorf("at %d %d charts do not show their one point", width, n)
		}
	}
}

// keep writes a picture of the page where PAGES_PICTURES names a folder.
func keep(t *testing.T, b *browser, name string) {
	t.Helper()
	dir := os.Getenv("PAGES_PICTURES")
	if dir == "" {
		return
	}
	png := ask(t, b, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The watch itself: a page that does all that is forbidden is caught at each.
func TestTheWatchSees(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/policy":
			w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'")
			fmt.Fprint(w, `<!doctype html><link rel=icon href="data:,"><script>document.title = "ran"</script>`)
		case "/bad":
			fmt.Fprintf(w, `<!doctype html><link rel=icon href="data:,"><div style="width:3000px">wide</div><img src="%s/pixel"><img src="/gone">
<script>console.error("spoken"); setTimeout(() => { throw new Error("thrown"); })</script>`, other.URL)
		default:
			http.NotFound(w, r)
		}
	}))
	defer bad.Close()
	b := open(t, bad.URL)
	b.as(t, 390, "dark")
	b.look(t, "/bad")
	b.until(t, "[...document.images].every(i => i.complete)")
	wide := eval[int64](t, b, "document.documentElement.scrollWidth")
	b.look(t, "/policy")
	all := strings.Join(b.heard(), "\n")
	for _, want := range []string{"asks another server: " + other.URL + "/pixel", "spoken", "thrown", "404", "Content Security Policy"} {
		if !strings.Contains(all, want) {
			t.Errorf("the watch missed %q; it heard\n%s", want, all)
		}
	}
	if wide <= 390 {
		t.Errorf("a page of 3000 pixels counts as %d", wide)
	}
}
