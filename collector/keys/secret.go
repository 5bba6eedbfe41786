package keys

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector/vfs"
)

// MakeSecret returns the key in a file of the owner's, which it makes where there is none;
// an empty file is none, and of no use to anything that was written. Others that make it
// at once all use the one that comes first. The key is on disk when it is returned.
func MakeSecret(path string) ([]byte, error) {
	// What is no file has no size, and is not ours to remove: /dev/null above all.
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return nil, fmt.Errorf("make the key %q: it is there and is no regular file", path)
	}
	return makeSecret(vfs.OS{}, path)
}

// KeepSecret is MakeSecret of a key that makes values comparable for as long as they are
// stored: beside it lies what tells it from others (path + ".id"), and a key that has gone or
// is another is not replaced without a word.
func KeepSecret(path string) ([]byte, error) {
	idPath := path + ".id"
	text, err := os.ReadFile(idPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read what tells the key %q from others: %w", path, err)
	}
	if want := strings.TrimSpace(string(text)); want != "" {
		key, err := ReadSecret(path)
		if err == nil && secretID(key) != want {
			err = errors.New("it is another key")
		}
		if err != nil {
			return nil, otherSecret(path, err)
		}
		return key, nil
	}
	key, err := MakeSecret(path)
	if err != nil {
		return nil, err
	}
	if err := vfs.Replace(idPath, []byte(secretID(key)+"\n")); err != nil {
		return nil, fmt.Errorf("keep what tells the key %q from others: %w", path, err)
	}
	return key, nil
}

func otherSecret(path string, err error) error {
	return fmt.Errorf("the key %q is not the one by which values are stored: put that back (to begin anew, after which equal values have other hashes, remove %s too): %w",
		path, filepath.Base(path)+".id", err)
}

// secretID tells a key from others and says nothing of it.
func secretID(key []byte) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("pellucid key id"))
	return hex.EncodeToString(m.Sum(nil)[:16])
}

// ReadSecret reads a key: 16 bytes or more in hexadecimal.
func ReadSecret(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseSecret(path, text)
}

func makeSecret(disk vfs.FS, path string) ([]byte, error) {
	dir := filepath.Dir(path)
	if err := newSecret(disk, dir, path); err != nil {
		return nil, fmt.Errorf("make the key %q: %w", path, err)
	}
	// Also where another made it, or this one before it died.
	if err := disk.SyncDir(dir); err != nil {
		return nil, fmt.Errorf("make the key %q: %w", path, err)
	}
	f, err := disk.Open(path, true)
	if err != nil {
		return nil, err
	}
	text, err := vfs.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read the key %q: %w", path, err)
	}
	return parseSecret(path, text)
}

func parseSecret(path string, text []byte) ([]byte, error) {
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) < 16 {
		return nil, fmt.Errorf("key %q is not 16 bytes or more in hexadecimal", path)
	}
	return key, nil
}

const (
	// newKeyPrefix begins the name of a key that is to have another.
	newKeyPrefix = ".new-key-"
	// youngKey is how long somebody may take to make a key.
	youngKey = time.Minute
)

// newSecret writes a new key unless there is one.
func newSecret(disk vfs.FS, dir, path string) (err error) {
	if err := disk.MkdirAll(dir); err != nil {
		return err
	}
	if err := sweep(disk, dir); err != nil {
		return err
	}
	there, err := filled(disk, path)
	if err != nil || there {
		return err
	}
	var name [8]byte
	random(name[:])
	fresh := filepath.Join(dir, newKeyPrefix+hex.EncodeToString(name[:]))
	f, err := disk.Create(fresh)
	if err != nil {
		return err
	}
	defer func() {
		if gone := disk.Remove(fresh); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}()
	var key [keySize]byte
	random(key[:])
	_, err = f.WriteAt([]byte(hex.EncodeToString(key[:])+"\n"), 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := disk.Link(fresh, path); err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return disk.Rename(fresh, path) // a file system without links
}

// sweep removes what those left who were killed while they made a key. It may be a second
// name of the key itself, so nothing is overwritten. What is young may be another's who
// makes one now.
func sweep(disk vfs.FS, dir string) error {
	entries, err := disk.List(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ours := strings.CutPrefix(e.Name(), newKeyPrefix)
		if id, err := hex.DecodeString(name); !ours || err != nil || len(id) != 8 || hex.EncodeToString(id) != name || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if time.Since(info.ModTime()) < youngKey {
			continue
		}
		if err := vfs.Discard(disk, filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// filled reports whether there is a file with something in it, and removes an empty one.
func filled(disk vfs.FS, path string) (bool, error) {
	f, err := disk.Open(path, true)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	size, err := f.Size()
	if err := errors.Join(err, f.Close()); err != nil || size > 0 {
		return size > 0, err
	}
	if err := disk.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return false, nil
}
