package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGuarded: a panic is an error that says where it was, and a file that was begun is not
// there after it.
func TestGuarded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.csv")
	err := writeTo(path, nil, func(w io.Writer) error {
		if _, err := io.WriteString(w, "half of it"); err != nil {
			return err
		}
		var none []int
		none[len(path)] = 1
		return nil
	})
	if !errors.Is(err, errPanic) || !strings.Contains(err.Error(), "TestGuarded") || !strings.Contains(err.Error(), "guard_test.go:") {
		t.Errorf("error %v", err)
	}
	if err := guarded(func() error { panic("no " + canaryText) }); leaks([]byte(err.Error())) != "" {
		t.Errorf("the error quotes the panic: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
	if err := guarded(func() error { return io.EOF }); !errors.Is(err, io.EOF) || errors.Is(err, errPanic) {
		t.Errorf("an error became %v", err)
	}
}
