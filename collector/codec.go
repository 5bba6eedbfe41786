package collector

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Versions of the payloads, the first byte of each and Record.Version of its
// frame. FORMAT.md draws them.
const (
	PredictionVersion  uint8 = 6 // 1 to 5 where what a later one added is not there
	FeedbackVersion    uint8 = 2
	ExplanationVersion uint8 = 1 // JSON, without a version byte
	SchemaVersion      uint8 = 1 // JSON, without a version byte
)

// MaxRows is the largest number of rows of one prediction.
const MaxRows = 1 << 24

// Errors of the decoders.
var (
	// ErrCorrupt: the payload is damaged or truncated.
	ErrCorrupt = errors.New("corrupt payload")
	// ErrVersion: the payload was written by a newer Pellucid.
	ErrVersion = errors.New("unsupported version")
)

// AppendPrediction appends the byte form of p to dst (FORMAT.md, "Prediction"):
//
//	version u8 | rows uvarint | id | trace id | span id
//	tenant | model | version | digest | route | schema id | capture | error   (strings)
//	received at varint ms | times: count, varint us each, relative to the one before
//	external ids | status varint | weight f64
//	latency: decode, model, encode, capture, total varint ns
//	features: F32, F64, I64 (count uvarint, raw little-endian), Str
//	outputs: the same | scores: count, f64 | decided
//	from version 2 on: bins id | bins: count, u16
//	from version 3 on: label | observed at varint us
//	from version 4 on: share of the features kept f64
//	from version 5 on: attempts: count, status uvarint, milliseconds f64 each
//	from version 6 on: arrival of the label varint us
//
// It allocates only to grow dst.
func AppendPrediction(dst []byte, p *Prediction) []byte {
	dst = slices.Grow(dst, predictionSize(p))
	version := uint8(1)
	switch {
	case !p.LabelArrival.IsZero():
		version = 6
	case len(p.Attempts) > 0:
		version = 5
	case p.FeatureShare != 0:
		version = 4
	case p.Label != "":
		version = 3
	case p.BinsID != "":
		version = 2
	}
	dst = append(dst, version)
	dst = binary.AppendUvarint(dst, uint64(p.Rows))
	dst = appendString(dst, p.ID)
	dst = appendString(dst, p.TraceID)
	dst = appendString(dst, p.SpanID)
	dst = appendString(dst, p.Tenant)
	dst = appendString(dst, p.Model)
	dst = appendString(dst, p.Version)
	dst = appendString(dst, p.Digest)
	dst = appendString(dst, string(p.Route))
	dst = appendString(dst, p.SchemaID)
	dst = appendString(dst, p.Capture)
	dst = appendString(dst, p.Error)
	ms := p.ReceivedAt.UnixMilli()
	dst = binary.AppendVarint(dst, ms)
	dst = binary.AppendUvarint(dst, uint64(len(p.Times)))
	last := ms * 1000
	for _, t := range p.Times {
		us := t.UnixMicro()
		dst = binary.AppendVarint(dst, us-last)
		last = us
	}
	dst = appendStrings(dst, p.ExternalIDs)
	dst = binary.AppendVarint(dst, int64(p.Status))
	dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(p.Weight))
	for _, ns := range [...]int64{p.Latency.Decode, p.Latency.Model, p.Latency.Encode, p.Latency.Capture, p.Latency.Total} {
		dst = binary.AppendVarint(dst, ns)
	}
	dst = appendColumns(dst, &p.Features)
	dst = appendColumns(dst, &p.Outputs)
	dst = appendF64(dst, p.Scores)
	dst = appendStrings(dst, p.Decided)
	if version == 1 {
		return dst
	}
	dst = appendString(dst, p.BinsID)
	dst = binary.AppendUvarint(dst, uint64(len(p.Bins)))
	for _, b := range p.Bins {
		dst = binary.LittleEndian.AppendUint16(dst, b)
	}
	if version == 2 {
		return dst
	}
	dst = appendString(dst, p.Label)
	dst = binary.AppendVarint(dst, p.LabelObservedAt.UnixMicro())
	if version == 3 {
		return dst
	}
	dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(p.FeatureShare))
	if version == 4 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(p.Attempts)))
	for _, a := range p.Attempts {
		dst = binary.AppendUvarint(dst, uint64(a.Status))
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(a.MS))
	}
	if version == 5 {
		return dst
	}
	return binary.AppendVarint(dst, p.LabelArrival.UnixMicro())
}

