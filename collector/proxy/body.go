package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector/proxy/oip"
)

const (
	// keepBuffer is the largest buffer that goes back to its pool.
	keepBuffer = 1 << 20
	// compressFrom is the smallest answer worth compressing.
	compressFrom = 1400
)

var (
	buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}
	scratch = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}
	gunzips = sync.Pool{New: func() any { return new(gzip.Reader) }}
	gzips   = sync.Pool{New: func() any { return gzip.NewWriter(io.Discard) }}
	zlibs   = sync.Pool{New: func() any { return zlib.NewWriter(io.Discard) }}
)

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= keepBuffer {
		b.Reset()
		buffers.Put(b)
	}
}

// readBody reads and decompresses a request's body into a pooled buffer, which
// the caller gives back with putBuffer. Both the bytes sent and the bytes they
// decompress to are bounded, and so is the time it takes.
func (s *Server) readBody(c echo.Context) (*bytes.Buffer, error) {
	r := c.Request()
	if r.ContentLength > s.cfg.MaxBody {
		s.drain(c)
		return nil, s.tooLarge()
	}
	if r.Body == nil || r.Body == http.NoBody {
		return buffers.Get().(*bytes.Buffer), nil
	}
	in := s.reading.begin(http.NewResponseController(c.Response()), time.Now().Add(s.cfg.Timeout))
	buf, err := s.readWhole(r, in)
	cut := s.reading.end(in, err == nil)
	var f *failure
	switch {
	case err == nil:
		return buf, nil
	case errors.As(err, &f) && f.status == http.StatusRequestEntityTooLarge:
		s.drain(c)
		return nil, err
	case cut:
		err = &failure{status: http.StatusRequestTimeout, message: "the body came too slowly while many were being sent"}
	}
	c.Response().Header().Set("Connection", "close")
	return nil, err
}

// readWhole reads a body that is among those being read.
func (s *Server) readWhole(r *http.Request, in *incoming) (*bytes.Buffer, error) {
	src, done, err := s.decompress(r)
	if err != nil {
		return nil, err
	}
	defer done()
	in.src = src
	buf := buffers.Get().(*bytes.Buffer)
	if n := r.ContentLength; n > 0 {
		// What a client claims is believed up to a bound; the rest grows as it comes.
		buf.Grow(int(min(n, freeBody)) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(in, s.cfg.MaxBody+1))
	switch {
	case err != nil:
		putBuffer(buf)
		return nil, s.bodyError(r, err)
	case n > s.cfg.MaxBody:
		putBuffer(buf)
		return nil, s.tooLarge()
	}
	return buf, nil
}

func (s *Server) tooLarge() error {
	return fail(http.StatusRequestEntityTooLarge, "the body is larger than the limit of %d bytes", oip.Number(s.cfg.MaxBody))
}

// bodyError says why a body could not be read. The server ends the request's
// context with any error of the connection, so that is looked at last.
func (s *Server) bodyError(r *http.Request, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fail(http.StatusRequestTimeout, "the body did not come within the time limit of %s", oip.Own(s.cfg.Timeout.String()))
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" && r.Context().Err() == nil {
		return fail(http.StatusBadRequest, "the body is not valid %s data", enc)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fail(http.StatusBadRequest, "the body ends before its Content-Length")
	}
	if r.Context().Err() != nil {
		return r.Context().Err()
	}
	return fail(http.StatusBadRequest, "the body could not be read")
}

// drain reads on past the limit, a little while, so that a client which is still
// writing gets to read its 413 instead of a broken connection.
func (s *Server) drain(c echo.Context) {
	r := c.Request()
	if r.Header.Get("Expect") != "" {
		return // it waits for us before it writes
	}
	if err := http.NewResponseController(c.Response()).SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return // without a deadline a slow client would hold us
	}
	// Whatever ends this, the answer is the same 413.
	_, _ = io.CopyN(io.Discard, r.Body, 4*s.cfg.MaxBody)
	c.Response().Header().Set("Connection", "close")
}

