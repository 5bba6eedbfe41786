// Command serving measures what serving a prediction costs, with everything a
// prediction takes with it and without:
//
//   - floor: a bare Echo handler that decodes the same request with
//     encoding/json and answers a constant;
//   - handler: Pellucid's own handler and model, without capture and tracing;
//   - process, machine, none: the real binary at each level of durability, with
//     capture, head-sampled tracing and its embedded ClickHouse.
//
// Servers run on one core and the load on the other, in alternating rounds; it
// prints medians and ratios, and the p99 of the append stage as the server measures
// it. It also measures rows a second into ClickHouse, bytes a stored prediction, the
// time from start to ready, and an outage: memory while ClickHouse is stopped, and
// how fast what has piled up is stored once it goes on, with and without requests.
//
//	go run ./bench/serving
//	go run ./bench/serving -only outage -outage 60
//	go run ./bench/serving -rounds 9 -seconds 3 -connections 1,8,64
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

type options struct {
	rounds      int
	seconds     float64
	connections []int
	binary      string
	rows        int
	outage      float64
	only        string
	role, addr  string
	dir         string
}

func main() {
	var o options
	var connections string
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of every server at every number of connections")
	flag.Float64Var(&o.seconds, "seconds", 2, "length of one measurement")
	flag.StringVar(&connections, "connections", "1,8,64", "numbers of connections")
	flag.StringVar(&o.binary, "binary", "", "a pellucid binary; empty builds one")
	flag.IntVar(&o.rows, "rows", 300_000, "rows of the insert measurement")
	flag.Float64Var(&o.outage, "outage", 30, "seconds that ClickHouse is stopped for")
	flag.StringVar(&o.only, "only", "", "requests, inserts, start or outage; empty for all")
	flag.StringVar(&o.role, "role", "", "")
	flag.StringVar(&o.addr, "addr", "", "")
	flag.StringVar(&o.dir, "dir", "", "")
	flag.Parse()
	err := parse(&o, connections)
	switch {
	case err != nil:
	case o.role != "":
		err = serveRole(o)
	default:
		err = run(context.Background(), o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "serving:", err)
		os.Exit(1)
	}
}

func parse(o *options, connections string) error {
	for _, c := range strings.Split(connections, ",") {
		n, err := strconv.Atoi(c)
		if err != nil || n < 1 || n > 1000 {
			return fmt.Errorf("%q is not a number of connections", c)
		}
		o.connections = append(o.connections, n)
	}
	return nil
}