// predictionSize is a bound that holds for all but very odd predictions, so
// that dst grows at most once.
func predictionSize(p *Prediction) int {
	n := 256 + len(p.Label) + len(p.ID) + len(p.Tenant) + len(p.Model) + len(p.Version) + len(p.Error) + 10*len(p.Times)
	for _, c := range [...]*Columns{&p.Features, &p.Outputs} {
		n += 4*len(c.F32) + 8*len(c.F64) + 8*len(c.I64) + stringsSize(c.Str)
	}
	return n + 2*len(p.Bins) + 8*len(p.Scores) + stringsSize(p.Decided) + stringsSize(p.ExternalIDs)
}

func stringsSize(v []string) int {
	n := 4
	for _, s := range v {
		n += len(s) + 2
	}
	return n
}

// DecodePrediction is the inverse of AppendPrediction. Counts are checked
// against the bytes that are left before anything is allocated.
func DecodePrediction(b []byte) (*Prediction, error) { return decodePrediction(&reader{b: b}) }

func decodePrediction(r *reader) (*Prediction, error) {
	version := uint8(0)
	if len(r.b) > 0 {
		version = r.b[0]
	}
	if err := r.version(PredictionVersion, "prediction"); err != nil {
		return nil, err
	}
	p := r.prediction()
	p.Rows = r.intValue()
	p.ID = r.string()
	p.TraceID = r.string()
	p.SpanID = r.string()
	p.Tenant = r.word()
	p.Model = r.word()
	p.Version = r.word()
	p.Digest = r.word()
	p.Route = Route(r.word())
	p.SchemaID = r.word()
	p.Capture = r.word()
	p.Error = r.string()
	ms := r.varint()
	p.ReceivedAt = time.UnixMilli(ms).UTC()
	last := ms * 1000
	if n := r.count(1); n > 0 {
		p.Times = cut(r, slabTimes, n)
		for i := range p.Times {
			last += r.varint()
			p.Times[i] = time.UnixMicro(last).UTC()
		}
	}
	p.ExternalIDs = r.strings()
	p.Status = int(r.varint())
	p.Weight = math.Float64frombits(r.u64())
	for _, ns := range [...]*int64{&p.Latency.Decode, &p.Latency.Model, &p.Latency.Encode, &p.Latency.Capture, &p.Latency.Total} {
		*ns = r.varint()
	}
	r.columns(&p.Features)
	r.columns(&p.Outputs)
	p.Scores = r.f64s()
	p.Decided = r.words()
	if version >= 2 {
		p.BinsID = r.word()
		p.Bins = r.u16s()
	}
	if version >= 3 {
		p.Label = r.word()
		p.LabelObservedAt = time.UnixMicro(r.varint()).UTC()
	}
	if version >= 4 {
		p.FeatureShare = math.Float64frombits(r.u64())
	}
	if version >= 5 {
		p.Attempts = make([]Attempt, r.count(9))
		for i := range p.Attempts {
			p.Attempts[i] = Attempt{Status: r.intValue(), MS: math.Float64frombits(r.u64())}
		}
	}
	if version >= 6 {
		p.LabelArrival = time.UnixMicro(r.varint()).UTC()
	}
	// No arrival, of an earlier version or written as the zero time, is that of receipt.
	if p.Label != "" && p.LabelArrival.IsZero() {
		p.LabelArrival = p.ReceivedAt
	}
	return p, r.end("prediction")
}

// AppendFeedback appends the byte form of f to dst (FORMAT.md, "Feedback").
func AppendFeedback(dst []byte, f *Feedback) []byte {
	version := FeedbackVersion
	if f.Arrival.IsZero() {
		version = 1
	}
	dst = append(dst, version)
	for _, s := range [...]string{f.PredictionID, f.ExternalID, f.Tenant, f.Model, f.Label} {
		dst = appendString(dst, s)
	}
	dst = binary.AppendVarint(dst, f.ObservedAt.UnixMicro())
	dst = binary.AppendVarint(dst, f.ReceivedAt.UnixMicro())
	if version == 1 {
		return dst
	}
	return binary.AppendVarint(dst, f.Arrival.UnixMicro())
}

