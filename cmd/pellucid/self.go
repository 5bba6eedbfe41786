package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/alerts/notify"
	"github.com/pellucid/pellucid/dashboards/api"
)

// selfWatch looks at Pellucid itself: how far the store is behind, what it refuses,
// how full the spool is. Its alerts take the roads of users' rules, but for the
// history in the store: that is written when the store can be reached.
type selfWatch struct {
	server  *server
	manager *alerts.Manager
	cancel  context.CancelFunc
	done    chan struct{}

	mu       sync.Mutex // guards the rest
	samples  []sample
	unstored []alerts.Alert
}

// sample is what the spool's counters were at a time.
type sample struct {
	at      time.Time
	in, out uint64
}

const (
	// rateOver is the time that rates are means over.
	rateOver = time.Minute
	// maxUnstored bounds the alerts that wait to be written to the history.
	maxUnstored = 1000
)

// startSelfWatch begins to watch; channels take what fires and resolves.
func (s *server) startSelfWatch(channels []func(context.Context, []alerts.Alert) error) error {
	w := &selfWatch{server: s, done: make(chan struct{})}
	m, err := alerts.New(alerts.Config{
		Rules: alerts.SelfRules(time.Duration(s.cfg.Alerts.Lag)), Source: alerts.Source{Self: w.number}, CatchUp: 1,
		Notify:    notify.All(append(channels, w.keep)...),
		StatePath: filepath.Join(s.cfg.Data, "alerts-self.log"),
		URL:       func(*alerts.Alert) string { return s.url + "/ui/health" },
	})
	if err != nil {
		return err
	}
	w.manager, s.self = m, w
	s.onStop("alerts about the server itself", func(context.Context) error { return m.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go w.loop(ctx)
	s.onStop("watch over the server itself", func(context.Context) error { cancel(); <-w.done; return nil })
	return nil
}

func (w *selfWatch) loop(ctx context.Context) {
	defer close(w.done)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			w.round(ctx, now)
		}
	}
}

func (w *selfWatch) round(ctx context.Context, now time.Time) {
	st := w.server.spool.Stats()
	w.mu.Lock()
	w.samples = append(w.samples, sample{at: now, in: st.Appended, out: st.Acked})
	for len(w.samples) > 2 && now.Sub(w.samples[1].at) >= rateOver {
		w.samples = w.samples[1:]
	}
	w.mu.Unlock()
	if err := w.manager.Evaluate(ctx, "", time.Time{}, now.UTC()); err != nil && ctx.Err() == nil {
		w.server.log.Error("evaluate the alerts about the server itself", "error", err)
	}
	w.store(ctx)
}

// number answers what the built-in rules ask.
func (w *selfWatch) number(_ context.Context, metric string) (float64, error) {
	switch metric {
	case alerts.SelfLag:
		return w.server.spool.Stats().Lag.Seconds(), nil
	case alerts.SelfDeadLetters:
		return float64(w.server.dead.Len()), nil
	case alerts.SelfSpoolFill:
		return w.server.spool.Stats().Fill, nil
	case alerts.SelfLosses:
		return float64(len(w.server.marks.losses())), nil
	case alerts.SelfDropped:
		d := w.server.drops.Lately(time.Now())
		return float64(d.Total() + d.Rows), nil
	}
	return 0, fmt.Errorf("no number %q", metric)
}

// keep is a channel: it takes what is to be written to the history.
func (w *selfWatch) keep(_ context.Context, list []alerts.Alert) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unstored = append(w.unstored, list...)
	if n := len(w.unstored) - maxUnstored; n > 0 {
		w.server.log.Warn("alerts about the server itself are left out of the history: the store has been away for too long", "alerts", n)
		w.unstored = w.unstored[n:]
	}
	return nil
}

// store writes to the history what waits for it. Each alert is the same event however
// often it is written.
func (w *selfWatch) store(ctx context.Context) {
	w.mu.Lock()
	list := w.unstored
	w.mu.Unlock()
	if len(list) == 0 || w.server.writer.Health().Err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := w.server.recordAlerts(ctx, list); err != nil {
		return // the writer tells of a store that is away; this is tried again
	}
	w.mu.Lock()
	w.unstored = w.unstored[len(list):]
	w.mu.Unlock()
}

// rates are records a second into the spool and out of it, over the last minute.
func (w *selfWatch) rates() (in, out float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.samples) < 2 {
		return 0, 0
	}
	a, b := w.samples[0], w.samples[len(w.samples)-1]
	over := b.at.Sub(a.at).Seconds()
	if over <= 0 {
		return 0, 0
	}
	// Counts of earlier starts are corrected when they are known to be too high.
	return float64(b.in-min(a.in, b.in)) / over, float64(b.out-min(a.out, b.out)) / over
}

// alerts are those of users' rules and those about the server itself.
func (s *server) alerts() []alerts.Alert {
	return append(s.self.manager.Alerts(), s.manager.Alerts()...)
}

func (s *server) status(context.Context) api.Status {
	st := s.spool.Stats()
	lettersDamaged, _ := s.dead.Damaged()
	out := api.Status{
		Waiting: int64(st.Appended - st.Acked), WaitingBytes: st.Pending, Lag: st.Lag, LagLimit: time.Duration(s.cfg.Alerts.Lag), Store: "ok",
		Fill: st.Fill, Full: st.Full, DiskBytes: st.Bytes, Lost: int64(st.Lost), Damaged: int64(st.BadBytes + lettersDamaged), Missing: int64(st.Missing), DeadLetters: s.dead.Len(),
		Losses: s.marks.losses(), LossesFile: lossesFile,
		Durability: s.cfg.Capture.Durability, Batches: int64(s.writer.Health().Batches), Rows: int64(s.writer.Health().Rows),
	}
	d := s.drops.Now()
	out.Dropped, out.DroppedRows = api.EventsDropped{Unfit: d.Unfit, Damaged: d.Damaged, Gone: d.Gone}, d.Rows
	out.In, out.Out = s.self.rates()
	if h := s.writer.Health(); h.Err != nil {
		out.Store, out.StoreSince, out.Refused = h.Err.Error(), h.Since, h.Permanent
	}
	return out
}
