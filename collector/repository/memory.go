package repository

import (
	"maps"
	"runtime"
	"runtime/debug"

	"github.com/pellucid/pellucid/engine"
)

// largeModel is the size of the files of a model whose memory is worth a collection of its own.
const largeModel = 64 << 20

// inMemory are the large models that are live or kept, however many versions share one.
func (r *Repository) inMemory() map[engine.Model]bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.largeModels()
}

// largeModels are those; the caller holds mu.
func (r *Repository) largeModels() map[engine.Model]bool {
	out := map[engine.Model]bool{}
	add := func(h *held) {
		if h != nil && h.version.Model != nil && h.bytes >= largeModel {
			out[h.version.Model] = true
		}
	}
	for _, m := range r.models {
		for _, s := range m.versions {
			add(s.live)
		}
	}
	for _, h := range r.archive {
		add(h)
	}
	return out
}

// giveBack has the memory of large models that have come or gone collected and given back to the
// system, beside what goes on: what was read to make one is garbage by then, and by itself it would
// lie there until as much again is in use. It takes two collections, since sessions are pooled.
func giveBack(before, after map[engine.Model]bool) {
	if maps.Equal(before, after) {
		return
	}
	clear(before) // nothing here is to hold them
	clear(after)
	go func() {
		runtime.GC()
		debug.FreeOSMemory()
	}()
}
