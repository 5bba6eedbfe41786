package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKeyThatADiskHadNoRoomFor is made when there is room, by the process that wanted it
// and by a later one, and is the same from then on.
func TestKeyThatADiskHadNoRoomFor(t *testing.T) {
	c := defaults()
	c.Data = filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(c.Data, nil, 0o600); err != nil { // nothing can be made in it
		t.Fatal(err)
	}
	get := c.hashKey()
	if key, err := get(); err == nil {
		t.Fatalf("a key out of nothing: %x", key)
	}
	if err := os.Remove(c.Data); err != nil {
		t.Fatal(err)
	}
	first, err := get()
	if err != nil || len(first) != 32 {
		t.Fatalf("when there is room: %x, %v", first, err)
	}
	path := filepath.Join(c.Data, "private.key")
	again, err := c.hashKey()()
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("another process has %x, not %x: %v", again, first, err)
	}
	// One that has gone, is empty or is another is not replaced without a word: values are
	// stored by it.
	right := readFile(t, path)
	for what, change := range map[string]func() error{
		"gone":    func() error { return os.Remove(path) },
		"empty":   func() error { return os.WriteFile(path, nil, 0o600) },
		"another": func() error { return os.WriteFile(path, []byte(strings.Repeat("ab", 32)), 0o600) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if key, err := c.hashKey()(); err == nil || !strings.Contains(err.Error(), "put that back") {
			t.Errorf("%s: %x, %v", what, key, err)
		}
		if err := os.WriteFile(path, []byte(right), 0o600); err != nil {
			t.Fatal(err)
		}
		if key, err := c.hashKey()(); err != nil || !bytes.Equal(first, key) {
			t.Errorf("%s and put back: %x, %v", what, key, err)
		}
	}
	for _, name := range []string{path, path + ".id"} { // to begin anew
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if key, err := c.hashKey()(); err != nil || len(key) != 32 || bytes.Equal(first, key) {
		t.Errorf("over empty files: %x, %v", key, err)
	}
	left, err := os.ReadDir(c.Data)
	if info, statErr := os.Stat(path); err != nil || statErr != nil || len(left) != 2 || info.Mode().Perm() != 0o600 {
		t.Errorf("left %v: %v %v", left, err, statErr)
	}
	if err := os.WriteFile(path, []byte("no key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.hashKey()(); err == nil {
		t.Error("what is no key is one")
	}
}
