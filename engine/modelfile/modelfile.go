// Package modelfile opens a model file of any kind the engine reads.
//
// It owns the choice of a reader by the file's extension (and, of JSON, by the
// file's first key), the bound on a file's size, and errors that name the file. It
// never looks into a model's meaning: that is the readers' business
// (engine/xgboost, engine/lightgbm, engine/catboost, engine/onnx).
package modelfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/catboost"
	"github.com/pellucid/pellucid/engine/lightgbm"
	"github.com/pellucid/pellucid/engine/xgboost"
)

// MaxBytes bounds the size of a model file.
const MaxBytes = 2 << 30

// reader reads a model from its bytes; dir is where data beside it may lie, and limit
// what the model may hold beyond a small multiple of its file.
type reader func(data []byte, dir string, limit int64) (engine.Model, error)

var readers = map[string]reader{
	".json": readJSON,
	".ubj":  func(data []byte, _ string, _ int64) (engine.Model, error) { return xgboost.ReadUBJ(data) },
	".onnx": readONNX,
	".txt":  func(data []byte, _ string, _ int64) (engine.Model, error) { return lightgbm.Read(data) },
}

// readJSON reads what XGBoost or CatBoost saves as JSON.
func readJSON(data []byte, _ string, _ int64) (engine.Model, error) {
	if catboost.Is(data) {
		return catboost.Read(data)
	}
	return xgboost.ReadJSON(data)
}

// Extensions returns the file name extensions that Open knows, sorted.
func Extensions() []string {
	var out []string
	for ext := range readers {
		out = append(out, ext)
	}
	slices.Sort(out)
	return out
}

// Open reads the model in the file at path.
func Open(path string) (engine.Model, error) { return OpenWithin(path, 0) }

// OpenWithin is Open for a model that may hold so many bytes in memory; 0 means 8 GiB.
// It bounds graphs, whose weights are laid out in several forms and may be put together
// when they are read: trees take a small multiple of their file.
func OpenWithin(path string, limit int64) (engine.Model, error) {
	if _, err := readerOf(path); err != nil {
		return nil, fmt.Errorf("open model %q: %w", path, err)
	}
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("open model %q: %w", path, err)
	}
	return readWithin(path, data, filepath.Dir(path), limit)
}

// Read reads the model in data. The extension of name says what it is; dir is
// the folder of files it may refer to (an ONNX model's external data).
func Read(name string, data []byte, dir string) (engine.Model, error) {
	return readWithin(name, data, dir, 0)
}

func readWithin(name string, data []byte, dir string, limit int64) (engine.Model, error) {
	read, err := readerOf(name)
	if err != nil {
		return nil, fmt.Errorf("open model %q: %w", name, err)
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("open model %q: %w: the file is empty", name, engine.ErrCorrupt)
	}
	m, err := read(data, dir, limit)
	if err != nil {
		return nil, fmt.Errorf("open model %q: %w", name, err)
	}
	return m, nil
}

func readerOf(name string) (reader, error) {
	ext := strings.ToLower(filepath.Ext(name))
	read, ok := readers[ext]
	if !ok {
		return nil, &engine.UnsupportedError{
			What:   fmt.Sprintf("model file extension %q", ext),
			Reason: "known are " + strings.Join(Extensions(), ", "),
		}
	}
	return read, nil
}

func readFile(path string) (data []byte, err error) {
	// Asked before opening: opening a pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, unwrapPath(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Size() > MaxBytes {
		return nil, fmt.Errorf("%d bytes, more than %d: %w", info.Size(), int64(MaxBytes), engine.ErrTooLarge)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unwrapPath(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data = make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("read %d bytes: %w", info.Size(), err)
	}
	return data, nil
}

// unwrapPath drops the path from an error that will be given it again.
func unwrapPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
