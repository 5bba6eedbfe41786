package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// maxHeadroom is how much garbage may lie beside what is in use.
	maxHeadroom = 128 << 20
	// Between these the collector's percentage moves; Go's own is the lower.
	minGCPercent, maxGCPercent = 100, 300
	paceEvery                  = 10 * time.Second
)

// paceCollector lets a small heap grow further before it is collected: at Go's 100 %
// a server of small models spends a twentieth of its time marking the same few
// megabytes. Whoever sets GOGC is left alone; GOMEMLIMIT holds in any case. It
// returns when ctx is done.
func paceCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	for {
		metrics.Read(sample)
		debug.SetGCPercent(gcPercent(sample[0].Value.Uint64()))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// gcPercent is the percentage for a heap of which so much is in use.
func gcPercent(live uint64) int {
	return int(min(max(maxHeadroom*100/max(live, 1), minGCPercent), maxGCPercent))
}
