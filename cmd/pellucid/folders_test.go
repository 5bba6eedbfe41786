package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// told holds that a start has missed what is in want, one loss each and no other, everywhere
// where that is to be seen, and that deleting the file of losses ends it.
func (r *rig) told(t *testing.T, cfg config, want ...string) {
	t.Helper()
	path := filepath.Join(cfg.Data, lossesFile)
	if len(want) == 0 {
		if lines, err := readLosses(cfg.Data); err != nil || len(lines) > 0 {
			t.Errorf("told of %q (%v)", lines, err)
		}
		return
	}
	until(t, "the rollups were held against the rows", func() bool {
		_, err := checkRollups(t.Context(), patient{config: cfg})
		return err == nil
	})
	until(t, "the alert", func() bool { return strings.Contains(r.selfFires(t), "PellucidDataLost") })
	_, page, _ := r.call(t, http.MethodGet, "/ui/health", "")
	_, metrics, _ := r.call(t, http.MethodGet, "/metrics", "")
	status, checks := doctorOn(t, cfg)
	if status == 0 || !strings.Contains(checks["folders"].Detail, "delete "+path) || !strings.Contains(string(page), "<code>"+lossesFile) {
		t.Errorf("nobody says what to do: doctor %+v", checks["folders"])
	}
	for _, w := range want {
		for where, text := range map[string]string{"doctor": checks["folders"].Detail, "the page": string(page), "the log": r.log.String()} {
			says := w
			if where == "the log" && strings.HasPrefix(w, "version ") {
				says = "a kept version is gone from the store"
			}
			if !strings.Contains(text, says) {
				t.Errorf("%s does not say %q: %s", where, says, text)
			}
		}
	}
	if line := regexp.MustCompile(`(?m)^pellucid_data_losses.* (\d+)$`).FindStringSubmatch(string(metrics)); len(line) != 2 || line[1] != strconv.Itoa(len(want)) {
		t.Errorf("the metric is %q, want %d", line, len(want))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if status, checks := doctorOn(t, cfg); status != 0 {
		t.Errorf("acknowledged: doctor %+v", checks)
	}
	if _, page, _ := r.call(t, http.MethodGet, "/ui/health", ""); strings.Contains(string(page), lossesFile) {
		t.Error("acknowledged: the page goes on")
	}
}

// TestFoldersThatAreGoneAreMissed takes folders out of the data folder, or puts others in
// their place: the next start says so until the operator has seen it, and what was stored
// stays there once.
func TestFoldersThatAreGoneAreMissed(t *testing.T) {
	models := notedModels(t)
	cfg := testConfig(t, models)
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	db := r.database(t)
	again := func() {
		t.Helper()
		r.halt(t)
		r = startRig(t, cfg)
	}
	stored := func(want int) {
		t.Helper()
		r.stored(t)
		if got := sql(t, db, "SELECT count(), uniqExact(id, row), (SELECT sum(rows) FROM traffic_1m) FROM predictions"); got != fmt.Sprintf("%d\t%d\t%d", want, want, want) {
			t.Errorf("rows, different rows and rows counted are %s, want %d", got, want)
		}
	}
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	place := func(name string) string { return filepath.Join(cfg.Data, name) }

	r.post(t, "/api/v1/predictions", notedList(0, 20), nil)
	stored(20)
	again()
	r.told(t, cfg)

	// An older copy of the very same spool.
	r.halt(t)
	if err := os.CopyFS(place("older"), os.DirFS(place("spool"))); err != nil {
		t.Fatal(err)
	}
	r = startRig(t, cfg)
	r.halt(t)
	move(place("spool"), place("newer"))
	move(place("older"), place("spool"))
	r = startRig(t, cfg)
	r.told(t, cfg, "the folder spool of the data folder was another one than before", "the folder spool/dead of the data folder was another one")
	stored(20)

	// The spool, with ten records that wait in it.
	f.cut()
	r.post(t, "/api/v1/predictions", notedList(20, 30), nil)
	r.halt(t)
	f.open(t)
	move(place("spool"), place("away"))
	if status, checks := doctorOn(t, cfg); status == 0 || !strings.Contains(checks["folders"].Detail, "the folder spool of the data folder was gone") {
		t.Errorf("before the start: doctor %+v", checks["folders"])
	}
	r = startRig(t, cfg)
	// What was acknowledged comes again, as somebody would send it who reads of the loss.
	r.post(t, "/api/v1/predictions", notedList(0, 30), nil)
	stored(30)
	r.told(t, cfg, "the folder spool of the data folder was gone: records that were acknowledged and not in the store yet are lost", "the folder spool/dead of the data folder was gone")
	again()
	r.told(t, cfg)

	// The one of before in its place: what waits in it is stored by now, and stays there once.
	r.halt(t)
	move(place("spool"), place("second"))
	move(place("away"), place("spool"))
	r = startRig(t, cfg)
	stored(30)
	r.told(t, cfg, "the folder spool of the data folder was another one than before", "the folder spool/dead of the data folder was another one")

	// Halves, kept versions and dead letters.
	r.half(t, "request", "waits", "elsewhere", "7", askedHalf)
	r.halt(t)
	for _, name := range []string{"events", "models", "spool/dead"} {
		if err := os.RemoveAll(place(name)); err != nil {
			t.Fatal(err)
		}
	}
	r = startRig(t, cfg)
	r.told(t, cfg, "the folder events of the data folder was gone", "the folder models of the data folder was gone", "version 7 of model elsewhere (digest ", "the folder spool/dead of the data folder was gone",
		"what was private last was gone from the folder models")
	again()
	r.told(t, cfg)

	// One version out of the folder.
	r.post(t, "/api/v1/predictions", notedList(0, 30), nil)
	v, err := r.models.Find("elsewhere", "7")
	if err != nil {
		t.Fatal(err)
	}
	r.halt(t)
	if err := os.RemoveAll(filepath.Join(place("models"), v.Digest)); err != nil {
		t.Fatal(err)
	}
	const gone = "version 7 of model elsewhere (digest "
	if status, checks := doctorOn(t, cfg); status == 0 || !strings.Contains(checks["kept"].Detail, gone) {
		t.Errorf("before the start: doctor %+v", checks["kept"])
	}
	r = startRig(t, cfg)
	r.told(t, cfg, gone)
	again()
	r.told(t, cfg)

	// Marks that cannot be read.
	r.halt(t)
	if err := os.WriteFile(place(marksFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = startRig(t, cfg)
	r.told(t, cfg, "cannot be read: it is not known whether one of them has gone")
	again()
	r.told(t, cfg)
	stored(30)
}

// TestMarksThatCannotBeWritten: a start that cannot write a mark tells so and goes on, and
// one that was killed between the two files of a new name misses nothing.
func TestMarksThatCannotBeWritten(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	r := startRig(t, cfg)
	r.halt(t)
	ids, err := readMarks(cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	m := marks{dir: cfg.Data, ids: ids}
	if err := m.write("spool", "next "+ids["spool"]); err != nil {
		t.Fatal(err)
	}
	r = startRig(t, cfg)
	r.told(t, cfg)
	r.halt(t)
	if ids, err = readMarks(cfg.Data); err != nil || strings.Contains(ids["spool"], " ") {
		t.Errorf("the spool's name is %q (%v)", ids["spool"], err)
	}
	names, err := os.ReadDir(cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(names, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".new-") }) {
		t.Errorf("left behind: %v", names)
	}
	// A folder in the place of the file cannot be replaced, whoever asks.
	if err := os.Remove(filepath.Join(cfg.Data, marksFile)); err != nil {
		t.Fatal(err)
	}
	place(t, cfg.Data, marksFile+"/in the way", "")
	r = startRig(t, cfg)
	if !strings.Contains(r.log.String(), "a folder is not marked") {
		t.Errorf("nobody says that marks cannot be kept:\n%s", r.log)
	}
}

// notedModels is a folder of models that says of importList's that its note is private.
func notedModels(t *testing.T) string {
	t.Helper()
	models := t.TempDir()
	place(t, models, "elsewhere/7/model.yaml", "task: binary\nclasses: [no, yes]\nfeatures: [{name: note, private: drop}]\n")
	return models
}

// notedList is importList with a note in every row.
func notedList(from, to int) string {
	return strings.ReplaceAll(importList(from, to), `"note":null`, `"note":"a note"`)
}

// TestTheSpoolIsRemovedUnderARunningServer: nothing is acknowledged any more until a start,
// which tells of it; what was stored stays there once.
func TestTheSpoolIsRemovedUnderARunningServer(t *testing.T) {
	models := notedModels(t)
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	r.post(t, "/api/v1/predictions", notedList(0, 20), nil)
	r.stored(t)
	if err := os.RemoveAll(filepath.Join(cfg.Data, "spool")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // the folder is looked at every 10 ms
	for range 2 {
		status, b, header := r.call(t, http.MethodPost, "/api/v1/predictions", notedList(20, 30))
		if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || !strings.Contains(string(b), "the folder spool of the data folder is gone") || strings.Contains(string(b), "full") {
			t.Errorf("without a spool: %d %s", status, b)
		}
	}
	if status, b, _ := r.call(t, http.MethodGet, "/readyz", ""); status != http.StatusServiceUnavailable || !strings.Contains(string(b), "the folder spool of the data folder is gone") {
		t.Errorf("ready without a spool: %d %s", status, b)
	}
	if status, checks := doctorOn(t, cfg); status == 0 || !strings.Contains(checks["folders"].Detail, "the folder spool of the data folder was gone") {
		t.Errorf("doctor while it runs: %+v", checks["folders"])
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := r.stop(ctx); err != nil {
		t.Logf("stop: %v", err) // it may say that the folder is not there
	}
	r = startRig(t, cfg)
	r.post(t, "/api/v1/predictions", notedList(0, 30), nil)
	r.stored(t)
	if got := sql(t, r.database(t), "SELECT count(), uniqExact(id, row), (SELECT sum(rows) FROM traffic_1m) FROM predictions"); got != "30\t30\t30" {
		t.Errorf("rows, different rows and rows counted are %s", got)
	}

	// The one that the start made goes as well, before anybody has acknowledged the first loss.
	r.halt(t)
	spool := func() (n int) {
		lines, err := readLosses(cfg.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			if strings.Contains(l, "the folder spool of the data folder was gone") {
				n++
			}
		}
		return n
	}
	if n := spool(); n != 1 {
		t.Errorf("one loss is told %d times", n)
	}
	if err := os.RemoveAll(filepath.Join(cfg.Data, "spool")); err != nil {
		t.Fatal(err)
	}
	r = startRig(t, cfg)
	if n := spool(); n != 2 {
		t.Errorf("two losses are told %d times", n)
	}
	spoolGone := "the folder spool of the data folder was gone"
	r.told(t, cfg, spoolGone, deadGone, spoolGone, deadGone)
}
