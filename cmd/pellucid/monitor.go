package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy"
	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

const (
	// look is how often the monitor asks how far event time has come.
	look = time.Second
	// lateness is how much event time may still be out of order: windows are
	// judged that far behind the newest stored prediction.
	lateness = 15 * time.Minute
	// provisionalRows and provisionalSpan are what a provisional reference needs
	// at least, whichever comes later.
	provisionalRows = 1000
	// windowRows is what a window that somebody named needs: ten for each of ten bins.
	windowRows      = 100
	provisionalSpan = 24 * time.Hour
	// windowQuiet is how long a window of a reference must have got no row once event time
	// is past it, windowOpen before that.
	windowQuiet = 5 * time.Second
	windowOpen  = time.Minute
	// settleEvery is the time between two looks for rows that a new reference has not
	// counted.
	settleEvery = 3 * time.Second
	// referenceRetry is how long a file that could not be made a reference is left
	// alone.
	referenceRetry = 30 * time.Second
)

// monitor follows event time: it makes provisional references and evaluates the
// alert rules. One goroutine, ended by stop.
type monitor struct {
	server *server
	cancel context.CancelFunc
	done   chan struct{}

	// retry and waiting are, by digest, when to try a reference's file again and
	// what was wrong with it; only the loop has them.
	retry   map[string]time.Time
	waiting map[string]error
	// first is, by model, the event time of its first data; only the loop has it.
	first map[string]time.Time
	// settled is by digest; only the loop has it.
	settled map[string]*settled
	// windows are by digest; only the loop has them.
	windows map[string]*filling

	mu sync.Mutex
	// judged is, by model, up to which event time rules were evaluated.
	judged map[string]time.Time
	// failing is the last error by what failed, so that each is logged once.
	failing map[string]string
}

func startMonitor(s *server) *monitor {
	ctx, cancel := context.WithCancel(context.Background())
	m := &monitor{
		server: s, cancel: cancel, done: make(chan struct{}), retry: map[string]time.Time{}, waiting: map[string]error{}, first: map[string]time.Time{}, settled: map[string]*settled{}, windows: map[string]*filling{},
		judged: map[string]time.Time{}, failing: map[string]string{},
	}
	go m.loop(ctx)
	return m
}

func (m *monitor) stop() {
	m.cancel()
	<-m.done
}

func (m *monitor) loop(ctx context.Context) {
	defer close(m.done)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.round(ctx)
		}
	}
}

// round looks at every live version once. Trouble with one does not keep the
// others from being looked at; it is tried again in the next round.
func (m *monitor) round(ctx context.Context) {
	for _, u := range m.server.upstreams {
		u.Touch()
	}
	marks := map[string]time.Time{}
	for _, v := range m.server.models.Live() {
		if v.Reference() == nil && v.Config.Reference != "" {
			m.report("make a reference for "+v.Name+" "+v.Version, m.fileReference(ctx, v))
		}
		mark, err := m.server.store.Watermark(ctx, collector.DefaultTenant, v.Name, v.Version)
		if errors.Is(err, collector.ErrUnavailable) {
			m.report("ask ClickHouse", err)
			return // it would say the same of the others
		}
		m.report("ask ClickHouse", nil)
		m.report("ask for the watermark of "+v.Name, err)
		if err != nil || mark.IsZero() {
			continue
		}
		if mark.After(marks[v.Name]) {
			marks[v.Name] = mark
		}
		if v.Reference() == nil && v.Config.Reference == "" {
			m.report("make a reference for "+v.Name+" "+v.Version, m.provisional(ctx, v, mark))
		}
		m.report("count the rows of "+v.Name+" "+v.Version+" that are older than its reference", m.settle(ctx, v))
	}
	for name, mark := range marks {
		at := mark.Add(-lateness)
		first, err := m.firstOf(ctx, name)
		if err == nil {
			err = m.server.manager.Evaluate(ctx, name, first, at)
		}
		m.report("evaluate the rules of "+name, err)
		if err == nil {
			m.mu.Lock()
			m.judged[name] = at
			m.mu.Unlock()
		}
	}
}

