package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/pellucid/pellucid/bench/internal/marks"
)

// found is what a database has of a trial.
type found struct {
	ids    map[string]int
	labels map[int64]int
	// rows and unique are those of predictions, off the cells in which the rollups are not
	// their sums, light the rows without the weight they were sent with.
	rows, unique, off, light, over uint64
	// kinds are, by a pair's id and what of it a row is stored with, how many rows are so.
	kinds map[string]map[string]int
}

// reckon waits until the spool is drained and compares.
func (t *trial) reckon() error {
	conn, err := t.connect()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the process ends
	began := time.Now()
	behind, err := t.waiting()
	for err != nil && time.Since(began) < 2*time.Minute { // a server that has just begun may not have all metrics
		time.Sleep(200 * time.Millisecond)
		behind, err = t.waiting()
	}
	if err == nil {
		err = t.drained()
	}
	if err != nil {
		return err
	}
	fmt.Printf("%g records were waiting after the last kill, for %.1f s\n", behind, time.Since(began).Seconds())
	// The last batch is in the tables a moment before it is acknowledged, and after that
	// all of it is: only a connection that breaks is a reason to look again.
	var f *found
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		if f, err = look(context.Background(), conn); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		return err
	}
	if err := t.judge(f); err != nil {
		return err
	}
	out, err := exec.Command(t.binary, "rollups", "check", "--url", t.url).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the rollups are short: %w: %s", err, out)
	}
	if t.write == "" {
		return nil
	}
	return marks.Replace(t.write, begin, end, t.figures(f))
}

// The marks of the figures in a document.
const (
	begin = "<!-- made by go run ./bench/crash -write ARCHITECTURE.md -->"
	end   = "<!-- end of the figures of crashes -->"
)

// figures are what a trial came to that held.
func (t *trial) figures(f *found) string {
	with := fmt.Sprintf("`-kills %d -durability %s`", t.kills, t.durability)
	if t.disk > 0 {
		with = fmt.Sprintf("`-kills %d -durability %s -disk %d`, the disk filled %d times", t.kills, t.durability, t.disk, t.fills.Load())
	}
	return fmt.Sprintf("  %s: %d kills of the server, %d of ClickHouse; predictions: %d attempted, %d acknowledged, %d stored;\n  labels: %d, %d, %d; %d pairs of CloudEvents: 0 lost, 0 doubled, every pair whole, the rollups the sums of their rows.\n  ",
		with, t.killed["server"], t.killed["clickhouse"], t.attempted.Load(), len(t.acked), f.rows, t.labels.Load(), len(t.ackedLabels), len(f.labels), len(t.pairs))
}

// judge compares what was found with what was sent.
func (t *trial) judge(f *found) error {
	var lost, doubled int
	for id := range t.acked {
		if f.ids[id] == 0 {
			lost++
		}
	}
	for n := range t.ackedLabels {
		if f.labels[n] == 0 {
			lost++
		}
	}
	for _, n := range f.ids {
		doubled += min(n-1, 1)
	}
	for n, times := range f.labels {
		doubled += min(times-1, 1)
		if n > t.labels.Load() {
			return fmt.Errorf("label %d is stored and was never sent", n)
		}
	}
	fmt.Printf("kills: %d server, %d clickhouse; %d starts, %d fillings of the disk\n", t.killed["server"], t.killed["clickhouse"], t.starts, t.fills.Load())
	fmt.Printf("attempted %d, acknowledged %d, stored %d; labels: %d, %d, %d; requests not acknowledged: %d\nlost %d, doubled %d, cells of rollups that are not the sums of their rows %d\n",
		t.attempted.Load(), len(t.acked), f.rows, t.labels.Load(), len(t.ackedLabels), len(f.labels), t.refused.Load(), lost, doubled, f.off)
	if err := t.judgePairs(f); err != nil {
		return err
	}
	switch {
	case lost > 0:
		return fmt.Errorf("%d acknowledged predictions or labels are not stored", lost)
	case doubled > 0 || f.rows != f.unique:
		return fmt.Errorf("%d predictions or labels are stored more than once (rows %d, unique %d)", doubled, f.rows, f.unique)
	case f.off > 0:
		return fmt.Errorf("%d cells of traffic_1m are not what the rows are", f.off)
	case f.over > 0:
		return fmt.Errorf("bins_1m counts more than there is in %d fields", f.over)
	case f.light > 0:
		return fmt.Errorf("%d rows have not the weight they were sent with", f.light)
	case int64(len(f.ids)) > t.attempted.Load():
		return fmt.Errorf("%d stored of %d attempted", len(f.ids), t.attempted.Load())
	case len(t.acked) == 0 || len(t.ackedLabels) == 0:
		return errors.New("nothing was acknowledged: the trial proves nothing")
	case t.disk > 0 && t.fills.Load() == 0:
		return errors.New("the disk was never full: the trial proves nothing")
	}
	return nil
}

