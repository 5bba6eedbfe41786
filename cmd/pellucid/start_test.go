package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

// begin starts a server, and says how that went.
func begin(t *testing.T, cfg config) (log *journal, started <-chan error) {
	t.Helper()
	log = &journal{}
	done := make(chan error, 1)
	var s *server
	go func() {
		var err error
		s, err = startServer(t.Context(), cfg, slog.New(slog.NewTextHandler(log, nil)), io.Discard)
		if err == nil {
			t.Cleanup(func() { (&rig{server: s, log: log}).halt(t) })
		}
		done <- err
	}()
	return log, done
}

// TestStartWaitsForClickHouse starts servers while ClickHouse is away, and goes away at
// any moment of the start: they go on when it is back, having said so once.
func TestStartWaitsForClickHouse(t *testing.T) {
	const away = "clickhouse is away"
	cfg := testConfig(t, t.TempDir())
	f := forwarded(t, &cfg)
	f.cut()
	log, started := begin(t, cfg)
	until(t, "told", func() bool { return strings.Contains(log.String(), away) })
	f.open(t)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), away); n != 1 {
		t.Errorf("told %d times:\n%s", n, log)
	}
	for i := range 10 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			cfg := testConfig(t, t.TempDir())
			f := forwarded(t, &cfg)
			_, started := begin(t, cfg)
			time.Sleep(time.Duration(i*10) * time.Millisecond)
			f.cut()
			f.open(t)
			if err := <-started; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestStartRefusesAtOnce: what waiting does not mend is no reason to wait.
func TestStartRefusesAtOnce(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	u, err := url.Parse(cfg.ClickHouse)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("app", "wrong")
	cfg.ClickHouse = u.String()
	log, started := begin(t, cfg)
	if err := <-started; err == nil || !strings.Contains(err.Error(), "code: 516") || log.String() != "" {
		t.Errorf("%v\n%s", err, log)
	}
}

// TestStartWaitsForItsPort takes ports that are free a moment later, as a killed
// server's are, and refuses those of others.
func TestStartWaitsForItsPort(t *testing.T) {
	hold := func() net.Listener {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	web, rpc := hold(), hold()
	cfg := testConfig(t, t.TempDir())
	cfg.HTTP, cfg.GRPC = web.Addr().String(), rpc.Addr().String()
	for _, want := range []string{"--http", "--grpc"} {
		_, started := begin(t, cfg)
		if err := <-started; err == nil || !strings.Contains(err.Error(), "another program has the port? choose one with "+want) {
			t.Errorf("taken: %v", err)
		}
		cfg.HTTP = "127.0.0.1:0"
	}
	cfg.HTTP = web.Addr().String()
	_, started := begin(t, cfg)
	time.Sleep(portWait / 10)
	for _, l := range []net.Listener{web, rpc} {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
}
