package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
)

// TestWhatIsCutIsSaid to whoever sends a prediction that was made elsewhere: which of its
// features and outputs were larger than what is kept.
func TestWhatIsCutIsSaid(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.Capture.Body = 1 << 10
	r := startRig(t, cfg)
	long := strings.Repeat("x", 2<<10)
	row := func(id, feature, output string) string {
		return fmt.Sprintf(`{"model":"notes","id":%q,"features":{"note":%q},"outputs":{"said":%q}}`, id, feature, output)
	}
	var answer struct {
		Results []collector.ImportResult `json:"results"`
	}
	r.post(t, "/api/v1/predictions", "["+row("a", "short", "short")+","+row("b", long, "short")+","+row("c", "short", long)+"]", &answer)
	r.stored(t)
	for i, want := range []struct{ id, said, capture string }{{"a", "", "full"}, {"b", "cut", "cut"}, {"c", "inputs", "inputs"}} {
		got := answer.Results[i]
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+want.id, &p)
		if got.ID != want.id || got.Status != collector.ImportAccepted || got.Capture != want.said || p.Capture != want.capture ||
			(len(p.Features) == 0) != (want.capture == "cut") || (len(p.Outputs) == 0) != (want.capture == "inputs") {
			t.Errorf("answered %+v, stored %+v", got, p)
		}
		if status, b, _ := r.call(t, "GET", "/ui/predictions/"+want.id, ""); status != http.StatusOK || strings.Contains(string(b), long) {
			t.Errorf("its page: %d", status)
		}
	}
	// So is it where the second half of a logged one comes.
	for i, want := range []string{`"capture":"cut"`, `"capture":"inputs"`, ""} {
		id := fmt.Sprint("call-", i)
		asked, said := []string{long, "short", "short"}[i], []string{"short", long, "short"}[i]
		for kind, body := range map[string]string{"request": fmt.Sprintf(`{"instances":[{"note":%q}]}`, asked), "response": fmt.Sprintf(`{"predictions":[%q]}`, said)} {
			status, answer := r.loggedEvent(t, kind, id, body, false)
			if status != http.StatusOK {
				t.Fatalf("%s of %s: %d %s", kind, id, status, answer)
			}
			if recorded := strings.Contains(answer, `"recorded"`); recorded && want != "" && !strings.Contains(answer, want) || (want == "" || !recorded) && strings.Contains(answer, "capture") {
				t.Errorf("%s: %s, want %s", id, answer, want)
			}
		}
	}
}
