package keys

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
)

// The files and sealed values are drawn in collector/FORMAT.md.
const (
	tenantsMagic  = "PLDTKEY\x01"
	subjectsMagic = "PLDSKEY\x01"

	nonceSize   = 12
	wrappedSize = keySize + 16
	// maxTenant bounds a tenant's name.
	maxTenant = 255

	kindRoot byte = 1
	kindData byte = 2

	frameHead  = 1 + 8 + 8 + 8 + nonceSize + wrappedSize
	headerSize = 16
	recordSize = 16 + 4 + nonceSize + wrappedSize + 4
)

type (
	keyID [8]byte
	// pseudonym is a subject as a keyed hash.
	pseudonym [16]byte
	// generation tells a subject's key from the one before it.
	generation [4]byte
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("the file is damaged")

// wrapped is one key as it lies in the file of tenants.
type wrapped struct {
	kind    byte
	created time.Time
	id      keyID
	kek     keyID
	nonce   [nonceSize]byte
	sealed  [wrappedSize]byte
	tenant  string
}

// bound is what a wrapped key is bound to.
func (w *wrapped) bound() []byte {
	b := append([]byte("pellucid wrap 1\x00"), w.kind)
	b = binary.LittleEndian.AppendUint64(b, uint64(w.created.UnixMilli()))
	b = append(b, w.id[:]...)
	return append(b, w.tenant...)
}

func (w *wrapped) append(dst []byte) []byte {
	p := []byte{w.kind}
	p = binary.LittleEndian.AppendUint64(p, uint64(w.created.UnixMilli()))
	p = append(append(p, w.id[:]...), w.kek[:]...)
	p = append(append(p, w.nonce[:]...), w.sealed[:]...)
	p = append(p, w.tenant...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(p)))
	dst = append(dst, p...)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(p, crcTable))
}

// parseTenants reads the file of tenants. good is how many of its bytes are whole: what
// follows is a record that a crash cut short.
func parseTenants(b []byte) (list []wrapped, good int, err error) {
	if len(b) < len(tenantsMagic) && bytes.HasPrefix([]byte(tenantsMagic), b) {
		return nil, 0, nil
	}
	if !bytes.HasPrefix(b, []byte(tenantsMagic)) {
		return nil, 0, errDamaged
	}
	for at := len(tenantsMagic); ; {
		rest := b[at:]
		if len(rest) < 4 {
			return list, at, nil
		}
		n := binary.LittleEndian.Uint32(rest)
		if n < frameHead || n > frameHead+maxTenant {
			if torn(rest) {
				return list, at, nil
			}
			return nil, 0, errDamaged
		}
		end := 4 + int(n) + 4
		if len(rest) < end {
			return list, at, nil
		}
		p := rest[4 : 4+n]
		if crc32.Checksum(p, crcTable) != binary.LittleEndian.Uint32(rest[4+n:]) {
			if len(rest) == end || torn(rest[end:]) {
				return list, at, nil
			}
			return nil, 0, errDamaged
		}
		list = append(list, readWrapped(p))
		at += end
	}
}

// torn reports whether what is left of a file is what a crash leaves of bytes that were
// never written: nothing but zeros.
func torn(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func readWrapped(p []byte) wrapped {
	w := wrapped{kind: p[0], created: time.UnixMilli(int64(binary.LittleEndian.Uint64(p[1:]))).UTC()}
	p = p[9:]
	copy(w.id[:], p)
	copy(w.kek[:], p[8:])
	copy(w.nonce[:], p[16:])
	copy(w.sealed[:], p[16+nonceSize:])
	w.tenant = string(p[16+nonceSize+wrappedSize:])
	return w
}

// record is one subject's key as it lies in its file.
type record struct {
	who    pseudonym
	gen    generation
	nonce  [nonceSize]byte
	sealed [wrappedSize]byte
}

func (r *record) bound() []byte {
	b := append([]byte("pellucid subject 1\x00"), r.who[:]...)
	return append(b, r.gen[:]...)
}

func (r *record) append(dst []byte) []byte {
	from := len(dst)
	dst = append(append(dst, r.who[:]...), r.gen[:]...)
	dst = append(append(dst, r.nonce[:]...), r.sealed[:]...)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[from:], crcTable))
}

