package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Back-off of the restarts: it doubles from first to most, and starts over after
// the child has lived for backoffReset.
const (
	backoffFirst = 200 * time.Millisecond
	backoffMost  = 10 * time.Second
	backoffReset = time.Second
)

// startTries is how many lives the first may take, fullEvery how often it is told that
// the disk has no room for it.
const (
	startTries = 3
	fullEvery  = 10 * time.Second
)

// Engine is a running, supervised ClickHouse.
type Engine struct {
	cfg     Config
	path    string // the library or the server binary
	env     Env
	version string
	unlock  func()

	restarts atomic.Int64
	// nearlyFull is when the disk was last seen with less room than is kept.
	nearlyFull atomic.Int64
	stopOnce   sync.Once
	stop       chan struct{} // closed by Stop
	done       chan struct{} // closed when the supervisor has ended

	mu    sync.Mutex // guards child
	child *child
}

// child is one life of the engine's process.
type child struct {
	cmd    *exec.Cmd
	master *os.File // the pty that is its stdin; nil for a server binary
	since  time.Time
	exited chan struct{} // closed once err and said are set
	err    error
	said   string // the log's last lines
}

// Start finds the engine (Ensure), takes the folder's lock, starts the child and
// waits for its first answer. From then on a child that dies is started again,
// on the same ports and data, until Stop.
func Start(ctx context.Context, cfg Config) (*Engine, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "data"), 0o700); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	// The lock comes before the engine, so that a second server is told at once.
	unlock, err := lockFile(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock data folder %q: %w", cfg.Dir, err)
	}
	if err := roomToBegin(cfg.Dir); err != nil {
		unlock()
		return nil, err
	}
	path, err := Ensure(ctx, cfg)
	if err != nil {
		unlock()
		return nil, err
	}
	e := &Engine{cfg: cfg, path: path, unlock: unlock, stop: make(chan struct{}), done: make(chan struct{})}
	c, err := e.firstLife(ctx)
	if err != nil {
		unlock()
		return nil, fmt.Errorf("start embedded clickhouse in %q: %w", cfg.Dir, err)
	}
	e.tellBroken()
	go e.supervise(c) // ends on Stop
	return e, nil
}

// firstLife starts the child for the first time. Between choosing a port and binding it
// someone else may take it: then that life ends, and others are tried. On a full disk it
// waits for room until ctx ends: a server that is started there goes on when there is some.
func (e *Engine) firstLife(ctx context.Context) (*child, error) {
	var told time.Time
	for try := 0; ; {
		var err error
		if e.env, err = loadEnv(e.cfg.Dir, try > 0); err == nil {
			var c *child
			if c, err = e.startChild(ctx); err == nil {
				return c, nil
			}
			try++
		}
		full := errors.Is(err, syscall.ENOSPC)
		if ctx.Err() != nil || !full && (try == 0 || try == startTries) {
			return nil, err
		}
		if !full {
			continue
		}
		if time.Since(told) >= fullEvery {
			told = time.Now()
			e.cfg.Log.Warn("the disk is full: clickhouse starts as soon as it has room", "folder", e.cfg.Dir, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(pressureEvery):
		}
	}
}

// tellBroken says which parts the server has set aside as damaged: their rows are
// missing unless what they were merged from was still there.
func (e *Engine) tellBroken() {
	broken, err := filepath.Glob(filepath.Join(e.cfg.Dir, "data", "store", "*", "*", "detached", "broken*"))
	if err == nil && len(broken) > 0 {
		e.cfg.Log.Error("clickhouse has set damaged parts aside; what they were merged from is used where it is still there", "parts", len(broken), "first", broken[0])
	}
}

// Env returns the engine's addresses, users and passwords.
func (e *Engine) Env() Env { return e.env }

// Version returns the ClickHouse version that answers.
func (e *Engine) Version() string { return e.version }

// Restarts returns how often the child has died unasked.
func (e *Engine) Restarts() int64 { return e.restarts.Load() }

// PID returns the process id of the child's present life.
func (e *Engine) PID() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.child.cmd.Process.Pid
}

// Stop ends the child cleanly, and by force when the grace time or ctx is over.
// It may be called more than once.
func (e *Engine) Stop(ctx context.Context) error {
	e.stopOnce.Do(func() { close(e.stop) })
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
	}
	e.mu.Lock()
	_ = e.child.cmd.Process.Kill() // it may just have ended
	e.mu.Unlock()
	<-e.done
	return fmt.Errorf("stop embedded clickhouse: killed: %w", ctx.Err())
}

func (e *Engine) supervise(c *child) {
	defer close(e.done)
	defer e.unlock()
	wait := backoffFirst
	full := make(chan struct{})
	go e.watchDisk(full) // ends on Stop
	for {
		select {
		case <-e.stop:
			e.end(c)
			return
		case <-full:
			e.cfg.Log.Warn("the disk was full: clickhouse is started again, so that it finds what is damaged", "folder", e.cfg.Dir)
			e.end(c)
		case <-c.exited:
			e.died(c.err)
		}
		if time.Since(c.since) > backoffReset {
			wait = backoffFirst
		}
		if c = e.revive(&wait); c == nil {
			return
		}
	}
}