// firstOf returns the event time of a model's first data, as it was when it was
// first asked for.
func (m *monitor) firstOf(ctx context.Context, model string) (time.Time, error) {
	if first, ok := m.first[model]; ok {
		return first, nil
	}
	first, _, _, err := m.server.store.Extent(ctx, collector.DefaultTenant, model, "")
	if err == nil && !first.IsZero() {
		m.first[model] = first
	}
	return first, err
}

// judgedTo returns up to which event time a model's rules were evaluated.
func (m *monitor) judgedTo(model string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.judged[model]
}

// report logs an error when it is new, and its end.
func (m *monitor) report(what string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil && m.failing[what] != "":
		delete(m.failing, what)
		m.server.log.Info("works again", "what", what)
	case err != nil && m.failing[what] != err.Error():
		m.failing[what] = err.Error()
		m.server.log.Error("monitor", "what", what, "error", err)
	}
}

// fileReference makes the reference of an upstream's version, which has to answer
// for the rows of the file. A version on disk has its own since it was loaded.
func (m *monitor) fileReference(ctx context.Context, v *collector.ModelVersion) error {
	if err := m.server.models.Shut(v.Name); err != nil {
		return err // what is to be private in it is not what is configured
	}
	if time.Now().Before(m.retry[v.Digest]) {
		return m.waiting[v.Digest]
	}
	asked := *v
	if v.Config.PrivateFeature() != "" {
		asked.Predict = func(ctx context.Context, in engine.Values, outputs []string) (engine.Values, error) {
			out, err := v.Predict(ctx, in, outputs)
			return out, proxy.Recorded(err) // the upstream may repeat a row, and this is logged
		}
	}
	ref, err := repository.ReferenceOf(ctx, &asked, v.Config.Reference)
	if err != nil {
		m.retry[v.Digest], m.waiting[v.Digest] = time.Now().Add(referenceRetry), err
		return err
	}
	return m.adopt(ctx, v, ref)
}

// provisional makes a version's reference of its own first rows, once there are
// enough of them and they span long enough; or of the window of stored
// predictions that model.yaml names.
func (m *monitor) provisional(ctx context.Context, v *collector.ModelVersion, mark time.Time) error {
	q, err := m.referenceQuery(ctx, v)
	if err != nil || q == nil {
		return err
	}
	if v.Config.ReferenceFrom != "" {
		if whole, err := m.wholeWindow(ctx, v, q, mark); err != nil || !whole {
			return err
		}
	}
	var list []collector.RawRow
	err = m.server.store.Each(ctx, *q, func(p *collector.StoredPrediction) error {
		if p.Digest != v.Digest || p.Capture != collector.CaptureFull && p.Capture != collector.CaptureRedacted || p.Status >= 400 {
			return nil
		}
		same, err := m.server.sameFeatures(ctx, p, v)
		if err == nil && same {
			list = append(list, p.Raw)
		}
		return err
	})
	if err != nil {
		return err
	}
	if v.Config.ReferenceFrom != "" && len(list) < windowRows {
		return fmt.Errorf("the window that model.yaml names has %d rows with features: a reference takes %d", len(list), windowRows)
	}
	if v.Config.ReferenceFrom == "" && len(list) < provisionalRows {
		return nil
	}
	source := fmt.Sprintf("stored predictions from %s to %s", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	ref, err := repository.StoredReference(v, q.Tenant, list, source)
	if err != nil {
		return err
	}
	ref.Provisional = v.Config.ReferenceFrom == ""
	return m.adopt(ctx, v, ref)
}

// referenceQuery selects the rows a missing reference is made of, or nil while
// there are too few.
func (m *monitor) referenceQuery(ctx context.Context, v *collector.ModelVersion) (*collector.Query, error) {
	q := &collector.Query{Tenant: collector.DefaultTenant, Model: v.Name, Version: v.Version, Limit: 100_000}
	if v.Config.ReferenceFrom != "" {
		from, err1 := api.ParseTime(v.Config.ReferenceFrom)
		to, err2 := api.ParseTime(v.Config.ReferenceTo)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("model.yaml: reference: %w", err)
		}
		q.From, q.To = from, to
		return q, nil
	}
	first, last, rows, err := m.server.store.Extent(ctx, q.Tenant, v.Name, v.Version)
	if err != nil || rows < provisionalRows || last.Sub(first) < provisionalSpan {
		return nil, err
	}
	// The first day, or as much longer as 1,000 rows take.
	q.From, q.To = first, first.Add(provisionalSpan)
	for q.To.Before(last) {
		n, err := m.server.store.Count(ctx, *q)
		if err != nil {
			return nil, err
		}
		if n >= provisionalRows {
			break
		}
		q.To = q.To.Add(provisionalSpan)
	}
	return q, nil
}

