package main

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// toldRunning holds that a running server tells by itself of what is in want, once each and
// nothing else, everywhere where a start does.
func (r *rig) toldRunning(t *testing.T, cfg config, want ...string) {
	t.Helper()
	var lines []string
	until(t, "losses", func() bool {
		var err error
		if lines, err = readLosses(cfg.Data); err != nil {
			t.Fatal(err)
		}
		return len(lines) >= len(want)
	})
	until(t, "the alert", func() bool { return strings.Contains(r.selfFires(t), "PellucidDataLost") })
	_, page, _ := r.call(t, http.MethodGet, "/ui/health", "")
	_, metrics, _ := r.call(t, http.MethodGet, "/metrics", "")
	status, checks := doctorOn(t, cfg)
	if status == 0 {
		t.Error("doctor is content")
	}
	for _, w := range want {
		for where, text := range map[string]string{"the file": strings.Join(lines, "\n"), "doctor": checks["folders"].Detail, "the page": string(page), "the log": r.log.String()} {
			if !strings.Contains(text, w) {
				t.Errorf("%s does not say %q: %s", where, w, text)
			}
		}
		if n := strings.Count(r.log.String(), w); n != 1 {
			t.Errorf("the log says %q %d times", w, n)
		}
	}
	if line := regexp.MustCompile(`(?m)^pellucid_data_losses.* (\d+)$`).FindStringSubmatch(string(metrics)); len(lines) != len(want) || len(line) != 2 || line[1] != strconv.Itoa(len(want)) {
		t.Errorf("the metric is %q of %q, want %d", line, lines, len(want))
	}
}

const (
	modelsGone  = "the folder models of the data folder was gone"
	eventsGone  = "the folder events of the data folder was gone"
	deadGone    = "the folder spool/dead of the data folder was gone"
	askedRow    = `{"instances":[{"width":1}]}`
	answeredRow = `{"predictions":[0.5]}`
)

