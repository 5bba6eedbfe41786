package capture

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/spool"
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
	const payload = 100 - collector.FrameBytes
	r := newRefused(1000*refusedShare, 0, func() (uint64, uint64) { return appended, acked })
	now, taken := time.Now(), 0
	refuse := func(n int) (rows int) {
		for range n {
			now = now.Add(time.Second)
			p := refusedRequest("m", 400)
			w, ok := r.take(p, now)
			if p.Weight = w; ok && r.reserve(p, payload) {
				r.settle(payload, true)
				appended++
				rows++
			}
		}
		taken += rows
		return rows
	}
	if n := refuse(100); n != 10 {
		t.Fatalf("%d rows of 100 bytes in 1,000 bytes", n)
	}
	acked = appended
	first := refuse(1)
	acked = appended
	if n := first + refuse(100); n < 5 || n > 20 {
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

// floodedLife opens a spool as a process does, floods it with refused requests, a hundred
// causes, and returns how many became rows. It takes the batches first where drained is set.
func floodedLife(t *testing.T, dir string, life int, drained bool) (rows int) {
	t.Helper()
	s, err := spool.Open(spool.Config{Dir: dir, MaxBytes: refusedSpool})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := newRig(t, func(c *Config) {
		c.Append, c.SpoolBytes, c.Waiting = s.Append, refusedSpool, s.Stats().Pending
		c.Backlog = func() (uint64, uint64) { return s.Stats().Appended, s.Stats().Acked }
	})
	if drained {
		drainRefused(t, s)
	}
	v, before := version(t), s.Stats().Appended
	for i := range 1000 {
		p := refusedRequest(fmt.Sprintf("m%d", i%100), 400)
		p.ID = fmt.Sprintf("%s-%d-%d", p.ID, life, i)
		if err := r.Prediction(t.Context(), p, v, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	return int(s.Stats().Appended - before)
}

const refusedSpool = 1 << 20

// drainRefused acknowledges all that waits, and returns the bytes of refused rows' frames.
func drainRefused(t *testing.T, s *spool.Spool) (bytes int64) {
	t.Helper()
	for s.Stats().Pending > 0 {
		s.Flush()
		b, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range b.Records {
			if rec.Kind == collector.KindRefused {
				bytes += int64(len(rec.Payload)) + collector.FrameBytes
			}
		}
		if err := s.Ack(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	return bytes
}

// TestRefusedRequestsTakeAHundredthOverStarts: rows of an earlier process that wait count,
// and the spool's frames around rows do; once they have left, rows are taken again.
func TestRefusedRequestsTakeAHundredthOverStarts(t *testing.T) {
	for _, lives := range []int{1, 2, 4} {
		dir := t.TempDir()
		for life := range lives {
			if n := floodedLife(t, dir, life, false); life == 0 && n == 0 {
				t.Fatal("nothing was taken")
			}
		}
		s, err := spool.Open(spool.Config{Dir: dir, MaxBytes: refusedSpool})
		if err != nil {
			t.Fatal(err)
		}
		got := drainRefused(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d lives: %d bytes of %d", lives, got, refusedSpool/refusedShare)
		if got > refusedSpool/refusedShare || got < refusedSpool/refusedShare*9/10 {
			t.Errorf("%d lives: %d bytes of refused rows wait, a hundredth is %d", lives, got, refusedSpool/refusedShare)
		}
		if n := floodedLife(t, dir, lives, false); n == 0 {
			t.Error("nothing is taken after a start with a drained spool")
		}
		if n := floodedLife(t, dir, lives+1, true); n == 0 {
			t.Error("nothing is taken once what waited at the start has left")
		}
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
	p := refusedRequest("m", 400)
	if _, ok := c.refused.take(p, time.Now()); !ok || !c.refused.reserve(p, 40<<20) {
		t.Fatal("the first is not taken")
	}
	c.refused.settle(40<<20, true)
	if c.refused.reserve(p, 10<<20) {
		t.Error("10 MiB are taken beside 40 MiB of others")
	}
}

// TestRefusedRowWithoutRoomIsStoodFor: what does not fit the share weighs in the next row,
// and what could not be appended takes none of it.
func TestRefusedRowWithoutRoomIsStoodFor(t *testing.T) {
	const payload = 100 - collector.FrameBytes
	var appended, acked uint64
	r := newRefused(250*refusedShare, 0, func() (uint64, uint64) { return appended, acked })
	now, p := time.Now(), refusedRequest("m", 400)
	take := func() (reserved bool) {
		t.Helper()
		w, ok := r.take(p, now)
		if !ok {
			t.Fatal("not taken")
		}
		p.Weight = w
		return r.reserve(p, payload)
	}
	for i := range 3 {
		if !take() {
			t.Fatalf("row %d has no room", i)
		}
		appended = uint64(i) // the first could not be appended
		r.settle(payload, i > 0)
	}
	for range 2 {
		if take() {
			t.Fatal("a third row has room")
		}
	}
	acked = appended
	if first := take(); !first && !take() { // a stretch leaves with each look
		t.Error("no row once all have left")
	}
	if p.Weight < 3 {
		t.Errorf("the row weighs %g, want 3 and more", p.Weight)
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