// DecodeFeedback is the inverse of AppendFeedback.
func DecodeFeedback(b []byte) (*Feedback, error) {
	r := &reader{b: b}
	earlier := len(b) > 0 && b[0] == 1
	if err := r.version(FeedbackVersion, "feedback"); err != nil {
		return nil, err
	}
	f := &Feedback{}
	for _, s := range [...]*string{&f.PredictionID, &f.ExternalID, &f.Tenant, &f.Model, &f.Label} {
		*s = r.string()
	}
	f.ObservedAt = time.UnixMicro(r.varint()).UTC()
	f.ReceivedAt = time.UnixMicro(r.varint()).UTC()
	if !earlier {
		f.Arrival = time.UnixMicro(r.varint()).UTC()
	}
	if f.Arrival.IsZero() {
		f.Arrival = f.ReceivedAt
	}
	return f, r.end("feedback")
}

// EncodeExplanation returns the JSON of e.
func EncodeExplanation(e *Explanation) ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode explanation: %w", err)
	}
	return b, nil
}

// DecodeExplanation is the inverse of EncodeExplanation; numbers among the
// attributions' values come back as float64.
func DecodeExplanation(b []byte) (*Explanation, error) {
	e := &Explanation{}
	if err := json.Unmarshal(b, e); err != nil {
		return nil, fmt.Errorf("decode explanation: %w", err)
	}
	return e, nil
}

// PayloadRows returns how many rows of a table a record becomes: the number of
// predictions in it, 1 for any other kind. It reads a few bytes only.
func PayloadRows(kind Kind, payload []byte) int {
	kind, payload = ofDriven(kind, payload)
	if kind != KindPrediction && kind != KindImported && kind != KindRefused || len(payload) < 2 {
		return 1
	}
	n, w := binary.Uvarint(payload[1:])
	if w <= 0 || n > MaxRows {
		return 1
	}
	return int(n)
}

// PayloadKeys returns the prediction id and the trace id a record is found by
// while it waits in the spool, empty where it has none.
func PayloadKeys(kind Kind, payload []byte) (id, traceID string) {
	kind, payload = ofDriven(kind, payload)
	r := &reader{b: payload}
	switch kind {
	case KindPrediction, KindImported, KindRefused:
		if r.version(PredictionVersion, "prediction") != nil {
			return "", ""
		}
		r.uvarint()
		id, traceID = r.string(), r.string()
	case KindFeedback:
		if r.version(FeedbackVersion, "feedback") != nil {
			return "", ""
		}
		id = r.string()
	case KindExplanation:
		var e struct {
			PredictionID string `json:"prediction_id"`
		}
		if json.Unmarshal(payload, &e) != nil {
			return "", ""
		}
		id = e.PredictionID
	}
	if r.err != nil {
		return "", ""
	}
	return id, traceID
}

// PayloadReceived returns when a record was received, zero where it does not say: a
// schema, an explanation, a letter that is driven again.
func PayloadReceived(kind Kind, payload []byte) time.Time {
	switch kind {
	case KindPrediction, KindImported, KindRefused:
		if p, err := DecodePrediction(payload); err == nil {
			return p.ReceivedAt
		}
	case KindFeedback:
		if f, err := DecodeFeedback(payload); err == nil {
			return f.ReceivedAt
		}
	}
	return time.Time{}
}

// A string is a uvarint of 4*n + form, then n bytes. Ids and digests, which are
// most of a small record, take half their letters that way.
const (
	formRaw  = 0 // the string's n bytes
	formHex  = 1 // n bytes whose lower-case hex is the string
	formUUID = 2 // 16 bytes of a UUID in its canonical lower-case form
)

func appendString(dst []byte, s string) []byte {
	switch {
	case len(s) == 36 && isUUID(s):
		dst = append(dst, 16<<2|formUUID)
		for i := 0; i < 36; i += 2 {
			if s[i] == '-' {
				i++
			}
			dst = append(dst, nibble(s[i])<<4|nibble(s[i+1]))
		}
		return dst
	case len(s) >= 8 && len(s)&1 == 0 && isHex(s):
		dst = binary.AppendUvarint(dst, uint64(len(s)/2)<<2|formHex)
		for i := 0; i < len(s); i += 2 {
			dst = append(dst, nibble(s[i])<<4|nibble(s[i+1]))
		}
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(s))<<2|formRaw)
	return append(dst, s...)
}

// nibbles holds the value of each lower-case hex digit, 0xff for other bytes.
var nibbles = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	return t
}()

func nibble(c byte) byte { return nibbles[c] }

