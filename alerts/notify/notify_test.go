package notify

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pellucid/pellucid/alerts"
)

var at = time.Date(2013, 4, 1, 0, 0, 0, 0, time.UTC)

func alert(state alerts.State) alerts.Alert {
	a := alerts.Alert{Rule: "drift", State: state, Labels: map[string]string{"alertname": "drift"}, Annotations: map[string]string{"summary": "s"}, Fingerprint: "f", StartsAt: at}
	if state == alerts.Resolved {
		a.EndsAt = at.Add(time.Hour)
	}
	return a
}

// receiver answers with the given statuses in turn, then 200, and keeps bodies.
type receiver struct {
	mu       sync.Mutex
	statuses []int
	bodies   []string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	b, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies = append(r.bodies, string(b))
	if len(r.statuses) > 0 {
		w.WriteHeader(r.statuses[0])
		r.statuses = r.statuses[1:]
	}
}

func webhook(t *testing.T, r http.Handler, cfg Config) *Webhook {
	t.Helper()
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	cfg.URL, cfg.FirstRetry, cfg.Logger = s.URL, time.Millisecond, slog.New(slog.DiscardHandler)
	w, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestPayload(t *testing.T) {
	b, err := json.Marshal(NewPayload([]alerts.Alert{alert(alerts.Firing)}, "hook", "http://x/"))
	want := `{"version":"4","groupKey":"{}:{alertname=\"drift\"}","truncatedAlerts":0,"status":"firing","receiver":"hook","groupLabels":{"alertname":"drift"},"commonLabels":{"alertname":"drift"},"commonAnnotations":{"summary":"s"},"externalURL":"http://x/","alerts":[{"status":"firing","labels":{"alertname":"drift"},"annotations":{"summary":"s"},"startsAt":"2013-04-01T00:00:00Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"","fingerprint":"f"}]}`
	if err != nil || string(b) != want {
		t.Errorf("%s", b)
	}
}

func TestDeliveryRetriesAndKeepsOrder(t *testing.T) {
	r := &receiver{statuses: []int{500, 429, 503}}
	w := webhook(t, r, Config{})
	for _, s := range []alerts.State{alerts.Firing, alerts.Resolved} {
		if err := w.Notify(context.Background(), []alerts.Alert{alert(s)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(r.bodies) != 5 || !strings.Contains(r.bodies[3], `"status":"firing"`) || !strings.Contains(r.bodies[4], `"status":"resolved"`) {
		t.Errorf("%d bodies: %q", len(r.bodies), r.bodies)
	}
	if s := w.Stats(); s.Sent != 2 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

func TestRefusedIsNotRetried(t *testing.T) {
	r := &receiver{statuses: []int{400}}
	w := webhook(t, r, Config{})
	if err := errors.Join(w.Notify(context.Background(), []alerts.Alert{alert(alerts.Firing)}), w.Close(context.Background())); err != nil {
		t.Fatal(err)
	}
	if s := w.Stats(); len(r.bodies) != 1 || s.Failed != 1 {
		t.Errorf("%d attempts, %+v", len(r.bodies), s)
	}
}

func TestFullQueueAndHungReceiver(t *testing.T) {
	release := make(chan struct{})
	w := webhook(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }), Config{Queue: 1})
	defer close(release)
	var full error
	for range 3 {
		if err := w.Notify(context.Background(), []alerts.Alert{alert(alerts.Firing)}); err != nil {
			full = err
		}
	}
	if !errors.Is(full, ErrQueueFull) {
		t.Errorf("full queue: %v", full)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := w.Close(ctx); err == nil && w.Stats().Failed == 0 {
		t.Error("undelivered messages are not told of")
	}
	if time.Since(began) > 5*time.Second {
		t.Error("Close hung")
	}
}

func TestBadURL(t *testing.T) {
	for _, u := range []string{"", "ftp://x", "http://", "::"} {
		if _, err := Open(Config{URL: u}); err == nil {
			t.Errorf("%q was taken", u)
		}
	}
}

// TestAllOffersOnlyToThoseBehind: while one channel fails the others are not told the
// same again.
func TestAllOffersOnlyToThoseBehind(t *testing.T) {
	away := errors.New("away")
	var told []alerts.State
	var stored []alerts.State
	fail := away
	n := All(
		func(_ context.Context, list []alerts.Alert) error { told = append(told, list[0].State); return nil },
		func(_ context.Context, list []alerts.Alert) error {
			if fail != nil {
				return fail
			}
			stored = append(stored, list[0].State)
			return nil
		})
	firing := alerts.Alert{Rule: "r", Fingerprint: "f", State: alerts.Firing, StartsAt: time.Unix(100, 0)}
	for range 5 {
		if err := n(t.Context(), []alerts.Alert{firing}); !errors.Is(err, away) {
			t.Fatal(err)
		}
	}
	resolved := firing
	resolved.State, resolved.EndsAt = alerts.Resolved, time.Unix(200, 0)
	if err := n(t.Context(), []alerts.Alert{resolved}); !errors.Is(err, away) {
		t.Fatal(err)
	}
	fail = nil
	if err := n(t.Context(), []alerts.Alert{resolved}); err != nil {
		t.Fatal(err)
	}
	// The next time it fires is another alert.
	firing.StartsAt = time.Unix(300, 0)
	if err := n(t.Context(), []alerts.Alert{firing}); err != nil {
		t.Fatal(err)
	}
	if want := []alerts.State{alerts.Firing, alerts.Resolved, alerts.Firing}; !slices.Equal(told, want) || !slices.Equal(stored, want[1:]) {
		t.Errorf("told %v, stored %v", told, stored)
	}
}
