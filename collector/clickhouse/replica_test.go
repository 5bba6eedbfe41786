package clickhouse

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// TestRowsOnAnotherReplica: rows that the server asked does not have are gone only when it has
// what every replica has; one that lags is waited for, and where that fails nothing is said.
func TestRowsOnAnotherReplica(t *testing.T) {
	for _, c := range []struct {
		name                string
		here, after, broken bool
		wait                bool
	}{
		{name: "here", here: true},
		{name: "lagging", after: true, wait: true},
		{name: "lagging, not waited for", after: true},
		{name: "gone", wait: true},
		{name: "a replica is away", broken: true, wait: true},
	} {
		var synced []string
		away := errors.New("a replica does not answer")
		w := &Writer{look: time.Microsecond, sync: func(_ context.Context, table string) error {
			if synced = append(synced, table); c.broken {
				return away
			}
			return nil
		}}
		in := attempt{name: "traffic", stored: func(context.Context) (bool, error) { return c.here || c.after && len(synced) > 0, nil }}
		ok, err := w.kept(t.Context(), in, c.wait)
		if ok != (c.here || c.after) || c.broken != errors.Is(err, away) {
			t.Errorf("%s: %v, %v", c.name, ok, err)
		}
		if want := []string{"traffic_1m"}; !c.here && !slices.Equal(synced, want) || c.here && synced != nil {
			t.Errorf("%s: waited for %v", c.name, synced)
		}
	}
	for insert, table := range map[string]string{"predictions:202611:0": "predictions", "feedback:202611": "feedback", "bins_1m": "bins_1m", "schemas": "schemas"} {
		if got := tableOf(insert); got != table || sharding[got] == "" {
			t.Errorf("%q goes to %q", insert, got)
		}
	}
	if (cluster{}).replicas() || (cluster{name: "prod", perHost: true}).replicas() || !(cluster{name: "prod"}).replicas() {
		t.Error("which clusters have replicas")
	}
}
