package clickhouse

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"

	"github.com/pellucid/pellucid/collector"
)

// Erasure is what was found of a subject and what is left of it.
type Erasure struct {
	// Before and After count rows by table: those found, and those of them that are
	// there after the mutations. After is nil where nothing was deleted.
	Before, After map[string]int64
	// FilesGoneBy is when the server has deleted the files that the rows were in;
	// zero where it does not say how long it keeps them.
	FilesGoneBy time.Time
	// Unsearched counts by table the records that might be the subject's and cannot be
	// known to be: what no decoder understood, and rows without their features where a
	// filter asks for one.
	Unsearched map[string]int64

	found *found
}

// maxErased bounds the predictions of one erasure or export.
const maxErased = 1_000_000

// Prefixes of the tables that keys are kept in while they are in use.
const (
	erasePrefix = "erase_"
	countPrefix = "count_"
)

var keyTable = regexp.MustCompile(`^(erase|count)_[0-9a-f]{32}_`)

// Passing reports whether a table is one of those that keys are kept in while rows are
// erased, counted or exported: nothing is lost with it.
func Passing(table string) bool { return keyTable.MatchString(table) }

// prefixOf makes the name of a set of tables.
func prefixOf(kind string) (string, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return "", err
	}
	return kind + hex.EncodeToString(id[:]) + "_", nil
}

// keysPrefix is prefixOf that says whose the tables are.
func (s *Store) keysPrefix(kind string) (string, error) {
	name, err := prefixOf(kind)
	if err != nil || s.owner == "" {
		return name, err
	}
	return kind + s.owner + name[len(kind)+len(s.owner):], nil
}

// CountSubject counts what Erase would delete.
func (s *Store) CountSubject(ctx context.Context, x Subject) (*Erasure, error) {
	var out *Erasure
	err := s.CountSubjectWith(ctx, x, func(_ context.Context, e *Erasure) error { out = e; return nil })
	return out, err
}

// CountSubjectWith is CountSubject that gives what was found to use, while it can be
// asked for more.
func (s *Store) CountSubjectWith(ctx context.Context, x Subject, use func(ctx context.Context, e *Erasure) error) error {
	return s.with(ctx, countPrefix, &x, func(f *found) error {
		e, err := f.erasure(ctx, &x)
		if err != nil {
			return err
		}
		return use(ctx, e)
	})
}

// with finds a subject's rows, gives them to do, and forgets which they were.
func (s *Store) with(ctx context.Context, kind string, x *Subject, do func(*found) error) error {
	if err := x.check(); err != nil {
		return err
	}
	prefix, err := s.keysPrefix(kind)
	if err != nil {
		return err
	}
	done := s.use(prefix)
	defer done()
	f, err := s.find(ctx, prefix, x)
	if err == nil {
		err = do(f)
	}
	// The tables go whatever came of it, and whoever waits for that.
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(err, s.Tidy(tidy, prefix))
}

func (f *found) erasure(ctx context.Context, x *Subject) (*Erasure, error) {
	out := &Erasure{Before: f.counts, Unsearched: map[string]int64{}, found: f}
	may, err := f.s.mayBe(ctx, x)
	if err != nil {
		return nil, err
	}
	if may > 0 {
		out.Unsearched["predictions"] = may
	}
	texts, err := x.texts()
	if err != nil || len(texts) > 0 {
		return out, err
	}
	n, err := f.s.ask(ctx, "SELECT count() FROM undecodable")
	if n > 0 {
		out.Unsearched["undecodable"] = int64(n)
	}
	return out, err
}

