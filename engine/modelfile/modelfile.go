// Package modelfile opens a model file of any kind the engine reads.
//
// It owns the choice of a reader by the file's extension (and, of JSON, by the
// file's first key), the bound on a file's size, and errors that name the file. It
// never looks into a model's meaning: that is the readers' business
// (engine/xgboost, engine/lightgbm, engine/catboost, engine/onnx).
package modelfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/catboost"
	"github.com/pellucid/pellucid/engine/crew"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/lightgbm"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/engine/xgboost"
)

// MaxBytes bounds the size of a model file.
const MaxBytes = 2 << 30

// source is what a reader reads: a model's bytes; dir is where data beside it may lie, and
// limit what the model may hold beyond a small multiple of its file. Bytes that are taken
// are nobody else's.
type source struct {
	data  []byte
	dir   string
	limit int64
	taken bool
}

type reader func(from source) (engine.Model, error)

var readers = map[string]reader{
	".json": readJSON,
	".ubj":  func(from source) (engine.Model, error) { return xgboost.Read(from.data) },
	".onnx": readONNX,
	".txt":  func(from source) (engine.Model, error) { return lightgbm.Read(from.data) },
}

// readJSON reads what XGBoost or CatBoost saves as JSON.
func readJSON(from source) (engine.Model, error) {
	if catboost.Is(from.data) {
		return catboost.Read(from.data)
	}
	m, err := xgboost.Read(from.data)
	if err != nil {
		if dump := dumped(from.data); dump != "" {
			err = fmt.Errorf("%w: this is %s, which has not all of a model", err, dump)
		}
	}
	return m, err
}

// dumped says what JSON is that libraries write to be looked at, "" for any other.
func dumped(data []byte) string {
	head := bytes.Join(bytes.Fields(data[:min(len(data), 256)]), nil)
	switch {
	case bytes.HasPrefix(head, []byte(`[{"nodeid":`)):
		return "what XGBoost's dump_model writes (save_model writes the model)"
	case bytes.HasPrefix(head, []byte(`{"name":"tree",`)):
		return "what LightGBM's dump_model writes (save_model writes the model, as .txt)"
	}
	return ""
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
// A graph's weights and trees are counted while they are laid out and put together; other
// trees, which take a small multiple of their file, when they are read.
func OpenWithin(path string, limit int64) (engine.Model, error) {
	if _, err := readerOf(path); err != nil {
		return nil, fmt.Errorf("open model %q: %w", path, err)
	}
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("open model %q: %w", path, err)
	}
	return readFrom(path, source{data: data, dir: filepath.Dir(path), limit: limit, taken: true})
}

// Read reads the model in data. The extension of name says what it is; dir is
// the folder of files it may refer to (an ONNX model's external data).
func Read(name string, data []byte, dir string) (engine.Model, error) {
	return readFrom(name, source{data: data, dir: dir})
}

func readFrom(name string, from source) (engine.Model, error) {
	read, err := readerOf(name)
	if err != nil {
		return nil, fmt.Errorf("open model %q: %w", name, err)
	}
	if len(from.data) == 0 {
		return nil, fmt.Errorf("open model %q: %w: the file is empty", name, engine.ErrCorrupt)
	}
	if err := within(int64(len(from.data)), from.limit); err != nil {
		return nil, fmt.Errorf("open model %q: its file has %w", name, err)
	}
	m, err := read(from)
	if err != nil {
		return nil, fmt.Errorf("open model %q: %w", name, err)
	}
	if trees, ok := m.(tree.Sized); ok {
		if err := within(trees.Bytes(), from.limit); err != nil {
			return nil, fmt.Errorf("open model %q: its trees take %w", name, err)
		}
	}
	return m, nil
}

// within fails where a model has more bytes than it may hold; 0 means 8 GiB.
func within(n, limit int64) error {
	if limit <= 0 {
		limit = graph.DefaultHeld
	}
	if n > limit {
		return fmt.Errorf("%d bytes, more than the %d that a model may hold: %w", n, limit, engine.ErrTooLarge)
	}
	return nil
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
	// On all cores: reading is copying, and has the system find the memory.
	parts := int(info.Size()/leastPart) + 1
	failed := make([]error, parts)
	crew.Run(runtime.GOMAXPROCS(0), parts, func(part int) {
		from := part * leastPart
		to := min(from+leastPart, len(data))
		_, failed[part] = io.ReadFull(io.NewSectionReader(f, int64(from), int64(to-from)), data[from:to])
	})
	if err := errors.Join(failed...); err != nil {
		return nil, fmt.Errorf("read %d bytes: %w", info.Size(), err)
	}
	return data, nil
}

// leastPart is what is read of a file at once.
const leastPart = 4 << 20

// unwrapPath drops the path from an error that will be given it again.
func unwrapPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
