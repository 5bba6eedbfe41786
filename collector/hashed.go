package collector

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// StoredAs returns what a clear value of a field that is private by hash may be
// stored as, under the key it was hashed with: a number's text depends on its type,
// which is not stored, and value may be a stored one itself.
func (f *Field) StoredAs(key []byte, value string) ([]string, error) {
	if f.Private != PrivacyHash {
		return []string{value}, nil
	}
	id := sha256.Sum256(append([]byte("pellucid key id\x00"), key...))
	if hex.EncodeToString(id[:4]) != f.KeyID {
		return nil, fmt.Errorf("feature %q was hashed under another key (%s): %w", f.Name, f.KeyID, ErrRefused)
	}
	own := *f
	own.key = key
	out := []string{value, keyed(&own, value)}
	if x, err := strconv.ParseFloat(value, 64); err == nil {
		out = append(out, keyed(&own, strconv.FormatFloat(x, 'g', -1, 64)), keyed(&own, strconv.FormatFloat(float64(float32(x)), 'g', -1, 64)))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// hashedDigits is the length of what a hashed value is stored as.
const hashedDigits = 32

// IsHash reports whether a text has the form of what is stored of a hashed value.
func IsHash(value string) bool {
	return len(value) == hashedDigits && strings.Trim(value, "0123456789abcdef") == ""
}

// EncodedText is how a text lies in a record of the spool: its length and its bytes,
// so that it is not found within a longer one.
func EncodedText(s string) []byte { return appendString(nil, s) }