// Erase deletes what is stored of a subject and counts what is left of it. Rollups
// stay: they are sums over minutes and name nobody.
//
// settled is called between finding and deleting, with what was found, and has to
// wait until every batch that is on its way is acknowledged. That makes an erasure final: only rows of
// acknowledged batches are deleted, which nobody sends again, where the writer would
// take rows that are missing from a batch under way for lost ones. Rows that came
// after the finding are not among those found.
//
// Once it deletes it goes on without ctx, for at most ten minutes a table.
func (s *Store) Erase(ctx context.Context, x Subject, settled func(ctx context.Context, e *Erasure) error) (*Erasure, error) {
	var out *Erasure
	err := s.with(ctx, erasePrefix, &x, func(f *found) (err error) {
		if out, err = f.erasure(ctx, &x); err != nil {
			return err
		}
		if err := settled(ctx, out); err != nil {
			return err
		}
		ctx := context.WithoutCancel(ctx)
		out.After = map[string]int64{}
		for _, t := range targets {
			if f.counts[t.table] > 0 {
				if err := s.mutate(ctx, t.table, "", f.own(t), f.list(t)); err != nil {
					return err
				}
			}
			if out.After[t.table], err = f.count(ctx, t); err != nil {
				return err
			}
		}
		if keep, err := s.oldParts(ctx); err == nil {
			out.FilesGoneBy = time.Now().UTC().Add(keep + cleaning).Truncate(time.Second)
		}
		return nil
	})
	return out, err
}

const (
	mutationTime  = 10 * time.Minute
	mutationEvery = 50 * time.Millisecond
	// mutationFails is how long one may fail: a server that was just started takes up its
	// mutations before all tables are there that they read, and tries them again ever later.
	mutationFails = time.Minute
)

// mutate deletes rows and waits until no part has them. mark is a part of the
// statement's text that no other has. It asks rather than letting the server wait:
// that sends nothing meanwhile, and the connection would count as dead.
func (s *Store) mutate(ctx context.Context, table, partition, where, mark string) error {
	return s.mutateArgs(ctx, table, partition, predicate{sql: where}, mark)
}

// mutateArgs is mutate with bound parameters, which the server keeps in clear as a
// part of the statement: they are never somebody's values.
func (s *Store) mutateArgs(ctx context.Context, table, partition string, where predicate, mark string) error {
	ctx, cancel := context.WithTimeout(ctx, mutationTime)
	defer cancel()
	hosts, err := s.hosts(ctx)
	if err != nil {
		return fmt.Errorf("delete from %s: %w", table, err)
	}
	own := ch.Context(ctx, ch.WithSettings(s.cluster.mutating()))
	if err := s.everywhere(own, "ALTER TABLE "+s.cluster.stored(table)+" DELETE "+partition+"WHERE "+where.sql, where.args...); err != nil {
		return fmt.Errorf("delete from %s: %w", table, unavailable(err))
	}
	for failing := (time.Time{}); ; {
		left, seen, reason, err := s.unfinished(ctx, mark)
		if err != nil {
			return fmt.Errorf("delete from %s: %w", table, err)
		}
		// A replica that has not heard of it yet has nothing unfinished.
		if left == 0 && seen >= hosts {
			return nil
		}
		switch {
		case reason == "":
			failing = time.Time{}
		case failing.IsZero():
			failing = time.Now()
		case time.Since(failing) > mutationFails:
			kill := s.everywhere(ctx, "KILL MUTATION"+s.cluster.on()+" WHERE database = currentDatabase() AND position(command, ?) > 0", mark)
			return errors.Join(fmt.Errorf("delete from %s: the server cannot: %s", table, reason), kill)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("delete from %s: it is still under way: %w", table, ctx.Err())
		case <-time.After(mutationEvery):
		}
	}
}

// unfinished counts mutations under way whose text has mark in it, and the servers
// that know of one.
func (s *Store) unfinished(ctx context.Context, mark string) (left, seen uint64, reason string, err error) {
	err = s.conn.QueryRow(ctx, "SELECT countIf(NOT is_done), uniqExact(hostName(), tcpPort()), anyIf(latest_fail_reason, NOT is_done AND latest_fail_reason != '')"+
		" FROM "+s.cluster.system("mutations")+" WHERE database = "+s.cluster.current()+" AND position(command, ?) > 0", mark).Scan(&left, &seen, &reason)
	return left, seen, reason, unavailable(err)
}

