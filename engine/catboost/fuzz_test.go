package catboost

import (
	"path/filepath"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// FuzzRead: whatever is read runs.
func FuzzRead(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.json")
	if err != nil || len(paths) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, p := range paths {
		if data := readFile(f, p); len(data) < 16000 {
			f.Add(data)
		}
	}
	f.Add([]byte(small))
	f.Add([]byte(smallCategories))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Read(data)
		if err != nil {
			return
		}
		info := m.Info()
		if len(info.Features) > 1<<10 || info.Extra[0].Shape[len(info.Extra[0].Shape)-1] > 1<<10 {
			return
		}
		cells := [][]string{make([]string, len(info.Features)), make([]string, len(info.Features))}
		for i := range info.Features {
			cells[1][i] = "-1.5"
		}
		in, _, err := engine.Bind(info, input(t, info, cells))
		if err != nil {
			t.Skip() // names of features may be anything, the matrix's own too
		}
		s, err := m.NewSession(engine.SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(t.Context(), in, nil)
		if err != nil || out[0].Tensor.Rows() != 2 {
			t.Fatalf("a model that was read does not run: %v", err)
		}
	})
}
