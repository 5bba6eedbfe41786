// Command crash kills the real server, or its ClickHouse, with SIGKILL again and
// again while clients send predictions and labels by every road there is (inference by
// HTTP, gRPC and gRPC streams; predictions made elsewhere by JSON and by gRPC, with
// weights and some ids twice on purpose; spans by OTLP; a payload logger's CloudEvents;
// labels by our id and by the caller's), and then holds what is stored against what was sent:
//
//   - every acknowledged prediction and label is stored (nothing lost),
//   - every stored one was attempted (nothing made up),
//   - none is stored twice,
//   - the rows of one pair of CloudEvents are stored alike, all with both halves or all with one,
//   - the rollups are the sums of the rows.
//
// With -disk the data lies on a file system of that many MiB in memory, which is filled
// to the last byte and freed meanwhile. Where that may not be mounted it says so and exits 0.
//
// It builds the binary, makes its own data folder and model, and exits 1 when
// any of that does not hold. With -write it puts the figures of a trial in which all of it
// held into a document, between its marks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/pellucid/pellucid/collector"
)

// model is a two-tree XGBoost file small enough to stand here: what matters is
// the path of the record, not the number.
const model = `{"learner":{"attributes":{},"feature_names":["a","b"],"feature_types":["float","float"],"gradient_booster":{"model":{"cats":{"enc":[],"feature_segments":[],"sorted_idx":[]},"gbtree_model_param":{"num_parallel_tree":"1","num_trees":"1"},"iteration_indptr":[0,1],"tree_info":[0],"trees":[{"base_weights":[0,-0.4,0.4],"categories":[],"categories_nodes":[],"categories_segments":[],"categories_sizes":[],"default_left":[0,0,0],"id":0,"left_children":[1,-1,-1],"loss_changes":[1,0,0],"parents":[2147483647,0,0],"right_children":[2,-1,-1],"split_conditions":[0.5,-0.4,0.4],"split_indices":[0,0,0],"split_type":[0,0,0],"sum_hessian":[10,5,5],"tree_param":{"num_deleted":"0","num_feature":"2","num_nodes":"3","size_leaf_vector":"1"}}]},"name":"gbtree"},"learner_model_param":{"base_score":"5E-1","boost_from_average":"1","num_class":"0","num_feature":"2","num_target":"1"},"objective":{"name":"binary:logistic","reg_loss_param":{"scale_pos_weight":"1"}}},"version":[2,1,4]}`

// pairTimeout is short, so that halves whose other does not come are recorded alone
// while the trial lasts.
const pairTimeout = 8 * time.Second

type options struct {
	kills      int
	durability string
	disk       int
	workers    int
	every      time.Duration
	keep       bool
	seed       uint64
	binary     string
	write      string
}

func main() {
	var o options
	flag.IntVar(&o.kills, "kills", 20, "how many times to kill")
	flag.StringVar(&o.durability, "durability", "alternate", "process, machine, or alternate: each start takes the other")
	flag.IntVar(&o.disk, "disk", 0, "MiB of a disk for the data that is filled and freed meanwhile; 0 for none")
	flag.IntVar(&o.workers, "workers", 8, "clients sending inference requests at a time; two a road send all else")
	flag.DurationVar(&o.every, "every", 700*time.Millisecond, "mean time between kills, once the server answers")
	flag.BoolVar(&o.keep, "keep", false, "keep the data folder where all is well, too")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "seed of the choices")
	flag.StringVar(&o.binary, "binary", "", "a pellucid binary; empty builds one")
	flag.StringVar(&o.write, "write", "", "a document to write the figures into, where all is well")
	flag.Parse()
	err := run(o)
	if errors.Is(err, errNoMount) {
		fmt.Println("skipped:", err)
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
}

