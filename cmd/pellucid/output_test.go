package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOutputsLeaveWhatIsNoFileInItsPlace: an answer that goes to a device or a pipe must not
// take its place, and what could not be written whole leaves what was there.
func TestOutputsLeaveWhatIsNoFileInItsPlace(t *testing.T) {
	fails := errors.New("half way")
	writes := func(err error) func(w io.Writer) error {
		return func(w io.Writer) error {
			_, werr := io.WriteString(w, "new")
			return errors.Join(werr, err)
		}
	}
	device, err := os.Stat(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "null")
	if err := os.Symlink(os.DevNull, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link} { // the device itself is everybody's
		for _, fault := range []error{nil, fails} {
			if err := writeTo(path, nil, writes(fault)); !errors.Is(err, fault) {
				t.Errorf("%v, want %v", err, fault)
			}
			if st, err := os.Stat(path); err != nil || st.Mode() != device.Mode() {
				t.Errorf("%s is %v, %v", path, st, err)
			}
			if st, err := os.Lstat(path); err != nil || st.Mode()&os.ModeSymlink == 0 {
				t.Errorf("%s is %v, %v", path, st, err)
			}
		}
	}
	dir := t.TempDir()
	path, alias := filepath.Join(dir, "out.csv"), filepath.Join(dir, "alias.csv")
	holds := func(want string, files int) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil && want != "" || string(b) != want {
			t.Errorf("it holds %q, %v, want %q", b, err, want)
		}
		if list, err := os.ReadDir(dir); err != nil || len(list) != files {
			t.Errorf("%v, %v lie there", list, err)
		}
	}
	if err := writeTo(path, nil, writes(fails)); !errors.Is(err, fails) {
		t.Error(err)
	}
	holds("", 0)
	if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := writeTo(path, nil, writes(fails)); !errors.Is(err, fails) {
		t.Error(err)
	}
	holds("old", 1)
	if err := os.Symlink("out.csv", alias); err != nil {
		t.Fatal(err)
	}
	if err := writeTo(alias, nil, writes(nil)); err != nil {
		t.Error(err)
	}
	holds("new", 2)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", st, err)
	}
	if st, err := os.Lstat(alias); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", st, err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "none", "x")} {
		if err := writeTo(path, nil, writes(nil)); err == nil || strings.Contains(err.Error(), ".pellucid-") && path == dir {
			t.Errorf("%s: %v", path, err)
		}
	}
	holds("new", 2)
}
