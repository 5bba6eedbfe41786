package repository

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// keptVersion is what the store remembers of a version beside its files.
type keptVersion struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	File    string `json:"file"`
	// Manifest is what the digest is the SHA-256 of.
	Manifest []string `json:"manifest"`
}

// versionFile and referenceFile are hidden so that no file of a version has their
// name: manifests leave hidden files out.
const versionFile = ".version.json"

var digestRule = regexp.MustCompile(`^[0-9a-f]{64}$`)

// keep copies a version's files into the store under its digest, once. Rows of
// the background are kept like the other files: without them a past prediction
// could not be explained again the same way.
func (r *Repository) keep(s source, h *held) error {
	if err := r.cfg.Ours(); err != nil {
		return fmt.Errorf("keep version: %w", err)
	}
	v := h.version
	dir := filepath.Join(r.cfg.Store, v.Digest)
	if _, err := os.Stat(filepath.Join(dir, versionFile)); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(r.cfg.Store, ".new-*")
	if err != nil {
		return fmt.Errorf("keep version: %w", err)
	}
	defer os.RemoveAll(tmp)
	meta := keptVersion{Name: v.Name, Version: v.Version, File: "model" + filepath.Ext(s.file), Manifest: h.manifest}
	for _, line := range h.manifest {
		rel := fileOf(line)
		if text := slices.Concat(h.inherited, s.text); rel == configFile && len(text) > 0 { // it has one of them
			if err := vfs.Replace(filepath.Join(tmp, rel), text); err != nil {
				return fmt.Errorf("keep version: %w", err)
			}
			continue
		}
		from := filepath.Join(s.dir, filepath.FromSlash(rel))
		if s.bare {
			from = filepath.Join(s.dir, s.file)
		}
		sum, err := copyFile(from, filepath.Join(tmp, filepath.FromSlash(rel)))
		if err == nil && sum != line[len(rel)+1:] {
			err = replacedError(rel)
		}
		if err != nil {
			return fmt.Errorf("keep version: %w", err)
		}
	}
	data, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return fmt.Errorf("keep version: %w", err)
	}
	if err := vfs.Replace(filepath.Join(tmp, versionFile), data); err != nil {
		return fmt.Errorf("keep version: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep version: %w", err)
	}
	r.listKept(StoredVersion{v.Name, v.Version, v.Digest})
	return nil
}

// fileOf is the path in a manifest's line. It may hold spaces; the digest after it
// does not.
func fileOf(line string) string { return line[:strings.LastIndexByte(line, ' ')] }

// errReplaced marks a version of which a file was replaced while it was loaded.
var errReplaced = errors.New("it was replaced while it was loaded: the next look takes up what is there then")

func replacedError(rel string) error { return fmt.Errorf("%q: %w", rel, errReplaced) }

// asFound fails where a file of a version is not the one any more that the look found, so that what was
// loaded may not be what its digest was made of.
func asFound(s source, manifest []string) error {
	for _, line := range manifest {
		rel := filepath.FromSlash(fileOf(line))
		if rel == configFile {
			continue // which was read once
		}
		if s.bare {
			rel = s.file
		}
		if now, _ := stampOf(filepath.Join(s.dir, rel)); now != s.files[rel] {
			return replacedError(rel)
		}
	}
	return nil
}

// copyFile returns the digest of what it copied.
func copyFile(from, to string) (digest string, err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return "", err
	}
	in, err := openRegular(from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, sum), in)
	return hex.EncodeToString(sum.Sum(nil)), errors.Join(err, out.Sync(), out.Close())
}

// fromStore reads a version back by its digest and checks that its files still
// are what they were.
func (r *Repository) fromStore(digest string) (*held, error) {
	if !digestRule.MatchString(digest) {
		return nil, fmt.Errorf("model digest %q: %w", digest, collector.ErrNotFound)
	}
	if err := r.cfg.Ours(); err != nil {
		return nil, fmt.Errorf("read model digest %s: %w", digest, err)
	}
	dir := filepath.Join(r.cfg.Store, digest)
	data, err := os.ReadFile(filepath.Join(dir, versionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("model digest %s is not in the store: %w", digest, collector.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	var meta keptVersion
	if err := json.Unmarshal(data, &meta); err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", versionFile, digest, err)
	}
	s := source{name: meta.Name, version: meta.Version, dir: dir, file: meta.File}
	if err := checkStored(s, meta.Manifest, digest); err != nil {
		return nil, err
	}
	cfg, err := r.readConfig(&s)
	if err != nil {
		return nil, err
	}
	h, err := r.assemble(s, cfg, nil)
	if err != nil {
		return nil, err
	}
	// A rule that came later may leave files out that were part of it.
	h.version.Digest, h.manifest = digest, meta.Manifest
	return h, r.storedReference(h)
}

// checkStored compares the files of a stored version with the digest it lies
// under: all of them, no more and no less. kept tells which one is wrong.
func checkStored(s source, kept []string, digest string) error {
	if !slices.Contains(extensions, filepath.Ext(s.file)) || s.file != "model"+filepath.Ext(s.file) {
		return fmt.Errorf("stored version %s: %q is not a model file's name", digest, s.file)
	}
	found, err := manifest(s, func(string) bool { return false })
	if err != nil {
		return fmt.Errorf("stored version %s: %w", digest, err)
	}
	if digestOf(found) == digest {
		return nil
	}
	for _, line := range found {
		if !slices.Contains(kept, line) {
			rel := fileOf(line)
			return fmt.Errorf("stored version %s: %q is not what it was", digest, rel)
		}
	}
	return fmt.Errorf("stored version %s: its files are not what they were", digest)
}
