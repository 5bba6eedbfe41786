// Package notify delivers alerts: to a webhook in the form that receivers of
// Alertmanager understand, and to the log.
//
// It owns queues and retries and decides nothing: what it is given it sends, in
// order, the resolved message always after the firing one. What cannot be
// delivered is counted and logged, never dropped in silence.
package notify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pellucid/pellucid/alerts"
)

// ErrQueueFull means that the receiver has been away for so long that the queue is full.
// The alert was not taken; the caller keeps it and offers it again.
var ErrQueueFull = errors.New("notification queue full")

// Config of a webhook.
type Config struct {
	// URL takes the POST. It is needed.
	URL string
	// Receiver names the channel in the payload; "" means "webhook".
	Receiver string
	// ExternalURL is where this server's pages are, for the payload.
	ExternalURL string
	// Timeout bounds one attempt; 0 means 10 s.
	Timeout time.Duration
	// Queue bounds how many messages wait; 0 means 1000.
	Queue int
	// FirstRetry and MaxRetry bound the pause between attempts, which doubles;
	// 0 means 1 s and 1 min. A message is retried until it is taken, refused
	// (a status of 4xx other than 408 and 429) or GiveUp has passed.
	FirstRetry, MaxRetry time.Duration
	// GiveUp bounds the time of all attempts of one message; 0 means 24 h.
	GiveUp time.Duration
	// Client sends; nil means one without redirects.
	Client *http.Client
	// Logger gets what could not be delivered; nil means slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return c, fmt.Errorf("open webhook: the URL %q is not http or https", c.URL)
	}
	c.Receiver = cmp.Or(c.Receiver, "webhook")
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.Queue = cmp.Or(c.Queue, 1000)
	c.FirstRetry = cmp.Or(c.FirstRetry, time.Second)
	c.MaxRetry = cmp.Or(c.MaxRetry, time.Minute)
	c.GiveUp = cmp.Or(c.GiveUp, 24*time.Hour)
	if c.Queue < 0 || c.Timeout < 0 || c.FirstRetry < 0 || c.MaxRetry < 0 || c.GiveUp < 0 {
		return c, errors.New("open webhook: a limit is negative")
	}
	if c.Client == nil {
		c.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Payload is Alertmanager's webhook payload, version 4.
type Payload struct {
	Version           string            `json:"version"`
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   uint64            `json:"truncatedAlerts"`
	Status            string            `json:"status"`
	Receiver          string            `json:"receiver"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"`
	Alerts            []PayloadAlert    `json:"alerts"`
}

// PayloadAlert is one alert of a Payload.
type PayloadAlert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
}

// NewPayload makes the payload of alerts of one rule (one group).
func NewPayload(list []alerts.Alert, receiver, externalURL string) Payload {
	p := Payload{
		Version: "4", Receiver: receiver, ExternalURL: externalURL, Status: "resolved",
		GroupLabels: map[string]string{}, CommonLabels: map[string]string{}, CommonAnnotations: map[string]string{},
		Alerts: make([]PayloadAlert, 0, len(list)),
	}
	for i := range list {
		a := &list[i]
		status := "firing"
		if a.State == alerts.Resolved {
			status = "resolved"
		} else {
			p.Status = "firing"
		}
		p.Alerts = append(p.Alerts, PayloadAlert{
			Status: status, Labels: a.Labels, Annotations: a.Annotations, StartsAt: a.StartsAt, EndsAt: a.EndsAt,
			GeneratorURL: a.GeneratorURL, Fingerprint: a.Fingerprint,
		})
	}
	if len(list) > 0 {
		p.GroupLabels["alertname"] = list[0].Rule
		p.GroupKey = fmt.Sprintf("{}:{alertname=%q}", list[0].Rule)
	}
	common(p.CommonLabels, p.Alerts, func(a *PayloadAlert) map[string]string { return a.Labels })
	common(p.CommonAnnotations, p.Alerts, func(a *PayloadAlert) map[string]string { return a.Annotations })
	return p
}

// common sets what all alerts have alike.
func common(dst map[string]string, list []PayloadAlert, of func(*PayloadAlert) map[string]string) {
	if len(list) == 0 {
		return
	}
next:
	for k, v := range of(&list[0]) {
		for i := range list {
			if w, ok := of(&list[i])[k]; !ok || w != v {
				continue next
			}
		}
		dst[k] = v
	}
}

// Webhook posts alerts from a queue of its own, one message at a time.
type Webhook struct {
	cfg   Config
	queue chan []byte
	// stop ends the sender between attempts; stopped is closed when it is gone.
	stop, stopped chan struct{}
	once          sync.Once
	ctx           context.Context //nolint:containedctx // ends attempts under way at Close
	cancel        context.CancelFunc

	sent, failed atomic.Int64
}

// Stats are a webhook's counters.
type Stats struct{ Queued, Sent, Failed int64 }

