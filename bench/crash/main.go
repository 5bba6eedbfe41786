// Command crash kills the real server, or its ClickHouse, with SIGKILL again and
// again while clients send predictions (inference requests, spans by OTLP, a payload
// logger's CloudEvents), and then holds what is stored against what was sent:
//
//   - every acknowledged prediction is stored (nothing lost),
//   - every stored prediction was attempted (nothing made up),
//   - none is stored twice.
//
// It builds the binary, makes its own data folder and model, and exits 1 when
// any of that does not hold.
package main

import (
	"bytes"
	"context"
	"encoding/json"
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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// model is a two-tree XGBoost file small enough to stand here: what matters is
// the path of the record, not the number.
const model = `{"learner":{"attributes":{},"feature_names":["a","b"],"feature_types":["float","float"],"gradient_booster":{"model":{"cats":{"enc":[],"feature_segments":[],"sorted_idx":[]},"gbtree_model_param":{"num_parallel_tree":"1","num_trees":"1"},"iteration_indptr":[0,1],"tree_info":[0],"trees":[{"base_weights":[0,-0.4,0.4],"categories":[],"categories_nodes":[],"categories_segments":[],"categories_sizes":[],"default_left":[0,0,0],"id":0,"left_children":[1,-1,-1],"loss_changes":[1,0,0],"parents":[2147483647,0,0],"right_children":[2,-1,-1],"split_conditions":[0.5,-0.4,0.4],"split_indices":[0,0,0],"split_type":[0,0,0],"sum_hessian":[10,5,5],"tree_param":{"num_deleted":"0","num_feature":"2","num_nodes":"3","size_leaf_vector":"1"}}]},"name":"gbtree"},"learner_model_param":{"base_score":"5E-1","boost_from_average":"1","num_class":"0","num_feature":"2","num_target":"1"},"objective":{"name":"binary:logistic","reg_loss_param":{"scale_pos_weight":"1"}}},"version":[2,1,4]}`

type options struct {
	kills   int
	workers int
	every   time.Duration
	keep    bool
	seed    uint64
	binary  string
}

func main() {
	var o options
	flag.IntVar(&o.kills, "kills", 20, "how many times to kill")
	flag.IntVar(&o.workers, "workers", 8, "clients sending inference requests at a time; four more send what was predicted elsewhere")
	flag.DurationVar(&o.every, "every", 700*time.Millisecond, "mean time between kills, once the server answers")
	flag.BoolVar(&o.keep, "keep", false, "keep the data folder where all is well, too")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "seed of the choices")
	flag.StringVar(&o.binary, "binary", "", "a pellucid binary; empty builds one")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
}

// run is the whole test: traffic and kills, then the reckoning.
func run(o options) (err error) {
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
	if o.binary == "" {
		o.binary = filepath.Join(dir, "pellucid")
		build := exec.Command("go", "build", "-o", o.binary, "./cmd/pellucid")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build the server: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "models"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "models", "m.json"), []byte(model), 0o600); err != nil {
		return err
	}
	addr, err := freeAddress()
	if err != nil {
		return err
	}
	fmt.Printf("seed %d, folder %s\n", o.seed, dir)
	t := &trial{options: o, dir: dir, url: "http://" + addr, addr: addr, random: rand.New(rand.NewPCG(o.seed, 1))}
	defer t.stop()
	if err := t.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	clients := t.clients(ctx)
	err = t.killLoop()
	cancel()
	clients.Wait()
	if err != nil {
		return err
	}
	return t.reckon()
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
	dir, url, addr string
	random         *rand.Rand
	server         *exec.Cmd
	log            *os.File

	attempted atomic.Int64
	mu        sync.Mutex
	acked     []string
	killed    map[string]int
}