// parseRecord reads one record; ok is false where its checksum is not right.
func parseRecord(b []byte) (r record, ok bool) {
	if len(b) != recordSize {
		return r, false
	}
	copy(r.who[:], b)
	copy(r.gen[:], b[16:])
	copy(r.nonce[:], b[20:])
	copy(r.sealed[:], b[20+nonceSize:])
	sum := binary.LittleEndian.Uint32(b[recordSize-4:])
	return r, crc32.Checksum(b[:recordSize-4], crcTable) == sum
}

// subjectsHeader is the head of a file of subjects, which belongs to one root.
func subjectsHeader(root keyID) []byte { return append([]byte(subjectsMagic), root[:]...) }

// parseSubjects reads a file of subjects into where each one's record is. good is how
// many of its bytes are whole.
func parseSubjects(b []byte, root keyID) (index map[pseudonym]uint32, good int, err error) {
	head := subjectsHeader(root)
	if len(b) < headerSize && bytes.HasPrefix(head, b) {
		return map[pseudonym]uint32{}, 0, nil
	}
	if !bytes.HasPrefix(b, head) {
		return nil, 0, errDamaged
	}
	index = make(map[pseudonym]uint32, (len(b)-headerSize)/recordSize)
	for at := headerSize; ; at += recordSize {
		rest := b[at:]
		if len(rest) < recordSize {
			return index, at, nil
		}
		r, ok := parseRecord(rest[:recordSize])
		if !ok {
			if len(rest) < 2*recordSize || torn(rest) {
				return index, at, nil
			}
			return nil, 0, errDamaged
		}
		if _, twice := index[r.who]; twice {
			return nil, 0, errDamaged
		}
		index[r.who] = uint32((at - headerSize) / recordSize)
	}
}

// sealedPrefix begins every sealed value, with the version of its form.
const sealedPrefix = "sealed1."

const (
	byTenant  byte = 't'
	bySubject byte = 's'
)

// blob is a sealed value taken apart.
type blob struct {
	by   byte
	data keyID // by a tenant's key
	who  pseudonym
	gen  generation
	// nonce and box are what AES-GCM made.
	nonce, box []byte
}

var errBlob = errors.New("not a sealed value")

// parseBlob takes a sealed value apart.
func parseBlob(s string) (blob, error) {
	text, ok := strings.CutPrefix(s, sealedPrefix)
	if !ok {
		return blob{}, errBlob
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) == 0 {
		return blob{}, errBlob
	}
	out := blob{by: b[0]}
	b = b[1:]
	switch {
	case out.by == byTenant && len(b) >= len(out.data):
		b = b[copy(out.data[:], b):]
	case out.by == bySubject && len(b) >= len(out.who)+len(out.gen):
		b = b[copy(out.who[:], b):]
		b = b[copy(out.gen[:], b):]
	default:
		return blob{}, errBlob
	}
	if len(b) < nonceSize+16 {
		return blob{}, errBlob
	}
	out.nonce, out.box = b[:nonceSize], b[nonceSize:]
	return out, nil
}

// place is what a sealed value is bound to beside its key: each part with its length,
// so that no two places are the same bytes.
func place(dst []byte, id []byte, tenant, model, field string) []byte {
	dst = append(dst, "pellucid seal 1\x00"...)
	dst = append(dst, id...)
	for _, part := range [...]string{tenant, model, field} {
		dst = binary.AppendUvarint(dst, uint64(len(part)))
		dst = append(dst, part...)
	}
	return dst
}

func newAEAD(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(fmt.Sprintf("keys: %v", err)) // the key has another size than keySize: a mistake in this package
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(fmt.Sprintf("keys: %v", err))
	}
	return aead
}

// random fills b. It never fails: the system ends the program instead.
func random(b []byte) { _, _ = rand.Read(b) }

// derive makes a key of its own for each purpose.
func derive(root []byte, purpose string) []byte {
	h := hmac.New(sha256.New, root)
	h.Write([]byte("pellucid " + purpose))
	return h.Sum(nil)
}

// kekID names a key-encryption key without telling it.
func kekID(kek []byte) (id keyID) {
	copy(id[:], derive(kek, "kek id"))
	return id
}
