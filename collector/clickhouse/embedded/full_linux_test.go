package embedded_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

// fill leaves the disk not a byte.
func fill(t *testing.T, path string) {
	t.Helper()
	vfstest.Fill(t, path)
	if _, free := embedded.Space(filepath.Dir(path)); free != 0 {
		t.Fatalf("%d bytes are free", free)
	}
}

func halt(t *testing.T, e *embedded.Engine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := e.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// lines passes a log on, line by line.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// TestStartOnAFullDisk starts a folder that has been used where not a byte is free: at
// once, and, where its configuration is another, once there is room.
func TestStartOnAFullDisk(t *testing.T) {
	disk := vfstest.SmallDisk(t, "64m")
	dir, filler := filepath.Join(disk, "data"), filepath.Join(disk, "filler")
	cfg := embedded.Config{Dir: dir, ChildCommand: embeddedtest.ChildCommand(t), Log: quiet()}
	e, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	env := e.Env()
	if err := query(t, env, "CREATE TABLE kept (x UInt64) ENGINE = MergeTree ORDER BY x", nil); err != nil {
		t.Fatal(err)
	}
	halt(t, e)
	fill(t, filler)
	if e, err = embedded.Start(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if got := code(t, env, env.User, env.Password); got != 0 || e.Env() != env {
		t.Errorf("code %d, the connection is the same: %v", got, e.Env() == env)
	}
	halt(t, e)

	told := make(lines, 100)
	cfg.Threads, cfg.Log = 1, slog.New(slog.NewTextHandler(told, nil))
	fill(t, filler)
	started := make(chan error, 1)
	go func() {
		var err error
		e, err = embedded.Start(t.Context(), cfg)
		started <- err
	}()
	select {
	case line := <-told:
		if !strings.Contains(line, "the disk is full") || !strings.Contains(line, "users.xml") {
			t.Error(line)
		}
	case err := <-started:
		t.Fatalf("started: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	users, err := os.ReadFile(filepath.Join(dir, "users.xml"))
	if err != nil || !strings.Contains(string(users), "<max_threads>1</max_threads>") {
		t.Errorf("users.xml: %v\n%s", err, users)
	}
	halt(t, e)

	// A start that is given up while it waits leaves nothing behind.
	cfg.Threads, cfg.Log = 2, slog.New(slog.NewTextHandler(told, nil))
	fill(t, filler)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := embedded.Start(ctx, cfg)
		started <- err
	}()
	<-told
	cancel()
	if err := <-started; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("given up with %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.new")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
