package collector

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// DeadLetterVersion is the version of a dead letter's byte form.
const DeadLetterVersion uint8 = 1

// DeadLetter is a record, or its part in a rollup, that the store refused for what
// is in it. It stays until it is driven again and stored, or deleted.
type DeadLetter struct {
	// ID is made of batch, position and insert, so that the same refusal is the same
	// letter however often the batch is offered.
	ID string `json:"id"`
	// Batch is the token of the batch, Position the record's place in it.
	Batch    string `json:"batch"`
	Position int    `json:"position"`
	// Insert is what was refused: "predictions", "feedback", "explanations",
	// "schemas", "undecodable"; or "traffic" and "bins", when the row itself is stored
	// and only a rollup lacks it.
	Insert string `json:"insert"`
	// Code and Reason are the server's number and name of the refusal; Detail is the
	// name of the constraint, where it was one. Messages are not kept: they quote
	// values.
	Code   int       `json:"code"`
	Reason string    `json:"reason"`
	Detail string    `json:"detail,omitempty"`
	At     time.Time `json:"at"`
	// Tries counts how often it was refused, driving again included.
	Tries int `json:"tries"`
	// Tenant, Model and Record (the prediction's id) say whose it is.
	Tenant string `json:"tenant,omitempty"`
	Model  string `json:"model,omitempty"`
	Record string `json:"record,omitempty"`
	Rows   int    `json:"rows"`
	// BinsID and Bins are the row's bins where Insert is "bins".
	BinsID string `json:"bins_id,omitempty"`
	Bins   []byte `json:"bins,omitempty"`
	// Bytes is the payload's size; Driving says that it is on its way once more.
	Bytes   int  `json:"bytes"`
	Driving bool `json:"driving,omitempty"`

	Kind    Kind   `json:"-"`
	Version uint8  `json:"-"`
	Payload []byte `json:"-"`
}

// The inserts that a dead letter may be of besides a table's own.
const (
	InsertPredictions = "predictions"
	InsertTraffic     = "traffic"
	InsertBins        = "bins"
)

// Rollup reports whether only a rollup refused: the record itself is stored.
func (l *DeadLetter) Rollup() bool { return l.Insert == InsertTraffic || l.Insert == InsertBins }

// DeadLetterID names the refusal of one record of a batch by one insert.
func DeadLetterID(batch string, position int, insert string) string {
	sum := sha256.Sum256([]byte(batch + ":" + strconv.Itoa(position) + ":" + insert))
	return hex.EncodeToString(sum[:16])
}

const deadLetterHead = 8

// EncodeDeadLetter returns the byte form of l (FORMAT.md, "Dead letter"):
//
//	version u8 = 1 | kind u8 | record's version u8 | 0 | length u32 | JSON | payload
func EncodeDeadLetter(l *DeadLetter) ([]byte, error) {
	meta, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encode dead letter: %w", err)
	}
	b := make([]byte, deadLetterHead, deadLetterHead+len(meta)+len(l.Payload))
	b[0], b[1], b[2] = DeadLetterVersion, byte(l.Kind), l.Version
	binary.LittleEndian.PutUint32(b[4:], uint32(len(meta)))
	return append(append(b, meta...), l.Payload...), nil
}

// DecodeDeadLetter is the inverse of EncodeDeadLetter; the payload shares b's
// memory.
func DecodeDeadLetter(b []byte) (*DeadLetter, error) {
	if len(b) > 0 && b[0] > DeadLetterVersion {
		return nil, fmt.Errorf("decode dead letter: %w %d", ErrVersion, b[0])
	}
	meta, payload, ok := splitDeadLetter(b)
	if !ok {
		return nil, fmt.Errorf("decode dead letter: %w", ErrCorrupt)
	}
	l := &DeadLetter{}
	if err := json.Unmarshal(meta, l); err != nil {
		return nil, fmt.Errorf("decode dead letter: %w: %w", ErrCorrupt, err)
	}
	l.Kind, l.Version, l.Payload = Kind(b[1]), b[2], payload
	if l.ID == "" || l.Kind == KindDriven {
		return nil, fmt.Errorf("decode dead letter: %w", ErrCorrupt)
	}
	return l, nil
}

func splitDeadLetter(b []byte) (meta, payload []byte, ok bool) {
	if len(b) < deadLetterHead || b[0] != DeadLetterVersion {
		return nil, nil, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if int64(n) > int64(len(b)-deadLetterHead) {
		return nil, nil, false
	}
	end := deadLetterHead + int(n)
	return b[deadLetterHead:end], b[end:], true
}

// ofDriven sees through a driven letter to the record in it.
func ofDriven(kind Kind, payload []byte) (Kind, []byte) {
	if kind != KindDriven {
		return kind, payload
	}
	if _, inner, ok := splitDeadLetter(payload); ok && Kind(payload[1]) != KindDriven {
		return Kind(payload[1]), inner
	}
	return kind, payload
}
