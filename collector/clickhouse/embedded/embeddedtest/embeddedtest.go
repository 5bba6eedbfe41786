// Package embeddedtest gives tests a real ClickHouse: one embedded child for each
// test binary, started at the first use, and a fresh database for each test.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { embeddedtest.Main(m) }
//
// It is imported by tests only.
package embeddedtest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
)

var shared struct {
	once   sync.Once
	mu     sync.Mutex // guards the rest
	dir    string
	engine *embedded.Engine
	err    error
	n      int
}

// Main runs the tests of a binary, as its TestMain. It first becomes the engine
// where the binary was started as its child, and stops the shared engine after
// the tests.
func Main(m *testing.M) {
	embedded.RunChildIfAsked()
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "embeddedtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func stop() error {
	if helper.path != "" {
		defer os.Remove(helper.path)
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.engine != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := shared.engine.Stop(ctx); err != nil {
			return err
		}
	}
	if shared.dir == "" {
		return nil
	}
	return os.RemoveAll(shared.dir)
}

// Engine returns the test binary's shared engine, started at the first call. A
// test that kills it disturbs those that run beside it.
func Engine(t testing.TB) *embedded.Engine {
	t.Helper()
	shared.once.Do(func() {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		shared.dir, shared.err = os.MkdirTemp("", "pellucid-clickhouse-") //nolint:usetesting // shared by all tests of the binary
		if shared.err != nil {
			return
		}
		shared.engine, shared.err = embedded.Start(context.Background(), embedded.Config{
			Dir: shared.dir, Databases: []string{"test_*"}, ChildCommand: ChildCommand(t),
		})
	})
	if shared.err != nil {
		t.Fatalf("start the shared engine: %v", shared.err)
	}
	return shared.engine
}

// Logs returns the paths of what the shared engine has written beside its data: logs
// and configuration.
func Logs(t testing.TB) []string {
	t.Helper()
	Engine(t)
	paths, err := filepath.Glob(filepath.Join(shared.dir, "*.*"))
	if err != nil || !slices.Contains(paths, filepath.Join(shared.dir, "engine.log")) {
		t.Fatalf("the engine's files: %v, %v", paths, err)
	}
	return paths
}

// DSN returns the address of a fresh database of the shared engine, dropped when
// the test ends.
func DSN(t testing.TB) string {
	t.Helper()
	e := Engine(t)
	shared.mu.Lock()
	shared.n++
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), shared.n)
	shared.mu.Unlock()
	env := e.Env()
	if err := Exec(env, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Exec(env, "DROP DATABASE IF EXISTS "+name); err != nil {
			t.Logf("drop %s: %v", name, err)
		}
	})
	env.Database = name
	return env.DSN()
}

// Exec runs one statement as the engine's admin, over HTTP.
func Exec(env embedded.Env, statement string) error {
	req, err := http.NewRequest(http.MethodPost, "http://"+env.HTTPAddress()+"/", strings.NewReader(statement))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("X-ClickHouse-User", env.AdminUser)
	req.Header.Set("X-ClickHouse-Key", env.AdminPassword)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("run %q: %w", statement, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("run %q: status %s", statement, resp.Status)
	}
	return nil
}

var helper struct {
	once sync.Once
	path string
	err  error
}

// ChildCommand returns the command that starts an engine's child: nil (this test
// binary itself), or, where that is built with the race detector, a binary built
// without it, because the engine's library cannot live in an instrumented
// process. Tests that call embedded.Start themselves pass it on.
func ChildCommand(t testing.TB) []string {
	t.Helper()
	if !raceEnabled {
		return nil
	}
	helper.once.Do(func() { helper.path, helper.err = buildHelper() })
	if helper.err != nil {
		t.Fatal(helper.err)
	}
	return []string{helper.path}
}

// buildHelper builds the child's binary into the user's cache; the go command's
// own cache makes a second build cheap.
func buildHelper() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("find the source of embeddedtest")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	dir := filepath.Join(cache, "pellucid", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create %q: %w", dir, err)
	}
	path := filepath.Join(dir, fmt.Sprintf("engine-child-%d", os.Getpid()))
	cmd := exec.Command("go", "build", "-o", path, "./child")
	cmd.Dir = filepath.Dir(file)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the engine's child: %w: %s", err, out)
	}
	return path, nil
}