// run is the whole measurement.
func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "pellucid-serving-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.dir = dir
	if o.binary == "" {
		o.binary = filepath.Join(dir, "pellucid")
		build := exec.CommandContext(ctx, "go", "build", "-o", o.binary, "./cmd/pellucid")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build the server: %w", err)
		}
	}
	if err := writeModel(filepath.Join(dir, "models")); err != nil {
		return err
	}
	for _, m := range []struct {
		name string
		run  func(context.Context, options) error
	}{{"requests", measureRequests}, {"inserts", measureInserts}, {"start", measureStart}, {"outage", measureOutage}} {
		if o.only != "" && o.only != m.name {
			continue
		}
		if err := m.run(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

type cell struct {
	server      string
	connections int
}

// measureRequests alternates the servers and prints the table.
func measureRequests(ctx context.Context, o options) error {
	names := []string{"floor", "handler", "process", "machine", "none"}
	servers := map[string]*server{}
	for _, name := range names {
		s, err := start(ctx, o, name, name, 0)
		if err != nil {
			return err
		}
		defer s.stop()
		servers[name] = s
	}
	whole, err := affinity()
	if err != nil {
		return err
	}
	if err := pin(1); err != nil {
		return err
	}
	defer func() { _ = setAffinity(whole) }()
	body := post(1, rand.New(rand.NewPCG(1, 1)))
	results := map[cell][]result{}
	for round := range o.rounds + 1 { // the first warms up
		for _, n := range o.connections {
			for _, name := range names {
				r, err := load(servers[name], body, n, time.Duration(o.seconds*float64(time.Second)))
				if err != nil {
					return fmt.Errorf("load %s: %w", name, err)
				}
				if round > 0 {
					results[cell{name, n}] = append(results[cell{name, n}], r)
				}
				if servers[name].records() {
					servers[name].settle(ctx)
				}
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round, o.rounds)
	}
	printRequests(o, names, results)
	for _, name := range names {
		if !servers[name].records() {
			continue
		}
		p50, p99, err := servers[name].appendStage(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("append stage, %-8s p50 %6.0f us, p99 %6.0f us\n", name+":", p50*1e6, p99*1e6)
	}
	return nil
}

func printRequests(o options, names []string, results map[cell][]result) {
	fmt.Println("one row of 30 features, 500 trees of depth 6; server on one core, load on the other; medians")
	fmt.Printf("%-10s %12s %10s %10s %10s %10s %10s %12s %10s %14s\n", "server", "connections", "req/s", "p50 us", "p99 us", "+p50 us", "+p99 us", "CPU us/req", "/ handler", "ClickHouse us")
	for _, n := range o.connections {
		of := func(name string, value func(result) float64) float64 { return median(results[cell{name, n}], value) }
		cpu := func(r result) float64 { return r.cpu }
		p50, p99 := func(r result) float64 { return r.p50 }, func(r result) float64 { return r.p99 }
		for _, name := range names {
			fmt.Printf("%-10s %12d %10.0f %10.0f %10.0f %10.0f %10.0f %12.1f %10.2f %14.1f\n", name, n,
				of(name, func(r result) float64 { return r.rate }), of(name, p50), of(name, p99),
				of(name, p50)-of("handler", p50), of(name, p99)-of("handler", p99),
				of(name, cpu), of(name, cpu)/of("handler", cpu), of(name, func(r result) float64 { return r.childCPU }))
		}
	}
}

func median(rs []result, of func(result) float64) float64 {
	values := make([]float64, len(rs))
	for i, r := range rs {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// measureInserts sends batches as fast as they are taken and waits until every
// row is in ClickHouse.
func measureInserts(ctx context.Context, o options) error {
	s, err := start(ctx, o, "process", "inserts", -1)
	if err != nil {
		return err
	}
	defer s.stop()
	const rows = 1000
	bodies := make([][]byte, o.rows/rows)
	r := rand.New(rand.NewPCG(2, 1))
	for i := range bodies {
		bodies[i] = post(rows, r)
	}
	c, err := dial(s.addr)
	if err != nil {
		return err
	}
	defer c.close()
	before, err := s.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	for _, body := range bodies {
		if err := c.roundTrip(body); err != nil {
			return err
		}
	}
	sent := time.Since(began)
	if err := s.drained(ctx); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := s.cpu()
	if err != nil {
		return err
	}
	n := float64(o.rows / rows * rows)
	size, count, err := s.stored(ctx)
	if err != nil {
		return err
	}
	if count != n {
		return fmt.Errorf("%g rows are stored of %g sent", count, n)
	}
	fmt.Printf("\n%.0f rows of 30 features in batches of %d, everything on both cores\n", n, rows)
	fmt.Printf("answered            %10.0f rows/s\n", n/sent.Seconds())
	fmt.Printf("stored              %10.0f rows/s\n", n/took.Seconds())
	fmt.Printf("CPU of pellucid     %10.2f us a row: predict, capture, insert\n", (after.own-before.own)/n*1e6)
	fmt.Printf("CPU of ClickHouse   %10.2f us a row\n", (after.child-before.child)/n*1e6)
	fmt.Printf("bytes a prediction  %10.1f on disk after merging, the values random (raw features alone: 120)\n", size/n)
	return nil
}

// measureStart starts a server on a folder that has been used before, again and
// again.
func measureStart(ctx context.Context, o options) error {
	var times []float64
	for i := range 7 {
		s, err := start(ctx, o, "process", "starts", -1)
		if err != nil {
			return err
		}
		s.stop()
		if i > 0 { // the first makes the folder
			times = append(times, float64(s.ready.Milliseconds()))
		}
	}
	slices.Sort(times)
	fmt.Printf("\nstart to ready      %10.0f ms (%.0f to %.0f), its ClickHouse included\n", times[len(times)/2], times[0], times[len(times)-1])
	return nil
}