// judgePairs holds that the rows of each pair of CloudEvents are stored alike, all of them
// or, where no half was acknowledged, none.
func (t *trial) judgePairs(f *found) error {
	mixed, short, alone, example := 0, 0, 0, ""
	for id, p := range t.pairs {
		stored := 0
		for kind, n := range f.kinds[id] {
			stored += n
			if kind != "both" {
				alone++
			}
		}
		switch {
		case len(f.kinds[id]) > 1:
			mixed++
		case stored != p.rows && (stored > 0 || p.acked):
			short++
		default:
			continue
		}
		example = fmt.Sprintf("%q of %d rows: %v", id, p.rows, f.kinds[id])
	}
	fmt.Printf("pairs of CloudEvents: %d, of one half alone %d, recorded in part as one and in part as the other %d, not whole %d\n", len(t.pairs), alone, mixed, short)
	if mixed+short > 0 {
		return fmt.Errorf("%d pairs of CloudEvents are not recorded as one, such as %s", mixed+short, example)
	}
	return nil
}

// cells are the rows of traffic_1m, made of the rows and read from it: each has to be
// there twice. Of each prediction that failed only its row counts as well.
const cells = `SELECT count() FROM (SELECT count() AS n FROM (
 SELECT tenant, model, version, route, toUInt8(intDiv(status, 100)) AS class, toStartOfMinute(toDateTime(time, 'UTC')) AS m,
  countIf(row = 0) AS requests, count() AS r, sum(weight) AS w, sum(toUInt64(bytes)) AS b FROM predictions GROUP BY tenant, model, version, route, class, m
 UNION ALL
 SELECT tenant, model, version, route, status_class, minute, sum(requests), sum(rows), sum(weight), sum(bytes) FROM traffic_1m
 GROUP BY tenant, model, version, route, status_class, minute
) GROUP BY tenant, model, version, route, class, m, requests, r, w, b HAVING n != 2)`

// over are the fields of which bins_1m counts more than the rows weigh.
const over = `SELECT count() FROM (SELECT model, version, bins_id, field, sum(weight) AS w FROM bins_1m GROUP BY model, version, bins_id, field) AS b
 INNER JOIN (SELECT model, version, sum(weight) AS w FROM predictions GROUP BY model, version) AS p USING (model, version) WHERE b.w > p.w`

func look(ctx context.Context, conn driver.Conn) (*found, error) {
	f := &found{}
	var err error
	if f.ids, err = counts[string](ctx, conn, "SELECT if(external_id = '', id, external_id) AS sent, count() FROM predictions WHERE status = 200 GROUP BY sent"); err != nil {
		return nil, err
	}
	if f.labels, err = counts[int64](ctx, conn, "SELECT toInt64(toUnixTimestamp64Micro(observed_at)) - "+fmt.Sprint(labelsFrom.UnixMicro())+" AS sent, count() FROM feedback GROUP BY sent"); err != nil {
		return nil, err
	}
	pairs, err := counts[string](ctx, conn, `SELECT concat(replaceRegexpOne(id, '\\.[0-9]+$', ''), ' ', multiIf(status != 200, 'request', error != '', 'response', 'both')) AS kind, count()
 FROM predictions WHERE model = 'events' GROUP BY kind`)
	if err != nil {
		return nil, err
	}
	f.kinds = map[string]map[string]int{}
	for key, n := range pairs {
		id, kind, _ := strings.Cut(key, " ")
		if f.kinds[id] == nil {
			f.kinds[id] = map[string]int{}
		}
		f.kinds[id][kind] = n
	}
	for _, q := range []struct {
		sql string
		to  []any
	}{
		{"SELECT count(), uniqExact(model, id, row) FROM predictions", []any{&f.rows, &f.unique}},
		{cells, []any{&f.off}},
		{over, []any{&f.over}},
		{fmt.Sprintf("SELECT countIf(weight != %g) FROM predictions WHERE model IN ('posted', 'recorded')", weight), []any{&f.light}},
	} {
		if err := conn.QueryRow(ctx, q.sql).Scan(q.to...); err != nil {
			return nil, fmt.Errorf("%s: %w", q.sql, err)
		}
	}
	return f, nil
}

// counts reads rows of a key and how often it is there.
func counts[K comparable](ctx context.Context, conn driver.Conn, sql string) (map[K]int, error) {
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[K]int{}
	for rows.Next() {
		var key K
		var n uint64
		if err := rows.Scan(&key, &n); err != nil {
			return nil, err
		}
		out[key] = int(n)
	}
	return out, rows.Err()
}
