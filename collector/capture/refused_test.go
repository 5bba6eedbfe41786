package capture

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

func refusedRequest(model string, status int) *collector.Prediction {
	p := prediction(1)
	p.Model, p.Status, p.Error = model, status, "the request is not valid JSON"
	return p
}

// TestRefusedRequestsAreSampled: a flood makes ten rows a second for each cause, and
// these stand for all of it.
func TestRefusedRequestsAreSampled(t *testing.T) {
	r := &refused{}
	now := time.Now()
	rows, stood := 0, 0.0
	const seconds, flood = 30, 3000
	for i := range seconds * flood {
		if w, ok := r.take(refusedRequest("m", 400), now.Add(time.Duration(i)*time.Second/flood)); ok {
			rows++
			stood += w
		}
	}
	if rows < 10*seconds || rows > 10*seconds+refusedBurst {
		t.Errorf("%d rows in %d s", rows, seconds)
	}
	if missing := seconds*flood - stood; missing < 0 || missing > flood/10+1 {
		t.Errorf("the rows stand for %g of %d", stood, seconds*flood)
	}
	if w, ok := r.take(refusedRequest("m", 413), now.Add(seconds*time.Second)); !ok || w != 1 {
		t.Errorf("another cause: weight %g, %v", w, ok)
	}
}

func TestRefusedRequestsTakeAHundredthOfTheSpool(t *testing.T) {
	var appended, acked uint64
	r := &refused{max: 1000, backlog: func() (uint64, uint64) { return appended, acked }}
	now, taken := time.Now(), 0
	refuse := func(n int) (rows int) {
		for range n {
			now = now.Add(time.Second)
			if _, ok := r.take(refusedRequest("m", 400), now); ok {
				r.recorded(100)
				appended++
				rows++
			}
		}
		taken += rows
		return rows
	}
	if n := refuse(100); n < 10 || n > 12 {
		t.Fatalf("%d rows of 100 bytes in 1,000 bytes", n)
	}
	acked = appended
	first := refuse(1)
	acked = appended
	if n := first + refuse(100); n < 5 || n > 22 {
		t.Errorf("%d rows once the first had left", n)
	}
	if w, ok := r.take(refusedRequest("m", 400), now); ok {
		t.Errorf("taken with weight %g while the share is used up", w)
	}
	for range 3 { // both stretches have left
		appended++
		acked = appended
		refuse(1)
	}
	if n := refuse(3); n != 3 {
		t.Errorf("%d rows of 3 once all had left", n)
	}
}

// TestRefusedRequestsAreBoundedInASpoolWithout: spool_bytes: 0 is no limit for predictions.
func TestRefusedRequestsAreBoundedInASpoolWithout(t *testing.T) {
	c, err := New(Config{
		Append:  func(context.Context, collector.Record) error { return nil },
		Backlog: func() (uint64, uint64) { return 1, 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := c.refused.take(refusedRequest("m", 400), time.Now()); !ok {
		t.Fatal("the first is not taken")
	}
	c.refused.recorded(50 << 20)
	if _, ok := c.refused.take(refusedRequest("m", 413), time.Now()); ok {
		t.Error("one is taken beside 50 MiB of others")
	}
}

// TestOnlyUnreadRequestsAreSampled: what the model saw is recorded, however it ended.
func TestOnlyUnreadRequestsAreSampled(t *testing.T) {
	r, v := newRig(t, nil), version(t)
	kinds := map[collector.Kind]int{}
	for i := range 100 {
		for _, p := range []*collector.Prediction{refusedRequest("m", 400), refusedRequest("m", 400), refusedRequest("m", 500)} {
			p.ID = fmt.Sprintf("%s-%d", p.ID, i)
			if p.Status == 400 && i%2 == 0 {
				p.Latency.Decode = 1 // it was understood
			}
			if err := r.Prediction(t.Context(), p, v, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, rec := range r.tape.records {
		kinds[rec.Kind]++
	}
	if kinds[collector.KindPrediction] != 200 || kinds[collector.KindRefused] < refusedBurst || kinds[collector.KindRefused] > 2*refusedBurst {
		t.Errorf("recorded %v", kinds)
	}
}