// bound gives a body that another package's route reads the time that ours have.
func (s *Server) bound(c echo.Context) {
	r := c.Request()
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	conn := http.NewResponseController(c.Response())
	if conn.SetReadDeadline(time.Now().Add(s.cfg.Timeout)) != nil {
		return // no connection to wait for
	}
	// The server looks at its own request's body when the answer is sent, so that
	// is left as it is.
	own := r.WithContext(r.Context())
	own.Body = &timed{r.Body, conn}
	c.SetRequest(own)
}

func nothing() {}

// decompress returns the reader of a request's plain body.
func (s *Server) decompress(r *http.Request) (src io.Reader, done func(), err error) {
	switch enc := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); enc {
	case "", "identity":
		return r.Body, nothing, nil
	case "gzip", "x-gzip":
		z := gunzips.Get().(*gzip.Reader)
		if err := z.Reset(r.Body); err != nil {
			gunzips.Put(z)
			return nil, nil, s.bodyError(r, err)
		}
		return z, func() { gunzips.Put(z) }, nil
	case "deflate":
		// In HTTP, deflate is the zlib form.
		z, err := zlib.NewReader(r.Body)
		if err != nil {
			return nil, nil, s.bodyError(r, err)
		}
		return z, func() { _ = z.Close() }, nil
	}
	return nil, nil, fail(http.StatusUnsupportedMediaType, "the content encoding is not supported: gzip and deflate are")
}

// headerLength reads Inference-Header-Content-Length: oip.NoHeader where it is
// not set.
func headerLength(r *http.Request, body int) (int, error) {
	text := r.Header.Get("Inference-Header-Content-Length")
	if text == "" {
		return oip.NoHeader, nil
	}
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || n < 0:
		return 0, fail(http.StatusBadRequest, "Inference-Header-Content-Length is not a number of bytes")
	case n > body:
		return 0, fail(http.StatusBadRequest, "Inference-Header-Content-Length is %d, the body has %d bytes", n, oip.Number(body))
	}
	return n, nil
}

// encoding returns the content encoding an answer may have: "gzip", "deflate" or
// "" for none. gzip wins where both are as welcome.
func encoding(accept string) string {
	if accept == "" {
		return ""
	}
	best, quality := "", 0.0
	for part := range strings.SplitSeq(accept, ",") {
		name, params, _ := strings.Cut(part, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		if name == "*" || name == "x-gzip" {
			name = "gzip"
		}
		if name != "gzip" && name != "deflate" {
			continue
		}
		q := 1.0
		if v, ok := strings.CutPrefix(strings.TrimSpace(params), "q="); ok {
			var err error
			if q, err = strconv.ParseFloat(strings.TrimSpace(v), 64); err != nil {
				continue
			}
		}
		if q > quality || q == quality && q > 0 && name == "gzip" {
			best, quality = name, q
		}
	}
	return best
}

// send writes an answer of status 200, compressed where the client takes it and
// it is worth it.
func send(c echo.Context, contentType string, body []byte) error {
	res := c.Response()
	h := res.Header()
	h["Content-Type"] = contentTypes[contentType]
	enc := ""
	if len(body) >= compressFrom {
		enc = encoding(c.Request().Header.Get("Accept-Encoding"))
		h.Add("Vary", "Accept-Encoding")
	}
	if enc != "" {
		packed := buffers.Get().(*bytes.Buffer)
		defer putBuffer(packed)
		if err := compress(packed, enc, body); err != nil {
			return err
		}
		h.Set("Content-Encoding", enc)
		body = packed.Bytes()
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	res.WriteHeader(http.StatusOK)
	// The prediction stands whether or not the client is still there to read it.
	_, _ = res.Write(body)
	return nil
}

// compressor is what gzip and zlib writers have in common.
type compressor interface {
	io.WriteCloser
	Reset(io.Writer)
}

func compress(dst *bytes.Buffer, enc string, body []byte) error {
	pool := &gzips
	if enc == "deflate" {
		pool = &zlibs
	}
	z := pool.Get().(compressor)
	defer pool.Put(z)
	z.Reset(dst)
	if _, err := z.Write(body); err != nil {
		return err
	}
	return z.Close()
}
