package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

// served is `pellucid serve` as a process of its own.
type served struct {
	cmd  *exec.Cmd
	url  string
	errs bytes.Buffer
}

func startServed(t *testing.T, args ...string) *served {
	t.Helper()
	s := &served{cmd: exec.Command(os.Args[0], append([]string{"serve", "--http", "127.0.0.1:0", "--grpc", ""}, args...)...)}
	s.cmd.Env, s.cmd.Stderr = append(os.Environ(), mainEnv+"=1"), &s.errs
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })   // of one that has not ended
	line, _ := bufio.NewReader(out).ReadString('\n') // less than a line says why
	if _, err := fmt.Sscanf(line, "pellucid serves on %s", &s.url); err != nil {
		_ = s.cmd.Wait()
		t.Fatalf("it says %q: %v\n%s", line, err, &s.errs)
	}
	return s
}

// terminate sends SIGTERM and returns the exit status.
func (s *served) terminate(t *testing.T) int {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait() // the status says it
	return s.cmd.ProcessState.ExitCode()
}

func (s *served) infer(t *testing.T) int {
	t.Helper()
	res, err := http.Post(s.url+"/v2/models/m/infer", "application/json", strings.NewReader(flightBody("UA", 40)))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// TestStopOnAFullDisk: a server that is told to end while its disk is full, with all that it
// has answered in its spool, ends with status 0 and says what had no room; the next start
// stores every answer.
func TestStopOnAFullDisk(t *testing.T) {
	disk, models := vfstest.SmallDisk(t, "96m"), t.TempDir()
	place(t, models, "m/1/model.ubj", readFile(t, gbm+"model.ubj"))
	f, dsn := newForwarder(t, embeddedtest.DSN(t))
	heads := filepath.Join(disk, "heads")
	place(t, models, "config.yaml", "audit: {head_file: "+heads+"}\n")
	args := []string{"--config", filepath.Join(models, "config.yaml"), "--models", models, "--data", filepath.Join(disk, "data"), "--clickhouse", dsn}
	s := startServed(t, args...)
	answered := 0
	ask := func() {
		switch status := s.infer(t); status {
		case http.StatusOK:
			answered++
		case http.StatusServiceUnavailable: // there is no room for its record
		default:
			t.Errorf("an answer with status %d", status)
		}
	}
	ask()
	f.cut()
	filler := filepath.Join(disk, "filler")
	vfstest.Fill(t, filler)
	for range 20 {
		ask()
	}
	if status := s.terminate(t); status != 0 || answered == 0 || !strings.Contains(s.errs.String(), "the disk is full") {
		t.Errorf("%d answers, exit status %d\n%s", answered, status, &s.errs)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	s = startServed(t, args...)
	db := (&rig{dsn: dsn}).database(t)
	until(t, fmt.Sprintf("all %d answers are stored", answered), func() bool {
		return sql(t, db, "SELECT count() FROM predictions") == fmt.Sprint(answered)
	})
	if status := s.terminate(t); status != 0 {
		t.Errorf("exit status %d with room again\n%s", status, &s.errs)
	}
	if list, err := audit.ReadHeads(heads); err != nil || len(list) < 3 {
		t.Errorf("heads %v: %v", list, err)
	}
}
