package pages_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// setting is a setting of the run, which .ci/pages makes.
func setting(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("%s is not set: this test looks at a running demo; .ci/pages BINARY starts one and runs it", name)
	}
	return v
}

func sql(t *testing.T, query string) string {
	t.Helper()
	u := "http://" + setting(t, "CLICKHOUSE_HTTP") + "/?" + url.Values{"database": {setting(t, "CLICKHOUSE_DATABASE")}}.Encode()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u, strings.NewReader(query))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(setting(t, "CLICKHOUSE_USER"), setting(t, "CLICKHOUSE_PASSWORD"))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK || bytes.Contains(body, []byte("DB::Exception")) {
		t.Fatalf("%s\n%s %s (%v)", query, answer.Status, body, err)
	}
	return strings.TrimSpace(string(body))
}

// numbers asks for one row of numbers.
func numbers(t *testing.T, query string) []float64 {
	t.Helper()
	var out []float64
	for _, s := range strings.Fields(sql(t, query)) {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatalf("%s\nanswered %q", query, s)
		}
		out = append(out, v)
	}
	return out
}

func number(t *testing.T, query string) float64 {
	t.Helper()
	n := numbers(t, query)
	if len(n) != 1 {
		t.Fatalf("%s\nanswered %v", query, n)
	}
	return n[0]
}

// span is a stretch of event time.
type span struct{ from, to string }

func (s span) of(column string) string {
	return fmt.Sprintf("%s >= '%s 00:00:00' AND %s < '%s 00:00:00'", column, s.from, column, s.to)
}

// rows are the predictions of a model in a span; explained rows are none.
func (s span) rows(model string) string {
	return "FROM predictions FINAL WHERE model = '" + model + "' AND route != 'explain' AND " + s.of("time")
}

func rowsBySQL(t *testing.T, model string, s span) float64 {
	t.Helper()
	return number(t, "SELECT count() "+s.rows(model))
}

// p99BySQL returns the exact quantiles of stored latencies at 0.99, and at half a
// thousandth less and more, in milliseconds.
func p99BySQL(t *testing.T, model string, s span) (exact, lower, upper float64) {
	t.Helper()
	q := numbers(t, "SELECT arrayJoin(quantilesExact(0.99, 0.9895, 0.9905)(total_ns)) / 1e6 "+s.rows(model)+" AND row = 0")
	return q[0], q[1], q[2]
}

// aucBySQL is the Mann-Whitney form of the area: how often a late flight has the
// higher score, ties counting half.
func aucBySQL(t *testing.T, model string, s span) float64 {
	t.Helper()
	return number(t, `WITH
 labels AS (SELECT external_id, argMax(label, (received_at, position)) = 'late' AS late FROM feedback FINAL WHERE external_id != '' GROUP BY external_id),
 scored AS (SELECT score, late FROM (SELECT score, external_id `+s.rows(model)+` AND status < 400) AS p INNER JOIN labels USING external_id),
 steps AS (SELECT score, countIf(late) AS yes, countIf(NOT late) AS no FROM scored GROUP BY score),
 below AS (SELECT yes, no, sum(no) OVER (ORDER BY score ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) - no AS lower FROM steps)
SELECT sum(yes * (lower + no / 2)) / (sum(yes) * sum(no)) FROM below`)
}

// reference is as much of a version's stored bins as PSI needs.
type reference struct {
	ID     string `json:"id"`
	Fields []struct {
		Name       string    `json:"name"`
		Kind       string    `json:"kind"`
		Edges      []float64 `json:"edges"`
		Coarse     []int     `json:"coarse"`
		Categories []string  `json:"categories"`
	} `json:"fields"`
	Counts []map[string]float64 `json:"counts"`
}

