package capture

import (
	"hash/maphash"
	"sync"

	"github.com/pellucid/pellucid/collector"
)

// rememberedLabels is how many ids of labels are remembered at least; twice as many
// at most.
const rememberedLabels = 1 << 16

// labelled remembers whose labels came lately, by our id and by the caller's, so that a
// prediction that comes after its label keeps its features whatever a rule says. It
// holds hashes in two generations, a few MiB at most; two ids of one hash keep a
// prediction too many.
type labelled struct {
	mu          sync.Mutex
	seed        maphash.Seed
	now, before map[uint64]struct{}
}

func newLabelled() *labelled {
	return &labelled{seed: maphash.MakeSeed(), now: map[uint64]struct{}{}}
}

func (l *labelled) hash(tenant, kind, id string) uint64 {
	return maphash.Comparable(l.seed, [3]string{tenant, kind, id})
}

// add remembers f, a label as it is recorded.
func (l *labelled) add(f *collector.Feedback) {
	h := l.hash(f.Tenant, "id", f.PredictionID)
	if f.PredictionID == "" {
		h = l.hash(f.Tenant, "external", f.ExternalID)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now[h] = struct{}{}; len(l.now) >= rememberedLabels {
		l.now, l.before = map[uint64]struct{}{}, l.now
	}
}

// has reports whether a label of p, as it is recorded, came before it.
func (l *labelled) has(p *collector.Prediction) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := func(h uint64) bool {
		_, now := l.now[h]
		_, before := l.before[h]
		return now || before
	}
	if len(l.now)+len(l.before) == 0 {
		return false
	}
	if known(l.hash(p.Tenant, "id", p.ID)) {
		return true
	}
	for _, id := range p.ExternalIDs {
		if id != "" && known(l.hash(p.Tenant, "external", id)) {
			return true
		}
	}
	return false
}
