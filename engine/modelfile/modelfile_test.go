package modelfile

import (
	"errors"
	"fmt"
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

// TestXGBoostByItsContent: JSON and UBJSON are told apart whatever the file is called.
func TestXGBoostByItsContent(t *testing.T) {
	for path, name := range map[string]string{"../xgboost/testdata/categorical.json": "model.ubj", "../xgboost/testdata/dart.ubj": "model.json"} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(name, data, ""); err != nil {
			t.Errorf("%s as %s: %v", path, name, err)
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
		{write("dump.json", "[\n  { \"nodeid\": 0, \"leaf\": 1 }\n]"), func(err error) bool { return strings.Contains(err.Error(), "save_model") }},
		{write("dump2.json", `{"name": "tree", "version": "v4"}`), func(err error) bool { return strings.Contains(err.Error(), "LightGBM") }},
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

// TestEveryKindIsHeldToItsLimit: a model that may hold little is refused, whatever it is made of,
// and read where it may hold more.
func TestEveryKindIsHeldToItsLimit(t *testing.T) {
	for path, enough := range map[string]int64{
		"../../cmd/pellucid/demo/data/models/flights_gbm/1/model.ubj":  64 << 20,
		"../lightgbm/testdata/deep.txt":                                64 << 20,
		"../catboost/testdata/loss_rmse.json":                          1 << 20,
		"../../explain/testdata/pipeline_forest.onnx":                  64 << 20,
		"../../cmd/pellucid/demo/data/models/flights_mlp/1/model.onnx": 64 << 20,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, limit := range []int64{1, info.Size() - 1} {
			if _, err := OpenWithin(path, limit); !errors.Is(err, engine.ErrTooLarge) {
				t.Errorf("%s within %d bytes: %v", path, limit, err)
			}
		}
		if _, err := OpenWithin(path, enough); err != nil {
			t.Errorf("%s within %d bytes: %v", path, enough, err)
		}
	}
}

// TestTreesAreHeldToTheLimit: the trees of a small file take more than it, and the model says
// what.
func TestTreesAreHeldToTheLimit(t *testing.T) {
	for _, path := range []string{
		"../../cmd/pellucid/demo/data/models/flights_gbm/1/model.ubj", "../lightgbm/testdata/deep.txt", "../lightgbm/testdata/linear_tree.txt",
		"../catboost/testdata/loss_rmse.json", "../../explain/testdata/pipeline_forest.onnx",
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var text string
		for _, d := range m.Info().Details {
			if d.Name == "memory" {
				text = d.Value
			}
		}
		var bytes int64
		if _, err := fmt.Sscanf(text, "%d bytes", &bytes); err != nil || bytes < 1000 {
			t.Errorf("%s: memory %q (%v)", path, text, err)
			continue
		}
		t.Logf("%s: %s of a file of %d bytes", path, text, info.Size())
		if _, err := OpenWithin(path, max(bytes, info.Size())-1); !errors.Is(err, engine.ErrTooLarge) {
			t.Errorf("%s: one byte less than its trees take: %v", path, err)
		}
		if _, err := OpenWithin(path, max(bytes, info.Size())); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}
