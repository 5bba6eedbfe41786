package explain

import (
	"container/list"
	"sync"
)

// cache keeps the most recently used prepared states. Each is made once, by the
// first to ask; the others wait for it.
type cache struct {
	mu      sync.Mutex
	limit   int
	order   *list.List // of *cached, most recent first
	entries map[any]*list.Element
}

type cached struct {
	key   any
	once  sync.Once
	value any
	err   error
}

func newCache(limit int) *cache {
	return &cache{limit: limit, order: list.New(), entries: map[any]*list.Element{}}
}

// load returns the state of key, making it on the first call. A failure is not
// kept.
func load[T any](c *cache, key any, make func() (T, error)) (T, error) {
	e := c.entry(key)
	e.once.Do(func() { e.value, e.err = make() })
	if e.err != nil {
		c.forget(e)
		var zero T
		return zero, e.err
	}
	v, _ := e.value.(T)
	return v, nil
}

func (c *cache) entry(key any) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.entries[key]; ok {
		c.order.MoveToFront(at)
		return at.Value.(*cached)
	}
	e := &cached{key: key}
	c.entries[key] = c.order.PushFront(e)
	for c.order.Len() > c.limit {
		oldest := c.order.Back()
		delete(c.entries, c.order.Remove(oldest).(*cached).key)
	}
	return e
}

func (c *cache) forget(e *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.entries[e.key]; ok && at.Value.(*cached) == e {
		c.order.Remove(at)
		delete(c.entries, e.key)
	}
}
