package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// hashKey returns the secret of fields that are private by hash: 32 bytes in
// hexadecimal in a file of the owner's. Without a file named in the configuration
// it is made once, in the data folder.
func (c *config) hashKey() func() ([]byte, error) {
	return sync.OnceValues(func() ([]byte, error) {
		path := c.Capture.KeyFile
		if path == "" {
			path = filepath.Join(c.Data, "private.key")
			if err := makeKey(path); err != nil {
				return nil, fmt.Errorf("make the key %q: %w", path, err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		key, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || len(key) < 16 {
			return nil, fmt.Errorf("key %q is not 16 bytes or more in hexadecimal", path)
		}
		return key, nil
	})
}

// makeKey writes a new key unless there is one.
func makeKey(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	_, err = f.WriteString(hex.EncodeToString(key) + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}
