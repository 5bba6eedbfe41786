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

// twice counts a record whose id is stored, unless it may be the very one that is: a letter, or
// what the spool delivered before it lost its cursor.
func (p *plan) twice(position int) {
	if p.records[position].Kind == collector.KindImported && !p.again {
		p.duplicates++
	}
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
				known := d.imported && d.p.Tenant == o.tenant && d.p.Model == o.model && stored[d.p.ID]
				if known {
					p.twice(d.position)
				}
				return known
			})
			p.dropped = p.dropped || len(p.months[month]) < len(list)
		}
	}
	return w.dropStoredLabels(ctx, p)
}

// dropStoredLabels takes labels out of the plan that were delivered before the spool
// lost its cursor, and so are stored under another token: a label is known by whose it
// is, what it says and when it arrived.
func (w *Writer) dropStoredLabels(ctx context.Context, p *plan) error {
	if !p.again || len(p.feedback) == 0 {
		return nil
	}
	asked := map[[2]string][]string{} // by column and tenant
	for _, f := range p.feedback {
		column, id := "external_id", f.ExternalID
		if f.PredictionID != "" {
			column = "target_id"
			id, _ = splitRowID(f.PredictionID)
		}
		of := [2]string{column, f.Tenant}
		asked[of] = append(asked[of], id)
	}
	stored := map[labelID]bool{}
	for of, ids := range asked {
		for part := range slices.Chunk(ids, askedIDs) {
			ask := attempt{name: "known labels", run: func(ctx context.Context, _ string) error {
				return w.store.labelIDs(ctx, of[0], of[1], part, p.token, stored)
			}}
			if _, err := w.retry(ctx, p.token, ask); err != nil {
				return fmt.Errorf("ask for stored labels: %w", err)
			}
		}
	}
	kept := 0
	for i, f := range p.feedback {
		if stored[labelID{f.Tenant, f.PredictionID, f.ExternalID, f.Model, f.Label, f.Arrival.UnixMicro()}] {
			continue
		}
		p.feedback[kept], p.feedbackAt[kept], p.feedbackKeys[kept] = f, p.feedbackAt[i], p.feedbackKeys[i]
		kept++
	}
	p.feedback, p.feedbackAt, p.feedbackKeys = p.feedback[:kept], p.feedbackAt[:kept], p.feedbackKeys[:kept]
	return nil
}

// labelID tells labels apart, whatever batch brought them.
type labelID struct {
	tenant, prediction, external, model, label string
	arrival                                    int64 // us
}

// labelIDs adds the labels of some ids that other batches have stored.
func (s *Store) labelIDs(ctx context.Context, column, tenant string, ids []string, batch string, stored map[labelID]bool) error {
	rows, err := s.conn.Query(ctx, "SELECT prediction_id, external_id, toString(model), label, toUnixTimestamp64Micro(arrival) FROM feedback WHERE tenant = ? AND "+
		column+" IN (?) AND insert_batch != ?", tenant, ids, batch)
	if err != nil {
		return unavailable(err)
	}
	return scanAll(rows, func() error {
		l := labelID{tenant: tenant}
		if err := rows.Scan(&l.prediction, &l.external, &l.model, &l.label, &l.arrival); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		stored[l] = true
		return nil
	})
}
