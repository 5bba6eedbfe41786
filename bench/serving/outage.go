package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// measureOutage stops ClickHouse under full load, as a whole process that neither
// answers nor closes a connection, and lets it go on: once with the load going on, and
// once alone, which is what storing a row costs.
func measureOutage(ctx context.Context, o options) error {
	s, err := start(ctx, o, "process", "outage", -1)
	if err != nil {
		return err
	}
	defer s.stop()
	child, err := s.child()
	if err != nil {
		return err
	}
	body := post(1, rand.New(rand.NewPCG(1, 1)))
	long := time.Duration(o.outage * float64(time.Second))
	usual, err := load(s, body, 8, 5*time.Second)
	if err != nil {
		return err
	}
	if err := s.drained(ctx); err != nil {
		return err
	}
	before, err := s.memory()
	if err != nil {
		return err
	}
	fmt.Printf("\nClickHouse stopped for %.0f s, 8 connections, everything on both cores\n", o.outage)
	fmt.Printf("before              %10.0f req/s, p99 %.0f us, %.0f MiB resident\n", usual.rate, usual.p99, before)

	away, peak, err := s.without(ctx, child, body, long)
	if err != nil {
		return err
	}
	piled, err := s.metric(ctx, "ml_spool_pending_records")
	if err != nil {
		return err
	}
	bytes, err := s.metric(ctx, "ml_spool_pending_bytes")
	if err != nil {
		return err
	}
	fmt.Printf("during              %10.0f req/s, p99 %.0f us, %.0f MiB resident at most\n", away.rate, away.p99, peak)
	fmt.Printf("piled up            %10.0f rows, %.0f MiB of disk\n", piled, bytes/(1<<20))

	// Alone.
	used, err := s.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := syscall.Kill(child, syscall.SIGCONT); err != nil {
		return err
	}
	if err := s.drained(ctx); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	after, err := s.cpu()
	if err != nil {
		return err
	}
	own, other := (after.own-used.own)/piled, (after.child-used.child)/piled
	fmt.Printf("catching up, alone  %10.0f rows/s; %.2f us of pellucid's CPU a row (%.0f rows/s a core), %.2f of ClickHouse's\n", piled/took, own*1e6, 1/own, other*1e6)

	// While it serves.
	if _, _, err := s.without(ctx, child, body, long/2); err != nil {
		return err
	}
	if piled, err = s.metric(ctx, "ml_spool_pending_records"); err != nil {
		return err
	}
	began = time.Now()
	if err := syscall.Kill(child, syscall.SIGCONT); err != nil {
		return err
	}
	caught := make(chan time.Duration, 1)
	go func() {
		for ctx.Err() == nil {
			// Two seconds of requests are always under way.
			if n, err := s.metric(ctx, "ml_spool_pending_records"); err == nil && n < 2*usual.rate {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		caught <- time.Since(began)
	}()
	busy, err := load(s, body, 8, long)
	if err != nil {
		return err
	}
	select {
	case d := <-caught:
		fmt.Printf("catching up, served %10.0f rows/s beside %.0f req/s, p99 %.0f us\n", piled/d.Seconds()+busy.rate, busy.rate, busy.p99)
	case <-time.After(10 * long):
		return errors.New("it did not catch up while it served")
	}
	return s.drained(ctx)
}

// without loads the server while its ClickHouse is stopped, and returns the most it
// had resident meanwhile, in MiB. ClickHouse stays stopped.
func (s *server) without(ctx context.Context, child int, body []byte, long time.Duration) (result, float64, error) {
	if err := syscall.Kill(child, syscall.SIGSTOP); err != nil {
		return result{}, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	peak := make(chan float64)
	go func() {
		most := 0.0
		for ctx.Err() == nil {
			if m, err := s.memory(); err == nil {
				most = max(most, m)
			}
			time.Sleep(100 * time.Millisecond)
		}
		peak <- most
	}()
	r, err := load(s, body, 8, long)
	cancel()
	return r, <-peak, err
}

// memory is what the server itself has resident, in MiB.
func (s *server) memory() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), "VmRSS:")
	if !ok {
		return 0, errors.New("no VmRSS")
	}
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kib / 1024, err
}

// child is the process id of the server's ClickHouse.
func (s *server) child() (int, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for _, id := range strings.Fields(string(b)) {
			return strconv.Atoi(id)
		}
	}
	return 0, errors.New("the server has no child")
}
