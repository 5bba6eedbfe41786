package repository

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// CheckStore holds every version in a store against the digest it lies under, and
// changes nothing. It returns how many are as they were and what is wrong with the
// others.
func CheckStore(dir string) (good int, wrong []error, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, nil, fmt.Errorf("check the model store: %w", err)
	}
	for _, e := range entries {
		if !digestRule.MatchString(e.Name()) {
			continue
		}
		switch err := checkKept(filepath.Join(dir, e.Name()), e.Name()); {
		case errors.Is(err, fs.ErrNotExist):
			// An imported model has no file that could be another; one that was deleted
			// meanwhile is none any more.
		case err != nil:
			wrong = append(wrong, err)
		default:
			good++
		}
	}
	return good, wrong, nil
}

func checkKept(dir, digest string) error {
	data, err := os.ReadFile(filepath.Join(dir, versionFile))
	if errors.Is(err, fs.ErrNotExist) && onlyExternal(dir) {
		return err
	}
	if err != nil {
		return fmt.Errorf("stored version %s: %s is missing or unreadable", digest, versionFile)
	}
	var meta keptVersion
	if err := json.Unmarshal(data, &meta); err != nil {
		return fmt.Errorf("stored version %s: %s is damaged", digest, versionFile)
	}
	s := source{name: meta.Name, version: meta.Version, dir: dir, file: meta.File}
	if err := checkStored(s, meta.Manifest, digest); err != nil {
		return fmt.Errorf("%w", err)
	}
	return nil
}

// onlyExternal reports whether a folder of the store is that of a model that is not here, or
// gone: an imported one's, or an upstream's, of which there is the reference alone.
func onlyExternal(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	reference := 0
	for _, e := range entries {
		if e.Name() == externalFile {
			return true
		}
		if e.Name() == referenceFile {
			reference++
		}
	}
	return reference > 0 && reference == len(entries)
}
