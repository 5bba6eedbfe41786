package clickhouse

import (
	"context"
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/collector"
)

// owner is whose ids are unique.
type owner struct{ tenant, model string }

// first reports whether v is the first of its id in the batch, and remembers it.
func (p *plan) first(v *collector.Prediction) bool {
	o := owner{v.Tenant, v.Model}
	if p.known == nil {
		p.imported, p.known = map[owner][]string{}, map[owner]map[string]bool{}
	}
	if p.known[o] == nil {
		p.known[o] = map[string]bool{}
	}
	if p.known[o][v.ID] {
		return false
	}
	p.known[o][v.ID] = true
	p.imported[o] = append(p.imported[o], v.ID)
	return true
}

// askedIDs bounds the ids of one question.
const askedIDs = 5000

// dropStored takes imported predictions out of the plan whose id an earlier batch
// has stored. What this very batch has stored already, before a crash, stays: the
// answer is the same at every attempt, so rows and rollups agree.
func (w *Writer) dropStored(ctx context.Context, p *plan) error {
	for o, ids := range p.imported {
		stored := map[string]bool{}
		for part := range slices.Chunk(ids, askedIDs) {
			ask := attempt{name: "known ids", run: func(ctx context.Context, _ string) error {
				found, err := w.store.strings(ctx, "SELECT DISTINCT id FROM predictions WHERE tenant = ? AND model = ? AND id IN (?) AND insert_batch != ?",
					o.tenant, o.model, part, p.token)
				for _, id := range found {
					stored[id] = true
				}
				return err
			}}
			if _, err := w.retry(ctx, p.token, ask); err != nil {
				return fmt.Errorf("ask for stored ids: %w", err)
			}
		}
		if len(stored) == 0 {
			continue
		}
		for month, list := range p.months {
			p.months[month] = slices.DeleteFunc(list, func(d decoded) bool {
				return d.imported && d.p.Tenant == o.tenant && d.p.Model == o.model && stored[d.p.ID]
			})
		}
	}
	return nil
}
