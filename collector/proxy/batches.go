package proxy

import "sync"

// rememberBatches is how many ids of requests with several rows are remembered.
const rememberBatches = 1 << 14

// batchIDs remembers the ids of the latest requests of several rows, so that a
// label for such an id as a whole, which would belong to no row, is refused. The
// zero value is ready for use.
type batchIDs struct {
	// mu guards everything below.
	mu    sync.Mutex
	known map[string]struct{}
	ring  []string
	next  int
}

func (b *batchIDs) add(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known == nil {
		b.known = make(map[string]struct{}, rememberBatches)
		b.ring = make([]string, rememberBatches)
	}
	delete(b.known, b.ring[b.next])
	b.ring[b.next] = id
	b.known[id] = struct{}{}
	b.next = (b.next + 1) % rememberBatches
}

func (b *batchIDs) has(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.known[id]
	return ok
}
