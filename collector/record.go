package collector

// Kind is what a spool frame holds.
type Kind uint8

// The kinds of frame. Their numbers are on disk and never change.
const (
	KindPrediction  Kind = 1
	KindFeedback    Kind = 2
	KindExplanation Kind = 3
	KindImported    Kind = 4
	KindRefused     Kind = 5
	KindSchema      Kind = 6
	// KindDriven is a dead letter on its way to the store once more.
	KindDriven Kind = 9
)

// FrameBytes is what a frame of the spool has around its payload.
const FrameBytes = 24

// Record is one frame of the spool: a kind, the version of the payload's own
// format, and the payload (see EncodePrediction and its siblings).
type Record struct {
	Kind    Kind
	Version uint8
	Payload []byte
	// Keys find the record while it waits in the spool: prediction id and trace
	// id. They are not part of the frame.
	ID, TraceID string
}

// Position is a place in the spool: a segment's number and a byte offset.
type Position struct {
	Segment uint64
	Offset  int64
}

// Batch is a frozen range of the spool: once planned it is never cut again, and
// its token makes any number of inserts of it count once.
type Batch struct {
	From, To Position
	Token    string
	Records  []Record
	// Again says that records of it may be stored already, under tokens that nobody
	// knows any more: predictions are looked for by their ids first.
	Again bool
}