func isHex(s string) bool {
	for i := range len(s) {
		if nibbles[s[i]] == 0xff {
			return false
		}
	}
	return true
}

func isUUID(s string) bool {
	for i := range 36 {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return false
			}
			continue
		}
		if nibbles[s[i]] == 0xff {
			return false
		}
	}
	return true
}

func appendStrings(dst []byte, v []string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(v)))
	for _, s := range v {
		dst = appendString(dst, s)
	}
	return dst
}

func appendColumns(dst []byte, c *Columns) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(c.F32)))
	for _, v := range c.F32 {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(v))
	}
	dst = appendF64(dst, c.F64)
	dst = binary.AppendUvarint(dst, uint64(len(c.I64)))
	for _, v := range c.I64 {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(v))
	}
	return appendStrings(dst, c.Str)
}

func appendF64(dst []byte, v []float64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(v)))
	for _, x := range v {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(x))
	}
	return dst
}

// reader takes a payload apart. After the first error every read returns zero,
// so that callers check once, with end.
type reader struct {
	b   []byte
	err error
	d   *Decoder // nil makes everything by itself
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrCorrupt, what)
	}
	r.b = nil
}

// version takes the first byte: want is the newest that is known.
func (r *reader) version(want uint8, what string) error {
	if len(r.b) == 0 {
		return fmt.Errorf("decode %s: %w: empty", what, ErrCorrupt)
	}
	if v := r.b[0]; v == 0 || v > want {
		return fmt.Errorf("decode %s: %w %d (this program knows %d)", what, ErrVersion, v, want)
	}
	r.b = r.b[1:]
	return nil
}

func (r *reader) end(what string) error {
	if r.err == nil && len(r.b) != 0 {
		r.fail("bytes after the end")
	}
	if r.err != nil {
		return fmt.Errorf("decode %s: %w", what, r.err)
	}
	return nil
}

func (r *reader) uvarint() uint64 {
	v, n := uvarintOf(r.b)
	if n <= 0 {
		r.fail("number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// uvarintOf is binary.Uvarint, quicker where the number is one byte.
func uvarintOf(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return binary.Uvarint(b)
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) intValue() int {
	v := r.uvarint()
	if v > MaxRows {
		r.fail("number of rows")
		return 0
	}
	return int(v)
}

// count reads a count of things of at least size bytes each.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.fail("count beyond the payload")
		return 0
	}
	return int(n)
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail("truncated")
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u64() uint64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

func (r *reader) string() string {
	head := r.uvarint()
	n, form := head>>2, head&3
	if n > uint64(len(r.b)) {
		r.fail("string beyond the payload")
		return ""
	}
	b := r.take(int(n))
	switch form {
	case formRaw:
		return r.text(len(b), func(dst []byte) { copy(dst, b) })
	case formHex:
		return r.text(2*len(b), func(dst []byte) { hex.Encode(dst, b) })
	case formUUID:
		if len(b) == 16 {
			return r.text(36, func(dst []byte) { fillUUID(dst, b) })
		}
	}
	r.fail("string form")
	return ""
}

func (r *reader) strings() []string { return r.list(r.string) }

// words is strings, each of which many predictions have in common.
func (r *reader) words() []string { return r.list(r.word) }

func (r *reader) list(one func() string) []string {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	v := cut(r, slabTexts, n)
	for i := range v {
		v[i] = one()
	}
	return v
}

func (r *reader) columns(c *Columns) {
	if n := r.count(4); n > 0 {
		b := r.take(4 * n)
		c.F32 = cut(r, slabF32, n)
		for i := range c.F32 {
			c.F32[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	}
	c.F64 = r.f64s()
	if n := r.count(8); n > 0 {
		b := r.take(8 * n)
		c.I64 = make([]int64, n)
		for i := range c.I64 {
			c.I64[i] = int64(binary.LittleEndian.Uint64(b[8*i:]))
		}
	}
	c.Str = r.strings()
}

func (r *reader) u16s() []uint16 {
	n := r.count(2)
	if n == 0 {
		return nil
	}
	b, v := r.take(2*n), cut(r, slabBins, n)
	for i := range v {
		v[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return v
}

func (r *reader) f64s() []float64 {
	n := r.count(8)
	if n == 0 {
		return nil
	}
	b := r.take(8 * n)
	v := cut(r, slabF64, n)
	for i := range v {
		v[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return v
}
