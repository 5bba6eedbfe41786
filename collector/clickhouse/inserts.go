package clickhouse

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"sort"
	"strconv"

	"github.com/pellucid/pellucid/collector"
)

// The statements of a batch. Each has a token of its own, and rollups come after
// the rows they are held against. What an insert consists of is the same at every
// attempt at the batch, in the same order, so that its ranges are too.

// watch has an insert leave out, and bury, records of the plan. at says where record
// i stands in the batch.
func (p *plan) watch(in insert, kind string, at func(i int) int, letter func(i int) collector.DeadLetter) insert {
	in.buried = func(i int) bool { return p.buried[burial{at(i), kind}] }
	in.bury = func(i int) { p.buried[burial{at(i), kind}] = true }
	in.driven = func(i int) bool { return p.records[at(i)].Kind == collector.KindDriven }
	in.letter = letter
	if letter == nil {
		in.letter = func(i int) collector.DeadLetter { return p.letter(at(i), kind) }
	}
	in.token = p.token + ":" + in.name
	return in
}

// watchRows is watch for an insert of predictions or of their part in a rollup.
func (p *plan) watchRows(in insert, kind string, items []*decoded) insert {
	return p.watch(in, kind, func(i int) int { return items[i].position },
		func(i int) collector.DeadLetter { return p.predictionLetter(items[i], kind) })
}

func (w *Writer) rowInserts(p *plan) []insert {
	var out []insert
	if len(p.schemas) > 0 {
		out = append(out, w.schemaInsert(p))
	}
	for _, m := range p.sortedMonths() {
		for i, part := range blocks(p.months[m]) {
			items := make([]*decoded, len(part))
			for k := range part {
				items[k] = &part[k]
			}
			out = append(out, p.watchRows(insert{
				name: "predictions:" + strconv.Itoa(m) + ":" + strconv.Itoa(i), n: len(part),
				run: func(ctx context.Context, token string, lo, hi int) error {
					return w.insertPredictions(ctx, token, p, part[lo:hi])
				},
				record: func(lo, row int) int { return rowOf(part, lo, row) },
				stored: func(ctx context.Context, lo, hi int, _ func(int) bool) (bool, error) {
					if hi-lo < len(part) {
						return w.store.hasIDs(ctx, p.token, m, part[lo:hi])
					}
					return w.store.hasPredictions(ctx, p.token, m, part)
				},
				here: func(ctx context.Context) (func(int) bool, int, error) {
					return w.store.herePredictions(ctx, p.token, m, part)
				},
			}, collector.InsertPredictions, items))
		}
	}
	return out
}

// oneEach is the record of a row of a statement that has one a record.
func oneEach(lo, row int) int { return lo + row }

// rowOf is the prediction that has the row of a statement which begins at lo, -1 for none.
func rowOf(part []decoded, lo, row int) int {
	for i := lo; i < len(part); i++ {
		if row -= max(part[i].p.Rows, 1); row < 0 {
			return i
		}
	}
	return -1
}

// counted are the predictions whose rows the rollup of that name gets: those that
// are stored, and the driven letters of that rollup.
func (p *plan) counted(rollup string) []*decoded {
	n := len(p.parts)
	for _, list := range p.months {
		n += len(list)
	}
	out := make([]*decoded, 0, n)
	for _, m := range p.sortedMonths() {
		for i := range p.months[m] {
			if d := &p.months[m][i]; !p.buried[burial{d.position, collector.InsertPredictions}] {
				out = append(out, d)
			}
		}
	}
	for i := range p.parts {
		if p.parts[i].only == rollup {
			out = append(out, &p.parts[i])
		}
	}
	return out
}

// liveRows is how many rows the batch has in the table of predictions.
func (p *plan) liveRows() int {
	n := 0
	for _, list := range p.months {
		for i := range list {
			if !p.buried[burial{list[i].position, collector.InsertPredictions}] {
				n += max(list[i].p.Rows, 1)
			}
		}
	}
	return n
}

func (w *Writer) rollupInserts(p *plan) []insert {
	var out []insert
	if items := p.counted(collector.InsertTraffic); len(items) > 0 {
		out = append(out, p.watchRows(insert{
			name: "traffic", n: len(items),
			run: func(ctx context.Context, token string, lo, hi int) error {
				return w.store.insertTraffic(ctx, token, items[lo:hi])
			},
			stored: func(ctx context.Context, lo, hi int, open func(int) bool) (bool, error) {
				missing, err := w.missing(collector.InsertTraffic, p, items, open)
				if err != nil {
					return false, err
				}
				if kept, err := w.store.hasTraffic(ctx, items[lo:hi], missing); kept || err != nil {
					return kept, err
				}
				return w.counts(ctx, &trafficRollup, p.token, items[lo:hi], missing)
			},
		}, collector.InsertTraffic, items))
	}
	chunks := p.chunks()
	for _, c := range sortedChunks(chunks) {
		items := chunks[c]
		in := p.watchRows(insert{
			name: "bins_1m", n: len(items),
			run: func(ctx context.Context, token string, lo, hi int) error {
				return w.store.insertBins(ctx, token, c, countOf(items[lo:hi]))
			},
			stored: func(ctx context.Context, lo, hi int, open func(int) bool) (bool, error) {
				missing, err := w.missing(collector.InsertBins, p, items, open)
				if err != nil {
					return false, err
				}
				if kept, err := w.store.hasBins(ctx, c, countOf(items[lo:hi]), missing); kept || err != nil {
					return kept, err
				}
				return w.counts(ctx, &binsRollup, p.token, items[lo:hi], missing)
			},
		}, collector.InsertBins, items)
		in.token = c.token()
		out = append(out, in)
	}
	return out
}

