package events

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// sealer encrypts files (AES-256-GCM, a random nonce before each).
type sealer struct{ aead cipher.AEAD }

func newSealer(secret func() ([]byte, error)) (*sealer, error) {
	from, err := secret()
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, from, nil, "pellucid waiting events", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &sealer{aead}, err
}

func (s *sealer) seal(plain, about []byte) []byte {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(plain)+s.aead.Overhead())
	_, _ = rand.Read(nonce) // never fails
	return s.aead.Seal(nonce, nonce, plain, about)
}

func (s *sealer) open(data, about []byte) ([]byte, error) {
	n := s.aead.NonceSize()
	if len(data) < n {
		return nil, errors.New("the file is too short")
	}
	return s.aead.Open(nil, data[:n], data[n:], about)
}

// writeWhole writes a file under another name first: a crash leaves it whole or not
// there.
func writeWhole(path string, data []byte, sync bool) (err error) {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	if !sync || runtime.GOOS == "windows" { // where a folder cannot be synced
		return nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("sync its folder: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}
