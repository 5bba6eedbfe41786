package embedded_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
)

// parentDir, when set, makes the test binary a parent that runs an engine there
// until it is killed.
const parentDir = "PELLUCID_TEST_PARENT_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentDir); dir != "" {
		embedded.RunChildIfAsked()
		runParent(dir)
	}
	embeddedtest.Main(m)
}

func runParent(dir string) {
	cfg := embedded.Config{Dir: dir, Log: quiet()}
	if c := os.Getenv("PELLUCID_TEST_CHILD"); c != "" {
		cfg.ChildCommand = []string{c}
	}
	e, err := embedded.Start(context.Background(), cfg)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("pid", e.PID())
	select {}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func start(t *testing.T, dir string) *embedded.Engine {
	t.Helper()
	e, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, ChildCommand: embeddedtest.ChildCommand(t), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := e.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return e
}

// code returns the ClickHouse error code of a native ping as that user; 0 when
// it succeeded.
func code(t *testing.T, env embedded.Env, user, password string) int32 {
	t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{env.Address()}, Auth: clickhouse.Auth{Username: user, Password: password}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Ping(t.Context())
	var ex *clickhouse.Exception
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ex):
		return ex.Code
	}
	t.Fatalf("ping as %s: %v", user, err)
	return -1
}

func httpStatus(t *testing.T, env embedded.Env, user, password string) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+env.HTTPAddress()+"/?query=SELECT+1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-ClickHouse-User", user)
	req.Header.Set("X-ClickHouse-Key", password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func send(t *testing.T, address string, data []byte) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if len(data) == 0 {
		return
	}
	if _, err := c.Write(data); err != nil {
		return // it has hung up on us: fine
	}
	if err := c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, c) // whatever it answers
}

// A client's mistake must not end the engine. With a pipe instead of a pty on
// its stdin each of these kills it 3 to 4 seconds later.
func TestClientMistakesDoNotKillTheEngine(t *testing.T) {
	e := start(t, t.TempDir())
	env, pid := e.Env(), e.PID()
	junk := make([]byte, 4096)
	rng := rand.New(rand.NewSource(1))
	for range 3 {
		if got := code(t, env, env.User, "wrong"); got != 516 {
			t.Errorf("wrong password: code %d, want 516", got)
		}
		if got := code(t, env, "nobody", ""); got != 516 {
			t.Errorf("unknown user: code %d, want 516", got)
		}
		if got := code(t, env, "default", ""); got != 700 {
			t.Errorf("login as default: code %d, want 700", got)
		}
		rng.Read(junk)
		for _, address := range []string{env.Address(), env.HTTPAddress()} {
			send(t, address, junk)
			send(t, address, nil)
		}
		send(t, env.Address(), []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		send(t, env.Address(), []byte{0, 4, 't', 'e'}) // gone in the middle of the handshake
	}
	for user, want := range map[string]int{"default": 500, "nobody": 403} {
		if got := httpStatus(t, env, user, ""); got != want {
			t.Errorf("HTTP as %s: status %d, want %d", user, got, want)
		}
	}
	time.Sleep(6 * time.Second)
	if got := code(t, env, env.User, env.Password); got != 0 {
		t.Errorf("after the mistakes: code %d", got)
	}
	if e.PID() != pid || e.Restarts() != 0 {
		t.Errorf("the engine was restarted %d times", e.Restarts())
	}
}

func query(t *testing.T, env embedded.Env, sql string, dest any) error {
	t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{env.Address()}, Auth: clickhouse.Auth{Username: env.User, Password: env.Password}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if dest == nil {
		return conn.Exec(t.Context(), sql)
	}
	return conn.QueryRow(t.Context(), sql).Scan(dest)
}

func TestKilledChildComesBackWithItsData(t *testing.T) {
	e := start(t, t.TempDir())
	env := e.Env()
	for _, sql := range []string{"CREATE TABLE kept (x UInt64) ENGINE = MergeTree ORDER BY x", "INSERT INTO kept SELECT number FROM numbers(1000)"} {
		if err := query(t, env, sql, nil); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 3 {
		pid := e.PID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		var n uint64
		deadline := time.Now().Add(30 * time.Second)
		for query(t, env, "SELECT count() FROM kept", &n) != nil {
			if time.Now().After(deadline) {
				t.Fatalf("round %d: no answer within 30 s", round)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if n != 1000 || e.PID() == pid || e.Restarts() != int64(round+1) {
			t.Fatalf("round %d: %d rows, pid %d then %d, %d restarts", round, n, pid, e.PID(), e.Restarts())
		}
	}
	if e.Env() != env {
		t.Error("the connection changed over restarts")
	}
}

func TestParentKilledTakesTheChildAlong(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), parentDir+"="+dir)
	if c := embeddedtest.ChildCommand(t); c != nil {
		cmd.Env = append(cmd.Env, "PELLUCID_TEST_CHILD="+c[0])
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "pid ") {
		t.Fatalf("parent said %q, %v", line, err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "pid ")))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(child, 0); err != nil {
		t.Fatalf("the child is not there: %v", err)
	}
	before, err := embedded.ReadEnv(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	deadline := time.Now().Add(5 * time.Second)
	for alive(child) {
		if time.Now().After(deadline) {
			t.Fatal("the child outlived its parent by 5 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
	// The folder opens again, with the passwords and ports it had.
	e := start(t, dir)
	if got := e.Env(); got != before {
		t.Error("the folder's connection changed")
	}
	// And with others where that file is damaged.
	if err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "connection.json"), 0); err != nil {
		t.Fatal(err)
	}
	if got := start(t, dir).Env(); got.Password == "" || got.Password == before.Password {
		t.Error("the folder has no connection of its own again")
	}
}

// alive reports whether the process runs; one whose parent has not yet collected
// it is dead.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return len(rest) > 0 && rest[0] != 'Z'
}

func TestSecondServerOnTheFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	e := start(t, dir)
	_, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, ChildCommand: embeddedtest.ChildCommand(t)})
	if !errors.Is(err, embedded.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("second start: %v", err)
	}
	if got := code(t, e.Env(), e.Env().User, e.Env().Password); got != 0 {
		t.Errorf("the first server answers with code %d", got)
	}
}