// newRollupInserts are those that the rollups do not have yet: where a recount may have counted
// a batch, its own inserts are no repeats, and are looked for before they are sent.
func (w *Writer) newRollupInserts(p *plan) []insert {
	list := w.rollupInserts(p)
	if !w.cfg.Recounted || !w.doubt {
		return list
	}
	for i := range list {
		in := list[i]
		list[i].run = func(ctx context.Context, token string, lo, hi int) error {
			if lo == 0 && hi == in.n && token == in.token {
				if kept, err := in.stored(ctx, lo, hi, func(int) bool { return false }); kept || err != nil {
					return err
				}
			}
			return in.run(ctx, token, lo, hi)
		}
	}
	return list
}

// missing are the rows that a rollup is known not to have: the open ones of an
// insert, and dead letters.
func (w *Writer) missing(rollup string, p *plan, items []*decoded, open func(int) bool) ([]*decoded, error) {
	dead, err := w.uncounted(rollup, p)
	if err != nil {
		return nil, err
	}
	var out []*decoded
	for i := range dead {
		out = append(out, &dead[i])
	}
	for i, d := range items {
		// What is buried in this batch is among the letters already.
		if open(i) && !p.buried[burial{d.position, rollup}] {
			out = append(out, d)
		}
	}
	return out, nil
}

// chunks are the predictions whose bins are counted.
func (p *plan) chunks() map[chunk][]*decoded {
	out := map[chunk][]*decoded{}
	for _, d := range p.counted(collector.InsertBins) {
		if d.binsID == "" || !watched(d.p) {
			continue
		}
		c := chunk{d.p.Tenant, d.p.Model, d.p.Version, d.p.Digest, d.binsID, p.token, monthOf(d.p)}
		out[c] = append(out[c], d)
	}
	return out
}

func sortedChunks(chunks map[chunk][]*decoded) []chunk {
	out := make([]chunk, 0, len(chunks))
	for c := range chunks {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b chunk) int { return cmp.Compare(a.token(), b.token()) })
	return out
}

func countOf(items []*decoded) *binCounts {
	c := &binCounts{}
	for _, d := range items {
		d.count(c)
	}
	return c
}

func (w *Writer) otherInserts(p *plan) []insert {
	out := w.feedbackInserts(p)
	if len(p.explanations) > 0 {
		out = append(out, p.watch(insert{
			name: "explanations", n: len(p.explanations),
			run: func(ctx context.Context, token string, lo, hi int) error {
				return w.insertExplanations(ctx, token, p.token, p.explanations[lo:hi])
			},
			record: oneEach,
			stored: func(ctx context.Context, lo, hi int, _ func(int) bool) (bool, error) {
				return w.store.hasExplanations(ctx, p.explanations[lo:hi])
			},
			here: func(ctx context.Context) (func(int) bool, int, error) {
				return hereOf(ctx, w.store, "SELECT DISTINCT doc_hash FROM explanations WHERE doc_hash IN (?)", len(p.explanations),
					func(i int) uint64 { return p.explanations[i].hash() })
			},
		}, "explanations", func(i int) int { return p.explanations[i].position }, nil))
	}
	if len(p.undecodable) > 0 {
		out = append(out, p.watch(insert{
			name: "undecodable", n: len(p.undecodable),
			run: func(ctx context.Context, token string, lo, hi int) error {
				return w.insertUndecodable(ctx, token, p.token, p.undecodable[lo:hi])
			},
			record: oneEach,
			stored: func(ctx context.Context, lo, hi int, _ func(int) bool) (bool, error) {
				var at []uint32
				for _, u := range p.undecodable[lo:hi] {
					at = append(at, uint32(u.position))
				}
				return w.store.hasPositions(ctx, "undecodable", p.token, at)
			},
			here: func(ctx context.Context) (func(int) bool, int, error) {
				return hereOf(ctx, w.store, "SELECT DISTINCT position FROM undecodable WHERE position IN (?) AND insert_batch = ?", len(p.undecodable),
					func(i int) uint32 { return uint32(p.undecodable[i].position) }, p.token)
			},
		}, "undecodable", func(i int) int { return p.undecodable[i].position }, nil))
	}
	return out
}

