package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sys/unix"

	"github.com/pellucid/pellucid/collector/proxy"
	"github.com/pellucid/pellucid/collector/repository"
)

// server is one server under load, a process of its own.
type server struct {
	name, addr, data string
	binary           string
	cmd              *exec.Cmd
	out              *bytes.Buffer
	ready            time.Duration
}

// start runs a server, on one core (a number) or on all (-1), and waits until it
// is ready. folder names its data, kept from one start to the next.
func start(ctx context.Context, o options, name, folder string, core int) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{name: name, addr: l.Addr().String(), binary: o.binary, data: filepath.Join(o.dir, folder), out: &bytes.Buffer{}}
	if err := l.Close(); err != nil {
		return nil, err
	}
	models := filepath.Join(o.dir, "models")
	config := filepath.Join(o.dir, name+".yaml")
	if err := os.WriteFile(config, []byte("capture: {durability: "+name+"}\n"), 0o600); err != nil {
		return nil, err
	}
	args := []string{o.binary, "serve", "--config", config, "--http", s.addr, "--models", models, "--data", s.data}
	if !s.records() {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		args = []string{self, "-role", name, "-addr", s.addr, "-dir", o.dir}
	}
	if core >= 0 {
		args = append([]string{"taskset", "-c", strconv.Itoa(core)}, args...)
	}
	s.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if core >= 0 {
		s.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	}
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for {
		if res, err := http.Get("http://" + s.addr + "/readyz"); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				s.ready = time.Since(began)
				return s, nil
			}
		}
		if time.Since(began) > 2*time.Minute {
			s.stop()
			return nil, fmt.Errorf("%s is not ready after two minutes: %s", name, s.out)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// records reports whether it is the real binary, named by its durability.
func (s *server) records() bool {
	return s.name == "process" || s.name == "machine" || s.name == "none"
}

func (s *server) stop() {
	if s.cmd.ProcessState != nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// usage is seconds of CPU, user and system.
type usage struct{ own, child float64 }

// cpu returns what the server and its children have used so far.
func (s *server) cpu() (usage, error) {
	own, err := processCPU(s.cmd.Process.Pid)
	u := usage{own: own}
	if err != nil {
		return u, err
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", s.cmd.Process.Pid))
	if err != nil {
		return u, err
	}
	// The engine is started from another thread than the first.
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.cmd.Process.Pid))
	for _, path := range tasks {
		if list, err := os.ReadFile(path); err == nil {
			children = append(append(children, ' '), list...)
		}
	}
	seen := map[string]bool{}
	for _, id := range strings.Fields(string(children)) {
		pid, err := strconv.Atoi(id)
		if err != nil || seen[id] {
			continue
		}
		seen[id] = true
		used, err := processCPU(pid)
		if err != nil {
			return u, err
		}
		u.child += used
	}
	return u, nil
}

func processCPU(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	const ticks = 100 // a second, on every Linux that Go runs on
	return (user + system) / ticks, errors.Join(err1, err2)
}

func threads() ([]int, error) {
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	out := make([]int, 0, len(list))
	for _, e := range list {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

// affinity is the cores this process may use.
func affinity() (unix.CPUSet, error) {
	var set unix.CPUSet
	err := unix.SchedGetaffinity(0, &set)
	return set, err
}

// setAffinity puts every thread of this process on some cores.
func setAffinity(set unix.CPUSet) error {
	// Threads made later inherit it from the one that makes them.
	tasks, err := threads()
	if err != nil {
		return err
	}
	for _, id := range tasks {
		if err := unix.SchedSetaffinity(id, &set); err != nil {
			return fmt.Errorf("choose cores: %w", err)
		}
	}
	return nil
}

// settle lets the server's rows reach ClickHouse, so that the next measurement
// does not pay for this one.
func (s *server) settle(ctx context.Context) { _ = s.drained(ctx) }

// drained waits until nothing is left in the spool.
func (s *server) drained(ctx context.Context) error {
	for range 6000 {
		n, err := s.metric(ctx, "ml_spool_pending_records")
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("the spool did not drain in a minute")
}

// metric reads one number off /metrics.
func (s *server) metric(ctx context.Context, name string) (float64, error) {
	body, err := get(ctx, "http://"+s.addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(body, "\n") {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			return strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// appendStage returns quantiles, in seconds, of the time until a record was as
// durable as configured, as the server's own histogram has them (the upper end of the
// bucket they fall in).
func (s *server) appendStage(ctx context.Context) (p50, p99 float64, err error) {
	body, err := get(ctx, "http://"+s.addr+"/metrics", nil)
	if err != nil {
		return 0, 0, err
	}
	var edges, counts []float64
	for _, line := range strings.Split(body, "\n") {
		if !strings.HasPrefix(line, "ml_capture_append_duration_seconds_bucket{") || !strings.Contains(line, `"prediction"`) {
			continue
		}
		_, rest, _ := strings.Cut(line, `le="`)
		edge, value, _ := strings.Cut(rest, `"} `)
		if i := strings.IndexByte(value, ' '); i >= 0 {
			value = value[:i]
		}
		e, err1 := strconv.ParseFloat(edge, 64)
		n, err2 := strconv.ParseFloat(value, 64)
		if err := errors.Join(err1, err2); err != nil {
			return 0, 0, fmt.Errorf("read %q: %w", line, err)
		}
		edges, counts = append(edges, e), append(counts, n)
	}
	if len(counts) == 0 {
		return 0, 0, errors.New("no histogram of the append stage")
	}
	at := func(q float64) float64 {
		for i, n := range counts {
			if n >= q*counts[len(counts)-1] {
				return edges[i]
			}
		}
		return edges[len(edges)-1]
	}
	return at(0.5), at(0.99), nil
}

func get(ctx context.Context, url string, header http.Header) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, b)
	}
	return string(b), err
}

// stored returns the bytes on disk and the rows of the predictions table, merged.
func (s *server) stored(ctx context.Context) (size, rows float64, err error) {
	out, err := exec.CommandContext(ctx, s.binary, "clickhouse", "env", "--data", s.data).Output()
	if err != nil {
		return 0, 0, fmt.Errorf("clickhouse env: %w", err)
	}
	env := map[string]string{}
	for _, line := range strings.Split(string(out), "\n") {
		k, v, _ := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		env[k] = strings.Trim(v, `'"`)
	}
	header := http.Header{"X-Clickhouse-User": {env["CLICKHOUSE_USER"]}, "X-Clickhouse-Key": {env["CLICKHOUSE_PASSWORD"]}, "X-Clickhouse-Database": {env["CLICKHOUSE_DATABASE"]}}
	ask := func(query string) (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+env["CLICKHOUSE_HTTP"]+"/", strings.NewReader(query))
		if err != nil {
			return "", err
		}
		req.Header = header
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", res.Status, b)
		}
		return strings.TrimSpace(string(b)), err
	}
	if _, err := ask("OPTIMIZE TABLE predictions FINAL"); err != nil {
		return 0, 0, err
	}
	line, err := ask("SELECT sum(bytes_on_disk), sum(rows) FROM system.parts WHERE active AND table = 'predictions' AND database = currentDatabase()")
	if err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscan(line, &size, &rows)
	return size, rows, err
}

// serveRole is what this program does as one of the servers it measures.
func serveRole(o options) error {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	switch o.role {
	case "floor":
		e.GET("/readyz", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
		e.POST("/v2/models/:model/infer", floor)
	case "handler":
		store, err := os.MkdirTemp(o.dir, "store-")
		if err != nil {
			return err
		}
		log := slog.New(slog.DiscardHandler)
		models, err := repository.Open(context.Background(), repository.Config{Dir: filepath.Join(o.dir, "models"), Store: store, Log: log})
		if err != nil {
			return err
		}
		p, err := proxy.New(proxy.Config{
			Models: models, TracerProvider: tracenoop.NewTracerProvider(), MeterProvider: metricnoop.NewMeterProvider(), Logger: log,
		})
		if err != nil {
			return err
		}
		p.Register(e)
	default:
		return fmt.Errorf("no role %q", o.role)
	}
	return e.Start(o.addr)
}

// floor decodes the request as plain Go would and answers the same number
// always.
func floor(c echo.Context) error {
	var q struct {
		Inputs []struct {
			Name, Datatype string
			Shape          []int
			Data           []float32
		}
	}
	if err := json.NewDecoder(c.Request().Body).Decode(&q); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"model_name": "m", "model_version": "1", "outputs": []any{map[string]any{
		"name": "prediction", "datatype": "FP32", "shape": []int{1}, "data": []float32{0.5},
	}}})
}