// Open starts a webhook's sender; Close ends it.
func Open(cfg Config) (*Webhook, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	w := &Webhook{cfg: cfg, queue: make(chan []byte, cfg.Queue), stop: make(chan struct{}), stopped: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	go w.run()
	return w, nil
}

// Notify queues alerts for delivery and returns at once.
func (w *Webhook) Notify(_ context.Context, list []alerts.Alert) error {
	if len(list) == 0 {
		return nil
	}
	body, err := json.Marshal(NewPayload(list, w.cfg.Receiver, w.cfg.ExternalURL))
	if err != nil {
		return fmt.Errorf("encode alert: %w", err)
	}
	select {
	case <-w.stop:
		return fmt.Errorf("queue alert: %w", context.Canceled)
	default:
	}
	select {
	case w.queue <- body:
		return nil
	default:
		return fmt.Errorf("queue alert for %s: %w", w.cfg.Receiver, ErrQueueFull)
	}
}

// Stats returns the counters.
func (w *Webhook) Stats() Stats {
	return Stats{Queued: int64(len(w.queue)), Sent: w.sent.Load(), Failed: w.failed.Load()}
}

// Close delivers what is queued until ctx ends, then stops. It returns how many
// messages were left undelivered, as an error.
func (w *Webhook) Close(ctx context.Context) error {
	w.once.Do(func() { close(w.stop) })
	select {
	case <-w.stopped:
	case <-ctx.Done():
		w.cancel()
		<-w.stopped
	}
	w.cancel()
	if n := len(w.queue); n > 0 {
		return fmt.Errorf("close webhook: %d alert messages were not delivered", n)
	}
	return nil
}

// run sends until stop is closed and the queue is empty, or the context ends.
func (w *Webhook) run() {
	defer close(w.stopped)
	for {
		select {
		case body := <-w.queue:
			w.deliver(body)
		case <-w.stop:
			if len(w.queue) == 0 || w.ctx.Err() != nil {
				return
			}
		}
		if w.ctx.Err() != nil {
			return
		}
	}
}

func (w *Webhook) deliver(body []byte) {
	pause, deadline := w.cfg.FirstRetry, time.Now().Add(w.cfg.GiveUp)
	for first := true; ; first = false {
		retry, err := w.post(body)
		if err == nil {
			w.sent.Add(1)
			return
		}
		if !retry || time.Now().Add(pause).After(deadline) || !w.wait(pause) {
			w.failed.Add(1)
			w.cfg.Logger.Error("alert not delivered", "receiver", w.cfg.Receiver, "error", err)
			return
		}
		if first {
			w.cfg.Logger.Warn("alert not taken, trying again", "receiver", w.cfg.Receiver, "error", err)
		}
		pause = min(2*pause, w.cfg.MaxRetry)
	}
}

// wait pauses; it returns false when the webhook is being closed for good.
func (w *Webhook) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// post makes one attempt; retry says whether another may succeed.
func (w *Webhook) post(body []byte) (retry bool, err error) {
	ctx, cancel := context.WithTimeout(w.ctx, w.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("post alert: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Pellucid")
	res, err := w.cfg.Client.Do(req)
	if err != nil {
		return true, fmt.Errorf("post alert: %w", err)
	}
	defer res.Body.Close()
	// Read a little so that the connection can be used again.
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	switch code := res.StatusCode; {
	case code >= 200 && code < 300:
		return false, nil
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return true, fmt.Errorf("post alert: status %d", code)
	default:
		return false, fmt.Errorf("post alert: refused with status %d", code)
	}
}

// Log returns a Notify func that writes alerts to a logger.
func Log(logger *slog.Logger) func(context.Context, []alerts.Alert) error {
	return func(ctx context.Context, list []alerts.Alert) error {
		for i := range list {
			a := &list[i]
			logger.LogAttrs(ctx, slog.LevelWarn, "alert "+string(a.State),
				slog.String("rule", a.Rule), slog.String("model", a.Model), slog.String("severity", a.Severity),
				slog.String("features", a.Annotations["features"]), slog.Time("starts_at", a.StartsAt))
		}
		return nil
	}
}

// All returns a Notify func that gives alerts to every channel. Where one fails the
// alert is offered again, to those that have not taken it: a store that is away must
// not have a webhook told the same at every evaluation. It is safe for concurrent use.
func All(channels ...func(context.Context, []alerts.Alert) error) func(context.Context, []alerts.Alert) error {
	a := &all{channels: channels, taken: map[change][]bool{}}
	return a.notify
}

// maxTaken bounds the alerts remembered of which a channel is behind.
const maxTaken = 10_000

type all struct {
	channels []func(context.Context, []alerts.Alert) error

	mu    sync.Mutex // held while alerts are given, so that their order stays
	taken map[change][]bool
}

// change is what one message is about.
type change struct {
	rule, fingerprint string
	state             alerts.State
	starts, ends      time.Time
}

func (a *all) notify(ctx context.Context, list []alerts.Alert) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for i := range list {
		one := &list[i]
		c := change{one.Rule, one.Fingerprint, one.State, one.StartsAt.UTC(), one.EndsAt.UTC()}
		taken := a.taken[c]
		if taken == nil {
			taken = make([]bool, len(a.channels))
			// What was under way of the same alert before is not offered any more.
			maps.DeleteFunc(a.taken, func(o change, _ []bool) bool { return o.rule == c.rule && o.fingerprint == c.fingerprint })
		}
		left := false
		for k, channel := range a.channels {
			if taken[k] {
				continue
			}
			if err := channel(ctx, list[i:i+1]); err != nil {
				errs, left = append(errs, err), true
				continue
			}
			taken[k] = true
		}
		switch {
		case !left:
			delete(a.taken, c)
		case len(a.taken) < maxTaken:
			a.taken[c] = taken
		}
	}
	return errors.Join(errs...)
}
