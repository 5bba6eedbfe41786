package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Entry is one act. Seq and Time are given by Append.
type Entry struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	// Actor is who did it, Action what: "read", "explain", "export", "erase",
	// "retention", "model.load" and so on; those that begin with "audit." are the
	// log's own.
	Actor  string `json:"actor"`
	Action string `json:"action"`
	Tenant string `json:"tenant,omitempty"`
	Model  string `json:"model,omitempty"`
	// Object is what it was done to, without a value in clear.
	Object string `json:"object,omitempty"`
	// Outcome is empty for what was done; else "begun", "failed", "dry run" and the
	// like.
	Outcome string           `json:"outcome,omitempty"`
	Counts  map[string]int64 `json:"counts,omitempty"`
	TraceID string           `json:"trace_id,omitempty"`
	// Prev is the MAC before a file's first entry, in that entry.
	Prev string `json:"prev,omitempty"`
}

// The log's own actions.
const (
	actionFile   = "audit.file"   // the first entry of each file
	actionDrop   = "audit.drop"   // the oldest file is about to be deleted
	actionCut    = "audit.cut"    // a torn tail was cut
	actionDamage = "audit.damage" // what follows in a file does not fit the chain
)

const (
	macSize = sha256.Size
	// maxText bounds each text of an entry, maxLine a line; a longer one was not
	// written here.
	maxText = 8 << 10
	maxLine = 64 << 10
)

var (
	macKey = []byte(`,"mac":"`)
	macEnd = []byte("\"}\n")
	// tailLen is what a line has after the entry proper.
	tailLen = len(macKey) + 2*macSize + len(macEnd)
)

// mac is the chain's state after an entry.
type mac [macSize]byte

func (m mac) String() string { return hex.EncodeToString(m[:]) }

// chain computes the MAC of an entry from the one before and the entry's bytes.
func chain(key []byte, prev mac, entry []byte) mac {
	h := hmac.New(sha256.New, key)
	h.Write(prev[:])
	h.Write(entry)
	return mac(h.Sum(nil))
}

// derive makes a key for one use out of the one in the file.
func derive(key []byte, use string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("pellucid audit " + use))
	return h.Sum(nil)
}

// encode returns an entry's line and its MAC.
func encode(key []byte, prev mac, e *Entry) ([]byte, mac, error) {
	for _, s := range []*string{&e.Actor, &e.Action, &e.Tenant, &e.Model, &e.Object, &e.Outcome, &e.TraceID} {
		*s = clip(*s)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // a filter is to be read by people
	if err := enc.Encode(e); err != nil {
		return nil, prev, fmt.Errorf("encode an audit entry: %w", err)
	}
	body := b.Bytes()[:b.Len()-2] // without the brace and the line's end
	m := chain(key, prev, body)
	line := make([]byte, 0, len(body)+tailLen)
	line = append(append(line, body...), macKey...)
	line = append(hex.AppendEncode(line, m[:]), macEnd...)
	if len(line) > maxLine {
		return nil, prev, fmt.Errorf("encode an audit entry: %d bytes are too many", len(line))
	}
	return line, m, nil
}

func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "?")
	}
	return s
}

var errLine = errors.New("it does not fit the chain")

// decode checks one whole line against the MAC before it. The bytes themselves are
// what is signed, so that nothing of JSON's freedom matters.
func decode(key []byte, prev mac, line []byte) (*Entry, mac, error) {
	n := len(line) - tailLen
	if n < 1 || !bytes.Equal(line[n:n+len(macKey)], macKey) || !bytes.HasSuffix(line, macEnd) {
		return nil, prev, errLine
	}
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return nil, prev, errLine
	}
	if e.Action == actionFile {
		// The first of a file names its forerunner, whose file may be gone. The MAC
		// vouches for the name.
		named, err := parseMAC(e.Prev)
		if err != nil {
			return nil, prev, errLine
		}
		prev = named
	}
	m := chain(key, prev, line[:n])
	have, err := parseMAC(string(line[n+len(macKey) : n+len(macKey)+2*macSize]))
	if err != nil || !hmac.Equal(m[:], have[:]) {
		return nil, prev, errLine
	}
	return &e, m, nil
}

// parseMAC reads the hexadecimal form, of which only lower case is ours.
func parseMAC(s string) (m mac, err error) {
	if len(s) != 2*macSize || strings.ToLower(s) != s {
		return m, errLine
	}
	_, err = hex.Decode(m[:], []byte(s))
	return m, err
}
