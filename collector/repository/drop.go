package repository

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pellucid/pellucid/collector"
)

// StoredVersion is a version that is in the store and answers nothing any more.
type StoredVersion struct{ Name, Version, Digest string }

// Gone says that the version was taken out of the store.
func (v StoredVersion) Gone() string {
	return fmt.Sprintf("version %s of model %s (digest %s) was gone from the folder models: its past predictions cannot be explained, unless its files are put back", v.Version, v.Name, v.Digest)
}

// Retired lists the versions in the store that are live under no name. Imported
// models and upstreams have no files there and are not among them.
func (r *Repository) Retired() ([]StoredVersion, error) {
	entries, err := os.ReadDir(r.cfg.Store)
	if err != nil {
		return nil, fmt.Errorf("list the model store: %w", err)
	}
	r.mu.RLock()
	live := r.liveDigests()
	r.mu.RUnlock()
	var out []StoredVersion
	for _, e := range entries {
		if !digestRule.MatchString(e.Name()) || live[e.Name()] {
			continue
		}
		data, err := os.ReadFile(filepath.Join(r.cfg.Store, e.Name(), versionFile))
		var meta keptVersion
		if err != nil || json.Unmarshal(data, &meta) != nil {
			continue // none of ours, or damaged: it is not for us to delete
		}
		out = append(out, StoredVersion{meta.Name, meta.Version, e.Name()})
	}
	return out, nil
}

// liveDigests are the versions in place, unloaded ones among them: Load brings them
// back. mu is held.
func (r *Repository) liveDigests() map[string]bool {
	out := map[string]bool{}
	for _, m := range r.models {
		for _, s := range m.versions {
			if s.live != nil {
				out[s.live.version.Digest] = true
			}
			if s.unloaded != "" {
				out[s.unloaded] = true
			}
		}
	}
	return out
}

// Drop deletes a version from the store, after which its predictions cannot be
// explained. It refuses a live one, and any while a version is being loaded, which
// may be this one: the error then wraps collector.ErrNotReady.
func (r *Repository) Drop(digest string) error {
	if !digestRule.MatchString(digest) {
		return fmt.Errorf("drop model digest %q: %w", digest, collector.ErrNotFound)
	}
	if err := r.cfg.Ours(); err != nil {
		return fmt.Errorf("drop model digest %s: %w", digest, err)
	}
	if !r.loading.TryLock() {
		return fmt.Errorf("drop model digest %s: a version is being loaded: %w", digest, collector.ErrNotReady)
	}
	defer r.loading.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.liveDigests()[digest] {
		return fmt.Errorf("drop model digest %s: it is live: %w", digest, collector.ErrRefused)
	}
	if err := r.kept.remove(digest); err != nil { // else it would be missed
		return fmt.Errorf("drop model digest %s: %w", digest, err)
	}
	// Under another name it is no version, whatever becomes of its files.
	gone := filepath.Join(r.cfg.Store, ".gone-"+digest)
	err := os.Rename(filepath.Join(r.cfg.Store, digest), gone)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("drop model digest %s: %w", digest, collector.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("drop model digest %s: %w", digest, err)
	}
	delete(r.archive, digest)
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("drop model digest %s: %w", digest, err)
	}
	return nil
}
