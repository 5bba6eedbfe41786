package repository

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestModelsBehindLinksAreKept: folders and files that are links, as deployments make
// them, are served and kept like others, so that past predictions can be explained when
// the links are gone.
func TestModelsBehindLinksAreKept(t *testing.T) {
	for name, link := range map[string]func(t *testing.T, f *fixture){
		"the version's folder": func(t *testing.T, f *fixture) {
			elsewhere := filepath.Join(t.TempDir(), "release-7")
			if err := os.Rename(filepath.Join(f.dir, "m", "1"), elsewhere); err != nil {
				t.Fatal(err)
			}
			symlink(t, elsewhere, filepath.Join(f.dir, "m", "1"))
		},
		"the model's folder": func(t *testing.T, f *fixture) {
			elsewhere := filepath.Join(t.TempDir(), "m")
			if err := os.Rename(filepath.Join(f.dir, "m"), elsewhere); err != nil {
				t.Fatal(err)
			}
			symlink(t, elsewhere, filepath.Join(f.dir, "m"))
		},
		"the model's file": func(t *testing.T, f *fixture) {
			path := onlyFile(t, filepath.Join(f.dir, "m", "1"))
			elsewhere := filepath.Join(t.TempDir(), filepath.Base(path))
			if err := os.Rename(path, elsewhere); err != nil {
				t.Fatal(err)
			}
			symlink(t, elsewhere, path)
		},
		"a mounted volume": func(t *testing.T, f *fixture) { // as Kubernetes mounts a ConfigMap
			dir := filepath.Join(f.dir, "m", "1")
			path := onlyFile(t, dir)
			data := filepath.Join(dir, "..2026_11_26")
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path, filepath.Join(data, filepath.Base(path))); err != nil {
				t.Fatal(err)
			}
			symlink(t, "..2026_11_26", filepath.Join(dir, "..data"))
			symlink(t, filepath.Join("..data", filepath.Base(path)), path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.model(t, "m/1")
			plain, err := f.open(t, time.Hour).Find("m", "1")
			if err != nil {
				t.Fatal(err)
			}
			link(t, f)
			f.store = t.TempDir()
			r := f.open(t, time.Hour)
			v, err := r.Find("m", "1")
			if err != nil {
				t.Fatal(err)
			}
			if v.Digest != plain.Digest {
				t.Errorf("digest %s, without links %s", v.Digest, plain.Digest)
			}
			r.Close()
			if err := os.RemoveAll(filepath.Join(f.dir, "m")); err != nil {
				t.Fatal(err)
			}
			kept, err := f.open(t, time.Hour).ByDigest(v.Digest)
			if err != nil {
				t.Fatal(err)
			}
			f.answers(t, kept)
		})
	}
}

func symlink(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

// onlyFile is the model's file of a folder that has nothing else.
func onlyFile(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	return filepath.Join(dir, entries[0].Name())
}