// Tidy drops the tables that began with a prefix, "" for those of every erasure that
// did not come to its end: of this server's, and of others' where they are a day old. One that a mutation still reads stays: the server works it
// off, after a crash too.
func (s *Store) Tidy(ctx context.Context, prefix string) error {
	old := "1"
	if s.owner != "" { // else it is another server's, which is at work
		old = "(match(name, '^(erase|count)_" + s.owner + "') OR metadata_modification_time < now() - INTERVAL 1 DAY)"
	}
	names, err := s.strings(ctx, "SELECT DISTINCT name FROM "+s.cluster.system("tables")+" WHERE database = "+s.cluster.current()+
		" AND (startsWith(name, ?) AND ? != '' OR ? = '' AND match(name, '^(erase|count)_[0-9a-f]{32}_') AND "+old+") ORDER BY name", prefix, prefix, prefix)
	if err != nil {
		return fmt.Errorf("tidy after an erasure: %w", err)
	}
	for _, name := range names {
		if prefix == "" && s.used(name) {
			continue
		}
		left, _, _, err := s.unfinished(ctx, name)
		if err != nil {
			return fmt.Errorf("tidy after an erasure: %w", err)
		}
		if left > 0 {
			continue
		}
		if err := s.everywhere(ctx, "DROP TABLE IF EXISTS "+name+s.cluster.on()+" SYNC"); err != nil {
			return fmt.Errorf("tidy after an erasure: drop %s: %w", name, unavailable(err))
		}
	}
	return nil
}

// use keeps the tables of a prefix from being tidied up until done is called.
func (s *Store) use(prefix string) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inUse[prefix] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.inUse, prefix)
	}
}

// used reports whether a table is in use by this process.
func (s *Store) used(table string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for prefix := range s.inUse {
		if strings.HasPrefix(table, prefix) {
			return true
		}
	}
	return false
}

// cleaning is how long the server may take to delete files that are due: in an idle
// table it looks every few minutes, an older one every ten.
const cleaning = 11 * time.Minute

// oldParts is how long the server keeps the files of parts that were replaced.
func (s *Store) oldParts(ctx context.Context) (time.Duration, error) {
	server, err := s.ask(ctx, "SELECT max(toFloat64OrZero(value)) FROM "+s.cluster.system("merge_tree_settings")+" WHERE name = 'old_parts_lifetime'")
	if err != nil {
		return 0, err // another server's, which does not let us ask
	}
	own, err := s.strings(ctx, "SELECT extract(engine_full, 'old_parts_lifetime = ([0-9]+)') FROM "+s.cluster.system("tables")+
		" WHERE database = "+s.cluster.current()+" AND name IN (?)", s.targetNames())
	if err != nil {
		return 0, err
	}
	longest := 0.0
	for _, v := range own {
		n, err := strconv.ParseFloat(v, 64)
		if err != nil {
			n = server
		}
		longest = max(longest, n)
	}
	return time.Duration(longest) * time.Second, nil
}

func (s *Store) targetNames() []string {
	out := make([]string, len(targets))
	for i, t := range targets {
		out[i] = s.cluster.local(t.table)
	}
	return out
}

// SubjectRow is one thing stored of a subject: one of its fields is set.
type SubjectRow struct {
	Prediction  *collector.StoredPrediction `json:"prediction,omitempty"`
	Feedback    *SubjectLabel               `json:"feedback,omitempty"`
	Explanation *collector.Explanation      `json:"explanation,omitempty"`
	Span        *Span                       `json:"span,omitempty"`
	Undecodable *SubjectRecord              `json:"undecodable,omitempty"`
}

// SubjectLabel is a label as it was sent.
type SubjectLabel struct {
	PredictionID string    `json:"prediction_id,omitempty"`
	ExternalID   string    `json:"external_id,omitempty"`
	Model        string    `json:"model,omitempty"`
	Label        string    `json:"label"`
	ObservedAt   time.Time `json:"observed_at"`
	ReceivedAt   time.Time `json:"received_at"`
}

// SubjectRecord is a record that no decoder understood.
type SubjectRecord struct {
	Payload []byte `json:"payload"`
	Error   string `json:"error"`
}

