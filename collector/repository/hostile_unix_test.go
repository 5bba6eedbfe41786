//go:build unix

package repository

import (
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
	// A pipe in the place of the model.yaml of one that answers is not waited for either.
	if hides, unread := r.mayHide(source{dir: filepath.Join(f.dir, "fraud", "2"), file: "model.json"}, v); !hides || !unread {
		t.Errorf("a pipe may hide: %v, unread: %v", hides, unread)
	}
	for _, version := range []string{"2", "3", "4", "5", "6"} {
		if s := state(r, "fraud", version); s.State == "READY" || s.Reason == "" && version != "6" {
			t.Errorf("version %s: %+v", version, s)
		}
	}
}