// storedReference finds the reference that a model's rows were binned by.
func storedReference(t *testing.T, model string) reference {
	t.Helper()
	digest := sql(t, "SELECT any(digest) FROM predictions WHERE model = '"+model+"'")
	data, err := os.ReadFile(filepath.Join(setting(t, "PELLUCID_DATA"), "models", digest, ".reference.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Reference reference `json:"reference"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	if ids := sql(t, "SELECT groupUniqArray(bins_id) FROM predictions WHERE model = '"+model+"'"); ids != "['"+doc.Reference.ID+"']" {
		t.Fatalf("the rows of %s were binned by %s, the reference on disk is %s", model, ids, doc.Reference.ID)
	}
	return doc.Reference
}

const missing = "65535"

// psiBySQL bins the raw stored values (not the bins that were computed when they
// were stored, nor the rollup) and sums (r - c) ln(r / c) over the bins' shares,
// none less than 1e-4.
func psiBySQL(t *testing.T, model, feature string, s span) float64 {
	t.Helper()
	ref := storedReference(t, model)
	at := -1
	for i := range ref.Fields {
		if ref.Fields[i].Name == feature {
			at = i
		}
	}
	if at < 0 {
		t.Fatalf("%s has no feature %s", model, feature)
	}
	f, counts := ref.Fields[at], ref.Counts[at]
	value := "toFloat64(f32[indexOf((SELECT arrayMap(x -> JSONExtractString(x, 'name'), JSONExtractArrayRaw(doc, 'features')) FROM schemas WHERE id = schema_id), '" + feature + "')])"
	if feature == "prediction" {
		value = "score"
	}
	value = strings.ReplaceAll(value, "schema_id", "'"+sql(t, "SELECT any(schema_id) FROM predictions WHERE model = '"+model+"'")+"'")
	var bin string
	var shares []float64
	if f.Kind == "numeric" {
		edges := make([]string, len(f.Coarse))
		shares = make([]float64, len(f.Coarse)+2)
		for i, c := range f.Coarse {
			edges[i] = strconv.FormatFloat(f.Edges[c], 'g', -1, 64)
		}
		for name, n := range counts {
			shares[coarse(t, name, f.Coarse)] += n
		}
		bin = fmt.Sprintf("if(isNaN(x), %d, arrayCount(e -> e < x, [%s]))", len(edges)+1, strings.Join(edges, ", "))
	} else {
		shares = make([]float64, len(f.Categories)+2) // then missing and unseen
		for name, n := range counts {
			if name == missing {
				shares[len(f.Categories)] += n
				continue
			}
			i, err := strconv.Atoi(name)
			if err != nil {
				t.Fatal(err)
			}
			shares[i] += n
		}
		bin = fmt.Sprintf("multiIf(isNaN(x), %d, has(['%s'], toString(x)), indexOf(['%[2]s'], toString(x)) - 1, %d)",
			len(f.Categories), strings.Join(f.Categories, "', '"), len(f.Categories)+1)
	}
	list := strings.Join(strings.Fields(fmt.Sprint(shares)), ", ")
	return number(t, fmt.Sprintf(`WITH %s AS ref, (SELECT sumForEach(arrayMap(i -> toFloat64(i = bin), range(%d))) FROM
 (SELECT %s AS x, %s AS bin %s)) AS cur
SELECT arraySum((n, m) -> (greatest(n / arraySum(ref), 1e-4) - greatest(m / arraySum(cur), 1e-4)) * log(greatest(n / arraySum(ref), 1e-4) / greatest(m / arraySum(cur), 1e-4)), ref, cur)`,
		list, len(shares), value, bin, s.rows(model)))
}

// coarse is the place of a fine bin among the coarse ones; missing comes last.
func coarse(t *testing.T, bin string, edges []int) int {
	t.Helper()
	if bin == missing {
		return len(edges) + 1
	}
	b, err := strconv.Atoi(bin)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range edges {
		if e < b {
			n++
		}
	}
	return n
}

// firingBySQL counts the alerts whose newest event says that they fire.
func firingBySQL(t *testing.T) float64 {
	t.Helper()
	return number(t, "SELECT countIf(state = 'firing') FROM (SELECT argMax(state, (time, state)) AS state FROM alert_events FINAL GROUP BY fingerprint)")
}

// firedBySQL counts the alerts that were firing at some time of the span: each
// beginning is joined to the first end after it.
func firedBySQL(t *testing.T, s span) float64 {
	t.Helper()
	return number(t, `SELECT count() FROM (SELECT fingerprint, time FROM alert_events FINAL WHERE state = 'firing') AS f
ASOF LEFT JOIN (SELECT fingerprint, time FROM alert_events FINAL WHERE state = 'resolved') AS r ON f.fingerprint = r.fingerprint AND f.time < r.time
WHERE f.time < '`+s.to+` 00:00:00' AND (toUnixTimestamp(r.time) = 0 OR r.time > '`+s.from+` 00:00:00')`)
}

// lastWeek is the week that the overview sums up: to the end of the minute of a
// model's newest prediction.
func lastWeek(t *testing.T, model string) (rows float64, until string) {
	t.Helper()
	end := sql(t, "SELECT toStartOfMinute(max(time)) + INTERVAL 1 MINUTE FROM predictions WHERE model = '"+model+"'")
	if _, err := time.Parse(time.DateTime, end); err != nil {
		t.Fatal(err)
	}
	return number(t, "SELECT count() FROM predictions FINAL WHERE model = '"+model+"' AND time >= toDateTime('"+end+"', 'UTC') - INTERVAL 7 DAY AND time < toDateTime('"+end+"', 'UTC')"), end
}