func (w *Writer) insertPredictions(ctx context.Context, token string, p *plan, part []decoded) error {
	w.block.reset()
	for i := range part {
		w.block.add(&part[i], p.token)
	}
	return w.store.sendBlock(ctx, token, "INSERT INTO predictions ("+predictionColumns+")", w.block.columns(), w.block.n)
}

func (w *Writer) schemaInsert(p *plan) insert {
	ids := make([]string, 0, len(p.schemas))
	for id := range p.schemas {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	return p.watch(insert{
		name: "schemas", n: len(ids),
		run: func(ctx context.Context, token string, lo, hi int) error {
			return w.store.sendRows(ctx, token, "INSERT INTO schemas (id, doc)", hi-lo, func(i int) []any {
				return []any{ids[lo+i], string(p.schemas[ids[lo+i]])}
			})
		},
		record: oneEach,
		stored: func(ctx context.Context, lo, hi int, _ func(int) bool) (bool, error) {
			return w.store.hasSchemas(ctx, ids[lo:hi])
		},
		here: func(ctx context.Context) (func(int) bool, int, error) {
			return hereOf(ctx, w.store, "SELECT DISTINCT id FROM schemas WHERE id IN (?)", len(ids), func(i int) string { return ids[i] })
		},
	}, "schemas", func(i int) int { return p.schemaAt[ids[i]] }, nil)
}

// feedbackInserts are one a month: one insert is one block, and a block has one
// month.
func (w *Writer) feedbackInserts(p *plan) []insert {
	const statement = "INSERT INTO feedback (tenant, model, prediction_id, target_id, target_row, external_id, label, observed_at, received_at, position, insert_batch, arrival)"
	months := map[string][]int{}
	for i, f := range p.feedback {
		m := f.ReceivedAt.UTC().Format("200601")
		months[m] = append(months[m], i)
	}
	keys := make([]string, 0, len(months))
	for m := range months {
		keys = append(keys, m)
	}
	sort.Strings(keys)
	var out []insert
	for _, m := range keys {
		at := months[m]
		in := insert{
			name: "feedback:" + m, n: len(at),
			run: func(ctx context.Context, token string, lo, hi int) error {
				return w.store.sendRows(ctx, token, statement, hi-lo, func(i int) []any {
					f := p.feedback[at[lo+i]]
					id, row := splitRowID(f.PredictionID)
					return []any{
						f.Tenant, f.Model, f.PredictionID, id, row, f.ExternalID, f.Label,
						f.ObservedAt.UTC(), f.ReceivedAt.UTC(), p.feedbackKeys[at[lo+i]], p.token, f.Arrival.UTC(),
					}
				})
			},
			record: oneEach,
			stored: func(ctx context.Context, lo, hi int, _ func(int) bool) (bool, error) {
				var positions []uint32
				for _, i := range at[lo:hi] {
					positions = append(positions, p.feedbackKeys[i])
				}
				return w.store.hasPositions(ctx, "feedback", p.token, positions)
			},
			here: func(ctx context.Context) (func(int) bool, int, error) {
				return hereOf(ctx, w.store, "SELECT DISTINCT position FROM feedback WHERE position IN (?) AND insert_batch = ?", len(at),
					func(i int) uint32 { return p.feedbackKeys[at[i]] }, p.token)
			},
		}
		position := func(i int) int { return p.feedbackAt[at[i]] }
		out = append(out, p.watch(in, "feedback", position, func(i int) collector.DeadLetter {
			l := p.letter(position(i), "feedback")
			l.Tenant, l.Model = p.feedback[at[i]].Tenant, p.feedback[at[i]].Model
			return l
		}))
	}
	return out
}

func (x *storedExplanation) hash() uint64 {
	h := fnv.New64a()
	h.Write(x.doc)
	return h.Sum64()
}

func (w *Writer) insertExplanations(ctx context.Context, token, batch string, part []storedExplanation) error {
	const statement = "INSERT INTO explanations (tenant, model, version, target_id, target_row, method, output, space, base, prediction, doc_hash, doc, insert_batch)"
	return w.store.sendRows(ctx, token, statement, len(part), func(i int) []any {
		x := &part[i]
		id, row := splitRowID(x.e.PredictionID)
		return []any{
			collector.DefaultTenant, x.e.Model, x.e.Version, id, row, x.e.Method, x.e.Output, x.e.Space, x.e.Base, x.e.Prediction,
			x.hash(), string(x.doc), batch,
		}
	})
}

func (w *Writer) insertUndecodable(ctx context.Context, token, batch string, part []undecodable) error {
	const statement = "INSERT INTO undecodable (insert_batch, position, kind, version, payload, error)"
	return w.store.sendRows(ctx, token, statement, len(part), func(i int) []any {
		u := &part[i]
		return []any{batch, uint32(u.position), uint8(u.record.Kind), u.record.Version, string(u.record.Payload), u.err.Error()}
	})
}

// monthOf is the partition of a prediction's rows.
func monthOf(p *collector.Prediction) int {
	at := p.ReceivedAt.UTC()
	return at.Year()*100 + int(at.Month())
}