// TestFoldersTakenFromARunningServer: it tells by itself of folders that are moved away,
// acknowledges nothing that would lie in them, and puts nothing into others in their place;
// once they are back all goes on where it was.
func TestFoldersTakenFromARunningServer(t *testing.T) {
	models := notedModels(t)
	place(t, models, "paired/1/model.yaml", "task: regression\n")
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	folder := func(name string) string { return filepath.Join(cfg.Data, filepath.FromSlash(name)) }
	taken := []string{"models", "events", "spool/dead"}
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	r.post(t, "/api/v1/predictions", notedList(0, 20), nil)
	if status, b, _ := r.half(t, "request", "waits", "paired", "1", askedRow); status != http.StatusOK {
		t.Fatalf("%d %s", status, b)
	}
	r.stored(t)
	for _, name := range taken {
		move(folder(name), folder("away-"+filepath.Base(name)))
	}
	refused := func(when string) {
		t.Helper()
		for _, kind := range []string{"request", "response"} {
			status, b, header := r.half(t, kind, map[string]string{"request": "new", "response": "waits"}[kind], "paired", "1", map[string]string{"request": askedRow, "response": answeredRow}[kind])
			if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || !strings.Contains(b, "the folder events of the data folder is gone") {
				t.Errorf("%s: a %s: %d %s", when, kind, status, b)
			}
		}
		other := strings.ReplaceAll(notedList(0, 5), "elsewhere", "fresh")
		if status, b, header := r.call(t, http.MethodPost, "/api/v1/predictions", other); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || !strings.Contains(string(b), "the folder models of the data folder is gone") {
			t.Errorf("%s: a new model: %d %s", when, status, b)
		}
		if err := r.dead.Divide("batch", "token", -1); err == nil || !strings.Contains(err.Error(), "the folder spool/dead of the data folder is gone") {
			t.Errorf("%s: dead letters: %v", when, err)
		}
		if n, _ := r.events.Waiting(); n != 1 {
			t.Errorf("%s: %d halves wait", when, n)
		}
	}
	refused("away")
	r.post(t, "/api/v1/predictions", notedList(20, 30), nil) // of a version that is known
	r.toldRunning(t, cfg, modelsGone, eventsGone, deadGone)
	for _, name := range taken {
		if _, err := os.Stat(folder(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was made again (%v)", name, err)
		}
		if err := os.Mkdir(folder(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	refused("others in their place")
	for _, name := range taken {
		if left, err := os.ReadDir(folder(name)); err != nil || len(left) > 0 {
			t.Errorf("the other %s has %v (%v)", name, left, err)
		}
		if err := os.Remove(folder(name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range taken {
		move(folder("away-"+filepath.Base(name)), folder(name))
	}
	if status, b, _ := r.half(t, "response", "waits", "paired", "1", answeredRow); status != http.StatusOK || !strings.Contains(b, "recorded") {
		t.Errorf("back: %d %s", status, b)
	}
	r.post(t, "/api/v1/predictions", strings.ReplaceAll(notedList(0, 5), "elsewhere", "fresh"), nil)
	if err := r.dead.Divide("batch", "token", -1); err != nil {
		t.Errorf("back: %v", err)
	}
	r.stored(t)
	if got := sql(t, r.database(t), "SELECT count(), uniqExact(model, id, row) FROM predictions"); got != "36\t36" {
		t.Errorf("rows and different rows are %s", got)
	}
	r.takenBack(t, cfg, len(taken))
	// Another one with a name in it is told of too, once, and so are they when they go for good.
	move(folder("events"), folder("away-events"))
	place(t, folder("events"), idFile, "SOMEBODYELSES\n")
	r.toldRunning(t, cfg, "the folder events of the data folder was another one than before")
	if left, err := os.ReadDir(folder("events")); err != nil || len(left) != 1 {
		t.Errorf("the other one has %v (%v)", left, err)
	}
	if err := os.RemoveAll(folder("events")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(folder("away-events")); err != nil {
		t.Fatal(err)
	}
	until(t, "that it is gone", func() bool {
		lines, err := readLosses(cfg.Data)
		return err == nil && slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, eventsGone) })
	})
	// A start says nothing twice.
	r.halt(t)
	r = startRig(t, cfg)
	if lines, err := readLosses(cfg.Data); err != nil || len(lines) != 2 {
		t.Errorf("after a start: %q (%v)", lines, err)
	}
	r.acknowledge(t, cfg)
	if status, checks := doctorOn(t, cfg); status != 0 {
		t.Errorf("acknowledged: %+v", checks)
	}
	if status, b, _ := r.half(t, "request", "waits", "paired", "1", askedRow); status != http.StatusOK {
		t.Errorf("with another: %d %s", status, b)
	}
}

// takenBack waits until n folders are back, each the very same, and nothing is told of them any more.
func (r *rig) takenBack(t *testing.T, cfg config, n int) {
	t.Helper()
	until(t, "that what was told is taken back", func() bool { return strings.Count(r.log.String(), sameBack) == n })
	if lines, err := readLosses(cfg.Data); err != nil || len(lines) > 0 {
		t.Errorf("back, and told of %q (%v)", lines, err)
	}
	if status, checks := doctorOn(t, cfg); status != 0 {
		t.Errorf("back: doctor %+v", checks["folders"])
	}
	until(t, "the alert ends", func() bool { return !strings.Contains(r.selfFires(t), "PellucidDataLost") })
}

// TestASpoolThatComesBack: what was told of a spool that is moved away under a running server
// is taken back when the very same is back, and nothing else; of a copy it is not, nor of
// the folder that the copy stood for.
func TestASpoolThatComesBack(t *testing.T) {
	models := notedModels(t)
	cfg := testConfig(t, models)
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	r.post(t, "/api/v1/predictions", notedList(0, 10), nil)
	r.stored(t)
	f.cut()
	r.post(t, "/api/v1/predictions", notedList(10, 30), nil)
	folder, away, copied := filepath.Join(cfg.Data, "spool"), filepath.Join(cfg.Data, "away"), filepath.Join(cfg.Data, "copied")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	const spoolGone = "the folder spool of the data folder was gone"
	move(folder, away)
	r.toldRunning(t, cfg, spoolGone, deadGone)
	move(away, folder)
	f.open(t)
	r.stored(t)
	r.takenBack(t, cfg, 2)
	if got := sql(t, r.database(t), "SELECT count(), uniqExact(model, id, row) FROM predictions"); got != "30\t30" {
		t.Errorf("rows and different rows are %s", got)
	}

	// A loss of something else stays told.
	const other = "something else was gone"
	if err := r.marks.lost([]string{other}); err != nil {
		t.Fatal(err)
	}
	told := func() string {
		t.Helper()
		lines, err := readLosses(cfg.Data)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(lines, "\n")
	}
	move(folder, away)
	until(t, "both losses", func() bool { return strings.Contains(told(), spoolGone) && strings.Contains(told(), deadGone) })
	move(away, folder)
	until(t, "only the other loss", func() bool { return strings.HasSuffix(told(), "Z "+other) && !strings.Contains(told(), "\n") })

	// A copy has the same name in it, and lacks what came after it was made.
	if err := os.CopyFS(copied, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	r.acknowledge(t, cfg)
	move(folder, away)
	until(t, "both losses", func() bool { return strings.Contains(told(), spoolGone) && strings.Contains(told(), deadGone) })
	lines := told()
	move(copied, folder)
	until(t, "the copy is seen", func() bool { return strings.Count(r.log.String(), copyBack) == 2 })
	move(folder, copied)
	until(t, "the copy is gone", func() bool {
		return strings.Count(r.log.String(), spoolGone) == 4 && strings.Count(r.log.String(), deadGone) == 4
	})
	move(away, folder)
	until(t, "it is back", func() bool { return strings.Count(r.log.String(), copyBack) == 4 })
	if now := told(); now != lines {
		t.Errorf("a copy was in its place, and told is %q, before %q", now, lines)
	}
	if status, checks := doctorOn(t, cfg); status == 0 || !strings.Contains(checks["folders"].Detail, spoolGone) {
		t.Errorf("a copy was in its place: doctor %+v", checks["folders"])
	}
}

// acknowledge deletes what is told of losses.
func (r *rig) acknowledge(t *testing.T, cfg config) {
	t.Helper()
	if err := os.Remove(filepath.Join(cfg.Data, lossesFile)); err != nil {
		t.Fatal(err)
	}
}

// TestWhatWasPrivateIsGone: a version whose model.yaml goes together with what says what was
// private last is recorded as it was, which doctor and the start tell.
func TestWhatWasPrivateIsGone(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "xgb", xgboostData, "base_binary_logistic")
	c.rows = c.rows[:1]
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	v, err := r.models.Find("xgb", "1")
	if err != nil {
		t.Fatal(err)
	}
	r.halt(t)
	name := v.Info.Features[0].Name
	place(t, models, "xgb/1/model.yaml", "features: [{name: "+name+", private: drop}]\n")
	r = startRig(t, cfg)
	r.halt(t)
	if err := errors.Join(os.Remove(filepath.Join(models, "xgb/1/model.yaml")), os.Remove(filepath.Join(cfg.Data, "models", ".inforce.json"))); err != nil {
		t.Fatal(err)
	}
	const gone = "what was private last was gone from the folder models"
	if status, checks := doctorOn(t, cfg); status == 0 || !strings.Contains(checks["kept"].Detail, gone) {
		t.Errorf("before the start: doctor %+v", checks["kept"])
	}
	r = startRig(t, cfg)
	id, _ := r.infer(t, "xgb", c)
	r.stored(t)
	var row struct{ Features map[string]any }
	r.get(t, "/api/v1/predictions/"+id, &row)
	if _, there := row.Features[name]; there || len(row.Features) != len(v.Info.Features)-1 {
		t.Errorf("%s is recorded: %v", name, row.Features)
	}
	r.told(t, cfg, gone)
}

// TestAnAuditLogThatIsAway: what must be recorded is not done while the folder of the audit log
// is gone, and goes on in the same chain once it is back.
func TestAnAuditLogThatIsAway(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	r := startRig(t, cfg)
	r.post(t, "/api/v1/predictions", notedList(0, 5), nil)
	r.stored(t)
	read := func() (int, string) {
		status, b, _ := r.call(t, http.MethodGet, "/api/v1/predictions?model=elsewhere", "")
		return status, string(b)
	}
	if status, b := read(); status != http.StatusOK {
		t.Fatalf("%d %s", status, b)
	}
	folder, away := filepath.Join(cfg.Data, "audit"), filepath.Join(cfg.Data, "away")
	if err := os.Rename(folder, away); err != nil {
		t.Fatal(err)
	}
	if status, b := read(); status != http.StatusServiceUnavailable || !strings.Contains(b, "the folder audit of the data folder is gone") {
		t.Errorf("away: %d %s", status, b)
	}
	r.post(t, "/api/v1/predictions", notedList(5, 6), nil) // which nobody reads
	if err := os.Rename(away, folder); err != nil {
		t.Fatal(err)
	}
	if status, b := read(); status != http.StatusOK {
		t.Errorf("back: %d %s", status, b)
	}
	r.halt(t)
	reads := 0
	for _, e := range auditEntries(t, cfg.Data) {
		if strings.HasPrefix(e.Action, "read") {
			reads++
		}
	}
	if reads != 2 {
		t.Errorf("%d reads are recorded, want 2", reads)
	}
}
