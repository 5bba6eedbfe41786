package proxy

import "sync"

// rememberBatches is how many ids of requests with several rows are remembered.
const rememberBatches = 1 << 14

// batchIDs remembers how many rows the latest requests of several rows have, so
// that a label for such an id as a whole, or for a row that it does not have, is
// refused: it would belong to no prediction. The zero value is ready for use.
type batchIDs struct {
	// mu guards everything below.
	mu    sync.Mutex
	known map[string]int
	ring  []string
	next  int
}

func (b *batchIDs) add(id string, rows int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known == nil {
		b.known = make(map[string]int, rememberBatches)
		b.ring = make([]string, rememberBatches)
	}
	delete(b.known, b.ring[b.next])
	b.ring[b.next] = id
	b.known[id] = rows
	b.next = (b.next + 1) % rememberBatches
}

func (b *batchIDs) rows(id string) (rows int, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows, known = b.known[id]
	return rows, known
}
