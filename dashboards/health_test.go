package dashboards

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
)

// TestHealthPages: what is wrong is said, names of others cannot break the page, and
// letters are driven and deleted only by a form of this site.
func TestHealthPages(t *testing.T) {
	letter := collector.DeadLetter{
		ID: "abcd0123", Insert: "predictions", Reason: "VIOLATED_CONSTRAINT", Detail: hostile, At: day(3), Tries: 2, Model: hostile, Record: hostile, Rows: 1,
	}
	var asked []string
	s := empty()
	s.Status = func(context.Context) api.Status {
		return api.Status{
			Store: hostile, StoreSince: day(30), Refused: true, Lag: 3 * time.Hour, LagLimit: 5 * time.Minute, Waiting: 12, Fill: 0.91, In: 1500, Out: 2.5,
			DiskBytes: 3 << 20, DeadLetters: 1, Lost: 4, Missing: 2, Dropped: api.EventsDropped{Unfit: 1200, Damaged: 1, Gone: 30}, DroppedRows: 1, Durability: "process", Losses: []string{"the folder " + hostile}, LossesFile: "folders.lost",
		}
	}
	s.Dead = &api.DeadLetters{
		List: func() []collector.DeadLetter { return []collector.DeadLetter{letter} },
		Get: func(context.Context, string) (api.DeadLetter, error) {
			return api.DeadLetter{DeadLetter: letter, Predictions: []collector.StoredPrediction{{ID: hostile, Features: map[string]any{hostile: hostile}}}}, nil
		},
		Drive: func(_ context.Context, r api.DriveRequest) (int, error) {
			asked = append(asked, strings.Join(r.IDs, ","))
			return 1, nil
		},
		Delete: func(context.Context, api.DriveRequest) (int, error) { asked = append(asked, "delete"); return 1, nil },
	}
	e := echo.New()
	if err := Register(e, Config{Sources: s, Rules: func() int { return 0 }, Methods: func(*collector.ModelVersion) []string { return nil }}); err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, form, site string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", site)
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		return w
	}
	for path, want := range map[string][]string{
		"/ui/health":                {"refuses what it is sent", "for 24 h", `data-figure="lag" class="bad">3 h`, "91.0 %", "1\u202f500/s", "2.5/s", "4 records lost", "folders.lost", "the folder ", "2 segments of the spool were gone", "1\u202f231 CloudEvents dropped</strong> (1\u202f200 fit no version, the files of 1 were damaged, of 30 gone)", "1 row of CloudEvents fit no version<", "3 MiB", `data-letter="abcd0123"`},
		"/ui/health?driven=3":       {"3 dead letters on their way"},
		"/ui/dead-letters/abcd0123": {"VIOLATED_CONSTRAINT", "Drive without its features"},
		"/ui/":                      {"The store is 3 h behind; 1 dead letter"},
	} {
		w := ask("GET", path, "", "same-origin")
		body := w.Body.String()
		if w.Code != http.StatusOK || strings.Contains(body, "<script>alert") || strings.Contains(body, "<img src=x") {
			t.Errorf("%s: %d, or a name broke out", path, w.Code)
		}
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s does not say %q:\n%s", path, text, body)
			}
		}
	}
	for _, path := range []string{"/ui/dead-letters/drive", "/ui/dead-letters/abcd0123/drive", "/ui/dead-letters/abcd0123/delete"} {
		if w := ask("POST", path, "sure=abcd", "cross-site"); w.Code != http.StatusForbidden {
			t.Errorf("%s from another site: %d", path, w.Code)
		}
	}
	if w := ask("POST", "/ui/dead-letters/abcd0123/delete", url.Values{"sure": {"abc"}}.Encode(), "same-origin"); w.Code != http.StatusBadRequest || len(asked) > 0 {
		t.Errorf("deleted without being sure: %d %v", w.Code, asked)
	}
	for _, path := range []string{"/ui/dead-letters/drive", "/ui/dead-letters/abcd0123/drive", "/ui/dead-letters/abcd0123/delete"} {
		if w := ask("POST", path, "sure=abcd", "same-origin"); w.Code != http.StatusSeeOther {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if got := strings.Join(asked, ";"); got != ";abcd0123;delete" {
		t.Errorf("asked %q", got)
	}
}
