// Package audit keeps the record of who read, explained, exported, changed and
// deleted what: files of one JSON object a line, each line chained to the one
// before by a keyed MAC, so that an entry that was changed, taken out, put in or
// moved is found by whoever has the key.
//
// A chain alone does not show that its end was cut off. So its head (the number
// and MAC of the last entry) is exported at the start, every ten minutes and at
// the end: into the log, into the folder, and into a file elsewhere where one is
// configured. Verify holds the chain against the heads it is given; entries since
// the last export are the ones that a cut can hide.
//
// It never holds a feature's value, a label or the caller's own id in clear: the
// caller of Append replaces them by Hash. It asks nobody who somebody is, and it is
// no part of a prediction's way.
//
// Every entry is in the operating system's hands when Append returns, so that a
// killed process loses none; Durable entries are on the disk by then, the others
// within a second. A tail that a crash tore is cut at the next Open and the cut
// is an entry itself. Whatever else does not fit the chain is left as it is, and a
// new file is begun after what is good.
//
// The folder belongs to one process, which holds the lock of the spool beside it.
package audit