// run is the whole test: traffic and kills, then the reckoning.
func run(o options) (err error) {
	if !slices.Contains([]string{"process", "machine", "alternate"}, o.durability) {
		return fmt.Errorf("durability %q is not process, machine or alternate", o.durability)
	}
	if o.disk > 0 {
		if ended, err := mayMount(); ended || err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "pellucid-crash-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil || o.keep {
			fmt.Println("kept:", dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	if err := prepare(dir, &o); err != nil {
		return err
	}
	if o.disk > 0 {
		data := filepath.Join(dir, "data")
		if err := mount(data, o.disk); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unmount(data)) }()
	}
	t := &trial{options: o, dir: dir, random: rand.New(rand.NewPCG(o.seed, 1)), acked: map[string]bool{}, ackedLabels: map[int64]bool{}, pairs: map[string]pair{}}
	if t.addr, err = freeAddress(); err != nil {
		return err
	}
	if t.rpc, err = freeAddress(); err != nil {
		return err
	}
	t.url = "http://" + t.addr
	fmt.Printf("seed %d, folder %s\n", o.seed, dir)
	defer t.stop()
	if err := t.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	clients := t.clients(ctx)
	if o.disk > 0 {
		clients.Go(func() { t.fillAndFree(ctx) })
	}
	err = t.killLoop()
	cancel()
	clients.Wait()
	if err != nil {
		return err
	}
	return t.reckon()
}

// prepare makes the binary, the model and a configuration for each durability.
func prepare(dir string, o *options) error {
	if o.binary == "" {
		o.binary = filepath.Join(dir, "pellucid")
		build := exec.Command("go", "build", "-o", o.binary, "./cmd/pellucid")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build the server: %w", err)
		}
	}
	for _, d := range []string{"models", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	for _, level := range []string{"process", "machine"} {
		if err := os.WriteFile(filepath.Join(dir, level+".yaml"), []byte("capture: {durability: "+level+", pair_timeout: "+pairTimeout.String()+"}\n"), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "models", "m.json"), []byte(model), 0o600)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close() //nolint:errcheck // only its number is wanted
	return l.Addr().String(), nil
}

// trial is one server over its many lives, and what was sent to it.
type trial struct {
	options
	dir, url, addr, rpc string
	random              *rand.Rand
	server              *exec.Cmd
	log                 *os.File
	starts              int

	attempted, labels atomic.Int64
	refused           atomic.Int64 // requests that were not acknowledged
	fills             atomic.Int64
	mu                sync.Mutex
	acked             map[string]bool
	ackedLabels       map[int64]bool
	killed            map[string]int
	pairs             map[string]pair // of CloudEvents, by the id of both halves
}

// pair is what was sent as CloudEvents: so many rows, of which at least one half is
// acknowledged or none.
type pair struct {
	rows  int
	acked bool
}

// level is the durability of the next start. Tables made at machine serve process as
// well, so that comes first.
func (t *trial) level() string {
	if t.durability != "alternate" {
		return t.durability
	}
	return []string{"machine", "process"}[t.starts%2]
}

func (t *trial) start() error {
	if t.log == nil {
		f, err := os.Create(filepath.Join(t.dir, "server.log"))
		if err != nil {
			return err
		}
		t.log = f
	}
	t.server = exec.Command(t.binary, "serve", "--config", filepath.Join(t.dir, t.level()+".yaml"), "--http", t.addr, "--grpc", t.rpc,
		"--models", filepath.Join(t.dir, "models"), "--data", filepath.Join(t.dir, "data"))
	t.starts++
	t.server.Stdout, t.server.Stderr = t.log, t.log
	if err := t.server.Start(); err != nil {
		return err
	}
	return t.ready()
}

