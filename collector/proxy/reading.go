package proxy

import (
	"container/list"
	"io"
	"net/http"
	"sync"
	"time"
)

// freeBody is how much of a body is read before it counts against the bytes
// being read at once, so that small bodies never wait for large ones.
const freeBody = 64 << 10

// pastTime, set as a deadline, ends a read that is under way.
var pastTime = time.Unix(1, 0)

// reading bounds the bodies that are being read at once, in number and in bytes.
// A body that comes too slowly is ended by its deadline. What is beyond a bound is
// not the newest body but the one that has been read for longest, so whoever
// sends slowly on purpose only pushes out himself.
type reading struct {
	maxBodies int
	maxBytes  int64

	// mu guards everything below and the fields of every incoming.
	mu    sync.Mutex
	all   list.List // of *incoming, the oldest first
	large list.List // those beyond freeBody, the oldest first
	bytes int64
}

// incoming is one body being read. Its Read is the plain body's, decompressed.
type incoming struct {
	src  io.Reader
	conn *http.ResponseController
	in   *reading
	n    int64 // bytes read so far; only the request's goroutine has it

	place, large *list.Element
	counted      int64
	cut          bool
}

// begin puts a body among those being read, to be ended at until. It must be
// ended with end.
func (r *reading) begin(conn *http.ResponseController, until time.Time) *incoming {
	b := &incoming{conn: conn, in: r}
	// Where the connection knows no deadline (a test's), there is nobody to wait
	// for either.
	_ = conn.SetReadDeadline(until)
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.all.Len() >= r.maxBodies {
		r.drop(r.all.Front())
	}
	b.place = r.all.PushBack(b)
	return b
}

// Read reads from the body and counts what came.
func (b *incoming) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	b.n += int64(n)
	if n > 0 && b.n > freeBody {
		b.in.count(b)
	}
	return n, err
}

// count brings the bytes of a large body up to date.
func (r *reading) count(b *incoming) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.cut {
		return
	}
	if b.large == nil {
		b.large = r.large.PushBack(b)
	}
	r.bytes += b.n - b.counted
	b.counted = b.n
	for r.bytes > r.maxBytes && r.large.Len() > 1 {
		r.drop(r.large.Front())
	}
}

// drop ends the read of another body. mu is held, so that the deadline cannot
// fall on a later request of the connection.
func (r *reading) drop(e *list.Element) {
	b := e.Value.(*incoming) //nolint:forcetypeassert // only begin and count push
	b.cut = true
	r.remove(b)
	_ = b.conn.SetReadDeadline(pastTime)
}

func (r *reading) remove(b *incoming) {
	r.all.Remove(b.place)
	if b.large != nil {
		r.large.Remove(b.large)
	}
	r.bytes -= b.counted
}

// end takes a body from among those being read. A whole one leaves its connection
// without a deadline; any other's connection is of no more use and keeps it, so
// that nothing waits for its rest.
func (r *reading) end(b *incoming, whole bool) (cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !b.cut {
		r.remove(b)
	}
	if whole {
		_ = b.conn.SetReadDeadline(time.Time{})
	}
	return b.cut
}

// timed gives the body of a request that another package reads the time that
// ours have.
type timed struct {
	io.ReadCloser
	conn *http.ResponseController
}

// Read clears the deadline when the body has been read: what follows on the
// connection is not the body's.
func (t *timed) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err == io.EOF {
		_ = t.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}
