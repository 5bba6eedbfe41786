package pages_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// july is the fixed window; 2013 is the demo's year.
var july = span{"2013-07-01", "2013-08-01"}

// line is one number of the table: on the page, and by SQL.
type line struct {
	page, number string
	shown        string // as people read it
	value, want  float64
	// lower and upper bound what the page may say where it need not be want.
	lower, upper float64
}

// shown reads a figure of the page: its text, and the number behind it.
func shown(t *testing.T, b *browser, selector string) (string, float64) {
	t.Helper()
	got := eval[[]string](t, b, fmt.Sprintf(`(n => n ? [n.textContent, n.dataset.value || n.textContent] : [])(document.querySelector(%q))`, selector))
	if len(got) != 2 {
		t.Fatalf("%s shows no %s", eval[string](t, b, "location.href"), selector)
	}
	v, err := strconv.ParseFloat(strings.ReplaceAll(got[1], "\u202f", ""), 64)
	if err != nil {
		t.Fatalf("%s is %q", selector, got)
	}
	return strings.TrimSpace(got[0]), v
}

// The numbers of July on the pages, as a browser shows them, against direct SQL
// over the stored rows, labels and events.
func TestNumbersAgainstSQL(t *testing.T) {
	b := open(t, setting(t, "PELLUCID_URL"))
	b.as(t, 1440, "light")
	var table []line
	exact := func(page, name, selector string, want float64) {
		text, v := shown(t, b, selector)
		table = append(table, line{page, name, text, v, want, want, want})
	}
	features := map[string][]string{"flights_gbm": {"temp", "wind_gust", "carrier"}, "flights_mlp": {"temp", "humid", "prediction"}}
	for _, model := range []string{"flights_gbm", "flights_mlp"} {
		page := "model " + model
		b.look(t, "/ui/models/"+model+"?from="+july.from+"&to="+july.to+"&step=1d")
		exact(page, "rows", `[data-figure=rows]`, rowsBySQL(t, model, july))
		table = append(table, p99Line(t, b, page, model))
		for _, f := range features[model] {
			exact(page, "PSI of "+f, `tr[data-feature=`+f+`] [data-figure=psi]`, psiBySQL(t, model, f, july))
		}
		exact(page, "AUC of July", `[data-figure=auc]`, aucBySQL(t, model, july))
		b.look(t, "/ui/predictions?model="+model+"&from="+july.from+"&to="+july.to)
		exact("predictions", "rows of "+model, `[data-figure=count]`, rowsBySQL(t, model, july))
		b.look(t, "/ui/")
		week, until := lastWeek(t, model)
		if !strings.Contains(eval[string](t, b, `document.querySelector("[data-model=`+model+`]").textContent`), until) {
			t.Errorf("the overview does not sum up the week to %s", until)
		}
		exact("overview", "rows of "+model+", last week", `[data-model=`+model+`] [data-figure=rows]`, week)
	}
	b.look(t, "/ui/alerts")
	exact("every page", "firing alerts", "#firing", firingBySQL(t))
	table = append(table, counted(t, b, "alerts", "firing now", `#now tr[data-state=firing]`, firingBySQL(t)))
	table = append(table, counted(t, b, "alerts", "firing in history", `#past tr[data-state=firing]`, firingBySQL(t)))
	b.look(t, "/ui/alerts?from="+july.from+"&to="+july.to)
	table = append(table, counted(t, b, "alerts", "alerts of July", `#past tr[data-past]`, firedBySQL(t, july)))
	quiet(t, b)
	report(t, table)
}