// ready waits until the server answers; the engine may have to be fetched first.
func (t *trial) ready() error {
	deadline := time.Now().Add(5 * time.Minute)
	for time.Now().Before(deadline) {
		resp, err := http.Get(t.url + "/v2/models/m/ready")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if t.server.Process.Signal(syscall.Signal(0)) != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	tail, _ := os.ReadFile(t.log.Name())
	return fmt.Errorf("the server does not answer; its log ends: %s", tail[max(0, len(tail)-2000):])
}

func (t *trial) stop() {
	if t.server != nil && t.server.Process != nil {
		_ = t.server.Process.Signal(syscall.SIGTERM)
		_ = t.server.Wait()
	}
}

// clients send by every road until ctx ends, each row with an id of its own; what was
// answered as recorded is acknowledged. A client goes on without waiting for the others.
func (t *trial) clients(ctx context.Context) *sync.WaitGroup {
	var wg sync.WaitGroup
	for w := range t.workers + 2*(len(roads)-1) {
		r := roads[0]
		if w >= t.workers {
			r = roads[1+(w-t.workers)/2]
		}
		wg.Go(func() {
			c := &client{trial: t, web: &http.Client{Timeout: 10 * time.Second}}
			if err := c.dial(t.rpc); err != nil {
				panic(err) // an address of our own
			}
			defer c.close()
			for n := 0; ctx.Err() == nil; n++ {
				ids := make([]string, 1+rand.IntN(r.rows)*(n%2))
				for i := range ids {
					ids[i] = collector.RowID(fmt.Sprintf("w%d-%d", w, n), i, len(ids))
				}
				t.attempted.Add(int64(len(ids)))
				if r.send(ctx, c, ids) {
					t.acknowledge(ids)
				} else {
					t.refused.Add(1)
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	return &wg
}

func (t *trial) acknowledge(ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		t.acked[id] = true
	}
}

// killLoop kills the server or its ClickHouse, in turn at random, and starts the
// server again.
func (t *trial) killLoop() error {
	t.killed = map[string]int{}
	for n := range t.kills {
		time.Sleep(time.Duration(float64(t.every) * (0.5 + t.random.Float64())))
		victim := "server"
		if t.random.IntN(2) == 0 {
			victim = "clickhouse"
		}
		if err := t.kill(victim); err != nil {
			return fmt.Errorf("kill %d (%s): %w", n+1, victim, err)
		}
		t.killed[victim]++
		if (n+1)%10 == 0 {
			fmt.Printf("%d of %d kills, %d rows attempted, %d acknowledged\n", n+1, t.kills, t.attempted.Load(), t.ackedRows())
		}
	}
	return nil
}

func (t *trial) ackedRows() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.acked)
}

func (t *trial) kill(victim string) error {
	if victim == "server" {
		if err := t.server.Process.Kill(); err != nil {
			return err
		}
		_ = t.server.Wait() // killed: an error by design
		return t.start()
	}
	pid, err := engineOf(t.server.Process.Pid)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// engineOf finds the server's ClickHouse among its children; after a kill it may
// take a moment to be back.
func engineOf(server int) (int, error) {
	for range 500 {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", server))
		if err != nil {
			return 0, err
		}
		for _, task := range tasks {
			list, err := os.ReadFile(task)
			if err != nil {
				continue
			}
			for _, word := range strings.Fields(string(list)) {
				if pid, err := strconv.Atoi(word); err == nil {
					return pid, nil
				}
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return 0, errors.New("the server has no child process")
}

// drained waits until the spool is empty, as long as it becomes less.
func (t *trial) drained() error {
	least, since := math.Inf(1), time.Now()
	for {
		left, err := t.waiting()
		if err == nil && left == 0 {
			return nil
		}
		if err == nil && left < least {
			least, since = left, time.Now()
		}
		if time.Since(since) > 2*time.Minute {
			return fmt.Errorf("the spool does not drain: %g records have been waiting for two minutes (%w)", least, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// waiting is how many records are in the spool, and halves of predictions in files.
func (t *trial) waiting() (float64, error) {
	resp, err := http.Get(t.url + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, 0
	for line := range strings.Lines(string(body)) {
		for _, name := range []string{"ml_spool_pending_records ", "ml_events_waiting "} {
			if rest, ok := strings.CutPrefix(line, name); ok {
				n, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
				if err != nil {
					return 0, err
				}
				sum, found = sum+n, found+1
			}
		}
	}
	if found != 2 {
		return 0, errors.New("no ml_spool_pending_records or ml_events_waiting among the metrics")
	}
	return sum, nil
}

func (t *trial) connect() (driver.Conn, error) {
	out, err := exec.Command(t.binary, "clickhouse", "env", "--data", filepath.Join(t.dir, "data")).Output()
	if err != nil {
		return nil, fmt.Errorf("ask for the address of ClickHouse: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if dsn, ok := strings.CutPrefix(strings.TrimSpace(line), "PELLUCID_CLICKHOUSE="); ok {
			opt, err := clickhouse.ParseDSN(strings.Trim(dsn, `'"`))
			if err != nil {
				return nil, err
			}
			return clickhouse.Open(opt)
		}
	}
	return nil, fmt.Errorf("no PELLUCID_CLICKHOUSE in %q", out)
}
