package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/pellucid/pellucid/collector"
)

// TestMarredPartsAreUnavailable asks for rows whose part a full disk has cut: until the
// server sets it aside there is no answer, which is no fault of whoever asks.
func TestMarredPartsAreUnavailable(t *testing.T) {
	s, m := open(t), newMaker(t)
	w := writer(t, s, WriterConfig{})
	exec(t, s, "SYSTEM STOP MERGES traffic_1m")
	exec(t, s, "SYSTEM STOP MERGES predictions")
	write(t, w, "b", m.schemaRecord(t), record(m.prediction(t, 3, base)))
	for _, table := range []string{"traffic_1m", "predictions"} {
		for _, part := range activeParts(t, s, table) {
			paths, err := filepath.Glob(filepath.Join(part, "*.bin"))
			if err != nil || len(paths) == 0 {
				t.Fatalf("%s: %v, %v", part, paths, err)
			}
			for _, path := range paths {
				if err := os.Truncate(path, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if _, _, _, err := s.Extent(t.Context(), "default", "delay", ""); !errors.Is(err, collector.ErrUnavailable) {
		t.Errorf("a rollup: %v", err)
	}
	_, err := s.List(t.Context(), collector.Query{Tenant: "default", Model: "delay", From: base.Add(-time.Hour), To: base.Add(time.Hour)})
	if !errors.Is(err, collector.ErrUnavailable) {
		t.Errorf("predictions: %v", err)
	}
}

// TestIsFull tells a full disk from what passes.
func TestIsFull(t *testing.T) {
	for _, c := range []struct {
		err  error
		full bool
	}{
		{fmt.Errorf("send batch: %w", &ch.Exception{Code: 243}), true},
		{&ch.Exception{Code: 75, Message: "Cannot write to file: errno: 28, strerror: No space left on device"}, true},
		{&ch.Exception{Code: 75, Message: "Cannot write to file: errno: 5, strerror: Input/output error"}, false},
		{&ch.Exception{Code: 241}, false},
		{io.EOF, false},
		{nil, false},
	} {
		if got := IsFull(c.err); got != c.full {
			t.Errorf("%v: %t", c.err, got)
		}
	}
}

// TestUnavailable tells what may be answered another time from what may not.
func TestUnavailable(t *testing.T) {
	for _, err := range []error{io.EOF, context.DeadlineExceeded, &ch.Exception{Code: 241}, fmt.Errorf("x: %w", &ch.Exception{Code: 243}), &ch.Exception{Code: 246}, &ch.Exception{Code: 279}} {
		if got := unavailable(err); !errors.Is(got, collector.ErrUnavailable) || !errors.Is(got, err) {
			t.Errorf("%v: %v", err, got)
		}
	}
	for _, err := range []error{nil, context.Canceled, &ch.Exception{Code: 60}, &ch.Exception{Code: 497}, &ch.Exception{Code: 516}} {
		if got := unavailable(err); errors.Is(got, collector.ErrUnavailable) {
			t.Errorf("%v: %v", err, got)
		}
	}
}
