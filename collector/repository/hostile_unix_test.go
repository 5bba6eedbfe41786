//go:build unix

package repository

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestGoodVersionsServeBesideHostileOnes: what is a pipe, endless, cut off or no model at
// all is refused with a reason, and keeps nothing else from being served.
func TestGoodVersionsServeBesideHostileOnes(t *testing.T) {
	f := newFixture(t)
	f.model(t, "good/1")
	f.model(t, "fraud/2") // whose model.yaml is a pipe
	if err := unix.Mkfifo(filepath.Join(f.dir, "fraud", "2", "model.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.model(t, "fraud/3")
	if err := os.Symlink("/dev/zero", filepath.Join(f.dir, "fraud", "3", "model.yaml")); err != nil {
		t.Fatal(err)
	}
	f.write(t, "fraud/4/model.json", strings.Repeat("[", 1<<20))
	f.write(t, "fraud/5/model.onnx", "\x3a\xff\xff\xff\xff\x07")
	if err := os.MkdirAll(filepath.Join(f.dir, "fraud", "6"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(f.dir, "fraud", "6", "model.onnx"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := f.open(t, time.Hour)
	v, err := r.Find("good", "1")
	if err != nil {
		t.Fatal(err)
	}
	f.answers(t, v)
	for _, version := range []string{"2", "3", "4", "5", "6"} {
		if s := state(r, "fraud", version); s.State == "READY" || s.Reason == "" && version != "6" {
			t.Errorf("version %s: %+v", version, s)
		}
	}
}

// TestAPipeInAModelsPlace is waited for by nobody: neither by the watcher nor by Close.
func TestAPipeInAModelsPlace(t *testing.T) {
	s := newSaid(t, 5*time.Millisecond)
	for _, at := range []string{"m/1", "made/1"} {
		path := filepath.Join(s.dir, filepath.FromSlash(at), "model.yaml")
		if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"reference", "background"} {
		s.model(t, "rows/"+file)
		s.write(t, "rows/"+file+"/model.yaml", file+": rows.csv\n")
		if err := unix.Mkfifo(filepath.Join(s.dir, "rows", file, "rows.csv"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	within(t, "all are looked at", func() bool {
		for _, at := range [][2]string{{"m", "1"}, {"m", "2"}, {"made", "1"}, {"rows", "reference"}, {"rows", "background"}} {
			if st := state(s.r, at[0], at[1]); st.State != "UNAVAILABLE" || !strings.Contains(st.Reason, "not a regular file") {
				return false
			}
		}
		return true
	})
	s.private(t, "a pipe", "m/1 closed", "m/2 closed", "made/1 closed")
	s.model(t, "late/1")
	within(t, "the watcher goes on", func() bool { return state(s.r, "late", "1").State == "READY" })
}

// TestARegularFileThatWouldBeWaitedFor, as some of the kernel's are, is an error at once, wherever it
// lies and whatever is in it by then, and keeps nothing else from being looked at.
func TestARegularFileThatWouldBeWaitedFor(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(pipe, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("text"); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(unwaited{f})
	if string(text) != "text" || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("%q, %v", text, err)
	}

	s := newSaid(t, time.Hour)
	s.model(t, "kernel/1")
	if err := os.Symlink("/proc/kmsg", filepath.Join(s.dir, "kernel", "1", "model.yaml")); err != nil {
		t.Fatal(err)
	}
	s.model(t, "late/1")
	s.look(t)
	if st := state(s.r, "kernel", "1"); st.State != "UNAVAILABLE" || st.Reason == "" {
		t.Errorf("%+v", st)
	}
	if st := state(s.r, "late", "1"); st.State != "READY" {
		t.Errorf("%+v", st)
	}
}
