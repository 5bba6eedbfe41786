package audit

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector/vfs"
	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

// TestHeadsOnAFullDisk: a head that a disk has no room for is told of and no failure of
// Close, leaves no part of a line, and comes by the next Open.
func TestHeadsOnAFullDisk(t *testing.T) {
	disk := vfstest.SmallDisk(t, "1m")
	heads := filepath.Join(disk, "heads")
	var told bytes.Buffer
	cfg := Config{Dir: filepath.Join(disk, "audit"), Key: []byte("0123456789abcdef"), HeadFile: heads, Log: slog.New(slog.NewTextHandler(&told, nil))}
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// The next head begins 20 bytes before the end of the file's last page.
	b, err := os.ReadFile(heads)
	if err != nil {
		t.Fatal(err)
	}
	b = append(bytes.TrimSuffix(b, []byte("\n")), strings.Repeat(" ", 4096-20-len(b))+"\n"...)
	if err := os.WriteFile(heads, b, 0o600); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	vfstest.Fill(t, filler)
	if err := appendHead(heads, l.Head()); !vfs.IsFull(err) {
		t.Fatalf("the head has room: %v", err)
	}
	if err := l.Append(t.Context(), Entry{Action: "read", Object: "x"}, true); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if !strings.Contains(told.String(), "the disk is full") {
		t.Errorf("told %s", &told)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	seq := l.Head().Seq
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	list, err := ReadHeads(heads)
	if err != nil || len(list) != 3 || list[2].Seq != seq || seq != 2 {
		t.Errorf("heads %v of %d entries: %v", list, seq, err)
	}
}
