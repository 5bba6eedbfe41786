package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/keys"
)

// TestAuditHeadByOTLP: the heads that leave the machine by OTLP are enough to verify the
// audit log against, and to find that its end was cut.
func TestAuditHeadByOTLP(t *testing.T) {
	var mu sync.Mutex
	var heads []audit.Head
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil || req.URL.Path != "/v1/logs" {
			return
		}
		var m collectorlogs.ExportLogsServiceRequest
		if err := proto.Unmarshal(body, &m); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rl := range m.GetResourceLogs() {
			for _, sl := range rl.GetScopeLogs() {
				for _, l := range sl.GetLogRecords() {
					if l.GetBody().GetStringValue() != "audit head" {
						continue
					}
					var h audit.Head
					for _, a := range l.GetAttributes() {
						switch a.GetKey() {
						case "seq":
							h.Seq = uint64(a.GetValue().GetIntValue())
						case "mac":
							h.MAC = a.GetValue().GetStringValue()
						}
					}
					heads = append(heads, h)
				}
			}
		}
	}))
	t.Cleanup(web.Close)
	cfg := testConfig(t, t.TempDir())
	cfg.Telemetry.OTLP = web.URL
	r := startRig(t, cfg)
	if status, body, _ := r.call(t, http.MethodGet, "/api/v1/predictions?limit=1", ""); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	r.halt(t)
	mu.Lock()
	defer mu.Unlock()
	if len(heads) < 2 {
		t.Fatalf("%d heads came, not one of the start and one of the stop", len(heads))
	}
	path := filepath.Join(t.TempDir(), "heads")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range heads {
		if err := json.NewEncoder(f).Encode(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cfg.Data, "audit")
	key, err := keys.ReadSecret(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify(dir, key, []string{path}, nil)
	if err != nil || !report.OK() {
		t.Fatalf("the log does not fit its heads: %v %+v", err, report)
	}
	last := heads[len(heads)-1]
	last.Seq++
	if f, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(f).Encode(last); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if report, err = audit.Verify(dir, key, []string{path}, nil); err != nil || report.OK() {
		t.Errorf("an entry that was cut is not missed: %v", err)
	}
}
