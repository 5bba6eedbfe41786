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
// follows is what a crash left of records that were never acknowledged.
func parseTenants(b []byte) (list []wrapped, good int, err error) {
	if !bytes.HasPrefix(b, []byte(tenantsMagic)) {
		return nil, 0, errDamaged
	}
	good = len(tenantsMagic)
	rooted := func() bool { return len(list) > 0 && list[len(list)-1].kind == kindRoot }
	for good < len(b) {
		p, size := frame(b[good:])
		if p == nil && !unfinished(b, good, rooted()) {
			return nil, 0, errDamaged
		}
		if p == nil {
			break
		}
		list = append(list, readWrapped(p))
		good += size
	}
	if rooted() {
		// Its first data key, which is written with it, did not come: nothing was sealed.
		last := len(list) - 1
		good -= len(list[last].append(nil))
		list = list[:last]
	}
	return list, good, nil
}

const maxFrame = 4 + frameHead + maxTenant + 4

// frame is the payload of the frame that b begins with, or nil, and the frame's size.
func frame(b []byte) (payload []byte, size int) {
	if len(b) < 4 {
		return nil, 0
	}
	n := binary.LittleEndian.Uint32(b)
	if n < frameHead || n > frameHead+maxTenant {
		return nil, 0
	}
	size = 4 + int(n) + 4
	if len(b) < size || crc32.Checksum(b[4:4+n], crcTable) != binary.LittleEndian.Uint32(b[4+n:]) {
		return nil, size
	}
	return b[4 : 4+n], size
}

// unfinished reports whether bytes from at, which begin with no whole frame, are what a
// crash leaves of one write, which is of one frame or of a tenant's first two.
func unfinished(b []byte, at int, rooted bool) bool {
	rest := b[at:]
	_, size := frame(rest)
	switch {
	case torn(rest):
		return true
	case len(rest) > 2*maxFrame:
		return false
	case hole(b, at, len(b)) || len(rest) < 4:
		return true
	case size == 0 || size < len(rest):
		return false
	case size == len(rest):
		// One bit may be enough for this. It may cost a data key that was just made, but
		// not a root.
		return !rooted
	}
	// Cut short, unless it is the length alone that is wrong.
	for n := frameHead; 4+n+4 <= len(rest); n++ {
		if crc32.Checksum(rest[4:4+n], crcTable) == binary.LittleEndian.Uint32(rest[4+n:]) {
			return false
		}
	}
	return true
}

// unmade reports whether b is what a crash leaves of a file whose head was never
// acknowledged. Nothing is written behind a head that is not.
func unmade(b, head []byte) bool {
	return len(b) <= len(head) && (torn(b) || len(b) < len(head) && bytes.HasPrefix(head, b))
}

// torn reports whether what is left of a file is what a crash leaves of bytes that were
// never written: nothing but zeros.
func torn(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// hole reports whether some block of a disk between from and to was never written, which a
// crash leaves where the file has grown and what is behind the block was: all zeros.
func hole(b []byte, from, to int) bool {
	const block = 512
	for from < to {
		end := min((from/block+1)*block, to)
		if torn(b[from:end]) {
			return true
		}
		from = end
	}
	return false
}

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

// maxUnsynced bounds the records of a file of subjects that are not acknowledged: those
// that a crash may leave holes in. What is wrong before them is damage.
const maxUnsynced = 1024

// parseSubjects reads a file of subjects into where each one's record is. good is how
// many of its bytes are whole, holes how many records among them never reached the disk.
func parseSubjects(b []byte, root keyID) (index map[pseudonym]uint32, good, holes int, err error) {
	head := subjectsHeader(root)
	if unmade(b, head) {
		return map[pseudonym]uint32{}, 0, 0, nil
	}
	if !bytes.HasPrefix(b, head) {
		return nil, 0, 0, errDamaged
	}
	body := bytes.TrimRight(b[headerSize:], "\x00") // a record may end with some zeros
	slots := min((len(body)+recordSize-1)/recordSize, (len(b)-headerSize)/recordSize)
	index, good = make(map[pseudonym]uint32, slots), headerSize
	for i := range slots {
		at := headerSize + i*recordSize
		r, ok := parseRecord(b[at : at+recordSize])
		switch _, twice := index[r.who]; {
		case !ok && i < slots-1 && (i < slots-maxUnsynced || !hole(b, at, at+recordSize)):
			return nil, 0, 0, errDamaged
		case !ok:
			continue
		case twice:
			return nil, 0, 0, errDamaged
		}
		index[r.who] = uint32(i)
		good = at + recordSize
	}
	return index, good, (good-headerSize)/recordSize - len(index), nil
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
