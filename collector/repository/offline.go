package repository

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// Offline reads one model file as a version of its own, outside any store: what
// the command line explains with. background names a file of rows, or is empty.
func Offline(path, background string, threads int) (*collector.ModelVersion, error) {
	file := filepath.Base(path)
	s := source{name: strings.TrimSuffix(file, filepath.Ext(file)), version: "1", dir: filepath.Dir(path), file: file, bare: true}
	r := &Repository{cfg: Config{Threads: threads}}
	h, err := r.assemble(s, collector.ModelConfig{}, nil)
	if err != nil || background == "" {
		return versionOf(h), err
	}
	rows, err := readRows(background, h.version.Info)
	if err != nil {
		return nil, fmt.Errorf("read background %q: %w", background, err)
	}
	digest, err := fileDigest(background)
	if err != nil {
		return nil, err
	}
	h.version.Background = func() (engine.Values, string, bool) { return rows, digest, true }
	return h.version, nil
}

func versionOf(h *held) *collector.ModelVersion {
	if h == nil {
		return nil
	}
	return h.version
}
