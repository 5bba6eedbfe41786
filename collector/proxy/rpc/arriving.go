package rpc

import (
	"container/list"
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"google.golang.org/grpc/mem"
)

const (
	// countedBuffer is the smallest buffer that is counted: what lies below is of calls
	// whose number is bounded.
	countedBuffer = 4 << 10
	// dropEvery is the least time between two calls that are dropped: the memory of the
	// first comes back a moment later.
	dropEvery = 5 * time.Millisecond
)

// arriving bounds the bytes of messages that are still coming, over all calls. What is
// beyond the bound is not the newest message but the one that has been coming for
// longest, as with the bodies of HTTP: who sends slowly only pushes out himself. It is
// the mem.BufferPool that the transport takes its buffers from.
type arriving struct {
	max  int64
	pool mem.BufferPool

	// mu guards everything below and every arrival's place.
	mu   sync.Mutex
	all  list.List // of *arrival, the oldest first
	held int64
	lent map[weak.Pointer[[]byte]]loan
	// looking says that the bound is looked at again in a moment.
	looking bool
}

// loan is a buffer that has not come back. back undoes it where nobody ever puts it
// back, since its call broke off.
type loan struct {
	size int64
	back runtime.Cleanup
}

// arrival is a call from when it begins to come.
type arrival struct {
	of     *arriving
	cancel context.CancelFunc
	place  *list.Element // nil while nothing is coming
	// late says that it was ended since nothing came for too long, or for the bytes of others.
	late atomic.Bool

	// What follows is its own goroutine's.
	method string
	start  time.Time
	// guarded says that guard counts it, unread that its last message could not be read.
	guarded, unread bool
	// malformed says that the last message was none. It is kept until guard has it.
	malformed bool
	message   any
}

type arrivalKey struct{}

// arrivalOf is the call of a context, which tap has put there.
func arrivalOf(ctx context.Context) *arrival {
	return ctx.Value(arrivalKey{}).(*arrival) //nolint:forcetypeassert // every call's context has one
}

func newArriving(limit int64) *arriving {
	return &arriving{max: limit, pool: mem.DefaultBufferPool(), lent: map[weak.Pointer[[]byte]]loan{}}
}

// begin notes that a message of the call is coming.
func (a *arriving) begin(x *arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x.place == nil {
		x.place = a.all.PushBack(x)
	}
}

// end notes that it has come, or never will.
func (a *arriving) end(x *arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x.place != nil {
		a.all.Remove(x.place)
		x.place = nil
	}
}

// Get implements mem.BufferPool.
func (a *arriving) Get(n int) *[]byte {
	b := a.pool.Get(n)
	if n < countedBuffer {
		return b
	}
	key := weak.Make(b)
	l := loan{size: int64(n), back: runtime.AddCleanup(b, a.forget, key)}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lent[key] = l
	if a.held += l.size; a.held > a.max && !a.looking {
		a.drop()
	}
	return b
}

// Put implements mem.BufferPool.
func (a *arriving) Put(b *[]byte) {
	if cap(*b) >= countedBuffer {
		a.forget(weak.Make(b))
	}
	a.pool.Put(b)
}

func (a *arriving) forget(key weak.Pointer[[]byte]) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l, ok := a.lent[key]; ok {
		l.back.Stop()
		a.held -= l.size
		delete(a.lent, key)
	}
}

// drop ends the call whose message has been coming for longest, and the next one where
// that was not enough. mu is held.
func (a *arriving) drop() {
	e := a.all.Front()
	if a.looking = e != nil; !a.looking {
		return
	}
	time.AfterFunc(dropEvery, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.looking = a.held > a.max; a.looking {
			a.drop()
		}
	})
	x := e.Value.(*arrival) //nolint:forcetypeassert // only begin pushes
	a.all.Remove(e)
	x.place = nil
	x.late.Store(true)
	x.cancel()
}
