package enginetest

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"testing"
)

// Nodes reads an archive of ONNX's own cases (engine/onnx/testdata/nodes.tar.gz): the files
// of each case by its name. Files of the same content are stored once.
func Nodes(t testing.TB, archive string) map[string]map[string][]byte {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return cases
		}
		if err != nil {
			t.Fatal(err)
		}
		dir, file := path.Split(h.Name)
		dir = path.Clean(dir)
		if cases[dir] == nil {
			cases[dir] = map[string][]byte{}
		}
		if h.Typeflag == tar.TypeLink {
			same, link := path.Split(h.Linkname)
			cases[dir][file] = cases[path.Clean(same)][link]
			continue
		}
		if cases[dir][file], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
