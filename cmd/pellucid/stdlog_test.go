package main

import (
	"bytes"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// lockedBuffer is a buffer that several goroutines may use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestLibrariesQuoteNothing: bytes that a server sends behind its answer are quoted by net/http
// to the standard logger, and do not stand in ours.
func TestLibrariesQuoteNothing(t *testing.T) {
	var out lockedBuffer
	takeStdLog(slog.New(slog.NewTextHandler(&out, nil)))
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 4096)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
			time.Sleep(50 * time.Millisecond) // the connection is idle by then
			_, _ = io.WriteString(c, `{"trail":"`+canaryText+`"}`)
			time.Sleep(50 * time.Millisecond)
		}
	}()
	resp, err := (&http.Client{Transport: &http.Transport{}}).Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	until(t, "net/http says so", func() bool { return strings.Contains(out.String(), "Unsolicited response") })
	if strings.Contains(out.String(), canaryText) {
		t.Errorf("the log has what was sent: %s", out.String())
	}
	log.Print("plain words")
	if !strings.Contains(out.String(), "plain words") {
		t.Errorf("what quotes nothing is not said: %s", out.String())
	}
}
