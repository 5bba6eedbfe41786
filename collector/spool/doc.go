// Package spool is the write-ahead log between answering and storing: a folder
// of numbered segments of checksummed frames. A record is in it before its
// answer is sent, and leaves it when the batch it belongs to was acknowledged.
//
// It owns the folder: its lock, its node id, its segments, the cursor that
// says what was acknowledged and which batch is frozen, the ledger that remembers
// what a power cut may take from the store, and below it the dead letters (Dead), which the store refuses for what is in them. It never opens a
// connection, never looks into a feature and never waits for whoever drains it.
//
// Invariants:
//   - Append returns nil only when the level holds (see Level). A record whose
//     Append returned an error may still be delivered; one whose Append
//     returned nil is delivered.
//   - A batch is planned on disk before it is handed out. It is handed out again
//     with the same records and the same token, also after a restart, until Ack.
//   - Ack makes the cursor durable before any segment is deleted.
//   - At LevelMachine what is acknowledged stays for Config.KeepFor and, after a power
//     cut, is offered to be looked for in the store; what Rotate and Before have said to
//     be gone never is.
//   - A segment in which damage was found before its tail is never deleted: it
//     is renamed to .bad and counted. A torn tail is copied to a .bad file
//     before it is cut.
//   - A dead letter is on disk before the drain goes on, and goes when the batch that
//     drives it is stored; both happen once however often a batch is offered.
//   - A segment that once failed to be written or synced is never written
//     again; the next one says where it ends.
//
// FORMAT.md draws every byte.
package spool
