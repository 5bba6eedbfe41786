package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
)

// slow opens a request, sends part of its body and leaves the rest for later.
func slow(t *testing.T, base, path string, length int, part string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s", path, length, part); err != nil {
		t.Fatal(err)
	}
	return c
}

// answered waits for the answer on a connection and returns status and body.
func answered(t *testing.T, c net.Conn) (int, string) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func predicts(t *testing.T, base string) {
	t.Helper()
	res, err := http.Post(base+"/v2/models/lin/infer", "application/json", strings.NewReader(goodBody))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 {
		t.Errorf("beside slow bodies: %d %s %v", res.StatusCode, b, err)
	}
}

// TestSlowBodiesHoldUpNobody: whoever sends headers and one byte takes no place
// from those who send all, and is told to go when his time is over.
func TestSlowBodiesHoldUpNobody(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxInFlight, c.Timeout = 2, time.Second })
	base := listen(t, r.e)
	paths := []string{"/v2/models/lin/infer", "/v2/models/lin/explain", "/v1/models/lin:predict"}
	var conns []net.Conn
	for i := range 9 {
		conns = append(conns, slow(t, base, paths[i%len(paths)], 1000, "{"))
	}
	for range 5 {
		predicts(t, base)
	}
	for _, c := range conns {
		if status, body := answered(t, c); status != 408 || !strings.Contains(body, "1s") {
			t.Errorf("slow body: %d %s", status, body)
		}
	}
	if p := r.tape.last(t); p.Status != 408 || p.Error == "" {
		t.Errorf("recorded as %d %q", p.Status, p.Error)
	}
}

// TestTooManyBodiesEndTheOldest: where more bodies are being sent than may be, or
// more bytes of them, it is the oldest that goes.
func TestTooManyBodiesEndTheOldest(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.MaxReading, c.MaxReadingBytes, c.MaxBody, c.Timeout = 3, 1<<20, 4<<20, 10*time.Second
	})
	base := listen(t, r.e)
	waiting := func(n int, bytes int64) {
		t.Helper()
		for range 2000 {
			r.s.reading.mu.Lock()
			got, size := r.s.reading.all.Len(), r.s.reading.bytes
			r.s.reading.mu.Unlock()
			if got == n && size >= bytes {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("never %d bodies with %d bytes", n, bytes)
	}
	var conns []net.Conn
	for i := range 3 {
		conns = append(conns, slow(t, base, "/v2/models/lin/infer", 1000, "{"))
		waiting(i+1, 0)
	}
	began := time.Now()
	predicts(t, base)
	if status, body := answered(t, conns[0]); status != 408 || !strings.Contains(body, "many") {
		t.Errorf("the oldest: %d %s", status, body)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the oldest was told after %s", d)
	}
	if p := r.tape.rows; len(p) != 2 || p[0].Status+p[1].Status != 408+200 {
		t.Errorf("%d rows recorded: one that makes room is one too", len(p))
	}
	waiting(2, 0)
	large := slow(t, base, "/v2/models/lin/infer", 3<<20, strings.Repeat(" ", 900<<10))
	waiting(3, 800<<10)
	predicts(t, base) // conns[1] makes room
	waiting(2, 800<<10)
	other := slow(t, base, "/v2/models/lin/infer", len(goodBody)+1<<20, goodBody+strings.Repeat(" ", 900<<10))
	if status, _ := answered(t, large); status != 408 {
		t.Errorf("the older of two large bodies: %d", status)
	}
	if _, err := other.Write([]byte(strings.Repeat(" ", 124<<10))); err != nil {
		t.Fatal(err)
	}
	if status, body := answered(t, other); status != 200 {
		t.Errorf("the newer of two large bodies: %d %s", status, body)
	}
	waiting(1, 0)
}

// TestBodyCutShortIsTheClientsFault: a client that closes its side after half of
// a body still reads its 400.
func TestBodyCutShortIsTheClientsFault(t *testing.T) {
	r := newRig(t, nil)
	c := slow(t, listen(t, r.e), "/v2/models/lin/infer", 1000, `{"inputs"`)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if status, body := answered(t, c); status != 400 || !strings.Contains(body, "Content-Length") {
		t.Errorf("%d %s", status, body)
	}
}

// TestBodiesOfOtherRoutesAreBounded: routes of other packages on the same server
// have a deadline for their bodies too, and none after.
func TestBodiesOfOtherRoutesAreBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Timeout = 200 * time.Millisecond })
	r.e.POST("/elsewhere", func(c echo.Context) error {
		b, err := io.ReadAll(c.Request().Body)
		if err != nil {
			return c.String(408, "slow")
		}
		select {
		case <-c.Request().Context().Done():
			return c.String(499, "gone")
		case <-time.After(500 * time.Millisecond):
		}
		return c.String(200, string(b))
	})
	base := listen(t, r.e)
	if status, _ := answered(t, slow(t, base, "/elsewhere", 10, "x")); status != 408 {
		t.Errorf("slow: %d", status)
	}
	if status, body := answered(t, slow(t, base, "/elsewhere", 3, "xyz")); status != 200 || body != "xyz" {
		t.Errorf("whole: %d %s", status, body)
	}
}