// The AUC of every month that was replayed: on the page, by SQL, and as
// scikit-learn gave it when the demo's data was made, for the models' own
// libraries' scores (which ours match to float32).
func TestAUCOfEveryMonth(t *testing.T) {
	data, err := os.ReadFile(filepath.FromSlash("../../cmd/pellucid/demo/data/expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var expected struct {
		Months []struct {
			From, To time.Time
			AUC      map[string]float64
		}
	}
	if err := json.Unmarshal(data, &expected); err != nil || len(expected.Months) != 9 {
		t.Fatalf("%d months, %v", len(expected.Months), err)
	}
	b := open(t, setting(t, "PELLUCID_URL"))
	b.as(t, 1440, "light")
	var table []line
	for _, m := range expected.Months {
		month := span{m.From.Format(time.DateOnly), m.To.Format(time.DateOnly)}
		for _, model := range []string{"flights_gbm", "flights_mlp"} {
			b.look(t, "/ui/models/"+model+"?from="+month.from+"&to="+month.to+"&step=7d")
			text, v := shown(t, b, `[data-figure=auc]`)
			want := aucBySQL(t, model, month)
			table = append(table, line{"model " + model, "AUC of " + m.From.Format("2006-01"), text, v, want, want, want})
			if math.Abs(v-m.AUC[model]) > 1e-6 {
				t.Errorf("%s, %s: AUC %v, scikit-learn %v", model, month.from, v, m.AUC[model])
			}
		}
	}
	quiet(t, b)
	report(t, table)
}

// p99Line bounds the page's p99 by the exact quantiles at 0.9895 and 0.9905 of the
// stored latencies: the page's comes of t-digests of minutes, merged. At 0.99 one
// of ClickHouse's centroids stands for 4 q (1-q) / 100 = 0.0004 of the rows at
// most, and a digest answers from between two.
func p99Line(t *testing.T, b *browser, page, model string) line {
	t.Helper()
	text, v := shown(t, b, `[data-figure=p99]`)
	want, lower, upper := p99BySQL(t, model, july)
	return line{page, "p99 latency, ms", text, v, want, lower, upper}
}

func counted(t *testing.T, b *browser, page, name, selector string, want float64) line {
	t.Helper()
	n := eval[float64](t, b, fmt.Sprintf("document.querySelectorAll(%q).length", selector))
	return line{page, name, strconv.FormatFloat(n, 'g', -1, 64) + " rows", n, want, want, want}
}

// report prints the table and fails where the two sides differ by more than the
// rounding of sums.
func report(t *testing.T, table []line) {
	t.Helper()
	const rounding = 1e-9
	fmt.Printf("\n%-18s %-30s %-12s %-22s %s\n", "page", "number", "shown", "on the page", "by SQL")
	for _, l := range table {
		by := strconv.FormatFloat(l.want, 'g', -1, 64)
		if l.lower != l.upper {
			by += fmt.Sprintf(" (%.6g to %.6g)", l.lower, l.upper)
		}
		fmt.Printf("%-18s %-30s %-12s %-22s %s\n", l.page, l.number, l.shown, strconv.FormatFloat(l.value, 'g', -1, 64), by)
		slack := rounding * math.Max(1, math.Abs(l.want))
		if math.IsNaN(l.want) || l.want == 0 || l.value < l.lower-slack || l.value > l.upper+slack {
			t.Errorf("%s, %s: %v on the page, %s by SQL", l.page, l.number, l.value, by)
		}
		if !rounds(l.shown, l.value) {
			t.Errorf("%s, %s: %q is shown for %v", l.page, l.number, l.shown, l.value)
		}
	}
}

// rounds says that a text is its number, rounded to the digits shown and in the
// unit shown (milliseconds are the unit of latencies).
func rounds(text string, v float64) bool {
	digits, unit, _ := strings.Cut(strings.ReplaceAll(text, "\u202f", ""), " ")
	scale := map[string]float64{"": 1, "rows": 1, "ms": 1, "µs": 1e-3, "s": 1e3}[unit]
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || scale == 0 {
		return false
	}
	half := 0.5
	if _, frac, ok := strings.Cut(digits, "."); ok {
		half *= math.Pow(10, -float64(len(frac)))
	}
	return math.Abs(n-v/scale) <= half*(1+1e-9)
}