// revive starts the next life, trying for ever; nil means that Stop came first.
func (e *Engine) revive(wait *time.Duration) *child {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with revive
		select {
		case <-e.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		select {
		case <-e.stop:
			return nil
		case <-time.After(*wait):
		}
		*wait = min(2**wait, backoffMost)
		c, err := e.startChild(ctx)
		if err == nil {
			e.cfg.Log.Info("embedded clickhouse is back", "folder", e.cfg.Dir, "address", e.env.Address())
			e.tellBroken()
			return c
		}
		if ctx.Err() == nil {
			e.died(err)
		}
	}
}

// died counts and reports one life's end that was not asked for.
func (e *Engine) died(err error) {
	n := e.restarts.Add(1)
	e.cfg.Log.Error("embedded clickhouse died", "folder", e.cfg.Dir, "error", err, "count", n)
	if e.cfg.OnExit != nil {
		e.cfg.OnExit(err, n)
	}
}

// startChild starts one life and waits until it answers.
func (e *Engine) startChild(ctx context.Context) (*child, error) {
	server := !isLibrary(e.path)
	if err := writeConfig(e.cfg, e.env, server); err != nil {
		return nil, err
	}
	if err := e.dropCut(); err != nil {
		return nil, err
	}
	command := e.command(server)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = e.cfg.Dir
	log, err := openLog(e.cfg.Dir, e.cfg.Log)
	if err != nil {
		return nil, err
	}
	from, to, err := os.Pipe()
	if err != nil {
		log.close()
		return nil, fmt.Errorf("make a pipe for the engine's log: %w", err)
	}
	cmd.Stdout, cmd.Stderr = to, to
	c := &child{cmd: cmd, since: time.Now(), exited: make(chan struct{})}
	master, exited, err := launch(cmd, !server)
	to.Close()
	if err != nil {
		from.Close()
		log.close()
		return nil, err
	}
	c.master = master
	sifted := make(chan string, 1)
	go func() { // ends with the child, whose end of the pipe is the last
		log.follow(from)
		from.Close()
		sifted <- log.close()
	}()
	go func() { // ends with the child
		err := exitError(<-exited)
		if c.master != nil {
			c.master.Close()
		}
		c.err, c.said = err, <-sifted
		close(c.exited)
	}()
	e.mu.Lock()
	e.child = c
	e.mu.Unlock()
	if err := e.awaitReady(ctx, c); err != nil {
		_ = cmd.Process.Kill() // it may just have ended
		<-c.exited
		return nil, fmt.Errorf("%w%s", err, c.said)
	}
	return c, nil
}

func exitError(err error) error {
	if err == nil {
		return errors.New("the engine ended")
	}
	return fmt.Errorf("the engine ended: %w", err)
}

func (e *Engine) command(server bool) []string {
	config := filepath.Join(e.cfg.Dir, "config.xml")
	if server {
		return []string{e.path, "server", "--config-file", config}
	}
	command := e.cfg.ChildCommand
	if len(command) == 0 {
		exe, err := os.Executable()
		if err != nil {
			exe = os.Args[0]
		}
		command = []string{exe}
	}
	return append(append([]string{}, command...), childCommand, e.path,
		"--config-file", config, "--path", filepath.Join(e.cfg.Dir, "data"),
		"--listen_host", e.env.Host, "--tcp_port", strconv.Itoa(e.env.Port), "--http_port", strconv.Itoa(e.env.HTTPPort),
		"--structure", "l String", "--input-format", "LineAsString",
		"--interactive", "--progress", "off", "--progress-table", "off", "--history_file", "/dev/null", "--disable_suggestion",
		"--log-level", "information",
		"--query", "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; SELECT count() FROM table")
}

// awaitReady asks the child over HTTP (the listener it opens last) until it
// answers as the app user.
func (e *Engine) awaitReady(ctx context.Context, c *child) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.StartTimeout)
	defer cancel()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var last error
	for {
		version, err := e.ask(ctx, client)
		if err == nil {
			if err := CheckVersion("the engine", version); err != nil {
				return err
			}
			e.version = version
			return nil
		}
		last = err
		select {
		case <-c.exited:
			return c.err
		case <-ctx.Done():
			return fmt.Errorf("wait for the engine's first answer: %w (last: %w)", ctx.Err(), last)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (e *Engine) ask(ctx context.Context, client *http.Client) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.env.HTTPAddress()+"/?query=SELECT+version()", nil)
	if err != nil {
		return "", fmt.Errorf("ask the engine: %w", err)
	}
	req.Header.Set("X-ClickHouse-User", e.env.User)
	req.Header.Set("X-ClickHouse-Key", e.env.Password)
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask the engine: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return "", fmt.Errorf("ask the engine: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("ask the engine: status %d: %s", resp.StatusCode, strings.TrimSpace(string(body)))
	}
	// The native listener opens first; see that it is there.
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.env.Address())
	if err != nil {
		return "", fmt.Errorf("dial the engine: %w", err)
	}
	return strings.TrimSpace(string(body)), conn.Close()
}

// end stops a life: the library by closing its stdin, a server by a signal, and
// either by force after the grace time.
func (e *Engine) end(c *child) {
	if c.master != nil {
		c.master.Close()
	} else {
		_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
	}
	select {
	case <-c.exited:
	case <-time.After(e.cfg.StopGrace):
		e.cfg.Log.Warn("embedded clickhouse did not stop in time: killed", "folder", e.cfg.Dir, "grace", e.cfg.StopGrace)
		_ = c.cmd.Process.Kill() // it may just have ended
		<-c.exited
	}
}