func (t *trial) start() error {
	if t.log == nil {
		f, err := os.Create(filepath.Join(t.dir, "server.log"))
		if err != nil {
			return err
		}
		t.log = f
	}
	t.server = exec.Command(t.binary, "serve", "--http", t.addr, "--grpc", "", "--models", filepath.Join(t.dir, "models"), "--data", filepath.Join(t.dir, "data"))
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

// clients send single rows and batches until ctx ends, and some predictions made
// elsewhere, each row with an id of its own; what was answered 200 is acknowledged.
func (t *trial) clients(ctx context.Context) *sync.WaitGroup {
	var wg sync.WaitGroup
	for w := range t.workers + 2*len(roads) {
		wg.Go(func() {
			client := &http.Client{Timeout: 10 * time.Second}
			for n := 0; ctx.Err() == nil; n++ {
				if w >= t.workers {
					t.elsewhere(ctx, client, w, fmt.Sprintf("w%d-%d", w, n))
					continue
				}
				rows := 1 + (n%5)*(n%2)
				ids := make([]string, rows)
				for i := range ids {
					ids[i] = fmt.Sprintf("w%d-%d-%d", w, n, i)
				}
				t.attempted.Add(int64(rows))
				if send(ctx, client, t.url, ids) {
					t.mu.Lock()
					t.acked = append(t.acked, ids...)
					t.mu.Unlock()
				} else {
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	return &wg
}

// elsewhere sends predictions made elsewhere; w chooses their road.
func (t *trial) elsewhere(ctx context.Context, client *http.Client, w int, name string) {
	r := roads[w%len(roads)]
	ids := make([]string, r.rows)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%d", name, i)
	}
	t.attempted.Add(int64(len(ids)))
	if r.send(ctx, client, t.url, ids) {
		t.mu.Lock()
		t.acked = append(t.acked, ids...)
		t.mu.Unlock()
	}
}

func send(ctx context.Context, client *http.Client, url string, ids []string) bool {
	data := make([]float64, 2*len(ids))
	for i := range data {
		data[i] = float64(i%7) / 7
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return false
	}
	body, err := json.Marshal(map[string]any{
		"parameters": map[string]any{"external_ids": string(list)},
		"inputs":     []any{map[string]any{"name": "input", "datatype": "FP32", "shape": []int{len(ids), 2}, "data": data}},
	})
	if err != nil {
		return false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v2/models/m/infer", bytes.NewReader(body))
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
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

// reckon waits until the spool is drained and compares.
func (t *trial) reckon() error {
	conn, err := t.connect()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the process ends
	ctx := context.Background()
	began := time.Now()
	behind, err := t.waiting()
	if err == nil {
		err = t.drained()
	}
	if err != nil {
		return err
	}
	fmt.Printf("%g records were waiting after the last kill, for %.1f s\n", behind, time.Since(began).Seconds())
	// The last batch is in the tables a moment before it is acknowledged, and after that
	// all of it is: only a connection that breaks is a reason to look again.
	var stored map[string]int
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		if stored, err = storedIDs(ctx, conn); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		return err
	}
	lost, doubled := t.missing(stored), 0
	for _, n := range stored {
		if n > 1 {
			doubled++
		}
	}
	var count, unique uint64
	if err := conn.QueryRow(ctx, "SELECT count(), uniqExact(id, row) FROM predictions").Scan(&count, &unique); err != nil {
		return err
	}
	var rolled uint64
	if err := conn.QueryRow(ctx, "SELECT sum(rows) FROM traffic_1m").Scan(&rolled); err != nil {
		return err
	}
	fmt.Printf("kills: %d server, %d clickhouse\nattempted %d, acknowledged %d, stored %d, lost %d, doubled %d\n",
		t.killed["server"], t.killed["clickhouse"], t.attempted.Load(), len(t.acked), count, lost, doubled)
	switch {
	case lost > 0:
		return fmt.Errorf("%d acknowledged predictions are not stored", lost)
	case rolled != count:
		return fmt.Errorf("the rollup counts %d rows, the table %d", rolled, count)
	case doubled > 0 || count != unique:
		return fmt.Errorf("%d predictions are stored more than once (count %d, unique %d)", doubled, count, unique)
	case int64(len(stored)) > t.attempted.Load():
		return fmt.Errorf("%d stored of %d attempted", len(stored), t.attempted.Load())
	case len(t.acked) == 0:
		return errors.New("nothing was acknowledged: the trial proves nothing")
	}
	return nil
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

// waiting is how many records are in the spool.
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
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, "ml_spool_pending_records "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, errors.New("no ml_spool_pending_records among the metrics")
}

func (t *trial) missing(stored map[string]int) int {
	n := 0
	for _, id := range t.acked {
		if stored[id] == 0 {
			n++
		}
	}
	return n
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

// storedIDs returns how often each of the clients' ids is stored as answered.
func storedIDs(ctx context.Context, conn driver.Conn) (map[string]int, error) {
	rows, err := conn.Query(ctx, "SELECT if(external_id = '', id, external_id) AS sent, count() FROM predictions WHERE status = 200 GROUP BY sent")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ids := map[string]int{}
	for rows.Next() {
		var id string
		var n uint64
		if err := rows.Scan(&id, &n); err != nil {
			return nil, err
		}
		ids[id] = int(n)
	}
	return ids, rows.Err()
}
