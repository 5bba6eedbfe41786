package pages_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

const listed = `[...document.querySelectorAll("#rows tr[data-id]")].map(r => r.dataset.id)`

// follow clicks a link and waits for the page it leads to.
func follow(t *testing.T, b *browser, selector string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		t.Fatalf("follow %s: %v", selector, err)
	}
	b.settle(t)
}

func quiet(t *testing.T, b *browser) {
	t.Helper()
	for _, c := range b.heard() {
		t.Error(c)
	}
}

// The button brings an explanation that adds up, with its certificate, on both
// models and by every method that a model has.
func TestExplainButton(t *testing.T) {
	b := open(t, setting(t, "PELLUCID_URL"))
	b.as(t, 1440, "light")
	for model, features := range map[string]int{"flights_gbm": 15, "flights_mlp": 10} {
		id := aPrediction(t, model)
		b.look(t, "/ui/predictions/"+id)
		before := eval[string](t, b, "location.href")
		explain(t, b)
		if after := eval[string](t, b, "location.href"); after != before {
			t.Errorf("explaining left the page for %s", after)
		}
		b.do(t, chromedp.Click(chromedp.CSS("#explanation summary")))
		text := eval[string](t, b, `document.querySelector("#explanation").innerText`)
		digest := sql(t, "SELECT any(digest) FROM predictions WHERE model = '"+model+"'")
		for _, want := range []string{"completeness residual", "error estimate", "model digest", digest, "base + sum of phi misses"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: the explanation lacks %q:\n%s", model, want, text)
			}
		}
		if n := eval[int](t, b, `document.querySelectorAll("#explanation tbody tr").length`); n != features {
			t.Errorf("%s: %d features are explained, want %d", model, n, features)
		}
		if phi := addsUp(t, b); phi > 1e-3 {
			t.Errorf("%s: base and effects miss the prediction by %v", model, phi)
		}
		for _, method := range eval[[]string](t, b, `[...document.querySelectorAll("select[name=method] option")].map(o => o.value)`) {
			b.do(t, chromedp.SetValue(chromedp.CSS("select[name=method]"), method), chromedp.Evaluate[chromedp.Void](`document.querySelector("#explanation").textContent = ""`))
			explain(t, b)
			if bad := eval[string](t, b, `(n => n ? n.textContent : "")(document.querySelector("#explanation .bad"))`); bad != "" {
				t.Errorf("%s by %q: %s", model, method, bad)
			}
		}
	}
	quiet(t, b)
}

// Without script the same form posts, and the page comes back with the
// explanation in it.
func TestExplainWithoutScript(t *testing.T) {
	b := open(t, setting(t, "PELLUCID_URL"))
	b.as(t, 390, "light")
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.do(t, chromedp.Navigate(b.origin+"/ui/predictions/"+aPrediction(t, "flights_gbm")))
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	answer, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(explainButton)))
	if err != nil || answer.Status != http.StatusOK || !strings.HasSuffix(answer.URL, "/explain") {
		t.Fatalf("the form answered %+v, %v", answer, err)
	}
	if n := eval[int](t, b, `document.querySelectorAll("#explanation tbody tr").length`); n != 15 {
		t.Errorf("%d features are explained", n)
	}
	quiet(t, b)
}

// addsUp is by how much base and effects, as they are written, miss the
// prediction; they are written to five digits after the point.
func addsUp(t *testing.T, b *browser) float64 {
	t.Helper()
	return eval[float64](t, b, `(() => {
  const words = document.querySelector("#explanation figcaption").textContent.match(/base (\S+), prediction (\S+) /);
  const phi = [...document.querySelectorAll("#explanation tbody tr")].map(r => Number(r.lastElementChild.textContent));
  return Math.abs(Number(words[1]) + phi.reduce((a, b) => a + b, 0) - Number(words[2]));
})()`)
}

