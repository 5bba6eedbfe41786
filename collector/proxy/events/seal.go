package events

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
)

// sealer encrypts files (AES-256-GCM, a random nonce before each).
type sealer struct {
	aead cipher.AEAD
	id   string // tells its key from others
}

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
	id, err := hkdf.Key(sha256.New, from, nil, "pellucid waiting events, which key", 8)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &sealer{aead, hex.EncodeToString(id)}, err
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
