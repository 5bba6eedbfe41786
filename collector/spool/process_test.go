package spool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// ownerEnv names the folder that the test binary, run again, opens as another process would,
// and ownerName what its records' ids begin with.
const ownerEnv, ownerName, ownerWriters = "PELLUCID_TEST_SPOOL", "PELLUCID_TEST_OWNER", "PELLUCID_TEST_WRITERS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerEnv); dir != "" {
		if os.Getenv(ownerWriters) != "" {
			os.Exit(ownTogether(folderConfig(dir)))
		}
		os.Exit(own(folderConfig(dir), os.Getenv(ownerName)))
	}
	os.Exit(m.Run())
}

// own appends to a folder until it is killed, and prints each id that is acknowledged. Where
// another process has the folder it prints why it does not.
func own(cfg Config, name string) int {
	s, err := Open(cfg)
	if err != nil {
		fmt.Println("refused:", err)
		return 1
	}
	fmt.Println("open")
	for i := 0; ; i++ {
		id := fmt.Sprintf("%s-%d", name, i)
		if err := s.Append(context.Background(), prediction(id, 20+i%1000)); err != nil {
			fmt.Println("refused:", err)
			return 1
		}
		fmt.Println(id)
	}
}

// owner is such a process.
type owner struct {
	name string
	cmd  *exec.Cmd
	out  *bufio.Reader
	said string // its first line
}

func startOwner(t *testing.T, dir, name string) *owner {
	t.Helper()
	o := &owner{name: name, cmd: exec.Command(os.Args[0])}
	o.cmd.Env, o.cmd.Stderr = append(os.Environ(), ownerEnv+"="+dir, ownerName+"="+name), os.Stderr
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	o.out = bufio.NewReader(out)
	if err := o.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.cmd.Process.Kill() }) // of one that has not ended
	return o
}

// acknowledge has w expect what the owner says, n lines of it or all.
func (o *owner) acknowledge(w *world, n int) {
	for i := 0; i < n || n < 0; i++ {
		line, err := o.out.ReadString('\n')
		if err != nil {
			return // it has ended: less than a line was not said
		}
		id := strings.TrimSpace(line)
		w.attempted[id], w.acked[id] = true, true
	}
}

// TestTwoProcesses starts two processes on one folder at once, kills the one that has it amid
// its appends, and is a third itself.
func TestTwoProcesses(t *testing.T) {
	const rounds = 10
	cfg := folderConfig(t.TempDir())
	w, refused := newWorld(t), 0
	for round := range rounds {
		pair := []*owner{startOwner(t, cfg.Dir, fmt.Sprint("a", round)), startOwner(t, cfg.Dir, fmt.Sprint("b", round))}
		var has *owner
		for _, o := range pair {
			var err error
			if o.said, err = o.out.ReadString('\n'); err != nil {
				t.Fatalf("round %d: %q, %v", round, o.said, err)
			}
			switch {
			case o.said == "open\n" && has == nil:
				has = o
			case strings.HasPrefix(o.said, "refused: ") && strings.Contains(o.said, ErrLocked.Error()) && o.cmd.Wait() != nil:
				refused++
			default:
				t.Fatalf("round %d: one says %q, the other %q", round, pair[0].said, pair[1].said)
			}
		}
		if has == nil {
			t.Fatalf("round %d: nobody has the folder: %q, %q", round, pair[0].said, pair[1].said)
		}
		_, err := Open(cfg)
		if !errors.Is(err, ErrLocked) || runtime.GOOS != "windows" && !strings.Contains(err.Error(), strconv.Itoa(has.cmd.Process.Pid)) {
			t.Fatalf("round %d: the folder of process %d opens: %v", round, has.cmd.Process.Pid, err)
		}
		refused++
		has.acknowledge(w, 50+round)
		if err := has.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		has.acknowledge(w, -1)
		_ = has.cmd.Wait() // it was killed
		w.attempted[fmt.Sprintf("%s-%d", has.name, saidBy(w, has.name))] = true
		s, err := Open(cfg)
		if err != nil {
			t.Fatalf("round %d: after the kill: %v", round, err)
		}
		if err := w.drain(s); err != nil {
			t.Fatal(err)
		}
		w.check()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d processes refused, %d acknowledged, 0 lost, 0 doubled", rounds, refused, len(w.acked))
}

// saidBy is how many of an owner's records are acknowledged, which is the number of the next.
func saidBy(w *world, name string) (n int) {
	for id := range w.acked {
		if strings.HasPrefix(id, name+"-") {
			n++
		}
	}
	return n
}
