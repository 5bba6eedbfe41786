package treeshap

import "crypto/sha256"

// Body returns what follows the head of a stored background.
func Body(data []byte) []byte { return data[len(artifactMagic)+sha256.Size:] }

// Seal appends the checksum.
func Seal(data []byte) []byte {
	sum := sha256.Sum256(data)
	return append(data, sum[:8]...)
}
