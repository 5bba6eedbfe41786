package clickhouse

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func day(d int) time.Time { return time.Date(2013, 4, d, 0, 0, 0, 0, time.UTC) }

func alertEvent(rule, state string, at time.Time, features string) AlertEvent {
	model := "delay"
	if rule == "other" {
		model = "risk"
	}
	return AlertEvent{
		ID: fmt.Sprint(rule, state, at.Unix()), Time: at, Tenant: "default", Rule: rule, Fingerprint: "f-" + rule, Model: model, ModelVersion: "1",
		State: state, Value: float64(at.Day()), Labels: map[string]string{"severity": "critical"}, Annotations: map[string]string{"features": features},
	}
}

// What fired and was resolved becomes one row an alert, however often its
// messages were taken, and every filter and page keeps to whole alerts.
func TestPastAlerts(t *testing.T) {
	s := open(t)
	for i, e := range []AlertEvent{
		alertEvent("drift", "firing", day(2), "temp=3"), alertEvent("drift", "resolved", day(4), "temp=2"),
		alertEvent("drift", "firing", day(6), "temp=4"), alertEvent("drift", "firing", day(6), "temp=4"),
		alertEvent("drift", "firing", day(7), "temp=5"), // its state was lost and it fired anew
		alertEvent("drift", "resolved", day(9), "temp=1"),
		alertEvent("auc", "firing", day(8), "auc=0.6"),
		alertEvent("other", "resolved", day(3), "auc=0.5"), // its beginning was never taken
	} {
		if err := s.InsertAlertEvents(t.Context(), fmt.Sprint("t", i), []AlertEvent{e}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		q    AlertQuery
		want string
	}{
		{AlertQuery{}, "auc 8-0, drift 6-9, other 0-3, drift 2-4"},
		{AlertQuery{State: "firing"}, "auc 8-0"},
		{AlertQuery{State: "resolved"}, "drift 6-9, other 0-3, drift 2-4"},
		{AlertQuery{Model: "risk"}, "other 0-3"},
		{AlertQuery{Rule: "drift"}, "drift 6-9, drift 2-4"},
		{AlertQuery{From: day(4)}, "auc 8-0, drift 6-9"},
		{AlertQuery{From: day(3), To: day(8)}, "drift 6-9, drift 2-4"},
		{AlertQuery{To: day(2)}, ""},
	} {
		c.q.Tenant = "default"
		if got := past(t, s, c.q); got != c.want {
			t.Errorf("%+v: %q, want %q", c.q, got, c.want)
		}
	}
	list, _, err := s.PastAlerts(t.Context(), AlertQuery{Tenant: "default", Rule: "drift", Limit: 1})
	want := PastAlert{
		Rule: "drift", Fingerprint: "f-drift", Model: "delay", ModelVersion: "1", Start: day(6), End: day(9), Value: 6,
		Labels: map[string]string{"severity": "critical"}, Annotations: map[string]string{"features": "temp=4"}, Last: map[string]string{"features": "temp=1"},
	}
	if err != nil || len(list) != 1 || !reflect.DeepEqual(list[0], want) {
		t.Errorf("the second alert is %+v (%v), want %+v", list, err, want)
	}
	for _, q := range []AlertQuery{{State: "sleeping"}, {Cursor: "?"}} {
		if _, _, err := s.PastAlerts(t.Context(), q); !errors.Is(err, ErrWhere) && !errors.Is(err, ErrCursor) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if got := past(t, s, AlertQuery{Tenant: "somebody"}); got != "" {
		t.Errorf("another tenant sees %q", got)
	}
}

// past walks all pages, two alerts each.
func past(t *testing.T, s *Store, q AlertQuery) string {
	t.Helper()
	var out []string
	q.Limit = 2
	for range 10 {
		list, next, err := s.PastAlerts(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			day := func(t time.Time) int {
				if t.IsZero() {
					return 0
				}
				return t.Day()
			}
			out = append(out, fmt.Sprintf("%s %d-%d", a.Rule, day(a.Start), day(a.End)))
		}
		if q.Cursor = next; next == "" {
			return strings.Join(out, ", ")
		}
	}
	t.Fatal("the pages do not end")
	return ""
}
