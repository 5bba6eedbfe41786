package clickhouse

import (
	"context"
	"fmt"
	"math/rand"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
	"github.com/pellucid/pellucid/engine/stats"
)

// cutter stands between a client and a server and breaks each connection after some
// bytes: at once, or by keeping the server's answer to itself, which by then has done
// what it was asked.
type cutter struct {
	listener      net.Listener
	server        string
	most          int
	cuts, swallow atomic.Int64
	wg            sync.WaitGroup
	mu            sync.Mutex // guards rng and open
	rng           *rand.Rand
	open          map[net.Conn]bool
}

func newCutter(t *testing.T, server string, most int, seed int64) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, server: server, most: most, rng: rand.New(rand.NewSource(seed)), open: map[net.Conn]bool{}}
	c.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed at the end of the test
			}
			c.wg.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		c.mu.Lock()
		for conn := range c.open {
			_ = conn.Close()
		}
		c.mu.Unlock()
		c.wg.Wait()
	})
	return c
}

func (c *cutter) hold(conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		c.open[conn] = true
	}
}

// serve passes bytes on both ways until the connection's end.
func (c *cutter) serve(client net.Conn) {
	server, err := net.Dial("tcp", c.server)
	if err != nil {
		_ = client.Close()
		return
	}
	c.hold(client, server)
	c.mu.Lock()
	left, quiet := c.rng.Intn(c.most), c.rng.Intn(2) == 0
	c.mu.Unlock()
	end := func() {
		_ = client.Close()
		_ = server.Close()
	}
	var silent atomic.Bool // the server is not heard any more
	c.wg.Go(func() {
		defer end()
		b := make([]byte, 16<<10)
		for {
			n, err := server.Read(b)
			if n > 0 && silent.Load() {
				c.swallow.Add(1)
				return
			}
			if err != nil {
				return
			}
			if _, err := client.Write(b[:n]); err != nil {
				return
			}
		}
	})
	defer end()
	b := make([]byte, 4<<10)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		if left -= n; left < 0 && !silent.Load() {
			if !quiet {
				_, _ = server.Write(b[:max(0, left+n)]) // the rest never comes
				c.cuts.Add(1)
				return
			}
			silent.Store(true)
		}
		if _, err := server.Write(b[:n]); err != nil {
			return
		}
	}
}

// TestConnectionsCutAfterTheCommit: whatever byte a connection ends at, and however often
// the server has stored what it could not confirm, each row is there and counted once.
func TestConnectionsCutAfterTheCommit(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	dsn := embeddedtest.DSN(t)
	direct, m := openDSN(t, dsn), newMaker(t)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	c := newCutter(t, u.Host, 80<<10, seed)
	u.Host = c.listener.Addr().String()
	ref := m.reference(t, 300)
	src, rows := &list{}, 0
	for i := range 80 {
		b := &collector.Batch{Token: fmt.Sprintf("b%03d", i), Records: []collector.Record{m.schemaRecord(t)}}
		for k := range 40 {
			p := m.prediction(t, 1+k%4, base.AddDate(0, k%2, 0).Add(time.Duration(i)*time.Second))
			rows += p.Rows
			b.Records = append(b.Records, record(p), feedback(&collector.Feedback{Tenant: "default", PredictionID: p.ID, Label: "1", ObservedAt: base, ReceivedAt: p.ReceivedAt}))
		}
		src.batches = append(src.batches, b)
	}
	total := src.left()
	var s *Store
	for s == nil { // opening goes through it as well
		if s, err = Open(t.Context(), Config{DSN: u.String()}); err != nil && t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = s.Close() }) // of connections that are cut by now
	w := writer(t, s, WriterConfig{Source: src, Backoff: 2 * time.Millisecond, BackoffMax: 5 * time.Millisecond, Reference: func(string) *stats.Reference { return ref }})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for deadline := time.Now().Add(3 * time.Minute); src.left() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d batches left after three minutes: %v", src.left(), w.Health().Err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m.consistent(t, direct, rows)
	if n := number(t, direct, "SELECT count() FROM feedback"); n != float64(40*total) {
		t.Errorf("%v labels, not %d", n, 40*total)
	}
	if c.cuts.Load() < 20 || c.swallow.Load() < 20 || w.Health().Retries < 40 {
		t.Errorf("only %d cuts, %d answers swallowed, %d retries", c.cuts.Load(), c.swallow.Load(), w.Health().Retries)
	}
	t.Logf("%d rows in %d batches, %d cuts, %d answers swallowed, %d retries", rows, total, c.cuts.Load(), c.swallow.Load(), w.Health().Retries)
}
