package modelfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

func TestOpen(t *testing.T) {
	for path, format := range map[string]string{
		"../xgboost/testdata/categorical.json": "xgboost",
		"../xgboost/testdata/dart.ubj":         "xgboost",
		"../lightgbm/testdata/rf.txt":          "lightgbm",
		"../catboost/testdata/onehot.json":     "catboost",
	} {
		m, err := Open(path)
		if err != nil {
			t.Errorf("Open: %v", err)
			continue
		}
		if got := m.Info().Format; got != format {
			t.Errorf("%s has format %q, want %q", path, got, format)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	huge := write("huge.ubj", "")
	if err := os.Truncate(huge, MaxBytes+1); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "folder.json")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	var unsupported *engine.UnsupportedError
	tests := []struct {
		path string
		is   func(error) bool
	}{
		{filepath.Join(dir, "absent.json"), func(err error) bool { return errors.Is(err, fs.ErrNotExist) }},
		{write("model.pkl", "x"), func(err error) bool { return errors.As(err, &unsupported) }},
		{write("model", "x"), func(err error) bool { return errors.As(err, &unsupported) }},
		{write("empty.json", ""), func(err error) bool { return errors.Is(err, engine.ErrCorrupt) }},
		{write("wrong.txt", "{}"), func(err error) bool { return errors.Is(err, engine.ErrCorrupt) }},
		{write("wrong.ubj", "tree\n"), func(err error) bool { return errors.Is(err, engine.ErrCorrupt) }},
		{huge, func(err error) bool { return errors.Is(err, engine.ErrTooLarge) }},
		{folder, func(err error) bool { return strings.Contains(err.Error(), "not a regular file") }},
	}
	for _, tt := range tests {
		_, err := Open(tt.path)
		if err == nil || !tt.is(err) || strings.Count(err.Error(), tt.path) != 1 {
			t.Errorf("Open %q: error %v", filepath.Base(tt.path), err)
		}
	}
}