func TestSecretsAreTheOwnersOnly(t *testing.T) {
	dir := t.TempDir()
	env := start(t, dir).Env()
	for _, name := range []string{"connection.json", "config.xml", "users.xml", "engine.log"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode().Perm())
		}
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(cmdline, []byte(env.Password)) {
		t.Error("the password is on a command line")
	}
	got, err := embedded.ReadEnv(dir)
	if err != nil || got != env {
		t.Errorf("ReadEnv: %v", err)
	}
}

// TestLogHoldsNoValues: an insert that a constraint refuses, a statement that is none, one
// whose rights or client are missing. The engine says so in its log, without their values.
func TestLogHoldsNoValues(t *testing.T) {
	dir := t.TempDir()
	env := start(t, dir).Env()
	if err := query(t, env, "CREATE TABLE seen (who String, CONSTRAINT c CHECK who != 'person-77') ENGINE = MergeTree ORDER BY who", nil); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"INSERT INTO seen VALUES ('person-77')", "SELECT throwIf(who != 'person-77', 'person-77') FROM seen", "SELECT toUInt8('person-77')", "ELECT 'person-77'",
		"SELECT * FROM file('/person-77')", "INSERT INTO seen SELECT 'person-77'",
	} {
		if err := query(t, env, sql, nil); err == nil && !strings.HasPrefix(sql, "SELECT throwIf") {
			t.Errorf("%q succeeds", sql)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+env.HTTPAddress()+"/?query=SELECT+'person-77',sleep(2)", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-ClickHouse-User", env.User)
	req.Header.Set("X-ClickHouse-Key", env.Password)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
	}
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(dir, "engine.log"))
		if err != nil {
			t.Fatal(err)
		}
		if text := string(b); strings.Contains(text, "Code: 469 (VIOLATED_CONSTRAINT)") && strings.Contains(text, "Code: 62 (SYNTAX_ERROR)") {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("the log does not tell what failed:\n%s", b)
		}
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, ".sql") || strings.HasSuffix(path, ".bin") {
			return err // the constraint is in the table's definition
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("person")) {
			t.Errorf("%s holds the value:\n%s", path, b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestConsoleUserOnlyReads(t *testing.T) {
	env := start(t, t.TempDir()).Env()
	if err := query(t, env, "CREATE TABLE seen (x UInt64) ENGINE = MergeTree ORDER BY x", nil); err != nil {
		t.Fatal(err)
	}
	env.User, env.Password = env.ConsoleUser, env.ConsolePassword
	var n uint64
	if err := query(t, env, "SELECT count() FROM seen", &n); err != nil {
		t.Error(err)
	}
	for _, sql := range []string{"INSERT INTO seen VALUES (1)", "DROP TABLE seen", "SELECT * FROM file('/etc/passwd', LineAsString)"} {
		if err := query(t, env, sql, nil); err == nil {
			t.Errorf("console may run %q", sql)
		}
	}
}

func TestEnginesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old := script("clickhouse", "echo ClickHouse server version 18.16.1 revision 54412.")
	recent := script("recent", "echo 'ClickHouse server version 26.3.1.896 (official build).'")
	cases := map[string]struct {
		path string
		want []string
	}{
		"too old":        {old, []string{old, "18.16.1", "26.3"}},
		"not clickhouse": {script("other", "echo hello"), []string{"names no version"}},
		"absent":         {filepath.Join(dir, "none"), []string{"none"}},
		"folder":         {dir, []string{"folder"}},
		"broken package": {script("x.tgz", ""), []string{"SHA-256", "pinned"}},
	}
	for name, c := range cases {
		_, err := embedded.Ensure(t.Context(), embedded.Config{Engine: c.path, CacheDir: filepath.Join(dir, "cache")})
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: error %q does not name %q", name, err, w)
			}
		}
	}
	if got, err := embedded.Ensure(t.Context(), embedded.Config{Engine: recent}); err != nil || got != recent {
		t.Errorf("a recent server binary: %q, %v", got, err)
	}

	// Nothing anywhere: the error names every way. An old one on the PATH is named too.
	t.Setenv("PATH", dir)
	_, err := embedded.Ensure(t.Context(), embedded.Config{CacheDir: filepath.Join(dir, "cache2")})
	if !errors.Is(err, embedded.ErrNoEngine) {
		t.Fatalf("no engine: %v", err)
	}
	for _, w := range []string{"--clickhouse", "--engine", "PATH", "npm", "18.16.1"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not name %q", err, w)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "cache2", "*", "staging-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCheckVersion(t *testing.T) {
	for version, ok := range map[string]bool{"26.3": true, "26.3.1.1": true, "26.10.1": true, "27.1.2": true, "26.2.9": false, "25.12.1": false, "x": false, "": false} {
		if err := embedded.CheckVersion("server", version); (err == nil) != ok {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func TestEngineThatCannotStart(t *testing.T) {
	dir := t.TempDir()
	lib := filepath.Join(dir, "libchdb.so")
	if err := os.WriteFile(lib, []byte("not a library"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.Start(t.Context(), embedded.Config{Dir: filepath.Join(dir, "data"), Engine: lib, ChildCommand: embeddedtest.ChildCommand(t)})
	if err == nil || !strings.Contains(err.Error(), "libchdb.so") {
		t.Fatalf("a broken library: %v", err)
	}
}

func TestStopIsClean(t *testing.T) {
	e := start(t, t.TempDir())
	pid := e.PID()
	began := time.Now()
	for range 2 {
		if err := e.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(began); d > 9*time.Second {
		t.Errorf("stop took %v: it was killed, not stopped", d)
	}
	if alive(pid) {
		t.Error("the child is still there")
	}
	if e.Restarts() != 0 {
		t.Errorf("a stop counted as %d deaths", e.Restarts())
	}
}

// TestADefinitionThatWasCut: a table that may go does not keep the engine from starting
// when a full disk left its definition empty or cut; another does, and stays where it is.
func TestADefinitionThatWasCut(t *testing.T) {
	dir := t.TempDir()
	cfg := embedded.Config{Dir: dir, ChildCommand: embeddedtest.ChildCommand(t), Log: quiet(), Spare: func(table string) bool { return strings.HasPrefix(table, "erase_") }}
	run := func(sql ...string) error {
		e, err := embedded.Start(t.Context(), cfg)
		if err != nil {
			return err
		}
		for _, q := range sql {
			err = errors.Join(err, query(t, e.Env(), q, nil))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		return errors.Join(err, e.Stop(ctx))
	}
	if err := run("CREATE TABLE kept (x UInt64) ENGINE = MergeTree ORDER BY x", "INSERT INTO kept SELECT number FROM numbers(10)", "CREATE TABLE erase_a (x UInt64) ENGINE = MergeTree ORDER BY x"); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "data", "store", "*", "*", "erase_a.sql"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	whole, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	beside := func(name string, text []byte) string {
		file := filepath.Join(filepath.Dir(found[0]), name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	gone := []string{beside("_tmp_replace_04f2965c6da41d23_joutbofw269399bd.sql", nil), beside("erase_b.sql", nil), beside("erase_a.sql", whole[:len(whole)/2])}
	if err := run("SELECT throwIf(count() != 10) FROM kept"); err != nil {
		t.Errorf("with definitions that may go: %v", err)
	}
	for _, file := range gone {
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", file, err)
		}
	}
	other := beside("other.sql", nil)
	if err := run(); err == nil {
		t.Error("a table of one's own that was cut is passed over")
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}
