package explain

import (
	"container/list"
	"sync"
)

// cache keeps the most recently used prepared states, within a number of bytes. Each
// is made once, by the first to ask; the others wait for it.
type cache struct {
	mu          sync.Mutex
	limit, used int64
	order       *list.List // of *cached, most recent first
	entries     map[any]*list.Element
}

type cached struct {
	key   any
	once  sync.Once
	value any
	err   error
	// bytes is what is counted of the value, 0 while it is made.
	bytes int64
}

// sized is a prepared state, which may grow later.
type sized interface{ Bytes() int64 }

func newCache(limit int64) *cache {
	return &cache{limit: limit, order: list.New(), entries: map[any]*list.Element{}}
}

// load returns the state of key, making it on the first call. A failure is not
// kept.
func load[T sized](c *cache, key any, make func() (T, error)) (T, error) {
	e := c.entry(key)
	e.once.Do(func() { e.value, e.err = make() })
	if e.err != nil {
		c.drop(e)
		var zero T
		return zero, e.err
	}
	v, _ := e.value.(T)
	c.weigh(e, v.Bytes())
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
	return e
}

// weigh counts what e takes by now and lets the least recently used go until all fits.
// Those that are being made stay, so that nobody makes them twice.
func (c *cache) weigh(e *cached, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.entries[e.key]; !ok || at.Value.(*cached) != e {
		return // it went meanwhile
	}
	c.used += bytes - e.bytes
	e.bytes = bytes
	for at := c.order.Back(); at != nil && c.used > c.limit; {
		before := at.Prev()
		if old := at.Value.(*cached); old.bytes > 0 {
			c.remove(at, old)
		}
		at = before
	}
}

func (c *cache) drop(e *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.entries[e.key]; ok && at.Value.(*cached) == e {
		c.remove(at, e)
	}
}

func (c *cache) remove(at *list.Element, e *cached) {
	c.order.Remove(at)
	delete(c.entries, e.key)
	c.used -= e.bytes
}