// filling is what has come of the window that a reference is to be made of.
type filling struct {
	rows     int64
	appended uint64 // to the spool when its number was new
	since    time.Time
}

// wholeWindow reports whether all of a window that model.yaml names seems to have come:
// no row more for a while, which is short once event time, at mark, is past it and long
// where it may just be the end of a file that is still being sent. A reference of a part
// would stay for good.
func (m *monitor) wholeWindow(ctx context.Context, v *collector.ModelVersion, q *collector.Query, mark time.Time) (bool, error) {
	n, err := m.server.store.Count(ctx, *q)
	if err != nil {
		return false, err
	}
	now, st := time.Now(), m.server.spool.Stats()
	w := m.windows[v.Digest]
	if w == nil || w.rows != int64(n) {
		w = &filling{rows: int64(n), appended: st.Appended, since: now}
		m.windows[v.Digest] = w
	}
	quiet := windowQuiet
	if mark.Before(q.To.Add(lateness)) {
		quiet = windowOpen
	}
	return !now.Before(q.To) && now.Sub(w.since) >= quiet && st.Acked >= w.appended, nil
}

// adopt puts a reference in force and counts the rows stored before it.
func (m *monitor) adopt(ctx context.Context, v *collector.ModelVersion, ref *stats.Reference) error {
	if err := m.server.store.SaveReference(ctx, collector.DefaultTenant, v.Name, v.Version, v.Digest, ref); err != nil {
		return err
	}
	if err := m.server.models.SetReference(v.Digest, ref); err != nil {
		return err
	}
	m.server.log.Info("reference made", "model", v.Name, "version", v.Version, "rows", ref.Rows, "source", ref.Source)
	return nil // settle counts what was stored before it
}

// settled is how far the rows stored without a reference are counted under it.
type settled struct {
	ref      string
	appended uint64 // to the spool when it came into force
	done     bool
	next     time.Time
}

// settle counts a version's rows that were stored before its reference was in force.
// Some were on their way then, with no bins or with another's: it goes on until all that
// the spool had by then is stored, however long ClickHouse is away, and begins again with
// the process.
func (m *monitor) settle(ctx context.Context, v *collector.ModelVersion) error {
	ref := v.Reference()
	if ref == nil {
		return nil
	}
	s := m.settled[v.Digest]
	if s == nil || s.ref != ref.ID {
		s = &settled{ref: ref.ID, appended: m.server.spool.Stats().Appended}
		m.settled[v.Digest] = s
	}
	if s.done || time.Now().Before(s.next) {
		return nil
	}
	all := m.server.spool.Stats().Acked >= s.appended
	_, err := m.server.store.Backfill(ctx, collector.DefaultTenant, v.Name, v.Version, v.Digest, ref)
	s.done, s.next = all && err == nil, time.Now().Add(settleEvery)
	return err
}

// maxRules bounds a file of rules.
const maxRules = 16 << 20

// readRules reads the rules file.
func readRules(path string) ([]alerts.Rule, error) {
	// Asked before opening: opening a pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the alert rules: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxRules {
		return nil, fmt.Errorf("read the alert rules: %s is not a regular file, or one of more than %d bytes", path, maxRules)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the alert rules: %w", err)
	}
	return alerts.ParseRules(data, path)
}