// The search narrows to what SQL counts, its pages follow one another without a
// row lost or shown twice, and a mistake is told.
func TestSearchAndPages(t *testing.T) {
	b := open(t, setting(t, "PELLUCID_URL"))
	b.as(t, 1440, "light")
	b.look(t, "/ui/predictions")
	b.do(t,
		chromedp.SetValue(chromedp.CSS("form.search select[name=model]"), "flights_gbm"),
		chromedp.SetValue(chromedp.CSS("input[name=from]"), july.from),
		chromedp.SetValue(chromedp.CSS("input[name=to]"), july.to),
		chromedp.SetValue(chromedp.CSS("input[name=where]"), "carrier = 'HA' and temp > 80"),
	)
	follow(t, b, "form.search button")
	const condition = " AND f32[1] = 8 AND f32[7] > 80"
	if code := sql(t, "SELECT arrayElement(JSONExtract(JSONExtractRaw(JSONExtractArrayRaw(doc, 'features')[1], 'categories'), 'Array(String)'), 9) FROM schemas WHERE doc LIKE '%carrier%'"); code != "HA" {
		t.Fatalf("the category of code 8 is %q: this test's SQL asks for another carrier", code)
	}
	want := number(t, "SELECT count() "+july.rows("flights_gbm")+condition)
	if _, n := shown(t, b, "[data-figure=count]"); n != want || n == 0 {
		t.Errorf("the search counts %v, SQL %v", n, want)
	}
	if n := len(eval[[]string](t, b, listed)); float64(n) != min(want, 50) {
		t.Errorf("%d rows are listed of %v", n, want)
	}

	b.look(t, "/ui/predictions?model=flights_mlp&from="+july.from+"&to="+july.to)
	var ids []string
	for page := range 3 {
		if page > 0 {
			follow(t, b, `a[href*="cursor="]`)
		}
		ids = append(ids, eval[[]string](t, b, listed)...)
	}
	inOrder := strings.Fields(sql(t, "SELECT if(rows > 1, concat(id, '.', toString(row)), id) "+july.rows("flights_mlp")+" ORDER BY time DESC, id DESC, row DESC LIMIT 150"))
	if fmt.Sprint(ids) != fmt.Sprint(inOrder) {
		t.Errorf("three pages list\n%v\nSQL\n%v", ids, inOrder)
	}
	quiet(t, b)

	b.look(t, "/ui/predictions?where="+url.QueryEscape("carrier = "))
	if text := eval[string](t, b, `(n => n ? n.textContent : "")(document.querySelector("[role=alert]"))`); text == "" {
		t.Error("a broken filter is not told")
	}
	b.heard() // the 400 of the page itself
	b.do(t, chromedp.SetValue(chromedp.CSS(`input[name=id]`), ids[0]))
	follow(t, b, `form[action="/ui/find"] button`)
	if where := eval[string](t, b, "location.pathname"); where != "/ui/predictions/"+ids[0] {
		t.Errorf("the id leads to %s", where)
	}
	quiet(t, b)
}

// An alert leads to the predictions behind it and to the window it is about; the
// filters narrow the history.
func TestFromAnAlertToItsRows(t *testing.T) {
	b := open(t, setting(t, "PELLUCID_URL"))
	b.as(t, 390, "dark")
	for _, table := range []string{"#now", "#past"} {
		b.look(t, "/ui/alerts")
		id := eval[string](t, b, `document.querySelector("`+table+` .samples a").title`)
		follow(t, b, table+" .samples a")
		if where := eval[string](t, b, "location.pathname"); where != "/ui/predictions/"+id {
			t.Errorf("the sample leads to %s, not to %s", where, id)
		}
		if n := eval[int](t, b, `document.querySelectorAll("section tbody tr").length`); n < 10 {
			t.Errorf("the sample shows %d features", n)
		}
	}
	b.look(t, "/ui/alerts?state=resolved&model=flights_gbm")
	rule := eval[string](t, b, `document.querySelector("#past tr[data-past]").dataset.past`)
	follow(t, b, "#past tr[data-past] a")
	if where := eval[string](t, b, "location.href"); !strings.Contains(where, "/ui/models/flights_gbm?") || !strings.Contains(where, "from=2013-") {
		t.Errorf("the alert %s leads to %s", rule, where)
	}
	if text, rows := shown(t, b, "[data-figure=rows]"); rows < 500 {
		t.Errorf("the window of %s has %s rows", rule, text)
	}
	for query, state := range map[string]string{"model=flights_mlp&state=resolved": "resolved", "state=firing": "firing"} {
		b.look(t, "/ui/alerts?"+query)
		rest := eval[int](t, b, fmt.Sprintf(`document.querySelectorAll('#past tr[data-past]:not([data-state=%s])').length`, state))
		if n := eval[int](t, b, `document.querySelectorAll("#past tr[data-past]").length`); n == 0 || rest != 0 {
			t.Errorf("%s lists %d alerts, %d of them of another state", query, n, rest)
		}
	}
	quiet(t, b)
}