// ExportSubject gives begin the counts of everything stored of a subject, and then
// each thing to f: what Erase would delete. An error of either ends it.
func (s *Store) ExportSubject(ctx context.Context, x Subject, begin func(*Erasure) error, f func(SubjectRow) error) error {
	return s.with(ctx, countPrefix, &x, func(set *found) error {
		counts, err := set.erasure(ctx, &x)
		if err != nil {
			return err
		}
		if err := begin(counts); err != nil {
			return err
		}
		for _, export := range []func(context.Context, string, func(SubjectRow) error) error{
			set.predictions, set.feedback, set.explanations, set.spans, set.undecodable,
		} {
			if err := export(ctx, x.Tenant, f); err != nil {
				return fmt.Errorf("export a subject: %w", err)
			}
		}
		return nil
	})
}

// exportPage is how many predictions are read, with their labels, at a time.
const exportPage = 1000

func (f *found) predictions(ctx context.Context, tenant string, give func(SubjectRow) error) error {
	t := targets[0]
	last := []any{"", "", uint32(0)}
	for first := true; ; first = false {
		where := f.in(t)
		if !first {
			where += " AND (model, id, row) > (?, ?, ?)"
		}
		args := last
		if first {
			args = nil
		}
		rows, err := f.s.rows(ctx, where+" ORDER BY model, id, row LIMIT "+strconv.Itoa(exportPage), args...)
		if err != nil || len(rows) == 0 {
			return err
		}
		end := rows[len(rows)-1]
		last = []any{end.Model, end.RequestID, uint32(end.Row)}
		list, err := f.s.finish(ctx, tenant, dedupe(rows), "predictions")
		if err != nil {
			return err
		}
		for i := range list {
			if err := give(SubjectRow{Prediction: &list[i]}); err != nil {
				return err
			}
		}
		if len(rows) < exportPage {
			return nil
		}
	}
}

func (f *found) feedback(ctx context.Context, _ string, give func(SubjectRow) error) error {
	return f.each(ctx, "prediction_id, external_id, toString(model), label, observed_at, received_at", targets[1], func(scan func(...any) error) error {
		var l SubjectLabel
		if err := scan(&l.PredictionID, &l.ExternalID, &l.Model, &l.Label, &l.ObservedAt, &l.ReceivedAt); err != nil {
			return err
		}
		return give(SubjectRow{Feedback: &l})
	})
}

func (f *found) explanations(ctx context.Context, _ string, give func(SubjectRow) error) error {
	return f.each(ctx, "doc", targets[2], func(scan func(...any) error) error {
		var doc string
		if err := scan(&doc); err != nil {
			return err
		}
		e, err := collector.DecodeExplanation([]byte(doc))
		if err != nil {
			return err
		}
		return give(SubjectRow{Explanation: e})
	})
}

func (f *found) spans(ctx context.Context, _ string, give func(SubjectRow) error) error {
	ids, err := f.s.strings(ctx, "SELECT DISTINCT TraceId FROM "+f.list(targets[3]))
	if err != nil {
		return err
	}
	for _, id := range ids {
		list, err := f.s.SpansByTrace(ctx, id)
		if err != nil {
			return err
		}
		for i := range list {
			if err := give(SubjectRow{Span: &list[i]}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *found) undecodable(ctx context.Context, _ string, give func(SubjectRow) error) error {
	return f.each(ctx, "payload, error", targets[5], func(scan func(...any) error) error {
		var payload, cause string
		if err := scan(&payload, &cause); err != nil {
			return err
		}
		return give(SubjectRow{Undecodable: &SubjectRecord{[]byte(payload), cause}})
	})
}

// each reads columns of the rows of a target that were found.
func (f *found) each(ctx context.Context, columns string, t target, row func(scan func(...any) error) error) error {
	rows, err := f.s.conn.Query(ctx, "SELECT "+columns+" FROM "+t.table+" WHERE "+f.in(t))
	if err != nil {
		return unavailable(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return unavailable(rows.Err())
}
